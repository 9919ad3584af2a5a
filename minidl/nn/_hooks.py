"""Module hooks: functions called before and after a module's `forward`, and in the backward pass through it.

A backward hook needs two places in the graph, where the gradient enters the module and where it leaves. `_Gate` marks
them: an identity around the module's results and around its arguments, whose backward reports the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from minidl.function import Function
from minidl.hooks import Hooks, RemovableHandle
from minidl.tensor import Tensor

if TYPE_CHECKING:
    from minidl.nn.module import Module

Hook = Callable[..., Any]


class Hooked:
    """The part of `Module` that registers hooks. Each method returns a handle whose ``remove()`` takes the hook away."""

    _hooks: dict[str, Hooks] | None = None  # by kind

    def _register(self, kind: str, hook: Hook, prepend: bool) -> RemovableHandle:
        if self._hooks is None:
            self._hooks = {kind: {} for kind in ("forward_pre", "forward", "backward_pre", "backward")}
        return RemovableHandle(self._hooks[kind], hook, prepend)

    def register_forward_pre_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before `forward`; if it returns arguments, they are used instead.

        `with_kwargs`: ``hook(module, args, kwargs)``, which returns None or a pair of both.
        """
        return self._register("forward_pre", hook if with_kwargs else _of_args(hook), prepend)

    def register_forward_hook(self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after `forward`; what it returns, if not None, is the output instead.

        `with_kwargs`: ``hook(module, args, kwargs, output)``.
        """
        plain = hook if with_kwargs else lambda module, args, kwargs, output: hook(module, args, output)
        return self._register("forward", plain, prepend)

    def register_full_backward_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` in a backward pass, before the module's own; it may return another tuple."""
        return self._register("backward_pre", hook, prepend)

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` once both are known, with tuples of gradients.

        `grad_input` has None for arguments that need no gradient; what the hook returns, if not None, replaces it.
        """
        return self._register("backward", hook, prepend)


def _of_args(hook: Hook) -> Hook:
    """A hook that knows only positional arguments, in the form of one that knows both."""

    def both(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = hook(module, args)
        return None if result is None else (_tuple(result), kwargs)

    return both


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def call(module: Module, hooks: dict[str, Hooks], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a module that has hooks."""
    for hook in [*hooks["forward_pre"].values()]:
        changed = hook(module, args, kwargs)
        if changed is not None:
            if not isinstance(changed, tuple) or len(changed) != 2:
                raise RuntimeError(f"a forward pre-hook must return None or (args, kwargs), not {changed!r}")
            args, kwargs = changed
    passage = _Passage(module, hooks) if hooks["backward"] or hooks["backward_pre"] else None
    if passage is not None:
        args = passage.enter(args)
    output = module.forward(*args, **kwargs)
    for hook in [*hooks["forward"].values()]:
        changed = hook(module, args, kwargs, output)
        output = output if changed is None else changed
    return output if passage is None else passage.leave(output)


class _Gate(Function):
    """y = x for several tensors at once; ``report`` gets their gradients and returns those to pass on."""

    @staticmethod
    def forward(ctx: Any, report: Callable[..., Any], *tensors: Tensor) -> Any:
        ctx.report = report
        return tensors

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return None, *ctx.report(gradients)


class _Passage:
    """One call of a module with backward hooks, seen from the backward pass."""

    def __init__(self, module: Module, hooks: dict[str, Hooks]) -> None:
        self.module, self.hooks = module, hooks
        self.which: list[int] = []  # the arguments that need a gradient
        self.count = 0
        self.grad_output: tuple[Any, ...] = ()

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.count = len(args)
        self.which, through = _through_gate(self.report_input, args)
        return through

    def leave(self, output: Any) -> Any:
        several = isinstance(output, tuple | list)
        which, through = _through_gate(self.report_output, output if several else (output,))
        self.outputs, self.total = which, len(through)
        return (type(output)(through) if type(output) in (tuple, list) else through) if several else through[0]

    def report_output(self, gradients: Sequence[Tensor]) -> Sequence[Any]:
        grad_output = _spread(gradients, self.outputs, self.total)
        for hook in [*self.hooks["backward_pre"].values()]:
            changed = hook(self.module, grad_output)
            grad_output = grad_output if changed is None else _tuple(changed)
        self.grad_output = grad_output
        if not self.which:  # no gradient will leave the module
            self.report_input(())
        return [grad_output[i] for i in self.outputs]

    def report_input(self, gradients: Sequence[Tensor]) -> Sequence[Any]:
        grad_input, grad_output = _spread(gradients, self.which, self.count), self.grad_output
        self.grad_output = ()
        for hook in [*self.hooks["backward"].values()]:
            changed = hook(self.module, grad_input, grad_output)
            grad_input = grad_input if changed is None else _tuple(changed)
        return [grad_input[i] for i in self.which]


def _through_gate(report: Callable[..., Any], values: Sequence[Any]) -> tuple[list[int], tuple[Any, ...]]:
    """The positions of those values that need a gradient, and the values, these passed through a gate."""
    which = [i for i, x in enumerate(values) if isinstance(x, Tensor) and x.requires_grad]
    passed = list(values)
    if which:
        for i, x in zip(which, _Gate.apply(report, *[values[i] for i in which]), strict=True):
            passed[i] = x
    return which, tuple(passed)


def _spread(gradients: Sequence[Tensor], which: Sequence[int], count: int) -> tuple[Any, ...]:
    """The gradients at their positions, and None elsewhere."""
    found: list[Any] = [None] * count
    for i, g in zip(which, gradients, strict=True):
        found[i] = g
    return tuple(found)
