"""Reverse-mode automatic differentiation: the chain rule, applied from a loss back to everything it came from.

An operation y = f(x) adds a node to the computational graph. For each input x the node holds a function that maps gy,
the gradient of the loss with respect to y (for short: in y), to gx, the gradient in x. For a vector y this is the
product of gy with the Jacobian dy/dx (the vector-Jacobian product), computed without that matrix. `backward` visits the
nodes in reverse topological order, so that a node's gy is complete (summed over all uses of y) when its turn comes; the
order in which they were made is such an order. The contract of a gradient function:

1. It gets gy, a Tensor of y's shape and dtype, and returns gx, a Tensor of x's. It adds nothing to x.grad itself.
2. It is written in tensor operations, so with `create_graph` it is recorded too, and can be differentiated again.
3. It may return gy itself or a tensor it holds: where a leaf keeps the result, it is copied first.
4. It must not hold y, which holds it (a reference cycle): with `keep_output` it gets y as its second argument.
5. Tensors in its closure, defaults, partial arguments or attributes are *saved*: `record` looks them up there and
   notes their versions, and the backward pass raises if one was changed in place since (`versions.py`).
6. Once backward has passed a node with saved values, it forgets them and its functions, unless `retain_graph`.

Sources: A. Griewank, A. Walther, Evaluating derivatives, 2nd edition, SIAM 2008, chapter 3; A. Baydin et al., Automatic
differentiation in machine learning: a survey, arXiv:1502.05767, 2018.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np

from minidl import grad_mode, hooks, versions
from minidl.grad_mode import GradMode
from minidl.grad_mode import enable_grad as enable_grad  # where PyTorch has them too
from minidl.grad_mode import is_grad_enabled as is_grad_enabled
from minidl.grad_mode import no_grad as no_grad
from minidl.grad_mode import set_grad_enabled as set_grad_enabled
from minidl.kernels import devices
from minidl.tensor import Array, Tensor, misfit

VJP = Callable[..., Tensor]  # a gradient function: gy to gx, a vector-Jacobian product
Edge = tuple[Tensor, VJP]
Source: TypeAlias = "Node | Tensor"

_order = itertools.count()
_ARRAY = attrgetter("array")


class Node:
    """One recorded operation: the tensors it came from, and how its gradient passes to each.

    Attributes
    ----------
    name : str
        The operation's name, for messages.
    order : int
        Grows with each node, so every node comes after those it was computed from: a topological order.
    edges : list of (source, function), or None once the backward pass has used them up
        A source is a node, or a leaf tensor. A node holds no tensor that it made, so there are no reference cycles.
    saved : list of (value, storage, version)
        What the functions will read; see `versions.py`.
    hooks : dict or None
        Functions to call with gy; see `hooks.py`.
    """

    __slots__ = ("dtype", "edges", "hooks", "name", "order", "output", "saved", "shape")

    def __init__(self, name: str, y: Tensor, edges: Sequence[Edge], keep_output: bool) -> None:
        self.name, self.order = name, next(_order)
        self.shape, self.dtype = y.array.shape, y.array.dtype
        self.edges: list[tuple[Source, VJP]] | None = [(x.grad_fn or x, f) for x, f in edges]
        self.saved = versions.noted(edges)
        self.output = (y.array, y._storage) if keep_output else None
        self.hooks: hooks.Hooks | None = None
        if keep_output:
            self.saved.append((y.array, y._storage, y._storage.version))

    def gradients(self, gy: Tensor, useful: set[Source] | None) -> list[tuple[Source, Tensor]]:
        """The gradient in each source, or in each useful one: vector-Jacobian products with gy."""
        if self.edges is None:
            raise RuntimeError(
                f"backward through {self.name} a second time: the first backward() freed the values it needs; "
                "pass retain_graph=True to that one"
            )
        versions.refuse_changed(self.name, self.saved)
        given = (gy,) if self.output is None else (gy, self._output(*self.output))
        return [(x, self._checked(x, f(*given), given)) for x, f in self.edges if useful is None or x in useful]

    def _output(self, array: Array, storage: versions.Storage) -> Tensor:
        """y, made anew from its array: a node that held y would be held by y in turn."""
        y = Tensor(array, storage=storage)
        y.grad_fn = self
        return y

    def _checked(self, source: Source, gx: Tensor, given: tuple[Tensor, ...]) -> Tensor:
        """gx, if it has its source's shape and dtype. A leaf keeps it, so it is copied if anyone else holds it."""
        if not isinstance(gx, Tensor):
            raise TypeError(f"backward of {self.name}: the gradient must be a Tensor, not {type(gx).__name__}")
        if gx.array.shape != source.shape or gx.array.dtype != source.dtype:
            raise misfit(f"backward of {self.name}: gradient", gx, "for an input", source)
        shared = gx is given[0] or gx is given[-1]
        for value, _, _ in self.saved:
            shared = shared or gx is value
        return gx.clone() if shared and isinstance(source, Tensor) else gx

    def leads_to(self, sources: set[Source]) -> bool:
        """Whether one of these sources is an input of this node. A freed node says yes, so that `gradients` raises."""
        return self.edges is None or any(source in sources for source, _ in self.edges)

    def release(self) -> None:
        """Let go of the saved values. A node that saved none can be passed again, as in PyTorch."""
        if self.saved:
            self.edges = self.output = None
            self.saved = []

    def __repr__(self) -> str:
        return f"<{self.name.title().replace('_', '')}Backward>"


def record(name: str, array: Array, *edges: Edge, view_of: Tensor | None = None, keep_output: bool = False) -> Tensor:
    """Wrap the result of an operation and, where gradients are wanted, enter it in the graph.

    Parameters
    ----------
    name : str
        The operation's name, as error messages and `grad_fn` show it.
    array : ndarray
        The result y.
    *edges : (Tensor, function)
        Each differentiable input x, with the function from gy to gx (its contract: `minidl.autograd`). The
        tensors in its closure, defaults, partial arguments or attributes are saved: the backward pass raises if one
        of them was changed in place.
    view_of : Tensor, optional
        The input whose memory the result shares, unless NumPy had to copy.
    keep_output : bool
        Give the functions y as a second argument.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import minidl
    >>> def cube(x):
    ...     return record("cube", x.array**3, (x, lambda gy: gy * 3 * x * x))
    >>> x = minidl.tensor(2.0, requires_grad=True)
    >>> cube(x).backward()
    >>> x.grad.item()
    12.0
    """
    if view_of is not None and not np.may_share_memory(array, view_of.array):
        view_of = None
    y = Tensor(array, storage=None if view_of is None else view_of._storage)
    y._storage.exclusive = view_of is None
    if grad_mode.mode.enabled:
        wanted = []
        for x, gradient in edges:
            if x._known != x._storage.recorded:
                versions.refuse_stale(name, x)
            if x.grad_fn is not None or x._requires_grad:
                wanted.append((x, gradient))
        if wanted:
            y.grad_fn = Node(name, y, wanted, keep_output)
            if view_of is not None:
                y._leaf = view_of if view_of.is_leaf else view_of._leaf
    return y


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Add the gradient of `tensors` to the `grad` of every leaf they were computed from.

    Parameters
    ----------
    tensors : Tensor or sequence of Tensor
        Usually a loss: one element. Of several tensors, the sum is differentiated.
    grad_tensors : Tensor or sequence of Tensor, optional
        The gradient of the loss in each, of its shape; by default 1, for a tensor of one element.
    retain_graph : bool, optional
        Keep the saved arrays for another backward pass. By default the same as `create_graph`.
    create_graph : bool
        Record the backward pass itself, so that the gradients can be differentiated.
    inputs : Tensor or sequence of Tensor, optional
        Fill the `grad` of these alone, whether leaves or not.

    Raises
    ------
    RuntimeError
        If a tensor requires no gradient; if it has several elements and no gradient is given; if an earlier backward
        pass freed the graph; or if a tensor that a gradient needs was changed in place. Every `grad` is then left as
        it was, but for leaves with hooks.
    """
    seeds = _seeds("backward", tensors, grad_tensors)
    targets = None if inputs is None else _targets("backward", inputs)
    for x in [] if inputs is None else _listed("backward", "inputs", inputs):
        x.retain_grad()
    handed_out = set(map(id, map(_ARRAY, seeds.values())))
    calls = hooks.at_end.begin()
    accumulate = partial(_accumulate, create_graph=create_graph, handed_out=handed_out)
    for leaf, g in _propagate(seeds, retain_graph, create_graph, targets, accumulate).items():
        if isinstance(leaf, Tensor):
            accumulate(leaf, g)
    for call in calls:
        call()


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of the sum of `outputs` in each of `inputs`; every `grad` stays as it is.

    Parameters
    ----------
    outputs, inputs : Tensor or sequence of Tensor
        The inputs may be leaves or intermediate results.
    grad_outputs : Tensor or sequence of Tensor, optional
        The gradient in each output; 1 for outputs of one element.
    retain_graph, create_graph : bool
        As for ``backward``.
    only_inputs : bool
        Without effect, as in PyTorch.
    allow_unused : bool
        Return None for an input that the outputs do not depend on, instead of raising.
    is_grads_batched : bool
        Only False.
    materialize_grads : bool
        Return zeros for such an input.

    Returns
    -------
    tuple of Tensor

    Examples
    --------
    >>> import minidl
    >>> x = minidl.tensor(3.0, requires_grad=True)
    >>> (slope,) = grad(x**3, x, create_graph=True)
    >>> (curvature,) = grad(slope, x)
    >>> slope.item(), curvature.item()
    (27.0, 18.0)
    """
    if is_grads_batched:
        raise NotImplementedError("grad: is_grads_batched=True is not supported; call grad once for each gradient")
    if materialize_grads and allow_unused is False:
        raise ValueError(
            "grad: materialize_grads=True returns zeros for unused inputs, which allow_unused=False refuses"
        )
    seeds, targets = _seeds("grad", outputs, grad_outputs), _targets("grad", inputs)
    totals = _propagate(seeds, retain_graph, create_graph, targets)
    found = []
    for i, (x, target) in enumerate(zip(_listed("grad", "inputs", inputs), targets, strict=True)):
        if target not in totals and not (allow_unused or materialize_grads):
            raise RuntimeError(
                f"grad: the outputs do not depend on input {i} of shape {x.shape}; "
                "allow_unused=True returns None for it"
            )
        unused = Tensor(np.zeros_like(x.array)) if materialize_grads else None
        found.append(totals.get(target, unused))
    return tuple(found)


def _listed(name: str, which: str, values: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """One tensor or several as a list."""
    found = [values] if isinstance(values, Tensor) else list(values)
    if not found or not all(isinstance(x, Tensor) for x in found):
        raise TypeError(f"{name}: {which} must be a tensor or a sequence of one or more tensors, not {found!r}")
    return found


def _targets(name: str, inputs: Tensor | Sequence[Tensor]) -> list[Source]:
    """The sources in whose gradients the caller is interested."""
    found = _listed(name, "inputs", inputs)
    for i, x in enumerate(found):
        if not x.requires_grad:
            raise RuntimeError(
                f"{name}: input {i} of shape {x.shape} does not require grad: make it with requires_grad=True"
            )
    return [x.grad_fn or x for x in found]


def _seeds(
    name: str, outputs: Tensor | Sequence[Tensor], gradients: Tensor | Sequence[Tensor | None] | None
) -> dict[Source, Tensor]:
    """The gradients from which the backward pass starts, by source."""
    found = _listed(name, "outputs", outputs)
    given: list[Any] = list(gradients) if isinstance(gradients, list | tuple) else [gradients]
    if gradients is None:
        given = [None] * len(found)
    for gradient in given:
        if not isinstance(gradient, Tensor | None):
            raise TypeError(f"{name}: gradient must be a Tensor, not {type(gradient).__name__}")
    if len(given) != len(found):
        raise RuntimeError(f"{name}: expected a gradient for each output, and got {len(given)} for {len(found)}")
    seeds: dict[Source, Tensor] = {}
    for output, gradient in zip(found, given, strict=True):
        _add(seeds, output.grad_fn or output, _seed(output, gradient))
    return seeds


def _seed(output: Tensor, gradient: Tensor | None) -> Tensor:
    """The gradient in an output, from which the backward pass starts: the one given, or 1 if it has one element."""
    if not output.requires_grad:
        raise RuntimeError(
            f"backward: this tensor of shape {output.shape} does not require grad and has no grad_fn: no tensor "
            "it was computed from has requires_grad=True, or it was computed inside no_grad()"
        )
    versions.refuse_stale("backward", output)
    if gradient is None:
        if output.numel() != 1:
            raise RuntimeError(
                f"backward: without a gradient the output must have one element, and shape {output.shape} has "
                f"{output.numel()}: reduce it (.sum(), .mean()) or pass a gradient of its shape"
            )
        one = devices.number(np.ones((), output.dtype), devices.device_of(output.array))
        return Tensor(one.reshape(output.shape))
    if gradient.shape != output.shape:
        raise RuntimeError(
            f"backward: gradient of shape {gradient.shape} for an output of shape {output.shape}: both must be the same"
        )
    return gradient.to(output.dtype)


def _propagate(
    seeds: dict[Source, Tensor],
    retain_graph: bool | None,
    create_graph: bool,
    targets: Sequence[Source] | None = None,
    accumulate: Callable[[Tensor, Tensor], None] | None = None,
) -> dict[Source, Tensor]:
    """Propagate gradients from the seeds to all leaves, or only to the targets; return them by source.

    Leaves with hooks are given to `accumulate`, if there is one, as soon as their gradients are complete.
    """
    retain = create_graph if retain_graph is None else retain_graph
    kept = set(targets or ())
    useful = None if targets is None else _leading_to(targets, seeds)
    last = hooks.last_uses(nodes_below(seeds), seeds) if hooks.of_leaves else {}
    totals, waiting = dict(seeds), [(-node.order, node) for node in seeds if isinstance(node, Node)]
    heapq.heapify(waiting)
    with GradMode(create_graph):
        while waiting:  # the latest node first: every use of its result has been visited already
            _, node = heapq.heappop(waiting)
            gy = totals.pop(node)
            if node.hooks:
                gy = hooks.changed(gy, node.hooks)
            if node in kept:
                totals[node] = gy
            if useful is None or node.leads_to(useful):
                for source, gx in node.gradients(gy, useful):
                    if _add(totals, source, gx) and isinstance(source, Node):
                        heapq.heappush(waiting, (-source.order, source))
                if not retain:
                    node.release()
            if node in last:
                hooks.complete(last.pop(node), totals, accumulate)
        for leaves in last.values():
            hooks.complete(leaves, totals, accumulate)
    return totals


def _add(totals: dict[Source, Tensor], source: Source, g: Tensor) -> bool:
    """Add g to the source's gradient; True if it is the first to arrive."""
    first = source not in totals
    totals[source] = g if first else totals[source] + g
    return first


def _leading_to(targets: Sequence[Source], seeds: Iterable[Source]) -> set[Source]:
    """The targets, and those nodes below the seeds that lead to one: no other source needs a gradient."""
    useful = set(targets)
    for node in nodes_below(seeds):
        if node.leads_to(useful):
            useful.add(node)
    return useful


def nodes_below(seeds: Iterable[Source]) -> list[Node]:
    """The nodes among the seeds and all that they came from, in the order in which they were made."""
    nodes: set[Node] = set()
    stack = [seed for seed in seeds if isinstance(seed, Node)]
    while stack:
        node = stack.pop()
        if node not in nodes:
            nodes.add(node)
            stack += [source for source, _ in node.edges or () if isinstance(source, Node)]
    return sorted(nodes, key=lambda node: node.order)


def _accumulate(leaf: Tensor, g: Tensor, create_graph: bool, handed_out: set[int]) -> None:
    """Add g to leaf.grad, whose memory no other gradient, view or tensor of the user's may share."""
    if not leaf._requires_grad:  # frozen since
        return
    if leaf._grad is not None and not create_graph and devices.writable(leaf._grad.array):
        leaf._grad.array += g.array
        versions.written(leaf._grad)
        return
    if not devices.owns(g.array) or id(g.array) in handed_out:
        g = g.clone()
    handed_out.add(id(g.array))
    if leaf._grad is not None:
        g = leaf._grad + g
    leaf._grad = g if create_graph else g.detach()
