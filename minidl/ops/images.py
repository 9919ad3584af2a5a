"""Operations that give images another size: resized, with pixels made of channels, pooled to a requested size.

An interpolation is a linear map, with a matrix R for the rows and C for the columns (`kernels/resampling.py` has those
of each mode): y = R x C^T, and the adjoint is gx = R^T gy C.
For the nearest pixel and an integer factor, gx is the sum over the pixels that each pixel was copied to.

The windows of adaptive pooling cover an image of any size: along an axis of n pixels, window i of m starts at pixel
floor(i n / m) and ends before pixel ceil((i + 1) n / m); if m divides n, these are windows of n / m. The mean is such a
linear map along each axis; the maximum is picked by its index.

Sources: A. Odena, V. Dumoulin, C. Olah, Deconvolution and checkerboard artifacts, Distill, 2016,
doi 10.23915/distill.00003: resize, then convolve, where a transposed convolution would draw checkerboards; W. Shi et
al., Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural network,
arXiv:1609.05158, 2016: convolve to s^2 times the channels, then `pixel_shuffle`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minidl import kernels
from minidl.autograd import record
from minidl.kernels import devices
from minidl.kernels.geometry import Pairlike, four
from minidl.kernels.resampling import adaptive_windows, axis_of, interpolation
from minidl.ops._operands import only_compiled, operation, sizes
from minidl.ops.pooling import put, resample, resample_each
from minidl.tensor import Tensor

OutputSize = int | None | Sequence[int | None]


@operation()
def interpolate(
    input: Tensor,
    size: Pairlike | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Images resized to another height and width.

    Output pixel i lies at position i t of the input with t = 1 / scale_factor, or H / OH if `size` is given.
    "nearest": y[i] = x[floor(i t)]; "nearest-exact": y[i] = x[floor((i + 1/2) t)]. "bilinear", along each axis:
    y[i] = (1 - f) x[m] + f x[m + 1], where m + f is the position (i + 1/2) t - 1/2, cut off at the borders, or
    i (H - 1) / (OH - 1) with `align_corners`. "bicubic": likewise from four pixels along each axis, with the weights
    of a cubic spline. "area": ``adaptive_avg_pool2d``.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W). One image needs ``unsqueeze(0)``, since three dimensions are (N, C, length), with "linear" for
        "bilinear". Five are (N, C, depth, H, W), with "trilinear".
    size : int or (int, int)
        OH and OW.
    scale_factor : float or (float, float)
        Instead of `size`: OH = floor(H scale_factor), and OW likewise.
    mode : {"nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic", "area"}
    align_corners : bool, optional
        For the smooth modes: whether the centres of the corner pixels stay where they are, or (by default) their edges.
    recompute_scale_factor : bool, optional
        Take t = H / OH with `scale_factor`, too.
    antialias : bool
        Only False.

    Returns
    -------
    Tensor
        (N, C, OH, OW)

    Raises
    ------
    ValueError
        If not exactly one of `size` and `scale_factor` is given, or `align_corners` with a mode that does not use it.
    RuntimeError
        If a size would be 0.
    NotImplementedError
        For other modes, numbers of dimensions and dtypes.

    Notes
    -----
    gx[h,w] = sum over i,j of R[i,h] C[j,w] gy[i,j], with the same weights.

    Examples
    --------
    >>> import minidl
    >>> x = minidl.tensor([[[[1.0, 3.0]]]])
    >>> interpolate(x, scale_factor=2).tolist()
    [[[[1.0, 1.0, 3.0, 3.0], [1.0, 1.0, 3.0, 3.0]]]]
    >>> interpolate(x, size=(1, 4), mode="bilinear").tolist()
    [[[[1.0, 1.5, 2.5, 3.0]]]]
    """
    if antialias:
        raise NotImplementedError("interpolate: antialias=True is not supported; mode 'area' takes means of all pixels")
    axes = interpolation(input.shape, size, scale_factor, mode, align_corners, recompute_scale_factor)
    only_compiled("interpolate", input)
    return resample_each("interpolate", input, axes)


def upsample(
    input: Tensor,
    size: Pairlike | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """``interpolate`` under its old name. PyTorch warns that it is deprecated; here it is only a second name."""
    return interpolate(input, size, scale_factor, mode, align_corners)


@operation()
def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C s^2, H, W) to (..., C, H s, W s): y[c, h s + i, w s + j] = x[c s^2 + i s + j, h, w]."""
    s, *n, c, h, w = _divisible("pixel_shuffle", input, upscale_factor, [-3], 2)
    y = input.reshape(math.prod(n), c // s**2, s, s, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(*n, c // s**2, h * s, w * s)


@operation()
def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., C, H s, W s) to (..., C s^2, H, W): the inverse, and so the adjoint, of ``pixel_shuffle``."""
    s, *n, c, h, w = _divisible("pixel_unshuffle", input, downscale_factor, [-2, -1])
    y = input.reshape(math.prod(n), c, h // s, s, w // s, s).permute(0, 1, 3, 5, 2, 4)
    return y.reshape(*n, c * s**2, h // s, w // s)


@operation()
def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """The first channel of each group, then the second of each, and so on: y[:, c G + g] = x[:, g (C / G) + c]."""
    g, n, c, *size = _divisible("channel_shuffle", input, groups, [1])
    return input.reshape(n, g, c // g, *size).transpose(1, 2).reshape(input.shape)


def _divisible(op: str, input: Tensor, factor: int, dims: Sequence[int], power: int = 1) -> tuple[int, ...]:
    """The factor and the input's sizes, of which those of `dims` must be multiples of its power."""
    (s,) = sizes(op, (factor,))
    if s < 1 or input.ndim < 3 or any(input.shape[d] % s**power for d in dims):
        times = " * ".join([str(factor)] * power)
        rule = f"at least 3 dimensions, and sizes in {dims} that are multiples of a positive {times}"
        raise RuntimeError(f"{op}: expected {rule}, not shape {input.shape}")
    return s, *input.shape


# --- Adaptive pooling ---------------------------------------------------------------------------------------


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


# --- Windows as columns -------------------------------------------------------------------------------------
