"""Elementwise kernels: activations with their gradients, and the gradients of losses.

All arrays of a call are vectors in the memory order of the first. `prange` runs only over what an iteration owns alone.
"""

import math
from collections.abc import Callable

import numpy as np
from numba import prange

from minidl.kernels import _arguments
from minidl.kernels._memory import empty
from minidl.kernels.cpu._arrays import like, vectors
from minidl.kernels.cpu._compiling import compiled
from minidl.kernels.cpu._exponential import exp_minus, largest_exponent
from minidl.kernels.cpu._threads import parallel_region

Array = np.ndarray


def _elementwise(name: str, loop: Callable[..., None], *arrays: Array, scalars: tuple[float, ...] = ()) -> Array:
    """Run a compiled loop on arrays of one shape; the result has the first one's memory order."""
    _arguments.alike(name, *arrays)
    flat = vectors(*arrays)
    out = empty(flat[0].shape, flat[0].dtype)
    with parallel_region(out.size):
        loop(*flat, *map(out.dtype.type, scalars), out)
    return like(arrays[0], out)


def add(a: Array, b: Array) -> Array:
    """a + b"""
    return _elementwise("add", _add, a, b)


def relu(x: Array) -> Array:
    """max(x, 0); NaN stays NaN."""
    return _elementwise("relu", _relu, x)


def relu_backward(gy: Array, y: Array) -> Array:
    """gy where y > 0, else 0."""
    return _elementwise("relu_backward", _relu_backward, gy, y)


def sigmoid_backward(gy: Array, y: Array) -> Array:
    """gy * y * (1 - y)"""
    return _elementwise("sigmoid_backward", _sigmoid_backward, gy, y)


def tanh_backward(gy: Array, y: Array) -> Array:
    """gy * (1 - y*y)"""
    return _elementwise("tanh_backward", _tanh_backward, gy, y)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))"""
    return _elementwise("sigmoid", _sigmoid, x, scalars=(largest_exponent(x),))


def erf(x: Array) -> Array:
    """The error function."""
    return _elementwise("erf", _erf, x)


def scaled_difference(x: Array, t: Array, scale: Array, factor: float) -> Array:
    """factor * scale * (x - t), with a 0-d scale."""
    return _elementwise("scaled_difference", _scaled_difference, x, t, scalars=(scale.item() * factor,))


def scaled_logistic_difference(x: Array, t: Array, scale: Array, factor: float) -> Array:
    """factor * scale * (sigmoid(x) - t), with a 0-d scale."""
    return _elementwise(
        "scaled_logistic_difference",
        _scaled_logistic_difference,
        x,
        t,
        scalars=(largest_exponent(x), scale.item() * factor),
    )


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
def _sigmoid(x, most, y):
    one = x.dtype.type(1)
    for i in prange(len(x)):
        z = exp_minus(abs(x[i]), most, x.dtype.type)
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
def _scaled_logistic_difference(x, t, most, scale, y):
    one = x.dtype.type(1)
    for i in prange(len(x)):
        z = exp_minus(abs(x[i]), most, x.dtype.type)
        y[i] = scale * ((one if x[i] >= 0 else z) / (one + z) - t[i])
