"""Module hooks: functions called before and after a module's `forward`, and in the backward pass through it.

A backward hook needs two places in the graph, where the gradient enters the module and where it leaves. `_Gate` marks
them: an identity around the module's results and around its arguments, whose backward reports the gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minidl.function import Function
from minidl.hooks import Hooks, RemovableHandle
from minidl.tensor import Tensor

if TYPE_CHECKING:
    from minidl.nn.module import Module

Hook = Callable[..., Any]


class Hooked:
    """The part of `Module` that registers hooks, by methods that return a handle to remove them again."""

    _hooks: dict[str, Hooks] | None = None  # by kind

    def _register(self, kind: str, hook: Any, prepend: bool) -> RemovableHandle:
        if self._hooks is None:
            self._hooks = {kind: {} for kind in ("forward_pre", "forward", "backward_pre", "backward")}
        return RemovableHandle(self._hooks[kind], hook, prepend)

    def register_forward_pre_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before `forward`; if it returns arguments, they are used instead.

        `with_kwargs`: ``hook(module, args, kwargs)``, which returns None or a pair of both.
        """
        return self._register("forward_pre", (hook, with_kwargs), prepend)

    def register_forward_hook(self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after `forward`; what it returns, if not None, is the output instead.

        `with_kwargs`: ``hook(module, args, kwargs, output)``.
        """
        return self._register("forward", (hook, with_kwargs), prepend)

    def register_full_backward_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` before the module's backward pass; it may return another tuple."""
        return self._register("backward_pre", (hook, False), prepend)

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` after the module's backward pass, with tuples of gradients.

        `grad_input` has None for arguments that need no gradient; what the hook returns, if not None, replaces it.
        """
        return self._register("backward", hook, prepend)


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _latest(hooks: Hooks, value: Any, module: Module, args: tuple[Any, ...] = (), *kwargs: Any) -> Any:
    """The value after its hooks, each of which gets the arguments and the value, and may replace it."""
    for hook, with_kwargs in [*hooks.values()]:
        changed = hook(module, *args, *(kwargs if with_kwargs else ()), value)
        value = value if changed is None else changed
    return value


def call(module: Module, hooks: dict[str, Hooks], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a module that has hooks."""
    for hook, with_kwargs in [*hooks["forward_pre"].values()]:
        changed = hook(module, args, kwargs) if with_kwargs else hook(module, args)
        if changed is not None:
            args, kwargs = changed if with_kwargs else (_tuple(changed), kwargs)
    if not (hooks["backward"] or hooks["backward_pre"]):
        return _latest(hooks["forward"], module.forward(*args, **kwargs), module, (args,), kwargs)
    grad_output: list[Any] = []  # from the end of the module to its beginning

    def at_inputs(grad_input: tuple[Any, ...]) -> Any:
        for hook in [*hooks["backward"].values()]:
            changed = hook(module, grad_input, grad_output[0])
            grad_input = grad_input if changed is None else _tuple(changed)
        return grad_input

    def at_outputs(gradients: tuple[Any, ...]) -> Any:
        grad_output[:] = [_tuple(_latest(hooks["backward_pre"], gradients, module))]
        if not watched:  # no gradient will leave the module
            at_inputs((None,) * len(args))
        return grad_output[0]

    watched = any(isinstance(x, Tensor) and x.requires_grad for x in args)
    args = _Gate.apply(at_inputs, *args)
    output = _latest(hooks["forward"], module.forward(*args, **kwargs), module, (args,), kwargs)
    if isinstance(output, tuple | list):
        parts = _Gate.apply(at_outputs, *output)
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return _Gate.apply(at_outputs, output)[0]


class _Gate(Function):
    """y = x for several values at once. ``report`` gets their gradients, and returns those to pass on.

    A value that needs no gradient, or is no tensor, has None for it.
    """

    @staticmethod
    def forward(ctx: Any, report: Callable[..., Any], *values: Any) -> Any:
        ctx.report, ctx.needed = report, ctx.needs_input_grad[1:]
        ctx.mark_non_differentiable(*[x for x, needed in zip(values, ctx.needed, strict=True) if not needed])
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None, *ctx.report(tuple(g if needed else None for g, needed in zip(gradients, ctx.needed, strict=True)))
