"""The functions of this package that are methods and operators of Tensor, for which `Tensor` is too early to import.

Type checkers and editors take `Methods` for Tensor's base class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from minidl import autograd
from minidl.ops import activation, arithmetic, dtype, inplace, reduction, shape
from minidl.tensor import Tensor

Operator = Callable[[Any, Any], Tensor]


def _operator(function: Callable[..., Tensor], reflected: bool = False) -> Operator:
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


def _both(function: Callable[..., Tensor]) -> tuple[Operator, Operator]:
    """The operators for ``self + other`` and, where `other` is no tensor, for ``other + self``."""
    return _operator(function), _operator(function, reflected=True)


class Methods:
    __slots__ = ()

    uniform_: ClassVar[Callable[..., Tensor]]  # minidl.creation binds these two
    normal_: ClassVar[Callable[..., Tensor]]

    backward = autograd.backward

    __add__, __radd__ = _both(arithmetic.add)
    __sub__, __rsub__ = _both(arithmetic.sub)
    __mul__, __rmul__ = _both(arithmetic.mul)
    __truediv__, __rtruediv__ = _both(arithmetic.div)
    __pow__, __rpow__ = _both(arithmetic.pow)
    __matmul__, __rmatmul__ = _both(arithmetic.matmul)
    __and__, __rand__ = _both(arithmetic.logical_and)
    __or__, __ror__ = _both(arithmetic.logical_or)
    __eq__, __ne__ = _operator(arithmetic.eq), _operator(arithmetic.ne)  # type: ignore[assignment]
    __lt__, __le__ = _operator(arithmetic.lt), _operator(arithmetic.le)
    __gt__, __ge__ = _operator(arithmetic.gt), _operator(arithmetic.ge)
    __iadd__, __isub__ = _operator(inplace.add_), _operator(inplace.sub_)
    __imul__, __itruediv__ = _operator(inplace.mul_), _operator(inplace.div_)
    __neg__, __abs__, __invert__ = arithmetic.neg, arithmetic.abs, arithmetic.logical_not
    __getitem__, __setitem__ = shape.getitem, inplace.setitem

    add, sub, mul, div, pow = arithmetic.add, arithmetic.sub, arithmetic.mul, arithmetic.div, arithmetic.pow
    neg, abs, sign, square, sqrt = arithmetic.neg, arithmetic.abs, arithmetic.sign, arithmetic.square, arithmetic.sqrt
    exp, log, clamp, clip = arithmetic.exp, arithmetic.log, arithmetic.clamp, arithmetic.clip
    maximum, matmul, mm, eq, ne = arithmetic.maximum, arithmetic.matmul, arithmetic.mm, arithmetic.eq, arithmetic.ne
    lt, le, gt, ge, isfinite = arithmetic.lt, arithmetic.le, arithmetic.gt, arithmetic.ge, arithmetic.isfinite
    isinf, isnan, allclose, equal = arithmetic.isinf, arithmetic.isnan, arithmetic.allclose, arithmetic.equal
    relu, sigmoid, tanh, softmax = activation.relu, activation.sigmoid, activation.tanh, activation.softmax
    log_softmax = activation.log_softmax
    sum, mean, var, std, max = reduction.sum, reduction.mean, reduction.var, reduction.std, reduction.max
    min, argmax, argmin, all, any = reduction.min, reduction.argmax, reduction.argmin, reduction.all, reduction.any
    reshape, view_as, flatten, unflatten = shape.reshape, shape.view_as, shape.flatten, shape.unflatten
    permute, transpose, t, squeeze = shape.permute, shape.transpose, shape.t, shape.squeeze
    unsqueeze, expand, expand_as, repeat = shape.unsqueeze, shape.expand, shape.expand_as, shape.repeat
    contiguous, clone, split, chunk, unbind = shape.contiguous, shape.clone, shape.split, shape.chunk, shape.unbind
    view = shape.reshape
    add_, sub_, mul_, div_, clamp_ = inplace.add_, inplace.sub_, inplace.mul_, inplace.div_, inplace.clamp_
    copy_, fill_, zero_ = inplace.copy_, inplace.fill_, inplace.zero_
    to, cpu, cuda, double, long, type = dtype.to, dtype.cpu, dtype.cuda, dtype.double, dtype.long, dtype.type_
    float, int, bool = dtype.float_, dtype.int_, dtype.bool_


for _name, _function in vars(Methods).items():
    if callable(_function):
        setattr(Tensor, _name, _function)
