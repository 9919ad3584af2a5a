"""The kernels compiled with Numba, for C-contiguous float32 and float64 arrays, on all cores.

All of them that multiply are one algorithm. A convolution is a matrix product whose left matrix is never
written down: its element for pixel i of the map and tap k of the kernel is

    A[i, k] = x[rows[i] + cols[k]]      x padded, in channels-last memory, as one long vector

because the offset of what a tap meets is the pixel's offset plus the tap's. So every kernel here fills two
short tables and calls `_multiply`, which knows nothing of strides, paddings or dilations:

    C[i, :] (+)= sum over k of A[i, k] * B[k, :]     B[k] begins at brows[k], C[i] at crows[i]

Letters: N, C, H, W, O, OH, OW, KH, KW as in reference.py. P = OH*OW pixels of a map, T = KH*KW*C values under
a window. M, K, N sizes of a matrix product; i counts rows, k the sum, j columns.

Splitting the work: always by the shapes, never by the number of threads, and partial sums are added in a
fixed order, so the bits of a result do not depend on the threads. `prange` runs only over what an iteration
owns alone.
"""

# The compiled loops take arrays and sizes, as the legend names them; the functions around them are typed.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# ruff: noqa: E741

import functools
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from minidl.kernels.geometry import ConvGeometry
from minidl.kernels.memory import empty

Array = np.ndarray

VECTOR_BYTES = 64 if llvm.get_host_cpu_features().get("avx512f") else 32
TILE_ROWS = 6  # times two vectors of columns: with more, the addresses of the rows no longer fit in registers
BLOCK_K = 256  # so many rows of two vectors of B stay in the first-level cache while all rows of A pass by
CHUNK_ROWS = 20 * TILE_ROWS  # rows of A for one task of a parallel loop
MATMUL_ROWS = 256  # rows of A for one task of matmul: with few, packing B would not pay
LARGEST_KEPT = 2**23  # elements of a buffer that is kept from call to call
SMALLEST_PERIOD = 256  # values that an inner loop over channels takes at once
PANEL = 64  # columns of B for one task of matmul

_intrinsic: Any = intrinsic  # a function whose LLVM code is written by hand


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """numba.njit, lazy, its machine code kept on disk, or not, where no directory can be written."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # "cannot cache function: no locator available"
            return numba.njit(**options)(function)

    return decorate


_one_at_a_time = threading.Lock()


def _pool() -> AbstractContextManager[Any]:
    """What to hold around a parallel kernel: a lock, unless Numba's threading layer bears callers from
    several threads.

    Its `workqueue` layer aborts the process when two threads call at once; which layer it is, Numba knows
    after the first call.
    """
    try:
        safe = numba.threading_layer() in ("omp", "tbb")
    except ValueError:  # not chosen yet
        safe = False
    return nullcontext() if safe else _one_at_a_time


@_intrinsic
def _copy(typing, target, i, source, j, n):
    """target[i : i + n] = source[j : j + n], without the checks for negative offsets that slow a loop."""

    def generate(context, builder, signature, args):
        to, to_start, of, of_start, count = args
        to_kind, _, of_kind, _, _ = signature.args
        to = builder.gep(context.make_array(to_kind)(context, builder, to).data, [to_start])
        of = builder.gep(context.make_array(of_kind)(context, builder, of).data, [of_start])
        size = context.get_abi_sizeof(context.get_data_type(to_kind.dtype))
        cgutils.raw_memcpy(builder, to, of, count, size)
        return context.get_dummy_value()

    return types.void(target, i, source, j, n), generate


# --- The matrix product -------------------------------------------------------------------------------------


def _tile_of(vectors: int) -> Any:
    """The innermost loop: TILE_ROWS rows of C times `vectors` vectors of columns, held in registers during
    the sum over k.

    Why it is fast: each step of the loop loads two vectors of B once and uses them for all rows, each value
    of A once and uses it for all columns, and writes nothing to memory. The 6 x 2 sums are independent, so
    the processor starts two multiply-adds in each cycle without waiting for the last ones. Written in LLVM's
    language, since loops in Python leave it to the compiler's guess whether the sums stay in registers.
    Masked loads and stores (a lane beyond the last column reads 0 and writes nothing) serve ragged edges, so
    nothing needs to be padded to whole vectors.
    """

    @_intrinsic
    def tile(typing, a, rows, i0, m, cols, k0, k1, b, brows, j0, n, c, crows, add):
        """C[i0 + r, j0:] (+)= sum over k0 <= k < k1 of A[i0 + r, k] * B[k, j0:]; m rows, n columns left."""

        def generate(context, builder, signature, args):
            names = ["a", "rows", "i0", "m", "cols", "k0", "k1", "b", "brows", "j0", "n", "c", "crows", "add"]
            arg = dict(zip(names, args, strict=True))
            for name, kind in zip(names, signature.args, strict=True):
                if isinstance(kind, types.Array):
                    arg[name] = context.make_array(kind)(context, builder, arg[name]).data
            _emit_tile(builder, context.get_data_type(signature.args[0].dtype), vectors, **arg)
            return context.get_dummy_value()

        return types.void(a, rows, i0, m, cols, k0, k1, b, brows, j0, n, c, crows, add), generate

    return tile


I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


def _emit_tile(builder, element, vectors, a, rows, i0, m, cols, k0, k1, b, brows, j0, n, c, crows, add) -> None:
    """Write the tile's LLVM code: masks, the loop over k, the store."""
    size = 4 if isinstance(element, ir.FloatType) else 8
    lanes = VECTOR_BYTES // size
    vector, bits = ir.VectorType(element, lanes), ir.VectorType(I1, lanes)
    name = f"v{lanes}f{8 * size}"
    zero, align = ir.Constant(vector, None), I32(size)

    def external(name: str, result, *arguments):
        return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)

    pointer = vector.as_pointer()
    load = external(f"llvm.masked.load.{name}.p0", vector, pointer, I32, bits, vector)
    store = external(f"llvm.masked.store.{name}.p0", ir.VoidType(), vector, pointer, I32, bits)
    multiply_add = external(f"llvm.fmuladd.{name}", vector, vector, vector, vector)

    def at(base, *offsets):
        return functools.reduce(lambda p, offset: builder.gep(p, [offset]), offsets, base)

    def vector_at(base, *offsets):
        return builder.bitcast(at(base, *offsets), pointer)

    def splat(value, kind):
        first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
        return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, lanes), None))

    lane = ir.Constant(ir.VectorType(I64, lanes), list(range(lanes)))
    starts = [I64(v * lanes) for v in range(vectors)]
    inside = [builder.icmp_signed("<", lane, splat(builder.sub(n, s), lane.type)) for s in starts]
    live = [builder.icmp_signed("<", I64(r), m) for r in range(TILE_ROWS)]
    row = [
        builder.add(i0, builder.select(live[r], I64(r), I64(0))) for r in range(TILE_ROWS)
    ]  # a dead row reads row i0
    arow = [at(a, builder.load(at(rows, r))) for r in row]
    sums = [[cgutils.alloca_once_value(builder, zero) for _ in starts] for _ in row]

    with cgutils.for_range_slice(builder, k0, k1, I64(1), I64) as (k, _):
        acol, brow = builder.load(at(cols, k)), builder.load(at(brows, k))
        bs = [
            builder.call(load, [vector_at(b, brow, j0, s), align, mask, zero])
            for s, mask in zip(starts, inside, strict=True)
        ]
        for r in range(TILE_ROWS):
            ar = splat(builder.load(at(arow[r], acol)), vector)
            for total, bv in zip(sums[r], bs, strict=True):
                builder.store(builder.call(multiply_add, [ar, bv, builder.load(total)]), total)

    # One row after the other, each loaded after the last one is stored: rows of C may overlap (conv2d_input
    # relies on it).
    for r in range(TILE_ROWS):
        crow = builder.load(at(crows, row[r]))
        for s, mask, total in zip(starts, inside, sums[r], strict=True):
            target, written = vector_at(c, crow, j0, s), builder.and_(mask, splat(live[r], bits))
            old = builder.call(load, [target, align, builder.and_(written, splat(add, bits)), zero])
            builder.call(store, [builder.fadd(old, builder.load(total)), target, align, written])


_tile_1, _tile_2 = _tile_of(1), _tile_of(2)


@compiled()
def _multiply(a, rows, cols, b, brows, n, c, crows, add):
    """C (+)= A B, over blocks of k, pairs of vectors of columns, tiles of rows; tables as above."""
    lanes = VECTOR_BYTES // a.itemsize
    for k0 in range(0, len(cols), BLOCK_K):
        k1, more = min(k0 + BLOCK_K, len(cols)), add or k0 > 0
        for j in range(0, n, 2 * lanes):
            for i in range(0, len(rows), TILE_ROWS):
                if n - j > lanes:
                    _tile_2(a, rows, i, len(rows) - i, cols, k0, k1, b, brows, j, n - j, c, crows, more)
                else:
                    _tile_1(a, rows, i, len(rows) - i, cols, k0, k1, b, brows, j, n - j, c, crows, more)


def matmul(a: Array, b: Array) -> Array:
    """Matrix product (M, K) @ (K, N); either may be transposed in memory. Defined in reference.py."""
    a, b = _same_float("matmul", a, b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise RuntimeError(f"matmul: shapes {a.shape} and {b.shape} cannot be multiplied")
    c = empty((a.shape[0], b.shape[1]), a.dtype)
    if a.shape[1] == 0:
        c[...] = 0
    elif c.size:
        with _pool():
            _matmul(*_flat_matrix(a), *_flat_matrix(b), c.reshape(-1), *c.shape, a.shape[1])
    return c


def _flat_matrix(a: Array) -> tuple[Array, int, int]:
    """The values of a matrix as one vector, and how far apart its rows and its columns are in it."""
    if not a.flags.c_contiguous and a.T.flags.c_contiguous:
        return _plain(a.T).reshape(-1), 1, a.shape[0]
    return _plain(a).reshape(-1), a.shape[1], 1


@compiled(parallel=True)
def _matmul(a, arow, acol, b, brow, bcol, c, M, N, K):
    """Why it is fast: a task copies its block of B, whatever its strides, into cache and uses it for
    all its rows."""
    panels, chunks = (N + PANEL - 1) // PANEL, (M + MATMUL_ROWS - 1) // MATMUL_ROWS
    for task in prange(panels * chunks):  # owns one block of C
        i, j = task // panels * MATMUL_ROWS, task % panels * PANEL
        _matmul_block(a, arow, acol, b, brow, bcol, c, M, N, K, i, j)


@compiled()
def _matmul_block(a, arow, acol, b, brow, bcol, c, M, N, K, i, j):
    i1, n = min(i + MATMUL_ROWS, M), min(PANEL, N - j)
    packed = np.empty(BLOCK_K * n, b.dtype)
    rows, crows, brows = np.arange(i, i1) * arow, np.arange(i, i1) * N + j, np.arange(BLOCK_K) * n
    for k0 in range(0, K, BLOCK_K):
        k1 = min(k0 + BLOCK_K, K)
        _pack(b, k0, k1, brow, j, n, bcol, packed)
        cols = np.arange(k0, k1) * acol
        _multiply(a, rows, cols, packed, brows, n, c, crows, k0 > 0)


@compiled()
def _pack(b, k0, k1, brow, j, n, bcol, packed):
    """Copy a block of B; of a transposed one 16 rows at a time, since these share the cache lines of B."""
    if bcol == 1:
        for k in range(k0, k1):
            _copy(packed, (k - k0) * n, b, k * brow + j, n)
        return
    for k in range(k0, k1, 16):
        for q in range(n):
            for kk in range(k, min(k + 16, k1)):
                # Unsigned, since a signed offset is checked for being negative at each access.
                packed[np.uint64((kk - k0) * n + q)] = b[np.uint64(kk * brow + (j + q) * bcol)]


# --- The convolutions ---------------------------------------------------------------------------------------


def conv2d(x: Array, w: Array, geometry: ConvGeometry) -> Array:
    """Convolution (N, C, H, W), (O, C, KH, KW) -> (N, O, OH, OW), channels-last. Defined in reference.py."""
    x, w = _checked(geometry, x=x, w=w)
    n, o, oh, ow = geometry.map_shape
    pixels, taps = _tables(geometry)
    y = (empty if taps.size else np.zeros)((n, oh, ow, o), x.dtype)
    if y.size and taps.size:
        with _pool():
            wt = _channels_in_out(w).reshape(-1)  # (KH*KW, C, O)
            sizes = (n, o, _image_length(geometry))
            _conv2d(_padded(x, geometry), pixels, taps, wt, y.reshape(-1), *sizes)
    return y.transpose(0, 3, 1, 2)


@compiled(parallel=True)
def _conv2d(x, pixels, taps, w, y, N, O, image):
    """Why it is fast: no matrix of columns is ever written; a pixel's window is read where it lies, and
    the padding, the one copy that is made, is no larger than the image."""
    chunk = _chunk_rows(N * len(pixels))
    for task in prange((N * len(pixels) + chunk - 1) // chunk):  # owns `chunk` pixels of the map
        _conv2d_rows(x, pixels, taps, w, y, N, O, image, task * chunk, chunk)


@compiled()
def _conv2d_rows(x, pixels, taps, w, y, N, O, image, start, chunk):
    stop = min(start + chunk, N * len(pixels))
    rows, crows = _pixel_rows(pixels, image, start, stop), np.arange(start, stop) * O
    _multiply(x, rows, taps, w, np.arange(len(taps)) * O, O, y, crows, False)


def conv2d_input(y: Array, w: Array, geometry: ConvGeometry) -> Array:
    """Transposed convolution (N, O, OH, OW), (O, C, KH, KW) -> (N, C, H, W). Defined in reference.py."""
    y, w = _checked(geometry, y=y, w=w)
    n, c, h, width = geometry.image_shape
    x = empty((n, h, width, c), y.dtype)
    if x.size:
        with _pool():
            wt = _kernel_inside(w)  # (O, KH*KW, C)
            taps, run = _tables(geometry)[1], _run(geometry)
            yf = _plain(y.transpose(0, 2, 3, 1)).reshape(-1)
            sizes = (n, geometry.map_channels, _image_length(geometry), *_lines(geometry))
            _conv2d_input(yf, wt.reshape(-1), x.reshape(-1), _scattered(geometry), taps, run, *sizes)
    return x.transpose(0, 3, 1, 2)


@compiled(parallel=True)
def _conv2d_input(y, w, x, pixels, taps, run, N, O, image, H, line, top, left):
    """Why it is fast: the products of a pixel go from the registers straight into its window, no columns in
    between.

    Windows overlap, and a load that follows a store to a part of the same bytes is slow. `pixels` (as ordered
    by `_scattered`) goes down the columns of all images of the group, so that neighbours in a tile do not
    meet.
    """
    group = _group_images(N, len(pixels))
    for task in prange((N + group - 1) // group):  # owns `group` images
        n0, n1 = task * group, min(task * group + group, N)
        _scatter(y, w, x, pixels, taps, run, O, image, H, line, top, left, n0, n1)


@compiled()
def _scatter(y, w, x, pixels, taps, run, O, image, H, line, top, left, n0, n1):
    padded = np.zeros((n1 - n0) * image, x.dtype)
    rows, windows = _scattered_rows(pixels, O, image, n0, n1)
    cols = np.arange(O)
    for t in range(0, len(taps), run):
        _multiply(y, rows, cols, w, cols * len(taps) + t, run, padded, windows + taps[t], True)
    for n in range(n0, n1):
        _crop_image(padded, (n - n0) * image, x, n, H, line, top, left)


@compiled()
def _scattered_rows(pixels, O, image, n0, n1):
    """Where the pixels of images n0 to n1 lie in the map, and where their windows begin in this group."""
    P, group = len(pixels), n1 - n0
    rows, windows = np.empty(P * group, np.int64), np.empty(P * group, np.int64)
    for q in range(P):
        for n in range(group):
            rows[q * group + n] = ((n0 + n) * P + pixels[q, 0]) * O
            windows[q * group + n] = n * image + pixels[q, 1]
    return rows, windows


def conv2d_weight(x: Array, y: Array, geometry: ConvGeometry) -> Array:
    """Gradient in the weight (N, C, H, W), (N, O, OH, OW) -> (O, C, KH, KW). Defined in reference.py."""
    x, y = _checked(geometry, x=x, y=y)
    w = np.zeros(geometry.weight_shape, x.dtype)
    pixels, taps = _tables(geometry)
    n, o = geometry.batch, geometry.map_channels
    if w.size and n:
        parts = _weight_parts(n * len(pixels), w.size)
        partial = _scratch("partial", parts * len(taps) * o, x.dtype)
        with _pool():
            yf = _plain(y.transpose(0, 2, 3, 1)).reshape(-1)
            sizes = (parts, n, o, _image_length(geometry))
            _conv2d_weight(_padded(x, geometry), pixels, taps, yf, partial, *sizes)
            _sum_parts(partial.reshape(parts, -1, o), w.reshape(o, geometry.image_channels, -1))
    return w


@compiled(parallel=True)
def _conv2d_weight(x, pixels, taps, y, partial, parts, N, O, image):
    """Why it is fast: as conv2d, with the tables of pixels and taps exchanged: the sum runs over the
    pixels, a block of which stays in cache for all taps."""
    T = len(taps)
    blocks = (T + CHUNK_ROWS - 1) // CHUNK_ROWS
    for task in prange(parts * blocks):  # owns a block of taps in one of the partial sums
        _weight_rows(x, pixels, taps, y, partial, parts, N, O, image, task // blocks, task % blocks)


@compiled()
def _weight_rows(x, pixels, taps, y, partial, parts, N, O, image, part, block):
    total, T = N * len(pixels), len(taps)
    t0, t1 = block * CHUNK_ROWS, min(block * CHUNK_ROWS + CHUNK_ROWS, T)
    start, stop = part * total // parts, (part + 1) * total // parts
    rows, brows = _pixel_rows(pixels, image, start, stop), np.arange(start, stop) * O
    crows = (part * T + np.arange(t0, t1)) * O
    _multiply(x, taps[t0:t1], rows, y, brows, O, partial, crows, False)


@compiled(parallel=True)
def _sum_parts(partial, w):
    parts, _, _ = partial.shape
    O, C, T = w.shape
    for c in prange(C):  # owns one channel of the weight
        for t in range(T):
            for o in range(O):
                total = partial[0, t * C + c, o]
                for part in range(1, parts):
                    total += partial[part, t * C + c, o]
                w[o, c, t] = total


@compiled()
def _pixel_rows(pixels, image, start, stop):
    """Where the windows of pixels start to stop of the whole batch begin, in the batch of padded images."""
    rows = np.empty(stop - start, np.int64)
    n, q = start // len(pixels), start % len(pixels)
    for i in range(stop - start):
        rows[i] = n * image + pixels[q]
        q += 1
        if q == len(pixels):
            n, q = n + 1, 0
    return rows


@compiled()
def _chunk_rows(rows):
    """Rows of a task: enough to be worth a task, few enough to give work to many cores; whole tiles."""
    tiles = max(1, min(CHUNK_ROWS, rows // 16) // TILE_ROWS)
    return tiles * TILE_ROWS


@compiled()
def _group_images(N, P):
    return max(1, min(CHUNK_ROWS // P, N // 8))


def _weight_parts(rows: int, size: int) -> int:
    """Into how many sums the weight gradient is split: many for many pixels, few for a big weight."""
    return max(1, min(16, rows // 512, 2**18 // size))


@functools.lru_cache(maxsize=256)
def _tables(geometry: ConvGeometry) -> tuple[Array, Array]:
    """In a padded image as a vector: where each pixel's window begins (P), where in it each tap lies (T)."""
    (oh, ow), (kh, kw), c = geometry.map_size, geometry.kernel, geometry.image_channels
    (sh, sw), (dh, dw) = geometry.stride, geometry.dilation
    _, width = geometry.padded_size
    i, j = np.arange(oh)[:, None], np.arange(ow)
    u, v = np.arange(kh)[:, None, None], np.arange(kw)[:, None]
    pixels = (i * sh * width + j * sw) * c  # (OH, OW)
    taps = (u * dh * width + v * dw) * c + np.arange(c)  # (KH, KW, C)
    return pixels.reshape(-1), taps.reshape(-1)


@functools.lru_cache(maxsize=256)
def _scattered(geometry: ConvGeometry) -> Array:
    """For each pixel, columns first: its number in the map, and where its window begins. (P, 2)"""
    pixels, _ = _tables(geometry)
    order = np.arange(len(pixels)).reshape(geometry.map_size).T.reshape(-1)
    return np.ascontiguousarray(np.stack([order, pixels[order]], axis=1))


def _run(geometry: ConvGeometry) -> int:
    """How many taps are neighbours in memory: a row of the kernel, or, dilated, the channels of a pixel."""
    (_, kw), c = geometry.kernel, geometry.image_channels
    return kw * c if geometry.dilation[1] == 1 else c


def _image_length(geometry: ConvGeometry) -> int:
    height, width = geometry.padded_size
    return height * width * geometry.image_channels


def _padded(x: Array, geometry: ConvGeometry) -> Array:
    """x as a vector of padded channels-last images, good until this thread's next call."""
    x = _plain(x.transpose(0, 2, 3, 1))  # (N, H, W, C)
    if geometry.padding == (0, 0):
        return x.reshape(-1)
    padded = _scratch("padded", geometry.batch * _image_length(geometry), x.dtype)
    _pad(x.reshape(-1), padded, geometry.batch, *_lines(geometry))
    return padded


class _Kept(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[tuple[str, np.dtype], Array] = {}


_kept = _Kept()


def _scratch(name: str, size: int, dtype: np.dtype) -> Array:
    """A vector for use within one call, kept for the next: new memory costs a page fault for every 4 KB."""
    if size > LARGEST_KEPT:
        return np.empty(size, dtype)
    key = name, dtype
    if key not in _kept.buffers or _kept.buffers[key].size < size:
        _kept.buffers[key] = np.empty(size, dtype)
    return _kept.buffers[key][:size]


def _lines(geometry: ConvGeometry) -> tuple[int, int, int, int]:
    """An image as lines of W*C values: their number and length, the padding above and to their left."""
    (h, width), (ph, pw), c = geometry.image_size, geometry.padding, geometry.image_channels
    return h, width * c, ph, pw * c


@compiled(parallel=True)
def _pad(x, padded, N, H, line, top, left):
    for n in prange(N):  # owns one image
        _pad_image(x, padded, n, H, line, top, left)


@compiled()
def _pad_image(x, padded, n, H, line, top, left):
    wide = line + 2 * left
    start = n * (H + 2 * top) * wide
    padded[start : start + (H + 2 * top) * wide] = 0
    for h in range(H):
        _copy(padded, start + (top + h) * wide + left, x, (n * H + h) * line, line)


@compiled()
def _crop_image(padded, at, x, n, H, line, top, left):
    """The inside of the padded image that begins at `at`, into image n of x."""
    for h in range(H):
        _copy(x, (n * H + h) * line, padded, at + (top + h) * (line + 2 * left) + left, line)


def _channels_in_out(w: Array) -> Array:
    """(O, C, KH, KW) -> (KH*KW, C, O)"""
    o, c, kh, kw = w.shape
    out = np.empty((kh * kw, c, o), w.dtype)
    _move_channels_last(_plain(w).reshape(o, c, kh * kw), out)
    return out


@compiled(parallel=True)
def _move_channels_last(w, out):
    O, C, T = w.shape
    for c in prange(C):  # owns one input channel
        for t in range(T):
            for o in range(O):
                out[t, c, o] = w[o, c, t]


def _kernel_inside(w: Array) -> Array:
    """(O, C, KH, KW) -> (O, KH*KW, C)"""
    o, c, kh, kw = w.shape
    out = np.empty((o, kh * kw, c), w.dtype)
    _move_taps_inside(_plain(w).reshape(o, c, kh * kw), out)
    return out


@compiled(parallel=True)
def _move_taps_inside(w, out):
    O, C, T = w.shape
    for o in prange(O):  # owns one output channel
        for t in range(T):
            for c in range(C):
                out[o, t, c] = w[o, c, t]


def _plain(x: Array) -> Array:
    """x if it is C-contiguous, aligned and writable, else such a copy: other kinds would compile anew."""
    return x if x.flags.carray else np.array(x, order="C")


def _same_float(name: str, *arrays: Array) -> tuple[Array, ...]:
    kinds = {array.dtype for array in arrays}
    if len(kinds) > 1 or not kinds <= {np.dtype(np.float32), np.dtype(np.float64)}:
        raise RuntimeError(
            f"{name}: expected arrays of one type, float32 or float64, got {', '.join(str(a.dtype) for a in arrays)}"
        )
    return arrays


def _checked(geometry: ConvGeometry, **arrays: Array) -> tuple[Array, ...]:
    """Compiled loops check no bounds, so the arrays must have the geometry's shapes."""
    expected = {"x": geometry.image_shape, "w": geometry.weight_shape, "y": geometry.map_shape}
    for name, array in arrays.items():
        if array.shape != expected[name]:
            raise RuntimeError(f"convolution: {name} has shape {array.shape}, but its geometry says {expected[name]}")
    return _same_float("convolution", *arrays.values())


# --- Elementwise --------------------------------------------------------------------------------------------


def _order(x: Array) -> list[int]:
    """The axes from the outermost in memory to the innermost; those of one element, whose strides say nothing, last."""
    return sorted(range(x.ndim), key=lambda axis: (x.shape[axis] == 1, -abs(x.strides[axis])))


def _vectors(*arrays: Array) -> list[Array]:
    """The arrays as vectors in the memory order of the first: views where an array lies so, else copies."""
    if all(a.flags.carray for a in arrays):
        return [a.reshape(-1) for a in arrays]
    order = _order(arrays[0])
    return [_plain(a.transpose(order)).reshape(-1) for a in arrays]


def _like(x: Array, vector: Array) -> Array:
    """The vector in the shape and memory order of x, the inverse of `_vectors`."""
    if x.flags.c_contiguous:
        return vector.reshape(x.shape)
    order = _order(x)
    return vector.reshape([x.shape[axis] for axis in order]).transpose(np.argsort(order))


def _elementwise(name: str, loop: Callable[..., None], *arrays: Array) -> Array:
    """A compiled loop over arrays of one shape; the result has the first one's memory order."""
    _same_float(name, *arrays)
    if any(a.shape != arrays[0].shape for a in arrays):
        raise RuntimeError(f"{name}: shapes differ: {', '.join(str(a.shape) for a in arrays)}")
    vectors = _vectors(*arrays)
    out = empty(vectors[0].shape, vectors[0].dtype)
    with _pool():
        loop(*vectors, out)
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
    """1 / (1 + exp(-x)), with NumPy's exp, which is vectorised as Numba's is not, then one compiled pass."""
    z = np.empty_like(x)
    np.exp(np.negative(np.abs(x, out=z), out=z), out=z)
    return _elementwise("sigmoid", _sigmoid, x, z)


@compiled(parallel=True)
def _sigmoid(x, z, y):
    one = x.dtype.type(1)
    for i in prange(len(x)):
        y[i] = (one if x[i] >= 0 else z[i]) / (one + z[i])


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


# --- Bias ---------------------------------------------------------------------------------------------------


def _period(channels: int) -> int:
    """A multiple of the channels that fills whole vectors: in channels-last memory the bias repeats with it."""
    return channels * max(1, SMALLEST_PERIOD // channels)


def add_bias(y: Array, b: Array) -> Array:
    """Add to each channel of (N, C, H, W) its number of (C,)."""
    _same_float("add_bias", y, b)
    n, c, h, w = y.shape
    out = empty((n, h, w, c), y.dtype)
    if out.size:
        with _pool():
            repeated = np.tile(b, _period(c) // c)
            _add_bias(_plain(y.transpose(0, 2, 3, 1)).reshape(-1), repeated, out.reshape(-1))
    return out.transpose(0, 3, 1, 2)


@compiled(parallel=True)
def _add_bias(y, b, out):
    """Why it is fast: the inner loop is as long for 1 channel as for 64."""
    period = len(b)
    for block in prange((len(y) + period - 1) // period):  # owns one period of the result
        _add_period(y, b, out, np.int64(block) * period)


@compiled()
def _add_period(y, b, out, start):
    for j in range(min(len(b), len(y) - start)):
        out[np.uint64(start + j)] = y[np.uint64(start + j)] + b[j]


def channel_sums(y: Array) -> Array:
    """The sum of each channel of (N, C, H, W), as (C,)."""
    c = y.shape[1]
    if y.size == 0:
        return np.zeros(c, y.dtype)
    period = _period(c)
    # In float64, since a sum over a whole batch would lose the digits that it is long for.
    partial = np.zeros((max(1, min(16, y.size // (64 * period))), period))
    with _pool():
        _channel_sums(_plain(y.transpose(0, 2, 3, 1)).reshape(-1), partial)
    return partial.reshape(-1, c).sum(axis=0).astype(y.dtype)


@compiled(parallel=True)
def _channel_sums(y, partial):
    for part in prange(len(partial)):  # owns one row of the partial sums
        _sum_periods(y, partial, np.int64(part))


@compiled()
def _sum_periods(y, partial, part):
    parts, period = partial.shape
    periods = (len(y) + period - 1) // period
    for p in range(part * periods // parts, (part + 1) * periods // parts):
        for j in range(min(period, len(y) - p * period)):
            partial[part, j] += y[np.uint64(p * period + j)]


# --- Optimisers ---------------------------------------------------------------------------------------------


def _in_place(name: str, loop: Callable[..., None], written: tuple[Array, ...], g: Array, *scalars: Any) -> None:
    """Run a compiled step on the arrays as vectors, and write back those that had to be copied."""
    _same_float(name, g, *written)
    if any(a.shape != g.shape for a in written):
        raise RuntimeError(f"{name}: shapes differ: {', '.join(str(a.shape) for a in (*written, g))}")
    vectors = _vectors(*written, g)
    kind = g.dtype.type
    with _pool():
        loop(*vectors, *(kind(s) for s in scalars))
    for array, vector in zip(written, vectors, strict=False):
        if not np.may_share_memory(array, vector):
            array[...] = _like(written[0], vector)


def adam_step(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    """One step of Adam in one pass over memory. Defined in reference.py."""
    step_size, root = lr / (1 - beta1**step), (1 - beta2**step) ** 0.5
    tiny = np.finfo(p.dtype).tiny
    _in_place(
        "adam_step",
        _adam,
        (p, m, v),
        g,
        step_size,
        root,
        1 - beta1,
        beta2,
        1 - beta2,
        eps,
        weight_decay,
        tiny,
    )


@compiled(parallel=True)
def _adam(p, m, v, g, step_size, root, rate1, beta2, rate2, eps, decay, tiny):
    """Moments of a gradient that stays zero become denormal numbers, which are slow: flush them."""
    zero = p.dtype.type(0)
    for i in prange(len(p)):
        gi = g[i] + decay * p[i]
        mi = m[i] + rate1 * (gi - m[i])
        vi = beta2 * v[i] + rate2 * gi * gi
        mi = zero if abs(mi) < tiny else mi
        vi = zero if vi < tiny else vi
        m[i], v[i] = mi, vi
        p[i] -= step_size * mi / (np.sqrt(vi) / root + eps)


def sgd_step(
    p: Array,
    g: Array,
    buf: Array | None,
    lr: float,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """One step of SGD in one pass over memory. Defined in reference.py."""
    if buf is None:
        _in_place("sgd_step", _sgd, (p,), g, lr, weight_decay)
        return
    loop = _sgd_nesterov if nesterov else _sgd_momentum
    _in_place("sgd_step", loop, (p, buf), g, lr, momentum, 1 - dampening, weight_decay)


@compiled(parallel=True)
def _sgd(p, g, lr, decay):
    for i in prange(len(p)):
        p[i] -= lr * (g[i] + decay * p[i])


@compiled(parallel=True)
def _sgd_momentum(p, buf, g, lr, momentum, rate, decay):
    for i in prange(len(p)):
        buf[i] = momentum * buf[i] + rate * (g[i] + decay * p[i])
        p[i] -= lr * buf[i]


@compiled(parallel=True)
def _sgd_nesterov(p, buf, g, lr, momentum, rate, decay):
    for i in prange(len(p)):
        gi = g[i] + decay * p[i]
        buf[i] = momentum * buf[i] + rate * gi
        p[i] -= lr * (gi + momentum * buf[i])
