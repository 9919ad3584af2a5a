"""Data-parallel training on the cores of one machine: ranks of few threads against one process of many.

    python benchmarks/distributed.py

needs mpiexec (`pip install mpi4py mpich`), which also starts PyTorch's ranks. README.md explains the columns of its two
tables.
"""

import argparse
import contextlib
import importlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import common
from common import CORES, PAUSE, WARM_UP, WARM_UP_A_ROUND, names, numbers, spread
from models import WORKLOADS
from scaling import divided, ratio_text
from train_step import Trainer, measure

MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
LIBRARIES = {"minidl": "mpi", "torch": "gloo"}  # and the backend of its process group
SIZES = 1, 1_000, 10_000, 100_000, 1_000_000, 10_000_000  # float32 values in a reduction
HEADER = (
    "workload",
    "batch",
    "library",
    "one process ms",
    "ranks ms",
    "process / ranks [min, max]",
    "without reductions ms",
    "reduction ms",
    "hidden",
)
REDUCTIONS = ("values", "minidl µs", "GB/s", "torch µs", "GB/s")


# On each rank.


class Parallel(Trainer):
    """A workload whose batches are shared by the ranks."""

    def __init__(self, library: str, name: str, batch: int, threads: int, ranks: int) -> None:
        super().__init__(library, name, batch, threads, check=False)
        self.ranks, self.still = ranks, False
        if ranks == 1:
            return
        self.dist = importlib.import_module(f"{library}.distributed")
        self.dist.init_process_group(LIBRARIES[library])
        if library == "minidl":
            self.m.set_num_threads(threads)
        share = batch // ranks
        mine = slice(self.dist.get_rank() * share, (self.dist.get_rank() + 1) * share)
        self.batches = [[None if x is None else x[mine] for x in pair] for pair in self.batches]
        self.model = importlib.import_module(f"{library}.nn.parallel").DistributedDataParallel(self.model)

    def train(self, images: Any, second: Any = None) -> Any:
        with self.model.no_sync() if self.still else contextlib.nullcontext():
            return super().train(images, second)

    def steps(self, steps: int, warm_up: int, still: bool) -> dict[str, float]:
        """The time of a step; if `still`, without reductions."""
        self.still = still
        if self.ranks > 1:
            self.dist.barrier()
        return measure(self, steps, warm_up)

    def reduction(self, size: int, repeats: int) -> float:
        """The time in ms to add up so many values over the ranks, when no rank has to wait for another."""
        times, x = [], self.m.zeros(size)
        for _ in range(repeats):
            self.dist.barrier()
            start = time.perf_counter()
            self.dist.all_reduce(x)
            times.append((time.perf_counter() - start) * 1e3)
        return median(times)

    def all_ranks(self, name: str, *args: int) -> Any:
        """Do on all ranks what rank 0 was asked for."""
        if self.ranks > 1:
            self.dist.broadcast(self.m.tensor([[*CALLS].index(name), *args, *[0] * (3 - len(args))]), 0)
        return CALLS[name](self, *args)

    def follow(self) -> None:
        """On the other ranks: do what rank 0 says."""
        while True:
            request = self.m.tensor([0, 0, 0, 0])
            self.dist.broadcast(request, 0)
            which, *args = request.tolist()
            call = [*CALLS][which]
            CALLS[call](self, *args[: 3 if call == "steps" else 2])


CALLS: dict[str, Callable[..., Any]] = {"steps": Parallel.steps, "reduction": Parallel.reduction}


def work(options: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """The requests that rank 0 answers; the other ranks stay here."""
    importlib.import_module("minidl.distributed").set_environment()
    trainer = Parallel(**options)
    if trainer.ranks > 1 and trainer.dist.get_rank() > 0:
        trainer.follow()
    return {name: lambda *args, name=name: trainer.all_ranks(name, *args) for name in CALLS}


# In the main process.


class Worker(common.Worker):
    """The ranks of one library, or one process."""

    def __init__(self, ranks: int, threads: int, **options: Any) -> None:
        request = json.dumps({"ranks": ranks, "threads": threads, **options})
        launcher = [str(MPIEXEC), "-n", str(ranks)] if ranks > 1 else []
        with socket.socket() as free:  # where PyTorch's ranks meet
            free.bind(("127.0.0.1", 0))
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        self.process = subprocess.Popen(
            [*launcher, sys.executable, __file__, "--worker", request],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=common.environment(threads) | meeting,
        )

    def close(self) -> None:
        self.process.terminate()  # which mpiexec passes on
        self.process.communicate()


def compare(name: str, batch: int, args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """All libraries in turn: the step times of each round, by library."""
    found: dict[str, dict[str, list[float]]] = {}
    workers: dict[tuple[str, int], Worker] = {}
    size = WORKLOADS[name].parameters
    try:
        for key in [(library, ranks) for library in args.libs for ranks in (1, args.ranks)]:
            options = {"library": key[0], "name": name, "batch": batch}
            workers[key] = Worker(key[1], args.threads // key[1], **options)
            workers[key].ask("steps", 1, WARM_UP, 0)
        steps = max(3, min(args.steps, args.steps * 128 // batch))
        for i in range(args.rounds):
            for library, ranks in sorted(workers, reverse=i % 2 == 1):
                worker, times = workers[library, ranks], found.setdefault(library, {})
                time.sleep(PAUSE)
                if ranks == 1:
                    times.setdefault("process", []).append(worker.ask("steps", steps, WARM_UP_A_ROUND, 0)["ms"])
                else:
                    with_them, without = (worker.ask("steps", steps, WARM_UP_A_ROUND, still) for still in (0, 1))
                    alone = worker.ask("reduction", size, 50)
                    times.setdefault("ranks", []).append(with_them["ms"])
                    times.setdefault("still", []).append(without["ms"])
                    times.setdefault("reduction", []).append(alone)
                    hidden = 1 - (with_them["best"] - without["best"]) / alone
                    times.setdefault("hidden", []).append(hidden)
    finally:
        for worker in workers.values():
            worker.close()
    return found


def row(name: str, batch: int, library: str, times: dict[str, list[float]]) -> dict[str, Any]:
    hidden, ratio = spread(times.pop("hidden")), divided(times["process"], times["ranks"])
    middle = {f"{key}_ms": median(values) for key, values in times.items()}
    return {"workload": name, "batch": batch, "library": library, **middle, "ratio": ratio, "hidden": hidden}


def line(found: dict[str, Any]) -> list[str]:
    """The cells of a row."""
    times = [f"{found[f'{key}_ms']:.2f}" for key in ("process", "ranks", "still", "reduction")]
    hidden = "{:.0%} [{:.0%}, {:.0%}]".format(*found["hidden"])
    cells = [found["workload"], str(found["batch"]), found["library"], *times[:2], ratio_text(found["ratio"])]
    return [*cells, *times[2:], hidden]


def reductions(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The time of reductions of several sizes: a row for each."""
    rows: list[dict[str, Any]] = [{"values": size} for size in SIZES]
    for library in args.libs:
        worker = Worker(args.ranks, args.threads // args.ranks, library=library, name="pool_ae", batch=20 * args.ranks)
        try:
            for found in rows:
                turns = [worker.ask("reduction", found["values"], 50 if found["values"] < 10**6 else 10) for _ in "123"]
                found[library] = median(turns)
        finally:
            worker.close()
    return rows


def reduction_line(found: dict[str, Any]) -> list[str]:
    cells = [f"{found['values']:,}"]
    for library in LIBRARIES:
        ms = found.get(library)
        cells += ["", ""] if ms is None else [f"{ms * 1e3:.0f}", f"{4 * found['values'] / ms / 1e6:.2f}"]
    return cells


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = common.command_line(__doc__)
    p.add_argument("--libs", type=names(LIBRARIES), default=list(LIBRARIES), help="libraries, comma-separated (all)")
    p.add_argument("--only", type=names(WORKLOADS), default=["mnist_ae"], help="workloads (mnist_ae)")
    p.add_argument("--batches", type=numbers, default=[64, 256, 1024], help="batch sizes of all ranks (64,256,1024)")
    p.add_argument("--ranks", type=int, default=2, help="ranks (%(default)s)")
    p.add_argument("--threads", type=int, default=CORES, help="threads of one process; the ranks share as many (all)")
    p.add_argument("--rounds", type=int, default=7, help="turns per process (%(default)s)")
    p.add_argument("--steps", type=int, default=40, help="timed steps per turn, fewer above batch 128 (%(default)s)")
    return p


def main() -> None:
    args = parser().parse_args()
    if args.worker:
        common.serve(lambda: work(args.worker))
        return
    if MPIEXEC is None or not common.installed("mpi4py"):
        parser().error("mpiexec and mpi4py are needed: python -m pip install mpi4py mpich")
    missing = [lib for lib in args.libs if not common.installed(lib)]
    args.libs = [lib for lib in args.libs if lib not in missing]
    machine, rows = common.machine(), []
    for name in args.only:
        for batch in args.batches:
            print(f"{name}, batch {batch} ...", file=sys.stderr, flush=True)
            rows += [row(name, batch, library, times) for library, times in compare(name, batch, args).items()]
    sizes = reductions(args)
    common.print_table(HEADER, [line(found) for found in rows])
    print()
    common.print_table(REDUCTIONS, [reduction_line(found) for found in sizes])
    print(f"\n{args.ranks} ranks of {args.threads // args.ranks} threads, one process of {args.threads}, ", end="")
    print(f"{args.rounds} rounds of at most {args.steps} steps,", common.listed(machine))
    if missing:
        print(f"Skipped because not installed: {', '.join(missing)}.")
    if args.json:
        report = {"settings": common.settings(args), "machine": machine, "rows": rows, "reductions": sizes}
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
