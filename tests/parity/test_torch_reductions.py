"""Reductions, extremes, norms, running sums and products of tensors against PyTorch's: values, gradients, errors."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.with_torch import BOTH, attempt, same
from tests.parity.test_torch_errors import VALUES, judged
from tests.parity.test_torch_ops import (
    DIMMED,
    DTYPE,
    FLAG,
    FULL,
    MANY,
    ONE,
    SEED,
    broadcast,
    compare_two_gradients,
    dim,
    dims,
    evaluated,
    matrices,
    with_args,
)

P = st.sampled_from([0, 1, 2, 3, 2.5, float("inf"), -float("inf")])
CORRECTION = st.sampled_from([0, 1, 0.5, -2])


def shaped(*cases):
    """One of several lists of shapes."""
    return st.sampled_from([(list(shapes), ()) for shapes in cases])


def of(m):
    return m.nn.functional


OPS = {  # as in test_torch_ops.py
    "all dim": (lambda m, a, d, k: ((a > 0).all(d, k), (a > 1).any(d, k)), with_args(dims, FLAG)),
    "mean dtype": (lambda m, a, d: (a.mean(d, dtype=m.float64), m.sum(a, d, dtype=m.float64)), with_args(dims)),
    "var correction": (lambda m, a, d, c: m.var(a, d, correction=c), with_args(dim, CORRECTION, shape=MANY)),
    "std": (lambda m, a, d, c: a.std(d, correction=c, keepdim=True), with_args(dim, CORRECTION, shape=MANY)),
    "amax": (lambda m, a, d, k: m.amax(a, () if d is None else d, k), with_args(dims, FLAG, shape=FULL)),
    "amin": (lambda m, a, d, k: a.amin(() if d is None else d, k), with_args(dims, FLAG, shape=FULL)),
    "median": (lambda m, a: a.median(), FULL.map(lambda s: ([s], ()))),
    "median dim": (
        lambda m, a, d, k: m.median(a + 0.1 * m.arange(a.numel()).view_as(a), d, k)[0],
        with_args(dim, FLAG, shape=FULL),
    ),
    "prod": (lambda m, a: m.prod(a * (a > -1)), ONE),
    "prod dim": (lambda m, a, d, k: (a * (a > -1)).prod(d, k), with_args(dim, FLAG)),
    "cumsum": (lambda m, a, d: m.cumsum(a, d), with_args(dim)),
    "logsumexp": (
        lambda m, a, d, k: m.logsumexp(a, tuple(range(a.ndim)) if d in (None, ()) else d, k),
        with_args(dims, FLAG),
    ),
    "norm": (
        lambda m, a, p, d, k: m.norm(a, p, tuple(range(a.ndim)) if d in (None, ()) else d, k),
        with_args(P, dims, FLAG, shape=FULL),
    ),
    "norm of all": (lambda m, a, p: a.norm(p), with_args(P, shape=FULL)),
    "normalize": (
        lambda m, a, p, d: of(m).normalize(a, p, d),
        with_args(st.sampled_from([1.0, 2.0, 3.0]), dim, shape=FULL),
    ),
    "cosine": (
        lambda m, a, b: of(m).cosine_similarity(a, b, -1),
        shaped([(2, 3), (2, 3)], [(3, 1, 2), (4, 2)], [(3,), (3,)]),
    ),
    "distance": (
        lambda m, a, b: of(m).pairwise_distance(a, b, 2.0, 0.3, True),
        shaped([(2, 3), (2, 3)], [(2, 3), (3,)]),
    ),
    "matmul": (lambda m, a, b: a @ b, matrices()),
    "bmm": (
        lambda m, a, b: m.bmm(a, b),
        shaped([(2, 3, 4), (2, 4, 1)], [(0, 3, 4), (0, 4, 1)], [(2, 3, 0), (2, 0, 1)]),
    ),
    "outer": (
        lambda m, a, b: (m.outer(a[0], b[1]), m.mv(a, b[0]), m.dot(a[0], a[1])),
        shaped([(2, 3), (4, 3)]),
    ),
    "einsum 1": (
        lambda m, a: m.einsum("...ii->...", a @ a.transpose(-1, -2)),
        DIMMED.filter(lambda s: len(s) > 1).map(lambda s: ([s], ())),
    ),
    "einsum 2": (lambda m, a, b: m.einsum("...,...", a, b), broadcast(2)),
    "einsum 3": (
        lambda m, *t: m.einsum("bij,kj,...bk->b...i", *t),
        shaped([(2, 3, 4), (5, 4), (2, 5)], [(2, 3, 4), (5, 4), (6, 2, 5)]),
    ),
}


@pytest.mark.drawn("operations")
@pytest.mark.parametrize("name", OPS)
@settings(max_examples=22)
@given(data=st.data(), dtype=DTYPE, seed=SEED)
def test_values_and_two_gradients(name, data, dtype, seed):
    function, cases = OPS[name]
    compare_two_gradients(name, function, *data.draw(cases), dtype, seed)


EXPRESSIONS = """
m.sum(i, 0, dtype=m.float64); t.sum(dtype=m.uint8); i.mean(dtype=m.float64); m.mean(x.to(m.float16), dtype=m.float64)
t.all(0); t.any(1, keepdim=True); x.all((0, 1)); i.to(m.uint8).any(0); m.all(e); m.any(e, 0); x.all(()); n.any(-1)
m.var(x, 1, correction=0); x.var(correction=1.5); x.var(False); x.std(False); m.std(x, correction=9)
x.std(0, True, True); n.median(); n.median(0); e.median(); x.amax(); i.amin(1); t.amax(0); n.amax(); e.amin(1)
x.median(-1, True); m.median(i); i.prod(); t.prod(); e.prod(); e.prod(0); x.prod(1, True); i.prod(0, dtype=m.float32)
m.prod(x, dim=0, keepdim=True); i.cumsum(0); t.cumsum(1); x.cumsum(dim=-1, dtype=m.float64); e.cumsum(0)
x[0, 0].cumsum(0); n.cumsum(0); x.logsumexp(1); m.logsumexp(x, (0, 1), True); i.logsumexp(0); n.logsumexp(0)
e.logsumexp(0); n[2:3].logsumexp(0); (x * 1e3).logsumexp(0); x.norm(); m.norm(x, 1); x.norm(p=2, dim=1)
x.norm(float("inf"), 0, True); m.norm(x, "fro"); m.norm(x, dtype=m.float64); e.norm(); e.norm(2, 1); n.norm()
n.norm(1); x.norm(0); x.norm(-1); x.to(m.float16).norm(); (x * 1e-30).norm(); m.norm(x, None); F.normalize(x)
F.normalize(x, 1, 0); F.normalize(x * 0); F.cosine_similarity(x, y); F.cosine_similarity(x * 0, y, dim=0)
F.pairwise_distance(x, y, 1); m.bmm(r[0], r[0].transpose(1, 2)); m.mv(x, y[0]); m.dot(x[0], y[0]); i.mm(i)
i[0].dot(i[1]); t[0].float().dot(x[0]); m.outer(x[0], i[0]); m.einsum("ij,kj->ik", x, y); m.einsum("ij->ji", [x])
m.einsum("ij,ij", i, i); m.einsum("ij -> i", x); m.einsum(",ij", x[0, 0], y); r @ r[0, 0].T
x @ r[0].transpose(1, 2)[:, :, :2].reshape(2, -1)[:, :3].T.float(); m.zeros(2, 3, 0) @ m.zeros(0, 4); e.T @ e
m.zeros(2, 0, 3) @ m.ones(3, 4); m.ones(3) @ m.ones(2, 3, 4); m.ones(2, 4, 3) @ m.ones(3)
m.ones(1, 2, 3) @ m.ones(4, 3, 2)
""".strip().replace("\n", "; ").split("; ")  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expression(expression):
    ours, theirs = (attempt(evaluated, m, expression) for m in BOTH)
    assert not isinstance(theirs, Exception), theirs
    if isinstance(ours, Exception):
        raise AssertionError(f"{expression}: {ours!r}") from ours
    same(ours, theirs)


CALLS = """
m.prod(_); m.norm(_); m.median(_); m.amax(_); m.cumsum(_, 0); m.logsumexp(_, 0); m.bmm(_, r[0]); m.mv(x, _)
m.dot(_, v); m.outer(_, v); m.einsum(_, x); m.einsum('ij', _); F.normalize(_); F.cosine_similarity(x, _)
F.pairwise_distance(_, x); x.prod(_); x.cumsum(_); x.logsumexp(_); x.amax(_); x.median(_); x.norm(_); x.norm(2, _)
x.all(_); x.any(_); x.var(correction=_); m.mean(x, dtype=_); m.dot(x, v); m.einsum('ij,jk', x, x); m.einsum('ijk', x)
m.einsum('ij->k', x); m.einsum('ii', x); m.einsum('i?', x); m.einsum('ij,jk', x); m.bmm(x, x); m.mv(x, x)
m.outer(x, v); m.mm(v, v); e.amax(); e.max(); e.argmax(); e.amin(0); e.max(0); e.median(0); i.mean(); i.norm()
i.std(); x.std(5); x.prod(2); x.cumsum(2); x.logsumexp((0, 0)); x.norm(2, 7); F.normalize(x, 2, 3)
F.cosine_similarity(x, v[:2]); x @ m.ones(2, 4, 2)
""".strip().replace("\n", "; ").split("; ")  # fmt: skip
NONE = "all dimensions, as for the other reductions"
KEPT = {
    **dict.fromkeys(["x.logsumexp(None)", "x.logsumexp(())", "x.median(None)", "x.prod(None)"], NONE),
    "m.einsum('ij', ())": "a RuntimeError, as for any other number of operands that does not fit",
}


@pytest.mark.parametrize("form", CALLS)
def test_wrong_calls(form):
    filled = [form.replace("(_", f"({value}").replace(" _", f" {value}").replace("=_", f"={value}") for value in VALUES]
    wrong = {call: judged(call) for call in dict.fromkeys(filled)}
    assert {call: why for call, why in wrong.items() if why and call not in KEPT} == {}
