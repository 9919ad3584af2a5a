"""The tape of examples/tiny_tape.py, which teaches: its gradients, its size, and the files that it points to."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl.data import SyntheticDigits

ROOT = Path(minidl.__file__).parents[1]
SCRIPT = ROOT / "examples" / "tiny_tape.py"
sides = st.integers(1, 3)


@pytest.fixture(scope="module")
def tape():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import tiny_tape
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return tiny_tape


def away_from_zero(rng, shape):
    """Values whose ReLU has no kink near by."""
    return rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)


def differences(function, arrays, gy, h=1e-6):
    """The gradient of <function(arrays), gy> in each element of each array, by central differences."""
    result = []
    for array in arrays:
        gx = np.empty(array.shape)
        for i in np.ndindex(array.shape):
            value = array[i]
            array[i] = value + h
            above = np.vdot(function(*arrays), gy)
            array[i] = value - h
            below = np.vdot(function(*arrays), gy)
            array[i] = value
            gx[i] = (above - below) / (2 * h)
        result.append(gx)
    return result


def check(tape, function, *shapes):
    """Compare the gradients of a function of tensors with central differences of the same function of arrays."""
    rng = np.random.default_rng(sum(map(sum, shapes)))
    arrays = [np.asarray(away_from_zero(rng, shape)) for shape in shapes]
    tensors = [tape.Tensor(array) for array in arrays]
    y = function(*tensors)
    gy = rng.normal(size=y.shape)
    gradients = tape.backward((y * tape.Tensor(gy)).sum())
    wanted = differences(lambda *arrays: function(*map(tape.Tensor, arrays)).array, arrays, gy)
    for x, gx in zip(tensors, wanted, strict=True):
        np.testing.assert_allclose(gradients[x], gx, rtol=1e-6, atol=1e-6)


@given(st.lists(sides, max_size=3), st.data())
def test_sums_and_products_broadcast(tape, shape, data):
    ones = data.draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    front = data.draw(st.integers(0, len(shape)))
    other = [1 if one else size for one, size in zip(ones, shape, strict=True)][front:]
    for a, b in ((shape, other), (other, shape)):
        check(tape, lambda a, b: a + b, a, b)
        check(tape, lambda a, b: a * b, a, b)


@given(sides, sides, sides)
def test_matrix_products_reshape_relu_and_softmax(tape, n, i, o):
    check(tape, lambda a, b: a @ b, (n, i), (i, o))
    check(tape, lambda x: x.reshape(o * n, i), (n, i, o))
    check(tape, lambda x: x.relu(), (n, i, o))
    check(tape, lambda x: x.sum(), (n, i, o))
    check(tape, lambda x: tape.log_softmax(x), (n, i + 1))


conv_sizes = st.tuples(sides, sides, sides, st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3))


@given(conv_sizes)
def test_convolution(tape, sizes):
    n, c, o, k, s, more_height, more_width = sizes
    check(tape, lambda x, w: tape.conv2d(x, w, s), (n, c, k + more_height, k + more_width), (o, c, k, k))


@given(conv_sizes)
def test_a_pixel_of_a_convolution_is_a_window_times_a_filter(tape, sizes):
    n, c, o, k, s, more_height, more_width = sizes
    rng = np.random.default_rng(n)
    x, w = rng.normal(size=(n, c, k + more_height, k + more_width)), rng.normal(size=(o, c, k, k))
    y = tape.conv2d(tape.Tensor(x), tape.Tensor(w), s).array
    assert y.shape == (n, o, more_height // s + 1, more_width // s + 1)
    for i, j in np.ndindex(y.shape[2:]):
        window = x[:, None, :, i * s : i * s + k, j * s : j * s + k]  # (N, 1, C, K, K)
        np.testing.assert_allclose(y[:, :, i, j], (window * w).sum(axis=(2, 3, 4)), rtol=1e-12, atol=1e-12)


@given(conv_sizes)
def test_col2im_is_the_adjoint_of_im2col(tape, sizes):
    n, c, _, k, s, more_height, more_width = sizes
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, c, k + more_height, k + more_width))
    columns = tape.im2col(x, k, s)
    other = rng.normal(size=columns.shape)
    assert np.vdot(columns, other) == pytest.approx(np.vdot(x, tape.col2im(other, x.shape, k, s)), abs=1e-12)


def test_what_is_used_twice_gets_both_gradients(tape):
    x = tape.Tensor(3.0)
    y = x * x
    gradients = tape.backward(y * y + y)  # x^4 + x^2
    assert gradients[x] == 4 * 3**3 + 2 * 3
    assert gradients[y] == 2 * 9 + 1


def test_a_long_chain_needs_no_recursion(tape):
    x = y = tape.Tensor(1.0)
    for _ in range(10_000):
        y = y + x
    assert tape.backward(y)[x] == 10_001


def test_its_checks_notice_a_wrong_gradient(tape, monkeypatch):
    monkeypatch.setattr(tape, "col2im", lambda columns, shape, k, s: np.zeros(shape))
    monkeypatch.setattr(tape, "SyntheticDigits", lambda n, seed=0: SyntheticDigits(8, seed=seed))  # all that it checks
    with pytest.raises(AssertionError, match="difference quotient"):
        tape.main()


def test_the_script_trains_and_its_checks_hold(capsys):
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert re.search(r"epoch 5: loss 0\.\d+, 9\d\.\d% of 500", capsys.readouterr().out)


def test_it_stays_short():
    assert len(SCRIPT.read_text().splitlines()) <= 250


def test_the_files_that_it_points_to_exist():
    named = set(re.findall(r"``(minidl/[\w/]+\.py)``", SCRIPT.read_text()))
    assert len(named) >= 16
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
