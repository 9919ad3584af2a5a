"""Schedules against PyTorch's: the rates of two groups over drawn settings, states, arguments, types of errors."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.with_torch import BOTH, attempt, count, minidl, torch
from tests.parity.test_torch_nn import tried

GAMMA = st.sampled_from([0.1, 0.5, 0.9, 1.0, 1.5])
COUNT = st.integers(1, 6)
SCHEDULES = {
    "StepLR": {"step_size": COUNT, "gamma": GAMMA},
    "MultiStepLR": {"milestones": st.lists(st.integers(0, 12), max_size=4), "gamma": GAMMA},
    "ExponentialLR": {"gamma": GAMMA},
    "LambdaLR": {"lr_lambda": st.sampled_from([lambda e: 0.9**e, [lambda e: 1 / (1 + e), lambda e: e]])},
    "CosineAnnealingLR": {"T_max": COUNT, "eta_min": st.sampled_from([0.0, 0.01])},
    "OneCycleLR": {
        "max_lr": st.sampled_from([1.0, [0.5, 2.0]]),
        "total_steps": st.integers(15, 30),
        "pct_start": st.sampled_from([0.2, 0.3, 0.45]),
        "anneal_strategy": st.sampled_from(["cos", "linear"]),
        "cycle_momentum": st.booleans(),
        "base_momentum": st.sampled_from([0.8, [0.7, 0.85]]),
        "div_factor": st.sampled_from([25.0, 10.0]),
        "three_phase": st.booleans(),
    },
    "ReduceLROnPlateau": {
        "mode": st.sampled_from(["min", "max"]),
        "factor": st.sampled_from([0.1, 0.5]),
        "patience": st.integers(0, 3),
        "threshold": st.sampled_from([1e-4, 0.2]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 3),
        "min_lr": st.sampled_from([0, 0.01, [0.02, 0.0]]),
        "eps": st.sampled_from([1e-8, 0.03]),
    },
}


def made(m, name, arguments):
    """A schedule, and the optimiser, which has two groups."""
    a, b = (m.zeros(1, requires_grad=True) for _ in range(2))
    optimizer = m.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.3}], lr=0.1)
    return getattr(m.optim.lr_scheduler, name)(optimizer, **arguments), optimizer


def rates(schedule, optimizer, metrics):
    found = []
    for metric in metrics:
        optimizer.step()
        schedule.step(*[metric] * hasattr(schedule, "patience"))
        assert schedule.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
        found.append([*schedule.get_last_lr(), *[group["momentum"] for group in optimizer.param_groups]])
    return found


@pytest.mark.drawn("schedules")
@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=25)
@given(data=st.data(), seed=st.integers(0, 999))
def test_rates(name, data, seed):
    arguments = data.draw(st.fixed_dictionaries(SCHEDULES[name]))
    metrics = np.random.default_rng(seed).choice([-1.0, 0.5, 1.0, 1.1, 2.0], 15).tolist()
    ours, theirs = (rates(*made(m, name, arguments), metrics) for m in BOTH)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    count("schedules", name)


@pytest.mark.parametrize("name", SCHEDULES)
def test_names_and_defaults_of_arguments(name):
    for takes in (lambda schedule: schedule, lambda schedule: schedule.step):
        ours, theirs = (inspect.signature(takes(getattr(m.optim.lr_scheduler, name))).parameters.values() for m in BOTH)
        assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


SETTINGS = {
    "StepLR": {"step_size": 3},
    "MultiStepLR": {"milestones": [2, 6]},
    "ExponentialLR": {"gamma": 0.7},
    "LambdaLR": {"lr_lambda": lambda e: 0.9**e},
    "CosineAnnealingLR": {"T_max": 5},
    "ReduceLROnPlateau": {"patience": 1},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_state_of_pytorchs_goes_on_here(name):
    metrics = [1.0, 1, 1, 2, 0.5, 0.5, 0.5, 0.5]
    theirs, optimizer = made(torch, name, SETTINGS[name])
    ours, own_optimizer = made(minidl, name, SETTINGS[name])
    rates(theirs, optimizer, metrics[:4])
    ours.load_state_dict(theirs.state_dict())
    own_optimizer.load_state_dict(optimizer.state_dict())
    assert set(ours.state_dict()) <= set(theirs.state_dict())
    continued = rates(ours, own_optimizer, metrics[4:]), rates(theirs, optimizer, metrics[4:])
    np.testing.assert_allclose(*continued, rtol=1e-12)


def test_printed_optimiser_has_its_initial_rate():
    ours, theirs = (repr(made(m, "StepLR", {"step_size": 2})[1]) for m in BOTH)
    assert set(ours.splitlines()) <= set(theirs.splitlines())
    assert "    initial_lr: 0.1" in ours


SGD = "optim.SGD([p], lr=1.0)"
ERRORS = f"""
optim.lr_scheduler.StepLR(p, 3)
optim.lr_scheduler.StepLR({SGD})
optim.lr_scheduler.StepLR({SGD}, 3, last_epoch=2)
optim.lr_scheduler.LambdaLR({SGD}, [abs, abs])
optim.lr_scheduler.MultiStepLR({SGD}, 3)
optim.lr_scheduler.ExponentialLR({SGD})
optim.lr_scheduler.CosineAnnealingLR(None, 3)
optim.lr_scheduler.ReduceLROnPlateau(p)
optim.lr_scheduler.ReduceLROnPlateau({SGD}, "least")
optim.lr_scheduler.ReduceLROnPlateau({SGD}, factor=1.0)
optim.lr_scheduler.ReduceLROnPlateau({SGD}, threshold_mode="a")
optim.lr_scheduler.ReduceLROnPlateau({SGD}, min_lr=[0, 0])
optim.lr_scheduler.ReduceLROnPlateau({SGD}).step()
optim.lr_scheduler.ReduceLROnPlateau({SGD}).step("a")
optim.lr_scheduler.StepLR({SGD}, 3).load_state_dict(3)
""".strip().splitlines()


@pytest.mark.parametrize("text", ERRORS)
def test_the_same_type_of_error(text):
    ours, theirs = (tried(m, text) for m in BOTH)
    assert isinstance(theirs, Exception), "PyTorch accepts this"
    assert isinstance(ours, type(theirs)), f"{ours!r}; PyTorch: {theirs!r}"


def test_a_schedule_of_ones_own():
    def run(m):
        class Halved(m.optim.lr_scheduler.LRScheduler):
            def get_lr(self):
                return [lr / 2**self.last_epoch for lr in self.base_lrs]

        optimizer = m.optim.SGD([m.zeros(1, requires_grad=True)], lr=1.0)
        return rates(Halved(optimizer), optimizer, range(4))

    assert run(minidl) == run(torch)
    assert isinstance(attempt(minidl.optim.lr_scheduler.LRScheduler, made(minidl, "StepLR", {"step_size": 1})[1]),
                      NotImplementedError)  # fmt: skip
