"""im2col and its adjoint as layers. Arguments, defaults and printed forms are PyTorch's."""

from __future__ import annotations

from minidl.nn._of_function import OfFunction
from minidl.ops.unfold import fold, unfold


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
