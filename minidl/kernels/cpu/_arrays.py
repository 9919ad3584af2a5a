"""Arrays as the compiled loops take them: contiguous vectors.

Compiled code is specialised to the memory layout of its arguments, so that another layout would compile anew. The
functions here turn every array into a C-contiguous one, without a copy where it already lies so.
"""

import functools

import numpy as np
from numba.core import cgutils

from minidl.kernels.cpu._compiling import by_hand, compiled
from minidl.kernels.cpu._vectors import BYTES

Array = np.ndarray


def plain(x: Array) -> Array:
    """x if it is C-contiguous, aligned and writable, else a copy that is."""
    return x if x.flags.carray else np.array(x, order="C")


def channels_last(x: Array) -> Array:
    """(N, C, ...) as a vector of (N, ..., C), with the channels as neighbours in memory."""
    return plain(x.transpose(0, *range(2, x.ndim), 1)).reshape(-1)


def vectors(*arrays: Array) -> list[Array]:
    """The arrays as vectors in the first one's memory order: views where an array lies so, else copies."""
    order, _ = _memory_order(arrays[0].shape, arrays[0].strides)
    return [plain(a.transpose(order)).reshape(-1) for a in arrays]


def like(x: Array, vector: Array) -> Array:
    """The vector in the shape and memory order of x: the inverse of `vectors`."""
    order, back = _memory_order(x.shape, x.strides)
    return vector.reshape([x.shape[axis] for axis in order]).transpose(back)


@functools.lru_cache(maxsize=1024)
def _memory_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes from the outermost in memory to the innermost, and the permutation back.

    Axes of length 1, whose strides say nothing, come last.
    """
    order = sorted(range(len(shape)), key=lambda axis: (shape[axis] == 1, -abs(strides[axis])))
    return tuple(order), tuple(sorted(range(len(shape)), key=order.__getitem__))


def _emit_copy(builder, element, target, i, source, j, n) -> None:
    cgutils.raw_memcpy(builder, builder.gep(target, [i]), builder.gep(source, [j]), n, BYTES[element])


@by_hand(_emit_copy)
def copy(target, i, source, j, n):
    """target[i : i + n] = source[j : j + n], without the checks for negative offsets that slow a loop down."""
    target[i : i + n] = source[j : j + n]


@compiled()
def repeated(bias, length):
    """A vector that repeats the bias, or zeros if that is empty."""
    out = np.zeros(length, bias.dtype)
    done = min(len(bias), length)
    out[:done] = bias[:done]
    while 0 < done < length:
        more = min(done, length - done)
        copy(out, done, out, 0, more)
        done += more
    return out
