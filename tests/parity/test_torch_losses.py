"""Losses drawn by Hypothesis: values, gradients, second gradients, printed forms and error types as PyTorch's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.with_torch import BOTH, GRAD, agree, array, attempt, count, same

SHAPE = st.lists(st.integers(1, 4), max_size=4).map(tuple)
REDUCTION = st.sampled_from(["mean", "sum", "none"])
DTYPE = st.sampled_from(["float32", "float64"])


def derivatives(m, function, inputs):
    """The loss, its gradients, and the gradients of their weighted sum, for a weighted sum of the loss."""
    x = [m.tensor(a, requires_grad=True) for a in inputs]
    y = function(*x)
    weights = m.tensor(np.linspace(0.5, 1.5, array(y).size, dtype=inputs[0].dtype).reshape(array(y).shape))
    first = GRAD[m]((y * weights).sum(), x, create_graph=True)
    constant = sum((a * 0).sum() for a in x)  # for gradients that do not depend on x
    second = GRAD[m](sum((g * g).sum() for g in first) + constant, x)
    return [y, *first, *second]


def compare(name, *inputs, rtol=1e-5, **options):
    def function(F, *x):
        return getattr(F, name)(*x, **options)

    ours, theirs = (derivatives(m, lambda *x, m=m: function(m.nn.functional, *x), inputs) for m in BOTH)
    for a, b in zip(ours, theirs, strict=True):  # rounding is relative to the greatest number that took part
        same(a, b, rtol=rtol, atol=2e-6 * max(1, np.abs(array(b)).max(initial=0)), zeros=False)
    count("losses", name)


@given(shape=SHAPE, reduction=REDUCTION, dtype=DTYPE, seed=st.integers(0, 999), scale=st.sampled_from([1, 30, 1e4]))
def test_elementwise_losses_of_any_number(shape, reduction, dtype, seed, scale):
    rng = np.random.default_rng(seed)
    x, t = (scale * rng.standard_normal(shape)).astype(dtype), rng.random(shape).astype(dtype)
    compare("binary_cross_entropy_with_logits", x, t, reduction=reduction)
    compare("mse_loss", x, t, reduction=reduction)
    compare("l1_loss", x, t, reduction=reduction)
    compare("huber_loss", x, t, reduction=reduction, delta=0.7)
    compare("smooth_l1_loss", x, t, reduction=reduction, beta=0.4)
    compare("kl_div", -abs(x) / scale, t, reduction="batchmean" if reduction == "mean" else reduction)


@given(shape=SHAPE, reduction=REDUCTION, dtype=DTYPE, seed=st.integers(0, 999))
def test_binary_cross_entropy(shape, reduction, dtype, seed):
    rng = np.random.default_rng(seed)
    x, t = rng.uniform(0.01, 0.99, shape).astype(dtype), rng.choice([0, 0.3, 1], shape).astype(dtype)
    # PyTorch's second gradient adds 1e-12 to x and 1 - x, which shows in float64.
    rtol = 1e-5 if dtype == "float32" else 1e-3
    compare("binary_cross_entropy", x, t, rtol=rtol, reduction=reduction)
    edge = rng.choice([0, 1], shape).astype(dtype)  # where the logarithm is cut off, second gradients have no sense
    ours, theirs = (m.nn.BCELoss(reduction=reduction)(m.tensor(edge), m.tensor(t)) for m in BOTH)
    same(ours, theirs, zeros=False)


@given(
    n=st.integers(1, 4),
    c=st.integers(1, 5),
    size=st.sampled_from([(), (1, 1), (2, 3)]),
    reduction=REDUCTION,
    dtype=DTYPE,
    seed=st.integers(0, 999),
    scale=st.sampled_from([1, 1e4]),
)
def test_cross_entropy(n, c, size, reduction, dtype, seed, scale):
    rng = np.random.default_rng(seed)
    x = (scale * rng.standard_normal((n, c, *size))).astype(dtype)
    target = rng.integers(c, size=(n, *size))
    kept = np.maximum(target, min(1, c - 1))  # class 0 is ignored: some of another, or a mean of nothing, NaN

    weight, smoothing = rng.choice([0.5, 1, 2], c).astype(dtype), rng.choice([0.0, 0.2])

    def loss(m):
        options = {"ignore_index": 0, "label_smoothing": smoothing, "reduction": reduction}
        plain, weighted = m.nn.CrossEntropyLoss(reduction=reduction), m.nn.CrossEntropyLoss(m.tensor(weight), **options)
        return lambda x: plain(x, m.tensor(target)) + weighted(x, m.tensor(kept))

    ours, theirs = (derivatives(m, loss(m), [x]) for m in BOTH)
    agree(("losses", "cross_entropy"), ours, theirs, zeros=False)


def test_one_sample_and_none():
    for reduction in ("mean", "sum", "none"):
        ours, theirs = (
            m.nn.functional.cross_entropy(m.tensor([0.5, -1.0]), m.tensor(1), reduction=reduction) for m in BOTH
        )
        same(ours, theirs)
        ours, theirs = (
            m.nn.functional.cross_entropy(m.zeros(0, 3), m.zeros(0, dtype=m.int64), reduction=reduction) for m in BOTH
        )
        same(ours, theirs, zeros=False)


@pytest.mark.parametrize("name", ["MSELoss", "L1Loss", "NLLLoss", "CrossEntropyLoss", "BCELoss", "BCEWithLogitsLoss"])
def test_printed(name):
    ours, theirs = (repr(getattr(m.nn, name)(reduction="sum")) for m in BOTH)
    assert ours == theirs


ERRORS = """
F.cross_entropy(x, m.tensor([0, 1, 4]))
F.cross_entropy(x, m.tensor([0, 1, -1]))
F.cross_entropy(x, m.tensor([0, 1, 2], dtype=m.int32))
F.cross_entropy(x, m.tensor([0.0, 1.0, 2.0]))
F.cross_entropy(x, m.tensor([0, 1]))
F.cross_entropy(x, m.tensor([[0], [1], [2]]))
F.cross_entropy(x, [0, 1, 2])
F.cross_entropy(x, m.tensor([0, 1, 2]), reduction="max")
F.binary_cross_entropy(p, p[0])
F.binary_cross_entropy(p * 2, p)
F.binary_cross_entropy(p, p * 2)
F.binary_cross_entropy(p, p.long())
F.binary_cross_entropy(p, p > 0)
F.binary_cross_entropy(p, p.double())
F.binary_cross_entropy(p * float("nan"), p)
F.binary_cross_entropy_with_logits(x, p[0])
F.binary_cross_entropy_with_logits(x, p.long())
F.binary_cross_entropy_with_logits(x, p, reduction="max")
F.mse_loss(x, p, reduction="max")
F.l1_loss(x, p, reduction="max")
F.l1_loss(p.long(), p.long())
F.l1_loss(p > 0, p > 0)
F.nll_loss(x, m.tensor([0, 1, 4]))
F.nll_loss(x, m.tensor([0, 1, -1]))
F.nll_loss(x, m.tensor([0, 1, 2], dtype=m.int32))
F.nll_loss(x, m.tensor([0, 1]))
F.nll_loss(x, x)
F.nll_loss(x, [0, 1, 2])
F.nll_loss(x, m.tensor([0, 1, 2]), reduction="max")
F.leaky_relu(x.long())
F.leaky_relu(x > 0)
F.leaky_relu(x, "a")
F.leaky_relu(x, None)
m.nn.Softmax("a")(x)
m.nn.LogSoftmax(2)(x)
""".strip().splitlines()


@pytest.mark.parametrize("call", ERRORS)
def test_the_same_type_of_error(call):
    ours, theirs = (
        attempt(eval, call, {"m": m, "F": m.nn.functional, "x": m.zeros(3, 4), "p": m.ones(3, 4)}) for m in BOTH
    )
    assert isinstance(theirs, Exception)
    assert isinstance(ours, type(theirs)), (ours, theirs)
