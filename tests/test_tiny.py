"""Run this first, after any edit: ten facts on which all else rests, in two seconds once the kernels are compiled.

Each test can be checked by hand. Where one fails, mend that before looking at the rest of the suite.
"""

import numpy as np

import minidl
from minidl import nn
from minidl.kernels import ConvGeometry, reference

F = nn.functional


def test_gradient_of_a_product_is_the_other_factor():
    a, b = minidl.tensor(2.0, requires_grad=True), minidl.tensor(5.0, requires_grad=True)
    (a * b).backward()
    assert (a.grad.item(), b.grad.item()) == (5, 2)


def test_gradients_of_two_uses_add_up():
    """y = x^2 + 3x, so dy/dx = 2x + 3; the graph has a diamond, and its nodes are visited in topological order."""
    x = minidl.tensor(4.0, requires_grad=True)
    (x * x + 3 * x).backward()
    assert x.grad.item() == 11


def test_gradient_of_a_broadcast_is_a_sum():
    row, matrix = minidl.tensor([1.0, 2.0], requires_grad=True), minidl.ones(3, 2)
    (row + matrix).sum().backward()
    assert row.grad.tolist() == [3, 3]


def test_gradient_of_a_matrix_product():
    """Y = A B: dA = dY B^T and dB = A^T dY."""
    a, b = minidl.randn(2, 3, requires_grad=True), minidl.randn(3, 4, requires_grad=True)
    gy = minidl.randn(2, 4)
    (a @ b).backward(gy)
    np.testing.assert_allclose(a.grad.numpy(), gy.numpy() @ b.detach().numpy().T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(b.grad.numpy(), a.detach().numpy().T @ gy.numpy(), rtol=1e-5, atol=1e-6)


def test_convolution_is_a_sum_over_the_taps_of_its_kernel():
    x, w = minidl.arange(9.0).reshape(1, 1, 3, 3), minidl.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]])
    assert F.conv2d(x, w).tolist() == [
        [[[4 * 1000 + 3 * 100 + 1 * 10 + 0, 5421], [7 * 1000 + 6 * 100 + 4 * 10 + 3, 8754]]]
    ]


def test_transposed_convolution_is_the_adjoint_of_convolution():
    """<A x, y> = <x, At y> for any x and y, so one is the other's backward pass."""
    w = minidl.randn(3, 2, 3, 3)
    assert minidl.check_adjoint(
        lambda x: F.conv2d(x, w, stride=2, padding=1),
        lambda y: F.conv_transpose2d(y, w, stride=2, padding=1),
        (2, 2, 5, 5),
        (2, 3, 3, 3),
    )


def test_the_compiled_convolution_is_its_definition_in_numpy():
    g = ConvGeometry.of_conv2d((2, 3, 6, 5), (4, 3, 3, 3), 1, 1)
    x, w = minidl.randn(*g.image_shape), minidl.randn(*g.weight_shape)
    y = F.conv2d(x, w, padding=1).numpy()
    np.testing.assert_allclose(y, reference.conv2d(x.numpy(), w.numpy(), g), rtol=1e-4, atol=1e-5)


def test_gradients_of_a_small_network_are_difference_quotients():
    def loss(x, w, v, b):
        features = F.max_pool2d(minidl.tanh(F.conv2d(x, w)), 2)  # (2, 2, 2, 2)
        return F.cross_entropy(F.linear(features.flatten(1), v, b), minidl.tensor([0, 2]))

    shapes = (2, 1, 5, 5), (2, 1, 2, 2), (3, 8), (3,)
    assert minidl.gradcheck(loss, [minidl.randn(s, dtype=minidl.float64, requires_grad=True) for s in shapes])


def test_training_steps_reduce_the_loss():
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer, x = minidl.optim.Adam(model.parameters(), lr=0.01), minidl.rand(32, 2)
    losses = []
    for _ in range(30):
        loss = F.mse_loss(model(x), x.sum(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_model_is_saved_and_loaded_to_the_bit(tmp_path):
    one, other, x = nn.Linear(3, 2), nn.Linear(3, 2), minidl.randn(4, 3)
    assert one(x).tolist() != other(x).tolist()
    minidl.save(one.state_dict(), tmp_path / "model.npz")
    other.load_state_dict(minidl.load(tmp_path / "model.npz"))
    assert one(x).tolist() == other(x).tolist()
