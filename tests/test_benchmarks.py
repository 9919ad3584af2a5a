"""The benchmarks: that they run and agree with PyTorch. Never how fast anything is."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import minidl

ROOT = Path(__file__).parents[1]
GFLOP = {"mnist_ae": 0.27, "pool_ae": 0.05, "mlp": 0.42, "cnn": 0.57, "cifar_ae": 0.53}


@pytest.fixture
def models(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.delitem(sys.modules, "models", raising=False)
    import models

    yield models
    del sys.modules["models"]


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


def test_minidl_alone(tmp_path):
    printed, figures = train_step(tmp_path, "--libs", "minidl", "--only", "mnist_ae", *SHORT)
    (row,) = figures["rows"]
    assert (row["workload"], row["library"], row["batch"]) == ("mnist_ae", "minidl", 64)
    assert row["ms"] > 0
    assert row["ratio"] == [1, 1, 1]
    assert row["difference"] is None
    assert "| mnist_ae | minidl " in printed
    assert "geometric mean" not in printed


def test_agrees_with_torch(tmp_path):
    pytest.importorskip("torch")
    printed, figures = train_step(tmp_path, "--libs", "minidl,torch", "--only", "vae", "--batch", "8", *SHORT)
    assert [(row["library"], row["void"]) for row in figures["rows"]] == [("minidl", False), ("torch", False)]
    assert 0 < figures["rows"][0]["difference"] < 1e-4
    assert "geometric mean" in printed


def test_refuses_an_unknown_name(tmp_path):
    with pytest.raises(AssertionError, match="argument --only: gpt: choose from mnist_ae, pool_ae"):
        train_step(tmp_path, "--only", "mlp,gpt")


@pytest.mark.parametrize("name", ["mnist_ae", "pool_ae", "mlp", "cnn", "cifar_ae", "vae"])
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


def test_arithmetic_of_kernels(tmp_path):
    """All products of a step: three for each layer, but for the gradient of the first image, which none needs."""
    options = ("--only", "mlp", "--batch", "2", "--rounds", "1", "--budget", "0.1", "--threads", "1")
    _, figures = benchmark("kernels", tmp_path, *options)
    layers = [3072 * 256, 256 * 100, 100 * 10]
    found = sum(row["flops"] * row["calls"] for row in figures["rows"])
    assert found == 2 * 2 * (3 * sum(layers) - layers[0])
    step = next(row for row in figures["rows"] if (row["kernel"], row["arguments"]) == ("sgd_step", "3 of 256x3072"))
    assert step["bytes"] == 5 * 4 * 256 * 3072  # parameter, gradient and momentum read, two of them written


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


def test_scaling(tmp_path):
    options = ("--libs", "minidl", "--only", "mlp", "--batches", "2,4", "--rounds", "1", "--steps", "1")
    printed, figures = benchmark("scaling", tmp_path, *options, "--threads", "1")
    assert [row["batch"] for row in figures["batches"]] == [2, 4, 128]
    for row in figures["batches"]:
        assert row["minidl"]["us_an_image"] * row["batch"] == pytest.approx(row["minidl"]["ms"] * 1e3)
    (row,) = figures["threads"]
    assert (row["library"], row["threads"], row["speed_up"]) == ("minidl", 1, [1, 1, 1])
    assert "| mlp " in printed


def test_scaling_beside_torch(tmp_path):
    pytest.importorskip("torch")
    options = ("--libs", "minidl,torch", "--only", "mlp", "--batches", "128", "--rounds", "1", "--steps", "1")
    _, figures = benchmark("scaling", tmp_path, *options, "--threads", "1")
    (row,) = figures["batches"]
    assert row["ratio"] == [pytest.approx(row["torch"]["ms"] / row["minidl"]["ms"])] * 3


def test_steady(tmp_path):
    options = ("--libs", "minidl", "--only", "mlp", "--runs", "1", "--steps", "200", "--threads", "1")
    printed, figures = benchmark("steady", tmp_path, *options)
    (row,) = figures["rows"]
    assert row["denormal"] == 0
    assert row["ratio"][0] == pytest.approx(row["last"] / row["first"][0])
    assert "| mlp " in printed
