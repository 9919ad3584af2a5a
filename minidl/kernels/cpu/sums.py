"""Sums: of channels (the gradient in a bias), of all elements, and of two losses.

They are added up in float64, since a float32 sum over a whole batch would lose digits, and as partial sums in an order
that depends on the shapes alone: the bits do not depend on the threads.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import prange

from minidl.kernels import _arguments
from minidl.kernels.cpu._arrays import channels_last, vectors
from minidl.kernels.cpu._compiling import compiled
from minidl.kernels.cpu._exponential import exp_minus, largest_exponent, log_1_plus
from minidl.kernels.cpu._threads import parallel_region

Array = np.ndarray

SMALLEST_PERIOD = 256  # values that an inner loop over channels takes at once


def _period(channels: int) -> int:
    """A multiple of the channels, long enough for whole vectors: channels-last memory repeats the channels."""
    return channels * max(1, SMALLEST_PERIOD // channels)


def channel_sums(y: Array) -> Array:
    """The sum of each channel of (N, C, H, W) or (N, C), as (C,). Defined in reference.py."""
    return _sums(channels_last(y), y.shape[1])


def total(x: Array, scale: float = 1.0) -> Array:
    """The sum of all elements, times `scale`, as a 0-d array."""
    _arguments.same_float("total", x)
    return _sums(vectors(x)[0], 1, scale).reshape(())


def total_squared_error(x: Array, t: Array, scale: float = 1.0) -> Array:
    """The sum of (x - t)^2 over all elements, times `scale`, as a 0-d array."""
    return _total_loss("total_squared_error", _squared_errors, x, t, scale)


def total_logistic_loss(x: Array, t: Array, scale: float = 1.0) -> Array:
    """The sum of max(x, 0) - x t + ln(1 + e^-|x|) over all elements, times `scale`, as a 0-d array."""
    return _total_loss("total_logistic_loss", _logistic_losses, x, t, scale, largest_exponent(x))


def _total_loss(name: str, loop: Callable[..., None], x: Array, t: Array, scale: float, *scalars: Any) -> Array:
    """The total of a compiled loop's partial sums, times `scale`."""
    _arguments.alike(name, x, t)
    partial = _partial_sums(x.size, 1)
    with parallel_region(x.size):
        loop(*vectors(x, t), *scalars, partial)
    return np.asarray(partial.sum() * scale, x.dtype)


def _sums(y: Array, channels: int, scale: float = 1.0) -> Array:
    """The sums of y[0::channels], y[1::channels], ..., times `scale`."""
    partial = _partial_sums(y.size, channels)
    with parallel_region(y.size):
        _channel_sums(y.reshape(-1), partial)
    return (partial.reshape(-1, channels).sum(axis=0) * scale).astype(y.dtype)


def _partial_sums(size: int, channels: int) -> Array:
    """Zeros in float64, a row for each task."""
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
            partial[part, j] += positive - xj * tj + log_1_plus(exp_minus(abs(xj), most, x.dtype.type), x.dtype.type)


@compiled()
def _periods(size, partial, part):
    """A task's first period, the one after its last, and the length of a period."""
    parts, period = partial.shape
    periods = (size + period - 1) // period
    return part * periods // parts, (part + 1) * periods // parts, period
