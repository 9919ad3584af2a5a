"""The time of each kernel call in a training step, beside the machine's limits and PyTorch's equivalent call.

    python benchmarks/kernels.py

records the calls of one step of each workload in models.py; README.md explains the columns of its table.
"""

import argparse
import functools
import json
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import common
import numpy as np
from common import CORES, PAUSE, names, spread
from models import SIX, WORKLOADS

HEADER = (
    "workload",
    "kernel",
    "arguments",
    "calls a step",
    "µs",
    "GFLOP/s",
    "GB/s",
    "roofline µs",
    "of roofline",
    "torch µs",
    "torch / minidl [min, max]",
)
Call = Callable[[], Any]


def seconds(call: Call, budget: float, warm_up: int = 3) -> list[float]:
    """The times of as many calls as fit into `budget` seconds, but at least three."""
    for _ in range(warm_up):
        call()
    times: list[float] = []
    end = time.perf_counter() + budget
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


# In minidl's worker.


@functools.lru_cache
def copies() -> list[Callable[[np.ndarray, np.ndarray], Any]]:
    """NumPy's copy on one thread, and a copy on all threads."""
    import numba

    @numba.njit(parallel=True)
    def copy(target, source):  # type: ignore[no-untyped-def]
        for i in numba.prange(len(source)):
            target[i] = source[i]

    return [np.copyto, copy]


@functools.lru_cache
def copy_seconds(size: int) -> float:
    """The time of a copy that reads and writes `size` bytes in all, by the faster method."""
    source, target = np.ones(size // 8, np.float32), np.ones(size // 8, np.float32)
    return min(min(seconds(functools.partial(copy, target, source), 0.01)) for copy in copies())


def peak_flops(kernel: Callable[..., Any]) -> float:
    """FLOP/s of a product of two 1024 x 1024 matrices, the best of several runs."""
    a = np.ones((1024, 1024), np.float32)
    return 2 * 1024**3 / min(seconds(lambda: kernel(a, a), 0.3))


class Minidl:
    """A workload's distinct kernel calls, recorded so that they can be timed."""

    def __init__(self, name: str, batch: int, **_: Any) -> None:
        import minidl_kernels

        self.own = minidl_kernels
        self.calls: dict[tuple[str, str], tuple[Any, ...]] = {}
        self.counts: dict[tuple[str, str], int] = {}
        for key, args in self.own.record(name, batch):
            named = key, self.own.describe(args)
            self.calls.setdefault(named, args)
            self.counts[named] = self.counts.get(named, 0) + 1

    def save(self, path: str) -> list[dict[str, Any]]:
        """Save the calls and their results for PyTorch's worker; return a row per call."""
        rows, handed = [], []
        for (key, arguments), args in self.calls.items():
            kernel = getattr(self.own.kernels, key)
            row = {"kernel": key, "arguments": arguments, "calls": self.counts[key, arguments]}
            rows.append(row | {"flops": self.own.flops(key, args), "bytes": self.own.traffic(kernel, args)})
            # Pickled now, since later calls change the weights in place.
            handed.append(pickle.dumps((key, [self.own.plain(a) for a in args], kernel(*args))))
        with open(path, "wb") as file:
            pickle.dump(handed, file)
        return rows

    def measure(self, budget: float) -> list[float]:
        """Median time of each call in seconds."""
        calls = [functools.partial(getattr(self.own.kernels, key), *args) for (key, _), args in self.calls.items()]
        return [median(seconds(call, budget)) for call in calls]

    def limits(self, sizes: list[int]) -> dict[str, Any]:
        """The speed of matrix products in FLOP/s, and the time to copy each of `sizes` bytes."""
        found = {"minidl": peak_flops(self.own.kernels.matmul), "copy_s": [copy_seconds(size) for size in sizes]}
        return found | {"numpy": peak_flops(np.matmul)}


# In PyTorch's worker.


class Torch:
    """The same calls in PyTorch, each in every variant that gives the same result as minidl."""

    def __init__(self, path: str, threads: int, **_: Any) -> None:
        from torch_kernels import torch, variants

        torch.set_num_threads(threads)
        with open(path, "rb") as file:
            handed = [pickle.loads(call) for call in pickle.load(file)]
        self.calls = [variants(key, args, wanted) for key, args, wanted in handed]

    def measure(self, budget: float) -> list[float | None]:
        """Median time of each call's fastest variant in seconds."""
        return [min((median(seconds(v, budget)) for v in calls), default=None) for calls in self.calls]


def work(options: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """The requests that a worker answers."""
    worker: Any = (Torch if "path" in options else Minidl)(**options)
    return {key: getattr(worker, key) for key in ("save", "measure", "limits") if hasattr(worker, key)}


# In the main process.


def compare(name: str, args: argparse.Namespace, path: str) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The rows of one workload, and the speed of matrix products."""
    batch, workers = args.batch or WORKLOADS[name].batch, []
    try:
        workers.append(common.Worker(__file__, args.threads, name=name, batch=batch))
        rows = workers[0].ask("save", path)
        limits = workers[0].ask("limits", [row["bytes"] for row in rows])
        if common.installed("torch"):
            workers.append(common.Worker(__file__, args.threads, path=path))
        rounds: list[list[Any]] = [[] for _ in workers]
        for i in range(args.rounds):
            for w in sorted(range(len(workers)), reverse=i % 2 == 1):
                time.sleep(PAUSE)
                rounds[w].append(workers[w].ask("measure", args.budget / 1e3))
    finally:
        for worker in workers:
            worker.close()
    peak = {key: limits[key] for key in ("minidl", "numpy")}
    for i, row in enumerate(rows):
        own, *peers = [[turn[i] for turn in turns] for turns in rounds]
        row |= {"workload": name, "own_s": own, "torch_s": peers[0] if peers and None not in peers[0] else None}
        row["copy_s"] = limits["copy_s"][i]
    return rows, peak


def judge(row: dict[str, Any], peak: float) -> None:
    """Add to a row what follows from the times: speeds, the roofline, the ratio to PyTorch."""
    row["s"], row["roofline_s"] = median(row["own_s"]), max(row["flops"] / peak, row["copy_s"])
    row["gflops"], row["gbytes"] = row["flops"] / row["s"] / 1e9, row["bytes"] / row["s"] / 1e9
    if row["torch_s"]:
        row["peer_s"] = median(row["torch_s"])
        row["ratio"] = spread([peer / own for peer, own in zip(row["torch_s"], row["own_s"], strict=True)])


def line(row: dict[str, Any]) -> list[str]:
    """The cells of one row of the table."""
    cells = [row["workload"], row["kernel"], row["arguments"], str(row["calls"]), f"{row['s'] * 1e6:.1f}"]
    cells += [f"{row['gflops']:.0f}" if row["flops"] else "", f"{row['gbytes']:.1f}"]
    cells += [f"{row['roofline_s'] * 1e6:.1f}", f"{row['roofline_s'] / row['s']:.0%}"]
    if not row["torch_s"]:
        return cells + ["", ""]
    return cells + [f"{row['peer_s'] * 1e6:.1f}", "{:.2f} [{:.2f}, {:.2f}]".format(*row["ratio"])]


def summary(rows: list[dict[str, Any]]) -> str:
    """The sum over all kernel calls of one workload's step."""
    name, own, roofline = rows[0]["workload"], _total(rows, "s"), _total(rows, "roofline_s")
    text = f"{name}: kernels of a step {own:.2f} ms, roofline {roofline:.2f} ms ({roofline / own:.0%})"
    both = [row for row in rows if row["torch_s"]]
    if not both:
        return text
    text += f"; of {len(both)} rows of {len(rows)}, those with a peer, minidl {_total(both, 's'):.2f} ms"
    return text + f", torch {_total(both, 'peer_s'):.2f} ms"


def _total(rows: list[dict[str, Any]], key: str) -> float:
    return sum(row[key] * row["calls"] for row in rows) * 1e3  # in ms


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = common.command_line(__doc__)
    p.add_argument(
        "--only", type=names(WORKLOADS), default=list(SIX), help="workloads, comma-separated (all but resnet20)"
    )
    p.add_argument("--threads", type=int, default=CORES, help="threads per library (%(default)s)")
    p.add_argument("--batch", type=int, help="samples per step (the published number)")
    p.add_argument("--rounds", type=int, default=7, help="turns per library (%(default)s)")
    p.add_argument("--budget", type=float, default=20, help="ms per call and turn (%(default)s)")
    return p


def main() -> None:
    args = parser().parse_args()
    if args.worker:
        common.serve(lambda: work(args.worker))
        return
    machine, rows = common.machine(), []
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only:
            print(f"{name} ...", file=sys.stderr, flush=True)
            found, peak = compare(name, args, f"{folder}/{name}")
            rows += found
            peaks = {key: max(speed, peaks.get(key, 0)) for key, speed in peak.items()}
    for row in rows:
        judge(row, max(peaks.values()))
    common.print_table(HEADER, [line(row) for row in rows])
    print(f"\n{args.threads} threads, {args.rounds} rounds, products of 1024 x 1024 matrices:", end=" ")
    print(", ".join(f"{key} {speed / 1e9:.0f} GFLOP/s" for key, speed in peaks.items()), end="; ")
    print(common.listed(machine))
    for name in args.only:
        print(summary([row for row in rows if row["workload"] == name]))
    if not common.installed("torch"):
        print("Skipped because not installed: torch.")
    if args.json:
        report = {"settings": common.settings(args), "machine": machine, "peak_flops": peaks, "rows": rows}
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
