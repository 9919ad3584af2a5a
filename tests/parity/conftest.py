"""One thread for Numba's kernels, as for PyTorch; and how many drawn cases were compared, printed at the end.

Tiny cases only wait for each other's threads.
"""

import sys
from collections import Counter

import numba
import pytest


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "drawn(family, least=20): draws at least this many cases for its parameter `name`"
    )


@pytest.fixture(autouse=True)
def _one_thread():
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def compared():
    """with_torch.DRAWN, or nothing where PyTorch is missing."""
    return getattr(sys.modules.get("with_torch"), "DRAWN", Counter())


@pytest.fixture(autouse=True)
def _enough_cases(request):
    """A test that is marked as drawn compared enough cases of what its parameter names."""
    mark = request.node.get_closest_marker("drawn")
    if mark is None:
        yield
        return
    case = mark.args[0], request.node.callspec.params["name"]
    before = compared()[case]
    yield
    assert compared()[case] - before >= mark.kwargs.get("least", 20), f"too few cases of {case} were compared"


def pytest_terminal_summary(terminalreporter):
    families = Counter()
    for (family, _), cases in compared().items():
        families[family] += cases
    if families:
        listed = ", ".join(f"{family} {cases:,}" for family, cases in families.most_common())
        terminalreporter.write_line(f"parity with PyTorch: {families.total():,} drawn cases ({listed})")
