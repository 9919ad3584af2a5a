"""Operations on images beside convolution and pooling: borders, adaptive pooling, pixels moved, and their layers.

Each is compared with its definition, and its gradients with differences (`check_operation`).
"""

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.testing import check_operation

F = nn.functional
NUMPYS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
X = np.random.default_rng(0).standard_normal((2, 4, 5, 6))
OPERATIONS = {  # with the size of the input
    "same": (
        lambda x: F.conv2d(x, minidl.arange(12.0, dtype=x.dtype).reshape(1, 2, 2, 3), padding="same"),
        (1, 2, 3, 3),
    ),
    "layer with a border": (
        lambda x: F.conv2d(F.pad(x, (1, 1, 0, 1), "reflect"), minidl.ones(4, 1, 2, 3, dtype=x.dtype), groups=4) * x,
        (1, 4, 3, 3),
    ),
    "reflect": (lambda x: F.pad(x, (2, 1, 0, 2), "reflect"), (1, 2, 3, 4)),
    "reflect and crop": (lambda x: F.pad(x, (-1, 2), "reflect"), (2, 4)),
    "replicate": (lambda x: F.pad(x, (1, 0, 2, 1), "replicate"), (2, 3, 2)),
    "replicate in three": (lambda x: F.pad(x, (1, 0, 2, 1, 0, 1), "replicate"), (1, 2, 2, 1, 2)),
    "circular": (lambda x: F.pad(x, (1, 2), "circular"), (1, 2, 3)),
    "adaptive mean": (lambda x: F.adaptive_avg_pool2d(x, (2, None)), (1, 2, 5, 3)),
    "adaptive maximum": (lambda x: F.adaptive_max_pool2d(x, (3, 2)) ** 2, (2, 5, 4)),
    "bicubic": (lambda x: F.interpolate(x, (4, 3), mode="bicubic"), (1, 1, 3, 4)),
    "trilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"), (1, 1, 2, 1, 2)),
    "linear": (lambda x: F.interpolate(x, 5, mode="linear", align_corners=True), (1, 2, 3)),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2) ** 2, (1, 8, 2, 1)),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2) ** 2, (2, 4, 2)),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 3) ** 2, (1, 6, 2, 1)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients(name):
    operation, size = OPERATIONS[name]
    x = minidl.randn(*size, dtype=minidl.float64, requires_grad=True)
    check_operation(operation, {"x": x})


def test_bicubic_uses_the_scale_where_the_size_stays_and_bilinear_copies():
    x = minidl.tensor([[[[1.0, 3.0]]]])
    assert F.interpolate(x, scale_factor=1.25, mode="bilinear").tolist() == x.tolist()
    y = F.interpolate(x, scale_factor=1.25, mode="bicubic")
    np.testing.assert_allclose(y.numpy().ravel(), [0.8785004, 2.4420011], rtol=1e-6)  # at -0.1 and 0.7


@pytest.mark.parametrize("mode", NUMPYS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "float16"])
def test_borders_are_numpys(mode, dtype):
    x = (X * 9).astype(dtype)
    y = F.pad(minidl.tensor(x), (3, 0, 1, 4), mode)
    np.testing.assert_array_equal(y.numpy(), np.pad(x, ((0, 0), (0, 0), (1, 4), (3, 0)), NUMPYS[mode]))
    if mode == "replicate":  # also where nothing is left of the axis
        assert minidl.equal(F.pad(minidl.tensor(x), (-6, 2, 0, 0), mode), minidl.tensor(x[..., [5, 5]]))
    cropped = F.pad(minidl.tensor(x), (-2, 1, 2, -1), mode)
    expected = np.pad(x[:, :, :-1, 2:], ((0, 0), (0, 0), (2, 0), (0, 1)), NUMPYS[mode])
    np.testing.assert_array_equal(cropped.numpy(), expected)
    layers = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d, "circular": nn.CircularPad2d}
    assert minidl.equal(layers[mode]((3, 0, 1, 4))(minidl.tensor(x)), y)


@pytest.mark.parametrize("mode", ["zeros", *NUMPYS])
def test_a_layers_border(mode):
    """PyTorch's rule for "same": if the border cannot be equal on both sides, it is wider after the image."""
    x = minidl.tensor(X)
    for padding, widths in {(1, 2): (2, 2, 1, 1), "same": (1, 1, 1, 2), "valid": (0, 0, 0, 0)}.items():
        layer = nn.Conv2d(4, 6, (4, 3), padding=padding, padding_mode=mode, groups=2, dtype=minidl.float64)
        padded = np.pad(X, ((0, 0), (0, 0), widths[2:], widths[:2]), NUMPYS.get(mode, "constant"))
        expected = F.conv2d(minidl.tensor(padded), layer.weight, layer.bias, groups=2)
        assert minidl.allclose(layer(x), expected, rtol=1e-12, atol=1e-12)
        if padding == "same":
            assert layer(x).shape == (2, 6, 5, 6)


@pytest.mark.parametrize("size", [(2, 3), (5, 6), (7, 1), (0, 2), 4, (None, 5)])
def test_adaptive_pooling(size):
    x = minidl.tensor(X)
    oh, ow = (size, size) if isinstance(size, int) else (size[0] if size[0] is not None else 5, size[1])
    mean, (most, indices) = F.adaptive_avg_pool2d(x, size), F.adaptive_max_pool2d(x, size, return_indices=True)
    assert mean.shape == most.shape == indices.shape == (2, 4, oh, ow)
    for i in range(oh):
        for j in range(ow):
            rows, columns = (slice(k * n // m, -(-(k + 1) * n // m)) for k, n, m in ((i, 5, oh), (j, 6, ow)))
            window = X[:, :, rows, columns]
            np.testing.assert_allclose(mean[:, :, i, j].numpy(), window.mean((2, 3)), 1e-13, 1e-15)
            np.testing.assert_array_equal(most[:, :, i, j].numpy(), window.max((2, 3)))
    np.testing.assert_array_equal(
        np.take_along_axis(X.reshape(2, 4, 30), indices.numpy().reshape(2, 4, -1), 2), most.numpy().reshape(2, 4, -1)
    )
    assert nn.AdaptiveMaxPool2d(size, return_indices=True)(x)[1].tolist() == indices.tolist()


def test_pixels_and_channels_moved():
    x = minidl.tensor(X)
    y = F.pixel_shuffle(x, 2)
    for c, i, j in np.ndindex(1, 2, 2):
        np.testing.assert_array_equal(y[:, c, i::2, j::2].numpy(), X[:, 4 * c + 2 * i + j])
    assert minidl.equal(nn.PixelUnshuffle(2)(nn.PixelShuffle(2)(x)), x)
    np.testing.assert_array_equal(nn.ChannelShuffle(2)(x).numpy(), X[:, [0, 2, 1, 3]])
    assert F.pixel_shuffle(x[:0], 2).shape == (0, 1, 10, 12)


def test_a_border_may_take_all_of_an_image():
    y, w = minidl.ones(2, 1, 2, 3, requires_grad=True), minidl.ones(1, 1, 3, 3, requires_grad=True)
    x = F.conv_transpose2d(y, w, minidl.ones(1), padding=2)
    assert x.shape == (2, 1, 0, 1)
    x.sum().backward()
    assert not y.grad.any()
    assert not w.grad.any()
    layer = nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1)
    assert layer(minidl.ones(1, 4, 4), output_size=(1, 8, 8)).shape == (1, 8, 8)
    with pytest.raises(ValueError, match=r"output_size must be \(H, W\) or \(C, H, W\), got 4"):
        layer(minidl.ones(1, 4, 4), output_size=(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: F.conv2d(x, x, groups=0),
            RuntimeError,
            "conv2d: groups=0 must be an int of at least 1 and divide the 2 channels",
        ),
        (lambda x: F.conv2d(x, x, groups=1.0), TypeError, r"conv2d: groups=1.0 must be an int of at least 1"),
        (lambda x: F.conv2d(x, x, groups=2), RuntimeError, "4 in input .*, but 4 in each of 2 groups in weight"),
        (
            lambda x: F.conv_transpose2d(x, x[0].unsqueeze(1), groups=3),
            RuntimeError,
            "groups=3 must be an int of at least 1 and divide the 4",
        ),
        (
            lambda x: F.conv2d(x, x, padding="all"),
            RuntimeError,
            "padding must be numbers, 'same' or 'valid', not 'all'",
        ),
        (lambda x: F.conv2d(x, x, stride=2, padding="same"), RuntimeError, "padding='same' needs stride 1, not 2"),
        (
            lambda x: nn.Conv2d(4, 6, 3, groups=4),
            ValueError,
            "groups=4 must be .* divide both in_channels=4 and out_channels=6",
        ),
        (lambda x: nn.Conv2d(4, 6, 3, 2, "same"), ValueError, r"padding must be .*, not 'same' with stride \(2, 2\)"),
        (
            lambda x: nn.ConvTranspose2d(1, 1, 3, padding_mode="reflect"),
            ValueError,
            r"padding_mode must be one of \['zeros'\]",
        ),
        (lambda x: F.pad(x, (6, 0), "reflect"), NotImplementedError, "takes widths for the last one, two or three"),
        (lambda x: F.pad(x, (6, 0, 0, 0), "reflect"), RuntimeError, "can add at most 5 to a size of 6, not 6 and 0"),
        (lambda x: F.pad(x, (1, 1, 1, 1), "mirror"), NotImplementedError, "mode must be constant, reflect"),
        (lambda x: F.pad(x, (1, 1, 1, 1), "circular", 2), RuntimeError, "mode 'circular' takes no value, and got 2"),
        (
            lambda x: F.adaptive_avg_pool2d(x, (1, 2, 3)),
            RuntimeError,
            "output_size must be one int of at least 0, or two",
        ),
        (lambda x: F.pixel_shuffle(x, 3), RuntimeError, r"sizes in \[-3\] that are multiples of a positive 3 \* 3"),
        (lambda x: nn.PixelShuffle(), TypeError, "missing a required argument: 'upscale_factor'"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(minidl.tensor(X))
