"""Samplers: every index as often as it should be, from the generator given; what the loader makes of them."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from minidl.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)


def flat(lists):
    return list(chain.from_iterable(lists))


def seeded(seed=0):
    return minidl.Generator().manual_seed(seed)


class Given(Sampler):
    """A sampler of one's own."""

    def __init__(self, indices):
        self.indices = indices

    def __iter__(self):
        yield from self.indices

    def __len__(self):
        return len(self.indices)


# -- samplers ------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 30), draws=st.integers(1, 100))
@settings(deadline=None)
def test_without_replacement_each_index_comes_before_any_comes_again(n, draws):
    drawn = list(RandomSampler(range(n), num_samples=draws, generator=seeded()))
    assert len(drawn) == draws
    for start in range(0, draws, n):
        part = drawn[start : start + n]
        assert len(set(part)) == len(part)
    assert set(drawn) <= set(range(n))


def test_with_replacement_all_indices_are_as_likely():
    drawn = Counter(RandomSampler(range(5), replacement=True, num_samples=10_000, generator=seeded()))
    assert all(abs(drawn[i] - 2000) < 5 * 40 for i in range(5))  # standard deviation 40


def test_with_replacement_as_many_as_there_are_items_by_default():
    sampler = RandomSampler(range(7), replacement=True)
    assert len(sampler) == len(list(sampler)) == sampler.num_samples == 7


@given(weights=st.lists(st.sampled_from([0.0, 0.5, 1.0, 4.0]), min_size=1, max_size=6).filter(any))
@settings(deadline=None)
def test_frequencies_are_in_proportion_to_the_weights(weights):
    n = 20_000
    drawn = Counter(WeightedRandomSampler(weights, n, generator=seeded()))
    for i, weight in enumerate(weights):
        p = weight / sum(weights)
        assert abs(drawn[i] - n * p) <= 5 * np.sqrt(n * p * (1 - p))


def test_weights_without_replacement():
    firsts, n = Counter(), 1500
    generator = seeded()
    for _ in range(n):
        first, second = WeightedRandomSampler(minidl.tensor([1.0, 2.0, 0.0, 1.0]), 2, False, generator)
        assert first != second
        firsts[first] += 1
    assert firsts[2] == 0
    assert abs(firsts[1] - n / 2) < 5 * np.sqrt(n / 4)


def test_subset_random_sampler_takes_each_of_its_indices_once():
    sampler = SubsetRandomSampler([5, 5, "x"], seeded())
    assert Counter(sampler) == {5: 2, "x": 1}
    assert len(sampler) == 3


@given(n=st.integers(0, 30), size=st.integers(1, 12), drop_last=st.booleans(), own=st.booleans())
@settings(deadline=None)
def test_batches_are_the_order_cut(n, size, drop_last, own):
    sampler = Given(range(n)) if own else SequentialSampler(range(n))
    batches = list(BatchSampler(sampler, size, drop_last))
    assert len(batches) == len(BatchSampler(sampler, size, drop_last))
    assert flat(batches) == list(range(n - n % size if drop_last else n))
    assert all(len(batch) == size for batch in batches[:-1])
    loader = DataLoader(range(n), size, sampler=sampler, drop_last=drop_last)
    assert [batch.tolist() for batch in loader] == batches


@pytest.mark.parametrize(
    "make",
    [
        lambda g: RandomSampler(range(20), generator=g),
        lambda g: RandomSampler(range(20), True, 20, g),
        lambda g: SubsetRandomSampler(range(20), g),
        lambda g: WeightedRandomSampler([1.0] * 20, 20, True, g),
    ],
)
def test_draws_come_from_the_generator(make):
    assert list(make(seeded(1))) == list(make(seeded(1))) != list(make(seeded(2)))
    sampler = make(None)
    minidl.manual_seed(3)
    first, second = list(sampler), list(sampler)
    minidl.manual_seed(3)
    assert [list(sampler), list(sampler)] == [first, second]
    assert first != second
    with pytest.raises(TypeError, match=r"generator must be a minidl\.Generator"):
        make(np.random.default_rng())


# -- in a loader ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("data", [list(range(6)), TensorDataset(minidl.arange(6))])
@pytest.mark.parametrize("indices", [[4, 1, 1, 5, 0], np.array([3, 2, 0]), (minidl.tensor(i) for i in (1, 0)), []])
def test_a_loader_takes_the_items_in_the_samplers_order(data, indices, workers):
    indices = list(indices)
    loader = DataLoader(data, 2, sampler=Given(indices), num_workers=workers)
    batches = [batch[0] if isinstance(batch, list) else batch for batch in loader]
    assert flat(batch.tolist() for batch in batches) == [int(i) for i in indices]
    assert len(loader) == len(batches)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("data", [list(range(6)), TensorDataset(minidl.arange(6))])
def test_a_batch_sampler_decides_on_the_batches(data, workers):
    wanted = [[4], [1, 1, 5], [0, 2]]
    loader = DataLoader(data, batch_sampler=wanted, num_workers=workers)
    batches = [batch[0] if isinstance(batch, list) else batch for batch in loader]
    assert [batch.tolist() for batch in batches] == wanted
    assert len(loader) == 3
    assert loader.batch_sampler is wanted
    assert loader.batch_size is None
    assert isinstance(loader.sampler, SequentialSampler)


def test_a_sampler_is_asked_only_as_far_as_needed():
    def endless():
        i = 0
        while True:
            asked.append(i)
            yield i % 3
            i += 1

    asked = []
    batches = iter(DataLoader("abc", 2, sampler=endless()))
    assert [next(batches), next(batches)] == [["a", "b"], ["c", "a"]]
    assert len(asked) == 4


def test_a_subclass_that_orders_the_draws_otherwise():
    class Sorted(RandomSampler):
        def __iter__(self):
            return iter(sorted(super().__iter__()))

    class Reversed(BatchSampler):
        def __iter__(self):
            return iter(list(super().__iter__())[::-1])

    assert [batch.tolist() for batch in DataLoader(range(4), 2, sampler=Sorted(range(4)))] == [[0, 1], [2, 3]]
    batch_sampler = Reversed(SequentialSampler(range(4)), 2, False)
    assert [batch.tolist() for batch in DataLoader(range(4), batch_sampler=batch_sampler)] == [[2, 3], [0, 1]]


def test_keys_need_not_be_ints():
    assert next(iter(DataLoader({"a": 1, "b": 2}, 2, sampler=["b", "a"]))).tolist() == [2, 1]


def test_indices_are_not_truncated():
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        list(DataLoader(TensorDataset(minidl.arange(3)), sampler=[1.7]))


def test_default_samplers():
    loader = DataLoader(range(5), 2, drop_last=True)
    assert isinstance(loader.sampler, SequentialSampler)
    assert isinstance(DataLoader(range(5), shuffle=True).sampler, RandomSampler)
    assert isinstance(loader.batch_sampler, BatchSampler)
    assert (loader.batch_sampler.batch_size, loader.batch_sampler.drop_last) == (2, True)
    assert loader.batch_sampler.sampler is loader.sampler
    assert loader.collate_fn is default_collate


@pytest.mark.parametrize("data", [[(1, "a"), (2, "b")], TensorDataset(minidl.arange(2), minidl.arange(2))])
@pytest.mark.parametrize("workers", [0, 2])
def test_collate_fn_is_given_the_items(data, workers):
    loader = DataLoader(data, 2, collate_fn=tuple, num_workers=workers)
    (batch,) = loader
    assert type(batch) is tuple
    assert [type(item) for item in batch] == [tuple, tuple]


@pytest.mark.parametrize("workers", [0, 2])
def test_without_a_batch_size_items_come_one_by_one(workers):
    data = [(np.zeros(2), "a", 1), (np.ones(2), "b", 2)]
    loader = DataLoader(data, batch_size=None, num_workers=workers)
    assert loader.batch_sampler is None
    assert len(loader) == 2
    (x, name, number), (y, *_) = loader
    assert (x.tolist(), name, number, y.tolist()) == ([0, 0], "a", 1, [1, 1])
    assert list(DataLoader(data, None, collate_fn=lambda item: item[1])) == ["a", "b"]
    whole = DataLoader(TensorDataset(minidl.arange(3)), None, sampler=BatchSampler([2, 0, 1], 2, False))
    assert [x.tolist() for (x,) in whole] == [[2, 0], [1]]


# -- refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: next(iter(Sampler())), NotImplementedError, "Sampler needs an __iter__"),
        (lambda: RandomSampler([1], 1), TypeError, "replacement should be a boolean value, but got replacement=1"),
        (lambda: RandomSampler([1], num_samples=0), ValueError, "num_samples should be a positive .* num_samples=0"),
        (lambda: RandomSampler([1], num_samples=1.5), ValueError, "num_samples=1.5"),
        (lambda: RandomSampler([]), ValueError, "at least one item, but the data set has 0"),
        (lambda: WeightedRandomSampler([1], 0), ValueError, "num_samples should be a positive integer"),
        (lambda: WeightedRandomSampler([1], 1, 1), ValueError, "replacement should be a boolean"),
        (lambda: WeightedRandomSampler([[1]], 1), ValueError, r"1d sequence but given weights have shape \(1, 1\)"),
        (lambda: WeightedRandomSampler([1, 2, -1], 1), RuntimeError, r"at least 0, but weight 2 is -1\.0"),
        (lambda: WeightedRandomSampler([1, float("nan")], 1), RuntimeError, "weight 1 is nan"),
        (lambda: WeightedRandomSampler([0, 0], 1), RuntimeError, "none of 2 is"),
        (lambda: WeightedRandomSampler([], 1), RuntimeError, "none of 0 is"),
        (lambda: WeightedRandomSampler([1, 0, 1], 3, False), RuntimeError, "3 samples .*: 2 weights are positive"),
        (lambda: BatchSampler([1], 0, False), ValueError, "batch_size should be a positive integer value, .*=0"),
        (lambda: BatchSampler([1], 1, None), ValueError, "drop_last should be a boolean value, but got drop_last=None"),
        (lambda: DataLoader([1], shuffle=True, sampler=[0]), ValueError, "mutually exclusive with shuffle"),
        (lambda: DataLoader([1], 2, batch_sampler=[[0]]), ValueError, "exclusive with batch_size, .* got batch_size=2"),
        (lambda: DataLoader([1], shuffle=True, batch_sampler=[[0]]), ValueError, "exclusive .*shuffle=True"),
        (lambda: DataLoader([1], sampler=[0], batch_sampler=[[0]]), ValueError, r"exclusive .*sampler=\[0\]"),
        (lambda: DataLoader([1], drop_last=True, batch_sampler=[[0]]), ValueError, "exclusive .*drop_last=True"),
        (
            lambda: DataLoader([1], None, drop_last=True),
            ValueError,
            "batch_size=None option .* exclusive with drop_last",
        ),
        (lambda: DataLoader([1], drop_last=1), ValueError, "drop_last should be a boolean"),
    ],
)
def test_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "name", ["dataset", "batch_size", "sampler", "batch_sampler", "drop_last", "persistent_workers"]
)
def test_what_a_loader_is_made_of_cannot_be_exchanged(name):
    loader = DataLoader(range(4), 2)
    with pytest.raises(ValueError, match=f"{name} attribute should not be set after DataLoader is initialized"):
        setattr(loader, name, None)
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]
    loader.pin_memory = True
    assert loader.pin_memory


@given(n=st.integers(1, 30), ranks=st.integers(1, 5), batch=st.integers(1, 4), shuffle=st.booleans())
def test_the_ranks_share_one_order(n, ranks, batch, shuffle):
    def batches(drop_last, size, ranks):
        samplers = [DistributedSampler(range(n), ranks, r, shuffle, seed=2, drop_last=drop_last) for r in range(ranks)]
        assert {len(list(sampler)) for sampler in samplers} == {len(samplers[0])} == {samplers[0].num_samples}
        return [list(BatchSampler(sampler, size, drop_last=True)) for sampler in samplers]

    whole = list(DistributedSampler(range(n), 1, 0, shuffle, seed=2))
    shares = [flat(rank) for rank in batches(False, 1, ranks)]
    assert sorted(set(flat(shares))) == list(range(n))  # padded with a second use of the first
    assert flat(zip(*shares, strict=True)) == (whole * ranks)[: -(-n // ranks) * ranks]
    shares = [flat(rank) for rank in batches(True, 1, ranks)]
    assert flat(zip(*shares, strict=True)) == whole[: n // ranks * ranks]
    for k, (joined, *parts) in enumerate(
        zip(*batches(True, batch * ranks, 1), *batches(True, batch, ranks), strict=True)
    ):
        assert sorted(joined) == sorted(flat(parts)), k


def test_each_epoch_has_an_order_of_its_own_that_can_be_had_again():
    sampler = DistributedSampler(range(50), 2, 1, seed=1)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert orders[0] == orders[2] != orders[1]
    assert list(DistributedSampler(range(50), 2, 1, seed=2)) == orders[1]  # seed + epoch
    assert [x.tolist() for (x,) in DataLoader(TensorDataset(minidl.arange(50)), 25, sampler=sampler)] == [orders[0]]


def test_a_rank_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"rank should be in the interval \[0, 1\], but got rank=2"):
        DistributedSampler(range(3), 2, 2)
    with pytest.raises(ValueError, match=r"call init_process_group\(\) first"):
        DistributedSampler(range(3))
