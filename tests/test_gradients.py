"""Every operation against finite differences, first and second, over shapes drawn by Hypothesis.

Values keep away from kinks (0, ties, bounds), where a difference quotient is no gradient.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import nn
from minidl.checks import GradcheckError, check_adjoint, gradcheck

F = nn.functional


def apart(rng, shape):
    """Values of distance at least 0.05 from each other and from 0, in random order and of random sign."""
    size = int(np.prod(shape))
    values = 0.1 + 0.05 * rng.permutation(size) / max(size / 20, 1) + 0.001 * rng.random(size)
    return (values * rng.choice([-1, 1], size)).reshape(shape)


def leaf(rng, shape, positive=False):
    x = apart(rng, shape)
    return minidl.tensor(np.abs(x) if positive else x, requires_grad=True)


# The bounds of clamp lie in gaps of at least 0.003 between the values that `apart` can draw.
UNARY = {
    "neg": lambda x: -x,
    "exp": minidl.exp,
    "abs": abs,
    "tanh": minidl.tanh,
    "relu": F.relu,
    "sigmoid": F.sigmoid,
    "clamp": lambda x: x.clamp(-0.3401, 0.4401),
    "clamp below": lambda x: x.clamp(min=0.2301),
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "power 0": lambda x: x**0,
    "reciprocal": lambda x: 1 / x,
    "base 2": lambda x: 2**x,
    "own product": lambda x: x * x,
    "own quotient": lambda x: x / x,
    "mean": lambda x: x.mean(),
    "sum 0": lambda x: x.sum(0),
    "sum -1 keepdim": lambda x: x.sum(-1, keepdim=True),
    "mean all dims": lambda x: x.mean(tuple(range(x.ndim))),
    "var": lambda x: x.var(unbiased=False),
    "var 0": lambda x: x.var(0, unbiased=False),
    "max": lambda x: x.max(),
    "max -1": lambda x: x.max(-1).values,
    "max 0 keepdim": lambda x: x.max(0, keepdim=True)[0],
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: F.log_softmax(x, 0),
    "reshape": lambda x: x.reshape(-1),
    "flatten": lambda x: x.flatten(),
    "transpose": lambda x: x.transpose(0, -1),
    "permute": lambda x: x.permute(*reversed(range(x.ndim))),
    "squeeze": lambda x: x.squeeze(),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "expand": lambda x: x.expand(2, *x.shape),
    "first": lambda x: x[0],
    "slices": lambda x: x[..., ::2],
    "new axis": lambda x: x[None, ..., None],
    "repeated rows": lambda x: x[[0, 0, -1]],
    "mask": lambda x: x[x > 0],
    "pad": lambda x: F.pad(x, (1, 2), value=3.0),
    "crop": lambda x: F.pad(x, (-1, 1)),
    "clone": lambda x: x.clone(),
    "contiguous": lambda x: x.transpose(0, -1).contiguous(),
    "stack": lambda x: minidl.stack([x, x * 2], 1),
    "to": lambda x: x.to(minidl.float64) * 2,
    "where": lambda x: minidl.where(x > 0, x * x, -x),
    "copy in place": lambda x: (x * 2).copy_(x**2),
    "add in place": lambda x: (x * 2).add_(x, alpha=3),
    "zeroed in place": lambda x: (x * 2).zero_() + x**2,
}
POSITIVE = {"log": minidl.log, "sqrt": minidl.sqrt, "power 1.5": lambda x: x**1.5, "x to x": lambda x: x**x}
BINARY = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "maximum": minidl.maximum,
    "max of two": lambda a, b: minidl.max(a, b),
    "where": lambda a, b: minidl.where(minidl.tensor(True), a, b) * b,
    "alpha": lambda a, b: minidl.add(a, b, alpha=-2),
}


@pytest.mark.parametrize("name", UNARY)
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple), seed=st.integers(0, 2**20))
def test_unary(name, shape, seed):
    assert gradcheck(UNARY[name], leaf(np.random.default_rng(seed), shape), second=True)


@pytest.mark.parametrize("name", POSITIVE)
@given(shape=st.lists(st.integers(1, 4), max_size=3).map(tuple), seed=st.integers(0, 2**20))
def test_positive(name, shape, seed):
    assert gradcheck(POSITIVE[name], leaf(np.random.default_rng(seed), shape, positive=True), second=True)


@st.composite
def broadcastable(draw):
    """Two shapes that broadcast."""
    full = draw(st.lists(st.integers(1, 3), max_size=3))
    shapes = [[draw(st.sampled_from([size, 1])) for size in full][draw(st.integers(0, len(full))) :] for _ in "ab"]
    return tuple(shapes[0]), tuple(shapes[1])


@pytest.mark.parametrize("name", BINARY)
@given(shapes=broadcastable(), seed=st.integers(0, 2**20))
def test_binary(name, shapes, seed):
    values = apart(np.random.default_rng(seed), (sum(int(np.prod(s)) for s in shapes),))
    split = int(np.prod(shapes[0]))
    a, b = values[:split].reshape(shapes[0]), values[split:].reshape(shapes[1])
    inputs = minidl.tensor(a, requires_grad=True), minidl.tensor(b, requires_grad=True)
    assert gradcheck(BINARY[name], inputs, second=True)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 2)),
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 1, 2, 3), (4, 3, 1)),
    ],
)
def test_matmul(a, b):
    rng = np.random.default_rng(1)
    assert gradcheck(minidl.matmul, [leaf(rng, a), leaf(rng, b)], second=True)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 3)])
def test_linear(shape):
    rng = np.random.default_rng(2)
    assert gradcheck(F.linear, [leaf(rng, shape), leaf(rng, (4, 3)), leaf(rng, (4,))], second=True)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse_loss(reduction):
    rng = np.random.default_rng(3)
    assert gradcheck(lambda x, t: F.mse_loss(x, t, reduction), [leaf(rng, (2, 3)), leaf(rng, (2, 3))], second=True)


def test_cat():
    rng = np.random.default_rng(4)
    parts = [leaf(rng, (2, n, 2)) for n in (1, 3, 2)]
    assert gradcheck(lambda *x: minidl.cat(x, 1), parts, second=True)


def test_assignment_to_an_index():
    def assign(x, v):
        y = x * 2
        y[:, 1] = v
        y[0] += 3 * v[0]
        y[1] *= 2
        return y

    rng = np.random.default_rng(5)
    assert gradcheck(assign, [leaf(rng, (2, 3)), leaf(rng, (2,))], second=True)


def test_dropout_scales_what_it_keeps():
    x = minidl.ones(1000, requires_grad=True)
    y = F.dropout(x, 0.25)
    y.sum().backward()
    assert set(np.unique(y.detach().numpy())) == {0, np.float32(1 / 0.75)}
    assert 200 < (y == 0).sum().item() < 300
    assert (x.grad == y).numpy().all()
    assert F.dropout(x, 0.25, training=False) is x


@given(data=st.data())
def test_convolutions(data):
    transposed, n = data.draw(st.booleans()), data.draw(st.integers(0, 2))
    pairs = st.tuples(st.integers(1, 2), st.integers(1, 2))
    kernel, stride, dilation = data.draw(pairs), data.draw(pairs), data.draw(pairs)
    padding = data.draw(st.tuples(st.integers(0, 1), st.integers(0, 1)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    x, w, b = leaf(rng, (n, 2, 3, 4)), leaf(rng, (2, 2, *kernel)), leaf(rng, (2,))

    def conv(x, w, b):
        function = F.conv_transpose2d if transposed else F.conv2d
        return function(x, w, b, stride, padding, dilation=dilation)

    assert gradcheck(conv, [x, w, b], second=True)


def test_transposed_convolution_is_the_adjoint_of_convolution():
    w, x, y = minidl.randn(4, 3, 3, 3), minidl.randn(2, 3, 7, 8), minidl.randn(2, 4, 4, 4)
    assert check_adjoint(
        lambda x: F.conv2d(x, w, stride=2, padding=1),
        lambda y: F.conv_transpose2d(y, w, stride=2, padding=1, output_padding=(0, 1)),
        x,
        y,
    )


# -- the checkers themselves must fail on a wrong gradient ------------------------------------------------------

WRONG = {
    "factor": lambda x: minidl.autograd.record("wrong", x.array**2, (x, lambda gy: gy * x)),
    "sign": lambda x: minidl.autograd.record("wrong", -x.array, (x, lambda gy: gy)),
    "one element": lambda x: minidl.autograd.record(
        "wrong", x.array * 1, (x, lambda gy: gy * minidl.tensor([1.0, 1.0, 1.01], dtype=minidl.float64))
    ),
    "nan": lambda x: minidl.autograd.record("wrong", x.array * 1, (x, lambda gy: gy * float("nan"))),
    "softmax without its sum": lambda x: minidl.autograd.record(
        "wrong", np.exp(x.array) / np.exp(x.array).sum(), (x, lambda gy, y: gy * y), keep_output=True
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_gradcheck_notices_a_wrong_gradient(name):
    x = minidl.tensor([0.3, -0.5, 0.7], dtype=minidl.float64, requires_grad=True)
    with pytest.raises(GradcheckError, match=r"the gradient in input 0 of shape \(3,\) is wrong in \d of 3"):
        gradcheck(WRONG[name], x)
    assert not gradcheck(WRONG[name], x, raise_exception=False)


def test_gradcheck_notices_a_wrong_second_gradient():
    def square(x):  # its gradient holds the right number, but is cut off from the graph
        return minidl.autograd.record("square", x.array**2, (x, lambda gy: gy * x.detach() * 2))

    x = minidl.tensor([0.3, -0.5], dtype=minidl.float64, requires_grad=True)
    assert gradcheck(square, x)
    with pytest.raises(GradcheckError, match="second gradient"):
        gradcheck(square, x, second=True)


def test_gradcheck_refuses_float32_and_constants():
    with pytest.raises(ValueError, match="input 0 is float32"):
        gradcheck(minidl.exp, minidl.ones(2, requires_grad=True))
    with pytest.raises(ValueError, match="no input requires grad"):
        gradcheck(minidl.exp, minidl.ones(2))


def test_check_adjoint_notices_a_map_that_is_not_the_adjoint():
    a, x, y = minidl.randn(3, 2), minidl.randn(2), minidl.randn(3)
    assert check_adjoint(lambda x: a @ x, lambda y: a.T @ y, x, y)
    with pytest.raises(AssertionError, match="they differ by"):
        check_adjoint(lambda x: a @ x, lambda y: a.T @ y * 1.001, x, y)
    with pytest.raises(AssertionError, match=r"adjoint returned shape \(3,\) instead of \(2,\)"):
        check_adjoint(lambda x: a @ x, lambda y: y, x, y)
