"""Arithmetic, element by element. Each operation's formula and its derivative, by the chain rule, stand side by side.

Letters: x, a, b are inputs, y the result, gx, ga, gb, gy the gradients of the loss in them. An elementwise function
has a diagonal Jacobian, so its vector-Jacobian product is a multiplication: gx = gy dy/dx. The operands that reach a
formula have one dtype and, where they need a gradient, one shape: `operands` broadcasts them by `expand`, whose
gradient is the sum over the repeated elements (`ops/shape.py`).

Source: A. Baydin et al., Automatic differentiation in machine learning: a survey, arXiv:1502.05767, 2018, section 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import kernels
from minidl.autograd import record
from minidl.kernels import devices
from minidl.ops._operands import Number, floating, operands, operation
from minidl.ops.comparison import where
from minidl.ops.conversion import to
from minidl.tensor import Array, Tensor

LARGE = 2**16  # elements


@operation(errstate=True)
def add(input: Any, other: Any, *, alpha: Number = 1) -> Tensor:
    """y = a + alpha b;  ga = gy, gb = alpha gy."""
    a, b = operands("add", input, other if alpha == 1 else _scaled("add", other, alpha))
    # A large sum takes time, of two threads less: the two ways through a residual block, and their gradients.
    large = a.array.size >= LARGE and a.array.shape == b.array.shape
    return record("add", (kernels.add if large else np.add)(a.array, b.array), (a, lambda gy: gy), (b, lambda gy: gy))


@operation(errstate=True)
def sub(input: Any, other: Any, *, alpha: Number = 1) -> Tensor:
    """y = a - alpha b;  ga = gy, gb = -alpha gy. Not for bools."""
    if any(isinstance(x, bool) or getattr(x, "dtype", None) == "bool" for x in (input, other)):
        raise RuntimeError("sub: bools cannot be subtracted; for 1 - mask use ~mask, or convert it with .long()")
    a, b = operands("sub", input, other if alpha == 1 else _scaled("sub", other, alpha))
    return record("sub", np.subtract(a.array, b.array), (a, lambda gy: gy), (b, lambda gy: -gy))


def _scaled(name: str, x: Any, alpha: Number) -> Any:
    """alpha x, a recorded product: its own gradient multiplies gb by alpha."""
    if isinstance(x, Tensor) and not x.is_floating_point() and isinstance(alpha, float):
        raise RuntimeError(f"{name}: alpha={alpha} for a tensor of {x.dtype} must be an int")
    return to(mul(x, alpha), x.dtype) if isinstance(x, Tensor) else mul(x, alpha)


@operation(errstate=True)
def mul(input: Any, other: Any) -> Tensor:
    """y = a b;  ga = gy b, gb = gy a."""
    a, b = operands("mul", input, other)
    return record("mul", np.multiply(a.array, b.array), (a, lambda gy: gy * b), (b, lambda gy: gy * a))


@operation(errstate=True)
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """y = a / b, true division;  ga = gy / b, gb = -gy (a / b) / b, in an order that does not overflow.

    With `rounding_mode` "floor" or "trunc" y is rounded, down or towards 0, integers stay integers, and ga = gb = 0.
    """
    if rounding_mode is not None:
        return _rounded_quotient(rounding_mode, *operands("div", input, other))
    a, b = map(floating, operands("div", input, other))
    return record("div", np.divide(a.array, b.array), (a, lambda gy: gy / b), (b, lambda gy: -gy * (a / b / b)))


def _rounded_quotient(mode: str, a: Tensor, b: Tensor) -> Tensor:
    if mode not in ("floor", "trunc"):
        raise RuntimeError(f"div: rounding_mode must be None, 'floor' or 'trunc', not {mode!r}")
    if mode == "trunc" and a.is_floating_point():
        y = np.trunc(a.array / b.array)
    else:  # a - fmod(a, b) is a multiple of b, which // divides exactly
        y = (a.array if mode == "floor" else a.array - np.fmod(a.array, b.array)) // divisor("div", b.array)
    return record("div", y, *[(x, lambda gy: Tensor(np.zeros_like(gy.array))) for x in (a, b)])


def divisor(name: str, b: Array) -> Array:
    """b, by which whole quotients and remainders are defined: not bools, nor integers of which one is 0."""
    if b.dtype == bool:
        raise NotImplementedError(f"{name}: bools have no whole quotients; convert them with .long()")
    if b.dtype.kind in "iu" and devices.any_true(b == 0):
        raise RuntimeError(f"{name}: an integer divided by 0 is no integer; convert it with .float()")
    return b


@operation()
def neg(input: Tensor) -> Tensor:
    """y = -x;  gx = -gy."""
    if input.dtype == bool:
        raise RuntimeError("neg: a bool tensor has no negative; use ~ to turn True into False and False into True")
    return record("neg", np.negative(input.array), (input, lambda gy: -gy))


def with_tensor(name: str, a: Any, b: Any) -> list[Tensor]:
    """The operands, of which one at least must be a tensor."""
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        raise TypeError(f"{name}: one operand must be a Tensor, not {type(a).__name__} and {type(b).__name__}")
    return operands(name, a, b)


@operation(errstate=True)
def pow(input: Any, exponent: Any) -> Tensor:
    """y = x^p;  gx = gy p x^(p-1), gp = gy y log x.

    At p = 0 the gradient in x is 0, also at x = 0. At x = 0 the gradient in p >= 0 is 0.
    """
    x, p = with_tensor("pow", input, exponent)
    number = None if isinstance(exponent, Tensor) or devices.is_array(exponent) else exponent
    if x.dtype.kind in "iu" and number is not None and number < 0:
        raise RuntimeError("pow: integers to negative powers are not integers; convert the base with .float()")
    if x.dtype == bool and number is None:
        raise NotImplementedError("pow: bools have no powers; convert them with .long()")
    if x.dtype.kind == "i" and number is None:  # 1 / x^-p, rounded towards 0
        y = np.where((p.array >= 0) | (np.abs(x.array) == 1), x.array ** np.abs(p.array), 0)
    else:  # NumPy squares and takes roots directly where the exponent is a number
        y = x.array ** (p.array if number is None else p.dtype.type(number).item())

    def gradient_x(gy: Tensor, y: Tensor | None = None) -> Tensor:
        if number is not None:
            return gy * number * x ** (number - 1) if number != 0 else Tensor(np.zeros_like(gy.array))
        with np.errstate(all="ignore"):
            singular = (p.array == 0) & ~np.isfinite(1 / x.array)
        gy = where(Tensor((p.array == 0) & np.isnan(gy.array)), 0, gy)
        return gy * p * where(Tensor(singular), 1, x) ** (p - 1)  # 0 * 0^-1 would be NaN

    def gradient_p(gy: Tensor, y: Tensor) -> Tensor:
        return gy * y * log(where((x == 0) & (p >= 0), 1, x))

    return record("pow", y.astype(x.dtype, copy=False), (x, gradient_x), (p, gradient_p), keep_output=p.requires_grad)


@operation()
def square(input: Tensor) -> Tensor:
    """y = x^2;  gx = gy 2 x."""
    return pow(input, 2)


@operation(errstate=True)
def sqrt(input: Tensor) -> Tensor:
    """y = x^(1/2);  gx = gy / (2 y)."""
    x = floating(input)
    return record("sqrt", np.sqrt(x.array), (x, lambda gy, y: gy / (2 * y)), keep_output=True)


@operation(errstate=True)
def exp(input: Tensor) -> Tensor:
    """y = e^x;  gx = gy y."""
    x = floating(input)
    return record("exp", np.exp(x.array), (x, lambda gy, y: gy * y), keep_output=True)


@operation(errstate=True)
def log(input: Tensor) -> Tensor:
    """y = ln x;  gx = gy / x."""
    x = floating(input)
    return record("log", np.log(x.array), (x, lambda gy: gy / x))


@operation()
def abs(input: Tensor) -> Tensor:
    """y = |x|;  gx = gy sign(x), 0 at x = 0."""
    return record("abs", np.absolute(input.array), (input, lambda gy: gy * Tensor(np.sign(input.array))))


@operation()
def sign(input: Tensor) -> Tensor:
    """y = 1 where x > 0, -1 where x < 0, 0 elsewhere;  gx = 0."""
    above, below = (input.array > 0).astype(input.dtype), (input.array < 0).astype(input.dtype)
    y = above if input.dtype == bool else above - below
    return record("sign", y, (input, lambda gy: Tensor(np.zeros_like(gy.array))))
