"""Hooks: functions that a backward pass calls with a tensor's gradient once it is complete.

A hook on a result belongs to its node in the graph and runs when the backward pass reaches that node. A leaf has no
node: its gradient is complete when the pass has left the earliest of the nodes that use it, which is the last of them
to be visited (`last_uses`). Where no leaf has hooks, that look-up costs nothing.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from weakref import finalize, ref

from minidl.tensor import Tensor, misfit

if TYPE_CHECKING:
    from minidl.autograd import Node, Source

Hook = Callable[[Tensor], Any]
Hooks = dict[Any, Any]  # functions, by the id of their handle
_ids = itertools.count()


class RemovableHandle:
    """What registering a hook returns: ``remove()``, or the end of a ``with`` block, takes the hook away again."""

    def __init__(self, hooks: Hooks, hook: Any, first: bool = False) -> None:
        self.id, self._hooks = next(_ids), hooks
        later = dict(hooks) if first else {name: hooks[name] for name in hooks if name == RETAIN}
        for name in later:
            del hooks[name]
        hooks.update({self.id: hook, **later})

    def remove(self) -> None:
        """Take the hook away. Doing so twice is harmless."""
        self._hooks.pop(self.id, None)
        for key, kinds in of_leaves.copy().items():  # a copy, since a tensor may go at any time
            if not any(kinds):
                of_leaves.pop(key, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


RETAIN = "retain_grad"  # the key of a hook that keeps a result's gradient: always the last to run
of_leaves: dict[int, tuple[Hooks, Hooks]] = {}  # by id: those before and after its gradient is added to `grad`


class _AtEnd(threading.local):
    """What is to be called when this thread's current ``backward()`` ends: hooks append to it."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> list[Callable[[], None]]:
        self.calls: list[Callable[[], None]] = []
        return self.calls


at_end = _AtEnd()


def _of_leaf(leaf: Tensor) -> tuple[Hooks, Hooks]:
    if id(leaf) not in of_leaves:
        of_leaves[id(leaf)] = {}, {}
        finalize(leaf, of_leaves.pop, id(leaf), None)
    return of_leaves[id(leaf)]


def _of_node(node: Node) -> Hooks:
    node.hooks = {} if node.hooks is None else node.hooks
    return node.hooks


def register_hook(input: Tensor, hook: Hook) -> RemovableHandle:
    """Call ``hook(gradient)`` in each backward pass that computes this tensor's gradient, summed over all its uses.

    If the hook returns a tensor, it takes the gradient's place. It must not change the gradient in place.

    Examples
    --------
    >>> import minidl
    >>> x = minidl.tensor([1.0, 2.0], requires_grad=True)
    >>> handle = x.register_hook(lambda gradient: gradient * 10)
    >>> (x * x).sum().backward()
    >>> x.grad.tolist()
    [20.0, 40.0]
    """
    _need_gradient("register_hook", input)
    return RemovableHandle(_of_leaf(input)[0] if input.grad_fn is None else _of_node(input.grad_fn), hook)


def register_post_accumulate_grad_hook(input: Tensor, hook: Hook) -> RemovableHandle:
    """Call ``hook(leaf)`` as soon as ``backward()`` has added to this leaf's `grad`, while the pass still goes on."""
    if not input.is_leaf:
        raise RuntimeError(f"register_post_accumulate_grad_hook: only for leaves, and {input.grad_fn!r} computed this")
    _need_gradient("register_post_accumulate_grad_hook", input)
    return RemovableHandle(_of_leaf(input)[1], hook)


def retain_grad(input: Tensor) -> None:
    """Let ``backward()`` fill this tensor's `grad`, though it is not a leaf."""
    _need_gradient("retain_grad", input)
    if input.grad_fn is None:
        return
    kept = ref(input)  # the node may not hold its result

    def keep(g: Tensor) -> None:
        x = kept()
        if x is not None:
            x._grad = g.clone() if x._grad is None else x._grad + g

    _of_node(input.grad_fn)[RETAIN] = keep


def _need_gradient(name: str, x: Tensor) -> None:
    if not x.requires_grad:
        raise RuntimeError(f"{name}: this tensor of shape {x.shape} does not require grad, so it gets no gradient")


def changed(g: Tensor, hooks: Hooks) -> Tensor:
    """The gradient g after its hooks, each of which may replace it."""
    for hook in [*hooks.values()]:
        result = hook(g)
        if not isinstance(result, Tensor | None):
            raise TypeError(f"a hook must return a Tensor or None, not {type(result).__name__}")
        if result is not None and (result.shape, result.dtype) != (g.shape, g.dtype):
            raise misfit("a hook returned a tensor", result, "in place of a gradient", g)
        g = g if result is None else result
    return g


def last_uses(nodes: Iterable[Node], seeds: Iterable[Source]) -> dict[Any, list[Tensor]]:
    """The leaves with hooks, by the node after which their gradient is complete. `nodes` are in order of creation.

    A leaf that is a seed, and so used by no node, is listed under None.
    """
    last: dict[Any, list[Tensor]] = {None: [x for x in seeds if id(x) in of_leaves]}  # type: ignore[misc]
    seen = set(map(id, last[None]))
    for node in nodes:
        for source, _ in node.edges or ():
            if id(source) in of_leaves and id(source) not in seen:
                seen.add(id(source))
                last.setdefault(node, []).append(source)  # type: ignore[arg-type]
    return last


def complete(
    leaves: Iterable[Tensor], totals: dict[Source, Tensor], accumulate: Callable[[Tensor, Tensor], None] | None
) -> None:
    """Run the hooks of leaves whose gradient is complete, and `accumulate` it, unless that is None."""
    for leaf in leaves:
        if leaf in totals and id(leaf) in of_leaves:  # a hook may have removed others
            before, after = of_leaves[id(leaf)]
            totals[leaf] = changed(totals[leaf], before).clone() if before else totals[leaf]
            if accumulate is not None:
                accumulate(leaf, totals.pop(leaf))
                for hook in [*after.values()]:
                    hook(leaf)
