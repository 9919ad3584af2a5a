"""Unfold and fold: im2col and its adjoint as operations, so that a convolution can be written as a matrix product.

unfold copies the window under each position of a kernel into a column; fold adds columns back to where their windows
lie. Both are linear and each is the other's adjoint, <unfold(x), y> = <x, fold(y)>, so each is the other's gradient.
fold is not unfold's inverse: fold(unfold(x)) multiplies each pixel by the number of windows that contain it.

Source: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning, arXiv:1603.07285, 2016.
"""

from __future__ import annotations

from minidl import kernels
from minidl.autograd import record
from minidl.kernels.geometry import ConvGeometry, Pairlike, cached
from minidl.ops._operands import only_floats, operation
from minidl.tensor import Tensor


@operation(images=["input"])
def unfold(
    input: Tensor, kernel_size: Pairlike, dilation: Pairlike = 1, padding: Pairlike = 0, stride: Pairlike = 1
) -> Tensor:
    """The windows of an image as columns (im2col).

    y[n, (c,u,v), (i,j)] = x[n, c, i s - p + u d, j s - p + v d], and 0 in the padding

    Parameters
    ----------
    input : Tensor
        (N, C, H, W), or (C, H, W) for one image.
    kernel_size, dilation, padding, stride : int or (int, int)
        For height and width.

    Returns
    -------
    Tensor
        (N, C KH KW, OH OW) with OH = (H + 2 p - d (KH - 1) - 1) // s + 1, and OW likewise.

    Raises
    ------
    RuntimeError
        If the sizes do not fit together; the message does the arithmetic.

    Notes
    -----
    gx = fold(gy): each pixel receives the sum over the columns that it was copied to.

    Examples
    --------
    A convolution is unfold, a matrix product, and a view:

    >>> import minidl
    >>> from minidl.nn import functional as F
    >>> x, w = minidl.randn(1, 3, 8, 8), minidl.randn(4, 3, 3, 3)
    >>> columns = F.unfold(x, kernel_size=3)[0]  # (3*3*3, 6*6)
    >>> y = (w.view(4, -1) @ columns).view(1, 4, 6, 6)
    >>> minidl.allclose(y, F.conv2d(x, w), atol=1e-5)
    True
    """
    return _unfold(input, cached(ConvGeometry.of_unfold, input.shape, kernel_size, dilation, padding, stride))


@operation()
def fold(
    input: Tensor,
    output_size: Pairlike,
    kernel_size: Pairlike,
    dilation: Pairlike = 1,
    padding: Pairlike = 0,
    stride: Pairlike = 1,
) -> Tensor:
    """Columns added up to images, each to the window it stands for (col2im).

    y[n, c, i s - p + u d, j s - p + v d] += x[n, (c,u,v), (i,j)]; what falls into the padding is dropped

    Parameters
    ----------
    input : Tensor
        (N, C KH KW, OH OW), or (C KH KW, OH OW) for one image: as ``unfold`` returns it.
    output_size : int or (int, int)
        H and W of the images.
    kernel_size, dilation, padding, stride : int or (int, int)
        Those of the ``unfold`` that this is the adjoint of.

    Returns
    -------
    Tensor
        (N, C, H, W)

    Raises
    ------
    RuntimeError
        If the sizes do not fit together; the message does the arithmetic.
    NotImplementedError
        For integers.

    Notes
    -----
    gx = unfold(gy): each column receives a copy of the window that it was added to.

    Examples
    --------
    How many windows of 2 x 2 contain each pixel of a 3 x 3 image:

    >>> import minidl
    >>> fold(minidl.ones(1, 4, 4), output_size=3, kernel_size=2)[0, 0].tolist()
    [[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]
    """
    only_floats("fold", input, NotImplementedError)
    if input.ndim == 2:
        return fold(input.unsqueeze(0), output_size, kernel_size, dilation, padding, stride).squeeze(0)
    sizes = input.shape, output_size, kernel_size, dilation, padding, stride
    return _fold(input, cached(ConvGeometry.of_fold, *sizes))


def _unfold(x: Tensor, g: ConvGeometry) -> Tensor:
    return record("unfold", kernels.im2col(x.array, g), (x, lambda gy: _fold(gy, g)))


def _fold(columns: Tensor, g: ConvGeometry) -> Tensor:
    return record("fold", kernels.col2im(columns.array, g), (columns, lambda gx: _unfold(gx, g)))
