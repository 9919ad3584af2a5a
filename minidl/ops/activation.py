"""Activation functions: the nonlinearities between linear layers, softmax, and dropout.

Where the gradient can be computed from the result y, it is, so the input need not be kept (`keep_output`).

Sources: V. Nair, G. Hinton, Rectified linear units improve restricted Boltzmann machines, ICML 2010 (relu); A. Maas et
al., Rectifier nonlinearities improve neural network acoustic models, ICML 2013 (leaky_relu); N. Srivastava et al.,
Dropout, JMLR 15, 2014.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from minidl import kernels, random
from minidl.autograd import record
from minidl.kernels import devices
from minidl.ops._operands import dimension, floating, only_floats, operation
from minidl.ops.conversion import to
from minidl.ops.inplace import replace
from minidl.tensor import Array, Tensor


@operation()
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """y = max(x, 0), NaN where x is NaN;  gx = 0 where y <= 0, else gy. With `inplace`, y overwrites x."""
    if input.array.dtype.kind == "f":
        y = record("relu", kernels.relu(input.array), (input, relu_backward), keep_output=True)
    elif input.dtype == bool:
        raise RuntimeError("relu: the input must be numbers, not bool; convert it with .float()")
    else:
        y = Tensor(np.maximum(input.array, 0, dtype=input.dtype))
    return replace("relu", input, y) if inplace else y


_rule = ContextVar("relu_rule", default="gradient")


@contextmanager
def relu_rule(name: str) -> Iterator[None]:
    """Choose what the backward pass does at a ReLU, in this thread, while the context lasts.

    Parameters
    ----------
    name : {"gradient", "deconv", "guided"}
        "gradient": gx = gy where y > 0, the derivative.
        "deconv": gx = gy where gy > 0, whatever y was: the backward signal is rectified like the forward one. The
        gradients of max-pooling and convolution already use the switches and the transposed filters, so a backward
        pass from one activation is then its deconvnet projection.
        "guided": gx = gy where both are positive.

    Raises
    ------
    ValueError
        If no rule has this name.

    Notes
    -----
    Sources: M. Zeiler, R. Fergus, Visualizing and understanding convolutional networks, arXiv:1311.2901, 2014;
    J. Springenberg et al., Striving for simplicity, arXiv:1412.6806, 2015 (guided).

    Examples
    --------
    >>> import minidl
    >>> x = minidl.tensor([-1.0, 1.0, 1.0], requires_grad=True)
    >>> y = relu(x)
    >>> with relu_rule("guided"):
    ...     minidl.grad(y, x, minidl.tensor([1.0, 1.0, -1.0]))[0].tolist()
    [0.0, 1.0, 0.0]
    """
    if name not in ("gradient", "deconv", "guided"):
        raise ValueError(f"relu_rule: must be 'gradient', 'deconv' or 'guided', not {name!r}")
    before = _rule.set(name)
    try:
        yield
    finally:
        _rule.reset(before)


def relu_backward(gy: Tensor, y: Tensor) -> Tensor:
    """gx = 0 where y <= 0, else gy: linear in gy, and piecewise constant in y. See also `relu_rule`."""
    rule = _rule.get()
    if rule != "gradient":
        gy = _where_positive(gy, gy)
    return gy if rule == "deconv" else _where_positive(gy, y)


def _where_positive(gy: Tensor, y: Tensor) -> Tensor:
    gx = kernels.relu_backward(gy.array, y.array)
    y = y.detach()
    return record("relu_backward", gx, (gy, lambda ggx: _where_positive(ggx, y)))


@operation()
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """y = x s, s = 1 where x > 0, else `negative_slope`;  gx = gy s. With `inplace`, y overwrites x."""
    if not isinstance(negative_slope, int | float | np.number):
        raise TypeError(f"leaky_relu: negative_slope must be a number, not {type(negative_slope).__name__}")
    only_floats("leaky_relu", input, NotImplementedError)
    kind = input.dtype.type
    slope = np.where(input.array > 0, kind(1), kind(negative_slope))
    y = record("leaky_relu", input.array * slope, (input, lambda gy: gy * Tensor(slope)))
    return replace("leaky_relu", input, y) if inplace else y


@operation()
def sigmoid(input: Tensor) -> Tensor:
    """y = 1 / (1 + e^-x);  gx = gy y (1 - y)."""
    x = floating(input)
    return record("sigmoid", kernels.sigmoid(x.array), (x, sigmoid_backward), keep_output=True)


def sigmoid_backward(gy: Tensor, y: Tensor) -> Tensor:
    """gx = gy y (1 - y)."""
    gx = kernels.sigmoid_backward(gy.array, y.array)
    to_gy, to_y = (gy, lambda ggx: sigmoid_backward(ggx, y)), (y, lambda ggx: ggx * gy * (1 - 2 * y))
    return record("sigmoid_backward", gx, to_gy, to_y)


@operation(errstate=True)
def tanh(input: Tensor) -> Tensor:
    """y = tanh x;  gx = gy (1 - y^2)."""
    x = floating(input)
    return record("tanh", np.tanh(x.array), (x, tanh_backward), keep_output=True)


def tanh_backward(gy: Tensor, y: Tensor) -> Tensor:
    """gx = gy (1 - y^2)."""
    gx = kernels.tanh_backward(gy.array, y.array)
    return record("tanh_backward", gx, (gy, lambda ggx: tanh_backward(ggx, y)), (y, lambda ggx: ggx * gy * -2 * y))


@operation(errstate=True, axis=True)
def softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """y_i = e^x_i / (sum over j of e^x_j), along `dim`;  gx = y (gy - sum of gy y).

    The maximum of x is subtracted first: the quotient is the same, and no exponential overflows.
    """
    x = floating(input) if dtype is None else to(input, dtype)
    d = _given("softmax", dim, x.ndim)
    powers = np.exp(_below_max(x, d))
    y = powers / powers.sum(axis=d, keepdims=True)
    return record("softmax", y, (x, lambda gy, y: y * (gy - (gy * y).sum(d, keepdim=True))), keep_output=True)


@operation(errstate=True, axis=True)
def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """y = x - ln(sum of e^x), along `dim`;  gx = gy - e^y sum of gy."""
    x = floating(input) if dtype is None else to(input, dtype)
    d = _given("log_softmax", dim, x.ndim)
    below = _below_max(x, d)
    y = below - np.log(np.exp(below).sum(axis=d, keepdims=True))
    return record("log_softmax", y, (x, lambda gy, y: gy - y.exp() * gy.sum(d, keepdim=True)), keep_output=True)


def _given(name: str, dim: int | None, ndim: int) -> int:
    """`dim`; where it is missing PyTorch's choice, with a warning: 1, for 0, 1 or 3 dimensions 0."""
    if dim is not None:
        return dimension(name, dim, ndim)
    chosen = 0 if ndim in (0, 1, 3) else 1
    warnings.warn(f"{name}: without dim the sum is over dimension {chosen}; give dim={chosen} or another", stacklevel=5)
    return chosen


def _below_max(x: Tensor, dim: int) -> Array:
    """x minus its maximum along `dim`."""
    if x.numel() == 0 or x.ndim == 0:
        return x.array - x.array
    return x.array - x.array.max(axis=dim, keepdims=True)


@operation()
def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """In training, set each element to 0 with probability p and multiply the others by 1 / (1 - p);  gx likewise.

    The expected value of an element stays the same, so in evaluation y = x.

    Raises
    ------
    ValueError
        If p is not a probability.
    """
    return _dropped("dropout", input, input.shape, p, training, inplace)


@operation()
def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """``dropout`` of whole channels, of (N, C, ...): neighbouring pixels are too alike to be dropped one by one."""
    if input.ndim < 2:
        raise RuntimeError(f"dropout2d: expected (N, C, H, W), not shape {input.shape}")
    return _dropped("dropout2d", input, input.shape[:2] + (1,) * (input.ndim - 2), p, training, inplace)


def _dropped(name: str, input: Tensor, shape: tuple[int, ...], p: float, training: bool, inplace: bool) -> Tensor:
    """x times a factor 0 or 1 / (1 - p) that is drawn for each element of this shape."""
    if not isinstance(p, int | float | np.number):
        raise TypeError(f"{name}: p must be a number, not {type(p).__name__}")
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p is a probability, between 0 and 1, not {p}")
    if not training or p == 0:
        return input
    only_floats(name, input)
    scale = input.dtype.type(1 / (1 - p) if p < 1 else 1)

    def draw() -> Array:
        return np.multiply(_bits(math.prod(shape)).reshape(shape) >= p * 2**32, scale, dtype=input.dtype)

    y = input * Tensor(devices.sent(draw, shape, input.dtype, devices.device_of(input.array)))
    return replace(name, input, y) if inplace else y


def _bits(n: int) -> Array:
    """n random numbers of 32 bits, straight from the bit generator: twice as fast as floats between 0 and 1."""
    return random.default_generator.rng.bit_generator.random_raw((n + 1) // 2).view(np.uint32)[:n]
