"""What all examples share: options, data with a fallback, progress, checkpoints and metrics.

The models and the training loops are in the examples themselves.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

try:
    import matplotlib  # noqa: F401, for the pictures
    from tqdm import tqdm
except ImportError as error:
    raise SystemExit(f'The examples need {error.name}: python -m pip install -e ".[examples]"') from None

import minidl
from minidl import Tensor, nn, optim
from minidl.data import CIFAR10, MNIST, DataLoader, Dataset, Subset, SyntheticDigits, SyntheticShapes

try:
    import fcntl
except ImportError:  # not on Unix: nothing then keeps two runs out of one folder
    fcntl = None  # type: ignore[assignment]

CHECKPOINT, METRICS = "checkpoint.npz", "metrics.json"


# -- options -----------------------------------------------------------------------------------------------------


def parser(
    name: str,
    doc: str | None,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    train_size: int,
    data: str | None = "mnist",
    full: dict[str, Any] | None = None,
) -> argparse.ArgumentParser:
    """The options that every example has, with its own defaults, and what --full sets instead of these.

    `data` is the set that it learns from; with None it draws all images itself.
    """
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = options.add_argument
    if full:
        published = " ".join(f"--{option.replace('_', '-')} {value}" for option, value in full.items())
        add("--full", action="store_const", const=full, help=f"the published setting: {published}")
    add("--train-size", type=at_least(1), default=train_size, help="images to train with (default: %(default)s)")
    add("--epochs", type=at_least(1), default=epochs, help="passes over the training images (default: %(default)s)")
    add("--batch-size", type=at_least(1), default=batch_size, help="images in each step (default: %(default)s)")
    add("--lr", type=between(0, math.inf), default=lr, help="learning rate (default: %(default)s)")
    add("--seed", type=at_least(0), default=0, help="seed of initial weights, order and noise (default: %(default)s)")
    add("--device", type=device, default="cpu", help="where it trains: cpu, cuda or cuda:1 (default: %(default)s)")
    if data is None:
        options.set_defaults(data="synthetic", data_dir=None)
    else:
        known = SETS[data].name
        add(
            "--data",
            choices=["auto", data, "synthetic"],
            default="auto",
            help=f"auto (default): {known} if it is there or can be downloaded, else drawn images",
        )
        where = "folder with the data set's files (default: $MINIDL_DATA, or the user's cache)"
        add("--data-dir", type=folder, help=where)
    add(
        "--out",
        type=out_folder,
        default=Path("out", name),
        help="folder for pictures and results (default: %(default)s)",
    )
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    return options


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number of at least `least`."""

    def whole_number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {text}")
        return int(text)

    return whole_number


def between(low: float, high: float) -> Callable[[str], float]:
    """The type of an option that is a number between `low` and `high`; infinity does not count as a number."""

    def number(text: str) -> float:
        if not low <= float(text) <= high or math.isinf(float(text)):
            most = "" if math.isinf(high) else f" and at most {high}"
            raise argparse.ArgumentTypeError(f"must be a number of at least {low}{most}, not {text}")
        return float(text)

    return number


def folder(text: str) -> Path:
    """The type of an option that is an existing folder."""
    if not Path(text).expanduser().is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return Path(text).expanduser()


def device(text: str) -> str:
    """The type of an option that is a device's name; a tensor goes there, to see whether it is there."""
    try:
        if minidl.zeros(1, device=text).is_cuda:
            minidl.cuda.set_device(text)  # of several GPUs minidl computes on the current one
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(" ".join(str(error).split())) from None  # in one line
    return text


def out_folder(text: str) -> Path:
    """The folder named on the command line."""
    if not text.strip():
        raise argparse.ArgumentTypeError("give a name, or . for this folder")
    return Path(text)


def start(options: argparse.ArgumentParser, main: Callable[[argparse.Namespace], None]) -> None:
    """Run an example alone in its folder. A signal or a full disk ends it with one line, and with its checkpoint."""
    args = options.parse_args()
    if getattr(args, "full", None):
        options.set_defaults(**args.full)  # what is given on the command line still counts
        args = options.parse_args()
    vars(args).pop("full", None)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        options.error(f"argument --out: {args.out}: {error.strerror}")
    if not os.access(args.out, os.W_OK):
        options.error(f"argument --out: no permission to write to {args.out}")
    go_on = "--resume goes on after the last finished epoch, if there is one." if "resume" in args else ""
    minidl.manual_seed(args.seed)
    with _alone_in(args.out), _signals_stop():
        try:
            main(args)
        except KeyboardInterrupt:
            print(f"\nStopped. {go_on}".rstrip(), file=sys.stderr)
            sys.exit(128 + (_signals[0] if _signals else signal.SIGINT))  # what a shell says of such an end
        except BrokenPipeError:  # of what is printed
            raise
        except OSError as error:  # of a file, and files are written to --out only
            sys.exit(f"Could not write to {args.out}: {error}. Make room there, or permit it. {go_on}".rstrip())


@contextlib.contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Keep other runs out of a folder. The system lets go of it however this process ends, so no lock stays behind."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SystemExit(f"Another run is writing to {out}: wait for its end, or choose another --out.") from None
    except OSError:
        pass  # some network folders have no locks
    try:
        yield
    finally:
        os.close(descriptor)


_signals: list[int] = []  # those that asked the run to stop


@contextlib.contextmanager
def _signals_stop() -> Iterator[None]:
    """SIGTERM stops a run as Ctrl-C does; the second signal ends the process at once."""
    before = {}
    if threading.current_thread() is threading.main_thread():  # others may not set handlers
        known = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: handler for number, handler in known.items() if handler != signal.SIG_IGN}

    def stop(number: int, frame: object) -> None:
        _signals.append(number)
        for handled in before:
            signal.signal(handled, signal.SIG_DFL)
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        _signals.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


# -- data --------------------------------------------------------------------------------------------------------


class Source(NamedTuple):
    """A real data set and what is drawn in its place where it cannot be had."""

    name: str
    real: Callable[..., Any]
    drawn: Callable[..., Any]
    things: str


SETS = {
    "mnist": Source("MNIST", MNIST, SyntheticDigits, "digits"),
    "cifar10": Source("CIFAR-10", CIFAR10, SyntheticShapes, "shapes"),
}


def load(args: argparse.Namespace, data: str = "mnist") -> tuple[Any, Any]:
    """The first --train-size training images and all 10,000 test images: the real ones, or drawn ones in their place.

    args.data then says which of the two it was.
    """
    source = SETS[data]
    if args.data != "synthetic":
        try:
            train, test = (source.real(args.data_dir, train=part, download=True) for part in (True, False))
            args.data = data
            if args.train_size > len(train):
                raise SystemExit(f"--train-size {args.train_size}: {source.name} has only {len(train)} training images")
            return Subset(train, range(args.train_size)), test
        except (OSError, ImportError, ValueError) as error:
            if args.data == data:
                raise SystemExit(f"{source.name} cannot be used: {error}") from None
            if args.data_dir is not None:
                raise SystemExit(
                    f"--data-dir {args.data_dir}: {source.name} is not there, and cannot be fetched into it "
                    f"({_in_short(error)}). Without --data-dir, or with --data synthetic, {source.things} are drawn."
                ) from None
            print(f"No {source.name} ({_in_short(error)}). Using synthetic {source.things} instead.")
    args.data = "synthetic"
    return source.drawn(args.train_size, seed=0), source.drawn(10_000, seed=1)


def source_name(data: str, things: str) -> str:
    """What pictures call the images: "MNIST digits", "synthetic images"."""
    return f"{SETS[data].name if data in SETS else data} {things}"


def _in_short(error: Exception) -> str:
    """An error's lines in one, each mirror's reason once and without its address."""
    first, *mirrors = str(error).splitlines()
    reasons = dict.fromkeys(line.strip().split(": ", 1)[-1] for line in mirrors)
    return " ".join([first, "; ".join(reasons)]).strip()


def images_of(dataset: Dataset, indices: Sequence[int]) -> Tensor:
    """Some images of a data set as one batch (N, C, H, W), on the CPU."""
    images, _ = next(iter(DataLoader(Subset(dataset, indices), len(indices))))
    return images


# -- a run: progress, checkpoints, metrics -----------------------------------------------------------------------


class Run:
    """A training run and its folder: what it prints, and what it leaves there.

    Attributes
    ----------
    epochs : list of dict
        The metrics so far, one entry an epoch.
    kept : dict
        What the example wants to find again after ``--resume``, such as pictures of earlier epochs.
    results : dict
        What is found out after training, for metrics.json; ``report`` adds to it.
    """

    def __init__(self, args: argparse.Namespace, model: nn.Module, optimizer: optim.Optimizer) -> None:
        self.out, self.last = args.out, args.epochs
        self.settings = {k: v for k, v in vars(args).items() if k not in ("out", "resume", "epochs", "data_dir")}
        self.model, self.optimizer = model, optimizer
        self.epochs: list[dict[str, Any]] = []
        self.kept: dict[str, Any] = {}
        self.pictures: list[str] = []
        self.results: dict[str, Any] = {}
        self.fresh = True  # nothing in the folder is this run's
        for stale in self.out.glob(f".{CHECKPOINT}.*.tmp"):  # what minidl.save had begun when a run was killed
            stale.unlink()
        if args.resume and (self.out / CHECKPOINT).exists():
            self._restore()
        elif args.resume:
            print(f"Nothing to resume in {self.out}: starting at epoch 1.")

    def __iter__(self) -> Iterator[int]:
        """The epochs to go, each timed."""
        if len(self.epochs) >= self.last:
            print(f"Nothing left to train: epoch {len(self.epochs)} is done, and --epochs is {self.last}.")
        for epoch in range(len(self.epochs) + 1, self.last + 1):
            self.started = time.perf_counter()
            yield epoch

    def progress(self, batches: Iterable[Any], epoch: int) -> Iterator[Any]:
        """The batches, with a bar where there is a terminal to show it on."""
        for batch in tqdm(batches, desc=f"epoch {epoch}/{self.last}", unit="batch", leave=False, disable=None):
            if _signals:  # but the interrupt is lost: it came in a __del__, where Python ignores exceptions
                raise KeyboardInterrupt
            yield batch

    def finish_epoch(self, unit: str, **metrics: float) -> None:
        """Print an epoch's metrics, and write the checkpoint and metrics.json."""
        if not all(math.isfinite(value) for value in metrics.values()):
            raise SystemExit(f"Epoch {len(self.epochs) + 1} ended with {metrics}: a lower --lr may help.")
        self._set_earlier_run_aside()
        seconds = round(time.perf_counter() - self.started, 3)
        self.epochs.append({"epoch": len(self.epochs) + 1, **metrics, "seconds": seconds})
        shown = "  ".join(f"{name.replace('_', ' ')} {value:.5f}" for name, value in metrics.items())
        minidl.save(self._state(), self.out / CHECKPOINT)
        self._write_metrics()
        print(f"epoch {len(self.epochs):3d}/{self.last}  {shown}  {unit}  {seconds:.1f} s", flush=True)

    def report(self, **results: Any) -> None:
        """Add results, of plain numbers, strings, lists and dicts, to metrics.json."""
        self.results |= results
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
        try:
            state = minidl.load(self.out / CHECKPOINT)
        except (OSError, ValueError) as error:
            raise SystemExit(f"--resume: {error}") from None
        if not isinstance(state, dict) or not self._state().keys() <= state.keys():
            raise SystemExit(
                f"--resume: {self.out / CHECKPOINT} is no checkpoint of a run, but another file of minidl's"
            )
        fixed = [k for k in self.settings if k != "device"]  # a run may go on elsewhere
        changed = [k for k in fixed if self.settings[k] != state["settings"].get(k)]
        if changed:
            listed = ", ".join(f"{k} {self.settings[k]} instead of {state['settings'].get(k)}" for k in changed)
            raise SystemExit(
                f"--resume: the checkpoint in {self.out} was made with other settings: {listed}. "
                "Give those of the checkpoint, or start anew in another --out."
            )
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise SystemExit(f"--resume: the checkpoint in {self.out} is of another model: {first}") from None
        minidl.random.default_generator.set_state(state["generator"])
        self.epochs, self.kept = state["epochs"], state["kept"]
        self.pictures, self.fresh = self._known_pictures(), False
        print(f"Resuming after epoch {len(self.epochs)} of {self.out / CHECKPOINT}.")

    def _set_earlier_run_aside(self) -> None:
        """Move what an earlier run left here into a folder of its own: nothing is lost, nothing gets mixed.

        metrics.json goes last, since it says which pictures there are: so a move that was cut short is continued.
        """
        names = [*self._known_pictures(), CHECKPOINT, METRICS] if self.fresh else []
        found = [self.out / name for name in names if (self.out / name).exists()]
        if found:
            number = 1
            while any((self.out / f"earlier-{number}" / path.name).exists() for path in found):
                number += 1
            aside = self.out / f"earlier-{number}"
            aside.mkdir(exist_ok=True)
            for path in found:
                path.rename(aside / path.name)
            print(f"An earlier run was moved to {aside}.")
        self.fresh = False

    def _known_pictures(self) -> list[str]:
        """The pictures here, as far as metrics.json names them."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # none, or it cannot be read
            return json.loads((self.out / METRICS).read_text())["pictures"]
        return []

    def _write_metrics(self) -> None:
        self._set_earlier_run_aside()
        versions = {"minidl": minidl.__version__, "numpy": np.__version__}
        with contextlib.suppress(metadata.PackageNotFoundError):  # the definitions of the kernels run without it
            versions["numba"] = metadata.version("numba")
        metrics = {
            "settings": self.settings,
            "seed": self.settings["seed"],
            "versions": {"python": platform.python_version(), **versions},
            "threads": minidl.get_num_threads(),
            "epochs": self.epochs,
            "results": self.results,
            "pictures": self.pictures,
        }
        temporary = self.out / f".{METRICS}.tmp"
        try:
            temporary.write_text(json.dumps(metrics, indent=2) + "\n")
            os.replace(temporary, self.out / METRICS)
        finally:
            temporary.unlink(missing_ok=True)
