"""Elementwise kernels: activations with their gradients, and the gradients of losses; cross-entropy with its gradient.

All arrays of a call are vectors in the memory order of the first. `prange` runs only over what an iteration owns alone.
Cross-entropy is -ln softmax(x)[class] of each sample, its gradient softmax(x) - [c = class].

Letters: N samples, C classes, whose values lie side by side in memory here.
"""

import functools
import math

import numpy as np
from numba import prange

from minidl.kernels import _arguments
from minidl.kernels._memory import empty
from minidl.kernels.cpu._arrays import channels_last, like, plain, vectors
from minidl.kernels.cpu._compiling import compiled
from minidl.kernels.cpu._exponential import exp_minus
from minidl.kernels.cpu._threads import parallel_region

Array = np.ndarray


def _elementwise(name: str, *arrays: Array, scalars: tuple[float, ...] = ()) -> Array:
    """Run the compiled loop `_name` on arrays of one shape; the result has the first one's memory order."""
    _arguments.alike(name, *arrays)
    flat = vectors(*arrays)
    out = empty(flat[0].shape, flat[0].dtype)
    with parallel_region(out.size):
        globals()[f"_{name}"](*flat, *map(out.dtype.type, scalars), out)
    return like(arrays[0], out)


add = functools.partial(_elementwise, "add")
relu = functools.partial(_elementwise, "relu")
relu_backward = functools.partial(_elementwise, "relu_backward")
sigmoid = functools.partial(_elementwise, "sigmoid")
sigmoid_backward = functools.partial(_elementwise, "sigmoid_backward")
tanh_backward = functools.partial(_elementwise, "tanh_backward")
erf = functools.partial(_elementwise, "erf")


def scaled_difference(x: Array, t: Array, scale: Array, factor: float) -> Array:
    """factor * scale * (x - t), with a 0-d scale."""
    return _elementwise("scaled_difference", x, t, scalars=(scale.item() * factor,))


def scaled_logistic_difference(x: Array, t: Array, scale: Array, factor: float) -> Array:
    """factor * scale * (sigmoid(x) - t), with a 0-d scale."""
    return _elementwise("scaled_logistic_difference", x, t, scalars=(scale.item() * factor,))


@compiled(parallel=True)
def _add(a, b, y):
    for i in prange(len(a)):  # owns element i, here and below
        y[i] = a[i] + b[i]


@compiled(parallel=True)
def _relu(x, y):
    for i in prange(len(x)):
        y[i] = x.dtype.type(0) if x[i] <= 0 else x[i]


@compiled(parallel=True)
def _relu_backward(gy, y, gx):
    for i in prange(len(y)):
        gx[i] = gy.dtype.type(0) if y[i] <= 0 else gy[i]


@compiled(parallel=True, fastmath={"contract"})
def _sigmoid(x, y):
    one = x.dtype.type(1)
    for i in prange(len(x)):
        z = exp_minus(abs(x[i]))
        y[i] = (one if x[i] >= 0 else z) / (one + z)


@compiled(parallel=True)
def _sigmoid_backward(gy, y, gx):
    one = y.dtype.type(1)
    for i in prange(len(y)):
        gx[i] = gy[i] * y[i] * (one - y[i])


@compiled(parallel=True)
def _tanh_backward(gy, y, gx):
    one = y.dtype.type(1)
    for i in prange(len(y)):
        gx[i] = gy[i] * (one - y[i] * y[i])


@compiled(parallel=True)
def _erf(x, y):
    for i in prange(len(x)):
        y[i] = math.erf(x[i])


@compiled(parallel=True)
def _scaled_difference(x, t, scale, y):
    for i in prange(len(x)):
        y[i] = scale * (x[i] - t[i])


@compiled(parallel=True, fastmath={"contract"})
def _scaled_logistic_difference(x, t, scale, y):
    one = x.dtype.type(1)
    for i in prange(len(x)):
        z = exp_minus(abs(x[i]))
        y[i] = scale * ((one if x[i] >= 0 else z) / (one + z) - t[i])


# --- Cross-entropy ------------------------------------------------------------------------------------------


def cross_entropy(x: Array, classes: Array) -> Array:
    """(N, C, ...), (N, ...) -> (N, ...). Defined in reference.py."""
    _arguments.same_float("cross_entropy", x)
    y = np.empty(classes.shape, x.dtype)
    if y.size:
        with parallel_region(x.size):
            _cross_entropy(channels_last(x), plain(classes).reshape(-1), y.reshape(-1))
    return y


@compiled(parallel=True, fastmath={"contract"})
def _cross_entropy(x, classes, y):
    C = len(x) // len(classes)
    for i in prange(len(classes)):  # owns one sample
        greatest, total = _sum_of_powers(x, i * C, C)
        y[i] = np.log(total) + (greatest - x[i * C + classes[i]])


@compiled(fastmath={"contract"})
def _sum_of_powers(x, start, C):
    """The greatest of C neighbouring values, and the sum of e^(each - the greatest)."""
    greatest, total = x[start], x.dtype.type(0)
    for k in range(start, start + C):
        greatest = x[k] if x[k] > greatest else greatest
    for k in range(start, start + C):
        total += exp_minus(greatest - x[k])
    return greatest, total


def cross_entropy_backward(gy: Array, x: Array, classes: Array) -> Array:
    """(N, ...), (N, C, ...), (N, ...) -> (N, C, ...), the classes last in memory. Defined in reference.py."""
    _arguments.same_float("cross_entropy_backward", gy, x)
    n, c, *size = x.shape
    gx = empty((n, *size, c), x.dtype)
    if gx.size:
        arrays = plain(gy).reshape(-1), channels_last(x), plain(classes).reshape(-1)
        with parallel_region(x.size):
            _cross_entropy_backward(*arrays, gx.reshape(-1))
    return gx.transpose(0, x.ndim - 1, *range(1, x.ndim - 1))


@compiled(parallel=True, fastmath={"contract"})
def _cross_entropy_backward(gy, x, classes, gx):
    C = len(x) // len(gy)
    for i in prange(len(gy)):  # owns one sample
        greatest, total = _sum_of_powers(x, i * C, C)
        for k in range(i * C, i * C + C):
            gx[k] = gy[i] * (exp_minus(greatest - x[k]) / total)
        gx[i * C + classes[i]] -= gy[i]
