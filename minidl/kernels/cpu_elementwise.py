"""Elementwise operations, sums and optimiser steps compiled with Numba, for float32 and float64 arrays, on all cores.

A file of its own, as cpu_pooling.py is, and for its reason. All arrays are vectors in the memory order of the first.
`prange` runs only over what an iteration owns alone, and partial sums are added in a fixed order, so the bits do not
depend on the threads.
"""

# The compiled loops take arrays and numbers; the functions around them are typed.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import prange, types
from numba.extending import overload

from minidl.kernels.compiling import compiled
from minidl.kernels.cpu import plain, same_float
from minidl.kernels.memory import empty
from minidl.kernels.threads import parallel_region

Array = np.ndarray

TINY = {kind: np.finfo(kind).tiny for kind in "fd"}  # the smallest normal numbers
SMALLEST_PERIOD = 256  # values that an inner loop over channels takes at once


@functools.lru_cache(maxsize=1024)
def _memory_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes from the outermost in memory to the innermost, and the way back.

    Those of one element, whose strides say nothing, come last.
    """
    order = sorted(range(len(shape)), key=lambda axis: (shape[axis] == 1, -abs(strides[axis])))
    return tuple(order), tuple(sorted(range(len(shape)), key=order.__getitem__))


def _vectors(*arrays: Array) -> list[Array]:
    """The arrays as vectors in the memory order of the first: views where an array lies so, else copies."""
    order, _ = _memory_order(arrays[0].shape, arrays[0].strides)
    return [plain(a.transpose(order)).reshape(-1) for a in arrays]


def _like(x: Array, vector: Array) -> Array:
    """The vector in the shape and memory order of x, the inverse of `_vectors`."""
    order, back = _memory_order(x.shape, x.strides)
    return vector.reshape([x.shape[axis] for axis in order]).transpose(back)


def _alike(name: str, *arrays: Array) -> None:
    """Refuse arrays that differ in shape or type."""
    same_float(name, *arrays)
    for array in arrays:
        if array.shape != arrays[0].shape:
            raise RuntimeError(f"{name}: shapes differ: {', '.join(str(a.shape) for a in arrays)}")


def _elementwise(name: str, loop: Callable[..., None], *arrays: Array, scalars: tuple[float, ...] = ()) -> Array:
    """A compiled loop over arrays of one shape; the result has the first one's memory order."""
    _alike(name, *arrays)
    vectors = _vectors(*arrays)
    out = empty(vectors[0].shape, vectors[0].dtype)
    with parallel_region(out.size):
        loop(*vectors, *map(out.dtype.type, scalars), out)
    return _like(arrays[0], out)


def relu(x: Array) -> Array:
    """max(x, 0); NaN stays NaN."""
    return _elementwise("relu", _relu, x)


@compiled(parallel=True)
def _relu(x, y):
    for i in prange(len(x)):  # owns element i, here and below
        y[i] = x.dtype.type(0) if x[i] <= 0 else x[i]


def relu_backward(gy: Array, y: Array) -> Array:
    """gy where y > 0, else 0."""
    return _elementwise("relu_backward", _relu_backward, gy, y)


@compiled(parallel=True)
def _relu_backward(gy, y, gx):
    for i in prange(len(y)):
        gx[i] = gy.dtype.type(0) if y[i] <= 0 else gy[i]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))"""
    return _elementwise("sigmoid", _sigmoid, x, scalars=(_most(x),))


@compiled(parallel=True, fastmath={"contract"})
def _sigmoid(x, most, y):
    one = x.dtype.type(1)
    for i in prange(len(x)):
        z = _exp_minus(abs(x[i]), most, x.dtype.type)
        y[i] = (one if x[i] >= 0 else z) / (one + z)


LOG_2 = 0.693145751953125, 1.4286068203094172e-06  # ln 2 in two parts: the first times a whole number is exact
SERIES = tuple(1 / math.factorial(k) for k in range(13, -1, -1))


@compiled(fastmath={"contract"})
def _exp_minus(a, most, kind):
    """e^-a for 0 <= a: 2^-n e^r with a whole n and |r| <= ln(2) / 2, where Taylor's series needs 13 powers. For
    a > `most`, the largest exponent of the type, e^-a is 0 to all its digits.

    Why it is fast: without branches, tables and calls it becomes vector instructions, as Numba's own exp does not.
    """
    a = most if a > most else a
    n = np.floor(a * kind(1 / math.log(2)) + kind(0.5))
    r = (n * kind(LOG_2[0]) - a) + n * kind(LOG_2[1])
    power = kind(0)
    for k in range(14):
        power = power * r + kind(SERIES[k])
    half = np.floor(n * kind(0.5))  # in two steps, since a result may be too small for 2^-n itself
    return power * _power_of_two(-half) * _power_of_two(half - n)


def _power_of_two(n):
    """2^n for a whole n. Compiled, it is its bits: n plus a bias at the place of the exponent."""
    return 2**n


@overload(_power_of_two)
def _power_of_two_in_bits(n):
    if n == types.float32:
        return lambda n: np.int32(np.int32(n + np.float32(127)) << np.int32(23)).view(np.float32)
    return lambda n: np.int64(np.int64(n + 1023.0) << np.int64(52)).view(np.float64)


def sigmoid_backward(gy: Array, y: Array) -> Array:
    """gy * y * (1 - y)"""
    return _elementwise("sigmoid_backward", _sigmoid_backward, gy, y)


@compiled(parallel=True)
def _sigmoid_backward(gy, y, gx):
    one = y.dtype.type(1)
    for i in prange(len(y)):
        gx[i] = gy[i] * y[i] * (one - y[i])


def tanh_backward(gy: Array, y: Array) -> Array:
    """gy * (1 - y*y)"""
    return _elementwise("tanh_backward", _tanh_backward, gy, y)


@compiled(parallel=True)
def _tanh_backward(gy, y, gx):
    one = y.dtype.type(1)
    for i in prange(len(y)):
        gx[i] = gy[i] * (one - y[i] * y[i])


def scaled_difference(x: Array, t: Array, scale: Array, factor: float) -> Array:
    """factor * scale * (x - t), with a 0-d scale."""
    return _elementwise("scaled_difference", _scaled_difference, x, t, scalars=(scale.item() * factor,))


@compiled(parallel=True)
def _scaled_difference(x, t, scale, y):
    for i in prange(len(x)):
        y[i] = scale * (x[i] - t[i])


def scaled_logistic_difference(x: Array, t: Array, scale: Array, factor: float) -> Array:
    """factor * scale * (sigmoid(x) - t), with a 0-d scale."""
    scalars = _most(x), scale.item() * factor
    return _elementwise("scaled_logistic_difference", _scaled_logistic_difference, x, t, scalars=scalars)


@compiled(parallel=True, fastmath={"contract"})
def _scaled_logistic_difference(x, t, most, scale, y):
    one = x.dtype.type(1)
    for i in prange(len(x)):
        z = _exp_minus(abs(x[i]), most, x.dtype.type)
        y[i] = scale * ((one if x[i] >= 0 else z) / (one + z) - t[i])


# --- Cross-entropy ------------------------------------------------------------------------------------------


def cross_entropy(x: Array, classes: Array) -> Array:
    """(N, C, ...), (N, ...) -> (N, ...). Defined in reference.py."""
    same_float("cross_entropy", x)
    y = np.empty(classes.shape, x.dtype)
    if y.size:
        with parallel_region(x.size):
            _cross_entropy(_classes_last(x), plain(classes).reshape(-1), _most(x), y.reshape(-1))
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
        total += _exp_minus(greatest - x[k], most, x.dtype.type)
    return greatest, total


def cross_entropy_backward(gy: Array, x: Array, classes: Array) -> Array:
    """(N, ...), (N, C, ...), (N, ...) -> (N, C, ...), the classes last in memory. Defined in reference.py."""
    same_float("cross_entropy_backward", gy, x)
    n, c, *size = x.shape
    gx = empty((n, *size, c), x.dtype)
    if gx.size:
        arrays = plain(gy).reshape(-1), _classes_last(x), plain(classes).reshape(-1)
        with parallel_region(x.size):
            _cross_entropy_backward(*arrays, _most(x), gx.reshape(-1))
    return gx.transpose(0, x.ndim - 1, *range(1, x.ndim - 1))


@compiled(parallel=True, fastmath={"contract"})
def _cross_entropy_backward(gy, x, classes, most, gx):
    C = len(x) // len(gy)
    for i in prange(len(gy)):  # owns one sample
        greatest, total = _sum_of_powers(x, i * C, C, most)
        for k in range(i * C, i * C + C):
            gx[k] = gy[i] * (_exp_minus(greatest - x[k], most, x.dtype.type) / total)
        gx[i * C + classes[i]] -= gy[i]


def _classes_last(x: Array) -> Array:
    """(N, C, ...) as a vector in which a sample's classes are neighbours."""
    return plain(x.transpose(0, *range(2, x.ndim), 1)).reshape(-1)


def _most(x: Array) -> Any:
    """What `_exp_minus` wants to know of the type."""
    return x.dtype.type(-np.finfo(x.dtype).minexp)


# --- Sums ----------------------------------------------------------------------------------------------------


def _period(channels: int) -> int:
    """A multiple of the channels that fills whole vectors: in channels-last memory the bias repeats with it."""
    return channels * max(1, SMALLEST_PERIOD // channels)


def channel_sums(y: Array) -> Array:
    """The sum of each channel of (N, C, H, W) or (N, C), as (C,). Defined in reference.py."""
    return _sums(plain(y.transpose(0, *range(2, y.ndim), 1)), y.shape[1])


def total(x: Array, scale: float = 1.0) -> Array:
    """The sum of all elements, times `scale`, as a 0-d array."""
    same_float("total", x)
    return _sums(_vectors(x)[0], 1, scale).reshape(())


def total_squared_error(x: Array, t: Array, scale: float = 1.0) -> Array:
    """The sum of (x - t)^2 over all elements, times `scale`, as a 0-d array."""
    return _total_loss("total_squared_error", _squared_errors, x, t, scale)


def total_logistic_loss(x: Array, t: Array, scale: float = 1.0) -> Array:
    """The sum of max(x, 0) - x t + ln(1 + e^-|x|) over all elements, times `scale`, as a 0-d array."""
    return _total_loss("total_logistic_loss", _logistic_losses, x, t, scale, _most(x))


def _total_loss(name: str, loop: Callable[..., None], x: Array, t: Array, scale: float, *scalars: Any) -> Array:
    """The sum of what a compiled loop adds up in partial sums, times `scale`."""
    _alike(name, x, t)
    partial = _partial_sums(x.size, 1)
    with parallel_region(x.size):
        loop(*_vectors(x, t), *scalars, partial)
    return np.asarray(partial.sum() * scale, x.dtype)


def _sums(y: Array, channels: int, scale: float = 1.0) -> Array:
    """The sums of every `channels`-th value of y: of all whose place leaves the same remainder."""
    partial = _partial_sums(y.size, channels)
    with parallel_region(y.size):
        _channel_sums(y.reshape(-1), partial)
    return (partial.reshape(-1, channels).sum(axis=0) * scale).astype(y.dtype)


def _partial_sums(size: int, channels: int) -> Array:
    """Zeros, a row for each task. In float64, since a sum over a whole batch loses the digits that it is long for."""
    period = _period(channels)
    return np.zeros((max(1, min(16, size // (64 * period))), period))


@compiled(parallel=True)
def _channel_sums(y, partial):
    for part in prange(len(partial)):  # owns one row of the partial sums
        _sum_periods(y, partial, np.int64(part))


@compiled()
def _sum_periods(y, partial, part):
    first, last, period = _periods(len(y), partial, part)
    for p in range(first, last):
        for j in range(min(period, len(y) - p * period)):
            partial[part, j] += y[np.uint64(p * period + j)]


@compiled(parallel=True)
def _squared_errors(x, t, partial):
    for part in prange(len(partial)):  # owns one row of the partial sums
        _sum_squared_errors(x, t, partial, np.int64(part))


@compiled()
def _sum_squared_errors(x, t, partial, part):
    first, last, period = _periods(len(x), partial, part)
    for p in range(first, last):
        for j in range(min(period, len(x) - p * period)):
            error = x[np.uint64(p * period + j)] - t[np.uint64(p * period + j)]
            partial[part, j] += error * error


@compiled(parallel=True)
def _logistic_losses(x, t, most, partial):
    for part in prange(len(partial)):  # owns one row of the partial sums
        _sum_logistic_losses(x, t, most, partial, np.int64(part))


@compiled(fastmath={"contract"})
def _sum_logistic_losses(x, t, most, partial, part):
    first, last, period = _periods(len(x), partial, part)
    for p in range(first, last):
        for j in range(min(period, len(x) - p * period)):
            xj, tj = x[np.uint64(p * period + j)], t[np.uint64(p * period + j)]
            positive = x.dtype.type(0) if xj < 0 else xj
            partial[part, j] += positive - xj * tj + _log_1_plus(_exp_minus(abs(xj), most, x.dtype.type), x.dtype.type)


ODD = tuple(2 / k for k in range(31, 0, -2))


@compiled(fastmath={"contract"})
def _log_1_plus(z, kind):
    """ln(1 + z) for 0 <= z <= 1: 2 (s + s^3 / 3 + s^5 / 5 + ...) with s = z / (2 + z), at most a third."""
    s = z / (kind(2) + z)
    power = kind(0)
    for k in range(16):
        power = power * (s * s) + kind(ODD[k])
    return power * s


@compiled()
def _periods(size, partial, part):
    """The first period of a task, the one after its last, and their length."""
    parts, period = partial.shape
    periods = (size + period - 1) // period
    return part * periods // parts, (part + 1) * periods // parts, period


# --- Optimisers ---------------------------------------------------------------------------------------------


def _in_place(name: str, loop: Callable[..., None], written: tuple[Array, ...], g: Array, *scalars: Any) -> None:
    """Run a compiled step on the arrays as vectors, and write back those that had to be copied."""
    _alike(name, *written, g)
    vectors = _vectors(*written, g)
    with parallel_region(g.size):
        loop(*vectors, *map(g.dtype.type, scalars))
    for array, vector in zip(written, vectors, strict=False):
        if vector.base is not array and not np.may_share_memory(array, vector):
            array[...] = _like(written[0], vector)


def adam_step(
    ps: list[Array],
    gs: list[Array],
    ms: list[Array],
    vs: list[Array],
    rate_and_root: tuple[float, float] | Array,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """One step of Adam in one pass over memory. Defined in reference.py."""
    rate, root = map(float, rate_and_root)
    for p, g, m, v in zip(ps, gs, ms, vs, strict=True):
        scalars = rate, root, 1 - beta1, beta2, 1 - beta2, eps, weight_decay, TINY[p.dtype.char]
        _in_place("adam_step", _adam, (p, m, v), g, *scalars)


@compiled(parallel=True)
def _adam(p, m, v, g, rate, root, rate1, beta2, rate2, eps, decay, tiny):
    """Moments of a gradient that stays zero become denormal numbers, which are slow: flush them."""
    zero = p.dtype.type(0)
    for i in prange(len(p)):
        gi = g[i] + decay * p[i] if decay else g[i]
        mi = m[i] + rate1 * (gi - m[i])
        vi = beta2 * v[i] + rate2 * gi * gi
        mi = zero if abs(mi) < tiny else mi
        vi = zero if vi < tiny else vi
        m[i], v[i] = mi, vi
        p[i] -= rate * mi / (np.sqrt(vi) / root + eps)


def sgd_step(
    ps: list[Array],
    gs: list[Array],
    bufs: list[Array] | None,
    lr: float | Array,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """One step of SGD in one pass over memory. Defined in reference.py."""
    sums: list[Any] = [None] * len(ps) if bufs is None else bufs
    for p, g, buf in zip(ps, gs, sums, strict=True):
        if buf is None:
            _in_place("sgd_step", _sgd, (p,), g, float(lr), weight_decay)
        else:
            scalars = float(lr), momentum, 1 - dampening, nesterov, weight_decay, TINY[p.dtype.char]
            _in_place("sgd_step", _sgd_momentum, (p, buf), g, *scalars)


@compiled(parallel=True)
def _sgd(p, g, lr, decay):
    for i in prange(len(p)):
        p[i] -= lr * (g[i] + decay * p[i] if decay else g[i])


@compiled(parallel=True)
def _sgd_momentum(p, buf, g, lr, momentum, rate, nesterov, decay, tiny):
    """Flushed like Adam's moments."""
    zero = p.dtype.type(0)
    for i in prange(len(p)):
        gi = g[i] + decay * p[i] if decay else g[i]
        bi = momentum * buf[i] + rate * gi
        bi = zero if abs(bi) < tiny else bi
        buf[i] = bi
        p[i] -= lr * (gi + momentum * bi if nesterov else bi)
