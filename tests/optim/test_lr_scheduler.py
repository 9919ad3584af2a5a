"""Schedules: each by its formula, groups, and a state that goes on where it was saved."""

import math

import pytest

import minidl
import minidl.optim.lr_scheduler as lr_scheduler
from minidl import optim
from minidl.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, MultiStepLR, ReduceLROnPlateau, StepLR


def two_groups():
    a, b = (minidl.zeros(1, requires_grad=True) for _ in range(2))
    return optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=1.0)


FORMULAS = {
    "step": (lambda o: StepLR(o, 3, 0.5), lambda lr, e: lr * 0.5 ** (e // 3)),
    "milestones": (lambda o: MultiStepLR(o, [2, 5, 5], 0.5), lambda lr, e: lr * [1, 0.5, 0.125][(e >= 2) + (e >= 5)]),
    "exponential": (lambda o: ExponentialLR(o, 0.9), lambda lr, e: lr * 0.9**e),
    "lambda": (lambda o: LambdaLR(o, lambda e: 1 / (1 + e)), lambda lr, e: lr / (1 + e)),
    "cosine": (
        lambda o: CosineAnnealingLR(o, 4, 0.1),
        lambda lr, e: 0.1 + (lr - 0.1) * math.cos(math.pi * e / 8) ** 2,
    ),
    "one cycle": (
        lambda o: lr_scheduler.OneCycleLR(o, [2.0, 1.0], 13, pct_start=5 / 13, div_factor=2, final_div_factor=10),
        lambda lr, e: (
            lr * (1.5 - 0.5 * math.cos(math.pi * e / 4) if e < 5 else 1.05 + 0.95 * math.cos(math.pi * (e - 4) / 8))
        ),
    ),
    "one cycle in three phases": (
        lambda o: lr_scheduler.OneCycleLR(
            o,
            [2.0, 1.0],
            13,
            pct_start=4 / 13,
            div_factor=2,
            final_div_factor=2,
            three_phase=True,
            anneal_strategy="linear",
        ),
        lambda lr, e: lr * (1 + e / 3 if e < 4 else 3 - e / 3 if e < 7 else 1 - (e - 6) / 12),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name):
    make, rate = FORMULAS[name]
    optimizer = two_groups()
    scheduler = make(optimizer)
    for epoch in range(10):
        wanted = [rate(1.0, epoch), rate(0.5, epoch)]
        assert scheduler.get_last_lr() == pytest.approx(wanted)
        assert [group["lr"] for group in optimizer.param_groups] == scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    scheduler.step(2)
    assert scheduler.get_last_lr() == pytest.approx([rate(1.0, 2), rate(0.5, 2)])


@pytest.mark.parametrize("make", [make for make, _ in FORMULAS.values()] + [lambda o: ReduceLROnPlateau(o, patience=1)])
def test_a_saved_state_goes_on(make, tmp_path):
    def go(optimizer, scheduler, epochs):
        rates = []
        for epoch in epochs:
            scheduler.step(*[1.0 / (epoch + 1) // 0.2] * isinstance(scheduler, ReduceLROnPlateau))
            rates.append([group["lr"] for group in optimizer.param_groups])
        return rates

    first = two_groups()
    scheduler = make(first)
    go(first, scheduler, range(5))
    minidl.save([first.state_dict(), scheduler.state_dict()], tmp_path / "state.npz")
    states = minidl.load(tmp_path / "state.npz")
    second = two_groups()
    resumed = make(second)
    second.load_state_dict(states[0])
    resumed.load_state_dict(states[1])
    assert resumed.get_last_lr() == scheduler.get_last_lr()
    assert go(second, resumed, range(5, 12)) == go(first, scheduler, range(5, 12))


def test_a_new_schedule_goes_on_from_a_last_epoch():
    optimizer = two_groups()
    StepLR(optimizer, 2)
    assert StepLR(optimizer, 2, last_epoch=3).get_last_lr() == pytest.approx([0.01, 0.005])


def test_the_momentum_runs_against_the_rate():
    for make, key in ((optim.SGD, "momentum"), (optim.Adam, "betas")):
        optimizer = make([minidl.zeros(1, requires_grad=True)])
        schedule = lr_scheduler.OneCycleLR(optimizer, 1.0, 11, pct_start=5 / 11, anneal_strategy="linear")
        momenta = []
        for _ in range(10):
            momenta.append(optimizer.param_groups[0][key])
            schedule.step()
        momenta = [m if key == "momentum" else m[0] for m in momenta]
        down, up = [0.95 - 0.025 * e for e in range(5)], [0.85 + 0.1 * e / 6 for e in range(1, 6)]
        assert momenta == pytest.approx(down + up)
    with pytest.raises(ValueError, match="step 12, but the schedule has only 11"):
        schedule.step(12)


def test_plateau_by_hand():
    optimizer = two_groups()
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, cooldown=2, min_lr=[0, 0.25])
    rates = []
    for metric in [3.0, 2.0, 2.0, 2.0, 5.0, 5.0, 5.0, 5.0, 5.0, 1.0]:  # reduced in the fourth, then two do not count
        scheduler.step(minidl.tensor(metric))
        rates.append(scheduler.get_last_lr()[0])
    assert rates == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert optimizer.param_groups[1]["lr"] == 0.25
    assert scheduler.best == 1.0


@pytest.mark.parametrize(
    ("options", "best", "near", "beyond"),
    [
        ({}, 1.0, 0.95, 0.85),
        ({"threshold_mode": "abs"}, 5.0, 4.95, 4.85),
        ({"mode": "max"}, 1.0, 1.05, 1.15),
        ({"mode": "max", "threshold_mode": "abs"}, 5.0, 5.05, 5.15),
    ],
)
def test_plateau_threshold(options, best, near, beyond):
    scheduler = ReduceLROnPlateau(two_groups(), threshold=0.1, **options)
    scheduler.step(best)
    assert [scheduler.is_better(metric) for metric in (best, near, beyond)] == [False, False, True]
