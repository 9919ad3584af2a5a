"""Shape: the same elements in another arrangement.

Most results are views that share the input's memory. Shapes and element order are always the logical ones
(N, C, H, W); the memory behind them may have another order, so `view` copies where it must.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from minidl import kernels
from minidl.autograd import record
from minidl.kernels import devices
from minidl.ops.dtype import number, only_tensors, result_type, same_device, to
from minidl.tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])
Shape = tuple[int, ...]
Index = tuple[Any, ...]


def sizes(name: str, args: Sequence[Any], named: Sequence[int] | None = None) -> Shape:
    """Sizes given one by one, ``f(2, 3)``, as one tuple, ``f((2, 3))``, or by name, ``f(size=(2, 3))``."""
    args = args if named is None else (named,)
    given = args[0] if len(args) == 1 and isinstance(args[0], tuple | list) else args
    for size in given:
        if not isinstance(size, int | np.integer) or isinstance(size, bool):
            raise TypeError(f"{name}: expected ints, not {size!r} of type {type(size).__name__}")
    return tuple(int(size) for size in given)


def _listed_sizes(name: str, given: Any) -> Shape:
    if not isinstance(given, tuple | list):
        raise TypeError(f"{name}: expected a tuple or list of ints, not {type(given).__name__}")
    return sizes(name, (given,))


def also_axis(function: F) -> F:
    """Let a function take ``axis=`` for ``dim=`` and ``keepdims=`` for ``keepdim=``, NumPy's names, as PyTorch does."""

    @functools.wraps(function)
    def wrapped(*args: Any, **named: Any) -> Any:
        for numpys, own in (("axis", "dim"), ("keepdims", "keepdim")) if named else ():
            if numpys in named:
                if own in named:
                    raise TypeError(f"{function.__name__}: give {own} or {numpys}, which mean the same, not both")
                named[own] = named.pop(numpys)
        return function(*args, **named)

    return cast(F, wrapped)


def dimension(name: str, dim: int, ndim: int) -> int:
    """`dim`, counted from the end if negative, as 0 <= dim < ndim."""
    if isinstance(dim, bool) or not isinstance(dim, int | np.integer):
        raise TypeError(f"{name}: dim must be an int, not {type(dim).__name__}")
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        least, most = -max(ndim, 1), max(ndim, 1) - 1
        raise IndexError(f"{name}: dim {dim} is out of range, expected {least} to {most}")
    return int(dim) % max(ndim, 1)


def dimensions(name: str, dim: int | Sequence[int] | None, ndim: int) -> Shape:
    """Several dimensions, all of them for None, in the order given."""
    if dim is None:
        return tuple(range(ndim))
    given: Sequence[Any] = dim if isinstance(dim, tuple | list) else [dim]
    dims = tuple(dimension(name, d, ndim) for d in given)
    if len(set(dims)) != len(dims):
        raise RuntimeError(f"{name}: a dimension appears twice in dim={dim}")
    return dims if ndim else ()


def _completed(name: str, shape: Shape, numel: int) -> Shape:
    """The shape with its -1, if any, replaced by what makes the number of elements right."""
    known, unknown = math.prod(size for size in shape if size != -1), shape.count(-1)
    if unknown > 1 or min(shape, default=0) < -1:
        raise RuntimeError(f"{name}: shape {shape} may have one -1, for what is left, and no other negative size")
    if not unknown and numel != known:
        raise RuntimeError(f"{name}: shape {shape} does not fit: its sizes multiply to {known} instead of {numel}")
    if unknown and (known == 0 or numel % known):
        raise RuntimeError(f"{name}: no size fits the -1 in shape {shape}: {numel} / {known} is not a whole number")
    return tuple(numel // known if size == -1 else size for size in shape)


def reshape(input: Tensor, *args: Any, shape: Sequence[int] | None = None) -> Tensor:
    """The elements, in their order, in another shape; one size may be -1, "what is left".

    Examples
    --------
    >>> import minidl
    >>> minidl.arange(6).reshape(2, -1).shape
    (2, 3)
    """
    only_tensors("reshape", input)
    new, old = _completed("reshape", sizes("reshape", args, shape), input.numel()), input.shape
    array = input.array.reshape(new)
    if input._storage.sole and not np.may_share_memory(array, input.array):
        # A kernel left the input in another order than PyTorch's would: reordered, it has a view, as in PyTorch, and
        # what is written to that is not lost.
        input.array = array.reshape(old)
    return record("reshape", array, (input, lambda gy: gy.reshape(old)), view_of=input)


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """The elements, in their order, in another tensor's shape."""
    only_tensors("view_as", other)
    return reshape(input, other.shape)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Join the dimensions from `start_dim` to `end_dim` into one."""
    only_tensors("flatten", input)
    start, end = (dimension("flatten", d, input.ndim) for d in (start_dim, end_dim))
    if start > end:
        raise RuntimeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    if input.ndim == 0:
        return reshape(input, 1)
    joined = math.prod(input.shape[start : end + 1])
    return reshape(input, input.shape[:start] + (joined,) + input.shape[end + 1 :])


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Split dimension `dim` into `sizes`, one of which may be -1."""
    only_tensors("unflatten", input)
    d = dimension("unflatten", dim, input.ndim)
    parts = _completed("unflatten", _listed_sizes("unflatten", sizes), input.shape[d])
    return reshape(input, input.shape[:d] + parts + input.shape[d + 1 :])


def permute(input: Tensor, *args: Any, dims: Sequence[int] | None = None) -> Tensor:
    """Reorder the dimensions: dimension i of the result is dimension dims[i] of the input."""
    only_tensors("permute", input)
    given = sizes("permute", args, dims)
    if len(given) != input.ndim:
        raise RuntimeError(f"permute: dims {given} must have each dimension of shape {input.shape} once")
    order = dimensions("permute", given, input.ndim)
    back = tuple(int(d) for d in np.argsort(order))
    return record("permute", input.array.transpose(order), (input, lambda gy: gy.permute(back)), view_of=input)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Exchange two dimensions."""
    only_tensors("transpose", input)
    order = list(range(input.ndim))
    d0, d1 = dimension("transpose", dim0, input.ndim), dimension("transpose", dim1, input.ndim)
    if order:
        order[d0], order[d1] = order[d1], order[d0]
    return permute(input, order)


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; a vector stays as it is."""
    only_tensors("t", input)
    if input.ndim > 2:
        raise RuntimeError(
            f"t: expected at most 2 dimensions, and shape {input.shape} has {input.ndim}; use transpose(dim0, dim1)"
        )
    return permute(input, tuple(reversed(range(input.ndim))))


@also_axis
def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Remove the dimensions of size 1, or those among `dim`."""
    only_tensors("squeeze", input)
    among = dimensions("squeeze", dim, input.ndim)
    return reshape(input, tuple(size for d, size in enumerate(input.shape) if size != 1 or d not in among))


@also_axis
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """Insert a dimension of size 1 at position `dim` of the result."""
    only_tensors("unsqueeze", input)
    d = dimension("unsqueeze", dim, input.ndim + 1)
    return reshape(input, input.shape[:d] + (1,) + input.shape[d:])


def expand(input: Tensor, *args: Any, size: Sequence[int] | None = None) -> Tensor:
    """Repeat dimensions of size 1, and new ones in front, without a copy; -1 keeps a size.

    Its gradient is the sum over what was repeated.
    """
    shape = sizes("expand", args, size)
    if shape == input.shape:
        return input
    new, old = len(shape) - input.ndim, input.shape
    kept = tuple(old[d - new] if s == -1 and d >= new else s for d, s in enumerate(shape))
    try:
        y = np.broadcast_to(input.array, kept)
    except ValueError:
        raise RuntimeError(
            f"expand: shape {old} cannot become {shape}: only sizes of 1 can grow, and new sizes stand in front"
        ) from None
    return record("expand", y, (input, lambda gy: _sum_to(gy, old)), view_of=input)


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """``expand`` to another tensor's shape."""
    only_tensors("expand_as", input, other)
    return expand(input, other.shape)


def repeat(input: Tensor, *args: Any, repeats: Sequence[int] | None = None) -> Tensor:
    """Copies side by side, repeats[d] of them in dimension d; new dimensions stand in front.

    Its gradient is the sum over the copies.
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
    """Sum over the dimensions in which `shape` is missing or 1: the adjoint of `expand`."""
    new = x.ndim - len(shape)
    repeated = [d for d in range(x.ndim) if d < new or (shape[d - new] == 1 and x.shape[d] != 1)]
    return x.sum(repeated, keepdim=True).reshape(shape) if repeated else x.reshape(shape)


def contiguous(input: Tensor) -> Tensor:
    """The tensor with its memory in the order of its shape: itself where that is so already."""
    if input.array.flags.c_contiguous:
        return input
    return record("contiguous", input.array.copy(order="C"), (input, lambda gy: gy))


def clone(input: Tensor) -> Tensor:
    """A copy with memory of its own, through which the gradient passes."""
    only_tensors("clone", input)
    return record("clone", input.array.copy(order="K"), (input, lambda gy: gy))


def split_index(index: Any, x: Tensor) -> tuple[Index, Index]:
    """An index of a tensor in two steps, as x.array[first][second]: views, then arrays of places.

    In PyTorch ints choose before arrays do, so that x[0, :, [1, 2]] keeps the order (slice, list); NumPy would take
    the 0 for one of the arrays. Both steps end in `...`, with which also a single element is a view, not a number.
    """
    parts = [_plain_part(part, x) for part in (index if isinstance(index, tuple) else (index,))]
    parts = _without_ellipsis(parts, x.ndim)
    if not any(devices.is_array(part) for part in parts):
        return (*parts, ...), (...,)
    first: list[Any] = []
    for part in parts:
        first += [part] if isinstance(part, int) else [slice(None)] * _dimensions_of(part)
    _refuse_places_outside(parts, x.shape)
    return (*first, ...), (*[part for part in parts if not isinstance(part, int)], ...)


def _refuse_places_outside(parts: list[Any], shape: Shape) -> None:
    """An array of ints must name places that there are: CuPy would count on from the beginning."""
    d = 0
    for part in parts:
        if devices.is_array(part) and part.dtype != bool and d < len(shape):
            wrong = (part < -shape[d]) | (part >= shape[d])
            if devices.any_true(wrong):
                place = part[np.unravel_index(int(wrong.argmax()), wrong.shape)].item()
                raise IndexError(f"x[index]: index {place} is out of bounds for dimension {d} with size {shape[d]}")
        d += _dimensions_of(part)


def _dimensions_of(part: Any) -> int:
    """How many dimensions a part of an index takes: None takes none, a mask as many as it has."""
    mask = devices.is_array(part) and part.dtype == bool
    return part.ndim if mask else int(part is not None)


def _without_ellipsis(parts: list[Any], ndim: int) -> list[Any]:
    """The `...` as the slices that it stands for; NumPy would let it part two arrays even where it stands for none."""
    places = [i for i, part in enumerate(parts) if part is Ellipsis]
    if len(places) > 1:
        raise IndexError("x[index]: an index can only have a single ellipsis ('...')")
    if not places:
        return parts
    before, after = parts[: places[0]], parts[places[0] + 1 :]
    rest = ndim - sum(_dimensions_of(part) for part in before + after)
    return before + [slice(None)] * rest + after


def _plain_part(part: Any, x: Tensor) -> Any:
    """One part of an index of x as an int, a slice, None, `...` or an array of ints or bools."""
    if part is None or part is Ellipsis:
        return part
    if isinstance(part, slice):
        if part.step is not None and part.step <= 0:
            raise ValueError(f"x[index]: the step of a slice must be greater than 0, not {part.step}")
        return part
    if isinstance(part, Tensor):
        part = part.array
    elif isinstance(part, list | range):
        part = np.array(part, None if len(part) else np.int64)
    elif not isinstance(part, bool | int | np.generic) and not devices.is_array(part):
        error = TypeError if isinstance(part, str) else IndexError  # as PyTorch has it
        raise error(f"x[index]: expected ints, slices, '...', None, tensors, arrays or lists, not {part!r}")
    array = part.copy() if devices.is_array(part) else np.array(part)  # the gradient reads what this index was
    if array.dtype.kind not in "bi":
        raise IndexError(f"x[index]: arrays in an index must be of bools or signed ints, not {array.dtype}; use int64")
    return int(array) if array.ndim == 0 and array.dtype.kind == "i" else devices.beside(array, x.array)


def getitem(input: Tensor, index: Any) -> Tensor:
    """x[index], with ints, slices, ``...``, None, and integer or boolean tensors, arrays or lists.

    Its gradient puts gy back into zeros at the places it was read from, and adds where one was read twice.
    """
    (first, second), shape = split_index(index, input), input.shape
    y = input.array[first][second]
    return record("getitem", y, (input, lambda gy: _put_into_zeros(gy, first, second, shape)), view_of=input)


def _put_into_zeros(values: Tensor, first: Index, second: Index, shape: Shape) -> Tensor:
    """The adjoint of x[index]."""
    y = np.zeros_like(values.array, shape=shape or (1,)).reshape(shape)  # CuPy ignores a shape of ()
    if any(devices.is_array(part) and part.dtype != bool for part in second):
        kernels.add_at(y[first], second, values.array)  # arrays of ints can name a place twice
    else:
        y[first][second] = values.array
    return record("put", y, (values, lambda gy: gy[first][second]))


def _listed(name: str, tensors: Sequence[Tensor], error: type[Exception]) -> Sequence[Tensor]:
    if not isinstance(tensors, tuple | list):
        raise TypeError(f"{name}: expected tensors in a list or tuple, such as [a, b], not {type(tensors).__name__}")
    only_tensors(name, *tensors)
    if not tensors:
        raise error(f"{name}: expected at least one tensor")
    return tensors


@also_axis
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors of one shape along a new dimension."""
    tensors = _listed("stack", tensors, RuntimeError)
    different = {x.shape for x in tensors}
    if len(different) > 1:
        raise RuntimeError(f"stack: all shapes must be equal, and got {', '.join(map(str, sorted(different)))}")
    d = dimension("stack", dim, tensors[0].ndim + 1)
    return cat([unsqueeze(x, d) for x in tensors], d)


@also_axis
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors along a dimension; all other sizes must be equal. Tensors of shape (0,) are passed over."""
    dtype = result_type(*_listed("cat", tensors, ValueError))
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
    edges = [(x, _slice_of(d, ends[i], ends[i + 1])) for i, x in enumerate(parts)]
    return record("cat", np.concatenate([x.array for x in parts], axis=d), *edges)


def _slice_of(dim: int, start: int, stop: int) -> Any:
    return lambda gy: gy[(slice(None),) * dim + (slice(start, stop),)]


def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Parts along a dimension, views: of one size, but for the last, which is what is left, or of the sizes given."""
    only_tensors("split", tensor)
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
            raise RuntimeError(f"split: parts of size {sections[0]} do not make up dim {d}, which has size {size}")
        ends = [*range(0, max(size, 1), max(sections[0], 1)), size]
    return tuple(_slice_of(d, a, b)(tensor) for a, b in itertools.pairwise(ends))


@also_axis
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` parts along a dimension, of one size but for the last: ``mean, log_var = h.chunk(2, dim=1)``."""
    only_tensors("chunk", input)
    (count,) = sizes("chunk", (chunks,))
    if count <= 0 or input.ndim == 0:
        raise RuntimeError(f"chunk: a tensor of shape {input.shape} cannot be cut into {count} parts")
    size = input.shape[dimension("chunk", dim, input.ndim)]
    return split(input, -(-size // count) if size else [0] * count, dim)


@also_axis
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along a dimension, which they no longer have: views."""
    only_tensors("unbind", input)
    if input.ndim == 0:
        raise IndexError("unbind: a 0-d tensor has no dimension to take apart")
    d = dimension("unbind", dim, input.ndim)
    return tuple(input[(slice(None),) * d + (i,)] for i in range(input.shape[d]))


def one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """y[..., c] = 1 where the class is c, else 0, in int64: (...) to (..., num_classes), by default max + 1."""
    only_tensors("one_hot", input)
    (count,) = sizes("one_hot", (num_classes,))
    if input.dtype != np.int64:
        raise RuntimeError(f"one_hot: the classes must be in int64, not {input.dtype}; convert them with .long()")
    if input.numel() == 0 and count <= 0:
        raise RuntimeError("one_hot: of no classes the greatest is not known; give num_classes")
    least, most = (int(f(input.array)) for f in (np.min, np.max)) if input.numel() else (0, -1)
    count = most + 1 if count == -1 else count
    if least < 0 or most >= count:
        raise RuntimeError(
            f"one_hot: classes from {least} to {most} must lie between 0 and num_classes - 1 = {count - 1}"
        )
    return Tensor((input.array[..., None] == devices.beside(np.arange(count), input.array)).astype(np.int64))


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Add a border of `value`, by default 0; negative widths cut one off, so that the gradient is ``pad`` with -widths.

    Parameters
    ----------
    pad : sequence of int
        Pairs (before, after), the *last* dimension's first, as in PyTorch.
    mode : str
        Only "constant".
    """
    if mode != "constant":
        raise NotImplementedError(f"pad: mode {mode!r} is not supported, only 'constant'")
    only_tensors("pad", input)
    widths = _listed_sizes("pad", pad)
    if len(widths) % 2 or len(widths) > 2 * input.ndim:
        raise RuntimeError(
            f"pad: widths come in pairs (before, after), at most one for each dimension of {input.shape}, not {widths}"
        )
    pairs = [(0, 0)] * (input.ndim - len(widths) // 2) + list(zip(widths[-2::-2], widths[::-2], strict=True))
    if any(size + before + after < 0 for size, (before, after) in zip(input.shape, pairs, strict=True)):
        raise RuntimeError(f"pad: widths {widths} cut off more than shape {input.shape} has")
    cut = tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(input.shape, pairs, strict=True))
    added = [(max(a, 0), max(b, 0)) for a, b in pairs]
    if any(sum(pair) for pair in added):
        y = np.pad(input.array[cut], added, constant_values=number("pad", value or 0, input.dtype).item())
    else:
        y = input.array[cut].copy()
    return record("pad", y, (input, lambda gy: _pad(gy, [-width for width in widths])))


_pad = pad  # inside `pad` the name is its argument, named as in PyTorch
