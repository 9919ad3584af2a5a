"""A long run: do steps get slower, or does the process grow, after half of the units have died?

    python benchmarks/steady.py

README.md explains the columns.
"""

import argparse
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import common
import numpy as np
from common import CORES, names, serve, spread
from models import WORKLOADS

LIBRARIES = ("minidl", "torch")
ALIVE, MEASURED = 50, 100  # steps before the units die, and steps timed at the beginning and at the end
DEAD = -1e3  # a bias with which no ReLU is ever active
HEADER = (
    "workload",
    "library",
    "ms at first [min, max]",
    "ms after",
    "after / at first [min, max]",
    "denormal",
    "MB more",
    "faults a step",
)


class Trainer:
    """A workload with Adam, without weight decay: decay would keep the moments of dead weights from vanishing."""

    def __init__(self, library: str, name: str, threads: int) -> None:
        self.m = m = importlib.import_module(library)
        if library == "torch":
            m.set_num_threads(threads)
        m.manual_seed(0)
        self.workload = WORKLOADS[name]
        self.model = self.workload.model(m, 0.25)
        self.optimiser = m.optim.Adam(self.model.parameters(), lr=1e-3)
        batches = self.workload.data(self.workload.batch, give_noise=False)
        self.batches = [[None if a is None else m.tensor(a) for a in pair] for pair in batches]

    def train(self, steps: int) -> dict[str, float]:
        """The medians of a step's time in ms and of its page faults."""
        times, faults = [], []
        for i in range(steps):
            before, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
            loss = self.workload.loss(self.m, self.model, *self.batches[i % len(self.batches)])
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            times.append((time.perf_counter() - start) * 1e3)
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        return {"ms": median(times), "faults": median(faults), "mb": resident_mb()}

    def kill(self) -> None:
        """Kill half of the units in every layer but the last: their outputs and gradients stay 0."""
        biases = [p for name, p in self.model.named_parameters() if name.endswith("bias")]
        for bias in biases[:-1]:
            bias.data[: len(bias) // 2] = DEAD

    def denormal(self) -> int:
        """The number of parameters and moments that are denormal."""
        held = [t for state in self.optimiser.state.values() for t in state.values() if not isinstance(t, int)]
        arrays = [t.detach().numpy() for t in (*held, *self.model.parameters())]
        return sum(int(((a != 0) & (np.abs(a) < np.finfo(a.dtype).tiny)).sum()) for a in arrays)


def resident_mb() -> float:
    """The process's current memory."""
    status = Path("/proc/self/status")
    return int(status.read_text().split("VmRSS:")[1].split()[0]) / 2**10 if status.exists() else common.peak_mb()


def start(library: str, name: str, threads: int) -> dict[str, Callable[..., Any]]:
    """The requests that a worker answers."""
    trainer = Trainer(library, name, threads)
    return {"train": trainer.train, "kill": trainer.kill, "denormal": trainer.denormal}


def measure(library: str, name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One run: units alive, just dead, long dead."""
    worker = common.Worker(__file__, args.threads, library=library, name=name)
    try:
        worker.ask("train", ALIVE)
        worker.ask("kill")
        first = worker.ask("train", MEASURED)
        worker.ask("train", max(1, args.steps - 2 * MEASURED))
        last = worker.ask("train", MEASURED)
        return {"first": first, "last": last, "denormal": worker.ask("denormal")}
    finally:
        worker.close()


def row(name: str, library: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of the table: the figures over all runs."""
    return {
        "workload": name,
        "library": library,
        "first": spread([r["first"]["ms"] for r in runs]),
        "last": median(r["last"]["ms"] for r in runs),
        "ratio": spread([r["last"]["ms"] / r["first"]["ms"] for r in runs]),
        "denormal": max(r["denormal"] for r in runs),
        "mb": max(r["last"]["mb"] - r["first"]["mb"] for r in runs),
        "faults": median(r["last"]["faults"] for r in runs),
    }


def line(row: dict[str, Any]) -> list[str]:
    """The cells of one row of the table."""
    return [
        row["workload"],
        row["library"],
        "{:.2f} [{:.2f}, {:.2f}]".format(*row["first"]),
        f"{row['last']:.2f}",
        "{:.2f} [{:.2f}, {:.2f}]".format(*row["ratio"]),
        f"{row['denormal']:,}",
        f"{row['mb']:.1f}",
        f"{row['faults']:.0f}",
    ]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = common.command_line(__doc__)
    p.add_argument("--libs", type=names(LIBRARIES), default=list(LIBRARIES), help="libraries, comma-separated (all)")
    p.add_argument("--only", type=names(WORKLOADS), default=["mlp", "mnist_ae"], help="workloads (mlp,mnist_ae)")
    p.add_argument("--threads", type=int, default=CORES, help="threads per library (%(default)s)")
    p.add_argument("--runs", type=int, default=3, help="runs per library (%(default)s)")
    p.add_argument("--steps", type=int, default=2000, help="steps after the units died (%(default)s)")
    return p


def main() -> None:
    args = parser().parse_args()
    if args.worker:
        serve(lambda: start(**args.worker))
        return
    missing = [lib for lib in args.libs if not common.installed(lib)]
    machine, rows = common.machine(), []
    for name in args.only:
        runs: dict[str, list[dict[str, Any]]] = {lib: [] for lib in args.libs if lib not in missing}
        for i in range(args.runs):
            print(f"{name}: run {i + 1} of {args.runs} ...", file=sys.stderr, flush=True)
            for library, found in runs.items():
                found.append(measure(library, name, args))
        rows += [row(name, library, found) for library, found in runs.items()]
    common.print_table(HEADER, [line(r) for r in rows])
    print(f"\n{args.threads} threads, {args.steps} steps after half of the units died,", common.listed(machine))
    if missing:
        print(f"Skipped because not installed: {', '.join(missing)}.")
    if args.json:
        args.json.write_text(
            json.dumps({"settings": common.settings(args), "machine": machine, "rows": rows}, indent=1)
        )


if __name__ == "__main__":
    main()
