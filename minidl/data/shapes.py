"""Synthetic coloured shapes on a textured background: ten classes to classify or segment, without a download.

How an image is made, each step for a whole chunk of images at once:

1. A shape has a position, a size and a rotation. These give the coordinates of every pixel in the shape's own frame,
   where its radius is about 1.
2. There, a signed distance function gives each pixel's distance to the shape's edge, negative inside. The distance in
   pixels determines the fraction of the pixel that the shape covers, so that edges are anti-aliased.
3. Background and shape each have two colours, blended by a soft or sharp texture of a few plane waves. The shape's are
   mostly lighter; of a few random pairs, the one furthest from the background's is taken.
4. Lighting that falls off to one side is applied to both, and noise is added.

N images, S = 32 pixels a side, V corners of a polygon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.data.dataset import PixelDataset
from minidl.data.synthetic import CHUNK, draw
from minidl.tensor import Array, Tensor

SIDE = 32  # of an image, in pixels
WAVES = 4  # in a texture


class SyntheticShapes(PixelDataset):
    """Synthetic images of ten shapes, a stand-in for `minidl.data.CIFAR10`.

    Each image shows one shape at a random position, size, rotation and colour on a darker background; every ten
    consecutive images contain each shape once.

    Parameters
    ----------
    n : int
        Number of images. It does not affect the first images.
    seed : int
        Seed of the images; use a different one for a test set.
    target : {"label", "mask"}
        What accompanies the image: the class, an int, or the shape's mask, int64 (32, 32) of 0 and 1.

    Attributes
    ----------
    images : numpy.ndarray
        The pixels, uint8 (n, 32, 32, 3).
    labels, targets : numpy.ndarray
        The classes, int64 (n,), whatever `target` is.
    masks : numpy.ndarray
        The pixels that the shape covers at least by half, bool (n, 32, 32).
    classes : tuple of str
        The names of the classes.

    Raises
    ------
    ValueError
        If `n` or `seed` is negative or not an int, or `target` is unknown.

    Examples
    --------
    >>> shapes = SyntheticShapes(20, seed=1)
    >>> image, label = shapes[0]
    >>> image.shape, shapes.images.shape, shapes.classes[label]
    ((3, 32, 32), (20, 32, 32, 3), 'cross')
    >>> image, mask = SyntheticShapes(20, seed=1, target="mask")[0]
    >>> mask.shape, mask.dtype, bool((mask.array == shapes.masks[0]).all())
    ((32, 32), dtype('int64'), True)
    """

    def __init__(self, n: int = 10_000, seed: int = 0, *, target: str = "label") -> None:
        if target not in ("label", "mask"):
            raise ValueError(f"SyntheticShapes: target must be 'label' or 'mask', not {target!r}")
        images, self.masks, labels = draw("SyntheticShapes", draw_chunk, n, seed)
        super().__init__(images, labels)
        self.target, self.classes = target, tuple(SHAPES)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        image, label = super().__getitem__(index)
        return image, (label if self.target == "label" else Tensor(self.masks[index].astype(np.int64)))

    def gather(self, indices: Array) -> tuple[Tensor, Tensor]:
        """Return a batch: images float32 (N, 3, 32, 32) between 0 and 1; labels int64 (N,) or masks (N, 32, 32)."""
        images, labels = super().gather(indices)
        return images, (labels if self.target == "label" else Tensor(self.masks[indices].astype(np.int64)))


def draw_chunk(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Draw `CHUNK` images, uint8 (N, S, S, 3), their masks, bool (N, S, S), and their classes, int64 (N,)."""
    labels = rng.permuted(np.tile(np.arange(10), (CHUNK // 10, 1)), axis=1).ravel()
    cover = place(labels, rng)[..., None]  # (N, S, S, 1)
    colours = choose_colours(len(labels), rng)  # (N, 4, 3)
    ground = paint(colours[:, :2], rng)
    image = ground + cover * (paint(colours[:, 2:], rng) - ground)  # (N, S, S, 3)
    image *= 1 + 0.35 * waves(len(labels), 1, 0.6, rng)[..., None]  # lighting: less than one wavelength
    image += rng.uniform(0.01, 0.07, (len(labels), 1, 1, 1)) * rng.standard_normal(image.shape, np.float32)
    return (255 * np.clip(image, 0, 1) + 0.5).astype(np.uint8), cover[..., 0] >= 0.5, labels


# -- shapes -----------------------------------------------------------------------------------------------------


def place(labels: Array, rng: np.random.Generator) -> Array:
    """The fraction of each pixel that a shape covers, placed at random: (N,) labels to (N, S, S)."""
    n = len(labels)
    radius = rng.uniform(7.0, 13.0, (n, 1, 1))  # pixels
    middle = rng.uniform(-1, 1, (2, n, 1, 1)) * (SIDE / 2 - 0.85 * radius)  # some extend slightly beyond the image
    turn = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    pixel = np.arange(SIDE) - (SIDE - 1) / 2
    x, y = pixel - middle[0], pixel[:, None] - middle[1]  # (N, 1, S), (N, S, 1)
    cos, sin = np.cos(turn) / radius, np.sin(turn) / radius
    x, y = (values.astype(np.float32) for values in (cos * x + sin * y, cos * y - sin * x))  # (N, S, S) each
    distance = np.empty((n, SIDE, SIDE), np.float32)
    for label, shape in enumerate(SHAPES.values()):
        rows = np.flatnonzero(labels == label)
        distance[rows] = shape(x[rows], y[rows])
    return np.clip(0.5 - distance * radius.astype(np.float32), 0, 1)


def ellipse(x: Array, y: Array, a: float = 1.0, b: float = 1.0) -> Array:
    """Signed distance to an ellipse with semi-axes `a` and `b`: exact for circles, to first order near the edge."""
    level = np.hypot(x / a, y / b)
    return level * (level - 1) / np.maximum(np.hypot(x / a**2, y / b**2), 1e-6)


def ring(x: Array, y: Array) -> Array:
    """Signed distance to a ring."""
    return np.abs(np.hypot(x, y) - 0.76) - 0.24


def crescent(x: Array, y: Array) -> Array:
    """Signed distance to a disc with another disc cut away."""
    return np.maximum(ellipse(x, y), 0.85 - np.hypot(x - 0.55, y))


def polygon(*corners: tuple[float, float]) -> Callable[[Array, Array], Array]:
    """The signed distance function of a polygon, from the x and y of its corners in order."""

    def distance(x: Array, y: Array) -> Array:
        nearest = np.full(x.shape, np.inf, np.float32)  # squared
        inside = np.zeros(x.shape, np.bool_)
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
            ex, ey = bx - ax, by - ay
            along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
            nearest = np.minimum(nearest, (x - ax - along * ex) ** 2 + (y - ay - along * ey) ** 2)
            if ay != by:  # even-odd rule: toggle if a ray to the right crosses this side
                inside ^= ((y < ay) != (y < by)) & (x < ax + (y - ay) * (ex / ey))
        return np.where(inside, -1, 1) * np.sqrt(nearest)

    return distance


def regular(count: int, *radii: float) -> Callable[[Array, Array], Array]:
    """A polygon with `count` corners at equal angles, whose distances from the centre cycle through `radii`."""
    angle = 2 * np.pi * np.arange(count) / count
    radius = np.resize(radii, count)
    return polygon(*np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]).tolist())


def heart() -> Callable[[Array, Array], Array]:
    """A polygon along the heart curve, a sum of sines."""
    t = 2 * np.pi * np.arange(24) / 24
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return polygon(*np.column_stack([x / 15.5, (2 - y) / 15.5]).tolist())


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": lambda x, y: ellipse(x, y, 0.9, 0.9),
    "ellipse": lambda x, y: ellipse(x, y, 1.05, 0.55),
    "ring": ring,
    "crescent": crescent,
    "heart": heart(),
    "triangle": regular(3, 1.15),
    "square": regular(4, 1.1),
    "star": regular(10, 1.15, 0.5),
    "cross": polygon(
        *((0.32, 1.0), (0.32, 0.32), (1.0, 0.32), (1.0, -0.32), (0.32, -0.32), (0.32, -1.0)),
        *((-0.32, -1.0), (-0.32, -0.32), (-1.0, -0.32), (-1.0, 0.32), (-0.32, 0.32), (-0.32, 1.0)),
    ),
    "arrow": polygon(*((1.1, 0.0), (0.1, 0.9), (0.1, 0.32), (-1.05, 0.32), (-1.05, -0.32), (0.1, -0.32), (0.1, -0.9))),
}


# -- colours ----------------------------------------------------------------------------------------------------


def choose_colours(n: int, rng: np.random.Generator) -> Array:
    """Two RGB colours in [0, 1] for the background and two for the shape of each image: (N, 4, 3).

    The two colours of a texture are similar. Of a few random pairs for the shape, the one that differs most from the
    background is taken. The shape is mostly lighter: if it were darker just as often, no colour would hint at the
    shape, and a small network would learn nothing in its first epochs.
    """
    tries = 3
    ground = rng.uniform(0.0, 0.6, (n, 1, 1, 3)) + rng.normal(0, 0.1, (n, 1, 2, 3))
    shape = rng.uniform(0.35, 1.0, (n, tries, 1, 3)) + rng.normal(0, 0.08, (n, tries, 2, 3))
    gap = np.linalg.norm(shape[:, :, :, None] - ground[:, :, None], axis=-1).min(axis=(2, 3))  # (N, tries)
    best = shape[np.arange(n), gap.argmax(axis=1)]  # (N, 2, 3)
    return np.concatenate([ground[:, 0], best], axis=1).astype(np.float32)


def paint(colours: Array, rng: np.random.Generator) -> Array:
    """Blend the two colours (N, 2, 3) of each image by a texture: (N, S, S, 3)."""
    sharpness = np.exp(rng.uniform(0, 2.5, (len(colours), 1, 1))).astype(np.float32)
    texture = np.tanh(sharpness * waves(len(colours), WAVES, 4.0, rng))[..., None] / 2  # (N, S, S, 1)
    mean = colours.mean(axis=1)[:, None, None]  # (N, 1, 1, 3)
    return mean + texture * (colours[:, 1] - colours[:, 0])[:, None, None]


def waves(n: int, count: int, most: float, rng: np.random.Generator) -> Array:
    """The mean of `count` plane waves with up to `most` periods across the image, in [-1, 1]: (N, S, S)."""
    direction = rng.uniform(0, 2 * np.pi, (n, count))
    periods = rng.uniform(0, most, (n, count)) * 2 * np.pi / SIDE  # radians per pixel
    phase = rng.uniform(0, 2 * np.pi, (n, count, 1))
    pixel = np.arange(SIDE)
    # exp(i (ax + by + c)) = exp(i ax) exp(i (by + c)): an outer product instead of a sine at each pixel.
    columns = np.exp(1j * (periods * np.cos(direction))[..., None] * pixel)  # (N, count, S)
    rows = np.exp(1j * ((periods * np.sin(direction))[..., None] * pixel + phase))
    return ((rows.transpose(0, 2, 1) @ columns).real / count).astype(np.float32)  # (N, S, S)
