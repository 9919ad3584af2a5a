"""Animations of a window moving over a grid, in the style of the figures of V. Dumoulin and F. Visin.

A guide to convolution arithmetic for deep learning, arXiv:1603.07285, 2016. The drawing code is our own.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

import minidl
from minidl import nn

BLUE, DARK_BLUE, GREEN, DARK_GREEN, GREY = "#6fa8dc", "#2b5d8c", "#a8dcc0", "#2a9465", "#d9d9d9"
SHADES = 8  # of each colour in a GIF, down to black, for antialiased lines


def settings(layer: Any) -> tuple[int, int, int, int]:
    """Kernel size, stride, padding and output_padding of a layer, along one axis."""
    return layer.kernel_size[0], layer.stride[0], layer.padding[0], layer.output_padding[0]


def spread(layer: Any, side: int) -> tuple[np.ndarray, int]:
    """Which cells of the grid that the window moves over hold input pixels, and the window's step.

    A convolution pads the input and moves the window by its stride. A transposed convolution is a convolution with
    stride 1 and the flipped kernel, over the input with s - 1 zeros inserted between pixels and k - 1 - p zeros around
    them; output_padding adds zeros at the bottom and on the right (Dumoulin and Visin, relationship 14).
    """
    k, s, p, extra = settings(layer)
    border, gap, step = (k - 1 - p, s, 1) if isinstance(layer, nn.ConvTranspose2d) else (p, 1, s)
    span = gap * (side - 1) + 1
    grid = np.zeros((span + 2 * border + extra,) * 2, bool)
    grid[border : border + span : gap, border : border + span : gap] = True
    return grid, step


@minidl.no_grad()
def animate(layer: Any, side: int, path: Path) -> None:
    """Draw the window below and, above it, the output pixel that its products sum to: one frame per output pixel."""
    (grid, step), k = spread(layer, side), layer.kernel_size[0]
    n, out = len(grid), layer(minidl.zeros(1, 1, side, side)).shape[-1]
    shift, lift = (n - out) / 2, 0.9 + 0.275 * (n + out)

    def corners(i: float, j: float, size: int, h: float = 0) -> list[tuple[float, float]]:
        """The corners of a square of the tilted grid at height h whose first cell is in row i and column j."""
        square = [(i, j), (i, j + size), (i + size, j + size), (i + size, j)]
        return [(x - 0.45 * y, h - 0.55 * y) for y, x in square]

    figure = Figure(figsize=(4.4, 4.0), dpi=100, layout=ConstrainedLayoutEngine(h_pad=0.1))  # inches
    canvas, axis = FigureCanvasAgg(figure), figure.add_subplot(aspect="equal")
    axis.axis("off")
    names = ("kernel", "stride", "padding", "output_padding")
    given = ", ".join(f"{name} {value}" for name, value in zip(names, settings(layer), strict=True) if value)
    axis.set_title(f"{type(layer).__name__}: {side}x{side} pixels to {out}x{out}\n{given}", size=11)
    figure.supxlabel("below: input (blue), zeros (white), window (dark); above: output", size=8)
    line: dict[str, Any] = {"edgecolors": "black", "linewidths": 0.7}
    below = PolyCollection([corners(i, j, 1) for i, j in np.ndindex(n, n)], **line)
    above = PolyCollection([corners(i + shift, j + shift, 1, lift) for i, j in np.ndindex(out, out)], **line)
    rays = LineCollection([], colors="#555555", linewidths=0.8)
    for drawn in (below, rays, above):
        axis.add_collection(drawn)
    axis.set(xlim=(-0.45 * n - 0.2, n + 0.2), ylim=(-0.55 * n - 0.2, lift - 0.55 * shift + 0.2))

    palette, frames = gif_palette(), []
    for i, j in np.ndindex(out, out):
        window = np.zeros_like(grid)
        window[i * step : i * step + k, j * step : j * step + k] = True
        colours = np.select([grid & window, grid, window], [DARK_BLUE, BLUE, GREY], "white")  # (n, n)
        below.set_facecolor(colours.ravel().tolist())
        above.set_facecolor([DARK_GREEN if cell == (i, j) else GREEN for cell in np.ndindex(out, out)])
        pixel = corners(i + shift, j + shift, 1, lift)
        rays.set_segments([list(ray) for ray in zip(corners(i * step, j * step, k), pixel, strict=True)])
        canvas.draw()
        figure.set_layout_engine("none")  # the layout is fixed after the first frame
        frame = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])  # (400, 440, 3)
        frames.append(frame.quantize(palette=palette, dither=Image.Dither.NONE))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=500, loop=0)  # 0.5 s each, looping forever


def gif_palette() -> Image.Image:
    """An image whose palette holds shades of the colours above and of white: one palette for all frames."""
    colours = np.array([to_rgb(name) for name in (BLUE, DARK_BLUE, GREEN, DARK_GREEN, GREY, "white")])  # (6, 3)
    shades = 255 * colours[:, None] * np.linspace(0, 1, SHADES)[:, None]  # (6, SHADES, 3)
    palette = Image.new("P", (1, 1))
    palette.putpalette(shades.round().astype(np.uint8).tobytes())
    return palette
