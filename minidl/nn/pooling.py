"""Layers without parameters that change an image's size: pooling, unpooling, upsampling, padding, im2col.

Arguments, defaults and printed forms are PyTorch's. N images in a batch, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minidl.kernels.geometry import Pairlike
from minidl.nn.layers import pair
from minidl.nn.module import Module, OfFunction
from minidl.ops.images import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    channel_shuffle,
    interpolate,
    pixel_shuffle,
    pixel_unshuffle,
)
from minidl.ops.pooling import avg_pool2d, max_pool2d, max_unpool2d
from minidl.ops.shape import pad
from minidl.ops.unfold import fold, unfold
from minidl.tensor import Tensor

_WINDOW = "kernel_size={0.kernel_size}, stride={0.stride}, padding={0.padding}"


class MaxPool2d(OfFunction, of=max_pool2d):
    """The maximum of each window, (N, C, H, W) to (N, C, OH, OW); see `functional.max_pool2d`.

    Parameters
    ----------
    kernel_size, stride, padding, dilation : int or (int, int)
        The stride is kernel_size by default.
    return_indices : bool
        Return a pair: also the positions of the maxima, for ``MaxUnpool2d``, of the same shape.
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
        window = kernel_size, kernel_size if stride is None else stride, padding, dilation
        super().__init__(*window, return_indices=return_indices, ceil_mode=ceil_mode)


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
        self.kernel_size, self.padding = pair(kernel_size), pair(padding)
        self.stride = self.kernel_size if stride is None else pair(stride)

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

    def _prepare(self) -> None:
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

    def _prepare(self) -> None:
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


class _Pad(Module):
    """A border of zeros, or by the mode, of an image (2 dimensions) or a sequence (1); see `functional.pad`."""

    _mode, _dimensions, value = "constant", 2, 0.0
    _repr_format = "{0.padding}"

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        widths = tuple(padding) if isinstance(padding, Sequence) else (padding,) * (2 * self._dimensions)
        self.padding: tuple[int, ...] = widths

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) or (N, C, L), or without N, to the same with a border."""
        return pad(input, self.padding, self._mode, self.value)


class ConstantPad2d(_Pad):
    """A border of `value` around images; `padding` is one int or (left, right, top, bottom)."""

    _repr_format = "padding={0.padding}, value={0.value}"

    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value


class ConstantPad1d(ConstantPad2d):
    """A border of `value` around sequences; `padding` is one int or (left, right)."""

    _dimensions = 1


class ZeroPad2d(_Pad):
    """A border of zeros around images; `padding` is one int or (left, right, top, bottom)."""


class ReflectionPad2d(_Pad):
    """Images mirrored at their border pixels: c b | a b c | b a; `padding` is one int or (left, right, top, bottom)."""

    _mode = "reflect"


class ReflectionPad1d(ReflectionPad2d):
    """Sequences mirrored at their ends: c b | a b c | b a; `padding` is one int or (left, right)."""

    _dimensions = 1


class ReplicationPad2d(_Pad):
    """The border pixels repeated: a a | a b c | c c; `padding` is one int or (left, right, top, bottom)."""

    _mode = "replicate"


class ReplicationPad1d(ReplicationPad2d):
    """The ends repeated: a a | a b c | c c; `padding` is one int or (left, right)."""

    _dimensions = 1


class CircularPad2d(_Pad):
    """The opposite side of the image: b c | a b c | a b; `padding` is one int or (left, right, top, bottom)."""

    _mode = "circular"


class Unfold(OfFunction, of=unfold):
    """The windows of images as columns, (N, C, H, W) to (N, C KH KW, OH OW); see `functional.unfold`.

    Parameters
    ----------
    kernel_size, dilation, padding, stride : int or (int, int)
    """


class Fold(OfFunction, of=fold):
    """Columns added up to images, (N, C KH KW, OH OW) to (N, C, H, W); see `functional.fold`.

    Parameters
    ----------
    output_size : int or (int, int)
        Height and width of the images.
    kernel_size, dilation, padding, stride : int or (int, int)
    """
