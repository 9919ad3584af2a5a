"""A script for PyTorch's DistributedDataParallel, untouched: PyTorch on gloo and minidl on MPI write the same."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.ranks import ended, mpiexec, needs_mpi

pytest.importorskip("torch", reason="PyTorch, which runs the script too, is not installed (torch==2.13.0)")
pytestmark = [pytest.mark.slow, needs_mpi]

SCRIPT = Path(__file__).with_name("ddp_script.py")


def words_and_numbers(log):
    """What both ranks have written: the text, and the numbers in it."""
    text = "\n".join(log.with_suffix(f".{rank}").read_text() for rank in range(2))
    number = r"-?\b\d+(?:\.\d+)?"
    return re.sub(number, "n", text), [float(n) for n in re.findall(number, text)]


def in_pytorch(log):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    own = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, SCRIPT, "--log", log],
            env=own | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    printed = [ended(process) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], printed


def test_a_script_for_pytorch_writes_the_same_under_minidl(tmp_path):
    process = mpiexec(2, "-m", "minidl", "run", SCRIPT, "--log", tmp_path / "minidl")
    _, errors = ended(process)
    assert process.returncode == 0, errors
    assert 'minidl: 2 ranks on MPI, which backend="gloo" means here' in errors
    in_pytorch(tmp_path / "torch")
    (words, numbers), (wanted, expected) = (words_and_numbers(tmp_path / name) for name in ("minidl", "torch"))
    assert words == wanted
    assert len(numbers) > 50
    np.testing.assert_allclose(numbers, expected, rtol=1e-4, atol=2e-6)
