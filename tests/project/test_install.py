"""minidl as a new user installs it: a fresh virtual environment with the oldest packages that setup.cfg allows."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = (
    "test_tiny tensor/test_autograd tensor/test_serialization tensor/test_tensor ops/test_losses ops/test_pooling "
    "kernels/test_kernels nn/test_nn optim/test_optim toolkit/test_doctor"
)
PARTS = ".ci", ".git", "__pycache__", "*.egg-info", "build", "out"  # that are not in a clone, or of no use in a test

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.version_info >= (3, 14), reason="the oldest Numba allowed is for Python 3.11 to 3.13"),
]


def oldest() -> list[str]:
    """The least version of each package that setup.cfg names, for pip: a line each."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    text = config["options"]["install_requires"] + extras["test"] + extras["examples"] + extras["io"]
    return [f"{name}=={least}" for name, least in re.findall(r"^([\w-]+) *>= *([\d.]+)", text, re.MULTILINE)]


def call(*command: object, folder: Path) -> str:
    """Run a command in a folder, without this process's packages and settings; return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "NUMBA_DISABLE_JIT")}
    environment["NUMBA_CACHE_DIR"] = str(folder / "kernels")
    done = subprocess.run(list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with a clone in it, named minidl, and the Python of an environment where that was installed."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copytree(ROOT, folder / "minidl", ignore=shutil.ignore_patterns(*PARTS))
    (folder / "oldest.txt").write_text("\n".join(oldest()))
    call(sys.executable, "-m", "venv", folder / "venv", folder=folder)
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    call(python, "-m", "pip", "install", "-q", "-e", "./minidl[test]", "-c", "oldest.txt", folder=folder)
    return folder, python


def test_the_folder_above_the_clone_does_not_hide_the_package(installed):
    folder, python = installed
    assert call(python, "-c", "import minidl; print(minidl.ones(2).tolist())", folder=folder) == "[1.0, 1.0]\n"
    (folder / "script.py").write_text("import minidl; print(minidl.ones(2).tolist())")
    assert call(python, "script.py", folder=folder) == "[1.0, 1.0]\n"


def test_the_core_of_the_suite_passes_with_the_oldest_packages(installed):
    folder, python = installed
    versions = call(python, "-m", "pip", "freeze", folder=folder).lower()
    for requirement in oldest():
        assert re.search(rf"^{re.escape(requirement)}(\.0)*$", versions, re.MULTILINE), requirement
    tests = [f"tests/{name}.py" for name in SUITE.split()]
    out = call(python, "-m", "pytest", "-q", "--hypothesis-profile=reduced", *tests, folder=folder / "minidl")
    assert re.search(r"\d{3,} passed", out)


def test_an_example_runs_and_goes_on_with_the_oldest_packages(installed):
    folder, python = installed
    example = "examples/mnist_autoencoder.py", "--data", "synthetic", "--out", "out"
    call(python, *example, "--epochs", 1, folder=folder / "minidl")
    assert "2/2" in call(python, *example, "--epochs", 2, "--resume", folder=folder / "minidl")
