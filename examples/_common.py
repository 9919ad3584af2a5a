"""What the examples share: command-line options, data with a fallback, progress, checkpoints and metrics.

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
from collections.abc import Callable, Iterator, Sequence
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
from minidl import Tensor, distributed, nn, optim
from minidl.data import (
    CIFAR10,
    MNIST,
    DataLoader,
    Dataset,
    DistributedSampler,
    Subset,
    SyntheticDigits,
    SyntheticShapes,
)

try:
    import fcntl
except ImportError:  # not on Unix: there, nothing prevents two runs from sharing a folder
    fcntl = None  # type: ignore[assignment]

CHECKPOINT, METRICS = "checkpoint.npz", "metrics.json"
NOT_SETTINGS = "out", "resume", "epochs", "data_dir", "distributed"  # which may differ when a run is resumed


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
    """The options common to all examples, with this example's defaults and the values that --full sets instead.

    `data` is the data set to train on; with None, all images are synthetic.
    """
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = options.add_argument
    if full:
        published = " ".join(f"--{option.replace('_', '-')} {value}" for option, value in full.items())
        add("--full", action="store_const", const=full, help=f"use the published settings: {published}")
    add("--train-size", type=at_least(1), default=train_size, help="number of training images (default: %(default)s)")
    add("--epochs", type=at_least(1), default=epochs, help="passes over the training images (default: %(default)s)")
    add("--batch-size", type=at_least(1), default=batch_size, help="images per step (default: %(default)s)")
    add("--lr", type=between(0, math.inf), default=lr, help="learning rate (default: %(default)s)")
    add("--seed", type=at_least(0), default=0, help="seed for weights, shuffling and noise (default: %(default)s)")
    add("--device", type=device, default="cpu", help="device to train on: cpu, cuda or cuda:1 (default: %(default)s)")
    if data is None:
        options.set_defaults(data="synthetic", data_dir=None)
    else:
        known = SETS[data].name
        add(
            "--data",
            choices=["auto", data, "synthetic"],
            default="auto",
            help=f"auto (default): {known} if present or downloadable, else synthetic images",
        )
        where = "folder with the data set's files (default: $MINIDL_DATA, or the user's cache folder)"
        add("--data-dir", type=folder, help=where)
    add(
        "--out",
        type=out_folder,
        default=Path("out", name),
        help="folder for pictures and results (default: %(default)s)",
    )
    add("--resume", action="store_true", help="resume from the checkpoint in --out")
    return options


def at_least(least: int) -> Callable[[str], int]:
    """argparse type: an integer of at least `least`."""

    def whole_number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {text}")
        return int(text)

    return whole_number


def between(low: float, high: float) -> Callable[[str], float]:
    """argparse type: a finite number between `low` and `high`."""

    def number(text: str) -> float:
        if not low <= float(text) <= high or math.isinf(float(text)):
            most = "" if math.isinf(high) else f" and at most {high}"
            raise argparse.ArgumentTypeError(f"must be a number of at least {low}{most}, not {text}")
        return float(text)

    return number


def folder(text: str) -> Path:
    """argparse type: an existing folder."""
    if not Path(text).expanduser().is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return Path(text).expanduser()


def device(text: str) -> str:
    """argparse type: the name of a device, which is checked by allocating a tensor on it."""
    try:
        if minidl.zeros(1, device=text).is_cuda:
            minidl.cuda.set_device(text)  # minidl computes on the current GPU only
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(" ".join(str(error).split())) from None  # on one line
    return text


def out_folder(text: str) -> Path:
    """argparse type: the output folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("give a name, or . for this folder")
    return Path(text)


def start(options: argparse.ArgumentParser, main: Callable[[argparse.Namespace], None]) -> None:
    """Run an example, alone in its folder. After a signal or a full disk it exits with a one-line message.

    The last checkpoint is kept.
    """
    args = options.parse_args()
    if getattr(args, "full", None):
        options.set_defaults(**args.full)  # options given on the command line take precedence
        args = options.parse_args()
    vars(args).pop("full", None)
    if getattr(args, "distributed", False):
        _join(args)
    if rank() == 0:
        try:
            args.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            options.error(f"argument --out: {args.out}: {error.strerror}")
        if not os.access(args.out, os.W_OK):
            options.error(f"argument --out: no permission to write to {args.out}")
    go_on = "--resume continues after the last finished epoch, if there is one." if "resume" in args else ""
    minidl.manual_seed(args.seed)
    with _alone_in(args.out) if rank() == 0 else contextlib.nullcontext(), _signals_stop():
        try:
            _wait_for_rank_0()
            main(args)
        except KeyboardInterrupt:
            if rank() == 0:
                print(f"\nStopped. {go_on}".rstrip(), file=sys.stderr)
            sys.exit(128 + (_signals[0] if _signals else signal.SIGINT))  # a shell's status for death by this signal
        except BrokenPipeError:  # from stdout
            raise
        except OSError as error:  # from a file: files are only written to --out
            sys.exit(f"Could not write to {args.out}: {error}. Check disk space and permissions. {go_on}".rstrip())


@contextlib.contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Lock a folder against other runs. The system releases the lock however the process ends, so none goes stale."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SystemExit(f"Another run is writing to {out}: wait until it ends, or choose another --out.") from None
    except OSError:
        pass  # some network file systems do not support locks
    try:
        yield
    finally:
        os.close(descriptor)


_signals: list[int] = []  # the signals received that ask the run to stop


@contextlib.contextmanager
def _signals_stop() -> Iterator[None]:
    """Let SIGTERM stop a run as Ctrl-C does; a second signal kills the process immediately."""
    before = {}
    if threading.current_thread() is threading.main_thread():  # only the main thread may set handlers
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


# -- several ranks -----------------------------------------------------------------------------------------------


def add_distributed(options: argparse.ArgumentParser) -> None:
    """The option --distributed, for examples that train on several ranks."""
    what = "train on all ranks that mpiexec -n N python -m mpi4py has started; --batch-size is that of all together"
    options.add_argument("--distributed", action="store_true", help=what)


def _join(args: argparse.Namespace) -> None:
    """Join the process group. Only rank 0 prints."""
    distributed.init_process_group()
    if rank() > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  until the process ends
    if args.batch_size % ranks():
        message = f"--batch-size {args.batch_size} cannot be shared equally by {ranks()} ranks"
        raise SystemExit(message if rank() == 0 else 1)


def rank() -> int:
    """The number of this process, 0 if it trains alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def ranks() -> int:
    """The number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def _wait_for_rank_0() -> None:
    """Go on when rank 0 does; if it has ended instead, it has said why."""
    if distributed.is_initialized():
        try:
            distributed.barrier()
        except RuntimeError:
            sys.exit(1)


def train_loader(dataset: Dataset, args: argparse.Namespace) -> DataLoader:
    """The training images in random order, or this rank's share in each batch of them."""
    if not distributed.is_initialized():
        return DataLoader(dataset, args.batch_size, shuffle=True, device=args.device)
    sampler = DistributedSampler(dataset, seed=args.seed, drop_last=True)
    return DataLoader(dataset, args.batch_size // ranks(), sampler=sampler, device=args.device)


def share(dataset: Any) -> Any:
    """Every N-th item from this rank's number on, so that the ranks together see each item once."""
    return Subset(dataset, range(rank(), len(dataset), ranks())) if ranks() > 1 else dataset


def joined(rows: Tensor, count: int) -> Tensor:
    """The rows that the ranks have computed of their shares, in the data set's order."""
    whole = minidl.zeros(count, *rows.shape[1:])
    whole[rank() :: ranks()] = rows
    if distributed.is_initialized():
        distributed.all_reduce(whole)
    return whole


def averaged(values: Sequence[float]) -> list[float]:
    """Each value's average over the ranks."""
    whole = minidl.tensor(values, dtype=minidl.float64)
    if distributed.is_initialized():
        distributed.all_reduce(whole, distributed.ReduceOp.AVG)
    return whole.tolist()


# -- data --------------------------------------------------------------------------------------------------------


class Source(NamedTuple):
    """A real data set and its synthetic substitute."""

    name: str
    real: Callable[..., Any]
    drawn: Callable[..., Any]
    things: str


SETS = {
    "mnist": Source("MNIST", MNIST, SyntheticDigits, "digits"),
    "cifar10": Source("CIFAR-10", CIFAR10, SyntheticShapes, "shapes"),
}


def load(args: argparse.Namespace, data: str = "mnist") -> tuple[Any, Any]:
    """The first --train-size training images and all 10,000 test images, real or, as a fallback, synthetic.

    Sets args.data to the one that was used.
    """
    source = SETS[data]
    if rank() > 0:
        _wait_for_rank_0()  # which downloads
    try:
        sets = _load(args, source, data)
    finally:
        if rank() == 0:
            _wait_for_rank_0()
    if averaged([args.data == "synthetic"])[0] not in (0, 1):
        raise SystemExit(f"--data auto: not all ranks found {source.name}. Use --data {data} or --data synthetic.")
    return sets


def _load(args: argparse.Namespace, source: Source, data: str) -> tuple[Any, Any]:
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
                    f"--data-dir {args.data_dir}: {source.name} is not there and could not be downloaded to it "
                    f"({_in_short(error)}). Omit --data-dir or use --data synthetic for synthetic {source.things}."
                ) from None
            print(f"{source.name} not available ({_in_short(error)}). Using synthetic {source.things} instead.")
    args.data = "synthetic"
    return source.drawn(args.train_size, seed=0), source.drawn(10_000, seed=1)


def source_name(data: str, things: str) -> str:
    """What the pictures' titles call the images: "MNIST digits", "synthetic images"."""
    return f"{SETS[data].name if data in SETS else data} {things}"


def _in_short(error: Exception) -> str:
    """An error message on one line, with each distinct reason of the mirrors once and without their addresses."""
    first, *mirrors = str(error).splitlines()
    reasons = dict.fromkeys(line.strip().split(": ", 1)[-1] for line in mirrors)
    return " ".join([first, "; ".join(reasons)]).strip()


def images_of(dataset: Dataset, indices: Sequence[int]) -> Tensor:
    """Some images of a data set as one batch (N, C, H, W), on the CPU."""
    images, _ = next(iter(DataLoader(Subset(dataset, indices), len(indices))))
    return images


# -- a run: progress, checkpoints, metrics -----------------------------------------------------------------------


class Run:
    """A training run and its output folder: progress, metrics, checkpoint and pictures.

    Attributes
    ----------
    epochs : list of dict
        The metrics so far, one entry per epoch.
    kept : dict
        What the example needs again after ``--resume``, such as reconstructions from earlier epochs. Saved in the
        checkpoint.
    results : dict
        The results after training, for metrics.json; ``report`` adds to it.
    parallel : Module
        The model to train: on several ranks, one that averages their gradients. Only rank 0 writes files.
    """

    def __init__(self, args: argparse.Namespace, model: nn.Module, optimizer: optim.Optimizer) -> None:
        self.out, self.last = args.out, args.epochs
        self.settings = {k: v for k, v in vars(args).items() if k not in NOT_SETTINGS}
        self.model, self.optimizer = model, optimizer
        self.epochs: list[dict[str, Any]] = []
        self.kept: dict[str, Any] = {}
        self.pictures: list[str] = []
        self.results: dict[str, Any] = {}
        self.fresh = True  # nothing in the folder belongs to this run yet
        if rank() == 0:
            for stale in self.out.glob(f".{CHECKPOINT}.*.tmp"):  # left by minidl.save in a run that was killed
                stale.unlink()
        if args.resume and (self.out / CHECKPOINT).exists():
            self._restore()
        elif args.resume:
            print(f"No checkpoint to resume from in {self.out}: starting at epoch 1.")
        if averaged([len(self.epochs)])[0] != len(self.epochs):
            raise SystemExit("--resume: the ranks found different checkpoints: --out must be a folder that all share.")
        self.parallel = nn.parallel.DistributedDataParallel(model) if distributed.is_initialized() else model

    def __iter__(self) -> Iterator[int]:
        """Iterate over the remaining epochs, and time each."""
        if len(self.epochs) >= self.last:
            print(f"Nothing left to train: epoch {len(self.epochs)} is done, and --epochs is {self.last}.")
        for epoch in range(len(self.epochs) + 1, self.last + 1):
            self.started = time.perf_counter()
            if rank() > 0:  # other noise and dropout than on rank 0, whose generator is in the checkpoint
                minidl.manual_seed((self.settings["seed"] << 32) + epoch * ranks() + rank())
            yield epoch

    def progress(self, batches: DataLoader, epoch: int) -> Iterator[Any]:
        """Iterate over the batches, with a progress bar if the output is a terminal."""
        if distributed.is_initialized():
            batches.sampler.set_epoch(epoch)
        hidden = True if rank() > 0 else None  # None: unless the output is a terminal
        for batch in tqdm(batches, desc=f"epoch {epoch}/{self.last}", unit="batch", leave=False, disable=hidden):
            if _signals:  # KeyboardInterrupt was lost: it was raised in a __del__, where Python ignores exceptions
                raise KeyboardInterrupt
            yield batch

    def finish_epoch(self, unit: str, **metrics: float) -> None:
        """Print the epoch's metrics, and write the checkpoint and metrics.json."""
        if not all(math.isfinite(value) for value in metrics.values()):
            raise SystemExit(f"Epoch {len(self.epochs) + 1} ended with {metrics}: a lower --lr may help.")
        self._set_earlier_run_aside()
        seconds = round(time.perf_counter() - self.started, 3)
        self.epochs.append({"epoch": len(self.epochs) + 1, **metrics, "seconds": seconds})
        shown = "  ".join(f"{name.replace('_', ' ')} {value:.5f}" for name, value in metrics.items())
        if rank() == 0:
            minidl.save(self._state(), self.out / CHECKPOINT)
        self._write_metrics()
        print(f"epoch {len(self.epochs):3d}/{self.last}  {shown}  {unit}  {seconds:.1f} s", flush=True)

    def report(self, **results: Any) -> None:
        """Add results to metrics.json: plain numbers, strings, lists and dicts."""
        self.results |= results
        self._write_metrics()

    def picture(self, name: str) -> Path:
        """The path to save a picture at; it is recorded as one of this run's."""
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
                f"--resume: {self.out / CHECKPOINT} was saved by minidl but is not the checkpoint of a run"
            )
        fixed = [k for k in self.settings if k != "device"]  # a run may be resumed on another device
        changed = [k for k in fixed if self.settings[k] != state["settings"].get(k)]
        if changed:
            listed = ", ".join(f"{k} {self.settings[k]} instead of {state['settings'].get(k)}" for k in changed)
            raise SystemExit(
                f"--resume: the checkpoint in {self.out} was made with other settings: {listed}. "
                "Use the checkpoint's settings, or start a new run in another --out."
            )
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise SystemExit(f"--resume: the checkpoint in {self.out} is from another model: {first}") from None
        minidl.random.default_generator.set_state(state["generator"])
        self.epochs, self.kept = state["epochs"], state["kept"]
        self.pictures, self.fresh = self._known_pictures(), False
        print(f"Resuming from {self.out / CHECKPOINT} after epoch {len(self.epochs)}.")

    def _set_earlier_run_aside(self) -> None:
        """Move an earlier run's files into a subfolder, so that nothing is overwritten and no two runs are mixed.

        metrics.json is moved last, since it lists the pictures: an interrupted move is completed by the next run.
        """
        names = [*self._known_pictures(), CHECKPOINT, METRICS] if self.fresh and rank() == 0 else []
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
        """The pictures in this folder that metrics.json lists."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # metrics.json is missing or unreadable
            return json.loads((self.out / METRICS).read_text())["pictures"]
        return []

    def _write_metrics(self) -> None:
        if rank() > 0:
            return
        self._set_earlier_run_aside()
        versions = {"minidl": minidl.__version__, "numpy": np.__version__}
        with contextlib.suppress(metadata.PackageNotFoundError):  # the reference kernels run without Numba
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
