"""What each kind of layer does to sizes: the arithmetic as text, its multiply-adds, and its receptive field.

Letters: k, s, p, d are window, stride, padding and dilation along one axis, o is a unit of the output.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from minidl import nn
from minidl.kernels.geometry import ints
from minidl.tensor import Tensor

READ = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)  # each unit of the output reads a window of the input
WRITTEN = (nn.ConvTranspose2d, nn.MaxUnpool2d)  # each unit of the input writes to a window of the output
WEIGHTED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class Field(NamedTuple):
    """What each unit of a layer's output sees of the model's input, along one axis.

    Unit i sees the pixels from the first to the last of spans[i], and the unit after these P = len(spans) units sees
    `shift` pixels further on, and so forth: the step from unit to unit is shift / P. Pixels in the padding have
    numbers too.
    """

    spans: tuple[tuple[int, int], ...]
    shift: int
    units: int  # along the axis

    @property
    def size(self) -> int:
        """How many pixels the unit sees that sees most."""
        return max(last - first + 1 for first, last in self.spans)

    @property
    def step(self) -> float:
        """How far from it its neighbour's pixels lie, on average; 0 where all see the same."""
        return self.shift / len(self.spans)

    def span(self, unit: int) -> tuple[int, int]:
        """The first and the last pixel that a unit sees."""
        periods, i = divmod(unit, len(self.spans))
        first, last = self.spans[i]
        return first + periods * self.shift, last + periods * self.shift


Fields = tuple[Field, ...]  # along the height and the width
Reads = Callable[[int], tuple[int, int]]


def fields_of_pixels(height: int, width: int) -> Fields:
    """Each pixel of the input sees itself."""
    return Field(((0, 0),), 1, height), Field(((0, 0),), 1, width)


def windows(layer: Any) -> list[tuple[int, int, int, int]]:
    """(k, s, p, d) for height and width."""
    settings = layer.kernel_size, layer.stride, layer.padding, getattr(layer, "dilation", 1)
    return list(zip(*(ints("explain", "window", value, 0) for value in settings), strict=True))


def receptive_fields(layer: Any, fields: Fields, x: Tensor, y: Tensor, image: tuple[int, ...]) -> Fields | None:
    """Those of the layer's output, from those of its input; None where no rule holds."""
    if isinstance(layer, (*READ, *WRITTEN, nn.Upsample)) and not x.ndim == y.ndim == 4:
        return None
    if isinstance(layer, READ):
        return tuple(_reading(f, n, *w) for f, n, w in zip(fields, y.shape[2:], windows(layer), strict=True))
    if isinstance(layer, WRITTEN):
        return tuple(_written(f, n, *w) for f, n, w in zip(fields, y.shape[2:], windows(layer), strict=True))
    if isinstance(layer, nn.Upsample):
        return tuple(_resized(layer, f, n) for f, n in zip(fields, y.shape[2:], strict=True))
    if isinstance(layer, nn.Linear) and x.ndim == 2:  # a unit sees what the units of its input see together
        return tuple(
            Field(((max(f.span(0)[0], 0), min(f.span(f.units - 1)[1], n - 1)),), 0, 1)
            for f, n in zip(fields, image, strict=True)
        )
    if isinstance(layer, nn.Linear | nn.Unfold):
        return None
    return on_grid(fields, y.shape[2:]) if y.ndim == 4 else fields


def on_grid(fields: Fields, size: tuple[int, ...]) -> Fields | None:
    """The fields of units in this height and width, if there were as many, or if each sees the same."""
    if any(f.shift and f.units != n for f, n in zip(fields, size, strict=True)):
        return None
    return tuple(f._replace(units=n) for f, n in zip(fields, size, strict=True))


def _reading(f: Field, units: int, k: int, s: int, p: int, d: int) -> Field:
    """Unit o reads the units o s - p to o s - p + d (k - 1): the size grows by d (k - 1) steps, the step s-fold."""
    return _seen(f, units, lambda o: (o * s - p, o * s - p + d * (k - 1)), (1, s))


def _written(f: Field, units: int, k: int, s: int, p: int, d: int) -> Field:
    """Unit i writes to the units i s - p to i s - p + d (k - 1), and the step is divided by s.

    First and last are the outermost that could write to o; with d > 1 they may write past it, so this is a bound.
    """
    return _seen(f, units, lambda o: (-((d * (k - 1) - o - p) // s), (o + p) // s), (s, 1))


def _resized(layer: Any, f: Field, units: int) -> Field:
    """Unit o lies at the position o a / b among the input's: nearest reads the one before, bilinear also the next."""
    corners = 1 if layer.align_corners else 0  # the first and the last unit stay where they are
    a, b = f.units - corners, max(units - corners, 1)
    a, b = a // math.gcd(a, b), b // math.gcd(a, b)
    if layer.mode == "nearest":
        return _seen(f, units, lambda o: (o * a // b, o * a // b), (b, a))
    offset = 0 if corners else a - b  # in parts of 2 b: the position is o a / b, or (o + 1/2) a / b - 1/2
    return _seen(f, units, lambda o: ((2 * o * a + offset) // (2 * b), -((-2 * o * a - offset) // (2 * b))), (b, a))


def _seen(f: Field, units: int, reads: Reads, period: tuple[int, int]) -> Field:
    """What the units of the output see, where o reads the input's units from the first to the last of reads(o).

    The unit o + period[0] reads period[1] units further on.
    """
    repeats = len(f.spans) // math.gcd(len(f.spans), period[1])  # until the input's period is over too
    outputs = range(period[0] * repeats if units > 1 else 1)
    shift = f.shift * period[1] * repeats // len(f.spans) if units > 1 else 0
    spans = [(f.span(first)[0], f.span(last)[1]) for first, last in map(reads, outputs)]
    return Field(tuple(spans), shift, units)


def multiply_adds(layer: Any, x: Tensor, y: Tensor) -> int:
    """Products with weights: each weight is used once for each output pixel or row; transposed, for each of the input.

    Those with the padding count.
    """
    if not isinstance(layer, WEIGHTED):
        return 0
    places = x if isinstance(layer, nn.ConvTranspose2d) else y
    return places.numel() // layer.weight.shape[0] * layer.weight.numel()


def size_arithmetic(layer: Any, x: Tensor, y: Tensor) -> list[str]:
    """The formula of the output's size with its numbers: one line for height and width if they agree, or one each."""
    if isinstance(layer, (*READ, *WRITTEN, nn.Upsample)):
        axes = zip(x.shape[-2:], y.shape[-2:], _steps(layer), strict=True)
        texts = [_formula(layer, h, oh, *step) for h, oh, step in axes]
        return texts[:1] if texts[0] == texts[1] else texts
    if isinstance(layer, nn.Linear):
        return [f"{x.shape[-1]} -> {y.shape[-1]}"]
    if isinstance(layer, nn.Flatten):
        return [_product(x.shape[layer.start_dim % x.ndim : layer.end_dim % x.ndim + 1])]
    if isinstance(layer, nn.Unflatten):
        first = layer.dim % x.ndim
        return [_product(y.shape[first : first + len(layer.unflattened_size)])]
    return []


def _product(sizes: tuple[int, ...]) -> str:
    return "*".join(map(str, sizes)) + f" = {math.prod(sizes)}"


def _steps(layer: Any) -> list[tuple[Any, ...]]:
    if not isinstance(layer, nn.Upsample):
        return list(windows(layer))
    scale = layer.scale_factor
    return [(factor,) for factor in (scale if isinstance(scale, tuple) else (scale, scale))]


def _formula(layer: Any, h: int, oh: int, *numbers: Any) -> str:
    """One axis: h in, oh out."""
    if isinstance(layer, nn.Upsample):
        (factor,) = numbers
        if factor is None:
            return f"size = {oh}"
        return f"{h}*{factor:g} = {oh}" if factor == int(factor) else f"floor({h}*{factor:g}) = {oh}"
    k, s, p, d = numbers
    reach = f"{k}" if d == 1 else f"({d}*({k} - 1) + 1)"
    if isinstance(layer, WRITTEN):
        extra = oh - ((h - 1) * s - 2 * p + d * (k - 1) + 1)  # output_padding, or what output_size chose
        return f"({h} - 1)*{s} - 2*{p} + {reach} {'-' if extra < 0 else '+'} {abs(extra)} = {oh}"
    room = h + 2 * p - d * (k - 1) - 1
    if getattr(layer, "ceil_mode", False):
        late = " - 1" if oh < -(-room // s) + 1 else ""  # a last window that would start behind the image
        return f"ceil(({h} + 2*{p} - {reach})/{s}) + 1{late} = {oh}"
    return f"({h} + 2*{p} - {reach})//{s} + 1 = {oh}"
