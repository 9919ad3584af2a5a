"""Indexing, gathering and scattering: elements read at the positions that an index names, and written back there.

A linear map that only reads, y[i] = x[p(i)], has a matrix with a single 1 in each row. Its transpose therefore adds up:
x[p(i)] += y[i]. Here the positions p are an index in two steps, x.array[first][second] (`split_index` says why), below
written x[p]. The derivatives of these three functions are the same three functions:

    taken(x, p)          y = x[p]                          gx = added(gy)
    added(y, p, shape)   x[p] += y, from x = 0 on          gy = taken(gx)
    put(x, p, source)    x, but x[p] = source              gx = put(gy, 0), the gradient in source = taken(gy)

So `x[index]`, `gather`, `index_select` and others need only say where they read. Sorting is gathering in an order.
All sorts are stable, and NaN counts as the greatest.

Source: J. Claerbout, S. Fomel, Geophysical image estimation by example, 2014, chapter 1, Basic operators and adjoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minidl import kernels
from minidl.autograd import record
from minidl.kernels import devices
from minidl.ops._operands import common_shape, dimension, dimensions, fitting, only_tensors, operation, sizes
from minidl.ops.arithmetic import add
from minidl.ops.comparison import where
from minidl.ops.shape import cat, contiguous, expand, flatten, listed_tensors, part_of, repeat, reshape, transpose
from minidl.tensor import Array, Tensor

Shape = tuple[int, ...]
Index = tuple[Any, ...]


class Chosen(NamedTuple):
    """The elements chosen in a dimension, and their indices there."""

    values: Tensor
    indices: Tensor


def taken(name: str, input: Tensor, first: Index, second: Index) -> Tensor:
    """y = x[p];  gx[p] += gy."""
    y, shape = input.array[first][second], input.shape
    return record(name, y, (input, lambda gy: added(name, gy, first, second, shape)), view_of=input)


def added(name: str, values: Tensor, first: Index, second: Index, shape: Shape) -> Tensor:
    """The adjoint of ``taken`` from a tensor of this shape: zeros, to which each value is added where it was read."""
    x = np.zeros_like(values.array, shape=shape or (1,)).reshape(shape)  # CuPy ignores a shape of ()
    if any(devices.is_array(part) and part.dtype != bool for part in second):
        kernels.add_at(x[first], second, values.array)  # arrays of ints can name an element twice
    else:
        x[first][second] = values.array
    return record(f"{name}_backward", x, (values, lambda gx: taken(name, gx, first, second)))


def put(name: str, input: Tensor, first: Index, second: Index, source: Any) -> Tensor:
    """x, but x[p] = the source (numbers, or one); where a position is named twice, the last value wins."""
    y = input.array.copy(order="C")
    values = _of_dtype(name, input, source, y[first][second].shape)
    y[first][second] = values.array
    to_x, to_source = lambda gy: put(name, gy, first, second, 0), lambda gy: taken(name, gy, first, second)
    return record(name, y, (input, to_x), (values, to_source))


def put_added(name: str, input: Tensor, first: Index, second: Index, source: Any, alpha: float = 1) -> Tensor:
    """x, and alpha times the source added at x[p]."""
    values = _of_dtype(name, input, source, input.array[first][second].shape)
    return add(input, added(name, values, first, second, input.shape), alpha=alpha)


def _of_dtype(name: str, input: Tensor, source: Any, shape: Shape) -> Tensor:
    if isinstance(source, Tensor) and source.ndim and (source.shape, source.dtype) != (shape, input.dtype):
        found = f"{source.dtype} of shape {source.shape}"
        raise RuntimeError(f"{name}: expected {input.dtype} of shape {shape}, not {found}")
    return fitting(name, source, shape, input)


def _refuse_outside(name: str, index: Array, d: int, least: int, size: int, error: type[Exception]) -> None:
    """Refuse ints out of bounds, which CuPy would wrap around."""
    outside = (index < least) | (index >= size)
    if devices.any_true(outside):
        wrong = index.reshape(-1)[int(outside.argmax())].item()
        raise error(f"{name}: index {wrong} is out of bounds for dimension {d} with size {size}")


# --- x[index] -----------------------------------------------------------------------------------------------


def getitem(input: Tensor, index: Any) -> Tensor:
    """x[index], with ints, slices, ``...``, None, and integer or boolean tensors, arrays or lists.

    gx is 0 but for the elements that were read: gx[index] += gy, which sums where an element was read twice.
    """
    return taken("getitem", input, *split_index(index, input))


def split_index(index: Any, x: Tensor) -> tuple[Index, Index]:
    """An index in two steps, x.array[first][second]: basic indexing, which gives a view, then indexing by arrays.

    PyTorch applies ints before arrays, so x[0, :, [1, 2]] keeps the order (slice, list); NumPy would treat the 0 as
    one of the arrays. Both steps end in `...`, which makes even a single element a view, not a number.
    """
    parts = [_plain_part(part, x) for part in (index if isinstance(index, tuple) else (index,))]
    parts = _without_ellipsis(parts, x.ndim)
    if not any(devices.is_array(part) for part in parts):
        return (*parts, ...), (...,)
    first: list[Any] = []
    for part in parts:
        d = len(first)  # the dimension of x at which this part of the index begins
        if devices.is_array(part) and part.dtype != bool and d < x.ndim:
            _refuse_outside("x[index]", part, d, -x.shape[d], x.shape[d], IndexError)
        first += [part] if isinstance(part, int) else [slice(None)] * _dimensions_of(part)
    return (*first, ...), (*[part for part in parts if not isinstance(part, int)], ...)


def _dimensions_of(part: Any) -> int:
    """How many dimensions a part of an index consumes: None consumes none, a mask as many as it has."""
    mask = devices.is_array(part) and part.dtype == bool
    return part.ndim if mask else int(part is not None)


def _without_ellipsis(parts: list[Any], ndim: int) -> list[Any]:
    """The `...` as the slices it stands for. To NumPy it separates two arrays even if it stands for none."""
    positions = [i for i, part in enumerate(parts) if part is Ellipsis]
    if len(positions) > 1:
        raise IndexError("x[index]: an index can only have a single ellipsis ('...')")
    if not positions:
        return parts
    before, after = parts[: positions[0]], parts[positions[0] + 1 :]
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


# --- An index for each element ------------------------------------------------------------------------------


def _index(name: str, index: Tensor, d: int, size: int, error: type[Exception]) -> Array:
    """The index's array, copied since the gradient reads what it was; raise if one is not in 0, ... size - 1."""
    if index.numel() and index.dtype not in (np.int32, np.int64):
        raise RuntimeError(f"{name}: the index must be of int64 or int32, not {index.dtype}; convert it with .long()")
    _refuse_outside(name, index.array, d, 0, size, error)
    return index.array.astype(np.int64)


def _along(name: str, input: Tensor, dim: int, index: Tensor) -> tuple[Index, Index]:
    """Where y[i, j, k] = x[index[i, j, k], j, k] for dim 0, x[i, index[i, j, k], k] for dim 1, and so on."""
    d, shape, wanted = dimension(name, dim, input.ndim), input.shape or (1,), index.shape
    places = _index(name, index, d, shape[d], RuntimeError)
    if len(shape) != len(wanted or (1,)) or any(n > shape[k] for k, n in enumerate(wanted) if k != d):
        rule = "it needs as many dimensions, and no greater sizes except"
        raise RuntimeError(f"{name}: an index of shape {wanted} for a tensor of {input.shape}: {rule} in dim {d}")
    grids = [devices.beside(grid, places) for grid in np.ogrid[tuple(map(slice, wanted))]]
    grids[d : d + 1] = [places]
    return (..., *[None] * (input.ndim == 0)), (*grids, ...)


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """y[i, j, k] = x[index[i, j, k], j, k] for dim 0, and so on;  gx = ``scatter_add`` of gy to zeros.

    Examples
    --------
    >>> import minidl
    >>> scores = minidl.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> minidl.gather(scores, 1, minidl.tensor([[2], [0]])).tolist()
    [[3.0], [4.0]]
    """
    return taken("gather", input, *_along("gather", input, dim, index))


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """y = x, and y[index[i, j, k], j, k] += src[i, j, k] for dim 0, and so on: the adjoint of ``gather``."""
    return scatter(input, dim, index, src, reduce="add")


def scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> Tensor:
    """y = x, but y[index[i, j, k], j, k] = src[i, j, k] (or a number) for dim 0, and so on.

    gx = gy, but 0 at the places written to;  the gradient in src = ``gather`` of gy. ``reduce="add"`` adds.

    Examples
    --------
    >>> import minidl
    >>> minidl.zeros(2, 3).scatter(1, minidl.tensor([[2], [0]]), 1.0).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    if reduce not in (None, "add"):
        raise NotImplementedError(f"scatter: reduce must be None or 'add', not {reduce!r}")
    places, source = _along("scatter", input, dim, index), value if src is None else src
    if isinstance(source, Tensor) and source.ndim:
        if source.ndim != index.ndim or any(map(int.__lt__, source.shape, index.shape)):
            raise RuntimeError(f"scatter: src of shape {source.shape} does not hold an index's {index.shape} values")
        source = getitem(source, tuple(map(slice, index.shape)))
    return (put if reduce is None else put_added)("scatter", input, *places, source)


# --- An index for each slice --------------------------------------------------------------------------------


def _slices(name: str, input: Tensor, dim: int, index: Tensor, error: Any = IndexError) -> tuple[Index, Index]:
    """Where y = x[index] for dim 0, x[:, index] for dim 1, and so on."""
    d = dimension(name, dim, input.ndim)
    if index.ndim > 1:
        raise IndexError(f"{name}: the index must be a vector, not of shape {index.shape}")
    places = _index(name, index.reshape(-1), d, (input.shape or (1,))[d], error)
    if input.ndim == 0:
        return (None, ...), (places.reshape(()), ...)
    return (...,), (*[slice(None)] * d, places, ...)


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """y = x[index] for dim 0, x[:, index] for dim 1, and so on;  gx = ``index_add`` of gy to zeros."""
    return _selected("index_select", input, *_slices("index_select", input, dim, index))


def _selected(name: str, input: Tensor, first: Index, second: Index) -> Tensor:
    """``taken``, for places of whole slices, with the result in C order."""
    *before, places, _ = second
    y, shape = np.take(input.array[first], places, axis=len(before)), input.shape
    return record(name, y, (input, lambda gy: added(name, gy, first, second, shape)))


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """y = x, and y[index[i]] += alpha source[i] for dim 0, and so on: the adjoint of ``index_select``."""
    return put_added("index_add", input, *_slices("index_add", input, dim, index, RuntimeError), source, alpha)


@operation()
def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """y[..., :] = weight[input[...]], one row for each index;  gw[input[...]] += gy, but not in row `padding_idx`."""
    if weight.ndim != 2:
        raise RuntimeError(f"embedding: the weight must be a matrix, not of shape {weight.shape}")
    if padding_idx is not None and not -len(weight) <= padding_idx < len(weight):
        raise AssertionError(f"embedding: padding_idx {padding_idx} is not the index of one of {len(weight)} rows")
    rows = taken("embedding", weight, (...,), (_index("embedding", input, 0, len(weight), IndexError), ...))
    return rows if padding_idx is None else where((input == padding_idx % len(weight))[..., None], rows.detach(), rows)


# --- Masks --------------------------------------------------------------------------------------------------


def _masked(name: str, input: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    if mask.dtype != bool:
        raise RuntimeError(f"{name}: the mask must be a bool tensor, such as x > 0, not {mask.dtype}")
    shape = common_shape(name, input.shape, mask.shape)
    return expand(input, shape), expand(mask, shape)


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """y = value where the mask is True, x elsewhere;  gx = gy, but 0 where the mask is True."""
    x, chosen = _masked("masked_fill", input, mask)
    return where(chosen, fitting("masked_fill", value, (), x), x)


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask is True, in order, as a vector."""
    return getitem(*_masked("masked_select", input, mask))


# --- An order -----------------------------------------------------------------------------------------------


def _order(name: str, input: Tensor, dim: int, descending: bool) -> Tensor:
    d, a = dimension(name, dim, input.ndim), input.array.reshape(input.shape or (1,))
    if descending:  # turned over before and after, so that equal ones stay in order
        order = a.shape[d] - 1 - np.flip(np.argsort(np.flip(a, d), axis=d, kind="stable"), d)
    else:
        order = np.argsort(a, axis=d, kind="stable")
    return Tensor(order.reshape(input.shape))


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that sort x along a dimension."""
    return _order("argsort", input, dim, descending)


def sort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool | None = False) -> Chosen:
    """The values along a dimension in order, and the indices they had: y = ``gather`` of x at these indices."""
    indices = _order("sort", input, dim, descending)
    return Chosen(gather(input, dim, indices), indices)


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Chosen:
    """The k greatest values along a dimension (or least, if not `largest`), in order, and their indices.

    Examples
    --------
    >>> import minidl
    >>> values, indices = minidl.tensor([3.0, 9.0, 5.0]).topk(2)
    >>> values.tolist(), indices.tolist()
    ([9.0, 5.0], [1, 2])
    """
    (count,), indices = sizes("topk", (k,)), _order("topk", input, dim, largest)
    size = (input.shape or (1,))[dim]
    if not 0 <= count <= size:
        raise RuntimeError(f"topk: k must lie between 0 and {size}, the size of dim {dim}, and is {count}")
    indices = narrow(indices, dim, 0, count) if input.ndim else indices
    return Chosen(gather(input, dim, indices), indices)


def unique(
    input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: Any = None
) -> Any:
    """The distinct values (or slices along `dim`), sorted; optionally where each element is among them, and counts."""
    values, *others = np.unique(input.array, False, True, True, dim, equal_nan=False)
    inverse, counts = others[0].reshape(input.shape if dim is None else -1), others[1]
    found = [Tensor(values), *[Tensor(inverse)] * return_inverse, *[Tensor(counts)] * return_counts]
    return tuple(found) if len(found) > 1 else found[0]


def contains(input: Tensor, element: Any) -> bool:
    """Whether any element equals this one (the operator ``in``)."""
    if not isinstance(element, Tensor | int | float):
        raise RuntimeError(f"in: expected a tensor or a number, not {type(element).__name__}")
    return bool((input == element).any())


# --- Turned, shifted, triangles -----------------------------------------------------------------------------


def flip(input: Tensor, *args: Any, dims: Sequence[int] | None = None) -> Tensor:
    """The elements in reverse order in these dimensions."""
    axes = dimensions("flip", sizes("flip", args, dims), input.ndim)
    return record("flip", np.flip(input.array, axes).copy(), (input, lambda gy: flip(gy, axes)))


def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """y[i + shift] = x[i], and elements pushed off the end reappear at the start; without `dims`, as if flattened.

    Examples
    --------
    >>> import minidl
    >>> minidl.roll(minidl.arange(4), 1).tolist()
    [3, 0, 1, 2]
    """
    steps, axes = (tuple(v) if isinstance(v, tuple | list) else (v,) for v in (shifts, dims))
    if len(steps) != len(axes):
        raise RuntimeError(f"roll: shifts {shifts} and dims {dims} must be equally many")
    if dims is None:
        return reshape(roll(flatten(input), shifts, 0), input.shape)
    _at_least("roll", input, 1, IndexError)
    places, back = tuple(dimension("roll", d, input.ndim) for d in axes), [-n for n in steps]
    return record("roll", np.roll(input.array, steps, places), (input, lambda gy: roll(gy, back, places)))


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of each matrix: y[i, j] = x[i, j] where j <= i + diagonal, else 0."""
    return where(_lower("tril", input, diagonal), input, False)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of each matrix: y[i, j] = x[i, j] where j >= i + diagonal, else 0."""
    return where(_lower("triu", input, diagonal - 1), False, input)


def _at_least(name: str, input: Tensor, ndim: int, error: type[Exception] = RuntimeError) -> None:
    if input.ndim < ndim:
        raise error(f"{name}: at least {ndim} dimensions are needed, and the shape is {input.shape}")


def _lower(name: str, input: Tensor, diagonal: int) -> Tensor:
    _at_least(name, input, 2)
    rows, columns = input.shape[-2:]
    return Tensor(devices.beside(np.tri(rows, columns, diagonal, bool), input.array))


# --- Parts, copies, joined -----------------------------------------------------------------------------------


def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """A view of `length` slices along a dimension, from `start` on."""
    _at_least("narrow", input, 1)
    d = dimension("narrow", dim, input.ndim)
    size, first = input.shape[d], int(start) + input.shape[d] * (int(start) < 0)
    if (isinstance(start, Tensor) and start.dtype.kind == "b") or not 0 <= first <= first + length <= size:
        error = RuntimeError if 0 <= first <= size else IndexError
        raise error(f"narrow: {length} slices from {start} on do not fit in dim {d} of size {size}")
    return part_of(input, d, slice(first, first + length))


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """A view of one slice along a dimension, without that dimension."""
    return part_of(input, dimension("select", dim, input.ndim), index)


def ravel(input: Tensor) -> Tensor:
    """The elements as a vector: a view if x is contiguous, else a copy."""
    return reshape(contiguous(input), -1)


def tile(input: Tensor, *args: Any, dims: Sequence[int] | None = None) -> Tensor:
    """Copies side by side, like ``repeat``; missing dimensions count as 1."""
    times = sizes("tile", args, dims)
    return repeat(input, (1,) * (input.ndim - len(times)) + times)


def repeat_interleave(input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: Any = None) -> Tensor:
    """Each slice several times in a row;  gx = sum of gy over the copies. Alone, `input` counts how often i occurs.

    Examples
    --------
    >>> import minidl
    >>> minidl.repeat_interleave(minidl.tensor([5, 6]), 2).tolist()
    [5, 5, 6, 6]
    """
    if repeats is None:
        input, repeats = Tensor(devices.beside(np.arange(input.numel()), input.array)), input
    x, times = flatten(input) if dim is None else input, repeats.tolist() if isinstance(repeats, Tensor) else repeats
    d = dimension("repeat_interleave", -1 if dim is None else dim, x.ndim)
    if np.size(times) not in (1, x.shape[d]):
        raise RuntimeError(f"repeat_interleave: {np.size(times)} repeats for dim {d} of size {x.shape[d]}")
    places = devices.beside(np.repeat(np.arange(x.shape[d]), times), x.array)
    return _selected("repeat_interleave", x, (...,), (*[slice(None)] * d, places, ...))


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join along dimension 1, or vectors along dimension 0."""
    parts = listed_tensors("hstack", tensors, RuntimeError)
    return cat([x if x.ndim else reshape(x, 1) for x in parts], int(any(x.ndim > 1 for x in parts)))


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join along dimension 0; vectors are rows."""
    parts = listed_tensors("vstack", tensors, RuntimeError)
    return cat([x if x.ndim > 1 else reshape(x, (1, x.numel())) for x in parts])


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """The coordinates of a grid: result i is vector i along dimension i, repeated along the others.

    With ``indexing="xy"`` the first two dimensions are exchanged, as in a picture; the default is "ij".
    """
    if indexing not in (None, "ij", "xy"):
        raise RuntimeError(f"meshgrid: indexing must be 'ij' or 'xy', not {indexing!r}")
    axes = tensors[0] if len(tensors) == 1 and not isinstance(tensors[0], Tensor) else tensors
    only_tensors("meshgrid", *axes)
    sizes, n = [x.numel() for x in axes], len(axes)
    grids = [expand(reshape(x, (1,) * i + (-1,) + (1,) * (n - i - 1)), sizes) for i, x in enumerate(axes)]
    return tuple(transpose(g, 0, 1) if indexing == "xy" and n > 1 else g for g in grids)


__all__ = [
    "argsort", "flip", "gather", "hstack", "index_add", "index_select", "masked_fill", "masked_select", "meshgrid",
    "narrow", "ravel", "repeat_interleave", "roll", "scatter", "scatter_add", "select", "sort", "tile", "topk", "tril",
    "triu", "unique", "vstack",
]  # fmt: skip
for _name in __all__:
    globals()[_name] = operation(axis=True)(globals()[_name])
