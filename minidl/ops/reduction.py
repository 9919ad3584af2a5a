"""Reductions: many elements become one, over some dimensions or all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minidl import kernels
from minidl.autograd import no_grad, record
from minidl.ops.arithmetic import maximum, minimum, where
from minidl.ops.dtype import int64, only_tensors, quiet, to
from minidl.ops.shape import also_axis, dimension, dimensions
from minidl.tensor import Array, Tensor

Dims = int | Sequence[int] | None


def _reduced(name: str, input: Tensor, dim: Dims) -> tuple[int, ...]:
    """The dimensions to reduce: all, also for an empty list of them, as in PyTorch."""
    only_tensors(name, input)
    return dimensions(name, None if isinstance(dim, tuple | list) and not dim else dim, input.ndim)


def _kept(shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with the reduced dimensions as 1."""
    return tuple(1 if d in dims else size for d, size in enumerate(shape))


@also_axis
@quiet
def sum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """y = sum of x over `dim`;  gx = gy, repeated. Integers and booleans are summed in int64."""
    dims = _reduced("sum", input, dim)
    x = to(input, dtype or (int64 if input.dtype.kind in "biu" else input.dtype))
    shape = x.shape
    kept = _kept(shape, dims)
    # Where NumPy adds one row after the other, float32 soon loses the digits that a sum is long for.
    wide = np.float64 if x.dtype.kind == "f" else x.dtype
    if x.dtype.kind == "f" and x.dtype != np.float16 and len(dims) == x.ndim:
        y = kernels.total(x.array).reshape(kept if keepdim else ())
    else:
        y = x.array.sum(axis=dims, keepdims=keepdim, dtype=wide).astype(x.dtype, copy=False)
    return record("sum", y, (x, lambda gy: gy.reshape(kept).expand(shape)))


@also_axis
def mean(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """y = sum of x over `dim` / its number of elements;  gx = gy / that number. NaN where there are none."""
    count = math.prod(input.shape[d] for d in _reduced("mean", input, dim))
    if input.dtype == np.float16:  # whose sums soon overflow
        return to(mean(to(input, np.float32), dim, keepdim), np.float16)
    _refuse_integers("mean", input)
    return sum(input, dim, keepdim) / count


@also_axis
def var(input: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    """y = sum of (x - mean)^2 / (n - 1), or / n where not `unbiased`;  gx = gy 2 (x - mean) / that number."""
    dims, shape = _reduced("var", input, dim), input.shape
    if input.dtype == np.float16:
        return to(var(to(input, np.float32), dim, unbiased, keepdim), np.float16)
    _refuse_integers("var", input)
    n, kept = math.prod(shape[d] for d in dims), _kept(shape, dims)
    count = n - 1 if unbiased and n else n

    def gradient(gy: Tensor) -> Tensor:
        return (2 * gy / count).reshape(kept).expand(shape) * (input - mean(input, dim, keepdim=True))

    with no_grad():
        deviation = input - mean(input, dim, keepdim=True)
        y = sum(deviation * deviation, dim, keepdim) / count
    return record("var", y.array, (input, gradient))


def _refuse_integers(name: str, input: Tensor) -> None:
    if not input.is_floating_point():
        raise RuntimeError(f"{name}: the input must be a float tensor, not {input.dtype}; convert it with .float()")


@also_axis
@quiet
def std(input: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    """y = the square root of ``var``;  its gradient in the variance is gy / (2 y), and 0 where y = 0, as in PyTorch."""
    only_tensors("std", input)
    if input.is_floating_point() and input.dtype != np.float64:  # in which no square of a float32 over- or underflows
        return to(std(to(input, np.float64), dim, unbiased, keepdim), input.dtype)
    variance = var(input, dim, unbiased, keepdim)

    def gradient(gy: Tensor, y: Tensor) -> Tensor:
        return where(y == 0, 0, gy / (2 * where(y == 0, 1, y)))

    return record("std", np.sqrt(variance.array), (variance, gradient), keep_output=True)


def all(input: Tensor) -> Tensor:
    """Whether all elements are true (not 0), as a 0-d tensor: of bools, but of a uint8 tensor uint8, as in PyTorch."""
    only_tensors("all", input)
    return Tensor(input.array.all().astype(_truth(input)))


def any(input: Tensor) -> Tensor:
    """Whether any element is true (not 0), as a 0-d tensor: of bools, but of a uint8 tensor uint8, as in PyTorch."""
    only_tensors("any", input)
    return Tensor(input.array.any().astype(_truth(input)))


def _truth(input: Tensor) -> Any:
    return np.uint8 if input.dtype == np.uint8 else np.bool_


class MaxResult(NamedTuple):
    """What ``max(x, dim)`` and ``min(x, dim)`` return: the elements chosen, and where they stand in that dimension."""

    values: Tensor
    indices: Tensor


@also_axis
def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None) -> Any:
    """The greatest element; ``max(x, dim)`` gives (values, indices); ``max(a, b)`` is ``maximum``.

    NaN counts as greatest. gx = gy at the element chosen, the first among equals; without `dim`, as in PyTorch,
    gy is shared out among all equals.

    Raises
    ------
    RuntimeError, IndexError
        If there is no element to choose from.
    """
    only_tensors("max", input)
    if other is not None or isinstance(dim, Tensor):
        return maximum(input, dim if other is None else other)
    if dim is None:
        return _extreme("max", input, np.max)
    return _chosen("max", input, _place("max", np.argmax, input, dim, keepdim=True), dim, keepdim)


@also_axis
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None) -> Any:
    """The least element, as ``max`` is the greatest; here NaN counts as least. ``min(a, b)`` is the lesser of each."""
    only_tensors("min", input)
    if other is not None or isinstance(dim, Tensor):
        return minimum(input, dim if other is None else other)
    if dim is None:
        return _extreme("min", input, np.min)
    return _chosen("min", input, _place("min", np.argmin, input, dim, keepdim=True), dim, keepdim)


def _extreme(name: str, input: Tensor, of: Callable[[Array], Any]) -> Tensor:
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


@also_axis
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The place of the greatest element in dimension `dim`, or in the flattened tensor; the first among equals."""
    return _place("argmax", np.argmax, input, dim, keepdim)


@also_axis
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The place of the least element, as ``argmax`` is that of the greatest."""
    return _place("argmin", np.argmin, input, dim, keepdim)


def _place(name: str, function: Callable[..., Any], input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    only_tensors(name, input)
    d = None if dim is None else dimension(name, dim, input.ndim)
    if input.numel() == 0 and (d is None or input.shape[d] == 0):
        raise IndexError(f"{name}: no element to choose from in a tensor of shape {input.shape} with dim={dim}")
    if input.ndim == 0:
        return Tensor(np.zeros_like(input.array, np.int64))
    return Tensor(function(input.array, axis=d, keepdims=keepdim).astype(np.int64))
