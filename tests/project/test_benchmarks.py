"""The benchmarks: that they run and agree with PyTorch. Never how fast anything is."""

import ctypes
import importlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minidl
from minidl import kernels
from tests.helpers import cuda_on_cpu, cupy_stand_in
from tests.helpers.ranks import needs_mpi

ROOT = Path(__file__).parents[2]
GFLOP = {"mnist_ae": 0.27, "pool_ae": 0.05, "mlp": 0.42, "cnn": 0.57, "cifar_ae": 0.53, "resnet20": 15.62}


SCRIPTS = ("common", "models", "train_step", "gpu_trainer", "gpu_kernels")


@pytest.fixture
def script(monkeypatch):
    """Import a file of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    for name in SCRIPTS:
        sys.modules.pop(name, None)
    yield importlib.import_module
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.fixture
def models(script):
    return script("models")


def benchmark(script, tmp_path, *options):
    """What `python benchmarks/{script}.py` prints, and the figures that it writes."""
    command = [sys.executable, ROOT / "benchmarks" / f"{script}.py", *options, "--json", tmp_path / "figures.json"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((tmp_path / "figures.json").read_text())


def train_step(tmp_path, *options):
    return benchmark("train_step", tmp_path, *options)


SHORT = ("--rounds", "1", "--steps", "2")


def test_a_training_step_makes_few_calls():
    """At most 300 outside the kernels, and 900 in all with the JIT off."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, ROOT / "benchmarks/calls.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, timeout=60)
    assert done.returncode == 0, done.stderr
    outside, in_all = map(int, done.stdout.split("whole step")[1].split()[:2])
    assert 100 < outside <= 300
    assert outside < in_all <= 900


@pytest.mark.slow
def test_minidl_alone(tmp_path):
    printed, figures = train_step(tmp_path, "--libs", "minidl", "--only", "mnist_ae", *SHORT)
    (row,) = figures["rows"]
    assert (row["workload"], row["library"], row["batch"]) == ("mnist_ae", "minidl", 64)
    assert row["ms"] > 0
    assert row["ratio"] == [1, 1, 1]
    assert row["difference"] is None
    assert "| mnist_ae | minidl " in printed
    assert "geometric mean" not in printed


@pytest.mark.slow
def test_agrees_with_torch(tmp_path):
    pytest.importorskip("torch")
    printed, figures = train_step(tmp_path, "--libs", "minidl,torch", "--only", "vae", "--batch", "8", *SHORT)
    assert [(row["library"], row["void"]) for row in figures["rows"]] == [("minidl", False), ("torch", False)]
    assert 0 < figures["rows"][0]["difference"] < 1e-4
    assert "geometric mean" in printed


def test_refuses_an_unknown_name(tmp_path):
    with pytest.raises(AssertionError, match="argument --only: gpt: choose from mnist_ae, pool_ae"):
        train_step(tmp_path, "--only", "mlp,gpt")


@pytest.mark.parametrize("name", ["mnist_ae", "pool_ae", "mlp", "cnn", "cifar_ae", "vae", "resnet20"])
def test_models(models, name):
    """Published sizes, the arithmetic known of each, and two losses that fall on one batch."""
    workload = models.WORKLOADS[name]
    model = workload.model(minidl, 0.0)
    assert sum(p.numel() for p in model.parameters()) == workload.parameters
    if name in GFLOP:
        assert models.flops(model, workload.sample) * workload.batch / 1e9 == pytest.approx(GFLOP[name], abs=0.005)
    images, second = (None if a is None else minidl.tensor(a) for a in workload.data(4, give_noise=True)[0])
    optimiser = workload.optimiser(minidl, model.parameters())
    losses = []
    for _ in range(2):
        loss = workload.loss(minidl, model, images, second)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("workload", ["pool_ae", "mlp"])
def test_kernels(tmp_path, workload):
    """Each call of a step has its arithmetic and its roofline; PyTorch, where installed, gives the same results."""
    options = ("--only", workload, "--batch", "3", "--rounds", "1", "--budget", "0.1", "--threads", "1")
    printed, figures = benchmark("kernels", tmp_path, *options)
    kernels = {row["kernel"] for row in figures["rows"]}
    assert kernels >= ({"matmul", "relu", "sgd_step"} if workload == "mlp" else {"conv2d", "max_pool2d", "adam_step"})
    for row in figures["rows"]:
        assert min(row["s"], row["roofline_s"], row["bytes"]) > 0
        assert (row["flops"] > 0) == (row["kernel"] in {"matmul", "conv2d", "conv2d_input", "conv2d_weight"})
    assert f"| {workload} " in printed
    pytest.importorskip("torch")
    assert all(row["torch_s"] for row in figures["rows"] if row["flops"])


@pytest.mark.slow
def test_arithmetic_of_kernels(tmp_path):
    """All products of a step: three for each layer, but for the gradient of the first image, which none needs."""
    options = ("--only", "mlp", "--batch", "2", "--rounds", "1", "--budget", "0.1", "--threads", "1")
    _, figures = benchmark("kernels", tmp_path, *options)
    layers = [3072 * 256, 256 * 100, 100 * 10]
    found = sum(row["flops"] * row["calls"] for row in figures["rows"])
    assert found == 2 * 2 * (3 * sum(layers) - layers[0])
    (step,) = [row for row in figures["rows"] if row["kernel"] == "sgd_step"]
    parameters = sum(layers) + 256 + 100 + 10
    assert step["bytes"] == 5 * 4 * parameters  # parameter, gradient and momentum read, two of them written


@pytest.mark.slow
def test_startup(tmp_path):
    """With the cache as it is; what an empty one costs is compiling everything, for which see the next."""
    options = ("--workload", "mlp", "--runs", "1", "--empty", "0", "--threads", "1")
    printed, figures = benchmark("startup", tmp_path, *options)
    assert all(run["s"] > 0 and run["peak_mb"] > 0 for runs in figures["rows"].values() for run in runs)
    assert {"Python alone", "import numba", "import minidl", "minidl: first step"} <= figures["rows"].keys()
    assert ("torch: first step" in figures["rows"]) == (importlib.util.find_spec("torch") is not None)
    assert "| import numba " in printed


@pytest.mark.slow
def test_startup_with_an_empty_cache(tmp_path):
    _, figures = benchmark("startup", tmp_path, "--runs", "1")
    assert "minidl: first step, empty cache" in figures["rows"]


@pytest.mark.slow
def test_scaling(tmp_path):
    options = ("--libs", "minidl", "--only", "mlp", "--batches", "2,4", "--rounds", "1", "--steps", "1")
    printed, figures = benchmark("scaling", tmp_path, *options, "--threads", "1")
    assert [row["batch"] for row in figures["batches"]] == [2, 4, 128]
    for row in figures["batches"]:
        assert row["minidl"]["us_an_image"] * row["batch"] == pytest.approx(row["minidl"]["ms"] * 1e3)
    (row,) = figures["threads"]
    assert (row["library"], row["threads"], row["speed_up"]) == ("minidl", 1, [1, 1, 1])
    assert "| mlp " in printed


@pytest.mark.slow
@needs_mpi
def test_distributed(tmp_path):
    options = ("--libs", "minidl", "--only", "pool_ae", "--batches", "20,40", *SHORT)
    printed, figures = benchmark("distributed", tmp_path, *options)
    assert [row["batch"] for row in figures["rows"]] == [20, 40]
    assert all(row[f"{key}_ms"] > 0 for row in figures["rows"] for key in ("process", "ranks", "still", "reduction"))
    assert all(row["minidl"] > 0 for row in figures["reductions"])
    assert "| pool_ae  | 20    | minidl  |" in printed


@pytest.mark.slow
def test_scaling_beside_torch(tmp_path):
    pytest.importorskip("torch")
    options = ("--libs", "minidl,torch", "--only", "mlp", "--batches", "128", "--rounds", "1", "--steps", "1")
    _, figures = benchmark("scaling", tmp_path, *options, "--threads", "1")
    (row,) = figures["batches"]
    assert row["ratio"] == [pytest.approx(row["torch"]["ms"] / row["minidl"]["ms"])] * 3


@pytest.mark.slow
def test_steady(tmp_path):
    options = ("--libs", "minidl", "--only", "mlp", "--runs", "1", "--steps", "200", "--threads", "1")
    printed, figures = benchmark("steady", tmp_path, *options)
    (row,) = figures["rows"]
    assert row["denormal"] == 0
    assert row["ratio"][0] == pytest.approx(row["last"] / row["first"][0])
    assert "| mlp " in printed


# --- On a GPU: dry runs on stand-ins for it ---


class Event:
    """CuPy's, by the clock of the CPU."""

    def record(self):
        self.time = time.perf_counter()

    def synchronize(self):
        pass


def complete(cupy, monkeypatch):
    """Add what the benchmarks alone ask of CuPy to a stand-in for it."""
    memory_pool = SimpleNamespace(malloc="own", total_bytes=lambda: 3 * 2**20, free_all_blocks=lambda *stream: None)
    for name, value in {
        "getDeviceCount": lambda: 1,
        "getDeviceProperties": lambda number: {"name": b"no GPU at all"},
        "runtimeGetVersion": lambda: 12090,
        "driverGetVersion": lambda: 13010,
        "CUDARuntimeError": OSError,
    }.items():
        monkeypatch.setattr(cupy.cuda.runtime, name, value, raising=False)
    monkeypatch.setattr(cupy, "get_default_memory_pool", lambda: memory_pool, raising=False)
    monkeypatch.setattr(cupy, "__version__", "14", raising=False)
    monkeypatch.setattr(cupy.cuda, "MemoryPool", lambda: memory_pool, raising=False)
    monkeypatch.setattr(cupy.cuda, "Event", Event, raising=False)
    elapsed = lambda start, stop: (stop.time - start.time) * 1e3  # noqa: E731
    monkeypatch.setattr(cupy.cuda, "get_elapsed_time", elapsed, raising=False)
    for key in ("NVIDIA_TF32_OVERRIDE", "CUPY_TF32"):
        monkeypatch.setenv(key, "1")  # so that what the benchmark sets ends with the test


def in_process(module, tmp_path, monkeypatch, capsys, *options):
    """What the script prints, and the figures that it writes."""
    file = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", [module.__name__, *options, "--json", str(file)])
    module.main()
    return capsys.readouterr().out, json.loads(file.read_text())


@pytest.fixture
def gpu_step(script, tmp_path, monkeypatch, capsys):
    """``train_step.py --device cuda`` in this process, on a small scale; returns what it prints and its figures."""
    cupy_stand_in.install(monkeypatch)
    complete(sys.modules["cupy"], monkeypatch)
    train_step, gpu_trainer = script("train_step"), script("gpu_trainer")

    class Inside:
        """A worker that is no process."""

        def __init__(self, library, threads, **options):
            self.calls = train_step.work({"library": library, "threads": threads, **options})

        def ask(self, name, *args):
            return json.loads(json.dumps(self.calls[name](*args)))

        def close(self):
            del self.calls

    monkeypatch.setattr(train_step, "Worker", Inside)
    monkeypatch.setattr(train_step, "PAUSE", 0)
    monkeypatch.setattr(train_step, "WARM_UP", 1)
    monkeypatch.setattr(train_step, "CHECKED_STEPS", 4)
    monkeypatch.setitem(train_step.SIDE, "cuda", 8)
    monkeypatch.setitem(train_step.TURN_WARM_UP, "cuda", 1)
    monkeypatch.setattr(gpu_trainer, "kernels_of", lambda graph: 55)

    def run(*options):
        return in_process(train_step, tmp_path, monkeypatch, capsys, "--device", "cuda", *SHORT, *options)

    return run


OWN = ("--libs", "minidl,minidl_captured", "--batch-size", "2")


MOST_LAUNCHES = {"mnist_ae": 60}


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("cnn", "cifar_ae", "vae")]


@pytest.mark.parametrize("name", ["mnist_ae", "pool_ae", "mlp", *OTHERS])
def test_a_step_by_the_kernels_of_a_gpu_is_that_of_the_cpu(models, monkeypatch, name):
    """The CUDA C, compiled for the CPU, through all layers above it; and what a step launches."""
    if cuda_on_cpu.COMPILER is None:
        pytest.skip("needs g++, to compile CUDA C for the CPU")
    cupy_stand_in.install(monkeypatch, cuda_on_cpu.emulation())
    workload, losses = models.WORKLOADS[name], []
    for device in ("cpu", "cuda"):
        minidl.manual_seed(0)
        model = workload.model(minidl, 0.0).to(device)
        batch = [None if a is None else minidl.tensor(a).to(device) for a in workload.data(4, give_noise=True)[0]]
        optimiser = workload.optimiser(minidl, model.parameters())
        losses.append([])
        for _ in range(3):
            cupy_stand_in.counts.clear()
            loss = workload.loss(minidl, model, *batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses[-1].append(loss.item())
    np.testing.assert_allclose(*losses, rtol=2e-6)
    launched = cupy_stand_in.counts.total()
    assert 20 < launched <= MOST_LAUNCHES.get(name, 100), cupy_stand_in.counts


@pytest.mark.parametrize("name", ["mnist_ae", pytest.param("mlp", marks=pytest.mark.slow), "vae"])
def test_gpu_step(gpu_step, name):
    """Eager and recorded, with all that is drawn anew in each step: dropout, the VAE's noise."""
    printed, figures = gpu_step(*OWN, "--only", name)
    found = [(row["library"], row["batch"], row["kernels"], row["peak_mb"], row["repeats"]) for row in figures["rows"]]
    assert found == [("minidl", 2, None, 3, True), ("minidl_captured", 2, 55, 6, True)]
    assert figures["rows"][1]["ratio"][0] > 0
    assert printed.startswith("### no GPU at all, 2 samples per step")
    assert "GPU MB | kernels a step" in printed
    assert f"Bit-identical in two runs with one seed, 4 steps each: minidl {name}, minidl_captured {name}." in printed
    goal = "mnist_ae: 55 kernel launches in the recorded step (goal: at most 60)"
    assert (goal in printed) == (name == "mnist_ae")
    assert "without TF32" in printed
    assert (os.environ["NVIDIA_TF32_OVERRIDE"], os.environ["CUPY_TF32"]) == ("0", "0")
    assert "GPU no GPU at all, cupy 14, CUDA 12.9, CUDA of the driver 13.1" in printed


def test_gpu_step_stays_on_the_gpu(gpu_step, script):
    """Model, batches, and the end of each step, which waits for the GPU."""
    trainer = script("gpu_trainer").start(library="minidl", device="cuda", name="mlp", batch=2, threads=1, check=False)
    tensors = [*trainer.model.parameters(), *itertools.chain(*trainer.batches)]
    assert {t.device.type for t in tensors} == {"cuda"}
    waited = []
    trainer.m = SimpleNamespace(cuda=SimpleNamespace(synchronize=lambda: waited.append(trainer.model[0].weight.grad)))
    trainer.step(0)
    assert len(waited) == 1
    assert waited[0] is not None


@pytest.mark.slow
def test_gpu_step_says_that_runs_differ(gpu_step, script, monkeypatch):
    runs = itertools.count()
    monkeypatch.setattr(script("gpu_trainer").Trainer, "digest", lambda self, steps: [str(next(runs))])
    printed, _ = gpu_step(*OWN, "--only", "mlp")
    assert "\nNOT bit-identical in two runs with one seed, 4 steps each: minidl mlp, minidl_captured mlp." in printed
    assert "\nBit-identical" not in printed


def test_digest(gpu_step, script):
    """Another hash for other losses and for other parameters."""
    trainer = script("gpu_trainer").start(library="minidl", device="cuda", name="mlp", batch=2, threads=1, check=True)
    first, second = trainer.digest(1), trainer.digest(1)
    assert first[0] != second[0]
    assert first[1] != second[1]


@pytest.fixture
def tf32():
    """PyTorch with TF32 wherever it may have it, until the test ends."""
    torch = pytest.importorskip("torch")
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = True
    yield switches
    for switch, value in zip(switches, before, strict=True):
        switch.allow_tf32 = value


@pytest.mark.slow
def test_gpu_step_beside_torch(gpu_step, script, monkeypatch, tf32):
    """PyTorch takes the part of the GPU on the CPU, and compiles nothing: that its losses agree, and how it is set."""
    import torch

    compiled, optimisers = [], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(options) or function)
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda *a, **options: optimisers.append(options) or adam(*a, **options))
    gpu_trainer = script("gpu_trainer")
    monkeypatch.setattr(gpu_trainer, "on_gpu", lambda x: x if "torch" in type(x).__mro__[-2].__module__ else x.cuda())
    printed, figures = gpu_step("--only", "vae", "--batch-size", "4")
    assert [row["library"] for row in figures["rows"]] == list(script("train_step").ON["cuda"])
    void = [row["library"] for row in figures["rows"] if row["void"] or not 0 <= row["difference"] < 1e-4]
    assert void == []
    assert compiled == [{"mode": "reduce-overhead"}] * 2  # to compare losses, and to be measured
    assert sum(options.get("fused", False) for options in optimisers) == 4
    assert not any(switch.allow_tf32 for switch in tf32)
    assert figures["better_of_eager"].keys() == figures["captured_reduce_overhead"].keys() == {"vae"}
    assert 'minidl captured against torch.compile(mode="reduce-overhead"): vae ' in printed


@pytest.mark.parametrize("name", ["train_step", "gpu_kernels"])
def test_what_is_missing_for_a_gpu(script, name, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    for key in ("NVIDIA_TF32_OVERRIDE", "CUPY_TF32"):
        monkeypatch.setenv(key, "1")
    options = ("--device", "cuda") if name == "train_step" else ()
    with pytest.raises(SystemExit) as stopped:
        in_process(script(name), tmp_path, monkeypatch, capsys, *options)
    assert stopped.value.code == 2
    assert f"{name}: error: device 'cuda': CuPy is missing" in capsys.readouterr().err


def test_libraries_of_a_device(gpu_step, capsys):
    with pytest.raises(SystemExit):
        gpu_step("--libs", "minidl,jax")
    assert "--device cuda does not support jax: choose from minidl, minidl_captured" in capsys.readouterr().err


class Driver:
    """What the CUDA driver says of a graph whose nodes are of these kinds."""

    def __init__(self, *kinds):
        self.kinds = kinds

    def cuGraphGetNodes(self, graph, nodes, count):
        assert graph.value == 77
        for i in range(len(self.kinds) if nodes else 0):
            nodes[i] = 1000 + i
        count._obj.value = len(self.kinds)
        return 0

    def cuGraphNodeGetType(self, node, kind):
        kind._obj.value = self.kinds[node.value - 1000]
        return 0


def test_kernels_of_a_graph(script, monkeypatch):
    gpu_trainer, graph = script("gpu_trainer"), SimpleNamespace(graph=77)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(0, 1, 0, 2, 0))
    assert gpu_trainer.kernels_of(graph) == 3
    monkeypatch.setattr(Driver, "cuGraphNodeGetType", lambda self, node, kind: 400)
    with pytest.raises(RuntimeError, match="what is in a graph: error 400"):
        gpu_trainer.kernels_of(graph)


@pytest.fixture
def gpu_kernels(script, tmp_path, monkeypatch, capsys):
    """``gpu_kernels.py`` in this process, the CUDA C compiled for the CPU."""
    if cuda_on_cpu.COMPILER is None:
        pytest.skip("needs g++, to compile CUDA C for the CPU")
    cupy, module = cuda_on_cpu.cupy, script("gpu_kernels")
    complete(cupy, monkeypatch)
    monkeypatch.setattr(cupy, "copyto", lambda target, source: target.__setitem__(..., source), raising=False)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "minidl.kernels.gpu.kernels", cuda_on_cpu.emulation())
    monkeypatch.setattr(module, "COPIED", 2**10)
    monkeypatch.setattr(module, "SIDE", 8)
    return lambda *options: in_process(module, tmp_path, monkeypatch, capsys, *options)


@pytest.mark.slow
def test_gpu_kernels(gpu_kernels):
    """All kernels that there are, each with what it must move and the arithmetic known of it."""
    printed, figures = gpu_kernels("--elements", str(2**15), "--rounds", "2", "--calls", "1")
    rows = figures["rows"]
    functions = {name for name in kernels.__all__ if callable(getattr(kernels, name)) and name.islower()}
    named = {row["kernel"] for row in rows}
    assert functions <= named
    assert {"im2col of conv2d", "col2im of conv2d_input"} <= named
    assert all(min(row["bytes"], row["ms"][0], row["bandwidth"]) > 0 for row in rows)
    assert {row["kernel"] for row in rows if row["flops"]} == {"matmul", "conv2d", "conv2d_input", "conv2d_weight"}
    n, moved = 2**15, {row["kernel"]: row["bytes"] for row in rows}
    pixels = n // (16 * 28 * 28) * 16 * 28 * 28
    assert moved["relu"] == 2 * 4 * n
    assert moved["sigmoid_backward"] == 3 * 4 * n
    assert moved["total"] == 4 * n
    assert moved["sgd_step"] == 5 * 4 * n
    assert moved["adam_step"] == 7 * 4 * n
    assert moved["max_pool2d"] == 4 * pixels + (4 + 8) * pixels // 4
    assert moved["im2col of conv2d"] == 4 * (1 + 9) * 16 * 28 * 28
    assert printed.startswith("### no GPU at all, kernels on arrays of about 32,768 elements")
    assert "| im2col of conv2d " in printed


def test_gpu_kernels_marks_what_is_slow(script):
    module, limit = script("gpu_kernels"), {"copy": 100e9, "product": 1e12}
    row = {"kernel": "k", "arguments": "", "ms": [1.0, 1.0, 1.0], "flops": 0, "speed": 0, "bandwidth": 69e9}
    assert module.line(row, limit)[3:5] == ["69", "**69%**"]
    assert module.line(row | {"bandwidth": 71e9}, limit)[3:5] == ["71", "71%"]
    assert module.line(row | {"flops": 1, "speed": 0.5e12}, limit)[4:] == ["69%", "500", "50%"]
    assert not module.slow(row | {"flops": 1}, limit)


def test_launches(script):
    """Those of one call, in order; afterwards nothing is recorded."""
    started = []
    gpu = SimpleNamespace(_launch=lambda *args: started.append(args))
    found = script("gpu_kernels").launches(gpu, lambda: [gpu._launch("a", 1), gpu._launch("b", 2)])
    gpu._launch("c")
    assert found == [("a", 1), ("b", 2)]
    assert started == [*found, ("c",)]


def test_size_counts_each_array_as_often_as_it_is_named(script):
    a = np.zeros((2, 3), np.float32)
    assert script("gpu_kernels").size((a, (a, a), 1.0, np.float32(2), np.dtype("f"), None)) == 3 * 24
