"""Extremes and medians: one element is chosen among many by its rank, and the gradient goes to it.

Over one dimension the choice has an index, and gx = gy at that index and 0 elsewhere. Over several, or all, equal
elements share gy in equal parts, as in PyTorch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minidl.autograd import record
from minidl.ops._operands import Function, dimension, operation
from minidl.ops.comparison import maximum, minimum, where
from minidl.ops.reduction import Dims, mean, reduced_dims
from minidl.tensor import Array, Tensor


class Chosen(NamedTuple):
    """The elements chosen in a dimension, and their indices there."""

    values: Tensor
    indices: Tensor


@operation(axis=True)
def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The greatest element; ``max(x, dim)`` gives (values, indices); ``max(a, b)`` is ``maximum``.

    NaN counts as the greatest. gx = gy at the element chosen, the first of equal ones, and 0 elsewhere; without
    `dim`, gy is divided equally among all equal ones, as in PyTorch.

    Raises
    ------
    RuntimeError, IndexError
        If there are no elements.
    """
    return _extreme(np.max, np.argmax, maximum, input, dim, keepdim, other)


@operation(axis=True)
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The least element, like ``max``, with NaN as the least; ``min(a, b)`` is ``minimum``."""
    return _extreme(np.min, np.argmin, minimum, input, dim, keepdim, other)


def _extreme(
    of: Function, index_of: Function, of_two: Function, input: Tensor, dim: Any, keepdim: bool, other: Any
) -> Any:
    if other is not None or isinstance(dim, Tensor):
        return of_two(input, dim if other is None else other)
    if dim is None:
        return _shared(of.__name__, of, input, None, False)
    return _chosen(of.__name__, index_of, input, dim, keepdim)


@operation(axis=True)
def amax(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The greatest elements over `dim`, without indices;  gy is divided equally among all equal ones."""
    return _shared("amax", np.max, input, dim, keepdim)


@operation(axis=True)
def amin(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The least elements over `dim`, without indices;  gy is divided equally among all equal ones."""
    return _shared("amin", np.min, input, dim, keepdim)


@operation(axis=True)
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The element in the middle, of two the lower, and NaN if there is one; ``median(x, dim)``: (values, indices)."""
    if dim is not None:
        return _chosen("median", _middle, input, dim, keepdim)
    x = input.reshape(-1)
    return _shared("median", lambda a, axis, keepdims: a[_middle(a, 0, True)], x, 0, False) if len(x) else mean(x)


def _middle(x: Array, axis: int, keepdims: bool) -> Array:
    """The index of the median; NaN are the greatest."""
    n = x.shape[axis]
    rank = np.where(np.isnan(x).any(axis=axis, keepdims=True), n - 1, (n - 1) // 2)
    return np.take_along_axis(np.argsort(x, axis, kind="stable"), rank, axis)


def _shared(name: str, of: Function, input: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    """The elements that `of` finds, such as `np.max`; equal ones share the gradient."""
    dims, shape = reduced_dims(name, input, dim), input.shape
    if any(shape[d] == 0 for d in dims):
        error = RuntimeError if dim is None else IndexError
        raise error(f"{name}: no element to choose from in a tensor of shape {shape} with dim={dim}")
    y = of(input.array, axis=dims, keepdims=True)
    kept = y.shape

    def gradient(gy: Tensor, result: Tensor) -> Tensor:
        y = result.array.reshape(kept)
        chosen = (input.array == y) | (np.isnan(input.array) & np.isnan(y))
        count = Tensor(chosen.sum(axis=dims, keepdims=True))
        return where(Tensor(chosen), gy.reshape(kept) / count, 0)

    return record(name, y if keepdim else y.squeeze(dims), (input, gradient), keep_output=True)


def _chosen(name: str, index_of: Function, input: Tensor, dim: int, keepdim: bool) -> Chosen:
    """The elements at the indices that `index_of` finds in `dim`, and these indices."""
    indices = _index_of(name, index_of, input, dim, True)
    if input.ndim == 0:
        return Chosen(input.clone(), indices)
    d = dimension(name, dim, input.ndim)
    grids = np.ogrid[tuple(slice(size) for size in indices.shape)]
    values = input[tuple(indices.array if i == d else grid for i, grid in enumerate(grids))]
    return Chosen(values, indices) if keepdim else Chosen(values.squeeze(d), indices.squeeze(d))


@operation(axis=True)
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the greatest element in dimension `dim`, or in the flattened tensor; the first of equal ones."""
    return _index_of("argmax", np.argmax, input, dim, keepdim)


@operation(axis=True)
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the least element, like ``argmax``."""
    return _index_of("argmin", np.argmin, input, dim, keepdim)


def _index_of(name: str, function: Function, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    """The indices that a function such as `np.argmax` finds, in int64."""
    d = None if dim is None else dimension(name, dim, input.ndim)
    if input.numel() == 0 and (d is None or input.shape[d] == 0):
        raise IndexError(f"{name}: no element to choose from in a tensor of shape {input.shape} with dim={dim}")
    if input.ndim == 0:
        return Tensor(np.zeros_like(input.array, np.int64))
    return Tensor(function(input.array, axis=d, keepdims=keepdim).astype(np.int64))
