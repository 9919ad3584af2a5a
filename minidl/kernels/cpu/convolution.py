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

import functools
import threading
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

CHUNK_ROWS = 20 * TILE_ROWS  # rows of A for one task of a parallel loop
LARGEST_KEPT = 2**23  # elements of a buffer that is kept from call to call


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
            sizes = (n, geometry.groups, w.shape[1], o, _padded_elements(geometry), groups.size)
            _conv2d(_padded(x, geometry), tables.pixels, groups.offsets, wt.reshape(-1), start, y.reshape(-1), *sizes)
    return y.transpose(0, 3, 1, 2)


@compiled(parallel=True)
def _conv2d(x, pixels, groups, w, bias, y, N, G, C, O, image, group):
    """Why it is fast: the matrix im2col(x) is never written; a pixel's window is read where it lies, and the only copy
    made, the padded image, is hardly larger than the image itself."""
    chunk = _chunk_rows(N * len(pixels))
    for task in prange((N * len(pixels) + chunk - 1) // chunk):  # owns `chunk` pixels of the map
        _conv2d_rows(x, pixels, groups, w, bias, y, N, G, C, O, image, group, task * chunk, chunk)


@compiled()
def _conv2d_rows(x, pixels, groups, w, bias, y, N, G, C, O, image, group, start, chunk):
    stop, each = min(start + chunk, N * len(pixels)), O // G
    rows, crows = _pixel_rows(pixels, image, start, stop), np.arange(start, stop) * O
    wrows = np.arange(len(groups)) * (O * group)
    for g in range(G):
        o = g * each
        xg, wg, yg, begins = x[g * C :], w[o * group :], y[o:], bias[o : o + each]
        if group > 1:
            multiply_groups(xg, rows, groups, wg, wrows, each, yg, crows, begins, group)
        else:
            multiply(xg, rows, groups, wg, wrows, each, yg, crows, False, begins)


def conv2d_input(y: Array, w: Array, geometry: ConvGeometry, bias: Array | None = None) -> Array:
    """Transposed convolution (N, O, OH, OW), (O, C, KH, KW), (G*C,) -> (N, G*C, H, W). Defined in reference.py."""
    _arguments.of_convolution(geometry, y=y, w=w)
    (n, c, h, width), o = geometry.image_shape, geometry.map_channels
    x, start = empty((n, h, width, c), y.dtype), start_of("conv2d_input", bias, c, y.dtype)
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
        partial = _scratch("partial", parts * len(tables.taps) * o, x.dtype)
        by_map = _by_map(len(tables.taps), tables.run, o // geometry.groups, VECTOR_BYTES // x.itemsize)
        with parallel_region(elements(geometry.multiply_adds)):
            yf = channels_last(y)
            sizes = (parts, n, geometry.groups, w.shape[1], o, _padded_elements(geometry))
            _conv2d_weight(_padded(x, geometry), tables.pixels, tables.taps, tables.run, yf, partial, by_map, *sizes)
            tap, channel = (1, len(tables.taps)) if by_map else (o, 1)
            _sum_parts(partial, parts, tap, channel, w.reshape(*w.shape[:2], -1))
    return w


def _by_map(taps: int, run: int, o: int, lanes: int) -> bool:
    """Whether the map's channels are the rows of the product, not its columns: whichever takes fewer vectors of
    multiply-adds, idle lanes included."""

    def cost(rows: int, columns: int) -> int:
        tall = TALL_ROWS if columns <= lanes else TILE_ROWS
        return -(-rows // tall) * tall * -(-columns // lanes)

    return taps // run * cost(o, run) < cost(taps, o)


@compiled(parallel=True)
def _conv2d_weight(x, pixels, taps, run, y, partial, by_map, parts, N, G, C, O, image):
    """Why it is fast: like conv2d with the tables of pixels and taps exchanged. The sum runs over the pixels, a block
    of which stays in cache for all taps."""
    T = len(taps)
    block = run if by_map else CHUNK_ROWS
    blocks = (T + block - 1) // block
    for task in prange(parts * blocks):  # owns a block of taps in one of the partial sums
        part, t0 = task // blocks, task % blocks * block
        t1 = min(t0 + block, T)
        _weight_block(x, pixels, taps, y, partial, by_map, parts, N, G, C, O, image, part, t0, t1)


@compiled()
def _weight_block(x, pixels, taps, y, partial, by_map, parts, N, G, C, O, image, part, t0, t1):
    """The rows of the product are taps and its columns the map's channels, or (by_map) the other way round."""
    total, T, each, none = N * len(pixels), len(taps), O // G, partial[:0]
    start, stop = part * total // parts, (part + 1) * total // parts
    windows, values = _pixel_rows(pixels, image, start, stop), np.arange(start, stop) * O
    for g in range(G):
        xg, yg = x[g * C :], y[g * each :]
        if by_map:
            channels = np.arange(each)
            crows = (part * O + g * each + channels) * T + t0
            multiply(yg, channels, values, xg, windows + taps[t0], t1 - t0, partial, crows, False, none)
        else:
            crows = (part * T + np.arange(t0, t1)) * O + g * each
            multiply(xg, taps[t0:t1], windows, yg, values, each, partial, crows, False, none)


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
    return max(1, min(CHUNK_ROWS, rows // 8) // TILE_ROWS) * TILE_ROWS


@compiled()
def _images_of_task(N, P):
    """Likewise, counted in images."""
    return max(1, min(_chunk_rows(N * P), CHUNK_ROWS) // P)


def _weight_parts(rows: int, size: int) -> int:
    """Into how many partial sums the weight gradient is split: many for many pixels, few for a large weight."""
    return max(1, min(16, rows // 512, 2**18 // size))


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


def _padded(x: Array, geometry: ConvGeometry) -> Array:
    """x as a vector of padded channels-last images, valid until this thread's next call."""
    if geometry.padding == (0, 0):
        return channels_last(x)
    padded = _scratch("padded", geometry.batch * _padded_elements(geometry), x.dtype)
    _pad(channels_last(x), padded, geometry.batch, *_lines(geometry))
    return padded


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.by_key: dict[tuple[str, np.dtype], Array] = {}


_buffers = _Buffers()


def _scratch(name: str, size: int, dtype: np.dtype) -> Array:
    """A vector for use within one call, kept for the next one: new memory costs a page fault for every 4 KB."""
    if size > LARGEST_KEPT:
        return np.empty(size, dtype)
    key = name, dtype
    if key not in _buffers.by_key or _buffers.by_key[key].size < size:
        _buffers.by_key[key] = np.empty(size, dtype)
    return _buffers.by_key[key][:size]


def _lines(geometry: ConvGeometry) -> tuple[int, int, int, int]:
    """An image as lines of W*C values: their number and length, and the padding above them and to their left."""
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
        copy(padded, start + (top + h) * wide + left, x, (n * H + h) * line, line)


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
