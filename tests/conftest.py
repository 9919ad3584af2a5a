"""Settings of all tests: Hypothesis' profile, and the generator seeded anew for each test."""

import os

import pytest
from hypothesis import HealthCheck, settings

import minidl
from minidl.kernels import threads

# No deadline: the first example that reaches a kernel waits for its compilation. In CI the same examples each time.
settings.register_profile(
    "minidl",
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("minidl")


@pytest.fixture(autouse=True)
def _seeded():
    minidl.manual_seed(0)


@pytest.fixture(autouse=True)
def _number_of_threads_not_set():
    yield
    threads._wanted = None


def pytest_report_header():
    return f"hypothesis profile 'minidl': deadline {settings().deadline}"
