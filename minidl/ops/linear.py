"""The linear layer's operation."""

from __future__ import annotations

from minidl import kernels
from minidl.autograd import record
from minidl.ops.arithmetic import matmul
from minidl.ops.conv import bias_edge
from minidl.ops.dtype import only_tensors, same_device
from minidl.tensor import Tensor


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x w^T + b.

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
    """
    only_tensors("linear", input, weight, *([] if bias is None else [bias]))
    same_device("linear", input, weight, bias)
    if bias is not None and bias.dtype != weight.dtype:
        raise RuntimeError(f"linear: weight {weight.dtype} and bias {bias.dtype} must have one dtype")
    if input.dtype != weight.dtype:
        raise RuntimeError(
            f"linear: input {input.dtype} and weight {weight.dtype} must have one dtype; convert the input with "
            f".to(minidl.{weight.dtype})"
        )
    if weight.ndim not in (1, 2) or input.ndim == 0 or input.shape[-1] != weight.shape[-1]:
        raise RuntimeError(
            f"linear: input of shape {input.shape} does not fit weight of shape {weight.shape} (out, in): their last "
            "sizes, the number of features, must be equal"
        )
    if weight.ndim == 1 or not _fits(bias, weight):
        y = matmul(input, weight.T)
        return y if bias is None else _with_bias(y, weight, bias)
    rows = input.reshape(-1, input.shape[-1]) if input.ndim != 2 else input  # (rows, in): one product, not many
    y = _product(rows, weight, bias)
    return y.reshape(*input.shape[:-1], y.shape[1]) if input.ndim != 2 else y


def _fits(bias: Tensor | None, weight: Tensor) -> bool:
    return bias is None or (bias.shape == weight.shape[:1] and bias.dtype == weight.dtype)


def _with_bias(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """y plus a bias of any shape that broadcasts."""
    try:
        return y + bias
    except RuntimeError:
        raise RuntimeError(
            f"linear: weight of shape {weight.shape} gives outputs of shape {y.shape}, and the bias has shape "
            f"{bias.shape}; one of shape {weight.shape[:-1]} would fit"
        ) from None


def _product(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """y = x w^T + b (rows, out), from x (rows, in) and w (out, in).

    As in conv.py, everything follows from one form, sum over r,o,i of y[r,o] w[o,i] x[r,i]: this is its derivative in
    y, the next two functions are those in x and in w, and each one's gradients are the other two.
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
