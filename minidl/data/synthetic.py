"""Synthetic handwriting without a download: ten digits, each drawn with random distortions.

How an image is made, each step for a whole chunk of images at once:

1. A glyph is a few strokes through control points, which are in digits.txt. The points of its path are on a smooth
   curve, which is linear in the control points: one matrix per glyph, computed once.
2. The control points are jittered, slow waves bend the plane, and a slant, a rotation and a stretch follow.
3. The digit is scaled to MNIST's box of 20 x 20 pixels, with its centre of mass in the middle of the image.
4. Each point deposits ink as a Gaussian. A 2-D Gaussian is separable, so all the ink of an image is a single matrix
   product. What is dark enough saturates, so that lines are evenly black.

N images, P points on the pen's path, K control points, S = 28 pixels a side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minidl.data.dataset import PixelDataset
from minidl.tensor import Array

Stroke = list[tuple[float, float]]

SIDE, BOX = 28, 20.0  # pixels: the image, and the box that MNIST scales its digits to
POINTS = 96  # per path: less than a pixel apart even along an 8
CHUNK = 100  # images drawn from one seed, so that the first images do not depend on how many follow


class Glyph(NamedTuple):
    """One variant of a digit."""

    control: Array  # (K, 2) control points, x and y
    curve: Array  # (P, K) points of the path = curve @ control
    pen_down: Array  # (P - 1,) 1 where the pen draws to the next point, 0 where it jumps


class SyntheticDigits(PixelDataset):
    """Synthetic handwritten digits, a stand-in for `minidl.data.MNIST`.

    As in MNIST, digits are white on black, fill a box of 20 x 20 pixels and have their centre of mass in the middle.
    Every ten consecutive images contain each digit once. They are easier to classify than MNIST.

    Parameters
    ----------
    n : int
        Number of images. It does not affect the first images.
    seed : int
        Seed of the images; use a different one for a test set.

    Attributes
    ----------
    images : numpy.ndarray
        The pixels, uint8 (n, 28, 28).
    labels, targets : numpy.ndarray
        The digits, int64 (n,).

    Raises
    ------
    ValueError
        If `n` or `seed` is negative or not an int.

    Examples
    --------
    >>> digits = SyntheticDigits(20, seed=1)
    >>> image, label = digits[0]
    >>> image.shape, digits.images.dtype, sorted(digits.labels[:10].tolist())
    ((1, 28, 28), dtype('uint8'), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """

    def __init__(self, n: int = 10_000, seed: int = 0) -> None:
        super().__init__(*draw("SyntheticDigits", draw_chunk, n, seed))


def draw(name: str, draw_chunk: Callable[[np.random.Generator], tuple[Array, ...]], n: int, seed: int) -> list[Array]:
    """The first `n` of what `draw_chunk` draws for a seed, chunk by chunk; `name` is for error messages."""
    for argument, value in (("n", n), ("seed", seed)):
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{name}: {argument} must be an int of at least 0, not {value!r}")
    chunks = [draw_chunk(np.random.default_rng([seed, i])) for i in range(max(1, math.ceil(n / CHUNK)))]
    return [np.concatenate(parts)[:n] for parts in zip(*chunks, strict=True)]


def draw_chunk(rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw `CHUNK` images, uint8 (N, 28, 28), and their digits, int64 (N,)."""
    labels = rng.permuted(np.tile(np.arange(10), (CHUNK // 10, 1)), axis=1).ravel()
    points, pen_down = write(labels, rng)
    points = fit(distort(points, rng))
    return ink(points, pen_down, rng), labels


def write(labels: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Trace the pen: the points of each digit's path (N, P, 2), and where the pen is down (N, P - 1)."""
    points = np.empty((len(labels), POINTS, 2))
    pen_down = np.empty((len(labels), POINTS - 1))
    which = rng.random(len(labels))  # chooses a variant, as a fraction of their number
    for digit, variants in enumerate(glyphs()):
        for v, glyph in enumerate(variants):
            rows = np.flatnonzero((labels == digit) & ((which * len(variants)).astype(int) == v))
            control = glyph.control + rng.normal(0, 0.03, (len(rows), *glyph.control.shape))  # (N, K, 2)
            points[rows] = glyph.curve @ control
            pen_down[rows] = glyph.pen_down
    return points, pen_down


def distort(points: Array, rng: np.random.Generator) -> Array:
    """Bend the plane by slow waves, then slant, rotate and stretch it: (N, P, 2) to (N, P, 2)."""
    n = len(points)
    wave = rng.normal(0, 3.0, (n, 2, 4))  # radians per height: most waves are longer than the digit
    phase = rng.uniform(0, 2 * np.pi, (n, 1, 4))
    height = rng.normal(0, 0.032, (n, 4, 2))  # how far each wave moves a point in x and in y
    points = points + np.sin(points @ wave + phase) @ height
    slant, turn = rng.normal(0.15, 0.25, n), rng.normal(0, 0.1, n)  # radians
    stretch = np.exp(rng.normal(0.1, 0.22, n))
    x, y = points[..., 0] * stretch[:, None], points[..., 1]
    x = x - np.tan(slant)[:, None] * y
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def fit(points: Array) -> Array:
    """Scale each path (N, P, 2) so that its longer side fills the box, minus the pen's width."""
    low, high = points.min(axis=1, keepdims=True), points.max(axis=1, keepdims=True)
    return (points - low) * ((BOX - 2.5) / (high - low).max(axis=2, keepdims=True))


def ink(points: Array, pen_down: Array, rng: np.random.Generator) -> Array:
    """Render paths (N, P, 2), in pixels, as images uint8 (N, 28, 28) with the centre of mass in the middle."""
    n = len(points)
    middle = (points[:, 1:] + points[:, :-1]) / 2  # (N, P-1, 2)
    length = np.linalg.norm(np.diff(points, axis=1), axis=2) * pen_down  # (N, P-1)
    middle -= (middle * length[..., None]).sum(axis=1, keepdims=True) / length.sum(axis=1)[:, None, None]
    width = np.clip(np.exp(rng.normal(-0.12, 0.22, (n, 1, 1))), 0.6, 1.6)  # standard deviation in pixels
    pixel = np.arange(SIDE) - (SIDE - 1) / 2
    offset = (middle[..., None] - pixel) / width[..., None]  # (N, P-1, 2, S)
    spread = np.exp(-0.5 * offset.astype(np.float32) ** 2)
    # Normalised so that a long straight line peaks at 1.
    weight = (length / (np.sqrt(2 * np.pi) * width[..., 0])).astype(np.float32)  # (N, P-1)
    columns, rows = spread[:, :, 0], spread[:, :, 1]  # (N, P-1, S) each
    image = (rows * weight[..., None]).transpose(0, 2, 1) @ columns  # (N, S, S)
    slope = 1.7 * np.maximum(width, 1).astype(np.float32)  # edges are equally sharp for any width
    grey = 0.5 + slope * (image - 0.4)  # below 0.1 of a line's peak: black
    return (255 * np.clip(grey, 0, 1) + 0.5).astype(np.uint8)


@cache
def glyphs() -> list[list[Glyph]]:
    """The variants of each digit."""
    lines = Path(__file__).with_name("digits.txt").read_text("utf-8").splitlines()
    rows = [line.split(": ") for line in lines if not line.startswith("#")]
    return [[make_glyph(variant) for digit, variant in rows if int(digit) == d] for d in range(10)]


def make_glyph(variant: str) -> Glyph:
    """The matrix that maps the control points of all strokes to the `POINTS` points of the path."""
    strokes = [read_stroke(stroke) for stroke in variant.split("/")]
    lengths = np.array([np.linalg.norm(np.diff(stroke, axis=0), axis=1).sum() for stroke in strokes])
    ends = np.round(np.cumsum(lengths) / lengths.sum() * POINTS).astype(int)
    counts = np.diff(ends, prepend=0)  # points for each stroke, by its length
    parts = [make_curve(stroke, count) for stroke, count in zip(strokes, counts, strict=True)]
    control = np.concatenate([points for points, _ in parts])
    curve = np.zeros((POINTS, len(control)))
    column = 0
    for rows, (points, matrix) in zip(np.split(curve, ends[:-1]), parts, strict=True):
        rows[:, column : column + len(points)] = matrix  # a stroke depends only on its own control points
        column += len(points)
    pen_down = np.ones(POINTS - 1)
    pen_down[ends[:-1] - 1] = 0
    return Glyph(control, curve, pen_down)


def read_stroke(text: str) -> Stroke:
    """Control points from ``"x,y x,y ..."`` in hundredths."""
    pairs = [point.split(",") for point in text.split()]
    return [(int(x) / 100, int(y) / 100) for x, y in pairs]


def make_curve(stroke: Stroke, count: int) -> tuple[Array, Array]:
    """Control points (K, 2) of one stroke, and the matrix (count, K) of a cubic Hermite spline through them.

    The slope at a control point is half the difference of its neighbours (Catmull-Rom), or 0 at a corner.
    """
    points = list(dict.fromkeys(stroke))  # in order, corners once
    corner = np.array([stroke.count(point) > 1 for point in points])
    k = len(points)
    value = np.eye(k)
    slope = (value[np.minimum(np.arange(k) + 1, k - 1)] - value[np.maximum(np.arange(k) - 1, 0)]) / 2
    slope[corner] = 0
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    where = np.interp(np.linspace(0, along[-1], count), along, np.arange(k))  # (count,) evenly spaced along the stroke
    i = np.minimum(where.astype(int), k - 2)  # (count,) the control point before
    t = (where - i)[:, None]
    matrix = (
        (2 * t**3 - 3 * t**2 + 1) * value[i]
        + (t**3 - 2 * t**2 + t) * slope[i]
        + (3 * t**2 - 2 * t**3) * value[i + 1]
        + (t**3 - t**2) * slope[i + 1]
    )  # (count, K)
    return np.array(points), matrix
