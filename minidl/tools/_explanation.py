"""The table that `explain` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
