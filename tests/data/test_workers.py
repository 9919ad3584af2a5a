"""Worker threads: who runs what, how they start and end, and how long the loader waits for them."""

import gc
import threading
import time
from itertools import chain

import pytest

import minidl
from minidl.data import DataLoader, IterableDataset, get_worker_info


class Who:
    """A data set whose items are the ids of the workers that fetch them."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return get_worker_info().id


class Shards(IterableDataset):
    """Each worker's share of the numbers up to `n`, or all without workers."""

    def __init__(self, n):
        self.n = n

    def __iter__(self):
        info = get_worker_info()
        return iter(range(self.n) if info is None else range(info.id, self.n, info.num_workers))


def flat(lists):
    return list(chain.from_iterable(lists))


def worker_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("minidl-loader")]


def numbers(loader):
    return [batch.tolist() for batch in loader]


def test_workers_take_turns():
    assert numbers(DataLoader(Who(), 2, num_workers=3)) == [[0, 0], [1, 1], [2, 2], [0, 0], [1, 1], [2, 2]]


def test_worker_info():
    infos = []
    data = range(8)
    list(DataLoader(data, num_workers=2, worker_init_fn=lambda k: infos.append((k, get_worker_info()))))
    (_, first), (_, second) = sorted(infos, key=lambda pair: pair[0])
    assert [k for k, _ in sorted(infos, key=lambda pair: pair[0])] == [first.id, second.id] == [0, 1]
    assert first.num_workers == second.num_workers == 2
    assert first.dataset is data
    assert second.seed == first.seed + 1
    assert get_worker_info() is None


def test_seeds_follow_from_the_generator_and_draw_nothing_from_it():
    def run(seed):
        seeds, generator = set(), minidl.Generator().manual_seed(seed)
        for _ in DataLoader([1], num_workers=1, worker_init_fn=lambda _: seeds.add(get_worker_info().seed)):
            pass
        loader = DataLoader(
            [1], num_workers=1, generator=generator, worker_init_fn=lambda _: seeds.add(get_worker_info().seed)
        )
        seeds.clear()
        list(loader)
        assert generator.rng.random() == minidl.Generator().manual_seed(seed).rng.random()
        return seeds

    assert run(1) == run(1) != run(2)


def test_each_worker_is_initialised_in_its_thread_before_its_first_batch():
    named = {}
    loader = DataLoader(Named(named), num_workers=2, worker_init_fn=lambda k: named.update({threading.get_ident(): k}))
    assert sorted(set(flat(numbers(loader)))) == [0, 1]


class Named:
    def __init__(self, names):
        self.names = names

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.names[threading.get_ident()]


def test_an_error_at_the_start_of_a_worker_reaches_the_consumer():
    def fail(k):
        raise LookupError(f"no worker {k}")

    with pytest.raises(LookupError, match="no worker 0"):
        next(iter(DataLoader(range(4), num_workers=2, worker_init_fn=fail)))
    assert not worker_threads()


# -- iterable data sets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 7, 30])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_shards_make_up_the_whole(n, workers):
    assert sorted(flat(numbers(DataLoader(Shards(n), 2, num_workers=workers)))) == list(range(n))
    assert not worker_threads()


def test_workers_that_are_through_have_no_more_turns():
    class Uneven(IterableDataset):
        def __iter__(self):
            k = get_worker_info().id
            return iter([k] * [1, 5, 3][k])

    assert flat(numbers(DataLoader(Uneven(), num_workers=3))) == [0, 1, 2, 1, 2, 1, 2, 1, 1]


def test_each_worker_has_a_copy_that_it_may_change():
    def take_half(k):
        data = get_worker_info().dataset
        data.start, data.stop = (0, 3) if k == 0 else (3, 5)

    class Range(IterableDataset):
        start, stop = 0, 5

        def __iter__(self):
            return iter(range(self.start, self.stop))

    data = Range()
    loader = DataLoader(data, num_workers=2, worker_init_fn=take_half)
    assert flat(numbers(loader)) == [0, 3, 1, 4, 2]
    assert (data.start, data.stop) == (0, 5)


def test_an_error_in_a_stream_reaches_the_consumer():
    class Broken(IterableDataset):
        def __iter__(self):
            yield 1
            raise KeyError("no second")

    batches = iter(DataLoader(Broken(), num_workers=2))
    assert [next(batches).tolist(), next(batches).tolist()] == [[1], [1]]
    with pytest.raises(KeyError, match="no second"):
        next(batches)
    assert not worker_threads()


# -- how far ahead, how long ---------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0, 1, 5])
def test_prefetch_factor(factor):
    asked = []

    class Logged:
        def __len__(self):
            return 100

        def __getitem__(self, index):
            asked.append(index)
            return index

    batches = iter(DataLoader(Logged(), num_workers=2, prefetch_factor=factor))
    next(batches)
    deadline = time.monotonic() + 5
    while len(asked) < 1 + 2 * factor and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.02)
    assert len(asked) == 1 + 2 * factor
    batches.close()


def test_persistent_workers_stay_and_end_with_the_loader():
    begun = []
    loader = DataLoader(range(40), num_workers=2, persistent_workers=True, worker_init_fn=begun.append)
    for _ in range(2):
        assert flat(numbers(loader)) == list(range(40))
    for batch in loader:
        assert batch.tolist() == [0]
        break
    assert flat(numbers(loader)) == list(range(40))
    assert sorted(begun) == [0, 1]
    assert len(worker_threads()) == 2
    del loader
    gc.collect()
    for thread in worker_threads():
        thread.join(5)
    assert not worker_threads()


def test_others_begin_anew_in_each_iteration():
    begun = []
    loader = DataLoader(range(4), num_workers=2, worker_init_fn=begun.append)
    assert numbers(loader) == numbers(loader)
    assert sorted(begun) == [0, 0, 1, 1]


def test_timeout():
    go_on = threading.Event()

    class Slow:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            if index == 1:
                go_on.wait(10)
            return index

    batches = iter(DataLoader(Slow(), num_workers=1, timeout=0.2))
    assert next(batches).tolist() == [0]
    with pytest.raises(RuntimeError, match=r"DataLoader timed out after 0\.2 seconds"):
        next(batches)
    go_on.set()
    for thread in worker_threads():
        thread.join(5)
    assert numbers(DataLoader(Slow(), num_workers=1, timeout=60)) == [[0], [1], [2]]


def test_a_data_sets_own_timeout_is_its_own():
    class Remote:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            raise TimeoutError("the server")

    with pytest.raises(TimeoutError, match="the server"):
        list(DataLoader(Remote(), num_workers=1, timeout=60))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"timeout": -1}, ValueError, "timeout option should be non-negative, but got timeout=-1"),
        ({"timeout": 1}, AssertionError, "timeout=1 is for batches of workers, but got num_workers=0"),
        ({"num_workers": 2, "prefetch_factor": -1}, ValueError, "should be non-negative, but got prefetch_factor=-1"),
        ({"prefetch_factor": 2}, ValueError, "prefetch_factor=2 needs workers that prefetch, but got num_workers=0"),
        ({"persistent_workers": True}, ValueError, "needs num_workers > 0, but got num_workers=0"),
        ({"multiprocessing_context": "fork"}, ValueError, "workers are threads, but got 'fork'"),
        ({"num_workers": 2, "multiprocessing_context": "spawn"}, ValueError, "workers are threads, but got 'spawn'"),
    ],
)
def test_refused(options, error, message):
    with pytest.raises(error, match=message):
        DataLoader(range(4), **options)


def test_generic_classes_take_a_type_in_annotations():
    for kind in (DataLoader, IterableDataset, minidl.data.Dataset, minidl.data.Sampler):
        assert kind[int].__origin__ is kind


def test_arguments_stand_where_pytorch_has_them():
    loader = DataLoader(range(4), 2, False, None, None, 1, list, True, True, 9, print, None, None)
    assert (loader.num_workers, loader.collate_fn, loader.pin_memory, loader.drop_last) == (1, list, True, True)
    assert (loader.timeout, loader.worker_init_fn, loader.prefetch_factor) == (9, print, 2)
    assert DataLoader(range(4)).prefetch_factor is None
