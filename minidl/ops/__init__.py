"""The operations, a family a file: forward, gradient, formula and shapes of each on one screen.

This file binds the functions that are methods and operators of Tensor, which cannot import them itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.ops import activation, arithmetic, dtype, inplace, reduction, shape
from minidl.tensor import Tensor

OPERATORS = {
    "__add__": arithmetic.add,
    "__sub__": arithmetic.sub,
    "__mul__": arithmetic.mul,
    "__truediv__": arithmetic.div,
    "__pow__": arithmetic.pow,
    "__matmul__": arithmetic.matmul,
    "__and__": arithmetic.logical_and,
    "__or__": arithmetic.logical_or,
    "__eq__": arithmetic.eq,
    "__ne__": arithmetic.ne,
    "__lt__": arithmetic.lt,
    "__le__": arithmetic.le,
    "__gt__": arithmetic.gt,
    "__ge__": arithmetic.ge,
    "__iadd__": inplace.add_,
    "__isub__": inplace.sub_,
    "__imul__": inplace.mul_,
    "__itruediv__": inplace.div_,
}
REFLECTED = ("__add__", "__sub__", "__mul__", "__truediv__", "__pow__", "__matmul__", "__and__", "__or__")
METHODS: dict[Any, str] = {
    activation: "log_softmax relu sigmoid softmax tanh",
    arithmetic: """abs add allclose clamp clip div eq equal exp ge gt isfinite isinf isnan le log lt matmul maximum
    mm mul ne neg pow sign sqrt square sub""",
    dtype: "cpu cuda double long to",
    inplace: "add_ clamp_ copy_ div_ fill_ mul_ sub_ zero_",
    reduction: "all any argmax argmin max mean min std sum var",
    shape: """chunk clone contiguous expand expand_as flatten permute repeat reshape split squeeze t transpose unbind
    unflatten unsqueeze view_as""",
}


def _operator(function: Callable[..., Tensor], reflected: bool = False) -> Callable[[Tensor, Any], Tensor]:
    """The function as a binary operator, which leaves foreign operands to their own class."""

    def method(self: Tensor, other: Any) -> Tensor:
        try:
            return function(other, self) if reflected else function(self, other)
        except TypeError:
            if isinstance(other, Tensor | bool | int | float):
                raise
            return NotImplemented

    method.__doc__ = function.__doc__
    return method


for _name, _function in OPERATORS.items():
    setattr(Tensor, _name, _operator(_function))
for _name in REFLECTED:
    setattr(Tensor, _name.replace("__", "__r", 1), _operator(OPERATORS[_name], reflected=True))
for _module, _names in METHODS.items():
    for _name in _names.split():
        setattr(Tensor, _name, getattr(_module, _name))
Tensor.__neg__ = arithmetic.neg
Tensor.__abs__ = arithmetic.abs
Tensor.__invert__ = arithmetic.logical_not
Tensor.__getitem__ = shape.getitem
Tensor.__setitem__ = inplace.setitem
Tensor.float, Tensor.int, Tensor.bool = dtype.float_, dtype.int_, dtype.bool_
Tensor.view = shape.reshape
Tensor.type = dtype.type_
