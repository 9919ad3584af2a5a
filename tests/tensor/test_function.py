"""``autograd.Function``: one's own operations in PyTorch's form. With PyTorch: parity/test_torch_autograd.py."""

import gc
import weakref

import pytest

import minidl
from minidl.autograd import Function
from minidl.function import once_differentiable


class Exp(Function):
    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gy):
        return gy * ctx.saved_tensors[0]


class Both(Function):
    """Product, sum, and a result without gradient."""

    calls = 0

    @staticmethod
    def forward(a, b):
        return a * b, a + b, a > b

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g_product, g_sum, g_mask):
        Both.calls += 1
        assert not g_mask.any()
        a, b = ctx.saved_tensors
        return g_product * b + g_sum, g_product * a + g_sum


def leaf(*values):
    return minidl.tensor(list(values), dtype=minidl.float64, requires_grad=True)


def test_the_gradients_are_those_of_the_mathematics():
    a, b = leaf(1.0, 2.0, -1.5), leaf(0.5, 3.0, 2.0)
    assert minidl.gradcheck(Exp.apply, a)
    assert minidl.gradgradcheck(Exp.apply, a)
    assert minidl.gradcheck(lambda a, b: Both.apply(a, b)[:2], (a, b))
    assert minidl.gradgradcheck(lambda a, b: Both.apply(a, b)[:2], (a, b))


def test_a_wrong_backward_is_noticed():
    class Wrong(Exp):
        @staticmethod
        def backward(ctx, gy):
            return gy * ctx.saved_tensors[0] * 2

    with pytest.raises(minidl.GradcheckError, match="wrong by the factor 2|Wrong"):
        minidl.gradcheck(Wrong.apply, leaf(0.5))


def test_backward_runs_once_for_all_inputs_and_results():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    product, total, mask = Both.apply(a, b)
    assert (product.requires_grad, mask.requires_grad, mask.tolist()) == (True, False, [False, False])
    before = Both.calls
    (product.sum() + 10 * total.sum()).backward()
    assert Both.calls == before + 1
    assert (a.grad.tolist(), b.grad.tolist()) == ([13, 14], [11, 12])


def test_several_results_share_no_memory_and_keep_their_dtypes():
    class Pair(Function):
        @staticmethod
        def forward(ctx, x):
            return x.float() * 2, x * 3

        @staticmethod
        def backward(ctx, g_single, g_double):
            return g_single.double() * 2 + g_double * 3

    x = leaf(1.0, -2.0)
    single, double = Pair.apply(x)
    assert (single.dtype, double.dtype) == (minidl.float32, minidl.float64)
    y = double * double
    single.relu_()
    (single.sum() + y.sum()).backward()
    assert x.grad.tolist() == [20, -36]


def test_a_gradient_that_ctx_holds_is_copied():
    class Held(Exp):
        @staticmethod
        def backward(ctx, gy):
            ctx.held = [gy * 2]
            held.append(ctx.held[0])
            return held[-1]

    x, held = leaf(1.0), []
    for _ in range(2):
        Held.apply(x).sum().backward()
    assert [g.tolist() for g in held] == [[2], [2]]


def test_inputs_are_held_only_if_they_are_saved():
    class Double(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, gy):
            return gy * 2

    x = leaf(1.0)
    y = x + 0
    z = Double.apply(y)
    gone = weakref.ref(y)
    del y
    assert gone() is None
    z.sum().backward()
    z.sum().backward()  # nothing was saved, so nothing was freed
    assert x.grad.tolist() == [4]


def test_none_is_no_gradient():
    class Constant(Exp):
        @staticmethod
        def backward(ctx, gy):
            assert ctx.needs_input_grad == (True,)

    x = leaf(1.0)
    Constant.apply(x).sum().backward()
    assert x.grad is None


@pytest.mark.parametrize("returned", [lambda g: (g, g), lambda g: ()])
def test_the_number_of_gradients_is_checked(returned):
    class Miscounted(Exp):
        @staticmethod
        def backward(ctx, gy):
            return returned(gy)

    with pytest.raises(RuntimeError, match="MiscountedBackward returned an incorrect number of gradients .expected 1"):
        Miscounted.apply(leaf(1.0)).sum().backward()


def test_the_shape_of_a_gradient_is_checked():
    class Misshapen(Exp):
        @staticmethod
        def backward(ctx, gy):
            return gy.sum()

    with pytest.raises(RuntimeError, match=r"backward of Misshapen: gradient of shape \(\)"):
        Misshapen.apply(leaf(1.0, 2.0)).sum().backward()


def test_a_saved_result_that_was_changed_is_refused():
    y = Exp.apply(leaf(1.0))
    with minidl.no_grad():
        y.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place after Exp used it"):
        y.sum().backward()


def test_an_input_changed_in_place_is_the_result():
    class Increment(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.mark_dirty(x)
            return x.add_(1)

        @staticmethod
        def backward(ctx, gy):
            return gy * 7

    x = leaf(1.0)
    y = x * 1
    assert Increment.apply(y) is y
    y.sum().backward()
    assert x.grad.tolist() == [7]
    with pytest.raises(RuntimeError, match="a leaf tensor that requires grad"):
        Increment.apply(x)

    class Two(Increment):
        @staticmethod
        def forward(ctx, x):
            ctx.mark_dirty(x)
            return x, x * 2

    with pytest.raises(NotImplementedError, match="mark_dirty is for a single result"):
        Two.apply(x * 1)


def test_an_input_returned_as_it_is():
    class Same(Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, gy):
            return gy * 3

    x = leaf(1.0)
    y = Same.apply(x)
    assert y is not x
    assert x.is_leaf
    y.sum().backward()
    assert x.grad.tolist() == [3]


def test_a_backward_outside_of_the_graph():
    class Once(Exp):
        @staticmethod
        @once_differentiable
        def backward(ctx, gy):
            return gy * ctx.saved_tensors[0]

    x = leaf(0.0)
    (g,) = minidl.grad(Once.apply(x), x, create_graph=True)
    assert g.tolist() == [1]
    with pytest.raises(RuntimeError, match="twice a function that was marked with @once_differentiable"):
        g.sum().backward()


def test_nothing_is_recorded_without_need():
    x = leaf(1.0)
    with minidl.no_grad():
        assert Exp.apply(x).is_leaf
    assert Exp.apply(x.detach()).is_leaf


def test_what_is_refused():
    with pytest.raises(RuntimeError, match=r"Exp: a Function is not instantiated; call Exp.apply"):
        Exp()
    with pytest.raises(TypeError, match="save_for_backward: only tensors, not int"):
        minidl.function.FunctionCtx().save_for_backward(3)
    with pytest.raises(NotImplementedError, match="define backward"):
        Function.backward(None)


def test_a_saved_result_makes_no_reference_cycle():
    gc.collect()
    gc.disable()
    try:
        y = Exp.apply(leaf(1.0))
        gone = weakref.ref(y)
        del y
        assert gone() is None
    finally:
        gc.enable()
