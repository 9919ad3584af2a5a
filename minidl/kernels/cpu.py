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
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import prange
from numba.core import cgutils

from minidl.kernels.compiling import by_hand, compiled
from minidl.kernels.geometry import ConvGeometry, Pair
from minidl.kernels.memory import empty
from minidl.kernels.threads import parallel_region
from minidl.kernels.vectors import BYTES, I64, VECTOR_BYTES, Vectors

Array = np.ndarray

TILE_ROWS = 6  # times two vectors of columns: with more, the addresses of the rows no longer fit in registers
TALL_ROWS = 8  # times one vector: fewer sums would leave the processor waiting for the last ones
BLOCK_K = 256  # so many rows of two vectors of B stay in the first-level cache while all rows of A pass by
CHUNK_ROWS = 20 * TILE_ROWS  # rows of A for one task of a parallel loop
MATMUL_ROWS = 256  # rows of A for one task of matmul: with few, packing B would not pay
LARGEST_KEPT = 2**23  # elements of a buffer that is kept from call to call
PANEL = 64  # columns of B for one task of matmul


def _emit_copy(builder, element, target, i, source, j, n) -> None:
    cgutils.raw_memcpy(builder, builder.gep(target, [i]), builder.gep(source, [j]), n, BYTES[element])


@by_hand(_emit_copy)
def _copy(target, i, source, j, n):
    """target[i : i + n] = source[j : j + n], without the checks for negative offsets that slow a loop."""
    target[i : i + n] = source[j : j + n]


# --- The matrix product -------------------------------------------------------------------------------------


def _tile_of(vectors: int, group: int = 1) -> Any:
    """The innermost loop: six rows of C times two vectors of columns, or eight times one, held in registers
    during the sum over k.

    Why it is fast: each step of the loop loads two vectors of B once and uses them for all rows, each value
    of A once and uses it for all columns, and writes nothing to memory. The 6 x 2 sums are independent, so
    the processor starts two multiply-adds in each cycle without waiting for the last ones. Written in LLVM's
    language, since loops in Python leave it to the compiler's guess whether the sums stay in registers.
    Masked loads and stores (a lane beyond the last column reads 0 and writes nothing) serve ragged edges, so
    nothing needs to be padded to whole vectors.

    Few columns would leave most lanes of a vector idle. With `group` > 1 neighbouring lanes belong to one column
    and to `group` values of A that are neighbours in memory; at the end they are added up. A step of k is then a
    whole group.
    """

    @by_hand(functools.partial(_emit_tile, vectors, group))
    def tile(a, rows, i0, m, cols, k0, k1, b, brows, j0, n, c, crows, add, bias, biased):
        """C[i, j0:] = start + sum over k0 <= k < k1 of A[i, k] * B[k, j0:], for i from i0 on; m rows, n columns left.

        The start is C itself (add), the bias (biased), or 0.
        """
        columns = min(n, vectors * (VECTOR_BYTES // a.itemsize) // group)
        lanes = np.arange(columns * group).reshape(columns, group)
        B = b[brows[k0:k1, None, None] + j0 + lanes]  # (K, columns, group)
        for i in range(i0, i0 + min(m, _rows_of(vectors))):
            A = a[rows[i] + cols[k0:k1, None] + np.arange(group)]  # (K, group)
            crow = c[crows[i] + j0 :][:columns]
            start = crow if add else bias[j0 : j0 + columns] if biased else 0
            crow[:] = start + np.einsum("kg,kjg->j", A, B)

    return tile


def _rows_of(vectors: int) -> int:
    """How many rows a tile of so many vectors has."""
    return TALL_ROWS if vectors == 1 else TILE_ROWS


def _emit_tile(
    vectors, group, builder, element, a, rows, i0, m, cols, k0, k1, b, brows, j0, n, c, crows, add, bias, biased
) -> None:
    """Write the tile's LLVM code: masks, the loop over k, the store.

    Both come twice, with masks and without: a processor without AVX-512 has no registers for masks, and is slow to
    store with them.
    """
    tall = _rows_of(vectors)
    v = Vectors(builder, element, VECTOR_BYTES // BYTES[element])
    starts = [I64(i * v.lanes) for i in range(vectors)]
    inside = [v.below(builder.mul(I64(group), builder.sub(n, s))) for s in starts]
    columns = [v.below(builder.sub(n, s)) for s in starts]
    live = [builder.icmp_signed("<", I64(r), m) for r in range(tall)]
    row = [builder.add(i0, builder.select(live[r], I64(r), I64(0))) for r in range(tall)]  # a dead row reads row i0
    arow = [v.at(a, builder.load(v.at(rows, r))) for r in row]
    sums = [[cgutils.alloca_once_value(builder, v.zero) for _ in starts] for _ in row]

    def add_up(masks) -> None:
        with cgutils.for_range_slice(builder, k0, k1, I64(1), I64) as (k, _):
            acol, brow = builder.load(v.at(cols, k)), builder.load(v.at(brows, k))
            bs = [v.load(mask, b, brow, j0, s) for s, mask in zip(starts, masks, strict=True)]
            for r in range(tall):
                ar = _emit_group(v, group, v.at(arow[r], acol))
                for total, bv in zip(sums[r], bs, strict=True):
                    builder.store(v.multiply_add(ar, bv, builder.load(total)), total)

    # One row after the other, each loaded after the last one is stored: rows of C may overlap (conv2d_input
    # relies on it).
    begins, started = builder.select(add, c, bias), builder.or_(add, biased)

    def write(whole: bool) -> None:
        for r in range(tall):
            crow = builder.load(v.at(crows, row[r]))
            for s, mask, total in zip(starts, columns, sums[r], strict=True):
                written = v.splat(live[r]) if whole else builder.and_(mask, v.splat(live[r]))
                old = v.load(builder.and_(written, v.splat(started)), begins, builder.select(add, crow, I64(0)), j0, s)
                new = builder.fadd(old, _emit_folded(v, group, builder.load(total)))
                v.store(new, None if whole else written, c, crow, j0, s)

    full = builder.icmp_signed(">=", builder.mul(I64(group), n), I64(vectors * v.lanes))
    with builder.if_else(full) as (then, otherwise):
        with then:
            add_up([None] * vectors)
        with otherwise:
            add_up(inside)
    if group > 1:  # whose columns fill a part of a vector
        write(whole=False)
        return
    with builder.if_else(builder.and_(full, live[-1])) as (then, otherwise):
        with then:
            write(whole=True)
        with otherwise:
            write(whole=False)


def _emit_group(v, group, place):
    """`group` neighbouring values of A, repeated to a vector."""
    if group == 1:
        return v.splat(v.builder.load(place))
    pointer = ir.VectorType(v.element, group).as_pointer()
    return v.chosen(v.builder.load(v.builder.bitcast(place, pointer), align=v.size), *range(group))


def _emit_folded(v, group, total):
    """The sums of each group, side by side."""
    for _ in range(group.bit_length() - 1):
        total = v.builder.fadd(v.chosen(total, *range(0, v.lanes, 2)), v.chosen(total, *range(1, v.lanes, 2)))
    return total


_tile_1, _tile_2 = _tile_of(1), _tile_of(2)
_tile_of_2, _tile_of_4, _tile_of_8, _tile_of_16 = (_tile_of(1, group) for group in (2, 4, 8, 16))


@compiled()
def _multiply(a, rows, cols, b, brows, n, c, crows, add, bias):
    """C (+)= A B, over blocks of k, pairs of vectors of columns, tiles of rows; tables as above.

    Without `add`, C begins at the bias, or at 0 if that is empty.
    """
    lanes = VECTOR_BYTES // a.itemsize
    for k0 in range(0, len(cols), BLOCK_K):
        k1, more, biased = min(k0 + BLOCK_K, len(cols)), add or k0 > 0, len(bias) > 0
        for j in range(0, n, 2 * lanes):
            if n - j > lanes:
                for i in range(0, len(rows), TILE_ROWS):
                    m = len(rows) - i
                    _tile_2(a, rows, i, m, cols, k0, k1, b, brows, j, n - j, c, crows, more, bias, biased)
            else:
                for i in range(0, len(rows), TALL_ROWS):
                    m = len(rows) - i
                    _tile_1(a, rows, i, m, cols, k0, k1, b, brows, j, n - j, c, crows, more, bias, biased)


@compiled()
def _multiply_groups(a, rows, cols, b, brows, n, c, crows, bias, group):
    """C = bias + A B for n <= lanes / group columns; `cols` and `brows` count groups."""
    K, biased = len(cols), len(bias) > 0
    for i in range(0, len(rows), TALL_ROWS):
        m = len(rows) - i
        if group == 2:
            _tile_of_2(a, rows, i, m, cols, 0, K, b, brows, 0, n, c, crows, False, bias, biased)
        elif group == 4:
            _tile_of_4(a, rows, i, m, cols, 0, K, b, brows, 0, n, c, crows, False, bias, biased)
        elif group == 8:
            _tile_of_8(a, rows, i, m, cols, 0, K, b, brows, 0, n, c, crows, False, bias, biased)
        elif a.itemsize == 4:
            _tile_of_16(a, rows, i, m, cols, 0, K, b, brows, 0, n, c, crows, False, bias, biased)


def matmul(a: Array, b: Array, bias: Array | None = None) -> Array:
    """Matrix product (M, K) @ (K, N), plus bias (N,); a and b may be transposed in memory. Defined in reference.py."""
    same_float("matmul", a, b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise RuntimeError(f"matmul: shapes {a.shape} and {b.shape} cannot be multiplied")
    start = _start("matmul", bias, b.shape[1], a.dtype)
    c = empty((a.shape[0], b.shape[1]), a.dtype)
    if a.shape[1] == 0:
        c[...] = start if start.size else 0
    elif c.size:
        with parallel_region(_elements(c.size * a.shape[1])):
            _matmul(*_flat_matrix(a), *_flat_matrix(b), c.reshape(-1), start, *c.shape, a.shape[1])
    return c


def _elements(multiply_adds: int) -> int:
    """As many elements as take the time of these multiply-adds."""
    return multiply_adds // 32


def _start(name: str, bias: Array | None, columns: int, dtype: np.dtype) -> Array:
    """What a product begins at: the bias, or an empty array for none."""
    if bias is None:
        return np.empty(0, dtype)
    if bias.shape != (columns,) or bias.dtype != dtype:
        raise RuntimeError(f"{name}: expected a bias of shape ({columns},), {dtype}, not {bias.shape}, {bias.dtype}")
    return plain(bias)


def _flat_matrix(a: Array) -> tuple[Array, int, int]:
    """The values of a matrix as one vector, and how far apart its rows and its columns are in it."""
    if not a.flags.c_contiguous and a.T.flags.c_contiguous:
        return plain(a.T).reshape(-1), 1, a.shape[0]
    return plain(a).reshape(-1), a.shape[1], 1


@compiled(parallel=True)
def _matmul(a, arow, acol, b, brow, bcol, c, bias, M, N, K):
    """Why it is fast: a task copies its block of B, whatever its strides, into cache and uses it for
    all its rows."""
    panels, chunks = (N + PANEL - 1) // PANEL, (M + MATMUL_ROWS - 1) // MATMUL_ROWS
    for task in prange(panels * chunks):  # owns one block of C
        i, j = task // panels * MATMUL_ROWS, task % panels * PANEL
        _matmul_block(a, arow, acol, b, brow, bcol, c, bias, M, N, K, i, j)


@compiled()
def _matmul_block(a, arow, acol, b, brow, bcol, c, bias, M, N, K, i, j):
    i1, n = min(i + MATMUL_ROWS, M), min(PANEL, N - j)
    packed = np.empty(BLOCK_K * n, b.dtype)
    rows, crows, brows = np.arange(i, i1) * arow, np.arange(i, i1) * N + j, np.arange(BLOCK_K) * n
    for k0 in range(0, K, BLOCK_K):
        k1 = min(k0 + BLOCK_K, K)
        _pack(b, k0, k1, brow, j, n, bcol, packed)
        cols = np.arange(k0, k1) * acol
        _multiply(a, rows, cols, packed, brows, n, c, crows, k0 > 0, bias[j : j + n])


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


def conv2d(x: Array, w: Array, geometry: ConvGeometry, bias: Array | None = None) -> Array:
    """Convolution (N, C, H, W), (O, C, KH, KW), (O,) -> (N, O, OH, OW), channels-last. Defined in reference.py."""
    _check(geometry, x=x, w=w)
    n, o, oh, ow = geometry.map_shape
    y, start = empty((n, oh, ow, o), x.dtype), _start("conv2d", bias, o, x.dtype)
    if geometry.image_channels == 0:
        y[...] = start if start.size else 0
    elif y.size:
        with parallel_region(_elements(geometry.multiply_adds)):
            wt = _channels_in_out(w).reshape(-1, o)  # (KH*KW*C, O)
            groups, tables = _grouped(geometry, VECTOR_BYTES // x.itemsize), _tables(geometry)
            if groups.size > 1:
                shared = wt[groups.taps] * groups.shares.astype(x.dtype)  # (groups, size, O)
                wt = np.ascontiguousarray(shared.transpose(0, 2, 1))
            sizes = (n, o, _image_length(geometry), groups.size)
            _conv2d(_padded(x, geometry), tables.pixels, groups.offsets, wt.reshape(-1), start, y.reshape(-1), *sizes)
    return y.transpose(0, 3, 1, 2)


@compiled(parallel=True)
def _conv2d(x, pixels, groups, w, bias, y, N, O, image, group):
    """Why it is fast: no matrix of columns is ever written; a pixel's window is read where it lies, and
    the padding, the one copy that is made, is no larger than the image."""
    chunk = _chunk_rows(N * len(pixels))
    for task in prange((N * len(pixels) + chunk - 1) // chunk):  # owns `chunk` pixels of the map
        _conv2d_rows(x, pixels, groups, w, bias, y, N, O, image, group, task * chunk, chunk)


@compiled()
def _conv2d_rows(x, pixels, groups, w, bias, y, N, O, image, group, start, chunk):
    stop = min(start + chunk, N * len(pixels))
    rows, crows = _pixel_rows(pixels, image, start, stop), np.arange(start, stop) * O
    wrows = np.arange(len(groups)) * (O * group)
    if group > 1:
        _multiply_groups(x, rows, groups, w, wrows, O, y, crows, bias, group)
    else:
        _multiply(x, rows, groups, w, wrows, O, y, crows, False, bias)


def conv2d_input(y: Array, w: Array, geometry: ConvGeometry, bias: Array | None = None) -> Array:
    """Transposed convolution (N, O, OH, OW), (O, C, KH, KW), (C,) -> (N, C, H, W). Defined in reference.py."""
    _check(geometry, y=y, w=w)
    n, c, h, width = geometry.image_shape
    x, start = empty((n, h, width, c), y.dtype), _start("conv2d_input", bias, c, y.dtype)
    if x.size:
        with parallel_region(_elements(geometry.multiply_adds)):
            wt = _kernel_inside(w)  # (O, KH*KW, C)
            yf = plain(y.transpose(0, 2, 3, 1)).reshape(-1)
            _, taps, run, pixels = _tables(geometry)
            sizes = (n, geometry.map_channels, _image_length(geometry), *_lines(geometry))
            _conv2d_input(yf, wt.reshape(-1), start, x.reshape(-1), pixels, taps, run, *sizes)
    return x.transpose(0, 3, 1, 2)


@compiled(parallel=True)
def _conv2d_input(y, w, bias, x, pixels, taps, run, N, O, image, H, line, top, left):
    """Why it is fast: the products of a pixel go from the registers straight into its window, no columns in
    between.

    Windows overlap, and a load that follows a store to a part of the same bytes is slow. `pixels` (as ordered
    by `_scattered`) goes down the columns of all images of the group, so that neighbours in a tile do not
    meet.
    """
    group = _group_images(N, len(pixels))
    for task in prange((N + group - 1) // group):  # owns `group` images
        n0, n1 = task * group, min(task * group + group, N)
        _scatter(y, w, bias, x, pixels, taps, run, O, image, H, line, top, left, n0, n1)


@compiled()
def _scatter(y, w, bias, x, pixels, taps, run, O, image, H, line, top, left, n0, n1):
    padded = _repeated(bias, (n1 - n0) * image)
    rows, windows = _scattered_rows(pixels, O, image, n0, n1)
    cols = np.arange(O)
    for t in range(0, len(taps), run):
        _multiply(y, rows, cols, w, cols * len(taps) + t, run, padded, windows + taps[t], True, bias)
    for n in range(n0, n1):
        _crop_image(padded, (n - n0) * image, x, n, H, line, top, left)


@compiled()
def _repeated(bias, length):
    """A vector that holds the bias again and again, or zeros if that is empty."""
    out = np.zeros(length, bias.dtype)
    done = min(len(bias), length)
    out[:done] = bias[:done]
    while 0 < done < length:
        more = min(done, length - done)
        _copy(out, done, out, 0, more)
        done += more
    return out


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
    _check(geometry, x=x, y=y)
    w = np.zeros(geometry.weight_shape, x.dtype)
    n, o, tables = geometry.batch, geometry.map_channels, _tables(geometry)
    if w.size and n:
        parts = _weight_parts(n * len(tables.pixels), w.size)
        partial = _scratch("partial", parts * len(tables.taps) * o, x.dtype)
        by_map = _by_map(len(tables.taps), tables.run, o, VECTOR_BYTES // x.itemsize)
        with parallel_region(_elements(geometry.multiply_adds)):
            yf = plain(y.transpose(0, 2, 3, 1)).reshape(-1)
            sizes = (parts, n, o, _image_length(geometry))
            _conv2d_weight(_padded(x, geometry), tables.pixels, tables.taps, tables.run, yf, partial, by_map, *sizes)
            tap, channel = (1, len(tables.taps)) if by_map else (o, 1)
            _sum_parts(partial, parts, tap, channel, w.reshape(o, geometry.image_channels, -1))
    return w


def _by_map(taps: int, run: int, o: int, lanes: int) -> bool:
    """Whether the channels of the map are rather the rows of the product than its columns: which of the two takes
    fewer vectors of multiply-adds, idle ones included."""

    def cost(rows: int, columns: int) -> int:
        tall = TALL_ROWS if columns <= lanes else TILE_ROWS
        return -(-rows // tall) * tall * -(-columns // lanes)

    return taps // run * cost(o, run) < cost(taps, o)


@compiled(parallel=True)
def _conv2d_weight(x, pixels, taps, run, y, partial, by_map, parts, N, O, image):
    """Why it is fast: as conv2d, with the tables of pixels and taps exchanged: the sum runs over the
    pixels, a block of which stays in cache for all taps."""
    T = len(taps)
    block = run if by_map else CHUNK_ROWS
    blocks = (T + block - 1) // block
    for task in prange(parts * blocks):  # owns a block of taps in one of the partial sums
        part, t0 = task // blocks, task % blocks * block
        _weight_block(x, pixels, taps, y, partial, by_map, parts, N, O, image, part, t0, min(t0 + block, T))


@compiled()
def _weight_block(x, pixels, taps, y, partial, by_map, parts, N, O, image, part, t0, t1):
    """The taps are the rows of the product and the map's channels its columns, or, by_map, the other way round."""
    total, T, none = N * len(pixels), len(taps), partial[:0]
    start, stop = part * total // parts, (part + 1) * total // parts
    windows, values = _pixel_rows(pixels, image, start, stop), np.arange(start, stop) * O
    if by_map:
        channels = np.arange(O)
        crows = (part * O + channels) * T + t0
        _multiply(y, channels, values, x, windows + taps[t0], t1 - t0, partial, crows, False, none)
    else:
        crows = (part * T + np.arange(t0, t1)) * O
        _multiply(x, taps[t0:t1], windows, y, values, O, partial, crows, False, none)


@compiled(parallel=True)
def _sum_parts(partial, parts, tap, channel, w):
    """`tap` and `channel`: how far apart the sums of neighbouring taps and of neighbouring channels lie."""
    O, C, T = w.shape
    for c in prange(C):  # owns one channel of the weight
        for t in range(T):
            for o in range(O):
                at = (t * C + c) * tap + o * channel
                total = partial[at]
                for part in range(1, parts):
                    total += partial[part * (O * C * T) + at]
                w[o, c, t] = total


@compiled()
def _pixel_rows(pixels, image, start, stop):
    """Where the windows of pixels start to stop of the whole batch begin, in the batch of padded images."""
    rows = np.empty(stop - start, np.int64)
    n, q, i = start // len(pixels), start % len(pixels), 0
    while i < len(rows):
        here = min(len(pixels) - q, len(rows) - i)
        for j in range(np.uint64(here)):  # unsigned, since signed offsets are checked for being negative
            rows[np.uint64(i) + j] = n * image + pixels[np.uint64(q) + j]
        n, q, i = n + 1, 0, i + here
    return rows


@compiled()
def _chunk_rows(rows):
    """Rows of a task: enough to be worth a task, few enough to give work to many cores; whole tiles."""
    return max(1, min(CHUNK_ROWS, rows // 8) // TILE_ROWS) * TILE_ROWS


@compiled()
def _group_images(N, P):
    """Images of a task, likewise."""
    return max(1, min(_chunk_rows(N * P), CHUNK_ROWS) // P)


def _weight_parts(rows: int, size: int) -> int:
    """Into how many sums the weight gradient is split: many for many pixels, few for a big weight."""
    return max(1, min(16, rows // 512, 2**18 // size))


class _Tables(NamedTuple):
    """Offsets in a padded image as a vector."""

    pixels: Array  # (P,) where each pixel's window begins
    taps: Array  # (T,) where in it each tap lies
    run: int  # how many taps are neighbours in memory: a row of the kernel, or, dilated, the channels of a pixel
    scattered: Array  # (P, 2) for each pixel, columns first: its number in the map, and where its window begins


def _tables(g: ConvGeometry) -> _Tables:
    return _tables_of(g.map_size, g.kernel, g.stride, g.dilation, g.padded_size[1], g.image_channels)


@functools.lru_cache(maxsize=32)
def _tables_of(map_size: Pair, kernel: Pair, stride: Pair, dilation: Pair, width: int, c: int) -> _Tables:
    """`width` of the padded image."""
    (oh, ow), (kh, kw), (sh, sw), (dh, dw) = map_size, kernel, stride, dilation
    i, j = np.arange(oh)[:, None], np.arange(ow)
    u, v = np.arange(kh)[:, None, None], np.arange(kw)[:, None]
    pixels = ((i * sh * width + j * sw) * c).reshape(-1)  # (OH, OW)
    taps = (u * dh * width + v * dw) * c + np.arange(c)  # (KH, KW, C)
    order = np.arange(oh * ow).reshape(oh, ow).T.reshape(-1)
    scattered = np.ascontiguousarray(np.stack([order, pixels[order]], axis=1))
    return _Tables(pixels, taps.reshape(-1), kw * c if dw == 1 else c, scattered)


class _Groups(NamedTuple):
    """Neighbouring taps that one step of a tile takes together."""

    size: int  # of a group
    offsets: Array  # (groups,) where in a window each begins
    taps: Array  # (groups, size) the numbers of its taps
    shares: Array  # (groups, size, 1) which part of the tap's weight it takes: 1, or half where two groups overlap


@functools.lru_cache(maxsize=256)
def _grouped(geometry: ConvGeometry, lanes: int) -> _Groups:
    """Groups so large that they fill the lanes of a vector with all channels of the map.

    Where their size does not divide a run of neighbours, the last two overlap, and each takes half of the common
    taps' weights: unlike a weight of 0, half of one treats infinite pixels as the whole does.
    """
    tables, size = _tables(geometry), lanes
    while (size > 1 and size * geometry.map_channels > lanes) or size > tables.run:
        size //= 2
    begins = np.minimum(np.arange(0, tables.run, size), tables.run - size)
    begins = (np.arange(0, len(tables.taps), tables.run)[:, None] + begins).reshape(-1)
    taps = begins[:, None] + np.arange(size)  # (groups, size)
    shares = 1 / np.bincount(taps.reshape(-1))[taps]
    return _Groups(size, tables.taps[begins], taps, shares[:, :, None])


def _image_length(geometry: ConvGeometry) -> int:
    height, width = geometry.padded_size
    return height * width * geometry.image_channels


def _padded(x: Array, geometry: ConvGeometry) -> Array:
    """x as a vector of padded channels-last images, good until this thread's next call."""
    x = plain(x.transpose(0, 2, 3, 1))  # (N, H, W, C)
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
    _move_channels_last(plain(w).reshape(o, c, kh * kw), out)
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
    _move_taps_inside(plain(w).reshape(o, c, kh * kw), out)
    return out


@compiled(parallel=True)
def _move_taps_inside(w, out):
    O, C, T = w.shape
    for o in prange(O):  # owns one output channel
        for t in range(T):
            for c in range(C):
                out[o, t, c] = w[o, c, t]


def plain(x: Array) -> Array:
    """x if it is C-contiguous, aligned and writable, else such a copy: other kinds would compile anew."""
    return x if x.flags.carray else np.array(x, order="C")


def same_float(name: str, first: Array, *others: Array) -> None:
    """Refuse what would compile anew, or not at all. On the way of every call, so without ado."""
    kind = first.dtype
    for array in others:
        if array.dtype != kind:
            break
    else:
        if kind.char in "fd":
            return
    found = ", ".join(str(a.dtype) for a in (first, *others))
    raise RuntimeError(f"{name}: expected arrays of one type, float32 or float64, got {found}")


def _check(geometry: ConvGeometry, **arrays: Array) -> None:
    """Compiled loops check no bounds, so the arrays must have the geometry's shapes."""
    expected = {"x": geometry.image_shape, "w": geometry.weight_shape, "y": geometry.map_shape}
    for name, array in arrays.items():
        if array.shape != expected[name]:
            raise RuntimeError(f"convolution: {name} has shape {array.shape}, but its geometry says {expected[name]}")
    same_float("convolution", *arrays.values())
