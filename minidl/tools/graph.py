"""show_graph: the computational graph of a loss as text, an operation a line, or for Graphviz."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minidl.autograd import Node, Source, nodes_below
from minidl.kernels import devices
from minidl.nn import Parameter
from minidl.tensor import Tensor
from minidl.tools._table import table

HEADER = "", "\noperation", "\noutput", "\ncomputed from", "saved,\nbytes", "\ngradient in its inputs"
GRADIENT = re.compile(r"\bg[a-z](_[a-z]|\[[^]]*\])? = ((?!\. |: |;).)*")  # "gx = gy w", up to the sentence's end
DOCUMENTED = {"conv2d_input": "conv_transpose2d"}  # operations that are recorded under a kernel's name
LEGEND = (
    "saved: arrays that the gradients will read, each counted once. gy, gl: the loss's gradient in the output y or l."
)
WIDTH = 120  # where a formula is cut off


@dataclass(frozen=True, eq=False)
class Leaf:
    """A tensor that no recorded operation made: a parameter, or an input that requires a gradient."""

    name: str  # "" if not given
    shape: tuple[int, ...]
    dtype: Any
    kind: str  # "parameter" or "tensor"

    def __str__(self) -> str:
        return self.name or f"{self.kind} {self.shape}"


@dataclass(frozen=True, eq=False)
class Operation:
    """A recorded operation: a row of `Graph`.

    Attributes
    ----------
    number : int
        Its place in the order of execution, from 1.
    name : str
    shape, dtype
        Of its output.
    inputs : list of Operation or Leaf
        Only those that need a gradient.
    bytes : int
        Size of the arrays that it saved for its gradient, without those that an earlier operation had saved.
    gradient : str
        The formula that its docstring gives, "" if none.
    """

    number: int
    name: str
    shape: tuple[int, ...]
    dtype: Any
    inputs: list[Operation | Leaf]
    bytes: int
    gradient: str

    def __str__(self) -> str:
        return str(self.number)

    def cells(self) -> list[str]:
        """As printed."""
        inputs = ", ".join(map(str, self.inputs))
        return [str(self), self.name, f"{self.dtype} {self.shape}", inputs, f"{self.bytes:,}", self.gradient]


@dataclass(frozen=True, repr=False)
class Graph:
    """What `show_graph` found; printed, it is a table.

    Attributes
    ----------
    operations : list of Operation
        Each after those that it was computed from.
    leaves : list of Leaf
    """

    operations: list[Operation]
    leaves: list[Leaf]

    @property
    def bytes(self) -> int:
        """Size of all saved arrays, each counted once; parameters among them exist anyway."""
        return sum(operation.bytes for operation in self.operations)

    def __repr__(self) -> str:
        if not self.operations:
            return f"no operation: {self.leaves[0]} is a leaf"
        counts = f"operations: {len(self.operations)}, leaves: {len(self.leaves)}"
        rows = [*(operation.cells() for operation in self.operations), ["", "total", "", counts, f"{self.bytes:,}", ""]]
        return table(HEADER, rows, right=(0, 4), width=WIDTH) + "\n" + LEGEND

    def dot(self) -> str:
        """The graph in the language of Graphviz, for ``dot -Tsvg``: operations in boxes, leaves in ellipses."""
        lines = ["digraph {"]
        places: dict[Operation | Leaf, str] = {}
        tensors: list[Operation | Leaf] = [*self.leaves, *self.operations]
        for x in tensors:
            places[x] = f"n{len(places)}"
            name, shape = (x.name or x.kind, "ellipse") if isinstance(x, Leaf) else (x.name, "box")
            lines.append(f"  {places[x]} [shape={shape}, label={_quoted(name, f'{x.dtype} {x.shape}')}]")
        lines += [f"  {places[x]} -> {places[o]}" for o in self.operations for x in o.inputs]
        return "\n".join([*lines, "}", ""])


def _quoted(*lines: str) -> str:
    r"""A string of DOT, where \" is a quote, \\ a backslash and \n the end of a line."""
    return '"' + r"\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'


def show_graph(loss: Tensor, names: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] = ()) -> Graph:
    """The operations that the backward pass of `loss` will visit, in the order in which they were executed.

    Inputs that need no gradient, such as a batch of images, are not in the graph, but may be among the saved arrays.

    Parameters
    ----------
    loss : Tensor
    names : mapping, or pairs of str and Tensor
        For the leaves, such as ``model.named_parameters()``.

    Returns
    -------
    Graph
        A table to print, with `operations`, `leaves`, `bytes` and `dot()`.

    Raises
    ------
    RuntimeError
        If `loss` requires no gradient, or a backward pass has freed its graph.

    Notes
    -----
    The gradient is the first formula in the docstring of the operation's function, blank where it has none, and cut off
    at 120 columns: `operations` has all of it.

    Examples
    --------
    >>> import minidl
    >>> w = minidl.tensor([1.0, 2.0], requires_grad=True)
    >>> minidl.show_graph((w * w).exp().sum(), {"w": w})
                                                          saved,
       operation  output        computed from              bytes  gradient in its inputs
    ------------------------------------------------------------------------------------
    1  mul        float32 (2,)  w                              8  ga = gy b, gb = gy a
    2  exp        float32 (2,)  1                              8  gx = gy y
    3  sum        float32 ()    2                              0  gx = gy, repeated
    ------------------------------------------------------------------------------------
       total                    operations: 3, leaves: 1      16
    saved: arrays that the gradients will read, each counted once. gy, gl: the loss's gradient in the output y or l.
    """
    if not isinstance(loss, Tensor):
        raise TypeError(f"show_graph: expected a tensor, not {type(loss).__name__}")
    if not loss.requires_grad:
        raise RuntimeError(
            f"show_graph: this tensor of shape {loss.shape} has no graph: no tensor it was computed from has "
            "requires_grad=True, or it was computed inside no_grad()"
        )
    named = {id(x): name for name, x in (names.items() if isinstance(names, Mapping) else names)}
    leaves: dict[Source, Leaf] = {} if loss.grad_fn else {loss: _leaf(loss, named)}
    operations: dict[Source, Operation] = {}
    counted: set[int] = set()
    for number, node in enumerate(nodes_below([loss.grad_fn or loss]), 1):
        if node.edges is None:
            raise RuntimeError(
                f"show_graph: a backward pass has freed the graph of {node.name}: call show_graph before backward(), "
                "or pass retain_graph=True to it"
            )
        sources = list(dict.fromkeys(source for source, _ in node.edges))  # x * x has two edges to x
        for source in sources:
            if isinstance(source, Tensor) and source not in leaves:
                leaves[source] = _leaf(source, named)
        inputs = [operations[x] if isinstance(x, Node) else leaves[x] for x in sources]
        held = _held(node, counted)
        operations[node] = Operation(number, node.name, node.shape, node.dtype, inputs, held, _gradient(node))
    return Graph(list(operations.values()), list(leaves.values()))


def _leaf(x: Tensor, named: dict[int, str]) -> Leaf:
    return Leaf(named.get(id(x), ""), x.shape, x.dtype, "parameter" if isinstance(x, Parameter) else "tensor")


def _held(node: Node, counted: set[int]) -> int:
    """Size of the arrays that the node saved and that are not counted yet; of a view, that of the whole array."""
    size = 0
    for value, _, _ in node.saved:
        owner: Any = value.array if isinstance(value, Tensor) else value
        while not devices.owns(owner) and devices.is_array(owner.base):
            owner = owner.base
        size += 0 if id(owner) in counted else owner.nbytes
        counted.add(id(owner))
    return size


def _gradient(node: Node) -> str:
    """The formula in a docstring: of the function that recorded the operation, or of the one with its name."""
    for _, gradient in node.edges or ():
        while isinstance(gradient, functools.partial):
            gradient = gradient.func
        module = sys.modules.get(getattr(gradient, "__module__", None) or "")
        recorder = getattr(gradient, "__qualname__", "").split(".")[0]  # of "conv2d.<locals>.<lambda>", conv2d
        for name in (recorder, DOCUMENTED.get(node.name, node.name)):
            formula = GRADIENT.search(inspect.getdoc(getattr(module, name, None)) or "")
            if formula:
                return formula[0].rstrip(".")
    return ""
