"""Convolution and transposed convolution against PyTorch: 250 drawn cases of each, the output and every gradient."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from tests.helpers.with_torch import BOTH, GRAD, array, count, same, torch

LIMIT = {"float32": 1e-5, "float64": 1e-10}
seen = {(op, dtype): [0, 0.0] for op in ("conv2d", "conv_transpose2d") for dtype in LIMIT}  # cases, largest error


def pair(least, most):
    """An int, or a pair of them."""
    return st.integers(least, most) | st.tuples(st.integers(least, most), st.integers(least, most))


def two(value):
    return value if isinstance(value, tuple) else (value, value)


@st.composite
def cases(draw, op):
    """Shapes of input, weight and bias (or None), and the arguments, of a call that is valid."""
    kernel = two(draw(pair(1, 5)))
    settings = {"stride": draw(pair(1, 3)), "padding": draw(pair(0, 3)), "dilation": draw(pair(1, 3))}
    s, p, d = map(two, settings.values())
    batch, a, b = draw(st.integers(0, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    reach = [e * (k - 1) + 1 for k, e in zip(kernel, d, strict=True)]
    if op == "conv2d":
        size = [max(1, r - 2 * q) + draw(st.integers(0, 8)) for r, q in zip(reach, p, strict=True)]
    else:
        extra = settings["output_padding"] = draw(pair(0, min(map(max, s, d)) - 1))
        least = [max(1, -(-(2 * q + 1 - r - e) // t) + 1) for r, q, e, t in zip(reach, p, two(extra), s, strict=True)]
        size = [n + draw(st.integers(0, 5)) for n in least]
    g = settings["groups"] = draw(st.integers(1, 3))
    image = (batch, a * g, *size) if draw(st.booleans()) else (a * g, *size)
    weight = ((b * g, a) if op == "conv2d" else (a * g, b)) + kernel
    return image, weight, (b * g,) if draw(st.booleans()) else None, settings


def forms(m, op, tensors, gy, settings):
    """The output, and the gradients in input, weight and bias."""
    xs = [m.tensor(t, requires_grad=True) for t in tensors]
    y = getattr(m.nn.functional, op)(*xs, **settings)
    gs = GRAD[m](y, xs, m.tensor(gy))
    return y, *gs


@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize("op", ["conv2d", "conv_transpose2d"])
def test_output_and_gradients(op, dtype):
    @settings(max_examples=250)
    @given(case=cases(op), seed=st.integers(0, 2**16))
    def compare(case, seed):
        *shapes, arguments = case
        rng = np.random.default_rng(seed)
        tensors = [rng.standard_normal(shape).astype(dtype) for shape in shapes if shape]
        shape = getattr(torch, op)(*[torch.zeros(t.shape) for t in tensors], **arguments).shape
        gy = rng.standard_normal(tuple(shape)).astype(dtype)
        ours, theirs = (forms(m, op, tensors, gy, arguments) for m in BOTH)
        sizes = forms(torch, op, [abs(t).astype("float64") for t in tensors], abs(gy).astype("float64"), arguments)
        for name, a, b, size in zip(("y", "gx", "gw", "gb"), ours, theirs, sizes, strict=False):
            assert (a.shape, str(a.dtype)) == (tuple(b.shape), dtype), name
            if a.numel():
                error = float(np.abs(array(a) - array(b)).max()) / max(float(array(size).max()), 1e-300)
                assert error <= LIMIT[dtype], f"{name}: {error:.1e} of the largest value"
                seen[op, dtype][1] = max(seen[op, dtype][1], error)
        seen[op, dtype][0] += 1
        count("convolutions", op)

    seen[op, dtype][0] = 0
    compare()
    cases_seen, error = seen[op, dtype]
    print(f"\n{op} {dtype}: {cases_seen} cases, largest relative error {error:.1e}")
    assert cases_seen >= 250


@pytest.mark.parametrize("op", ["conv2d", "conv_transpose2d"])
@settings(max_examples=25)
@given(data=st.data(), seed=st.integers(0, 2**16))
def test_second_gradients(op, data, seed):
    *shapes, arguments = data.draw(cases(op))
    rng = np.random.default_rng(seed)
    tensors = [rng.standard_normal(shape) for shape in shapes if shape]

    def second(m):
        xs = [m.tensor(t, requires_grad=True) for t in tensors]
        y = getattr(m.nn.functional, op)(*xs, **arguments)
        gs = GRAD[m]((y * y).sum(), xs, create_graph=True)
        found = GRAD[m](sum((g * g * g).sum() for g in gs), xs, allow_unused=True)
        return [m.zeros_like(x) if g is None else g for x, g in zip(xs, found, strict=True)]

    ours, theirs = (second(m) for m in BOTH)
    for a, b in zip(ours, theirs, strict=True):
        assert tuple(a.shape) == tuple(b.shape)
        np.testing.assert_allclose(array(a), array(b), 1e-8, 1e-8 * (1 + np.abs(array(b)).max(initial=0)))
    count("convolutions", op)


def test_positional_order_of_arguments():
    rng = np.random.default_rng(0)
    x, w, v, b = (rng.standard_normal(s) for s in ((1, 2, 7, 7), (3, 2, 3, 3), (2, 3, 3, 3), (3,)))
    calls = {
        "conv2d": (w, (b, 2, 1, 2, 1), (None, (2, 1), (0, 1), 1)),
        "conv_transpose2d": (v, (b, 2, 1, 1, 1, 2), (None, (3, 2), 1, (2, 0), 1, (1, 2))),
    }
    for op, (weight, *others) in calls.items():
        for rest in others:
            given = (x, weight, *rest)
            y, z = (getattr(m, op)(*[m.tensor(t) if isinstance(t, np.ndarray) else t for t in given]) for m in BOTH)
            same(y, z, zeros=False)


@pytest.mark.parametrize("output_size", [(9, 10), [2, 3, 10, 9], (10, 10)])
def test_output_size_of_a_transposed_convolution(output_size):
    x = np.random.default_rng(0).standard_normal((2, 2, 5, 5)).astype("float32")
    ours = minidl.nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1)
    theirs = torch.nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1)
    ours.load_state_dict(theirs.state_dict())
    same(ours(minidl.tensor(x), output_size), theirs(torch.tensor(x), output_size), zeros=False)
