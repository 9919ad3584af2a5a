"""The methods and operators of Tensor: the functions of this package, bound once all of them are defined.

To type checkers and editors `Methods` is Tensor's base class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from minidl import autograd, hooks

from minidl.ops import (  # isort: skip
    activation, arithmetic, comparison, conversion, gather, inplace, linear, product, reduction, shape,
)  # fmt: skip
from minidl.ops import other_reductions as more
from minidl.ops import pointwise as pw
from minidl.ops.inplace import in_place
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
    """Each is the function of this name, with the tensor as its first argument."""

    __slots__ = ()

    uniform_: ClassVar[Callable[..., Tensor]]  # minidl.creation binds these two
    normal_: ClassVar[Callable[..., Tensor]]

    register_hook, retain_grad = hooks.register_hook, hooks.retain_grad
    register_post_accumulate_grad_hook = hooks.register_post_accumulate_grad_hook

    def backward(
        self: Any,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """``autograd.backward`` of this tensor; by default its gradient is 1, which needs a tensor of one element."""
        autograd.backward(self, gradient, retain_graph, create_graph, inputs)

    __add__, __radd__ = _both(arithmetic.add)
    __sub__, __rsub__ = _both(arithmetic.sub)
    __mul__, __rmul__ = _both(arithmetic.mul)
    __truediv__, __rtruediv__ = _both(arithmetic.div)
    __pow__, __rpow__ = _both(arithmetic.pow)
    __matmul__, __rmatmul__ = _both(linear.matmul)
    __floordiv__, __rfloordiv__ = _both(pw.floor_divide)
    __mod__, __rmod__ = _both(pw.remainder)
    __and__, __rand__ = _both(comparison.bitwise_and)
    __or__, __ror__ = _both(comparison.bitwise_or)
    __xor__, __rxor__ = _both(comparison.bitwise_xor)
    __eq__, __ne__ = _operator(comparison.eq), _operator(comparison.ne)  # type: ignore[assignment]
    __lt__, __le__ = _operator(comparison.lt), _operator(comparison.le)
    __gt__, __ge__ = _operator(comparison.gt), _operator(comparison.ge)
    __iadd__, __isub__ = _operator(inplace.add_), _operator(inplace.sub_)
    __imul__, __itruediv__ = _operator(inplace.mul_), _operator(inplace.div_)
    __ifloordiv__, __imod__ = _operator(in_place(pw.floor_divide)), _operator(in_place(pw.remainder))
    __iand__, __ior__ = _operator(in_place(comparison.bitwise_and)), _operator(in_place(comparison.bitwise_or))
    __ipow__, __ixor__ = _operator(in_place(arithmetic.pow)), _operator(in_place(comparison.bitwise_xor))
    __neg__, __abs__, __invert__ = arithmetic.neg, arithmetic.abs, comparison.bitwise_not
    __getitem__, __setitem__, __contains__ = gather.getitem, inplace.setitem, gather.contains

    add, sub, mul, div, neg = arithmetic.add, arithmetic.sub, arithmetic.mul, arithmetic.div, arithmetic.neg
    pow, square, sqrt, exp, log = arithmetic.pow, arithmetic.square, arithmetic.sqrt, arithmetic.exp, arithmetic.log
    abs, sign = arithmetic.abs, arithmetic.sign
    eq, ne, lt, le, gt, ge = comparison.eq, comparison.ne, comparison.lt, comparison.le, comparison.gt, comparison.ge
    isfinite, isinf, isnan, allclose = comparison.isfinite, comparison.isinf, comparison.isnan, comparison.allclose
    equal, clamp, clip, maximum = comparison.equal, comparison.clamp, comparison.clip, comparison.maximum
    minimum, logical_and, logical_or = comparison.minimum, comparison.logical_and, comparison.logical_or
    logical_xor, logical_not = comparison.logical_xor, comparison.logical_not
    sin, cos, tan, asin, acos, atan, sinh, cosh = pw.sin, pw.cos, pw.tan, pw.asin, pw.acos, pw.atan, pw.sinh, pw.cosh
    expm1, log1p, log2, log10, rsqrt, reciprocal = pw.expm1, pw.log1p, pw.log2, pw.log10, pw.rsqrt, pw.reciprocal
    erf, floor, ceil, trunc, round, floor_divide = pw.erf, pw.floor, pw.ceil, pw.trunc, pw.round, pw.floor_divide
    remainder, fmod = pw.remainder, pw.fmod
    sum, mean, var, std, all = reduction.sum, reduction.mean, reduction.var, reduction.std, reduction.all
    any, max, min, argmax, argmin = reduction.any, more.max, more.min, more.argmax, more.argmin
    amax, amin, median, prod, cumsum = more.amax, more.amin, more.median, more.prod, more.cumsum
    logsumexp, norm, mm, bmm, mv = more.logsumexp, more.norm, product.mm, product.bmm, product.mv
    dot, outer = product.dot, product.outer
    relu, sigmoid, tanh, softmax = activation.relu, activation.sigmoid, activation.tanh, activation.softmax
    log_softmax = activation.log_softmax
    matmul = linear.matmul
    reshape, view, view_as, flatten = shape.reshape, shape.reshape, shape.view_as, shape.flatten
    unflatten, permute, transpose, t, squeeze = shape.unflatten, shape.permute, shape.transpose, shape.t, shape.squeeze
    unsqueeze, expand, expand_as, repeat = shape.unsqueeze, shape.expand, shape.expand_as, shape.repeat
    contiguous, clone, split, chunk, unbind = shape.contiguous, shape.clone, shape.split, shape.chunk, shape.unbind
    to, cpu, cuda, type, float = conversion.to, conversion.cpu, conversion.cuda, conversion.type_, conversion.float_
    double, int, long, bool = conversion.double, conversion.int_, conversion.long, conversion.bool_
    add_, sub_, mul_, div_ = inplace.add_, inplace.sub_, inplace.mul_, inplace.div_
    clamp_ = in_place(comparison.clamp)
    copy_, fill_, zero_, detach_ = inplace.copy_, inplace.fill_, inplace.zero_, inplace.detach_
    nonzero, is_contiguous = comparison.nonzero, shape.is_contiguous
    from minidl.ops.gather import (  # type: ignore[misc] # isort: skip
        argsort, flip, gather, index_add, index_select, masked_fill, masked_select, narrow, ravel, repeat_interleave,
        roll, scatter, scatter_add, select, sort, tile, topk, tril, triu, unique,
    )  # fmt: skip

    mT, H = property(lambda x: x.transpose(-2, -1)), property(t)


_IN_PLACE = (
    "abs clip eq exp floor_divide fmod ge gt le log logical_and logical_not logical_or logical_xor lt ne neg pow"
)
_IN_PLACE += " relu remainder sigmoid sign sqrt square tanh scatter scatter_add index_add masked_fill tril triu"
for _name in [*pw.ROWS, *_IN_PLACE.split()]:
    if hasattr(Methods, _name):
        setattr(Methods, f"{_name}_", in_place(getattr(Methods, _name)))
for _name in ("squeeze", "unsqueeze", "transpose", "t"):
    setattr(Methods, f"{_name}_", in_place(getattr(Methods, _name), view=True))
for _name, _function in vars(Methods).items():
    if callable(_function) or isinstance(_function, property):
        setattr(Tensor, _name, _function)
        if getattr(_function, "__name__", "") == f"{_name}_":  # float_, since `float` is Python's own in its file
            _function.__qualname__ = _name
