"""In-place operations: new values in a tensor's own memory.

A recorded change gives the tensor a new node in the graph. Every change increments the memory's version, so a
backward pass that needs the old values raises (`versions.py`). Nothing is written before all checks have passed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.autograd import is_grad_enabled, record
from minidl.kernels import devices
from minidl.ops._operands import Number, fitting, only_tensors
from minidl.ops.arithmetic import add, div, mul, sub
from minidl.ops.conversion import to
from minidl.ops.gather import put, split_index
from minidl.tensor import Tensor
from minidl.versions import learn_of_own_view, written


def add_(input: Tensor, other: Any, *, alpha: Number = 1) -> Tensor:
    """x = x + alpha * other."""
    return replace("add_", input, add(input, other, alpha=alpha))


def sub_(input: Tensor, other: Any, *, alpha: Number = 1) -> Tensor:
    """x = x - alpha * other."""
    return replace("sub_", input, sub(input, other, alpha=alpha))


def mul_(input: Tensor, other: Any) -> Tensor:
    """x = x * other."""
    return replace("mul_", input, mul(_kept_for(other, input), other))


def div_(input: Tensor, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """x = x / other."""
    return replace("div_", input, div(_kept_for(other, input), other, rounding_mode=rounding_mode))


def in_place(function: Callable[..., Tensor], view: bool = False) -> Callable[..., Tensor]:
    """The function f as x = f(x, ...): in x's own memory, or if f only views it, x itself gets another shape."""
    name = function.__name__ + "_"

    @functools.wraps(function)
    def changed(input: Tensor, *args: Any, **named: Any) -> Tensor:
        only_tensors(name, input)
        if not view:  # gradients may need the old values
            x = input.clone() if input.requires_grad and is_grad_enabled() else input
            return replace(name, input, function(x, *args, **named))
        check_writable(name, input, input.requires_grad)
        y = function(input, *args, **named)
        written(input)  # what saved x saved its old shape
        input.array = y.array
        if is_grad_enabled():
            input.grad_fn = y.grad_fn
        return input

    changed.__name__, changed.__doc__ = name, f"x = {function.__name__}(x, ...), in place."
    return changed


def _kept_for(other: Any, x: Tensor) -> Tensor:
    """x, or a copy of it if the gradient in `other` will need the values that are about to be overwritten."""
    return x.clone() if isinstance(other, Tensor) and other.requires_grad and is_grad_enabled() else x


def copy_(input: Tensor, src: Any) -> Tensor:
    """x = src, broadcast to x's shape and converted to its dtype; the gradient goes to src."""
    return overwritten("copy_", input, src)


def overwritten(name: str, input: Tensor, src: Any) -> Tensor:
    """x = src, for an operation of this name."""
    value = fitting(name, src, input.shape, input)
    result = record(name, value.array, (input, lambda gy: Tensor(np.zeros_like(gy.array))), (value, lambda gy: gy))
    return replace(name, input, result)


def fill_(input: Tensor, value: Any) -> Tensor:
    """x = value everywhere."""
    if isinstance(value, Tensor) and value.ndim != 0:
        raise RuntimeError(f"fill_: expected one number, not a tensor of shape {value.shape}; use copy_")
    return overwritten("fill_", input, value)


def zero_(input: Tensor) -> Tensor:
    """x = 0 everywhere."""
    return overwritten("zero_", input, 0)


def detach_(input: Tensor) -> Tensor:
    """Take x out of the graph: a leaf that requires no gradient."""
    input.grad_fn, input._leaf, input._requires_grad = None, None, False
    return input


def setitem(input: Tensor, index: Any, value: Any) -> None:
    """x[index] = value, broadcast and converted to x's dtype; the gradient of that part goes to the value."""
    first, second = split_index(index, input)
    region = input.array[first][second]
    part = fitting("x[index] = value", value, region.shape, input, drop_ones=True)
    check_writable("x[index] = value", input, part.requires_grad or input.requires_grad)
    if isinstance(value, Tensor) and devices.same_memory(region, value.array):
        learn_of_own_view(input, value)
    to_input, to_part = (input, lambda gy: put("zeroed_at", gy, first, second, 0)), (part, lambda gy: gy[first][second])
    result = record("setitem", input.array, to_input, to_part, view_of=input)
    overlap = np.may_share_memory(region, part.array)  # CuPy would read what it has overwritten
    input.array[first][second] = part.array.copy() if overlap else part.array
    _enter(input, result)


def replace(name: str, x: Tensor, result: Tensor) -> Tensor:
    """Write a result of x's shape into x, and give x the result's node in the graph."""
    if result.shape != x.shape:
        raise RuntimeError(f"{name}: the result has shape {result.shape}, the tensor to change in place {x.shape}")
    if x.dtype.kind in "biu" and result.dtype.kind not in ("b" if x.dtype.kind == "b" else "biu"):
        result_in = f"the result is {result.dtype}, which a tensor of {x.dtype} cannot hold"
        raise RuntimeError(f"{name}: {result_in}; use the out-of-place operation")
    check_writable(name, x, result.requires_grad)
    result = to(result, x.dtype)
    x.array[...] = result.array
    _enter(x, result)
    return x


def check_writable(name: str, x: Tensor, recorded: bool) -> None:
    """Refuse a change that the graph cannot represent, or of memory that cannot be written to."""
    leaf = x.is_leaf and x.requires_grad
    if is_grad_enabled() and (leaf or (recorded and x._leaf is not None and x._leaf.requires_grad)):
        which = ("a leaf" if leaf else "a view of a leaf") + " tensor that requires grad, such as a parameter"
        raise RuntimeError(f"{name}: {which}, can be changed in place only inside minidl.no_grad()")
    refuse_unwritable(name, x)


def refuse_unwritable(name: str, x: Tensor) -> None:
    """Refuse memory that is read-only, or where several elements share an address."""
    if not devices.writable(x.array):
        why = "an expanded view, whose elements share memory, or a read-only array"
        raise RuntimeError(f"{name}: this tensor of shape {x.shape} cannot be written to ({why}); clone() it first")


def _enter(x: Tensor, result: Tensor) -> None:
    """Count the change and, if it was recorded, give x the result's node in the graph."""
    recorded = is_grad_enabled() and result.requires_grad
    written(x, recorded=recorded)
    if recorded:
        x.grad_fn = result.grad_fn
