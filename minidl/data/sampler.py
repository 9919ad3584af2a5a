"""Samplers: the order in which a loader takes the items of a data set.

Every draw comes from a `minidl.Generator`, once per iteration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np

from minidl import distributed
from minidl.creation import as_tensor
from minidl.random import Generator, rng_of
from minidl.tensor import Array, Tensor

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Sampler(Generic[T_co]):
    """Base class of samplers: a subclass has ``__iter__``, and ``__len__`` if its length is known.

    Examples
    --------
    >>> class Backwards(Sampler):
    ...     def __init__(self, data):
    ...         self.data = data
    ...
    ...     def __iter__(self):
    ...         return iter(range(len(self.data) - 1, -1, -1))
    >>> list(Backwards("abc"))
    [2, 1, 0]
    """

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__} needs an __iter__ that yields indices")


class _DrawnAtOnce(Sampler[int]):
    """A sampler that knows the whole order when an iteration starts."""

    def _order(self) -> Array:
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        return iter(self._order().tolist())


class SequentialSampler(_DrawnAtOnce):
    """The items in their order.

    Parameters
    ----------
    data_source : data set
        Its length is asked for in each iteration.

    Examples
    --------
    >>> list(SequentialSampler("abc"))
    [0, 1, 2]
    """

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __len__(self) -> int:
        return len(self.data_source)

    def _order(self) -> Array:
        return np.arange(len(self.data_source))


class RandomSampler(_DrawnAtOnce):
    """The items in random order: without replacement a permutation, with replacement independent draws.

    Parameters
    ----------
    data_source : data set
    replacement : bool
        Draw with replacement.
    num_samples : int, optional
        Number of draws, by default the length of the data set. Without replacement, more draws than there are items
        are several permutations in a row.
    generator : Generator, optional
        By default `minidl.random.default_generator`.

    Raises
    ------
    ValueError
        If `num_samples` is not a positive int, or the data set has no items.
    TypeError
        If `replacement` is not a bool, or `generator` is another library's.

    Examples
    --------
    >>> sorted(RandomSampler("abcd"))
    [0, 1, 2, 3]
    >>> len(list(RandomSampler("abcd", replacement=True, num_samples=100)))
    100
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement should be a boolean value, but got {replacement=}")
        if len(data_source) == 0:
            raise ValueError("RandomSampler needs at least one item, but the data set has 0")
        if num_samples is not None:
            _check_positive(num_samples=num_samples)
        rng_of(generator)  # rejects another library's generator now, not in the first epoch
        self.data_source, self.replacement, self.generator = data_source, replacement, generator
        self._num_samples = num_samples

    @property
    def num_samples(self) -> int:
        """Number of draws in an iteration."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __len__(self) -> int:
        return self.num_samples

    def _order(self) -> Array:
        n, rng = len(self.data_source), rng_of(self.generator)
        if self.replacement:
            return rng.integers(0, n, self.num_samples)
        permutations = [rng.permutation(n) for _ in range(0, self.num_samples, n)]
        return np.concatenate(permutations)[: self.num_samples]


class SubsetRandomSampler(Sampler[Any]):
    """The given indices in random order, each once.

    Parameters
    ----------
    indices : sequence
    generator : Generator, optional
        By default `minidl.random.default_generator`.

    Raises
    ------
    TypeError
        If `generator` is another library's.

    Examples
    --------
    >>> sorted(SubsetRandomSampler([2, 3, 5]))
    [2, 3, 5]
    """

    def __init__(self, indices: Sequence[Any], generator: Generator | None = None) -> None:
        rng_of(generator)
        self.indices, self.generator = indices, generator

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Any]:
        order = rng_of(self.generator).permutation(len(self.indices))
        return iter([self.indices[i] for i in order.tolist()])


class WeightedRandomSampler(_DrawnAtOnce):
    """Indices drawn at random, each with a probability in proportion to its weight.

    Parameters
    ----------
    weights : sequence of float
        One per item of the data set; they need not sum to 1.
    num_samples : int
        Number of draws.
    replacement : bool
        Draw with replacement; without, no index is drawn twice.
    generator : Generator, optional
        By default `minidl.random.default_generator`.

    Raises
    ------
    ValueError
        If `num_samples` is not a positive int, `replacement` is not a bool, or `weights` has not one dimension.
    RuntimeError
        If a weight is negative or not finite, all are 0, or fewer than `num_samples` can be drawn without replacement.
    TypeError
        If `generator` is another library's.

    Notes
    -----
    With weights :math:`w`, index :math:`i` is drawn with probability :math:`w_i / \\sum_j w_j`; without replacement
    the sum is over the indices that are left.

    Examples
    --------
    >>> list(WeightedRandomSampler([0, 1, 0], 4))
    [1, 1, 1, 1]
    >>> sorted(WeightedRandomSampler([0.1, 5, 0, 2], 3, replacement=False))
    [0, 1, 3]
    """

    def __init__(
        self,
        weights: Sequence[float] | Array | Tensor,
        num_samples: int,
        replacement: bool = True,
        generator: Generator | None = None,
    ) -> None:
        _check_positive(num_samples=num_samples)
        if not isinstance(replacement, bool):
            raise ValueError(f"replacement should be a boolean value, but got {replacement=}")
        rng_of(generator)
        self.weights = as_tensor(weights, dtype=np.float64).cpu()
        _check_weights(self.weights.array, None if replacement else num_samples)
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator

    def __len__(self) -> int:
        return self.num_samples

    def _order(self) -> Array:
        weights = self.weights.array
        rng = rng_of(self.generator)
        return rng.choice(len(weights), self.num_samples, self.replacement, weights / weights.sum())


class DistributedSampler(_DrawnAtOnce):
    """The share of one rank in the items: indices r, r + N, r + 2N, ... of an order that all N ranks agree on.

    So batch k of every rank, taken together, is batch k of one process with N times the batch size.

    Parameters
    ----------
    dataset : data set
    num_replicas, rank : int, optional
        N and r, by default those of the process group (`minidl.distributed`).
    shuffle : bool
        A random order, the permutation of a `Generator` seeded with `seed` + epoch; False for that of the data set.
    seed : int
        The same on all ranks.
    drop_last : bool
        All ranks get equally many items: the last n mod N items of the order are left out, or else, by default, its
        first items are repeated at the end.

    Attributes
    ----------
    num_samples, total_size : int
        Items of one rank, and of all.

    Raises
    ------
    ValueError
        If `rank` is not in 0 to N - 1, or there is no process group to ask.

    Examples
    --------
    >>> [list(DistributedSampler("abcde", num_replicas=2, rank=r, shuffle=False)) for r in range(2)]
    [[0, 2, 4], [1, 3, 0]]
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        self.num_replicas = distributed.get_world_size() if num_replicas is None else num_replicas
        self.rank = distributed.get_rank() if rank is None else rank
        if not 0 <= self.rank < self.num_replicas:
            raise ValueError(f"rank should be in the interval [0, {self.num_replicas - 1}], but got rank={self.rank}")
        self.dataset, self.shuffle, self.seed, self.drop_last, self.epoch = dataset, shuffle, seed, drop_last, 0
        n = len(dataset)
        self.num_samples = n // self.num_replicas if drop_last else -(-n // self.num_replicas)
        self.total_size = self.num_samples * self.num_replicas

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Draw another order from now on. Without it every epoch has the same."""
        self.epoch = epoch

    def _order(self) -> Array:
        n = len(self.dataset)
        order = Generator().manual_seed(self.seed + self.epoch).rng.permutation(n) if self.shuffle else np.arange(n)
        return np.resize(order, self.total_size)[self.rank :: self.num_replicas]  # repeats the order where it is short


class BatchSampler(Sampler[list[Any]]):
    """Lists of `batch_size` indices of another sampler.

    Parameters
    ----------
    sampler : Sampler or iterable
    batch_size : int
    drop_last : bool
        Drop the last batch if it is not full.

    Raises
    ------
    ValueError
        If `batch_size` is not a positive int, or `drop_last` is not a bool.

    Examples
    --------
    >>> list(BatchSampler(SequentialSampler("abcde"), 2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Iterable[Any], batch_size: int, drop_last: bool) -> None:
        _check_positive(batch_size=batch_size)
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got {drop_last=}")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __len__(self) -> int:
        full, rest = divmod(len(self.sampler), self.batch_size)  # type: ignore[arg-type]
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[Any]]:
        return in_batches(iter(self.sampler), self.batch_size, self.drop_last)


def in_batches(items: Iterator[T], batch_size: int, drop_last: bool) -> Iterator[list[T]]:
    """Lists of `batch_size` items; the last may be shorter."""
    while len(batch := list(islice(items, batch_size))) == batch_size:
        yield batch
    if batch and not drop_last:
        yield batch


def index_batches(batch_sampler: Iterable[Any]) -> Iterator[Any]:
    """The batches of a sampler, as slices of one array where the whole order is known: they cost less than lists."""
    if isinstance(batch_sampler, BatchSampler) and type(batch_sampler).__iter__ is BatchSampler.__iter__:
        sampler, size = batch_sampler.sampler, batch_sampler.batch_size
        if isinstance(sampler, _DrawnAtOnce) and type(sampler).__iter__ is _DrawnAtOnce.__iter__:
            order = sampler._order()
            end = len(order) - len(order) % size if batch_sampler.drop_last else len(order)
            return iter([order[i : i + size] for i in range(0, end, size)])
    return iter(batch_sampler)


def _check_positive(**named: Any) -> None:
    ((name, value),) = named.items()
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"{name} should be a positive integer value, but got {name}={value!r}")


def _check_weights(weights: Array, distinct: int | None) -> None:
    """`distinct`: how many different indices will be drawn, None if they may repeat."""
    if weights.ndim != 1:
        raise ValueError(f"weights should be a 1d sequence but given weights have shape {weights.shape}")
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if wrong.size:
        raise RuntimeError(f"weights must be finite and at least 0, but weight {wrong[0]} is {weights[wrong[0]]}")
    positive = np.count_nonzero(weights)
    if positive == 0:
        raise RuntimeError(f"at least one weight must be positive, but none of {len(weights)} is")
    if distinct is not None and distinct > positive:
        raise RuntimeError(f"cannot draw {distinct} samples without replacement: {positive} weights are positive")
