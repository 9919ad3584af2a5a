"""Data-parallel training: each rank computes the gradients of its part of a batch, and all use their average.

With the loss of rank r the mean over its b images, the average of the N gradients is the gradient of the mean over all
N * b images: N ranks train as one process would on the joined batch. So that the reductions go on while the backward
pass does, gradients are reduced in buckets, each as soon as it is complete. A backward pass begins with the gradients
of the last layers, so buckets are filled from the last parameter to the first.

Source: S. Li et al., PyTorch Distributed: experiences on accelerating data parallel training, arXiv:2006.15704, 2020.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

from minidl import distributed
from minidl.autograd import is_grad_enabled
from minidl.distributed import Work, by_rank, write
from minidl.hooks import at_end, register_post_accumulate_grad_hook
from minidl.kernels import devices
from minidl.nn.module import Module
from minidl.tensor import Tensor

__all__ = ["DistributedDataParallel"]

MIB = 2**20
FIRST_BUCKET = 1 * MIB  # bytes: it is complete early, so that the reductions begin early


class DistributedDataParallel(Module):
    """A model of which each rank has a copy, and trains it on batches of its own; the copies stay the same.

    At the start rank 0's parameters and buffers are copied to all ranks. After each backward pass every `grad` is the
    average over the ranks, so that optimisers with the same settings take the same step everywhere. Buffers, such as
    BatchNorm's running statistics, are rank 0's: they are broadcast at the next forward pass, as in PyTorch.

    Parameters
    ----------
    module : Module
        With the same parameters on each rank. Its names in the ``state_dict`` begin with ``module.``; save
        ``model.module.state_dict()`` to load it without this class.
    device_ids, output_device, dim
        Without effect: a rank computes where its parameters are.
    broadcast_buffers : bool
        False lets each rank keep its own buffers.
    bucket_cap_mb : float
        Largest size of a bucket in MiB; of the first, 1 MiB.
    find_unused_parameters : bool
        Take the gradient of a parameter that the loss did not reach on some ranks as zero there, instead of raising.
        Where it has none on any rank, it stays as it was.
    gradient_as_bucket_view, static_graph : bool
        Without effect: they are about PyTorch's memory and speed.

    Raises
    ------
    RuntimeError
        On every rank, if names, shapes or dtypes differ between ranks, or after a backward pass, if a parameter got
        no gradient on some rank, or a rank is not in a backward pass but elsewhere, say at the end of its batches.

    Notes
    -----
    :math:`g = \\frac{1}{N} \\sum_r g_r` with :math:`g_r` the gradient on rank r of N. For a loss that is a sum over
    images rather than a mean, that is :math:`1/N` of the joined batch's gradient.

    Examples
    --------
    ::

        distributed.init_process_group("mpi")
        model = nn.parallel.DistributedDataParallel(model)
        for images, labels in DataLoader(train_set, 32, sampler=DistributedSampler(train_set)):
            ...
    """

    def __init__(
        self,
        module: Module,
        device_ids: Any = None,
        output_device: Any = None,
        dim: int = 0,
        broadcast_buffers: bool = True,
        *,
        bucket_cap_mb: float = 25,
        find_unused_parameters: bool = False,
        gradient_as_bucket_view: bool = False,
        static_graph: bool = False,
    ) -> None:
        super().__init__()
        self.module, self.broadcast_buffers = module, broadcast_buffers
        group = distributed.current()
        _refuse_different(group, module)
        _broadcast(group, [*module.parameters(), *module.buffers()])
        self._sync = self._buffers_due = True
        self._reducer = _Reducer(self, int(bucket_cap_mb * MIB), find_unused_parameters)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's output."""
        if self.broadcast_buffers and self._buffers_due:
            _broadcast(distributed.current(), list(self.module.buffers()))
        self._buffers_due = self._sync and is_grad_enabled()
        return self.module(*args, **kwargs)

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Only accumulate gradients; the next backward pass outside averages all of them, with one reduction."""
        before, self._sync = self._sync, False
        try:
            yield
        finally:
            self._sync = before


def _refuse_different(group: distributed.Group, module: Module) -> None:
    """Raise on every rank if the ranks' modules differ in the name, shape or dtype of a parameter or buffer."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    own = {name: f"{tuple(x.shape)} {x.dtype}" for name, x in tensors.items()}
    group.agree("construction of DistributedDataParallel").wait()
    models = group.comm.allgather(own)
    for name in dict.fromkeys(name for model in models for name in model):
        said = [model.get(name, "missing") for model in models]
        if len(set(said)) > 1:
            raise RuntimeError(f"DistributedDataParallel: {name!r} differs between the ranks: {by_rank(said)}")


def _broadcast(group: distributed.Group, tensors: Sequence[Tensor]) -> None:
    """Copy rank 0's values into the tensors of all ranks, as one message of bytes."""
    if not tensors:
        return
    arrays = [np.array(devices.moved(x.array, devices.CPU), order="C") for x in tensors]
    message = np.concatenate([x.reshape(-1).view(np.uint8) for x in arrays])
    what = f"broadcast of {len(tensors)} parameters and buffers, {message.size} bytes"
    group.begun.append(what)
    group.agree(what).wait()
    Work(group.comm.Ibcast(message, root=0)).wait()
    group.begun.remove(what)
    if group.rank != 0:
        ends = np.cumsum([x.nbytes for x in arrays])
        for x, array, end in zip(tensors, arrays, ends, strict=True):
            write(x, message[end - array.nbytes : end].view(array.dtype).reshape(array.shape))


class _Bucket:
    """Some parameters, and one vector for their gradients and, behind these, a 1 for each that this rank has.

    Added up over the ranks, the latter is the number of ranks that have a gradient.
    """

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        self.parameters, sizes = parameters, [p.numel() for p in parameters.values()]
        self.flat = np.zeros(sum(sizes) + len(sizes), next(iter(parameters.values())).dtype)
        *parts, self.had = np.split(self.flat, np.cumsum(sizes))
        self.gradients = [g.reshape(p.shape) for g, p in zip(parts, parameters.values(), strict=True)]
        self.work: Work | None = None

    def put(self, i: int, p: Tensor, ranks: int) -> None:
        """Enter this rank's share in the average of gradient i."""
        if p.grad is None:
            self.gradients[i][...] = 0
        else:
            np.divide(devices.moved(p.grad.array, devices.CPU), ranks, out=self.gradients[i])


def _in_buckets(parameters: Mapping[str, Tensor], most: int) -> Iterator[_Bucket]:
    """The parameters from the last to the first, in buckets of one dtype, each of at most so many bytes."""
    limit, bucket, held = min(FIRST_BUCKET, most), dict[str, Tensor](), 0
    for name, p in reversed([*parameters.items()]):
        size = p.numel() * p.dtype.itemsize
        if bucket and (held + size > limit or p.dtype != next(iter(bucket.values())).dtype):
            yield _Bucket(bucket)
            limit, bucket, held = most, {}, 0
        bucket[name], held = p, held + size
    if bucket:
        yield _Bucket(bucket)


class _Reducer:
    """Averages gradients, bucket by bucket in the same order on all ranks, during the backward pass.

    Each pass begins with an agreement of all ranks (`Group.agree`), and no bucket is sent before it is reached.
    """

    def __init__(self, model: DistributedDataParallel, most: int, find_unused: bool) -> None:
        self.model, self.find_unused, self.passes = model, find_unused, 0
        self.group, self.what = distributed.current(), ""
        self.comm = self.group.comm.Dup()  # what is sent here waits for nothing else
        trained = {name: p for name, p in model.module.named_parameters() if p.requires_grad}
        self.buckets = list(_in_buckets(trained, most))
        for bucket in self.buckets:
            for i, p in enumerate(bucket.parameters.values()):
                register_post_accumulate_grad_hook(p, partial(self.ready, bucket, i))

    def ready(self, bucket: _Bucket, i: int, p: Tensor) -> None:
        """The hook of a parameter, whose gradient is complete."""
        if not self.model._sync:
            return
        if self.finish not in at_end.calls:
            self.begin()
        bucket.put(i, p, self.group.size)
        bucket.had[i] = 1
        self.go_on()

    def begin(self) -> None:
        """The first gradient of a backward pass is complete."""
        if self.what in self.group.begun:
            raise RuntimeError(
                f"DistributedDataParallel: {self.what} failed before its reductions were complete, so the ranks no "
                "longer agree: start them anew"
            )
        at_end.calls.append(self.finish)
        self.passes += 1
        self.what = f"backward pass {self.passes} with {len(self.buckets)} buckets of gradients"
        self.group.begun.append(self.what)
        self.agreed = self.group.agree(self.what)
        for bucket in self.buckets:
            bucket.had[:], bucket.work = 0, None

    def go_on(self, ended: bool = False) -> None:
        """Send the buckets that are complete, up to the first that is not, and let MPI go on with those it has."""
        if not self.agreed.is_completed():
            return
        for bucket in self.buckets:
            if bucket.work is not None:
                bucket.work.is_completed()
            elif ended or bucket.had.all():
                bucket.work = Work(self.comm.Iallreduce(self.group.mpi.IN_PLACE, bucket.flat, self.group.mpi.SUM))
            else:
                break

    def finish(self) -> None:
        """The backward pass has ended: wait for all reductions, and write the averages into the gradients."""
        missing = []
        for bucket in [bucket for bucket in self.buckets if bucket.work is None]:
            for i, (name, p) in enumerate(bucket.parameters.items()):
                if not bucket.had[i]:
                    bucket.put(i, p, self.group.size)
                    missing.append(name)
        self.agreed.wait()
        self.go_on(ended=True)
        for bucket in self.buckets:
            cast(Work, bucket.work).wait()
        self.group.begun.remove(self.what)
        if not self.find_unused and any(bucket.had.min() < self.group.size for bucket in self.buckets):
            said = self.group.comm.allgather(", ".join(missing) or "none")
            raise RuntimeError(
                f"DistributedDataParallel: parameters that got no gradient in {self.what.partition(' with')[0]}: "
                f"{by_rank(said)}. Freeze what the loss never depends on with requires_grad_(False); with "
                "find_unused_parameters=True a gradient may be missing on some ranks"
            )
        for bucket in self.buckets:
            for p, g, had in zip(bucket.parameters.values(), bucket.gradients, bucket.had, strict=True):
                if had and p.grad is None:
                    p.grad = Tensor(devices.beside(g.copy(), p.array))
                elif had:
                    write(cast(Tensor, p.grad), g)
