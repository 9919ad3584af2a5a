"""Batch normalisation: each channel of a batch gets mean 0 and variance 1, then a learned scale and shift.

Letters: x is (N, C) or (N, C, ...), n the number of its elements in a channel, m and v a channel's mean and variance
over these, r = 1 / sqrt(v + eps), h = (x - m) r, w and b the scale and the shift; m, v, r, w and b are (C,).
"""

from __future__ import annotations

import numpy as np

from minidl import kernels
from minidl.autograd import no_grad, record
from minidl.ops._operands import only_floats, operation
from minidl.ops.conv import channel_sums
from minidl.ops.conversion import quiet
from minidl.tensor import Array, Tensor


@operation()
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """y = h w + b, with the batch's mean and variance in training, and with the running ones in evaluation.

    Parameters
    ----------
    input : Tensor
        (N, C) or (N, C, ...)
    running_mean, running_var : Tensor or None
        (C,), updated in place in training: running = (1 - momentum) running + momentum batch, with the unbiased
        variance v n / (n - 1).
    weight, bias : Tensor, optional
        w and b, (C,), both or neither.

    Raises
    ------
    ValueError
        If a channel has only one element in training: its variance would be 0.
    RuntimeError
        If sizes or dtypes do not fit, or a running value is missing in evaluation.

    Notes
    -----
    In training, with one mean per channel and r = 1 / sqrt(v + eps): gx = w r (gy - mean of gy - h mean of gy h);
    gw = sum of gy h, gb = sum of gy. Source: S. Ioffe, C. Szegedy, Batch normalization,
    arXiv:1502.03167, 2015.
    """
    _check(input, {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias})
    if training:
        h = _standardised(input, running_mean, running_var, momentum, eps)
        return h if weight is None or bias is None else _affine(h, weight, bias)
    if running_mean is None or running_var is None:
        raise RuntimeError("batch_norm: evaluation needs running_mean and running_var")
    scale = (running_var + eps) ** -0.5 if weight is None else weight * (running_var + eps) ** -0.5
    return _affine(input, scale, -running_mean * scale if bias is None else bias - running_mean * scale)


@quiet
def _standardised(x: Tensor, mean: Tensor | None, var: Tensor | None, momentum: float, eps: float) -> Tensor:
    """h = (x - m) r;  gx = r (gy - mean of gy - h mean of gy h), each mean over a channel. Updates `mean` and `var`."""
    n, column = x.numel() // max(x.shape[1], 1), (1, -1, *[1] * (x.ndim - 2))
    if n == 1:
        raise ValueError(f"batch_norm: in training a channel needs more than one element, and shape {x.shape} has one")
    m = kernels.channel_sums(x.array) / max(n, 1)
    d = x.array - m.reshape(column)
    v = kernels.channel_sums(d * d) / max(n, 1)
    r = _record_r(x, 1 / np.sqrt(v + x.dtype.type(eps)), n)
    for running, now in ((mean, m), (var, v * (n / (n - 1)))):
        if running is not None and n:
            with no_grad():
                running.mul_(1 - momentum).add_(Tensor(now.astype(x.dtype, copy=False)), alpha=momentum)

    def gradient(gy: Tensor, h: Tensor) -> Tensor:
        slope, level = channel_sums(gy * h) / n, channel_sums(gy) / n  # (C,)
        return (gy - level.reshape(column) - h * slope.reshape(column)) * r.reshape(column)

    return record("batch_norm", d * r.array.reshape(column), (x, gradient), keep_output=True)


def _record_r(x: Tensor, r: Array, n: int) -> Tensor:
    """r = 1 / sqrt(v + eps) as a function of x, for second gradients;  gx = -gr r^3 (x - m) / n."""

    def gradient(gr: Tensor, r: Tensor) -> Tensor:
        column = (1, -1, *[1] * (x.ndim - 2))
        deviation = x - (channel_sums(x) / n).reshape(column)
        return deviation * (gr * r**3 / -n).reshape(column)

    return record("inverse_deviation", r, (x, gradient), keep_output=True)


def _affine(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """y = x w + b, with w and b for each channel;  gx = gy w, gw = sum of gy x, gb = sum of gy."""
    column = (1, -1, *[1] * (x.ndim - 2))
    return record(
        "affine",
        x.array * w.array.reshape(column) + b.array.reshape(column),
        (x, lambda gy: gy * w.reshape(column)),
        (w, lambda gy: channel_sums(gy * x)),
        (b, channel_sums),
    )


def _check(x: Tensor, vectors: dict[str, Tensor | None]) -> None:
    given = {name: value for name, value in vectors.items() if value is not None}
    only_floats("batch_norm", x, NotImplementedError)
    if x.ndim < 2:
        raise RuntimeError(f"batch_norm: expected a shape (N, C, ...), not {x.shape}")
    for name, value in given.items():
        if value.shape != (x.shape[1],) or value.dtype != x.dtype:
            raise RuntimeError(
                f"batch_norm: for an input of shape {x.shape} in {x.dtype}, {name} must have shape ({x.shape[1]},) and "
                f"that dtype, not {value.shape} and {value.dtype}"
            )
    if ("weight" in given) != ("bias" in given):
        raise NotImplementedError("batch_norm: give weight and bias, or neither")
