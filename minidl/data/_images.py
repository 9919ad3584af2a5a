"""What transforms compute on arrays of images (..., C, H, W)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from minidl.tensor import Array

# The shares of red, green and blue in the luma of ITU-R BT.601, with torchvision's digits.
LUMA = np.array([0.2989, 0.587, 0.114], np.float32)


def to_floats(pixels: Array, mean: Sequence[float] = (), std: Sequence[float] = ()) -> Array:
    """Bytes (N, H, W) or (N, H, W, C) as float32 (N, C, H, W): x / 255 or, given a mean, (x / 255 - mean) / std.

    `mean` and `std` have one number or C. The latter is computed as x * (1 / (255 std)) - mean / std, since divisions
    are slow: the last bit may differ.
    """
    n, h, w, *channels = pixels.shape
    x = pixels.reshape(n, -1).astype(np.float32)  # (N, H*W*C)
    if len(mean):
        scale, shift = _scale_and_shift(tuple(mean), tuple(std), h * w)
        x *= scale
        x -= shift
    else:
        x /= np.float32(255)
    return x.reshape(n, h, w, *channels).transpose(0, 3, 1, 2) if channels else x.reshape(n, 1, h, w)


@functools.lru_cache(maxsize=8)
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], pixels: int) -> list[Array]:
    """1 / (255 std) and mean / std, for all channels or, where they differ, (H*W*C,).

    NumPy is slow along an axis of C elements: hence they are repeated for all pixels of an image.
    """
    rows = np.broadcast_arrays(1 / (255 * np.asarray(std)), np.divide(mean, std))  # (C,) each
    same = all((row == row[0]).all() for row in rows)
    return [row[0].astype(np.float32) if same else np.tile(row.astype(np.float32), pixels) for row in rows]


def resize(x: Array, size: tuple[int, int], nearest: bool = False, antialias: bool = True) -> Array:
    """Interpolate bilinearly, or take the nearest pixel.

    With antialiasing each new pixel averages all old ones that it covers, as Pillow does: along an axis, by a triangle
    that is as wide as two new pixels. `interpolate` only looks at the two old pixels next to its centre.
    """
    rows, columns = (_weights(old, new, nearest, antialias) for old, new in zip(x.shape[-2:], size, strict=True))
    y = rows @ x @ columns.T
    return y.astype(x.dtype) if x.dtype.kind == "f" else np.rint(y).astype(x.dtype)


def _weights(old: int, new: int, nearest: bool, antialias: bool) -> Array:
    """The matrix (new, old) that resizes one axis."""
    scale = old / new
    if nearest:
        return np.eye(old, dtype=np.float32)[(np.arange(new) * scale).astype(int)]
    centre = (np.arange(new)[:, None] + 0.5) * scale - 0.5
    reach = max(scale, 1) if antialias else 1
    weights = np.maximum(1 - np.abs(np.arange(old) - centre) / reach, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def crop(x: Array, top: int, left: int, height: int, width: int, fill: Sequence[float] = (0,)) -> Array:
    """A rectangle, with one colour where it leaves the image: one number, or C."""
    return _taken(x, np.arange(top, top + height)[:, None], np.arange(left, left + width), fill)


def _taken(x: Array, rows: Array, columns: Array, fill: Sequence[float]) -> Array:
    """The pixels in these rows and columns, or the colour `fill` where they are outside of the image."""
    h, w = x.shape[-2:]
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    colour = np.reshape(fill, (-1, 1, 1)).astype(x.dtype)
    return np.where(inside, x[..., rows.clip(0, h - 1), columns.clip(0, w - 1)], colour)


def pad(x: Array, left: int, top: int, right: int, bottom: int, mode: str, fill: Sequence[float]) -> Array:
    """Pad by one of `numpy.pad`'s modes; "constant" with one number, or C."""
    h, w = x.shape[-2:]
    if mode == "constant":
        return crop(x, -top, -left, top + h + bottom, left + w + right, fill)
    widths = [(0, 0)] * (x.ndim - 2) + [(top, bottom), (left, right)]
    return np.pad(x, widths, mode)  # type: ignore[call-overload]


def grey(x: Array, channels: int = 1) -> Array:
    """The luma of colours (..., 3, H, W), or what is grey already, in one channel or several."""
    luma = x if x.shape[-3] == 1 else (x * LUMA.reshape(3, 1, 1)).sum(axis=-3, keepdims=True).astype(x.dtype)
    return np.repeat(luma, channels, axis=-3)


def rotate(x: Array, angle: float, center: Sequence[float] | None, fill: Sequence[float]) -> Array:
    """Rotate counterclockwise by an angle in degrees about (x, y), by default the middle; takes the nearest pixel."""
    h, w = x.shape[-2:]
    cx, cy = center if center is not None else (w / 2, h / 2)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    dy, dx = np.arange(h)[:, None] + 0.5 - cy, np.arange(w) + 0.5 - cx
    # Where each pixel comes from, (H, W); rounded, so that a tie is one in spite of cos(90 degrees) = 6e-17.
    columns = np.rint(np.round(cos * dx - sin * dy + cx - 0.5, 5)).astype(int)
    rows = np.rint(np.round(sin * dx + cos * dy + cy - 0.5, 5)).astype(int)
    return _taken(x, rows, columns, fill)


def blend(x: Array, other: str, factor: float) -> Array:
    """factor * x + (1 - factor) * other, clipped to the dtype's range of colours: with black, the mean grey or grey."""
    y: Array | float = 0.0
    if other != "black":
        y = grey(x) if other == "grey" else grey(x).mean((-3, -2, -1), np.float32, keepdims=True)
    most = 1 if x.dtype.kind == "f" else np.iinfo(x.dtype).max
    return np.clip(factor * x + (1 - factor) * y, 0, most).astype(x.dtype)
