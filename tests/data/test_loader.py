"""Data sets and the loader: every item once, in one order for any number of workers, no thread left."""

import gc
import threading
import time
import traceback
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl.random
from minidl.data import DataLoader, PixelDataset, Subset, TensorDataset, random_split
from minidl.random import Generator
from minidl.tensor import Tensor


def seeded(seed=0):
    return Generator().manual_seed(seed)


def pairs(n, shape=(1, 2, 2)):
    return [(np.full(shape, i, np.float32), i) for i in range(n)]


def pixels(n=20, shape=(6, 5), seed=0):
    rng = minidl.random.Generator().manual_seed(seed).rng
    return PixelDataset(rng.integers(0, 256, (n, *shape), np.uint8), rng.integers(0, 10, n))


def labels_of(loader):
    return [batch[1].array.tolist() for batch in loader]


def worker_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("minidl-loader")]


class Logged:
    """A data set of numbers that writes down which items were asked for, and may fail at one."""

    def __init__(self, n, fails_at=None):
        self.n, self.fails_at, self.asked = n, fails_at, []

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        self.asked.append(index)
        if index == self.fails_at:
            raise KeyError(f"no item {index}")
        return index


# -- what comes out ------------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 40),
    batch_size=st.integers(1, 45),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
    num_workers=st.integers(0, 3),
)
@settings(deadline=None, max_examples=60)
def test_every_item_comes_once_in_len_batches(n, batch_size, drop_last, shuffle, num_workers):
    loader = DataLoader(pairs(n), batch_size, shuffle, drop_last=drop_last, num_workers=num_workers, generator=seeded())
    batches = labels_of(loader)
    assert len(batches) == len(loader)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    seen = [label for batch in batches for label in batch]
    assert len(set(seen)) == len(seen) == (n - n % batch_size if drop_last else n)
    assert shuffle or seen == list(range(len(seen)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "size", "drop_last"), [(10, 3, False), (10, 3, True), (9, 3, True), (2, 3, True), (0, 3, False)]
)
def test_len_is_that_of_torch(n, size, drop_last):
    torch = pytest.importorskip("torch")
    expected = len(torch.utils.data.DataLoader(list(range(n)), size, drop_last=drop_last))
    assert len(DataLoader(range(n), size, drop_last=drop_last)) == expected


def test_images_stay_nchw_and_labels_are_int64():
    images, labels = next(iter(DataLoader(pairs(4, (3, 5, 6)), batch_size=4)))
    assert images.shape == (4, 3, 5, 6)
    assert images.dtype == np.float32
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(images.array[:, 0, 0, 0], [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("items", "dtype"),
    [
        ([1, 2], np.int64),
        ([1.5, 2.0], np.float64),
        ([1, 2.5], np.float32),
        ([2.5, 1], np.float64),
        ([np.float64(1), 2], np.float64),
        ([True, 2], np.int64),
        ([True, False], np.bool_),
        ([np.bool_(True), np.bool_(False)], np.bool_),
        ([np.uint8(1), np.uint8(2)], np.uint8),
        ([np.float64(1), np.float64(2)], np.float64),
        ([np.zeros(3, np.uint8)] * 2, np.uint8),
        ([Tensor(np.zeros(3, np.float64))] * 2, np.float64),
        ([np.zeros(3, np.int64), np.zeros(3, np.float32)], np.float32),
    ],
)
def test_single_values_are_collated_to_a_tensor(items, dtype):
    batch = next(iter(DataLoader(items, batch_size=2)))
    assert isinstance(batch, Tensor)
    assert batch.dtype == dtype
    assert batch.shape[0] == 2


def test_pixels_are_the_bytes_over_255():
    data = pixels(7)
    images, labels = next(iter(DataLoader(data, batch_size=7)))
    np.testing.assert_array_equal(images.array[:, 0], data.images.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(labels.array, data.targets)
    assert images.dtype == np.float32
    assert labels.dtype == np.int64


@pytest.mark.slow
def test_pixels_agree_with_torchvisions_conversion():
    torch = pytest.importorskip("torch")
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    ours = PixelDataset(every, np.array([0]))[0][0].array
    np.testing.assert_array_equal(ours, torch.from_numpy(every).to(torch.float32).div(255).numpy())


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_items_and_batches_agree(shape):
    data = pixels(9, shape)
    fetched = [data[i] for i in range(len(data))]
    images, labels = data.gather(np.arange(9))
    assert all(isinstance(label, int) for _, label in fetched)
    np.testing.assert_array_equal(images.array, np.stack([image.array for image, _ in fetched]))
    np.testing.assert_array_equal(labels.array, [label for _, label in fetched])


def test_colour_images_lie_channels_last():
    data = pixels(8, (6, 5, 3))
    for images, _ in DataLoader(data, batch_size=4, shuffle=True):
        assert images.shape == (4, 3, 6, 5)
        assert images.array.transpose(0, 2, 3, 1).flags.c_contiguous
    assert next(iter(DataLoader([data[i] for i in range(4)], 4)))[0].shape == (4, 3, 6, 5)


def test_iterating_over_a_pixel_data_set_ends():
    data = pixels(5)
    assert [label for _, label in data] == data.labels.tolist()


def test_tensor_data_set_keeps_the_memory_order():
    nchw = np.zeros((6, 5, 4, 3), np.float32).transpose(0, 3, 1, 2)
    (batch,) = next(iter(DataLoader(TensorDataset(Tensor(nchw)), batch_size=4, shuffle=True)))
    assert batch.array.transpose(0, 2, 3, 1).flags.c_contiguous


def test_tensor_data_set_items():
    data = TensorDataset(Tensor(np.arange(6).reshape(3, 2)), Tensor(np.arange(3)))
    row, number = data[-1]
    assert (row.array.tolist(), number.array.tolist(), len(data)) == ([4, 5], 2, 3)


@pytest.mark.parametrize("data", [pixels(20), pairs(20), TensorDataset(Tensor(np.zeros(20)), Tensor(np.arange(20)))])
def test_subset_of_a_subset(data):
    inner = Subset(Subset(data, [3, 1, 4, 15, 9]), np.array([4, 0, 0]))
    expected = [int(np.asarray(getattr(data[i][1], "array", data[i][1]))) for i in (9, 3, 3)]
    assert labels_of(DataLoader(inner, batch_size=3)) == [expected]


# -- order ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [pixels(50), pairs(50)])
def test_order_does_not_depend_on_the_number_of_workers(data):
    def two_epochs(workers):
        loader = DataLoader(data, 7, shuffle=True, num_workers=workers, generator=seeded(3))
        return labels_of(loader), labels_of(loader)

    first = two_epochs(0)
    assert first[0] != first[1]
    assert two_epochs(1) == two_epochs(4) == first


def test_default_generator_shuffles_and_is_drawn_from_once_per_epoch():
    loader = DataLoader(pairs(30), 30, shuffle=True)
    minidl.random.default_generator.manual_seed(5)
    a, b = labels_of(loader), labels_of(loader)
    minidl.random.default_generator.manual_seed(5)
    rng = minidl.random.default_generator.rng
    assert a == [rng.permutation(30).tolist()]
    assert b == [rng.permutation(30).tolist()]


def test_order_is_drawn_when_the_iteration_starts():
    generator = seeded(1)
    loader = DataLoader(pairs(30), 30, shuffle=True, generator=generator, num_workers=2)
    started = iter(loader)
    generator.manual_seed(2)  # too late for the iteration above
    assert labels_of(started) == [minidl.random.Generator().manual_seed(1).rng.permutation(30).tolist()]


def test_unshuffled_loader_draws_nothing():
    generator = seeded(1)
    list(DataLoader(pairs(5), generator=generator))
    assert generator.rng.integers(1 << 40) == minidl.random.Generator().manual_seed(1).rng.integers(1 << 40)


@pytest.mark.parametrize("workers", [0, 2])
def test_two_iterators_do_not_disturb_one_another(workers):
    loader = DataLoader(pairs(20), 4, shuffle=True, num_workers=workers, generator=seeded())
    one, two = iter(loader), iter(loader)
    mixed = [(next(one)[1].array.tolist(), next(two)[1].array.tolist()) for _ in range(len(loader))]
    rng = minidl.random.Generator().manual_seed(0).rng
    assert [label for a, _ in mixed for label in a] == rng.permutation(20).tolist()
    assert [label for _, b in mixed for label in b] == rng.permutation(20).tolist()
    with pytest.raises(StopIteration):
        next(one)


# -- workers -------------------------------------------------------------------------------------------------


def test_workers_run_ahead_but_not_far():
    data = Logged(1000)
    batches = iter(DataLoader(data, 1, num_workers=2))
    next(batches)
    deadline = time.monotonic() + 5
    while len(data.asked) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert 4 <= len(data.asked) <= 6
    batches.close()


def test_break_leaves_no_thread_behind():
    for _ in DataLoader(Logged(1000), 2, num_workers=3):
        assert worker_threads()
        break
    gc.collect()
    assert not worker_threads()


def test_error_of_the_consumer_leaves_no_thread_behind():
    def consume():
        for _ in DataLoader(Logged(1000), 2, num_workers=3):
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        consume()
    assert not worker_threads()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_error_of_the_data_set_reaches_the_consumer(workers):
    loader = DataLoader(Logged(40, fails_at=13), 4, num_workers=workers)
    seen = []
    with pytest.raises(KeyError, match="no item 13") as caught:
        seen.extend(loader)
    assert "__getitem__" in [frame.name for frame in traceback.extract_tb(caught.tb)]
    assert not worker_threads()


def test_batches_before_an_error_still_come():
    batches = iter(DataLoader(Logged(40, fails_at=13), 4, num_workers=3))
    assert [next(batches).array.tolist() for _ in range(3)] == np.arange(12).reshape(3, 4).tolist()
    with pytest.raises(KeyError):
        next(batches)


# -- random_split --------------------------------------------------------------------------------------------


@given(n=st.integers(1, 60), cuts=st.lists(st.integers(0, 60), max_size=4))
@settings(deadline=None)
def test_split_deals_every_item_once(n, cuts):
    ends = sorted({min(cut, n) for cut in cuts} | {0, n})
    lengths = np.diff(ends).tolist()
    parts = random_split(range(n), lengths, seeded())
    assert [len(part) for part in parts] == lengths
    assert sorted(part[i] for part in parts for i in range(len(part))) == list(range(n))


@pytest.mark.slow
@pytest.mark.parametrize("fractions", [[0.5, 0.5], [0.7, 0.2, 0.1], [0.99, 0.01], [1 / 3, 1 / 3, 1 / 3], [1.0]])
@pytest.mark.parametrize("n", [100, 101, 103, 1000])
def test_fractions_are_rounded_as_torch_does(n, fractions):
    torch = pytest.importorskip("torch")
    expected = [len(part) for part in torch.utils.data.random_split(range(n), fractions)]
    assert [len(part) for part in random_split(range(n), fractions)] == expected


def test_split_depends_on_the_generator_alone():
    def split(seed):
        return [part.indices.tolist() for part in random_split(range(50), [20, 30], seeded(seed))]

    assert split(1) == split(1) != split(2)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([5, 4], r"does not equal the length of the input dataset! 5 \+ 4 = 9; .* sum to 10"),
        ([0.5, 0.4], r"0\.5 \+ 0\.4 = 0\.9"),
        ([12, -2], r"12 \+ -2 = 10; expected lengths of at least 0"),
        ([1.5, -0.5], r"Fraction at index 0 is not between 0 and 1: 1\.5"),
        ([], r"input dataset"),
    ],
)
def test_split_refuses_lengths_that_do_not_add_up(lengths, message):
    with pytest.raises(ValueError, match=message):
        random_split(range(10), lengths)


@pytest.mark.parametrize(("lengths", "wrong"), [([2.5, 7.5], "2.5"), ([5, 5.0], "5.0"), ([3, 7, 0.0], "0.0")])
def test_split_truncates_no_lengths(lengths, wrong):
    with pytest.raises(TypeError, match=f"lengths must be ints, or fractions that sum to 1, not {wrong}"):
        random_split(range(10), lengths)


def test_split_takes_numpys_ints():
    assert [len(part) for part in random_split(range(10), np.array([3, 7]))] == [3, 7]


@pytest.mark.parametrize(("indices", "wrong"), [([1, 1.7], "1.7"), ([2.0], "2.0"), (["a"], "'a'"), ([None], "None")])
def test_subset_truncates_no_indices(indices, wrong):
    with pytest.raises(TypeError, match=f"Subset: indices must be ints, not {wrong}"):
        Subset(range(10), indices)


def test_subset_of_nothing():
    assert list(DataLoader(Subset(range(10), []), 2)) == []


def test_split_warns_of_an_empty_part():
    with pytest.warns(UserWarning, match=r"Length of split at index 1 is 0: 0\.001 of 10 items"):
        random_split(range(10), [0.999, 0.001])


# -- messages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True, "4"])
def test_batch_size_must_be_a_positive_int(batch_size):
    with pytest.raises(ValueError, match=f"positive integer value, but got batch_size={batch_size!r}"):
        DataLoader(range(4), batch_size)


def test_negative_num_workers():
    with pytest.raises(ValueError, match="non-negative, but got num_workers=-1"):
        DataLoader(range(4), num_workers=-1)


def test_nothing_to_shuffle():
    with pytest.raises(ValueError, match="at least one item, but the data set has 0"):
        DataLoader([], shuffle=True)


@pytest.mark.parametrize("make", [partial(DataLoader, range(4)), partial(random_split, range(4), [4])])
def test_generators_of_numpy_are_refused(make):
    with pytest.raises(TypeError, match=r"generator must be a minidl\.Generator, not Generator\(PCG64\)"):
        make(generator=np.random.default_rng())


def test_unknown_argument():
    with pytest.raises(TypeError, match="batchsize"):
        DataLoader(range(4), batchsize=2)


def test_items_that_do_not_stack():
    with pytest.raises(RuntimeError, match=r"that of item 0 is \(2, 2\), that of item 2 is \(2, 3\)"):
        list(DataLoader([np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 3))], batch_size=3))


def test_items_that_are_named_by_their_index():
    with pytest.raises(RuntimeError, match=r"that of item 2 is \(2, 3\), that of item 0 is \(2, 2\)"):
        list(DataLoader([np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 3))], batch_sampler=[[2, 0]]))


def test_tensors_of_different_lengths():
    with pytest.raises(AssertionError, match=r"Size mismatch between tensors: .* \[3, 4\]"):
        TensorDataset(Tensor(np.zeros((3, 2))), Tensor(np.zeros(4)))
    for tensors in [(), (Tensor(np.zeros(())),)]:
        with pytest.raises(ValueError, match="one tensor or more, each with a first dimension"):
            TensorDataset(*tensors)


def test_pixels_of_another_kind():
    with pytest.raises(ValueError, match=r"uint8 \(n, H, W\) or .*, not float64 \(2, 4, 4\)"):
        PixelDataset(np.zeros((2, 4, 4)), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"labels must be int64 \(2,\), one per image, not int64 \(3,\)"):
        PixelDataset(np.zeros((2, 4, 4), np.uint8), np.zeros(3, np.int64))


def test_items_that_a_subclass_changes_are_those_of_the_batches():
    """Though the class above hands out whole batches, unchanged."""

    class Doubled(TensorDataset):
        def __getitem__(self, index):
            (x,) = super().__getitem__(index)
            return 2 * x, x

    data = Doubled(minidl.arange(4.0))
    for wrapped in (data, Subset(data, [0, 1, 2, 3])):
        doubled, plain = next(iter(DataLoader(wrapped, batch_size=4)))
        assert (doubled.tolist(), plain.tolist()) == ([0, 2, 4, 6], [0, 1, 2, 3])


def test_the_names_of_torch_utils_data():
    from minidl.utils.data import DataLoader as Loader

    assert Loader is DataLoader is minidl.utils.data.DataLoader
    with pytest.raises(TypeError, match="TensorDataset: expected tensors, not list: use minidl.tensor"):
        TensorDataset([1, 2])


def test_a_tensor_is_a_data_set_of_its_rows():
    x = minidl.arange(8).reshape(4, 2)
    assert [batch.tolist() for batch in DataLoader(x, batch_size=3)] == [x[:3].tolist(), x[3:].tolist()]
    assert next(iter(DataLoader(Subset(x, [2]), batch_size=1))).tolist() == [[4, 5]]
