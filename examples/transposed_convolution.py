"""Transposed convolution in numbers and pictures: sizes, matrices, moving windows, and where checkerboards come from.

    python examples/transposed_convolution.py

takes about 5 s and trains nothing. It runs layers to check claims about their output sizes, and draws a convolution's
matrix beside that of the transposed convolution, animations of padding, strides and transposed strides, and the number
of products summed in each output pixel. For an input of i pixels per side, kernel size k, stride s and padding p give

    o = floor((i + 2p - k) / s) + 1           Conv2d
    o = s (i - 1) + k - 2p + output_padding   ConvTranspose2d

Sources: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning, arXiv:1603.07285, 2016;
A. Odena, V. Dumoulin, C. Olah, Deconvolution and checkerboard artifacts, doi:10.23915/distill.00003, 2016.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import _common
import numpy as np
from _moving_window import animate, settings
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import minidl
from minidl import Tensor, nn

F = nn.functional
conv, conv_t = nn.Conv2d, nn.ConvTranspose2d

CLAIMS: list[tuple[str, list[Any], list[int]]] = [  # claim, layers, and sides of the input and the outputs
    ("kernel 5 removes 4 pixels, its transpose restores them", [conv(1, 1, 5), conv_t(1, 1, 5)], [64, 60, 64]),
    ("the transpose of kernel 5 adds 4 pixels", [conv_t(1, 1, 5)], [64, 68]),
    ("padding 2 preserves the size", [conv(1, 1, 5, padding=2)], [64, 64]),
    ("padding 2 preserves it in the transpose, too", [conv_t(1, 1, 5, padding=2)], [64, 64]),
    ("stride 2 halves the size", [conv(1, 1, 5, 2, 2)], [64, 32]),
    ("transposed, stride 2 doubles it less one pixel", [conv_t(1, 1, 5, 2, 2)], [64, 127]),
    ("output_padding 1 adds that pixel", [conv_t(1, 1, 5, 2, 2, 1)], [64, 128]),
    ("unpadded, stride 2 there and back loses one pixel", [conv(1, 1, 5, 2), conv_t(1, 1, 5, 2)], [64, 30, 63]),
    ("output_padding 1 restores it", [conv(1, 1, 5, 2), conv_t(1, 1, 5, 2, 0, 1)], [64, 30, 64]),
]
MOVING = {  # the layers to animate, and the side of the input
    "padding": (conv(1, 1, 3, padding=1), 5),
    "strides": (conv(1, 1, 3, stride=2), 7),
    "transposed": (conv_t(1, 1, 3), 3),
    "transposed_strides": (conv_t(1, 1, 3, stride=2), 3),
    "transposed_output_padding": (conv_t(1, 1, 3, stride=2, padding=1, output_padding=1), 3),
}


@minidl.no_grad()
def main(args: argparse.Namespace) -> None:
    claims = [check(*claim) for claim in CLAIMS]
    for row in [("claim", "layers", "side in pixels", "holds"), *claims]:
        print("{:<54}  {:<46}  {:<14}  {}".format(*row))
    image, kernel = minidl.rand(1, 1, 64, 64), minidl.full((1, 1, 5, 5), 1 / 25)
    change = (F.conv_transpose2d(F.conv2d(image, kernel), kernel) - image).abs().mean().item()
    print(f"The size is restored, the values are not: after a 5x5 average and its transpose, pixels between 0 and 1 "
          f"have changed by {change:.2f} on average.")  # fmt: skip

    kernel = minidl.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    matrices = matrix(F.conv2d, kernel, 4), matrix(F.conv_transpose2d, kernel, 2)  # (4, 16) and (16, 4)
    draw_matrices(kernel, *matrices, args.out / "matrices.png")
    apart = {f"stride {s}, padding {p}": greatest_difference(s, p) for s in (1, 2, 3) for p in (0, 1, 2)}
    print(f"conv_transpose2d's matrix and conv2d's, transposed, differ by at most {max(apart.values()):g}, "
          "for kernel 5 with strides 1, 2, 3 and paddings 0, 1, 2.")  # fmt: skip

    for name, (layer, side) in MOVING.items():
        animate(layer, side, args.out / f"{name}.gif")

    sums = {k: F.conv_transpose2d(minidl.ones(1, 1, 6, 6), minidl.ones(1, 1, k, k), stride=2) for k in (2, 3, 4, 5)}
    draw_overlaps({k: y.numpy()[0, 0] for k, y in sums.items()}, args.out / "overlap.png")
    inside = {k: sorted(set(y[0, 0, k:-k, k:-k].long().flatten().tolist())) for k, y in sums.items()}
    for k, counts in inside.items():
        what = "everywhere inside." if len(counts) == 1 else "alternating: a checkerboard."
        print(f"Kernel {k}, stride 2: products per output pixel {', '.join(map(str, counts))} {what}")

    results = {
        "claims": [dict(zip(("claim", "layers", "side in pixels", "holds"), row, strict=True)) for row in claims],
        "mean change of a pixel there and back": change,
        "greatest difference of the matrices": apart,
        "products in an output pixel inside, stride 2, by kernel": inside,
    }
    (args.out / _common.METRICS).write_text(json.dumps({"seed": args.seed, "results": results}, indent=2) + "\n")
    print(f"Pictures and numbers are in {args.out.resolve()}")
    if any(row[-1] != "yes" for row in claims) or any(apart.values()):
        raise SystemExit("Some claims do not hold: a row of the table above says NO, or the two matrices differ.")


def check(claim: str, layers: list[Any], sides: list[int]) -> tuple[str, str, str, str]:
    """Run the layers for one row of the table. The sizes must match both the claim and the formulas above."""
    x, found, computed, names = minidl.zeros(1, 1, sides[0], sides[0]), sides[:1], sides[:1], []
    for layer in layers:
        x, i = layer(x), computed[-1]
        found.append(x.shape[-1])
        k, s, p, extra = settings(layer)
        computed.append(s * (i - 1) + k - 2 * p + extra if isinstance(layer, conv_t) else (i + 2 * p - k) // s + 1)
        given = [f", {name}={value}" for name, value, default in (("s", s, 1), ("p", p, 0), ("op", extra, 0))
                 if value != default]  # fmt: skip
        names.append(f"{type(layer).__name__}({k}{''.join(given)})")  # without the channels
    return claim, " ".join(names), " -> ".join(map(str, found)), "yes" if found == sides == computed else "NO"


def matrix(operation: Any, kernel: Tensor, side: int, **options: int) -> np.ndarray:
    """The matrix of a linear operation, column by column: column j is the output for the j-th unit image."""
    units = minidl.eye(side * side).reshape(-1, 1, side, side)
    return operation(units, kernel, **options).reshape(side * side, -1).numpy().T  # (pixels out, pixels in)


def greatest_difference(stride: int, padding: int) -> float:
    """Compare conv2d's matrix, transposed, with conv_transpose2d's, for 7x7 pixels and a random kernel 5."""
    kernel, options = minidl.randn(1, 1, 5, 5), {"stride": stride, "padding": padding}
    c = matrix(F.conv2d, kernel, 7, **options)
    lost = (7 + 2 * padding - 5) % stride  # pixels that no window reaches; output_padding restores them
    t = matrix(F.conv_transpose2d, kernel, round(len(c) ** 0.5), output_padding=lost, **options)
    return float(abs(c.T - t).max())


def draw_matrices(kernel: Tensor, c: np.ndarray, t: np.ndarray, path: Path) -> None:
    figure = new_figure(9.6, 5.6, "The matrix of a convolution, and that of the transposed convolution: its transpose")
    axes = figure.subplot_mosaic("KT;CT", width_ratios=[3, 1], height_ratios=[1, 1.35])
    pixels = "{}put pixels, {} row by row"
    for key, values, title, below, beside in (
        ("K", kernel.numpy()[0, 0], "kernel, 3x3", "", ""),
        ("C", c, "matrix of conv2d, 4x16", pixels.format("in", "4x4"), pixels.format("out", "2x2")),
        ("T", t, "of conv_transpose2d, 16x4", pixels.format("in", "2x2"), pixels.format("out", "4x4")),
    ):
        write_numbers(axes[key], values, cmap="Set3", vmin=1, vmax=12)
        axes[key].set_title(title, size=11)
        axes[key].set(xlabel=below, ylabel=beside)
    figure.savefig(path)


def draw_overlaps(maps: dict[int, np.ndarray], path: Path) -> None:
    figure = new_figure(9.6, 10.4, "Products summed in each output pixel of a transposed convolution with stride 2:\n"
                        "equal inside if the stride divides the kernel size (Odena et al. 2016)")  # fmt: skip
    for axis, (k, counts) in zip(figure.subplots(2, 2).flat, maps.items(), strict=True):
        write_numbers(axis, counts, cmap="YlOrRd", vmin=0, vmax=12)
        axis.set_title(f"kernel {k}: 6x6 pixels to {len(counts)}x{len(counts)}", size=11)
    figure.savefig(path)


def write_numbers(axis: Any, values: np.ndarray, **colours: Any) -> None:
    """Draw a map of integers; cells with 0 stay white."""
    axis.imshow(np.where(values, values, np.nan), **colours)
    for (i, j), value in np.ndenumerate(values):
        axis.text(j, i, f"{value:.0f}", size=8, ha="center", va="center", color="black" if value else "silver")
    axis.set(xticks=[], yticks=[])


def new_figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, size=12)
    return figure


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--seed", type=_common.at_least(0), default=0, help="seed for the random kernels (default: %(default)s)"
    )
    where = Path("out", "transposed_convolution")
    options.add_argument(
        "--out", type=Path, default=where, help="folder for pictures and numbers (default: %(default)s)"
    )
    _common.start(options, main)
