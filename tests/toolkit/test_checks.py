"""The checkers are checked: they pass what is right, refuse what is wrong, and say which of the two a kink is."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import nn
from minidl.autograd import record
from minidl.testing import shapes, tensors
from minidl.testing.adjoint import check_adjoint
from minidl.testing.gradcheck import GradcheckError, gradcheck, gradgradcheck

F = nn.functional


def leaf(*values):
    return minidl.tensor(values, dtype=minidl.float64, requires_grad=True)


def backward_of(name, forward, gradient, **options):
    """An operation of the tests: NumPy forward, and a gradient that need not be right."""
    return lambda x: record(name, forward(x.array), (x, lambda gy, *y: gradient(gy, x, *y)), **options)


# -- wrong gradients are noticed ----------------------------------------------------------------------------------

WRONG = {
    "factor": backward_of("square", lambda x: x**2, lambda gy, x: gy * x),
    "sign": backward_of("neg", lambda x: -x, lambda gy, x: gy),
    "one element": backward_of(
        "same", lambda x: x * 1, lambda gy, x: gy * minidl.tensor([1.0, 1.0, 1.01], dtype=minidl.float64)
    ),
    "nan": backward_of("same", lambda x: x * 1, lambda gy, x: gy * float("nan")),
    "softmax without its sum": backward_of(
        "softmax", lambda x: np.exp(x) / np.exp(x).sum(), lambda gy, x, y: gy * y, keep_output=True
    ),
    "reversed": backward_of("flip", lambda x: x[::-1] * 1, lambda gy, x: gy),
    "nothing": lambda x: x.detach() * 2,
}


LARGE = [(699, "one element"), *(pytest.param(3000, name, marks=pytest.mark.slow) for name in WRONG)]


@pytest.mark.parametrize(("size", "name"), [*((3, name) for name in WRONG), *LARGE])
def test_gradcheck_notices_a_wrong_gradient(name, size):
    """In the whole Jacobian of a small input, and by random combinations of its rows for a large one."""
    x = minidl.tensor([0.3, -0.5, 0.7] * (size // 3), dtype=minidl.float64, requires_grad=True)
    func = WRONG[name] if size == 3 else lambda x: minidl.stack([WRONG[name](v) for v in (x[:3], x[-3:])])
    with pytest.raises(GradcheckError, match=rf"the Jacobian('s rows)? in input 0 of shape \({size},\) are wrong"):
        gradcheck(func, x)
    assert not gradcheck(func, x, raise_exception=False)


def test_gradgradcheck_notices_a_wrong_second_gradient():
    square = backward_of("square", lambda x: x**2, lambda gy, x: gy * x.detach() * 2)  # cut off from the graph
    x = leaf(0.3, -0.5)
    assert gradcheck(square, x)
    with pytest.raises(GradcheckError, match=r"the gradient of square: 2 of 4 .* in input 0(.|\n)*is the graph\s+cut"):
        gradgradcheck(square, x)
    assert not gradgradcheck(square, x, raise_exception=False)
    with pytest.raises(GradcheckError, match="the gradient of square"):
        gradgradcheck(square, x, minidl.tensor([1.0, 2.0]))


@pytest.mark.parametrize(
    "gradient", [lambda gy, x: 2 * x, lambda gy, x: gy * gy * 2 * x, lambda gy, x: abs(gy) * 2 * x]
)
def test_a_gradient_that_is_not_linear_in_gy_is_noticed(gradient):
    """Even where there is one output, and the gradient right for gy = 1."""
    square = backward_of("square", lambda x: x**2, gradient)
    x = leaf(0.3)
    square(x).backward(minidl.tensor([1.0]).double())
    assert x.grad.item() == pytest.approx(0.6)
    with pytest.raises(GradcheckError, match="square: 1 of 1"):
        gradcheck(square, x)


def test_second_gradients_are_checked_in_gy_too():
    def forgets(gy, x):  # 2 x gy in value, and cut off from gy
        return gy.detach() * 2 * x

    square = backward_of("square", lambda x: x**2, forgets)
    assert gradcheck(square, leaf(0.3, -0.5))
    with pytest.raises(GradcheckError, match=r"the gradient of square: .* in input 1 of shape"):
        gradgradcheck(square, leaf(0.3, -0.5))


# -- the message ------------------------------------------------------------------------------------------------


def test_the_message_names_operation_place_values_steps_and_verdict():
    square = backward_of("square", lambda x: x**2, lambda gy, x: gy * x)
    with pytest.raises(GradcheckError) as caught:
        gradcheck(lambda x: square(x).reshape(2, 2).sum(0), leaf(0.1, 0.2, 0.3, 0.4))
    lines = str(caught.value).splitlines()
    assert lines[0] == (
        "gradcheck: square -> reshape -> sum: 4 of 8 elements of the Jacobian in input 0 of shape (4,) are wrong"
    )
    assert lines[1] == "  worst: d output 0[1] / d input 0[3], where that element is 0.4"
    assert lines[2] == "  0.4 from backward, 0.8 from differences with eps=1e-06"
    assert [line.split()[0] for line in lines[4:12]] == [f"1e-0{n}" for n in range(1, 9)]
    verdict = " ".join(line.strip() for line in lines[12:])
    assert verdict.endswith("in each wrong element it is off by the same factor: 0.5 times the quotient.")


def test_only_the_last_of_many_operations_are_named():
    def deep(x):
        for _ in range(200):
            x = x * 1
        return WRONG["sign"](x)

    with pytest.raises(GradcheckError, match=r"^gradcheck: \.\.\.( -> mul){7} -> neg: 1 of 1"):
        gradcheck(deep, leaf(0.5))


def step_function(x):
    return record("step", (x.array > 0) * 1.0, (x, lambda gy: gy * 0))


def gradient_of(forward, slope):
    """An elementwise operation of one input, with this slope as its gradient."""
    return backward_of("own", forward, lambda gy, x: gy * minidl.tensor(slope(x.array)))


def signed_root(x):
    return np.sign(x) * np.sqrt(np.abs(x))


VERDICTS = {
    "jump with the value in its middle": (gradient_of(np.sign, lambda x: 0 * x), (0.0,), "jumps here"),
    "no bound on the slope": (gradient_of(signed_root, lambda x: 1 + 0 * x), (0.0,), "grows without bound"),
    "no bound on one side": (lambda x: minidl.where(x > 0, x.sqrt(), x * 0), (0.0,), "without bound"),
    "terms that cancel": (lambda x: (x * 2 + 1e8) - 1e8, (0.3,), "for larger steps .* rounding inside"),
    "float32 inside": (lambda x: (x.float() * 2).double(), (0.3,), "for larger steps .*float32"),
    "too steep for all steps but small ones": (lambda x: (x * 1e7).tanh(), (0.0,), "smaller steps|do not settle"),
    "wrong near a kink": (
        gradient_of(lambda x: np.maximum(x, 0), lambda x: 0.5 * (x > 0)),
        (3e-7,),
        "gradient is wrong",
    ),
    "wrong beside large terms": (gradient_of(lambda x: x * 2 + 1e7, lambda x: 3 + 0 * x), (0.3,), "gradient is wrong"),
    "fault beside a kink": (
        gradient_of(lambda x: np.maximum(x, 0), lambda x: 0.9 * (x > 0)),
        (0.0, 2.0),
        r"input 0\[1\], where that element is 2 .*gradient is wrong",
    ),
    "transposed": (lambda x: WRONG["reversed"](x), (0.1, 0.2, 0.4), "not the step[.]$"),
    "kink": (F.relu, (0.0, 1.0), r"kink or a tie: .* 0 and 1\. Backward's value is .* no fault"),
    "wrong at a kink": (
        backward_of("relu", lambda x: np.maximum(x, 0), lambda gy, x: gy * 5),
        (0.0,),
        "which is a fault all the same",
    ),
    "kink within a step": (lambda x: F.relu(x * 2), (3e-7,), "reaches over a kink"),
    "tie": (lambda x: x.max(0).values, (1.0, 1.0), "kink or a tie"),
    "jump": (step_function, (0.0, 1.0), "jumps here"),
    "domain": (minidl.log, (0.0, 1.0), "is not finite here"),
    "sharp bend": (lambda x: (x * 3e5).exp(), (1e-5,), "bends too much"),
    "lost digits": (lambda x: x + 1e12, (0.1,), "take a larger eps"),
    "sign": (WRONG["sign"], (0.5, 0.7), "the sign is wrong"),
    "NaN": (WRONG["nan"], (0.5, 0.7), "backward gives NaN"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_the_verdict(name):
    func, values, verdict = VERDICTS[name]
    with pytest.raises(GradcheckError) as caught:
        gradcheck(func, leaf(*values))
    assert re.search(verdict, " ".join(str(caught.value).split())), caught.value


# -- right gradients pass -----------------------------------------------------------------------------------------


@given(x=tensors(shapes(min_side=0)))
def test_what_is_right_passes_in_any_shape(x):
    before = x.array.copy()
    assert gradcheck(lambda x: (x.exp() * x, x.sum()), x)
    assert gradgradcheck(lambda x: x.exp() * x, x)
    np.testing.assert_array_equal(x.array, before)
    assert x.grad is None


@given(seed=st.integers(0, 99))
def test_large_inputs_pass(seed):
    rng = np.random.default_rng(seed)
    x = minidl.tensor(rng.standard_normal((20, 10)), requires_grad=True)
    w = minidl.tensor(rng.standard_normal((10, 7)), requires_grad=True)
    assert gradcheck(lambda x, w: (x @ w).softmax(-1), [x, w])


def test_other_arguments_and_outputs_are_let_through():
    x = leaf(0.5, 0.25)
    assert gradcheck(lambda x, t, n: ((x * t) ** n, t > 0, t.long()), [x, minidl.tensor([1.0, 2.0]).double(), 3])
    assert gradgradcheck(lambda x: (x.detach() * 2, x**3), x)


def test_both_are_where_pytorch_has_them():
    assert minidl.autograd.gradcheck is gradcheck
    assert minidl.autograd.gradgradcheck is gradgradcheck


def test_tensors_nested_in_the_outputs_are_checked():
    x = leaf(0.3, 0.5)
    assert gradcheck(lambda x: (x * 2, {"h": [x.exp(), None]}), x)
    for outputs in (lambda x: (x * 2, (WRONG["sign"](x),)), lambda x: {"y": x, "h": [WRONG["sign"](x)]}):
        with pytest.raises(GradcheckError, match="output 1"):
            gradcheck(outputs, x)


def test_small_gradients_are_checked_too():
    x = minidl.tensor(np.linspace(-1, 1, 100), requires_grad=True)
    assert gradcheck(lambda x: x.mean() * 1e-3, x)
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: WRONG["factor"](x).mean() * 1e-3, x)


def test_the_order_of_memory_is_kept():
    by_memory = backward_of("own", lambda x: x.ravel(order="K").reshape(x.shape) ** 2, lambda gy, x: gy * 2 * x)
    x = minidl.tensor(np.arange(6.0).reshape(2, 3).T + 1, requires_grad=True)
    with pytest.raises(GradcheckError):
        gradcheck(by_memory, x)


# -- what cannot be checked is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_float32_gives_a_warning_and_passes_with_a_large_step_alone(check):
    x = minidl.tensor([0.3, 0.7], requires_grad=True)
    with pytest.warns(UserWarning, match=r"input 0 is float32: it keeps too few digits .* convert it with .double\(\)"):
        assert check(minidl.exp, x, raise_exception=False) is False
    with pytest.warns(UserWarning, match="float32"), pytest.raises(GradcheckError, match="are wrong"):
        check(minidl.exp, x)
    with pytest.warns(UserWarning, match="float32"):
        assert check(minidl.exp, x, eps=1e-2, atol=1e-2)
    with pytest.warns(UserWarning, match="input 1 is float32"):
        assert check(lambda x, y: x * y, [leaf(0.5), minidl.tensor(2.0, requires_grad=True)], eps=1e-2, atol=1e-2)


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_constants_and_results_without_floats_are_refused(check):
    with pytest.raises(ValueError, match="no input requires grad: make one with requires_grad=True"):
        check(minidl.exp, minidl.ones(2))
    with pytest.raises(ValueError, match="returned no float tensor, but bool"):
        check(lambda x: x > 0, leaf(0.5))
    with pytest.raises(GradcheckError, match="output 0 is float32, though all checked inputs are float64"):
        check(lambda x: x.float(), leaf(0.5))


def test_a_function_that_reads_the_callers_tensor_is_refused():
    layer, x = nn.Linear(2, 2).double(), leaf(0.3, 0.5)
    for check in (gradcheck, gradgradcheck):
        with pytest.raises(ValueError, match="uses the tensor of input 0 from outside, not its argument"):
            check(lambda *parameters: layer(x), list(layer.parameters()))
        with pytest.raises(ValueError, match="uses the tensor of input 1 from outside"):
            check(lambda a, b: a * x, [leaf(1.0, 2.0), x])


@pytest.mark.parametrize("wrong", [{"eps": 0}, {"eps": -1e-6}, {"atol": -1}, {"rtol": float("nan")}])
def test_senseless_tolerances_are_refused(wrong):
    with pytest.raises(ValueError, match="eps must be above 0, atol and rtol at least 0"):
        gradcheck(minidl.exp, leaf(0.5), **wrong)


def test_a_gradient_that_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match="backward of own: the gradient must be a Tensor, not NoneType"):
        gradcheck(backward_of("own", lambda x: x * 2, lambda gy, x: None), leaf(0.5))
    with pytest.raises(ValueError, match="returned no float tensor, but NoneType: is its return missing"):
        gradcheck(lambda x: None, leaf(0.5))


def test_functions_that_are_none():
    def changes(x):
        x.detach().array[...] += 1
        return x * 2

    with pytest.raises(GradcheckError, match="changed its input 0 in place"):
        gradcheck(changes, leaf(0.5))
    with pytest.raises(GradcheckError, match="changed its input 1 in place"):
        gradcheck(
            lambda x, t: x * t.fill_(0.5),
            [leaf(0.5), minidl.ones(1).double()],
        )
    with pytest.raises(GradcheckError, match=r"returned different values; if it draws random numbers \(dropout\)"):
        gradcheck(F.dropout, minidl.ones(50, dtype=minidl.float64, requires_grad=True))


def test_gradients_of_other_shapes_than_the_outputs_are_refused():
    with pytest.raises(ValueError, match=r"grad_outputs must have the outputs' shapes \[\(2,\)\], not \[\(3,\)\]"):
        gradgradcheck(minidl.exp, leaf(0.5, 1.0), minidl.ones(3))


# -- the adjoint identity -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [minidl.float32, minidl.float64])
def test_check_adjoint(dtype):
    a, x, y = (minidl.randn(*shape, dtype=dtype) for shape in ((3, 2), (2,), (3,)))
    assert check_adjoint(lambda x: a @ x, lambda y: a.T @ y, x, y)
    assert check_adjoint(lambda x: a @ x, lambda y: a.T @ y, (2,), [3], dtype=dtype)
    with pytest.raises(AssertionError, match="they differ by"):
        check_adjoint(lambda x: a @ x, lambda y: a.T @ y * 1.001, x, y)
    with pytest.raises(AssertionError, match=r"adjoint returned shape \(3,\) in float\d\d instead of \(2,\)"):
        check_adjoint(lambda x: a @ x, lambda y: y, x, y)
    with pytest.raises(AssertionError, match=r"forward returned shape \(3,\) in float16 instead of \(3,\) in"):
        check_adjoint(lambda x: (a @ x).to(minidl.float16), lambda y: a.T @ y, x, y)


def test_check_adjoint_gives_each_map_its_own_argument_and_sees_small_factors():
    with pytest.raises(AssertionError, match="they differ by"):
        check_adjoint(lambda x: x.mul_(2), lambda y: y.mul_(3), (3,), (3,))
    a = minidl.randn(300, 200)
    with pytest.raises(AssertionError, match="they differ by"):
        check_adjoint(lambda x: a @ x, lambda y: a.T @ y * 1.0001, (200,), (300,))
    assert check_adjoint(lambda x: a @ x.float(), lambda y: (a.T @ y).double(), minidl.randn(200).double(), (300,))
    with pytest.raises(AssertionError, match="not finite"):
        check_adjoint(lambda x: x * 1e200, lambda y: y * 2e200, (3,), (3,), dtype=minidl.float64)
    with pytest.raises(TypeError, match="dtype must be float32 or float64, not int64"):
        check_adjoint(lambda x: x, lambda y: y, (3,), (3,), dtype="int64")


def test_inputs_from_a_generator_are_seen():
    y = minidl.randn(2, dtype=minidl.float64, requires_grad=True)
    with pytest.raises(ValueError, match="uses the tensor of input 0 from outside"):
        minidl.gradcheck(lambda x: y * 2, (x for x in [y]))


def test_a_gradient_that_bounds_gy_is_found():
    def doubled(x):
        return record("doubled", 2 * x.array, (x, lambda gy: 2 * gy.clamp(-1, 1)))

    with pytest.raises(GradcheckError, match="are wrong"):
        gradcheck(doubled, minidl.randn(3, dtype=minidl.float64, requires_grad=True))
