"""What each kind of layer does to sizes: the arithmetic as text, its multiply-adds, and its receptive field.

Letters: k, s, p, d are window, stride, padding and dilation along one axis, o is a unit of the output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from minidl import nn
from minidl.kernels.geometry import ints
from minidl.tensor import Tensor

READ = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)  # each unit of the output reads a window of the input
WRITTEN = (nn.ConvTranspose2d, nn.MaxUnpool2d)  # each unit of the input writes to a window of the output
WEIGHTED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class Field(NamedTuple):
    """What each unit of a layer's output sees of the model's input, along one axis.

    Unit i sees the pixels lows[i] to highs[i], and the unit after these P = len(lows) units sees `shift` pixels
    further on, and so forth: the step from unit to unit is shift / P. Pixels in the padding have numbers too.
    """

    lows: tuple[int, ...]
    highs: tuple[int, ...]
    shift: int
    units: int  # along the axis

    @property
    def size(self) -> int:
        """How many pixels the unit sees that sees most."""
        return max(high - low + 1 for low, high in zip(self.lows, self.highs, strict=True))

    @property
    def step(self) -> float:
        """How far from it its neighbour's pixels lie, on average; 0 where all see the same."""
        return self.shift / len(self.lows)

    def low(self, unit: int) -> int:
        """The first pixel that a unit sees."""
        return self.lows[unit % len(self.lows)] + unit // len(self.lows) * self.shift

    def high(self, unit: int) -> int:
        """The last pixel that it sees."""
        return self.highs[unit % len(self.lows)] + unit // len(self.lows) * self.shift


Fields = tuple[Field, Field]  # along the height and the width
Index = Callable[[int], int]


def fields_of_pixels(height: int, width: int) -> Fields:
    """Each pixel of the input sees itself."""
    return Field((0,), (0,), 1, height), Field((0,), (0,), 1, width)


def windows(layer: Any) -> list[tuple[int, int, int, int]]:
    """(k, s, p, d) for height and width."""
    settings = layer.kernel_size, layer.stride, layer.padding, getattr(layer, "dilation", 1)
    return list(zip(*(ints("explain", "window", value, 0) for value in settings), strict=True))


def receptive_fields(layer: Any, fields: Fields, x: Tensor, y: Tensor, image: tuple[int, ...]) -> Fields | None:
    """Those of the layer's output, from those of its input; None where no rule holds."""
    if isinstance(layer, (*READ, *WRITTEN, nn.Upsample)) and not x.ndim == y.ndim == 4:
        return None
    if isinstance(layer, READ):
        return _both(_reading(f, n, *w) for f, n, w in zip(fields, y.shape[2:], windows(layer), strict=True))
    if isinstance(layer, WRITTEN):
        return _both(_written(f, n, *w) for f, n, w in zip(fields, y.shape[2:], windows(layer), strict=True))
    if isinstance(layer, nn.Upsample):
        return _both(_resized(layer, f, n) for f, n in zip(fields, y.shape[2:], strict=True))
    if isinstance(layer, nn.Linear) and x.ndim == 2:  # a unit sees what the units of its input see together
        return _both(
            Field((max(f.low(0), 0),), (min(f.high(f.units - 1), n - 1),), 0, 1)
            for f, n in zip(fields, image, strict=True)
        )
    if isinstance(layer, nn.Linear | nn.Unfold):
        return None
    return on_grid(fields, y.shape[2:]) if y.ndim == 4 else fields


def on_grid(fields: Fields, size: tuple[int, ...]) -> Fields | None:
    """The fields of units in this height and width, if there were as many, or if each sees the same."""
    if any(f.shift and f.units != n for f, n in zip(fields, size, strict=True)):
        return None
    return _both(f._replace(units=n) for f, n in zip(fields, size, strict=True))


def _reading(f: Field, units: int, k: int, s: int, p: int, d: int) -> Field:
    """Unit o reads the units o s - p to o s - p + d (k - 1): the size grows by d (k - 1) steps, the step s-fold."""
    return _seen(f, units, lambda o: o * s - p, lambda o: o * s - p + d * (k - 1), (1, s))


def _written(f: Field, units: int, k: int, s: int, p: int, d: int) -> Field:
    """Unit i writes to the units i s - p to i s - p + d (k - 1), and the step is divided by s.

    First and last are the outermost that could write to o; with d > 1 they may write past it, so this is a bound.
    """
    return _seen(f, units, lambda o: -((d * (k - 1) - o - p) // s), lambda o: (o + p) // s, (s, 1))


def _resized(layer: Any, f: Field, units: int) -> Field:
    """Unit o lies at the position o a / b among the input's: nearest reads the one before, bilinear also the next."""
    corners = 1 if layer.align_corners else 0  # the first and the last unit stay where they are
    a, b = f.units - corners, max(units - corners, 1)
    a, b = a // math.gcd(a, b), b // math.gcd(a, b)
    if layer.mode == "nearest":
        return _seen(f, units, lambda o: o * a // b, lambda o: o * a // b, (b, a))
    offset = 0 if corners else a - b  # in parts of 2 b: the position is o a / b, or (o + 1/2) a / b - 1/2
    below, above = lambda o: (2 * o * a + offset) // (2 * b), lambda o: -((-2 * o * a - offset) // (2 * b))
    return _seen(f, units, below, above, (b, a))


def _seen(f: Field, units: int, first: Index, last: Index, period: tuple[int, int]) -> Field:
    """What the units of the output see, where o reads the input's units first(o) to last(o).

    The unit o + period[0] reads period[1] units further on.
    """
    if units == 1:
        return Field((f.low(first(0)),), (f.high(last(0)),), 0, 1)
    repeats = len(f.lows) // math.gcd(len(f.lows), period[1])  # until the input's period is over too
    outputs = range(period[0] * repeats)
    shift = f.shift * period[1] * repeats // len(f.lows)
    return Field(tuple(f.low(first(o)) for o in outputs), tuple(f.high(last(o)) for o in outputs), shift, units)


def _both(fields: Iterable[Field]) -> Fields:
    height, width = fields
    return height, width


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
