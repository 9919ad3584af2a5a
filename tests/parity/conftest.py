"""Slow, all of it; one thread for Numba's kernels, as for PyTorch; and how many drawn cases each test compared.

Tiny cases only wait for each other's threads.
"""

import sys
from collections import Counter
from pathlib import Path

import numba
import pytest


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "drawn(family, least=20): draws at least this many cases for its parameter `name`"
    )


@pytest.hookimpl(tryfirst=True)  # before those marked as slow are left out
def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _one_thread():
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


@pytest.fixture(autouse=True)
def _enough_cases(request, record_property):
    """A test that is marked as drawn compared enough cases of what its parameter names; all are recorded."""
    drawn = sys.modules["tests.helpers.with_torch"].DRAWN
    before = Counter(drawn)
    yield
    new = drawn - before
    for (family, _), cases in new.items():
        record_property("drawn cases", [family, cases])
    mark = request.node.get_closest_marker("drawn")
    if mark is not None:
        case = mark.args[0], request.node.callspec.params["name"]
        assert new[case] >= mark.kwargs.get("least", 20), f"too few cases of {case} were compared"
