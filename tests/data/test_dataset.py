"""Data sets of one's own, with and without indices, and joined ones."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from minidl.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    PixelDataset,
    Subset,
    SyntheticDigits,
    TensorDataset,
)


def flat(lists):
    return list(chain.from_iterable(lists))


class Squares(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if not 0 <= index < self.n:
            raise IndexError(index)
        return index * index


class Count(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        yield from range(self.n)


# -- Dataset -------------------------------------------------------------------------------------------------


def test_a_data_set_of_ones_own():
    assert [batch.tolist() for batch in DataLoader(Squares(5), 2)] == [[0, 1], [4, 9], [16]]
    assert list(Squares(3)) == [0, 1, 4]


def test_minidls_data_sets_are_instances():
    pixels = PixelDataset(np.zeros((2, 3, 3), np.uint8), np.arange(2))
    joined = Squares(2) + pixels
    for data in (pixels, TensorDataset(minidl.arange(2)), Subset(pixels, [0]), joined, Count(3)):
        assert isinstance(data, Dataset)
    assert isinstance(joined, ConcatDataset)
    assert len(joined) == 4
    assert not isinstance([1], Dataset)
    assert Dataset[int] is not None


def test_a_data_set_without_methods():
    with pytest.raises(NotImplementedError, match="Dataset needs a __getitem__"):
        Dataset()[0]
    with pytest.raises(TypeError, match=r"no len\(\)"):
        len(Dataset())
    with pytest.raises(TypeError, match="abstract"):
        IterableDataset()


# -- ConcatDataset -------------------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=5))
@settings(deadline=None)
def test_joined_data_sets_are_joined_lists(sizes):
    parts = [[(i, j) for j in range(size)] for i, size in enumerate(sizes)]
    joined, whole = ConcatDataset(iter(parts)), flat(parts)
    assert len(joined) == len(whole)
    assert joined.cumulative_sizes == np.cumsum(sizes).tolist()
    assert joined.datasets == parts
    for index in range(-len(whole), len(whole)):
        assert joined[index] == whole[index]
    assert list(joined) == whole
    with pytest.raises(IndexError, match=f"index {len(whole)} is out of range: the data sets have {len(whole)} items"):
        joined[len(whole)]
    with pytest.raises(ValueError, match="should not exceed dataset length"):
        joined[-len(whole) - 1]


def test_joined_data_sets_refused():
    with pytest.raises(AssertionError, match="should not be an empty iterable"):
        ConcatDataset([])
    with pytest.raises(AssertionError, match="does not support IterableDataset"):
        ConcatDataset([[1], Count(2)])


# -- IterableDataset -----------------------------------------------------------------------------------------


@given(n=st.integers(0, 20), size=st.integers(1, 7), drop_last=st.booleans())
@settings(deadline=None)
def test_items_come_in_their_order(n, size, drop_last):
    loader = DataLoader(Count(n), size, drop_last=drop_last)
    batches = [batch.tolist() for batch in loader]
    assert flat(batches) == list(range(n - n % size if drop_last else n))
    assert all(len(batch) == size for batch in batches[:-1])
    assert [batch.tolist() for batch in loader] == batches


def test_without_a_batch_size():
    assert list(DataLoader(Count(3), None)) == [0, 1, 2]


def test_length_is_the_data_sets():
    class Sized(Count):
        def __len__(self):
            return self.n

    assert len(DataLoader(Sized(5), 2)) == 3
    assert len(DataLoader(Sized(5), 2, drop_last=True)) == 2
    assert len(DataLoader(Sized(5), None)) == 5
    with pytest.raises(TypeError, match=r"no len\(\)"):
        len(DataLoader(Count(5)))


@pytest.mark.parametrize("option", [{"shuffle": True}, {"sampler": [0]}, {"batch_sampler": [[0]]}])
def test_nobody_else_orders_the_items(option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"IterableDataset: expected unspecified {name} option, but got {name}="):
        DataLoader(Count(3), **option)
    assert value


def test_batch_size_is_checked():
    with pytest.raises(ValueError, match="batch_size=0"):
        DataLoader(Count(3), 0)
    assert len(list(DataLoader(Count(3), 2, shuffle=False))) == 2


@pytest.mark.parametrize("of", [lambda digits: digits, lambda digits: Subset(digits, [1, 2]), lambda d: d + d])
@pytest.mark.parametrize("several", [slice(0, 2), [0, 1], minidl.tensor([0, 1]), np.arange(2), 1.0, "a", None])
def test_the_index_of_an_item_is_one_int(of, several):
    dataset = of(SyntheticDigits(3, seed=0))
    with pytest.raises(TypeError, match=f"{type(dataset).__name__}: the index of an item is an int, not .* Subset"):
        dataset[several]
    assert dataset[1][1] == dataset[np.int64(1)][1] == dataset[minidl.tensor(1)][1]
