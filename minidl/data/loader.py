"""The loader, which iterates over a data set in batches, prepared in threads if asked, and moved to a device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from minidl.data.dataset import Dataset, fetcher
from minidl.device import as_device
from minidl.kernels import devices
from minidl.random import Generator, rng_of
from minidl.tensor import Array, Tensor

AHEAD = 2  # batches that each worker may prefetch


class DataLoader:
    """Iterate over a data set in batches.

    Parameters
    ----------
    dataset : Dataset
        Numbers, arrays and tensors are stacked along a new first dimension: ints to int64, and floats, even among
        ints, to float32. Tuples are stacked position by position.
    batch_size : int
        Items per batch.
    shuffle : bool
        Draw a new order at the start of each iteration.
    num_workers : int
        Threads that prepare batches in advance; with 0 each batch is prepared when it is asked for. The order of the
        items does not depend on it, nor do the batches, unless items draw from a generator that they share: then it
        is undefined which thread draws first. (An item may draw from a `Generator` seeded with its index.)
    drop_last : bool
        Drop the last batch if it is not full.
    generator : Generator, optional
        Used to shuffle; by default `minidl.random.default_generator`.
    device : device, optional
        The device of the batches, by default that of the items. A batch goes from the CPU to a GPU in one transfer,
        while the GPU still computes on the previous batch. (PyTorch has `pin_memory` and ``batch.to(device)`` for
        this.)

    Raises
    ------
    ValueError
        If `batch_size` is not a positive int, `num_workers` is negative or there is nothing to shuffle; while
        iterating, if the items of a batch differ in shape.
    TypeError
        If `generator` is another library's; while iterating, if items are not numbers, arrays, tensors or tuples of
        these.

    Examples
    --------
    >>> pairs = [(np.full((1, 2, 2), i, np.float32), i % 2) for i in range(5)]
    >>> loader = DataLoader(pairs, batch_size=2)
    >>> len(loader)
    3
    >>> [(tuple(images.shape), labels.array.tolist()) for images, labels in loader]
    [((2, 1, 2, 2), [0, 1]), ((2, 1, 2, 2), [0, 1]), ((1, 1, 2, 2), [0])]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        num_workers: int = 0,
        drop_last: bool = False,
        generator: Generator | None = None,
        device: Any = None,
    ) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(f"batch_size should be a positive integer value, but got {batch_size=}")
        if num_workers < 0:
            raise ValueError(f"num_workers should be non-negative, but got {num_workers=}")
        if shuffle and len(dataset) == 0:
            raise ValueError("shuffle=True needs at least one item, but the data set has 0")
        rng_of(generator)  # rejects another library's generator now, not in the first epoch
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.num_workers, self.drop_last, self.generator = num_workers, drop_last, generator
        self.device = None if device is None else as_device(device)

    def __len__(self) -> int:
        """Return the number of batches."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        """Start an iteration; the order is drawn now, not when the first batch is asked for."""
        n = len(self.dataset)
        order = rng_of(self.generator).permutation(n) if self.shuffle else np.arange(n)
        indices = [order[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]
        fetch = fetcher(self.dataset)
        batches = _map_ahead(fetch, indices, self.num_workers) if self.num_workers else map(fetch, indices)
        if self.device == devices.CPU:
            return map(_on_cpu, batches)
        return batches if self.device is None else _uploaded(batches, devices.uploads(self.device))


def _map_ahead(fetch: Callable[[Array], Any], batches: list[Array], workers: int) -> Iterator[Any]:
    """``map(fetch, batches)`` in threads that run at most a few batches ahead; they end with the iteration."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="minidl-loader")
    waiting: deque[Future[Any]] = deque()
    try:
        for indices in batches:
            waiting.append(pool.submit(fetch, indices))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also after a break in the consumer's loop: Python closes a generator that is no longer referenced
        pool.shutdown(wait=True, cancel_futures=True)


def _uploaded(batches: Iterator[Any], uploads: devices.Uploads) -> Iterator[Any]:
    """The batches on a GPU; the next one is transferred while the current one is used."""
    waiting: Callable[[], Any] | None = None
    for batch in batches:
        coming = _upload(batch, uploads)
        if waiting is not None:
            yield waiting()
        waiting = coming
    if waiting is not None:
        yield waiting()


def _upload(batch: Any, uploads: devices.Uploads) -> Callable[[], Any]:
    tensors = [batch] if isinstance(batch, Tensor) else batch
    here = [x.array for x in tensors if not x.is_cuda]
    arrived = uploads.send(here) if here else list

    def on_device() -> Any:
        copies = iter(arrived())
        return _each(batch, lambda x: Tensor(devices.moved(x.array, uploads.device) if x.is_cuda else next(copies)))

    return on_device


def _on_cpu(batch: Any) -> Any:
    tensors = [batch] if isinstance(batch, Tensor) else batch
    return _each(batch, Tensor.cpu) if any(devices.on_gpu(x.array) for x in tensors) else batch


def _each(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return change(batch) if isinstance(batch, Tensor) else tuple(map(change, batch))
