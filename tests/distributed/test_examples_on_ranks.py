"""The examples with --distributed: the same figures on any number of ranks, resumed runs, and runs that are ended."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import minidl
from tests.examples.test_killed import same
from tests.helpers.example_files import metrics
from tests.helpers.ranks import ended, mpiexec, needs_mpi, pids

pytest.importorskip("matplotlib", reason="the examples need the extra: pip install 'minidl[examples]'")
pytestmark = [pytest.mark.slow, needs_mpi]

WATCHED = Path(__file__).parents[1] / "helpers/watched_example.py"  # tests on fewer images, and says "training"
SMALL = ("--data", "synthetic", "--train-size", 256, "--batch-size", 32, "--distributed")


def start(ranks, example, out, *options):
    watched = WATCHED, 0, "all", "", f"{example}.py"
    return mpiexec(ranks, "-m", "mpi4py", *watched, *SMALL, "--out", out, *options)


def run(ranks, example, out, *options):
    process = start(ranks, example, out, *options)
    printed, errors = ended(process)
    assert process.returncode == 0, errors
    return printed


def figures(out):
    """The losses and accuracies of all epochs."""
    names = "train_loss", "test_loss", "test_accuracy"
    return [[epoch[name] for name in names if name in epoch] for epoch in metrics(out)["epochs"]]


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory):
    """A run of two epochs on one rank, to compare with."""
    out = tmp_path_factory.mktemp("one")
    run(1, "mnist_autoencoder", out, "--epochs", 2)
    return out


def test_two_ranks_print_what_one_does(two_epochs, tmp_path):
    printed = run(2, "mnist_autoencoder", tmp_path, "--epochs", 2)
    np.testing.assert_allclose(figures(tmp_path), figures(two_epochs), rtol=1e-5)
    assert printed.count("epoch   1/2") == printed.count("Pictures, checkpoint and metrics are in") == 1
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in two_epochs.iterdir()}


@pytest.mark.parametrize("ranks", [(1, 2), (2, 1)], ids=["1 to 2", "2 to 1"])
def test_a_run_goes_on_with_another_number_of_ranks(ranks, two_epochs, tmp_path):
    run(ranks[0], "mnist_autoencoder", tmp_path, "--epochs", 1)
    printed = run(ranks[1], "mnist_autoencoder", tmp_path, "--epochs", 2, "--resume")
    assert printed.count("Resuming from") == 1
    np.testing.assert_allclose(figures(tmp_path), figures(two_epochs), rtol=1e-5)


def test_two_runs_end_with_the_same_bits(tmp_path):
    for name in "ab":
        run(2, "mnist_autoencoder", tmp_path / name, "--epochs", 2, "--noise", 0.3)
    a, b = (minidl.load(tmp_path / name / "checkpoint.npz") for name in "ab")
    assert same(a, b)


def test_each_test_image_is_counted_once(tmp_path):
    printed = run(3, "cifar_classifier", tmp_path, "--epochs", 1, "--batch-size", 33)
    found = metrics(tmp_path / "cnn")
    confusion = np.array(found["results"]["confusion"])
    assert confusion.sum() == 1000  # which 3 ranks cannot share equally
    assert found["epochs"][-1]["test_accuracy"] == pytest.approx(np.trace(confusion) / 1000)
    assert printed.count("cnn: test accuracy") == 1


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    process = start(2, "mnist_autoencoder", tmp_path, "--batch-size", 27)
    _, errors = ended(process)
    assert process.returncode != 0
    assert errors.count("--batch-size 27 cannot be shared equally by 2 ranks") == 1


ENDS = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM, "a rank dies": signal.SIGKILL}


@pytest.mark.parametrize("end", ENDS)
def test_a_run_that_is_ended_leaves_its_checkpoint_and_goes_on(end, two_epochs, tmp_path):
    process = start(2, "mnist_autoencoder", tmp_path, "--epochs", 10_000)
    said = [process.stdout.readline() for _ in range(9)]  # training, saving, saved, epoch 1; training, ...
    assert said[0] == said[4] == "training\n", said
    begun = time.monotonic()
    if end == "a rank dies":
        _, rank = pids(process)
        os.kill(rank, signal.SIGKILL)
    else:
        process.send_signal(ENDS[end])
    ended(process, 30)
    assert time.monotonic() - begun < 10
    assert process.returncode != 0
    done = len(minidl.load(tmp_path / "checkpoint.npz")["epochs"])
    assert done >= 2
    run(2, "mnist_autoencoder", tmp_path, "--epochs", done + 1, "--resume")
    np.testing.assert_allclose(figures(tmp_path)[:2], figures(two_epochs), rtol=1e-5)
    assert len(figures(tmp_path)) == done + 1
