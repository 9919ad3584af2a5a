"""Optimisers: formulas on one number, groups, state, and the faults known from other libraries."""

import itertools
import math

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.kernels import reference
from minidl.kernels.cpu import optimisers


def parameter(value=1.0):
    return minidl.tensor([value], dtype=minidl.float64, requires_grad=True)


def descend(make, steps, value=1.0):
    """The path of p under the gradient of p^2 / 2, which is p."""
    p = parameter(value)
    optimizer, path = make([p]), []
    for _ in range(steps):
        optimizer.zero_grad()
        (p * p / 2).sum().backward()
        optimizer.step()
        path.append(p.item())
    return path


def test_sgd_by_hand():
    assert descend(lambda p: optim.SGD(p, lr=0.5), 2) == [0.5, 0.25]
    # b = 1, p = 0.5; b = 0.5 * 1 + 0.5 = 1, p = 0
    assert descend(lambda p: optim.SGD(p, lr=0.5, momentum=0.5), 2) == [0.5, 0.0]
    # b = 1, p = 0.5; b = 0.5 + 0.5 * 0.5 = 0.75, p = 0.125: no dampening at the first step
    assert descend(lambda p: optim.SGD(p, lr=0.5, momentum=0.5, dampening=0.5), 2) == [0.5, 0.125]
    # b = 1, step 1 + 0.5 * 1 = 1.5
    assert descend(lambda p: optim.SGD(p, lr=0.5, momentum=0.5, nesterov=True), 1) == [0.25]
    assert descend(lambda p: optim.SGD(p, lr=0.5, weight_decay=0.5), 1) == [0.25]


def test_sgd_does_not_turn_nesterov_on_by_itself():
    assert not optim.SGD([parameter()]).param_groups[0]["nesterov"]


def test_adam_by_hand():
    g1, g2 = 1.0, 1 - 0.1 / (1 + 1e-8)
    m = 0.9 * 0.1 * g1 + 0.1 * g2
    v = 0.999 * 0.001 * g1**2 + 0.001 * g2**2
    step = 0.1 * (m / (1 - 0.9**2)) / (math.sqrt(v / (1 - 0.999**2)) + 1e-8)
    assert descend(lambda p: optim.Adam(p, lr=0.1), 2) == pytest.approx([g2, g2 - step], rel=1e-12)


def test_further_optimisers_by_hand():
    """The gradient of p^2 / 2 is p: 1 at the first step, and what the first step leaves at the second."""
    p = 1 - 0.1 / math.sqrt(0.1)
    v = 0.9 * 0.1 + 0.1 * p**2
    assert descend(lambda q: optim.RMSprop(q, lr=0.1, alpha=0.9, eps=0), 2) == pytest.approx([p, p - 0.1 * p / v**0.5])
    assert descend(lambda q: optim.RMSprop(q, lr=0.1, alpha=0.9, eps=0, centered=True), 1) == pytest.approx(
        [1 - 0.1 / math.sqrt(0.1 - 0.01)]
    )
    b = 0.5 / math.sqrt(0.1) + p / v**0.5
    assert descend(lambda q: optim.RMSprop(q, lr=0.1, alpha=0.9, eps=0, momentum=0.5), 2)[1] == pytest.approx(
        p - 0.1 * b
    )
    d = math.sqrt(1e-6 / (0.1 + 1e-6))
    u, v = 0.1 * d**2, 0.9 * 0.1 + 0.1 * (1 - d) ** 2
    assert descend(optim.Adadelta, 2) == pytest.approx([1 - d, (1 - d) * (1 - math.sqrt((u + 1e-6) / (v + 1e-6)))])


def test_decoupled_weight_decay_is_not_in_the_gradient():
    assert descend(lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.5), 1) == pytest.approx([0.95 - 0.1])
    p = parameter()
    optimizer, p.grad = optim.AdamW([p], lr=0.1, weight_decay=0.5), minidl.zeros(1, dtype=minidl.float64)
    optimizer.step()
    assert p.item() == pytest.approx(0.95)
    assert optim.AdamW([parameter()]).param_groups[0]["weight_decay"] == 0.01


def test_amsgrad_divides_by_the_greatest_mean_square():
    p = parameter()
    optimizer = optim.Adam([p], lr=0.1, betas=(0.0, 0.5), eps=0, amsgrad=True)
    for g, step in ((2.0, 0.1), (1.0, 0.1 * 0.75**0.5 / 2**0.5)):  # v = 2, then 1.5 of which the greatest is 2
        before, p.grad = p.item(), minidl.full((1,), g, dtype=minidl.float64)
        optimizer.step()
        assert before - p.item() == pytest.approx(step)
    assert optimizer.state[p]["max_exp_avg_sq"].item() == 2


def test_what_climbs():
    for make in (optim.SGD, optim.Adam, optim.RMSprop):
        assert descend(lambda p, make=make: make(p, lr=0.1, maximize=True), 1)[0] > 1


def test_a_rate_may_be_a_tensor():
    p = parameter()
    lr = minidl.tensor(0.5)
    optimizer = optim.SGD([p], lr=lr)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    p.grad = minidl.ones(1).double()
    optimizer.step()
    schedule.step()
    assert (p.item(), lr.item(), schedule.get_last_lr()) == (0.5, 0.25, [0.25])


def test_adam_weight_decay_is_in_the_gradient():
    p = parameter(2.0)
    optimizer = optim.Adam([p], lr=0.1, weight_decay=0.5)
    p.grad = minidl.zeros(1, dtype=minidl.float64)
    optimizer.step()
    assert p.item() == pytest.approx(1.9)  # g = 0.5 * 2, and a first step of Adam is lr
    assert optimizer.state[p]["exp_avg"].item() == pytest.approx(0.1)


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
def test_parameters_may_come_from_a_generator(make):
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = make(itertools.chain(a.parameters(), b.parameters()), lr=0.1)
    before = [p.detach().numpy().copy() for p in optimizer.param_groups[0]["params"]]
    for _ in range(2):
        optimizer.zero_grad()
        (b(a(minidl.ones(1, 2))) ** 2).sum().backward()
        optimizer.step()
    after = [p.detach().numpy() for p in (*a.parameters(), *b.parameters())]
    assert len(before) == 4
    assert all((x != y).any() for x, y in zip(before, after, strict=True))


def test_groups_with_their_own_settings():
    p, q = parameter(), parameter()
    optimizer = optim.SGD([{"params": [p]}, {"params": q, "lr": 0.5}], lr=0.1)
    p.grad, q.grad = minidl.ones(1).double(), minidl.ones(1).double()
    optimizer.step()
    assert (p.item(), q.item()) == (0.9, 0.5)
    optimizer.param_groups[0]["lr"] = 0.4
    optimizer.step()
    assert p.item() == pytest.approx(0.5)
    assert "Parameter Group 1\n    dampening: 0\n    differentiable: False\n" in repr(optimizer)
    assert "\n    lr: 0.5\n" in repr(optimizer)


def test_parameters_without_a_gradient_are_left_alone():
    p, q = parameter(), parameter()
    optimizer = optim.Adam([p, q], weight_decay=1.0)
    p.grad = minidl.ones(1).double()
    optimizer.step()
    assert q.item() == 1
    assert list(optimizer.state) == [p]


def test_step_with_a_closure():
    p = parameter()
    optimizer = optim.SGD([p], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with minidl.no_grad():
        assert optimizer.step(closure).item() == 1
    assert p.item() == 0


@pytest.mark.parametrize(
    "make",
    [lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3), lambda p: optim.Adam(p, weight_decay=0.1)],
)
def test_a_saved_state_goes_on_as_if_nothing_had_happened(make, tmp_path):
    p = parameter()
    optimizer = make([p])
    for i in range(6):
        if i == 3:
            minidl.save({"p": p, "optimizer": optimizer.state_dict()}, tmp_path / "state")
            state = minidl.load(tmp_path / "state")
            q = state["p"].requires_grad_()
            other = make([q])
            other.load_state_dict(state["optimizer"])
        for x, o in ((p, optimizer), (q, other)) if i >= 3 else ((p, optimizer),):
            o.zero_grad()
            (x**4).sum().backward()
            o.step()
    assert p.item() == q.item()


def test_a_loaded_state_is_a_copy():
    p = parameter()
    p.grad = minidl.ones(1).double()
    first, second = optim.Adam([p]), optim.Adam([p])
    first.step()
    second.load_state_dict(first.state_dict())
    before = first.state[p]["exp_avg"].item()
    second.step()
    assert first.state[p]["exp_avg"].item() == before
    assert (first.state[p]["step"], second.state[p]["step"]) == (1, 2)


def test_a_state_that_does_not_fit_changes_nothing():
    p, q = parameter(), minidl.ones(3, requires_grad=True)
    p.grad, q.grad = minidl.ones(1).double(), minidl.ones(3)
    of_q = optim.Adam([q], lr=7)
    of_q.step()
    of_p = optim.Adam([p], lr=1)
    with pytest.raises(ValueError, match=r"has shape \(3,\) in the state, its parameter \(1,\)"):
        of_p.load_state_dict(of_q.state_dict())
    with pytest.raises(ValueError, match=r"each group: \[2\] in the state, \[1\] in the optimizer"):
        of_p.load_state_dict(optim.Adam([parameter(), parameter()]).state_dict())
    assert of_p.param_groups[0]["lr"] == 1
    assert not of_p.state


def test_moments_of_dead_units_do_not_become_denormal():
    p = minidl.ones(4, requires_grad=True)
    optimizer = optim.Adam([p])
    p.grad = minidl.ones(4)
    optimizer.step()
    p.grad = minidl.zeros(4)
    for _ in range(1200):
        optimizer.step()
    for name in ("exp_avg", "exp_avg_sq"):
        values = np.abs(optimizer.state[p][name].numpy())
        assert ((values == 0) | (values >= np.finfo(np.float32).tiny)).all()
    assert (optimizer.state[p]["exp_avg"].numpy() == 0).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: optim.SGD([], lr=0.1), ValueError, "empty parameter list"),
        (lambda: optim.SGD(iter(()), lr=0.1), ValueError, "empty parameter list"),
        (lambda: optim.SGD(parameter()), TypeError, "not one tensor"),
        (lambda: optim.SGD([np.ones(2)]), TypeError, "only optimize tensors, not ndarray; pass model"),
        (lambda: optim.SGD([parameter() * 2]), ValueError, "<MulBackward> computed"),
        (lambda: optim.SGD([parameter()], lr=-1), ValueError, "invalid lr -1: it must be at least 0"),
        (lambda: optim.SGD([parameter()], lr=float("nan")), ValueError, "invalid lr nan"),
        (lambda: optim.SGD([parameter()], nesterov=True), ValueError, "momentum 0 and dampening 0"),
        (lambda: optim.Adam([parameter()], betas=(0.9, 1.0)), ValueError, "invalid beta 1.0 at index 1"),
        (lambda: optim.Adam([parameter()], eps=-1e-8), ValueError, "invalid eps"),
        (lambda: optim.Adam([{"params": [p := parameter()]}, {"params": [p]}]), ValueError, "more than once"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_settings_that_change_the_formula_are_refused():
    p = parameter()
    optimizer = optim.Adam([p])
    state = optimizer.state_dict()
    state["param_groups"][0]["differentiable"] = True
    with pytest.raises(ValueError, match="differentiable=True is not supported"):
        optimizer.load_state_dict(state)
    with pytest.raises(ValueError, match="differentiable=True is not supported"):
        optim.SGD([{"params": [p], "differentiable": True}])


OPTIMISERS = {
    "adam": lambda p: optim.Adam(p, lr=1e-3),
    "momentum": lambda p: optim.SGD(p, lr=1e-2, momentum=0.9),
    "nesterov": lambda p: optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: optim.RMSprop(p, lr=1e-3, alpha=0.9, momentum=0.9),
}


def denormal(a: np.ndarray) -> bool:
    return bool(((a != 0) & (np.abs(a) < np.finfo(a.dtype).tiny)).any())


@pytest.mark.parametrize("name", OPTIMISERS)
def test_dead_units_leave_no_denormal_numbers(name):
    """They slow a processor many times over; 0.9^t is one after some 830 steps."""
    first, last = nn.Linear(8, 16), nn.Linear(16, 4)
    optimizer = OPTIMISERS[name]([*first.parameters(), *last.parameters()])
    x, target = minidl.randn(32, 8), minidl.randn(32, 4)
    for step in range(1000):
        if step == 5:  # when all of them have moments
            first.bias.data[:8] = -1e3
        y = minidl.relu(first(x))
        loss = nn.functional.mse_loss(last(y), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert y.detach().numpy()[:, :8].max() == 0
    assert not denormal(y.detach().numpy())
    for p in (*first.parameters(), *last.parameters()):
        assert not any(denormal(a) for a in (p.detach().numpy(), p.grad.numpy()))
        buffers = [b.numpy() for b in optimizer.state[p].values() if isinstance(b, minidl.Tensor)]
        assert buffers
        assert not any(denormal(b) for b in buffers)


@pytest.mark.parametrize("backend", [reference, optimisers])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sums_of_momentum_are_flushed(backend, nesterov):
    tiny = np.finfo(np.float32).tiny
    p, buf = np.ones(3, np.float32), np.array([1.05, -1.05, 1.2], np.float32) * tiny
    backend.sgd_step([p], [np.zeros(3, np.float32)], [buf], 0.1, 0.9, 0.0, nesterov, 0.0)
    np.testing.assert_allclose(buf, [0, 0, 1.08 * tiny], rtol=1e-6)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (nn.Linear(2, 2), "not Linear: pass model.parameters"),
        (nn.Linear(2, 2).parameters, "not method: pass model.parameters"),
        ({minidl.ones(1, requires_grad=True)}, "must have an order, and a set has none"),
        ([{"params": {minidl.ones(1, requires_grad=True)}}], "must have an order, and a set has none"),
    ],
)
def test_what_is_no_list_of_parameters_is_refused(params, message):
    with pytest.raises(TypeError, match=message):
        optim.SGD(params, lr=0.1)


def test_a_state_of_other_parameters_is_refused():
    optimizer = optim.Adam([parameter()])
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match=r"a state of parameter 5, but the groups have \[0\]"):
        optimizer.load_state_dict({**state, "state": {5: {}}})


def test_parameters_that_joined_later_count_their_own_steps():
    """What is stepped together must have been stepped equally often: Adam's first step of each is lr."""
    p, q = parameter(), parameter()
    optimizer = optim.Adam([p, q], lr=0.1)
    p.grad = minidl.ones(1).double()
    optimizer.step()
    q.grad = minidl.ones(1).double()
    optimizer.step()
    assert [optimizer.state[x]["step"] for x in (p, q)] == [2, 1]
    assert q.item() == pytest.approx(0.9)


def test_parameters_of_two_dtypes_are_stepped_together():
    p, q = minidl.ones(1, requires_grad=True), parameter()
    optimizer = optim.SGD([p, q], lr=0.5, momentum=0.9)
    for _ in range(2):
        p.grad, q.grad = minidl.ones(1), minidl.ones(1).double()
        optimizer.step()
    assert (p.dtype, q.dtype) == (minidl.float32, minidl.float64)
    assert [p.item(), q.item()] == pytest.approx([1 - 0.5 - 0.95] * 2)


def test_settings_of_another_type_are_refused():
    with pytest.raises(TypeError, match="invalid lr '0.1': it must be a number, not str"):
        optim.SGD([parameter()], lr="0.1")
    with pytest.raises(KeyError, match=r"needs the key 'params', and has \['param'\]"):
        optim.SGD([{"param": [parameter()]}], lr=0.1)


def test_an_optimiser_of_ones_own_with_a_state():
    class Counting(optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

        def step(self, closure=None):
            for p in self.param_groups[0]["params"]:
                state = self.state[p]
                if len(state) == 0:
                    state["count"] = 0
                state["count"] += 1

    p = minidl.ones(1, requires_grad=True)
    optimizer = Counting([p])
    optimizer.step()
    optimizer.step()
    assert optimizer.state[p] == {"count": 2}
