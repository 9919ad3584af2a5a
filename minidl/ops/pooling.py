"""Pooling and unpooling: max-pool picks by flat indices, unpool puts by them; the average is a linear map.

Letters: x is an image (N, C, H, W), y a map (N, C, OH, OW) with one pixel for each window; k, s, p, d are window size,
stride, padding and dilation. Once a max-pool has chosen its maxima, it is the linear map `pick`, and

    sum over n,c,i,j of  y[n,c,i,j] x[n, c, indices[n,c,i,j]]

is linear in y and in x. Its derivative in y is pick(x), that in x is put(y): each is the adjoint of the other, and
therefore its gradient. Likewise the gradient of `resample` is `resample` with both matrices transposed.

Sources: M. D. Zeiler, R. Fergus, Visualizing and understanding convolutional networks, arXiv:1311.2901, 2014, for
unpooling with recorded positions ("switches").
"""

from __future__ import annotations

from collections.abc import Sequence

from minidl import kernels
from minidl.autograd import record
from minidl.kernels.geometry import Pair, Pairlike, cached
from minidl.kernels.pool_geometry import PoolGeometry, refuse_bad_index
from minidl.kernels.resampling import Axis, axis_of
from minidl.ops._operands import only_compiled, operation
from minidl.tensor import Tensor


def pick(x: Tensor, indices: Tensor) -> Tensor:
    """The pixels of x (N, C, H, W) at the indices (N, C, OH, OW), each index within its plane."""
    size = x.shape[2], x.shape[3]
    return record("pick", kernels.pick(x.array, indices.array), (x, lambda gy: put(gy, indices, size)))


def put(y: Tensor, indices: Tensor, size: Pair) -> Tensor:
    """y (N, C, OH, OW) added to planes of zeros (N, C, H, W) at its indices."""
    return record("put", kernels.put(y.array, indices.array, size), (y, lambda gx: pick(gx, indices)))


def resample(name: str, x: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """y[n,c,i,j] = sum over h,w of rows[i,h] columns[j,w] x[n,c,h,w]."""
    y = kernels.resample(x.array, rows, columns)
    return record(name, y, (x, lambda gy: resample(f"{name}_backward", gy, rows.T, columns.T)))


def resample_each(name: str, x: Tensor, axes: Sequence[Axis]) -> Tensor:
    """A linear map along each of the last one, two or three dimensions of (N, C, ...)."""
    (n, c), d = x.shape[:2], 1
    if len(axes) == 2:
        return resample(name, x, *axes)
    if len(axes) == 3:  # depth alone, then height and width
        d, pixels = axes[0].outputs, axes[1].inputs * axes[2].inputs
        x = resample(name, x.reshape(n, c, axes[0].inputs, pixels), axes[0], axis_of("nearest", pixels, pixels))
    rows, columns = [axis_of("nearest", 1, 1), *axes][-2:]
    y = resample(name, x.reshape(n, c * d, rows.inputs, columns.inputs), rows, columns)
    return y.reshape(n, c, *[axis.outputs for axis in axes])


@operation(images=("input",))
def max_pool2d(
    input: Tensor,
    kernel_size: Pairlike,
    stride: Pairlike | None = None,
    padding: Pairlike = 0,
    dilation: Pairlike = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The maximum of each window.

    y[n,c,i,j] = max over u,v of x[n,c, i s - p + u d, j s - p + v d], over the taps inside the image.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W), or (C, H, W) for one image.
    kernel_size, stride, padding, dilation : int or (int, int)
        For height and width. The stride is the window's size unless given. The padding, of -inf, is at most half
        as wide as the window.
    ceil_mode : bool
        Let the last window extend past the border, if it starts inside the image or the padding before it.
    return_indices : bool
        Return the indices of the maxima too, for ``max_unpool2d``.

    Returns
    -------
    y : Tensor
        (N, C, OH, OW) with OH = (H + 2 p - d (k - 1) - 1) / s + 1, rounded down, or up with `ceil_mode`.
    indices : Tensor
        h W + w of each maximum, int64, of y's shape; the first of equal values, row by row. NaN counts as greater
        than any number; of several NaNs the last is taken.

    Raises
    ------
    RuntimeError
        If the sizes do not fit, or a dilated window lies entirely in the padding (PyTorch returns -inf there).

    Notes
    -----
    gx = put(gy): each gradient goes to the position of its maximum, and gradients that meet there add up.

    Examples
    --------
    >>> import minidl
    >>> y, indices = max_pool2d(minidl.arange(16.0).reshape(1, 4, 4), 2, return_indices=True)
    >>> y.tolist(), indices.tolist()
    ([[[5.0, 7.0], [13.0, 15.0]]], [[[5, 7], [13, 15]]])
    """
    if input.dtype.kind not in "fiu":
        raise NotImplementedError(f"max_pool2d: input must be numbers, not {input.dtype}; convert it with .float()")
    g = cached(PoolGeometry.of_max_pool2d, input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    maxima, positions = kernels.max_pool2d(input.array, g)
    indices = Tensor(positions)
    y = record("max_pool2d", maxima, (input, lambda gy: put(gy, indices, g.image_size)))
    return (y, indices) if return_indices else y


@operation(images=("input", "indices"))
def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Pairlike,
    stride: Pairlike | None = None,
    padding: Pairlike = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Put values back at the positions that ``max_pool2d`` recorded, and zeros elsewhere.

    x[n,c, indices[n,c,i,j]] += y[n,c,i,j]

    Parameters
    ----------
    input : Tensor
        (N, C, OH, OW), or (C, OH, OW) for one image.
    indices : Tensor
        h W + w of each value's position in the output, int64, of the input's shape.
    kernel_size, stride, padding : int or (int, int)
        Those of the pooling; they only determine the output's size.
    output_size : (int, int) or (int, int, int, int), optional
        H and W, or N, C, H and W of the output. A pooling with stride s maps s neighbouring heights to the same one;
        this chooses among them.

    Returns
    -------
    Tensor
        (N, C, H, W) with H = (OH - 1) s + k - 2 p, unless `output_size` says otherwise.

    Raises
    ------
    RuntimeError
        If an index lies outside the output, or shapes and dtypes do not fit together.
    ValueError
        If `output_size` is out of range.

    Notes
    -----
    gy = pick(gx), the adjoint. So unpooling with a max-pool's indices is that max-pool's gradient. Where windows
    overlap, an index may occur twice, and its values add up; PyTorch keeps one of them, and leaves undefined which.

    Source: Zeiler and Fergus 2014, arXiv:1311.2901, section 2.1.

    Examples
    --------
    >>> import minidl
    >>> max_unpool2d(minidl.tensor([[[5.0]]]), minidl.tensor([[[2]]]), 2).tolist()
    [[[0.0, 0.0], [5.0, 0.0]]]
    """
    only_compiled("max_unpool2d", input)
    if indices.dtype != "int64" or indices.shape != input.shape:
        found = f"{indices.dtype} of shape {indices.shape}"
        raise RuntimeError(f"max_unpool2d: indices must be int64 and of the input's shape {input.shape}, not {found}")
    g = cached(PoolGeometry.of_max_unpool2d, input.shape, kernel_size, stride, padding, output_size)
    refuse_bad_index("max_unpool2d", indices.array, g.image_size, "; give the pooled images' size, output_size=(H, W)")
    return put(input, indices, g.image_size)


@operation(images=("input",))
def avg_pool2d(
    input: Tensor,
    kernel_size: Pairlike,
    stride: Pairlike | None = None,
    padding: Pairlike = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window.

    y[n,c,i,j] = sum over u,v of x[n,c, i s - p + u, j s - p + v] / (number of taps), x being 0 outside its borders

    Parameters
    ----------
    input : Tensor
        (N, C, H, W), or (C, H, W) for one image.
    kernel_size, stride, padding : int or (int, int)
        For height and width. The stride is the window's size unless given. The padding is at most half as wide.
    ceil_mode : bool
        Let the last window extend past the border, if it starts inside the image or the padding before it.
    count_include_pad : bool
        Count the taps in the padding too.
    divisor_override : int, optional
        Divide by this instead.

    Returns
    -------
    Tensor
        (N, C, OH, OW) with OH = (H + 2 p - k) / s + 1, rounded down, or up with `ceil_mode`.

    Raises
    ------
    RuntimeError
        If the sizes do not fit together.

    Notes
    -----
    gx[n,c,h,w] = sum of gy / (number of taps) over the windows that hold (h, w).

    Examples
    --------
    >>> import minidl
    >>> avg_pool2d(minidl.arange(16.0).reshape(1, 4, 4), 2).tolist()
    [[[2.5, 4.5], [10.5, 12.5]]]
    """
    only_compiled("avg_pool2d", input)
    g = cached(PoolGeometry.of_avg_pool2d, input.shape, kernel_size, stride, padding, ceil_mode)
    return resample("avg_pool2d", input, *g.averages(count_include_pad, divisor_override))
