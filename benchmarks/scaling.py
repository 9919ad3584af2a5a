"""How the time of a training step scales with batch size and threads, and its memory with batch size.

    python benchmarks/scaling.py

README.md explains the columns of its two tables.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable
from statistics import median
from typing import Any, NamedTuple

import common
from common import CORES, EAGER, PAUSE, WARM_UP, WARM_UP_A_ROUND, names, numbers, spread
from models import WORKLOADS
from train_step import Worker

BATCHES = (16, 32, 64, 128, 256, 512, 1024)
LIBRARIES = ("minidl", *EAGER)
COMPARED = 1024, 128  # batch sizes whose time per image should be equal
BATCH_HEADER = (
    "workload",
    "batch",
    "minidl ms",
    "µs an image",
    "peak MB",
    "torch ms",
    "µs an image",
    "peak MB",
    "torch / minidl [min, max]",
)
THREAD_HEADER = ("workload", "batch", "library", "threads", "ms a step", "1 thread / this [min, max]")


class Run(NamedTuple):
    """What one process trains, and on how many threads."""

    library: str
    batch: int
    threads: int


Rounds = dict[Run, list[dict[str, float]]]


def runs(name: str, args: argparse.Namespace) -> list[Run]:
    """Every batch size on all threads, and every number of threads at the workload's own batch size."""
    pairs = [(batch, max(args.threads)) for batch in args.batches]
    pairs += [(WORKLOADS[name].batch, threads) for threads in args.threads]
    return [Run(library, *pair) for pair in dict.fromkeys(pairs) for library in args.libs]


def measure(name: str, args: argparse.Namespace) -> Rounds:
    """Measure all processes of one workload, in turn."""
    compile_kernels(name)
    found: Rounds = {run: [] for run in runs(name, args)}
    workers: dict[Run, Worker] = {}
    try:
        for run in found:
            workers[run] = Worker(run.library, run.threads, name=name, batch=run.batch, check=False)
            workers[run].ask("measure", 1, WARM_UP)
        for i in range(args.rounds):
            print(f"{name}: round {i + 1} of {args.rounds} ...", file=sys.stderr, flush=True)
            for run in sorted(workers, reverse=i % 2 == 1):
                time.sleep(PAUSE)
                steps = max(3, min(args.steps, args.steps * 128 // run.batch))
                found[run].append(workers[run].ask("measure", steps, WARM_UP_A_ROUND))
    finally:
        for worker in workers.values():
            worker.close()
    return found


def compile_kernels(name: str) -> None:
    """Compile in a process that is not measured, so that the compiler's memory does not count."""
    worker = Worker("minidl", 1, name=name, batch=16, check=False)
    try:
        worker.ask("measure", 1, 1)
    finally:
        worker.close()


def ms(found: Rounds, libraries: Iterable[str], batch: int, threads: int) -> list[float]:
    """The step time of the fastest of the libraries in each round."""
    measured = [found[run] for library in libraries if (run := Run(library, batch, threads)) in found]
    return [min(r["ms"] for r in turn) for turn in zip(*measured, strict=True)]


def batch_rows(name: str, found: Rounds) -> list[dict[str, Any]]:
    """One row per batch size, on all threads."""
    threads = max(run.threads for run in found)
    batches = sorted({run.batch for run in found if run.threads == threads})
    return [batch_row(name, found, batch, threads) for batch in batches]


def batch_row(name: str, found: Rounds, batch: int, threads: int) -> dict[str, Any]:
    """A batch size's times in both libraries; PyTorch's are of the faster memory format in each round."""
    row: dict[str, Any] = {"workload": name, "batch": batch, "threads": threads}
    for key, libraries in {"minidl": ("minidl",), "torch": EAGER}.items():
        if times := ms(found, libraries, batch, threads):
            held = [found[run][-1]["peak"] for library in libraries if (run := Run(library, batch, threads)) in found]
            row[key] = {
                "ms": median(times),
                "rounds": times,
                "peak_mb": min(held),
                "us_an_image": median(times) / batch * 1e3,
            }
    if "torch" in row and "minidl" in row:
        row["ratio"] = divided(row["torch"]["rounds"], row["minidl"]["rounds"])
    return row


def thread_rows(name: str, found: Rounds) -> list[dict[str, Any]]:
    """One row per library and number of threads, at the workload's own batch size."""
    batch = WORKLOADS[name].batch
    counts = sorted({run.threads for run in found})
    rows = []
    for library, libraries in {"minidl": ("minidl",), "torch": EAGER}.items():
        for threads in counts if ms(found, libraries, batch, counts[0]) else []:
            times, one = (ms(found, libraries, batch, n) for n in (threads, 1))
            row = {"workload": name, "batch": batch, "library": library, "threads": threads, "ms": median(times)}
            rows.append(row | {"speed_up": divided(one, times) if one else None})
    return rows


def divided(above: list[float], below: list[float]) -> list[float]:
    """The ratios of two times, round by round: median, minimum and maximum."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def ratio_text(ratio: list[float] | None) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*ratio) if ratio else ""


def batch_line(row: dict[str, Any]) -> list[str]:
    """The cells of one row of the first table."""
    cells = [row["workload"], str(row["batch"])]
    for key in ("minidl", "torch"):
        figures = row.get(key)
        if figures is None:
            cells += ["", "", ""]
        else:
            cells += [f"{figures['ms']:.2f}", f"{figures['us_an_image']:.1f}", f"{figures['peak_mb']:.0f}"]
    return cells + [ratio_text(row.get("ratio"))]


def thread_line(row: dict[str, Any]) -> list[str]:
    """The cells of one row of the second table."""
    cells = [row["workload"], str(row["batch"]), row["library"], str(row["threads"])]
    return cells + [f"{row['ms']:.2f}", ratio_text(row["speed_up"])]


def conclusions(batches: list[dict[str, Any]], threads: list[dict[str, Any]]) -> list[str]:
    """What the tables show for minidl, one sentence each."""
    found = []
    large, small = ({row["workload"]: row for row in batches if row["batch"] == batch} for batch in COMPARED)
    for name in (name for name in large if name in small and "minidl" in large[name]):
        ratio = divided(large[name]["minidl"]["rounds"], small[name]["minidl"]["rounds"])
        per_image = ratio_text([r * COMPARED[1] / COMPARED[0] for r in ratio])
        found.append(f"{name}: time per image at batch {COMPARED[0]} over that at {COMPARED[1]}: {per_image}")
    most = max(row["threads"] for row in threads)
    for row in threads:
        if row["library"] == "minidl" and row["threads"] == most > 1 and row["speed_up"]:
            found.append(f"{row['workload']}: {most} threads over one: {ratio_text(row['speed_up'])} times as fast")
    return found


def parser() -> argparse.ArgumentParser:
    """The command line."""
    powers = [2**i for i in range(CORES.bit_length()) if 2**i < CORES]
    p = common.command_line(__doc__)
    p.add_argument("--libs", type=names(LIBRARIES), default=list(LIBRARIES), help="libraries, comma-separated (all)")
    p.add_argument("--only", type=names(WORKLOADS), default=["mnist_ae", "cnn"], help="workloads (mnist_ae,cnn)")
    p.add_argument("--batches", type=numbers, default=list(BATCHES), help="batch sizes (16,32,64,...,1024)")
    p.add_argument("--threads", type=numbers, default=[*powers, CORES], help="thread counts (1,2,4,... to all cores)")
    p.add_argument("--rounds", type=int, default=7, help="turns per process (%(default)s)")
    p.add_argument("--steps", type=int, default=40, help="timed steps per turn, fewer above batch 128 (%(default)s)")
    return p


def main() -> None:
    args = parser().parse_args()
    missing = [lib for lib in args.libs if lib != "minidl" and not common.installed("torch")]
    args.libs = [lib for lib in args.libs if lib not in missing]
    machine = common.machine()
    batches: list[dict[str, Any]] = []
    threads: list[dict[str, Any]] = []
    for name in args.only:
        found = measure(name, args)
        batches += batch_rows(name, found)
        threads += thread_rows(name, found)
    common.print_table(BATCH_HEADER, [batch_line(row) for row in batches])
    print()
    common.print_table(THREAD_HEADER, [thread_line(row) for row in threads])
    print(f"\n{args.rounds} rounds of at most {args.steps} steps,", common.listed(machine))
    for sentence in (said := conclusions(batches, threads)):
        print(sentence)
    if missing:
        print(f"Skipped because not installed: {', '.join(missing)}.")
    if args.json:
        report = {"settings": common.settings(args), "machine": machine, "batches": batches, "threads": threads}
        args.json.write_text(json.dumps(report | {"conclusions": said}, indent=1))


if __name__ == "__main__":
    main()
