"""Functions of tests, run on several ranks: ``on_ranks(2, f)`` starts mpiexec, which calls f on each."""

import importlib
import importlib.util
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
REASON = "needs mpiexec and mpi4py: pip install 'minidl[mpi]'"
needs_mpi = pytest.mark.skipif(not (MPIEXEC and importlib.util.find_spec("mpi4py")), reason=REASON)


def mpiexec(ranks: int, *command: Any, **options: Any) -> subprocess.Popen:
    """Start ``python command`` on several ranks."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    return subprocess.Popen([MPIEXEC, "-n", str(ranks), sys.executable, *map(str, command)], **pipes | options)


def pids(process: subprocess.Popen) -> list[int]:
    """The ranks' processes: mpiexec starts a proxy, which starts them."""

    def children(pid: int) -> list[int]:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    return [rank for proxy in children(process.pid) for rank in children(proxy)]


def ended(process: subprocess.Popen, seconds: float = 120) -> tuple[str, str]:
    """What it printed and its errors; it is killed if it does not end in time."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        print(*process.communicate(), sep="\n")
        raise


def on_ranks(ranks: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """What a function at the top of a test module returns on each rank."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "call").write_bytes(pickle.dumps((function.__module__, function.__name__, args)))
        process = mpiexec(ranks, "-m", "tests.helpers.ranks", folder)
        _, errors = ended(process)
        assert process.returncode == 0, errors
        return [pickle.loads(Path(folder, str(rank)).read_bytes()) for rank in range(ranks)]


if __name__ == "__main__":
    from minidl import distributed

    folder = Path(sys.argv[1])
    module, name, args = pickle.loads((folder / "call").read_bytes())
    distributed.init_process_group()
    result = getattr(importlib.import_module(module), name)(*args)
    (folder / str(distributed.get_rank())).write_bytes(pickle.dumps(result))
