"""Layers without parameters that change an image's size: pooling, unpooling, upsampling.

Arguments, defaults and printed forms are PyTorch's. N images in a batch, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minidl.kernels.geometry import Pairlike
from minidl.nn._of_function import OfFunction
from minidl.nn.module import Module
from minidl.ops.adaptive import adaptive_avg_pool2d, adaptive_max_pool2d
from minidl.ops.pooling import avg_pool2d, max_pool2d, max_unpool2d
from minidl.ops.upsampling import channel_shuffle, interpolate, pixel_shuffle, pixel_unshuffle
from minidl.tensor import Tensor

_WINDOW = "kernel_size={0.kernel_size}, stride={0.stride}, padding={0.padding}"


class MaxPool2d(Module):
    """The maximum of each window; see `functional.max_pool2d`.

    Parameters
    ----------
    kernel_size, stride, padding, dilation : int or (int, int)
        The stride is kernel_size by default.
    return_indices : bool
        Also return the positions of the maxima, for ``MaxUnpool2d``.
    ceil_mode : bool
        Round the output size up: the last window may extend beyond the border.
    """

    _repr_format = _WINDOW + ", dilation={0.dilation}, ceil_mode={0.ceil_mode}"

    def __init__(
        self,
        kernel_size: Pairlike,
        stride: Pairlike | None = None,
        padding: Pairlike = 0,
        dilation: Pairlike = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        """(N, C, H, W) to (N, C, OH, OW), or to a pair of these with `return_indices`."""
        settings = self.dilation, self.ceil_mode, self.return_indices
        return max_pool2d(input, self.kernel_size, self.stride, self.padding, *settings)


class MaxUnpool2d(Module):
    """Put values back at the positions of the maxima, with zeros elsewhere; see `functional.max_unpool2d`.

    Source: Zeiler and Fergus 2014, arXiv:1311.2901.

    Parameters
    ----------
    kernel_size, stride, padding : int or (int, int)
        Those of the ``MaxPool2d`` to be inverted.
    """

    _repr_format = _WINDOW

    def __init__(self, kernel_size: Pairlike, stride: Pairlike | None = None, padding: Pairlike = 0) -> None:
        super().__init__()
        self.kernel_size, self.padding = _pair(kernel_size), _pair(padding)
        self.stride = self.kernel_size if stride is None else _pair(stride)

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Two (N, C, OH, OW) to (N, C, H, W); `output_size` chooses among the sizes that pool to OH x OW."""
        return max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class AvgPool2d(OfFunction, of=avg_pool2d):
    """The mean of each window; see `functional.avg_pool2d`.

    Parameters
    ----------
    kernel_size, stride, padding : int or (int, int)
        The stride is kernel_size by default.
    ceil_mode : bool
        Round the output size up: the last window may extend beyond the border.
    count_include_pad : bool
        Include the padding in the mean, as zeros.
    divisor_override : int, optional
        Divide by this instead of the number of elements.
    """

    _repr_format = _WINDOW

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.stride: Any = vars(self)["kernel_size" if vars(self)["stride"] is None else "stride"]


class AdaptiveAvgPool2d(OfFunction, of=adaptive_avg_pool2d):
    """The mean of windows that cover an image of any size; `output_size` is (OH, OW) or one int, None keeps a size."""


class AdaptiveMaxPool2d(OfFunction, of=adaptive_max_pool2d):
    """The maximum of windows that cover an image of any size; `output_size` is (OH, OW) or one int."""

    _repr_format = "output_size={0.output_size}"


class PixelShuffle(OfFunction, of=pixel_shuffle):
    """Channels as pixels, (N, C s^2, H, W) to (N, C, H s, W s) with s = upscale_factor."""


class PixelUnshuffle(OfFunction, of=pixel_unshuffle):
    """Pixels as channels, (N, C, H s, W s) to (N, C s^2, H, W) with s = downscale_factor."""


class ChannelShuffle(OfFunction, of=channel_shuffle):
    """The channels of all groups in turn; see `functional.channel_shuffle`."""


class Upsample(OfFunction, of=interpolate):
    """Resize images; see `functional.interpolate`.

    Parameters
    ----------
    size : int or (int, int)
    scale_factor : float or (float, float)
        Instead of `size`.
    mode : {"nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic", "area"}
    align_corners : bool, optional
        Whether the centres of the corner pixels are kept, for the smooth modes.
    recompute_scale_factor : bool, optional
        Step by the ratio of the sizes, not by 1 / scale_factor.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        factor = vars(self)["scale_factor"]
        self.scale_factor = tuple(map(float, factor)) if isinstance(factor, tuple) else factor and float(factor)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        name = "size" if self.scale_factor is None else "scale_factor"
        return f"{name}={vars(self)[name]}, mode={vars(self)['mode']!r}"


class UpsamplingNearest2d(Upsample):
    """``Upsample`` with nearest-neighbour interpolation."""

    def __init__(self, size: Pairlike | None = None, scale_factor: float | tuple[float, float] | None = None) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """``Upsample`` with bilinear interpolation and ``align_corners=True``."""

    def __init__(self, size: Pairlike | None = None, scale_factor: float | tuple[float, float] | None = None) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)


def _pair(value: Any) -> Any:
    """A window as PyTorch prints it: an int as a pair, any sequence as a tuple."""
    return (value, value) if isinstance(value, int) else tuple(value)
