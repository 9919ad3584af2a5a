"""How `explain` finds the rows of its table, and the table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minidl.nn import Module
from minidl.tensor import Tensor
from minidl.testing.gradcheck import tensors_in
from minidl.tools._layers import Fields, fields_of_pixels, multiply_adds, on_grid, receptive_fields, size_arithmetic
from minidl.tools._table import table

HEADER = (
    "layer", "type", "\noutput", "\nsize: height and width", "param-\neters", "multiply-\nadds", "output,\nbytes",
    "receptive\nfield, px", "step,\npx",
)  # fmt: skip
NUMBERS = range(4, 9)  # columns
LEGEND = (
    "receptive field: the input's pixels that one unit sees, padding included.\n"
    "step: to those of the unit beside it. bytes: 0 where an output shares memory with an earlier one."
)
TAKEN = (
    "Receptive fields: what is computed without a layer of minidl is taken to act on each pixel separately;\n"
    "where it changes height or width, they are left blank."
)


@dataclass(frozen=True)
class Layer:
    """One call of a layer, for one input: a row of `Explanation`.

    Attributes
    ----------
    name, kind : str
        Its dotted name in the model, and its class.
    output_shape : tuple of int, or None
        Without the batch; None if it returns no tensor.
    sizes : list of str
        The output's size, computed: one text, or one for the height and one for the width.
    parameters, multiply_adds, bytes : int
        Parameters and memory that an earlier row counted are not counted again.
    receptive_field : (int, int) or None
        Height and width of what one unit sees, in pixels of the input.
    step : (float, float) or None
        How far from it its neighbours' receptive fields lie; 0 if all units see the same.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...] | None = None
    sizes: Sequence[str] = ()
    parameters: int = 0
    multiply_adds: int = 0
    bytes: int = 0
    receptive_field: tuple[int, int] | None = None
    step: tuple[float, float] | None = None

    def cells(self) -> list[str]:
        """As printed."""
        shape = "" if self.output_shape is None else str(self.output_shape)
        numbers = [f"{n:,}" if n else "-" for n in (self.parameters, self.multiply_adds)]
        fields = [_both(pair) if pair and any(pair) else "" for pair in (self.receptive_field, self.step)]
        return [self.name, self.kind, shape, "\n".join(self.sizes), *numbers, f"{self.bytes:,}", *fields]


def _both(pair: Sequence[float]) -> str:
    """Height and width, or one number for both."""
    return "x".join(f"{n:.4g}" for n in (pair[:1] if pair[0] == pair[1] else pair))


@dataclass(frozen=True, repr=False)
class Explanation:
    """What `explain` found; printed, it is a table.

    Attributes
    ----------
    title : str
    rows : list of Layer
        In the order of the calls.
    parameters : int
        Of the whole model, each once.
    multiply_adds, bytes : int
        Sums of the rows'.
    notes : list of str
    """

    title: str
    rows: list[Layer]
    parameters: int
    notes: list[str]

    @property
    def multiply_adds(self) -> int:
        """Products with weights for one input."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def bytes(self) -> int:
        """Memory of all outputs for one input."""
        return sum(row.bytes for row in self.rows)

    def __repr__(self) -> str:
        totals = [f"{n:,}" for n in (self.parameters, self.multiply_adds, self.bytes)]
        rows = [*(row.cells() for row in self.rows), ["total", "", "", "", *totals, "", ""]]
        return "\n".join([self.title, table(HEADER, rows, NUMBERS), LEGEND, *self.notes])


class Calls:
    """Watches the calls of the modules of a model, which must be a copy, and makes rows of them.

    Each module gets a `forward` of its own, which the class's ``__call__`` finds first. Since the model is a copy that
    nobody else has, no class is changed, no other thread sees it, and nothing is left behind if a layer raises.
    """

    def __init__(self, model: Module, x: Tensor) -> None:
        self.model, self.input, self.rows, self.notes = model, x, list[Layer](), dict[str, None]()
        self.counted: set[Any] = {x._storage}  # memory and parameters, by identity
        self.fields: dict[Tensor, Fields | None] = {x: fields_of_pixels(*x.shape[2:]) if x.ndim == 4 else None}
        self.error: Exception | None = None
        self.place = "the model refused its input"  # that is, where the error comes from
        for name, module in model.named_modules():
            vars(module)["forward"] = functools.partial(self._call, name, module, module.forward)

    def _call(self, name: str, layer: Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        x = next(tensors_in([*args, *kwargs.values()]), None)
        try:
            y = forward(*args, **kwargs)
        except Exception as error:
            if error is not self.error:  # not on its way out of a module inside this one
                shape = "" if x is None else f" an input of shape {x.shape}"
                self.error, self.place = error, f"{name or 'the model'} ({type(layer).__name__}) refused{shape}"
            raise
        if next(layer.children(), None) is None or any(p is not None for p in layer._parameters.values()):
            self._add_row(name, layer, x, next(tensors_in(y), None))
        return y

    def _add_row(self, name: str, layer: Module, x: Tensor | None, y: Tensor | None) -> None:
        own = {p for p in layer._parameters.values() if p is not None}
        if own & self.counted:
            self.notes[f"{name}: parameters that an earlier row counted are not counted again."] = None
        row = Layer(name, type(layer).__name__, parameters=sum(p.numel() for p in own - self.counted))
        self.counted |= own
        if y is not None:
            row = replace(row, output_shape=y.shape[1:], bytes=0 if y._storage in self.counted else y.array.nbytes)
            self.counted.add(y._storage)
        if x is not None and y is not None:
            fields = self.fields[y] = self._fields(layer, x, y)
            size = None if fields is None else (fields[0].size, fields[1].size)
            step = None if fields is None or y.ndim != 4 else (fields[0].step, fields[1].step)
            sizes = size_arithmetic(layer, x, y) if _is_known(layer) else ()
            row = replace(row, sizes=sizes, receptive_field=size, step=step, multiply_adds=multiply_adds(layer, x, y))
        self.rows.append(row)

    def _fields(self, layer: Module, x: Tensor, y: Tensor) -> Fields | None:
        """The receptive fields of a layer's output y."""
        if next(layer.children(), None) is not None:  # they have computed what it returns
            return self.fields[y] if y in self.fields else self._fields_between(y)
        fields = self.fields[x] if x in self.fields else self._fields_between(x)
        if fields is None:
            return None
        if not _is_known(layer):
            self.notes[TAKEN] = None
            return on_grid(fields, y.shape[2:]) if y.ndim == 4 else None
        return receptive_fields(layer, fields, x, y, self.input.shape[2:])

    def _fields_between(self, x: Tensor) -> Fields | None:
        """Those of a tensor that no layer returned: the largest that were seen on a grid of its size."""
        known = [fields for fields in self.fields.values() if fields is not None]
        if not known:
            return None
        self.notes[TAKEN] = None
        if x.ndim != 4:  # a vector, of what the latest layer returned
            return list(self.fields.values())[-1]
        fitting = [on for fields in known if (on := on_grid(fields, x.shape[2:])) is not None]
        return max(fitting, key=lambda fields: fields[0].size + fields[1].size, default=None)

    def explanation(self, complete: bool = True) -> Explanation:
        """The table of the calls so far."""
        parameters, counted = sum(p.numel() for p in self.model.parameters()), sum(row.parameters for row in self.rows)
        if complete and counted < parameters:
            self.notes[f"{parameters - counted:,} parameters belong to modules that this input did not pass."] = None
        title = f"{type(self.model).__name__}: one input of shape {self.input.shape[1:]}, {self.input.dtype}"
        return Explanation(title, self.rows, parameters if complete else counted, list(self.notes))


def _is_known(layer: Module) -> bool:
    """Whether it computes what minidl's layer of this class computes; a subclass may have another forward."""
    return type(layer).forward.__module__.startswith("minidl.")
