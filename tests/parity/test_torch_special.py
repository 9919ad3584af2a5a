"""Special values, empty and single-element shapes, odd memory and every dtype: PyTorch's answer, or a clear refusal."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from tests.helpers.with_torch import BOTH, GRAD, agree, array, attempt, count, same, torch
from tests.parity.test_torch_ops import (
    FLAG,
    FULL,
    HOW,
    NUMBER,
    ONE,
    OPS,
    REFUSED,
    SEED,
    SHAPE,
    arrays,
    broadcast,
    compare_two_gradients,
    derivatives,
    dim,
    dims,
    floats,
    mask,
    slopes,
    twice,
    with_args,
)

# -- what OPS has not: (function of m, tensors, arguments; strategy of (shapes, arguments)) -------------------------

SIDE = st.sampled_from([1, 1, 2, 3])
BATCH = st.sampled_from([0, 1, 2])
IMAGE = st.tuples(BATCH, SIDE, st.integers(1, 5), st.integers(1, 5))
SAME2 = SHAPE.map(lambda s: ([s, s], ()))
LOSS = twice(lambda s: HOW)
SIZED = with_args(NUMBER.map(abs))


@st.composite
def images(draw, *args):
    return [draw(IMAGE)], tuple(draw(a) for a in args)


@st.composite
def convolutions(draw, transposed=False):
    n, c, h, w = draw(IMAGE)
    o, k, s = draw(SIDE), draw(st.integers(1, min(h, w))), draw(st.integers(1, 3))
    weight = (c, o, k, k) if transposed else (o, c, k, k)
    return [(n, c, h, w), weight, (o,)], (s,)


@st.composite
def classes(draw):
    n, c, size = draw(BATCH), draw(st.integers(1, 4)), draw(st.sampled_from([(), (1, 1), (2, 2)]))
    return [(n, c, *size)], (draw(HOW),)


def right_classes(m, x):
    """A class for each sample or pixel."""
    shape = (x.shape[0], *x.shape[2:])
    return m.tensor(np.arange(int(np.prod(shape))).reshape(shape) % x.shape[1])


def changed(m, x, change):
    """A copy of x after a change in place."""
    y = x.clone()
    change(y)
    return y


def pooled(m, x, k, s):
    return m.nn.functional.max_pool2d(x, k, s, return_indices=True)


def unpooled(m, x):
    """The maxima of windows of 2, back in their places."""
    y, places = m.nn.functional.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    return m.nn.functional.max_unpool2d(y * y, places, 2, output_size=tuple(x.shape[-2:]))


MORE = {
    "min": (lambda m, a: a.min(), FULL.map(lambda s: ([s], ()))),
    "min dim": (lambda m, a, d, k: tuple(m.min(a, d, k)), with_args(dim, FLAG, shape=FULL)),
    "min of two": (lambda m, a, b: m.min(a, b), broadcast(2)),
    "std": (lambda m, a, u: a.std(unbiased=u), with_args(FLAG)),
    "std dim": (lambda m, a, d, u, k: m.std(a, d, u, k), with_args(dims, FLAG, FLAG).filter(lambda c: c[1][0] != ())),
    "all": (lambda m, a: (a.all(), m.any(a)), ONE),
    "compare number": (lambda m, a, p: (a < p, p <= a, a == p, a != p, a.gt(p), a.ge(p), a.lt(p)), SIZED),
    "bits": (lambda m, a, b: (a & b, a | b, ~a), broadcast(2)),
    "unflatten": (lambda m, a: a.reshape(-1).unflatten(0, (1, a.numel())), ONE),
    "view_as": (lambda m, a, b: m.reshape(a, (a.numel(),)).view_as(b), SAME2),
    "to": (lambda m, a: (a.float(), a.double(), a.bool(), a.to(m.float16), a.type(m.float32)), ONE),
    "like": (lambda m, a, p: (m.zeros_like(a), m.ones_like(a), m.full_like(a, p // 1)), SIZED),
    "clone": (lambda m, a: (a.clone(), a.contiguous(), a.detach(), a.cpu()), ONE),
    "index list": (lambda m, a: a[[0, -1, 0]], FULL.filter(len).map(lambda s: ([s], ()))),
    "index array": (lambda m, a: a[..., m.tensor([[0], [-1]])], FULL.filter(len).map(lambda s: ([s], ()))),
    "add_": (lambda m, a, b: changed(m, a, lambda y: y.add_(b, alpha=2)), SAME2),
    "sub_": (lambda m, a, b: changed(m, a, lambda y: y.sub_(b)), SAME2),
    "mul_": (lambda m, a, b: changed(m, a, lambda y: y.mul_(b)), SAME2),
    "div_": (lambda m, a, b: changed(m, a, lambda y: y.div_(b)), SAME2),
    "copy_": (lambda m, a, b: changed(m, a, lambda y: y.copy_(b)), SAME2),
    "fill_": (lambda m, a, p: changed(m, a, lambda y: (y.zero_(), y.fill_(p))), SIZED),
    "x[i] = value": (lambda m, a, b: changed(m, a, lambda y: y.__setitem__(Ellipsis, b)), SAME2),
    "x[mask] = value": (lambda m, a, p: changed(m, a, lambda y: y.__setitem__(mask(m, y), p)), SIZED),
    "relu_": (lambda m, a: changed(m, a, lambda y: m.nn.functional.relu(y, inplace=True)), ONE),
    "dropout": (lambda m, a: (m.dropout(a, 0.5, False), m.dropout(a, 0.0, True), m.dropout(a, 1.0, True)), ONE),
    "conv2d": (lambda m, x, w, b, s: m.conv2d(x, w, b, s), convolutions()),
    "conv_transpose2d": (lambda m, x, w, b, s: m.conv_transpose2d(x, w, b, s), convolutions(transposed=True)),
    "max_pool2d": (pooled, images(st.just(1), st.integers(1, 3))),
    "max_unpool2d": (unpooled, images()),
    "avg_pool2d": (lambda m, x: m.nn.functional.avg_pool2d(x, 2, 1, 1), images()),
    "interpolate nearest": (lambda m, x, s: m.nn.functional.interpolate(x, s), images(st.integers(1, 6))),
    "interpolate bilinear": (
        lambda m, x, s, a: m.nn.functional.interpolate(x, s, mode="bilinear", align_corners=a),
        images(st.integers(1, 6), FLAG),
    ),
    "binary_cross_entropy_with_logits": (
        lambda m, a, b, r: m.nn.functional.binary_cross_entropy_with_logits(a, b, reduction=r), LOSS),
    "binary_cross_entropy": (
        lambda m, a, b, r: m.nn.functional.binary_cross_entropy(a, b.detach(), reduction=r), LOSS),
    "cross_entropy": (
        lambda m, x, r: m.nn.functional.cross_entropy(x, right_classes(m, x), reduction=r), classes()),
}  # fmt: skip
ALL = {**OPS, **MORE}
REAL = [name for name in ALL if name != "bits"]  # has none of real numbers
NORMAL = np.array([-2, -1, -0.5, 0.5, 1, 3])
INFINITE = (np.inf, -np.inf)
ODD = np.array([np.nan, *INFINITE, -0.0, 0.0])
BETWEEN = np.array([0.0, -0.0, 1.0, 0.5, 1e-30, 1 - 2**-20])
LEFT_OUT = {  # see DIFFERENT
    "abs": (np.nan,),
    "l1_loss": (np.nan, *INFINITE),  # inf - inf is NaN
    "pow number": (-np.inf, 0.0),
    "pow raw": (-np.inf, 0.0),
    "interpolate bilinear": (np.nan, *INFINITE),
    "binary_cross_entropy_with_logits": INFINITE,
}
# Which of 0.0 and -0.0 comes out depends on the order of the sum, or on which of two equals is taken.
UNSIGNED = {
    *("relu", "relu_", "clamp", "clamp min", "clamp max", "maximum", "max of two", "min of two", "matmul", "linear"),
    *("conv2d", "conv_transpose2d", "avg_pool2d", "interpolate bilinear", "binary_cross_entropy", "cross_entropy"),
}
# Where large numbers test saturation; in sums of products they would test the order of rounding.
SATURATED = ("exp", "log", "sqrt", "tanh", "sigmoid", "softmax", "log_softmax", "clamp", "cross_entropy", "max", "min")
INF, NAN = float("inf"), float("nan")
DIFFERENT = [  # expressions in x = [0, -0, inf, -inf, nan]: minidl's answer, PyTorch's
    # The gradient of |x| at NaN: NaN says that something is wrong, 0 hides it.
    ("grad(abs(x).sum(), x)[4]", NAN, 0.0),
    # Powers are those of C; PyTorch's square root of x stands for x ** 0.5, and 1 / sqrt(x) for x ** -0.5.
    ("x[1] ** -0.5", INF, -INF),
    ("x[3] ** -0.5", 0.0, NAN),
    ("grad(x[1] ** 0.5, x)[1]", INF, -INF),
    # NumPy takes the square root for an exponent that is one 0.5, PyTorch for a number and not for a tensor.
    ("x[3:4] ** m.tensor(0.5)", NAN, INF),
    # A number is compared as it is; PyTorch takes -1 for 255 among uint8.
    ("m.tensor(0, dtype=m.uint8) < -1", False, True),
    # A pixel of weight 0 has no part in an interpolated one: 0 * inf is not computed.
    ("F.interpolate(x[2].reshape(1, 1, 1, 1), 1, mode='bilinear')", INF, NAN),
    # A logit that is sure of the wrong class costs inf.
    ("F.binary_cross_entropy_with_logits(x[3], m.tensor(1.0))", INF, NAN),
    # The gradient in the target is that of the loss, whose logarithms are cut off at -100.
    ("(t := m.tensor([0.5], requires_grad=True), grad(F.binary_cross_entropy(m.zeros(1), t), t))[1]", 100.0, INF),
    ("(m.Tensor(np.array([250], 'uint8')) + 10)[0]", 4, 260),
]


def special(name, dtype):
    """Ordinary numbers, and among them what IEEE 754 has besides."""
    if name == "binary_cross_entropy":
        return BETWEEN
    tiny = np.finfo(dtype).smallest_normal
    denormal = [] if name.startswith("std") else [tiny / 4, -tiny / 8]  # whose squares are 0, by which PyTorch divides
    values = np.concatenate([NORMAL, NORMAL, ODD, denormal, [1e4, -1e4, 1e18] * (name in SATURATED)])
    out = np.array(LEFT_OUT.get(name, ()))
    return values[~np.isin(values, out) & ~(np.isnan(values) & np.isnan(out).any())]


@pytest.mark.drawn("operations")
@pytest.mark.parametrize("name", [name for name in MORE if name != "bits"])
@settings(max_examples=21)
@given(data=st.data(), dtype=st.sampled_from(["float32", "float64"]), seed=SEED)
def test_values_and_two_gradients(name, data, dtype, seed):
    function, cases = MORE[name]
    compare_two_gradients(name, function, *data.draw(cases), dtype, seed)


# -- special values -------------------------------------------------------------------------------------------------


@pytest.mark.drawn("special values")
@pytest.mark.parametrize("name", REAL)
@settings(max_examples=21)
@given(data=st.data(), dtype=st.sampled_from(["float32", "float64"]), seed=SEED)
def test_special_values(name, data, dtype, seed):
    function, cases = ALL[name]
    shapes, args = data.draw(cases)
    given = arrays(shapes, special(name, dtype), seed, dtype)
    wide = given
    if "conv" in name:  # PyTorch's float32 kernels of a stride spread NaN to pixels that no infinite value reaches
        wide = [a.astype("float64") for a in given]
    ours = attempt(derivatives, minidl, function, given, args, seed, 1)
    theirs = attempt(derivatives, torch, function, wide, args, seed, 1)
    if isinstance(theirs, Exception):  # padding that leaves nothing
        assert isinstance(ours, type(theirs)), (ours, theirs)
        return
    (y, gx, _), (other_y, other_gx, _) = ours, theirs
    if wide is not given:
        other_y, other_gx = other_y.to(getattr(torch, dtype)), [g.to(getattr(torch, dtype)) for g in other_gx]
    same(y, other_y, zeros=name not in UNSIGNED)
    # PyTorch's 1e-12 in the gradient of binary_cross_entropy is a float32 number in float64 too.
    rtol = 1e-3 if (name, dtype) == ("binary_cross_entropy", "float64") else 1e-5
    agree(("special values", name), gx, other_gx, rtol=rtol, zeros=False)


@pytest.mark.parametrize("name", REAL)
@settings(max_examples=3)
@given(data=st.data(), seed=SEED)
def test_denormal_numbers_are_not_taken_for_zero(name, data, seed):
    function, cases = ALL[name]
    shapes, args = data.draw(cases)
    given = arrays(shapes, np.finfo("float32").smallest_normal / np.array([2, 4, 16]), seed, "float32")
    ours, theirs = (attempt(function, m, *[m.tensor(a) for a in given], *args) for m in BOTH)
    if isinstance(theirs, Exception):
        assert isinstance(ours, type(theirs)), (ours, theirs)
    else:
        same(ours, theirs, atol=1e-44, zeros=False)


@pytest.mark.parametrize(("expression", "ours", "theirs"), DIFFERENT)
def test_different_on_purpose(expression, ours, theirs):
    """Should either library change its answer, this table is out of date."""
    for m, expected in zip(BOTH, (ours, theirs), strict=True):
        x = m.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan")], requires_grad=True)
        space = {"m": m, "np": np, "F": m.nn.functional, "x": x, "grad": lambda y, x, m=m: GRAD[m](y, x)[0]}
        np.testing.assert_equal(array(eval(expression, space)).item(), expected, err_msg=m.__name__)


# -- every type of elements -----------------------------------------------------------------------------------------


def clear(error):
    """Whether an exception is a refusal in minidl's own words: "name: what is wrong"."""
    plain = type(error) in (TypeError, RuntimeError, ValueError, IndexError, NotImplementedError)
    return plain and re.match(r"[a-zA-Z_.\d]+(\[index\] = value)?: |[&|~]: ", str(error)) is not None


def in_floats(function, given, args):
    """PyTorch's answer for the same numbers in float32, where it has none for their own type."""
    return function(torch, *[torch.tensor(a.astype("float32")) for a in given], *args)


def listed(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.drawn("special values", least=10)
@pytest.mark.parametrize("name", ALL)
@settings(max_examples=11)
@given(
    data=st.data(), dtype=st.sampled_from(["bool", "uint8", "int8", "int16", "int32", "int64", "float16"]), seed=SEED
)
def test_every_type_of_elements(name, data, dtype, seed):
    function, cases = ALL[name]
    shapes, args = data.draw(cases)
    values = BETWEEN if name == "binary_cross_entropy" else NORMAL if dtype == "float16" else np.arange(4)
    given = arrays(shapes, values, seed, dtype)
    ours, theirs = (attempt(derivatives, m, function, given, args, seed, 1) for m in BOTH)
    if isinstance(ours, Exception):
        assert clear(ours), repr(ours)
        assert not isinstance(theirs, Exception) or isinstance(ours, type(theirs)), (ours, theirs)
    elif not isinstance(theirs, Exception) and not ("softmax" in name and dtype != "float16"):
        same(ours[:2], theirs[:2], zeros=False)
    else:  # minidl computes more; PyTorch has a softmax of integers only where there are none
        assert isinstance(theirs, tuple) or any(why in str(theirs) for why in REFUSED), (ours, theirs)
        for y, z in zip(listed(ours[0]), listed(in_floats(function, given, args)), strict=True):
            np.testing.assert_allclose(array(y), array(z).astype(array(y).dtype), 1e-6)
    count("special values", name)


# -- memory ---------------------------------------------------------------------------------------------------------


def read_only(a):
    b = a.copy()
    b.setflags(write=False)
    return b


LAYOUTS = {
    "in C's order": np.copy,
    "in Fortran's order": lambda a: a.copy(order="F"),
    "every second": lambda a: np.repeat(a, 2, -1)[..., ::2] if a.ndim else a,
    "backwards": lambda a: np.flip(np.flip(a).copy()) if a.ndim else a,
    "channels last": lambda a: np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1) if a.ndim > 2 else a.T.copy().T,
    "read-only": read_only,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "overlapping": lambda a: np.broadcast_to(a[:1], a.shape) if a.ndim else a,
    "unaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), a.dtype, offset=1).reshape(a.shape) if a.size else a,
    "a matrix": lambda a: np.matrix(a) if a.ndim == 2 else a,
    "masked": np.ma.masked_array,
}
MAKERS = {name: getattr(minidl, name) for name in ("tensor", "as_tensor", "from_numpy")}


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.drawn("special values", least=10)
@pytest.mark.parametrize("name", REAL)
@settings(max_examples=11)
@given(data=st.data(), layout=st.sampled_from(list(LAYOUTS)), maker=st.sampled_from(list(MAKERS)), seed=SEED)
def test_arrays_in_any_memory(name, data, layout, maker, seed):
    function, cases = ALL[name]
    shapes, args = data.draw(cases)
    values = np.array([0.25, 0.5]) if name == "binary_cross_entropy" else NORMAL
    laid = [LAYOUTS[layout](a) for a in arrays(shapes, values, seed, "float32")]
    plain = [np.array(a, "float32", order="C") for a in laid]
    theirs = attempt(derivatives, torch, function, plain, args, seed, 1)

    def forms():
        xs = [MAKERS[maker](a).requires_grad_() for a in laid]
        y = function(minidl, *xs, *args)
        return y, slopes(minidl, floats(minidl, y), xs, seed)

    ours = attempt(forms)
    if isinstance(ours, Exception):
        assert clear(ours), repr(ours)
        assert isinstance(theirs, Exception) or (layout, maker) == ("byte-swapped", "from_numpy"), repr(ours)
    else:
        same(ours, theirs[:2], zeros=False)
    for a, b in zip(laid, plain, strict=True):
        np.testing.assert_array_equal(a, b)
    count("special values", name)


# -- optimisers -----------------------------------------------------------------------------------------------------

SETTINGS = {
    "SGD": [{}, {"momentum": 0.9, "weight_decay": 0.1}, {"momentum": 0.5, "nesterov": True}, {"dampening": 0.5}],
    "Adam": [{}, {"weight_decay": 0.1}, {"betas": (0.0, 0.5), "eps": 1e-3}],
}


def stepped(m, name, settings, given, lay, dtype):
    """A parameter after a step with each gradient."""
    p, *gradients = (m.as_tensor(lay(a.copy())) for a in given)
    p.requires_grad_()
    optimizer = getattr(m.optim, name)([p], lr=0.1, **settings)
    for p.grad in gradients:
        optimizer.step()
    return p.detach()


@pytest.mark.drawn("special values")
@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=40)
@given(
    data=st.data(),
    shape=SHAPE,
    layout=st.sampled_from([*LAYOUTS]),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=SEED,
)
def test_steps(name, data, shape, layout, dtype, seed):
    settings = data.draw(st.sampled_from(SETTINGS[name]))
    # The special ones last: where PyTorch leaves out a decay of 0, minidl multiplies by it, and 0 * inf is NaN.
    given = arrays([shape] * 3, NORMAL, seed, dtype) + arrays([shape], special(name, dtype), seed, dtype)
    ours = attempt(stepped, minidl, name, settings, given, LAYOUTS[layout], dtype)
    if isinstance(ours, Exception):
        assert clear(ours), repr(ours)
        assert layout in ("overlapping", "read-only", "unaligned"), repr(ours)
    else:
        same(
            ours,
            stepped(torch, name, settings, given, lambda a: np.array(LAYOUTS[layout](a), dtype), dtype),
            zeros=False,
        )
    count("special values", name)


@pytest.mark.parametrize(
    "change", ["x.add_(1)", "x.zero_()", "x.__setitem__(..., 1)", "SGD([x]).step()", "Adam([x]).step()"]
)
def test_no_write_where_elements_share_a_place(change):
    """NumPy allows it where the array says that it is writable, and keeps the last of the values."""
    x = minidl.from_numpy(np.lib.stride_tricks.as_strided(np.zeros(3, "float32"), (2, 3), (0, 4))).requires_grad_()
    x.grad = minidl.ones(2, 3)
    with pytest.raises(RuntimeError, match="cannot be written to"), minidl.no_grad():
        eval(change, {"x": x, "SGD": minidl.optim.SGD, "Adam": minidl.optim.Adam})
