"""im2col and col2im: each the other's adjoint, the convolutions as products with them, and F.unfold and F.fold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import nn
from minidl.kernels import ConvGeometry, reference
from minidl.nn import functional as F
from minidl.testing import conv_geometries, property_test_gradient, tensors


def sizes(g: ConvGeometry) -> dict:
    return {"kernel_size": g.kernel, "dilation": g.dilation, "padding": g.padding, "stride": g.stride}


@given(conv_geometries(max_batch=2))
def test_each_is_the_others_adjoint(g):
    def unfold(x):
        return F.unfold(x, **sizes(g))

    def fold(y):
        return F.fold(y, g.image_size, **sizes(g))

    y_shape = reference.im2col(np.zeros(g.image_shape), g).shape
    assert minidl.check_adjoint(unfold, fold, g.image_shape, y_shape)


@given(conv_geometries(), st.integers(0, 2**16))
def test_columns_are_the_windows(g, seed):
    x = np.random.default_rng(seed).standard_normal(g.image_shape)
    columns = reference.im2col(x, g).reshape(g.batch, g.image_channels, *g.kernel, *g.map_size)
    padded = np.pad(x, ((0, 0), (0, 0), *[(p, p) for p in g.padding]))
    for u, v, i, j in np.ndindex(*g.kernel, *g.map_size):
        h, w = i * g.stride[0] + u * g.dilation[0], j * g.stride[1] + v * g.dilation[1]
        np.testing.assert_array_equal(columns[:, :, u, v, i, j], padded[:, :, h, w])


@property_test_gradient(conv_geometries(max_batch=2, max_channels=2, max_kernel=3, max_extra=2), tensors(()))
def test_gradients(g, scale):
    x = minidl.arange(int(np.prod(g.image_shape)), dtype=minidl.float64).reshape(g.image_shape).to(scale.dtype) / 100
    y = F.unfold(scale * x + scale, **sizes(g))
    return F.fold(y * y, g.image_size, **sizes(g))


def test_a_convolution_is_unfold_product_view():
    x, w = minidl.randn(2, 3, 9, 8), minidl.randn(4, 3, 3, 2)
    y = w.view(4, -1) @ F.unfold(x[0], (3, 2), stride=2, padding=1)
    expected = F.conv2d(x, w, stride=2, padding=1)[0]
    assert minidl.allclose(y.view(*expected.shape), expected, atol=1e-5)


def test_layers_and_single_images():
    x = minidl.randn(2, 3, 5, 6)
    unfold, fold = nn.Unfold((2, 3), stride=2), nn.Fold((5, 6), (2, 3), stride=2)
    assert repr(unfold) == "Unfold(kernel_size=(2, 3), dilation=1, padding=0, stride=2)"
    assert repr(fold) == "Fold(output_size=(5, 6), kernel_size=(2, 3), dilation=1, padding=0, stride=2)"
    columns = unfold(x)
    assert columns.shape == (2, 18, 4)
    assert minidl.equal(unfold(x[1]), columns[1])
    assert fold(columns).shape == x.shape
    assert minidl.equal(fold(columns[1]), fold(columns)[1])
    assert F.unfold(x[:0], 2).shape == (0, 12, 20)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.unfold(x, 7), RuntimeError, r"unfold: kernel 7 does not fit in height 5 with padding 0"),
        (lambda x: F.unfold(x[0, 0], 2), RuntimeError, r"unfold: input must be \(N, C, H, W\)"),
        (lambda x: F.unfold(x[:, :0], 2), RuntimeError, r"unfold: input of shape \(2, 0, 5, 6\) has no pixels"),
        (lambda x: F.unfold(x, 0), RuntimeError, "unfold: kernel_size must be at least 1, got 0"),
        (lambda x: F.unfold(x, 2.5), TypeError, "unfold: kernel_size must be an int or a pair of ints, got 2.5"),
        (lambda x: F.fold(x[0].long(), 5, 2), NotImplementedError, "fold: the input must be a float tensor, not int64"),
        (lambda x: F.unfold(x.numpy(), 2), TypeError, "unfold: expected a tensor, not ndarray"),
        (
            lambda x: F.fold(minidl.ones(2, 12, 20), (5, 5), 2),
            RuntimeError,
            r"fold: input \(2, 12, 20\) has 20 columns, and a kernel of \(2, 2\) with stride \(1, 1\), padding "
            r"\(0, 0\) and dilation \(1, 1\) has 4\*4 = 16 positions in an image of \(5, 5\)",
        ),
        (
            lambda x: F.fold(minidl.ones(2, 12, 20), (5, 6), 5),
            RuntimeError,
            r"fold: input \(2, 12, 20\) has columns of 12 values, no multiple of the kernel's 5\*5 = 25",
        ),
        (lambda x: F.fold(minidl.ones(20), 5, 2), RuntimeError, r"fold: input must be \(N, C\*KH\*KW, OH\*OW\)"),
        (lambda x: F.fold(minidl.ones(2, 0, 20), 5, 2), RuntimeError, r"only N may be 0, got \(2, 0, 20\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(minidl.ones(2, 3, 5, 6))
