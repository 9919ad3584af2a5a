"""One thread for Numba's kernels here, as for PyTorch: tiny cases only wait for each other's threads."""

import numba
import pytest


@pytest.fixture(autouse=True)
def _one_thread():
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)
