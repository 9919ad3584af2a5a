"""Reductions: many elements become one, over some dimensions or all.

The sum is a linear map, and the adjoint of adding up is repeating: its gradient is gy, expanded to x's shape. Mean and
variance follow by the chain rule. The gradient of a maximum goes to the element that was chosen.

Source: J. Claerbout, S. Fomel, Geophysical image estimation by example, 2014, chapter 1, Basic operators and adjoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minidl import kernels
from minidl.autograd import no_grad, record
from minidl.ops._operands import dimension, dimensions, only_floats, operation
from minidl.ops.comparison import maximum, minimum, where
from minidl.ops.conversion import int64, to
from minidl.tensor import Array, Tensor

Dims = int | Sequence[int] | None


def _reduced_dims(name: str, input: Tensor, dim: Dims) -> tuple[int, ...]:
    """The dimensions to reduce: all for None or an empty list, as in PyTorch."""
    return dimensions(name, None if isinstance(dim, tuple | list) and not dim else dim, input.ndim)


def _keepdim_shape(shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with the reduced dimensions as 1."""
    return tuple(1 if d in dims else size for d, size in enumerate(shape))


@operation(errstate=True, axis=True)
def sum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """y = sum of x over `dim`;  gx = gy, repeated. Integers and booleans are summed in int64."""
    dims = _reduced_dims("sum", input, dim)
    x = to(input, dtype or (int64 if input.dtype.kind in "biu" else input.dtype))
    shape = x.shape
    kept = _keepdim_shape(shape, dims)
    # NumPy adds one row after another, which soon loses digits in float32.
    wide = np.float64 if x.dtype.kind == "f" else x.dtype
    if x.dtype.kind == "f" and x.dtype != np.float16 and len(dims) == x.ndim:
        y = kernels.total(x.array).reshape(kept if keepdim else ())
    else:
        y = x.array.sum(axis=dims, keepdims=keepdim, dtype=wide).astype(x.dtype, copy=False)
    return record("sum", y, (x, lambda gy: gy.reshape(kept).expand(shape)))


@operation(axis=True, wide=True)
def mean(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """y = (sum of x over `dim`) / n, with n elements in each sum;  gx = gy / n, repeated. NaN where n = 0."""
    count = math.prod(input.shape[d] for d in _reduced_dims("mean", input, dim))
    only_floats("mean", input)
    return sum(input, dim, keepdim) / count


@operation(axis=True, wide=True)
def var(input: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    """y = sum of (x - mean)^2 / c with c = n - 1, or n if not `unbiased`;  gx = gy 2 (x - mean) / c."""
    dims, shape = _reduced_dims("var", input, dim), input.shape
    only_floats("var", input)
    n, kept = math.prod(shape[d] for d in dims), _keepdim_shape(shape, dims)
    count = n - 1 if unbiased and n else n

    def gradient(gy: Tensor) -> Tensor:
        return (2 * gy / count).reshape(kept).expand(shape) * (input - mean(input, dim, keepdim=True))

    with no_grad():
        deviation = input - mean(input, dim, keepdim=True)
        y = sum(deviation * deviation, dim, keepdim) / count
    return record("var", y.array, (input, gradient))


@operation(errstate=True, axis=True)
def std(input: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    """y = the square root of ``var``;  its gradient in the variance is gy / (2 y), and 0 where y = 0, as in PyTorch."""
    if input.is_floating_point() and input.dtype != np.float64:  # where no square of a float32 over- or underflows
        return to(std(to(input, np.float64), dim, unbiased, keepdim), input.dtype)
    variance = var(input, dim, unbiased, keepdim)

    def gradient(gy: Tensor, y: Tensor) -> Tensor:
        return where(y == 0, 0, gy / (2 * where(y == 0, 1, y)))

    return record("std", np.sqrt(variance.array), (variance, gradient), keep_output=True)


@operation()
def all(input: Tensor) -> Tensor:
    """Whether all elements are true (not 0), as a 0-d bool tensor; for a uint8 tensor as uint8, as in PyTorch."""
    return Tensor(input.array.all().astype(_truth(input)))


@operation()
def any(input: Tensor) -> Tensor:
    """Whether any element is true (not 0), as a 0-d bool tensor; for a uint8 tensor as uint8, as in PyTorch."""
    return Tensor(input.array.any().astype(_truth(input)))


def _truth(input: Tensor) -> Any:
    return np.uint8 if input.dtype == np.uint8 else np.bool_


class MaxResult(NamedTuple):
    """What ``max(x, dim)`` and ``min(x, dim)`` return: the elements, and their indices in that dimension."""

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
    if other is not None or isinstance(dim, Tensor):
        return maximum(input, dim if other is None else other)
    if dim is None:
        return _extreme("max", input, np.max)
    return _chosen("max", input, _index_of("max", np.argmax, input, dim, keepdim=True), dim, keepdim)


@operation(axis=True)
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The least element, like ``max``, with NaN as the least; ``min(a, b)`` is ``minimum``."""
    if other is not None or isinstance(dim, Tensor):
        return minimum(input, dim if other is None else other)
    if dim is None:
        return _extreme("min", input, np.min)
    return _chosen("min", input, _index_of("min", np.argmin, input, dim, keepdim=True), dim, keepdim)


def _extreme(name: str, input: Tensor, of: Callable[[Array], Any]) -> Tensor:
    """The extreme element of all, found by `np.max` or `np.min`; equal ones share its gradient."""
    if input.numel() == 0:
        which = "greatest" if name == "max" else "least"
        raise RuntimeError(f"{name}: a tensor of shape {input.shape} has no {which} element")
    y = of(input.array)
    chosen = (input.array == y) | (np.isnan(input.array) & np.isnan(y))
    share = Tensor((chosen / chosen.sum()).astype(input.dtype))
    return record(name, y.reshape(()), (input, lambda gy: gy * share))


def _chosen(name: str, input: Tensor, indices: Tensor, dim: int, keepdim: bool) -> MaxResult:
    """The elements at `indices`, which have size 1 in `dim`, and the indices."""
    if input.ndim == 0:
        return MaxResult(input.clone(), indices)
    d = dimension(name, dim, input.ndim)
    grids = np.ogrid[tuple(slice(size) for size in indices.shape)]
    values = input[tuple(indices.array if i == d else grid for i, grid in enumerate(grids))]
    return MaxResult(values, indices) if keepdim else MaxResult(values.squeeze(d), indices.squeeze(d))


@operation(axis=True)
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the greatest element in dimension `dim`, or in the flattened tensor; the first of equal ones."""
    return _index_of("argmax", np.argmax, input, dim, keepdim)


@operation(axis=True)
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the least element, like ``argmax``."""
    return _index_of("argmin", np.argmin, input, dim, keepdim)


def _index_of(name: str, function: Callable[..., Any], input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    """The indices that `np.argmax` or `np.argmin` finds, in int64."""
    d = None if dim is None else dimension(name, dim, input.ndim)
    if input.numel() == 0 and (d is None or input.shape[d] == 0):
        raise IndexError(f"{name}: no element to choose from in a tensor of shape {input.shape} with dim={dim}")
    if input.ndim == 0:
        return Tensor(np.zeros_like(input.array, np.int64))
    return Tensor(function(input.array, axis=d, keepdims=keepdim).astype(np.int64))
