"""The kernels: the reference against loops, the compiled ones against the reference."""

import functools
import inspect
import itertools
import threading
from collections.abc import Callable
from types import ModuleType

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import kernels
from minidl.kernels import ConvGeometry, PoolGeometry, reference
from minidl.kernels.cpu import _exponential, _threads, convolution, pooling, products, tile
from minidl.kernels.cpu._vectors import VECTOR_BYTES
from minidl.optim.adam import bias_corrected
from minidl.testing import conv_geometries
from tests.helpers.grouped import grouped

BACKENDS = [reference, kernels]
DTYPES = [np.float32, np.float64]
CONVOLUTIONS = ["conv2d", "conv2d_input", "conv2d_weight"]
ELEMENTWISE = [
    "add",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "tanh_backward",
    "erf",
    "scaled_difference",
    "scaled_logistic_difference",
]
TOLERANCE = {np.float32: 2e-6, np.float64: 4e-15}

seeds = st.integers(0, 2**32 - 1)
backends = pytest.mark.parametrize("backend", BACKENDS, ids=lambda m: m.__name__.split(".")[-1])
dtypes = pytest.mark.parametrize("dtype", DTYPES)
convolutions = pytest.mark.parametrize("name", CONVOLUTIONS)


def draw_arrays(geometry: ConvGeometry, seed: int, dtype: type = np.float64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"x": geometry.image_shape, "w": geometry.weight_shape, "y": geometry.map_shape}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def operands(name: str, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [arrays[k] for k in {"conv2d": "xw", "conv2d_input": "yw", "conv2d_weight": "xy"}[name]]


def assert_close(actual: np.ndarray, expected: np.ndarray, size: np.ndarray, dtype: type) -> None:
    """Equal but for rounding, which scales with `size`, the same sum over absolute values."""
    assert actual.dtype == expected.dtype == dtype
    assert actual.shape == expected.shape
    assert np.all(np.abs(actual - expected) <= TOLERANCE[dtype] * size)


def naive(name: str, arrays: dict[str, np.ndarray], geometry: ConvGeometry) -> np.ndarray:
    """The derivative of the trilinear form, term by term."""
    x, w, y = arrays["x"], arrays["w"], arrays["y"]
    target = {"conv2d": y, "conv2d_input": x, "conv2d_weight": w}[name]
    result = np.zeros_like(target)
    (sh, sw), (ph, pw), (dh, dw) = geometry.stride, geometry.padding, geometry.dilation
    for n, o, i, j in np.ndindex(y.shape):
        for cw, u, v in np.ndindex(w.shape[1:]):
            c = o // (len(w) // geometry.groups) * w.shape[1] + cw  # cw counts within the group
            h, k = i * sh - ph + u * dh, j * sw - pw + v * dw
            if not (0 <= h < x.shape[2] and 0 <= k < x.shape[3]):
                continue
            if name == "conv2d":
                result[n, o, i, j] += w[o, cw, u, v] * x[n, c, h, k]
            elif name == "conv2d_input":
                result[n, c, h, k] += y[n, o, i, j] * w[o, cw, u, v]
            else:
                result[o, cw, u, v] += y[n, o, i, j] * x[n, c, h, k]
    return result


# --- Convolutions ---


@convolutions
@pytest.mark.parametrize(
    ("stride", "padding", "dilation"), [(1, 0, 1), ((2, 3), (1, 2), (2, 1)), ((3, 1), (0, 3), (1, 3))]
)
@pytest.mark.parametrize(("c", "o", "groups"), [(2, 3, 1), (4, 6, 2), (3, 3, 3)])
def test_reference_is_the_trilinear_forms_derivative(name, stride, padding, dilation, c, o, groups):
    geometry = ConvGeometry.of_conv2d((2, c, 5, 6), (o, c // groups, 3, 2), stride, padding, dilation, groups)
    arrays = draw_arrays(geometry, 0)
    actual = getattr(reference, name)(*operands(name, arrays), geometry)
    np.testing.assert_allclose(actual, naive(name, arrays, geometry), rtol=1e-13, atol=1e-13)


@backends
@given(geometry=grouped(conv_geometries()), seed=seeds)
def test_adjoint_identity(backend: ModuleType, geometry: ConvGeometry, seed: int):
    a = draw_arrays(geometry, seed)
    forms = [
        np.vdot(backend.conv2d(a["x"], a["w"], geometry), a["y"]),
        np.vdot(a["x"], backend.conv2d_input(a["y"], a["w"], geometry)),
        np.vdot(a["w"], backend.conv2d_weight(a["x"], a["y"], geometry)),
    ]
    size = np.vdot(reference.conv2d(np.abs(a["x"]), np.abs(a["w"]), geometry), np.abs(a["y"]))
    assert max(forms) - min(forms) <= 1e-14 * size


@dtypes
@convolutions
@given(geometry=grouped(conv_geometries()), seed=seeds)
def test_convolution_equals_reference(name: str, dtype: type, geometry: ConvGeometry, seed: int):
    a = operands(name, draw_arrays(geometry, seed, dtype))
    expected, size = (getattr(reference, name)(*b, geometry) for b in (a, [np.abs(v) for v in a]))
    assert_close(getattr(convolution, name)(*a, geometry), expected, size, dtype)


LAYERS = {
    "one channel in": ((64, 1, 28, 28), (16, 1, 3, 3), 2, 1),
    "kernel as large as the image": ((64, 32, 7, 7), (64, 32, 7, 7), 1, 0),
    "one channel out": ((3, 16, 28, 28), (1, 16, 3, 3), 1, 1),
    "three channels out of four lanes": ((3, 5, 9, 8), (3, 5, 3, 3), 1, 0),
    "groups that overlap": ((4, 3, 12, 11), (8, 3, 5, 5), 1, 2),
    "two channels out": ((2, 7, 9, 8), (2, 7, 2, 3), 1, 0),
    "ragged vectors": ((2, 37, 9, 11), (41, 37, 3, 2), 1, 1),
    "many pixels": ((19, 2, 30, 30), (3, 2, 3, 3), 1, 1),
    "many taps": ((1, 50, 12, 12), (20, 50, 5, 5), (1, 2), 2),
    "groups of channels": ((2, 36, 9, 8), (24, 12, 3, 3), 1, 1, 1, 3),
    "groups with few channels out": ((2, 12, 9, 8), (6, 4, 3, 3), 2, 1, 1, 3),
    "depthwise": ((3, 37, 12, 9), (37, 1, 3, 5), (1, 2), (1, 3), (2, 1), 37),
}


@dtypes
@convolutions
@pytest.mark.parametrize("layer", LAYERS)
def test_convolution_of_real_size_equals_reference(name: str, dtype: type, layer: str):
    geometry = ConvGeometry.of_conv2d(*LAYERS[layer])
    a = operands(name, draw_arrays(geometry, 1, dtype))
    expected, size = (getattr(reference, name)(*b, geometry) for b in (a, [np.abs(v) for v in a]))
    assert_close(getattr(convolution, name)(*a, geometry), expected, size, dtype)


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


ORDERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "channels last": channels_last,
    "Fortran": np.asfortranarray,
    "reversed": lambda x: np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1],
    "every second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "read-only": lambda x: np.broadcast_to(x, x.shape),
}


@convolutions
@pytest.mark.parametrize("order", ORDERS)
def test_convolution_takes_any_memory_order_and_changes_no_input(name: str, order: str):
    geometry = ConvGeometry.of_conv2d((2, 3, 7, 6), (4, 3, 3, 2), (2, 1), 1)
    a = operands(name, draw_arrays(geometry, 2))
    expected = getattr(convolution, name)(*a, geometry)
    given_arrays = [ORDERS[order](v) for v in a]
    np.testing.assert_array_equal(getattr(convolution, name)(*given_arrays, geometry), expected)
    for before, after in zip(a, given_arrays, strict=True):
        np.testing.assert_array_equal(before, after)


@convolutions
@pytest.mark.parametrize("n", [0, 2])
def test_convolution_memory_order_of_results(name: str, n: int):
    geometry = ConvGeometry.of_conv2d((n, 3, 7, 6), (4, 3, 3, 2), 1, 1)
    result = getattr(convolution, name)(*operands(name, draw_arrays(geometry, 0)), geometry)
    in_order = result if name == "conv2d_weight" else result.transpose(0, 2, 3, 1)
    assert in_order.flags.c_contiguous


@backends
def test_convolution_with_no_input_channels_is_zero(backend: ModuleType):
    geometry = ConvGeometry.of_conv2d((2, 0, 5, 5), (4, 0, 3, 3))
    y = backend.conv2d(np.ones(geometry.image_shape), np.ones(geometry.weight_shape), geometry)
    np.testing.assert_array_equal(y, np.zeros((2, 4, 3, 3)))
    geometry = ConvGeometry.of_conv_transpose2d((2, 0, 5, 5), (0, 4, 3, 3))
    x = backend.conv2d_input(np.ones(geometry.map_shape), np.ones(geometry.weight_shape), geometry)
    np.testing.assert_array_equal(x, np.zeros((2, 4, 7, 7)))


@convolutions
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize("outputs", [17, 5, 3, 1])
def test_convolution_spreads_nan_and_infinity(name: str, value: float, where: int, outputs: int):
    """Also 0 * inf, which is NaN."""
    geometry = ConvGeometry.of_conv2d((2, 3, 7, 6), (outputs, 3, 3, 3), 2, 1)
    a = operands(name, draw_arrays(geometry, 3))
    a[where][-1, -1, 1, 1] = value
    a[1 - where][:, ::2] = 0
    with np.errstate(invalid="ignore"):
        expected = getattr(reference, name)(*a, geometry)
    actual = getattr(convolution, name)(*a, geometry)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(actual), np.isinf(expected))


@pytest.mark.parametrize("layer", LAYERS)
@convolutions
def test_convolution_bits_do_not_depend_on_the_threads(name: str, layer: str):
    geometry = ConvGeometry.of_conv2d(*LAYERS[layer])
    a = operands(name, draw_arrays(geometry, 4, np.float32))
    one, all_ = on_threads(lambda: getattr(convolution, name)(*a, geometry))
    np.testing.assert_array_equal(one, all_)


def on_threads(compute: Callable[[], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The result on one thread, and on two."""
    before, small = numba.get_num_threads(), _threads.SMALL
    try:
        _threads.SMALL = 0
        numba.set_num_threads(1)
        one = compute()
        numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
        return one, compute()
    finally:
        _threads.SMALL = small
        numba.set_num_threads(before)


def test_kernels_may_be_called_from_several_threads():
    geometry = ConvGeometry.of_conv2d((4, 3, 12, 12), (16, 3, 3, 3), 1, 1)
    a = draw_arrays(geometry, 5)
    expected = convolution.conv2d(a["x"], a["w"], geometry)
    results: list[np.ndarray] = []

    def work() -> None:
        results.extend(convolution.conv2d(a["x"], a["w"], geometry) for _ in range(20))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    assert len(results) == 60
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_convolution_checks_shapes_and_types():
    geometry = ConvGeometry.of_conv2d((2, 3, 7, 6), (4, 3, 3, 2))
    a = draw_arrays(geometry, 0)
    with pytest.raises(RuntimeError, match=r"x has shape \(1, 3, 7, 6\), but its geometry says \(2, 3, 7, 6\)"):
        convolution.conv2d(a["x"][:1], a["w"], geometry)
    with pytest.raises(RuntimeError, match="one type, float32 or float64, got float64, float32"):
        convolution.conv2d(a["x"], a["w"].astype(np.float32), geometry)
    with pytest.raises(RuntimeError, match="got int64, int64"):
        convolution.conv2d(a["x"].astype(int), a["w"].astype(int), geometry)


# --- The matrix product ---


@dtypes
@given(
    m=st.integers(0, 40),
    k=st.integers(0, 40),
    n=st.integers(0, 80),
    flips=st.tuples(*[st.booleans()] * 2),
    seed=seeds,
)
def test_matmul_equals_numpy(dtype: type, m: int, k: int, n: int, flips: tuple[bool, bool], seed: int):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    given_a, given_b = (np.asfortranarray(v) if flip else v for v, flip in zip((a, b), flips, strict=True))
    assert_close(products.matmul(given_a, given_b), reference.matmul(a, b), np.abs(a) @ np.abs(b), dtype)


@dtypes
@pytest.mark.parametrize(("m", "k", "n"), [(128, 3072, 256), (300, 700, 130), (257, 1, 65)])
def test_matmul_over_many_blocks(dtype: type, m: int, k: int, n: int):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((n, k)).astype(dtype)[:, ::-1]
    one, two = on_threads(lambda: products.matmul(a, b.T))
    np.testing.assert_array_equal(one, two)
    assert_close(one, a @ b.T, np.abs(a) @ np.abs(b.T), dtype)


@dtypes
@given(st.integers(1, 3), *[st.integers(0, 9)] * 3, st.booleans(), st.booleans(), seeds)
def test_matmul_of_a_batch_equals_numpy(dtype: type, n: int, m: int, k: int, p: int, one: bool, flip: bool, seed: int):
    """With one left matrix for all, and right ones that are transposed in memory."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((n, m, k)).astype(dtype), rng.standard_normal((n, k, p)).astype(dtype)
    a = np.broadcast_to(a[:1], a.shape) if one else a
    b = b.transpose(0, 2, 1).copy().transpose(0, 2, 1) if flip else b
    assert_close(products.matmul(a, b), a @ b, np.abs(a) @ np.abs(b), dtype)


TILES = {
    "1": (tile.tile_1, 1),
    "2": (tile.tile_2, 1),
    "of 2": (tile.tile_of_groups, 2),
    "of 4": (tile.tile_of_groups, 4),
}


@pytest.mark.jit
@dtypes
@pytest.mark.parametrize("name", TILES)
@given(
    m=st.integers(1, 9),
    k=st.integers(0, 5),
    n=st.integers(1, 40),
    start=st.sampled_from([(False, False), (False, True), (True, False), (True, True)]),
    seed=seeds,
)
def test_a_tile_in_llvm_is_its_definition_in_python(name, dtype, m, k, n, start, seed):
    """Also where rows of C overlap, are dead or next to what is not to be written."""
    tile, group = TILES[name]
    n = n if group == 1 else 1 + n % (VECTOR_BYTES // np.dtype(dtype).itemsize // group)
    rng = np.random.default_rng(seed)
    a, b, c, bias = (rng.standard_normal(size).astype(dtype) for size in (40, 200, 120, 40))
    rows, cols, brows = rng.integers(0, 20, m + 2), rng.integers(0, 10, k), rng.integers(0, 100, k)
    crows = rng.integers(0, 70, m + 2)
    more = start if group == 1 else (*start, group)
    results = []
    for function in (compiled_tile(tile), inspect.unwrap(tile)):
        results.append(c.copy())
        add, *rest = more
        function(a, rows, 2, m, cols, 0, k, b, brows, 0, n, results[-1], crows, add, bias, *rest)
    np.testing.assert_allclose(*results, rtol=0, atol=100 * np.finfo(dtype).eps)


@functools.cache
def compiled_tile(tile):
    names = ", ".join(inspect.signature(inspect.unwrap(tile)).parameters)
    return numba.njit(eval(f"lambda {names}: tile({names})", {"tile": tile}))


def test_matmul_checks_shapes():
    with pytest.raises(RuntimeError, match=r"matmul: shapes \(2, 3\) and \(2, 3\) cannot be multiplied"):
        products.matmul(np.ones((2, 3)), np.ones((2, 3)))


def test_tables_are_made_once_for_all_sizes_of_a_batch():
    first, second = (convolution._tables(ConvGeometry.of_conv2d((n, 3, 8, 8), (4, 3, 3, 3), 1, 1)) for n in (1, 2))
    assert first is second


# --- Elementwise ---


def operand_count(name: str) -> int:
    return 1 if name in ("relu", "sigmoid", "erf") else 2


def elementwise(backend: ModuleType, name: str, *arrays: np.ndarray) -> np.ndarray:
    scale = (np.array(0.3, arrays[0].dtype), 1.7) if name.startswith("scaled_") else ()
    return getattr(backend, name)(*arrays, *scale)


@dtypes
@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (1000,), (3, 4, 5, 6), (2, 1, 4, 1)])
def test_elementwise_equals_reference(name: str, dtype: type, shape: tuple[int, ...]):
    rng = np.random.default_rng(0)
    a = [rng.standard_normal(shape).astype(dtype) for _ in range(operand_count(name))]
    actual, expected = (elementwise(backend, name, *a) for backend in (kernels, reference))
    assert actual.dtype == dtype
    assert actual.shape == shape
    np.testing.assert_allclose(actual, expected, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize(("first", "second"), list(itertools.product(ORDERS, ["C", *ORDERS])))
def test_elementwise_takes_any_memory_order(name: str, first: str, second: str):
    rng = np.random.default_rng(1)
    a = [rng.standard_normal((2, 3, 4, 5)) for _ in range(operand_count(name))]
    orders = [ORDERS[first], ORDERS.get(second, np.ascontiguousarray)]
    given_arrays = [order(v) for order, v in zip(orders, a, strict=False)]
    np.testing.assert_array_equal(elementwise(kernels, name, *given_arrays), elementwise(kernels, name, *a))
    for before, after in zip(a, given_arrays, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 1, 4, 5), (1, 3, 1, 1)])
def test_elementwise_keeps_channels_last(name: str, shape: tuple[int, ...]):
    x = channels_last(np.ones(shape))
    result = elementwise(kernels, name, *[x] * operand_count(name))
    assert result.transpose(0, 2, 3, 1).flags.c_contiguous


@backends
@dtypes
def test_elementwise_at_the_edges(backend: ModuleType, dtype: type):
    x = np.array([-np.inf, -1e4, -0.0, 0.0, 1e4, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(backend.relu(x), np.array([0, 0, 0, 0, 1e4, np.inf, np.nan], dtype))
    np.testing.assert_array_equal(backend.sigmoid(x), np.array([0, 0, 0.5, 0.5, 1, 1, np.nan], dtype))
    gy = np.full_like(x, np.nan)
    np.testing.assert_array_equal(backend.relu_backward(gy, x), np.array([0, 0, 0, 0, *[np.nan] * 3], dtype))
    np.testing.assert_array_equal(backend.relu_backward(x, np.full_like(x, np.nan)), x)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_bits_do_not_depend_on_the_threads(name: str):
    rng = np.random.default_rng(0)
    a = [rng.standard_normal(10_007).astype(np.float32) for _ in range(operand_count(name))]
    one, two = on_threads(lambda: elementwise(kernels, name, *a))
    np.testing.assert_array_equal(one, two)


def test_elementwise_checks_shapes():
    with pytest.raises(RuntimeError, match=r"relu_backward: shapes differ: \(2,\), \(3,\)"):
        kernels.relu_backward(np.ones(2), np.ones(3))


# --- Normalisation ---

NORMS = ["moments", "normalise", "normalise_sums", "normalise_backward"]
IMAGES = {
    "images": (5, 16, 9, 8),
    "rows": (6, 10),
    "many channels": (3, 300, 2, 2),
    "one sample": (1, 7, 41),
    "one channel": (9, 1, 5, 3),
    "many samples": (700, 3, 4, 4),
    "nothing": (0, 3, 2, 2),
    "no channels": (2, 0, 3),
}


def norm(backend: ModuleType, name: str, x: np.ndarray, order: Callable = np.ascontiguousarray) -> list[np.ndarray]:
    """What a kernel makes of x, and of a gradient and numbers for each channel."""
    rng = np.random.default_rng(0)
    gy, numbers = order(rng.standard_normal(x.shape).astype(x.dtype)), rng.standard_normal((4, x.shape[1]))
    arrays = {"moments": (x,), "normalise": (x, *numbers[:3]), "normalise_sums": (gy, x, numbers[0])}
    with np.errstate(invalid="ignore"):
        result = getattr(backend, name)(*arrays.get(name, (gy, x, *numbers)))
    return list(result) if isinstance(result, tuple) else [result]


@dtypes
@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("order", [np.ascontiguousarray, channels_last, np.asfortranarray])
def test_norms_equal_reference(name: str, dtype: type, shape: str, order: Callable):
    if order is channels_last and len(IMAGES[shape]) != 4:
        order = np.asfortranarray
    x = order((3 + 2 * np.random.default_rng(1).standard_normal(IMAGES[shape])).astype(dtype))
    for actual, expected in zip(norm(kernels, name, x, order), norm(reference, name, x, order), strict=True):
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(actual, expected, rtol=1e3 * np.finfo(dtype).eps, atol=1e3 * np.finfo(dtype).eps)
        if order is channels_last and actual.ndim == 4:
            assert actual.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("order", [np.ascontiguousarray, channels_last])
def test_bits_of_norms_do_not_depend_on_the_threads(name: str, order: Callable):
    x = order(np.random.default_rng(0).standard_normal((40, 6, 9, 7)).astype(np.float32))
    for one, two in zip(*on_threads(lambda: norm(kernels, name, x)), strict=True):
        np.testing.assert_array_equal(one, two)


@dtypes
@pytest.mark.parametrize("order", [np.ascontiguousarray, channels_last])
def test_moments_lose_no_digits_far_from_zero(dtype: type, order: Callable):
    """Not where a channel is constant, nor where its first value, from which the others are counted, is far off."""
    x = order(np.random.default_rng(0).integers(-8, 8, (50, 3, 6, 6)).astype(dtype) + dtype(2**20))
    x[:, 1], x[0, 2, 0, 0] = 3.1, -(2**20)
    mean, variance = kernels.moments(x)
    exact = x.astype(np.longdouble).transpose(1, 0, 2, 3).reshape(3, -1)
    np.testing.assert_allclose(mean, exact.mean(axis=1), rtol=1e-14)
    np.testing.assert_allclose(variance, exact.var(axis=1), rtol=1e-12)
    assert variance[1] == 0


@backends
@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("where", [0, 1])
def test_moments_of_infinities(backend: ModuleType, value: float, where: int):
    x = np.ones((2, 2, 3))
    x[where, 0, 0] = value
    with np.errstate(invalid="ignore"):
        mean, variance = backend.moments(x)
    np.testing.assert_array_equal(mean, [value, 1])
    np.testing.assert_array_equal(variance, [np.nan, 0])


# --- Optimisers ---


def plain_adam(p, gs, lr, beta1, beta2, eps, weight_decay):
    m = v = 0
    for step, g in enumerate(gs, start=1):
        g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        p = p - lr * (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + eps)
    return p


def plain_sgd(p, gs, lr, momentum, dampening, nesterov, weight_decay):
    buf = None
    for g in gs:
        g = g + weight_decay * p
        buf = g if buf is None else momentum * buf + (1 - dampening) * g
        p = p - lr * (g + momentum * buf if nesterov else buf)
    return p


@backends
@dtypes
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam(backend: ModuleType, dtype: type, weight_decay: float):
    rng = np.random.default_rng(0)
    p, gs = rng.standard_normal((5, 7)), rng.standard_normal((20, 5, 7))
    expected = plain_adam(p, gs, 0.01, 0.9, 0.99, 1e-8, weight_decay)
    p, m, v = p.astype(dtype), np.zeros((5, 7), dtype), np.zeros((5, 7), dtype)
    for step, g in enumerate(gs.astype(dtype), start=1):
        backend.adam_step([p], [g], [m], [v], bias_corrected(0.01, 0.9, 0.99, step), 0.9, 0.99, 1e-8, weight_decay)
    assert p.dtype == dtype
    np.testing.assert_allclose(p, expected, rtol=0, atol=2e-6 if dtype == np.float32 else 1e-14)


@backends
@dtypes
@pytest.mark.parametrize(
    ("momentum", "dampening", "nesterov"),
    [(0.0, 0.0, False), (0.9, 0.0, False), (0.9, 0.3, False), (0.9, 0.0, True)],
)
def test_sgd(backend: ModuleType, dtype: type, momentum: float, dampening: float, nesterov: bool):
    rng = np.random.default_rng(0)
    p, gs = rng.standard_normal((5, 7)), rng.standard_normal((20, 5, 7))
    expected = plain_sgd(p, gs, 0.01, momentum, dampening, nesterov, 0.1) if momentum else p
    if not momentum:
        for g in gs:
            expected = expected - 0.01 * (g + 0.1 * expected)
    p = p.astype(dtype)
    buf = np.zeros_like(p) if momentum else None
    for step, g in enumerate(gs.astype(dtype)):
        settings = 0.01, momentum, dampening if step else 0.0, nesterov, 0.1
        backend.sgd_step([p], [g], None if buf is None else [buf], *settings)
    assert p.dtype == dtype
    np.testing.assert_allclose(p, expected, rtol=0, atol=2e-6 if dtype == np.float32 else 1e-14)


@pytest.mark.parametrize("order", [np.asfortranarray, lambda x: np.repeat(x, 2, axis=0)[::2]])
def test_optimisers_write_into_arrays_of_any_memory_order(order: Callable[[np.ndarray], np.ndarray]):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((5, 7)) for _ in range(3)]
    expected, actual = [a.copy() for a in arrays], [order(a) for a in arrays]
    for p, g, buf in (expected, actual):
        kernels.sgd_step([p], [g], [buf], 0.1, 0.9, 0.0, False, 0.0)
    for one, two in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, two)


@backends
def test_adam_flushes_denormal_moments(backend: ModuleType):
    tiny = np.finfo(np.float32).tiny
    p, g = np.ones(3, np.float32), np.array([0, 0, np.nan], np.float32)
    m, v = np.full((2, 3), 1.01 * tiny, np.float32)
    backend.adam_step([p], [g], [m], [v], (0.01, 1.0), 0.9, 0.9, 1e-8, 0.0)
    np.testing.assert_array_equal(m, np.array([0, 0, np.nan], np.float32))
    np.testing.assert_array_equal(v, np.array([0, 0, np.nan], np.float32))


# --- Geometry ---


def test_geometry_of_a_transposed_convolution_is_that_of_the_convolution_back():
    there = ConvGeometry.of_conv_transpose2d((2, 8, 4, 5), (8, 3, 3, 3), 2, 1, (1, 0))
    assert there.image_shape == (2, 3, 8, 9)
    assert there == ConvGeometry.of_conv2d((2, 3, 8, 9), (8, 3, 3, 3), (2, 2), [1], 1)


X, W = (2, 3, 5, 6), (4, 3, 2, 2)
WT = (3, 4, 2, 2)
BOTH_WRONG = [
    ({"stride": 1.5}, TypeError, r"stride must be an int or a pair of ints, got 1\.5"),
    ({"stride": "2"}, TypeError, r"stride must be an int or a pair of ints, got '2'"),
    ({"stride": True}, TypeError, r"stride must be an int or a pair of ints, got True"),
    ({"padding": (1, None)}, TypeError, r"padding must be an int or a pair of ints, got \(1, None\)"),
    ({"stride": (1, 2, 3)}, RuntimeError, r"stride must be one int, or two .* got 3: \(1, 2, 3\)"),
    ({"stride": ()}, RuntimeError, r"stride must be one int, or two .* got 0: \(\)"),
    ({"stride": 0}, RuntimeError, r"stride must be at least 1, got 0"),
    ({"padding": -1}, RuntimeError, r"padding must be at least 0, got -1"),
    ({"dilation": (1, 0)}, RuntimeError, r"dilation must be at least 1, got \(1, 0\)"),
]
CONV2D_WRONG = [
    ((3, 5, 6, 7, 8), W, {}, r"input must be \(N, C, H, W\), or \(C, H, W\) for one image, got 5-d of shape"),
    (X, (4, 3, 2), {}, r"weight must be \(O, C, KH, KW\), got 3-d of shape \(4, 3, 2\)"),
    (
        X,
        (4, 2, 2, 2),
        {},
        r"is 3 in input \(2, 3, 5, 6\), but 2 in weight \(4, 2, 2, 2\); a weight of shape \(4, 3, 2, 2\) or",
    ),
    ((1, 3, 0, 4), W, {"padding": 2}, r"input of shape \(1, 3, 0, 4\) has no pixels"),
    (X, (0, 3, 2, 2), {}, r"at least one output channel and a kernel of 1x1, got 0 and \(2, 2\)"),
    (X, (4, 3, 0, 2), {}, r"at least one output channel and a kernel of 1x1, got 4 and \(0, 2\)"),
    (
        X,
        (4, 3, 7, 2),
        {},
        r"conv2d: kernel 7 does not fit in height 5 with padding 0: "
        r"\(5 \+ 2\*0 - 1\*\(7 - 1\) - 1\)//1 \+ 1 = -1; "
        r".* a height of 7 or more, a padding of 1 or more, or a kernel of at most 5 would fit",
    ),
    (
        X,
        (4, 3, 1, 4),
        {"dilation": 3, "padding": 1, "stride": 2},
        r"kernel 4 does not fit in width 6 with padding 1: \(6 \+ 2\*1 - 3\*\(4 - 1\) - 1\)//2 \+ 1 = 0; "
        r"at dilation 3 the kernel reaches over 10 pixels: a width of 8 or more, a padding of 2 or more, "
        r"or a kernel of at most 3 would fit",
    ),
]
TRANSPOSED_WRONG = [
    ((5, 6), WT, {}, r"input must be \(N, C_in, H, W\), or \(C_in, H, W\) for one image, got 2-d"),
    (
        X,
        W,
        {},
        r"is 3 in input \(2, 3, 5, 6\), but 4, the first size, in weight .* a weight of shape \(3, 3, 2, 2\)",
    ),
    ((1, 3, 4, 0), WT, {}, r"input of shape \(1, 3, 4, 0\) has no pixels"),
    (X, (3, 0, 2, 2), {}, r"at least one output channel"),
    (
        X,
        WT,
        {"output_padding": 1},
        r"output_padding 1 along the height must be smaller than stride 1 or dilation 1: at most 0",
    ),
    (
        X,
        WT,
        {"output_padding": (0, 2), "stride": 2},
        r"output_padding 2 along the width must be smaller than stride 2",
    ),
    (X, WT, {"output_padding": -1}, r"output_padding must be at least 0, got -1"),
    (
        X,
        WT,
        {"padding": 4},
        r"padding 4 takes more than there is of the output's height: "
        r"\(5 - 1\)\*1 - 2\*4 \+ 1\*\(2 - 1\) \+ 0 \+ 1 = -2; "
        r"a padding of at most 3 would fit",
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BOTH_WRONG)
def test_geometry_rejects_bad_steps(arguments: dict, error: type[Exception], message: str):
    with pytest.raises(error, match="^conv2d: " + message):
        ConvGeometry.of_conv2d(X, W, **arguments)
    with pytest.raises(error, match="^conv_transpose2d: " + message):
        ConvGeometry.of_conv_transpose2d(X, WT, **arguments)


@pytest.mark.parametrize(("x", "w", "arguments", "message"), CONV2D_WRONG)
def test_conv2d_geometry_explains_what_does_not_fit(x, w, arguments, message):
    with pytest.raises(RuntimeError, match=message):
        ConvGeometry.of_conv2d(x, w, **arguments)


@pytest.mark.parametrize(("x", "w", "arguments", "message"), TRANSPOSED_WRONG)
def test_conv_transpose2d_geometry_explains_what_does_not_fit(x, w, arguments, message):
    with pytest.raises(RuntimeError, match=message):
        ConvGeometry.of_conv_transpose2d(x, w, **arguments)


@given(geometry=conv_geometries())
def test_geometry_fits_as_its_messages_say(geometry: ConvGeometry):
    """What a message offers as a height, padding or kernel that would fit does."""
    x, w = geometry.image_shape, geometry.weight_shape
    tall = (w[0], w[1], w[2] + 20, w[3])
    steps = (geometry.stride, geometry.padding, geometry.dilation)
    with pytest.raises(RuntimeError) as caught:
        ConvGeometry.of_conv2d(x, tall, *steps)
    words = str(caught.value).split("pixels: ")[1].replace(",", "").split()
    height, padding, kernel = int(words[3]), int(words[9]), int(words[words.index("most") + 1])
    ConvGeometry.of_conv2d((x[0], x[1], height, x[3]), tall, *steps)
    ConvGeometry.of_conv2d(x, tall, steps[0], (padding, steps[1][1]), steps[2])
    ConvGeometry.of_conv2d(x, (w[0], w[1], kernel, w[3]), *steps)


# --- The choice of a backend ---


def test_dispatch_keeps_names_and_refuses_other_arrays():
    for name in (*CONVOLUTIONS, *ELEMENTWISE, *NORMS, "matmul", "adam_step", "sgd_step"):
        assert getattr(kernels, name).__doc__ == getattr(reference, name).__doc__
    np.testing.assert_array_equal(kernels.relu(np.array([-1.0, 2.0])), [0.0, 2.0])
    with pytest.raises(TypeError, match="arrays of NumPy or CuPy, not on list"):
        kernels.relu([1.0])  # type: ignore[arg-type]


@dtypes
def test_sigmoid_to_the_last_digits_wherever_it_is_not_0(dtype: type):
    rng, limits = np.random.default_rng(0), np.finfo(dtype)
    x = np.concatenate([rng.standard_normal(5000) * 4, rng.uniform(-800, 800, 20_000)]).astype(dtype)
    exact = 1 / (1 + np.exp(-x.astype(np.longdouble)))
    bound = np.maximum(2 * limits.eps * exact, limits.smallest_subnormal)
    assert np.all(np.abs(kernels.sigmoid(x) - exact) <= bound)
    ends = np.array([-np.inf, np.inf, np.nan, -0.0, 0.0, limits.min, limits.max], dtype)
    np.testing.assert_array_equal(kernels.sigmoid(ends), np.array([0, 1, np.nan, 0.5, 0.5, 0, 1], dtype))


@dtypes
def test_powers_of_two_from_their_bits(dtype: type):
    from_bits, limits = _exponential._power_of_two_in_bits(numba.from_dtype(np.dtype(dtype))), np.finfo(dtype)
    for n in range(limits.minexp, limits.maxexp):
        assert from_bits(dtype(n)) == _exponential._power_of_two(dtype(n)) == 2.0**n
    assert from_bits(dtype(0)).dtype == dtype


# --- Pooling; the rest is in test_pooling.py ---


@dtypes
@pytest.mark.parametrize("backend", [reference, kernels], ids=["reference", "kernels"])
def test_pick_takes_the_pixels_at_the_indices(backend: ModuleType, dtype: type):
    rng = np.random.default_rng(0)
    x, indices = rng.standard_normal((2, 3, 4, 5)).astype(dtype), rng.integers(0, 20, (2, 3, 2, 7))
    picked = np.take_along_axis(x.reshape(2, 3, 20), indices.reshape(2, 3, 14), axis=2)
    np.testing.assert_array_equal(backend.pick(x, indices), picked.reshape(2, 3, 2, 7))


def test_max_pool_refuses_what_it_is_not_compiled_for():
    geometry = PoolGeometry.of_max_pool2d((1, 1, 4, 4), 2)
    with pytest.raises(RuntimeError, match="max_pool2d: expected arrays of one type, float32 or float64, got int64"):
        pooling.max_pool2d(np.ones((1, 1, 4, 4), int), geometry)


# --- Cross-entropy ---


@dtypes
@given(
    n=st.integers(0, 5),
    c=st.integers(1, 40),
    size=st.sampled_from([(), (3,), (2, 3)]),
    scale=st.sampled_from([1, 100, 1e4]),
    seed=seeds,
)
def test_cross_entropy_equals_reference(dtype: type, n: int, c: int, size: tuple[int, ...], scale: float, seed: int):
    rng = np.random.default_rng(seed)
    x, gy = ((scale * rng.standard_normal(shape)).astype(dtype) for shape in ((n, c, *size), (n, *size)))
    classes, eps = rng.integers(0, c, (n, *size)), np.finfo(dtype).eps
    losses = reference.cross_entropy(x, classes)
    for order in (x, np.asfortranarray(x), np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)):
        found = kernels.cross_entropy(order, classes)
        assert (found.dtype, found.shape) == (dtype, losses.shape)
        np.testing.assert_allclose(found, losses, rtol=8 * eps, atol=8 * eps * (1 + np.abs(x).max(initial=0)))
        found = kernels.cross_entropy_backward(gy, order, classes)
        expected = reference.cross_entropy_backward(gy, x, classes)
        assert (found.dtype, found.shape) == (dtype, x.shape)
        np.testing.assert_allclose(found, expected, rtol=1e3 * eps, atol=20 * eps * np.abs(gy).max(initial=0))


def test_cross_entropy_of_infinite_logits_is_the_references():
    x = np.array([[np.inf, 0], [0, np.inf], [-np.inf, 0], [0, -np.inf], [np.nan, 0], [0, np.nan]])
    with np.errstate(invalid="ignore"):
        expected = reference.cross_entropy(x, np.zeros(6, np.int64))
    np.testing.assert_array_equal(kernels.cross_entropy(x, np.zeros(6, np.int64)), expected)


# --- Bias ---------------------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("name", ["conv2d", "conv2d_input"])
@given(geometry=conv_geometries(), seed=seeds)
def test_convolution_with_bias_equals_reference(name: str, dtype: type, geometry: ConvGeometry, seed: int):
    a = operands(name, draw_arrays(geometry, seed, dtype))
    channels = geometry.map_channels if name == "conv2d" else geometry.image_channels
    b = np.random.default_rng(seed).standard_normal(channels).astype(dtype)
    compute = getattr(reference, name)
    expected, size = compute(*a, geometry, b), compute(*[np.abs(v) for v in a], geometry, np.abs(b))
    assert_close(getattr(convolution, name)(*a, geometry, b), expected, size, dtype)
    np.testing.assert_allclose(
        expected - compute(*a, geometry), np.broadcast_to(b[:, None, None], expected.shape), atol=1e-4
    )


@dtypes
@given(m=st.integers(0, 20), k=st.integers(0, 300), n=st.integers(1, 80), seed=seeds)
def test_matmul_with_bias_equals_numpy(dtype: type, m: int, k: int, n: int, seed: int):
    rng = np.random.default_rng(seed)
    a, b, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), (n,)))
    size = np.abs(a) @ np.abs(b) + np.abs(bias)
    assert_close(products.matmul(a, b, bias[::-1]), a @ b + bias[::-1], size, dtype)


def test_a_bias_of_another_shape_or_type_is_refused():
    geometry = ConvGeometry.of_conv2d((2, 3, 7, 6), (4, 3, 3, 2))
    a = draw_arrays(geometry, 0)
    with pytest.raises(RuntimeError, match=r"conv2d: expected a bias of shape \(4,\), float64, not \(3,\), float64"):
        convolution.conv2d(a["x"], a["w"], geometry, np.ones(3))
    with pytest.raises(
        RuntimeError, match=r"conv2d_input: expected a bias of shape \(3,\), float64, not \(3,\), int64"
    ):
        convolution.conv2d_input(a["y"], a["w"], geometry, np.ones(3, int))
    with pytest.raises(RuntimeError, match=r"matmul: expected a bias of shape \(2,\), float64, not \(2, 1\)"):
        products.matmul(np.ones((2, 2)), np.ones((2, 2)), np.ones((2, 1)))


@given(
    n=st.integers(0, 3),
    c=st.sampled_from([1, 2, 3, 16, 300]),
    size=st.one_of(st.just(()), st.tuples(st.integers(1, 9), st.integers(1, 9))),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums(n, c, size, seed, dtype):
    y = np.random.default_rng(seed).standard_normal((n, c, *size)).astype(dtype)
    axes = (0, 2, 3)[: y.ndim - 1]
    for order in (y, np.asfortranarray(y), np.moveaxis(np.moveaxis(y, 1, -1).copy(), -1, 1), y[:, ::-1]):
        before = order.copy()
        exact, size = order.astype(np.float64).sum(), np.abs(order).sum()
        for backend in (reference, kernels):
            found = backend.total(order)
            assert (found.shape, found.dtype) == ((), dtype)
            assert abs(found - exact) <= 20 * np.finfo(dtype).eps * size
        sums, exact = kernels.channel_sums(order), order.astype(np.float64).sum(axis=axes)
        assert sums.dtype == dtype
        bound = 20 * np.finfo(dtype).eps * np.abs(order).sum(axis=axes)
        assert (np.abs(sums - exact) <= bound).all()
        assert (np.abs(reference.channel_sums(order) - exact) <= bound).all()
        assert np.array_equal(order, before)


TOTALS = ("total_squared_error", "total_logistic_loss")


@dtypes
@pytest.mark.parametrize("name", TOTALS)
@given(shape=st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(1, 12), st.integers(1, 12)), seed=seeds)
def test_total_losses(name: str, dtype: type, shape: tuple[int, ...], seed: int):
    rng, wide = np.random.default_rng(seed), np.longdouble
    x, t = (5 * rng.standard_normal(shape)).astype(dtype), rng.random(shape).astype(dtype)
    exact = getattr(reference, name)(x.astype(wide), t.astype(wide), 0.1)
    for order in (x, np.asfortranarray(x), channels_last(x), np.repeat(x, 2, axis=3)[..., ::2]):
        for backend in (reference, kernels):
            found = getattr(backend, name)(order, t, 0.1)
            assert (found.shape, found.dtype) == ((), dtype)
            assert abs(found - exact) <= 20 * np.finfo(dtype).eps * exact


@pytest.mark.jit
@pytest.mark.parametrize("name", TOTALS)
def test_total_losses_do_not_depend_on_the_threads(name: str):
    x, t = np.random.default_rng(0).random((2, 100_003), np.float32)
    np.testing.assert_array_equal(*on_threads(lambda: getattr(kernels, name)(x, t)))


@dtypes
def test_logistic_losses_to_the_last_digits(dtype: type):
    """Of each element, where nothing is summed: t = 0 leaves ln(1 + e^x)."""
    x = np.concatenate([np.linspace(-100, 100, 2001), [0.0, -0.0]]).astype(dtype)
    with np.errstate(over="ignore"):
        exact = np.logaddexp(np.longdouble(0), x.astype(np.longdouble))
    found = [kernels.total_logistic_loss(v[None], np.zeros(1, dtype)) for v in x]
    np.testing.assert_allclose(found, exact, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)


@pytest.mark.parametrize(("x", "t"), [(np.inf, 0), (-np.inf, 1), (np.inf, 1), (-np.inf, 0.5), (np.nan, 0), (0, np.nan)])
def test_logistic_losses_of_infinities(x: float, t: float):
    arrays = np.array([x], np.float32), np.array([t], np.float32)
    with np.errstate(invalid="ignore"):
        for name, more in (("total_logistic_loss", ()), ("scaled_logistic_difference", (np.ones((), np.float32), 2.0))):
            expected, found = (getattr(backend, name)(*arrays, *more) for backend in (reference, kernels))
            np.testing.assert_array_equal(found, expected)


def test_channel_sums_do_not_depend_on_the_threads():
    y = np.random.default_rng(0).standard_normal((64, 3, 28, 28)).astype(np.float32)
    np.testing.assert_array_equal(*on_threads(lambda: kernels.channel_sums(y)))
