"""Sums: of channels (the gradient in a bias), of all elements, and of two losses; normalisation by sums over channels.

They are added up in float64, since a float32 sum over a whole batch would lose digits, and as partial sums in an order
that depends on the shapes alone: the bits do not depend on the threads. The values of a channel lie in memory as rows,
or as columns, one in every C, where channels are last: there is a loop for either.
"""

import math

import numpy as np
from numba import prange

from minidl.kernels import _arguments
from minidl.kernels._memory import empty
from minidl.kernels.cpu._arrays import channels_last, plain, vectors
from minidl.kernels.cpu._compiling import compiled
from minidl.kernels.cpu._exponential import exp_minus, log_1_plus
from minidl.kernels.cpu._threads import parallel_region

Array = np.ndarray

SMALLEST_PERIOD = 256  # values that an inner loop over channels takes at once


def _period(channels: int) -> int:
    """A multiple of the channels, long enough for whole vectors: channels-last memory repeats the channels."""
    return channels * max(1, SMALLEST_PERIOD // channels)


def channel_sums(y: Array) -> Array:
    """The sum of each channel of (N, C, H, W) or (N, C), as (C,). Defined in reference.py."""
    return _sums([channels_last(y)], y.shape[1])


def total(x: Array, scale: float = 1.0) -> Array:
    """The sum of all elements, times `scale`, as a 0-d array."""
    _arguments.same_float("total", x)
    return _sums(vectors(x), 1, scale).reshape(())


def total_squared_error(x: Array, t: Array, scale: float = 1.0) -> Array:
    """The sum of (x - t)^2 over all elements, times `scale`, as a 0-d array."""
    _arguments.alike("total_squared_error", x, t)
    return _sums(vectors(x, t), 1, scale).reshape(())


def total_logistic_loss(x: Array, t: Array, scale: float = 1.0) -> Array:
    """The sum of max(x, 0) - x t + ln(1 + e^-|x|) over all elements, times `scale`, as a 0-d array."""
    _arguments.alike("total_logistic_loss", x, t)
    return _sums(vectors(x, t), 1, scale, logistic=True).reshape(())


def _sums(arrays: list[Array], channels: int, scale: float = 1.0, logistic: bool | None = None) -> Array:
    """The sums of y[0::channels], y[1::channels], ..., times `scale`: of one vector y, or of losses from two."""
    x = arrays[0]
    partial = _partial_sums(x.size, channels)
    with parallel_region(x.size):
        _add_up(partial, logistic, *arrays)
    return (partial.reshape(-1, channels).sum(axis=0) * scale).astype(x.dtype)


def _partial_sums(size: int, channels: int, *kinds: int) -> Array:
    """Zeros in float64: for each task a row, or, if there are several kinds of sums, one for each."""
    period = _period(channels)
    return np.zeros((max(1, min(16, size // (64 * period))), *kinds, period))


@compiled(parallel=True, fastmath={"contract"})
def _add_up(partial, logistic, x, t=None):
    """What is None is known when this is compiled: each of the three sums has a loop of its own."""
    for part in prange(len(partial)):  # owns one row of the partial sums
        first, last, period = _periods(len(x), partial, np.int64(part))
        for p in range(first, last):
            for j in range(min(period, len(x) - p * period)):
                i = np.uint64(p * period + j)
                if t is None:
                    partial[part, j] += x[i]
                elif logistic is None:
                    partial[part, j] += (x[i] - t[i]) * (x[i] - t[i])
                else:
                    positive = x.dtype.type(0) if x[i] < 0 else x[i]
                    partial[part, j] += positive - x[i] * t[i] + log_1_plus(exp_minus(abs(x[i])))


@compiled()
def _periods(size, partial, part):
    """A task's first period, the one after its last, and the length of a period."""
    parts, period = partial.shape
    periods = (size + period - 1) // period
    return part * periods // parts, (part + 1) * periods // parts, period


# --- Normalisation ------------------------------------------------------------------------------------------


def moments(x: Array) -> tuple[Array, Array]:
    """The mean and the variance of each channel, from one pass. Defined in reference.py.

    With d = x - k, m = k + E d and v = E d^2 - (E d)^2. If k is one of the values, v is at least (m - k)^2 / n, so the
    difference loses few digits, however large m is.
    """
    k = x[(0, slice(None)) + (0,) * (x.ndim - 2)] if x.size else np.zeros(x.shape[1])
    k = np.where(np.isfinite(k), k, 0)
    d, square = _shifted_sums(x, x, k, k) / np.float64(x.size // max(x.shape[1], 1))
    return k + d, np.maximum(square - d * d, 0)


def normalise_sums(gy: Array, x: Array, mean: Array) -> tuple[Array, Array]:
    """The sums of gy and of gy (x - mean) over each channel. Defined in reference.py."""
    level, slope = _shifted_sums(x, gy, mean, np.zeros_like(mean))
    return level, slope


def _shifted_sums(x: Array, g: Array, m: Array, k: Array) -> Array:
    """The sums of g - k and of (g - k) (x - m) over each channel, (2, C)."""
    _arguments.alike("normalise", x, g)
    sums = np.zeros((2, x.shape[1]))
    if not x.size:
        return sums
    row, given = _in_memory(x, g)
    table = _table(row, x, m, k)
    if row:
        with parallel_region(x.size):
            _sum_rows(*given, table, row, sums)
        return sums
    partial = _partial_sums(x.size, x.shape[1], 2)
    with parallel_region(x.size):
        _sum_columns(*given, table, partial)
    return partial.sum(axis=0).reshape(2, -1, sums.shape[1]).sum(axis=1)


def normalise(x: Array, mean: Array, scale: Array, shift: Array) -> Array:
    """(x - mean) scale + shift, with numbers for each channel."""
    return _each([x], mean, scale, shift)


def normalise_backward(gy: Array, x: Array, mean: Array, a: Array, b: Array, c: Array) -> Array:
    """a gy + b (x - mean) + c, with numbers for each channel."""
    return _each([x, gy], mean, a, b, c)


def _each(arrays: list[Array], *numbers: Array) -> Array:
    """Compute every element; the result has the first array's memory order."""
    _arguments.alike("normalise", *arrays)
    x = arrays[0]
    (row, given), (n, c, *size) = _in_memory(*arrays), x.shape
    y = empty(x.shape if row else (n, *size, c), x.dtype)
    if y.size:
        with parallel_region(y.size):
            _normalise(y.reshape(-1), row, _table(row, x, *numbers), *given)
    return y if row else y.transpose(0, -1, *range(1, len(size) + 1))


def _in_memory(x: Array, *others: Array) -> tuple[int, list[Array]]:
    """The length of a channel's rows in memory, or 0 where channels are last; the arrays as vectors in x's order."""
    row = math.prod(x.shape[2:]) if x.flags.c_contiguous else 0
    if row <= 1:
        return 0, [channels_last(a) for a in (x, *others)]
    return row, [plain(a).reshape(-1) for a in (x, *others)]


def _table(row: int, x: Array, *numbers: Array) -> Array:
    """Rows of numbers for each channel; where channels are last, for each value of a period."""
    table = np.array(numbers, x.dtype)
    return table if row else np.tile(table, _period(x.shape[1]) // x.shape[1])


@compiled(parallel=True, fastmath={"contract", "reassoc"})  # as many sums as fit in a vector
def _sum_rows(x, g, table, row, sums):
    for c in prange(table.shape[1]):  # owns one channel
        level, slope = 0.0, 0.0
        for start in range(np.int64(c) * row, len(x), table.shape[1] * row):
            for i in range(start, start + row):
                gi = np.float64(g[np.uint64(i)] - table[1, c])
                level += gi
                slope += gi * np.float64(x[np.uint64(i)] - table[0, c])
        sums[0, c], sums[1, c] = level, slope


@compiled(parallel=True)
def _sum_columns(x, g, table, partial):
    for task in prange(len(partial)):  # owns one pair of rows of partial sums
        part = np.int64(task)
        first, last, period = _periods(len(x), partial[:, 0], part)
        whole = first + (min(last, len(x) // period) - first) // 4 * 4
        for p in range(first, whole, 4):
            _add_periods(x, g, table, partial, part, p * period, period, 4)
        for p in range(whole, last):
            _add_periods(x, g, table, partial, part, p * period, min(period, len(x) - p * period), 1)


@compiled(fastmath={"contract"})
def _add_periods(x, g, table, partial, part, start, length, count):
    """Add several periods at once: the partial sums are read and written once for all of them."""
    for j in range(length):
        level, slope = partial[part, 0, j], partial[part, 1, j]
        for q in range(count):
            i = np.uint64(start + q * length + j)
            gi = np.float64(g[i] - table[1, j])
            level += gi
            slope += gi * np.float64(x[i] - table[0, j])
        partial[part, 0, j], partial[part, 1, j] = level, slope


@compiled(parallel=True, fastmath={"contract"})
def _normalise(y, row, table, x, gy=None):
    period = row if row else table.shape[1]
    for p in prange((len(x) + period - 1) // period):  # owns one row or one period
        start = np.int64(p) * period
        c = np.int64(p) % table.shape[1]
        for j in range(min(period, len(x) - start)):
            i, t = np.uint64(start + j), np.uint64(c if row else j)
            d = x[i] - table[0, t]
            if gy is None:  # decided when it is compiled
                y[i] = d * table[1, t] + table[2, t]
            else:
                y[i] = table[1, t] * gy[i] + (table[2, t] * d + table[3, t])
