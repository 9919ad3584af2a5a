"""Trainings that are killed: what is on the disk then, and that they end as if nothing had happened.

SIGKILL comes from outside at a random time, or from the process itself at a random line of Python in a save. The
checkpoint must then be, to the bit, that of an epoch of an uninterrupted run: of the last one whose saving had ended,
or of the one that was being saved.
"""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import minidl
from tests.helpers.example_files import EXAMPLES, metrics

pytest.importorskip("matplotlib", reason="the examples need the extra: pip install 'minidl[examples]'")
pytestmark = [
    pytest.mark.jit,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL"),
]

WATCHED = Path(__file__).parents[1] / "helpers/watched_example.py"
EPOCHS = 4
SMALL = ("--data", "synthetic", "--train-size", 40, "--batch-size", 8, "--epochs", EPOCHS)
OPTIONS = {"mnist_autoencoder": ("--noise", 0.2), "mnist_vae": ("--latent", 3)}  # both draw numbers while they train


def start(script: str, out: Path, *options: str, line: int = 0, where: str = "all", keep: str = "") -> subprocess.Popen:
    watched = [sys.executable, WATCHED, line, where, keep, f"{script}.py"]
    command = [*watched, *SMALL, *OPTIONS[script], "--out", out, *options]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait(process: subprocess.Popen) -> tuple[str, str]:
    """What it printed as output and as errors until its end."""
    try:
        return process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise


def finish(process: subprocess.Popen) -> list[str]:
    """The printed lines of a run that must end well."""
    printed, errors = wait(process)
    assert process.returncode == 0, errors
    return printed.splitlines()


def same(one: object, other: object) -> bool:
    """Whether two checkpoints, or two metrics, agree to the bit, but for the seconds that an epoch took."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        keys = one.keys() - {"seconds"}
        return keys == other.keys() - {"seconds"} and all(same(one[key], other[key]) for key in keys)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, minidl.Tensor | np.ndarray):
        first, second = np.asarray(one), np.asarray(other)
        return (first.dtype, first.shape, first.tobytes()) == (second.dtype, second.shape, second.tobytes())
    return one == other


class Uninterrupted:
    """A run without a kill: each epoch's checkpoint, its files, the seconds it took and the lines that saving took."""

    def __init__(self, script: str, folder: Path) -> None:
        self.script, self.out, started = script, folder / "whole", time.monotonic()
        process = start(script, self.out, keep=folder / "epoch")
        assert process.stdout.readline() == "training\n"
        self.start_up = time.monotonic() - started
        saves = [line.split() for line in finish(process) if line.startswith("saved")]
        self.training = time.monotonic() - started - self.start_up
        self.lines = {"all": int(saves[-1][1]), "ours": int(saves[-1][2])}
        self.checkpoints = [None, *(minidl.load(folder / f"epoch-{n}.npz") for n in range(1, EPOCHS + 1))]
        self.files = sorted(path.name for path in self.out.iterdir())


class Killed:
    """A run that is killed, looked at and resumed, several times."""

    def __init__(self, whole: Uninterrupted, out: Path, chance: random.Random, found: Counter) -> None:
        self.whole, self.out, self.chance, self.found = whole, out, chance, found

    def kill(self, moment: str) -> bool:
        """Start or resume the run and kill it at a moment of start-up, training or saving; False if it ended before."""
        done = self.epochs_on_disk()
        left = 1 - done / EPOCHS
        if moment == "saving":
            where = self.chance.choice(["all", "ours"])
            most = max(1, int(left * self.whole.lines[where]))
            process = self.start(line=self.chance.randint(1, most), where=where)
        else:
            process = self.start()
            if moment == "training":
                while process.stdout.readline() not in ("training\n", ""):
                    pass
            most = self.whole.start_up if moment == "start-up" else left * self.whole.training
            time.sleep(self.chance.uniform(0, most))
            process.kill()
        printed, errors = wait(process)
        if process.returncode == 0:
            return False
        assert process.returncode == -signal.SIGKILL, errors
        words = [line.split()[0] for line in printed.splitlines()]
        stages = [word for word in words if word in ("training", "saving", "saved")]
        self.check(done, ["training", *stages] if moment == "training" else stages)
        return True

    def check(self, done: int, stages: list[str]) -> None:
        """The checkpoint is that of the epoch that was saved last, or of the one whose saving had begun."""
        previous, on_disk = done + stages.count("saved"), self.epochs_on_disk()
        assert previous <= on_disk <= done + stages.count("saving")
        if on_disk:
            assert same(minidl.load(self.out / "checkpoint.npz"), self.whole.checkpoints[on_disk])
        if (self.out / "metrics.json").exists():
            assert on_disk - 1 <= len(metrics(self.out)["epochs"]) <= on_disk
        assert len(list(self.out.glob(".*"))) <= 2  # the unfinished files of one save, not of several
        stage = stages[-1] if stages else "start-up"
        self.found["training or drawing" if stage == "saved" else stage] += 1
        self.found["new" if on_disk > previous else "previous" if on_disk else "no checkpoint"] += 1

    def end(self) -> None:
        """Resume the run to its end: all bits and all files are those of the uninterrupted one."""
        finish(self.start())
        assert same(minidl.load(self.out / "checkpoint.npz"), self.whole.checkpoints[EPOCHS])
        assert same(metrics(self.out), metrics(self.whole.out))
        assert sorted(path.name for path in self.out.iterdir()) == self.whole.files

    def start(self, **kill) -> subprocess.Popen:
        return start(self.whole.script, self.out, "--resume", **kill)

    def epochs_on_disk(self) -> int:
        checkpoint = self.out / "checkpoint.npz"
        return len(minidl.load(checkpoint)["epochs"]) if checkpoint.exists() else 0


@pytest.mark.slow
def test_three_kills(tmp_path):
    run = Killed(Uninterrupted("mnist_autoencoder", tmp_path), tmp_path / "out", random.Random(0), Counter())
    for moment in ("saving", "training", "saving"):
        run.kill(moment)
    run.end()
    assert run.found["saving"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("script", OPTIONS)
def test_25_kills(script, tmp_path):
    whole, chance, found, kills, runs = Uninterrupted(script, tmp_path), random.Random(0), Counter(), 0, 0
    while kills < 25:
        run, runs = Killed(whole, tmp_path / f"out-{runs}", chance, found), runs + 1
        for moment in ("start-up", "saving", "training", "saving", "saving"):
            kills += kills < 25 and run.kill(moment)
        run.end()
    print(f"{script}: {kills} kills of {runs} runs:", dict(sorted(found.items())))
    assert all(found[where] > 0 for where in ("start-up", "training", "saving"))


KILL_AT_EACH_LINE = f"""
import json, os, shutil, signal, sys
from argparse import Namespace
from pathlib import Path
sys.path.insert(0, {str(EXAMPLES)!r})
import _common
import minidl
import numba
from minidl import nn, optim

numba.get_num_threads = lambda: 1  # its lock is shared with forked processes: one killed in it would stop all others
out, stride = Path(sys.argv[1], "out"), int(sys.argv[2])
out.mkdir()
files = [out / _common.CHECKPOINT, out / _common.METRICS]

def train_an_epoch(resume, fatal=0):
    model, lines = nn.Linear(2, 1), 0

    def count(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        if lines == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    run = _common.Run(Namespace(out=out, epochs=2, resume=resume, seed=0), model, optim.Adam(model.parameters()))
    epoch = next(iter(run))
    sys.settrace(count if fatal else None)
    run.finish_epoch("per image", loss=1 / epoch)

train_an_epoch(resume=False)
for file in files:
    shutil.copy(file, sys.argv[1])
found, line, killed = [0, 0], 1, True
while killed:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        train_an_epoch(resume=True, fatal=line)
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    epochs = minidl.load(files[0])["epochs"]
    assert [epoch["loss"] for epoch in epochs] in ([1.0], [1.0, 0.5]), (line, epochs)
    in_metrics = len(json.loads(files[1].read_text())["epochs"])
    assert len(epochs) - 1 <= in_metrics <= len(epochs), (line, epochs, in_metrics)
    assert len(list(out.iterdir())) <= 4, line
    found[len(epochs) - 1] += killed
    for file in files:
        shutil.copy(Path(sys.argv[1], file.name), file)
    line += stride
assert len(epochs) == in_metrics == len(list(out.iterdir())) == 2
print(json.dumps(found))
"""


@pytest.mark.parametrize("stride", [97, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_line_of_saving_leaves_the_old_or_the_new_checkpoint(tmp_path, stride):
    done = finish(
        subprocess.Popen(
            [sys.executable, "-c", KILL_AT_EACH_LINE, tmp_path, str(stride)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    old, new = json.loads(done[-1])
    print(f"killed at {old + new} lines of saving: {old} times the old checkpoint, {new} times the new one")
    assert old > 0
    assert new > 0


def test_the_comparison_notices_a_bit(tmp_path):
    one = {"epochs": [{"loss": 0.5, "seconds": 1}], "w": minidl.ones(2), "settings": (1, 2)}
    assert same(one, {**one, "epochs": [{"loss": 0.5, "seconds": 2}]})
    assert not same(one, {**one, "epochs": [{"loss": np.nextafter(0.5, 1), "seconds": 1}]})
    assert not same(one, {**one, "w": minidl.Tensor(np.nextafter(np.ones(2, np.float32), np.float32(2)))})
    assert not same(one, {**one, "settings": [1, 2]})
