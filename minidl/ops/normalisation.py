"""Normalisation: the values that share a mean get mean 0 and variance 1, then a learned scale and shift.

All four norms are one operation, `_normalised`, which takes its means over all axes but the second of (N, C, ...); they
differ in what they reshape to that: batch norm nothing, instance norm to (1, N C, ...), group norm to (1, N G, -1) and
layer norm to (1, -1, size).

Letters: n the number of values that share the mean m and the variance v, r = 1 / sqrt(v + eps), h = (x - m) r, w and b
the scale and the shift. Sources: S. Ioffe, C. Szegedy, Batch normalization, arXiv:1502.03167, 2015; J. Ba et al., Layer
normalization, arXiv:1607.06450, 2016; D. Ulyanov et al., Instance normalization, arXiv:1607.08022, 2016; Y. Wu, K. He,
Group normalization, arXiv:1803.08494, 2018.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl import kernels
from minidl.autograd import grad, is_grad_enabled, record
from minidl.ops._operands import listed_sizes, only_floats, operation
from minidl.ops.conv import channel_sums
from minidl.ops.inplace import refuse_unwritable
from minidl.tensor import Array, Tensor
from minidl.versions import written

Moments = tuple[Array, Array]  # m and v, each (C,) in float64


def _normalised(
    x: Tensor, w: Tensor | None, b: Tensor | None, eps: float, moments: Moments, fixed: bool = False
) -> Tensor:
    """y = h w + b;  gx = w r (gy - E gy - h E(gy h)), gw = sum of gy h, gb = sum of gy, with means E over a channel.

    If m and v are fixed, they do not depend on x, and gx = w r gy.
    """
    (m, v), zero = moments, np.zeros_like(moments[0])
    r = 1 / np.sqrt(v + eps)
    scale = r if w is None else r * w.array
    y = kernels.normalise(x.array, m, scale, zero if b is None else b.array)

    @functools.lru_cache(maxsize=1)  # for all three gradients
    def sums(gy: Tensor, version: int) -> Moments:  # of gy and of gy (x - m)
        return kernels.normalise_sums(gy.array, x.array, m)

    def gradient(of: Tensor, gy: Tensor) -> Tensor:
        if is_grad_enabled():
            views: list[Any] = [None if t is None else t.reshape(t.shape) for t in (x, w, b)]  # their nodes lack hooks
            again = _recorded(views[0], views[1], views[2], eps, moments if fixed else None)
            (wanted,) = [v for t, v in zip((x, w, b), views, strict=True) if t is of]
            return grad(again, wanted, gy, create_graph=True)[0]  # type: ignore[return-value]
        if of is x and fixed:
            return Tensor(kernels.normalise(gy.array, zero, scale, zero))
        level, slope = sums(gy, gy._storage.version)
        if of is not x:
            return Tensor((slope * r if of is w else level).astype(x.dtype))
        n = x.numel() / max(x.shape[1], 1)
        numbers = scale, -scale * r * r * slope / n, -scale * level / n
        return Tensor(kernels.normalise_backward(gy.array, x.array, m, *numbers))

    return record("normalise", y, *[(t, functools.partial(gradient, t)) for t in (x, w, b) if t is not None])


def _recorded(x: Tensor, w: Tensor | None, b: Tensor | None, eps: float, fixed: Moments | None) -> Tensor:
    """y in tensor operations, which record what second derivatives need."""
    shape = (1, -1, *[1] * (x.ndim - 2))  # of one value for each channel

    def mean(t: Tensor) -> Tensor:
        return (channel_sums(t) / (x.numel() / max(x.shape[1], 1))).reshape(shape)

    m, v = (None, None) if fixed is None else (Tensor(a.reshape(shape).astype(x.dtype)) for a in fixed)
    d = x - (mean(x) if m is None else m)
    h = d * ((mean(d * d) if v is None else v) + eps) ** -0.5
    return _affine(h, *(None if t is None else t.reshape(shape) for t in (w, b)))


@operation(errstate=True)
def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """y = h w + b, with the batch's mean and variance in training, and with the running ones in evaluation.

    Parameters
    ----------
    input : Tensor
        (N, C) or (N, C, ...)
    running_mean, running_var : Tensor or None
        (C,), both or neither, updated in place in training: running = (1 - momentum) running + momentum batch, with the
        unbiased variance v n / (n - 1).
    weight, bias : Tensor, optional
        w and b, (C,).

    Raises
    ------
    ValueError
        In training, if a channel has only one element, whose variance would be 0, or if eps is not positive.
    RuntimeError
        If sizes or dtypes do not fit, or running values are missing in evaluation.

    Notes
    -----
    In training, gx = w r (gy - mean of gy - h mean of gy h), gw = sum of gy h, gb = sum of gy. Source: S. Ioffe, C.
    Szegedy, Batch normalization, arXiv:1502.03167, 2015.
    """
    _check("batch_norm", input, input.shape[1:2], running_mean, running_var, weight, bias)
    if training and input.numel() == input.shape[1]:
        raise ValueError(f"batch_norm: in training a channel needs more than one element; shape {input.shape} has one")
    if eps < 0 or (training and eps == 0):
        raise ValueError(f"batch_norm: eps must be positive in training, and at least 0 in evaluation, not {eps}")
    moments = _moments("batch_norm", input, running_mean, running_var, momentum, training)
    return _normalised(input, weight, bias, eps, moments, fixed=not training)


@operation(errstate=True)
def instance_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,
    bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """y = h w + b, with a mean and a variance for each channel of each sample of (N, C, ...); as ``batch_norm``.

    Running values follow the samples' mean; without `use_input_stats` they are used as in ``batch_norm``. Source:
    D. Ulyanov et al., Instance normalization, arXiv:1607.08022, 2016.
    """
    _check("instance_norm", input, input.shape[1:2], running_mean, running_var, weight, bias)
    (n, c, *size), x = input.shape, input
    if use_input_stats:
        if math.prod(size) == 1:
            raise ValueError(f"instance_norm: a channel needs more than one element; shape {input.shape} has one")
        x, (weight, bias) = x.reshape(1, n * c, *size), (None if t is None else t.repeat(n) for t in (weight, bias))
    moments = _moments("instance_norm", x, running_mean, running_var, momentum, use_input_stats)
    return _normalised(x, weight, bias, eps, moments, fixed=not use_input_stats).reshape(input.shape)


@operation(errstate=True)
def layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """y = h w + b, with means over the last dimensions, which with w and b have the shape `normalized_shape`.

    Source: J. Ba et al., Layer normalization, arXiv:1607.06450, 2016.
    """
    size = listed_sizes("layer_norm", normalized_shape)
    if not size or input.shape[-len(size) :] != size:
        raise RuntimeError(f"layer_norm: normalized_shape {size} must be the last sizes of the input, {input.shape}")
    _check("layer_norm", input, size, None, None, weight, bias, least=1)
    return _affine(_grouped(input, math.prod(input.shape[: -len(size)]), eps), weight, bias)


@operation(errstate=True)
def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """y = h w + b, with means over groups of C / num_groups channels of each sample of (N, C, ...), w and b (C,).

    Source: Y. Wu, K. He, Group normalization, arXiv:1803.08494, 2018.
    """
    _check("group_norm", input, input.shape[1:2], None, None, weight, bias)
    if num_groups < 1 or input.shape[1] % num_groups:
        raise RuntimeError(f"group_norm: num_groups={num_groups} does not divide the channels of {input.shape}")
    if input.numel() == num_groups:
        raise ValueError(f"group_norm: a group needs more than one element; in shape {input.shape} each has one")
    column = (-1, *[1] * (input.ndim - 2))
    h = _grouped(input, len(input) * num_groups, eps)
    return _affine(h, *(None if t is None else t.reshape(column) for t in (weight, bias)))


def _moments(name: str, x: Tensor, mean: Tensor | None, var: Tensor | None, momentum: float, training: bool) -> Moments:
    """In training x's own moments, which the running ones follow; in evaluation the running ones."""
    if (mean is None) != (var is None):
        raise (ValueError if training else RuntimeError)(f"{name}: give running_mean and running_var, or neither")
    if not training:
        if mean is None or var is None:
            raise RuntimeError(f"{name}: evaluation needs running_mean and running_var")
        return mean.array.astype(np.float64), var.array.astype(np.float64)
    for running in (mean, var):
        if running is not None:
            refuse_unwritable(name, running)
    m, v = kernels.moments(x.array)
    n = x.numel() // max(x.shape[1], 1)
    for running, now in ((mean, m), (var, v * (n / max(n - 1, 1)))):
        if running is not None and n:
            now = now.reshape(-1, len(running)).mean(axis=0)  # of instance norm's N for each channel
            running.array[...] = (1 - momentum) * running.array + momentum * now
            written(running)
    return m, v


def _grouped(x: Tensor, groups: int, eps: float) -> Tensor:
    """h, with means over so many groups of neighbours, in order."""
    rows = x.reshape(1, groups, x.numel() // max(groups, 1))
    return _normalised(rows, None, None, eps, kernels.moments(rows.array)).reshape(x.shape)


def _affine(h: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
    h = h if w is None else h * w
    return h if b is None else h + b


def _check(name: str, x: Tensor, shape: tuple[int, ...], *vectors: Tensor | None, least: int = 2) -> None:
    """Refuse an input that cannot be normalised, and running values and parameters of another shape or dtype."""
    only_floats(name, x, NotImplementedError)
    if x.ndim < least:
        raise RuntimeError(f"{name}: expected a shape (N, C, ...), not {x.shape}")
    for key, value in zip(("running_mean", "running_var", "weight", "bias"), vectors, strict=False):
        if value is not None and (value.shape != shape or value.dtype != x.dtype):
            rule = f"{key} must have shape {shape} and that dtype, not {value.shape} and {value.dtype}"
            raise RuntimeError(f"{name}: for an input of shape {x.shape} in {x.dtype}, {rule}")
