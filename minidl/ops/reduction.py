"""Reductions: many elements become one, over some dimensions or all.

The sum is a linear map, and the adjoint of adding up is repeating: its gradient is gy, expanded to x's shape. Mean and
variance follow by the chain rule. Maxima and medians, products, running sums and norms are in `other_reductions.py`.

Source: J. Claerbout, S. Fomel, Geophysical image estimation by example, 2014, chapter 1, Basic operators and adjoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl import kernels
from minidl.autograd import no_grad, record
from minidl.ops._operands import Number, dimensions, only_floats, operation
from minidl.ops.comparison import where
from minidl.ops.conversion import int64, to
from minidl.tensor import Tensor

Dims = int | Sequence[int] | None


def reduced_dims(name: str, input: Tensor, dim: Dims) -> tuple[int, ...]:
    """The dimensions to reduce: all for None or an empty list, as in PyTorch."""
    return dimensions(name, None if isinstance(dim, tuple | list) and not dim else dim, input.ndim)


def keepdim_shape(shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with the reduced dimensions as 1."""
    return tuple(1 if d in dims else size for d, size in enumerate(shape))


@operation(errstate=True, axis=True)
def sum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """y = sum of x over `dim`;  gx = gy, repeated. Integers and booleans are summed in int64."""
    dims = reduced_dims("sum", input, dim)
    x = to(input, dtype=dtype or (int64 if input.dtype.kind in "biu" else input.dtype))
    shape = x.shape
    kept = keepdim_shape(shape, dims)
    # NumPy adds one row after another, which soon loses digits in float32.
    wide = np.float64 if x.dtype.kind == "f" else x.dtype
    if x.dtype.kind == "f" and x.dtype != np.float16 and len(dims) == x.ndim:
        y = kernels.total(x.array).reshape(kept if keepdim else ())
    else:
        y = x.array.sum(axis=dims, keepdims=keepdim, dtype=wide).astype(x.dtype, copy=False)
    return record("sum", y, (x, lambda gy: gy.reshape(kept).expand(shape)))


@operation(axis=True, wide=True)
def mean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """y = (sum of x over `dim`) / n, with n elements in each sum;  gx = gy / n, repeated. NaN where n = 0."""
    count = math.prod(input.shape[d] for d in reduced_dims("mean", input, dim))
    x = input if dtype is None else to(input, dtype=dtype)
    only_floats("mean", x)
    return sum(x, dim, keepdim) / count


@operation(axis=True, wide=True)
def var(
    input: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Number | None = None
) -> Tensor:
    """y = sum of (x - mean)^2 / c with c = n - `correction`: by default n - 1, or n if not `unbiased`.

    gx = gy 2 (x - mean) / c. ``var(x, False)`` reduces all dimensions.
    """
    return _variance("var", input, dim, unbiased, keepdim, correction)


def _variance(name: str, input: Tensor, dim: Any, unbiased: bool, keepdim: bool, correction: Number | None) -> Tensor:
    dim, unbiased = (None, dim) if isinstance(dim, bool) else (dim, unbiased)
    dims, shape = reduced_dims(name, input, dim), input.shape
    only_floats(name, input)
    n, kept = math.prod(shape[d] for d in dims), keepdim_shape(shape, dims)
    count = max(n - (int(unbiased) if correction is None else correction), 0)

    def gradient(gy: Tensor) -> Tensor:
        return (2 * gy / count).reshape(kept).expand(shape) * (input - mean(input, dim, keepdim=True))

    with no_grad():
        deviation = input - mean(input, dim, keepdim=True)
        y = sum(deviation * deviation, dim, keepdim) / count
    return record(name, y.array, (input, gradient))


@operation(errstate=True, axis=True)
def std(
    input: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Number | None = None
) -> Tensor:
    """y = the square root of ``var``;  its gradient in the variance is gy / (2 y), and 0 where y = 0, as in PyTorch."""
    # In float64, where no square of a float32 over- or underflows.
    x = to(input, np.float64) if input.is_floating_point() else input
    return to(power(_variance("std", x, dim, unbiased, keepdim, correction), 0.5), input.dtype)


def power(x: Tensor, p: float) -> Tensor:
    """x^p for x >= 0, with the gradient 0 at x = 0, as PyTorch has it for roots and norms."""
    zero = x == 0
    return where(zero, math.inf if p < 0 else 0.0, where(zero, 1.0, x) ** p)


@operation(axis=True)
def all(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether all elements over `dim` are true (not 0), as bool; for a uint8 tensor as uint8, as in PyTorch."""
    return _whether(np.all, input, dim, keepdim)


@operation(axis=True)
def any(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether any element over `dim` is true (not 0), as bool; for a uint8 tensor as uint8, as in PyTorch."""
    return _whether(np.any, input, dim, keepdim)


def _whether(holds: Callable[..., Any], input: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    y = holds(input.array, axis=dimensions(holds.__name__, dim, input.ndim), keepdims=keepdim)
    return Tensor(y.astype(np.uint8 if input.dtype == np.uint8 else np.bool_))
