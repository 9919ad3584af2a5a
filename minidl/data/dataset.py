"""Data sets, and how to select from, split and join them.

A data set is anything with a length and items by index: a list of ``(image, label)`` pairs will do. One that keeps its
data in arrays also has a method `gather`, which returns a whole batch at once, in the memory order that the kernels
prefer. An `IterableDataset` has no indices, and yields its items.

N images in a batch, C channels, H x W pixels.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from operator import index
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from minidl.data.collate import collate, default_collate
from minidl.kernels import devices
from minidl.random import Generator, rng_of
from minidl.tensor import Array, Tensor

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """Base class of data sets: a subclass has ``__getitem__``, and ``__len__`` if its length is known.

    Whatever has both methods is a data set too, so a list will do. A data set may also have ``gather(indices)``, which
    returns the items at an array of indices as one batch, a tuple of tensors. `DataLoader` then calls that instead of
    fetching the items one by one. ``a + b`` is `ConcatDataset` of both.

    Examples
    --------
    >>> class Squares(Dataset):
    ...     def __len__(self):
    ...         return 4
    ...
    ...     def __getitem__(self, index):
    ...         return float(index), index * index
    >>> from minidl.data import DataLoader
    >>> values, squares = next(iter(DataLoader(Squares(), batch_size=4)))
    >>> squares
    tensor([0, 1, 4, 9], shape=(4,), dtype=int64)
    """

    if TYPE_CHECKING:  # PyTorch's Dataset has no length either, but most of its subclasses have

        def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> T_co:
        raise NotImplementedError(f"{type(self).__name__} needs a __getitem__ that returns the item at an index")

    def __add__(self, other: Dataset[Any]) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co], ABC):
    """Base class of data sets without indices: a subclass has ``__iter__``, which yields the items.

    A `DataLoader` batches the items in the order in which they come, without a sampler. With workers, each iterates
    over a shallow copy of its own; `get_worker_info` tells it which share of the items to yield.

    Examples
    --------
    >>> class Countdown(IterableDataset):
    ...     def __iter__(self):
    ...         return iter([3, 2, 1])
    >>> from minidl.data import DataLoader
    >>> [batch.tolist() for batch in DataLoader(Countdown(), batch_size=2)]
    [[3, 2], [1]]
    """

    @abstractmethod
    def __iter__(self) -> Iterator[T_co]: ...


class MapStyle(Protocol):
    """What a data set with indices has to have: a list has it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


class TensorDataset(Dataset[tuple[Tensor, ...]]):
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


class PixelDataset(Dataset[tuple[Tensor, Any]]):
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
            raise ValueError(f"images must be uint8 (n, H, W) or (n, H, W, C), not {images.dtype} {images.shape}")
        if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"labels must be int64 {images.shape[:1]}, one per image, not {labels.dtype} {labels.shape}"
            )
        self.images = images
        self.labels = self.targets = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        i = _position(self, index)
        return Tensor(_to_floats(self.images[i][None])[0]), int(self.labels[i])

    def gather(self, indices: Array) -> tuple[Tensor, Tensor]:
        """Return a batch: images float32 (N, C, H, W) between 0 and 1, and labels int64 (N,)."""
        return Tensor(_to_floats(self.images[indices])), Tensor(self.labels[indices])


def _to_floats(pixels: Array) -> Array:
    """Bytes (N, H, W) or (N, H, W, C) to float32 (N, C, H, W) in [0, 1], as in torchvision's ToTensor."""
    floats = np.divide(pixels, np.float32(255), dtype=np.float32)
    return floats[:, None] if floats.ndim == 3 else floats.transpose(0, 3, 1, 2)


class Subset(Dataset[Any]):
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

    def __init__(self, dataset: MapStyle, indices: Sequence[int] | Array) -> None:
        found = np.asarray(indices)
        if found.dtype == bool:
            raise TypeError("Subset: indices are positions, not a mask; np.flatnonzero(mask) gives its positions")
        if found.size and found.dtype.kind not in "iu":
            raise TypeError(f"Subset: indices must be ints, not {_not_an_int(indices)!r}")
        self.dataset, self.indices = dataset, found.astype(np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[_position(self, index)])]

    def gather(self, indices: Array) -> Any:
        """Return the items at `indices`, positions in the subset, as one batch."""
        return fetcher(self.dataset)(self.indices[indices])


class ConcatDataset(Dataset[Any]):
    """Data sets one behind the other.

    Parameters
    ----------
    datasets : iterable of Dataset

    Attributes
    ----------
    datasets : list
    cumulative_sizes : list of int
        For each data set, the index behind its last item.

    Raises
    ------
    AssertionError
        If there are no data sets, or one is iterable.
    IndexError
        On indexing, if there is no such item; a ValueError for a negative index, as in PyTorch.

    Examples
    --------
    >>> letters = ConcatDataset(["abc", "xy"])
    >>> letters.cumulative_sizes, letters[3], letters[-1]
    ([3, 5], 'x', 'y')
    """

    def __init__(self, datasets: Iterable[MapStyle]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise AssertionError("datasets should not be an empty iterable")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise AssertionError("ConcatDataset does not support IterableDataset")
        self.cumulative_sizes = list(accumulate(map(len, self.datasets)))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> Any:
        index, n = _position(self, index), len(self)
        if index < -n:
            raise ValueError(f"absolute value of index should not exceed dataset length: {index} of {n} items")
        if index >= n:
            raise IndexError(f"index {index} is out of range: the data sets have {n} items")
        index %= n
        which = bisect_right(self.cumulative_sizes, index)
        return self.datasets[which][index - self.cumulative_sizes[which] + len(self.datasets[which])]


def random_split(dataset: MapStyle, lengths: Sequence[int | float], generator: Generator | None = None) -> list[Subset]:
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
    for i in range(n - int(sum(sizes))):  # what is left
        sizes[i % len(sizes)] += 1
    for i, size in enumerate(sizes):
        if size == 0:
            warnings.warn(f"Length of split at index {i} is 0: {fractions[i]} of {n} items", stacklevel=3)
    return sizes


def fetcher(dataset: MapStyle, collate_fn: Callable[[Any], Any] = default_collate) -> Callable[[Any], Any]:
    """What makes a batch of indices: the data set's own `gather` if it has one and `collate_fn` is the default."""
    gather = _gatherer(dataset) if collate_fn is default_collate else None

    def fetched(indices: Any) -> Any:
        if gather is not None:  # a sampler of one's own may yield lists of indices
            at = indices if isinstance(indices, np.ndarray) else np.array([index(i) for i in indices], np.int64)
            batch = gather(at)
            return list(batch) if type(batch) is tuple else batch  # as PyTorch: [images, labels]
        keys = indices.tolist() if isinstance(indices, np.ndarray) else list(indices)  # ints, not NumPy's
        items = [dataset[key] for key in keys]
        return collate(items, keys) if collate_fn is default_collate else collate_fn(items)

    return fetched


def _gatherer(dataset: Any) -> Callable[[Array], Any] | None:
    """The method `gather` of a data set, or None."""
    if type(dataset) is Subset:  # look at the inner data set once, not for each batch
        inner, positions = _gatherer(dataset.dataset), dataset.indices
        return None if inner is None else lambda indices: inner(positions[indices])
    if isinstance(dataset, Tensor):  # its `gather` is another
        return None
    for owner in type(dataset).__mro__:
        if "gather" in vars(owner):
            return dataset.gather
        if "__getitem__" in vars(owner):  # an inherited `gather` would not see what a subclass overrides alone
            return None
    return None


def _position(dataset: Any, i: Any) -> int:
    """The index of one item as an int."""
    try:
        return index(i)
    except (TypeError, RuntimeError):  # Tensor's, for several elements
        told = f"{type(dataset).__name__}: the index of an item is an int, not {i!r}"
        raise TypeError(f"{told}; for several items take Subset(dataset, range(start, stop)) or a DataLoader") from None
