"""The deconvnet of Zeiler and Fergus (2014) as a backward pass, against the projection written out by hand."""

import numpy as np
import pytest

import minidl
from minidl import nn

F = nn.functional


def convolve(x, w):
    """(C, H, W), (O, C, 3, 3) -> (O, H, W), padded by 1, in loops."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    _, height, width = x.shape
    y = np.zeros((len(w), height, width))
    for o in range(len(w)):
        for i in range(height):
            for j in range(width):
                y[o, i, j] = (w[o] * padded[:, i : i + 3, j : j + 3]).sum()
    return y


def filter_back(y, w):
    """The transposed filters: each value adds its filter where it came from. (O, H, W) -> (C, H, W)."""
    _, height, width = y.shape
    x = np.zeros((w.shape[1], height + 2, width + 2))
    for o in range(len(w)):
        for i in range(height):
            for j in range(width):
                x[:, i : i + 3, j : j + 3] += y[o, i, j] * w[o]
    return x[:, 1:-1, 1:-1]


def pool(x):
    """The maximum of each 2 x 2 block, and the switches: where it was."""
    channels, height, width = x.shape
    y, switches = np.zeros((channels, height // 2, width // 2)), {}
    for c, i, j in np.ndindex(y.shape):
        block = x[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        di, dj = np.unravel_index(block.argmax(), (2, 2))
        y[c, i, j], switches[c, i, j] = block[di, dj], (c, 2 * i + di, 2 * j + dj)
    return y, switches


def unpool(y, switches, shape):
    x = np.zeros(shape)
    for place, switch in switches.items():
        x[switch] = y[place]
    return x


def test_one_backward_pass_is_the_projection():
    rng = np.random.default_rng(4)
    image = rng.standard_normal((2, 8, 8))
    w1, w2 = rng.standard_normal((3, 2, 3, 3)), rng.standard_normal((4, 3, 3, 3))

    # By hand: forward with switches, all but the strongest activation of filter 1 set to zero, and back.
    a1 = np.maximum(convolve(image, w1), 0)
    p1, switches1 = pool(a1)
    a2 = np.maximum(convolve(p1, w2), 0)
    p2, switches2 = pool(a2)
    strongest = np.unravel_index(p2[1].argmax(), p2[1].shape)
    kept = np.zeros_like(p2)
    kept[(1, *strongest)] = p2[(1, *strongest)]
    signal = np.maximum(unpool(kept, switches2, a2.shape), 0)
    signal = np.maximum(unpool(filter_back(signal, w2), switches1, a1.shape), 0)
    by_hand = filter_back(signal, w1)

    x = minidl.tensor(image[None], requires_grad=True)
    h = F.max_pool2d(F.relu(F.conv2d(x, minidl.tensor(w1), padding=1)), 2)
    y = F.max_pool2d(F.relu(F.conv2d(h, minidl.tensor(w2), padding=1)), 2)
    with minidl.relu_rule("deconv"):
        (projection,) = minidl.grad(y, x, minidl.tensor(kept[None]), retain_graph=True)
    assert np.abs(by_hand).max() > 0
    np.testing.assert_allclose(projection.numpy()[0], by_hand, rtol=1e-12, atol=1e-12)
    (gradient,) = minidl.grad(y, x, minidl.tensor(kept[None]))
    assert not np.allclose(gradient.numpy()[0], by_hand)


def test_unpooling_with_the_switches_is_the_gradient_of_pooling():
    x = minidl.randn(2, 3, 6, 6, dtype=minidl.float64, requires_grad=True)
    y, switches = F.max_pool2d(x, 2, return_indices=True)
    gy = minidl.randn(*y.shape, dtype=minidl.float64)
    (gx,) = minidl.grad(y, x, gy)
    assert np.array_equal(gx.numpy(), F.max_unpool2d(gy, switches, 2).numpy())


@pytest.mark.parametrize("rule", ["deconv", "guided"])
def test_rules_reach_modules_too(rule):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 2), nn.ReLU())
    x = minidl.randn(1, 1, 8, 8, requires_grad=True)
    y = net(x)
    plain = minidl.grad(y.sum(), x, retain_graph=True)[0]
    with minidl.relu_rule(rule):
        other = minidl.grad(y.sum(), x)[0]
    assert not np.allclose(plain.numpy(), other.numpy())
