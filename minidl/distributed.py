"""Several processes that train one model together, on MPI: one rank a process, started by ``mpiexec -n N``.

A collective operation is one that every rank calls, in the same order. If one rank calls another, or has ended, MPI
itself would wait for ever. So each collective first compares what the ranks are about to do, by one reduction of 16
bytes; where they differ, every rank raises and says who is where. What waits polls, so that signals are handled.

mpi4py is imported only by `init_process_group`. Sources: MPI: A Message-Passing Interface Standard, version 4.1, 2023,
chapter 6; L. Dalcin, Y. Fang, mpi4py: status update after 12 years of development, doi 10.1109/MCSE.2021.3083216.
"""

from __future__ import annotations

import atexit
import hashlib
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np

from minidl import kernels, versions
from minidl.kernels import devices
from minidl.tensor import Array, Tensor

__all__ = [
    "ReduceOp",
    "Work",
    "all_gather",
    "all_reduce",
    "barrier",
    "broadcast",
    "destroy_process_group",
    "get_backend",
    "get_rank",
    "get_world_size",
    "init_process_group",
    "is_available",
    "is_initialized",
    "reduce",
]

LAUNCHERS = {  # the environment variables in which mpiexec of MPICH, or of Open MPI, says who is who
    "RANK": ("PMI_RANK", "OMPI_COMM_WORLD_RANK"),
    "WORLD_SIZE": ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE"),
    "LOCAL_RANK": ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK"),
}
PATIENCE = 2.0  # seconds that a rank which ends on an error gives the others to end as well


class ReduceOp(Enum):
    """How the values of the ranks are combined."""

    SUM, AVG, PRODUCT, MIN, MAX = "SUM", "AVG", "PROD", "MIN", "MAX"


class OutOfStep(RuntimeError):
    """The ranks are not at the same collective operation."""


class Group:
    """All ranks, and the two communicators that they talk on: for collectives, and for what to do when one fails.

    Attributes
    ----------
    begun : list of str
        What this rank has begun together with others and not completed. If it ended now, they would wait.
    broken : bool
        Whether the ranks were at different places when they last met.
    """

    def __init__(self, mpi: Any, backend: str) -> None:
        self.mpi, self.backend = mpi, backend
        self.comm, self.aside = mpi.COMM_WORLD.Dup(), mpi.COMM_WORLD.Dup()
        self.rank, self.size = int(self.comm.rank), int(self.comm.size)
        self.begun: list[str] = []
        self.broken = False

    def agree(self, what: str) -> Work:
        """Begin to compare with the other ranks what this one is about to do; waiting raises if they differ."""
        digest = int.from_bytes(hashlib.blake2b(what.encode(), digest_size=7).digest(), "big")
        largest = np.array([digest, -digest])  # -max(-x) is the smallest
        request = self.comm.Iallreduce(self.mpi.IN_PLACE, largest, self.mpi.MAX)
        return Work(request, lambda: self._compared(what, largest[0] == -largest[1]))

    def _compared(self, what: str, same: bool) -> None:
        self.broken = not same
        if same:
            return
        self.begun.clear()  # nobody waits for it now
        raise OutOfStep(
            f"distributed: the ranks are at different places: {by_rank(self.aside.allgather(what))}. All must take the "
            "same steps: give each the same number of batches (DistributedSampler does), and leave what one rank does "
            "alone without collective operations (call model.module there)"
        )

    def end(self) -> None:
        """Leave together with the other ranks, or end them all if they do not come or wait for what this one began."""
        failed = sys.exc_info()[1] or getattr(sys, "last_value", None)  # on its way, or already printed
        what = f"has ended with {failed!r}" if failed else "has ended"
        try:
            coming = self.begun or self.broken or self.agree(what)._done_in(PATIENCE if failed else math.inf)
        except OutOfStep as error:
            coming = True
            print(f"minidl: rank {self.rank}: {error}", file=sys.stderr)
        together = coming and Work(self.aside.Ibarrier())._done_in(PATIENCE)
        if self.begun or not together:
            why = f"in the middle of {', '.join(self.begun)}" if self.begun else "alone"
            print(f"minidl: rank {self.rank} {what} {why}: ending all ranks", file=sys.stderr, flush=True)
            self.mpi.COMM_WORLD.Abort(1)


def by_rank(said: Sequence[str]) -> str:
    """What the ranks said, those that said the same together: "rank 0: a; ranks 1, 2: b"."""
    ranks: dict[str, list[str]] = {}
    for rank, text in enumerate(said):
        ranks.setdefault(text, []).append(str(rank))
    return "; ".join(f"rank{'s' * (len(of) > 1)} {', '.join(of)}: {text}" for text, of in ranks.items())


class Work:
    """A reduction or transfer that goes on while the program does: what a collective returns with ``async_op=True``."""

    def __init__(self, request: Any, finish: Callable[[], Any] = lambda: None) -> None:
        self._request, self._finish, self._done = request, finish, False

    def is_completed(self) -> bool:
        """Whether it is complete. Asking lets MPI go on with it, which works only while it is called."""
        if not self._done and self._request.Test():
            self._done = True
            self._finish()
        return self._done

    def _done_in(self, seconds: float) -> bool:
        """Whether it is complete within this time. Polls, so that Python handles signals meanwhile."""
        begun = time.monotonic()
        while not self.is_completed():
            waited = time.monotonic() - begun
            if waited > seconds:
                return False
            if waited > 5e-3:  # leave the core to others; before that, the shortest sleep would take longer
                time.sleep(1e-4 if waited < 0.1 else 1e-3)
        return True

    def wait(self, timeout: Any = None) -> bool:
        """Wait until it is complete; only then may the tensors be used. `timeout` has no effect."""
        return self._done_in(math.inf)


_group: Group | None = None


def current(group: Any = None) -> Group:
    """The process group. There is one, of all ranks."""
    if _group is None:
        raise ValueError("the default process group has not been initialized: call init_process_group() first")
    if group is not None:
        raise NotImplementedError("group must be None: minidl has one process group, of all ranks")
    return _group


def is_available() -> bool:
    """True, as far as can be said without mpi4py, which `init_process_group` imports."""
    return True


def is_initialized() -> bool:
    """Whether `init_process_group` has been called."""
    return _group is not None


def get_rank(group: None = None) -> int:
    """This process's number, from 0. ValueError before `init_process_group`."""
    return current(group).rank


def get_world_size(group: None = None) -> int:
    """The number of ranks. ValueError before `init_process_group`."""
    return current(group).size


def get_backend(group: None = None) -> str:
    """The backend's name as it was given. ValueError before `init_process_group`."""
    return current(group).backend


def set_environment() -> None:
    """Set RANK, WORLD_SIZE and LOCAL_RANK, which scripts read, from the launcher's own variables."""
    for name, theirs in LAUNCHERS.items():
        for value in [os.environ[variable] for variable in theirs if variable in os.environ][:1]:
            os.environ[name] = value


def init_process_group(
    backend: str | None = None,
    init_method: str | None = None,
    timeout: Any = None,
    world_size: int = -1,
    rank: int = -1,
) -> None:
    """Join the process group of all ranks that ``mpiexec`` has started; on its own, a process is rank 0 of 1.

    Sets RANK, WORLD_SIZE and LOCAL_RANK in the environment, and shares the cores of each machine among its ranks:
    minidl's kernels run on cores / ranks threads from then on, unless fewer were set before. Rank 0 says so in a line
    on stderr. At its end each rank waits for the others; a rank that ends on an error ends them all.

    Parameters
    ----------
    backend : {"mpi", "gloo"}, optional
        Both mean MPI: "gloo", PyTorch's for the CPU, is accepted for its scripts.
    init_method, timeout
        Without effect: MPI knows how to reach the ranks.
    world_size, rank : int, optional
        Checked against MPI's.

    Raises
    ------
    ImportError
        If mpi4py is missing, or finds no MPI library.
    NotImplementedError
        For the backend "nccl". Gradients on a GPU are averaged through the CPU's memory.
    RuntimeError
        If the group is initialized already, or another number of ranks was asked for than there are.
    """
    global _group
    if _group is not None:
        raise RuntimeError("init_process_group: the process group is initialized already")
    _check_backend(backend)
    group = Group(_mpi(), backend or "mpi")
    set_environment()
    _check_place(group, world_size, rank)
    here = group.comm.Split_type(group.mpi.COMM_TYPE_SHARED)
    os.environ |= {"RANK": str(group.rank), "WORLD_SIZE": str(group.size), "LOCAL_RANK": str(here.rank)}
    shared = _share_cores(here)
    if group.rank == 0:
        means = "" if group.backend == "mpi" else f', which backend="{group.backend}" means here'
        print(f"minidl: {_plural(group.size, 'rank')} on MPI{means}; {shared}", file=sys.stderr)
    _group = group
    atexit.register(destroy_process_group)


def _check_backend(backend: str | None) -> None:
    if backend == "nccl":
        raise NotImplementedError(
            'init_process_group: minidl has no backend "nccl"; write backend="mpi", which averages the gradients of '
            "a GPU through the CPU's memory"
        )
    if backend not in (None, "mpi", "gloo"):
        raise ValueError(f'init_process_group: backend must be "mpi" or "gloo", which means MPI too, not {backend!r}')


def _check_place(group: Group, world_size: int, rank: int) -> None:
    """Raise unless the script and the environment mean the ranks that MPI has started."""
    wanted = world_size if world_size != -1 else int(os.environ.get("WORLD_SIZE", group.size))
    if (wanted, rank) not in ((group.size, group.rank), (group.size, -1)):
        raise RuntimeError(
            f"init_process_group: this should be rank {rank if rank != -1 else '?'} of {wanted}, but to MPI it is rank "
            f"{group.rank} of {group.size}: start the ranks with mpiexec -n {wanted} python -m mpi4py script.py"
        )


def _share_cores(here: Any) -> str:
    """Give each rank of this machine its share of the cores' threads; a line that says so."""
    cores = len(set().union(*here.allgather(_cores())))
    threads = min(kernels.get_num_threads(), max(1, cores // here.size))
    kernels.set_num_threads(threads)
    return f"on this machine {here.size} with {_plural(threads, 'thread')} each, for {_plural(cores, 'core')}"


def _plural(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def _mpi() -> Any:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: it found no MPI library
        raise ImportError(
            f'init_process_group needs mpi4py and an MPI library ({error}): python -m pip install "minidl[mpi]"'
        ) from None
    return MPI


def _cores() -> set[int]:
    """The cores that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def destroy_process_group(group: None = None) -> None:
    """Leave the process group, once all ranks do. Runs at the end of the program if it is not called."""
    global _group
    if _group is not None:
        _group.end()
        _group = None
        atexit.unregister(destroy_process_group)


def all_reduce(tensor: Tensor, op: ReduceOp = ReduceOp.SUM, group: None = None, async_op: bool = False) -> Work | None:
    """Combine the tensors of all ranks, in place on each: y = x_0 + ... + x_(N-1).

    Two runs give the same bits, and so do all ranks; N and 2N ranks may differ by rounding.

    Parameters
    ----------
    tensor : Tensor
        Of the same shape and dtype on each rank. A contiguous tensor on the CPU is passed to MPI without a copy.
    op : ReduceOp
        AVG is the sum divided by the number of ranks.
    async_op : bool
        Return a `Work` at once; the tensor may be used after its ``wait()``.

    Raises
    ------
    RuntimeError
        On every rank, if they do not all call it with the same shape, dtype and operation.

    Notes
    -----
    MPI chooses the algorithm; for large tensors a rank sends and receives 2(N - 1)/N times the tensor's size, the least
    possible: P. Patarasu, X. Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, Journal of
    Parallel and Distributed Computing 69, 2009.
    """
    mine = current(group)
    how = _mpis(op, tensor, mine)

    def finish(x: Array) -> None:
        write(tensor, _averaged(x, op, mine))

    def start(x: Array) -> Any:
        return mine.comm.Iallreduce(mine.mpi.IN_PLACE, x, how)

    return _collective(f"all_reduce with {op.name}", tensor, start, finish, async_op)


def reduce(
    tensor: Tensor, dst: int, op: ReduceOp = ReduceOp.SUM, group: None = None, async_op: bool = False
) -> Work | None:
    """As `all_reduce`, but only rank `dst` gets the result; the other tensors stay as they are."""
    mine = current(group)
    how = _mpis(op, tensor, mine)

    def start(x: Array) -> Any:
        buffers = (mine.mpi.IN_PLACE, x) if mine.rank == dst else (x, None)
        return mine.comm.Ireduce(*buffers, op=how, root=dst)

    def finish(x: Array) -> None:
        if mine.rank == dst:
            write(tensor, _averaged(x, op, mine))

    return _collective(f"reduce to rank {dst} with {op.name}", tensor, start, finish, async_op)


def broadcast(tensor: Tensor, src: int, group: None = None, async_op: bool = False) -> Work | None:
    """Copy the tensor of rank `src` into that of every other rank."""
    comm = current(group).comm
    start, finish = (lambda x: comm.Ibcast(x, root=src)), (lambda x: write(tensor, x))
    return _collective(f"broadcast from rank {src}", tensor, start, finish, async_op)


def all_gather(
    tensor_list: Sequence[Tensor], tensor: Tensor, group: None = None, async_op: bool = False
) -> Work | None:
    """Copy the tensor of each rank r into ``tensor_list[r]`` on every rank; all have the same shape and dtype."""
    mine = current(group)
    if [x.shape for x in tensor_list] != [tensor.shape] * mine.size:
        raise ValueError(
            f"all_gather: tensor_list must have {mine.size} tensors, one for each rank, of shape {tensor.shape}, and "
            f"has those of shapes {[tuple(x.shape) for x in tensor_list]}"
        )
    given = np.empty((mine.size, *tensor.shape), tensor.dtype)

    def finish(_: Array) -> None:
        for x, array in zip(tensor_list, given, strict=True):
            write(x, array)

    return _collective("all_gather", tensor, lambda x: mine.comm.Iallgather(x, given), finish, async_op)


def barrier(group: None = None, async_op: bool = False) -> Work | None:
    """Wait until all ranks have come here."""
    return _result(current(group).agree("barrier"), async_op)


def _result(work: Work, async_op: bool) -> Work | None:
    if not async_op:
        work.wait()
    return work if async_op else None


def _mpis(op: ReduceOp, tensor: Tensor, group: Group) -> Any:
    """MPI's operation; it has no average."""
    if tensor.dtype.kind not in ("f" if op is ReduceOp.AVG else "fiu"):
        raise RuntimeError(f"all_reduce: there is no {op.name} of {tensor.dtype}; convert the tensor with .to() first")
    return group.mpi.SUM if op is ReduceOp.AVG else getattr(group.mpi, op.value)


def _averaged(x: Array, op: ReduceOp, group: Group) -> Array:
    if op is ReduceOp.AVG:
        x /= group.size
    return x


def _collective(
    what: str, tensor: Tensor, start: Callable[[Array], Any], finish: Callable[[Array], None], async_op: bool
) -> Work | None:
    """Once all ranks agree, start a transfer with a contiguous array of the tensor's values."""
    group, x = current(), np.asarray(devices.moved(tensor.array, devices.CPU), order="C")
    what = f"{what} of shape {tuple(tensor.shape)}, {tensor.dtype}"
    group.begun.append(what)
    group.agree(what).wait()

    def done() -> None:
        group.begun.remove(what)
        finish(x)

    return _result(Work(start(x), done), async_op)


def write(tensor: Tensor, array: Array) -> None:
    """Overwrite the tensor's values. If the array is the tensor's own, only count the change."""
    if tensor.array is not array:
        tensor.array[...] = devices.beside(array, tensor.array)
    versions.written(tensor)
