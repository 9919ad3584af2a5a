"""``torch.testing``: assert_close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minidl.creation import as_tensor

TOLERANCES = {"float16": (1e-3, 1e-5), "float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7)}  # PyTorch's


def assert_close(
    actual: Any,
    expected: Any,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_dtype: bool = True,
    msg: Any = "",
    **kwargs: Any,
) -> None:
    """Raise AssertionError unless |actual - expected| <= atol + rtol |expected| everywhere, also inside containers."""
    options = {"rtol": rtol, "atol": atol, "equal_nan": equal_nan, "check_dtype": check_dtype, "msg": msg}
    if isinstance(expected, Mapping | Sequence):
        keys = expected.keys() if isinstance(expected, Mapping) else range(len(expected))
        assert len(actual) == len(keys), f"{len(actual)} values, and {len(keys)} expected. {msg}"
        for key in keys:
            assert_close(actual[key], expected[key], **options)
        return
    a, b = as_tensor(actual).detach().cpu(), as_tensor(expected).detach().cpu()
    assert a.shape == b.shape, f"shape {a.shape}, and {b.shape} expected. {msg}"
    assert a.dtype == b.dtype or not check_dtype, f"dtype {a.dtype}, and {b.dtype} expected. {msg}"
    least, most = (max(TOLERANCES.get(str(x.dtype), (0.0, 0.0))[i] for x in (a, b)) for i in (0, 1))
    within: dict[str, Any] = {
        "rtol": least if rtol is None else rtol,
        "atol": most if atol is None else atol,
        "equal_nan": equal_nan,
    }
    np.testing.assert_allclose(a.numpy(), b.numpy(), err_msg=str(msg or ""), **within)
