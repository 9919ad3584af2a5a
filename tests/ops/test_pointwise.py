"""Pointwise functions: each row's derivatives on its domain, values, dtypes, in-place forms, and their layers."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from minidl import nn
from minidl.ops import pointwise
from minidl.testing import broadcastable_shapes, check_operation, property_test_gradient, shapes, tensors
from tests.ops.test_gradients import several

F = nn.functional
BINARY = ("remainder", "fmod")
UNARY = {name: getattr(pointwise, name) for name in pointwise.ROWS}
SETTINGS = {
    "round to tenths": lambda x: minidl.round(x * 3, decimals=1) * x,
    "softplus": lambda x: F.softplus(x, beta=2, threshold=1),
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "elu": lambda x: F.elu(x, 0.7),
    "elu in place": lambda x: F.elu(x * 2, 0.7, inplace=True),
    "silu in place": lambda x: F.silu(x * 2, inplace=True),
    "hardtanh": lambda x: F.hardtanh(x, -0.3, 0.4),
    "in doubles": lambda x: x.softmax(0, dtype=x.dtype),
    "one slope": lambda x: F.prelu(x, x.reshape(-1)[0].reshape(1)),
    "a slope for each channel": lambda x: F.prelu(x[None].expand(2, *x.shape), x.reshape(len(x), -1)[:, 0]),
    "clamp below a tensor": lambda x: x.clamp(max=x * x - 0.4),
    "clamp between tensors": lambda x: minidl.clamp(x, (x * 0.2 - 0.3), (x * 0.2 + 0.3)),
    "in place": lambda x: (x * 2).sin_().mul_(x).exp_(),
    "own quotient in place": lambda x: (x * 2).pow_(3).remainder_(1e3),
    "unsqueezed in place": lambda x: (x * 2).unsqueeze_(0).transpose_(0, -1).squeeze_() * 3,
}
few = settings(max_examples=1 if settings().max_examples == 10 else settings().max_examples)


def on(domain):
    """Tensors of the numbers on which a function is tested."""
    return tensors(shapes(min_dims=1, max_dims=2, max_side=3), **domain)


@pytest.mark.parametrize("name", UNARY)
@few
@given(data=st.data())
def test_derivative(name, data):
    x = data.draw(on(pointwise.ROWS[name]))
    steps = name in ("floor", "ceil", "trunc", "round")  # whose gradient is 0, and depends on nothing
    check_operation(lambda x: UNARY[name](x) * x if steps else UNARY[name](x), {"x": x})


@pytest.mark.parametrize("name", BINARY)
@few
@property_test_gradient(several(broadcastable_shapes(), low=0.3))
def test_derivatives_in_two_operands(name, inputs):
    a, b = inputs
    return getattr(pointwise, name)(a * -3, b)


@pytest.mark.parametrize("name", SETTINGS)
@few
@property_test_gradient(on({"kinks": (0, -0.3, 0.3, 0.4, 0.5)}))
def test_derivative_with_settings(name, x):
    return SETTINGS[name](x)


# -- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", "sin cos tan asin acos atan sinh cosh expm1 log1p erf floor ceil trunc".split())
def test_value_is_that_of_the_standard_library(name):
    x = minidl.linspace(-0.9, 0.9, 7, dtype=minidl.float64)
    np.testing.assert_allclose(getattr(minidl, name)(x), [getattr(math, name)(v) for v in x.tolist()], 1e-15)


VALUES = """
F.softplus(x) 0.1269280110429725 0.6931471805599453 2.1269280110429727
F.softplus(x, 2, 3) 0.009074963958904869 0.34657359027997264 2
F.logsigmoid(x) -2.1269280110429727 -0.6931471805599453 -0.1269280110429725
F.silu(x) -0.2384058440442351 0 1.7615941559557646
F.gelu(x) -0.04550026389635842 0 1.9544997361036416
F.gelu(x, approximate="tanh") -0.04540230591222494 0 1.954597694087775
F.elu(x) -0.8646647167633873 0 2
F.selu(x) -1.5201664685956948 0 2.101401974710961
F.hardtanh(x) -1 0 1
F.relu6(x * 4) 0 0 6
F.prelu(x, m.tensor([0.25], dtype=m.float64)) -0.5 0 2
m.round(x * 1.25) -2 0 2
m.round(x / 8, decimals=1) -0.2 0 0.2
m.rsqrt(x + 3) 1 0.5773502691896258 0.4472135954999579
m.log2(x + 3) 0 1.584962500721156 2.321928094887362
m.log10(x + 3) 0 0.47712125471966244 0.6989700043360189
m.reciprocal(x + 3) 1 0.3333333333333333 0.2
x // 0.75 -3 0 2
-1.5 // (x + 0.5) 1 -3 -1
x % 0.75 0.25 0 0.5
m.fmod(x, 0.75) -0.5 0 0.5
m.div(x, 0.75, rounding_mode="trunc") -2 0 2
m.clamp(x, m.tensor([-1.0, 1.0, 0.0]), m.tensor([5.0, 0.5, 1.0])) -1 0.5 1
""".strip().splitlines()


@pytest.mark.parametrize("line", VALUES)
def test_value(line):
    parts = line.split()
    call, expected = " ".join(parts[:-3]), parts[-3:]
    x = minidl.tensor([-2.0, 0.0, 2.0], dtype=minidl.float64)
    y = eval(call, {"m": minidl, "F": F, "x": x})
    assert y.dtype == minidl.float64
    np.testing.assert_allclose(y, np.array(expected, float), 1e-12, 1e-16)


def test_dtypes_are_converted_kept_or_refused():
    whole, mask, half = minidl.tensor([4, -2]), minidl.tensor([True, False]), minidl.tensor([0.5, 2], dtype="float16")
    assert [minidl.sin(x).dtype for x in (whole, mask, half)] == [minidl.float32, minidl.float32, minidl.float16]
    assert [f(whole).dtype for f in (minidl.floor, minidl.round, F.hardtanh, F.relu6)] == [minidl.int64] * 4
    for function, x in ((F.elu, whole), (minidl.floor, mask), (F.gelu, mask)):
        with pytest.raises(NotImplementedError, match="the input must not be"):
            function(x)
    assert F.silu(half).dtype == F.gelu(half).dtype == minidl.float16
    assert F.softplus(half * 7).tolist() == [3.529296875, 14]  # e^14 is beyond float16


def test_settings_by_position_and_by_name():
    x = minidl.tensor([-1.0, 2.0])
    assert F.elu(x, 2.0).tolist() == F.elu(input=x, alpha=2.0).tolist() == nn.ELU(2.0)(x).tolist()
    assert F.hardtanh(x, -3, 1).tolist() == F.hardtanh(x, max_val=1, min_val=-3).tolist() == [-1, 1]
    with pytest.raises(TypeError, match=r"elu\(\) got an unexpected keyword argument 'beta'"):
        F.elu(x, beta=2)
    with pytest.raises(TypeError, match=r"sin\(\) takes 1 positional argument but 2 were given"):
        minidl.sin(x, x)


# -- in place -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", "exp sqrt relu sigmoid tanh abs neg log square sin floor reciprocal clamp".split())
def test_form_in_place(name):
    """It writes into the memory, returns the tensor, and its gradient is that of the other form."""
    args = (0.7,) if name == "clamp" else ()
    x = minidl.tensor([0.3, 1.4], requires_grad=True)
    y, other = x * 1, getattr(x * 1, name)(*args)
    memory = y.detach()
    assert getattr(y, f"{name}_")(*args) is y
    assert y.tolist() == memory.tolist() == other.tolist()
    assert minidl.grad((y * y).sum(), x)[0].tolist() == minidl.grad((other * other).sum(), x)[0].tolist()
    with pytest.raises(RuntimeError, match=f"{name}_: a leaf tensor that requires grad"):
        getattr(x, f"{name}_")(*args)


def test_forms_in_place_of_two_operands():
    x = minidl.tensor([5, -7])
    x.sub_(minidl.tensor([1, 1]), alpha=3)
    assert x.tolist() == [2, -10]
    x //= 3
    assert x.tolist() == [0, -4]
    x %= 3
    assert x.tolist() == [0, 2]
    x **= 2
    x |= 1
    x ^= 4
    assert x.tolist() == [5, 1]
    assert x.div_(2, rounding_mode="floor").logical_not_().tolist() == [0, 1]
    with pytest.raises(RuntimeError, match="exp_: the result is float32, which a tensor of int64 cannot hold"):
        x.exp_()


def test_shape_in_place():
    x = minidl.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    y = x * 1
    memory, square = y.array, y * y
    assert y.t_() is y
    assert (y.shape, y.unsqueeze_(-1).shape, y.transpose_(0, 1).shape) == ((3, 1), (3, 1, 1), (1, 3, 1))
    assert y.squeeze_(0).squeeze_().shape == (3,)
    assert np.shares_memory(y.array, memory)
    (y * minidl.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad.tolist() == [[1, 2, 3]]
    with pytest.raises(RuntimeError, match="that it needs was changed in place"):
        square.sum().backward()
    with pytest.raises(RuntimeError, match="unsqueeze_: a leaf tensor that requires grad"):
        x.unsqueeze_(0)


# -- quotients, powers, masks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [minidl.int64, minidl.int8, minidl.float32, minidl.float64])
def test_whole_quotients_and_remainders_are_pythons(dtype):
    a, b = np.array([7, 7, -7, -7, 6]), np.array([3, -3, 3, -3, -3])
    x, y = minidl.tensor(a, dtype=dtype), minidl.tensor(b, dtype=dtype)
    assert (x // y).tolist() == minidl.div(x, y, rounding_mode="floor").tolist() == [2, -3, -3, 2, -2]
    assert minidl.div(x, y, rounding_mode="trunc").tolist() == [2, -2, -2, 2, -2]
    assert (x % y).tolist() == [1, -2, 2, -1, 0]
    assert x.fmod(y).tolist() == [1, 1, -1, -1, 0]
    assert {z.dtype for z in (x // y, x % y, x.fmod(y), 7 // y, 7 % y)} == {dtype}


def test_whole_quotients_that_are_undefined():
    x = minidl.tensor([1, 2])
    for name in ("floor_divide", "remainder", "fmod"):
        with pytest.raises(RuntimeError, match="an integer divided by 0 is no integer"):
            getattr(minidl, name)(x, 0)
        with pytest.raises(NotImplementedError, match="bool"):
            getattr(minidl, name)(x > 1, x > 1)
    assert minidl.floor_divide(x, 0.0).tolist() == [math.inf, math.inf]
    assert np.isnan((x % 0.0).numpy()).all()


def test_power_of_integers():
    x = minidl.tensor([-2, -1, 0, 1, 2])
    assert (x ** minidl.tensor(-1)).tolist() == [0, -1, 0, 1, 0]
    assert (x ** minidl.tensor([3, -2, 0, -5, 2])).tolist() == [-8, 1, 1, 1, 4]
    with pytest.raises(NotImplementedError, match="bools have no powers"):
        (x > 0) ** (x > 0)


def test_power_0_of_negative_numbers_has_a_derivative_of_its_derivative():
    x, p = (minidl.tensor(v, dtype=minidl.float64, requires_grad=True) for v in (-2.0, 0.0))
    slope = minidl.grad(x**p, p, create_graph=True)[0]
    assert minidl.grad(slope, x)[0].item() == -0.5  # of x^p log x, which is 1/x there


def test_clamp_between_tensors_keeps_nan_and_refuses_mixtures():
    x, low = minidl.tensor([math.nan, 1.0, 3.0]), minidl.tensor([0.0, math.nan, 5.0])
    assert str(x.clamp(low).tolist()) == "[nan, nan, 5.0]"
    assert str(x.clamp(max=low).tolist()) == "[nan, nan, 3.0]"
    assert minidl.tensor([1, 5]).clamp(max=minidl.tensor(2.5)).tolist() == [1, 2.5]
    with pytest.raises(TypeError, match="must both be numbers, or both tensors"):
        x.clamp(low, 3)


def test_masks():
    x, y = minidl.tensor([0.0, 2.0, math.nan]), minidl.tensor([0, 0, 3])
    assert minidl.logical_and(x, y).tolist() == [False, False, True]
    assert x.logical_or(y).tolist() == [False, True, True]
    assert x.logical_xor(y).tolist() == [False, True, False]
    assert x.logical_not().tolist() == [True, False, False]
    assert (y ^ 1).tolist() == (1 ^ y).tolist() == [1, 1, 2]
    with pytest.raises(TypeError, match="logical_and: expected two tensors"):
        minidl.logical_and(x, 1)


# -- functions of NumPy ---------------------------------------------------------------------------------------------


def test_functions_of_numpy():
    x, y = minidl.tensor([1.0, -4.0]), minidl.tensor([2.0, 2.0])
    for found, expected in ((np.abs(x), [1, 4]), (np.maximum(x, y), [2, 2]), (np.add(x, np.ones(2)), [2, -3])):
        assert isinstance(found, minidl.Tensor)
        assert found.tolist() == expected
    assert (np.argmax(x).tolist(), np.isnan(x).tolist(), np.exp(x[0]).item()) == (
        0,
        [False, False],
        np.exp(np.float32(1)),
    )
    assert np.exp(x).dtype == minidl.float32
    with pytest.raises(RuntimeError, match="would lose the graph of a tensor that requires grad"):
        np.exp(x.requires_grad_())


def test_operators_with_arrays_keep_the_graph():
    x = minidl.tensor([1.0, 2.0], dtype=minidl.float64, requires_grad=True)
    for y in (np.ones(2) * x, np.float64(2) * x, np.ones(2) - x, np.ones(2) / x, np.ones(2) % x, x ** np.ones(2)):
        assert y.requires_grad
    assert (np.ones(2) < x).tolist() == [False, True]


# -- layers ---------------------------------------------------------------------------------------------------------

LAYERS = (
    """
ReLU() | ReLU(inplace=True) | LeakyReLU(negative_slope=0.01) | LeakyReLU(negative_slope=0.2, inplace=True)
Sigmoid() | Tanh() | ELU(alpha=1.0) | ELU(alpha=2, inplace=True) | SELU() | GELU(approximate='none') | SiLU()
Softplus(beta=1.0, threshold=20.0) | LogSigmoid() | Hardtanh(min_val=-1.0, max_val=1.0) | ReLU6()
Softmax(dim=1) | LogSoftmax(dim=0) | PReLU(num_parameters=1) | PReLU(num_parameters=4)
Dropout2d(p=0.0, inplace=False)
""".replace("\n", " | ")
    .strip(" |")
    .split(" | ")
)


FUNCTIONS = {"LeakyReLU": "leaky_relu", "LogSoftmax": "log_softmax"}


@pytest.mark.parametrize("text", LAYERS)
def test_layer(text):
    """It prints as it is made, and computes what its function computes."""
    layer, x = eval(f"nn.{text}"), minidl.randn(3, 4)
    assert repr(layer) == text
    function = getattr(F, FUNCTIONS.get(type(layer).__name__, type(layer).__name__.lower()))
    settings = {p: getattr(layer, p) for p in inspect.signature(function).parameters if hasattr(layer, p)}
    assert layer(x.clone()).tolist() == function(x, **settings).tolist()


def test_layers_are_made_with_their_functions_settings():
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'beta'"):
        nn.ELU(beta=3)
    layer = nn.ReLU()
    layer.inplace = True  # as guided backpropagation does in code of others
    x = minidl.tensor([-1.0])
    assert layer(x) is x

    class Own(nn.ReLU):
        def __init__(self, width):
            super().__init__(inplace=True)
            self.width = width

    assert (Own(3).width, repr(Own(3))) == (3, "Own(inplace=True)")


def test_prelu_learns_its_slopes():
    layer = nn.PReLU(2, 0.5)
    assert layer.weight.tolist() == [0.5, 0.5]
    layer(minidl.tensor([[[-1.0, -2.0], [-3.0, 4.0]]])).sum().backward()
    assert layer.weight.grad.tolist() == [-3, -3]


@pytest.mark.parametrize(("ndim", "chosen"), [(0, 0), (1, 0), (2, 1), (3, 0), (4, 1)])
def test_softmax_without_dim_warns_and_chooses(ndim, chosen):
    x = minidl.randn([2] * ndim)
    for call, function in ((F.softmax, F.softmax), (nn.LogSoftmax(), F.log_softmax)):
        with pytest.warns(UserWarning, match="without dim the sum is over dimension") as told:
            y = call(x)
        assert f"dimension {chosen};" in str(told[0].message)
        assert y.tolist() == function(x, chosen).tolist()


def test_dropout2d_drops_whole_channels():
    minidl.manual_seed(0)
    x = minidl.ones(40, 5, 3, 2)
    y = nn.Dropout2d(0.25)(x)
    first = y[:, :, :1, :1]
    assert minidl.equal(y, first.expand_as(y).contiguous())
    np.testing.assert_allclose(np.unique(first.numpy()), [0, 4 / 3], 1e-6)
    assert abs(first.mean().item() - 1) < 0.1
    assert nn.Dropout2d(0.25).eval()(x) is x
