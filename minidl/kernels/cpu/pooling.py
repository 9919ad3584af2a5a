"""Pooling, unpooling by indices, and resampling (average pooling and interpolation), for channels-last arrays.

Letters: N, C, H, W, OH, OW as in pool_geometry.py. Each array is one long vector of (N, H, W, C), so that the innermost
loop runs over channels that lie side by side. Offsets are unsigned, since a signed one is checked for being negative at
each access. `prange` runs only over what an iteration owns alone, and one iteration sums each value of a result in a
fixed order, so the bits do not depend on the threads.
"""

from collections.abc import Callable

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import prange
from numba.core import cgutils

from minidl.kernels import _arguments
from minidl.kernels._memory import empty
from minidl.kernels.cpu._arrays import channels_last
from minidl.kernels.cpu._compiling import by_hand, compiled
from minidl.kernels.cpu._threads import parallel_region
from minidl.kernels.cpu._vectors import I64, Vectors
from minidl.kernels.geometry import Pair
from minidl.kernels.pool_geometry import PoolGeometry, refuse_bad_index
from minidl.kernels.resampling import Axis

Array = np.ndarray
U = np.uint64
LANES = 8  # channels that max-pool takes at once: as many int64 indices fill a vector


def _empty(n: int, c: int, size: tuple[int, int], dtype: np.dtype | type) -> Array:
    return empty((n, *size, c), np.dtype(dtype))


def _channels_second(y: Array) -> Array:
    return y.transpose(0, 3, 1, 2)


# --- Maxima -------------------------------------------------------------------------------------------------


def max_pool2d(x: Array, geometry: PoolGeometry) -> tuple[Array, Array]:
    """Maxima of windows (N, C, H, W) -> (N, C, OH, OW), and their flat indices. Defined in reference.py."""
    _arguments.of_pooling(x, geometry)
    _arguments.same_float("max_pool2d", x)
    n, c, *_ = geometry.map_shape
    y, indices = _empty(n, c, geometry.map_size, x.dtype), _empty(n, c, geometry.map_size, np.int64)
    if y.size:
        windows = geometry.windows(0), geometry.windows(1), geometry.dilation
        with parallel_region(x.size):
            _max_pool(channels_last(x), *windows, y.reshape(-1), indices.reshape(-1), n, c, *geometry.image_size)
    return _channels_second(y), _channels_second(indices)


@compiled(parallel=True)
def _max_pool(x, rows, columns, dilation, y, indices, N, C, H, W):
    for task in prange(N * len(rows)):  # owns one row of the map
        n, i = np.int64(task // len(rows)), np.int64(task % len(rows))
        (h0, tall), (down, right) = rows[i], dilation
        for j in range(len(columns)):
            w0, wide = columns[j]
            first, out = h0 * W + w0, ((n * len(rows) + i) * len(columns) + j) * C
            for c in range(0, C, LANES):
                at = (n * H * W + first) * C + c
                _max_of_window(x, at, first, tall, wide, down * W, right, C, y, indices, out + c, C - c)


def _emit_max_of_window(builder, element, x, at, first, tall, wide, down, right, C, y, indices, out, count) -> None:
    values, numbers = Vectors(builder, element, LANES), Vectors(builder, I64, LANES)
    inside = values.below(count)
    best = cgutils.alloca_once_value(builder, ir.Constant(values.kind, [float("-inf")] * LANES))
    index = cgutils.alloca_once_value(builder, numbers.splat(first))
    with cgutils.for_range(builder, tall) as rows, cgutils.for_range(builder, wide) as columns:
        step = builder.add(builder.mul(rows.index, down), builder.mul(columns.index, right))
        value = values.load(inside, x, at, builder.mul(step, C))
        greater = builder.fcmp_ordered(">", value, builder.load(best))
        take = builder.or_(greater, builder.fcmp_unordered("uno", value, value))
        builder.store(builder.select(take, value, builder.load(best)), best)
        number = numbers.splat(builder.add(first, step))
        builder.store(builder.select(take, number, builder.load(index)), index)
    values.store(builder.load(best), inside, y, out)
    numbers.store(builder.load(index), inside, indices, out)


@by_hand(_emit_max_of_window)
def _max_of_window(x, at, first, tall, wide, down, right, C, y, indices, out, count):
    """The maximum of a window and its index, for LANES neighbouring channels or the `count` that are left.

    Why it is fast: the maxima and their indices stay in two registers while the window passes. It is written in LLVM's
    language, since plain code in the loop over windows, where Numba knows that the arrays do not overlap, keeps the
    maxima in memory instead: measured at 1.2 to 2.9 times the time.
    """
    for c in range(min(LANES, count)):
        best, index = -np.inf, first
        for u in range(tall):
            for v in range(wide):
                step = u * down + v * right
                value = x[at + step * C + c]
                if value > best or value != value:
                    best, index = value, first + step
        y[out + c], indices[out + c] = best, index


# --- By indices ---------------------------------------------------------------------------------------------


def pick(x: Array, indices: Array) -> Array:
    """x at the indices: (N, C, H, W), (N, C, OH, OW) -> (N, C, OH, OW). Defined in reference.py."""
    _arguments.indices_of("pick", indices, x.shape[:2])
    return _by_indices("pick", _pick, x, indices, indices.shape[2:], x.shape[2:])


def put(y: Array, indices: Array, size: tuple[int, int]) -> Array:
    """Sums of y at the indices: (N, C, OH, OW) twice -> (N, C, H, W). Defined in reference.py."""
    _arguments.indices_of("put", indices, y.shape)
    return _by_indices("put", _put, y, indices, size, size)


def _by_indices(name: str, loop: Callable[..., None], given: Array, indices: Array, size: Pair, plane: Pair) -> Array:
    """Run a loop that fills (N, C, *size) from `given`; the indices count the pixels of planes of this size."""
    _arguments.same_float(name, given)
    n, c = given.shape[:2]
    result = _empty(n, c, size, given.dtype)
    if result.size:
        bad = np.zeros(n, np.bool_)
        with parallel_region(max(given.size, result.size)):
            loop(channels_last(given), channels_last(indices), result.reshape(-1), bad, c, plane[0] * plane[1])
        if bad.any():
            refuse_bad_index(name, indices, plane)
    return _channels_second(result)


@compiled(parallel=True)
def _pick(x, indices, y, bad, C, pixels):
    for n in prange(len(bad)):  # owns one image
        first, size = np.int64(n) * pixels, len(y) // len(bad)
        for q in range(np.int64(n) * size, np.int64(n + 1) * size, C):
            for c in range(U(C)):
                k = indices[U(q) + c]
                if U(k) < U(pixels):
                    y[U(q) + c] = x[U((first + k) * C) + c]
                else:
                    bad[n] = True


@compiled(parallel=True)
def _put(y, indices, x, bad, C, pixels):
    for n in prange(len(bad)):  # owns one image
        first, size = np.int64(n) * pixels, len(y) // len(bad)
        x[first * C : (first + pixels) * C] = 0
        for q in range(np.int64(n) * size, np.int64(n + 1) * size, C):
            for c in range(U(C)):
                k = indices[U(q) + c]
                if U(k) < U(pixels):
                    x[U((first + k) * C) + c] += y[U(q) + c]
                else:
                    bad[n] = True


# --- Sums and interpolation ---------------------------------------------------------------------------------


def resample(x: Array, rows: Axis, columns: Axis) -> Array:
    """A linear map along the height and one along the width. Defined in reference.py."""
    _arguments.of_resampling(x, rows, columns)
    n, c, h, w = x.shape
    y = _empty(n, c, (rows.outputs, columns.outputs), x.dtype)
    if y.size:
        matrices = [(m.starts, m.sources, m.weights_as(x.dtype)) for m in (rows, columns)]
        with parallel_region(x.size + y.size):
            _resample(channels_last(x), *matrices[0], *matrices[1], y.reshape(-1), n, c, h, w)
    return _channels_second(y)


@compiled(parallel=True)
def _resample(x, rstarts, rsources, rweights, cstarts, csources, cweights, y, N, C, H, W):
    """Why it is fast: rows are added up first, in one long loop, then columns, from a line that is still in cache."""
    OH, OW = len(rstarts) - 1, len(cstarts) - 1
    for task in prange(N * OH):  # owns one row of the result
        n, i = np.int64(task // OH), np.int64(task % OH)
        total = np.empty(W * C, x.dtype)
        _sums(total, 0, x, n * H * W * C, rstarts[i : i + 2], rsources, rweights, W * C)
        _sums(y, (n * OH + i) * OW * C, total, 0, cstarts, csources, cweights, C)


@compiled()
def _sums(y, out, x, start, starts, sources, weights, length):
    """Pieces of y from pieces of x of the same length: piece j = sum over its t of weights[t] * piece sources[t]."""
    for j in range(len(starts) - 1):
        t0, t1, b = starts[j], starts[j + 1], U(out + j * length)
        if t0 == t1:
            for k in range(U(length)):
                y[b + k] = 0
            continue
        a0, w0 = U(start + sources[t0] * length), weights[t0]
        if t1 - t0 == 1:
            for k in range(U(length)):
                y[b + k] = w0 * x[a0 + k]
            continue
        a1, w1 = U(start + sources[t0 + 1] * length), weights[t0 + 1]
        for k in range(U(length)):  # the first two at once: often they are all
            y[b + k] = w0 * x[a0 + k] + w1 * x[a1 + k]
        for t in range(t0 + 2, t1):
            a, weight = U(start + sources[t] * length), weights[t]
            for k in range(U(length)):
                y[b + k] += weight * x[a + k]
