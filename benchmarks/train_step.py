"""The time of a training step, minidl beside PyTorch and JAX.

    python benchmarks/train_step.py

measures six workloads in every library that is installed and prints one table; README.md says what its columns mean.
"""

import argparse
import importlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import geometric_mean, median
from typing import Any

import common
import numpy as np
from common import CORES, EAGER, PAUSE, WARM_UP, WARM_UP_A_ROUND, names
from models import WORKLOADS, flops

LIBRARIES = {  # the name of each, and the package it needs
    "minidl": "minidl",
    "torch": "torch",
    "torch_channels_last": "torch",
    "torch_fused": "torch",
    "torch_compile": "torch",
    "jax": "jax",
}
TOLERANCE, CHECKED_STEPS = 1e-4, 20  # of the losses, relative to torch's
HEADER = (
    "workload",
    "library",
    "ms a step",
    "time / minidl's [min, max]",
    "GFLOP/s",
    "of sgemm",
    "peak MB",
    "faults a step",
    "loss differs by",
)


# In the worker: one library, one workload.


class Trainer:
    """A workload in minidl or PyTorch."""

    def __init__(self, library: str, name: str, batch: int, threads: int, check: bool) -> None:
        self.m = m = importlib.import_module(LIBRARIES[library])
        if m.__name__ == "torch":
            m.set_num_threads(threads)
        self.workload, self.last = WORKLOADS[name], library == "torch_channels_last"
        self.model = self._channels_last(self.workload.model(m, 0.0 if check else 0.25))
        fused = {"fused": True} if library == "torch_fused" else {}
        self.optimiser = self.workload.optimiser(m, self.model.parameters(), **fused)
        self.batches = [[self._tensor(a) for a in pair] for pair in self.workload.data(batch, give_noise=check)]

        def loss(images: Any, second: Any) -> Any:
            return self.workload.loss(m, self.model, images, second)

        self.loss = m.compile(loss) if library == "torch_compile" else loss

    def _channels_last(self, x: Any) -> Any:
        return x.to(memory_format=self.m.channels_last) if self.last else x

    def _tensor(self, array: np.ndarray | None) -> Any:
        if array is None:
            return None
        if array.ndim == 4 and self.m.__name__ == "minidl":  # in the memory order of minidl's own loader
            array = np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        return self._channels_last(self.m.tensor(array)) if array.ndim == 4 else self.m.tensor(array)

    def save(self, path: str) -> dict[str, int]:
        """Hand the initial weights over; the model's size and arithmetic a sample."""
        state = {key: value.detach().numpy() for key, value in self.model.state_dict().items()}
        np.savez(path, **state)
        size = sum(a.size for a in state.values())
        if size != self.workload.parameters:
            raise AssertionError(f"the model has {size:,} parameters, not {self.workload.parameters:,}")
        return {"parameters": size, "flops": flops(self.model, self.workload.sample)}

    def load(self, path: str) -> None:
        with np.load(path) as state:
            self.model.load_state_dict({key: self.m.tensor(state[key]) for key in state.files})

    def step(self, i: int) -> Any:
        loss = self.loss(*self.batches[i % len(self.batches)])
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss


class Sgemm:
    """The machine's speed: a product of two 1024 x 1024 matrices in NumPy."""

    def __init__(self) -> None:
        self.a = np.ones((1024, 1024), np.float32)

    def step(self, i: int) -> Any:
        return (self.a @ self.a)[0, 0]


def measure(trainer: Any, steps: int, warm_up: int) -> dict[str, float]:
    """Medians over `steps`, and the most memory that the process ever held."""
    for i in range(warm_up):
        trainer.step(i)
    times, faults = [], []
    for i in range(steps):
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        trainer.step(i)
        times.append((time.perf_counter() - start) * 1e3)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return {"ms": median(times), "best": min(times), "faults": median(faults), "peak": common.peak_mb()}


def work(options: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """What the worker can be asked for."""
    if options["library"] == "sgemm":
        trainer: Any = Sgemm()
    elif options["library"] == "jax":
        trainer = importlib.import_module("jax_models").Trainer(**options)
    else:
        trainer = Trainer(**options)
    return {
        "save": lambda path: trainer.save(path),
        "load": lambda path: trainer.load(path),
        "losses": lambda steps: [trainer.step(i).item() for i in range(steps)],
        "measure": lambda steps, warm_up: measure(trainer, steps, warm_up),
    }


# In the process that leads.


class Worker(common.Worker):
    """A process of its own for one library and one workload."""

    def __init__(self, library: str, threads: int, **options: Any) -> None:
        super().__init__(__file__, threads, library=library, **options)


class Comparison:
    """One workload in all libraries."""

    def __init__(self, name: str, args: argparse.Namespace, weights: str) -> None:
        self.name, self.args, self.weights = name, args, weights
        self.batch = args.batch or WORKLOADS[name].batch
        self.rounds: dict[str, list[dict[str, float]]] = {}
        self.difference: dict[str, float] = {}

    def start(self, library: str, check: bool = False) -> Worker:
        return Worker(library, self.args.threads, name=self.name, batch=self.batch, check=check)

    def run(self) -> list[dict[str, Any]]:
        """Hand out the weights, check that the libraries agree, measure them in turn: a row for each."""
        first = self.start(next(lib for lib in self.args.libs if lib != "jax"))
        self.gflop = first.ask("save", self.weights)["flops"] * self.batch / 1e9
        first.close()
        losses = {lib: found for lib in self.args.libs if (found := self.losses(lib))}
        if wanted := losses.get("torch"):
            for lib, found in losses.items():
                self.difference[lib] = max(abs(a / b - 1) for a, b in zip(found, wanted, strict=True))
        self.measure(list(losses))
        return [self.row(lib) for lib in losses]

    def losses(self, library: str) -> list[float]:
        worker = self.start(library, check=True)
        try:
            worker.ask("load", self.weights)
            return worker.ask("losses", CHECKED_STEPS)
        except RuntimeError as error:
            print(f"{self.name}: {library} is left out: {error}", file=sys.stderr)
            return []
        finally:
            worker.close()

    def measure(self, libraries: list[str]) -> None:
        workers = {lib: self.start(lib) for lib in libraries} | {"sgemm": Worker("sgemm", self.args.threads)}
        try:
            for lib, worker in workers.items():
                if lib != "sgemm":
                    worker.ask("load", self.weights)
                worker.ask("measure", 1, WARM_UP)
            for i in range(self.args.rounds):
                for lib in sorted(workers, reverse=i % 2 == 1):
                    time.sleep(PAUSE)
                    answer = workers[lib].ask("measure", self.args.steps, WARM_UP_A_ROUND)
                    self.rounds.setdefault(lib, []).append(answer)
        finally:
            for worker in workers.values():
                worker.close()

    def ratios(self, *libraries: str) -> list[float]:
        """The time of the fastest of `libraries` in terms of minidl's, a round each."""
        sound = [self.rounds[lib] for lib in libraries if lib in self.rounds and not self.void(lib)]
        if not sound or "minidl" not in self.rounds or self.void("minidl"):
            return []
        fastest = [min(r["ms"] for r in peers) for peers in zip(*sound, strict=True)]
        return [peer / own["ms"] for peer, own in zip(fastest, self.rounds["minidl"], strict=True)]

    def void(self, library: str) -> bool:
        """Whether its losses are others than PyTorch's."""
        return not self.difference.get(library, 0.0) <= TOLERANCE  # so that nan is void too

    def row(self, library: str) -> dict[str, Any]:
        rounds = self.rounds[library]
        ms, ratios = median(r["ms"] for r in rounds), self.ratios(library)
        return {
            "workload": self.name,
            "library": library,
            "batch": self.batch,
            "ms": ms,
            "ratio": common.spread(ratios) if ratios else None,
            "gflops": self.gflop / ms * 1e3,
            "sgemm": 2 * 1.024**3 / min(r["best"] for r in self.rounds["sgemm"]) * 1e3,  # in GFLOP/s
            "peak_mb": max(r["peak"] for r in rounds),
            "faults": median(r["faults"] for r in rounds),
            "difference": self.difference.get(library),
            "void": self.void(library),
        }


def line(row: dict[str, Any], sgemm: float) -> list[str]:
    """The cells of one row of the table; `sgemm` is the best GFLOP/s of the run."""
    difference = "not checked" if row["difference"] is None else f"{row['difference']:.0e}"
    if row["void"]:
        return [row["workload"], row["library"], "void", "", "", "", "", "", difference]
    return [
        row["workload"],
        row["library"],
        f"{row['ms']:.2f}",
        "{:.2f} [{:.2f}, {:.2f}]".format(*row["ratio"]) if row["ratio"] else "",
        f"{row['gflops']:.0f}",
        f"{row['gflops'] / sgemm:.0%}",
        f"{row['peak_mb']:.0f}",
        f"{row['faults']:.0f}",
        difference,
    ]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = common.command_line(__doc__)
    p.add_argument("--libs", type=names(LIBRARIES), default=list(LIBRARIES), help="separated by commas (all)")
    p.add_argument("--only", type=names(WORKLOADS), default=list(WORKLOADS), help="workloads, likewise (all)")
    p.add_argument("--threads", type=int, default=CORES, help="of each library (%(default)s)")
    p.add_argument("--batch", type=int, help="samples a step (the published number)")
    p.add_argument("--rounds", type=int, default=7, help="turns that each library gets (%(default)s)")
    p.add_argument("--steps", type=int, default=40, help="measured in each turn (%(default)s)")
    return p


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Measure everything asked for: the settings, the versions, the rows, and minidl's ratio on each workload."""
    found = common.machine()
    rows, better = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only:
            print(f"{name} ...", file=sys.stderr, flush=True)
            comparison = Comparison(name, args, f"{folder}/{name}.npz")
            rows += comparison.run()
            if ratios := comparison.ratios(*EAGER):
                better[name] = median(ratios)
    return {"settings": common.settings(args), "machine": found, "rows": rows, "better_of_eager": better}


def print_report(report: dict[str, Any]) -> None:
    """The table, and what belongs under it."""
    settings, better = report["settings"], report["better_of_eager"]
    sgemm = max(row["sgemm"] for row in report["rows"])
    common.print_table(HEADER, [line(row, sgemm) for row in report["rows"]])
    print("\n{threads} threads, {rounds} rounds of {steps} steps".format(**settings), end=", ")
    print(f"sgemm {sgemm:.0f} GFLOP/s,", ", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    if better:
        each = ", ".join(f"{name} {ratio:.2f}" for name, ratio in better.items())
        mean = geometric_mean(better.values())
        print(f"minidl against the better of PyTorch eager NCHW and channels_last: {each};")
        print(f"geometric mean of {len(better)} of {len(settings['only'])} workloads {mean:.2f}.")


def main() -> None:
    args = parser().parse_args()
    if args.worker:
        common.serve(lambda: work(args.worker))
        return
    missing = [lib for lib in args.libs if not common.installed(LIBRARIES[lib])]
    args.libs = [lib for lib in args.libs if lib not in missing]
    if set(args.libs) <= {"jax"}:
        parser().error("minidl or PyTorch has to be among the libraries, and installed")
    report = compare(args)
    print_report(report)
    if missing:
        print(f"Not installed, and left out: {', '.join(missing)}.")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
