"""What each kind of layer does to sizes: the arithmetic as text, its multiply-adds, and its receptive field.

Letters: a unit of the input has size r and step j (see `Field`); k, s, p, d are window, stride, padding and dilation
along one axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from minidl import nn
from minidl.kernels.geometry import ints
from minidl.tensor import Tensor

READ = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)  # each unit of the output reads a window of the input
WRITTEN = (nn.ConvTranspose2d, nn.MaxUnpool2d)  # each unit of the input writes to a window of the output
WEIGHTED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class Field(NamedTuple):
    """A receptive field along one axis, in pixels of the model's input, those in the padding included.

    Attributes
    ----------
    size : float
        As many pixels influence a unit: at most floor(size) where the step is a fraction.
    step : float
        The distance between the fields of neighbouring units; 0 where all units see the same.
    units : int
        The number of units.
    """

    size: float
    step: float
    units: int


Fields = tuple[Field, Field]  # along the height and the width


def fields_of_pixels(height: int, width: int) -> Fields:
    """Each pixel of the input sees itself."""
    return Field(1, 1, height), Field(1, 1, width)


def windows(layer: Any) -> list[tuple[int, int, int, int]]:
    """(k, s, p, d) for height and width."""
    settings = layer.kernel_size, layer.stride, layer.padding, getattr(layer, "dilation", 1)
    return list(zip(*(ints("explain", "window", value, 0) for value in settings), strict=True))


def receptive_fields(layer: Any, fields: Fields, x: Tensor, y: Tensor, image: tuple[int, ...]) -> Fields | None:
    """Those of the layer's output, from those of its input; None where no rule holds.

    A window of k taps makes r' = r + d (k - 1) j and j' = s j. A transposed convolution moves its input's units apart
    and then slides its window by 1: j' = j / s, and after that r' = r + d (k - 1) j'.
    """
    along = list(zip(fields, y.shape[2:], strict=False))  # of each axis of an image
    if isinstance(layer, READ):
        return _both(_slid(f, k, s, d, n) for (f, n), (k, s, _, d) in zip(along, windows(layer), strict=True))
    if isinstance(layer, WRITTEN):
        apart = [f._replace(step=f.step / s) for f, (_, s, _, _) in zip(fields, windows(layer), strict=True)]
        return _both(
            _slid(f, k, 1, d, n) for f, n, (k, _, _, d) in zip(apart, y.shape[2:], windows(layer), strict=True)
        )
    if isinstance(layer, nn.Upsample):
        return _both(_resized(layer, f, n) for f, n in along)
    if isinstance(layer, nn.Linear) and x.ndim == 2:  # a unit sees what the units of its input see together
        return _both(Field(min(n, f.size + (f.units - 1) * f.step), 0, 1) for f, n in zip(fields, image, strict=True))
    if isinstance(layer, nn.Linear | nn.Unfold):
        return None
    return on_grid(fields, y.shape[2:]) if y.ndim == 4 else fields


def on_grid(fields: Fields, size: tuple[int, ...]) -> Fields | None:
    """The fields of units in this height and width, if there were as many, or if each sees the same."""
    if any(f.step and f.units != n for f, n in zip(fields, size, strict=True)):
        return None
    return _both(f._replace(units=n) for f, n in zip(fields, size, strict=True))


def _slid(f: Field, k: int, s: int, d: int, units: int) -> Field:
    return Field(f.size + d * (k - 1) * f.step, s * f.step, units)


def _resized(layer: Any, f: Field, units: int) -> Field:
    """Output i lies at i t between the input's units, with t = p / q: its neighbours there are not always the same."""
    corners = 1 if layer.align_corners else 0  # the first and the last unit stay where they are
    p, q = f.units - corners, max(units - corners, 1)
    parts = q // math.gcd(p, q)  # so many places between two units
    spread = 1 - 1 / parts if layer.mode == "nearest" else 2 - (1 + corners) / parts
    return f if f.units == units else Field(f.size + spread * f.step, p / q * f.step, units)


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
        axes = zip(x.shape[2:], y.shape[2:], _steps(layer), strict=True)
        texts = [_formula(layer, h, oh, *step) for h, oh, step in axes]
        return texts[:1] if texts[0] == texts[1] else texts
    if isinstance(layer, nn.Linear):
        return [f"{x.shape[-1]} -> {y.shape[-1]}"]
    if isinstance(layer, nn.Flatten | nn.Unflatten):
        whole, parts = (y, x) if isinstance(layer, nn.Flatten) else (x, y)
        return ["*".join(map(str, parts.shape[1:])) + f" = {whole.numel() // whole.shape[0]}"]
    return []


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
