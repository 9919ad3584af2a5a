"""Arithmetic, element by element, and the matrix product.

Letters: x, a, b are inputs, y the result, gx, ga, gb, gy the gradients of the final scalar in them.
Operands have one dtype and, where they need a gradient, one shape when a formula is reached (`operands`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import kernels
from minidl.autograd import record
from minidl.kernels import devices
from minidl.ops.dtype import (
    Number,
    common_shape,
    floating,
    number,
    only_tensors,
    operand,
    operands,
    quiet,
    result_type,
    same_device,
    to,
)
from minidl.tensor import Array, Tensor


@quiet
def add(input: Any, other: Any, *, alpha: Number = 1) -> Tensor:
    """y = a + alpha b;  ga = gy, gb = alpha gy."""
    a, b = operands("add", input, _scaled("add", other, alpha))
    return record("add", np.add(a.array, b.array), (a, lambda gy: gy), (b, lambda gy: gy))


@quiet
def sub(input: Any, other: Any, *, alpha: Number = 1) -> Tensor:
    """y = a - alpha b;  ga = gy, gb = -alpha gy. Booleans have no difference."""
    if any(isinstance(x, bool) or getattr(x, "dtype", None) == "bool" for x in (input, other)):
        raise RuntimeError("sub: bools cannot be subtracted; for 1 - mask use ~mask, or convert it with .long()")
    a, b = operands("sub", input, _scaled("sub", other, alpha))
    return record("sub", np.subtract(a.array, b.array), (a, lambda gy: gy), (b, lambda gy: -gy))


def _scaled(name: str, x: Any, alpha: Number) -> Any:
    if alpha == 1:
        return x
    if isinstance(x, Tensor) and not x.is_floating_point() and isinstance(alpha, float):
        raise RuntimeError(f"{name}: alpha={alpha} for a tensor of {x.dtype} must be an int")
    return to(mul(x, alpha), x.dtype) if isinstance(x, Tensor) else mul(x, alpha)


@quiet
def mul(input: Any, other: Any) -> Tensor:
    """y = a b;  ga = gy b, gb = gy a."""
    a, b = operands("mul", input, other)
    return record("mul", np.multiply(a.array, b.array), (a, lambda gy: gy * b), (b, lambda gy: gy * a))


@quiet
def div(input: Any, other: Any) -> Tensor:
    """y = a / b, true division;  ga = gy / b, gb = -gy (a / b) / b, in an order that does not overflow."""
    a, b = (floating("div", x) for x in operands("div", input, other))
    return record("div", np.divide(a.array, b.array), (a, lambda gy: gy / b), (b, lambda gy: -gy * (a / b / b)))


def neg(input: Tensor) -> Tensor:
    """y = -x;  gx = -gy."""
    only_tensors("neg", input)
    if input.dtype == bool:
        raise RuntimeError("neg: a bool tensor has no negative; use ~ to turn True into False and False into True")
    return record("neg", np.negative(input.array), (input, lambda gy: -gy))


@quiet
def pow(input: Any, exponent: Any) -> Tensor:
    """y = x^p;  gx = gy p x^(p-1), gp = gy y log x.

    At p = 0 the gradient in x is 0, also at x = 0; at x = 0 that in p >= 0 is 0.
    """
    x, p = operands("pow", input, exponent)
    if x.dtype.kind in "iu" and np.any((exponent.array if isinstance(exponent, Tensor) else exponent) < 0):
        raise RuntimeError("pow: integers to negative powers are not integers; convert the base with .float()")
    number = None if isinstance(exponent, Tensor) or devices.is_array(exponent) else exponent
    # NumPy squares and takes roots directly where the exponent is a number.
    y = x.array ** (p.array if number is None else p.dtype.type(number).item())

    @quiet
    def gradient_x(gy: Tensor, y: Tensor | None = None) -> Tensor:
        if number is not None:
            return gy * number * x ** (number - 1) if number != 0 else Tensor(np.zeros_like(gy.array))
        singular = (p.array == 0) & ~np.isfinite(1 / x.array)
        return gy * p * where(Tensor(singular), 1, x) ** (p - 1)  # 0 * 0^-1 would be NaN

    def gradient_p(gy: Tensor, y: Tensor) -> Tensor:
        return gy * y * log(where((x == 0) & (p >= 0), 1, x))

    return record(
        "pow",
        y.astype(x.dtype, copy=False),
        (x, gradient_x),
        (p, gradient_p),
        keep_output=p.requires_grad,
    )


@quiet
def exp(input: Tensor) -> Tensor:
    """y = e^x;  gx = gy y."""
    x = floating("exp", input)
    return record("exp", np.exp(x.array), (x, lambda gy, y: gy * y), keep_output=True)


@quiet
def log(input: Tensor) -> Tensor:
    """y = ln x;  gx = gy / x."""
    x = floating("log", input)
    return record("log", np.log(x.array), (x, lambda gy: gy / x))


@quiet
def sqrt(input: Tensor) -> Tensor:
    """y = x^(1/2);  gx = gy / (2 y)."""
    x = floating("sqrt", input)
    return record("sqrt", np.sqrt(x.array), (x, lambda gy, y: gy / (2 * y)), keep_output=True)


def abs(input: Tensor) -> Tensor:
    """y = |x|;  gx = gy sign(x), 0 at x = 0."""
    only_tensors("abs", input)
    return record("abs", np.absolute(input.array), (input, lambda gy: gy * Tensor(np.sign(input.array))))


def clamp(input: Tensor, min: Number | None = None, max: Number | None = None) -> Tensor:
    """y = min(max(x, min), max), and NaN where x is NaN;  gx = gy where min <= x <= max, else 0.

    Raises
    ------
    RuntimeError
        If both bounds are None.
    TypeError
        If one is no number.
    """
    only_tensors("clamp", input)
    bounds = [bound for bound in (min, max) if bound is not None]
    if not bounds:
        raise RuntimeError("clamp: give min, max or both")
    if not all(isinstance(bound, bool | int | float | np.generic) for bound in bounds):
        raise TypeError("clamp: min and max must be numbers; for tensors use minidl.maximum, or minidl.where")
    x = to(input, result_type(input, *bounds))
    for bound in bounds:
        number("clamp", bound, x.dtype)
    low, high = (-np.inf if min is None else min), (np.inf if max is None else max)
    inside = Tensor((x.array >= low) & (x.array <= high))
    return record("clamp", np.clip(x.array, min, max), (x, lambda gy: where(inside, gy, 0)))


def clip(input: Tensor, min: Number | None = None, max: Number | None = None, *, out: None = None) -> Tensor:
    """The same as ``clamp``. ``np.clip(x, min, max)`` calls it too, with an `out` of None."""
    if out is not None:
        raise TypeError("clip: out= is not supported; use clamp_, which changes its input")
    return clamp(input, min, max)


def sign(input: Tensor) -> Tensor:
    """y = 1 where x > 0, -1 where x < 0, 0 elsewhere;  gx = 0."""
    only_tensors("sign", input)
    above, below = (side.astype(input.dtype) for side in (input.array > 0, input.array < 0))
    return record(
        "sign", above if input.dtype == bool else above - below, (input, lambda gy: Tensor(np.zeros_like(gy.array)))
    )


def square(input: Tensor) -> Tensor:
    """y = x^2;  gx = gy 2 x."""
    only_tensors("square", input)
    return pow(input, 2)


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """y = the greater of a and b, NaN if either is NaN;  gy goes to the greater, half to each where equal."""
    a, b = operands("maximum", input, other)
    return record(
        "maximum",
        np.maximum(a.array, b.array),
        (a, lambda gy: gy * _share(a.array, b.array)),
        (b, lambda gy: gy * _share(b.array, a.array)),
    )


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """y = the lesser of a and b, NaN if either is NaN;  gy goes to the lesser, half to each where equal."""
    a, b = operands("minimum", input, other)
    return record(
        "minimum",
        np.minimum(a.array, b.array),
        (a, lambda gy: gy * _share(b.array, a.array)),
        (b, lambda gy: gy * _share(a.array, b.array)),
    )


def _share(a: Array, b: Array) -> Tensor:
    """What of the gradient of max(a, b) is a's: 1 where a is greater, 0 where b is, half where they are equal."""
    return Tensor(np.where(a < b, 0.0, np.where(a == b, 0.5, 1.0)).astype(a.dtype))


def where(condition: Tensor, input: Any, other: Any) -> Tensor:
    """y = a where the condition holds, b elsewhere;  each gets gy in its own places, and 0 in the other's."""
    only_tensors("where", condition)
    if condition.dtype != bool:
        raise RuntimeError(f"where: the condition must be a bool tensor, such as x > 0, not {condition.dtype}")
    none = np.zeros_like(condition.array, shape=(1,)).reshape(())
    spread = Tensor(np.broadcast_to(none, condition.shape))  # no type, only a shape to meet
    for value in (input, other):
        if not isinstance(value, Tensor | np.ndarray):
            number("where", operand("where", value), result_type(operand("where", input), operand("where", other)))
    a, b, _ = operands("where", input, other, spread)
    return record(
        "where",
        np.where(devices.beside(condition.array, a.array), a.array, b.array),
        (a, lambda gy: where(condition, gy, 0)),
        (b, lambda gy: where(condition, 0, gy)),
    )


@quiet
def matmul(input: Any, other: Any) -> Tensor:
    """y = a b, the matrix product of the last two dimensions;  ga = gy b^T, gb = a^T gy.

    Dimensions before the last two broadcast; a vector is a row on the left and a column on the right, and that
    dimension is missing in the result.

    Raises
    ------
    RuntimeError
        If the inner sizes or the dtypes differ, or an operand has no dimension.
    """
    input, other = operand("matmul", input), operand("matmul", other)
    _check_matmul(input, other)
    a = input.unsqueeze(0) if input.ndim == 1 else input  # (..., M, K)
    b = other.unsqueeze(1) if other.ndim == 1 else other  # (..., K, N)
    if a.ndim > 2 or b.ndim > 2:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = a.expand(batch + a.shape[-2:]), b.expand(batch + b.shape[-2:])
    y = record(
        "matmul",
        _products(a.array, b.array),  # (..., M, N)
        (a, lambda gy: gy @ b.transpose(-1, -2)),
        (b, lambda gy: a.transpose(-1, -2) @ gy),
    )
    y = y.squeeze(-2) if input.ndim == 1 else y
    return y.squeeze(-1) if other.ndim == 1 else y


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The matrix product of (M, K) and (K, N)."""
    only_tensors("mm", input, mat2)
    if input.ndim != 2 or mat2.ndim != 2:
        raise RuntimeError(f"mm: expected two matrices, not shapes {input.shape} and {mat2.shape}; use matmul")
    return matmul(input, mat2)


def _products(a: Array, b: Array) -> Array:
    """The product of each pair of matrices in (..., M, K) and (..., K, N)."""
    if a.ndim == 2:
        return kernels.matmul(a, b)
    y = np.empty_like(a, shape=(*a.shape[:-1], b.shape[-1]))
    for index in np.ndindex(a.shape[:-2]):
        y[index] = kernels.matmul(a[index], b[index])
    return y


def _check_matmul(a: Any, b: Any) -> None:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        raise TypeError(f"matmul: expected two tensors, not {type(a).__name__} and {type(b).__name__}")
    if a.ndim == 0 or b.ndim == 0:
        raise RuntimeError(f"matmul: both operands need at least 1 dimension, got shapes {a.shape} and {b.shape}")
    inner_a, inner_b = a.shape[-1], b.shape[-2] if b.ndim > 1 else b.shape[0]
    if inner_a != inner_b:
        raise RuntimeError(
            f"matmul: shapes {a.shape} and {b.shape} cannot be multiplied: the left's number of columns, {inner_a}, "
            f"must be the right's number of rows, {inner_b}"
        )
    same_device("matmul", a, b)
    if a.dtype != b.dtype:
        raise RuntimeError(f"matmul: dtypes {a.dtype} and {b.dtype} differ; convert one of them, as with .float()")


def _comparison(name: str, compare: np.ufunc, sign: str) -> Any:
    def function(input: Any, other: Any) -> Tensor:
        if isinstance(other, int) and isinstance(input, Tensor) and input.dtype.kind in "iu":
            input = to(input, np.int64)  # which holds the number whatever it is
        a, b = operands(name, input, other)
        return Tensor(compare(a.array, b.array))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Where a {sign} b, as a bool tensor; it has no gradient."
    return function


eq = _comparison("eq", np.equal, "==")
ne = _comparison("ne", np.not_equal, "!=")
lt = _comparison("lt", np.less, "<")
le = _comparison("le", np.less_equal, "<=")
gt = _comparison("gt", np.greater, ">")
ge = _comparison("ge", np.greater_equal, ">=")


def _property(name: str, holds: np.ufunc, what: str) -> Any:
    def function(input: Tensor) -> Tensor:
        only_tensors(name, input)
        return Tensor(holds(input.array))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Where x is {what}, as a bool tensor."
    return function


isnan = _property("isnan", np.isnan, "NaN")
isinf = _property("isinf", np.isinf, "infinite, of either sign")
isfinite = _property("isfinite", np.isfinite, "neither infinite nor NaN")


@quiet
def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether everywhere |a - b| <= atol + rtol |b|; infinities and, if `equal_nan`, NaNs are close to their like."""
    only_tensors("allclose", input, other)
    same_device("allclose", input, other)
    if not all(isinstance(bound, int | float) for bound in (rtol, atol)):
        raise TypeError(f"allclose: rtol and atol must be numbers, not {rtol!r} and {atol!r}")
    if not (rtol >= 0 and atol >= 0):
        raise RuntimeError(f"allclose: rtol and atol must be at least 0, and they are {rtol} and {atol}")
    if input.dtype != other.dtype:
        raise RuntimeError(f"allclose: dtypes {input.dtype} and {other.dtype} differ; convert one of them")
    common_shape("allclose", input.shape, other.shape)
    a, b = (devices.moved(x.array, devices.CPU) for x in (input, other))
    return bool(np.allclose(a, b, rtol, atol, equal_nan))


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether both have one shape and the same elements; NaN equals nothing."""
    only_tensors("equal", input, other)
    same_device("equal", input, other)
    return input.shape == other.shape and bool((input.array == other.array).all())


def logical_and(input: Any, other: Any) -> Tensor:
    """a and b, bit by bit, of masks or integers (the operator &)."""
    return _bitwise("&", np.bitwise_and, *operands("&", input, other))


def logical_or(input: Any, other: Any) -> Tensor:
    """a or b, bit by bit, of masks or integers (the operator |)."""
    return _bitwise("|", np.bitwise_or, *operands("|", input, other))


def logical_not(input: Tensor) -> Tensor:
    """The complement of a mask, or of an integer's bits (the operator ~)."""
    only_tensors("~", input)
    if input.is_floating_point():
        raise TypeError(f"~: expected a tensor of bools or integers, such as x > 0, not {input.dtype}")
    return _bitwise("~", np.invert, input)


def _bitwise(name: str, function: np.ufunc, *operands: Tensor) -> Tensor:
    if operands[0].is_floating_point():
        raise NotImplementedError(
            f"{name}: expected tensors of bools or integers, such as x > 0, not {operands[0].dtype}"
        )
    return Tensor(function(*[x.array for x in operands]))
