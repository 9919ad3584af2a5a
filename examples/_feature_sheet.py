"""The image sheets of feature_visualisation.py."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 100
CELL, GAP, APART, LINE = 60, 3, 16, 16  # pixels: an image (about), between images, between groups, a line of text

Row = tuple[np.ndarray, dict[str, np.ndarray]]  # activations (N,), and images (N, C, H, W) of each kind


def draw_sheet(rows: dict[str, Row], title: str, path: Path) -> None:
    """One row per filter, with a group per activation: its value, and below it the patch and its projections."""
    groups, kinds = max(len(values) for values, _ in rows.values()), list(next(iter(rows.values()))[1])
    side = next(iter(rows.values()))[1]["patch"].shape[-1]
    factor = max(1, round(CELL / side))
    cell = factor * side
    group, row = len(kinds) * (cell + GAP) + APART, cell + LINE
    canvas = np.ones((LINE + len(rows) * row + 1, groups * group - APART - GAP + 2, 3))  # white
    left, top, right, bottom = 90, 48, 10, 10  # margins
    height, width = canvas.shape[0] + top + bottom, canvas.shape[1] + left + right
    figure = Figure((width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    axis = figure.add_axes((left / width, bottom / height, canvas.shape[1] / width, canvas.shape[0] / height))
    axis.axis("off")
    for r, (name, (values, images)) in enumerate(rows.items()):
        y = LINE + r * row + LINE
        axis.text(-8, y + cell / 2, name, size=9, ha="right", va="center")
        for g, value in enumerate(values):
            axis.text(g * group + 1, y - 3, f"{value:.2f}", size=8, color="#444444", va="bottom")
            for k, kind in enumerate(kinds):
                x = 1 + g * group + k * (cell + GAP)
                picture = images[kind][g] if kind == "patch" else around_grey(images[kind][g])  # (C, H, W)
                canvas[y - 1 : y + cell + 1, x - 1 : x + cell + 1] = 0.8  # a thin frame around white patches
                canvas[y : y + cell, x : x + cell] = picture.transpose(1, 2, 0).repeat(factor, 0).repeat(factor, 1)
                if r == 0:
                    axis.text(x + cell / 2, LINE - 5, kind, size=7.5, ha="center", va="bottom")
    axis.imshow(canvas, interpolation="nearest", vmin=0, vmax=1)
    figure.suptitle(title, size=10, y=1 - 8 / height, va="top")
    figure.savefig(path)


def around_grey(projection: np.ndarray) -> np.ndarray:
    """Scale to [0, 1] such that 0 maps to 1/2, grey, and the value of largest magnitude to black or white."""
    return 0.5 + 0.5 * projection / max(np.abs(projection).max(), 1e-12)
