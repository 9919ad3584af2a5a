"""Whole models, drawn: up to 8 layers that fit each other, trained for 20 steps beside the same model in PyTorch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from minidl.testing import models
from tests.helpers.with_torch import array, count, same, torch

OPTIMISERS = [
    ("SGD", {"lr": 2e-3}),
    ("SGD", {"lr": 5e-4, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 1e-3, "momentum": 0.8, "dampening": 0.3}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.05}),
]
LOSSES = ["MSELoss", "BCEWithLogitsLoss"]
TOLERANCE = {"float64": 1e-8, "float32": 1e-4}  # relative to the largest value


def twin(layer):
    """PyTorch's layer of the same printed form, and of the settings that PyTorch does not print."""
    made = eval(repr(layer), dict(vars(torch.nn)))
    if hasattr(layer, "ceil_mode"):
        made.ceil_mode = layer.ceil_mode
    return made


def train(m, model, x, loss, rule, steps=20):
    """The losses, then all parameters at the end, as arrays by name."""
    name, settings = rule
    target = m.tensor(np.random.default_rng(0).random(tuple(model(x).shape)).astype(array(x).dtype))
    optimizer, criterion = getattr(m.optim, name)(model.parameters(), **settings), getattr(m.nn, loss)()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = criterion(model(x), target)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return {"losses": np.array(losses), **{name: array(p) for name, p in model.state_dict().items()}}


def in_torch(model, x, dtype):
    """The same model and input in PyTorch."""
    made = torch.nn.Sequential(*map(twin, model)).to(getattr(torch, dtype))
    made.load_state_dict({name: torch.tensor(array(p)) for name, p in model.state_dict().items()})
    return made, torch.tensor(array(x).astype(dtype))


def compare(case, loss, rule, dtype):
    """Some models diverge, and amplify rounding: they may differ by what PyTorch in float32 differs from float64."""
    model, x = case
    (theirs, t), exact = in_torch(model, x, dtype), in_torch(model, x, "float64")
    assert repr(model) == repr(theirs)
    same(model(x), theirs(t), zeros=False)
    wanted, exact = (train(torch, *parts, loss, rule) for parts in ((theirs, t), exact))
    ours = train(minidl, model, x, loss, rule)
    assert list(ours) == list(wanted)
    for name, value in wanted.items():
        assert ours[name].shape == value.shape
        rounding = np.abs(value - exact[name]).max(initial=0)
        bound = TOLERANCE[dtype] * (1 + np.abs(value).max(initial=0)) + 20 * rounding
        assert np.abs(ours[name] - value).max(initial=0) <= bound, name
    count("models", dtype)


def drawn(dtype, cases):
    @settings(max_examples=cases)
    @given(case=models(dtype=dtype), loss=st.sampled_from(LOSSES), rule=st.sampled_from(OPTIMISERS))
    def check(case, loss, rule):
        compare(case, loss, rule, dtype)

    return check


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_twenty_steps_of_a_drawn_model(dtype):
    drawn(dtype, 50)()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_twenty_steps_of_many_drawn_models(dtype):
    drawn(dtype, 500)()
