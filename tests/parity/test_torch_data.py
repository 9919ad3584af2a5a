"""Batches and errors of `minidl.utils.data` are those of torch.utils.data, given the same order."""

import inspect
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
import minidl.utils.data as ours
from tests.helpers.with_torch import torch

theirs = torch.utils.data

Point = namedtuple("Point", "x y")


def plain(batch):
    """Containers as they are, tensors of either library as (dtype, numbers)."""
    if isinstance(batch, (minidl.Tensor, torch.Tensor)):
        return str(batch.dtype).removeprefix("torch."), batch.tolist()
    if isinstance(batch, dict):
        return {key: plain(value) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch).__name__, [plain(value) for value in batch]
    return batch


values = st.sampled_from(["int", "float", "bool", "float32", "uint8", "array", "str", "bytes"])
structures = st.recursive(
    values,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.tuples(inner, inner).map(lambda pair: Point(*pair)),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    ),
    max_leaves=6,
)


def filled(structure, i):
    """An item of this structure, the i-th."""
    if isinstance(structure, dict):
        return {key: filled(value, i) for key, value in structure.items()}
    if isinstance(structure, Point):
        return Point(*(filled(value, i) for value in structure))
    if isinstance(structure, (list, tuple)):
        return type(structure)(filled(value, i) for value in structure)
    return {
        "int": i,
        "float": i / 3,
        "bool": i % 2 == 0,
        "float32": np.float32(i / 3),
        "uint8": np.uint8(i),
        "array": np.full((2, 1), i, np.int16),
        "str": str(i),
        "bytes": b"%d" % i,
    }[structure]


@given(structure=structures, n=st.integers(1, 9), size=st.one_of(st.none(), st.integers(1, 4)), data=st.data())
@settings(deadline=None)
def test_batches(structure, n, size, data):
    items = [filled(structure, i) for i in range(n)]
    order = data.draw(st.lists(st.integers(-n, n - 1), min_size=1, max_size=12))
    drop_last = data.draw(st.booleans()) and size is not None
    a, b = (lib.DataLoader(items, size, sampler=order, drop_last=drop_last) for lib in (ours, theirs))
    assert len(a) == len(b)
    assert [plain(batch) for batch in a] == [plain(batch) for batch in b]


@pytest.mark.parametrize(
    "numbers",
    [[1, 2.5], [2.5, 1], [True, 2], [np.float64(1), 2], [np.bool_(True)] * 2, [np.float16(1)] * 2],
)
def test_numbers(numbers):
    assert plain(ours.default_collate(numbers)) == plain(theirs.default_collate(numbers))


def test_tensor_data_sets():
    x, y = np.arange(12, dtype=np.float32).reshape(6, 2), np.arange(6)
    a = ours.TensorDataset(minidl.tensor(x), minidl.tensor(y))
    b = theirs.TensorDataset(torch.tensor(x), torch.tensor(y))
    for options in ({"batch_size": 4}, {"batch_sampler": [[5, 0], [1]]}, {"batch_size": None}):
        got, expected = ours.DataLoader(a, **options), theirs.DataLoader(b, **options)
        assert [plain(batch) for batch in got] == [plain(batch) for batch in expected]


@pytest.mark.parametrize("size", [None, 1, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_iterable_data_sets(size, drop_last):
    def batches(lib):
        class Count(lib.IterableDataset):
            def __iter__(self):
                return iter(range(7))

        return [plain(batch) for batch in lib.DataLoader(Count(), size, drop_last=drop_last and size is not None)]

    assert batches(ours) == batches(theirs)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")  # more than there are cores
@pytest.mark.parametrize("lengths", [(1, 5, 3), (0, 2, 2), (4, 4, 4)])
def test_order_of_workers(lengths):
    def numbers(lib):
        class Uneven(lib.IterableDataset):
            def __iter__(self):
                k = lib.get_worker_info().id
                return iter(range(10 * k, 10 * k + lengths[k]))

        return [batch.tolist() for batch in lib.DataLoader(Uneven(), 2, num_workers=3)]

    assert numbers(ours) == numbers(theirs)


@pytest.mark.parametrize(
    "name",
    "DataLoader RandomSampler SequentialSampler SubsetRandomSampler WeightedRandomSampler BatchSampler "
    "ConcatDataset default_collate default_convert get_worker_info Subset random_split".split(),
)
def test_arguments(name):
    def described(lib):
        parameters = inspect.signature(getattr(lib, name)).parameters.values()
        return [(p.name, p.kind, p.default) for p in parameters if p.name not in only]

    only = "device", "pin_memory_device", "in_order"  # minidl's, and two that it has not
    if name == "random_split":
        only = ("generator",)  # PyTorch's default generator for None
    assert described(ours) == described(theirs)


BAD = """
DataLoader([1], num_workers=-1)
DataLoader([1], timeout=-1)
DataLoader([1], prefetch_factor=2)
DataLoader([1], num_workers=1, prefetch_factor=-1)
DataLoader([1], persistent_workers=True)
DataLoader([1], multiprocessing_context="fork")
DataLoader([1], shuffle=True, sampler=[0])
DataLoader([1], 2, batch_sampler=[[0]])
DataLoader([1], None, drop_last=True)
DataLoader([1], 0)
DataLoader([1], drop_last=1)
DataLoader([], shuffle=True)
list(DataLoader([1], timeout=1))
list(DataLoader([None]))
list(DataLoader([(1, 2), (1,)], 2))
list(DataLoader([(1, 2), 1], 2))
list(DataLoader([{"a": 1}, {"b": 1}], 2))
list(DataLoader([zeros(2), zeros(3)], 2))
list(DataLoader([1], batch_sampler=[[]]))
list(DataLoader([1, 2], sampler=["a"]))
list(DataLoader([1, 2], sampler=[5]))
setattr(DataLoader([1]), "batch_size", 2)
default_collate([])
Dataset()[0]
len(Dataset())
IterableDataset()
ConcatDataset([])
ConcatDataset([[1], [2]])[2]
ConcatDataset([[1], [2]])[-3]
RandomSampler([])
RandomSampler([1], 1)
RandomSampler([1], num_samples=0)
list(WeightedRandomSampler([1, -1], 2))
list(WeightedRandomSampler([0, 0], 2))
list(WeightedRandomSampler([1, 2], 3, False))
WeightedRandomSampler([[1]], 1)
WeightedRandomSampler([1], 0)
WeightedRandomSampler([1], 1, 1)
BatchSampler([1], 0, False)
BatchSampler([1], 1, None)
next(iter(Sampler()))
""".strip().splitlines()


@pytest.mark.parametrize("call", BAD)
def test_errors_have_pytorchs_type(call):
    def error(lib, zeros):
        with pytest.raises(Exception) as caught:  # noqa: PT011 (of whichever type)
            eval(call, {**vars(lib), "zeros": zeros})
        return caught.type

    assert error(ours, minidl.zeros) is error(theirs, torch.zeros)
