"""Coloured shapes on textured ground: ten classes to tell apart or to cut out, without a download.

How an image comes about, each step for a whole chunk of images at once:

1. A shape has a place, a size and a direction. From these follow the coordinates of every pixel in the shape's
   own frame, where it has about radius 1.
2. There, a function gives each pixel's distance to the shape's edge, negative inside. Distance in pixels makes
   the share of a pixel that the shape covers, from 0 to 1, and so edges without steps.
3. Ground and shape each have two colours, mixed by a texture of a few plane waves, which is soft or sharp. The
   shape's are mostly lighter, and as far from the ground's as the best of a few that were drawn.
4. A light that falls off to one side and noise are added to both.

N images, S = 32 pixels a side, V corners of a polygon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from minidl.data.loader import PixelDataset
from minidl.data.synthetic import CHUNK, draw
from minidl.tensor import Tensor

Array = npt.NDArray[Any]

SIDE = 32  # pixels
WAVES = 4  # in a texture


class SyntheticShapes(PixelDataset):
    """Made-up pictures of ten shapes, to be used like `minidl.data.CIFAR10` where that is not at hand.

    Each image shows one shape somewhere, of any size, direction and colour, on darker ground; every
    ten images in a row hold each shape once.

    Parameters
    ----------
    n : int
        Number of images. The first images do not depend on it.
    seed : int
        Which pictures; use another one for a test set.
    target : {"label", "mask"}
        What an item has beside its image: the class, an int, or where the shape is, int64 (32, 32) of 0 and 1.

    Attributes
    ----------
    images : numpy.ndarray
        The pixels, uint8 (n, 32, 32, 3).
    labels, targets : numpy.ndarray
        The classes, int64 (n,), whatever `target` is.
    masks : numpy.ndarray
        The pixels of which the shape covers at least half, bool (n, 32, 32).
    classes : tuple of str
        Their names.

    Raises
    ------
    ValueError
        If `n` or `seed` is negative or not an int, or `target` is neither of the two.

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
    image *= 1 + 0.35 * waves(len(labels), 1, 0.6, rng)[..., None]  # light, less than a wave long
    image += rng.uniform(0.01, 0.07, (len(labels), 1, 1, 1)) * rng.standard_normal(image.shape, np.float32)
    return (255 * np.clip(image, 0, 1) + 0.5).astype(np.uint8), cover[..., 0] >= 0.5, labels


# -- shapes -----------------------------------------------------------------------------------------------------


def place(labels: Array, rng: np.random.Generator) -> Array:
    """How much of each pixel the shapes of `labels` cover, somewhere in the image: (N,) to (N, S, S)."""
    n = len(labels)
    radius = rng.uniform(7.0, 13.0, (n, 1, 1))  # pixels
    middle = rng.uniform(-1, 1, (2, n, 1, 1)) * (SIDE / 2 - 0.85 * radius)  # some reach beyond the image a little
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
    """Distance to an ellipse with half axes `a` and `b`: exact for circles, and near the edge."""
    level = np.hypot(x / a, y / b)
    return level * (level - 1) / np.maximum(np.hypot(x / a**2, y / b**2), 1e-6)


def ring(x: Array, y: Array) -> Array:
    """Distance to a circle with a hole."""
    return np.abs(np.hypot(x, y) - 0.76) - 0.24


def crescent(x: Array, y: Array) -> Array:
    """Distance to a circle of which another one is cut off."""
    return np.maximum(ellipse(x, y), 0.85 - np.hypot(x - 0.55, y))


def polygon(*corners: tuple[float, float]) -> Callable[[Array, Array], Array]:
    """The function that gives the distance to a polygon, from x and y of the corners in order."""

    def distance(x: Array, y: Array) -> Array:
        nearest = np.full(x.shape, np.inf, np.float32)  # squared
        inside = np.zeros(x.shape, np.bool_)
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
            ex, ey = bx - ax, by - ay
            along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
            nearest = np.minimum(nearest, (x - ax - along * ex) ** 2 + (y - ay - along * ey) ** 2)
            if ay != by:  # a ray to the right crosses this side: once more inside, or once more outside
                inside ^= ((y < ay) != (y < by)) & (x < ax + (y - ay) * (ex / ey))
        return np.where(inside, -1, 1) * np.sqrt(nearest)

    return distance


def regular(count: int, *radii: float) -> Callable[[Array, Array], Array]:
    """A polygon with `count` corners in even directions, whose distances from the middle repeat `radii`."""
    angle = 2 * np.pi * np.arange(count) / count
    radius = np.resize(radii, count)
    return polygon(*zip((radius * np.cos(angle)).tolist(), (radius * np.sin(angle)).tolist(), strict=True))


def heart() -> Callable[[Array, Array], Array]:
    """A polygon along a curve of sines."""
    t = 2 * np.pi * np.arange(24) / 24
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return polygon(*zip((x / 15.5).tolist(), ((2 - y) / 15.5).tolist(), strict=True))


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
    """Two colours for the ground and two for the shape of each image, red, green and blue in [0, 1]: (N, 4, 3).

    The two of a texture are alike. Of some pairs that are drawn for the shape, the one is taken that differs
    most from the ground. It is mostly the lighter one: of shapes that are as often darker, a small net learns
    nothing at all in its first epochs, as then no colour speaks for the shape.
    """
    tries = 3
    ground = rng.uniform(0.0, 0.6, (n, 1, 1, 3)) + rng.normal(0, 0.1, (n, 1, 2, 3))
    shape = rng.uniform(0.35, 1.0, (n, tries, 1, 3)) + rng.normal(0, 0.08, (n, tries, 2, 3))
    gap = np.linalg.norm(shape[:, :, :, None] - ground[:, :, None], axis=-1).min(axis=(2, 3))  # (N, tries)
    best = shape[np.arange(n), gap.argmax(axis=1)]  # (N, 2, 3)
    return np.concatenate([ground[:, 0], best], axis=1).astype(np.float32)


def paint(colours: Array, rng: np.random.Generator) -> Array:
    """Mix the two colours (N, 2, 3) of each image by a texture: (N, S, S, 3)."""
    sharpness = np.exp(rng.uniform(0, 2.5, (len(colours), 1, 1))).astype(np.float32)
    texture = np.tanh(sharpness * waves(len(colours), WAVES, 4.0, rng))[..., None] / 2  # (N, S, S, 1)
    mean = colours.mean(axis=1)[:, None, None]  # (N, 1, 1, 3)
    return mean + texture * (colours[:, 1] - colours[:, 0])[:, None, None]


def waves(n: int, count: int, most: float, rng: np.random.Generator) -> Array:
    """The mean of `count` plane waves with up to `most` periods across the image, in [-1, 1]: (N, S, S)."""
    direction = rng.uniform(0, 2 * np.pi, (n, count))
    periods = rng.uniform(0, most, (n, count)) * 2 * np.pi / SIDE  # radians a pixel
    phase = rng.uniform(0, 2 * np.pi, (n, count, 1))
    pixel = np.arange(SIDE)
    # exp(i (ax + by + c)) is exp(i ax) exp(i (by + c)): a product of two lines instead of a sine at each pixel.
    columns = np.exp(1j * (periods * np.cos(direction))[..., None] * pixel)  # (N, count, S)
    rows = np.exp(1j * ((periods * np.sin(direction))[..., None] * pixel + phase))
    return ((rows.transpose(0, 2, 1) @ columns).real / count).astype(np.float32)  # (N, S, S)
