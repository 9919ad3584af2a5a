"""Normalisation: sums over each channel, and what is computed from them for each element.

The values of a channel lie in memory as rows, or as columns, one in every C, where channels are last: there is a loop
for either. Sums are in float64, in an order that depends on the shapes alone.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import prange

from minidl.kernels import _arguments
from minidl.kernels._memory import empty
from minidl.kernels.cpu._arrays import channels_last, plain
from minidl.kernels.cpu._compiling import compiled
from minidl.kernels.cpu._threads import parallel_region
from minidl.kernels.cpu.sums import _period, _periods

Array = np.ndarray
Loop = Callable[..., None]


def moments(x: Array) -> tuple[Array, Array]:
    """The mean and the variance of each channel, from one pass. Defined in reference.py.

    With d = x - k, m = k + E d and v = E d^2 - (E d)^2. If k is one of the values, v is at least (m - k)^2 / n, so the
    difference loses few digits, however large m is.
    """
    first: Any = (0, slice(None), *[0] * (x.ndim - 2))
    k = x[first] if x.size else np.zeros(x.shape[1])
    k = np.where(np.isfinite(k), k, 0)
    d, square = _sums(x, x, k, k) / np.float64(x.size // max(x.shape[1], 1))
    return k + d, np.maximum(square - d * d, 0)


def normalise_sums(gy: Array, x: Array, mean: Array) -> tuple[Array, Array]:
    """The sums of gy and of gy (x - mean) over each channel. Defined in reference.py."""
    level, slope = _sums(x, gy, mean, np.zeros_like(mean))
    return level, slope


def _sums(x: Array, g: Array, m: Array, k: Array) -> Array:
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
    partial = np.zeros((max(1, min(16, x.size // (64 * table.shape[1]))), *table.shape))
    with parallel_region(x.size):
        _sum_columns(*given, table, partial)
    return partial.sum(axis=0).reshape(2, -1, sums.shape[1]).sum(axis=1)


def normalise(x: Array, mean: Array, scale: Array, shift: Array) -> Array:
    """(x - mean) scale + shift, with numbers for each channel."""
    return _each(_normalise, [x], mean, scale, shift)


def normalise_backward(gy: Array, x: Array, mean: Array, a: Array, b: Array, c: Array) -> Array:
    """a gy + b (x - mean) + c, with numbers for each channel."""
    return _each(_normalise_backward, [x, gy], mean, a, b, c)


def _each(loop: Loop, arrays: list[Array], *numbers: Array) -> Array:
    """Run a loop over all elements; the result has the first array's memory order."""
    _arguments.alike("normalise", *arrays)
    x = arrays[0]
    (row, given), (n, c, *size) = _in_memory(*arrays), x.shape
    y = empty(x.shape if row else (n, *size, c), x.dtype)
    if y.size:
        with parallel_region(y.size):
            loop(*given, _table(row, x, *numbers), row, y.reshape(-1))
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
def _normalise(x, table, row, y):
    period = row if row else table.shape[1]
    for p in prange((len(x) + period - 1) // period):  # owns one row or one period
        start = np.int64(p) * period
        c = np.int64(p) % table.shape[1]
        for j in range(min(period, len(x) - start)):
            i, t = np.uint64(start + j), np.uint64(c if row else j)
            y[i] = (x[i] - table[0, t]) * table[1, t] + table[2, t]


@compiled(parallel=True, fastmath={"contract"})
def _normalise_backward(x, gy, table, row, gx):
    period = row if row else table.shape[1]
    for p in prange((len(x) + period - 1) // period):  # owns one row or one period
        start = np.int64(p) * period
        c = np.int64(p) % table.shape[1]
        for j in range(min(period, len(x) - start)):
            i, t = np.uint64(start + j), np.uint64(c if row else j)
            gx[i] = table[1, t] * gy[i] + (table[2, t] * (x[i] - table[0, t]) + table[3, t])
