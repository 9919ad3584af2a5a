"""im2col and its adjoint as layers. Arguments, defaults and printed forms are PyTorch's."""

from __future__ import annotations

from minidl.kernels.geometry import Pairlike
from minidl.nn.module import Module
from minidl.ops.unfold import fold, unfold
from minidl.tensor import Tensor


class Unfold(Module):
    """The windows of images as columns; see `functional.unfold`.

    Parameters
    ----------
    kernel_size, dilation, padding, stride : int or (int, int)
    """

    _repr_format = "kernel_size={0.kernel_size}, dilation={0.dilation}, padding={0.padding}, stride={0.stride}"

    def __init__(
        self, kernel_size: Pairlike, dilation: Pairlike = 1, padding: Pairlike = 0, stride: Pairlike = 1
    ) -> None:
        super().__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C KH KW, OH OW)."""
        return unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(Unfold):
    """Columns added up to images; see `functional.fold`.

    Parameters
    ----------
    output_size : int or (int, int)
        Height and width of the images.
    kernel_size, dilation, padding, stride : int or (int, int)
    """

    _repr_format = "output_size={0.output_size}, " + Unfold._repr_format

    def __init__(
        self,
        output_size: Pairlike,
        kernel_size: Pairlike,
        dilation: Pairlike = 1,
        padding: Pairlike = 0,
        stride: Pairlike = 1,
    ) -> None:
        super().__init__(kernel_size, dilation, padding, stride)
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        """(N, C KH KW, OH OW) to (N, C, H, W)."""
        return fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)
