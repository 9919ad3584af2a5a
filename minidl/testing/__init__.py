"""Property tests of operations, minidl's own and yours: strategies for Hypothesis, and a decorator.

This is a whole test::

    from minidl.testing import property_test_gradient, shapes, tensors

    @property_test_gradient(tensors(shapes()))
    def test_cube(x):
        return cube(x)

On random shapes and values it compares cube's first and second gradients with finite differences, and checks that the
dtype is kept, that inputs are left unchanged, that gradients own their memory, and that the compiled kernels agree with
their definitions.

The parts: `gradcheck` (finite differences), `_diagnosis` (why they disagree) and `adjoint` need NumPy only;
`strategies` and `property_test` need Hypothesis (``pip install hypothesis``), so they are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minidl.testing.property_test import check_operation, property_test_gradient
    from minidl.testing.strategies import (  # isort: skip
        broadcastable_shapes, conv_geometries, models, pool_geometries, shapes, tensors,
    )  # fmt: skip

_PROPERTY_TEST = "check_operation", "property_test_gradient"

__all__ = ["check_operation", "property_test_gradient"]
__all__ += ["broadcastable_shapes", "conv_geometries", "models", "pool_geometries", "shapes", "tensors"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that ``minidl.gradcheck`` works without Hypothesis."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{'property_test' if name in _PROPERTY_TEST else 'strategies'}")
    return getattr(module, name)
