"""Code shared by the benchmarks: worker processes that answer requests, and the printing of tables."""

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
WARM_UP, WARM_UP_A_ROUND, PAUSE = 10, 3, 0.2  # s, in which the previous process's threads stop spinning

GPU_SETTINGS = {"NVIDIA_TF32_OVERRIDE": "0", "CUPY_TF32": "0"}  # every library multiplies float32 in float32


def environment(threads: int) -> dict[str, str]:
    """The environment variables of a process whose libraries use this many threads."""
    return os.environ | dict.fromkeys(THREAD_SETTINGS, str(threads)) | {"TORCHINDUCTOR_COMPILE_THREADS": "1"}


class Worker:
    """A separate process that runs `script` with the option --worker and sleeps until it gets a request."""

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
    """In the worker: answer requests from stdin, one line of JSON each, until end of file.

    `start` returns the functions that requests call by name.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep a library's output out of the answers
    calls = start()
    for line in sys.stdin:
        name, *args = json.loads(line)
        print(json.dumps(calls[name](*args)), file=answers, flush=True)


def peak_mb() -> float:
    """The peak memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where ru_maxrss also counts the parent's memory when it started this process
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def spread(values: Sequence[float]) -> list[float]:
    """Median, minimum and maximum."""
    return [median(values), min(values), max(values)]


def listed(figures: dict[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in figures.items())


def print_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    for cells in [header, ["-" * width for width in widths], *lines]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |")


def machine() -> dict[str, str]:
    """The load before the run, and the versions of Python and of the libraries measured."""
    found = {p: importlib.metadata.version(p) for p in ("numpy", "numba", "scipy", "torch", "jax") if installed(p)}
    load = {"load average before": f"{os.getloadavg()[0]:.1f}"}
    return load | {"python": platform.python_version(), "machine": platform.machine()} | found


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def usable(package: str, device: str) -> bool:
    """Whether a package is installed; for PyTorch on a GPU, also whether the build can use it."""
    if not installed(package) or device == "cpu" or package != "torch":
        return installed(package)
    return bool(importlib.import_module("torch").cuda.is_available())


def gpu() -> dict[str, str]:
    """The GPU and the versions of its driver and libraries. Turns TF32 off from here on.

    Raises
    ------
    RuntimeError
        minidl's own, which says whether CuPy, the driver or the GPU is missing.
    """
    os.environ.update(GPU_SETTINGS)  # before CuPy is imported or a process started
    name = importlib.import_module("minidl").cuda.get_device_name()
    cupy = importlib.import_module("cupy")
    runtime = cupy.cuda.runtime
    versions = {"CUDA": runtime.runtimeGetVersion(), "CUDA of the driver": runtime.driverGetVersion()}
    return {"GPU": name, "cupy": cupy.__version__} | {
        key: f"{version // 1000}.{version % 1000 // 10}" for key, version in versions.items()
    }


def names(allowed: Any) -> Callable[[str], list[str]]:
    """argparse type: names separated by commas."""

    def parse(text: str) -> list[str]:
        found = text.split(",")
        if unknown := set(found) - set(allowed):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(allowed)}")
        return found

    return parse


def numbers(text: str) -> list[int]:
    """argparse type: integers separated by commas."""
    return [int(number) for number in text.split(",")]


def command_line(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options common to all benchmarks."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--json", type=Path, metavar="FILE", help="also save the figures to FILE")
    p.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    return p


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The options that affect what is measured."""
    return {key: value for key, value in vars(args).items() if key not in ("json", "worker")}
