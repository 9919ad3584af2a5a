"""Cross-entropy: -ln softmax(x)[class] of each sample, and its gradient softmax(x) - [c = class].

Letters: N samples, C classes, whose values lie side by side in memory here.
"""

import numpy as np
from numba import prange

from minidl.kernels import _arguments
from minidl.kernels._memory import empty
from minidl.kernels.cpu._arrays import channels_last, plain
from minidl.kernels.cpu._compiling import compiled
from minidl.kernels.cpu._exponential import exp_minus, largest_exponent
from minidl.kernels.cpu._threads import parallel_region

Array = np.ndarray


def cross_entropy(x: Array, classes: Array) -> Array:
    """(N, C, ...), (N, ...) -> (N, ...). Defined in reference.py."""
    _arguments.same_float("cross_entropy", x)
    y = np.empty(classes.shape, x.dtype)
    if y.size:
        with parallel_region(x.size):
            _cross_entropy(channels_last(x), plain(classes).reshape(-1), largest_exponent(x), y.reshape(-1))
    return y


@compiled(parallel=True, fastmath={"contract"})
def _cross_entropy(x, classes, most, y):
    C = len(x) // len(classes)
    for i in prange(len(classes)):  # owns one sample
        greatest, total = _sum_of_powers(x, i * C, C, most)
        y[i] = np.log(total) + (greatest - x[i * C + classes[i]])


@compiled(fastmath={"contract"})
def _sum_of_powers(x, start, C, most):
    """The greatest of C neighbouring values, and the sum of e^(each - the greatest)."""
    greatest, total = x[start], x.dtype.type(0)
    for k in range(start, start + C):
        greatest = x[k] if x[k] > greatest else greatest
    for k in range(start, start + C):
        total += exp_minus(greatest - x[k], most, x.dtype.type)
    return greatest, total


def cross_entropy_backward(gy: Array, x: Array, classes: Array) -> Array:
    """(N, ...), (N, C, ...), (N, ...) -> (N, C, ...), the classes last in memory. Defined in reference.py."""
    _arguments.same_float("cross_entropy_backward", gy, x)
    n, c, *size = x.shape
    gx = empty((n, *size, c), x.dtype)
    if gx.size:
        arrays = plain(gy).reshape(-1), channels_last(x), plain(classes).reshape(-1)
        with parallel_region(x.size):
            _cross_entropy_backward(*arrays, largest_exponent(x), gx.reshape(-1))
    return gx.transpose(0, x.ndim - 1, *range(1, x.ndim - 1))


@compiled(parallel=True, fastmath={"contract"})
def _cross_entropy_backward(gy, x, classes, most, gx):
    C = len(x) // len(gy)
    for i in prange(len(gy)):  # owns one sample
        greatest, total = _sum_of_powers(x, i * C, C, most)
        for k in range(i * C, i * C + C):
            gx[k] = gy[i] * (exp_minus(greatest - x[k], most, x.dtype.type) / total)
        gx[i * C + classes[i]] -= gy[i]
