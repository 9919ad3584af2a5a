"""The number of threads: it changes no bit and nobody else's setting, and Python threads may train at once."""

import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

import minidl
from minidl import kernels, nn
from minidl.kernels.cpu import _threads as threads
from minidl.nn import functional as F

MOST = numba.config.NUMBA_NUM_THREADS
two_threads = pytest.mark.skipif(MOST < 2, reason="Numba was started with one thread")


# --- Small models that together run every kernel ---


class Autoencoder(nn.Module):
    """Strided and transposed convolutions, both kinds of upsampling, pooling that is undone by its indices."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.third = nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1)
        self.fourth, self.last = nn.ConvTranspose2d(8, 3, 2, stride=2), nn.Conv2d(3, 2, 3, padding=1)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x):
        y, places = self.pool(minidl.relu(self.first(x)))
        y = self.unpool(y, places)
        y = minidl.tanh(F.avg_pool2d(self.second(y), 2))
        y = F.interpolate(minidl.sigmoid(self.third(y)), scale_factor=2, mode="nearest")
        return self.last(F.interpolate(self.fourth(y), size=(16, 16), mode="bilinear"))


def classifier(dropout: float):
    linear = [nn.Linear(6 * 6 * 6, 70), nn.ReLU(), nn.Dropout(dropout), nn.Linear(70, 10)]
    return nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), *linear)


def train(model, optimizer, loss_of: Callable, batches: list, steps: int = 20) -> list[np.ndarray]:
    """The losses, then the parameters."""
    losses = []
    for step in range(steps):
        loss = loss_of(model, *batches[step % len(batches)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return [np.array(losses), *(p.numpy().copy() for p in (q.detach() for q in model.parameters()))]


def train_autoencoder() -> list[np.ndarray]:
    minidl.manual_seed(1)
    model = Autoencoder()
    batches = [(minidl.rand(33, 2, 16, 16),) for _ in range(3)]
    optimizer = minidl.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
    return train(model, optimizer, lambda m, x: F.binary_cross_entropy_with_logits(m(x), x), batches)


def train_vae() -> list[np.ndarray]:
    minidl.manual_seed(2)
    model = nn.Sequential(nn.Linear(50, 40), nn.Tanh(), nn.Linear(40, 50))
    batches = [(minidl.rand(65, 50),) for _ in range(3)]
    optimizer = minidl.optim.SGD(model.parameters(), lr=1e-2)

    def loss_of(m, x):
        y = m(x)
        kl = F.gaussian_kl(y[:, :25], y[:, 25:])
        return F.binary_cross_entropy(minidl.sigmoid(y), x) + F.mse_loss(y, x) + 1e-4 * kl

    return train(model, optimizer, loss_of, batches)


def train_classifier(dropout: float = 0.5, nesterov: bool = True) -> list[np.ndarray]:
    minidl.manual_seed(3)
    model = classifier(dropout)
    batches = [(minidl.rand(35, 3, 16, 16), minidl.randint(0, 10, (35,))) for _ in range(3)]
    optimizer = minidl.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, nesterov=nesterov)
    return train(model, optimizer, lambda m, x, label: F.cross_entropy(m(x), label), batches)


def train_norms() -> list[np.ndarray]:
    """Channels last in memory and first, and a sum of two branches."""
    minidl.manual_seed(4)
    layers = [
        nn.Conv2d(2, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.GroupNorm(4, 16),
        nn.LayerNorm((16, 16)),
    ]
    model = nn.Sequential(*layers, nn.InstanceNorm2d(16, affine=True), nn.Conv2d(16, 2, 1))
    batches = [(minidl.rand(33, 2, 16, 16),) for _ in range(3)]

    def loss_of(m, x):
        h = m[:3](x)
        return F.mse_loss(m[6](m[3:6](h) + h), x)

    return train(model, minidl.optim.SGD(model.parameters(), lr=1e-2), loss_of, batches)


def convolve_in_groups() -> list[np.ndarray]:
    """Outputs and gradients of a depthwise convolution and one in two groups."""
    rng = np.random.default_rng(0)
    found = []
    for groups in (8, 2):
        shapes = (5, 8, 9, 9), (8, 8 // groups, 3, 3)
        x, w = (minidl.tensor(rng.standard_normal(s), requires_grad=True) for s in shapes)
        y = minidl.conv2d(x, w, stride=2, padding=1, groups=groups)
        (y * y).sum().backward()
        found += [y.detach().numpy().reshape(-1), x.grad.numpy(), w.grad.numpy()]
    return found


def erf_of_many() -> list[np.ndarray]:
    """An array that is large enough for several threads."""
    return [minidl.linspace(-3, 3, 100_001).erf().numpy()]


TRAININGS = {
    "convolutions in groups": convolve_in_groups,
    "erf": erf_of_many,
    "autoencoder, Adam": train_autoencoder,
    "vae, SGD": train_vae,
    "classifier, Nesterov": train_classifier,
    "classifier, momentum": lambda: train_classifier(nesterov=False),
    "norms": train_norms,
}


# --- The setting ---


@pytest.mark.parametrize(
    ("n", "message"),
    [
        (0, "n must be at least 1, not 0"),
        (-3, "n must be at least 1, not -3"),
        (1.0, "n must be an int, not 1.0"),
        (True, "n must be an int, not True"),
        ("2", "n must be an int, not '2'"),
        (MOST + 1, f"{MOST + 1} threads are more than the {MOST} that Numba can start.*NUMBA_NUM_THREADS={MOST + 1}"),
    ],
)
def test_numbers_that_are_refused(n, message):
    before = minidl.get_num_threads()
    with pytest.raises(RuntimeError, match=f"^set_num_threads: {message}"):
        minidl.set_num_threads(n)
    assert minidl.get_num_threads() == before


def test_get_returns_what_was_set_in_any_thread():
    seen = []
    minidl.set_num_threads(np.int64(1))
    worker = threading.Thread(target=lambda: seen.append(minidl.get_num_threads()))
    worker.start()
    worker.join()
    assert seen == [1] == [minidl.get_num_threads()]
    minidl.set_num_threads(MOST)
    assert minidl.get_num_threads() == MOST


def test_asking_starts_no_threads():
    code = "import minidl, numba; minidl.set_num_threads(1); minidl.get_num_threads(); numba.threading_layer()"
    assert "Threading layer is not initialized" in run(code).stderr


@two_threads
def test_kernels_run_on_that_many_threads_and_other_code_on_as_many_as_before():
    minidl.set_num_threads(1)
    with threads.parallel_region(threads.SMALL):
        assert numba.get_num_threads() == 1
        with threads.parallel_region(threads.SMALL):
            assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == MOST
    with pytest.raises(KeyError), threads.parallel_region(threads.SMALL):
        raise KeyError
    assert numba.get_num_threads() == MOST


@two_threads
def test_unset_it_is_numbas_setting():
    numba.set_num_threads(1)
    try:
        assert minidl.get_num_threads() == 1
    finally:
        numba.set_num_threads(MOST)
    assert minidl.get_num_threads() == MOST


def test_unset_it_touches_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threads, "_set", None)
    assert minidl.relu(minidl.ones(threads.SMALL)).sum().item() == threads.SMALL


@two_threads
def test_little_work_stays_on_the_calling_thread():
    minidl.relu(minidl.ones(threads.SMALL))  # so that the threading layer is chosen
    with threads.parallel_region(threads.SMALL - 1):
        assert numba.get_num_threads() == 1
    with threads.parallel_region(threads.SMALL):
        assert numba.get_num_threads() == MOST
    assert numba.get_num_threads() == MOST


# --- What it must not change ---


@pytest.mark.jit
@two_threads
@pytest.mark.parametrize("name", TRAININGS)
def test_bits_do_not_depend_on_the_number_of_threads(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threads, "SMALL", 0)
    minidl.set_num_threads(1)
    alone = TRAININGS[name]()
    minidl.set_num_threads(2)
    together = TRAININGS[name]()
    assert np.isfinite(alone[0]).all()
    assert alone[0][0] != alone[0][-1]
    for one, two in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, two)


# --- Several Python threads ---


class Guard:
    """A lock that knows whether it is held."""

    depth = 0

    def __enter__(self):
        self.depth += 1

    def __exit__(self, *error):
        self.depth -= 1


def parallel_kernels() -> Iterator[tuple[object, str, Dispatcher]]:
    for module in kernels.cpu.MODULES:
        for name, value in vars(module).items():
            if isinstance(value, Dispatcher) and value.targetoptions.get("parallel"):
                yield module, name, value


@pytest.mark.jit
def test_every_parallel_kernel_is_called_under_the_guard(monkeypatch: pytest.MonkeyPatch):
    guard, called = Guard(), set()

    def watched(name: str, kernel: Dispatcher):
        def call(*args):
            called.add(name)
            assert guard.depth > 0, f"{name} is called outside parallel_region()"
            return kernel(*args)

        return call

    monkeypatch.setattr(threads, "_one_at_a_time", guard)
    monkeypatch.setattr(threads, "_threading_layer", lambda: "workqueue")
    kernels = list(parallel_kernels())
    for module, name, kernel in kernels:
        monkeypatch.setattr(module, name, watched(name, kernel))
    for training in TRAININGS.values():
        training()
    assert guard.depth == 0
    assert {name for _, name, _ in kernels} - called == set()


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )


TRAIN_AT_ONCE = """
import numba
from tests.kernels.test_threads import at_once_equals_alone
at_once_equals_alone({})
print(numba.threading_layer(), end="")
"""


def at_once_equals_alone(counts: Iterable[int | None]) -> None:
    """Two trainings in two threads against each alone, with each of these numbers of threads set; None sets none.

    The threads start together on kernels that this process has not called yet.
    """
    trainings = [prepared_autoencoder, prepared_classifier]
    for count in counts:
        if count is not None:
            minidl.set_num_threads(count)
        together = in_threads([prepare() for prepare in trainings])
        for prepare, result in zip(trainings, together, strict=True):
            for one, two in zip(prepare()(), result, strict=True):
                np.testing.assert_array_equal(one, two)


def prepared_autoencoder() -> Callable[[], list[np.ndarray]]:
    """A training all of whose random numbers are drawn."""
    minidl.manual_seed(1)
    model, x = Autoencoder(), minidl.rand(33, 2, 16, 16)
    optimizer = minidl.optim.Adam(model.parameters())
    return lambda: train(model, optimizer, lambda m, x: F.mse_loss(m(x), x), [(x,)])


def prepared_classifier() -> Callable[[], list[np.ndarray]]:
    minidl.manual_seed(3)
    model, x, labels = classifier(0.0), minidl.rand(35, 3, 16, 16), minidl.randint(0, 10, (35,))
    optimizer = minidl.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    return lambda: train(model, optimizer, lambda m, x, y: F.cross_entropy(m(x), y), [(x, labels)], 40)


def in_threads(works: list[Callable]) -> list:
    results = [None] * len(works)
    start = threading.Barrier(len(works))

    def work(i: int) -> None:
        start.wait()
        results[i] = works[i]()

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(works))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return results


@pytest.mark.jit
@pytest.mark.parametrize(
    ("layer", "library", "counts"),
    [
        ("workqueue", "workqueue", [None]),  # the layer that minidl has to guard
        pytest.param("workqueue", "workqueue", [None, 1, 2], marks=pytest.mark.slow),
        pytest.param("omp", "omppool", [None, 1, 2], marks=pytest.mark.slow),
        pytest.param("tbb", "tbbpool", [None, 1, 2], marks=pytest.mark.slow),
    ],
)
def test_two_python_threads_train_at_once(layer: str, library: str, counts: list[int | None]):
    try:
        importlib.import_module(f"numba.np.ufunc.{library}")
    except ImportError as error:
        pytest.skip(f"Numba has no {layer} threads here: {error}")
    # Passive, since threads that wait actively take minutes where another process is at work.
    done = run(
        TRAIN_AT_ONCE.format(counts), NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2", OMP_WAIT_POLICY="passive"
    )
    assert (done.returncode, done.stdout) == (0, layer), done.stderr
