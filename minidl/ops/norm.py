"""Products, running sums, sums of exponentials; norms, and the distances and angles made of them.

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
from minidl.ops._operands import common_shape, dimension, floating, only_floats, operation
from minidl.ops.arithmetic import abs, exp, pow
from minidl.ops.comparison import where
from minidl.ops.conversion import DType, int64, to
from minidl.ops.extremes import amax, amin
from minidl.ops.reduction import Dims, keepdim_shape, reduced_dims, sum
from minidl.ops.shape import cat
from minidl.tensor import Tensor


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
    return to(_cumsum(x, (slice(None),) * d + (slice(None),), d) if x.ndim else x.clone(), result)


def _cumsum(x: Tensor, order: tuple[slice, ...], dim: int) -> Tensor:
    """The running sum, in this order of the elements; its adjoint is that in the reverse order."""
    back = order[:-1] + (slice(None, None, -(order[-1].step or 1)),)
    y = np.cumsum(x.array[order], dim)[order].copy()  # not with negative strides, which PyTorch refuses to read
    return record("cumsum", y, (x, lambda gy: _cumsum(gy, back, dim)))


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
        y = _power(sum(x * x if p == 2 else _power(abs(x), p), dim, keepdim), 1 / p)
    return to(y, dtype=dtype or input.dtype)


def _power(x: Tensor, p: float) -> Tensor:
    """x^p for x >= 0, with the gradient 0 at x = 0."""
    zero = x == 0
    return where(zero, math.inf if p < 0 else 0.0, pow(where(zero, 1.0, x), p))


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
