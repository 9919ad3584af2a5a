"""Convolution and transposed convolution: one trilinear form, differentiated in each of its arguments.

Letters: x is an image (N, C, H, W), w a weight (O, C, KH, KW), y a map (N, O, OH, OW); s, p, d are stride,
padding and dilation. All of this file follows from

    T(x, w, y) = sum over n,o,c,i,j,u,v of  y[n,o,i,j] w[o,c,u,v] x[n,c, i s - p + u d, j s - p + v d]

(x is 0 outside its borders; with groups, c runs over the channels of o's group alone, which are all that w then has).
T is linear in each argument, so its derivative in one is a function of the others:

    dT/dy = convolve(x, w)           the convolution
    dT/dx = convolve_input(y, w)     the transposed convolution
    dT/dw = convolve_weight(x, y)

If the loss has the gradient gy in y = convolve(x, w), then by the chain rule its gradients in x and w are the
derivatives of T(x, w, gy): convolve_input(gy, w) and convolve_weight(x, gy). Likewise for the other two functions. So
the gradients of each are the other two, and second derivatives need no new code. How the kernels compute them, by
im2col and a matrix product, is in `kernels/reference.py`.

Source: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning, arXiv:1603.07285, 2016.
"""

from __future__ import annotations

from minidl import kernels
from minidl.autograd import Edge, record
from minidl.kernels.geometry import ConvGeometry, Pairlike, cached, ints
from minidl.ops._operands import operation
from minidl.ops.shape import pad
from minidl.tensor import Tensor


def convolve(x: Tensor, w: Tensor, g: ConvGeometry, b: Tensor | None = None) -> Tensor:
    """dT/dy (N, O, OH, OW), from the image and the weight, plus a bias (O,) for each channel."""
    return record(
        "conv2d",
        kernels.conv2d(x.array, w.array, g, None if b is None else b.array),
        (x, lambda gy: convolve_input(gy, w, g)),
        (w, lambda gy: convolve_weight(x, gy, g)),
        *bias_edge(b),
    )


def convolve_input(y: Tensor, w: Tensor, g: ConvGeometry, b: Tensor | None = None) -> Tensor:
    """dT/dx (N, C, H, W), from the map and the weight, plus a bias (C,) for each channel."""
    return record(
        "conv2d_input",
        kernels.conv2d_input(y.array, w.array, g, None if b is None else b.array),
        (y, lambda gx: convolve(gx, w, g)),
        (w, lambda gx: convolve_weight(gx, y, g)),
        *bias_edge(b),
    )


def convolve_weight(x: Tensor, y: Tensor, g: ConvGeometry) -> Tensor:
    """dT/dw (O, C, KH, KW), from the image and the map."""
    return record(
        "conv2d_weight",
        kernels.conv2d_weight(x.array, y.array, g),
        (x, lambda gw: convolve_input(y, gw, g)),
        (y, lambda gw: convolve(x, gw, g)),
    )


@operation(images=("input",))
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pairlike = 1,
    padding: Pairlike | str = 0,
    dilation: Pairlike = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution of images with a set of filters (cross-correlation: the kernel is not flipped).

    y[n,o,i,j] = bias[o] + sum over c,u,v of w[o,c,u,v] x[n,c, i s - p + u d, j s - p + v d]

    Parameters
    ----------
    input : Tensor
        (N, C, H, W), or (C, H, W) for one image.
    weight : Tensor
        (O, C / groups, KH, KW)
    bias : Tensor, optional
        (O,)
    stride, padding, dilation : int or (int, int)
        For height and width. A padding of "valid" is 0, and one of "same", for stride 1, gives OH = H and OW = W.
    groups : int
        Cut the channels of input and output into so many groups; o sees only the c of its own group.

    Returns
    -------
    Tensor
        (N, O, OH, OW) with OH = (H + 2 p - d (KH - 1) - 1) // s + 1, and OW likewise.

    Raises
    ------
    RuntimeError
        If sizes or dtypes do not fit together; the message does the arithmetic.

    Notes
    -----
    gx = convolve_input(gy, w): the transposed convolution of gy with the same weight;
    gw = convolve_weight(x, gy); gb = sum of gy over n, i and j.

    Examples
    --------
    >>> import minidl
    >>> conv2d(minidl.ones(1, 1, 5, 5), minidl.ones(2, 1, 3, 3), stride=2).shape
    (1, 2, 2, 2)
    """
    if isinstance(padding, str):
        input, padding = _padded_by_name(input, weight, stride, padding, dilation)
    g = cached(ConvGeometry.of_conv2d, input.shape, weight.shape, stride, padding, dilation, groups)
    _check("conv2d", input, weight, bias, g.map_channels)
    return convolve(input, weight, g, bias)


@operation(images=("input",))
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pairlike = 1,
    padding: Pairlike = 0,
    output_padding: Pairlike = 0,
    groups: int = 1,
    dilation: Pairlike = 1,
) -> Tensor:
    """Transposed convolution: the gradient of ``conv2d`` in its input, used as an operation of its own.

    Its input is a convolution's map and its output the image. Below, as everywhere, x is the input and y the output,
    so the two change places. Each input pixel adds its value times the kernel to the output, `stride` pixels apart:
    y[n,c, i s - p + u d, j s - p + v d] += w[o,c,u,v] x[n,o,i,j], plus bias[c].

    Parameters
    ----------
    input : Tensor
        (N, O, H, W), or (O, H, W) for one image.
    weight : Tensor
        (O, C / groups, KH, KW): its first size is the number of *input* channels.
    bias : Tensor, optional
        (C,)
    stride, padding, dilation : int or (int, int)
        Those of the convolution whose transpose this is: padding crops the output's border.
    output_padding : int or (int, int)
        Rows and columns added at the bottom and the right, fewer than stride or dilation. A convolution with
        stride s maps s neighbouring input sizes to the same output size; this chooses among them.
    groups : int
        As for ``conv2d``.

    Returns
    -------
    Tensor
        (N, C, OH, OW) with OH = (H - 1) s - 2 p + d (KH - 1) + output_padding + 1, and OW likewise.

    Raises
    ------
    RuntimeError
        If sizes or dtypes do not fit together; the message does the arithmetic.

    Notes
    -----
    gx = convolve(gy, w): a plain convolution; gw = convolve_weight(gy, x); gb = sum of gy over n, i and j.

    Examples
    --------
    >>> import minidl
    >>> conv_transpose2d(minidl.ones(1, 2, 2, 2), minidl.ones(2, 1, 3, 3), stride=2).shape
    (1, 1, 5, 5)
    """
    sizes = input.shape, weight.shape, stride, padding, output_padding, dilation, groups
    g = cached(ConvGeometry.of_conv_transpose2d, *sizes)
    _check("conv_transpose2d", input, weight, bias, g.image_channels)
    return convolve_input(input, weight, g, bias)


def bias_edge(b: Tensor | None) -> list[Edge]:
    """The edge to a bias that was added to each channel, if any."""
    return [] if b is None else [(b, channel_sums)]


def channel_sums(y: Tensor) -> Tensor:
    """The sum of each channel of (N, C, H, W) or (N, C), as (C,): the gradient in a bias."""
    shape, ones = y.shape, [1] * (y.ndim - 2)
    return record("channel_sums", kernels.channel_sums(y.array), (y, lambda gb: gb.reshape(-1, *ones).expand(shape)))


def _padded_by_name(x: Tensor, w: Tensor, stride: Pairlike, padding: str, d: Pairlike) -> tuple[Tensor, Pairlike]:
    """ "valid" or "same" as a number; where the border is one wider after the image than before, that one is added."""
    if padding not in ("same", "valid"):
        raise RuntimeError(f"conv2d: padding must be numbers, 'same' or 'valid', not {padding!r}")
    if padding == "valid" or x.ndim != 4 or w.ndim != 4:
        return x, 0
    if ints("conv2d", "stride", stride, 1) != (1, 1):
        raise RuntimeError(f"conv2d: padding='same' needs stride 1, not {stride}: a stride makes the image smaller")
    h, width = (d * (k - 1) for d, k in zip(ints("conv2d", "dilation", d, 1), w.shape[2:], strict=True))
    return pad(x, (0, width % 2, 0, h % 2)) if h % 2 or width % 2 else x, (h // 2, width // 2)


def _check(name: str, x: Tensor, w: Tensor, b: Tensor | None, outputs: int) -> None:
    """Refuse what the geometry does not see: dtypes, and a bias without one value for each output channel."""
    dtype = x.array.dtype
    mixed = w.array.dtype != dtype or (b is not None and b.array.dtype != dtype)
    if mixed or dtype.char in "e?":
        found = f"input {x.dtype}, weight {w.dtype}" + (f", bias {b.dtype}" if b is not None else "")
        error = RuntimeError if mixed else NotImplementedError  # as in PyTorch
        rule = "input, weight and bias must all be float32 or all float64"
        raise error(f"{name}: {rule}, not {found}; convert with .float()")
    if b is not None and b.shape != (outputs,):
        wanted = f"one value for each output channel of the weight {w.shape}: shape ({outputs},)"
        raise RuntimeError(f"{name}: the bias must have {wanted}, not {b.shape}")
