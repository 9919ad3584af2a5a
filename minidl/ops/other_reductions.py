"""Reductions that are needed less often than those of reduction.py: extremes, products, running sums, and norms.

An extreme or a median is one element, chosen among many by its rank, and the gradient goes to it. Over one dimension
the choice has an index, and gx = gy at that index and 0 elsewhere. Over several, or all, equal elements share gy in
equal parts, as in PyTorch.

A product is taken by halves: first of pairs of elements, then of pairs of these products. Each step is a recorded
multiplication, so the gradient, the product of all the other elements, is found without dividing: it is right where
elements are 0, and can be differentiated again.

The p-norm is a composition too, (sum of |x|^p)^(1/p), computed in float64, where no square of a float32 over- or
underflows. At 0, where it has a kink, its gradient is 0, as in PyTorch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.autograd import record
from minidl.ops._operands import Function, common_shape, dimension, floating, only_floats, operation
from minidl.ops.arithmetic import abs, exp
from minidl.ops.comparison import maximum, minimum, where
from minidl.ops.conversion import DType, int64, to
from minidl.ops.gather import Chosen, flip, gather
from minidl.ops.reduction import Dims, keepdim_shape, mean, power, reduced_dims, sum
from minidl.ops.shape import cat
from minidl.tensor import Array, Tensor

# --- Extremes and medians -----------------------------------------------------------------------------------


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
    found = Chosen(gather(input, dim, indices), indices)
    return found if keepdim else Chosen(*[x.squeeze(dim) for x in found])


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


# --- Products, running sums, sums of exponentials -----------------------------------------------------------


def _wide(input: Tensor, dtype: Any) -> tuple[Tensor, DType]:
    """The input in the dtype to compute in, float64 for floats, and the dtype of the result."""
    x = to(input, dtype=dtype or (int64 if input.dtype.kind in "biu" else input.dtype))
    return (to(x, np.float64) if x.is_floating_point() else x), x.dtype


@operation(axis=True)
def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """y = product of x over `dim`;  gx = gy times the product of the others. Integers are multiplied in int64."""
    d = None if dim is None else dimension("prod", dim, input.ndim)
    dims = reduced_dims("prod", input, d)
    x, result = _wide(input if d is not None and input.ndim else input.reshape(-1), dtype)
    y = x.transpose(0, d or 0)
    if len(y) < 2:  # a copy, or the empty product
        y = y.clone() if len(y) else 1 + y.sum(0, keepdim=True)
    while half := len(y) // 2:
        y = cat([y[:half] * y[half : 2 * half], y[2 * half :]])
    y = to(y.transpose(0, d or 0), result).reshape(keepdim_shape(input.shape, dims))
    return y if keepdim else y.squeeze(dims)


@operation(axis=True)
def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """y_i = x_0 + ... + x_i along `dim`;  gx is the running sum of gy from the end. Integers are added in int64."""
    d = dimension("cumsum", dim, input.ndim)
    x, result = _wide(input, dtype)
    return to(_cumsum(x, d) if x.ndim else x.clone(), result)


def _cumsum(x: Tensor, dim: int) -> Tensor:
    """The running sum; its adjoint is the running sum from the end."""
    return record("cumsum", np.cumsum(x.array, dim), (x, lambda gy: flip(_cumsum(flip(gy, dim), dim), dim)))


@operation(errstate=True, axis=True, wide=True)
def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """y = ln(sum of e^x over `dim`), in a form that does not overflow;  gx = gy e^(x - y), the softmax."""
    x, dims = floating(input), reduced_dims("logsumexp", input, dim)
    kept = keepdim_shape(x.shape, dims)
    top = amax(x.detach(), dims, keepdim=True).array if x.numel() else np.zeros_like(x.array, shape=kept)
    top = np.where(np.isfinite(top), top, 0)
    y = np.log(np.exp(x.array - top).sum(axis=dims, keepdims=True, dtype=np.float64)) + top
    y = y.astype(x.dtype) if keepdim else y.squeeze(dims).astype(x.dtype)
    return record("logsumexp", y, (x, lambda gy, y: gy.reshape(kept) * exp(x - y.reshape(kept))), keep_output=True)


# --- Norms, and the distances and angles made of them -------------------------------------------------------


@operation(axis=True)
def norm(
    input: Tensor, p: Any = "fro", dim: Dims = None, keepdim: bool = False, out: None = None, dtype: Any = None
) -> Tensor:
    """y = (sum of |x|^p over `dim`)^(1/p): for p = 2 or "fro" the length, for p = 0 how many elements are not 0.

    For p = inf and -inf it is the greatest and the least |x|, whose gradient equal ones share.
    """
    p = 2 if p in ("fro", None) else p
    if isinstance(p, bool | str) or not isinstance(p, int | float):
        error = RuntimeError if isinstance(p, str) else TypeError
        raise error(f"norm: p={p!r} is not supported, only numbers and 'fro', which is 2")
    only_floats("norm", input)
    reduced_dims("norm", input, dim)  # which raises
    x = to(input, np.float64)
    if math.isinf(p):
        y = (amax if p > 0 else amin)(abs(x), dim, keepdim)
    elif p == 0:
        y = sum(where(x == 0, x * 0, 1.0), dim, keepdim)
    else:
        y = power(sum(x * x if p == 2 else power(abs(x), p), dim, keepdim), 1 / p)
    return to(y, dtype=dtype or input.dtype)


@operation()
def normalize(input: Tensor, p: float = 2.0, dim: Dims = 1, eps: float = 1e-12, out: None = None) -> Tensor:
    """y = x / max(||x||_p, eps), with the norms over `dim`."""
    return input / norm(input, p, dim, keepdim=True).clamp(min=eps)


@operation()
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """y = a b / (max(||a||, eps) max(||b||, eps)) over `dim`: the cosine of the angle between a and b."""
    shape = common_shape("cosine_similarity", x1.shape, x2.shape)
    return sum(normalize(x1.expand(shape), 2, dim, eps) * normalize(x2.expand(shape), 2, dim, eps), dim)


@operation()
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """y = ||a - b + eps||_p over the last dimension."""
    return norm(x1 - x2 + eps, p, -1, keepdim)
