"""The loader, which iterates over a data set in batches, prepared in threads if asked, and moved to a device."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, pairwise, repeat
from types import GenericAlias
from typing import Any

from minidl.data.collate import convert, default_collate, default_convert
from minidl.data.dataset import IterableDataset, MapStyle, fetcher
from minidl.data.sampler import BatchSampler, RandomSampler, SequentialSampler, in_batches, index_batches
from minidl.device import as_device
from minidl.kernels import devices
from minidl.random import Generator, rng_of
from minidl.tensor import Tensor

FIXED = "dataset batch_size sampler batch_sampler drop_last persistent_workers".split()
END = object()  # returned by a task of a thread that has nothing more to do
Turn = tuple[ThreadPoolExecutor, Callable[[Any], Any]]
_this_thread = threading.local()


class DataLoader:
    """Iterate over a data set in batches.

    Parameters
    ----------
    dataset : Dataset
        Anything with a length and items by index, or an `IterableDataset`.
    batch_size : int or None
        Items per batch; None yields single items, with their arrays turned into tensors.
    shuffle : bool, optional
        Draw a new order at the start of each iteration.
    sampler : Sampler or iterable, optional
        Yields the indices, instead of `shuffle`.
    batch_sampler : Sampler or iterable, optional
        Yields lists of indices, one per batch, instead of `batch_size`, `shuffle`, `sampler` and `drop_last`.
    num_workers : int
        Threads that prepare batches in advance; with 0 each batch is prepared when it is asked for. The order of the
        items does not depend on it, nor do the batches, unless items draw from a generator that they share: then it
        is undefined which thread draws first. (An item may draw from a `Generator` seeded with its index.)
    collate_fn : callable, optional
        Makes a batch of a list of items, by default `default_collate`. (With the default one, data sets that have a
        method `gather` make the batch themselves.) With ``batch_size=None`` it is given one item.
    pin_memory : bool
        Accepted for PyTorch's sake, without effect: batches for a GPU always pass through pinned memory, see `device`.
    drop_last : bool
        Drop the last batch if it is not full.
    timeout : float
        Seconds to wait for a batch of the workers; 0 for ever.
    worker_init_fn : callable, optional
        Called with the worker's id in each worker thread before it prepares batches.
    multiprocessing_context : None
        Workers are threads, so there is no other choice.
    generator : Generator, optional
        Used to shuffle; by default `minidl.random.default_generator`.
    prefetch_factor : int, optional
        Batches that each worker prepares in advance, by default 2.
    persistent_workers : bool
        Keep the threads from one iteration to the next; they end with the loader.
    device : device, optional
        The device of the batches, by default that of the items. A batch goes from the CPU to a GPU in one transfer,
        while the GPU still computes on the previous batch. (PyTorch has `pin_memory` and ``batch.to(device)`` for
        this.)

    Attributes
    ----------
    dataset, batch_size, drop_last, persistent_workers
        As given; fixed.
    sampler, batch_sampler : Sampler or iterable
        As given, or the default ones.

    Raises
    ------
    ValueError
        If an argument is out of range, or excludes another one.
    AssertionError
        If there is a timeout without workers to wait for.
    TypeError
        If `generator` is another library's; while iterating, if items do not make a batch, see `default_collate`.
    RuntimeError
        While iterating, if the items of a batch differ in shape, or none came before the timeout.

    Examples
    --------
    >>> import numpy as np
    >>> pairs = [(np.full((1, 2, 2), i, np.float32), i % 2) for i in range(5)]
    >>> loader = DataLoader(pairs, batch_size=2)
    >>> len(loader)
    3
    >>> [(tuple(images.shape), labels.array.tolist()) for images, labels in loader]
    [((2, 1, 2, 2), [0, 1]), ((2, 1, 2, 2), [0, 1]), ((1, 1, 2, 2), [0])]
    """

    __class_getitem__: Any = classmethod(GenericAlias)  # DataLoader[Tensor] in annotations

    def __init__(
        self,
        dataset: MapStyle | IterableDataset[Any],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: None = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        device: Any = None,
    ) -> None:
        _check_workers(num_workers, timeout, multiprocessing_context, prefetch_factor, persistent_workers)
        if isinstance(dataset, IterableDataset):
            _check_no_order(shuffle=shuffle, sampler=sampler, batch_sampler=batch_sampler)
        _check_exclusive(batch_size, shuffle, sampler, batch_sampler, drop_last)
        rng_of(generator)  # rejects another library's generator now, not in the first epoch
        if sampler is None:
            sampler = _default_sampler(dataset, shuffle, generator)
        if batch_sampler is not None:
            batch_size = None
        elif batch_size is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        self.sampler: Any = sampler
        self.batch_sampler: Any = batch_sampler  # None: items are not batched
        self.collate_fn = collate_fn or (default_convert if batch_sampler is None else default_collate)
        self.num_workers, self.worker_init_fn, self.timeout = num_workers, worker_init_fn, timeout
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.persistent_workers = persistent_workers
        self._workers: Workers | None = None  # those that persist
        self.pin_memory, self.generator = pin_memory, generator
        self.multiprocessing_context = multiprocessing_context
        self.device = None if device is None else as_device(device)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in FIXED and name in vars(self):
            raise ValueError(f"{name} attribute should not be set after DataLoader is initialized: make another loader")
        super().__setattr__(name, value)

    def __len__(self) -> int:
        """Return the number of batches."""
        if not isinstance(self.dataset, IterableDataset):
            return len(self.sampler if self.batch_sampler is None else self.batch_sampler)
        if self.batch_size is None:
            return len(self.dataset)
        return len(BatchSampler(range(len(self.dataset)), self.batch_size, self.drop_last))

    def __iter__(self) -> Iterator[Any]:
        """Start an iteration; the order is drawn now, not when the first batch is asked for."""
        if self.num_workers:
            batches = self._in_workers()
        elif isinstance(self.dataset, IterableDataset):
            batches = self._stream(self.dataset)
        else:
            batches = map(*self._fetcher())
        if self.device == devices.CPU:
            return map(_on_cpu, batches)
        return batches if self.device is None else _uploaded(batches, devices.uploads(self.device))

    def _in_workers(self) -> Iterator[Any]:
        workers = self._workers or self._new_workers()
        if self.persistent_workers:
            self._workers = workers
        if not isinstance(self.dataset, IterableDataset):
            fetch, indices = self._fetcher()
            return workers.run([fetch] * self.num_workers, indices)
        streams = [self._stream(info.dataset) for info in workers.infos]
        return workers.run([partial(next, stream) for stream in streams], repeat(END))  # next(stream, END)

    def _new_workers(self) -> Workers:
        n, own = self.num_workers, copy.copy if isinstance(self.dataset, IterableDataset) else lambda dataset: dataset
        later = rng_of(self.generator).bit_generator.jumped()  # type: ignore[attr-defined]  # draws nothing
        seed = int(later.random_raw()) % 2**62
        infos = [WorkerInfo(i, n, seed + i, own(self.dataset)) for i in range(n)]
        ahead = (self.prefetch_factor or 0) * n
        return Workers(infos, self.worker_init_fn, self.persistent_workers, ahead, self.timeout)

    def _fetcher(self) -> tuple[Callable[[Any], Any], Iterator[Any]]:
        """What makes a batch, or an item if there are no batches, and the indices of each."""
        if self.batch_sampler is None:
            return lambda index: self.collate_fn(self.dataset[index]), iter(self.sampler)
        return fetcher(self.dataset, self.collate_fn), index_batches(self.batch_sampler)

    def _stream(self, dataset: Iterable[Any]) -> Iterator[Any]:
        """The batches of an iterable data set."""
        items, sampler = iter(dataset), self.batch_sampler
        batches = items if sampler is None else in_batches(items, sampler.batch_size, sampler.drop_last)
        yield from map(self.collate_fn, batches)


def _default_sampler(dataset: Any, shuffle: bool | None, generator: Generator | None) -> Iterable[Any]:
    if isinstance(dataset, IterableDataset):
        return repeat(None)  # it has no indices; endless, as PyTorch's
    if not shuffle:
        return SequentialSampler(dataset)
    if len(dataset) == 0:
        raise ValueError("shuffle=True needs at least one item, but the data set has 0")
    return RandomSampler(dataset, generator=generator)


def _check_workers(workers: int, timeout: float, context: Any, prefetch: int | None, persistent: bool) -> None:
    if workers < 0:
        raise ValueError(f"num_workers should be non-negative, but got num_workers={workers}")
    if timeout < 0:
        raise ValueError(f"timeout option should be non-negative, but got {timeout=}")
    if context is not None:
        raise ValueError(f"multiprocessing_context must be None: workers are threads, but got {context!r}")
    if prefetch is not None and prefetch < 0:
        raise ValueError(f"prefetch_factor option should be non-negative, but got prefetch_factor={prefetch}")
    if workers == 0 and prefetch is not None:
        raise ValueError(f"prefetch_factor={prefetch} needs workers that prefetch, but got num_workers=0")
    if workers == 0 and persistent:
        raise ValueError("persistent_workers option needs num_workers > 0, but got num_workers=0")
    if workers == 0 and timeout:
        raise AssertionError(f"{timeout=} is for batches of workers, but got num_workers=0")


def _check_no_order(**options: Any) -> None:
    for name, value in options.items():
        if value is not None and value is not False:
            raise ValueError(
                f"DataLoader with IterableDataset: expected unspecified {name} option, but got {name}={value!r}: "
                "the data set itself determines the order of its items"
            )


def _check_exclusive(
    batch_size: int | None, shuffle: bool | None, sampler: Any, batch_sampler: Any, drop_last: bool
) -> None:
    if sampler is not None and shuffle:
        raise ValueError("sampler option is mutually exclusive with shuffle")
    if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
        raise ValueError(
            "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last, but got "
            f"{batch_size=}, {shuffle=}, {sampler=}, {drop_last=}"
        )
    if batch_size is None and drop_last:
        raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")


def _uploaded(batches: Iterator[Any], uploads: devices.Uploads) -> Iterator[Any]:
    """The batches on a GPU; the next one is transferred while the current one is used."""
    sent = (_upload(batch, uploads) for batch in batches)
    for arrived, _ in pairwise(chain(sent, [list])):
        yield arrived()


def _upload(batch: Any, uploads: devices.Uploads) -> Callable[[], Any]:
    here = [x.array for x in _tensors(batch) if not x.is_cuda]
    arrived = uploads.send(here) if here else list

    def on_device() -> Any:
        copies = iter(arrived())
        return _each(batch, lambda x: Tensor(devices.moved(x.array, uploads.device) if x.is_cuda else next(copies)))

    return on_device


def _on_cpu(batch: Any) -> Any:
    return _each(batch, Tensor.cpu) if any(devices.on_gpu(x.array) for x in _tensors(batch)) else batch


def _tensors(batch: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _each(batch, found.append)
    return found


def _each(batch: Any, change: Callable[[Tensor], Any]) -> Any:
    return convert(batch, lambda x: change(x) if isinstance(x, Tensor) else x)


# -- workers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkerInfo:
    """A worker thread of a `DataLoader`: what `get_worker_info` returns in it.

    Attributes
    ----------
    id : int
        From 0 to ``num_workers - 1``.
    num_workers : int
    seed : int
        For a generator of the worker's own: the workers' seeds are consecutive and follow from the state of the
        loader's generator, which they do not change.
    dataset : data set
        The loader's; if it is iterable, a shallow copy that this worker alone uses.
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any


def get_worker_info() -> WorkerInfo | None:
    """Return the `WorkerInfo` of the thread that runs this, or None outside of a `DataLoader`'s workers."""
    return getattr(_this_thread, "info", None)


@dataclass
class Workers:
    """Threads that take turns, so that thread k runs every n-th task and nobody else runs those.

    Parameters
    ----------
    infos : sequence of WorkerInfo
        One for each thread.
    init : callable, optional
        Called with a worker's id, first of all in its thread.
    persistent : bool
        The threads stay when an iteration ends; they end with this object.
    ahead : int
        How many tasks may run or wait beside the one whose result is asked for.
    timeout : float
        Seconds to wait for a result; 0 for ever.
    """

    infos: Sequence[WorkerInfo]
    init: Callable[[int], Any] | None
    persistent: bool
    ahead: int
    timeout: float
    threads: list[ThreadPoolExecutor] = field(default_factory=list, init=False)
    started: list[Future[None]] = field(default_factory=list, init=False)

    def run(self, tasks: Sequence[Callable[[Any], Any]], inputs: Iterable[Any]) -> Iterator[Any]:
        """Yield ``tasks[k](x)``, run in thread k, for one x after another; k takes turns until its task returns END."""
        waiting: deque[tuple[Turn, Future[Any]]] = deque()
        try:
            self._start()
            turns = deque(zip(self.threads, tasks, strict=True))
            for x in inputs:
                thread, task = turns[0]
                waiting.append((turns[0], thread.submit(task, x)))
                turns.rotate(-1)
                yield from self._finished(waiting, turns, self.ahead)
                if not turns:
                    break
            yield from self._finished(waiting, turns, 0)
        finally:  # also after a break in the consumer's loop: Python closes a generator that is no longer referenced
            self._stop(waiting)

    def _start(self) -> None:
        if not self.threads:
            self.threads = [ThreadPoolExecutor(1, thread_name_prefix="minidl-loader") for _ in self.infos]
            pairs = zip(self.threads, self.infos, strict=True)
            self.started = [thread.submit(_introduce, info, self.init) for thread, info in pairs]
        for start in self.started:
            self._result(start)

    def _finished(self, waiting: deque[tuple[Turn, Future[Any]]], turns: deque[Turn], left: int) -> Iterator[Any]:
        """The results, in order, of all but `left` tasks; whoever is at its end has no more turns."""
        while len(waiting) > left:
            turn, future = waiting.popleft()
            result = self._result(future)
            if result is not END:
                yield result
            elif turn in turns:
                turns.remove(turn)

    def _result(self, future: Future[Any]) -> Any:
        try:
            return future.result(self.timeout or None)
        except TimeoutError:
            if future.done():  # the data set's own
                raise
            raise RuntimeError(f"DataLoader timed out after {self.timeout} seconds") from None

    def _stop(self, waiting: Iterable[tuple[Turn, Future[Any]]]) -> None:
        for _, future in waiting:
            future.cancel()
        if not self.persistent:
            for thread in self.threads:
                thread.shutdown(wait=not self.timeout, cancel_futures=True)  # a task that timed out may never end
            self.threads = []


def _introduce(info: WorkerInfo, init: Callable[[int], Any] | None) -> None:
    _this_thread.info = info
    if init is not None:
        init(info.id)
