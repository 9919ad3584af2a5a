"""What the benchmarks share: processes that answer requests, and the printing of tables."""

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREAD_SETTINGS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
EAGER = ("torch", "torch_channels_last")
WARM_UP, WARM_UP_A_ROUND, PAUSE = 10, 3, 0.2  # s: the threads of the process measured before stop spinning

GPU_SETTINGS = {"NVIDIA_TF32_OVERRIDE": "0", "CUPY_TF32": "0"}  # products of float32 in float32, whoever computes them


def environment(threads: int) -> dict[str, str]:
    """Of a process whose libraries are to use so many threads."""
    return os.environ | dict.fromkeys(THREAD_SETTINGS, str(threads)) | {"TORCHINDUCTOR_COMPILE_THREADS": "1"}


class Worker:
    """A process of its own, `script` with the option --worker; it sleeps unless asked."""

    def __init__(self, script: str, threads: int, **options: Any) -> None:
        request = json.dumps({"threads": threads, **options})
        self.process = subprocess.Popen(
            [sys.executable, script, "--worker", request],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(threads),
        )

    def ask(self, *request: Any) -> Any:
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())  # type: ignore[union-attr]
        except (BrokenPipeError, json.JSONDecodeError):
            raise RuntimeError("the process failed") from None

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def serve(start: Callable[[], dict[str, Callable[..., Any]]]) -> None:
    """In the worker: answer the requests that come in over stdin, a line of JSON each, until there are no more.

    `start` makes the functions that are called by name.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    calls = start()
    for line in sys.stdin:
        name, *args = json.loads(line)
        print(json.dumps(calls[name](*args)), file=answers, flush=True)


def peak_mb() -> float:
    """The most memory that this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where ru_maxrss also counts what the parent held when it started this process
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def spread(values: Sequence[float]) -> list[float]:
    """Median, least and greatest."""
    return [median(values), min(values), max(values)]


def listed(figures: dict[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in figures.items())


def print_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """As Markdown."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    for cells in [header, ["-" * width for width in widths], *lines]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |")


def machine() -> dict[str, str]:
    """The load before the run, and the versions of Python and of what is measured."""
    found = {p: importlib.metadata.version(p) for p in ("numpy", "numba", "scipy", "torch", "jax") if installed(p)}
    load = {"load average before": f"{os.getloadavg()[0]:.1f}"}
    return load | {"python": platform.python_version(), "machine": platform.machine()} | found


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def usable(package: str, device: str) -> bool:
    """Whether it is installed, and PyTorch, where a GPU is wanted, in a build that can use it."""
    if not installed(package) or device == "cpu" or package != "torch":
        return installed(package)
    return bool(importlib.import_module("torch").cuda.is_available())


def gpu() -> dict[str, str]:
    """The GPU and what drives it; without TF32 from here on.

    Raises
    ------
    RuntimeError
        minidl's own, which says what of CuPy, driver and GPU is missing.
    """
    os.environ.update(GPU_SETTINGS)  # before CuPy is imported, or a process started
    name = importlib.import_module("minidl").cuda.get_device_name()
    cupy = importlib.import_module("cupy")
    runtime = cupy.cuda.runtime
    versions = {"CUDA": runtime.runtimeGetVersion(), "CUDA of the driver": runtime.driverGetVersion()}
    return {"GPU": name, "cupy": cupy.__version__} | {
        key: f"{version // 1000}.{version % 1000 // 10}" for key, version in versions.items()
    }


def names(allowed: Any) -> Callable[[str], list[str]]:
    """The type of an option that takes names, separated by commas."""

    def parse(text: str) -> list[str]:
        found = text.split(",")
        if unknown := set(found) - set(allowed):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(allowed)}")
        return found

    return parse


def numbers(text: str) -> list[int]:
    """The type of an option that takes whole numbers, separated by commas."""
    return [int(number) for number in text.split(",")]


def command_line(description: str | None) -> argparse.ArgumentParser:
    """With the options that all benchmarks have."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    p.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    return p


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The options that decide what is measured."""
    return {key: value for key, value in vars(args).items() if key not in ("json", "worker")}
