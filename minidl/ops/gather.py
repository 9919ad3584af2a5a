"""Gathering and scattering: elements read at the positions that an index names, and added or written back there.

A linear map that only reads, y[i] = x[p(i)], has a matrix with a single 1 in each row. Its transpose therefore adds up:
x[p(i)] += y[i]. Here such a map is a function of arrays (`read`), and p is what it makes of the positions 0, 1, 2, ...
The derivatives of these three functions are the same three functions:

    taken(x, read)          y[i] = x[p(i)]                      gx = added(gy)
    added(y, read, shape)   x[p(i)] += y[i], from x = 0 on      gy = taken(gx)
    put(x, read, source)    x, but x[p(i)] = source[i]          gx = put(gy, 0), the gradient in source = taken(gy)

So `gather`, `index_select`, `flip`, `roll` and others need only say how they read. Sorting is gathering in an order.
All sorts are stable, and NaN counts as the greatest.

Source: J. Claerbout, S. Fomel, Geophysical image estimation by example, 2014, chapter 1, Basic operators and adjoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl import kernels
from minidl.autograd import record
from minidl.kernels import devices
from minidl.ops._operands import common_shape, dimension, dimensions, only_tensors, operation, sizes
from minidl.ops.arithmetic import add
from minidl.ops.comparison import where
from minidl.ops.extremes import Chosen
from minidl.ops.indexing import getitem
from minidl.ops.inplace import fitting
from minidl.ops.shape import cat, contiguous, expand, flatten, listed_tensors, repeat, reshape, transpose
from minidl.tensor import Array, Tensor

Read = Callable[[Array], Array]
Shape = tuple[int, ...]


def taken(name: str, input: Tensor, read: Read) -> Tensor:
    """y[i] = x[p(i)];  gx[p(i)] += gy[i]."""
    shape = input.shape
    return record(name, read(input.array), (input, lambda gy: added(name, gy, read, shape)), view_of=input)


def added(name: str, values: Tensor, read: Read, shape: Shape) -> Tensor:
    """The adjoint of ``taken`` from a tensor of this shape: zeros, to which each value is added where it was read."""
    x = np.zeros_like(values.array, shape=shape or (1,), order="C")  # CuPy ignores a shape of ()
    kernels.add_at(x.reshape(-1), (_positions(read, shape, x),), values.array)
    return record(f"{name}_backward", x.reshape(shape), (values, lambda gx: taken(name, gx, read)))


def put(name: str, input: Tensor, read: Read, source: Any) -> Tensor:
    """x, but the source (numbers, or one) where `read` reads; where a position is read twice, the last value wins."""
    y = input.array.copy(order="C")
    positions = _positions(read, input.shape, y)
    values = _of_dtype(name, input, source, positions.shape)
    y.reshape(-1)[positions] = values.array
    return record(name, y, (input, lambda gy: put(name, gy, read, 0)), (values, lambda gy: taken(name, gy, read)))


def put_added(name: str, input: Tensor, read: Read, source: Any, alpha: float = 1) -> Tensor:
    """x, and alpha times the source added where `read` reads."""
    values = _of_dtype(name, input, source, _positions(read, input.shape, input.array).shape)
    return add(input, added(name, values, read, input.shape), alpha=alpha)


def _positions(read: Read, shape: Shape, beside: Array) -> Array:
    return read(devices.beside(np.arange(math.prod(shape)).reshape(shape), beside))


def _of_dtype(name: str, input: Tensor, source: Any, shape: Shape) -> Tensor:
    if isinstance(source, Tensor) and source.ndim and (source.shape, source.dtype) != (shape, input.dtype):
        raise RuntimeError(
            f"{name}: expected {input.dtype} of shape {shape}, not {source.dtype} of shape {source.shape}"
        )
    return fitting(name, source, shape, input)


def _index(name: str, index: Tensor, size: int, error: type[Exception]) -> Array:
    """The index's array, copied since the gradient reads what it was; raise if one is not in 0, ... size - 1."""
    if index.numel() and index.dtype not in (np.int32, np.int64):
        raise RuntimeError(f"{name}: the index must be of int64 or int32, not {index.dtype}; convert it with .long()")
    outside = (index.array < 0) | (index.array >= size)
    if devices.any_true(outside):
        wrong = index.array.reshape(-1)[int(outside.argmax())].item()
        raise error(f"{name}: index {wrong} is out of bounds for a dimension of size {size}")
    return index.array.astype(np.int64)


# --- An index for each element ------------------------------------------------------------------------------


def _along(name: str, input: Tensor, dim: int, index: Tensor) -> Read:
    """Read y[i, j, k] = x[index[i, j, k], j, k] for dim 0, x[i, index[i, j, k], k] for dim 1, and so on."""
    d, shape, wanted = dimension(name, dim, input.ndim), input.shape or (1,), index.shape
    places = _index(name, index.reshape(wanted or (1,)), shape[d], RuntimeError)
    if len(shape) != places.ndim or any(n > shape[k] for k, n in enumerate(places.shape) if k != d):
        rule = "it needs as many dimensions, and no greater sizes except"
        raise RuntimeError(f"{name}: an index of shape {wanted} for a tensor of {input.shape}: {rule} in dim {d}")
    cut = tuple(slice(None if k == d else n) for k, n in enumerate(places.shape))
    return lambda a: np.take_along_axis(a.reshape(a.shape or (1,))[cut], places, d).reshape(wanted)


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """y[i, j, k] = x[index[i, j, k], j, k] for dim 0, and so on;  gx = ``scatter_add`` of gy to zeros.

    Examples
    --------
    >>> import minidl
    >>> scores = minidl.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> minidl.gather(scores, 1, minidl.tensor([[2], [0]])).tolist()
    [[3.0], [4.0]]
    """
    return taken("gather", input, _along("gather", input, dim, index))


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
    read, source = _along("scatter", input, dim, index), value if src is None else src
    if isinstance(source, Tensor) and source.ndim:
        if source.ndim != index.ndim or any(map(int.__lt__, source.shape, index.shape)):
            raise RuntimeError(f"scatter: src of shape {source.shape} does not hold an index's {index.shape} values")
        source = getitem(source, tuple(map(slice, index.shape)))
    return (put if reduce is None else put_added)("scatter", input, read, source)


# --- An index for each slice --------------------------------------------------------------------------------


def _slices(name: str, input: Tensor, dim: int, index: Tensor, error: Any = IndexError) -> Read:
    """Read x[index] for dim 0, x[:, index] for dim 1, and so on."""
    d, shape = dimension(name, dim, input.ndim), input.shape
    if index.ndim > 1:
        raise IndexError(f"{name}: the index must be a vector, not of shape {index.shape}")
    places = _index(name, index.reshape(-1), (shape or (1,))[d], error)
    wanted = shape and (*shape[:d], places.size, *shape[d + 1 :])
    return lambda a: np.take(a.reshape(a.shape or (1,)), places, axis=d).reshape(wanted)


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """y = x[index] for dim 0, x[:, index] for dim 1, and so on;  gx = ``index_add`` of gy to zeros."""
    return taken("index_select", input, _slices("index_select", input, dim, index))


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """y = x, and y[index[i]] += alpha source[i] for dim 0, and so on: the adjoint of ``index_select``."""
    return put_added("index_add", input, _slices("index_add", input, dim, index, RuntimeError), source, alpha)


@operation()
def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """y[..., :] = weight[input[...]], one row for each index;  gw[input[...]] += gy, but not in row `padding_idx`."""
    if weight.ndim != 2:
        raise RuntimeError(f"embedding: the weight must be a matrix, not of shape {weight.shape}")
    if padding_idx is not None and not -len(weight) <= padding_idx < len(weight):
        raise AssertionError(f"embedding: padding_idx {padding_idx} is not the index of one of {len(weight)} rows")
    rows = getitem(weight, _index("embedding", flatten(input), len(weight), IndexError))
    rows = rows.reshape(*input.shape, weight.shape[1])
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
    return taken("flip", input, lambda a: np.flip(a, axes).copy())


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
        return taken("roll", input, lambda a: np.roll(a, steps[0]))
    _at_least("roll", input, 1, IndexError)
    places = tuple(dimension("roll", d, input.ndim) for d in axes)
    return taken("roll", input, lambda a: np.roll(a, steps, places))


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
    return _part(input, d, slice(first, first + length))


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """A view of one slice along a dimension, without that dimension."""
    return _part(input, dimension("select", dim, input.ndim), index)


def _part(input: Tensor, dim: int, part: Any) -> Tensor:
    return getitem(input, (slice(None),) * dim + (part,))


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
    return taken("repeat_interleave", x, lambda a: np.repeat(a, times, d))


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
