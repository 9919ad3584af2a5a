"""Interpolation: images resized, by the nearest pixel or linearly between pixels.

Both are linear maps, with a matrix R for the rows and C for the columns: y = R x C^T, and the adjoint is gx = R^T gy C.
For the nearest pixel and an integer factor, gx is the sum over the pixels that each pixel was copied to.

Source: A. Odena, V. Dumoulin, C. Olah, Deconvolution and checkerboard artifacts, Distill, 2016,
doi 10.23915/distill.00003: resize, then convolve, where a transposed convolution would draw checkerboards.
"""

from __future__ import annotations

from minidl.kernels.geometry import Pairlike
from minidl.kernels.resampling import interpolation
from minidl.ops._operands import only_compiled, operation
from minidl.ops.pooling import resample
from minidl.tensor import Tensor


@operation()
def interpolate(
    input: Tensor,
    size: Pairlike | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """Images resized to another height and width.

    Output pixel i lies at position i t of the input with t = 1 / scale_factor, or H / OH if `size` is given.
    "nearest": y[i] = x[floor(i t)]. "bilinear", along each axis: y[i] = (1 - f) x[m] + f x[m + 1], where m + f is
    the position (i + 1/2) t - 1/2, cut off at the borders, or i (H - 1) / (OH - 1) with `align_corners`.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W). One image needs ``unsqueeze(0)``: PyTorch reads three dimensions as (N, C, length).
    size : int or (int, int)
        OH and OW.
    scale_factor : float or (float, float)
        Instead of `size`: OH = floor(H scale_factor), and OW likewise.
    mode : {"nearest", "bilinear"}
    align_corners : bool, optional
        For "bilinear": whether the centres of the corner pixels stay where they are, or (by default) their edges.

    Returns
    -------
    Tensor
        (N, C, OH, OW)

    Raises
    ------
    ValueError
        If not exactly one of `size` and `scale_factor` is given, or `align_corners` with mode "nearest".
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
    rows, columns = interpolation(input.shape, size, scale_factor, mode, align_corners)
    only_compiled("interpolate", input)
    return resample("interpolate", input, rows, columns)


def upsample(
    input: Tensor,
    size: Pairlike | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """``interpolate`` under its old name. PyTorch warns that it is deprecated; here it is only a second name."""
    return interpolate(input, size, scale_factor, mode, align_corners)
