"""Pooling and resampling compiled with Numba, for channels-last float32 and float64 arrays, on all cores.

A file of its own, since Numba's cache notices edits only in the file of the function itself: nothing compiled here
calls anything compiled elsewhere.

Letters: N, C, H, W, OH, OW as in pool_geometry.py. All arrays are one long vector of (N, H, W, C), so the innermost
loop runs over channels that lie side by side. Offsets are unsigned, since a signed one is checked for being
negative at each access. `prange` runs only over what an iteration owns alone, and each value of a result is summed
by one iteration in a fixed order, so the bits do not depend on the threads.
"""

# The compiled loops take arrays and sizes, as the legend names them; the functions around them are typed.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import numpy as np
from numba import prange

from minidl.kernels import reference
from minidl.kernels.compiling import compiled
from minidl.kernels.cpu import _plain, _same_float
from minidl.kernels.memory import empty
from minidl.kernels.pool_geometry import PoolGeometry, refuse_bad_index
from minidl.kernels.resampling import Axis
from minidl.kernels.threads import parallel_region as _pool

Array = np.ndarray
U = np.uint64


def _vector(x: Array) -> Array:
    """(N, C, H, W) as a channels-last vector."""
    return _plain(x.transpose(0, 2, 3, 1)).reshape(-1)


def _empty(n: int, c: int, size: tuple[int, int], dtype: np.dtype | type) -> Array:
    return empty((n, *size, c), np.dtype(dtype))


def _channels_second(y: Array) -> Array:
    return y.transpose(0, 3, 1, 2)


# --- Maxima -------------------------------------------------------------------------------------------------


def max_pool2d(x: Array, geometry: PoolGeometry) -> tuple[Array, Array]:
    """Maxima of windows (N, C, H, W) -> (N, C, OH, OW), and their flat indices. Defined in reference.py."""
    if x.shape != geometry.image_shape:
        raise RuntimeError(f"max_pool2d: x has shape {x.shape}, but its geometry says {geometry.image_shape}")
    if x.dtype not in (np.float32, np.float64):  # rare enough that nothing is compiled for them
        return reference.max_pool2d(x, geometry)
    n, c, *_ = geometry.map_shape
    y, indices = _empty(n, c, geometry.map_size, x.dtype), _empty(n, c, geometry.map_size, np.int64)
    if y.size:
        windows = geometry.windows(0), geometry.windows(1), geometry.dilation
        with _pool():
            _max_pool(_vector(x), *windows, y.reshape(-1), indices.reshape(-1), n, c, *geometry.image_size)
    return _channels_second(y), _channels_second(indices)


@compiled(parallel=True)
def _max_pool(x, rows, columns, dilation, y, indices, N, C, H, W):
    for task in prange(N * len(rows)):  # owns one row of the map
        _max_pool_row(x, rows, columns, dilation, y, indices, C, H, W, task // len(rows), task % len(rows))


@compiled()
def _max_pool_row(x, rows, columns, dilation, y, indices, C, H, W, n, i):
    """Why it is fast: all comparisons are selections over neighbouring channels, which vectorise."""
    image, out = n * H * W * C, (n * len(rows) + i) * len(columns) * C
    h0, tall = rows[i]
    for j in range(len(columns)):
        w0, wide = columns[j]
        first, o = h0 * W + w0, out + j * C
        if tall == 2 and wide == 2:
            _max_of_four(x, image, first, dilation[0] * W, dilation[1], y, indices, o, C)
            continue
        _take_first(x, image, first, y, indices, o, C)
        for u in range(tall):
            for v in range(wide):
                if u + v > 0:
                    _take_greater(x, image, first + u * dilation[0] * W + v * dilation[1], y, indices, o, C)


@compiled(inline="always")
def _take_first(x, image, k, y, indices, o, C):
    a, b = U(image + k * C), U(o)
    for c in range(U(C)):
        y[b + c] = x[a + c]
        indices[b + c] = k


@compiled(inline="always")
def _take_greater(x, image, k, y, indices, o, C):
    """Where pixel k is greater than the maximum so far, or NaN, take it."""
    a, b = U(image + k * C), U(o)
    for c in range(U(C)):
        value, best, index = x[a + c], y[b + c], indices[b + c]
        take = (value > best) | (value != value)
        y[b + c] = value if take else best
        indices[b + c] = k if take else index


@compiled(inline="always")
def _max_of_four(x, image, k, below, beside, y, indices, o, C):
    """The commonest window in one pass: pixel k, the one beside it, and the two below these."""
    k1, k2, k3 = k + beside, k + below, k + below + beside
    a0, a1, a2, a3, b = U(image + k * C), U(image + k1 * C), U(image + k2 * C), U(image + k3 * C), U(o)
    for c in range(U(C)):
        best, index = x[a0 + c], k
        value = x[a1 + c]
        take = (value > best) | (value != value)
        best, index = value if take else best, k1 if take else index
        value = x[a2 + c]
        take = (value > best) | (value != value)
        best, index = value if take else best, k2 if take else index
        value = x[a3 + c]
        take = (value > best) | (value != value)
        y[b + c] = value if take else best
        indices[b + c] = k3 if take else index


# --- By indices ---------------------------------------------------------------------------------------------


def pick(x: Array, indices: Array) -> Array:
    """x at the indices: (N, C, H, W), (N, C, OH, OW) -> (N, C, OH, OW). Defined in reference.py."""
    _same_float("pick", x)
    _check_indices("pick", indices, x.shape[:2])
    (n, c), size, pixels = x.shape[:2], indices.shape[2:], x.shape[2] * x.shape[3]
    y = _empty(n, c, size, x.dtype)
    if y.size:
        bad = np.zeros(n, np.bool_)
        with _pool():
            _pick(_vector(x), _vector(indices), y.reshape(-1), bad, c, pixels)
        if bad.any():
            refuse_bad_index(indices, x.shape[2:])
    return _channels_second(y)


@compiled(parallel=True)
def _pick(x, indices, y, bad, C, pixels):
    for n in prange(len(bad)):  # owns one image
        _pick_image(x, indices, y, bad, C, pixels, n, len(y) // len(bad))


@compiled()
def _pick_image(x, indices, y, bad, C, pixels, n, size):
    for q in range(n * size, (n + 1) * size, C):
        for c in range(U(C)):
            k = indices[U(q) + c]
            if U(k) < U(pixels):
                y[U(q) + c] = x[U((n * pixels + k) * C) + c]
            else:
                bad[n] = True


def put(y: Array, indices: Array, size: tuple[int, int]) -> Array:
    """Sums of y at the indices: (N, C, OH, OW) twice -> (N, C, H, W). Defined in reference.py."""
    _same_float("put", y)
    _check_indices("put", indices, y.shape)
    n, c = y.shape[:2]
    x = _empty(n, c, size, y.dtype)
    if x.size:
        bad = np.zeros(n, np.bool_)
        with _pool():
            _put(_vector(y), _vector(indices), x.reshape(-1), bad, c, size[0] * size[1])
        if bad.any():
            refuse_bad_index(indices, size)
    return _channels_second(x)


@compiled(parallel=True)
def _put(y, indices, x, bad, C, pixels):
    for n in prange(len(bad)):  # owns one image
        _put_image(y, indices, x, bad, C, pixels, n, len(y) // len(bad))


@compiled()
def _put_image(y, indices, x, bad, C, pixels, n, size):
    x[n * pixels * C : (n + 1) * pixels * C] = 0
    for q in range(n * size, (n + 1) * size, C):
        for c in range(U(C)):
            k = indices[U(q) + c]
            if U(k) < U(pixels):
                x[U((n * pixels + k) * C) + c] += y[U(q) + c]
            else:
                bad[n] = True


def _check_indices(name: str, indices: Array, shape: tuple[int, ...]) -> None:
    if indices.dtype != np.int64 or indices.shape[: len(shape)] != shape:
        raise RuntimeError(f"{name}: indices must be int64 of shape {shape}, not {indices.dtype} of {indices.shape}")


# --- Sums and interpolation ---------------------------------------------------------------------------------


def resample(x: Array, rows: Axis, columns: Axis) -> Array:
    """A linear map along the height and one along the width. Defined in reference.py."""
    _same_float("resample", x)
    n, c, h, w = x.shape
    if (h, w) != (rows.inputs, columns.inputs):
        raise RuntimeError(f"resample: x has shape {x.shape}, but its axes say {rows.inputs} x {columns.inputs}")
    y = _empty(n, c, (rows.outputs, columns.outputs), x.dtype)
    if y.size:
        matrices = [(m.starts, m.sources, m.weights_as(x.dtype)) for m in (rows, columns)]
        with _pool():
            _resample(_vector(x), *matrices[0], *matrices[1], y.reshape(-1), n, c, h, w)
    return _channels_second(y)


@compiled(parallel=True)
def _resample(x, rstarts, rsources, rweights, cstarts, csources, cweights, y, N, C, H, W):
    OH = len(rstarts) - 1
    for task in prange(N * OH):  # owns one row of the result
        n, i = task // OH, task % OH
        _resample_row(x, rstarts, rsources, rweights, cstarts, csources, cweights, y, C, H, W, n, i)


@compiled()
def _resample_row(x, rstarts, rsources, rweights, cstarts, csources, cweights, y, C, H, W, n, i):
    """Why it is fast: the rows are added up first, in one long loop, and the columns from a line still in cache."""
    OH, OW, line = len(rstarts) - 1, len(cstarts) - 1, W * C
    total = np.empty(line, x.dtype)
    _sums(total, 0, x, n * H * line, rstarts[i : i + 2], rsources, rweights, line)
    _sums(y, (n * OH + i) * OW * C, total, 0, cstarts, csources, cweights, C)


@compiled()
def _sums(y, out, x, start, starts, sources, weights, length):
    """Pieces of y from pieces of x, all of one length: piece j = sum over its t of weights[t] * piece sources[t]."""
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
