"""nn.init and random numbers in place: the same distributions, arguments, defaults and types of errors."""

import inspect

import numpy as np
import pytest

from tests.helpers.with_torch import BOTH, array, same, torch
from tests.parity.test_torch_nn import tried

NAMES = [f"{name}_" for name in ("uniform", "normal", "constant", "zeros", "ones", "xavier_uniform", "xavier_normal",
                                  "kaiming_uniform", "kaiming_normal")]  # fmt: skip
FILLS = """
nn.init.uniform_(w); nn.init.uniform_(w, -2, b=5); nn.init.normal_(w); nn.init.normal_(w, 3, std=0.1)
nn.init.xavier_uniform_(w); nn.init.xavier_uniform_(w, gain=2.5); nn.init.xavier_normal_(w, 0.5)
nn.init.kaiming_uniform_(w); nn.init.kaiming_uniform_(w, a=5**0.5); nn.init.kaiming_normal_(w, mode="fan_out")
nn.init.kaiming_normal_(w, nonlinearity="relu"); nn.init.kaiming_uniform_(w, 0.2, "fan_out", "leaky_relu")
nn.init.kaiming_normal_(w, nonlinearity="selu"); nn.init.kaiming_normal_(w, nonlinearity="linear")
w.data.normal_(0.0, 0.02); w.data.normal_(mean=1, std=2); w.data.uniform_(-0.1, 0.1); w.data.uniform_(to=3)
""".strip().replace("\n", "; ").split("; ")  # fmt: skip


def filled(m, text):
    space = {"m": m, "nn": m.nn, "w": m.nn.Parameter(m.zeros(50, 30, 4, 3))}
    y = eval(text, space)
    assert y.shape == space["w"].shape
    return array(space["w"])


@pytest.mark.parametrize("text", FILLS)
def test_the_same_distribution(text):
    torch.manual_seed(0)
    ours, theirs = (filled(m, text) for m in BOTH)
    spread = theirs.std()
    assert abs(ours.mean() - theirs.mean()) < 0.03 * spread
    assert abs(ours.std() / spread - 1) < 0.02
    middle = [np.quantile(x, np.linspace(0.05, 0.95, 9)) for x in (ours, theirs)]
    np.testing.assert_allclose(*middle, atol=0.04 * spread)


@pytest.mark.parametrize("name", [*NAMES, "calculate_gain"])
def test_names_and_defaults_of_arguments(name):
    ours, theirs = (inspect.signature(getattr(m.nn.init, name)).parameters.values() for m in BOTH)
    assert [(p.name, p.default, p.kind) for p in ours] == [(p.name, p.default, p.kind) for p in theirs]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_constants_and_dtypes(dtype):
    for text in ("constant_(w, 0.1)", "zeros_(w)", "ones_(w)"):
        ours, theirs = (
            eval("nn.init." + text, {"nn": m.nn, "w": m.full((2, 3), 7.0, dtype=getattr(m, dtype))}) for m in BOTH
        )
        same(ours, theirs)
    for m in BOTH:
        assert str(m.zeros(3, dtype=getattr(m, dtype)).normal_().uniform_().dtype).endswith(dtype)


@pytest.mark.parametrize("param", [None, 0, 0.2, 1])
def test_gains(param):
    for name in ["linear", "conv2d", "conv_transpose2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]:
        ours, theirs = (m.nn.init.calculate_gain(name, param) for m in BOTH)
        assert ours == pytest.approx(theirs, rel=1e-15)


ERRORS = """
nn.init.xavier_uniform_(v); nn.init.xavier_normal_(v); nn.init.kaiming_uniform_(v); nn.init.kaiming_normal_(v[0])
nn.init.kaiming_normal_(x, mode="fan"); nn.init.kaiming_normal_(x, nonlinearity="gelu")
nn.init.kaiming_uniform_(x, "a"); nn.init.calculate_gain("leaky_relu", True); nn.init.calculate_gain("a")
nn.init.constant_(x, "a"); nn.init.uniform_(i); nn.init.normal_(i); nn.init.normal_(x, 0, -1)
nn.init.uniform_(x, 1, 0); p.normal_(); p.uniform_(); i.normal_(); i.uniform_(); t.uniform_(); x.normal_(0, -1)
x.normal_("a"); x.uniform_("a"); x.uniform_(1, 0); x.normal_(0, 1, 2); x.normal_(generator=3)
x.uniform_(float("nan"), 1); x.normal_(0, float("nan")); nn.init.uniform_(3)
""".strip().replace("\n", "; ").split("; ")  # fmt: skip


@pytest.mark.parametrize("text", ERRORS)
def test_the_same_type_of_error(text):
    ours, theirs = (tried(m, text) for m in BOTH)
    assert isinstance(theirs, Exception), "PyTorch accepts this"
    assert isinstance(ours, Exception), f"minidl accepts this; PyTorch: {theirs!r}"
    if not isinstance(theirs, AttributeError):
        assert isinstance(ours, type(theirs)), f"{ours!r}; PyTorch: {theirs!r}"
