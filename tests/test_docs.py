"""Every example in a docstring or in the README is run, and importing minidl stays light."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

import minidl

README = Path(__file__).parents[1] / "README.md"
NEEDS_CUPY = "minidl.kernels.gpu._cublas", "minidl.kernels.gpu.kernels"
NAMES = [module.name for module in pkgutil.walk_packages(minidl.__path__, "minidl.")]
MODULES = [name for name in NAMES if name not in NEEDS_CUPY]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_readme():
    failed, tried = doctest.testfile(str(README), module_relative=False)
    assert failed == 0
    assert tried > 0
    code = README.read_text().split("```python\n")[1].split("```")[0]
    exec(code, {})


def test_the_readmes_caught_bug():
    """The test shown there fails with the message shown there, but for the last digits of numbers."""
    blocks = README.read_text().split("```")
    number = next(i for i, block in enumerate(blocks) if "def test_cube" in block)
    namespace = {}
    exec(blocks[number].removeprefix("python"), namespace)
    with pytest.raises(minidl.GradcheckError) as caught:
        settings(database=None, derandomize=True)(namespace["test_cube"])()

    def short(text):
        return re.sub(r"\.\d{4}\d*", lambda digits: digits[0][:4], text)

    shown = next(block for block in blocks if block.startswith("\ngradcheck: cube"))
    for line in str(caught.value).splitlines():
        assert short(line) in short(shown)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_brings_in_nothing_that_is_not_needed():
    heavy = "{'matplotlib', 'cupy', 'scipy.linalg', 'scipy.ndimage', 'tqdm', 'pooch', 'requests', 'hypothesis'}"
    assert run(f"import sys, minidl; print({heavy} & set(sys.modules))") == "set()\n"


def test_import_compiles_nothing():
    code = """
import numba.core.event
seen = []
class Listener(numba.core.event.Listener):
    def on_start(self, event): seen.append(event.data)
    def on_end(self, event): pass
with numba.core.event.install_listener("numba:compile", Listener()):
    import minidl, minidl.data
print(seen)
"""
    assert run(code) == "[]\n"


def test_everything_public_says_what_it_is():
    undocumented = [name for name in minidl.__all__ if not (getattr(minidl, name).__doc__ or "").strip()]
    assert [name for name in undocumented if name not in ("__version__",)] == []
