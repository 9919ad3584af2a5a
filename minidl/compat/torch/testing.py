"""``torch.testing``: assert_close."""

from collections.abc import Mapping, Sequence

import numpy as np

from minidl.creation import as_tensor

TOLERANCES = {"float16": (1e-3, 1e-5), "float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7)}  # PyTorch's rtol, atol


def assert_close(actual, expected, *, rtol=None, atol=None, equal_nan=False, check_dtype=True, msg="", **unused):
    """Raise AssertionError unless |actual - expected| <= atol + rtol |expected| everywhere, also inside containers.

    PyTorch's other options, which check devices and memory, have no effect.
    """
    if isinstance(expected, Mapping | Sequence):
        assert len(actual) == len(expected), msg or f"{len(actual)} values, and {len(expected)} expected"
        options = {"rtol": rtol, "atol": atol, "equal_nan": equal_nan, "check_dtype": check_dtype, "msg": msg}
        for key in expected if isinstance(expected, Mapping) else range(len(expected)):
            assert_close(actual[key], expected[key], **options)
        return
    a, b = (as_tensor(x).detach().cpu().array for x in (actual, expected))
    assert a.shape == b.shape, msg or f"shape {a.shape}, and {b.shape} expected"
    assert a.dtype == b.dtype or not check_dtype, msg or f"dtype {a.dtype}, and {b.dtype} expected"
    looser = np.max([TOLERANCES.get(str(x.dtype), (0.0, 0.0)) for x in (a, b)], axis=0)
    rtol, atol = (default if given is None else given for given, default in zip((rtol, atol), looser, strict=True))
    np.testing.assert_allclose(a, b, rtol, atol, equal_nan, msg or "")
