"""Every operation against PyTorch's: values, gradients, second gradients, dtypes, arguments, changes in place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.helpers.with_torch import BOTH, GRAD, agree, array, attempt, same

# -- one body for all operations ------------------------------------------------------------------------------------

SHAPE = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
ONE = SHAPE.map(lambda s: ([s], ()))
FULL = hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=3)


def broadcast(n):
    shapes = hnp.mutually_broadcastable_shapes(num_shapes=n, max_dims=3, min_side=0, max_side=3)
    return shapes.map(lambda s: (list(s.input_shapes), ()))


@st.composite
def with_args(draw, *args, shape=SHAPE):
    """A shape, and arguments that are strategies, or functions from the shape to one."""
    s = draw(shape)
    return [s], tuple(draw(a(s) if not isinstance(a, st.SearchStrategy) else a) for a in args)


def twice(arg, shape=SHAPE):
    """One shape for two tensors, and one argument."""
    return shape.flatmap(lambda s: st.tuples(st.just([s, s]), st.tuples(arg(s))))


def dim(s):
    return st.integers(-max(len(s), 1), max(len(s), 1) - 1)


def dims(s):
    several = st.lists(st.integers(0, len(s) - 1), unique=True).map(tuple) if s else st.just(())
    return st.none() | dim(s) | several


def copies(s):
    return st.lists(st.integers(0, 3), min_size=len(s), max_size=len(s) + 2).map(tuple)


def permutation(s):
    return st.permutations(range(len(s)))


def larger(s):
    front = st.lists(st.integers(0, 2), max_size=2)
    sizes = st.tuples(*[st.integers(0, 3) if n == 1 else st.sampled_from([n, -1]) for n in s])
    return st.tuples(front, sizes).map(lambda p: (*p[0], *p[1]))


def widths(s):
    return st.integers(0, len(s)).flatmap(lambda n: st.tuples(*[st.integers(-1, 2)] * (2 * n)))


def matrices(sizes=(1, 2, 3)):
    n = st.sampled_from((0, *sizes))
    parts = st.tuples(n, n, n, st.booleans(), st.booleans(), broadcast(2).map(lambda c: c[0]))

    def shapes(p):
        m, k, n, row, column, batch = p
        return [(k,) if row else (*batch[0], m, k), (k,) if column else (*batch[1], k, n)], ()

    return parts.map(shapes)


FLAG = st.booleans()
NUMBER = st.sampled_from([0, 1, 2, 3, -1, 0.5, -0.5, 2.5])
LINEAR = st.sampled_from([([(3,), (2, 3), (2,)], ()), ([(2, 4, 3), (2, 3), (2,)], ()), ([(0, 3), (2, 3), (2,)], ())])
HOW = st.sampled_from(["mean", "sum", "none"])
NOT_0D = broadcast(2).filter(lambda c: max(map(len, c[0])) > 0)
SAME3 = SHAPE.map(lambda s: ([s] * 3, ()))
DIMMED = SHAPE.filter(len)
MANY = hnp.array_shapes(min_dims=1, max_dims=3, min_side=2, max_side=3)  # one element has no variance


def positive(x):
    return x * x + 0.5


def mask(m, x):
    """A fixed pattern of True and False of x's shape."""
    return m.tensor(np.arange(x.numel()).reshape(tuple(x.shape)) % 3 == 0)


OPS = {  # name: (function of m, tensors, arguments; strategy of (shapes, arguments))
    "add": (lambda m, a, b: a + b, broadcast(2)),
    "add alpha": (lambda m, a, b: m.add(a, b, alpha=3), broadcast(2)),
    "sub": (lambda m, a, b: a - b, broadcast(2)),
    "mul": (lambda m, a, b: a * b, broadcast(2)),
    "div": (lambda m, a, b: a / b, broadcast(2)),
    "reflected": (lambda m, a: 2 - 3 * a + 1 / (a + 5), ONE),
    "pow": (lambda m, a, b: positive(a) ** b, broadcast(2)),
    "pow raw": (lambda m, a, b: a**b, broadcast(2)),
    "pow number": (lambda m, a, p: a**p, with_args(NUMBER)),
    "number pow": (lambda m, a, p: (abs(p) or 0.25) ** a, with_args(NUMBER)),
    "matmul": (lambda m, a, b: a @ b, matrices()),
    "neg": (lambda m, a: -a, ONE),
    "exp": (lambda m, a: m.exp(a), ONE),
    "log": (lambda m, a: m.log(a), ONE),
    "sqrt": (lambda m, a: m.sqrt(a), ONE),
    "abs": (lambda m, a: abs(a), ONE),
    "tanh": (lambda m, a: m.tanh(a), ONE),
    "sigmoid": (lambda m, a: m.sigmoid(a), ONE),
    "relu": (lambda m, a: m.relu(a), ONE),
    "leaky_relu": (lambda m, a, s: m.nn.functional.leaky_relu(a, s), with_args(NUMBER)),
    "clamp": (lambda m, a, lo, hi: a.clamp(lo, hi), with_args(NUMBER, NUMBER)),
    "clamp min": (lambda m, a, lo: a.clamp(min=lo), with_args(NUMBER)),
    "clamp max": (lambda m, a, hi: m.clamp(a, max=hi), with_args(NUMBER)),
    "maximum": (lambda m, a, b: m.maximum(a, b), broadcast(2)),
    "where": (lambda m, c, a, b: m.where(c > 0, a, b), broadcast(3)),
    "where number": (lambda m, a, b: m.where(a > 0, 2.0, b), broadcast(2)),
    "softmax": (lambda m, a, d: m.softmax(a, d), with_args(dim)),
    "log_softmax": (lambda m, a, d: a.log_softmax(dim=d), with_args(dim)),
    "sum": (lambda m, a, d, k: a.sum(d, k), with_args(dims, FLAG)),
    "mean": (lambda m, a, d, k: m.mean(a, dim=d, keepdim=k), with_args(dims, FLAG)),
    # For dim=() PyTorch 2.13 reduces all in var, but divides the gradient by 1 in place of their number.
    "var": (lambda m, a, d, u, k: a.var(d if d != () else None, u, k), with_args(dims, FLAG, FLAG, shape=MANY)),
    "max": (lambda m, a: a.max(), FULL.map(lambda s: ([s], ()))),
    "max dim": (lambda m, a, d, k: tuple(m.max(a, d, k)), with_args(dim, FLAG, shape=FULL)),
    "max of two": (lambda m, a, b: m.max(a, b), broadcast(2)),
    "argmax": (lambda m, a, d, k: a.argmax(d, k), with_args(dim, FLAG, shape=FULL)),
    "argmax all": (lambda m, a: m.argmax(a), FULL.map(lambda s: ([s], ()))),
    "reshape": (lambda m, a: m.reshape(a, (-1,)) if a.numel() else a.reshape(0), ONE),
    "view": (lambda m, a: a.view(1, a.numel(), 1), ONE),
    "flatten": (lambda m, a, d: a.flatten(start_dim=d), with_args(dim)),
    "transpose": (lambda m, a, d, e: a.transpose(d, e), with_args(dim, dim)),
    "permute": (lambda m, a, p: a.permute(*p) if p else a.permute(()), with_args(permutation)),
    "squeeze": (lambda m, a: a.squeeze(), ONE),
    "squeeze dim": (lambda m, a, d: m.squeeze(a, d), with_args(dims).filter(lambda c: c[1][0] is not None)),
    "unsqueeze": (lambda m, a, d: a.unsqueeze(d), with_args(lambda s: st.integers(-len(s) - 1, len(s)))),
    "expand": (lambda m, a, s: a.expand(*s) if s else a.expand(()), with_args(larger)),
    "stack": (lambda m, a, b, c: m.stack([a, b, c], dim=-1), SAME3),
    "cat": (lambda m, a, b, d: m.cat((a, b, a), d), twice(dim, DIMMED)),
    "split": (lambda m, a, n, d: m.split(a, n, d), with_args(st.integers(1, 4), dim, shape=DIMMED)),
    "chunk": (lambda m, a, n, d: a.chunk(n, dim=d), with_args(st.integers(1, 4), dim, shape=DIMMED)),
    "unbind": (lambda m, a, d: a.unbind(d), with_args(dim, shape=DIMMED)),
    "repeat": (lambda m, a, n: a.repeat(n), with_args(copies)),
    "expand_as": (lambda m, a: (a[None] * 1).expand_as(m.zeros(2, *a.shape)), ONE),
    "square": (lambda m, a: m.square(a) * a.square(), ONE),
    "sign": (lambda m, a: m.sign(a) * a, ONE),
    "argmin": (lambda m, a, d, k: a.argmin(d, k), with_args(dim, FLAG, shape=FULL)),
    "clamp in place": (lambda m, a, lo, hi: (a * 1).clamp_(lo, hi), with_args(NUMBER, NUMBER)),
    "mm": (lambda m, a, b: a.mm(b), st.sampled_from([([(2, 3), (3, 4)], ()), ([(0, 2), (2, 1)], ())])),
    "pad": (lambda m, a, w, v: m.nn.functional.pad(a, w, value=v), with_args(widths, NUMBER, shape=FULL)),
    "index": (lambda m, a, i: a[i], with_args(lambda s: hnp.basic_indices(s, allow_newaxis=True).filter(forwards))),
    "index mask": (lambda m, a: a[mask(m, a)], DIMMED.map(lambda s: ([s], ()))),
    "linear": (lambda m, x, w, b: m.nn.functional.linear(x, w, b), LINEAR),
    "l1_loss": (lambda m, a, b, r: m.nn.functional.l1_loss(a, b, reduction=r), twice(lambda s: HOW)),
    "mse_loss": (lambda m, a, b, r: m.nn.functional.mse_loss(a, b, reduction=r), twice(lambda s: HOW)),
    "compare": (lambda m, a, b: (a == b, a != b, a < b, a <= b, a > b, a >= b, a.eq(b)), broadcast(2)),
    "composed": (lambda m, a, b: (m.tanh(a * b) + (a - b).sigmoid() ** 2).sum(-1, keepdim=True) * a, NOT_0D),
}  # fmt: skip
PLAIN = np.array([-2, -1.5, -1, -0.5, 0.5, 1, 1.25, 2, 3])
REFUSED = ("not implemented", "does not support", "Boolean inputs")  # and minidl, which computes these, may
DTYPE = st.sampled_from(["float32", "float64"])
SEED = st.integers(0, 2**16)


def forwards(index):
    parts = index if isinstance(index, tuple) else (index,)
    return all(not isinstance(part, slice) or (part.step or 1) > 0 for part in parts)


def arrays(shapes, values, seed, dtype):
    rng = np.random.default_rng(seed)
    return [rng.choice(values, shape).astype(dtype) for shape in shapes]


def floats(m, result):
    """The results that can have gradients."""
    results = result if isinstance(result, tuple) else (result,)
    return [y for y in results if isinstance(y, m.Tensor) and y.requires_grad]


def slopes(m, ys, xs, seed, create_graph=False):
    """The gradients in xs of the sum of ys times random numbers; zeros where nothing depends on x."""
    rng = np.random.default_rng(seed)
    cotangents = [m.tensor(rng.choice(PLAIN, tuple(y.shape)).astype(array(y).dtype)) for y in ys]
    if not ys:
        return [m.zeros_like(x) for x in xs]
    found = GRAD[m](ys, xs, cotangents, create_graph=create_graph, allow_unused=True)
    return [m.zeros_like(x) if g is None else g for x, g in zip(xs, found, strict=True)]


def derivatives(m, function, given, args, seed, order):
    """The result, its gradients, and (for order 2) those of its gradients."""
    xs = [m.tensor(a, requires_grad=a.dtype.kind == "f") for a in given]
    y = function(m, *xs, *args)
    gx = slopes(m, floats(m, y), xs, seed, create_graph=order == 2)
    ggx = slopes(m, floats(m, tuple(gx)), xs, seed + 1) if order == 2 else []
    return y, gx, ggx


def compare_two_gradients(name, function, shapes, args, dtype, seed):
    """The results, their gradients, and those of the gradients."""
    values = positive(PLAIN) if name in ("log", "sqrt", "pow raw", "pow number") else PLAIN
    values = np.linspace(0.1, 0.9, 9) if name == "binary_cross_entropy" else values
    given = arrays(shapes, values, seed, dtype)
    ours, theirs = (attempt(derivatives, m, function, given, args, seed, 2) for m in BOTH)
    if isinstance(theirs, Exception):
        assert isinstance(ours, type(theirs)), (ours, theirs)
    else:
        agree(("operations", name), ours, theirs, rtol=1e-4, atol=1e-4, zeros=False)


@pytest.mark.drawn("operations")
@pytest.mark.parametrize("name", OPS)
@settings(max_examples=22)
@given(data=st.data(), dtype=DTYPE, seed=SEED)
def test_values_and_two_gradients(name, data, dtype, seed):
    function, cases = OPS[name]
    compare_two_gradients(name, function, *data.draw(cases), dtype, seed)


SCALED = ["div", "pow", "sqrt", "log", "sigmoid", "tanh", "softmax", "log_softmax", "var", "mean"]


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("size", [1e-30, 1e-25, 1e-19, 1e10, 1e20, 1e25])
def test_gradients_at_extreme_values(name, size):
    given = [np.array([size, 2 * size], "float32"), np.array([size, size], "float32")]
    args = {"softmax": (0,), "log_softmax": (0,), "var": (0, True, False), "mean": (0, False)}.get(name, ())
    given = given if name in ("div", "pow") else given[:1]
    ours, theirs = (derivatives(m, OPS[name][0], given, args, 0, 1) for m in BOTH)
    same(ours, theirs, zeros=False, atol=0)


# -- types of elements ----------------------------------------------------------------------------------------------

NUMERIC = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
OPERANDS = [(dtype, kind) for dtype in NUMERIC for kind in ("tensor", "0-d")] + [(n, "number") for n in (True, 2, 2.5)]
MEETINGS = {
    "+": lambda m, a, b: a + b,
    "-": lambda m, a, b: a - b,
    "*": lambda m, a, b: a * b,
    "/": lambda m, a, b: a / b,
    "**": lambda m, a, b: a**b,
    "<": lambda m, a, b: a < b,
    "==": lambda m, a, b: a == b,
    "!=": lambda m, a, b: a != b,
    "maximum": lambda m, a, b: m.maximum(a, b),
    "where": lambda m, a, b: m.where(m.tensor([True, False]), a, b),
    "cat": lambda m, a, b: m.cat([a, b]),
    "stack": lambda m, a, b: m.stack([a, b]),
    "clamp": lambda m, a, b: m.clamp(a, max=b),
    "+=": lambda m, a, b: a.clone().add_(b),
    "*=": lambda m, a, b: a.clone().mul_(b),
    "/=": lambda m, a, b: a.clone().__itruediv__(b),
    "x[i]=": lambda m, a, b: (c := a.clone(), c.__setitem__(..., b))[0],
    "result_type": lambda m, a, b: m.result_type(a, b),
    "matmul": lambda m, a, b: a.reshape(-1) @ b.reshape(-1),
}
TENSORS_ONLY = ("maximum", "cat", "stack", "clone", "+=", "*=", "/=", "x[i]=", "matmul")


def of_kind(m, dtype, kind):
    return dtype if kind == "number" else m.tensor([1, 2] if kind == "tensor" else 2, dtype=getattr(m, dtype))


@pytest.mark.parametrize("name", MEETINGS)
def test_types_of_two_operands(name):
    wrong = []
    for a in OPERANDS:
        for b in OPERANDS:
            numbers = (a[1] == "number") + (b[1] == "number")
            if numbers == 2 or (name == "clamp" and b[1] != "number") or (name in TENSORS_ONLY and numbers):
                continue
            ours, theirs = (attempt(MEETINGS[name], m, of_kind(m, *a), of_kind(m, *b)) for m in BOTH)
            try:
                if not isinstance(theirs, Exception):
                    same(ours, theirs)
                elif not any(why in str(theirs) for why in REFUSED):
                    assert isinstance(ours, type(theirs)), (ours, theirs)
            except AssertionError:
                wrong.append(f"{name} of {a} and {b}: {ours!r}, PyTorch: {theirs!r}")
    assert not wrong, f"{len(wrong)} of them:\n" + "\n".join(wrong[:8])


# -- arguments, constructors, indices: expressions in m, x, y (2, 3), i (integers), t (True and False), r (4-d) -----


def names(m):
    r = np.random.default_rng(0)
    return {
        "m": m,
        "F": m.nn.functional,
        "np": np,
        "x": m.tensor(r.integers(-3, 4, (2, 3)).astype("float32")),
        "y": m.tensor(r.standard_normal((2, 3)).astype("float32")),
        "i": m.tensor([[1, 0], [1, 1]]),
        "t": m.tensor([[True, False, True], [False, False, True]]),
        "r": m.tensor(r.standard_normal((2, 3, 4, 5))),
        "e": m.zeros(0, 3),
        "n": m.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 2.0]),
        "a": r.integers(0, 9, (2, 3)),
    }


def evaluated(m, expression):
    return eval(expression, names(m))


EXPRESSIONS = (
    """
m.add(input=x, other=y, alpha=2); m.sub(x, y); m.mul(x, other=2); m.div(x, y); m.pow(x, exponent=2)
m.matmul(x, y.T); x.matmul(other=y.T)
m.sub(x, y, alpha=2); x.sub(y, alpha=2); x.add(2); x.div(2); x.mul(y); x.pow(2); x.neg(); x.abs(); x.exp(); x.sqrt()
x.log(); x.tanh(); x.sigmoid(); x.relu()
m.clamp(x, -1, 1); m.clamp(x, min=-1, max=1); x.clamp(max=1); x.clamp(1, -1); m.maximum(x, other=y)
m.where(t, x, y); m.where(condition=t, input=x, other=0.); m.where(t, 1, 0)
m.sum(x, 1); m.sum(x, dim=(0, 1), keepdim=True); x.sum(0, True); m.sum(x, dtype=m.float64); m.sum(t)
x.sum(-1, keepdim=True); x.sum(dim=[0, 1]); m.sum(e, 0)
m.mean(x, 1, True); x.mean((0, 1)); m.mean(e); m.var(x); m.var(x[:1], 0); m.var(x[0, 0]); m.var(e); m.var(x, 1)
m.var(x, 1, False); m.var(x, 1, True, True); m.var(x, dim=0, unbiased=False, keepdim=True); x.var(unbiased=False)
m.max(x); m.max(x, 1); m.max(x, 0, True); x.max(dim=1, keepdim=True); x.max(1).values; x.max(1).indices; m.max(x, y)
x.max(1)[0]; m.max(x, other=y)
m.argmax(x); m.argmax(x, 1, True); x.argmax(dim=-1); x.argmax(keepdim=True)
m.reshape(x, (3, 2)); m.reshape(x, shape=(-1,)); x.reshape(3, 2); x.reshape([3, -1]); x.view(6); x.view((3, 2))
x.view(-1, 2); m.flatten(r, 1); m.flatten(r, start_dim=1, end_dim=2); r.flatten(2); r.unflatten(3, (5, 1))
r.unflatten(dim=0, sizes=(1, -1))
m.transpose(x, 0, 1); m.transpose(x, dim0=0, dim1=-1); x.T; x.transpose(-1, 0); m.permute(r, (0, 2, 3, 1))
m.permute(r, dims=(3, 2, 1, 0)); r.permute(0, 2, 3, 1); r.permute([0, 2, 3, 1])
m.squeeze(x[None]); m.squeeze(x[None], 0); x[None, :, None].squeeze(dim=(0, 2)); m.unsqueeze(x, 0)
x.unsqueeze(dim=-1); x[None].expand(4, -1, 3); x[None].expand((4, 2, 3)); x.expand(size=(2, 2, 3))
x.expand(2, *x.shape)
m.stack([x, y]); m.stack((x, y), 1); m.stack(tensors=[x, y], dim=-1); m.cat([x, y], 1); m.cat(tensors=(x, e), dim=0)
F.pad(x, (1, 2)); F.pad(x, (1, 2, 0, 1), "constant", 3); F.pad(x, pad=[1, -1], mode="constant", value=2.)
F.pad(x, (0, 0, -1, 1)); F.pad(i, (1, 1))
x.sum(axis=1); m.sum(x, axis=(0, 1), keepdims=True); x.mean(axis=0, keepdims=True); m.var(x, axis=1, keepdims=True)
x.std(axis=1, unbiased=False); x.max(axis=1); m.max(x, axis=0, keepdims=True); x.min(axis=-1); x.argmax(axis=1)
x.argmin(axis=0, keepdims=True); m.cat([x, y], axis=1); m.stack([x, y], axis=1); x.squeeze(axis=0); x.unsqueeze(axis=2)
m.softmax(x, axis=1); x.log_softmax(axis=0); m.unsqueeze(x, axis=0); x.chunk(2, axis=1); x.unbind(axis=1)
m.cat([m.zeros(0), x]); m.cat([x, m.zeros(0)], 1); m.cat([m.zeros(0), m.zeros(0)])
m.cat([m.zeros(0, dtype=m.float64), x]); m.cat([m.zeros(0), i])
m.zeros(0).chunk(3); m.arange(5).chunk(4); m.chunk(x, chunks=2, dim=1); m.zeros(0).split(0); m.zeros(0).split(2)
m.split(x, split_size_or_sections=2, dim=-1); x.split([1, 0, 2], 1); x.split((1, 1)); m.arange(5).split(2)
m.unbind(x, dim=1); m.unbind(i); x.repeat(2, 1); x.repeat((2, 1)); x.repeat(repeats=(2, 1, 2)); x[0, 0].repeat(2)
x[0, 0].repeat(()); i.repeat(0, 1); x.expand_as(m.zeros(2, 2, 3)); x.expand_as(other=x)
F.one_hot(i); F.one_hot(i, num_classes=5); F.one_hot(input=i[0], num_classes=2); F.one_hot(i[:0], 3); F.one_hot(i[1, 1])
x.clip(-1, 1); m.clip(x, min=-1, max=1); m.clip(input=x, max=0); x.clone().clamp_(0, 2); i.clone().clamp_(min=1)
x.argmin(); m.argmin(x, 1, True); m.argmin(i, dim=0); x.sign(); m.sign(input=i); t.sign(); m.sign(n); x.square()
m.square(i); t.square(); m.isnan(n); n.isnan(); i.isnan(); t.isnan(); m.isfinite(n); i.isfinite(); n.isinf(); m.isinf(x)
m.allclose(x, x + 1e-7); m.allclose(x, y); m.allclose(input=x, other=x[0], rtol=9, atol=9)
n.allclose(n, equal_nan=True); m.allclose(n, n); m.allclose(i, i); m.allclose(t, t); x.allclose(x * 1.01, rtol=0.1)
m.allclose(x, x + 0.1, 0, 0.2)
m.equal(x, x.clone()); m.equal(x, y); m.equal(x, x[0]); m.equal(x, x.double()); x.equal(other=x); m.equal(n, n)
m.numel(x); m.is_tensor(x); m.is_tensor(3); m.empty(2, 3).shape; m.empty((2,), dtype=m.int64).dtype
m.empty(size=(0,)); m.empty(2, requires_grad=True).requires_grad; m.mm(x, y.T); x.mm(mat2=y.T); m.mm(i, i)
m.softmax(x, 1); F.softmax(x, dim=0); x.softmax(-1); F.log_softmax(x, dim=1); m.log_softmax(x, dim=1); m.relu(x)
F.relu(x, inplace=False); F.relu(input=x); F.sigmoid(x); F.tanh(x); m.sigmoid(x); m.tanh(x)
F.linear(x, y); F.linear(input=x, weight=y, bias=None); F.dropout(x, 0.5, False); F.dropout(x, p=0.0, training=True)
F.dropout(x, p=1.0); m.dropout(x, 0.5, False); F.mse_loss(x, y); F.mse_loss(input=x, target=y, reduction="sum")
m.nn.MSELoss(reduction="none")(x, y)
x == y; x != y; x < 1; x <= y; x > 0; x >= 2.5; m.eq(x, 1); x.eq(y); m.gt(x, y); ~t; t & t; t | ~t; (x > 0) & t
2 > x; x == None; -t.float(); 3 - x; 2 / y; 2 ** x; x @ y.T; abs(x)
m.tensor([5, 3, 200], dtype=m.uint8).min(); m.tensor([-128, 0], dtype=m.int8).min(0); t.min(); t.min(1)
m.min(x, y); m.min(x, other=y); m.min(i, 1, True); x.to(m.uint8).all(); x.std(unbiased=False); (x * 1e-30).std(0)
(x * 1e30).std(1); m.tensor([5], dtype=m.uint8) - 1 + -1; m.tensor([5], dtype=m.uint8) < 300
m.tensor(7, dtype=m.uint8) * 256
m.tensor(3); m.tensor(3.); m.tensor(True); m.tensor([1, 2.5]); m.tensor([[True], [False]]); m.tensor([])
m.tensor(a); m.tensor(np.float64(3)); m.tensor(np.float32(1)); m.tensor(2, dtype=m.float64)
m.tensor([1, 2], dtype=m.uint8); m.tensor([x[0, 0], x[1, 1]]); m.tensor(((1, 2), (3, 4)))
m.tensor(range(3)); m.tensor([np.array([1, 2]), np.array([3, 4])])
m.tensor([1, True])
m.as_tensor([1., 2]); m.as_tensor(a); m.as_tensor(a, dtype=m.float32); m.as_tensor(x); m.from_numpy(a)
m.zeros(2, 3); m.zeros((2, 3)); m.zeros([2]); m.zeros(()); m.zeros(2, dtype=m.int64); m.zeros(size=(2, 3))
m.ones(2, 0); m.ones(2, dtype=m.bool)
m.full((2, 3), 7); m.full((2,), 1.5); m.full((), True); m.full(size=(2,), fill_value=1, dtype=m.float64)
m.full([2], 3); m.eye(3); m.eye(2, 3); m.eye(2, dtype=m.int64)
m.arange(5); m.arange(1, 5); m.arange(1, 5, 2); m.arange(5, 0, -2); m.arange(0, 1, 0.25); m.arange(3.)
m.arange(5, dtype=m.float32); m.arange(start=1, end=3); m.arange(0); m.arange(0, 1, 0.1)
m.linspace(0, 1, 5); m.linspace(start=-1, end=1, steps=3); m.linspace(0, 1, 1); m.linspace(2, 3, 0)
m.linspace(0, 10, 4, dtype=m.int64); m.linspace(1, 0, 7, dtype=m.float64)
m.rand(2, 3).shape; m.rand((2,)).dtype; m.randn(2, 3).dtype; m.randn(size=(2,)).shape
m.randn(2, dtype=m.float64).dtype; m.randint(3, (2, 2)).shape; m.randint(0, 3, (2,)).dtype
m.randint(low=0, high=5, size=(3,)).shape; m.randint(5, size=(3,)).shape; m.randperm(4).shape; m.randperm(4).dtype
m.randperm(5).sum()
m.zeros_like(x); m.ones_like(i); m.full_like(x, 2); m.full_like(input=i, fill_value=3); m.rand_like(x).shape
m.randn_like(r).dtype; m.zeros_like(x, dtype=m.int64); m.ones_like(t); m.randint(2, (3,), dtype=m.float32).dtype
x.shape; x.shape[0]; x.size(); x.size(1); x.size(-1); x.size(dim=0); x.dim(); x.ndim; x.numel(); x.dtype; i.dtype
len(x); x.device; x.requires_grad; x.is_leaf; x.grad; x.grad_fn; x[0, 0].item(); float(x[0, 1]); int(x[1, 1])
x.tolist(); i.tolist(); bool(t[0, 0]); i[0, 0].item(); t[0, 0].item(); x.is_floating_point()
[row.sum() for row in x]
x.float(); x.double(); x.long(); x.to(m.float64); x.to(dtype=m.int32); x.to("cpu"); x.to(r); x.to("cpu", m.float64)
x.to(device="cpu", dtype=m.float64); x.to(m.device("cpu")); x.cpu(); x.clone(); x.detach(); x.data; x.contiguous()
x.numpy().dtype; np.asarray(x).shape; np.array(x).sum(); x.__array__().shape
x.clone().zero_(); x.clone().fill_(3); x.clone().copy_(y); x.clone().add_(1); x.clone().add_(y, alpha=2)
x.clone().mul_(y); x.clone().copy_(y[0]); i.clone().fill_(2.7); i.clone().copy_(m.ones(2, 2) * 1.5)
x.clone().requires_grad_().requires_grad; F.relu(x.clone(), inplace=True)
x[0]; x[-1]; x[0, 1]; x[0][1]; x[:, 1]; x[1:]; x[:, ::2]; x[..., 0]; x[..., None]; x[None]; x[:, None, 1:]; x[()]
x[...]; x[5:]; x[0, ..., 1]; r[..., 1:3, :]; r[:, -1, ..., 0]; x[-5:1]; x[1, None]; r[1, :, None, 2]; x[i[0, 0]]
x[m.tensor(1)]; x[:, m.tensor(-1)]; x[np.int64(1)]; x[True]; x[False]; x[None, ..., None]
x[i]; x[[0, 0, 1]]; x[[1, 0], [2, 2]]; x[i[0]]; x[:, i]; x[i[0], i[1]]; x[i, 1]; x[i[0], :]; x[:, [0, -1]]
x[np.array([1, 0])]; x[m.tensor([-1, 0])]; r[i, :, i]; r[:, i[0], 1:3, i[1]]; r[0, :, [1, 2]]; r[:, [1, 2], [0, 3]]
r[[0, 1], None]; x[[]]; x[:, m.tensor([], dtype=m.int64)]; r[..., [0, 1]]; r[i[0], ..., 0]
x[m.tensor([0, 1], dtype=m.int32)]; x[(0, 1)]; x[[0, 1], 1:]; r[0, [1, 2]]; r[0, :, i, 2]; x[range(2)]
x[t]; x[t[:, 0]]; x[:, t[0]]; x[x > 0]; x[~t]; x[t & (x < 1)]; r[:, t[0]]; r[t, 1:]; x[np.array([True, False])]
x[[True, False]]; x[m.tensor(True)]; r[..., m.tensor([True, False, True, False, True])]; x[t].shape
x[m.zeros(2, 3, dtype=m.bool)]; r[0, t[1], [2]]; x[t.T.T]; x[t, None]
""".replace("\n", "; ")
    .strip("; ")
    .split("; ")
)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expression(expression):
    ours, theirs = (attempt(evaluated, m, expression) for m in BOTH)
    assert not isinstance(theirs, Exception), theirs
    if isinstance(ours, Exception):
        raise AssertionError(f"{expression}: {ours!r}") from ours
    same(ours, theirs)


INDEXED = [e for e in EXPRESSIONS if e[:2] in ("x[", "r[") and e.count("]") == e.count("[") and e[-1] == "]"]


@pytest.mark.parametrize("expression", INDEXED)
@pytest.mark.parametrize("what", ["read", "write a number", "write a tensor", "add"])
def test_gradient_through_an_index(expression, what):
    x, index = expression[0], expression[1:]
    scripts = {
        "read": f"y = x * x; out = y{index} * y{index}",
        "write a number": f"y = x * 1; y{index} = 3; out = y * y",
        "write a tensor": f"y = x * 1; y{index} = v * v; out = y * y * v",
        "add": f"y = x * 1; y{index} += v; out = y * y",
    }

    def run(m):
        space = names(m)
        space["x"] = space[x].detach().double().requires_grad_()
        space["v"] = m.tensor(2.0, dtype=m.float64, requires_grad=True)
        exec(scripts[what], space)
        return slopes(m, [space["out"]], [space["x"], space["v"]], 0)

    ours, theirs = (attempt(run, m) for m in BOTH)
    assert not isinstance(theirs, Exception), theirs
    if isinstance(ours, RuntimeError) and what != "read":
        assert expression == "x[0][1]", ours  # a write through a view of a view: see REFUSED_HERE
    else:
        same(ours, theirs, zeros=False)


# -- changes in place -----------------------------------------------------------------------------------------------

IN_PLACE = """
y = x * 1; y[0] = 5; out = y * y
y = x * 1; y[0] += 1; out = y * y
y = x * 1; y[0] *= y[1]; out = y * y
y = x.exp(); y += 1; out = y
y = x * 1; y.copy_(x[0] * 2); out = y * y
y = x * 1; y.zero_(); out = y + x
y = x * 1; y.fill_(x.sum()); out = y * x
y = F.relu(x * 1, inplace=True); out = y * y
y = x * 1; y -= x.mean(); y /= 3; out = y * y
y = m.zeros(2, 3); y[0] = x[1]; y[1, 1:] = x[0, :2] * 2; out = y * y
y = x * 1; z = y.detach(); z[0] = 7; out = y + 1
y = x * 1; y[x > 0] = 0; out = y * y
y = x * 1; y[[0, 1, 0]] = 2; out = y * x
y = x * 1; y[:, 0], y[:, 1] = y[:, 1].clone(), y[:, 0].clone(); out = y * y
x[0] = 1
x += 1
x[0] += 1
x.mul_(2)
x.view(-1)[0] = 1
x.T.zero_()
y = x * x; y.detach()[0] = 7; out = y + 1
y = x.exp(); y += 1; out = y * 2
y = x.exp(); y.detach().zero_(); out = y * 2
y = x.sigmoid(); y[0] = 0; out = y * 2
y = x * 1; z = y * y; y[0] = 3; out = z
y = x * 1; z = y * y; y.detach().zero_(); out = z
y = x * 1; z = y[0] * 2; y[1] = 0; out = z
w = x.detach().clone(); y = x * w; w += 1; out = y
w = x.detach().clone(); y = x + w; w += 1; out = y
w = x.detach().clone(); y = x * w; w.data.zero_(); out = y
y = x @ x.T; z = y + 1; y += 1; out = z
y = x.relu(); y += 1; out = y
""".strip().splitlines()
REFUSED_HERE = """
y = x * 1; y[0][1] = x.sum(); out = y * y
y = x * 1; z = y[0]; z *= 2; out = y * 3
y = x * 1; y.mul_(x).add_(y, alpha=2); out = y
y = m.zeros(2, 3); z = y.T; z[0] = x[:, 0]; out = y + 0
y = x * 1; z = y[0]; y[0] = 5; out = z * 2
y = x * 1; z = y[0]; y *= 2; out = z * 2
y = x * 1; z = y.T; y[0] = 5; out = z.sum()
y = x * 1; z = y.expand(2, 2, 3); z[0] = 1; out = z
y = x * 1; w = x.T; y *= x; out = y * w.T
""".strip().splitlines()  # PyTorch computes these; minidl keeps no views up to date, and may say so instead
STRICTER = "w.data.zero_()"  # x.data shares the version counter in minidl, which refuses where PyTorch cannot see


def program_result(m, script, trace):
    """The values of all tensors and the gradient in x that a script ends with."""
    x = m.tensor([[1.0, -2.0, 3.0], [0.5, 1.5, -1.0]], dtype=m.float64, requires_grad=True)
    space = {"m": m, "F": m.nn.functional, "x": x, "live": [x * 1]}
    exec(script, space)
    live = space["live"]
    out = space.get("out")
    if out is None:
        out = sum((k + 1) * t.sum() for k, t in enumerate(live) if t.requires_grad)
    trace += [y.detach() for y in live]
    out.sum().backward()
    return [out.detach(), x.grad, *trace]


@pytest.mark.parametrize("script", IN_PLACE + REFUSED_HERE)
def test_change_in_place(script):
    ours, theirs = (attempt(program_result, m, script, []) for m in BOTH)
    if isinstance(theirs, Exception) or STRICTER in script or (script in REFUSED_HERE and isinstance(ours, Exception)):
        assert isinstance(ours, RuntimeError), (ours, theirs)
    else:
        assert not isinstance(ours, Exception), ours
        same(ours, theirs, zeros=False)


STEPS = """
live.append({t}[{p}])
live.append({t}[..., {p}:])
live.append({t}.T)
live.append({t}.reshape(-1))
live.append({t}.reshape(-1))
live.append({t}[None])
live.append({t}.detach())
live.append({t}.clone())
live.append({t} * {u})
live.append({t}.exp())
live.append(m.tanh({t}))
live.append({t}.relu())
{t}.mul_({p} + 2)
{t}.add_({u})
{t}.mul_({u})
{t}.copy_({u})
{t}.zero_()
{t}[{p}] = {u}.sum()
{t}[..., {p}] = 3
{t}[{p}] += {u}[{p}]
{t}[{p}] *= 2
live[{i}] += {u}
live[{i}] *= 0.5
with m.no_grad(): {t}.mul_(2)
with m.no_grad(): {t}[{p}] = 1
x.detach().add_(1)
""".strip().splitlines()


@settings(max_examples=1500)
@given(st.lists(st.tuples(st.sampled_from(STEPS), *map(st.integers, (0, 0, 0), (9, 9, 1))), min_size=2, max_size=7))
def test_programs_of_views_and_changes_end_in_pytorchs_number_or_an_error(steps):
    lines, size = [], 1
    for step, i, j, p in steps:
        lines.append(step.format(t=f"live[{i % size}]", u=f"live[{j % size}]", i=i % size, p=p))
        size += "append" in step
    script = "\n".join(lines)
    ours, theirs = (attempt(program_result, m, script, []) for m in BOTH)
    if "single memory location" in str(theirs):
        return  # overlapping operands, which minidl computes apart and may take
    if "match the broadcast shape" in str(theirs):
        return  # copy_ of (1, 2, 3) into (2, 3): in the table of errors
    if isinstance(theirs, Exception):
        assert isinstance(ours, (RuntimeError, type(theirs))), (script, ours, theirs)
    elif isinstance(ours, Exception):
        assert isinstance(ours, RuntimeError), (script, ours)
    elif all(np.isfinite(array(y)).all() for y in theirs):  # where exp overflows, the order decides on inf or nan
        same(ours, theirs, zeros=False)
