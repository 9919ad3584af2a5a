"""What the tests against PyTorch share: both libraries behind one name `m`, and what it means that they agree.

Importing this file skips the test module where PyTorch is missing.
"""

import warnings
from collections import Counter

import numpy as np
import pytest

import minidl

REASON = "PyTorch is not installed (pip install torch==2.13.0), and these tests compare minidl with it"
pytest.importorskip("torch", reason=REASON)

import torch  # noqa: E402

BOTH = (minidl, torch)
GRAD = {minidl: minidl.grad, torch: torch.autograd.grad}
torch.set_num_threads(1)


def array(x):
    """A result of either library as a NumPy array, or as a plain value."""
    if isinstance(x, torch.Tensor | minidl.Tensor):
        return x.detach().numpy(force=True) if isinstance(x, torch.Tensor) else x.detach().numpy()
    return x


def dtype_of(x):
    return str(x.dtype).removeprefix("torch.")


def same(ours, theirs, rtol=1e-5, atol=1e-6, zeros=True):
    """Assert the same type of result, dtype, shape, values, NaN for NaN, and (by `zeros`) -0.0 for -0.0."""
    if isinstance(theirs, tuple | list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b, rtol, atol, zeros)
        return
    assert isinstance(ours, minidl.Tensor) == isinstance(theirs, torch.Tensor), (ours, theirs)
    if not isinstance(theirs, torch.Tensor):
        assert ours == theirs or dtype_like(ours) == dtype_like(theirs), (ours, theirs)
        return
    assert (tuple(ours.shape), dtype_of(ours)) == (tuple(theirs.shape), dtype_of(theirs))
    a, b = array(ours), array(theirs)
    if a.dtype == np.float64:
        rtol, atol = rtol * 1e-5, atol * 1e-5
    elif a.dtype == np.float16:
        rtol, atol = 5e-3, 5e-3
    np.testing.assert_allclose(a, b, rtol, atol)
    if zeros and a.dtype.kind == "f":
        nought = (a == 0) & (b == 0)
        np.testing.assert_array_equal(np.signbit(a[nought]), np.signbit(b[nought]))


def dtype_like(x):
    """A dtype, shape or device as text that both libraries can agree on."""
    return str(x).removeprefix("torch.").replace("torch.Size([", "(").replace("])", ")")


def attempt(function, *args):
    """The result, or the exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(*args)
        except Exception as error:
            return error


DRAWN = Counter()  # cases that Hypothesis drew and that were compared to the end, by (family, name)


def count(family, name):
    """One more drawn case; to be called once a case, when nothing of it is left to compare."""
    DRAWN[family, name] += 1


def agree(case, ours, theirs, **tolerances):
    """`same`, for the last thing to compare of a drawn case of (family, name)."""
    same(ours, theirs, **tolerances)
    count(*case)
