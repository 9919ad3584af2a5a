"""minidl.testing: what the strategies promise of their values, and that the decorator catches each kind of fault."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import minidl
from minidl import GradcheckError, autograd, kernels, nn
from minidl.autograd import record
from minidl.testing import (
    broadcastable_shapes,
    check_operation,
    conv_geometries,
    models,
    pool_geometries,
    property_test_gradient,
    shapes,
    tensors,
)

F = nn.functional

# -- strategies ---------------------------------------------------------------------------------------------------


@given(x=tensors(shapes(min_side=0, max_side=9), low=-1, high=3, kinks=(0, 0.5, 7)))
def test_values_keep_away_from_each_other_and_from_kinks(x):
    values = np.sort(x.array, axis=None)
    assert x.dtype == minidl.float64
    assert x.requires_grad
    assert ((values >= -1) & (values <= 3)).all()
    for kink in (0, 0.5):
        assert (np.abs(values - kink) >= 0.1 - 1e-12).all()
    assert (np.diff(values) >= 0.4 * 4 / max(values.size, 1) * 0.5).all()


@given(x=tensors((2, 3), np.int64, low=2, high=4), mask=tensors((4,), bool), y=tensors((5,), "float32"))
def test_other_dtypes(x, mask, y):
    assert (x.dtype, mask.dtype, y.dtype) == (np.int64, bool, np.float32)
    assert ((x.array >= 2) & (x.array <= 4)).all()
    assert [t.requires_grad for t in (x, mask, y)] == [False, False, True]


@given(drawn=broadcastable_shapes(3))
def test_shapes_broadcast(drawn):
    assert len(drawn) == 3
    np.broadcast_shapes(*drawn)


@given(g=conv_geometries(), seed=st.integers(0, 99))
def test_both_convolutions_fit_a_geometry(g, seed):
    w = minidl.ones(g.weight_shape)
    assert F.conv2d(minidl.ones(g.image_shape), w, None, g.stride, g.padding, g.dilation).shape == g.map_shape
    image = F.conv_transpose2d(
        minidl.ones(g.map_shape), w, None, g.stride, g.padding, g.output_padding, dilation=g.dilation
    )
    assert image.shape == g.image_shape


@given(g=pool_geometries(), flat=pool_geometries(dilated=False))
def test_poolings_fit_a_geometry(g, flat):
    y = F.max_pool2d(minidl.ones(g.image_shape), g.kernel, g.stride, g.padding, g.dilation, g.ceil_mode)
    assert y.shape == g.map_shape
    y = F.avg_pool2d(minidl.ones(flat.image_shape), flat.kernel, flat.stride, flat.padding, flat.ceil_mode)
    assert y.shape == flat.map_shape


def test_models_run_are_of_many_kinds_and_leave_the_generator_alone():
    before = minidl.rand(1, generator=minidl.manual_seed(7)).item()
    minidl.manual_seed(7)
    kinds, lengths = set(), set()

    @settings(max_examples=200)
    @given(case=models())
    def draw(case):
        model, x = case
        assert any(True for _ in model.parameters())
        y = model(x)
        assert y.dtype == np.float64
        assert np.isfinite(y.detach().numpy()).all()
        kinds.update(type(layer).__name__ for layer in model)
        lengths.add(len(model))

    draw()
    assert minidl.rand(1).item() == before
    assert max(lengths) == 8
    assert kinds >= {"Conv2d", "ConvTranspose2d", "MaxPool2d", "AvgPool2d", "Upsample", "Linear", "Flatten", "ReLU"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 1, "high": 1}, "low must be less than high"),
        ({"low": 2, "high": 1}, "low must be less than high"),
        ({"high": float("inf")}, "both finite"),
        ({"kinks": np.linspace(-2, 2, 41)}, "leave no room"),
        ({"dtype": "float16", "shape": (5000,)}, "float16 cannot hold 5000 different values"),
    ],
)
def test_ranges_without_room_are_refused(options, message):
    @given(x=tensors(**{"shape": (3,), **options}))
    def draw(x):
        pass

    with pytest.raises(ValueError, match=message):
        draw()


@given(x=tensors((50,), kinks=(-1.95, -1, 0, 0.05, 7)))
def test_values_stay_in_their_range(x):
    assert (np.abs(x.array) <= 2).all()


def test_wrong_use_of_the_decorator_is_refused():
    def f(x):
        return x

    for strategies, named in (((), {}), ((tensors(), tensors()), {}), ((), {"y": tensors()})):
        with pytest.raises(TypeError, match=r"\d strategies(, for y)?; the parameters of f are \['x'\]"):
            property_test_gradient(*strategies, **named)(f)
    with pytest.raises(TypeError, match="x of f needs a strategy, not 3"):
        property_test_gradient(3)(f)


def test_there_is_no_deadline_but_the_users_own():
    test = property_test_gradient(tensors((2,)))(lambda x: x * 2)
    assert test._hypothesis_internal_use_settings.deadline is None
    above = settings(deadline=500)(property_test_gradient(tensors((2,)))(lambda x: x * 2))
    assert above._hypothesis_internal_use_settings.deadline.total_seconds() == 0.5


# -- the decorator catches ------------------------------------------------------------------------------------------


def mutates(x):
    y = x * 2
    x.detach().array[...] = 0.5
    return y


def mutates_when_float32(x):
    if x.dtype == minidl.float32:
        x.detach().array[...] = 0.5
    return x * 2


def changes_the_dtype(x):
    return x * minidl.tensor([2.0], dtype=minidl.float64)


def wrong_when_compiled(x):
    factor = 2 if kernels._mode.reference else 2.001
    return record("double", x.array * np.asarray(factor, x.dtype), (x, lambda gy: gy * factor))


def cuts_the_second(x):
    return record("square", x.array**2, (x, lambda gy: gy * x.detach() * 2))


def wrong_in_float32(x):
    k = 2 if x.dtype == minidl.float32 else 3
    return record("power", x.array**k, (x, lambda gy: gy * k * x ** (k - 1)))


def by_memory(x):
    return record("square", x.array.ravel(order="K").reshape(x.shape) ** 2, (x, lambda gy: gy * 2 * x))


FAULTS = {
    "wrong in float32": (wrong_in_float32, AssertionError, "differs from that in float64"),
    "order of memory": (by_memory, AssertionError, "output 0 differs from that of inputs in another memory order"),
    "wrong gradient": (lambda x: record("square", x.array**2, (x, lambda gy: gy * x)), GradcheckError, "square"),
    "wrong second gradient": (cuts_the_second, GradcheckError, "gradgradcheck: the gradient of square"),
    "changed input": (mutates, GradcheckError, "changed its input 0 in place"),
    "changed float32 input": (mutates_when_float32, AssertionError, "tensor 0 among the inputs, .* was changed"),
    "other dtype": (changes_the_dtype, AssertionError, "output 0 is float64, of inputs in float32"),
    "other than the reference": (
        wrong_when_compiled,
        AssertionError,
        "output 0 differs from that",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_kind_of_fault_is_caught(name):
    operation, error, message = FAULTS[name]

    @settings(max_examples=20, database=None, phases=[Phase.generate])
    @property_test_gradient(tensors(shapes(min_dims=1)))
    def check(x):
        return operation(x)

    with pytest.raises(error, match=message):
        check()


def test_gradients_that_share_memory_are_caught(monkeypatch):
    monkeypatch.setattr(autograd, "_accumulate", lambda leaf, g, **_: setattr(leaf, "_grad", g))
    x, y = (minidl.ones(2, dtype=minidl.float64, requires_grad=True) for _ in "xy")
    with pytest.raises(AssertionError, match="gradient 0 shares memory with the gradient passed in"):
        check_operation(lambda x: x.reshape(2, 1), {"x": x})
    with pytest.raises(AssertionError, match="gradient 0 shares memory with gradient 1"):
        check_operation(lambda x, y: (x.reshape(2, 1) + y.reshape(2, 1)) * 2, {"x": x, "y": y})


def test_without_second_gradients_their_faults_pass():
    property_test_gradient(tensors((2,)), second=False)(cuts_the_second)()


def test_arguments_by_place_from_the_right_by_name_and_from_pytest():
    seen = []

    @settings(max_examples=3)
    @property_test_gradient(tensors((2,)), factor=st.just(3))
    def check(fixed, factor, x):
        seen.append((fixed, factor, x.shape))
        return x * factor

    check(fixed="pytest's")
    assert set(seen) == {("pytest's", 3, (2,))}


def test_tensors_in_containers_and_models():
    layer = nn.Linear(2, 3).double()
    x, t = minidl.ones(4, 2, dtype=minidl.float64), minidl.tensor([0, 1, 2, 0])
    before = {name: p.numpy().copy() for name, p in layer.state_dict().items()}
    check_operation(
        lambda model, batch: F.cross_entropy(model(batch["x"][0]), batch["t"]),
        {"model": layer, "batch": {"x": (x, None), "t": t}},
    )
    assert all((p.numpy() == before[name]).all() for name, p in layer.state_dict().items())
    assert all(p.grad is None for p in layer.parameters())
    with pytest.raises(GradcheckError, match=r"in input 1 of shape \(3,\)"):  # the bias
        check_operation(lambda model: F.linear(x, model.weight, model.bias.detach()), {"model": layer})


def test_kernels_are_those_of_before_afterwards():
    names = [getattr(kernels, name) for name in kernels.__all__]
    check_operation(lambda x: F.relu(x), {"x": minidl.ones(2, dtype=minidl.float64, requires_grad=True)})
    assert names == [getattr(kernels, name) for name in kernels.__all__]
