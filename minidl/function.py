"""``autograd.Function``: custom operations in PyTorch's form, a class with `forward` and `backward`.

`minidl.autograd.record` takes one gradient function for each input. A Function computes all its gradients in one call,
so its node makes that call once in each backward pass and hands out the parts. A node has one result, so several
results are slices of one vector.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from minidl import versions
from minidl.autograd import Node, Source, is_grad_enabled, no_grad, record
from minidl.ops.conversion import to
from minidl.ops.inplace import check_writable
from minidl.tensor import Tensor


class FunctionCtx:
    """What `forward` leaves for `backward`: saved tensors, and any attributes that are set on it.

    Attributes
    ----------
    needs_input_grad : tuple of bool
        For each argument of ``apply``, whether it is a tensor that requires a gradient.
    saved_tensors : tuple of Tensor
        In `backward`: what ``save_for_backward`` saved.
    """

    needs_input_grad: tuple[bool, ...] = ()
    saved_tensors: tuple[Any, ...] = ()
    _gradients: Sequence[Any] | None = None  # what `backward` returned, while its node hands them out
    _dirty: tuple[Tensor, ...] = ()
    _constant: tuple[Tensor, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Save tensors for `backward`, which raises if one was changed in place since."""
        for x in tensors:
            if not isinstance(x, Tensor | None):
                raise TypeError(f"save_for_backward: only tensors, not {type(x).__name__}; set an attribute of ctx")
        self.saved_tensors = tensors

    def mark_dirty(self, *args: Tensor) -> None:
        """Say which inputs `forward` changed in place; it must return them."""
        self._dirty = args

    def mark_non_differentiable(self, *args: Tensor) -> None:
        """Say which results have no gradient."""
        self._constant = args

    def set_materialize_grads(self, value: bool) -> None:
        """Without effect: the gradient of an unused result is zeros here, never None."""


class FunctionNode(Node):
    """The node of a Function. Its backward may return None for an input, which then gets no gradient."""

    __slots__ = ("ctx",)

    def __init__(self, ctx: FunctionCtx, *args: Any) -> None:
        super().__init__(*args)
        self.ctx = ctx

    def gradients(self, gy: Tensor, useful: set[Source] | None) -> list[tuple[Source, Tensor]]:
        """As for every node, with one call of `backward` for all inputs."""
        try:
            return [(x, g) for x, g in super().gradients(gy, useful) if g is not None]
        finally:
            self.ctx._gradients = None

    def _checked(self, source: Source, gx: Tensor | None, given: tuple[Tensor, ...]) -> Any:
        if gx is None:
            return None
        gx = super()._checked(source, gx, given)
        return gx.clone() if isinstance(source, Tensor) else gx  # which ctx may hold

    def __repr__(self) -> str:
        return f"<{self.name}Backward>"


class Function:
    """Base of custom operations with a custom gradient; call them by ``apply``.

    A subclass defines two static methods. ``forward(ctx, *args)`` computes the result, or a tuple of results, without
    being recorded; ``backward(ctx, *gy)`` gets the gradient in each result and returns the gradient in each argument of
    `forward`, None for those that have none. It is written in tensor operations, so it can be differentiated again.
    In PyTorch's other form ``forward(*args)`` gets no ctx, and ``setup_context(ctx, inputs, output)`` saves.

    Examples
    --------
    >>> import minidl
    >>> class Cube(Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x**3
    ...     @staticmethod
    ...     def backward(ctx, gy):
    ...         (x,) = ctx.saved_tensors
    ...         return gy * 3 * x * x
    >>> x = minidl.randn(4, dtype=minidl.float64, requires_grad=True)
    >>> minidl.gradcheck(Cube.apply, x), minidl.gradgradcheck(Cube.apply, x)
    (True, True)
    """

    forward: Callable[..., Any]
    setup_context: Callable[..., Any] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        name = type(self).__name__
        raise RuntimeError(f"{name}: a Function is not instantiated; call {name}.apply(...), with static methods")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """The gradient in each argument of `forward`."""
        raise NotImplementedError("define backward, a static method, in your Function")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Compute the result and enter it in the graph."""
        ctx = FunctionCtx()
        ctx.needs_input_grad = tuple(isinstance(x, Tensor) and x.requires_grad for x in args)
        for x in [x for x in args if isinstance(x, Tensor)]:
            versions.refuse_stale(cls.__name__, x)
        with no_grad():
            outputs = cls.forward(*args) if cls.setup_context else cls.forward(ctx, *args)
            if cls.setup_context:
                cls.setup_context(ctx, args, outputs)
        if not is_grad_enabled() or not any(ctx.needs_input_grad):
            return outputs
        results = _recorded(cls, ctx, args, outputs if isinstance(outputs, tuple) else (outputs,))
        return tuple(results) if isinstance(outputs, tuple) else results[0]


def _recorded(cls: type[Function], ctx: FunctionCtx, args: tuple[Any, ...], outputs: tuple[Any, ...]) -> list[Any]:
    """The results, those that have a gradient entered in the graph."""
    constant, dirty = set(map(id, ctx._constant)), set(map(id, ctx._dirty))
    ctx._constant = ctx._dirty = ()
    which = [
        i for i, y in enumerate(outputs) if isinstance(y, Tensor) and y.is_floating_point() and id(y) not in constant
    ]
    if not which:
        return list(outputs)
    at = {id(outputs[i]): i for i in which}
    saved = tuple(at.get(id(x), x) for x in ctx.saved_tensors)  # positions of results: a node may not hold its result
    split, count = _splitter(outputs, which), len(args)

    def gradient(i: int, gy: Tensor, joint: Tensor | None = None) -> Any:
        if ctx._gradients is None:
            results = () if joint is None else split(joint)
            ctx.saved_tensors = tuple(results[x] if isinstance(x, int) else x for x in saved)
            ctx._gradients = _counted(cls.__name__, cls.backward(ctx, *split(gy)), count)
            ctx.saved_tensors = ()
        return ctx._gradients[i]

    ctx.saved_tensors = ()
    joint = outputs[which[0]]
    if len(which) > 1:
        if dirty:
            raise NotImplementedError(f"{cls.__name__}: mark_dirty is for a single result; return a new tensor instead")
        joint = Tensor(np.concatenate([outputs[i].array.reshape(-1) for i in which]))
    elif id(joint) in dirty:
        check_writable(cls.__name__, joint, recorded=True)
        versions.written(joint, recorded=True)
    elif id(joint) in map(id, args):
        joint = joint.detach()
    edges = [(x, functools.partial(gradient, i)) for i, x in enumerate(args) if ctx.needs_input_grad[i]]
    joint.grad_fn = FunctionNode(ctx, cls.__name__, joint, edges, any(isinstance(x, int) for x in saved))
    return [part if i in which else y for i, (y, part) in enumerate(zip(outputs, split(joint), strict=True))]


def _splitter(outputs: Sequence[Any], which: Sequence[int]) -> Callable[[Tensor], list[Any]]:
    """The function from a vector to the results that are its slices; the others are zeros, as their gradients are."""
    alike: list[Any] = [
        Tensor(np.broadcast_to(y.dtype.type(0), y.shape)) if isinstance(y, Tensor) else None for y in outputs
    ]
    ends = [0, *accumulate(outputs[i].numel() for i in which)]

    def split(joint: Tensor) -> list[Any]:
        parts = list(alike)
        for i, (start, stop) in zip(which, pairwise(ends), strict=True):
            parts[i] = joint
            if len(which) > 1:  # a copy: the results share no memory
                parts[i] = to(joint[start:stop].reshape(alike[i].shape).clone(), alike[i].dtype)
        return parts

    return split


def _counted(name: str, gradients: Any, count: int) -> Sequence[Any]:
    """The gradients that a backward returned, one for each argument."""
    found = gradients if isinstance(gradients, tuple | list) else (gradients,)
    if len(found) < count or any(g is not None for g in found[count:]):
        raise RuntimeError(
            f"function {name}Backward returned an incorrect number of gradients (expected {count}, got {len(found)}): "
            "one for each argument of forward, None where there is none"
        )
    return found


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a `backward` that is not written in tensor operations: differentiating its results again raises."""

    @functools.wraps(backward)
    def wrapped(ctx: Any, *gradients: Any) -> Any:
        with no_grad():
            results = backward(ctx, *gradients)
        edges = [(g, _refuse) for g in (*gradients, *ctx.saved_tensors) if isinstance(g, Tensor)]
        listed = results if isinstance(results, tuple) else (results,)
        return tuple(None if g is None else record("once_differentiable", g.array, *edges) for g in listed)

    return wrapped


def _refuse(gradient: Tensor) -> Tensor:
    raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")
