"""Depthwise convolution: with one channel in each group no matrix product is left, only products of neighbours.

The trilinear form of ops/conv.py is then a sum over the image n, the map's pixel (i, j), the tap (u, v) and the channel
c, which is innermost in memory:

    T(x, w, y) = sum over n,i,u,v,j,c of  y[n,i,j,c] w[u,v,c] x[n, i s - p + u d, j s - p + v d, c]

Its derivatives are one loop: each adds, to one of y, x and w, the product of the other two. Where an element lies in
memory is linear in the indices (`_tables`). Pixels outside the image are left out, so that nothing has to be padded.
(Where a weight is infinite they give no NaN, unlike 0 * inf in reference.py.)

A task owns one row of y, one image of x, or the part of w's sum that one image makes. So the bits of a result do not
depend on the number of threads.
"""

import functools

import numpy as np
from numba import prange

from minidl.kernels.cpu._arrays import repeated
from minidl.kernels.cpu._compiling import compiled
from minidl.kernels.cpu._threads import parallel_region
from minidl.kernels.geometry import ConvGeometry

Array = np.ndarray
U = np.uint64  # signed offsets are checked for being negative


def fill(g: ConvGeometry, bias: Array, **arrays: Array) -> None:
    """Fill the first of three arrays with the derivative in it, and a bias, from the two others.

    They are y (N, OH, OW, C), x (N, H, W, C) and w (KH*KW, C), or in its place the part of w of each image, `parts`.
    """
    steps, rows, columns = _tables(g)
    (out, *_), first = arrays.values(), next(iter(arrays))
    given = [part for name, array in arrays.items() for part in (array.reshape(-1), steps[name])]
    tasks = g.batch * (g.map_size[0] if first == "y" else 1)
    with parallel_region(g.multiply_adds // 8):
        _all_tasks(*given, bias, tasks, g.batch, g.map_size[0], out.shape[-1], rows, columns)


@functools.lru_cache(maxsize=32)
def _tables(g: ConvGeometry) -> tuple[dict[str, tuple[int, ...]], Array, Array]:
    """The steps of each array: its first element, and how much further on the next n, i, u, v and j lie. And for each
    tap along either axis, the first output that it meets inside the image, and the one after the last."""
    (_, c, h, width), (oh, ow), (kh, kw) = g.image_shape, g.map_size, g.kernel
    (sh, sw), (ph, pw), (dh, dw) = g.stride, g.padding, g.dilation
    steps: dict[str, tuple[int, ...]] = {
        "y": (0, oh * ow * c, ow * c, 0, 0, c),
        "x": (-(ph * width + pw) * c, h * width * c, sh * width * c, dh * width * c, dw * c, sw * c),
        "w": (0, 0, 0, kw * c, c, 0),
        "parts": (0, kh * kw * c, 0, kw * c, c, 0),
    }
    return steps, _inside(h, oh, kh, sh, ph, dh), _inside(width, ow, kw, sw, pw, dw)


def _inside(length: int, outputs: int, kernel: int, s: int, p: int, d: int) -> Array:
    before = p - d * np.arange(kernel)
    return np.stack([np.maximum(0, -(-before // s)), np.minimum(outputs, (length - 1 + before) // s + 1)], axis=1)


@compiled(parallel=True)
def _all_tasks(out, o, a, ai, b, bi, bias, tasks, N, OH, C, rows, columns):
    """Why it is fast: a row of the map, and what it meets, stays in cache for all taps; neighbours are vectors."""
    for task in prange(tasks):  # owns an equal part of `out`
        _one_task(out, o, a, ai, b, bi, bias, task, tasks, N * OH, OH, C, rows, columns)


@compiled()
def _one_task(out, o, a, ai, b, bi, bias, task, tasks, R, OH, C, rows, columns):
    own = len(out) // tasks
    out[task * own : (task + 1) * own] = repeated(bias, own)
    for r in range(task * R // tasks, (task + 1) * R // tasks):
        n, i = r // OH, r % OH
        for u in range(len(rows)):
            if rows[u, 0] <= i < rows[u, 1]:
                for v in range(len(columns)):
                    at, ata, atb = _offset(o, n, i, u, v), _offset(ai, n, i, u, v), _offset(bi, n, i, u, v)
                    for j in range(columns[v, 0], columns[v, 1]):
                        k, ka, kb = U(at + j * o[5]), U(ata + j * ai[5]), U(atb + j * bi[5])
                        for c in range(U(C)):
                            out[k + c] += a[ka + c] * b[kb + c]


@compiled()
def _offset(steps, n, i, u, v):
    return steps[0] + n * steps[1] + i * steps[2] + u * steps[3] + v * steps[4]
