"""The loops of minidl: arrays in, arrays out, nothing recorded.

Every kernel has a definition in `reference.py` and fast twins of the same name and signature, for the CPU in `cpu/` and
for a GPU in `gpu/`. Which one runs is decided here, from the type of the first array, and nowhere else in the project.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from minidl.kernels import cpu, devices, reference
from minidl.kernels.geometry import ConvGeometry as ConvGeometry
from minidl.kernels.pool_geometry import PoolGeometry as PoolGeometry
from minidl.kernels.reference import *  # noqa: F403 - names, types and docstrings: each function is replaced below

P = ParamSpec("P")
R = TypeVar("R")


def _dispatch(definition: Callable[P, R]) -> Callable[P, R]:
    """The kernel of this definition's name, from the backend that its first array belongs to."""
    name = definition.__name__
    fast: Callable[P, R] = next((vars(module)[name] for module in cpu.MODULES if name in vars(module)), definition)

    @functools.wraps(definition)
    def kernel(*args: P.args, **kwargs: P.kwargs) -> R:
        array: Any = args[0][0] if type(args[0]) is list else args[0]  # the optimisers take lists
        if type(array) is not np.ndarray and devices.on_gpu(array):
            return getattr(_gpu(), name)(*args, **kwargs)
        if not isinstance(array, np.ndarray):
            raise TypeError(f"minidl's kernels work on arrays of NumPy or CuPy, not on {type(args[0]).__name__}")
        # Dtypes other than float32 and float64 are not worth compiling for: the definition serves them.
        return (fast if array.dtype.char in "fd" else definition)(*args, **kwargs)

    return kernel


def _gpu() -> Any:
    """The kernels for CuPy's arrays. Importing them imports CuPy."""
    from minidl.kernels.gpu import kernels

    return kernels


KERNELS = [
    name
    for name, value in vars(reference).items()
    if inspect.isfunction(value) and value.__module__ == reference.__name__ and not name.startswith("_")
]
globals().update({name: _dispatch(getattr(reference, name)) for name in KERNELS})
__all__ = ["ConvGeometry", "PoolGeometry", *KERNELS]
