"""Settings of all tests: Hypothesis' profiles, the marker `slow`, and the generator seeded anew for each test.

How many examples Hypothesis draws is its profile's: ``--hypothesis-profile=all`` for 50, as in .ci/run, instead of 10.
The reduced run, NUMBA_DISABLE_JIT=1 with --hypothesis-profile=reduced, takes the kernels as Python, so that it can
measure which of their lines the tests reach.
"""

import importlib
import os
import runpy
import sys
from collections import Counter
from pathlib import Path

# Tests share the cores with each other (pytest -n) and with what they start: threads that wait must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numba
import pytest
from hypothesis import HealthCheck, settings

import minidl
from minidl.kernels.cpu import _threads as threads
from tests.helpers.example_files import EXAMPLES

# No deadline: the first example that reaches a kernel waits for its compilation. In CI the same examples each time.
settings.register_profile(
    "normal",
    deadline=None,
    max_examples=10,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.register_profile("all", settings.get_profile("normal"), max_examples=50)
settings.register_profile("reduced", settings.get_profile("normal"), max_examples=5)
settings.load_profile("normal")  # --hypothesis-profile comes after this, and wins

if numba.config.DISABLE_JIT:  # what trains for minutes without compiled kernels; single tests have the marker `jit`
    long = ["benchmarks", "examples*", "memory", "*gpu*"]
    collect_ignore_glob = ["parity/*", *(f"*/test_{name}.py" for name in long)]


def pytest_ignore_collect(collection_path, config):
    """What compares with PyTorch is slow, all of it, and so is importing PyTorch."""
    return True if collection_path.name == "parity" and config.option.markexpr == "not slow" else None


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name != "test_tiny.py")  # which comes first
    if numba.config.DISABLE_JIT:
        for item in items:
            if item.get_closest_marker("jit"):
                item.add_marker(pytest.mark.skip(reason="needs compiled kernels"))


@pytest.fixture(autouse=True)
def _seeded():
    minidl.manual_seed(0)


@pytest.fixture(autouse=True)
def _number_of_threads_not_set():
    yield
    threads._wanted = None


@pytest.fixture
def images_tested():
    """How many test images the examples draw in the tests, instead of 10,000."""
    return 100


@pytest.fixture
def example(monkeypatch, images_tested):
    """Import an example, or a module beside it, which then draws fewer test images."""
    pytest.importorskip("matplotlib", reason="the examples need the extra: pip install 'minidl[examples]'")
    monkeypatch.syspath_prepend(EXAMPLES)
    sets = importlib.import_module("_common").SETS
    for name, source in list(sets.items()):
        drawn = source.drawn
        fewer = source._replace(
            drawn=lambda n, seed, drawn=drawn: drawn(images_tested if n == 10_000 else n, seed=seed)
        )
        monkeypatch.setitem(sets, name, fewer)
    return importlib.import_module


@pytest.fixture
def run(example, monkeypatch, tmp_path):
    """Run an example in this process with command-line options, into tmp_path/out unless told otherwise.

    Its pictures are empty files unless they are asked for, since drawing takes longer than training.
    """

    def run(name, *options, pictures=False):
        out = [] if "--out" in options else ["--out", str(tmp_path / "out")]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [f"{name}.py", *map(str, options), *out])
            if not pictures:
                patch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path: Path(path).write_bytes(b""))
            return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")

    return run


def pytest_report_header():
    return f"hypothesis: at most {settings().max_examples} examples, deadline {settings().deadline}"


def pytest_terminal_summary(terminalreporter):
    """Print what tests have recorded: planted faults and who caught them, cases compared with PyTorch."""
    ended = [report for report in terminalreporter.stats.get("", []) if report.when == "teardown"]
    recorded = [pair for report in ended for pair in report.user_properties]
    for line in dict.fromkeys(line for name, line in recorded if name in ("planted faults", "PyTorch's databases")):
        terminalreporter.write_line(line)
    families = Counter()
    for name, value in recorded:
        if name == "drawn cases":
            families[value[0]] += value[1]
    if families:
        listed = ", ".join(f"{family} {cases:,}" for family, cases in families.most_common())
        terminalreporter.write_line(f"parity with PyTorch: {families.total():,} drawn cases ({listed})")
