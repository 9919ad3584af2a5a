"""The kernels of the GPU against their definitions: on a GPU where there is one, and always as C++ on the CPU."""

import functools
import inspect
import itertools
import mmap
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import kernels
from minidl.kernels import ConvGeometry, PoolGeometry, reference
from minidl.kernels.resampling import Axis, interpolation
from minidl.optim.adam import bias_corrected
from minidl.testing import conv_geometries, pool_geometries
from tests.helpers import cuda_on_cpu as emulated
from tests.helpers import cupy_stand_in
from tests.helpers.grouped import grouped

ROOT = Path(__file__).parents[2]
DTYPES = [np.float32, np.float64]
OTHER_INTEGERS = [
    pytest.param(f"{kind}{bits}", marks=pytest.mark.slow)
    for kind in ("int", "uint")
    for bits in (8, 16, 32, 64)
    if f"{kind}{bits}" != "int64"
]
CONVOLUTIONS = {"conv2d": "xw", "conv2d_input": "yw", "conv2d_weight": "xy"}
ELEMENTWISE = {
    "add": 2,
    "relu": 1,
    "relu_backward": 2,
    "sigmoid": 1,
    "sigmoid_backward": 2,
    "tanh_backward": 2,
    "erf": 1,
    "scaled_difference": 2,
    "scaled_logistic_difference": 2,
}
SCALED = ("scaled_difference", "scaled_logistic_difference")
IN_PLACE = ("adam_step", "sgd_step", "add_at")
TOLERANCE = {np.float32: 2e-6, np.float64: 4e-15}

seeds = st.integers(0, 2**32 - 1)
dtypes = pytest.mark.parametrize("dtype", DTYPES)
convolutions = pytest.mark.parametrize("name", CONVOLUTIONS)
elementwise = pytest.mark.parametrize("name", ELEMENTWISE)
needs_compiler = pytest.mark.skipif(emulated.COMPILER is None, reason="needs g++, to compile CUDA C for the CPU")


def what_is_missing() -> str:
    try:
        import cupy
    except ImportError:
        return "needs CuPy"
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"needs a GPU: {error}"
    return ""


class Backend(NamedTuple):
    gpu: ModuleType
    cupy: Any

    def to(self, x: np.ndarray) -> Any:
        return self.cupy.array(x)

    def run(self, name: str, *args: Any) -> Any:
        """The kernel of this name on copies of the NumPy arrays among `args`; its results as NumPy arrays."""
        moved = [self.to(a) if isinstance(a, np.ndarray) else a for a in args]
        result = getattr(self.gpu, name)(*moved)
        return tuple(map(self.back, result)) if isinstance(result, tuple) else self.back(result)

    def back(self, x: Any) -> np.ndarray:
        assert type(x) is self.cupy.ndarray
        return self.cupy.asnumpy(x)


MISSING = what_is_missing()
BACKENDS = [pytest.param("emulated", marks=needs_compiler)]
BACKENDS += [] if MISSING else [pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.gpu
@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_all_of_this_file_runs_on_the_gpu_too():
    assert len(BACKENDS) == 2


def backend_named(name: str) -> Backend:
    if name == "emulated":
        return Backend(emulated.emulation(), emulated.cupy)
    import cupy

    from minidl.kernels.gpu import kernels as gpu

    return Backend(gpu, cupy)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return backend_named(request.param)


@pytest.fixture(scope="module")
def emulation() -> Backend:
    return backend_named("emulated")


@pytest.fixture(autouse=True)
def _launches_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in vars(emulated.Order()).items():
        monkeypatch.setattr(emulated.ORDER, name, value)


def normal(seed: int, shape: tuple[int, ...], dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def draw_arrays(g: ConvGeometry, seed: int, dtype: type = np.float64) -> dict[str, np.ndarray]:
    shapes = {"x": g.image_shape, "w": g.weight_shape, "y": g.map_shape}
    return {name: normal(seed + i, shape, dtype) for i, (name, shape) in enumerate(shapes.items())}


def assert_close(actual: np.ndarray, expected: np.ndarray, size: np.ndarray, dtype: type) -> None:
    """Equal but for rounding, which scales with `size`, the same sum over absolute values."""
    assert actual.dtype == expected.dtype == dtype
    assert actual.shape == expected.shape
    assert np.all(np.abs(actual - expected) <= TOLERANCE[dtype] * size)


def assert_same(actual: np.ndarray, expected: np.ndarray) -> None:
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(actual, expected)


# --- Convolutions ---


@dtypes
@convolutions
@given(geometry=grouped(conv_geometries()), seed=seeds)
def test_convolution_equals_reference(backend: Backend, name: str, dtype: type, geometry: ConvGeometry, seed: int):
    drawn = draw_arrays(geometry, seed, dtype)
    a = [drawn[letter] for letter in CONVOLUTIONS[name]]
    expected, size = (getattr(reference, name)(*b, geometry) for b in (a, [np.abs(v) for v in a]))
    assert_close(backend.run(name, *a, geometry), expected, size, dtype)


@dtypes
@pytest.mark.parametrize("name", ["conv2d", "conv2d_input"])
@given(geometry=grouped(conv_geometries()), seed=seeds)
def test_convolution_with_bias_equals_reference(backend, name, dtype, geometry, seed):
    drawn = draw_arrays(geometry, seed, dtype)
    a = [drawn[letter] for letter in CONVOLUTIONS[name]]
    b = normal(seed, (geometry.map_channels if name == "conv2d" else geometry.image_channels,), dtype)
    compute = getattr(reference, name)
    expected, size = compute(*a, geometry, b), compute(*[np.abs(v) for v in a], geometry, np.abs(b))
    assert_close(backend.run(name, *a, geometry, b), expected, size, dtype)


@given(geometry=grouped(conv_geometries()), seed=seeds)
def test_adjoint_identity(backend: Backend, geometry: ConvGeometry, seed: int):
    a = draw_arrays(geometry, seed)
    forms = [
        np.vdot(backend.run("conv2d", a["x"], a["w"], geometry), a["y"]),
        np.vdot(a["x"], backend.run("conv2d_input", a["y"], a["w"], geometry)),
        np.vdot(a["w"], backend.run("conv2d_weight", a["x"], a["y"], geometry)),
    ]
    size = np.vdot(reference.conv2d(np.abs(a["x"]), np.abs(a["w"]), geometry), np.abs(a["y"]))
    assert max(forms) - min(forms) <= 1e-14 * size


@convolutions
@pytest.mark.parametrize("images", [1, 2, 4])
def test_a_large_batch_is_convolved_in_parts(backend: Backend, monkeypatch, name: str, images: int):
    g = ConvGeometry.of_conv2d((5, 3, 7, 6), (4, 3, 3, 2), 1, 1)
    drawn = draw_arrays(g, 0)
    a = [drawn[letter] for letter in CONVOLUTIONS[name]]
    monkeypatch.setattr(backend.gpu, "LARGEST_COLUMNS", images * 3 * 3 * 2 * g.map_size[0] * g.map_size[1])
    assert len(list(backend.gpu._parts(g))) == -(-5 // images)
    np.testing.assert_allclose(backend.run(name, *a, g), getattr(reference, name)(*a, g), 1e-13, 1e-13)


def test_convolution_with_no_input_channels_is_the_bias(backend: Backend):
    g = ConvGeometry.of_conv2d((2, 0, 5, 5), (4, 0, 3, 3))
    b = np.arange(4.0)
    y = backend.run("conv2d", np.ones(g.image_shape), np.ones(g.weight_shape), g, b)
    assert_same(y, np.ones((2, 4, 3, 3)) * b[:, None, None])
    g = ConvGeometry.of_conv_transpose2d((2, 0, 5, 5), (0, 4, 3, 3))
    assert_same(backend.run("conv2d_input", np.ones(g.map_shape), np.ones(g.weight_shape), g), np.zeros((2, 4, 7, 7)))
    assert backend.run("conv2d_weight", np.ones(g.image_shape), np.ones(g.map_shape), g).shape == g.weight_shape


@convolutions
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", [0, 1])
def test_convolution_spreads_nan_and_infinity(backend: Backend, name: str, value: float, where: int):
    """Also 0 * inf, which is NaN."""
    g = ConvGeometry.of_conv2d((2, 3, 7, 6), (5, 3, 3, 3), 2, 1)
    drawn = draw_arrays(g, 3)
    a = [drawn[letter] for letter in CONVOLUTIONS[name]]
    a[where][-1, -1, 1, 1] = value
    a[1 - where][:, ::2] = 0
    with np.errstate(invalid="ignore"):
        expected, actual = getattr(reference, name)(*a, g), backend.run(name, *a, g)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(actual), np.isinf(expected))


# --- Pooling ---


@dtypes
@given(geometry=pool_geometries(), seed=seeds)
def test_max_pool_pick_and_put_equal_reference(backend: Backend, dtype: type, geometry: PoolGeometry, seed: int):
    rng = np.random.default_rng(seed)
    x = np.round(normal(seed, geometry.image_shape, dtype), 1)  # with ties
    x[rng.random(x.shape) < 0.1] = rng.choice([np.nan, -np.inf, np.inf])
    y, indices = backend.run("max_pool2d", x, geometry)
    expected, places = reference.max_pool2d(x, geometry)
    assert_same(y, expected)
    assert_same(indices, places)
    assert_same(backend.run("pick", x, indices), y)
    gy = normal(seed, y.shape, dtype)
    assert_same(backend.run("put", gy, indices, geometry.image_size), reference.put(gy, indices, geometry.image_size))


@dtypes
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(0, 6), st.integers(0, 6)),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    seed=seeds,
)
def test_pick_and_put_by_any_indices(backend: Backend, dtype: type, shape, size, seed: int):
    """Of which most come several times: bit for bit, since the order of the sums is the same."""
    indices = np.random.default_rng(seed).integers(0, size[0] * size[1], shape)
    x, y = normal(seed, (*shape[:2], *size), dtype), normal(seed, shape, dtype)
    assert_same(backend.run("pick", x, indices), reference.pick(x, indices))
    assert_same(backend.run("put", y, indices, size), reference.put(y, indices, size))


@pytest.mark.parametrize("dtype", ["int64", *OTHER_INTEGERS])
def test_integers_are_pooled(backend: Backend, dtype: str):
    g = PoolGeometry.of_max_pool2d((2, 3, 7, 6), 3, 2, 1)
    limits = np.iinfo(dtype)
    x = np.random.default_rng(0).integers(limits.min, limits.max, g.image_shape, dtype, endpoint=True)
    x[0, 0] = limits.min
    y, indices = backend.run("max_pool2d", x, g)
    for actual, expected in zip((y, indices), reference.max_pool2d(x, g), strict=True):
        assert_same(actual, expected)
    assert_same(backend.run("pick", x, indices), y)
    quarters = y // 4  # whose sums do not overflow, four windows at most holding a pixel
    assert_same(backend.run("put", quarters, indices, (7, 6)), reference.put(quarters, indices, (7, 6)))


@pytest.mark.parametrize("bad", [-1, 4, 2**40, -(2**63)])
def test_an_index_of_no_pixel_reads_0_and_writes_nothing(backend: Backend, bad: int):
    x, indices = np.ones((1, 1, 2, 2)), np.array([[[[0, bad], [3, bad]]]])
    np.testing.assert_array_equal(backend.run("pick", x, indices), [[[[1, 0], [1, 0]]]])
    np.testing.assert_array_equal(backend.run("put", x, indices, (2, 2)), [[[[1, 0], [0, 1]]]])


@st.composite
def linear_maps(draw: st.DrawFn) -> Axis:
    """Any sparse matrix, also with rows of no term."""
    inputs, counts = draw(st.integers(1, 6)), draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    rng = np.random.default_rng(draw(seeds))
    return Axis.of(inputs, np.array(counts), rng.integers(0, inputs, sum(counts)), rng.standard_normal(sum(counts)))


@dtypes
@given(n=st.integers(0, 3), rows=linear_maps(), columns=linear_maps(), seed=seeds)
def test_resampling_equals_reference(backend: Backend, dtype: type, n: int, rows: Axis, columns: Axis, seed: int):
    x = normal(seed, (n, 2, rows.inputs, columns.inputs), dtype)
    rows32, columns32 = (Axis(a.inputs, a.starts, a.sources, np.abs(a.weights)) for a in (rows, columns))
    size = reference.resample(np.abs(x), rows32, columns32)
    assert_close(backend.run("resample", x, rows, columns), reference.resample(x, rows, columns), size, dtype)


def test_resampling_does_not_read_pixels_without_weight(backend: Backend):
    axes = interpolation((1, 1, 4, 4), (7, 7), None, "bilinear", True)
    x = normal(0, (1, 1, 4, 4))
    x[0, 0, 1, 2] = np.inf
    with np.errstate(invalid="ignore"):
        expected = reference.resample(x, *axes)
    assert np.isinf(expected).sum() == 9
    np.testing.assert_array_equal(np.isinf(backend.run("resample", x, *axes)), np.isinf(expected))
    assert not np.isnan(backend.run("resample", x, *axes)).any()


# --- Matrix products and sums ---


@dtypes
@given(m=st.integers(0, 9), k=st.integers(0, 40), n=st.integers(0, 9), biased=st.booleans(), seed=seeds)
def test_matmul_equals_numpy(backend: Backend, dtype: type, m: int, k: int, n: int, biased: bool, seed: int):
    a, b, bias = (normal(seed + i, shape, dtype) for i, shape in enumerate([(m, k), (k, n), (n,)]))
    size = np.abs(a) @ np.abs(b) + biased * np.abs(bias)
    expected = reference.matmul(a, b, bias if biased else None)
    for given_a, given_b in [
        (backend.to(a), backend.to(b)),
        (backend.to(a.T.copy()).T, backend.to(b.T.copy()).T),
        (backend.to(a[::-1].copy())[::-1], backend.to(np.repeat(b, 2, axis=1))[:, ::2]),
    ]:
        y = backend.gpu.matmul(given_a, given_b, backend.to(bias) if biased else None)
        assert_close(backend.back(y), expected, size, dtype)


@dtypes
@given(n=st.integers(0, 3), m=st.integers(0, 5), k=st.integers(0, 5), p=st.integers(0, 5), seed=seeds)
def test_matmul_of_a_batch_equals_numpy(backend: Backend, dtype: type, n: int, m: int, k: int, p: int, seed: int):
    a, b = normal(seed, (n, m, k), dtype), normal(seed + 1, (n, k, p), dtype)
    for given_a, given_b in [
        (backend.to(a), backend.to(b)),
        (backend.to(a.transpose(0, 2, 1).copy()).transpose(0, 2, 1), backend.to(b.T.copy()).T),
    ]:
        assert_close(backend.back(backend.gpu.matmul(given_a, given_b)), a @ b, np.abs(a) @ np.abs(b), dtype)


@dtypes
@given(
    n=st.integers(0, 5),
    c=st.sampled_from([1, 2, 3, 16, 70]),
    size=st.one_of(st.just(()), st.tuples(st.integers(1, 20), st.integers(1, 30))),
    seed=seeds,
)
def test_sums(backend: Backend, dtype: type, n: int, c: int, size: tuple[int, ...], seed: int):
    y = normal(seed, (n, c, *size), dtype)
    for name, axes in (("total", None), ("channel_sums", (0, *range(2, y.ndim)))):
        exact = y.astype(np.longdouble).sum(axis=axes)
        sums = backend.run(name, y)
        assert (sums.dtype, sums.shape) == (dtype, exact.shape)
        # Of float32, summed in double, only the last rounding is left.
        bound = 20 * np.finfo(np.float64).eps * np.abs(y).sum(axis=axes, dtype=np.float64)
        bound += np.finfo(dtype).eps * np.abs(exact)
        assert (np.abs(sums - exact) <= bound).all()


@pytest.mark.parametrize("shape", [(700, 3, 41, 23), (3, 2, 300, 301), (5000, 70), (1, 1, 1, 600_000)])
def test_sums_of_many_values(backend: Backend, shape: tuple[int, ...]):
    y = np.random.default_rng(0).integers(-9, 9, shape).astype(np.float32)  # whose sums are exact
    axes = (0, *range(2, y.ndim))
    assert_same(backend.run("channel_sums", y), y.sum(axis=axes, dtype=np.float64).astype(np.float32))
    assert_same(backend.run("total", y, 0.5), np.asarray(y.sum(dtype=np.float64) / 2, np.float32))
    t = np.roll(y, 1)
    exact = np.square(y - t, dtype=np.float64).sum()
    assert_same(backend.run("total_squared_error", y, t, 0.5), np.asarray(exact / 2, np.float32))


@dtypes
@given(count=st.integers(0, 3000), scale=st.sampled_from([1.0, 0.1]), seed=seeds)
def test_total_squared_error(backend: Backend, dtype: type, count: int, scale: float, seed: int):
    x, t = normal(seed, (count,), dtype), normal(seed + 1, (count,), dtype)
    exact = np.square(x.astype(np.longdouble) - t).sum() * scale
    found = backend.run("total_squared_error", x, t, scale)
    assert (found.shape, found.dtype) == ((), dtype)
    assert abs(found - exact) <= 4 * np.finfo(dtype).eps * exact


@dtypes
@given(count=st.integers(0, 3000), scale=st.sampled_from([1.0, 0.1]), seed=seeds)
def test_total_logistic_loss(backend: Backend, dtype: type, count: int, scale: float, seed: int):
    x, t = (5 * normal(seed, (count,))).astype(dtype), np.random.default_rng(seed).random(count).astype(dtype)
    found = backend.run("total_logistic_loss", x, t, scale)
    exact = reference.total_logistic_loss(x.astype(np.longdouble), t.astype(np.longdouble), scale)
    assert (found.shape, found.dtype) == ((), dtype)
    assert abs(found - exact) <= 4 * np.finfo(dtype).eps * scale * np.abs(x, dtype=np.float64).sum() + 1e-300


@pytest.mark.parametrize(("x", "t"), [(np.inf, 0), (-np.inf, 1), (np.inf, 1), (-np.inf, 0.5), (np.nan, 0), (0, np.nan)])
def test_logistic_losses_of_infinities(backend: Backend, x: float, t: float):
    given_arrays, scale = (np.array([x], float), np.array([t], float)), np.ones(())
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(
            backend.run("total_logistic_loss", *given_arrays), reference.total_logistic_loss(*given_arrays)
        )
        np.testing.assert_array_equal(
            backend.run("scaled_logistic_difference", *given_arrays, scale, 2.0),
            reference.scaled_logistic_difference(*given_arrays, scale, 2.0),
        )


@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 3, 0, 2)])
def test_sums_of_nothing(backend: Backend, shape: tuple[int, ...]):
    y = np.ones(shape, np.float32)
    assert_same(backend.run("channel_sums", y), np.zeros(3, np.float32))
    for scale, expected in ((2.0, 0), (np.nan, np.nan)):
        assert_same(backend.run("total", y, scale), np.float32(expected)[...])
        assert_same(backend.run("total_squared_error", y, y, scale), np.float32(expected)[...])
        assert_same(backend.run("total_logistic_loss", y, y, scale), np.float32(expected)[...])


# --- Indexing ---

INDICES = {
    "an array": (np.array([0, 2, 2, -1, 2, 0]),),
    "two arrays": (np.array([[0, 2], [2, 0]]), slice(None), np.array([1, 1])),
    "a mask": (np.array([True, False, True]),),
    "a slice and an array": (slice(1, None), ..., np.array([3, 3, 3])),
    "None and an array": (None, np.array([1, 1])),
    "slices": (slice(0, 2), slice(None, None, 2)),
    "nothing": (np.array([], np.int64),),
}


@pytest.mark.parametrize("dtype", [*DTYPES, np.int64, pytest.param(np.uint8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("order", ["C", "a view"])
def test_add_at_equals_numpy_bit_for_bit(backend: Backend, dtype: type, index: str, order: str):
    y = (10 * normal(0, (3, 2, 4))).astype(dtype)
    values = (10 * normal(1, y[INDICES[index]].shape)).astype(dtype)
    whole = backend.to(np.repeat(y, 2, axis=1))
    target = whole[:, ::2] if order == "a view" else backend.to(y)
    moved = tuple(backend.to(part) if isinstance(part, np.ndarray) else part for part in INDICES[index])
    backend.gpu.add_at(target, moved, backend.to(values))
    np.add.at(y, INDICES[index], values)
    assert_same(backend.back(target), y)


@dtypes
@given(count=st.integers(0, 2000), places=st.integers(1, 5), seed=seeds)
def test_add_at_of_long_runs(backend: Backend, dtype: type, count: int, places: int, seed: int):
    y, values = normal(seed, (places,), dtype), normal(seed + 1, (count,), dtype)
    index = np.random.default_rng(seed).integers(0, places, count)
    target = backend.to(y)
    backend.gpu.add_at(target, (backend.to(index),), backend.to(values))
    np.add.at(y, index, values)
    assert_same(backend.back(target), y)


# --- Elementwise ---


def numbers(name: str, arrays: list[np.ndarray]) -> tuple[Any, ...]:
    """The numbers that a kernel takes besides."""
    return (np.array(0.3, arrays[0].dtype), 1.7) if name in SCALED else ()


@dtypes
@elementwise
@pytest.mark.parametrize("shape", [(), (0,), (1,), (1000,), (3, 4, 5, 6), (2, 1, 4, 1)])
def test_elementwise_equals_reference(backend: Backend, name: str, dtype: type, shape: tuple[int, ...]):
    a = [normal(i, shape, dtype) for i in range(ELEMENTWISE[name])]
    actual, expected = backend.run(name, *a, *numbers(name, a)), getattr(reference, name)(*a, *numbers(name, a))
    assert (actual.dtype, actual.shape) == (dtype, shape)
    np.testing.assert_allclose(actual, expected, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)


@pytest.mark.parametrize("name", sorted(ELEMENTWISE.keys() - {"erf"}))  # whose definition takes NumPy's arrays alone
@pytest.mark.parametrize("dtype", [np.float16, np.int32])
def test_elementwise_of_other_types_is_the_definition(backend: Backend, name: str, dtype: type):
    a = [(5 * normal(i, (3, 4))).astype(dtype) for i in range(ELEMENTWISE[name])]
    actual, expected = backend.run(name, *a, *numbers(name, a)), getattr(reference, name)(*a, *numbers(name, a))
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=4e-3 if dtype == np.float16 else 1e-6)


@dtypes
def test_elementwise_at_the_edges(backend: Backend, dtype: type):
    x = np.array([-np.inf, -1e4, -0.0, 0.0, 1e4, np.inf, np.nan], dtype)
    assert_same(backend.run("relu", x), np.array([0, 0, 0, 0, 1e4, np.inf, np.nan], dtype))
    assert_same(backend.run("sigmoid", x), np.array([0, 0, 0.5, 0.5, 1, 1, np.nan], dtype))
    gy = np.full_like(x, np.nan)
    assert_same(backend.run("relu_backward", gy, x), np.array([0, 0, 0, 0, *[np.nan] * 3], dtype))
    assert_same(backend.run("relu_backward", x, gy), x)


@dtypes
def test_sigmoid_to_the_last_digits_wherever_it_is_not_0(backend: Backend, dtype: type):
    rng, limits = np.random.default_rng(0), np.finfo(dtype)
    x = np.concatenate([rng.standard_normal(5000) * 4, rng.uniform(-800, 800, 20_000)]).astype(dtype)
    exact = 1 / (1 + np.exp(-x.astype(np.longdouble)))
    # CuPy compiles single precision with -ftz=true, so that the smallest result beside 0 is a normal number.
    bound = np.maximum(3 * limits.eps * exact, limits.tiny if dtype == np.float32 else limits.smallest_subnormal)
    assert np.all(np.abs(backend.run("sigmoid", x) - exact) <= bound)


# --- Normalisation ---


@dtypes
@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5, 2)])
def test_norms_equal_reference(backend: Backend, dtype: type, shape: tuple[int, ...]):
    x, gy, numbers = normal(0, shape, dtype), normal(1, shape, dtype), normal(2, (4, 3))
    calls = {"moments": (x,), "normalise": (x, *numbers[:3]), "normalise_sums": (gy, x, numbers[0])}
    for name, arrays in (calls | {"normalise_backward": (gy, x, *numbers)}).items():
        found, expected = backend.run(name, *arrays), getattr(reference, name)(*arrays)
        pairs = zip(found, expected, strict=True) if isinstance(expected, tuple) else [(found, expected)]
        for a, b in pairs:
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            np.testing.assert_allclose(a, b, 1e-5 if dtype == np.float32 else 1e-13)


# --- Cross-entropy ---


@dtypes
@given(
    n=st.integers(0, 5),
    c=st.integers(1, 40),
    size=st.sampled_from([(), (3,), (2, 3)]),
    scale=st.sampled_from([1, 100, 1e4]),
    seed=seeds,
)
def test_cross_entropy_equals_reference(backend, dtype, n, c, size, scale, seed):
    x, gy = (scale * normal(seed, (n, c, *size))).astype(dtype), normal(seed + 1, (n, *size), dtype)
    classes, eps = np.random.default_rng(seed).integers(0, c, (n, *size)), np.finfo(dtype).eps
    losses, found = reference.cross_entropy(x, classes), backend.run("cross_entropy", x, classes)
    assert (found.dtype, found.shape) == (dtype, losses.shape)
    np.testing.assert_allclose(found, losses, rtol=8 * eps, atol=8 * eps * (1 + np.abs(x).max(initial=0)))
    expected, found = (run(gy, x, classes) for run in (reference.cross_entropy_backward, backward_of(backend)))
    assert (found.dtype, found.shape) == (dtype, x.shape)
    np.testing.assert_allclose(found, expected, rtol=1e3 * eps, atol=20 * eps * np.abs(gy).max(initial=0))


def backward_of(backend: Backend) -> Callable[..., np.ndarray]:
    return functools.partial(backend.run, "cross_entropy_backward")


def test_cross_entropy_of_infinite_logits_is_the_references(backend: Backend):
    x = np.array([[np.inf, 0], [0, np.inf], [-np.inf, 0], [0, -np.inf], [np.nan, 0], [0, np.nan], [-np.inf, -np.inf]])
    classes, gy = np.zeros(7, np.int64), np.ones(7)
    with np.errstate(invalid="ignore"):
        losses, gx = reference.cross_entropy(x, classes), reference.cross_entropy_backward(gy, x, classes)
    np.testing.assert_array_equal(backend.run("cross_entropy", x, classes), losses)
    np.testing.assert_allclose(backend.run("cross_entropy_backward", gy, x, classes), gx, 1e-15)


def test_a_class_that_does_not_exist_is_not_read(backend: Backend):
    x, classes = normal(0, (4, 3)), np.array([-1, 3, 2**40, 1])
    found = backend.run("cross_entropy", x, classes)
    np.testing.assert_array_equal(np.isnan(found), [True, True, True, False])
    gx = backend.run("cross_entropy_backward", np.ones(4), x, classes)
    np.testing.assert_array_equal(np.isnan(gx).all(axis=1), [True, True, True, False])


def test_cross_entropy_takes_classes_of_other_types(backend: Backend):
    x, classes = normal(0, (4, 3)), np.array([0, 2, 1, 1])
    assert_same(backend.run("cross_entropy", x, classes.astype(np.uint8)), backend.run("cross_entropy", x, classes))


# --- Optimisers ---

BETAS = 0.9, 0.99
ADAM = (bias_corrected(0.01, *BETAS, 3), *BETAS, 1e-8, 0.1)
SGD = [(0.0, 0.0, False), (0.9, 0.0, False), (0.9, 0.3, False), (0.9, 0.0, True)]


@dtypes
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("buffered", [False, True])
def test_adam_equals_reference(backend: Backend, dtype: type, weight_decay: float, buffered: bool):
    expected = [normal(0, (5, 7), dtype), np.zeros((5, 7), dtype), np.zeros((5, 7), dtype)]
    p, m, v = map(backend.to, expected)
    buffer = backend.to(np.zeros(2))
    for step in range(1, 21):
        g, rate_and_root = normal(step, (5, 7), dtype), bias_corrected(0.01, *BETAS, step)
        settings = *BETAS, 1e-8, weight_decay
        reference.adam_step([expected[0]], [g], [expected[1]], [expected[2]], rate_and_root, *settings)
        buffer[...] = backend.to(np.array(rate_and_root))
        backend.gpu.adam_step([p], [backend.to(g)], [m], [v], buffer if buffered else rate_and_root, *settings)
    tolerance = 2e-6 if dtype == np.float32 else 1e-14
    for actual, wanted in zip((p, m, v), expected, strict=True):
        np.testing.assert_allclose(backend.back(actual), wanted, rtol=0, atol=tolerance)


@dtypes
@pytest.mark.parametrize(("momentum", "dampening", "nesterov"), SGD)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sgd_equals_reference(backend: Backend, dtype: type, momentum, dampening, nesterov, weight_decay):
    expected = [normal(0, (5, 7), dtype), np.zeros((5, 7), dtype)]
    p, buf = map(backend.to, expected)
    if not momentum:
        buf = expected[1] = None
    for step in range(20):
        g = normal(step + 1, (5, 7), dtype)
        settings = (momentum, dampening if step else 0.0, nesterov, weight_decay)
        reference.sgd_step([expected[0]], [g], [expected[1]] if momentum else None, 0.01, *settings)
        lr = 0.01 if step % 2 else backend.to(np.array(0.01))
        backend.gpu.sgd_step([p], [backend.to(g)], [buf] if momentum else None, lr, *settings)
    tolerance = 2e-6 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(backend.back(p), expected[0], rtol=0, atol=tolerance)
    if momentum:
        np.testing.assert_allclose(backend.back(buf), expected[1], rtol=0, atol=tolerance)


def test_what_changes_gives_the_bits_of_arguments(backend: Backend):
    results = []
    for buffered in (False, True):
        arrays = [backend.to(normal(i, (300,), np.float32) ** 2) for i in range(4)]
        rate_and_root = backend.to(np.array(ADAM[0])) if buffered else ADAM[0]
        backend.gpu.adam_step(*[[a] for a in arrays], rate_and_root, *ADAM[1:])
        results.append([backend.back(a).tobytes() for a in arrays])
    assert results[0] == results[1]
    with pytest.raises(RuntimeError, match="a buffer of learning rates must be float64, not float32"):
        backend.gpu.adam_step(*[[a] for a in arrays], backend.to(np.zeros(2, np.float32)), *ADAM[1:])


@dtypes
@pytest.mark.parametrize("count", [1, 2, 12, 63, 64, 65, 130])
def test_many_parameters_are_stepped_in_few_launches(backend: Backend, dtype: type, count: int):
    """Also empty ones, which no element may be taken to belong to."""
    shapes = [((7 * i + 1) % 5, (3 * i) % 4 + 1) for i in range(count)]
    lists = [[normal(count * k + i, shape, dtype) ** 2 for i, shape in enumerate(shapes)] for k in range(4)]
    moved = [[backend.to(a) for a in arrays] for arrays in lists]
    cupy_stand_in.counts.clear()
    backend.gpu.adam_step(*moved, *ADAM)
    backend.gpu.sgd_step(*moved[:3], 0.1, 0.9, 0.0, True, 0.1)
    if backend.cupy is emulated.cupy:
        assert cupy_stand_in.counts == {"adam": -(-count // 64), "sgd_momentum": -(-count // 64)}
    reference.adam_step(*lists, *ADAM)
    reference.sgd_step(*lists[:3], 0.1, 0.9, 0.0, True, 0.1)
    for actual, expected in zip(itertools.chain(*moved), itertools.chain(*lists), strict=True):
        np.testing.assert_allclose(backend.back(actual), expected, rtol=4e-6 if dtype == np.float32 else 1e-14)


@dtypes
def test_denormal_moments_are_flushed(backend: Backend, dtype: type):
    tiny = np.finfo(dtype).tiny
    m, v = backend.to(np.full(3, 1.01 * tiny, dtype)), backend.to(np.full(3, 1.01 * tiny, dtype))
    g = np.array([0, 0, np.nan], dtype)
    p, settings = backend.to(np.ones(3, dtype)), ((0.01, 1.0), 0.9, 0.9, 1e-8, 0.0)
    backend.gpu.adam_step([p], [backend.to(g)], [m], [v], *settings)
    assert_same(backend.back(m), g)
    assert_same(backend.back(v), g)
    buf = backend.to(np.full(3, -1.01 * tiny, dtype))
    backend.gpu.sgd_step([p], [backend.to(g)], [buf], 0.01, 0.9, 0.0, False, 0.0)
    assert_same(backend.back(buf), g)


def test_optimisers_write_into_arrays_of_any_memory_order(backend: Backend):
    arrays = [normal(i, (5, 7)) ** 2 for i in range(4)]
    views = [backend.to(np.repeat(a, 2, axis=1))[:, ::2] for a in arrays]
    backend.gpu.adam_step(*[[a] for a in views], *ADAM)
    reference.adam_step(*[[a] for a in arrays], *ADAM)
    for actual, expected in zip(views, arrays, strict=True):
        np.testing.assert_allclose(backend.back(actual), expected, 1e-14, 1e-14)


# --- Of all kernels ---

CONV = ConvGeometry.of_conv2d((5, 3, 9, 8), (4, 3, 3, 2), (2, 1), 1, (1, 2))
POOL = PoolGeometry.of_max_pool2d((5, 3, 9, 8), 3, (1, 2), 1)
AXES = interpolation((5, 3, 9, 8), None, 1.5, "bilinear", None)


def in_place(call: Callable[..., None]) -> Callable[..., Any]:
    """The arrays that a step changed, as its result."""

    def run(gpu: ModuleType, *arrays: Any) -> Any:
        call(gpu, *arrays)
        return arrays

    return run


def cases(dtype: type) -> dict[str, tuple[list[np.ndarray], Callable[..., Any]]]:
    """Every kernel with its arrays, of four dimensions where it takes such, and a call of it."""
    a = draw_arrays(CONV, 0, dtype)
    x, z, bias = normal(1, (5, 3, 9, 8), dtype), normal(2, (5, 3, 9, 8), dtype), normal(3, (4,), dtype)
    indices = reference.max_pool2d(x, POOL)[1]
    classes = np.random.default_rng(0).integers(0, 3, (5, 9, 8))
    four, norms = [normal(i, (5, 3, 9, 8), dtype) ** 2 for i in range(4)], [normal(i, (3,)) for i in range(4)]
    found: dict[str, tuple[list[np.ndarray], Callable[..., Any]]] = {
        "conv2d": ([a["x"], a["w"], bias], lambda gpu, x, w, b: gpu.conv2d(x, w, CONV, b)),
        "conv2d_input": ([a["y"], a["w"], bias[:3]], lambda gpu, y, w, b: gpu.conv2d_input(y, w, CONV, b)),
        "conv2d_weight": ([a["x"], a["y"]], lambda gpu, x, y: gpu.conv2d_weight(x, y, CONV)),
        "im2col": ([a["x"]], lambda gpu, x: gpu.im2col(x, CONV)),
        "col2im": ([reference.im2col(a["x"], CONV)], lambda gpu, columns: gpu.col2im(columns, CONV)),
        "matmul": ([x[0, 0], z[0, 0].T.copy(), x[0, 0, :, 0].copy()], lambda gpu, a, b, c: gpu.matmul(a, b, c)),
        "max_pool2d": ([x], lambda gpu, x: gpu.max_pool2d(x, POOL)),
        "pick": ([x, indices], lambda gpu, x, k: gpu.pick(x, k)),
        "put": ([normal(4, POOL.map_shape, dtype), indices], lambda gpu, y, k: gpu.put(y, k, POOL.image_size)),
        "resample": ([x], lambda gpu, x: gpu.resample(x, *AXES)),
        "channel_sums": ([x], lambda gpu, x: gpu.channel_sums(x)),
        "total": ([x], lambda gpu, x: gpu.total(x)),
        "total_squared_error": ([x, z], lambda gpu, x, t: gpu.total_squared_error(x, t)),
        "total_logistic_loss": ([x, z], lambda gpu, x, t: gpu.total_logistic_loss(x, t)),
        "cross_entropy": ([x, classes], lambda gpu, x, k: gpu.cross_entropy(x, k)),
        "cross_entropy_backward": (
            [x[:, 0].copy(), x, classes],
            lambda gpu, gy, x, k: gpu.cross_entropy_backward(gy, x, k),
        ),
        "moments": ([x], lambda gpu, x: gpu.moments(x)),
        "normalise": ([x, *norms[:3]], lambda gpu, *arrays: gpu.normalise(*arrays)),
        "normalise_sums": ([z, x, norms[0]], lambda gpu, *arrays: gpu.normalise_sums(*arrays)),
        "normalise_backward": ([z, x, *norms], lambda gpu, *arrays: gpu.normalise_backward(*arrays)),
        "add_at": (
            [x, np.array([0, 2, 2, 0, 1]), z],
            in_place(lambda gpu, y, k, values: gpu.add_at(y, (k,), values)),
        ),
        "adam_step": (four, in_place(lambda gpu, *arrays: gpu.adam_step(*[[a] for a in arrays], *ADAM))),
        "sgd_step": (
            four[:3],
            in_place(lambda gpu, p, g, b: gpu.sgd_step([p], [g], [b], 0.1, 0.9, 0.0, True, 0.1)),
        ),
    }
    for name, count in ELEMENTWISE.items():
        found[name] = [x, z][:count], lambda gpu, *a, name=name: getattr(gpu, name)(*a)
    for name in SCALED:
        found[name] = [x, z, z[0, 0, 0, 0][...]], lambda gpu, *a, name=name: getattr(gpu, name)(*a, 1.7)
    return found


every_kernel = pytest.mark.parametrize("name", cases(np.float64))


def results(backend: Backend, call: Callable[..., Any], arrays: list[Any]) -> list[np.ndarray]:
    found = call(backend.gpu, *arrays)
    return [backend.back(a) for a in (found if isinstance(found, tuple) else (found,))]


def bits(backend: Backend, call: Callable[..., Any], arrays: list[np.ndarray]) -> list[bytes]:
    return [a.tobytes() for a in results(backend, call, [backend.to(a) for a in arrays])]


def test_every_kernel_is_there(backend: Backend):
    names = {name for name in kernels.__all__ if hasattr(reference, name)}
    names -= {"ConvGeometry", "PoolGeometry"}
    assert names == set(cases(np.float64))
    assert all(callable(getattr(backend.gpu, name)) for name in names)


@every_kernel
@dtypes
@pytest.mark.parametrize("launch", [("backward", 256, 2**16), ("shuffled", 32, 7), ("shuffled", 64, 1)])
def test_bits_do_not_depend_on_the_order_or_number_of_threads(backend, monkeypatch, name: str, dtype: type, launch):
    (arrays, call), (order, block, blocks) = cases(dtype)[name], launch
    first = bits(backend, call, arrays)
    monkeypatch.setattr(emulated.ORDER, "name", order)
    monkeypatch.setattr(backend.gpu, "BLOCK", block)
    monkeypatch.setattr(backend.gpu, "MOST_BLOCKS", blocks)
    assert bits(backend, call, arrays) == first


@pytest.mark.parametrize("shares", [1, 2, 64, 1024])
def test_bits_of_put_do_not_depend_on_how_a_plane_is_shared(backend: Backend, monkeypatch, shares: int):
    arrays, call = cases(np.float32)["put"]
    first = bits(backend, call, arrays)
    monkeypatch.setattr(backend.gpu, "SHARES", (shares, shares))
    assert bits(backend, call, arrays) == first


ORDERS: dict[str, Callable[[Backend, np.ndarray], Any]] = {
    "last axis first": lambda b, x: b.to(np.ascontiguousarray(np.moveaxis(x, 1, -1))).transpose(
        0, x.ndim - 1, *range(1, x.ndim - 1)
    ),
    "Fortran": lambda b, x: b.to(np.ascontiguousarray(x.T)).T,
    "reversed": lambda b, x: b.to(np.ascontiguousarray(x[::-1]))[::-1],
    "every second": lambda b, x: b.to(np.repeat(x, 2, axis=-1))[..., ::2],
    "repeated": lambda b, x: b.cupy.broadcast_to(b.to(x), (2, *x.shape))[1],
}
OF_ONE = ("reversed", "every second")  # that an array of one dimension can have too


@every_kernel
@pytest.mark.parametrize("order", ORDERS)
def test_any_memory_order_is_taken_and_no_input_is_changed(backend: Backend, name: str, order: str):
    arrays, call = cases(np.float64)[name]
    plain = results(backend, call, [backend.to(a) for a in arrays])
    least = 1 if order in OF_ONE else 2
    given_arrays = [ORDERS[order](backend, a) if a.ndim >= least else backend.to(a) for a in arrays]
    for actual, expected in zip(results(backend, call, given_arrays), plain, strict=True):
        np.testing.assert_allclose(actual, expected, 1e-14, 1e-14)
    if name not in IN_PLACE:
        for before, after in zip(arrays, given_arrays, strict=True):
            assert_same(backend.back(after), before)


@every_kernel
def test_results_own_contiguous_memory(backend: Backend, name: str):
    arrays, call = cases(np.float64)[name]
    found = call(backend.gpu, *[backend.to(a) for a in arrays])
    for result in found if isinstance(found, tuple) else (found,):
        assert result.flags.c_contiguous


ERRORS: dict[str, tuple[Callable[[ModuleType, Callable], Any], str]] = {
    "two types": (
        lambda gpu, to: gpu.relu_backward(to(np.ones(2)), to(np.ones(2, np.float32))),
        "relu_backward: expected arrays of one type, float32 or float64, got float64, float32",
    ),
    "two shapes": (
        lambda gpu, to: gpu.relu_backward(to(np.ones(2)), to(np.ones(3))),
        r"relu_backward: shapes differ: \(2,\), \(3,\)",
    ),
    "shapes of matmul": (
        lambda gpu, to: gpu.matmul(to(np.ones((2, 3))), to(np.ones((2, 3)))),
        r"matmul: shapes \(2, 3\) and \(2, 3\) cannot be multiplied",
    ),
    "dimensions of matmul": (
        lambda gpu, to: gpu.matmul(to(np.ones((2, 3, 4))), to(np.ones((3, 4)))),
        r"matmul: shapes \(2, 3, 4\) and \(3, 4\) cannot be multiplied",
    ),
    "bias of matmul": (
        lambda gpu, to: gpu.matmul(to(np.ones((2, 2))), to(np.ones((2, 2))), to(np.ones((2, 1)))),
        r"matmul: expected a bias of shape \(2,\), float64, not \(2, 1\), float64",
    ),
    "shape of a convolution": (
        lambda gpu, to: gpu.conv2d(to(np.ones((1, 3, 9, 8))), to(np.ones(CONV.weight_shape)), CONV),
        r"x has shape \(1, 3, 9, 8\), but its geometry says \(5, 3, 9, 8\)",
    ),
    "bias of a convolution": (
        lambda gpu, to: gpu.conv2d(to(np.ones(CONV.image_shape)), to(np.ones(CONV.weight_shape)), CONV, to(np.ones(3))),
        r"conv2d: expected a bias of shape \(4,\), float64, not \(3,\), float64",
    ),
    "integers": (
        lambda gpu, to: gpu.conv2d(to(np.ones(CONV.image_shape, int)), to(np.ones(CONV.weight_shape, int)), CONV),
        "expected arrays of one type, float32 or float64, got int64, int64",
    ),
    "half precision": (
        lambda gpu, to: gpu.max_pool2d(to(np.ones(POOL.image_shape, np.float16)), POOL),
        "max_pool2d: expected an array of float32, float64 or integers on a GPU, got float16",
    ),
    "shape of max_pool2d": (
        lambda gpu, to: gpu.max_pool2d(to(np.ones((1, 1, 4, 4))), POOL),
        r"max_pool2d: x has shape \(1, 1, 4, 4\), but its geometry says \(5, 3, 9, 8\)",
    ),
    "shape of resample": (
        lambda gpu, to: gpu.resample(to(np.ones((1, 1, 4, 4))), *AXES),
        r"resample: x has shape \(1, 1, 4, 4\), but its axes say 9 x 8",
    ),
    "type of indices": (
        lambda gpu, to: gpu.pick(to(np.ones((1, 1, 4, 4))), to(np.zeros((1, 1, 2, 2), np.int32))),
        "pick: indices must be int64",
    ),
}


@pytest.mark.parametrize("error", ERRORS)
def test_what_does_not_fit_is_refused(backend: Backend, error: str):
    call, message = ERRORS[error]
    with pytest.raises(RuntimeError, match=message):
        call(backend.gpu, backend.to)


# --- What only the emulation can see ---

# The launches of `cases`, those of CuPy's own operations included; a copy to another memory order would be one more.
LAUNCHES = {
    "conv2d": 3,  # im2col, product, bias
    "conv2d_input": 2,  # product, col2im with the bias
    "conv2d_weight": 3,  # im2col, order of the axes, product
    "im2col": 2,  # im2col, order of the axes
    "col2im": 2,  # order of the axes, col2im
    "matmul": 2,  # product, bias
    "max_pool2d": 1,
    "resample": 1,
    "total_squared_error": 2,
    "total_logistic_loss": 2,
    "moments": 6,  # composed of CuPy's operations, as are the next three
    "normalise": 6,
    "normalise_sums": 5,
    "normalise_backward": 9,
    "add_at": 4,  # the places: arange, its elements, their order; the sums
}


@needs_compiler
@every_kernel
def test_launches(emulation: Backend, name: str):
    arrays, call = cases(np.float32)[name]
    moved = [emulation.to(a) for a in arrays]
    emulation.gpu.resample(emulation.to(np.zeros((5, 3, 9, 8), np.float32)), *AXES)  # moves the axes, which stay
    cupy_stand_in.counts.clear()
    call(emulation.gpu, *moved)
    counts = cupy_stand_in.counts
    assert counts.total() == LAUNCHES.get(name, 1), counts


def untouched(shape: tuple[int, ...], dtype: type = np.float32) -> Any:
    """Zeros that take memory only where they are touched."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    unreserved = getattr(mmap, "MAP_NORESERVE", 0x4000)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | unreserved)
    return cupy_stand_in.ndarray(np.frombuffer(memory, dtype).reshape(shape))


@pytest.fixture
def huge(emulation: Backend, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Results that take no memory, of which only the last two blocks of threads are computed."""
    if sys.platform != "linux" or emulated.SANITIZE:
        pytest.skip("needs memory that is reserved when it is touched")
    monkeypatch.setitem(cupy_stand_in.FUNCTIONS, "empty", untouched)
    monkeypatch.setattr(emulated.ORDER, "only", [-2, -1])
    monkeypatch.setattr(emulation.gpu, "MOST_BLOCKS", 2**31 - 1)
    return emulation


SIDE = 2**16 + 1  # whose square is more than 2^32


@needs_compiler
def test_elements_beyond_4_billion(huge: Backend):
    x = untouched((SIDE, SIDE))
    x._hidden[-1, -3:] = [-1, 2, np.nan]
    np.testing.assert_array_equal(huge.gpu.relu(x)._hidden[-1, -3:], [0, 2, np.nan])


@needs_compiler
def test_pixels_beyond_4_billion_are_pooled_and_picked(huge: Backend):
    x = untouched((1, 1, SIDE, SIDE))
    x._hidden[0, 0, -1, -1] = 3
    y, indices = huge.gpu.max_pool2d(x, PoolGeometry.of_max_pool2d(x.shape, 1, SIDE - 1))
    np.testing.assert_array_equal(y._hidden, [[[[0, 0], [0, 3]]]])
    assert indices._hidden[0, 0, 1, 1] == SIDE**2 - 1
    np.testing.assert_array_equal(huge.gpu.pick(x, indices)._hidden, y._hidden)


@needs_compiler
def test_pixels_beyond_4_billion_are_resampled(huge: Backend):
    x = untouched((1, 1, SIDE, SIDE))
    x._hidden[0, 0, -1, -1] = 3
    axis = Axis.of(SIDE, np.array([1, 1]), np.array([0, SIDE - 1]), np.ones(2))
    np.testing.assert_array_equal(huge.gpu.resample(x, axis, axis)._hidden, [[[[0, 0], [0, 3]]]])


@needs_compiler
def test_pixels_beyond_4_billion_are_convolved(huge: Backend):
    g = ConvGeometry.of_conv2d((1, 1, SIDE, SIDE), (1, 1, 1, 1), SIDE - 1)
    x, w = untouched(g.image_shape), huge.to(np.full((1, 1, 1, 1), 2, np.float32))
    x._hidden[0, 0, -1, -1] = 3
    y = huge.gpu.conv2d(x, w, g)
    np.testing.assert_array_equal(y._hidden, [[[[0, 0], [0, 6]]]])
    gx = huge.gpu.conv2d_input(y, w, g)
    np.testing.assert_array_equal(gx._hidden[0, 0, -1, -2:], [0, 12])
    columns = huge.gpu._columns(x, ConvGeometry.of_conv2d((1, 1, SIDE, SIDE), (1, 1, 1, 1), padding=(0, 1)))
    np.testing.assert_array_equal(columns._hidden[0, 0, -3:], [0, 3, 0])


def test_sources_count_in_64_bits():
    """A type narrower than 64 bits stands nowhere but in C++'s `real`, which is the type of an element."""
    code = re.sub(r"//.*", "", emulated.emulation().source(np.dtype(np.float32)))
    code = code.replace("typedef long long int64;", "")
    assert not re.findall(r"\b(?:int|unsigned|short|long|char|size_t|int32_t|auto)\b", code)


def test_what_is_called_exists_in_cupy(emulation: Backend):
    """Where CuPy is installed: a GPU is not needed."""
    cupy = pytest.importorskip("cupy")
    cupy_stand_in.calls.clear()
    for arrays, call in cases(np.float32).values():
        call(emulation.gpu, *[emulation.to(a) for a in arrays])
    assert len(cupy_stand_in.calls) > 20
    for name, args, kwargs in cupy_stand_in.calls:
        function = getattr(cupy, name)
        if not isinstance(function, cupy.ufunc):
            inspect.signature(function).bind(*args, **kwargs)
    for name in ("astype", "item", "reshape", "transpose", "sum", "flags", "T"):
        assert hasattr(cupy.ndarray, name)
    assert all(hasattr(cupy.cuda.Stream, name) for name in ("is_capturing", "begin_capture"))
    assert cupy.RawModule(code="", options=("-std=c++17",)).get_function


# --- The emulation itself ---

BAD = {
    "reads beyond the end": "FOR_EACH(e, n) y[e] = x[e + 1];",
    "writes before the beginning": "FOR_EACH(e, n) y[e - 1] = x[e];",
    "overflows": "FOR_EACH(e, n) y[e] = x[(e + 2) * 0x7fffffffffffffffLL & 1];",
}
GOOD = "FOR_EACH(e, n) y[e] = x[e];"


def small_module(body: str) -> Any:
    code = (emulated.emulation().SOURCES / "common.cu").read_text(encoding="utf-8")
    code += f'extern "C" __global__ void copy(const real *x, real *y, int64 n) {{ {body} }}'
    return emulated.RawModule(code=code, options=("-Dreal=float",)).get_function("copy")


def on_small_arrays(body: str, *args: Any) -> np.ndarray:
    x, y = emulated.cupy.array(np.arange(100, dtype=np.float32)), emulated.cupy.empty((100,), np.float32)
    small_module(body)((4,), (32,), (x, y, 100))
    return y._hidden


@needs_compiler
def test_the_emulation_tells_orders_apart():
    assert on_small_arrays(GOOD).tolist() == list(range(100))
    racing = "FOR_EACH(e, n) y[e] = e ? y[e - 1] + 1 : x[0];"
    forward = on_small_arrays(racing)
    emulated.ORDER.name = "backward"
    assert forward.tolist() == list(range(100)) != on_small_arrays(racing).tolist()


@needs_compiler
def test_the_emulation_refuses_what_a_gpu_would_misread():
    kernel, x, n = small_module(GOOD), emulated.cupy.array(np.zeros((10, 10), np.float32)), np.int64(100)
    y = emulated.cupy.empty((10, 10), np.float32)
    for args, message in [
        ((x.T, y, n), "not C-contiguous"),
        ((x.astype(np.float64), y, n), "an array of float64 for a parameter that is 'read f'"),
        ((x, y, 100.0), "a float64 for a parameter that is 'q'"),
        ((x, y, np.int32(100)), "a int32 for a parameter"),
        ((x, x, n), "shares memory"),
        ((x, y), "2 arguments for 3 parameters"),
        ((x, y._hidden, n), "does not pass ndarray"),
    ]:
        with pytest.raises(TypeError, match=message):
            kernel((1,), (256,), args)
    for refused in (lambda: np.asarray(x), lambda: x + np.ones((10, 10)), lambda: emulated.cupy.dot(x, y._hidden)):
        with pytest.raises(TypeError):
            refused()


needs_sanitizer = pytest.mark.skipif(
    emulated.sanitizer() is None or sys.platform != "linux", reason="needs g++ with its address sanitizer"
)


def sanitized(*command: str) -> subprocess.CompletedProcess:
    preload = {"LD_PRELOAD": str(emulated.sanitizer()), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    environment = {**os.environ, **preload, "MINIDL_SANITIZE": "1", "NUMBA_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
@needs_compiler
@needs_sanitizer
@pytest.mark.parametrize("fault", BAD)
def test_the_sanitizer_finds(fault: str):
    run = "import sys; from tests.gpu import test_gpu_kernels as t; t.on_small_arrays(sys.argv[1]); print('passed')"
    assert "passed" in sanitized("-c", run, GOOD).stdout
    done = sanitized("-c", run, BAD[fault])
    assert "passed" not in done.stdout
    assert "heap-buffer-overflow" in done.stderr or "runtime error: signed integer overflow" in done.stderr


@pytest.mark.slow
@needs_compiler
@needs_sanitizer
def test_no_kernel_leaves_its_arrays():
    """This file once more, with each access to memory and each integer's overflow checked."""
    if emulated.SANITIZE:
        return
    chosen = ["-k", "emulated", "-m", "not slow", "-p", "no:cacheprovider", "--hypothesis-profile=reduced"]
    done = sanitized("-m", "pytest", "-qxs", *chosen, __file__)  # without capturing what the sanitizer says
    assert done.returncode == 0, done.stdout + done.stderr
