"""``autograd.Function``: operations of one's own in PyTorch's form, a class with `forward` and `backward`.

`minidl.autograd.record` takes one gradient function for each input. A Function computes all its gradients in one call,
so its node, `FunctionNode`, makes that call once in each backward pass and hands out the parts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from minidl import versions
from minidl.autograd import Node, Source, is_grad_enabled, no_grad, record
from minidl.ops.inplace import check_writable
from minidl.tensor import Tensor


class FunctionCtx:
    """What `forward` leaves for `backward`: saved tensors, and any attributes that are set on it.

    Attributes
    ----------
    needs_input_grad : tuple of bool
        For each argument of ``apply``, whether it is a tensor that requires a gradient.
    """

    needs_input_grad: tuple[bool, ...] = ()

    def __init__(self) -> None:
        self._to_save: tuple[Any, ...] = ()  # tensors, and positions of results, which the node may not hold
        self._outputs: Sequence[Tensor] = ()  # the results, while backward runs
        self._dirty: tuple[Tensor, ...] = ()
        self._constant: tuple[Tensor, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Save tensors for `backward`, which raises if one was changed in place since."""
        wrong = [type(x).__name__ for x in tensors if x is not None and not isinstance(x, Tensor)]
        if wrong:
            raise TypeError(f"save_for_backward can only save tensors, not {wrong[0]}; set attributes of ctx for others")
        self._to_save = tensors

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """The tensors that ``save_for_backward`` saved."""
        return tuple(self._outputs[x] if isinstance(x, int) else x for x in self._to_save)

    def mark_dirty(self, *args: Tensor) -> None:
        """Say which inputs `forward` changed in place; it must return them."""
        self._dirty = args

    def mark_non_differentiable(self, *args: Tensor) -> None:
        """Say which results have no gradient."""
        self._constant = args

    def set_materialize_grads(self, value: bool) -> None:
        """Accepted for PyTorch's sake: the gradient of an unused result is always zeros here, never None."""


class _Backward:
    """A Function's backward, called once for all its arguments."""

    def __init__(self, function: type[Function], ctx: FunctionCtx, count: int, split: Callable[..., Any]) -> None:
        self.function, self.ctx, self.count, self.split = function, ctx, count, split
        self.saved = ctx._to_save  # where `versions.py` finds them
        self.results: Sequence[Tensor | None] | None = None

    def gradient(self, i: int, gy: Tensor, y: Tensor | None = None) -> Tensor | None:
        """The gradient in argument i."""
        if self.results is None:
            self.ctx._outputs = () if y is None else self.split(y)
            results = self.function.backward(self.ctx, *self.split(gy))
            self.ctx._outputs = ()
            self.results = results if isinstance(results, tuple | list) else (results,)
            self._check(self.results)
        return self.results[i]

    def _check(self, results: Sequence[Tensor | None]) -> None:
        if len(results) < self.count or any(g is not None for g in results[self.count :]):
            raise RuntimeError(
                f"function {self.function.__name__}Backward returned an incorrect number of gradients (expected "
                f"{self.count}, got {len(results)}): one for each argument of forward, None where there is none"
            )


class FunctionNode(Node):
    """The node of a Function's result. Its backward may return None for an input, which then gets no gradient."""

    __slots__ = ("call",)

    def __init__(self, call: _Backward, y: Tensor, edges: Any, keep_output: bool) -> None:
        self.call = call
        super().__init__(call.function.__name__, y, edges, keep_output)

    def gradients(self, gy: Tensor, useful: set[Source] | None) -> list[tuple[Source, Tensor]]:
        """As for every node, with one call of `backward` for all inputs."""
        try:
            return [(x, g) for x, g in super().gradients(gy, useful) if g is not None]
        finally:
            self.call.results = None

    def _checked(self, source: Source, gx: Tensor | None, given: tuple[Tensor, ...]) -> Any:
        return None if gx is None else super()._checked(source, gx, given)

    def __repr__(self) -> str:
        return f"<{self.name}Backward>"


class Function:
    """Base of operations with a gradient of one's own; call them by ``apply``.

    A subclass defines two static methods. ``forward(ctx, *args)`` computes the result, or a tuple of results, without
    being recorded; ``backward(ctx, *gy)`` gets the gradient in each result and returns the gradient in each argument of
    `forward`, None for those that have none. It is written in tensor operations, so it can be differentiated again.
    In PyTorch's other form ``forward(*args)`` gets no ctx, and ``setup_context(ctx, inputs, output)`` saves.

    Several results must have one dtype; they are slices of one vector, whose gradient is the joint one.

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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        name = type(self).__name__
        raise RuntimeError(f"{name}: a Function is not instantiated; call {name}.apply(...), with static methods")

    forward: Callable[..., Any]
    setup_context: Callable[..., Any] | None = None

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """The gradient in each argument of `forward`."""
        raise NotImplementedError("you must implement backward, a static method, in your Function")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Compute the result and enter it in the graph."""
        ctx = FunctionCtx()
        ctx.needs_input_grad = tuple(isinstance(x, Tensor) and x.requires_grad for x in args)
        for x in args:
            if isinstance(x, Tensor):
                versions.refuse_stale(cls.__name__, x)
        with no_grad():
            outputs = cls.forward(*([] if cls.setup_context else [ctx]), *args)
            if cls.setup_context:
                cls.setup_context(ctx, args, outputs)
        if not is_grad_enabled() or not any(ctx.needs_input_grad):
            return outputs
        results = list(outputs) if isinstance(outputs, tuple) else [outputs]
        _enter(cls, ctx, args, results)
        return tuple(results) if isinstance(outputs, tuple) else results[0]


def _enter(cls: type[Function], ctx: FunctionCtx, args: tuple[Any, ...], results: list[Any]) -> None:
    """Enter the results in the graph, in place of those in the list."""
    constant = [id(x) for x in ctx._constant]
    which = [i for i, y in enumerate(results) if isinstance(y, Tensor) and y.is_floating_point()]
    which = [i for i in which if id(results[i]) not in constant]
    positions = {id(results[i]): i for i in which}
    ctx._to_save = tuple(positions.get(id(x), x) for x in ctx._to_save)
    split = _splitter(results, which)
    call = _Backward(cls, ctx, len(args), split)
    edges = [(x, partial(call.gradient, i)) for i, x in enumerate(args) if ctx.needs_input_grad[i]]
    keep_output = any(isinstance(x, int) for x in ctx._to_save)
    if len(which) == 1:
        y = results[which[0]]
        if any(y is x for x in args):
            y = _changed(cls.__name__, y) if any(y is x for x in ctx._dirty) else y.detach()
        y.grad_fn = FunctionNode(call, y, edges, keep_output)
        results[which[0]] = y
    elif which:
        joint = Tensor(np.concatenate([results[i].array.reshape(-1) for i in which]))
        joint.grad_fn = FunctionNode(call, joint, edges, keep_output)
        parts = split(joint)
        for i in which:
            results[i] = parts[i]


def _changed(name: str, x: Tensor) -> Tensor:
    """An input that `forward` changed in place: from now on the result."""
    check_writable(name, x, recorded=True)
    versions.written(x, recorded=True)
    return x


def _splitter(results: Sequence[Any], which: Sequence[int]) -> Callable[[Tensor], list[Any]]:
    """The function from the joint vector, or from a single result, to a list like `results`: zeros for the constants."""
    alike = [Tensor(np.zeros_like(y.array, shape=())).expand(y.shape) if isinstance(y, Tensor) else None for y in results]
    ends = [0, *accumulate(results[i].numel() for i in which)]

    def split(joint: Tensor) -> list[Any]:
        parts = list(alike)
        for i, (start, stop) in zip(which, pairwise(ends), strict=True):
            parts[i] = joint if len(which) == 1 else joint[start:stop].reshape(alike[i].shape)
        return parts

    return split


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a `backward` that is not written in tensor operations: differentiating its results again raises."""

    @functools.wraps(backward)
    def wrapped(ctx: Any, *gradients: Any) -> Any:
        with no_grad():
            results = backward(ctx, *gradients)
        if not is_grad_enabled():
            return results
        edges = [(g, _refuse) for g in (*gradients, *ctx.saved_tensors) if isinstance(g, Tensor)]
        listed = results if isinstance(results, tuple) else (results,)
        found = [record("once_differentiable", g.array, *edges) if isinstance(g, Tensor) else g for g in listed]
        return tuple(found) if isinstance(results, tuple) else found[0]

    return wrapped


def _refuse(gradient: Tensor) -> Tensor:
    raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")
