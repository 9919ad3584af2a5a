"""Comparison: where a relation holds, which of two values to take, and masks.

The result of a comparison is piecewise constant and has no gradient. An operation that selects (where, maximum, clamp)
passes gy to the element it selected.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.autograd import record
from minidl.kernels import devices
from minidl.ops._operands import common_shape, number, operand, operands, operation, result_type
from minidl.ops.conversion import to
from minidl.tensor import Array, Tensor


def _comparison(name: str, compare: np.ufunc, sign: str, numbers: bool = True) -> Any:
    def function(input: Tensor, other: Any) -> Tensor:
        if not isinstance(input, Tensor) or not (numbers or isinstance(other, Tensor)):
            raise TypeError(f"{name}: expected {'a tensor first' if numbers else 'two tensors'}")
        if isinstance(other, int) and input.dtype.kind in "iu":
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


logical_and = _comparison("logical_and", np.logical_and, "and", numbers=False)
logical_or = _comparison("logical_or", np.logical_or, "or", numbers=False)
logical_xor = _comparison("logical_xor", np.logical_xor, "!= (as truth values)", numbers=False)


def _property(name: str, holds: np.ufunc, what: str) -> Any:
    def function(input: Tensor) -> Tensor:
        return Tensor(holds(input.array))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Where x is {what}, as a bool tensor."
    return operation()(function)


isnan = _property("isnan", np.isnan, "NaN")
isinf = _property("isinf", np.isinf, "infinite, of either sign")
isfinite = _property("isfinite", np.isfinite, "neither infinite nor NaN")
logical_not = _property("logical_not", np.logical_not, "0 or False")


@operation()
def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """y = min(max(x, min), max), and NaN where x is NaN;  gx = gy where min <= x <= max, else 0.

    The bounds may be tensors, which get gy where they are taken.

    Raises
    ------
    RuntimeError
        If both bounds are None.
    TypeError
        If one is neither number nor tensor, or one is a number and the other a tensor.
    """
    if not all(isinstance(bound, Tensor | None) for bound in (min, max)):  # beside a number, a 0-d tensor is one
        min, max = (x.item() if isinstance(x, Tensor) and x.ndim == 0 else x for x in (min, max))
    bounds = [bound for bound in (min, max) if bound is not None]
    if not bounds:
        raise RuntimeError("clamp: give min, max or both")
    if all(isinstance(bound, Tensor) for bound in bounds):
        common_shape("clamp", input.shape, *[bound.shape for bound in bounds])
        return _between(input, min, max)
    if not all(isinstance(bound, bool | int | float | np.generic) for bound in bounds):
        raise TypeError("clamp: min and max must both be numbers, or both tensors")
    x = to(input, result_type(input, *bounds))
    for bound in bounds:
        number("clamp", bound, x.dtype)
    low, high = (-np.inf if min is None else min), (np.inf if max is None else max)
    inside = Tensor((x.array >= low) & (x.array <= high))
    return record("clamp", np.clip(x.array, min, max), (x, lambda gy: where(inside, gy, 0)))


def _between(x: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    """min(max(x, low), high), NaN where one of the three is."""
    if low is not None:
        x = where((x < low) | isnan(low), low, x)
    return x if high is None else where((x > high) | isnan(high), high, x)


def clip(input: Tensor, min: Any = None, max: Any = None, *, out: None = None) -> Tensor:
    """The same as ``clamp``. ``np.clip(x, min, max)`` calls this, with out=None."""
    if out is not None:
        raise TypeError("clip: out= is not supported; use clamp_, which changes its input")
    return clamp(input, min, max)


@operation()
def maximum(input: Tensor, other: Tensor) -> Tensor:
    """y = the greater of a and b, NaN if either is NaN;  gy goes to the greater, and half to each where equal."""
    a, b = operands("maximum", input, other)
    to_a, to_b = (a, lambda gy: gy * _share(a.array, b.array)), (b, lambda gy: gy * _share(b.array, a.array))
    return record("maximum", np.maximum(a.array, b.array), to_a, to_b)


@operation()
def minimum(input: Tensor, other: Tensor) -> Tensor:
    """y = the lesser of a and b, NaN if either is NaN;  gy goes to the lesser, and half to each where equal."""
    a, b = operands("minimum", input, other)
    to_a, to_b = (a, lambda gy: gy * _share(b.array, a.array)), (b, lambda gy: gy * _share(a.array, b.array))
    return record("minimum", np.minimum(a.array, b.array), to_a, to_b)


def _share(a: Array, b: Array) -> Tensor:
    """The derivative of max(a, b) in a: 1 where a is greater, 0 where b is, 1/2 where they are equal."""
    return Tensor(np.where(a < b, 0.0, np.where(a == b, 0.5, 1.0)).astype(a.dtype))


@operation()
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Where x is not 0: the indices (n, ndim), a row for each such element; or a vector for each dimension."""
    found = np.argwhere(input.array).astype(np.int64, copy=False)
    if as_tuple:
        return tuple(Tensor(found[:, d].copy()) for d in range(input.ndim)) or nonzero(input.reshape(1), as_tuple=True)
    return Tensor(found)


@operation()
def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """y = a where the condition holds, b elsewhere;  ga = gy where it holds, else 0, and gb the other way round.

    The condition alone gives the indices where it holds: ``nonzero(as_tuple=True)``.
    """
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    if condition.dtype != bool:
        raise RuntimeError(f"where: the condition must be a bool tensor, such as x > 0, not {condition.dtype}")
    none = np.zeros_like(condition.array, shape=(1,)).reshape(())
    spread = Tensor(np.broadcast_to(none, condition.shape))  # no type, only a shape to meet
    for value in (input, other):
        if not isinstance(value, Tensor | np.ndarray):
            number("where", operand("where", value), result_type(operand("where", input), operand("where", other)))
    a, b, _ = operands("where", input, other, spread)
    y = np.where(devices.beside(condition.array, a.array), a.array, b.array)
    return record("where", y, (a, lambda gy: where(condition, gy, 0)), (b, lambda gy: where(condition, 0, gy)))


@operation(errstate=True)
def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether |a - b| <= atol + rtol |b| everywhere; equal infinities are close and, with `equal_nan`, two NaNs."""
    if not all(isinstance(bound, int | float) for bound in (rtol, atol)):
        raise TypeError(f"allclose: rtol and atol must be numbers, not {rtol!r} and {atol!r}")
    if not (rtol >= 0 and atol >= 0):
        raise RuntimeError(f"allclose: rtol and atol must be at least 0, and they are {rtol} and {atol}")
    if input.dtype != other.dtype:
        raise RuntimeError(f"allclose: dtypes {input.dtype} and {other.dtype} differ; convert one of them")
    common_shape("allclose", input.shape, other.shape)
    a, b = (devices.moved(x.array, devices.CPU) for x in (input, other))
    return bool(np.allclose(a, b, rtol, atol, equal_nan))


@operation()
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether both have one shape and the same elements; NaN equals nothing."""
    return input.shape == other.shape and bool((input.array == other.array).all())


def bitwise_and(input: Any, other: Any) -> Tensor:
    """a and b, bit by bit, of masks or integers (the operator &)."""
    return _bitwise("&", np.bitwise_and, *operands("&", input, other))


def bitwise_or(input: Any, other: Any) -> Tensor:
    """a or b, bit by bit, of masks or integers (the operator |)."""
    return _bitwise("|", np.bitwise_or, *operands("|", input, other))


def bitwise_xor(input: Any, other: Any) -> Tensor:
    """Either a or b, bit by bit, of masks or integers (the operator ^)."""
    return _bitwise("^", np.bitwise_xor, *operands("^", input, other))


@operation()
def bitwise_not(input: Tensor) -> Tensor:
    """The complement of a mask, or of an integer's bits (the operator ~)."""
    if input.is_floating_point():
        raise TypeError(f"~: expected a tensor of bools or integers, such as x > 0, not {input.dtype}")
    return _bitwise("~", np.invert, input)


def _bitwise(name: str, function: np.ufunc, *operands: Tensor) -> Tensor:
    if operands[0].is_floating_point():
        raise NotImplementedError(f"{name}: expected bools or integers, such as x > 0, not {operands[0].dtype}")
    return Tensor(function(*[x.array for x in operands]))
