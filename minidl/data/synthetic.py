"""Synthetic handwriting without a download: ten digits, each drawn with random distortions.

How an image is made, each step for a whole chunk of images at once:

1. A glyph is a few strokes through control points. The points of its path are on a smooth curve, which is linear in the
   control points: one matrix per glyph, computed once.
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
from typing import NamedTuple

import numpy as np

from minidl.data.dataset import PixelDataset
from minidl.tensor import Array

Stroke = list[tuple[float, float]]

SIDE, BOX = 28, 20.0  # pixels: the image, and the box that MNIST scales its digits to
POINTS = 96  # per path: less than a pixel apart even along an 8
CHUNK = 100  # images drawn from one seed, so that the first images do not depend on how many follow

# Variants of each digit, as the points the pen passes through: x to the right and y down, in hundredths of its height.
# The pen is lifted at a slash; a repeated point is a corner, and the curve is smooth at all others.
GLYPHS = """
0: 42,0 15,13 2,48 10,85 34,100 59,85 68,48 58,13 36,1
0: 50,8 28,2 6,30 3,70 22,98 50,82 63,40 50,5 36,8
1: 30,0 30,100
1: 35,0 35,100
1: 30,0 30,50 30,100
1: 12,20 30,0 30,0 30,100
1: 10,22 30,0 30,0 30,100 / 5,100 55,100
2: 5,22 20,4 45,2 60,20 50,48 27,75 3,100 3,100 35,98 72,97
2: 12,20 30,0 50,12 46,45 26,80 4,96 0,80 22,76 50,90 78,84
2: 4,20 22,3 46,3 58,22 50,50 30,78 10,97 -2,88 10,78 38,90 74,100
2: 6,10 30,0 52,10 52,35 35,65 10,92 10,92 40,88 75,95
3: 5,12 28,0 52,8 55,28 42,42 22,47 22,47 47,52 62,70 50,93 25,100 0,90
3: 8,8 32,0 54,12 48,34 28,48 50,54 58,75 42,95 18,100 0,92
3: 5,3 30,2 56,0 56,0 42,20 25,40 25,40 50,45 62,68 50,92 25,100 0,92
4: 10,0 4,28 6,50 28,55 64,48 / 58,5 55,50 50,100
4: 8,3 2,50 2,50 30,53 60,50 / 55,0 54,50 56,100
4: 10,0 8,22 10,42 32,44 60,38 / 66,0 60,45 56,100
4: 0,6 5,36 22,46 46,38 60,2 60,2 57,50 55,100
4: 48,0 27,30 2,60 2,60 36,62 72,60 / 48,0 48,50 46,100
5: 16,3 13,22 10,42 10,42 32,38 54,50 58,72 42,94 18,100 0,90 / 16,3 40,2 68,0
5: 68,0 42,1 20,5 20,5 16,22 12,42 12,42 38,42 56,60 50,84 28,98 2,96
5: 72,4 50,0 28,12 20,34 38,48 50,66 42,90 20,100 0,88
5: 10,6 12,25 16,46 16,46 40,44 58,60 54,85 30,100 4,92 / 10,6 35,5 70,2
6: 50,0 25,20 6,50 3,80 20,100 42,94 52,74 40,58 20,63 7,82
6: 62,0 34,16 10,44 2,76 18,98 46,98 66,82 60,64 36,62 10,82
6: 30,0 13,25 3,55 6,83 27,100 50,90 53,68 36,57 17,66 10,82
7: 0,8 30,6 62,3 62,3 46,35 32,66 22,100
7: 2,20 5,6 5,6 33,6 64,2 64,2 52,33 42,63 38,100
7: 2,6 35,2 58,10 52,36 40,66 30,100
7: 0,6 30,6 62,3 62,3 46,35 33,66 24,100 / 14,52 36,50 60,48
8: 58,12 36,0 12,8 10,28 33,47 55,68 50,92 27,100 6,90 10,68 35,46 56,28 58,10
8: 50,16 30,0 12,18 26,40 44,62 46,90 24,100 6,84 18,62 42,42 58,22 60,3
8: 62,12 40,2 18,8 12,26 30,42 50,58 50,84 30,100 12,88 22,66 48,42 68,20 62,6
8: 50,4 22,2 6,20 24,40 50,52 62,76 42,98 14,96 6,72 28,50 54,36 60,14 46,3
9: 55,15 34,0 10,10 5,33 20,47 42,40 56,14 56,14 54,50 50,100
9: 56,6 30,3 6,22 10,42 34,40 56,6 56,6 50,50 42,100
9: 50,10 30,0 6,10 4,30 20,42 42,36 52,12 60,45 62,100
9: 52,10 30,0 8,12 7,34 25,46 46,34 54,10 54,10 55,50 42,87 8,98
9: 50,8 26,2 6,18 12,40 34,40 53,10 46,45 34,75 28,100
"""


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
    rows = [row.split(": ") for row in GLYPHS.strip().splitlines()]
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
    row = column = 0
    for _, matrix in parts:  # block diagonal: a stroke depends only on its own control points
        curve[row : row + matrix.shape[0], column : column + matrix.shape[1]] = matrix
        row, column = row + matrix.shape[0], column + matrix.shape[1]
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
