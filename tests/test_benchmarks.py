"""The benchmark: that it runs and agrees with PyTorch. Never how fast anything is."""

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


def train_step(tmp_path, *options):
    """What `python benchmarks/train_step.py` prints, and the figures that it writes."""
    command = [sys.executable, ROOT / "benchmarks" / "train_step.py", *options, "--json", tmp_path / "figures.json"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((tmp_path / "figures.json").read_text())


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
