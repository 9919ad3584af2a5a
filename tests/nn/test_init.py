"""Initial values: each distribution's spread by its formula, in the tensor's own memory, outside any graph."""

import math

import pytest

import minidl
from minidl import nn
from minidl.nn import init

WEIGHT = (60, 40, 3, 5)  # fan_in 600, fan_out 900
STANDARD = {
    "uniform": (lambda w: init.uniform_(w, -1, 3), 4 / math.sqrt(12)),
    "normal": (lambda w: init.normal_(w, 1, 0.5), 0.5),
    "xavier uniform": (init.xavier_uniform_, math.sqrt(2 / 1500)),
    "xavier normal": (lambda w: init.xavier_normal_(w, gain=3), 3 * math.sqrt(2 / 1500)),
    "kaiming uniform": (init.kaiming_uniform_, math.sqrt(2 / 600)),
    "kaiming normal": (lambda w: init.kaiming_normal_(w, nonlinearity="tanh"), 5 / 3 / math.sqrt(600)),
    "kaiming fan_out": (lambda w: init.kaiming_normal_(w, 2, "fan_out"), math.sqrt(2 / 5 / 900)),
}


@pytest.mark.parametrize("name", STANDARD)
def test_standard_deviation(name):
    fill, wanted = STANDARD[name]
    weight = nn.Parameter(minidl.zeros(WEIGHT))
    memory = weight.array
    assert fill(weight) is weight
    assert weight.array is memory
    assert weight.is_leaf
    assert weight.requires_grad
    assert weight.std().item() == pytest.approx(wanted, rel=0.02)
    if "uniform" in name:
        half = math.sqrt(3) * wanted
        assert half * 1.98 < (weight.max() - weight.min()).item() < half * 2.0001


def test_signal_keeps_its_size_through_layers_of_relus():
    x = minidl.randn(256, 200)
    for _ in range(10):
        x = (x @ init.kaiming_normal_(minidl.zeros(200, 200)).T).relu()
    assert 0.4 < (x * x).mean().item() / 2 < 2.5


def test_constants_and_a_bias_in_place():
    layer = nn.Linear(3, 2)
    init.constant_(layer.weight, 0.25)
    init.ones_(layer.bias)
    assert layer(minidl.ones(3)).tolist() == [1.75, 1.75]
    assert init.zeros_(layer.bias).tolist() == [0, 0]
    layer.apply(lambda module: init.normal_(module.weight, 0.0, 0.02))
    layer.weight.data.normal_(0.0, 0.02)
    assert abs(layer.weight).max().item() < 0.2


def test_a_seed_and_a_generator():
    draws = [minidl.zeros(5).uniform_(generator=minidl.Generator().manual_seed(3)).tolist() for _ in range(2)]
    assert draws[0] == draws[1]
    minidl.manual_seed(3)
    assert minidl.zeros(5).uniform_().tolist() == draws[0]


def test_what_is_overwritten_has_no_gradient():
    x = minidl.ones(3, requires_grad=True)
    (x * 2).normal_().sum().backward()
    assert x.grad.tolist() == [0, 0, 0]
