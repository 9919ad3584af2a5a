"""Properties that no other test states without PyTorch: each was found when the fault against it survived.

See test_mutations.py. At kinks and ties the gradient is a convention, which is PyTorch's.
"""

import numpy as np
import pytest
from hypothesis import given

import minidl
from minidl import gradcheck, gradgradcheck
from minidl.autograd import record
from minidl.kernels import ConvGeometry, PoolGeometry
from minidl.kernels._memory import empty
from minidl.testing import conv_geometries

F = minidl.nn.functional
AT_KINKS = {
    "abs": (abs, [0.0, -2.0], [0, -1]),
    "clamp": (lambda x: x.clamp(-1, 1), [-2.0, -1.0, 1.0, 2.0], [0, 1, 1, 0]),
    "power 0": (lambda x: x**0, [0.0, 2.0], [0, 0]),
    "power of a tensor of 0": (lambda x: x ** minidl.zeros(2), [0.0, 2.0], [0, 0]),
    "power of base 0": (lambda p: minidl.zeros(2) ** p, [0.0, 2.0], [0, 0]),
    "max of equals": (lambda x: x.max(), [1.0, 3.0, 3.0], [0, 0.5, 0.5]),
    "maximum of equals": (lambda x: minidl.maximum(x, minidl.ones(2)), [1.0, 2.0], [0.5, 1]),
}


@pytest.mark.parametrize("name", AT_KINKS)
def test_gradient_at_a_kink(name):
    function, x, expected = AT_KINKS[name]
    x = minidl.tensor(x, requires_grad=True)
    function(x).sum().backward()
    assert x.grad.tolist() == expected


def test_gradient_of_permute_is_the_way_back():
    """Of equal sizes and in a circle: the way back of an exchange, or of a reversal, is the way there."""
    x = minidl.randn(2, 2, 2, dtype=minidl.float64, requires_grad=True)
    assert gradcheck(lambda x: x.permute(1, 2, 0), x)


def test_softmax_of_large_logits():
    x = minidl.tensor([1e4, 0.0])
    assert x.softmax(0).tolist() == [1, 0]
    assert F.log_softmax(x, 0).tolist() == [0, -1e4]


@pytest.mark.parametrize(("before", "after"), [(3, 7), (5, 3), (4, 8), (4, 1)])
def test_interpolation_of_a_line(before, after):
    x, i = np.random.default_rng(0).standard_normal(before), np.arange(after)
    image = minidl.tensor(x.reshape(1, 1, 1, before))

    def row(**mode):
        return F.interpolate(image, (1, after), **mode).numpy().reshape(after)

    def between(positions):
        return np.interp(positions, np.arange(before), x)

    step = before / after
    assert np.array_equal(row(mode="nearest"), x[np.floor(i * step).astype(int)])
    np.testing.assert_allclose(row(mode="bilinear"), between((i + 0.5) * step - 0.5), 1e-12)
    corners = between(i * (before - 1) / max(after - 1, 1))
    np.testing.assert_allclose(row(mode="bilinear", align_corners=True), corners, 1e-12)


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d", "linear"])
def test_third_gradients(name):
    function, shape = getattr(F, name), (2, 2) if name == "linear" else (2, 2, 2, 2)
    x, w = (minidl.randn(shape, dtype=minidl.float64, requires_grad=True) for _ in "xw")

    def gradient(x, w):
        return minidl.grad((function(x, w) ** 2).sum(), (x, w), create_graph=True)

    assert gradgradcheck(gradient, (x, w))


@given(conv_geometries())
def test_size_of_a_transposed_convolution(g):
    """From the first tap of the first pixel to the last of the last, but for the padding on either side."""
    back = ConvGeometry.of_conv_transpose2d(g.map_shape, g.weight_shape, g.stride, 0, 0, g.dilation)
    for pixels, taps, s, d, size in zip(g.map_size, g.kernel, g.stride, g.dilation, back.image_size, strict=True):
        met = {i * s + u * d for i in range(pixels) for u in range(taps)}
        assert size == max(met) + 1


@pytest.mark.parametrize(
    ("length", "window", "stride", "padding", "down", "up"),  # the last: no window lies in padding alone
    [(5, 2, 2, 0, 2, 3), (4, 2, 2, 0, 2, 2), (4, 3, 2, 0, 1, 2), (5, 2, 5, 1, 2, 2), (5, 3, 3, 1, 2, 2)],
)
def test_number_of_windows(length, window, stride, padding, down, up):
    for ceil_mode, number in ((False, down), (True, up)):
        g = PoolGeometry.of_avg_pool2d((1, 1, length, length), window, stride, padding, ceil_mode)
        assert g.map_size == (number, number)


def test_a_node_is_passed_after_all_that_use_it():
    passed = []

    def watched(x):
        return record("watched", x.array * 1, (x, lambda gy: passed.append(gy.item()) or gy))

    x = minidl.tensor(1.0, requires_grad=True)
    y = watched(x)
    (y + (y + y)).backward()
    assert passed == [3]


def test_the_gradient_of_a_leaf_in_itself_has_memory_of_its_own():
    x, seed = minidl.ones(2, requires_grad=True), minidl.ones(2)
    x.backward(seed)
    x.grad.zero_()
    assert seed.tolist() == [1, 1]


def test_a_recorded_gradient_stays_in_the_graph():
    x = minidl.tensor(2.0, requires_grad=True)
    (x**3).backward(create_graph=True)
    assert x.grad.requires_grad


def test_memory_that_was_given_back_is_handed_out_once():
    size, kind = (2**16,), np.dtype(np.float64)
    empty(size, kind)
    first, second = empty(size, kind), empty(size, kind)
    assert not np.shares_memory(first, second)


@pytest.mark.parametrize("groups", [1, 2])
def test_each_parameter_takes_its_own_gradient(groups):
    p, q = minidl.ones(2, requires_grad=True), minidl.ones(2, requires_grad=True)
    p.grad, q.grad = minidl.ones(2), 3 * minidl.ones(2)
    minidl.optim.SGD([p, q] if groups == 1 else [{"params": [p]}, {"params": [q]}], lr=0.25).step()
    assert (p.tolist(), q.tolist()) == ([0.75, 0.75], [0.25, 0.25])
