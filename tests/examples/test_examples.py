"""The examples on a few synthetic images: what they print and leave behind, resumed runs, interrupted runs.

Runs that are killed are in test_killed.py.
"""

import argparse
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from tests.helpers.example_files import EXAMPLES, metrics

PICTURES = [
    "loss.png",
    "reconstructions.png",
    *(f"interpolation_{n}.png" for n in ("same_digit", "0_1", "1_10", "4_5", "20_30")),
]

SMALL = ("--data", "synthetic", "--train-size", 64)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept") / "out"


@pytest.fixture
def trained(run, kept, tmp_path):
    """The folder of a run of one epoch, which is trained once for all tests of this file."""
    if not kept.exists():
        run("mnist_autoencoder", *SMALL, "--epochs", 1, "--out", kept)
    return shutil.copytree(kept, tmp_path / "out")


def test_mnist_autoencoder(run, tmp_path, capsys):
    run("mnist_autoencoder", *SMALL, "--epochs", 2, pictures=True)
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
    assert lines[-1] == f"Pictures, checkpoint and metrics are in {out}"


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


def test_resuming_with_other_settings_is_refused(run, trained):
    with pytest.raises(SystemExit, match="other settings: lr 0.5 instead of 0.001"):
        run("mnist_autoencoder", *SMALL, "--epochs", 2, "--lr", 0.5, "--resume")


def test_an_earlier_run_is_set_aside(run, trained, capsys):
    first = metrics(trained)["epochs"]
    (trained / "my notes.txt").write_text("mine")
    run("mnist_autoencoder", *SMALL, "--epochs", 1, "--seed", 1)
    assert "An earlier run was moved to" in capsys.readouterr().out
    assert metrics(trained / "earlier-1")["epochs"] == first
    assert (trained / "earlier-1" / "loss.png").exists()
    assert metrics(trained)["epochs"] != first
    assert (trained / "my notes.txt").read_text() == "mine"


def test_without_mnist_it_says_why_and_draws_digits(run, tmp_path, capsys, monkeypatch):
    mnist = importlib.import_module("minidl.data.mnist")
    monkeypatch.setattr(mnist.MNIST, "_mirrors", ("http://127.0.0.1:9/",))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path))
    run("mnist_autoencoder", "--train-size", 64, "--epochs", 1)
    line = capsys.readouterr().out.splitlines()[0]
    told = r"MNIST not available \(could not download .*refused\)\. Using synthetic digits instead\."
    assert re.fullmatch(told, line)
    with pytest.raises(SystemExit, match="MNIST cannot be used: could not download"):
        run("mnist_autoencoder", "--data", "mnist", "--train-size", 64, "--epochs", 1)
    with pytest.raises(SystemExit, match="--data-dir .*: MNIST is not there and could not be downloaded to it .could"):
        run("mnist_autoencoder", "--data-dir", tmp_path, "--train-size", 64, "--epochs", 1)
    assert not (tmp_path / "mnist").exists()  # nothing came that it could hold


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--epochs", "0"), "--epochs: must be at least 1, not 0"),
        (("--lr", "-1"), "--lr: must be a number of at least 0, not -1"),
        (("--batch-size", "x"), "--batch-size: invalid whole_number value: 'x'"),
        (("--noise", "-1"), "--noise: must be a number of at least 0 and at most 1, not -1"),
        (("--seed", "-1"), "--seed: must be at least 0"),
        (("--data-dir", "no/such"), "--data-dir: there is no folder no/such"),
        (("--out", __file__), "--out: .*File exists"),
    ],
)
def test_bad_options_are_refused(run, option, message, capsys):
    with pytest.raises(SystemExit):
        run("mnist_autoencoder", *option)
    assert re.search(f"argument {message}", capsys.readouterr().err)


def test_resuming_on_other_data_is_refused(run, trained):
    checkpoint = minidl.load(trained / "checkpoint.npz")
    checkpoint["settings"]["data"] = "mnist"
    minidl.save(checkpoint, trained / "checkpoint.npz")
    with pytest.raises(SystemExit, match="other settings: data synthetic instead of mnist"):
        run("mnist_autoencoder", *SMALL, "--epochs", 2, "--resume")


def test_a_damaged_checkpoint_and_a_diverging_run_end_in_one_line(run, trained):
    before = (trained / "checkpoint.npz").read_bytes()
    with pytest.raises(SystemExit, match="Epoch 1 ended with .*nan.*: a lower --lr may help"):
        run("mnist_autoencoder", *SMALL, "--epochs", 1, "--lr", 1e30)
    assert (trained / "checkpoint.npz").read_bytes() == before
    (trained / "checkpoint.npz").write_bytes(before[:1000])
    with pytest.raises(SystemExit, match="--resume: .*checkpoint.npz is damaged"):
        run("mnist_autoencoder", *SMALL, "--epochs", 2, "--resume")


# --- Signals ---


def start(*command, **pipes):
    """Start Python with the handlers of a terminal's foreground: a job in the background ignores SIGINT."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **pipes,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_with_the_last_checkpoint(tmp_path, number, status):
    pytest.importorskip("matplotlib")
    options = [*SMALL, "--epochs", 10000, "--out", tmp_path / "out"]
    script = EXAMPLES / "mnist_autoencoder.py"
    process = start(script, *options, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "metrics.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert errors.endswith("\nStopped. --resume continues after the last finished epoch, if there is one.\n")
    assert "Traceback" not in errors or "Exception ignored in" in errors  # it may come in a __del__ first
    assert minidl.load(tmp_path / "out" / "checkpoint.npz")["epochs"][0]["epoch"] == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["checkpoint.npz", "metrics.json"]


BUSY_AFTER_A_SIGNAL = f"""
import sys, time
sys.path.insert(0, {str(EXAMPLES)!r})
import _common

def main(args):
    try:
        print("running", flush=True)
        time.sleep(60)
    finally:
        print("busy", flush=True)
        time.sleep(60)

_common.start(_common.parser("busy", None, epochs=1, batch_size=1, lr=1, train_size=1), main)
"""


@pytest.mark.parametrize("second", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_the_second_signal_ends_a_run_at_once(tmp_path, second):
    process = start("-c", BUSY_AFTER_A_SIGNAL, "--out", tmp_path, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "busy\n"
    process.send_signal(second)
    process.communicate(timeout=30)
    assert process.returncode == -second


def begin(common, monkeypatch, out, main):
    """Start a main function as the examples do."""
    monkeypatch.setattr(sys, "argv", ["example.py", "--out", str(out)])
    common.start(common.parser("example", None, epochs=1, batch_size=1, lr=1, train_size=1), main)


def test_a_signal_whose_exception_python_ignores_stops_the_run_at_the_next_batch(example, monkeypatch, tmp_path):
    class Batch:
        def __del__(self):
            if len(seen) == 1:
                signal.raise_signal(signal.SIGTERM)

    common, seen, ignored = example("_common"), [], []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: ignored.append(event.exc_type))

    def main(args):
        run = a_run(common, tmp_path)
        for number in run.progress(range(3), 1):
            seen.append(number)
            Batch()

    with pytest.raises(SystemExit, match="143"):
        begin(common, monkeypatch, tmp_path, main)
    assert (seen, ignored) == ([0], [KeyboardInterrupt])


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_handlers_are_put_back_and_an_ignored_signal_stays_ignored(example, monkeypatch, tmp_path, handler):
    common, before = example("_common"), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, handler)
    try:
        during = []
        begin(common, monkeypatch, tmp_path, lambda args: during.append(signal.getsignal(signal.SIGINT)))
        assert signal.getsignal(signal.SIGINT) is handler
        assert (during == [signal.SIG_IGN]) == (handler is signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGINT, before)


# --- Two runs and one folder ---


def a_run(common, out, epochs=0, resume=False):
    """A run of a small model, and so many epochs and a picture of it."""
    model = nn.Linear(2, 1)
    settings = argparse.Namespace(out=out, epochs=9, resume=resume, seed=0)
    run = common.Run(settings, model, optim.Adam(model.parameters()))
    for _, epoch in zip(range(epochs), run, strict=False):
        run.finish_epoch("per image", loss=1 / epoch)
    if epochs:
        run.picture("loss.png").write_text("a picture")
    return run


def test_two_runs_at_once_in_one_folder_are_refused(example, run, monkeypatch, tmp_path):
    pytest.importorskip("fcntl")
    common = example("_common")

    def main(args):
        message = r"Another run is writing to .*out: wait until it ends, or .* another --out"
        with pytest.raises(SystemExit, match=message):
            run("mnist_autoencoder", *SMALL, "--epochs", 1)

    begin(common, monkeypatch, tmp_path / "out", main)
    assert not list((tmp_path / "out").iterdir())
    begin(common, monkeypatch, tmp_path / "out", lambda args: None)


def test_a_resumed_run_knows_its_earlier_pictures(example, tmp_path):
    common = example("_common")
    a_run(common, tmp_path, epochs=1)
    resumed = a_run(common, tmp_path, resume=True)
    resumed.report(accuracy=1)
    assert metrics(tmp_path)["pictures"] == ["loss.png"]
    a_run(common, tmp_path).report(accuracy=0)  # another run, without any checkpoint
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["metrics.json"]
    assert metrics(tmp_path / "earlier-1")["results"] == {"accuracy": 1}
    assert {path.name for path in (tmp_path / "earlier-1").iterdir()} == {"checkpoint.npz", "metrics.json", "loss.png"}


@pytest.mark.parametrize("moved", range(3))
def test_setting_aside_is_continued_where_it_was_cut_short(example, monkeypatch, tmp_path, moved):
    common = example("_common")
    for number in (1, 2):
        a_run(common, tmp_path, epochs=number)
    rename, calls = Path.rename, []

    def cut_short(path, target):
        calls.append(path)
        if len(calls) > moved:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", cut_short)
        a_run(common, tmp_path, epochs=3)
    a_run(common, tmp_path, epochs=4)
    for folder, epochs in (("earlier-1", 1), ("earlier-2", 2), (".", 4)):
        assert len(metrics(tmp_path / folder)["epochs"]) == epochs
        assert len(minidl.load(tmp_path / folder / "checkpoint.npz")["epochs"]) == epochs
        assert (tmp_path / folder / "loss.png").exists()
    assert not (tmp_path / "earlier-3").exists()


# --- A disk that is full, a folder that may not be written ---


def test_a_full_disk_ends_in_one_line_and_the_old_checkpoint_stays(run, trained):
    resource = pytest.importorskip("resource", reason="a file's size is limited on Unix only")
    before = {path: path.read_bytes() for path in trained.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, hard))  # a write fails in the middle, as on a full disk
    try:
        message = r"Could not write to .*out: .*File too large.* Check disk space and permissions\. --resume continues"
        with pytest.raises(SystemExit, match=message):
            run("mnist_autoencoder", *SMALL, "--epochs", 2, "--resume")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path: path.read_bytes() for path in trained.iterdir()} == before
    run("mnist_autoencoder", *SMALL, "--epochs", 2, "--resume")
    assert [epoch["epoch"] for epoch in metrics(trained)["epochs"]] == [1, 2]


WITHOUT_ROOTS_RIGHTS = BUSY_AFTER_A_SIGNAL.replace(
    "def main", "import os\nif os.geteuid() == 0:\n    os.setuid(65534)\n\ndef main"
)


def test_a_folder_that_may_not_be_written_is_refused_before_the_training(tmp_path):
    out = Path(tempfile.mkdtemp())  # and not tmp_path, which other users may not even enter
    try:
        (out / "checkpoint.npz").write_bytes(b"old")
        out.chmod(0o555)
        process = start("-c", WITHOUT_ROOTS_RIGHTS, "--out", out, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        printed, errors = process.communicate(timeout=60)
        assert (process.returncode, printed) == (2, "")
        assert errors.splitlines()[-1].endswith(f"error: argument --out: no permission to write to {out}")
        assert (out / "checkpoint.npz").read_bytes() == b"old"
    finally:
        out.chmod(0o755)
        shutil.rmtree(out)


def test_a_checkpoint_that_cannot_be_opened_is_not_called_a_full_disk(example, tmp_path):
    common = example("_common")
    (tmp_path / "checkpoint.npz").mkdir()
    with pytest.raises(SystemExit, match=r"^--resume: .*checkpoint.npz"):
        a_run(common, tmp_path, resume=True)


def test_a_reader_of_the_output_that_leaves_is_no_full_disk(example, monkeypatch, tmp_path):
    def main(args):
        raise BrokenPipeError(32, os.strerror(32))

    with pytest.raises(BrokenPipeError):
        begin(example("_common"), monkeypatch, tmp_path, main)


def test_another_file_in_the_checkpoints_place_is_refused(run, tmp_path):
    (tmp_path / "out").mkdir()
    minidl.save({"weights": minidl.ones(2)}, tmp_path / "out" / "checkpoint.npz")
    with pytest.raises(SystemExit, match="was saved by minidl but is not the checkpoint of a run"):
        run("mnist_autoencoder", "--data", "synthetic", "--train-size", 8, "--epochs", 1, "--resume")
    assert minidl.load(tmp_path / "out" / "checkpoint.npz")["weights"].tolist() == [1, 1]
