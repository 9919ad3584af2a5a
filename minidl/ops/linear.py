"""The linear layer's operation."""

from __future__ import annotations

from minidl import kernels
from minidl.autograd import record
from minidl.ops.arithmetic import matmul
from minidl.ops.conv import bias_edge
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
    if weight.ndim not in (1, 2) or input.ndim == 0 or input.shape[-1] != weight.shape[-1]:
        raise RuntimeError(
            f"linear: input of shape {input.shape} has {input.shape[-1] if input.ndim else 'no'} features, and "
            f"weight of shape {weight.shape} (out, in) takes {weight.shape[-1] if weight.ndim else 'none'}"
        )
    if weight.ndim == 1 or input.dtype != weight.dtype or not _fits(bias, weight):
        y = matmul(input, weight.T)
        return y if bias is None else y + bias
    rows = input.reshape(-1, input.shape[-1]) if input.ndim != 2 else input  # (rows, in): one product, not many
    y = _product(rows, weight, bias)
    return y.reshape(*input.shape[:-1], y.shape[1]) if input.ndim != 2 else y


def _fits(bias: Tensor | None, weight: Tensor) -> bool:
    return bias is None or (bias.shape == weight.shape[:1] and bias.dtype == weight.dtype)


def _product(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """y = x w^T + b;  gx = gy w, gw = gy^T x, which has w's own memory order as (x^T gy)^T would not."""
    y = kernels.matmul(x.array, w.array.T, None if b is None else b.array)  # (rows, in), (in, out) -> (rows, out)
    return record("linear", y, (x, lambda gy: gy @ w), (w, lambda gy: gy.T @ x), *bias_edge(b))
