"""The three convolution kernels: im2col without writing the matrix down.

A convolution is a matrix product, of the weight and of im2col(x), which holds what each tap of the kernel meets at each
pixel of the map (reference.py). Written down it is KH*KW times as large as the image at stride 1, and all of it copies.
But in channels-last memory, with x padded and seen as one long vector, its element for pixel i and tap k is

    A[i, k] = x[rows[i] + cols[k]]

because the offset of what a tap meets is the offset of the pixel's window plus that of the tap in the window. Two short
tables take the place of the matrix, and `products.multiply` reads the image through them. In the literature this is
indirect convolution: M. Dukhan, The indirect convolution algorithm, arXiv:1907.02129, 2019, with one table of pointers.

conv2d_input, the transposed convolution, writes through the same tables: it is col2im. conv2d_weight exchanges them.

With G groups of channels there are G such products, through the same tables: group g only begins g * C channels further
on in the image, and g * O/G in the map. One channel in each is another matter: depthwise.py.

Letters: N, H, W, O, OH, OW, KH, KW as in reference.py, and C the image's channels in one group. P = OH*OW pixels of a
map, T = KH*KW*C values under a window.

How the work is split depends on the shapes alone, never on the number of threads, and partial sums are added in a fixed
order, so the number of threads changes no bit of a result. `prange` runs only over what an iteration owns alone.
"""

# ruff: noqa: E741

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from numba import prange

from minidl.kernels import _arguments
from minidl.kernels._memory import empty
from minidl.kernels.cpu import depthwise
from minidl.kernels.cpu._arrays import channels_last, copy, plain, repeated
from minidl.kernels.cpu._compiling import compiled
from minidl.kernels.cpu._threads import parallel_region
from minidl.kernels.cpu._vectors import VECTOR_BYTES
from minidl.kernels.cpu.products import elements, multiply, multiply_groups, start_of
from minidl.kernels.cpu.tile import TALL_ROWS, TILE_ROWS
from minidl.kernels.geometry import ConvGeometry, Pair

Array = np.ndarray
Shape = tuple[int, int, int]

CHUNK_ROWS = 512  # rows of A for one task of a parallel loop, which share a padded copy of their windows
MOST_PARTS = 16  # partial sums of a weight gradient


def conv2d(x: Array, w: Array, geometry: ConvGeometry, bias: Array | None = None) -> Array:
    """Convolution (N, G*C, H, W), (O, C, KH, KW), (O,) -> (N, O, OH, OW), channels-last. Defined in reference.py."""
    _arguments.of_convolution(geometry, x=x, w=w)
    n, o, oh, ow = geometry.map_shape
    y, start = empty((n, oh, ow, o), x.dtype), start_of("conv2d", bias, o, x.dtype)
    if geometry.is_depthwise:
        depthwise.fill(geometry, start, y=y, x=channels_last(x), w=plain(w.reshape(o, -1).T))
    elif geometry.image_channels == 0:
        y[...] = start if start.size else 0
    elif y.size:
        with parallel_region(elements(geometry.multiply_adds)):
            wt = _channels_in_out(w).reshape(-1, o)  # (KH*KW*C, O)
            groups, tables = _grouped(geometry, VECTOR_BYTES // x.itemsize), _tables(geometry)
            if groups.size > 1:
                shared = wt[groups.taps] * groups.shares.astype(x.dtype)  # (groups, size, O)
                wt = np.ascontiguousarray(shared.transpose(0, 2, 1))
            sizes = (n, geometry.groups, w.shape[1], o, groups.size, tables.taps[-1], *_lines(geometry))
            _conv2d(channels_last(x), tables.pixels, groups.offsets, wt.reshape(-1), start, y.reshape(-1), *sizes)
    return y.transpose(0, 3, 1, 2)


@compiled(parallel=True)
def _conv2d(x, pixels, groups, w, bias, y, N, G, C, O, group, reach, H, line, top, left):
    """Why it is fast: the matrix im2col(x) is never written; a pixel's window is read where it lies, and the only copy
    made, a padded one, is of the lines that the task works on, and stays in a cache."""
    chunk = _chunk_rows(N * len(pixels))
    for task in prange((N * len(pixels) + chunk - 1) // chunk):  # owns `chunk` pixels of the map
        start, stop = task * chunk, min((task + 1) * chunk, N * len(pixels))
        _conv2d_rows(x, pixels, groups, w, bias, y, G, C, O, group, reach, H, line, top, left, start, stop)


@compiled()
def _conv2d_rows(x, pixels, groups, w, bias, y, G, C, O, group, reach, H, line, top, left, start, stop):
    padded, rows = _padded_windows(x, pixels, reach, H, line, top, left, start, stop)
    crows, each = np.arange(start, stop) * O, O // G
    wrows = np.arange(len(groups)) * (O * group)
    for g in range(G):
        o = g * each
        xg, wg, yg, begins = padded[g * C :], w[o * group :], y[o:], bias[o : o + each]
        if group > 1:
            multiply_groups(xg, rows, groups, wg, wrows, each, yg, crows, begins, group)
        else:
            multiply(xg, rows, groups, wg, wrows, each, yg, crows, False, begins)


def conv2d_input(y: Array, w: Array, geometry: ConvGeometry, bias: Array | None = None) -> Array:
    """Transposed convolution (N, O, OH, OW), (O, C, KH, KW), (G*C,) -> (N, G*C, H, W). Defined in reference.py."""
    _arguments.of_convolution(geometry, y=y, w=w)
    (n, c, h, width), o = geometry.image_shape, geometry.map_channels
    start = start_of("conv2d_input", bias, c, y.dtype)
    if geometry.map_size == geometry.image_size and geometry.stride == (1, 1) and geometry.groups == 1:
        return conv2d(y, w[:, :, ::-1, ::-1].swapaxes(0, 1), _exchanged(geometry), bias)
    x = empty((n, h, width, c), y.dtype)
    if geometry.is_depthwise:
        depthwise.fill(geometry, start, x=x, y=channels_last(y), w=plain(w.reshape(o, -1).T))
    elif x.size:
        with parallel_region(elements(geometry.multiply_adds)):
            wt = _kernel_inside(w)  # (O, KH*KW, C)
            yf = channels_last(y)
            _, taps, run, pixels = _tables(geometry)
            sizes = (n, geometry.groups, w.shape[1], o, _padded_elements(geometry), *_lines(geometry))
            _conv2d_input(yf, wt.reshape(-1), start, x.reshape(-1), pixels, taps, run, *sizes)
    return x.transpose(0, 3, 1, 2)


@functools.lru_cache(maxsize=256)
def _exchanged(geometry: ConvGeometry) -> ConvGeometry:
    """The convolution from the map to the image whose tap (u, v) is the other one's tap (KH-1-u, KW-1-v).

    If both are of one size at stride 1, it is the transposed convolution: pixel h of the image is in the windows that
    begin at h - d*u, and 2p = d*(KH-1). It writes each pixel once. It reads zeros beside the map, so a weight that is
    not finite spreads NaN to where no window lies.
    """
    return dataclasses.replace(geometry, image_channels=geometry.map_channels, map_channels=geometry.image_channels)


@compiled(parallel=True)
def _conv2d_input(y, w, bias, x, pixels, taps, run, N, G, C, O, image, H, line, top, left):
    """col2im of a product. Why it is fast: a pixel's products go from the registers straight into its window, and no
    matrix of columns stands in between.

    Windows overlap, and a load soon after a store to some of the same bytes is slow. So `pixels` (`_Tables.scattered`)
    runs down the columns of the map, through all images of the batch's part: neighbours in a tile do not overlap.
    """
    images = _images_of_task(N, len(pixels))
    for task in prange((N + images - 1) // images):  # owns that many images
        n0, n1 = task * images, min(task * images + images, N)
        _scatter(y, w, bias, x, pixels, taps, run, G, C, O, image, H, line, top, left, n0, n1)


@compiled()
def _scatter(y, w, bias, x, pixels, taps, run, G, C, O, image, H, line, top, left, n0, n1):
    padded, each = repeated(bias, (n1 - n0) * image), O // G
    rows, windows = _scattered_rows(pixels, O, image, n0, n1)
    cols = np.arange(each)
    for g in range(G):
        yg, wg, into = y[g * each :], w[g * each * len(taps) :], padded[g * C :]
        for t in range(0, len(taps), run):
            multiply(yg, rows, cols, wg, cols * len(taps) + t, run, into, windows + taps[t], True, bias)
    for n in range(n0, n1):
        _crop_image(padded, (n - n0) * image, x, n, H, line, top, left)


@compiled()
def _scattered_rows(pixels, O, image, n0, n1):
    """Where the pixels of images n0 to n1 lie in the map, and where their windows begin among these images."""
    P, images = len(pixels), n1 - n0
    rows, windows = np.empty(P * images, np.int64), np.empty(P * images, np.int64)
    for q in range(P):
        for n in range(images):
            rows[q * images + n] = ((n0 + n) * P + pixels[q, 0]) * O
            windows[q * images + n] = n * image + pixels[q, 1]
    return rows, windows


def conv2d_weight(x: Array, y: Array, geometry: ConvGeometry) -> Array:
    """Gradient in the weight (N, G*C, H, W), (N, O, OH, OW) -> (O, C, KH, KW). Defined in reference.py."""
    _arguments.of_convolution(geometry, x=x, y=y)
    w = np.zeros(geometry.weight_shape, x.dtype)
    n, o, tables = geometry.batch, geometry.map_channels, _tables(geometry)
    if geometry.is_depthwise:
        each = np.empty((n, len(tables.taps), o), x.dtype)  # (N, KH*KW, C): of one image each
        depthwise.fill(geometry, np.empty(0, x.dtype), parts=each, x=channels_last(x), y=channels_last(y))
        w[...] = each.sum(axis=0).T.reshape(w.shape)
    elif w.size and n:
        parts = _weight_parts(n * len(tables.pixels), w.size)
        partial = empty((parts * len(tables.taps) * o,), x.dtype)
        by_map = _by_map(len(tables.taps), tables.run, o // geometry.groups, VECTOR_BYTES // x.itemsize)
        with parallel_region(elements(geometry.multiply_adds)):
            yf = channels_last(y)
            sizes = (parts, n, geometry.groups, w.shape[1], o, *_lines(geometry))
            _conv2d_weight(channels_last(x), tables.pixels, tables.taps, tables.run, yf, partial, by_map, *sizes)
            tap, channel = (1, len(tables.taps)) if by_map else (o, 1)
            _sum_parts(partial, parts, tap, channel, w.reshape(*w.shape[:2], -1))
    return w


def _by_map(taps: int, run: int, o: int, lanes: int) -> bool:
    """Whether the map's channels are the rows of the product, not its columns: whichever takes fewer vectors of
    multiply-adds, idle lanes included."""

    def cost(rows: int, columns: int) -> float:
        tall, vectors = TALL_ROWS if columns <= lanes else TILE_ROWS, -(-columns // lanes)
        return -(-rows // tall) * tall * (vectors + vectors % 2 / 4)  # one vector alone takes a quarter longer

    return taps // run * cost(o, run) < cost(taps, o)


@compiled(parallel=True)
def _conv2d_weight(x, pixels, taps, run, y, partial, by_map, parts, N, G, C, O, H, line, top, left):
    """Why it is fast: like conv2d with the tables of pixels and taps exchanged. The sum runs over the pixels, a chunk
    of which stays in cache for all taps."""
    rows, unit = N * len(pixels), run if by_map else TILE_ROWS
    units = (len(taps) + unit - 1) // unit
    blocks, chunks = max(1, min(MOST_PARTS // parts, units)), max(1, rows // parts // CHUNK_ROWS)
    pieces = parts * chunks
    for task in prange(parts * blocks):  # owns a block of taps in one of the partial sums
        part, block = task // blocks, task % blocks
        t0, t1 = block * units // blocks * unit, min((block + 1) * units // blocks * unit, len(taps))
        for chunk in range(chunks):
            start, stop = (part * chunks + chunk) * rows // pieces, (part * chunks + chunk + 1) * rows // pieces
            padded, windows = _padded_windows(x, pixels, taps[-1], H, line, top, left, start, stop)
            _add_chunk(padded, windows, taps, run, y, partial, by_map, G, C, O, part, t0, t1, start, chunk > 0)


@compiled()
def _add_chunk(x, windows, taps, run, y, partial, by_map, G, C, O, part, t0, t1, start, more):
    """The rows of the product are taps and its columns the map's channels, or (by_map) the other way round."""
    T, each, none = len(taps), O // G, partial[:0]
    values = np.arange(start, start + len(windows)) * O
    for g in range(G):
        xg, yg = x[g * C :], y[g * each :]
        if by_map:
            channels = np.arange(each)
            for t in range(t0, t1, run):
                crows = (part * O + g * each + channels) * T + t
                multiply(yg, channels, values, xg, windows + taps[t], run, partial, crows, more, none)
        else:
            crows = (part * T + np.arange(t0, t1)) * O + g * each
            multiply(xg, taps[t0:t1], windows, yg, values, each, partial, crows, more, none)


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
    """Where in the batch of padded images the windows of pixels start to stop begin, counted through the batch."""
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
    return max(1, min(CHUNK_ROWS, rows // 16) // TILE_ROWS) * TILE_ROWS


@compiled()
def _images_of_task(N, P):
    """Likewise, counted in images, and fewer of them: conv2d_input reads and writes their windows again and again."""
    return max(1, min(_chunk_rows(N * P), CHUNK_ROWS // 4) // P)


def _weight_parts(rows: int, size: int) -> int:
    """Into how many partial sums the weight gradient is split: many for many pixels, few for a large weight."""
    return max(1, min(MOST_PARTS, rows // 512, 2**19 // size))


class _Tables(NamedTuple):
    """Offsets into a padded channels-last image, seen as a vector."""

    pixels: Array  # (P,) where each pixel's window begins
    taps: Array  # (T,) where in the window each tap lies
    run: int  # how many taps are neighbours in memory: a kernel's row or, with dilation or groups, a pixel's channels
    scattered: Array  # (P, 2) down the columns of the map: each pixel's number, and where its window begins


def _tables(g: ConvGeometry) -> _Tables:
    return _tables_of(g.map_size, g.kernel, g.stride, g.dilation, g.padded_size[1], g.image_channels, g.groups)


@functools.lru_cache(maxsize=32)
def _tables_of(map_size: Pair, kernel: Pair, stride: Pair, dilation: Pair, width: int, c: int, groups: int) -> _Tables:
    """`width` is that of the padded image, which has c channels in all."""
    (oh, ow), (kh, kw), (sh, sw), (dh, dw) = map_size, kernel, stride, dilation
    i, j = np.arange(oh)[:, None], np.arange(ow)
    u, v = np.arange(kh)[:, None, None], np.arange(kw)[:, None]
    pixels = ((i * sh * width + j * sw) * c).reshape(-1)  # (OH, OW)
    taps = (u * dh * width + v * dw) * c + np.arange(c // groups)  # (KH, KW, C)
    order = np.arange(oh * ow).reshape(oh, ow).T.reshape(-1)
    scattered = np.ascontiguousarray(np.stack([order, pixels[order]], axis=1))
    return _Tables(pixels, taps.reshape(-1), kw * c if dw == groups == 1 else c // groups, scattered)


class _Groups(NamedTuple):
    """Neighbouring taps that one step of a tile takes together (tile.py, `group`)."""

    size: int  # of a group
    offsets: Array  # (groups,) where in a window each group begins
    taps: Array  # (groups, size) the numbers of its taps
    shares: Array  # (groups, size, 1) the part of each tap's weight that it takes: 1, or 1/2 where two groups overlap


@functools.lru_cache(maxsize=256)
def _grouped(geometry: ConvGeometry, lanes: int) -> _Groups:
    """Groups of taps so large that, with all channels of the map in a group, they fill the lanes of a vector.

    If their size does not divide a run of neighbouring taps, the last two groups overlap, and each takes half of the
    weight of the taps they share. Weights of 0 would not do: 0 times an infinite pixel is NaN.
    """
    tables, size = _tables(geometry), lanes
    while (size > 1 and size * (geometry.map_channels // geometry.groups) > lanes) or size > tables.run:
        size //= 2
    begins = np.minimum(np.arange(0, tables.run, size), tables.run - size)
    begins = (np.arange(0, len(tables.taps), tables.run)[:, None] + begins).reshape(-1)
    taps = begins[:, None] + np.arange(size)  # (groups, size)
    shares = 1 / np.bincount(taps.reshape(-1))[taps]
    return _Groups(size, tables.taps[begins], taps, shares[:, :, None])


def _padded_elements(geometry: ConvGeometry) -> int:
    height, width = geometry.padded_size
    return height * width * geometry.image_channels


def _lines(geometry: ConvGeometry) -> tuple[int, int, int, int]:
    """An image as lines of W*C values: their number and length, and the padding above them and to their left."""
    (h, width), (ph, pw), c = geometry.image_size, geometry.padding, geometry.image_channels
    return h, width * c, ph, pw * c


@compiled()
def _padded_windows(x, pixels, reach, H, line, top, left, start, stop):
    """The padded lines that the windows of pixels start to stop meet, and where in them each window begins."""
    high, wide = H + 2 * top, line + 2 * left
    windows = _pixel_rows(pixels, high * wide, start, stop)
    if top == left == 0:
        return x, windows
    first, last = windows[0] // wide, (windows[-1] + reach) // wide
    padded = np.zeros((last + 1 - first) * wide, x.dtype)
    for q in range(first, last + 1):  # a line, counted through the batch of padded images
        n, h = q // high, q % high - top
        if 0 <= h < H:
            copy(padded, (q - first) * wide + left, x, (n * H + h) * line, line)
    return padded, windows - first * wide


@compiled()
def _crop_image(padded, at, x, n, H, line, top, left):
    """Copy the inside of the padded image that begins at `at` to image n of x."""
    for h in range(H):
        copy(x, (n * H + h) * line, padded, at + (top + h) * (line + 2 * left) + left, line)


def _channels_in_out(w: Array) -> Array:
    """(O, C, KH, KW) -> (KH*KW, C, O)"""
    o, c, t = *w.shape[:2], w.shape[2] * w.shape[3]
    return _moved(w, (t, c, o), (c, o, t), (t, c * t), (o, c * o))


def _kernel_inside(w: Array) -> Array:
    """(O, C, KH, KW) -> (O, KH*KW, C)"""
    o, c, t = *w.shape[:2], w.shape[2] * w.shape[3]
    return _moved(w, (o, t, c), (o, c, t), (c * t, t), (t * c, c))


def _moved(w: Array, shape: Shape, sizes: Shape, read: Pair, written: Pair) -> Array:
    """The weight in another memory order, of this shape; see `_move` for the rest."""
    out = np.empty(shape, w.dtype)
    _move(plain(w).reshape(-1), out.reshape(-1), *sizes, *read, *written)
    return out


@compiled(parallel=True)
def _move(w, out, A, B, T, wa, wb, oa, ot):
    """out[a*oa + t*ot + b] = w[a*wa + b*wb + t]: a and b the channels, t the taps."""
    for a in prange(A):  # owns one channel
        for t in range(T):
            for b in range(np.uint64(B)):  # unsigned, since signed offsets are checked for being negative
                out[np.uint64(a * oa + t * ot) + b] = w[np.uint64(a * wa + t) + b * np.uint64(wb)]
