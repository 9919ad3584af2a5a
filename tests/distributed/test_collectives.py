"""The process group and its collectives: on 1, 2 and 4 ranks against NumPy, and what happens when ranks disagree."""

import os
import re
import signal
import sys
import time

import numpy as np
import pytest

import minidl
from minidl import distributed as dist
from tests.helpers.ranks import ended, mpiexec, needs_mpi, on_ranks, pids

slow = [pytest.mark.slow, needs_mpi]
RANKS = [pytest.param(n, marks=slow) for n in (1, 2, 4)]
OF_NUMPY = {"SUM": np.sum, "AVG": np.mean, "PRODUCT": np.prod, "MIN": np.min, "MAX": np.max}


def values(rank, dtype="float32"):
    return (np.random.default_rng(rank).integers(1, 5, (3, 4)) / 2).astype(dtype)


def collectives():
    """Everything at once, since starting the ranks takes the longest; by name, what each collective gave."""
    rank, found = dist.get_rank(), {}
    for op in dist.ReduceOp:
        for dtype in ("float32", "float64", "int64")[: 2 if op is dist.ReduceOp.AVG else 3]:
            found[op.name, dtype] = minidl.tensor(values(rank, dtype))
            assert dist.all_reduce(found[op.name, dtype], op) is None
    found["strided"] = minidl.tensor(values(rank)).t()
    dist.all_reduce(found["strided"])
    found["number"] = minidl.tensor(float(rank))
    dist.all_reduce(found["number"])
    found["reduce"] = minidl.tensor(values(rank))
    dist.reduce(found["reduce"], dst=0, op=dist.ReduceOp.AVG)
    found["broadcast"] = minidl.tensor(values(rank))
    dist.broadcast(found["broadcast"], src=dist.get_world_size() - 1)
    found["gather"] = minidl.zeros(dist.get_world_size(), 3, 4)
    dist.all_gather(list(found["gather"]), minidl.tensor(values(rank)))
    found["async"] = minidl.tensor(values(rank)), minidl.tensor(values(rank))
    first, second = [dist.all_reduce(x, async_op=True) for x in found["async"]]
    assert second.wait()
    assert first.wait()
    assert first.is_completed()
    dist.barrier()
    found["names"] = dist.get_rank(), dist.get_world_size(), dist.get_backend(), dist.is_initialized()
    found["environment"] = [int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    return {name: x.numpy() if isinstance(x, minidl.Tensor) else x for name, x in found.items() if name != "async"} | {
        "async": [x.numpy() for x in found["async"]]
    }


@pytest.mark.parametrize("ranks", RANKS)
def test_collectives_against_numpy(ranks):
    given = np.array([values(rank) for rank in range(ranks)])
    for rank, found in enumerate(on_ranks(ranks, collectives)):
        for name, function in OF_NUMPY.items():
            for dtype in ("float32", "float64", "int64")[: 2 if name == "AVG" else 3]:
                np.testing.assert_array_equal(found[name, dtype], function(given.astype(dtype), axis=0))
        np.testing.assert_array_equal(found["strided"], given.sum(axis=0).T)
        assert found["number"] == sum(range(ranks))
        np.testing.assert_array_equal(found["reduce"], given.mean(axis=0) if rank == 0 else given[rank])
        np.testing.assert_array_equal(found["broadcast"], given[-1])
        np.testing.assert_array_equal(found["gather"], given)
        np.testing.assert_array_equal(found["async"], [given.sum(axis=0)] * 2)
        assert found["names"] == (rank, ranks, "mpi", True)
        assert found["environment"] == [rank, ranks, rank]


def disagreements():
    """The error of each rank where one calls another collective, where shapes differ, and that all can go on."""
    rank, said = dist.get_rank(), []
    for one, other in (
        (dist.barrier, lambda: dist.all_reduce(minidl.ones(2))),
        (lambda: dist.all_reduce(minidl.ones(2)), lambda: dist.all_reduce(minidl.ones(3))),
        (lambda: dist.broadcast(minidl.ones(2), 0), lambda: dist.broadcast(minidl.ones(2), 1)),
    ):
        with pytest.raises(RuntimeError) as caught:
            (other if rank == 1 else one)()
        said.append(str(caught.value))
        dist.barrier()
    return said


@pytest.mark.slow
@needs_mpi
def test_ranks_that_disagree_all_raise_and_can_go_on():
    first, *others = on_ranks(3, disagreements)
    assert others == [first, first]
    assert "ranks 0, 2: barrier; rank 1: all_reduce with SUM of shape (2,), float32" in first[0]
    assert (
        "ranks 0, 2: all_reduce with SUM of shape (2,), float32; rank 1: all_reduce with SUM of shape (3,)" in first[1]
    )
    assert "ranks 0, 2: broadcast from rank 0 of shape (2,), float32; rank 1: broadcast from rank 1" in first[2]


START = "import os, time, signal, minidl\nfrom minidl import distributed as dist\ndist.init_process_group()\n"
ENDS = {  # what rank 1 does while rank 0 waits for it, or does not, and what is printed
    "an error": (
        "if dist.get_rank() == 1: raise ValueError('bad data')\n",
        "rank 0: barrier; rank 1: has ended with Val",
    ),
    "an early end": ("if dist.get_rank() == 1: raise SystemExit\n", "rank 0: barrier; rank 1: has ended. All must"),
    "an end in a reduction": (
        "if dist.get_rank() == 1: dist.all_reduce(minidl.ones(2), async_op=True); raise ValueError\n"
        "dist.all_reduce(minidl.ones(2), async_op=True)\n",
        "rank 1 has ended with ValueError() in the middle of all_reduce with SUM of shape (2,), float32: ending all",
    ),
    "an error, and nobody waits": (
        "if dist.get_rank() == 1: raise ValueError('bad data')\ntime.sleep(60)\n",
        "rank 1 has ended with ValueError('bad data') alone: ending all ranks",
    ),
    "a kill": ("if dist.get_rank() == 1: os.kill(os.getpid(), signal.SIGKILL)\n", "signal 9"),
    "a kill, and nobody waits": (
        "if dist.get_rank() == 1: os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)\n",
        "signal 9",
    ),
}


@pytest.mark.slow
@needs_mpi
@pytest.mark.parametrize("launcher", [[], ["-m", "mpi4py"]], ids=["python", "mpi4py"])
@pytest.mark.parametrize("end", ENDS)
def test_a_rank_that_ends_ends_all_of_them(end, launcher):
    lines, said = ENDS[end]
    code = (
        f"{START}dist.barrier()\ndist.get_rank() or print('started', flush=True)\n{lines}dist.barrier(); dist.barrier()"
    )
    process = mpiexec(2, *launcher, "-c", code)
    assert process.stdout.readline() == "started\n"
    begun = time.monotonic()
    printed, errors = ended(process, 30)
    assert time.monotonic() - begun < 10
    assert process.returncode != 0
    assert said in printed + errors  # mpiexec prints on stdout that a process was killed


@pytest.mark.slow
@needs_mpi
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_ranks(number):
    code = "dist.get_rank() or print('started', flush=True)\nwhile True: dist.all_reduce(minidl.ones(9))"
    process = mpiexec(2, "-c", f"{START}dist.barrier()\n{code}")
    assert process.stdout.readline() == "started\n"
    ranks = pids(process)
    assert len(ranks) == 2
    process.send_signal(number)
    begun = time.monotonic()
    ended(process, 30)
    assert process.returncode != 0
    while any(map(runs, ranks)):
        assert time.monotonic() - begun < 10
        time.sleep(0.1)


def runs(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@needs_mpi
def test_ranks_that_mpi_did_not_start_are_refused():
    code = "from minidl import distributed as dist; dist.init_process_group(world_size=3)"
    _, errors = ended(mpiexec(2, "-c", code), 30)
    assert re.search(
        r"this should be rank \? of 3, but to MPI it is rank \d of 2: start the ranks with mpiexec", errors
    )


def test_before_the_group_is_there():
    assert dist.is_available()
    assert not dist.is_initialized()
    dist.destroy_process_group()
    for function in (dist.get_rank, dist.get_world_size, dist.get_backend, dist.barrier):
        with pytest.raises(ValueError, match=r"call init_process_group\(\) first"):
            function()


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r'needs mpi4py and an MPI library \(.*pip install "minidl\[mpi\]"'):
        dist.init_process_group()
    with pytest.raises(NotImplementedError, match=r'no backend "nccl"; write backend="mpi"'):
        dist.init_process_group("nccl")
    with pytest.raises(ValueError, match=r"backend must be \"mpi\" or \"gloo\", which means MPI too, not 'ucc'"):
        dist.init_process_group("ucc")
