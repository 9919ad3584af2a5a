"""Shape: the same elements in another arrangement. These are linear maps, so their gradients are their adjoints.

Most results are views that share the input's memory. Shapes and the order of elements are the logical ones (N, C, H,
W); the memory may have another order (strides), so `view` copies where it must.

Source: J. Claerbout, S. Fomel, Geophysical image estimation by example, 2014, chapter 1, Basic operators and adjoints.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.autograd import record
from minidl.kernels import devices
from minidl.kernels.resampling import Axis

from minidl.ops._operands import (  # isort: skip
    dimension, dimensions, listed_sizes, number, only_tensors, operation, result_type, same_device, sizes,
)  # fmt: skip
from minidl.ops.conversion import channels_last, contiguous_format, laid_out, to
from minidl.ops.pooling import resample_each
from minidl.tensor import Tensor

Shape = tuple[int, ...]
BORDERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {  # which of n elements place i holds, by mode of `pad`
    "reflect": lambda i, n: (n - 1) - abs((n - 1) - abs(i)),
    "replicate": lambda i, n: np.clip(i, 0, n - 1),
    "circular": lambda i, n: i % n,
}


def _completed(name: str, shape: Shape, numel: int) -> Shape:
    """The shape with its -1, if any, replaced by the size that gives this number of elements."""
    known, unknown = math.prod(size for size in shape if size != -1), shape.count(-1)
    if unknown > 1 or min(shape, default=0) < -1:
        raise RuntimeError(f"{name}: shape {shape} may have one -1, to be inferred, and no other negative size")
    if not unknown and numel != known:
        raise RuntimeError(f"{name}: shape {shape} does not fit: its sizes multiply to {known} instead of {numel}")
    if unknown and (known == 0 or numel % known):
        raise RuntimeError(f"{name}: no size fits the -1 in shape {shape}: {numel} / {known} is not a whole number")
    return tuple(numel // known if size == -1 else size for size in shape)


@operation()
def reshape(input: Tensor, *args: Any, shape: Sequence[int] | None = None) -> Tensor:
    """The same elements in the same order in another shape; one size may be -1, to be inferred.

    Examples
    --------
    >>> import minidl
    >>> minidl.arange(6).reshape(2, -1).shape
    (2, 3)
    """
    new, old = _completed("reshape", sizes("reshape", args, shape), input.numel()), input.shape
    array = input.array.reshape(new)
    if input._storage.exclusive and not np.may_share_memory(array, input.array):
        # NumPy had to copy, since a kernel left the input in channels-last order. In PyTorch it would be contiguous and
        # the result a view of it. So let the input use the copy too: same values, and writes to one reach the other.
        input.array = array.reshape(old)
    return record("reshape", array, (input, lambda gy: gy.reshape(old)), view_of=input)


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """``reshape`` to another tensor's shape."""
    only_tensors("view_as", other)
    return reshape(input, other.shape)


@operation()
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Join the dimensions from `start_dim` to `end_dim` into one."""
    start, end = (dimension("flatten", d, input.ndim) for d in (start_dim, end_dim))
    if start > end:
        raise RuntimeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    if input.ndim == 0:
        return reshape(input, 1)
    joined = math.prod(input.shape[start : end + 1])
    return reshape(input, input.shape[:start] + (joined,) + input.shape[end + 1 :])


@operation()
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Split dimension `dim` into `sizes`, one of which may be -1."""
    d = dimension("unflatten", dim, input.ndim)
    parts = _completed("unflatten", listed_sizes("unflatten", sizes), input.shape[d])
    return reshape(input, input.shape[:d] + parts + input.shape[d + 1 :])


@operation()
def permute(input: Tensor, *args: Any, dims: Sequence[int] | None = None) -> Tensor:
    """Reorder the dimensions: dimension i of the result is dimension dims[i] of the input."""
    given = sizes("permute", args, dims)
    if len(given) != input.ndim:
        raise RuntimeError(f"permute: dims {given} must have each dimension of shape {input.shape} once")
    order = dimensions("permute", given, input.ndim)
    back = tuple(int(d) for d in np.argsort(order))
    return record("permute", input.array.transpose(order), (input, lambda gy: gy.permute(back)), view_of=input)


@operation()
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Exchange two dimensions."""
    order = list(range(input.ndim))
    d0, d1 = dimension("transpose", dim0, input.ndim), dimension("transpose", dim1, input.ndim)
    if order:
        order[d0], order[d1] = order[d1], order[d0]
    return permute(input, order)


@operation()
def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors and 0-d tensors stay as they are."""
    if input.ndim > 2:
        raise RuntimeError(f"t: expected at most 2 dimensions, not shape {input.shape}; use transpose(dim0, dim1)")
    return permute(input, tuple(reversed(range(input.ndim))))


@operation(axis=True)
def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Remove the dimensions of size 1, or those among `dim`."""
    among = dimensions("squeeze", dim, input.ndim)
    return reshape(input, tuple(size for d, size in enumerate(input.shape) if size != 1 or d not in among))


@operation(axis=True)
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """Insert a dimension of size 1 at position `dim` of the result."""
    d = dimension("unsqueeze", dim, input.ndim + 1)
    return reshape(input, input.shape[:d] + (1,) + input.shape[d:])


def expand(input: Tensor, *args: Any, size: Sequence[int] | None = None) -> Tensor:
    """Repeat dimensions of size 1, and new ones in front, without a copy; -1 keeps a size.

    gx = sum of gy over the repeated dimensions.
    """
    shape = sizes("expand", args, size)
    if shape == input.shape:
        return input
    new, old = len(shape) - input.ndim, input.shape
    kept = tuple(old[d - new] if s == -1 and d >= new else s for d, s in enumerate(shape))
    try:
        y = np.broadcast_to(input.array, kept)
    except ValueError:
        rule = "only sizes of 1 can grow, and new sizes go in front"
        raise RuntimeError(f"expand: shape {old} cannot become {shape}: {rule}") from None
    return record("expand", y, (input, lambda gy: _sum_to(gy, old)), view_of=input)


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """``expand`` to another tensor's shape."""
    only_tensors("expand_as", input, other)
    return expand(input, other.shape)


def repeat(input: Tensor, *args: Any, repeats: Sequence[int] | None = None) -> Tensor:
    """Copies side by side, repeats[d] of them in dimension d; new dimensions come first.

    gx = sum of gy over the copies.
    """
    times = sizes("repeat", args, repeats)
    if len(times) < input.ndim or min(times, default=0) < 0:
        raise RuntimeError(f"repeat: expected a number of at least 0 for each dimension of {input.shape}, not {times}")
    old, whole = input.shape, (1,) * (len(times) - input.ndim) + input.shape
    singles, pairs = ([n for pair in zip(t, whole, strict=True) for n in pair] for t in ((1,) * len(times), times))
    copies = np.broadcast_to(input.array.reshape(singles), pairs).copy()

    def gradient(gy: Tensor) -> Tensor:
        return gy.reshape(pairs).sum(tuple(range(0, len(pairs), 2))).reshape(old)

    return record("repeat", copies.reshape([t * n for t, n in zip(times, whole, strict=True)]), (input, gradient))


def _sum_to(x: Tensor, shape: Shape) -> Tensor:
    """Sum over the dimensions that `shape` lacks or has as 1: the adjoint of `expand`."""
    new = x.ndim - len(shape)
    repeated = [d for d in range(x.ndim) if d < new or (shape[d - new] == 1 and x.shape[d] != 1)]
    return x.sum(repeated, keepdim=True).reshape(shape) if repeated else x.reshape(shape)


def contiguous(input: Tensor, memory_format: str = contiguous_format) -> Tensor:
    """The tensor with its memory in the order of its shape (C order), or "channels_last": itself if it is already."""
    array = laid_out(input.array, memory_format)
    return input if is_contiguous(input, memory_format) else record("contiguous", array, (input, lambda gy: gy))


def is_contiguous(input: Tensor, memory_format: str = contiguous_format) -> bool:
    """Whether the memory is in the order of the shape (C order), or in (N, H, W, C) order for "channels_last"."""
    a = input.array.transpose(0, 2, 3, 1) if memory_format == channels_last and input.ndim == 4 else input.array
    return bool(a.flags.c_contiguous and (memory_format != channels_last or input.ndim == 4))


@operation()
def clone(input: Tensor, *, memory_format: str | None = None) -> Tensor:
    """A copy in new memory;  gx = gy."""
    return record("clone", laid_out(input.array.copy(order="K"), memory_format), (input, lambda gy: gy))


def listed_tensors(name: str, tensors: Sequence[Tensor], error: type[Exception]) -> Sequence[Tensor]:
    if not isinstance(tensors, tuple | list):
        raise TypeError(f"{name}: expected tensors in a list or tuple, such as [a, b], not {type(tensors).__name__}")
    only_tensors(name, *tensors)
    if not tensors:
        raise error(f"{name}: expected at least one tensor")
    return tensors


@operation(axis=True)
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors of one shape along a new dimension."""
    tensors = listed_tensors("stack", tensors, RuntimeError)
    different = {x.shape for x in tensors}
    if len(different) > 1:
        raise RuntimeError(f"stack: all shapes must be equal, and got {', '.join(map(str, sorted(different)))}")
    d = dimension("stack", dim, tensors[0].ndim + 1)
    return cat([unsqueeze(x, d) for x in tensors], d)


@operation(axis=True)
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors along a dimension; all other sizes must be equal. Tensors of shape (0,) are skipped."""
    dtype = result_type(*listed_tensors("cat", tensors, ValueError))
    tensors = [x for x in tensors if x.shape != (0,)] or tensors
    if any(x.ndim == 0 for x in tensors):
        raise RuntimeError("cat: 0-d tensors cannot be joined; use stack")
    d = dimension("cat", dim, tensors[0].ndim)
    rests = {x.shape[:d] + x.shape[d + 1 :] for x in tensors}
    if len(rests) > 1 or len({x.ndim for x in tensors}) > 1:
        listed = ", ".join(str(x.shape) for x in tensors)
        raise RuntimeError(f"cat: sizes must be equal except in dim {d}, and the shapes are {listed}")
    same_device("cat", *tensors)
    parts = [to(x, dtype) for x in tensors]
    ends = np.cumsum([0] + [x.shape[d] for x in parts]).tolist()
    slices = (functools.partial(part_of, dim=d, part=slice(*pair)) for pair in itertools.pairwise(ends))
    return record("cat", np.concatenate([x.array for x in parts], axis=d), *zip(parts, slices, strict=True))


def part_of(input: Tensor, dim: int, part: Any) -> Tensor:
    """x[part] for dim 0, x[:, part] for dim 1, and so on."""
    return input[(slice(None),) * dim + (part,)]


@operation()
def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of parts along a dimension: of one size, the last perhaps smaller, or of the sizes given."""
    if tensor.ndim == 0:
        raise RuntimeError("split: a 0-d tensor has no dimension to split")
    d, given = dimension("split", dim, tensor.ndim), split_size_or_sections
    size, sections = tensor.shape[d], sizes("split", (given,))
    if isinstance(given, tuple | list):
        if min(sections, default=0) < 0 or sum(sections) != size:
            raise RuntimeError(f"split: sizes {sections} must be at least 0 and sum to {size}, the size of dim {d}")
        ends = np.cumsum((0, *sections)).tolist()
    else:
        if sections[0] < (size > 0):
            raise RuntimeError(f"split: parts of size {sections[0]} cannot make up dim {d}, which has size {size}")
        ends = [*range(0, max(size, 1), max(sections[0], 1)), size]
    return tuple(part_of(tensor, d, slice(*pair)) for pair in itertools.pairwise(ends))


@operation(axis=True)
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` parts of equal size, the last perhaps smaller: ``mean, log_var = h.chunk(2, dim=1)``."""
    (count,) = sizes("chunk", (chunks,))
    if count <= 0 or input.ndim == 0:
        raise RuntimeError(f"chunk: a tensor of shape {input.shape} cannot be cut into {count} parts")
    size = input.shape[dimension("chunk", dim, input.ndim)]
    return split(input, -(-size // count) if size else [0] * count, dim)


@operation(axis=True)
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of the slices along a dimension, without that dimension."""
    if input.ndim == 0:
        raise IndexError("unbind: a 0-d tensor has no dimension to unbind")
    d = dimension("unbind", dim, input.ndim)
    return tuple(part_of(input, d, i) for i in range(input.shape[d]))


@operation()
def one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """y[..., c] = 1 where the class is c, else 0, in int64: (...) to (..., num_classes), by default max + 1."""
    (count,) = sizes("one_hot", (num_classes,))
    if input.dtype != np.int64:
        raise RuntimeError(f"one_hot: the classes must be in int64, not {input.dtype}; convert them with .long()")
    if input.numel() == 0 and count <= 0:
        raise RuntimeError("one_hot: without any classes the largest is not known; give num_classes")
    least, most = (int(f(input.array)) for f in (np.min, np.max)) if input.numel() else (0, -1)
    count = most + 1 if count == -1 else count
    if least < 0 or most >= count:
        raise RuntimeError(f"one_hot: classes {least} to {most} must lie between 0 and num_classes - 1 = {count - 1}")
    return Tensor((input.array[..., None] == devices.beside(np.arange(count), input.array)).astype(np.int64))


@operation()
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Add a border: of `value`, by default 0, or of the tensor's own elements; negative widths crop.

    Parameters
    ----------
    pad : sequence of int
        Pairs (before, after), the *last* dimension's first, as in PyTorch.
    mode : str
        "constant"; "reflect", c b | a b c | b a; "replicate", a a | a b c | c c; or "circular", b c | a b c | a b. All
        but "constant" are for the last one, two or three dimensions of (N, C, ...), or of (C, ...).

    Notes
    -----
    gx = gy without the border, and for the other modes, each pixel's sum of gy over where it was copied to.
    """
    if mode != "constant" and mode not in BORDERS:
        raise NotImplementedError(f"pad: mode must be constant, {', '.join(BORDERS)}, not {mode!r}")
    widths = listed_sizes("pad", pad)
    if len(widths) % 2 or len(widths) > 2 * input.ndim:
        rule = "widths come in pairs (before, after), at most one for each dimension"
        raise RuntimeError(f"pad: {rule} of {input.shape}, not {widths}")
    pairs = [(0, 0)] * (input.ndim - len(widths) // 2) + list(zip(widths[-2::-2], widths[::-2], strict=True))
    if any(size + before + after < 0 for size, (before, after) in zip(input.shape, pairs, strict=True)):
        raise RuntimeError(f"pad: widths {widths} cut off more than shape {input.shape} has")
    if mode != "constant":
        return _pad_with_own(input, pairs[-(len(widths) // 2) :], mode, value)
    cut = tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(input.shape, pairs, strict=True))
    added = [(max(a, 0), max(b, 0)) for a, b in pairs]
    if any(sum(pair) for pair in added):
        y = np.pad(input.array[cut], added, constant_values=number("pad", value or 0, input.dtype).item())
    else:
        y = input.array[cut].copy()
    return record("pad", y, (input, lambda gy: _pad(gy, [-width for width in widths])))


_pad = pad  # inside `pad` that name is its argument, as in PyTorch


def _pad_with_own(x: Tensor, pairs: Sequence[tuple[int, int]], mode: str, value: float | None) -> Tensor:
    """The border of the last dimensions, a pair of widths for each."""
    channels, size = x.shape[: -len(pairs)], x.shape[-len(pairs) :]
    if len(channels) not in (1, 2) or len(pairs) > 3:
        rule = "takes widths for the last one, two or three dimensions of (N, C, ...) or (C, ...)"
        raise NotImplementedError(f"pad: mode {mode!r} {rule}, not for {len(pairs)} of {x.shape}")
    if value:
        raise RuntimeError(f"pad: mode {mode!r} takes no value, and got {value}")
    axes = [_border(mode, n, *pair) for n, pair in zip(size, pairs, strict=True)]
    y = resample_each("pad", x.reshape(*(1, *channels)[-2:], *size), axes)
    return y if y.ndim == x.ndim else y.reshape(*channels, *y.shape[2:])


@functools.lru_cache(maxsize=256)
def _border(mode: str, n: int, before: int, after: int) -> Axis:
    """Which element each place of a padded axis holds: a linear map, with one 1 in each row of its matrix."""
    most = {"reflect": n - 1, "circular": n}.get(mode, max(before, after, 0))
    start, stop = (max(-before, 0), n - max(-after, 0)) if mode == "circular" else (0, n)  # the part that goes round
    if start >= stop or max(before, after) > most:
        raise RuntimeError(f"pad: mode {mode!r} can add at most {most} to a size of {n}, not {before} and {after}")
    i = start + BORDERS[mode](np.arange(-before, n + after) - start, stop - start)
    return Axis.of(n, np.ones(len(i), np.int64), i, np.ones(len(i)))
