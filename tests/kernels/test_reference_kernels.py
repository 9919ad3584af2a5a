"""Running on the definitions: MINIDL_KERNELS=reference, without Numba, and ``minidl.use_reference_kernels()``."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import kernels, nn
from minidl.kernels import reference

TRAIN = """
import sys
if "--without-numba" in sys.argv:
    sys.modules.update(numba=None, llvmlite=None)  # importing them raises ModuleNotFoundError
import minidl
from minidl import nn
minidl.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Upsample(scale_factor=2),
    nn.ConvTranspose2d(4, 1, 3, stride=2, padding=1, output_padding=1), nn.Sigmoid(),
)
optimizer, x = minidl.optim.Adam(model.parameters(), lr=1e-2), minidl.rand(8, 1, 12, 12)
for _ in range(10):
    loss = nn.functional.mse_loss(model(x), x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(loss.item())
"""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess:
    paths = os.pathsep.join([str(Path(minidl.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, **environment}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)


@pytest.mark.jit
def test_without_numba_a_training_gives_the_same_losses_to_rounding():
    fast, slow = run("-c", TRAIN), run("-c", TRAIN, "--without-numba", MINIDL_KERNELS="reference")
    losses = [np.array(done.stdout.split(), float) for done in (fast, slow)]
    assert losses[0].shape == (10,), fast.stderr + slow.stderr
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert slow.stderr == ""  # nothing was compiled


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("", "ImportError: minidl compiles its kernels with Numba, and numba is not installed: python -m pip install"),
        ("fast", "ImportError: MINIDL_KERNELS=fast: unset it for the fast kernels, or set it to reference"),
    ],
)
def test_an_import_that_cannot_work_ends_in_one_line(setting, message):
    done = run("-c", TRAIN, "--without-numba", MINIDL_KERNELS=setting)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(message)


@pytest.mark.jit
def test_numba_is_imported_by_the_first_kernel_that_runs_and_not_before():
    code = """if True:
        import sys, minidl
        print("numba" in sys.modules, minidl.relu(minidl.ones(2)).tolist(), "numba" in sys.modules)"""
    assert run("-c", code).stdout == "False [1.0, 1.0] True\n"


def test_the_doctor_runs_without_numba():
    code = (
        "import sys; sys.modules.update(numba=None, llvmlite=None); from minidl.__main__ import main; main(['doctor'])"
    )
    done = run("-c", code, MINIDL_KERNELS="reference")
    assert "note  kernels       MINIDL_KERNELS=reference: the definitions in NumPy run" in done.stdout, done.stderr
    assert "minidl can train on this machine" in done.stdout


def test_the_context_holds_for_its_thread_until_its_end(monkeypatch):
    called = []
    definition = reference.relu
    monkeypatch.setattr(kernels._mode, "reference", False)
    x = np.array([-1, 2], np.float32)
    kernel = kernels._dispatch(lambda x: called.append(threading.current_thread().name) or definition(x))
    kernel_of_relu = kernels.relu(x)
    with minidl.use_reference_kernels():
        with minidl.use_reference_kernels():
            pass
        np.testing.assert_array_equal(kernel(x), kernel_of_relu)
        states = []
        thread = threading.Thread(target=lambda: states.append(kernels._mode.reference))
        thread.start()
        thread.join()
        assert kernels._mode.reference
    assert states == [not kernels.COMPILING]
    assert not kernels._mode.reference
    assert called == ["MainThread"]


def test_threads_are_one_in_reference_mode():
    code = "import minidl; minidl.set_num_threads(2); print(minidl.get_num_threads()); minidl.set_num_threads(0)"
    done = run("-c", code, MINIDL_KERNELS="reference")
    assert done.stdout == "1\n"
    assert "RuntimeError: set_num_threads: n must be an int of at least 1, not 0" in done.stderr


def test_a_layer_computes_the_same_both_ways():
    layer, x = nn.Conv2d(3, 5, 3, padding=1), minidl.randn(2, 3, 7, 6)
    with minidl.use_reference_kernels():
        y = layer(x)
    assert minidl.allclose(y, layer(x), rtol=1e-4, atol=1e-5)
