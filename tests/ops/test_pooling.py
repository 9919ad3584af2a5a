"""Pooling, unpooling and interpolation: the reference against loops, compiled against reference, gradients, errors."""

import itertools
import math

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import check_adjoint, nn
from minidl.kernels import PoolGeometry, reference
from minidl.kernels.cpu import pooling
from minidl.kernels.resampling import MODES, SMOOTH, interpolation
from minidl.ops.pooling import pick, put

F = nn.functional
BACKENDS = [reference, pooling]
DTYPES = [np.float32, np.float64]
backends = pytest.mark.parametrize("backend", BACKENDS, ids=lambda m: m.__name__.split(".")[-1])
dtypes = pytest.mark.parametrize("dtype", DTYPES)
seeds = st.integers(0, 2**20)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tiny cases only wait for each other's threads, long where other processes hold the cores."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def pairs(least, most):
    return st.tuples(st.integers(least, most), st.integers(least, most))


@st.composite
def poolings(draw, dilated=True, most=4):
    """The shape of an image and the arguments of a max-pool that is valid; `most` bounds its sizes."""
    kernel, stride = draw(pairs(1, most)), draw(pairs(1, most))
    dilation = draw(pairs(1, most - 1)) if dilated else (1, 1)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    # Dilated windows could straddle a small image: keep it as large as the gaps of their taps.
    size = [max(d, r) + draw(st.integers(0, most)) for r, d in zip(reach, dilation, strict=True)]
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    shape = (draw(st.integers(0, most - 1)), draw(st.integers(1, most)), *size)
    return shape, {
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": draw(st.booleans()),
    }


@st.composite
def resizings(draw):
    """The shape of an image and the arguments of an interpolation that is valid."""
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 3)), *draw(pairs(1, 5)))
    mode = draw(st.sampled_from([*MODES, "bilinear", "bicubic"]))
    align = draw(st.sampled_from([None, False, True])) if mode in SMOOTH else None
    if draw(st.booleans()):
        return shape, {"size": draw(pairs(1, 9)), "scale_factor": None, "mode": mode, "align_corners": align}
    scale = draw(st.tuples(*[st.sampled_from([s for s in (0.5, 0.7, 1, 1.5, 2, 3) if n * s >= 1]) for n in shape[2:]]))
    return shape, {"size": None, "scale_factor": scale, "mode": mode, "align_corners": align}


def apart(seed, shape):
    """Values of distance at least 0.01 from each other, in random order."""
    rng = np.random.default_rng(seed)
    return (rng.permutation(math.prod(shape)) * 0.01 + 0.001 * rng.random(math.prod(shape))).reshape(shape) - 0.5


def normal(seed, shape, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def leaf(x):
    return minidl.tensor(x, requires_grad=True)


def geometry(case):
    shape, settings = case
    return PoolGeometry.of_max_pool2d(shape, **settings)


def window(g, i, j):
    """The pixels (h, w) under a window, row by row."""
    for u, v in itertools.product(*map(range, g.kernel)):
        h, w = (i * g.stride[0] - g.padding[0] + u * g.dilation[0], j * g.stride[1] - g.padding[1] + v * g.dilation[1])
        if 0 <= h < g.image_size[0] and 0 <= w < g.image_size[1]:
            yield h, w


# -- kernels: the definition against loops, the compiled against the definition --------------------------------------


@backends
@given(case=poolings(), seed=seeds)
def test_max_pool_by_loops(backend, case, seed):
    g = geometry(case)
    x = np.random.default_rng(seed).integers(-2, 3, g.image_shape).astype(np.float64)  # with ties
    y, indices = backend.max_pool2d(x, g)
    assert indices.dtype == np.int64
    for n, c, i, j in np.ndindex(g.map_shape):
        pixels = list(window(g, i, j))
        values = [x[n, c, h, w] for h, w in pixels]
        assert y[n, c, i, j] == max(values)
        h, w = pixels[values.index(max(values))]
        assert indices[n, c, i, j] == h * g.image_size[1] + w


@backends
@given(case=poolings(dilated=False), seed=seeds, count=st.booleans(), override=st.sampled_from([None, 3, -2]))
def test_avg_pool_by_loops(backend, case, seed, count, override):
    g = geometry(case)
    x = normal(seed, g.image_shape)
    y = backend.resample(x, *g.averages(count, override))
    assert y.shape == g.map_shape
    for i, j in np.ndindex(g.map_size):
        pixels = list(window(g, i, j))
        start = i * g.stride[0] - g.padding[0], j * g.stride[1] - g.padding[1]
        ends = [n + p for n, p in zip(g.image_size, g.padding, strict=True)]
        padded = math.prod(min(a + k, end) - a for a, k, end in zip(start, g.kernel, ends, strict=True))
        divisor = override or (padded if count else len(pixels))
        expected = sum(x[:, :, h, w] for h, w in pixels) / divisor
        np.testing.assert_allclose(y[:, :, i, j], expected, 1e-12, 1e-12)


@dtypes
@given(case=poolings(), seed=seeds)
def test_compiled_max_pool_pick_and_put_equal_reference(dtype, case, seed):
    g = geometry(case)
    x = np.round(normal(seed, g.image_shape, dtype), 1)
    x[np.random.default_rng(seed).random(x.shape) < 0.1] = np.random.default_rng(seed).choice([np.nan, -np.inf, np.inf])
    (y, indices), (expected, places) = (b.max_pool2d(x, g) for b in BACKENDS[::-1])
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, places)
    np.testing.assert_array_equal(pooling.pick(x, indices), y)
    gy = normal(seed, y.shape, dtype)
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    for b in BACKENDS:
        assert b.put(gy, indices, g.image_size).dtype == dtype
    np.testing.assert_allclose(*[b.put(gy, indices, g.image_size) for b in BACKENDS], tolerance, tolerance)


@dtypes
@given(case=resizings(), seed=seeds)
def test_compiled_resampling_equals_reference(dtype, case, seed):
    shape, settings = case
    rows, columns = interpolation(shape, **settings)
    x, y = normal(seed, shape, dtype), normal(seed, (*shape[:2], rows.outputs, columns.outputs), dtype)
    for v, maps in ((x, (rows, columns)), (y, (rows.T, columns.T))):
        ours, expected = (b.resample(v, *maps) for b in BACKENDS[::-1])
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, expected, *[1e-5 if dtype == np.float32 else 1e-13] * 2)


@given(case=resizings(), seed=seeds)
def test_transposed_axis_is_the_transposed_matrix(case, seed):
    def dense(axis):
        m = np.zeros((axis.outputs, axis.inputs))
        np.add.at(m, (np.repeat(np.arange(axis.outputs), np.diff(axis.starts)), axis.sources), axis.weights)
        return m

    shape, settings = case
    axes = interpolation(shape, **settings)
    for axis in axes:
        np.testing.assert_array_equal(dense(axis.T), dense(axis).T)
        np.testing.assert_allclose(dense(axis).sum(1), 1)
    x = normal(seed, shape)
    y = np.einsum("ih,jw,nchw->ncij", *map(dense, axes), x)
    np.testing.assert_allclose(reference.resample(x, *axes), y, 1e-12, 1e-12)


def on_threads(count, compute):
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
        return compute()
    finally:
        numba.set_num_threads(before)


def channels_last(x):
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


ORDERS = {
    "channels last": channels_last,
    "Fortran": np.asfortranarray,
    "reversed": lambda x: np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1],
    "every second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "read-only": lambda x: np.broadcast_to(x, x.shape),
}


def all_results(x, order=np.asarray):
    """What every kernel returns for an image and a gradient in memory of one order."""
    g = PoolGeometry.of_max_pool2d(x.shape, 3, 2, 1)
    y, indices = pooling.max_pool2d(order(x), g)
    axes = interpolation(x.shape, None, 1.5, "bilinear", None)
    gy, places = order(y), order(indices)
    return [
        y,
        indices,
        pooling.pick(order(x), places),
        pooling.put(gy, places, g.image_size),
        pooling.resample(order(x), *g.averages(True, None)),
        pooling.resample(order(x), *axes),
        pooling.resample(order(pooling.resample(x, *axes)), *(a.T for a in axes)),
    ]


@pytest.mark.parametrize("order", ORDERS)
def test_any_memory_order_is_taken_and_results_are_channels_last(order):
    x = normal(0, (2, 3, 7, 6))
    before = x.copy()
    for ours, expected in zip(all_results(x, ORDERS[order]), all_results(x), strict=True):
        np.testing.assert_array_equal(ours, expected)
        assert ours.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(x, before)


@dtypes
@pytest.mark.parametrize("channels", [1, 3, 16, 37])
def test_bits_do_not_depend_on_the_threads(dtype, channels):
    x = normal(1, (5, channels, 29, 31), dtype)
    for one, two in zip(*[on_threads(count, lambda: all_results(x)) for count in (1, 2)], strict=True):
        np.testing.assert_array_equal(one, two)


# -- adjoints -------------------------------------------------------------------------------------------------------


@given(case=poolings(), seed=seeds)
def test_put_is_the_adjoint_of_pick(case, seed):
    g = geometry(case)
    x = minidl.tensor(normal(seed, g.image_shape))
    y, indices = F.max_pool2d(x, **case[1], return_indices=True)
    z = minidl.tensor(normal(seed + 1, y.shape))
    assert check_adjoint(lambda x: pick(x, indices), lambda y: put(y, indices, g.image_size), x, z)


@given(case=poolings(dilated=False), seed=seeds)
def test_unpooling_is_the_gradient_of_max_pooling(case, seed):
    shape, settings = case
    k, s, p = settings["kernel_size"], settings["stride"], settings["padding"]
    g = geometry(case)
    natural = [(m - 1) * b + a - 2 * c for m, a, b, c in zip(g.map_size, k, s, p, strict=True)]
    if any(abs(n - m) >= b for n, m, b in zip(shape[2:], natural, s, strict=True)):
        return  # a size that output_size cannot name: ceil_mode cut the last window
    x = leaf(normal(seed, shape))
    y, indices = F.max_pool2d(x, **settings, return_indices=True)
    gy = minidl.tensor(normal(seed + 1, y.shape))
    (gx,) = minidl.grad(y, x, gy)
    unpooled = F.max_unpool2d(gy, indices, k, s, p, output_size=shape[2:])
    np.testing.assert_array_equal(unpooled.numpy(), gx.numpy())


@given(factor=pairs(1, 4), size=pairs(1, 4), seed=seeds)
def test_nearest_upsampling_is_the_adjoint_of_sum_pooling(factor, size, seed):
    x = minidl.tensor(normal(seed, (2, 3, *size)))
    y = minidl.tensor(normal(seed + 1, (2, 3, size[0] * factor[0], size[1] * factor[1])))
    assert check_adjoint(
        lambda x: F.interpolate(x, scale_factor=factor), lambda y: F.avg_pool2d(y, factor, divisor_override=1), x, y
    )


@given(case=resizings(), seed=seeds)
def test_adjoint_of_interpolation(case, seed):
    shape, settings = case
    x = leaf(normal(seed, shape))
    y = F.interpolate(x, **settings)
    z = minidl.tensor(normal(seed + 1, y.shape))
    forward = lambda x: F.interpolate(x, **settings)  # noqa: E731
    assert check_adjoint(forward, lambda z: minidl.grad(forward(x), x, z)[0], x.detach(), z)


# -- special values -------------------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("k", [2, 3])
def test_ties_go_to_the_first(dtype, k):
    y, indices = F.max_pool2d(minidl.zeros(1, 17, 6, 6, dtype=dtype), k, return_indices=True)
    corners = [[h * 6 + w for w in range(0, 6, k)] for h in range(0, 6, k)]
    assert (y == 0).numpy().all()
    assert (indices == minidl.tensor(corners)).numpy().all()


@dtypes
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("place", range(4))
def test_nan_is_the_greatest(dtype, k, place):
    x = np.full((1, 17, 4, 4), np.inf, dtype)
    h, w = divmod(place, 2)
    x[:, :, h, w] = np.nan
    x = leaf(x)
    y, indices = F.max_pool2d(x, k, k, k - 2, return_indices=True)
    assert np.isnan(y.detach().numpy()[:, :, 0, 0]).all()
    assert (indices[:, :, 0, 0] == 4 * h + w).numpy().all()
    (gx,) = minidl.grad(y.sum(), x)
    assert gx.sum().item() == y.numel()


def test_padding_is_less_than_everything():
    x = minidl.full((1, 2, 2, 2), -float("inf"))
    y, indices = F.max_pool2d(x, 2, 2, 1, return_indices=True)
    assert np.isneginf(y.numpy()).all()
    assert indices[0, 0].tolist() == [[0, 1], [2, 3]]
    assert F.max_pool2d(-minidl.ones(1, 1, 2, 2), 2, 2, 1).tolist() == [[[[-1, -1], [-1, -1]]]]


def test_integers_are_pooled_and_padded_with_less_than_their_least():
    x = minidl.full((1, 1, 2, 2), np.iinfo(np.int64).min, dtype=minidl.int64)
    y, indices = F.max_pool2d(x, 2, 1, 1, return_indices=True)
    assert (y.dtype, indices.tolist()) == (minidl.int64, [[[[0, 0, 1], [0, 0, 1], [2, 2, 3]]]])


def test_empty_batch_and_one_image():
    x, z = minidl.ones(0, 3, 4, 4, requires_grad=True), minidl.randn(3, 4, 4)
    functions = {
        "max": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
        "avg": lambda x: F.avg_pool2d(x, 2),
        "unpool": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
        "nearest": lambda x: F.interpolate(x, scale_factor=2),
    }
    for name, function in functions.items():
        y = function(x)
        y.sum().backward()
        assert y.shape[:2] == (0, 3)
        if name != "nearest":
            np.testing.assert_array_equal(function(z).numpy(), function(z.unsqueeze(0))[0].numpy())
    assert x.grad.shape == x.shape


def test_indices_changed_in_place_are_noticed():
    x = leaf(normal(0, (1, 1, 4, 4)))
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    indices.zero_()
    with pytest.raises(RuntimeError, match="backward of max_pool2d: a tensor of shape .* was changed in place"):
        y.sum().backward()


def test_pooling_and_unpooling_are_one_reconstruction():
    """Zeiler and Fergus' switches: the maxima are back in their places, all else is 0."""
    x = minidl.tensor(apart(0, (2, 3, 5, 7)))
    pool, unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
    y, indices = pool(x)
    z = unpool(y, indices, output_size=x.shape)
    kept = z != 0
    assert z.shape == x.shape
    assert kept.sum().item() == y.numel()
    assert (z[kept] == x[kept]).numpy().all()
    np.testing.assert_array_equal(unpool(y, indices, (5, 7)).numpy(), z.numpy())


# -- errors ---------------------------------------------------------------------------------------------------------

x = minidl.ones(1, 2, 5, 5)
two = minidl.ones(1, 1, 2, 2)
indices = minidl.tensor([[[[0, 1], [2, 3]]]])
ERRORS = [
    (TypeError, "max_pool2d: expected a tensor, not int", lambda: F.max_pool2d(3, 2)),
    (TypeError, "max_pool2d: kernel_size must be an int or a pair", lambda: F.max_pool2d(x, 2.5)),
    (TypeError, "max_pool2d: ceil_mode must be a bool, not 1", lambda: F.max_pool2d(x, 2, ceil_mode=1)),
    (NotImplementedError, "max_pool2d: input must be numbers, not bool", lambda: F.max_pool2d(x > 0, 2)),
    (RuntimeError, "max_pool2d: stride must be at least 1, got 0", lambda: F.max_pool2d(x, 2, 0)),
    (RuntimeError, "kernel_size must be one int, or two .* got 3", lambda: F.max_pool2d(x, (2, 2, 2))),
    (RuntimeError, r"\(C, H, W\) for one image, got 2-d of shape \(5, 5\)", lambda: F.max_pool2d(x[0, 0], 2)),
    (RuntimeError, "has no channels or no pixels; only the batch may be empty", lambda: F.max_pool2d(x[:, :0], 2)),
    (
        RuntimeError,
        "padding 2 along the height must be at most half of the window 2: at most 1 would fit",
        lambda: F.max_pool2d(x, 2, padding=2),
    ),
    (
        RuntimeError,
        r"window 7 does not fit in width 5 with padding 0: \(5 \+ 2\*0 - 1\*\(7 - 1\) - 1\)/1 \+ 1, rounded down, = -1",
        lambda: F.max_pool2d(x, (1, 7), 1),
    ),
    (
        RuntimeError,
        r"window 0 along the height lies wholly in the padding: it reads at -1, 2, and the image "
        "has height 2",
        lambda: F.max_pool2d(x[:, :, :2], (2, 1), 1, (1, 0), (3, 1)),
    ),
    (
        RuntimeError,
        r"window 0 along the width lies wholly in the padding: it reads at -1, 4, and the image",
        lambda: F.max_pool2d(x[:, :, :, :3], (1, 2), 2, (0, 1), (1, 5), ceil_mode=True),
    ),
    (RuntimeError, "max_unpool2d: index 16 at .0, 0, 1, 0.* 0 to 4.4 - 1 = 15", lambda: unpooled(0, 1, 16, -1)),
    (
        RuntimeError,
        "max_unpool2d: index -1 at .0, 0, 0, 1. .* no pixel of the 4 x 4 planes",
        lambda: unpooled(0, -1, 9, 3),
    ),
    (
        RuntimeError,
        r"indices must be int64 and of the input's shape \(1, 1, 2, 2\), not int32",
        lambda: F.max_unpool2d(two, indices.int(), 2),
    ),
    (RuntimeError, r"not int64 of shape \(1, 2, 2\)", lambda: F.max_unpool2d(two, indices[0], 2)),
    (
        NotImplementedError,
        "max_unpool2d: input must be float32 or float64, not int64",
        lambda: F.max_unpool2d(indices, indices, 2),
    ),
    (
        RuntimeError,
        r"padding 3 leaves nothing of the output's height: \(2 - 1\)\*2 \+ 2 - 2\*3 = -2",
        lambda: F.max_unpool2d(two, indices, 2, padding=3),
    ),
    (
        ValueError,
        "output_size has height 6, and for this input 3 to 5 would fit",
        lambda: F.max_unpool2d(two, indices, 2, output_size=(6, 5)),
    ),
    (ValueError, r"must be \(H, W\) or \(N, C, H, W\), got 3", lambda: unpooled(0, 0, 0, 0, output_size=(1, 4, 4))),
    (TypeError, "output_size must be a sequence of ints, not 4", lambda: unpooled(0, 0, 0, 0, output_size=4)),
    (RuntimeError, "divisor_override must not be 0", lambda: F.avg_pool2d(x, 2, divisor_override=0)),
    (TypeError, "divisor_override must be an int, not 1.5", lambda: F.avg_pool2d(x, 2, divisor_override=1.5)),
    (NotImplementedError, "avg_pool2d: input must be float32 or float64", lambda: F.avg_pool2d(indices, 2)),
    (NotImplementedError, "mode 'lanczos' is not supported", lambda: F.interpolate(x, 3, mode="lanczos")),
    (NotImplementedError, "mode 'linear' does not take 4-d input", lambda: F.interpolate(x, 3, mode="linear")),
    (NotImplementedError, "antialias=True is not supported", lambda: F.interpolate(x, 3, antialias=True)),
    (
        ValueError,
        "either size or scale_factor, got size=3, scale_factor=2",
        lambda: F.interpolate(x, size=3, scale_factor=2),
    ),
    (ValueError, "either size or scale_factor, got size=None", lambda: F.interpolate(x)),
    (
        ValueError,
        "align_corners=True is for linear, bilinear, trilinear, bicubic",
        lambda: F.interpolate(x, 3, align_corners=True),
    ),
    (NotImplementedError, r"one image \(C, H, W\) needs unsqueeze\(0\)", lambda: F.interpolate(x[0, 0], 3)),
    (NotImplementedError, "input must be float32 or float64, not int64", lambda: F.interpolate(indices, 3)),
    (ValueError, r"size must be an int or two ints .* got 3: \(1, 2, 3\)", lambda: F.interpolate(x, (1, 2, 3))),
    (TypeError, "size must be an int or two ints, got 2.5", lambda: F.interpolate(x, 2.5)),
    (TypeError, "scale_factor must be a number or two numbers, got 'a'", lambda: F.interpolate(x, scale_factor="a")),
    (RuntimeError, r"output of height 0 = floor\(5 \* 0.1\)", lambda: F.interpolate(x, scale_factor=0.1)),
    (TypeError, "interpolate: expected a tensor, not int", lambda: F.interpolate(3, 2)),
]


def unpooled(*places, **settings):
    return F.max_unpool2d(two, minidl.tensor(places).reshape(1, 1, 2, 2), 2, **settings)


@pytest.mark.parametrize(("error", "match", "call"), ERRORS, ids=range(len(ERRORS)))
def test_errors(error, match, call):
    with pytest.raises(error, match=match):
        call()


@backends
def test_kernels_refuse_indices_outside_the_image(backend):
    values, places = np.ones((1, 1, 1, 2)), np.array([[[[3, 4]]]])
    with pytest.raises(RuntimeError, match=r"^put: index 4 at \(0, 0, 0, 1\)"):
        backend.put(values, places, (2, 2))
    with pytest.raises(RuntimeError, match=r"^pick: index 4 at \(0, 0, 0, 1\)"):
        backend.pick(np.ones((1, 1, 2, 2)), places)


def test_compiled_kernels_refuse_wrong_shapes():
    g = PoolGeometry.of_max_pool2d((1, 1, 4, 4), 2)
    with pytest.raises(RuntimeError, match=r"x has shape \(1, 1, 3, 4\), but its geometry says \(1, 1, 4, 4\)"):
        pooling.max_pool2d(np.ones((1, 1, 3, 4)), g)
    with pytest.raises(RuntimeError, match="its axes say 4 x 4"):
        pooling.resample(np.ones((1, 1, 3, 4)), *g.averages(True, None))
    with pytest.raises(RuntimeError, match=r"put: indices must be int64 of shape \(1, 1, 2, 2\), not int32"):
        pooling.put(np.ones((1, 1, 2, 2)), np.zeros((1, 1, 2, 2), np.int32), (4, 4))


def test_an_infinite_pixel_stays_where_it_has_weight():  # PyTorch makes it NaN, by a neighbour of weight 0
    x = minidl.tensor([[[[1.0, float("inf"), 2.0]]]])
    y = minidl.nn.functional.interpolate(x, size=(2, 3), mode="bilinear")
    assert y.tolist() == [[[[1, float("inf"), 2]] * 2]]
