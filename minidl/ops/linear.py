"""The matrix product and the linear layer's operation: bilinear maps, whose gradients are matrix products again.

For y = a b the loss changes by the sum of gy (da b + a db), so ga = gy b^T and gb = a^T gy.

Source: M. Giles, Collected matrix derivative results for forward and reverse mode algorithmic differentiation, 2008.
"""

from __future__ import annotations

import math
from typing import Any

from minidl import kernels
from minidl.autograd import record
from minidl.ops._operands import common_shape, operand, operation, same_device
from minidl.ops.conv import bias_edge
from minidl.tensor import Array, Tensor


@operation(errstate=True)
def matmul(input: Any, other: Any) -> Tensor:
    """y = a b, the matrix product of the last two dimensions;  ga = gy b^T, gb = a^T gy.

    Dimensions before the last two broadcast. A vector is a row on the left and a column on the right, without that
    dimension in the result.

    Raises
    ------
    RuntimeError
        If the inner sizes or the dtypes differ, or an operand has no dimension.
    """
    input, other = operand("matmul", input), operand("matmul", other)
    _check_matmul(input, other)
    a = input.unsqueeze(0) if input.ndim == 1 else input  # (..., M, K)
    b = other.unsqueeze(1) if other.ndim == 1 else other  # (..., K, N)
    if a.ndim > 2 and b.ndim == 2:  # one product of all rows
        y = matmul(a.reshape(math.prod(a.shape[:-1]), a.shape[-1]), other)
        return y.reshape(*a.shape[:-1], *other.shape[1:])
    if b.ndim > 2:
        batch = common_shape("matmul", a.shape[:-2], b.shape[:-2])
        a, b = a.expand(batch + a.shape[-2:]), b.expand(batch + b.shape[-2:])
    y = record(
        "matmul",
        _products(a.array, b.array),  # (..., M, N)
        (a, lambda gy: gy @ b.transpose(-1, -2)),
        (b, lambda gy: a.transpose(-1, -2) @ gy),
    )
    y = y.squeeze(-2) if input.ndim == 1 else y
    return y.squeeze(-1) if other.ndim == 1 else y


def _products(a: Array, b: Array) -> Array:
    """The product of each pair of matrices in (..., M, K) and (..., K, N)."""
    if a.ndim <= 3:
        return kernels.matmul(a, b)
    flat = (x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:]) for x in (a, b))
    return kernels.matmul(*flat).reshape(*a.shape[:-1], b.shape[-1])


def _check_matmul(a: Any, b: Any) -> None:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        raise TypeError(f"matmul: expected two tensors, not {type(a).__name__} and {type(b).__name__}")
    if a.ndim == 0 or b.ndim == 0:
        raise RuntimeError(f"matmul: both operands need at least 1 dimension, got shapes {a.shape} and {b.shape}")
    inner_a, inner_b = a.shape[-1], b.shape[-2] if b.ndim > 1 else b.shape[0]
    if inner_a != inner_b:
        rule = f"the left's number of columns, {inner_a}, must be the right's number of rows, {inner_b}"
        raise RuntimeError(f"matmul: shapes {a.shape} and {b.shape} cannot be multiplied: {rule}")
    same_device("matmul", a, b)
    if a.dtype != b.dtype:
        raise RuntimeError(f"matmul: dtypes {a.dtype} and {b.dtype} differ; convert one, for example with .float()")


@operation()
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x w^T + b, for each row of features x.

    Parameters
    ----------
    input : Tensor
        (..., in)
    weight : Tensor
        (out, in)
    bias : Tensor, optional
        (out,)

    Returns
    -------
    Tensor
        (..., out)

    Raises
    ------
    RuntimeError
        If the sizes do not fit.

    Notes
    -----
    gx = gy w, gw = gy^T x, gb = sum of gy over all rows.
    """
    if bias is not None and bias.dtype != weight.dtype:
        raise RuntimeError(f"linear: weight {weight.dtype} and bias {bias.dtype} must have one dtype")
    if input.dtype != weight.dtype:
        cure = f"convert the input with .to(minidl.{weight.dtype})"
        raise RuntimeError(f"linear: input {input.dtype} and weight {weight.dtype} must have one dtype; {cure}")
    if weight.ndim not in (1, 2) or input.ndim == 0 or input.shape[-1] != weight.shape[-1]:
        found, rule = f"input of shape {input.shape}", "their last sizes, the number of features, must be equal"
        raise RuntimeError(f"linear: {found} does not fit weight of shape {weight.shape} (out, in): {rule}")
    if weight.ndim == 1 or (bias is not None and bias.shape != weight.shape[:1]):
        y = matmul(input, weight.T)
        return y if bias is None else _with_bias(y, weight, bias)
    rows = input.reshape(-1, input.shape[-1]) if input.ndim != 2 else input  # (rows, in): one product, not many
    y = _product(rows, weight, bias)
    return y.reshape(*input.shape[:-1], y.shape[1]) if input.ndim != 2 else y


def _with_bias(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """y plus a bias of any shape that broadcasts."""
    try:
        return y + bias
    except RuntimeError:
        found = f"weight of shape {weight.shape} gives outputs of shape {y.shape}, and the bias has shape {bias.shape}"
        raise RuntimeError(f"linear: {found}; one of shape {weight.shape[:-1]} would fit") from None


def _product(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """y = x w^T + b (rows, out), from x (rows, in) and w (out, in).

    As in conv.py, all of it follows from one trilinear form, sum over r,o,i of y[r,o] w[o,i] x[r,i]: this is its
    derivative in y, the next two functions are those in x and in w, and the gradients of each are the other two.
    """
    y = kernels.matmul(x.array, w.array.T, None if b is None else b.array)
    edges = (x, lambda gy: _product_input(gy, w)), (w, lambda gy: _product_weight(x, gy))
    return record("linear", y, *edges, *bias_edge(b))


def _product_input(y: Tensor, w: Tensor) -> Tensor:
    """x = y w (rows, in)."""
    x = kernels.matmul(y.array, w.array)
    return record("linear_input", x, (y, lambda gx: _product(gx, w)), (w, lambda gx: _product_weight(gx, y)))


def _product_weight(x: Tensor, y: Tensor) -> Tensor:
    """w = y^T x (out, in)."""
    w = kernels.matmul(y.array.T, x.array)
    return record("linear_weight", w, (x, lambda gw: _product_input(y, gw)), (y, lambda gw: _product(x, gw)))
