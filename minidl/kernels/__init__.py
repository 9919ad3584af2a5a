"""The loops of minidl: arrays in, arrays out, nothing recorded.

Every function here has a definition in `reference.py` and a fast twin of the same name and signature in one of the
files `cpu*.py`. Which one runs is decided here, from the type of the first array, and nowhere else in the project.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from minidl.kernels import cpu, cpu_elementwise, cpu_pooling, devices, reference
from minidl.kernels.geometry import ConvGeometry
from minidl.kernels.pool_geometry import PoolGeometry

__all__ = [
    "ConvGeometry",
    "PoolGeometry",
    "adam_step",
    "add_at",
    "channel_sums",
    "conv2d",
    "conv2d_input",
    "conv2d_weight",
    "cross_entropy",
    "cross_entropy_backward",
    "matmul",
    "max_pool2d",
    "pick",
    "put",
    "relu",
    "relu_backward",
    "resample",
    "scaled_difference",
    "scaled_logistic_difference",
    "sgd_step",
    "sigmoid",
    "sigmoid_backward",
    "tanh_backward",
    "total",
    "total_logistic_loss",
    "total_squared_error",
]

CPU = cpu, cpu_elementwise, cpu_pooling
P = ParamSpec("P")
R = TypeVar("R")


def _dispatch(definition: Callable[P, R]) -> Callable[P, R]:
    """The kernel of this definition's name, from the backend that its first array belongs to."""
    name = definition.__name__
    fast: Callable[P, R] = next((vars(module)[name] for module in CPU if name in vars(module)), definition)

    @functools.wraps(definition)
    def kernel(*args: P.args, **kwargs: P.kwargs) -> R:
        array: Any = args[0][0] if type(args[0]) is list else args[0]  # the optimisers take lists
        if type(array) is not np.ndarray and devices.on_gpu(array):
            return getattr(_gpu(), name)(*args, **kwargs)
        if not isinstance(array, np.ndarray):
            raise TypeError(f"minidl's kernels work on arrays of NumPy or CuPy, not on {type(args[0]).__name__}")
        # Other types than float32 and float64 are not worth compiling: the definition serves.
        return (fast if array.dtype.char in "fd" else definition)(*args, **kwargs)

    return kernel


def _gpu() -> Any:
    """The kernels for CuPy's arrays, with which CuPy is imported."""
    from minidl.kernels import gpu

    return gpu


add_at = _dispatch(reference.add_at)
channel_sums = _dispatch(reference.channel_sums)
conv2d = _dispatch(reference.conv2d)
conv2d_input = _dispatch(reference.conv2d_input)
conv2d_weight = _dispatch(reference.conv2d_weight)
max_pool2d = _dispatch(reference.max_pool2d)
pick = _dispatch(reference.pick)
put = _dispatch(reference.put)
resample = _dispatch(reference.resample)
matmul = _dispatch(reference.matmul)
total = _dispatch(reference.total)
total_squared_error = _dispatch(reference.total_squared_error)
total_logistic_loss = _dispatch(reference.total_logistic_loss)
cross_entropy = _dispatch(reference.cross_entropy)
cross_entropy_backward = _dispatch(reference.cross_entropy_backward)
scaled_difference = _dispatch(reference.scaled_difference)
scaled_logistic_difference = _dispatch(reference.scaled_logistic_difference)
relu = _dispatch(reference.relu)
relu_backward = _dispatch(reference.relu_backward)
sigmoid = _dispatch(reference.sigmoid)
sigmoid_backward = _dispatch(reference.sigmoid_backward)
tanh_backward = _dispatch(reference.tanh_backward)
adam_step = _dispatch(reference.adam_step)
sgd_step = _dispatch(reference.sgd_step)
