"""Borders, adaptive pooling and moved pixels against PyTorch: values, first and second gradients, printed forms."""

import warnings

import numpy as np
import pytest

from tests.helpers.with_torch import BOTH, GRAD, attempt, same, torch

MODES = ["reflect", "replicate", "circular"]
CALLS = {  # operations of functional, with their arguments after the input
    **{
        f"pad {w} {m}": ("pad", (w, m))
        for m in MODES
        for w in [(1, 2), (2, 1, 0, 2), (-1, 2, 1, -1), (1, 0, 1, 1, 0, 1)]
    },
    **{
        f"{op} {size}": (op, (size,))
        for op in ("adaptive_avg_pool2d", "adaptive_max_pool2d")
        for size in [1, 3, 9, (2, 5), (None, 2), (0, 3)]
    },
    "adaptive_max_pool2d indices": ("adaptive_max_pool2d", (3, True)),
    **{f"{op} {n}": (op, (n,)) for op in ("pixel_shuffle", "pixel_unshuffle", "channel_shuffle") for n in (1, 2, 3)},
}
SHAPES = [(2, 9, 6, 4), (0, 4, 6, 6), (4, 6, 6), (5, 3), (1, 2, 3, 4, 5), (6,)]


def forms(m, op, arguments, x, seed):
    x = m.tensor(x, requires_grad=True)
    y, *rest = found if isinstance(found := getattr(m.nn.functional, op)(x, *arguments), tuple) else (found,)
    if not x.numel() or not y.numel():  # PyTorch refuses some of these gradients
        return [y, *rest]
    gy = m.tensor(np.random.default_rng(seed).standard_normal(tuple(y.shape)))
    (gx,) = GRAD[m](y * y, x, gy, create_graph=True)
    (second,) = GRAD[m]((gx * gx * gx).sum(), x)
    return [y, gx, second, *rest]


@pytest.mark.parametrize("name", CALLS)
def test_images(name):
    op, arguments = CALLS[name]
    for seed, shape in enumerate(SHAPES):
        x = np.random.default_rng(seed).standard_normal(shape)
        ours, theirs = (attempt(forms, m, op, arguments, x, seed) for m in BOTH)
        if isinstance(theirs, Exception):
            assert isinstance(ours, Exception) or not x.size, (shape, theirs, ours)
            continue
        if op == "adaptive_avg_pool2d" and len(shape) not in (3, 4):  # with size 1, PyTorch takes the mean of anything
            continue
        if op.startswith("pixel") and not x.size:  # PyTorch returns an empty batch as it is, in its old shape
            continue
        assert not isinstance(ours, Exception), (shape, ours)
        same(ours, theirs, zeros=False)


LAYERS = [
    "Conv2d(4, 6, 3, groups=2)",
    "Conv2d(4, 4, (2, 3), padding='same', groups=4, dilation=(1, 2))",
    *[
        f"Conv2d(4, 2, (4, 3), padding={p!r}, padding_mode={m!r})"
        for p in ("same", "valid", (1, 2))
        for m in ("zeros", *MODES)
    ],
    "ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2)",
    *["ZeroPad2d(2)", "ConstantPad1d((1, 2), 3.5)", "ConstantPad2d((1, 0, 2, 1), -1.0)", "ReflectionPad1d(1)"],
    *[
        "ReflectionPad2d((1, 2, 0, 1))",
        "ReplicationPad1d((2, 1))",
        "ReplicationPad2d(2)",
        "CircularPad2d((1, 2, 3, 0))",
    ],
    *[
        "AdaptiveAvgPool2d((None, 2))",
        "AdaptiveMaxPool2d(3)",
        "PixelShuffle(2)",
        "PixelUnshuffle(2)",
        "ChannelShuffle(2)",
    ],
    *[
        "Upsample(scale_factor=2, mode='bicubic')",
        "Upsample(5, mode='area')",
        "AvgPool2d(2)",
        "AvgPool2d((2, 3), 1, (1, 0))",
    ],
]


@pytest.mark.parametrize("text", LAYERS)
def test_layers(text):
    ours, theirs = (eval(f"nn.{text}", {"nn": m.nn}) for m in BOTH)
    assert repr(ours) == repr(theirs)
    state = {name: np.asarray(value) for name, value in theirs.state_dict().items()}
    ours.load_state_dict({name: BOTH[0].tensor(value) for name, value in state.items()})
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype("float32")
    x = x[0] if "1d" in text else x
    with warnings.catch_warnings(action="ignore"):  # of even kernels with padding='same'
        same(ours(BOTH[0].tensor(x)), theirs(torch.tensor(x)), zeros=False)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_initial_bounds_count_the_channels_of_a_group(groups):
    for layer in ("Conv2d", "ConvTranspose2d"):
        ours, theirs = (getattr(m.nn, layer)(32, 64, 3, groups=groups) for m in BOTH)
        assert tuple(ours.weight.shape) == tuple(theirs.weight.shape)
        bound = (9 * ours.weight.shape[1]) ** -0.5
        for w in (ours.weight.detach().numpy(), theirs.weight.detach().numpy()):
            assert 0.99 * bound < abs(w).max() <= bound * (1 + 1e-6)
