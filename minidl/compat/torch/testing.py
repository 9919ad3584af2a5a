"""``torch.testing``: assert_close."""

import numpy as np

from minidl.creation import as_tensor

TOLERANCES = {"float16": (1e-3, 1e-5), "float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7)}  # PyTorch's rtol, atol


def assert_close(actual, expected, *, rtol=None, atol=None, equal_nan=False):
    """Raise AssertionError unless dtype and shape are equal, and |actual - expected| <= atol + rtol |expected|."""
    a, b = (as_tensor(x).detach().cpu().array for x in (actual, expected))
    assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{a.dtype} {a.shape}, and {b.dtype} {b.shape} expected"
    defaults = TOLERANCES.get(str(b.dtype), (0.0, 0.0))
    rtol, atol = (default if given is None else given for given, default in zip((rtol, atol), defaults, strict=True))
    np.testing.assert_allclose(a, b, rtol, atol, equal_nan)
