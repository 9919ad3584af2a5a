"""The time of a training step in minidl, PyTorch and JAX.

    python benchmarks/train_step.py

measures six workloads in every installed library and prints one table; README.md explains its columns. With
`--device cuda` it measures them on a GPU.
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
from models import SIX, WORKLOADS, flops

LIBRARIES = {  # name: the package that it needs
    "minidl": "minidl",
    "torch": "torch",
    "torch_channels_last": "torch",
    "torch_fused": "torch",
    "torch_compile": "torch",
    "jax": "jax",
    "minidl_captured": "minidl",
    "torch_reduce_overhead": "torch",
}
ON = {  # the libraries measured on each device
    "cpu": ("minidl", "torch", "torch_channels_last", "torch_fused", "torch_compile", "jax"),
    "cuda": (*("minidl", "minidl_captured"), *("torch", "torch_channels_last", "torch_fused", "torch_reduce_overhead")),
}
FUSED = ("torch_fused", "torch_reduce_overhead")
COMPILED: dict[str, dict[str, str]] = {"torch_compile": {}, "torch_reduce_overhead": {"mode": "reduce-overhead"}}
AGAINST = {  # key in the report: whose time, the peers (the fastest counts), and the label under the table
    "better_of_eager": ("minidl", EAGER, "minidl against the better of PyTorch eager NCHW and channels_last"),
    "captured_better_of_eager": (
        "minidl_captured",
        EAGER,
        "minidl captured against the better of PyTorch eager NCHW and channels_last",
    ),
    "captured_reduce_overhead": (
        "minidl_captured",
        ("torch_reduce_overhead",),
        'minidl captured against torch.compile(mode="reduce-overhead")',
    ),
}
SIDE = {"cpu": 1024, "cuda": 4096}  # of the matrices whose product measures the machine's speed
TURN_WARM_UP = {"cpu": WARM_UP_A_ROUND, "cuda": 20}  # steps: an idle GPU needs some to reach its full clock rate
MOST_LAUNCHES = {"mnist_ae": 60}  # the goal for a recorded step
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
GPU_HEADER = (*HEADER[:6], "GPU MB", "kernels a step", HEADER[-1])


# In the worker: one library, one workload.


class Trainer:
    """A workload in minidl or PyTorch."""

    def __init__(self, library: str, name: str, batch: int, threads: int, check: bool) -> None:
        self.m = m = importlib.import_module(LIBRARIES[library])
        if m.__name__ == "torch":
            m.set_num_threads(threads)
        self.workload, self.last = WORKLOADS[name], library == "torch_channels_last"
        self.model = self._placed(self.workload.model(m, 0.0 if check else 0.25))
        fused = {"fused": True} if library in FUSED else {}
        self.optimiser = self.workload.optimiser(m, self.model.parameters(), **fused)
        self.batches = [[self._tensor(a) for a in pair] for pair in self.workload.data(batch, give_noise=check)]

        def loss(images: Any, second: Any) -> Any:
            return self.workload.loss(m, self.model, images, second)

        self.loss = m.compile(loss, **COMPILED[library]) if library in COMPILED else loss

    def _placed(self, x: Any) -> Any:
        return x.to(memory_format=self.m.channels_last) if self.last else x

    def _tensor(self, array: np.ndarray | None) -> Any:
        if array is None:
            return None
        if array.ndim == 4 and self.m.__name__ == "minidl":  # in the memory layout of minidl's loader
            array = np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        return self._placed(self.m.tensor(array)) if array.ndim == 4 else self.m.tensor(array)

    def save(self, path: str) -> dict[str, int]:
        """Save the initial weights; return the number of parameters and the operations per sample."""
        state = {key: value.detach().cpu().numpy() for key, value in self.model.state_dict().items()}
        np.savez(path, **state)
        size = sum(p.numel() for p in self.model.parameters())
        if size != self.workload.parameters:
            raise AssertionError(f"the model has {size:,} parameters, not {self.workload.parameters:,}")
        return {"parameters": size, "flops": flops(self.model, self.workload.sample)}

    def load(self, path: str) -> None:
        with np.load(path) as state:
            self.model.load_state_dict({key: self.m.tensor(state[key]) for key in state.files})

    def step(self, i: int) -> Any:
        return self.train(*self.batches[i % len(self.batches)])

    def train(self, images: Any, second: Any = None) -> Any:
        loss = self.loss(images, second)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss


class Sgemm:
    """A product of two 1024 x 1024 matrices in NumPy, which measures the machine's speed."""

    def __init__(self) -> None:
        self.a = np.ones((SIDE["cpu"], SIDE["cpu"]), np.float32)

    def step(self, i: int) -> Any:
        return (self.a @ self.a)[0, 0]


def measure(trainer: Any, steps: int, warm_up: int) -> dict[str, float]:
    """Medians over `steps` steps, and the process's peak memory."""
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
    """The requests that the worker answers."""
    if options.get("device") == "cuda":
        trainer: Any = importlib.import_module("gpu_trainer").start(**options)
    elif options["library"] == "sgemm":
        trainer = Sgemm()
    elif options["library"] == "jax":
        trainer = importlib.import_module("jax_models").Trainer(**options)
    else:
        trainer = Trainer(**options)
    return {
        "save": lambda path: trainer.save(path),
        "load": lambda path: trainer.load(path),
        "losses": lambda steps: [trainer.step(i).item() for i in range(steps)],
        "measure": lambda steps, warm_up: measure(trainer, steps, warm_up) | getattr(trainer, "figures", dict)(),
        "digest": lambda steps: trainer.digest(steps),
    }


# In the main process.


class Worker(common.Worker):
    """A separate process for one library and one workload."""

    def __init__(self, library: str, threads: int, **options: Any) -> None:
        super().__init__(__file__, threads, library=library, **options)


class Comparison:
    """One workload in all libraries."""

    def __init__(self, name: str, args: argparse.Namespace, weights: str) -> None:
        self.name, self.args, self.weights = name, args, weights
        self.batch = args.batch or WORKLOADS[name].batch
        self.device = {} if args.device == "cpu" else {"device": args.device}
        self.rounds: dict[str, list[dict[str, float]]] = {}
        self.difference: dict[str, float] = {}
        self.repeats: dict[str, bool] = {}  # whether two runs with one seed are bit-identical

    def start(self, library: str, check: bool = False) -> Worker:
        return Worker(library, self.args.threads, name=self.name, batch=self.batch, check=check, **self.device)

    def run(self) -> list[dict[str, Any]]:
        """Share the initial weights, check that the libraries agree, measure them in turn: a row per library."""
        first = self.start(next(lib for lib in self.args.libs if lib != "jax"))
        self.gflop = first.ask("save", self.weights)["flops"] * self.batch / 1e9
        first.close()
        losses = {lib: found for lib in self.args.libs if (found := self.alone(lib, "losses", check=True))}
        if wanted := losses.get("torch"):
            for lib, found in losses.items():
                self.difference[lib] = max(abs(a / b - 1) for a, b in zip(found, wanted, strict=True))
        if self.device:
            self.repeats = {lib: self.repeated(lib) for lib in losses if LIBRARIES[lib] == "minidl"}
        self.measure(list(losses))
        return [self.row(lib) for lib in losses]

    def alone(self, library: str, request: str, check: bool) -> list[Any]:
        """A new process's answer to one request: an empty list if it fails."""
        worker = self.start(library, check)
        try:
            worker.ask("load", self.weights)
            return worker.ask(request, CHECKED_STEPS)
        except RuntimeError as error:
            print(f"{self.name}: {library} is skipped: {error}", file=sys.stderr)
            return []
        finally:
            worker.close()

    def repeated(self, library: str) -> bool:
        """Whether two processes with the same seed end with bit-identical losses and parameters."""
        first, second = (self.alone(library, "digest", check=False) for _ in range(2))
        return bool(first) and first == second

    def measure(self, libraries: list[str]) -> None:
        workers = {lib: self.start(lib) for lib in libraries} | {
            "sgemm": Worker("sgemm", self.args.threads, **self.device)
        }
        try:
            for lib, worker in workers.items():
                if lib != "sgemm":
                    worker.ask("load", self.weights)
                worker.ask("measure", 1, WARM_UP)
            for i in range(self.args.rounds):
                for lib in sorted(workers, reverse=i % 2 == 1):
                    time.sleep(PAUSE)
                    answer = workers[lib].ask("measure", self.args.steps, TURN_WARM_UP[self.args.device])
                    self.rounds.setdefault(lib, []).append(answer)
        finally:
            for worker in workers.values():
                worker.close()

    def ratios(self, *libraries: str, own: str = "minidl") -> list[float]:
        """The time of the fastest of `libraries` divided by that of `own`, for each round."""
        sound = [self.rounds[lib] for lib in libraries if lib in self.rounds and not self.void(lib)]
        if not sound or own not in self.rounds or self.void(own):
            return []
        fastest = [min(r["ms"] for r in peers) for peers in zip(*sound, strict=True)]
        return [peer / turn["ms"] for peer, turn in zip(fastest, self.rounds[own], strict=True)]

    def void(self, library: str) -> bool:
        """Whether its losses differ from PyTorch's."""
        return not self.difference.get(library, 0.0) <= TOLERANCE  # so that nan is void too

    def row(self, library: str) -> dict[str, Any]:
        rounds = self.rounds[library]
        ms, ratios, side = median(r["ms"] for r in rounds), self.ratios(library), SIDE[self.args.device]
        return {
            "workload": self.name,
            "library": library,
            "batch": self.batch,
            "ms": ms,
            "ratio": common.spread(ratios) if ratios else None,
            "gflops": self.gflop / ms * 1e3,
            "sgemm": 2 * (side / 1e3) ** 3 / min(r["best"] for r in self.rounds["sgemm"]) * 1e3,  # in GFLOP/s
            "peak_mb": max(r["peak"] for r in rounds),
            "faults": median(r["faults"] for r in rounds),
            "kernels": rounds[-1].get("kernels"),
            "repeats": self.repeats.get(library),
            "difference": self.difference.get(library),
            "void": self.void(library),
        }


def line(row: dict[str, Any], sgemm: float, device: str) -> list[str]:
    """The cells of one row of the table; `sgemm` is the highest GFLOP/s of the run."""
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
        f"{row['faults']:.0f}" if device == "cpu" else str(row["kernels"] or ""),
        difference,
    ]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = common.command_line(__doc__)
    p.add_argument("--device", choices=list(ON), default="cpu", help="device to compute on (%(default)s)")
    p.add_argument("--libs", type=names(LIBRARIES), help="libraries, comma-separated (all for the device)")
    p.add_argument("--only", type=names(WORKLOADS), default=list(SIX), help="workloads, likewise (all but resnet20)")
    p.add_argument("--threads", type=int, default=CORES, help="threads per library (%(default)s)")
    p.add_argument("--batch", "--batch-size", type=int, help="samples per step (the published number)")
    p.add_argument("--rounds", type=int, default=7, help="turns per library (%(default)s)")
    p.add_argument("--steps", type=int, default=40, help="timed steps per turn (%(default)s)")
    return p


def compare(args: argparse.Namespace, gpu: dict[str, str]) -> dict[str, Any]:
    """Measure everything requested; return the settings, versions, rows, and minidl's ratios on each workload."""
    found = common.machine() | gpu
    rows: list[dict[str, Any]] = []
    better: dict[str, dict[str, float]] = {key: {} for key in AGAINST}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only:
            print(f"{name} ...", file=sys.stderr, flush=True)
            comparison = Comparison(name, args, f"{folder}/{name}.npz")
            rows += comparison.run()
            for key, (own, peers, _) in AGAINST.items():
                if ratios := comparison.ratios(*peers, own=own):
                    better[key][name] = median(ratios)
    return {"settings": common.settings(args), "machine": found, "rows": rows, **better}


def print_report(report: dict[str, Any]) -> None:
    """Print the table and the lines under it."""
    settings, rows = report["settings"], report["rows"]
    device, sgemm = settings["device"], max(row["sgemm"] for row in rows)
    if device == "cuda":
        print(f"### {report['machine']['GPU']}, {settings['batch'] or 'the published number of'} samples per step\n")
    common.print_table(HEADER if device == "cpu" else GPU_HEADER, [line(row, sgemm, device) for row in rows])
    print("\n{threads} threads, {rounds} rounds of {steps} steps".format(**settings), end=", ")
    print(f"sgemm {sgemm:.0f} GFLOP/s,", ", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    for key, (_, _, title) in AGAINST.items():
        if better := report[key]:
            each = ", ".join(f"{name} {ratio:.2f}" for name, ratio in better.items())
            mean = geometric_mean(better.values())
            print(f"{title}: {each};")
            print(f"geometric mean of {len(better)} of {len(settings['only'])} workloads {mean:.2f}.")
    if device == "cuda":
        print_gpu_checks(rows)


def print_gpu_checks(rows: list[dict[str, Any]]) -> None:
    """Print the goals on a GPU besides speed: repeatability and the number of launches."""
    print("Single precision without TF32 in all libraries.")
    for same, text in ((True, "Bit-identical"), (False, "NOT bit-identical")):
        if found := [f"{row['library']} {row['workload']}" for row in rows if row["repeats"] is same]:
            print(f"{text} in two runs with one seed, {CHECKED_STEPS} steps each: {', '.join(found)}.")
    for row in rows:
        if row["kernels"] and (most := MOST_LAUNCHES.get(row["workload"])):
            print(f"{row['workload']}: {row['kernels']} kernel launches in the recorded step (goal: at most {most}).")


def chosen(args: argparse.Namespace) -> list[str]:
    """Set args.libs to the libraries to measure; return those that are not installed."""
    there = list(ON[args.device])
    wanted = args.libs or there
    if other := [lib for lib in wanted if lib not in there]:
        parser().error(f"--device {args.device} does not support {', '.join(other)}: choose from {', '.join(there)}")
    args.libs = [lib for lib in wanted if common.usable(LIBRARIES[lib], args.device)]
    if set(args.libs) <= {"jax"}:
        parser().error("the libraries must include minidl or PyTorch, and it must be installed")
    return [lib for lib in wanted if lib not in args.libs]


def main() -> None:
    args = parser().parse_args()
    if args.worker:
        common.serve(lambda: work(args.worker))
        return
    try:
        gpu = common.gpu() if args.device == "cuda" else {}
    except RuntimeError as error:
        parser().error(str(error))
    missing = chosen(args)
    report = compare(args, gpu)
    print_report(report)
    if missing:
        print(f"Skipped because not installed{' for CUDA' * bool(gpu)}: {', '.join(missing)}.")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
