"""Adaptive pooling: windows that cover an image of any size, so that the map has the requested size.

Along an axis of n pixels, window i of m starts at pixel floor(i n / m) and ends before pixel ceil((i + 1) n / m): if m
divides n, these are windows of n / m. The mean is a linear map along each axis; the maximum is picked by its index.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidl import kernels
from minidl.autograd import record
from minidl.kernels import devices
from minidl.kernels.geometry import four
from minidl.kernels.resampling import adaptive_windows, axis_of
from minidl.ops._operands import only_compiled, operation, sizes
from minidl.ops.pooling import put, resample
from minidl.tensor import Tensor

OutputSize = int | None | Sequence[int | None]


@operation(images=("input",))
def adaptive_avg_pool2d(input: Tensor, output_size: OutputSize) -> Tensor:
    """The mean of each of OH x OW windows, (N, C, H, W) to (N, C, OH, OW); `output_size` is (OH, OW) or one int.

    None keeps a size. gx[n,c,h,w] = sum of gy / (number of pixels) over the windows that hold (h, w).
    """
    only_compiled("adaptive_avg_pool2d", input)
    outputs = _output_size("adaptive_avg_pool2d", input, output_size)
    rows, columns = (axis_of("area", n, m) for n, m in zip(input.shape[2:], outputs, strict=True))
    return resample("adaptive_avg_pool2d", input, rows, columns)


@operation(images=("input",))
def adaptive_max_pool2d(
    input: Tensor, output_size: OutputSize, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """The maximum of each of OH x OW windows; arguments and results are those of ``adaptive_avg_pool2d``.

    With `return_indices`, also h W + w of each maximum, for ``max_unpool2d``. gx = gy at the positions of the maxima.
    """
    oh, ow = _output_size("adaptive_max_pool2d", input, output_size)
    (n, c, h, w), size = input.shape, (input.shape[2], input.shape[3])
    rows, columns = _same_length(adaptive_windows(h, oh)), _same_length(adaptive_windows(w, ow))
    pixels = (rows[:, None, :, None] * w + columns[:, None]).reshape(oh, ow, rows.shape[1] * columns.shape[1])
    table = devices.beside(pixels, input.array)
    largest = input.array.reshape(n, c, h * w)[:, :, table].argmax(-1)  # (N, C, OH, OW), in the window
    first = devices.beside(np.arange(0, pixels.size, pixels.shape[2]).reshape(oh, ow), input.array)
    indices = Tensor(table.reshape(-1)[first + largest])
    y = kernels.pick(input.array, indices.array)
    maxima = record("adaptive_max_pool2d", y, (input, lambda gy: put(gy, indices, size)))
    return (maxima, indices) if return_indices else maxima


def _same_length(windows: list[np.ndarray]) -> np.ndarray:
    """The windows as rows of one array, the shorter ones with their last pixel once more."""
    longest = max(map(len, windows), default=1)
    return np.array([k[np.minimum(np.arange(longest), len(k) - 1)] for k in windows], np.int64).reshape(-1, longest)


def _output_size(op: str, input: Tensor, output_size: OutputSize) -> tuple[int, ...]:
    """OH and OW, each that of the image where None is given."""
    image = four(op, "input", input.shape, "(N, C, H, W)")[2:]
    given = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size, output_size)
    outputs = sizes(op, [n if m is None else m for n, m in zip(image, given, strict=False)])
    if len(given) != 2 or min(outputs) < 0 or min(image) < 1:
        rule = "must be one int of at least 0, or two, and the image not empty"
        raise RuntimeError(f"{op}: output_size {rule}, not {output_size!r} for {input.shape}")
    return outputs
