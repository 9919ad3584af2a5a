"""What all examples share: options, data with a fallback, progress, checkpoints, metrics and pictures.

The models and the training loops are in the examples themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

import minidl
from minidl import Tensor, nn, optim
from minidl.data import MNIST, DataLoader, Dataset, Subset, SyntheticDigits

CHECKPOINT, METRICS = "checkpoint.npz", "metrics.json"


# -- options ----------------------------------------------------------------------------------------------------


def parser(name: str, description: str | None, *, epochs: int, batch_size: int, lr: float) -> argparse.ArgumentParser:
    """The options that every example has, with its own defaults."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = options.add_argument
    add("--epochs", type=positive_int, default=epochs, help="passes over the training images (%(default)s)")
    add("--batch-size", type=positive_int, default=batch_size, help="images a step (%(default)s)")
    add("--lr", type=positive_float, default=lr, help="learning rate (%(default)s)")
    add("--seed", type=int, default=0, help="of initial weights, order and noise (%(default)s)")
    add("--data", choices=["auto", "mnist", "synthetic"], default="auto", help="auto: MNIST if it can be had")
    add(
        "--data-dir",
        type=Path,
        help="folder with the data set's files (default: $MINIDL_DATA, or the user's cache)",
    )
    add("--out", type=Path, default=Path("out", name), help="folder for pictures and results (%(default)s)")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    return options


def positive_int(text: str) -> int:
    """An int of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def fraction(text: str) -> float:
    """A float from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, not {text}")
    return value


def positive_float(text: str) -> float:
    """A float above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text}")
    return value


# -- data -------------------------------------------------------------------------------------------------------


def load_digits(source: str, folder: Path | None, train_size: int) -> tuple[Dataset, Dataset]:
    """The first `train_size` training images and all 10,000 test images: MNIST, or drawn digits in its place."""
    if source != "synthetic":
        try:
            train, test = (MNIST(folder, train=part, download=True) for part in (True, False))
            if train_size > len(train):
                raise SystemExit(f"--train-size {train_size}: MNIST has {len(train)} training images")
            return Subset(train, range(train_size)), test
        except (OSError, ImportError, ValueError) as error:
            if source == "mnist":
                raise SystemExit(f"MNIST cannot be used: {error}") from None
            reason = "; ".join(line.strip() for line in str(error).splitlines())
            print(f"No MNIST ({reason}). Training on synthetic digits instead.")
    return SyntheticDigits(train_size, seed=0), SyntheticDigits(10_000, seed=1)


def images_of(dataset: Dataset, indices: Sequence[int]) -> Tensor:
    """Some images of a data set as one batch (N, 1, 28, 28)."""
    images, _ = next(iter(DataLoader(Subset(dataset, indices), len(indices))))
    return images


def add_noise(images: Tensor, sigma: float) -> Tensor:
    """Add normal noise of standard deviation `sigma`, and cut off what leaves [0, 1]."""
    return (images + sigma * minidl.randn_like(images)).clamp(0, 1) if sigma else images


# -- a run: progress, checkpoints, metrics -----------------------------------------------------------------------


class Run:
    """A training run and its folder: what it prints, and what it leaves there.

    Attributes
    ----------
    epochs : list of dict
        The metrics so far, one entry an epoch.
    kept : dict
        What the example wants to find again after ``--resume``, such as pictures of earlier epochs.
    """

    def __init__(self, args: argparse.Namespace, model: nn.Module, optimizer: optim.Optimizer) -> None:
        self.out, self.last = args.out, args.epochs
        self.settings = {k: v for k, v in vars(args).items() if k not in ("out", "resume", "epochs", "data_dir")}
        self.model, self.optimizer = model, optimizer
        self.epochs: list[dict[str, Any]] = []
        self.kept: dict[str, Any] = {}
        self.pictures: list[str] = []
        self.out.mkdir(parents=True, exist_ok=True)
        if args.resume and (self.out / CHECKPOINT).exists():
            self._restore()
        else:
            if args.resume:
                print(f"Nothing to resume in {self.out}: starting at epoch 1.")
            self._set_earlier_run_aside()

    def __iter__(self) -> Iterator[int]:
        """The epochs to go, each timed."""
        for epoch in range(len(self.epochs) + 1, self.last + 1):
            self.started = time.perf_counter()
            yield epoch

    def progress(self, batches: Iterable[Any], epoch: int) -> Iterable[Any]:
        """The batches, with a bar where there is a terminal to show it on."""
        return tqdm(batches, desc=f"epoch {epoch}/{self.last}", unit="batch", leave=False, disable=None)

    def finish_epoch(self, unit: str, **metrics: float) -> None:
        """Print an epoch's metrics, and write the checkpoint and metrics.json."""
        seconds = round(time.perf_counter() - self.started, 3)
        self.epochs.append({"epoch": len(self.epochs) + 1, **metrics, "seconds": seconds})
        shown = "  ".join(f"{name.replace('_', ' ')} {value:.5f}" for name, value in metrics.items())
        print(f"epoch {len(self.epochs):3d}/{self.last}  {shown}  {unit}  {seconds:.1f} s", flush=True)
        minidl.save(self._state(), self.out / CHECKPOINT)
        self._write_metrics()

    def picture(self, name: str) -> Path:
        """Where to put a picture; remembered as belonging to this run."""
        if name not in self.pictures:
            self.pictures.append(name)
            self._write_metrics()
        return self.out / name

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": minidl.random.default_generator.get_state(),
            "epochs": self.epochs,
            "kept": self.kept,
            "settings": self.settings,
        }

    def _restore(self) -> None:
        state = minidl.load(self.out / CHECKPOINT)
        changed = [k for k in self.settings if self.settings[k] != state["settings"].get(k)]
        if changed:
            listed = ", ".join(f"{k} {self.settings[k]} instead of {state['settings'].get(k)}" for k in changed)
            raise SystemExit(f"--resume: the checkpoint in {self.out} was made with other settings: {listed}.")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        minidl.random.default_generator.set_state(state["generator"])
        self.epochs, self.kept = state["epochs"], state["kept"]
        print(f"Resuming after epoch {len(self.epochs)} of {self.out / CHECKPOINT}.")

    def _set_earlier_run_aside(self) -> None:
        """Move what an earlier run left here into a folder of its own: nothing is lost, nothing gets mixed."""
        names = [CHECKPOINT, METRICS]
        if (self.out / METRICS).exists():
            names += json.loads((self.out / METRICS).read_text())["pictures"]
        found = [self.out / name for name in names if (self.out / name).exists()]
        if found:
            number = 1
            while (aside := self.out / f"earlier-{number}").exists():
                number += 1
            aside.mkdir()
            for path in found:
                path.rename(aside / path.name)
            print(f"An earlier run was moved to {aside}.")

    def _write_metrics(self) -> None:
        versions = {"minidl": minidl.__version__, "numpy": np.__version__, "numba": numba.__version__}
        metrics = {
            "settings": self.settings,
            "seed": self.settings["seed"],
            "versions": {"python": platform.python_version(), **versions},
            "threads": numba.get_num_threads(),
            "epochs": self.epochs,
            "pictures": self.pictures,
        }
        handle, temporary = tempfile.mkstemp(dir=self.out, prefix=f".{METRICS}.")
        with os.fdopen(handle, "w") as file:
            json.dump(metrics, file, indent=2)
        os.replace(temporary, self.out / METRICS)


def average(losses: Iterable[tuple[float, int]]) -> float:
    """The mean over samples of batch means, given as (mean, number of samples)."""
    pairs = list(losses)
    return sum(loss * n for loss, n in pairs) / sum(n for _, n in pairs)


# -- pictures ---------------------------------------------------------------------------------------------------


def save_rows(path: Path, title: str, rows: dict[str, np.ndarray]) -> None:
    """Draw rows of images, each (N, 1, H, W) with values in [0, 1], under one another, with their names."""
    columns = max(len(images) for images in rows.values())
    figure = Figure(figsize=(0.62 * columns + 1.6, 0.66 * len(rows) + 0.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot, whose backend belongs to the user
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, (name, images) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        for axis, image in zip(row, images, strict=True):
            axis.imshow(image[0], cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
    figure.savefig(path)


def save_loss(path: Path, title: str, unit: str, epochs: Sequence[dict[str, Any]]) -> None:
    """Draw training and test loss by epoch."""
    figure = Figure(figsize=(5, 3.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for name in ("train_loss", "test_loss"):
        axis.plot([e["epoch"] for e in epochs], [e[name] for e in epochs], ".-", label=name.replace("_", " "))
    axis.set(title=title, xlabel="epoch", ylabel=f"loss {unit}", yscale="log")
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    figure.savefig(path)


def start(main: Callable[[], None]) -> None:
    """Run an example; Ctrl-C ends it without a traceback, and what the last finished epoch left stays."""
    try:
        main()
    except KeyboardInterrupt:
        print("\nStopped. With --resume it goes on after the last epoch that was finished.", file=sys.stderr)
        sys.exit(130)
