"""The time from process start until minidl is imported or has done its first training step, compared with PyTorch.

    python benchmarks/startup.py

README.md explains the rows and columns of its table.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
from common import CORES, spread
from models import WORKLOADS

HEADER = ("process", "runs", "s [min, max]", "peak MB")
STEP = """
import {library} as m
from models import WORKLOADS
workload = WORKLOADS["{name}"]
model = workload.model(m, 0.0)
optimiser = workload.optimiser(m, model.parameters())
images, second = (None if a is None else m.tensor(a) for a in workload.data({batch}, False)[0])
loss = workload.loss(m, model, images, second)
optimiser.zero_grad()
loss.backward()
optimiser.step()
"""
DONE = """
print("done", flush=True)
from common import peak_mb
print(peak_mb())
"""
FIRST_STEP, EMPTY_CACHE = "{}: first step", "minidl: first step, empty cache"
Run = dict[str, float]  # one process: its seconds and MB


def programs(workload: str) -> dict[str, str]:
    """The code of each row; packages that are not installed are skipped."""
    found = {"Python alone": ""} | {f"import {name}": f"import {name}" for name in ("numba", "minidl", "torch")}
    for library in ("minidl", "torch"):
        step = STEP.format(library=library, name=workload, batch=WORKLOADS[workload].batch)
        found[FIRST_STEP.format(library)] = step
    return {row: code for row, code in found.items() if "torch" not in row or common.installed("torch")}


def run(code: str, threads: int, cache: str | None) -> Run:
    """Time a new process from its start until `code` is done, with `cache` as the folder of compiled kernels."""
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = common.environment(threads) | {"PYTHONPATH": paths}
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = cache
    command, start = [sys.executable, "-c", code + DONE], time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout:  # type: ignore[union-attr]
            if line == "done\n":
                return {"s": time.perf_counter() - start, "peak_mb": float(process.stdout.read())}  # type: ignore[union-attr]
    raise RuntimeError(f"the process failed: {code}")


def measure(args: argparse.Namespace, folder: str) -> dict[str, list[Run]]:
    """The runs of each row: first those with an empty cache, then the others in turn with the cache filled by them."""
    codes, cache = programs(args.workload), None
    found: dict[str, list[Run]] = {}
    run(codes["import minidl"], args.threads, cache)  # so that Python's .pyc files exist
    for i in range(args.empty):
        cache = f"{folder}/{i}"
        again = run(codes[FIRST_STEP.format("minidl")], args.threads, cache)
        found.setdefault(EMPTY_CACHE, []).append(again)
    for i in range(args.runs + 1):
        print(f"round {i} of {args.runs} ...", file=sys.stderr, flush=True)
        for row, code in codes.items():
            again = run(code, args.threads, cache)
            if i > 0:  # the first round reads files from the disk
                found.setdefault(row, []).append(again)
    return found


def line(row: str, runs: list[Run]) -> list[str]:
    """The cells of one row of the table."""
    seconds = "{:.2f} [{:.2f}, {:.2f}]".format(*spread([r["s"] for r in runs]))
    return [row, str(len(runs)), seconds, f"{spread([r['peak_mb'] for r in runs])[0]:.0f}"]


def ratios(found: dict[str, list[Run]], kind: str) -> list[float] | None:
    """The time of minidl's process divided by PyTorch's: median and range over runs."""
    own, peer = found[kind.format("minidl")], found.get(kind.format("torch"))
    return spread([a["s"] / b["s"] for a, b in zip(own, peer, strict=True)]) if peer else None


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = common.command_line(__doc__)
    p.add_argument("--workload", choices=WORKLOADS, default="mnist_ae", help="workload of the first step (%(default)s)")
    p.add_argument("--threads", type=int, default=CORES, help="threads per library (%(default)s)")
    p.add_argument("--runs", type=int, default=5, help="runs per process (%(default)s)")
    p.add_argument("--empty", type=int, default=1, metavar="RUNS", help="runs with an empty cache (%(default)s)")
    return p


def main() -> None:
    args = parser().parse_args()
    machine = common.machine()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args, folder)
    compared: dict[str, Any] = {kind: ratios(found, kind) for kind in ("import {}", FIRST_STEP)}
    common.print_table(HEADER, [line(row, runs) for row, runs in found.items()])
    print(f"\n{args.workload}, {args.threads} threads,", common.listed(machine))
    for kind, ratio in compared.items():
        if ratio:
            print(f"{kind.format('minidl')}: {{:.2f}} [{{:.2f}}, {{:.2f}}] times PyTorch's.".format(*ratio))
    if not common.installed("torch"):
        print("Skipped because not installed: torch.")
    if args.json:
        report = {"settings": common.settings(args), "machine": machine, "rows": found, "minidl_over_torch": compared}
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
