"""Data sets, and the loader that collates them into batches.

A data set is anything with a length whose items are numbers, arrays or tensors, or tuples of these: a list of
``(image, label)`` pairs will do. One that keeps its data in arrays also has a method `gather`, which returns a whole
batch at once, in the memory order that the kernels prefer.

N images in a batch, C channels, H x W pixels.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np

from minidl.device import as_device
from minidl.kernels import devices
from minidl.ops._operands import result_type
from minidl.random import Generator, rng_of
from minidl.tensor import Array, Tensor

AHEAD = 2  # batches that each worker may prefetch
KEPT: Any = (bool, np.bool_, np.ndarray, np.floating)  # items that keep their dtype
ITEM_DTYPES = (KEPT, None), ((int, np.integer), np.int64), (float, np.float32)


class Dataset(Protocol):
    """The interface of a data set: its length, and its items by index.

    It may also have ``gather(indices)``, which returns the items at an array of indices as one batch, a tuple of
    tensors. `DataLoader` then calls that instead of fetching the items one by one.

    Examples
    --------
    >>> squares = [(float(i), i * i) for i in range(4)]  # a list is a data set
    >>> values, labels = next(iter(DataLoader(squares, batch_size=4)))
    >>> labels.array
    array([0, 1, 4, 9])
    """

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, index: int, /) -> Any:
        """Return one item."""


@runtime_checkable
class _Gathers(Protocol):
    def gather(self, indices: Array) -> tuple[Tensor, ...]: ...


class TensorDataset:
    """Tensors of equal length, indexed along their first dimension.

    Parameters
    ----------
    *tensors : Tensor
        The first dimension counts the items.

    Raises
    ------
    AssertionError
        If the tensors differ in length.

    Examples
    --------
    >>> pairs = TensorDataset(Tensor(np.eye(3)), Tensor(np.arange(3)))
    >>> row, number = pairs[1]
    >>> row.array, int(number.array)
    (array([0., 1., 0.]), 1)
    """

    def __init__(self, *tensors: Tensor) -> None:
        for x in tensors:
            if not isinstance(x, Tensor):
                raise TypeError(f"TensorDataset: expected tensors, not {type(x).__name__}: use minidl.tensor(data)")
        if not tensors or any(not tensor.shape for tensor in tensors):
            raise ValueError("TensorDataset needs one tensor or more, each with a first dimension")
        lengths = [tensor.shape[0] for tensor in tensors]
        if len(set(lengths)) > 1:
            raise AssertionError(f"Size mismatch between tensors: their first dimensions are {lengths}")
        self.tensors = tensors

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(Tensor(tensor.array[index]) for tensor in self.tensors)

    def gather(self, indices: Array) -> tuple[Tensor, ...]:
        """Return the items at `indices` as one batch; each tensor keeps its memory order."""
        return tuple(Tensor(x.array[devices.beside(indices, x.array)]) for x in self.tensors)


class PixelDataset:
    """Images and labels, stored as bytes and converted to float32 one batch at a time.

    At one byte per pixel all of MNIST takes 47 MB; the conversion costs about 10 microseconds per batch of 64.

    Parameters
    ----------
    images : numpy.ndarray
        Pixels, uint8 (n, H, W) or (n, H, W, C).
    labels : numpy.ndarray
        Classes, int64 (n,).

    Attributes
    ----------
    images : numpy.ndarray
        As given.
    labels, targets : numpy.ndarray
        The classes, under minidl's name and torchvision's.

    Raises
    ------
    ValueError
        If a shape or dtype differs.

    Notes
    -----
    Batches with more than one channel have the shape (N, C, H, W) but are stored as (N, H, W, C).

    Examples
    --------
    >>> tiny = PixelDataset(np.full((2, 4, 4), 255, np.uint8), np.array([7, 3]))
    >>> image, label = tiny[0]
    >>> image.shape, float(image.array.max()), label
    ((1, 4, 4), 1.0, 7)
    """

    def __init__(self, images: Array, labels: Array) -> None:
        if images.dtype != np.uint8 or images.ndim not in (3, 4):
            raise ValueError(f"images must be uint8 (n, H, W) or (n, H, W, C), not {_kind(images)}")
        if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
            raise ValueError(f"labels must be int64 {images.shape[:1]}, one per image, not {_kind(labels)}")
        self.images = images
        self.labels = self.targets = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return Tensor(_to_floats(self.images[index][None])[0]), int(self.labels[index])

    def gather(self, indices: Array) -> tuple[Tensor, Tensor]:
        """Return a batch: images float32 (N, C, H, W) between 0 and 1, and labels int64 (N,)."""
        return Tensor(_to_floats(self.images[indices])), Tensor(self.labels[indices])


def _kind(array: Array) -> str:
    return f"{array.dtype} {array.shape}"


def _to_floats(pixels: Array) -> Array:
    """Bytes (N, H, W) or (N, H, W, C) to float32 (N, C, H, W) in [0, 1], as in torchvision's ToTensor."""
    floats = np.divide(pixels, np.float32(255), dtype=np.float32)
    return floats[:, None] if floats.ndim == 3 else floats.transpose(0, 3, 1, 2)


class Subset:
    """A selection of a data set's items, in any order.

    Parameters
    ----------
    dataset : Dataset
    indices : sequence of int
        The positions of the selected items.

    Raises
    ------
    TypeError
        If an index is not an int.

    Examples
    --------
    >>> vowels = Subset("abcdefghi", [0, 4, 8])
    >>> len(vowels), vowels[1]
    (3, 'e')
    """

    def __init__(self, dataset: Dataset, indices: Sequence[int] | Array) -> None:
        found = np.asarray(indices)
        if found.dtype == bool:
            raise TypeError("Subset: indices are positions, not a mask; np.flatnonzero(mask) gives its positions")
        if found.size and found.dtype.kind not in "iu":
            raise TypeError(f"Subset: indices must be ints, not {_not_an_int(indices)!r}")
        self.dataset, self.indices = dataset, found.astype(np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]

    def gather(self, indices: Array) -> Any:
        """Return the items at `indices`, positions in the subset, as one batch."""
        return _fetcher(self.dataset)(self.indices[indices])


def random_split(dataset: Dataset, lengths: Sequence[int | float], generator: Generator | None = None) -> list[Subset]:
    """Split a data set at random into parts that do not overlap.

    Parameters
    ----------
    dataset : Dataset
    lengths : sequence of int or of float
        The number of items in each part, or fractions that sum to 1. Fractions are rounded down; the remaining items
        go to the first parts, one each.
    generator : Generator, optional
        Used to shuffle; by default `minidl.random.default_generator`.

    Returns
    -------
    list of Subset
        One for each length.

    Raises
    ------
    ValueError
        If the lengths do not sum to the length of the data set, one is negative, or a fraction is not between 0
        and 1.
    TypeError
        If a length is neither an int nor such a fraction.

    Examples
    --------
    >>> train, validation = random_split(range(10), [0.75, 0.25])
    >>> len(train), len(validation)
    (8, 2)
    """
    n = len(dataset)
    sizes = list(lengths)
    if math.isclose(sum(sizes), 1) and sum(sizes) <= 1:
        sizes = _fractions_to_sizes(n, sizes)
    if sum(sizes) != n or min(sizes, default=0) < 0:
        total = " + ".join(str(size) for size in sizes)
        raise ValueError(
            "Sum of input lengths does not equal the length of the input dataset! "
            f"{total} = {sum(sizes)}; expected lengths of at least 0 that sum to {n}, or fractions that sum to 1"
        )
    if (wrong := _not_an_int(sizes)) is not None:
        raise TypeError(f"random_split: lengths must be ints, or fractions that sum to 1, not {wrong!r}")
    order = rng_of(generator).permutation(n)
    ends = accumulate(map(int, sizes), initial=0)
    return [Subset(dataset, order[start:end]) for start, end in pairwise(ends)]


def _not_an_int(values: Iterable[Any]) -> Any:
    return next((value for value in values if not isinstance(value, int | np.integer)), None)


def _fractions_to_sizes(n: int, fractions: Sequence[float]) -> list[int | float]:
    for i, fraction in enumerate(fractions):
        if not 0 <= fraction <= 1:
            raise ValueError(f"Fraction at index {i} is not between 0 and 1: {fraction}")
    sizes: list[int | float] = [math.floor(n * fraction) for fraction in fractions]
    left = n - int(sum(sizes))
    for i in range(left):
        sizes[i % len(sizes)] += 1
    for i, size in enumerate(sizes):
        if size == 0:
            warnings.warn(f"Length of split at index {i} is 0: {fractions[i]} of {n} items", stacklevel=3)
    return sizes


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
        fetch = _fetcher(self.dataset)
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


def _fetcher(dataset: Dataset) -> Callable[[Array], Any]:
    """What makes a batch from an array of indices: the data set's own `gather`, or else its items one by one."""
    if type(dataset) is Subset:  # skip its `gather`, so that the inner data set is looked at only once
        inner, positions = _fetcher(dataset.dataset), dataset.indices
        return lambda indices: inner(positions[indices])
    if isinstance(dataset, _Gathers) and _gathers_its_items(type(dataset)):
        return dataset.gather
    return lambda indices: _collate([dataset[int(i)] for i in indices], indices)


def _gathers_its_items(kind: type) -> bool:
    """False if a subclass overrides ``__getitem__`` alone: the inherited `gather` would not see the change."""
    owners = [next((c for c in kind.__mro__ if name in vars(c)), object) for name in ("gather", "__getitem__")]
    return issubclass(*owners)


def _collate(items: list[Any], indices: Array) -> Any:
    """Stack items into a tensor, or tuples of items into a tuple of tensors."""
    if not isinstance(items[0], (tuple, list)):
        return _stack(items, indices)
    sizes = [len(item) if isinstance(item, (tuple, list)) else None for item in items]
    for index, size in zip(indices, sizes, strict=True):
        if size != sizes[0]:
            raise ValueError(f"item {indices[0]} is a tuple of {sizes[0]}, and item {index} is not")
    return tuple(_stack(list(column), indices) for column in zip(*items, strict=True))


def _stack(values: list[Any], indices: Array) -> Tensor:
    arrays = [_as_array(value, index) for value, index in zip(values, indices, strict=True)]
    for index, array in zip(indices, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"items of a batch must have the same shape: that of item {indices[0]} is {arrays[0].shape}, "
                f"that of item {index} is {array.shape}"
            )
    one_of_each = {array.dtype: array for array in arrays}.values()
    dtype = result_type(*map(Tensor, one_of_each))  # NumPy would promote int64 with float32 to float64
    return Tensor(np.stack(arrays, dtype=dtype))


def _as_array(value: Any, index: int) -> Array:
    if isinstance(value, Tensor):
        return value.array
    for kinds, dtype in ITEM_DTYPES:
        if isinstance(value, kinds):
            return np.asarray(value, dtype)
    wanted = "tensors, arrays, numbers and bools, or of tuples of them"
    raise TypeError(f"item {index} holds a {type(value).__name__}; a batch is made of {wanted}")
