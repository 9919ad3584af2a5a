"""The examples on a few synthetic images: what they print and leave behind, resumed runs, interrupted runs."""

import importlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from example_files import EXAMPLES, metrics

import minidl

PICTURES = [
    "loss.png",
    "reconstructions.png",
    *(f"interpolation_{n}.png" for n in ("same_digit", "0_1", "1_10", "4_5", "20_30")),
]

SMALL = ("--data", "synthetic", "--train-size", 64)


def test_mnist_autoencoder(run, tmp_path, capsys):
    run("mnist_autoencoder", *SMALL, "--epochs", 2)
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == sorted([*PICTURES, "checkpoint.npz", "metrics.json"])
    found = metrics(out)
    assert found["seed"] == 0
    assert found["settings"]["lr"] == 1e-3
    assert found["threads"] >= 1
    assert {"python", "numpy", "numba", "minidl"} <= set(found["versions"])
    assert [e["epoch"] for e in found["epochs"]] == [1, 2]
    assert set(found["epochs"][0]) == {"epoch", "train_loss", "test_loss", "seconds"}
    assert found["epochs"][1]["test_loss"] < found["epochs"][0]["test_loss"]
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"epoch   1/2  train loss 0\.\d{5}  test loss 0\.\d{5}  per pixel  \d+\.\d s", lines[0])
    assert lines[-1] == f"Pictures, checkpoint and metrics are in {out}."


def test_a_resumed_run_ends_as_an_uninterrupted_one(run, tmp_path):
    options = (*SMALL, "--noise", 0.2)
    run("mnist_autoencoder", *options, "--epochs", 3, "--out", tmp_path / "whole")
    run("mnist_autoencoder", *options, "--epochs", 1)
    run("mnist_autoencoder", *options, "--epochs", 3, "--resume")
    whole, parts = (minidl.load(tmp_path / name / "checkpoint.npz") for name in ("whole", "out"))
    assert [(e["train_loss"], e["test_loss"]) for e in whole["epochs"]] == [
        (e["train_loss"], e["test_loss"]) for e in parts["epochs"]
    ]
    for name, value in whole["model"].items():
        assert np.array_equal(value.numpy(), parts["model"][name].numpy())


def test_resuming_with_other_settings_is_refused(run, tmp_path):
    run("mnist_autoencoder", *SMALL, "--epochs", 1)
    with pytest.raises(SystemExit, match="other settings: lr 0.5 instead of 0.001"):
        run("mnist_autoencoder", *SMALL, "--epochs", 2, "--lr", 0.5, "--resume")


def test_an_earlier_run_is_set_aside(run, tmp_path, capsys):
    run("mnist_autoencoder", *SMALL, "--epochs", 1)
    first = metrics(tmp_path / "out")["epochs"]
    (tmp_path / "out" / "my notes.txt").write_text("mine")
    run("mnist_autoencoder", *SMALL, "--epochs", 1, "--seed", 1)
    assert "An earlier run was moved to" in capsys.readouterr().out
    assert metrics(tmp_path / "out" / "earlier-1")["epochs"] == first
    assert (tmp_path / "out" / "earlier-1" / "loss.png").exists()
    assert metrics(tmp_path / "out")["epochs"] != first
    assert (tmp_path / "out" / "my notes.txt").read_text() == "mine"


def test_without_mnist_it_says_why_and_draws_digits(run, tmp_path, capsys, monkeypatch):
    mnist = importlib.import_module("minidl.data.mnist")
    monkeypatch.setattr(mnist, "MIRRORS", ("http://127.0.0.1:9/",))
    monkeypatch.setenv("NO_PROXY", "*")
    run("mnist_autoencoder", "--data-dir", tmp_path, "--train-size", 64, "--epochs", 1)
    line = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(r"No MNIST \(could not download .*refused\)\. Training on synthetic digits instead\.", line)
    with pytest.raises(SystemExit, match="MNIST cannot be used: could not download"):
        run("mnist_autoencoder", "--data", "mnist", "--data-dir", tmp_path, "--train-size", 64, "--epochs", 1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--epochs", "0"), "--epochs: must be at least 1, not 0"),
        (("--lr", "-1"), "--lr: must be a number between 0 and inf, not -1"),
        (("--batch-size", "x"), "--batch-size: invalid whole_number value: 'x'"),
        (("--noise", "-1"), "--noise: must be a number between 0 and 1, not -1"),
        (("--seed", "-1"), "--seed: must be at least 0"),
        (("--data-dir", "no/such"), "--data-dir: there is no folder no/such"),
        (("--out", __file__), "--out: .*File exists"),
    ],
)
def test_bad_options_are_refused(run, option, message, capsys):
    with pytest.raises(SystemExit):
        run("mnist_autoencoder", *option)
    assert re.search(f"argument {message}", capsys.readouterr().err)


def test_resuming_on_other_data_is_refused(run, tmp_path, monkeypatch):
    run("mnist_autoencoder", *SMALL, "--epochs", 1)
    checkpoint = minidl.load(tmp_path / "out" / "checkpoint.npz")
    checkpoint["settings"]["data"] = "mnist"
    minidl.save(checkpoint, tmp_path / "out" / "checkpoint.npz")
    with pytest.raises(SystemExit, match="other settings: data synthetic instead of mnist"):
        run("mnist_autoencoder", *SMALL, "--epochs", 2, "--resume")


def test_a_damaged_checkpoint_and_a_diverging_run_end_in_one_line(run, tmp_path):
    run("mnist_autoencoder", *SMALL, "--epochs", 1)
    before = (tmp_path / "out" / "checkpoint.npz").read_bytes()
    with pytest.raises(SystemExit, match="Epoch 1 ended with .*nan.*: a lower --lr may help"):
        run("mnist_autoencoder", *SMALL, "--epochs", 1, "--lr", 1e30)
    assert (tmp_path / "out" / "checkpoint.npz").read_bytes() == before
    (tmp_path / "out" / "checkpoint.npz").write_bytes(before[:1000])
    with pytest.raises(SystemExit, match="--resume: .*checkpoint.npz is damaged"):
        run("mnist_autoencoder", *SMALL, "--epochs", 2, "--resume")


def test_ctrl_c_leaves_with_the_last_checkpoint(tmp_path):
    pytest.importorskip("matplotlib")
    command = [sys.executable, EXAMPLES / "mnist_autoencoder.py", "--data", "synthetic", "--train-size", "64"]
    process = subprocess.Popen(
        [*command, "--epochs", "10000", "--out", tmp_path / "out"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "metrics.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    errors = "\n".join(line for line in errors.splitlines() if not line.startswith("minidl: compiling"))
    assert errors == "\nStopped. --resume goes on after the last finished epoch, if there is one."
    assert minidl.load(tmp_path / "out" / "checkpoint.npz")["epochs"][0]["epoch"] == 1
