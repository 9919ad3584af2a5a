"""``torch.testing``: assert_close."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minidl.creation import as_tensor

TOLERANCES = {"float16": (1e-3, 1e-5), "float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7)}  # PyTorch's rtol, atol


def assert_close(actual: Any, expected: Any, *, check_dtype: bool = True, msg: Any = None, **options: Any) -> None:
    """Raise AssertionError unless |actual - expected| <= atol + rtol |expected| everywhere, also inside containers.

    The options are PyTorch's: rtol, atol, equal_nan. Those that check devices and memory have no effect.
    """
    if isinstance(expected, Mapping | Sequence):
        keys = expected.keys() if isinstance(expected, Mapping) else range(len(expected))
        assert len(actual) == len(keys), msg or f"{len(actual)} values, and {len(keys)} expected"
        for key in keys:
            assert_close(actual[key], expected[key], check_dtype=check_dtype, msg=msg, **options)
        return
    a, b = (as_tensor(x).detach().cpu().array for x in (actual, expected))
    assert a.shape == b.shape, msg or f"shape {a.shape}, and {b.shape} expected"
    assert a.dtype == b.dtype or not check_dtype, msg or f"dtype {a.dtype}, and {b.dtype} expected"
    within: dict[str, Any] = {"equal_nan": options.get("equal_nan", False)}
    for i, name in enumerate(("rtol", "atol")):
        default = max(TOLERANCES.get(str(x.dtype), (0.0, 0.0))[i] for x in (a, b))
        within[name] = default if options.get(name) is None else options[name]
    np.testing.assert_allclose(a, b, err_msg=msg or "", **within)
