"""The tape: what was computed from what, and how gradients travel back along it.

An operation computes its result as an array and hands it to `record` with, for each input x, a function
from gy (the gradient of the final scalar in the result y) to gx (that in x). `backward` walks the nodes so
recorded, from the last made to the first, and adds up what arrives at each.

Those functions are written with tensor operations, not with array code. So when `create_graph` asks for it,
they are themselves recorded, and a gradient can be differentiated again.
"""

from __future__ import annotations

import functools
import heapq
import inspect
import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np

from minidl.kernels import devices
from minidl.tensor import OUTSIDE, Array, Tensor

Gradient = Callable[..., Tensor]
Edge = tuple[Tensor, Gradient]
Source: TypeAlias = "Node | Tensor"
F = TypeVar("F", bound=Callable[..., Any])

_order = itertools.count()


class _Mode(threading.local):
    enabled = True


_mode = _Mode()


def is_grad_enabled() -> bool:
    """Whether operations are recorded in this thread."""
    return _mode.enabled


class _Switch:
    """Record operations in this thread, or not, while the context or the decorated function lasts."""

    def __init__(self, mode: bool) -> None:
        self.mode = mode
        self.previous: list[bool] = []  # a stack, so that one object can be entered again inside itself

    def __enter__(self) -> None:
        self.previous.append(_mode.enabled)
        _mode.enabled = self.mode

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _mode.enabled = self.previous.pop()

    def __call__(self, function: F) -> F:
        if inspect.isgeneratorfunction(function):
            raise TypeError(f"{function.__name__} is a generator, which this cannot decorate: use `with` inside it")

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with _Switch(self.mode):
                return function(*args, **kwargs)

        return cast(F, wrapped)


class set_grad_enabled(_Switch):
    """Record operations in this thread, or not, from now on; as a context or a decorator, until its end."""

    def __init__(self, mode: bool) -> None:
        if not isinstance(mode, bool):
            raise TypeError(f"set_grad_enabled: mode must be a bool, not {mode!r}")
        super().__init__(mode)
        self.before, _mode.enabled = _mode.enabled, mode

    def __enter__(self) -> None:
        _mode.enabled = self.mode if self.previous else self.before
        super().__enter__()

    def __call__(self, function: F) -> F:
        _mode.enabled = self.before
        return super().__call__(function)


class no_grad(_Switch):
    """Compute without recording, as a context (``with no_grad():``) or a decorator (``@no_grad``)."""

    def __new__(cls, function: F | None = None) -> Any:
        return super().__new__(cls) if function is None else cls()(function)

    def __init__(self, function: None = None) -> None:
        super().__init__(False)


class enable_grad(_Switch):
    """Record again inside ``no_grad``, as a context or a decorator."""

    def __new__(cls, function: F | None = None) -> Any:
        return super().__new__(cls) if function is None else cls()(function)

    def __init__(self, function: None = None) -> None:
        super().__init__(True)


class Node:
    """One recorded operation: the tensors it came from and how its gradient passes to each.

    Attributes
    ----------
    name : str
        The operation's name, for messages.
    order : int
        Grows with each node made, so that every node comes after those it was computed from.
    edges : list of (source, function), or None once the backward pass has used them up
        A source is a node, or a leaf tensor. A node holds no tensor that it made: there are no cycles.
    saved : list of (storage, version, shape)
        The versions of the memory that the functions will read.
    """

    __slots__ = ("dtype", "edges", "frees", "name", "order", "output", "saved", "shape")

    def __init__(self, name: str, y: Tensor, edges: Iterable[Edge], keep_output: bool) -> None:
        self.name, self.order = name, next(_order)
        self.shape, self.dtype = y.shape, y.dtype
        self.edges: list[tuple[Source, Gradient]] | None = [(_source(x), f) for x, f in edges]
        self.output = (y.array, y._storage) if keep_output else None
        read = [value for _, gradient in self.edges for value in _held_by(gradient)]
        tensors = [x for x in read if isinstance(x, Tensor)] + [y] * keep_output
        self.saved = [(x._storage, x._storage.version, x.shape) for x in tensors]
        self.frees = bool(tensors) or any(devices.is_array(x) for x in read)

    def gradients(self, gy: Tensor, useful: set[Source] | None) -> list[tuple[Source, Tensor]]:
        """Pass the gradient of the result on to the sources, or to the useful ones among them."""
        if self.edges is None:
            raise RuntimeError(
                f"backward through {self.name} a second time: the first backward() freed the values that it needs; "
                "give that one retain_graph=True"
            )
        for storage, version, shape in self.saved:
            if storage.version != version:
                raise RuntimeError(
                    f"backward of {self.name}: a tensor of shape {shape} that it needs was changed in place "
                    f"after {self.name} used it; change a clone() of it, or use an operation that is not in place"
                )
        given = (gy,) if self.output is None else (gy, self._output())
        wanted = [(x, f) for x, f in self.edges if useful is None or x in useful]
        return [(source, _checked(self.name, source, gradient, given)) for source, gradient in wanted]

    def _output(self) -> Tensor:
        assert self.output is not None
        array, storage = self.output
        y = Tensor(array, storage=storage)
        y.grad_fn = self
        return y

    def leads_to(self, sources: set[Source]) -> bool:
        """Whether one of the sources is among this node's. A freed node has forgotten, and must say so."""
        return self.edges is None or any(source in sources for source, _ in self.edges)

    def release(self) -> None:
        """Let go of the saved arrays. A node that saved none can be passed again, as in PyTorch."""
        if self.frees:
            self.edges = self.output = None
            self.saved = []

    def __repr__(self) -> str:
        return f"<{self.name.title().replace('_', '')}Backward>"


def _source(x: Tensor) -> Source:
    return x if x.grad_fn is None else x.grad_fn


def _held_by(gradient: Gradient) -> list[Any]:
    """What a gradient function holds: in its closure, its defaults, a partial's arguments, and lists of these."""
    gradient = inspect.unwrap(gradient)  # of decorators
    if isinstance(gradient, functools.partial):
        held = [*gradient.args, *gradient.keywords.values(), *_held_by(gradient.func)]
    else:
        cells = getattr(gradient, "__closure__", None) or ()
        held = [*[cell.cell_contents for cell in cells], *(getattr(gradient, "__defaults__", None) or ())]
    return [x for value in held for x in (value if isinstance(value, list | tuple) else (value,))]


def _checked(name: str, source: Source, gradient: Gradient, given: tuple[Tensor, ...]) -> Tensor:
    """The gradient for a source, of its shape and dtype; for a leaf, which will own it, not a tensor held elsewhere."""
    gx = gradient(*given)
    if not isinstance(gx, Tensor):
        raise TypeError(f"backward of {name}: the gradient must be a Tensor, not {type(gx).__name__}")
    if gx.shape != source.shape or gx.dtype != source.dtype:
        raise RuntimeError(
            f"backward of {name}: gradient of shape {gx.shape} and dtype {gx.dtype} for an input of shape "
            f"{source.shape} and dtype {source.dtype}: both must be the same"
        )
    if isinstance(source, Tensor) and any(gx is held for held in (*given, *_held_by(gradient))):
        return gx.clone()
    return gx


def record(name: str, array: Array, *edges: Edge, view_of: Tensor | None = None, keep_output: bool = False) -> Tensor:
    """Wrap the result of an operation and, where gradients are wanted, enter it in the graph.

    Parameters
    ----------
    name : str
        The operation's name, as error messages and `grad_fn` show it.
    array : ndarray
        The result y.
    *edges : (Tensor, function)
        Each differentiable input x with the function from gy to gx. Of the tensors that its closure, defaults or
        partial arguments hold, the versions are noted: if one is changed in place before the backward pass, that
        is refused.
    view_of : Tensor, optional
        The input whose memory the result shares, unless NumPy had to copy.
    keep_output : bool
        Give the functions y as a second argument. A closure must not hold y itself: that would be a cycle.

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
    shared = view_of is not None and np.may_share_memory(array, view_of.array)
    y = Tensor(array, storage=cast(Tensor, view_of)._storage if shared else None)
    y._storage.sole = not shared
    if _mode.enabled:
        for x, _ in edges:
            _refuse_stale(name, x)
        wanted = [edge for edge in edges if edge[0].requires_grad]
        if wanted:
            y.grad_fn = Node(name, y, wanted, keep_output)
            if shared and view_of is not None:
                y._leaf = view_of if view_of.is_leaf else view_of._leaf
    return y


def _refuse_stale(name: str, x: Tensor) -> None:
    if x._known not in (x._storage.recorded, OUTSIDE):
        raise RuntimeError(
            f"{name}: the memory of this tensor of shape {x.shape} was changed in place through another tensor "
            "(a view of it, or one that it is a view of), which its own graph does not know; "
            "take the view after the change, or change a clone()"
        )


def backward(
    output: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> None:
    """Add the gradient of `output` to the `grad` of every leaf that it was computed from.

    Parameters
    ----------
    output : Tensor
        Usually a loss: one element.
    gradient : Tensor, optional
        The gradient in `output`, of its shape; 1 if omitted, which needs an output of one element.
    retain_graph : bool, optional
        Keep the saved arrays for another backward pass. By default the same as `create_graph`.
    create_graph : bool
        Record the backward pass itself, so that the gradients can be differentiated.

    Raises
    ------
    RuntimeError
        If the output requires no gradient, has more than one element and no `gradient` is given, was
        passed back before, or needs a tensor that was changed in place. No `grad` is changed then.
    """
    seeds = {_source(output): _seed(output, gradient)}
    totals = _propagate(seeds, retain_graph, create_graph)
    handed_out = {id(seed.array) for seed in seeds.values()}
    for leaf, g in totals.items():
        if isinstance(leaf, Tensor) and leaf._requires_grad:  # not frozen since
            _accumulate(leaf, g, create_graph, handed_out)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of the sum of `outputs` in each of `inputs`, leaving every `grad` as it is.

    Parameters
    ----------
    outputs, inputs : Tensor or sequence of Tensor
        The inputs may be leaves or results in between.
    grad_outputs : Tensor or sequence of Tensor, optional
        The gradient in each output; 1 for outputs of one element.
    retain_graph, create_graph : bool
        As for ``backward``.
    allow_unused : bool
        Return None for an input that the outputs do not depend on, instead of raising.

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
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    given = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs or [None] * len(outputs))
    if len(given) != len(outputs):
        raise RuntimeError(
            f"grad: expected a gradient in grad_outputs for each output, and got {len(given)} for {len(outputs)}"
        )
    for name, values in (("outputs", outputs), ("inputs", inputs)):
        if not values or not all(isinstance(x, Tensor) for x in values):
            raise TypeError(f"grad: {name} must be a tensor or a sequence of one or more tensors, not {values!r}")
    for i, x in enumerate(inputs):
        if not x.requires_grad:
            raise RuntimeError(
                f"grad: input {i} of shape {x.shape} does not require grad: make it with requires_grad=True"
            )
    seeds: dict[Source, Tensor] = {}
    for output, gradient in zip(outputs, given, strict=True):
        _add(seeds, _source(output), _seed(output, gradient))
    targets = [_source(x) for x in inputs]
    totals = _propagate(seeds, retain_graph, create_graph, targets)
    for i, target in enumerate(targets):
        if target not in totals and not allow_unused:
            raise RuntimeError(
                f"grad: the outputs do not depend on input {i} of shape {inputs[i].shape}; "
                "allow_unused=True returns None for it"
            )
    return tuple(totals.get(target) for target in targets)


def _seed(output: Tensor, gradient: Tensor | None) -> Tensor:
    if not output.requires_grad:
        raise RuntimeError(
            f"backward: this tensor of shape {output.shape} does not require grad and has no grad_fn: it was "
            "computed from no tensor with requires_grad=True, or inside no_grad()"
        )
    _refuse_stale("backward", output)
    if gradient is None:
        if output.numel() != 1:
            raise RuntimeError(
                f"backward: without a gradient the output must have one element, and shape {output.shape} has "
                f"{output.numel()}: reduce it (.sum(), .mean()) or pass a gradient of its shape"
            )
        one = devices.number(np.ones((), output.dtype), devices.place_of(output.array))
        return Tensor(one.reshape(output.shape))
    if not isinstance(gradient, Tensor):
        raise TypeError(f"backward: gradient must be a Tensor, not {type(gradient).__name__}")
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
) -> dict[Source, Tensor]:
    """Carry gradients from the seeds to all leaves, or to the targets alone; return them by source."""
    retain = create_graph if retain_graph is None else retain_graph
    kept = set(targets or ())
    useful = None if targets is None else _leading_to(targets, seeds)
    totals, waiting = dict(seeds), [(-node.order, node) for node in seeds if isinstance(node, Node)]
    heapq.heapify(waiting)
    with _Switch(create_graph):
        while waiting:  # the latest node first: all that uses its result has been passed already
            _, node = heapq.heappop(waiting)
            gy = totals[node] if node in kept else totals.pop(node)
            if useful is not None and not node.leads_to(useful):
                continue
            for source, gx in node.gradients(gy, useful):
                if _add(totals, source, gx) and isinstance(source, Node):
                    heapq.heappush(waiting, (-source.order, source))
            if not retain:
                node.release()
    return totals


def _add(totals: dict[Source, Tensor], source: Source, g: Tensor) -> bool:
    """Add g to the source's gradient; True if it is the first to arrive."""
    first = source not in totals
    totals[source] = g if first else totals[source] + g
    return first


def _leading_to(targets: Sequence[Source], seeds: Iterable[Source]) -> set[Source]:
    """The targets, and the nodes below the seeds from which one can be reached: no other needs a gradient."""
    nodes: set[Node] = set()
    stack = [seed for seed in seeds if isinstance(seed, Node)]
    while stack:
        node = stack.pop()
        if node not in nodes:
            nodes.add(node)
            stack += [source for source, _ in node.edges or () if isinstance(source, Node)]
    useful = set(targets)
    for node in sorted(nodes, key=lambda node: node.order):
        if node.leads_to(useful):
            useful.add(node)
    return useful


def _accumulate(leaf: Tensor, g: Tensor, create_graph: bool, handed_out: set[int]) -> None:
    """Add g to leaf.grad, which owns its memory: no other gradient, no view and no tensor of the user's."""
    if leaf._grad is not None and not create_graph and devices.writable(leaf._grad.array):
        leaf._grad.array += g.array
        leaf._grad._storage.version += 1
        return
    if not devices.owns(g.array) or id(g.array) in handed_out:
        g = g.clone()
    handed_out.add(id(g.array))
    if leaf._grad is not None:
        g = leaf._grad + g
    leaf._grad = g if create_graph else g.detach()


Tensor.backward = backward
