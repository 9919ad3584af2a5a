"""Data sets, and the loader that makes batches of them.

A data set is anything with a length whose items are numbers, arrays or tensors, or tuples of them: a list
of ``(image, label)`` pairs will do. One that keeps its data in arrays also has a method `gather`, which hands
out a whole batch at once, in the memory order that the kernels like.

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
import numpy.typing as npt

from minidl.device import place
from minidl.kernels import devices
from minidl.ops._operands import result_type
from minidl.random import Generator, rng_of
from minidl.tensor import Tensor

Array = npt.NDArray[Any]
AHEAD = 2  # batches that each worker may be ahead of the consumer


class Dataset(Protocol):
    """What a data set must offer: its length and its items, counted from 0.

    It may offer ``gather(indices)`` too, which returns the items at an array of indices as one batch, a tuple
    of tensors. `DataLoader` then calls that instead of fetching item by item.

    Examples
    --------
    >>> squares = [(float(i), i * i) for i in range(4)]  # a list is a data set
    >>> values, labels = next(iter(DataLoader(squares, batch_size=4)))
    >>> labels.array
    array([0, 1, 4, 9])
    """

    def __len__(self) -> int:
        """Return the number of items."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return one item."""
        ...


@runtime_checkable
class _Gathers(Protocol):
    def gather(self, indices: Array) -> tuple[Tensor, ...]: ...


class TensorDataset:
    """Tensors of equal length, cut into items along their first dimension.

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
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise TypeError(
                    f"TensorDataset: expected tensors, not {type(tensor).__name__}: use minidl.tensor(data)"
                )
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
        """Return the items at `indices` as one batch, each tensor in its own memory order."""
        return tuple(Tensor(x.array[devices.beside(indices, x.array)]) for x in self.tensors)


class PixelDataset:
    """Images and their labels, kept as bytes and turned into float32 a batch at a time.

    A byte a pixel keeps all of MNIST in 47 MB, and costs about 10 microseconds per batch of 64.

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
        The classes, under minidl's name and under torchvision's.

    Raises
    ------
    ValueError
        If shapes or types are others.

    Notes
    -----
    Batches of more than one channel have the shape (N, C, H, W) but lie in memory as (N, H, W, C).

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
    """Some items of a data set, in an order of their own.

    Parameters
    ----------
    dataset : Dataset
        Where the items are.
    indices : sequence of int
        Which ones.

    Raises
    ------
    TypeError
        If an index is no int.

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
        return _make_batch(self.dataset, self.indices[indices])


def random_split(dataset: Dataset, lengths: Sequence[int | float], generator: Generator | None = None) -> list[Subset]:
    """Deal the items of a data set out at random.

    Parameters
    ----------
    dataset : Dataset
        What is dealt out, each item once.
    lengths : sequence of int or of float
        How many items each part gets, or which fraction of them. Fractions are rounded down; the items that
        are left then go to the first parts, one each.
    generator : Generator, optional
        What shuffles; `minidl.random.default_generator` unless given.

    Returns
    -------
    list of Subset
        One for each length.

    Raises
    ------
    ValueError
        If the lengths do not add up to the length of the data set, one is negative, or a fraction is not
        between 0 and 1.
    TypeError
        If a length is neither an int nor one of such fractions.

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
            f"{total} = {sum(sizes)}; expected lengths of at least 0 that give {n}, or fractions that give 1"
        )
    if (wrong := _not_an_int(sizes)) is not None:
        raise TypeError(f"random_split: lengths must be ints, or fractions that give 1, and one is {wrong!r}")
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
    """Go through a data set in batches.

    Parameters
    ----------
    dataset : Dataset
        Where the items come from. Numbers, arrays and tensors are stacked along a new first dimension, ints
        to int64 and floats, also beside ints, to float32; of tuples, each place is stacked by itself.
    batch_size : int
        Items per batch.
    shuffle : bool
        Draw a new order whenever an iteration starts.
    num_workers : int
        Threads that prepare batches ahead of the consumer; with 0 it waits for each. The order of the items is
        the same for any number, and so are the batches, unless items draw random numbers of a generator that they
        share: which thread draws first is chance. (An item may draw from a `Generator` seeded by its index.)
    drop_last : bool
        Leave out the last batch if it is not full.
    generator : Generator, optional
        What shuffles; `minidl.random.default_generator` unless given.
    device : device, optional
        Where the batches go; unless given they stay where the items are. From the CPU's memory to a GPU each is
        copied in one transfer, while the GPU still computes with the batch before. (PyTorch has `pin_memory` and
        ``batch.to(device)`` for this.)

    Raises
    ------
    ValueError
        If `batch_size` is not a positive int, `num_workers` is negative or there is nothing to shuffle; while
        iterating, if items of a batch differ in shape.
    TypeError
        If `generator` is another library's; while iterating, if items are something else than numbers, arrays,
        tensors or tuples of them.

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
            raise ValueError("shuffle=True needs at least one item, and the data set has 0")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.num_workers = num_workers
        self.drop_last = drop_last
        self.generator = generator
        rng_of(generator)  # refuses what is no generator now, not in the first epoch
        self.place = None if device is None else place(device)

    def __len__(self) -> int:
        """Return the number of batches."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        """Start an iteration; its order is drawn now, not when the first batch is asked for."""
        n = len(self.dataset)
        order = rng_of(self.generator).permutation(n) if self.shuffle else np.arange(n)
        batches = [order[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]

        def make(indices: Array) -> Any:
            return _make_batch(self.dataset, indices)

        made = _map_ahead(make, batches, self.num_workers) if self.num_workers else map(make, batches)
        if self.place == devices.CPU:
            return (_each(batch, Tensor.cpu) for batch in made)
        return made if self.place is None else _uploaded(made, devices.uploads(self.place))


def _map_ahead(make: Callable[[Array], Any], batches: list[Array], workers: int) -> Iterator[Any]:
    """``map(make, batches)`` in threads that run at most a few batches ahead; they end with the iteration."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="minidl-loader")
    waiting: deque[Future[Any]] = deque()
    try:
        for indices in batches:
            waiting.append(pool.submit(make, indices))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also when the consumer breaks off: Python closes a generator that nobody holds any more
        pool.shutdown(wait=True, cancel_futures=True)


def _uploaded(batches: Iterator[Any], uploads: devices.Uploads) -> Iterator[Any]:
    """The batches on a GPU; the next one is on its way while one is used."""
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
        return _each(batch, lambda x: Tensor(devices.moved(x.array, uploads.place) if x.is_cuda else next(copies)))

    return on_device


def _each(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return change(batch) if isinstance(batch, Tensor) else tuple(map(change, batch))


def _make_batch(dataset: Dataset, indices: Array) -> Any:
    if isinstance(dataset, _Gathers) and _gathers_its_items(type(dataset)):
        return dataset.gather(indices)
    return _collate([dataset[int(i)] for i in indices], indices)


def _gathers_its_items(kind: type) -> bool:
    """Whether no subclass has changed ``__getitem__`` alone, of which an older ``gather`` knows nothing."""
    owners = [next((c for c in kind.__mro__ if name in vars(c)), object) for name in ("gather", "__getitem__")]
    return issubclass(*owners)


def _collate(items: list[Any], indices: Array) -> Any:
    """Stack items to a tensor, or tuples of items to a tuple of tensors."""
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
                f"items of a batch must have one shape: that of item {indices[0]} is {arrays[0].shape}, "
                f"that of item {index} is {array.shape}"
            )
    one_of_each = {array.dtype: array for array in arrays}.values()
    dtype = result_type(*map(Tensor, one_of_each))  # NumPy's would be float64 for int64 with float32
    return Tensor(np.stack(arrays, dtype=dtype))


def _as_array(value: Any, index: int) -> Array:
    if isinstance(value, Tensor):
        return value.array
    if isinstance(value, (bool, np.bool_, np.ndarray, np.floating)):
        return np.asarray(value)
    if isinstance(value, (int, np.integer)):
        return np.asarray(value, dtype=np.int64)
    if isinstance(value, float):
        return np.asarray(value, dtype=np.float32)
    raise TypeError(
        f"item {index} holds a {type(value).__name__}; a batch is made of tensors, arrays, ints, floats and bools, "
        "or of tuples of them"
    )
