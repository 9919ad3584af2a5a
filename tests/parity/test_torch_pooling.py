"""Pooling, unpooling and interpolation against PyTorch: results, indices, gradients, printed forms, errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from tests.helpers.with_torch import BOTH, GRAD, agree, array, attempt, count, same, torch

LIMIT = {"float32": 1e-5, "float64": 1e-10}


def pair(least, most):
    """An int, or a pair of them."""
    return st.integers(least, most) | st.tuples(st.integers(least, most), st.integers(least, most))


def two(value):
    return value if isinstance(value, tuple) else (value, value)


@st.composite
def poolings(draw, op):
    """The shape of an image, batched or not, and the arguments of a call; the window may be too large for it."""
    kernel, stride = draw(pair(1, 4)), draw(st.none() | pair(1, 4))
    padding = tuple(draw(st.integers(0, k // 2)) for k in two(kernel))
    arguments = {"kernel_size": kernel, "stride": stride, "padding": padding}
    if op == "max_pool2d":
        arguments["dilation"] = draw(pair(1, 3))
    if op != "max_unpool2d":
        arguments["ceil_mode"] = draw(st.booleans())
    if op == "avg_pool2d":
        arguments["count_include_pad"] = draw(st.booleans())
        arguments["divisor_override"] = draw(st.sampled_from([None, 1, 5, -3]))
    image = draw(st.integers(1, 4)), draw(st.integers(1, 12)), draw(st.integers(1, 12))
    return draw(st.sampled_from([(2, *image), (0, *image), image])), arguments


@st.composite
def resizings(draw):
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 4)), draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    mode = draw(st.sampled_from(["nearest", "nearest-exact", "bilinear", "bicubic", "area"]))
    arguments = {"mode": mode}
    if mode in ("bilinear", "bicubic"):
        arguments["align_corners"] = draw(st.sampled_from([None, False, True]))
    if draw(st.booleans()):
        arguments["size"] = draw(pair(1, 12))
    else:
        scales = [s for s in (0.5, 0.6, 1.25, 1.7, 2, 2.5, 3) if min(shape[2:]) * s >= 1]
        one = st.sampled_from(scales)
        arguments["scale_factor"] = draw(one | st.tuples(one, one))
        arguments["recompute_scale_factor"] = draw(st.sampled_from([None, False, True]))
    return shape, arguments


def close(ours, theirs, dtype):
    assert (tuple(ours.shape), str(array(ours).dtype)) == (tuple(theirs.shape), str(array(theirs).dtype))
    bound = LIMIT[dtype] * (1 + np.abs(array(theirs)).max(initial=0))
    np.testing.assert_allclose(array(ours), array(theirs), LIMIT[dtype], bound)


def forms(m, op, x, arguments, seed):
    """The result, its gradient, and the gradient of a function of that gradient, through y^2."""
    x = m.tensor(x, requires_grad=True)
    y = getattr(m.nn.functional, op)(x, **arguments)
    y, *rest = y if isinstance(y, tuple) else (y,)
    gy = m.tensor(np.random.default_rng(seed).standard_normal(tuple(y.shape)).astype(array(y).dtype))
    (gx,) = GRAD[m](y * y, x, gy, create_graph=True)
    if array(x).size == 0:  # PyTorch records no gradient of a gradient there
        return [y, gx], rest
    (ggx,) = GRAD[m]((gx * gx * gx).sum(), x)
    return [y, gx, ggx], rest


def attempt_pair(*call):
    """The forms, or None and the exception."""
    found = attempt(*call)
    return (None, found) if isinstance(found, Exception) else found


@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d", "interpolate"])
def test_output_and_gradients(op, dtype):
    @settings(max_examples=150)
    @given(case=resizings() if op == "interpolate" else poolings(op), seed=st.integers(0, 2**16))
    def compare(case, seed):
        shape, arguments = case
        if op == "max_pool2d":
            arguments = {**arguments, "return_indices": True}
        # Few different values, so that maxima tie; and for the mean and bilinear any.
        x = np.random.default_rng(seed).standard_normal(shape)
        x = (np.round(x * 2) / 2 if op == "max_pool2d" and seed % 2 else x).astype(dtype)
        ours, rest = attempt_pair(forms, minidl, op, x, arguments, seed)
        if "wholly in the padding" in str(rest):  # PyTorch returns -inf there, and may corrupt memory in backward
            return
        theirs, other = attempt_pair(forms, torch, op, x, arguments, seed)
        if theirs is None:
            assert isinstance(rest, type(other)), (rest, other)
            return
        # Of a bicubic scaling that leaves the size PyTorch's gradient is gy, which its own gradcheck refuses.
        copied = "scale_factor" in arguments and arguments["mode"] == "bicubic" and ours[0].shape == shape
        for a, b in [*zip(ours, theirs, strict=True)][: 1 if copied else None]:
            close(a, b, dtype)
        agree(("pooling", op), rest, other)

    compare()


@settings(max_examples=100)
@given(case=poolings("max_unpool2d"), data=st.data(), seed=st.integers(0, 2**16))
def test_unpooling(case, data, seed):
    """Indices that are all different: PyTorch leaves undefined what happens to others."""
    shape, arguments = case
    k, s, p = two(arguments["kernel_size"]), two(arguments["stride"] or arguments["kernel_size"]), arguments["padding"]
    usual = [(n - 1) * b + a - 2 * c for n, a, b, c in zip(shape[-2:], k, s, p, strict=True)]
    if min(usual) < 1:
        return
    if data.draw(st.booleans()):
        size = [data.draw(st.integers(max(1, n - b + 1), n + b - 1)) for n, b in zip(usual, s, strict=True)]
        arguments = {**arguments, "output_size": data.draw(st.sampled_from([tuple(size), size, [1, 1, *size]]))}
        usual = size
    pixels, values = math.prod(usual), math.prod(shape[-2:])
    if pixels < values:
        return
    rng = np.random.default_rng(seed)
    planes = [rng.permutation(pixels)[:values] for _ in range(math.prod(shape[:-2]))]
    indices = np.array(planes, np.int64).reshape(shape)
    y = rng.standard_normal(shape)
    (ours, _), (theirs, _) = (
        forms(m, "max_unpool2d", y, {"indices": m.tensor(indices), **arguments}, seed) for m in BOTH
    )
    for a, b in zip(ours, theirs, strict=True):
        close(a, b, "float64")
    count("pooling", "max_unpool2d")


def test_nan_ties_and_dtypes():
    rng = np.random.default_rng(0)
    for seed in range(30):
        x = np.random.default_rng(seed).choice([np.nan, -np.inf, np.inf, 0.0, -0.0, 1.0], (2, 3, 6, 6))
        for dtype in LIMIT:
            ours, theirs = (m.nn.functional.max_pool2d(m.tensor(x.astype(dtype)), 3, 2, 1, 1, True, True) for m in BOTH)
            same(ours, theirs)
    for dtype in ("uint8", "int8", "int16", "int32", "int64", "float16"):
        x = rng.integers(0, 5, (1, 2, 5, 5)).astype(dtype)
        same(*[m.nn.functional.max_pool2d(m.tensor(x), 2, 1, 1, return_indices=True) for m in BOTH])


def test_positional_order_of_arguments():
    x = np.random.default_rng(0).standard_normal((1, 2, 7, 7))
    calls = """
    F.max_pool2d(x, 3, 2, 1, 1, True, True); F.max_pool2d(x, (2, 3), None, 0, (2, 1), False, False)
    m.max_pool2d(x, 3, 2, 1, 1, True); F.max_pool2d(x, [2], [1]); F.max_pool2d(x, 2, []); F.max_pool2d(x, 2, ())
    F.avg_pool2d(x, 3, 2, 1, True, False, 5); F.avg_pool2d(x, (2, 3), None, (1, 0), False, True, None)
    F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2, 2, 0, (7, 7))
    F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 4, 2, 1, [1, 2, 7, 7])
    F.max_unpool2d(*F.max_pool2d(x[0, :, :6, :6], 2, return_indices=True), 2)
    F.interpolate(x, 3); F.interpolate(x, (3, 4), None, "bilinear", True)
    F.interpolate(x, None, 1.5, "bilinear", False)
    F.interpolate(x, None, (2, 3), "nearest", None); F.upsample(x, None, 2, "bilinear", True); F.upsample(x, [3, 9])
    nn.MaxPool2d(2, 1, 1, 2, True, True)(x); nn.MaxPool2d((2, 3))(x[0]); nn.AvgPool2d(2, 1, 1, True, False, 3)(x)
    nn.MaxUnpool2d(2, 2, 0)(*nn.MaxPool2d(2, 2, 0, 1, True)(x), (7, 6))
    nn.MaxUnpool2d(2)(*nn.MaxPool2d(2, return_indices=True)(x), output_size=x.size())
    nn.Upsample(None, 2, "bilinear", True)(x); nn.Upsample(4)(x); nn.Upsample((4, 9), mode="bilinear")(x)
    nn.UpsamplingNearest2d(None, 2)(x); nn.UpsamplingBilinear2d(5)(x); nn.UpsamplingBilinear2d(scale_factor=(2, 1))(x)
    """
    for text in " ".join(calls.split()).split("; "):
        for one in split_calls(text):
            ours, theirs = (attempt(evaluate, m, one, x) for m in BOTH)
            assert not isinstance(theirs, Exception), (one, theirs)
            same(ours, theirs, zeros=False)


def split_calls(text):
    """Calls that only a space parts."""
    return text.replace(") F.", ");F.").replace(") m.", ");m.").replace(") nn.", ");nn.").split(";")


def evaluate(m, text, x):
    return eval(text, {"m": m, "F": m.nn.functional, "nn": m.nn, "x": m.tensor(x)})


MODULES = """
MaxPool2d(2); MaxPool2d((2, 3), stride=(2, 1), padding=(0, 1), dilation=2, ceil_mode=True, return_indices=True)
MaxPool2d(3, 2, 1); MaxPool2d([3, 2], [2, 1]); MaxUnpool2d(2); MaxUnpool2d((2, 3), stride=2, padding=1)
MaxUnpool2d([2, 3], stride=[2, 1]); AvgPool2d(2); AvgPool2d(3, 2, 1)
AvgPool2d((3, 2), (2, 1), (1, 0), ceil_mode=True, count_include_pad=False, divisor_override=5)
Upsample(scale_factor=2); Upsample(scale_factor=(2, 3)); Upsample(size=3); Upsample((3, 4), mode="bilinear")
Upsample(None, 2, "bilinear", True); Upsample(); Upsample(3, 2); UpsamplingNearest2d(scale_factor=2)
UpsamplingNearest2d(3); UpsamplingBilinear2d(scale_factor=1.5); UpsamplingBilinear2d(size=(3, 4))
""".strip().replace("\n", "; ").split("; ")  # fmt: skip


@pytest.mark.parametrize("text", MODULES)
def test_printed_form_and_attributes(text):
    ours, theirs = (eval("nn." + text, {"nn": m.nn}) for m in BOTH)
    assert repr(ours) == repr(theirs)
    for name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices", "count_include_pad",
                 "divisor_override", "size", "scale_factor", "mode", "align_corners"):  # fmt: skip
        assert getattr(ours, name, None) == getattr(theirs, name, None)
    assert not ours.state_dict()


ERRORS = """
F.max_pool2d(x, 2, 0); F.max_pool2d(x, 0); F.max_pool2d(x, 2, padding=2); F.max_pool2d(x, 2, padding=-1)
F.max_pool2d(x, 2, dilation=0); F.max_pool2d(x, 2, dilation=5); F.max_pool2d(x, 6); F.max_pool2d(x, (2, 2, 2))
F.max_pool2d(x, ()); F.max_pool2d(x, 2.5); F.max_pool2d(x, "a"); F.max_pool2d(x, None); F.max_pool2d(x, 2, "a")
F.max_pool2d(x, True); F.max_pool2d(x, 2, ceil_mode=1); F.max_pool2d(x[0, 0], 2); F.max_pool2d(x[None], 2)
F.max_pool2d(3, 2); F.max_pool2d(x[:, :0], 2); F.max_pool2d(x[:, :, :0], 2); F.max_pool2d(x[0][:0], 2)
F.max_pool2d(x > 0, 2); F.max_pool2d(x); nn.MaxPool2d(2, 0)(x); nn.MaxPool2d()
F.avg_pool2d(x, 2, 0); F.avg_pool2d(x, 2, padding=2); F.avg_pool2d(x, 2, padding=-1); F.avg_pool2d(x, 6)
F.avg_pool2d(x, 2.5); F.avg_pool2d(3, 2); F.avg_pool2d(x, 2, divisor_override=0); F.avg_pool2d(x[:, :0], 2)
F.avg_pool2d(x, 2, divisor_override=1.5); F.avg_pool2d(x.int(), 2); F.avg_pool2d(x > 0, 2)
F.max_unpool2d(y, i + 13, 2); F.max_unpool2d(y, i - 1, 2); F.max_unpool2d(y, i.int(), 2); F.max_unpool2d(y, i * 1., 2)
F.max_unpool2d(y, i.reshape(1, 1, 4, 1), 2); F.max_unpool2d(y[0], i, 2); F.max_unpool2d(y.long(), i, 2)
F.max_unpool2d(y, i, 2, output_size=(2, 3)); F.max_unpool2d(y, i, 2, output_size=(6, 5)); F.max_unpool2d(y, 3, 2)
F.max_unpool2d(y, i, 2, output_size=(1, 5, 5)); F.max_unpool2d(y, i, 2, output_size=[5])
F.max_unpool2d(y, i, 2, output_size=5); F.max_unpool2d(y[0, 0], i[0, 0], 2); F.max_unpool2d(y[:, :0], i[:, :0], 2)
F.interpolate(x); F.interpolate(x, 3, 2); F.interpolate(x, (3,)); F.interpolate(x, (3, 3, 3)); F.interpolate(x, 0)
F.interpolate(x, -1); F.interpolate(x, 2.5); F.interpolate(x, "a"); F.interpolate(x, (2.5, 2)); F.interpolate(x, True)
F.interpolate(x, scale_factor=(2,)); F.interpolate(x, scale_factor=0.1); F.interpolate(x, scale_factor=-1)
F.interpolate(x, scale_factor=0); F.interpolate(x, scale_factor="a"); F.interpolate(x, 3, align_corners=True)
F.interpolate(x, 3, align_corners=False); F.interpolate(x, 3, mode="foo"); F.interpolate(x, 3, mode="linear")
F.interpolate(x[0], 3, mode="bilinear"); F.interpolate(x[0, 0], 3); F.interpolate(x[:, :0], 3)
F.interpolate(x[:, :, :0], 3); F.interpolate(x.long(), 3); F.interpolate(x > 0, 3); F.interpolate(x.int(), 3)
nn.Upsample(scale_factor="a"); nn.Upsample(scale_factor=[2, 3]); nn.Upsample()(x); nn.Upsample(3, 2)(x)
""".strip().replace("\n", "; ").split("; ")  # fmt: skip


@pytest.mark.parametrize("text", ERRORS)
def test_type_of_errors(text):
    def call(m):
        space = {"m": m, "F": m.nn.functional, "nn": m.nn, "x": m.ones(1, 2, 5, 5), "y": m.ones(1, 1, 2, 2)}
        return eval(text, {**space, "i": m.arange(4).reshape(1, 1, 2, 2)})

    ours, theirs = (attempt(call, m) for m in BOTH)
    assert isinstance(theirs, Exception)
    assert isinstance(ours, type(theirs)), (ours, theirs)
