"""The kernels in plain NumPy: short, and the definition of what the fast ones have to compute.

The three convolution kernels are the derivatives of one trilinear form T(x, w, y) in its map y, its image x and its
weight w: `minidl/ops/conv.py` states T, and why each kernel's gradients are the other two. Here they are computed, each
as a matrix product. `im2col` writes the window of each map pixel as a column of a matrix. With X = im2col(x) of shape
(N, C*KH*KW, OH*OW), rows(w) of shape (O, C*KH*KW) and pixels(y) of shape (N, O, OH*OW),

    T(x, w, y) = sum over n of <pixels(y)[n], rows(w) @ X[n]>

    dT/dy = rows(w) @ X                                conv2d
    dT/dx = col2im(rows(w).T @ pixels(y))              conv2d_input, the transposed convolution
    dT/dw = sum over n of pixels(y)[n] @ X[n].T        conv2d_weight

`col2im` is the adjoint of `im2col`: where windows overlap, a pixel was copied into several columns, so on the way back
it receives the sum of these. That is why a transposed convolution adds where its outputs overlap.

With G groups each of these is G products: the channels, C*KH*KW and O above, are cut into (G, C/G*KH*KW) and (G, O/G).

Letters: N images in a batch; C channels of the image, O of the map; H x W pixels of the image, OH x OW of the
map, KH x KW taps of the kernel; (u, v) one tap; s stride, p padding, d dilation. A name `gx` is the gradient
of the loss in x.

Sources: K. Chellapilla, S. Puri, P. Simard, High performance convolutional neural networks for document processing,
2006 (im2col); V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning, arXiv:1603.07285, 2016.

Nothing here calls the fast kernels, so the tests may compare the two.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from minidl.kernels.geometry import ConvGeometry
from minidl.kernels.pool_geometry import PoolGeometry, refuse_bad_index
from minidl.kernels.resampling import Axis

Array = np.ndarray


def im2col(x: Array, geometry: ConvGeometry) -> Array:
    """Write the window of each map pixel as a column. Linear; the adjoint of `col2im`.

    columns[n, (c,u,v), (i,j)] = x[n, c, i*s - p + u*d, j*s - p + v*d], and 0 in the padding

    Parameters
    ----------
    x : (N, C, H, W) array
    geometry : ConvGeometry
        The sizes, checked. Its number of map channels plays no role.

    Returns
    -------
    (N, C*KH*KW, OH*OW) array
    """
    ph, pw = geometry.padding
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    columns = np.stack([padded[window] for window in _taps(geometry)], axis=2)  # (N, C, KH*KW, OH, OW)
    return columns.reshape(_columns_shape(geometry))


def col2im(columns: Array, geometry: ConvGeometry) -> Array:
    """Add each column to the window it stands for. Linear; the adjoint of `im2col`.

    x[n, c, i*s - p + u*d, j*s - p + v*d] += columns[n, (c,u,v), (i,j)]; what falls into the padding is dropped

    Parameters
    ----------
    columns : (N, C*KH*KW, OH*OW) array
    geometry : ConvGeometry

    Returns
    -------
    (N, C, H, W) array
    """
    (n, c, h, width), (ph, pw) = geometry.image_shape, geometry.padding
    taps = columns.reshape(n, c, math.prod(geometry.kernel), *geometry.map_size)  # (N, C, KH*KW, OH, OW)
    padded = np.zeros((n, c, *geometry.padded_size), columns.dtype)
    for t, window in enumerate(_taps(geometry)):
        padded[window] += taps[:, :, t]  # += since windows overlap
    return padded[:, :, ph : ph + h, pw : pw + width]


def conv2d(x: Array, w: Array, geometry: ConvGeometry, bias: Array | None = None) -> Array:
    """Convolution, dT/dy: each pixel of the map is the product of the weight and a window of the image.

    y[n,o,i,j] = bias[o] + sum over c, u, v of w[o,c,u,v] * x[n, c, i*s - p + u*d, j*s - p + v*d]

    where c runs over the channels of o's group alone, and in w counts from 0 in each.

    Parameters
    ----------
    x : (N, C, H, W) array
    w : (O, C/G, KH, KW) array
    geometry : ConvGeometry
    bias : (O,) array, optional

    Returns
    -------
    (N, O, OH, OW) array, with OH = (H + 2p - d*(KH - 1) - 1)//s + 1
    """
    y = _rows(w, geometry) @ _grouped(im2col(x, geometry), geometry)  # (G, O/G, C/G*KH*KW) @ (N, G, C/G*KH*KW, OH*OW)
    y = y.reshape(geometry.map_shape)
    return y if bias is None else y + bias.reshape(-1, 1, 1)


def conv2d_input(y: Array, w: Array, geometry: ConvGeometry, bias: Array | None = None) -> Array:
    """Transposed convolution, dT/dx: each pixel of the map adds its multiple of the weight to a window.

    x[n, c, i*s - p + u*d, j*s - p + v*d] += y[n,o,i,j] * w[o,c,u,v], and x[n,c] begins at bias[c]

    It is the forward pass of `conv_transpose2d` and the gradient of `conv2d` in its image.

    Parameters
    ----------
    y : (N, O, OH, OW) array
    w : (O, C/G, KH, KW) array
    geometry : ConvGeometry
    bias : (C,) array, optional

    Returns
    -------
    (N, C, H, W) array

    Notes
    -----
    Sources: Zeiler and Fergus 2014, arXiv:1311.2901; Dumoulin and Visin 2016, arXiv:1603.07285, chapter 4.
    """
    columns = _rows(w, geometry).swapaxes(1, 2) @ _pixels(y, geometry)  # (G, C/G*KH*KW, O/G) @ (N, G, O/G, OH*OW)
    x = col2im(columns.reshape(_columns_shape(geometry)), geometry)
    return x if bias is None else x + bias.reshape(-1, 1, 1)


def conv2d_weight(x: Array, y: Array, geometry: ConvGeometry) -> Array:
    """Gradient in the weight, dT/dw: each tap correlates the map with the pixels that the tap meets.

    w[o,c,u,v] = sum over n, i, j of y[n,o,i,j] * x[n, c, i*s - p + u*d, j*s - p + v*d]

    Parameters
    ----------
    x : (N, C, H, W) array
    y : (N, O, OH, OW) array
    geometry : ConvGeometry

    Returns
    -------
    (O, C/G, KH, KW) array
    """
    columns = _grouped(im2col(x, geometry), geometry).swapaxes(2, 3)
    products = _pixels(y, geometry) @ columns  # (N, G, O/G, OH*OW) @ (N, G, OH*OW, C/G*KH*KW)
    return products.sum(axis=0, dtype=x.dtype).reshape(geometry.weight_shape)


def _rows(w: Array, geometry: ConvGeometry) -> Array:
    """(O, C/G, KH, KW) -> (G, O/G, C/G*KH*KW)"""
    return w.reshape(geometry.groups, len(w) // geometry.groups, math.prod(w.shape[1:]))


def _pixels(y: Array, geometry: ConvGeometry) -> Array:
    """(N, O, OH, OW) -> (N, G, O/G, OH*OW)"""
    return _grouped(y.reshape(*y.shape[:2], math.prod(y.shape[2:])), geometry)


def _grouped(channels: Array, geometry: ConvGeometry) -> Array:
    """(N, A, P) -> (N, G, A/G, P)"""
    n, a, p = channels.shape
    return channels.reshape(n, geometry.groups, a // geometry.groups, p)


def _columns_shape(geometry: ConvGeometry) -> tuple[int, int, int]:
    taps = geometry.image_channels * math.prod(geometry.kernel)
    return geometry.batch, taps, math.prod(geometry.map_size)


def _taps(geometry: ConvGeometry | PoolGeometry) -> Iterator[tuple[slice, ...]]:
    """For each tap, row by row, the slices of a padded image that hold what the tap meets: (N, C, OH, OW)."""
    (kh, kw), (oh, ow) = geometry.kernel, geometry.map_size
    (sh, sw), (dh, dw) = geometry.stride, geometry.dilation
    for u, v in np.ndindex(kh, kw):
        rows = slice(u * dh, u * dh + (oh - 1) * sh + 1, sh)
        columns = slice(v * dw, v * dw + (ow - 1) * sw + 1, sw)
        yield slice(None), slice(None), rows, columns


def max_pool2d(x: Array, geometry: PoolGeometry) -> tuple[Array, Array]:
    """Maximum of each window, and where it lies.

    y[n,c,i,j] = max over u, v of x[n, c, i*s - p + u*d, j*s - p + v*d], over the taps inside the image

    Parameters
    ----------
    x : (N, C, H, W) array
    geometry : PoolGeometry

    Returns
    -------
    y : (N, C, OH, OW) array
    indices : (N, C, OH, OW) int64 array
        h*W + w of the pixel: of the first maximum in the window, row by row, or of its last NaN, which counts as
        greater than all numbers.
    """
    (h, w), (ph, pw) = geometry.image_size, geometry.padding
    # ceil_mode lets windows hang over the padding at the bottom and the right, by less than a window.
    (kh, kw), (dh, dw) = geometry.kernel, geometry.dilation
    border = ((ph, ph + dh * kh), (pw, pw + dw * kw))
    padded = np.pad(x, ((0, 0), (0, 0), *border))  # with any value: the number -1 marks the padding
    numbers = np.pad(np.arange(h * w).reshape(1, 1, h, w), ((0, 0), (0, 0), *border), constant_values=-1)
    y, indices = np.zeros(geometry.map_shape, x.dtype), np.full(geometry.map_shape, -1)
    for window in _taps(geometry):
        value, number = padded[window], numbers[window]
        take = (number >= 0) & ((indices < 0) | (value > y) | (value != value))
        y, indices = np.where(take, value, y), np.where(take, number, indices)
    return y, indices


def pick(x: Array, indices: Array) -> Array:
    """Pick by flat indices: y[n,c,i,j] is pixel indices[n,c,i,j] of the plane x[n,c]. The adjoint of `put`.

    Parameters
    ----------
    x : (N, C, H, W) array
    indices : (N, C, OH, OW) int64 array
        h*W + w of each pixel to pick.

    Returns
    -------
    (N, C, OH, OW) array
    """
    n, c, h, w = x.shape
    refuse_bad_index("pick", indices, (h, w))
    images, channels = np.ogrid[:n, :c]  # (N, 1), (1, C)
    return x.reshape(n, c, h * w)[images[..., None, None], channels[..., None, None], indices]


def put(y: Array, indices: Array, size: tuple[int, int]) -> Array:
    """Put by flat indices into planes of zeros: pixel indices[n,c,i,j] of x[n,c] += y[n,c,i,j].

    It is the gradient of `max_pool2d`, and `max_unpool2d`. Overlapping windows may share their maximum; there the
    values are added.

    Parameters
    ----------
    y : (N, C, OH, OW) array
    indices : (N, C, OH, OW) int64 array
    size : (H, W)

    Returns
    -------
    (N, C, H, W) array

    Notes
    -----
    Source: Zeiler and Fergus 2014, arXiv:1311.2901, section 2.1.
    """
    (n, c), (h, w) = y.shape[:2], size
    refuse_bad_index("put", indices, size)
    x = np.zeros((n, c, h * w), y.dtype)
    images, channels = np.ogrid[:n, :c]  # (N, 1), (1, C)
    np.add.at(x, (images[..., None, None], channels[..., None, None], indices), y)
    return x.reshape(n, c, h, w)


def resample(x: Array, rows: Axis, columns: Axis) -> Array:
    """A linear map along the height and one along the width: average pooling, and interpolation.

    y[n,c,i,j] = sum over h, w of rows[i,h] * columns[j,w] * x[n,c,h,w]

    Its adjoint, and so its gradient, is `resample` with rows.T and columns.T.

    Parameters
    ----------
    x : (N, C, H, W) array
    rows : Axis
        (OH, H)
    columns : Axis
        (OW, W)

    Returns
    -------
    (N, C, OH, OW) array
    """
    return _along(_along(x.swapaxes(2, 3), rows).swapaxes(2, 3), columns)


def _along(x: Array, axis: Axis) -> Array:
    """The map along the last axis, term by term: what has no weight must not add 0 * inf."""
    y = np.zeros((*x.shape[:-1], axis.outputs), x.dtype)
    for i in range(axis.outputs):
        for t in range(axis.starts[i], axis.starts[i + 1]):
            y[..., i] += x.dtype.type(axis.weights[t]) * x[..., axis.sources[t]]
    return y


def channel_sums(y: Array) -> Array:
    """The sum of each channel of (N, C, H, W) or (N, C), as (C,): the gradient in a bias."""
    return y.sum(axis=(0, *range(2, y.ndim)))


def moments(x: Array) -> tuple[Array, Array]:
    """The mean and the (biased) variance of each channel of (N, C, ...), each (C,) in float64; NaN of no values."""
    n, axes, column = x.size // max(x.shape[1], 1), *_of_channels(x)
    mean = x.sum(axes, dtype=np.float64) / np.float64(n)
    return mean, np.square(x - mean.reshape(column)).sum(axes) / np.float64(n)


def normalise(x: Array, mean: Array, scale: Array, shift: Array) -> Array:
    """(x - mean) scale + shift, with numbers (C,) for each channel of (N, C, ...), rounded to x's dtype first."""
    _, column = _of_channels(x)
    m, s, b = (v.reshape(column).astype(x.dtype) for v in (mean, scale, shift))
    return (x - m) * s + b


def normalise_sums(gy: Array, x: Array, mean: Array) -> tuple[Array, Array]:
    """The sums of gy and of gy (x - mean) over each channel of (N, C, ...), each (C,) in float64."""
    axes, column = _of_channels(x)
    d = x - mean.reshape(column).astype(x.dtype)
    return gy.sum(axes, dtype=np.float64), (gy * d).sum(axes, dtype=np.float64)


def normalise_backward(gy: Array, x: Array, mean: Array, a: Array, b: Array, c: Array) -> Array:
    """a gy + b (x - mean) + c, with numbers (C,) for each channel of (N, C, ...): the gradient of `normalise` in x.

    Where mean and scale follow from x, it is scale (gy - E gy - h E(gy h)); see `minidl/ops/normalisation.py`.
    """
    _, column = _of_channels(x)
    m, a, b, c = (v.reshape(column).astype(x.dtype) for v in (mean, a, b, c))
    return a * gy + (b * (x - m) + c)


def _of_channels(x: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of a channel of (N, C, ...), and the shape in which (C,) broadcasts to it."""
    return (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))


def total(x: Array, scale: float = 1.0) -> Array:
    """The sum of all elements, times `scale`, as a 0-d array."""
    return np.asarray(x.sum() * scale, x.dtype)


def total_squared_error(x: Array, t: Array, scale: float = 1.0) -> Array:
    """The sum of (x - t)^2 over all elements, times `scale`, as a 0-d array."""
    return total(np.square(x - t), scale)


def total_logistic_loss(x: Array, t: Array, scale: float = 1.0) -> Array:
    """The sum of max(x, 0) - x t + ln(1 + e^-|x|) over all elements, times `scale`, as a 0-d array.

    It is -t ln s - (1 - t) ln(1 - s) with s = sigmoid(x), in a form that overflows nowhere.
    """
    return total(np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x))), scale)


def scaled_difference(x: Array, t: Array, scale: Array, factor: float) -> Array:
    """factor * scale * (x - t), elementwise, with a 0-d scale: the gradient of a sum of squared errors."""
    return (x - t) * (scale * x.dtype.type(factor))


def scaled_logistic_difference(x: Array, t: Array, scale: Array, factor: float) -> Array:
    """factor * scale * (sigmoid(x) - t), elementwise, with a 0-d scale: the gradient of a sum of logistic losses."""
    return (sigmoid(x) - t) * (scale * x.dtype.type(factor))


def cross_entropy(x: Array, classes: Array) -> Array:
    """-ln softmax(x)[class] for each sample: ln(sum over c of e^x_c) - x_class.

    Parameters
    ----------
    x : (N, C, ...) array
    classes : (N, ...) int64 array
        Each at least 0 and less than C, which is not checked here.

    Returns
    -------
    (N, ...) array
    """
    below = x - x.max(axis=1, keepdims=True)  # the difference is the same, and no power overflows
    return np.log(np.exp(below).sum(axis=1)) - np.take_along_axis(below, classes[:, None], 1)[:, 0]


def cross_entropy_backward(gy: Array, x: Array, classes: Array) -> Array:
    """Gradient of `cross_entropy` in x: gy * (softmax(x)_c - [c = class]), with gy (N, ...)."""
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    excess = powers / powers.sum(axis=1, keepdims=True)  # (N, C, ...)
    at_class = np.take_along_axis(excess, classes[:, None], 1) - 1
    np.put_along_axis(excess, classes[:, None], at_class.astype(x.dtype), 1)
    return gy[:, None] * excess


def matmul(a: Array, b: Array, bias: Array | None = None) -> Array:
    """Matrix product: (M, K) and (K, N) give (M, N), also for each of a batch; a bias (N,) is added to each row."""
    return a @ b if bias is None else a @ b + bias


def add(a: Array, b: Array) -> Array:
    """a + b, of one shape and dtype."""
    return np.add(a, b)


def relu(x: Array) -> Array:
    """max(x, 0), elementwise; NaN stays NaN."""
    return np.where(x <= 0, x.dtype.type(0), x)


def relu_backward(gy: Array, y: Array) -> Array:
    """Gradient of `relu` from its output y: 0 where y <= 0, the kink included, else gy."""
    return np.where(y <= 0, gy.dtype.type(0), gy)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), elementwise, written so that exp never overflows."""
    z = np.exp(-np.abs(x))  # in (0, 1]
    return np.where(x >= 0, x.dtype.type(1), z) / (1 + z)


def sigmoid_backward(gy: Array, y: Array) -> Array:
    """Gradient of the sigmoid from its output y: gy * y * (1 - y)."""
    return gy * y * (1 - y)


def tanh_backward(gy: Array, y: Array) -> Array:
    """Gradient of tanh from its output y: gy * (1 - y*y)."""
    return gy * (1 - y * y)


def erf(x: Array) -> Array:
    """The error function, elementwise: 2 / sqrt(pi) times the integral of e^(-t^2) over t from 0 to x."""
    return np.vectorize(math.erf, otypes=[x.dtype])(x)


def add_at(y: Array, index: tuple[Any, ...], values: Array) -> None:
    """y[index] += values, in place. Where arrays in the index name an element several times, all its values are added.

    Parameters
    ----------
    y : array
    index : tuple of slices, integer arrays, bool arrays, None and ...
    values : array of the shape of y[index]
    """
    np.add.at(y, index, values)


def adam_step(
    ps: list[Array],
    gs: list[Array],
    ms: list[Array],
    vs: list[Array],
    rate_and_root: tuple[float, float] | Array,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """One step of Adam for each parameter p, in place on p and its m and v, as `torch.optim.Adam` takes it.

        g = g + weight_decay * p
        m = m + (1 - beta1) * (g - m)
        v = beta2 * v + (1 - beta2) * g*g
        p = p - rate * m / (sqrt(v) / root + eps)

    Parameters
    ----------
    ps, gs, ms, vs : lists of arrays of one dtype
        Parameters, their gradients, and the running means of each gradient and of its square, both 0 before the
        first step.
    rate_and_root : (float, float), or (2,) float64 array on the device of the others
        Bias-corrected, at step t = 1, 2, ...: lr / (1 - beta1^t) and sqrt(1 - beta2^t).
    beta1, beta2, eps, weight_decay : float

    Notes
    -----
    Moments smaller than the smallest normal number are set to zero. If a gradient stays exactly zero (behind a dead
    ReLU, say), m halves about every seventh step at beta1 = 0.9; after some 800 steps it is a denormal number, which
    slows a processor down many times and means no more than zero does.

    Source: Kingma and Ba 2015, Adam: a method for stochastic optimization, arXiv:1412.6980.
    """
    rate, root = map(float, rate_and_root)
    for p, g, m, v in zip(ps, gs, ms, vs, strict=True):
        tiny = np.finfo(p.dtype).tiny
        g = g + weight_decay * p if weight_decay else g  # 0 times an infinite parameter would be NaN
        m += (1 - beta1) * (g - m)
        v *= beta2
        v += (1 - beta2) * g * g
        m[np.abs(m) < tiny] = 0
        v[v < tiny] = 0
        p -= rate * m / (np.sqrt(v) / root + eps)


def sgd_step(
    ps: list[Array],
    gs: list[Array],
    bufs: list[Array] | None,
    lr: float | Array,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """One step of stochastic gradient descent for each parameter p, in place on p and its buf, as `torch.optim.SGD`.

        g = g + weight_decay * p
        buf = momentum * buf + (1 - dampening) * g
        p = p - lr * (g + momentum * buf  if nesterov else  buf)

    Parameters
    ----------
    ps, gs : lists of arrays of one dtype
    bufs : list of arrays, or None
        The running sums of gradients; None when the momentum is 0, then p = p - lr * g. PyTorch starts them from
        the first gradients, without dampening: pass zeros and `dampening=0` at the first step.
    lr : float, or 0-d float64 array on the device of the others
    momentum, dampening, weight_decay : float
    nesterov : bool

    Notes
    -----
    Sums smaller than the smallest normal number are set to zero, for the reason that `adam_step` gives.

    Source: Sutskever et al. 2013, On the importance of initialization and momentum in deep learning.
    """
    sums: list[Any] = [None] * len(ps) if bufs is None else bufs
    for p, g, buf in zip(ps, gs, sums, strict=True):
        g = g + weight_decay * p if weight_decay else g  # 0 times an infinite parameter would be NaN
        if buf is not None:
            buf *= momentum
            buf += (1 - dampening) * g
            buf[np.abs(buf) < np.finfo(p.dtype).tiny] = 0
            g = g + momentum * buf if nesterov else buf
        p -= float(lr) * g
