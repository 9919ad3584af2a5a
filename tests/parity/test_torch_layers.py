"""Layers, losses as modules and optimisers with drawn settings: one text, evaluated in both libraries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from tests.helpers.with_torch import BOTH, GRAD, agree, array, torch

FEW = st.integers(1, 4)
PAIR = st.integers(1, 3) | st.tuples(st.integers(1, 3), st.integers(1, 3))
IMAGE = st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(6, 9), st.integers(6, 9))
ANY = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple)
DTYPE = st.sampled_from(["float32", "float64"])
SEED = st.integers(0, 2**16)


def text(form, shape, **arguments):
    """Strategy of (the layer's constructor as text, a shape for it); the form may use the drawn shape as s."""

    def written(drawn):
        s, values = drawn
        return eval(f"f{form!r}", {"s": s, **values}), s

    return st.tuples(shape, st.fixed_dictionaries(arguments)).map(written)


POOL = {"k": PAIR, "t": st.none() | PAIR, "c": st.booleans()}
RESIZED = {"n": st.sampled_from(["size=5", "size=(4, 9)", "scale_factor=2", "scale_factor=1.5", "scale_factor=(2, 3)"])}
CONV = {"o": FEW, "k": PAIR, "t": PAIR, "p": st.integers(0, 2), "b": st.booleans(), "d": st.integers(1, 2)}
MODES = st.sampled_from(["nearest", "nearest-exact", "bilinear", "bicubic", "area"])
BORDERED = "12", "2", "12", "12", "2"
PADS = {d: st.integers(0, 2) | st.tuples(*[st.integers(0, 3)] * (2 * d)) for d in (1, 2)}
NOT_EMPTY = IMAGE.filter(lambda s: s[0] > 0)
MOMENTUM = st.sampled_from([0.1, 0.5, 1.0])
NORM = {"e": st.sampled_from([1e-5, 0.1]), "m": MOMENTUM, "a": st.booleans(), "t": st.booleans()}
NORM_B = {"e": st.sampled_from([1e-5, 0.1]), "a": st.booleans(), "b": st.booleans()}
ROW = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(2, 40))
GROUPS = st.tuples(st.integers(0, 3), st.sampled_from([2, 4]), st.integers(2, 40))
LAYERS = {
    "Linear": text("Linear({s[-1]}, {o}, bias={b})", ANY.filter(lambda s: s[-1] > 0), o=FEW, b=st.booleans()),
    "Conv2d": text("Conv2d({s[1]}, {o}, {k}, {t}, {p}, {d}, bias={b})", IMAGE, **CONV),
    "ConvTranspose2d": text("ConvTranspose2d({s[1]}, {o}, {k}, {t}, {p}, bias={b}, dilation={d})", IMAGE, **CONV),
    "ReLU": text("ReLU({i})", ANY, i=st.booleans()),
    "BatchNorm2d": text("BatchNorm2d({s[1]}, {e}, {m}, {a}).train({t})", NOT_EMPTY, **NORM),
    "BatchNorm1d": text("BatchNorm1d({s[1]}, {e}, {m}, {a}).train({t})", NOT_EMPTY.map(lambda s: s[:3]), **NORM),
    "InstanceNorm1d": text("InstanceNorm1d({s[1]}, {e}, {m}, {a}, {k}).train({t})", ROW, **NORM, k=st.booleans()),
    "InstanceNorm2d": text("InstanceNorm2d({s[1]}, {e}, {m}, {a}, {k}).train({t})", NOT_EMPTY, **NORM, k=st.booleans()),
    "GroupNorm": text("GroupNorm({g}, {s[1]}, {e}, {a}, bias={b})", GROUPS, g=st.sampled_from([1, 2]), **NORM_B),
    "LayerNorm": text("LayerNorm({s}[{d}:], {e}, {a}, {b})", ROW, d=st.integers(1, 2), **NORM_B),
    "Identity": text("Identity(3, a=2)", ANY),
    "LeakyReLU": text("LeakyReLU({a}, {i})", ANY, a=st.sampled_from([0.01, 0.2, 2]), i=st.booleans()),
    "PReLU": text("PReLU({s[1]})", IMAGE),
    "ELU": text("ELU({a}, {i})", ANY, a=st.sampled_from([0.3, 1, 2.5]), i=st.booleans()),
    "SELU": text("SELU({i})", ANY, i=st.booleans()),
    "SiLU": text("SiLU({i})", ANY, i=st.booleans()),
    "GELU": text("GELU({a!r})", ANY, a=st.sampled_from(["none", "tanh"])),
    "Softplus": text("Softplus({b}, {t})", ANY, b=st.sampled_from([0.5, 1, 3]), t=st.sampled_from([1, 20])),
    "LogSigmoid": text("LogSigmoid()", ANY),
    "Hardtanh": text("Hardtanh({a}, 0.6, {i})", ANY, a=st.sampled_from([-1, 0]), i=st.booleans()),
    "ReLU6": text("ReLU6({i})", ANY, i=st.booleans()),
    "Dropout2d": text("Dropout2d({p}).eval()", IMAGE, p=st.sampled_from([0, 0.3, 1])),
    "Softmax": text("Softmax({d})", ANY, d=st.sampled_from([0, -1])),
    "LogSoftmax": text("LogSoftmax(dim={d})", ANY, d=st.sampled_from([0, -1])),
    "Sigmoid": text("Sigmoid()", ANY),
    "Tanh": text("Tanh()", ANY),
    "Dropout": text("Dropout({p}).eval()", ANY, p=st.sampled_from([0, 0.3, 1])),
    "Flatten": text("Flatten({a}, {b})", IMAGE, a=st.integers(0, 2), b=st.integers(2, 3)),
    "Unflatten": text("Unflatten(1, ({a}, -1))", IMAGE.map(lambda s: (s[0], 6, *s[2:])), a=st.sampled_from([1, 2, 3])),
    "MaxPool2d": text("MaxPool2d({k}, {t}, ceil_mode={c})", IMAGE, **POOL),
    "AvgPool2d": text("AvgPool2d({k}, {t}, ceil_mode={c})", IMAGE, **POOL),
    "MaxUnpool2d": text("MaxUnpool2d({k})", IMAGE, k=PAIR),
    "Upsample": text("Upsample({n}, mode={m!r})", IMAGE, **RESIZED, m=MODES),
    "UpsamplingNearest2d": text("UpsamplingNearest2d({n})", IMAGE, **RESIZED),
    "UpsamplingBilinear2d": text("UpsamplingBilinear2d({n})", IMAGE, **RESIZED),
    "Unfold": text("Unfold({k}, {d}, {p}, {t})", IMAGE, k=PAIR, d=st.integers(1, 2), p=st.integers(0, 2), t=PAIR),
    "Fold": text("Fold((5, 6), 2)", st.tuples(st.integers(0, 3), st.sampled_from([4, 8]), st.just(20))),
    **{
        f"{name}Pad{d}d": text(f"{name}Pad{d}d({{p}}{', 2.5' * (name == 'Constant')})", image, p=widths)
        for name, dims in zip(("Constant", "Zero", "Reflection", "Replication", "Circular"), BORDERED, strict=True)
        for d, image, widths in [("1", IMAGE.map(lambda s: s[:3]), PADS[1]), ("2", NOT_EMPTY, PADS[2])] if d in dims
    },
    "AdaptiveAvgPool2d": text("AdaptiveAvgPool2d({k})", NOT_EMPTY, k=PAIR),
    "AdaptiveMaxPool2d": text("AdaptiveMaxPool2d({k})", NOT_EMPTY, k=PAIR),
    "PixelShuffle": text("PixelShuffle({u})", NOT_EMPTY.map(lambda s: (s[0], 36, *s[2:])), u=st.integers(1, 3)),
    "PixelUnshuffle": text("PixelUnshuffle({u})", NOT_EMPTY.map(lambda s: (*s[:2], 6, 12)), u=st.integers(1, 3)),
    "ChannelShuffle": text("ChannelShuffle({u})", NOT_EMPTY.map(lambda s: (s[0], 6, *s[2:])), u=st.integers(1, 3)),
    "Sequential": text("Sequential(nn.Conv2d({s[1]}, {o}, 3), nn.ReLU(), nn.Flatten())", IMAGE, o=FEW),
}  # fmt: skip
REDUCED = {"r": st.sampled_from(["mean", "sum", "none"])}
LOSSES = {
    "MSELoss": text("MSELoss(reduction={r!r})", ANY, **REDUCED),
    "BCELoss": text("BCELoss(reduction={r!r})", ANY, **REDUCED),
    "BCEWithLogitsLoss": text("BCEWithLogitsLoss(reduction={r!r})", ANY, **REDUCED),
    "L1Loss": text("L1Loss(reduction={r!r})", ANY, **REDUCED),
    "SmoothL1Loss": text("SmoothL1Loss(reduction={r!r}, beta={b})", ANY, b=st.sampled_from([0.1, 1.0]), **REDUCED),
    "HuberLoss": text("HuberLoss(reduction={r!r}, delta={d})", ANY, d=st.sampled_from([0.1, 1.0]), **REDUCED),
    "KLDivLoss": text(
        "KLDivLoss(reduction={r!r}, log_target={g})",
        ANY,
        g=st.booleans(),
        r=st.sampled_from(["batchmean", "sum", "none"]),
    ),
    "NLLLoss": text("NLLLoss(reduction={r!r})", IMAGE, **REDUCED),
    "CrossEntropyLoss": text("CrossEntropyLoss(reduction={r!r})", IMAGE, **REDUCED),
}


def built(m, constructor, dtype, seed):
    """The module, its parameters drawn alike in both libraries."""
    module = eval("nn." + constructor, {"nn": m.nn}).to(getattr(m, dtype))
    rng = np.random.default_rng(seed)
    state = {name: rng.standard_normal(tuple(value.shape)).astype(dtype) for name, value in module.state_dict().items()}
    state = {name: np.abs(value) if "running_var" in name else value for name, value in state.items()}
    module.load_state_dict({name: m.tensor(value) for name, value in state.items()})
    return module


def forms(m, module, inputs, others=()):
    """The output, the gradients of a weighted sum of its squares in inputs and parameters, and the buffers."""
    xs = [m.tensor(x, requires_grad=True) for x in inputs]
    y = module(*[x * 1 for x in xs], *others)  # a copy, which may be overwritten
    weights = m.tensor(np.cos(np.arange(y.numel())).reshape(tuple(y.shape)).astype(array(y).dtype))
    return [y.detach(), *GRAD[m]((y * y * weights).sum(), [*xs, *module.parameters()]), *module.buffers()]


@pytest.mark.drawn("layers")
@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=25)
@given(data=st.data(), dtype=DTYPE, seed=SEED)
def test_layer(name, data, dtype, seed):
    constructor, shape = data.draw(LAYERS[name])
    x = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    others = dict.fromkeys(BOTH, ())
    if name == "MaxUnpool2d":
        y, places = torch.nn.functional.max_pool2d(
            torch.tensor(x), eval("torch.nn." + constructor).kernel_size, return_indices=True
        )
        x, others = array(y), {m: (m.tensor(array(places)), shape[-2:]) for m in BOTH}
    ours, theirs = (forms(m, built(m, constructor, dtype, seed), [x], others[m]) for m in BOTH)
    scale = max([1.0] + [float(np.abs(array(g)).max(initial=0)) for g in theirs])
    agree(("layers", name), ours, theirs, rtol=1e-4, atol=1e-5 * scale, zeros=False)


@pytest.mark.drawn("losses")
@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=25)
@given(data=st.data(), dtype=DTYPE, seed=SEED)
def test_loss(name, data, dtype, seed):
    constructor, shape = data.draw(LOSSES[name])
    rng = np.random.default_rng(seed)
    x, t = (rng.uniform(0.05, 0.95, shape).astype(dtype) for _ in range(2))
    others = dict.fromkeys(BOTH, ())
    if name in ("CrossEntropyLoss", "NLLLoss"):
        classes = rng.integers(shape[1], size=(shape[0], *shape[2:]))
        others = {m: (m.tensor(classes),) for m in BOTH}
    inputs = [x, t][: 2 - len(others[minidl])]
    ours, theirs = (forms(m, built(m, constructor, dtype, seed), inputs, others[m]) for m in BOTH)
    agree(("losses", name), ours, theirs, rtol=1e-4, atol=1e-5, zeros=False)


UNIT = st.sampled_from([0.0, 0.1, 0.5, 0.9])
RULES = {
    "SGD": st.fixed_dictionaries(
        {"lr": UNIT, "momentum": UNIT, "weight_decay": UNIT, "nesterov": st.booleans(), "dampening": UNIT}
    ),
    "Adam": st.fixed_dictionaries(
        {
            "lr": UNIT,
            "betas": st.tuples(UNIT, st.sampled_from([0.5, 0.9, 0.999])),
            "weight_decay": UNIT,
            "eps": st.sampled_from([1e-8, 1e-3, 1.0]),
            "amsgrad": st.booleans(),
        }
    ),
    "AdamW": st.fixed_dictionaries({"lr": UNIT, "weight_decay": UNIT, "eps": st.sampled_from([1e-8, 1e-3])}),
    "RMSprop": st.fixed_dictionaries(
        {"lr": UNIT, "alpha": UNIT, "momentum": UNIT, "weight_decay": UNIT, "eps": st.sampled_from([1e-3, 1.0])}
    ),
    "Adadelta": st.fixed_dictionaries({"lr": UNIT, "rho": UNIT, "weight_decay": UNIT, "eps": st.sampled_from([1e-3])}),
}


@pytest.mark.drawn("optimisers")
@pytest.mark.parametrize("name", RULES)
@settings(max_examples=60)
@given(data=st.data(), shape=ANY, dtype=DTYPE, seed=SEED, steps=st.integers(1, 20))
def test_optimiser(name, data, shape, dtype, seed, steps):
    rule = data.draw(RULES[name])
    if rule.get("nesterov"):
        rule = {**rule, "dampening": 0, "momentum": max(rule["momentum"], 0.1)}
    drawn = np.random.default_rng(seed).choice([-1.0, -0.5, 0.25, 1.0], (steps + 1, *shape))

    def stepped(m, dtype):
        p, *gradients = drawn.astype(dtype)
        x = m.tensor(p, requires_grad=True)
        optimizer = getattr(m.optim, name)([x], **rule)
        for g in gradients:
            x.grad = m.tensor(g)
            optimizer.step()
        return x.detach()

    # A decay that meets its gradient leaves only rounding, which Adam divides by its own size: float64 bounds it.
    ours, theirs, exact = stepped(minidl, dtype), stepped(torch, dtype), stepped(torch, "float64")
    rounding = float(np.abs(array(theirs) - array(exact)).max(initial=0))
    scale = max(1.0, float(np.abs(array(theirs)).max(initial=0)))
    agree(("optimisers", name), ours, theirs, atol=4e-6 * scale + 10 * rounding, zeros=False)


def test_every_layer_loss_and_optimiser_is_drawn():
    """A class that both libraries have, and that no table here names, fails this."""
    own = {name for name in minidl.nn.__all__ if name[0].isupper() and hasattr(torch.nn, name)}
    containers = {"ModuleDict", "ModuleList", "ParameterDict", "ParameterList"}
    # Embedding, which takes indices, is in test_torch_gather.py.
    assert own - {"Module", "Parameter", "Embedding", *containers} == {*LAYERS, *LOSSES}
    rules = {name for name, value in vars(minidl.optim).items() if isinstance(value, type) and hasattr(value, "step")}
    assert rules - {"Optimizer"} == {*RULES}
