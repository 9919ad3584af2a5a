"""SGD and Adam against PyTorch's: the parameters after 20 steps, term for term."""

import itertools

import numpy as np
import pytest

import minidl
from tests.helpers.with_torch import BOTH, array, torch

LIMIT = {"float32": 1e-6, "float64": 1e-12}
SETTINGS = [
    ("SGD", {"lr": 0.05}),
    # At lr 0.05 PyTorch's own float32 path is 1.4e-6 from its float64 path (minidl's 0.4e-6): no test of a formula.
    ("SGD", {"lr": 0.02, "momentum": 0.9}),
    ("SGD", {"lr": 0.02, "momentum": 0.9, "dampening": 0.5}),
    ("SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.05, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.5, "dampening": 0.1, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.5, "weight_decay": 0.01, "nesterov": True}),
    ("SGD", {"lr": 0.05, "momentum": 0, "dampening": 0.5}),
    ("SGD", {}),
    ("Adam", {}),
    ("Adam", {"lr": 0.01, "weight_decay": 1e-5}),
    ("Adam", {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01, "betas": (0.0, 0.99)}),
    ("Adam", {"lr": 0.02, "eps": 0.0}),
    ("Adam", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01, "decoupled_weight_decay": True, "weight_decay": 0.1, "maximize": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}),
    ("SGD", {"lr": 1e-4, "weight_decay": 0.1, "maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.003, "alpha": 0.9, "momentum": 0.5, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.003, "centered": True, "eps": 1e-3}),
    ("RMSprop", {"lr": 0.003, "centered": True, "eps": 1e-3, "momentum": 0.5, "maximize": True}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.5, "eps": 1e-4, "weight_decay": 0.1}),
]
DTYPES = pytest.mark.parametrize("dtype", LIMIT)
RULES = pytest.mark.parametrize(("name", "settings"), SETTINGS)


def values(seed, dtype, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def model(m, dtype):
    """A small convolutional regression whose initial values do not depend on the library."""
    nn = m.nn
    convolutions = nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.ConvTranspose2d(3, 2, 2)
    net = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(72, 4)).to(getattr(m, dtype))
    drawn = values(0, dtype, *[tuple(p.shape) for p in net.parameters()])
    net.load_state_dict({key: m.tensor(0.3 * v) for key, v in zip(net.state_dict(), drawn, strict=True)})
    return net


def train(m, net, optimizer, dtype, steps, first=0, before_step=None):
    for step in range(first, first + steps):
        x, t = (m.tensor(v) for v in values(step, dtype, (4, 1, 5, 5), (4, 4)))
        optimizer.zero_grad()
        m.nn.functional.mse_loss(net(x), t).backward()
        if before_step:
            before_step(optimizer, step)
        optimizer.step()
    return [array(p).copy() for p in net.parameters()]


def equal(ours, theirs, dtype):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=LIMIT[dtype])


@DTYPES
@RULES
def test_twenty_steps_of_a_model(name, settings, dtype):
    results = []
    for m in BOTH:
        net = model(m, dtype)
        results.append(train(m, net, getattr(m.optim, name)(net.parameters(), **settings), dtype, 20))
    equal(*results, dtype)


@DTYPES
@RULES
def test_groups_chains_skipped_parameters_and_changing_lr(name, settings, dtype):
    """Plain tensors in groups, some from generators; one never gets a gradient, one only in every third step."""

    def run(m):
        a, b, c, d = (m.tensor(v, requires_grad=True) for v in values(1, dtype, (3, 2), (4,), (2,), (1,)))
        groups = [
            {"params": itertools.chain([a], (p for p in [c])), "lr": 0.01},
            {"params": (p for p in [b]), "weight_decay": 0.03},
            {"params": d},
        ]
        optimizer = getattr(m.optim, name)(groups, **settings)
        for step in range(20):
            optimizer.zero_grad(set_to_none=step % 2 == 0)
            loss = (a * a).sum() * (b.exp().mean() + 1)
            (loss + (d * d).sum() if step % 3 == 0 else loss).backward()
            optimizer.param_groups[0]["lr"] *= 0.9
            optimizer.step()
        return [array(p).copy() for p in (a, b, c, d)]

    ours, theirs = (run(m) for m in BOTH)
    equal(ours, theirs, dtype)
    np.testing.assert_array_equal(ours[2], values(1, dtype, (3, 2), (4,), (2,))[2])


@DTYPES
@pytest.mark.parametrize("given", [lambda p: p, list, lambda p: itertools.chain(p, []), lambda p: (q for q in p)])
def test_any_iterable_of_parameters_is_trained(given, dtype):
    nets = [model(m, dtype) for m in BOTH]
    optimizers = [m.optim.Adam(given(net.parameters())) for m, net in zip(BOTH, nets, strict=True)]
    equal(*[train(*parts, dtype, 3) for parts in zip(BOTH, nets, optimizers, strict=True)], dtype)


def as_arrays(state):
    """An optimiser's state without any library's tensors."""
    if isinstance(state, dict):
        return {key: as_arrays(value) for key, value in state.items()}
    if isinstance(state, torch.Tensor | minidl.Tensor):
        return array(state).copy()
    return state


def as_tensors(state):
    """The same for torch.optim, which wants its tensors back, the step counter among them."""
    tensors = {
        i: {key: torch.as_tensor(v, dtype=torch.float32 if key == "step" else None) for key, v in entry.items()}
        for i, entry in state["state"].items()
    }
    return {"state": tensors, "param_groups": state["param_groups"]}


@DTYPES
@RULES
@pytest.mark.parametrize("first", BOTH, ids=["minidl first", "torch first"])
def test_state_travels_between_the_libraries_midway(first, name, settings, dtype):
    second = next(m for m in BOTH if m is not first)
    before, after, whole = model(first, dtype), model(second, dtype), model(torch, dtype)
    optimizer = getattr(first.optim, name)(before.parameters(), **settings)
    train(first, before, optimizer, dtype, 10)
    resumed = getattr(second.optim, name)(after.parameters(), lr=1.0)
    after.load_state_dict({key: second.tensor(array(v)) for key, v in before.state_dict().items()})
    state = as_arrays(optimizer.state_dict())
    if second is torch:  # settings that minidl does not know keep PyTorch's defaults
        own = resumed.state_dict()["param_groups"]
        state["param_groups"] = [{**mine, **loaded} for mine, loaded in zip(own, state["param_groups"], strict=True)]
    resumed.load_state_dict(as_tensors(state) if second is torch else state)
    expected = train(torch, whole, getattr(torch.optim, name)(whole.parameters(), **settings), dtype, 20)
    equal(train(second, after, resumed, dtype, 10, first=10), expected, dtype)


def test_a_torch_state_dict_loads_as_it_is():
    net, ours = model(torch, "float32"), model(minidl, "float32")
    theirs = torch.optim.Adam(net.parameters(), lr=0.01)
    train(torch, net, theirs, "float32", 3)
    ours.load_state_dict(net.state_dict())
    resumed = minidl.optim.Adam(ours.parameters())
    resumed.load_state_dict(theirs.state_dict())
    steps = [train(*parts, "float32", 3, first=3) for parts in ((minidl, ours, resumed), (torch, net, theirs))]
    equal(*steps, "float32")


def test_defaults_names_and_printed_form_of_the_settings():
    for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adadelta"):
        ours, theirs = (getattr(m.optim, name)([m.zeros(1, requires_grad=True)]) for m in BOTH)
        groups = [{k: v for k, v in o.param_groups[0].items() if k != "params"} for o in (ours, theirs)]
        assert groups[0] == groups[1]
        assert repr(ours) == repr(theirs)


def test_a_closure_is_called_and_its_loss_returned():
    def run(m):
        x = m.tensor([3.0], requires_grad=True)
        optimizer = m.optim.SGD([x], lr=0.1)

        def closure():
            optimizer.zero_grad()
            loss = (x * x).sum()
            loss.backward()
            return loss

        return optimizer.step(closure).item(), x.item()

    assert run(minidl) == pytest.approx(run(torch))
