"""Pointwise functions against PyTorch's: special values with their gradients, dtypes, arguments, changes in place."""

import numpy as np
import pytest

from tests.helpers.with_torch import BOTH, attempt, same
from tests.ops.test_pointwise import BINARY, UNARY
from tests.parity.test_torch_ops import derivatives, evaluated, program_result

SPECIAL = [np.inf, -np.inf, 0.0, 1e-30, -1e-30, 1e-5, 0.3, -0.7, 1.0, -1.0, 2.5, -2.5, 30.0, -30.0, 1e30, -1e30]
DTYPES = "float32 float64 float16 int64 int8 uint8 bool".split()
NAN_THERE = ("gelu", "remainder", "fmod")


def function(m, name):
    return getattr(m, name, None) or getattr(m.nn.functional, name)


def compared(ours, theirs):
    if isinstance(theirs, Exception):
        assert isinstance(ours, type(theirs)), (ours, theirs)
    else:
        assert not isinstance(ours, Exception), ours
        same(ours, theirs, zeros=False, rtol=1e-4)


def special(name, dtype):
    """Without those at which PyTorch's compiled loops give NaN, for infinity or where a quotient overflows."""
    return np.array([x for x in SPECIAL if name not in NAN_THERE or 1e-9 < abs(x) < 1e9], dtype)


def applied(m, name):
    return lambda m, x: function(m, name)(x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", UNARY)
def test_values_and_gradients_of_special_values(name, dtype):
    x = [special(name, dtype)]
    compared(*(attempt(derivatives, m, applied(m, name), x, (), 0, 1) for m in BOTH))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", BINARY)
def test_values_and_gradients_of_special_pairs(name, dtype):
    pairs = [np.array(side, dtype) for side in np.meshgrid(*[special(name, dtype)] * 2)]
    run = lambda m, a, b: function(m, name)(a, b)  # noqa: E731
    compared(*(attempt(derivatives, m, run, pairs, (), 0, 1) for m in BOTH))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_dtypes(name, dtype):
    x = np.array([0, 1, 3]).astype(dtype)
    compared(*(attempt(lambda m: applied(m, name)(m, m.tensor(x)), m) for m in BOTH))


EXPRESSIONS = """
m.round(x / 7, decimals=2); m.round(x * 71, decimals=-1); x.round(); m.div(x, 0.7, rounding_mode="trunc"); x // 0.7
x // 0.; 7 // x; -7 % (x + 0.5); x % 0.; x % -2; i // 2; -7 // (i + 1); (i - 1) // -2; (i - 1) % 2; m.fmod(i - 5, 2)
m.div(i - 5, 2, rounding_mode="trunc"); m.div(i, 2.5, rounding_mode="floor"); m.floor_divide(x, y); m.remainder(x, y)
m.remainder(5, i + 1); i // 0; i % 0; m.fmod(i, 0); t // t; t % t; m.fmod(2, i); m.div(i, i, rounding_mode="up")
i ** m.tensor(-1); (i - 1) ** m.tensor([-2, 3]); i ** -1; t ** t; t ** 2; 2 ** t; m.pow(2, i); m.pow(2, 3); m.square(t)
m.tensor([2], dtype=m.uint8) ** i; x ** i; x.pow(0); m.pow(0, i); i ** 2.5; m.clamp(x, y); m.clamp(x, max=y)
x.clamp(y, y + 1); m.clamp(i, m.tensor(0.5)); x.clip(min=x[0]); m.clamp(x, y, 1)
m.clamp(n, m.tensor(0.), m.tensor(1.)); m.clamp(x, m.tensor(float("nan"))); m.clamp(x, m.zeros(5)); m.clamp(t, 0, 1)
m.logical_and(x, y); m.logical_or(i, i); m.logical_xor(t, x); m.logical_not(n); x.logical_not(); m.logical_and(x, 2)
i ^ 1; 1 ^ i; ~i; m.maximum(i, 2); m.minimum(2, i); m.eq(2, x); m.lt(2, 3); m.add(2, 3); F.elu(x); F.elu(x, 2.)
F.elu(x, alpha=-0.5); F.elu(x, 1., True); F.selu(x); F.silu(x); F.gelu(x); F.gelu(x, approximate="tanh")
F.gelu(x, approximate="erf"); F.softplus(x * 20); F.softplus(x, 3, 2); F.softplus(x, beta=0.5, threshold=1)
F.logsigmoid(x * 50); F.hardtanh(x, -2, 0.5); F.hardtanh(i, 0, 1); F.hardtanh(x, 2, 1); F.relu6(x * 4); F.relu6(i * 9)
F.prelu(x, m.tensor([0.1])); F.prelu(r, m.tensor([0.1, 0.2, 0.3], dtype=m.float64)); F.prelu(x, m.zeros(2))
F.prelu(x[0], m.zeros(3)); F.prelu(x[0, 0], m.tensor(0.3)); F.softmax(x); F.log_softmax(r); F.softmax(x[0])
m.softmax(x, 1, dtype=m.float64); F.softmax(i, 0, dtype=m.float32); x.log_softmax(1, dtype=m.float64)
m.log_softmax(x, 0, m.float64); F.dropout2d(r, 0.5, False); F.dropout2d(r, 1.); F.dropout2d(x[0]); F.dropout2d(r, 2)
x.exp_(); x.sqrt_(); x.relu_(); x.abs_(); x.neg_(); x.square_(); x.sigmoid_(); x.tanh_(); x.floor_()
x.round_(decimals=1); i.exp_(); i.floor_(); i.pow_(2); i.clamp_(1); i.sub_(i, alpha=2); x.sub_(y, alpha=0.5); i.div_(2)
i.clamp_(m.tensor(0.5)); i.div_(2, rounding_mode="floor"); i.floor_divide_(2); i.fmod_(2); i.remainder_(2)
x.remainder_(y); x.clip_(0, 1); x.clamp_(y, y + 1); i.eq_(1); x.gt_(0); t.logical_not_(); x.logical_and_(y)
x.pow_(0.5); x.unsqueeze_(0); x.unsqueeze_(-1); x[:1].squeeze_(); x[:1].squeeze_(0); r.transpose_(1, 3); x.t_(); r.t_()
x.squeeze_(7); np.exp(x); np.sqrt(r); np.maximum(x, y); np.argmax(x); np.abs(i); np.add(r, np.ones((5,)))
np.exp(x[0, 0]); np.exp(x.requires_grad_()); np.round(x); np.cumsum(x[0])
""".replace("\n", "; ").strip("; ").split("; ")  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expression(expression):
    compared(*(attempt(evaluated, m, expression) for m in BOTH))


IN_PLACE = """
y = x * 1; y.exp_().mul_(y.sin()); out = y * x
y = x * 1; y.sqrt_(); out = y[:, 0]
y = x * 1; y.pow_(3).remainder_(2.); out = y * x
y = x * 1; y.clamp_(x * 0.5, x * x); out = y
y = x * 1; y.sub_(x, alpha=3); out = y * y
y = x * 1; y.div_(x + 5, rounding_mode="trunc"); out = y + x
y = x * 1; y.unsqueeze_(0); out = y * y
y = x * 1; y.t_(); out = y @ x
y = x * 1; z = y * y; y.t_(); out = z
y = x * 1; y.transpose_(0, 1).exp_(); out = y + y
y = F.silu(x * 1, inplace=True); out = y * y
y = F.elu(x * 1, 0.7, True); out = y * y
y = F.hardtanh(x * 1, inplace=True); out = y * x
x.exp_()
x.unsqueeze_(0)
y = x * 1; z = y.exp(); z.exp_(); out = z
y = x * 1; z = y.sin(); y.exp_(); out = z
""".strip().splitlines()


@pytest.mark.parametrize("script", IN_PLACE)
def test_change_in_place(script):
    compared(*(attempt(program_result, m, script, []) for m in BOTH))


@pytest.mark.parametrize("name", UNARY)
def test_nan_stays_nan(name):
    x = np.array([np.nan, 1.0])
    compared(*(attempt(lambda m: applied(m, name)(m, m.tensor(x)), m) for m in BOTH))
