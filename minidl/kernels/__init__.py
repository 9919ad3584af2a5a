"""The loops of minidl: arrays in, arrays out, nothing recorded.

Every function here has a definition in `reference.py` and a fast twin of the same name and signature in
`cpu.py`. Which one runs is decided here, from the type of the first array, and nowhere else in the project.
"""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import numpy as np

from minidl.kernels import cpu, reference
from minidl.kernels.geometry import ConvGeometry

__all__ = [
    "ConvGeometry",
    "adam_step",
    "conv2d",
    "conv2d_input",
    "conv2d_weight",
    "matmul",
    "relu",
    "relu_backward",
    "sgd_step",
    "sigmoid",
    "sigmoid_backward",
    "tanh_backward",
]

P = ParamSpec("P")
R = TypeVar("R")


def _backend(array: Any) -> ModuleType:
    if isinstance(array, np.ndarray):
        return cpu
    raise TypeError(f"minidl's kernels work on NumPy arrays, not on {type(array).__name__}")


def _dispatch(definition: Callable[P, R]) -> Callable[P, R]:
    """The kernel of this definition's name, from the backend that its first array belongs to."""

    @functools.wraps(definition)
    def kernel(*args: P.args, **kwargs: P.kwargs) -> R:
        backend = _backend(args[0])
        return getattr(backend, definition.__name__)(*args, **kwargs)

    return kernel


conv2d = _dispatch(reference.conv2d)
conv2d_input = _dispatch(reference.conv2d_input)
conv2d_weight = _dispatch(reference.conv2d_weight)
matmul = _dispatch(reference.matmul)
relu = _dispatch(reference.relu)
relu_backward = _dispatch(reference.relu_backward)
sigmoid = _dispatch(reference.sigmoid)
sigmoid_backward = _dispatch(reference.sigmoid_backward)
tanh_backward = _dispatch(reference.tanh_backward)
adam_step = _dispatch(reference.adam_step)
sgd_step = _dispatch(reference.sgd_step)
