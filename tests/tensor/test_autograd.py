"""The tape: order, accumulation, modes, freeing, changes in place, and what is refused."""

import gc
import threading
import weakref

import numpy as np
import pytest

import minidl
from minidl.autograd import record


def leaf(*values, dtype=None):
    return minidl.tensor(list(values), dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("length", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_long_chain_of_operations(length):
    x = leaf(1.0)
    y = x
    for _ in range(length):
        y = y * 1.0 + 0
    y.sum().backward()
    assert x.grad.item() == 1
    del y  # nor does letting go of it recurse


def test_each_node_is_passed_once():
    passed = []

    def watched(x):
        return record("watched", x.array * 1, (x, lambda gy: passed.append(1) or gy))

    x = leaf(1.0)
    y = watched(x)
    for _ in range(20):
        y = y + y  # 2^20 paths
    y.sum().backward()
    assert x.grad.item() == 2**20
    assert len(passed) == 1


def test_gradients_add_up_until_forgotten():
    x = leaf(2.0)
    for expected in (4.0, 8.0):
        (x * x).sum().backward()
        assert x.grad.item() == expected
    x.grad = None
    (3 * x).sum().backward()
    assert x.grad.item() == 3


def test_gradients_own_their_memory():
    a, b, seed = leaf(1.0, 2.0), leaf(3.0, 4.0), minidl.ones(2)
    (a + b).backward(seed)
    a.grad.zero_()
    assert b.grad.tolist() == seed.tolist() == [1, 1]
    c = leaf(1.0, 2.0)
    c.sum().backward()
    c.grad += 1  # an expanded view could not be written to
    assert c.grad.tolist() == [2, 2]


def test_gradients_of_a_recorded_backward_are_not_one_tensor():
    a, b = leaf(1.0), leaf(2.0)
    (a + b).sum().backward(create_graph=True)
    assert a.grad is not b.grad
    assert not np.shares_memory(a.grad.array, b.grad.array)


def test_second_derivatives_through_backward():
    x = leaf(3.0)
    (x**3).sum().backward(create_graph=True)
    slope, x.grad = x.grad, None
    slope.sum().backward()
    assert x.grad.item() == 18


def test_grad_of_intermediate_results_leaves_no_trace():
    x, w = leaf(2.0), leaf(5.0)
    h = x * 3
    gh, gx = minidl.grad((h * h * w).sum(), [h, x])
    assert (gh.item(), gx.item()) == (60, 180)
    assert x.grad is None
    assert w.grad is None


def test_grad_computes_nothing_that_it_does_not_need():
    def forbidden(x):
        def gradient(gy):
            raise AssertionError("not needed")

        return record("forbidden", x.array * 1, (x, gradient))

    x, w = leaf(2.0), leaf(5.0)
    (gx,) = minidl.grad((x * forbidden(w)).sum(), x)
    assert gx.item() == 5


def test_grad_of_several_outputs():
    x = leaf(2.0)
    (g,) = minidl.grad([x * 2, (x * x).sum()], x, [minidl.tensor([10.0]), None])
    assert g.item() == 24


def test_grad_of_a_leaf_in_itself():
    x = leaf(2.0)
    assert minidl.grad(x.sum() * 0 + x, x)[0].item() == 1
    assert minidl.grad(x, x)[0].item() == 1


def test_unused_inputs():
    x, unused = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match=r"do not depend on input 1 of shape \(1,\)"):
        minidl.grad((x * 2).sum(), [x, unused])
    assert minidl.grad((x * 2).sum(), [x, unused], allow_unused=True)[1] is None


def test_a_second_backward_says_why_it_cannot():
    x = leaf(1.0)
    y = (x * x).sum()
    y.backward()
    before = x.grad.item()
    with pytest.raises(RuntimeError, match="a second time: .* freed .* retain_graph=True"):
        y.backward()
    assert x.grad.item() == before


def test_retain_graph():
    x = leaf(1.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 4


def test_a_second_backward_where_nothing_was_saved():
    x = leaf(1.0)
    y = x.sum() + 1
    y.backward()
    y.backward()
    assert x.grad.item() == 2


def test_saved_arrays_are_freed_as_backward_passes():
    x = leaf(1.0)
    h = x * 2
    y = h * h
    saved = weakref.ref(h)
    del h
    assert saved() is not None
    y.sum().backward()
    assert saved() is None


def test_no_cycles():
    gc.collect()
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        y = (minidl.sigmoid(x) * minidl.exp(x)).softmax(0).sqrt()
        node = weakref.ref(y)
        del y
        assert node() is None
    finally:
        gc.enable()


def test_no_grad_and_enable_grad():
    x = leaf(1.0)
    with minidl.no_grad():
        assert not (x * 2).requires_grad
        with minidl.enable_grad():
            assert (x * 2).requires_grad
        assert not minidl.is_grad_enabled()
    assert (x * 2).requires_grad

    @minidl.no_grad()
    def double(x):
        return x * 2

    assert not double(x).requires_grad
    assert double.__name__ == "double"


def test_modes_are_left_after_an_error():
    with pytest.raises(ZeroDivisionError), minidl.no_grad():
        1 / 0  # noqa: B018
    assert minidl.is_grad_enabled()


def test_modes_belong_to_a_thread():
    seen = []
    with minidl.no_grad():
        thread = threading.Thread(target=lambda: seen.append(minidl.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_backward_records_nothing_by_itself():
    x = leaf(1.0)
    (x * x).sum().backward()
    assert x.grad.grad_fn is None


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda x: (x * 2).backward(), r"one element, and shape \(2,\) has 2"),
        (lambda x: x.detach().sum().backward(), "does not require grad"),
        (
            lambda x: (x * 2).backward(minidl.ones(3)),
            r"gradient of shape \(3,\) for an output of shape \(2,\)",
        ),
        (lambda x: minidl.grad(x.sum(), minidl.ones(2)), "input 0 of shape .* does not require grad"),
        (lambda x: minidl.grad([x.sum()], [x], [None, None]), "got 2 for 1"),
        (lambda x: minidl.ones(2, dtype=minidl.int64).requires_grad_(), "only float tensors"),
        (lambda x: (x * 2).requires_grad_(False), "only be set on leaf tensors"),
        (lambda x: x.numpy(), r"detach\(\).numpy\(\)"),
        (lambda x: x.item(), r"a tensor of shape \(2,\) has 2"),
        (lambda x: bool(x), "ambiguous"),
        (lambda x: setattr(x, "grad", minidl.ones(3)), r"grad of shape \(3,\)"),
    ],
)
def test_misuse(misuse, message):
    with pytest.raises(RuntimeError, match=message):
        misuse(leaf(1.0, 2.0))


def test_a_gradient_of_the_wrong_shape_or_type_is_named():
    def wrong(x, gradient):
        return record("wrong", x.array * 1, (x, gradient))

    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"backward of wrong: gradient of shape \(\) .* of shape \(2,\)"):
        wrong(x, lambda gy: gy.sum()).sum().backward()
    with pytest.raises(RuntimeError, match="dtype float64 for an input .* float32"):
        wrong(x, lambda gy: gy.double()).sum().backward()
    assert x.grad is None


# -- changes in place -----------------------------------------------------------------------------------------


def test_a_leaf_is_changed_in_place_only_without_recording():
    p = leaf(1.0, 2.0)
    for change in (lambda: p.add_(1), lambda: p.zero_(), lambda: p.__setitem__(0, 5.0), lambda: p[0].mul_(2)):
        with pytest.raises(RuntimeError, match=r"only inside minidl.no_grad\(\)"):
            change()
    assert p.tolist() == [1, 2]
    (p * p).sum().backward()
    with minidl.no_grad():
        p -= 0.5 * p.grad
    assert p.tolist() == [0, 0]
    assert p.is_leaf
    assert p.requires_grad
    p.data += 1
    assert p.tolist() == [1, 1]


def test_a_saved_tensor_changed_in_place_is_noticed():
    x = leaf(1.0, 2.0)
    h = x * 2
    y = minidl.exp(h)
    z = (y * h).sum()
    h += 1
    with pytest.raises(RuntimeError, match=r"backward of mul: a tensor of shape \(2,\) .* changed in place"):
        z.backward()
    assert x.grad is None


@pytest.mark.parametrize("change", [lambda y: y.add_(1), lambda y: y[0].fill_(9.0), lambda y: y.data.zero_()])
def test_a_saved_output_changed_in_place_is_noticed(change):
    y = minidl.sigmoid(leaf(1.0, 2.0))
    z = y.sum()
    change(y)
    with pytest.raises(RuntimeError, match=r"backward of sigmoid: .* shape \(2,\) .* in place after sigmoid used it"):
        z.backward()


def test_a_tensor_that_no_gradient_needs_may_change():
    x = leaf(1.0, 2.0)
    h = x + 1
    y = h * 3
    h *= 100
    y.sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_an_optimiser_step_between_forward_and_backward_is_noticed():
    p = leaf(1.0)
    y = (p * p).sum()
    p.grad = minidl.ones(1)
    minidl.optim.SGD([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="backward of mul"):
        y.backward()


def test_a_view_of_a_tensor_that_was_changed_is_refused():
    x = leaf(1.0, 2.0)
    h = x * 2
    view = h[0]
    view *= 3  # PyTorch would rewrite h's graph; minidl says that it does not
    with pytest.raises(RuntimeError, match="changed in place through another tensor"):
        h.sum()
    assert minidl.grad(view, x)[0].tolist() == [6, 0]
    assert h.detach().sum().item() == 10  # the values can still be read


def test_an_old_view_does_not_take_a_new_graph_for_its_own():
    h = minidl.zeros(2)
    view = h[0]
    h += leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="take the view after the change"):
        view * 2
    assert (h[0] * 2).requires_grad


def test_augmented_assignment_to_an_index():
    x = leaf(1.0, 2.0)
    h = x * 2
    h[0] += x[1] * 10
    h[0] *= 3
    h.sum().backward()
    assert h.tolist() == [66, 4]
    assert x.grad.tolist() == [6, 32]


def test_a_changed_view_stored_elsewhere_is_refused():
    h = leaf(1.0, 2.0) * 2
    view = h[0:1]
    view *= 3
    with pytest.raises(RuntimeError, match="changed in place through another tensor"):
        h[1:2] = view


def test_in_place_results_must_fit():
    x = minidl.zeros(2)
    with pytest.raises(RuntimeError, match=r"add_: the result has shape \(3, 2\), .* in place \(2,\)"):
        x += minidl.ones(3, 2)
    with pytest.raises(RuntimeError, match="the result is float32, which a tensor of int64 cannot hold"):
        i = minidl.arange(2)
        i += 0.5
    with pytest.raises(RuntimeError, match=r"a value of shape \(3,\) does not fit in the shape \(2,\)"):
        x[:] = minidl.ones(3)
    with pytest.raises(RuntimeError, match=r"expanded view.*clone\(\)"):
        minidl.zeros(1).expand(2).add_(1)
    assert x.tolist() == [0, 0]


def test_an_array_on_the_left_gives_a_tensor_with_its_graph():
    x = leaf(1.0, 2.0)
    for y in (
        np.array([3.0, 4.0], np.float32) * x,
        np.float32(3) * x,
        np.ones(2) - x,
        np.ones((2, 2)) @ x.double(),
    ):
        assert isinstance(y, minidl.Tensor)
        assert y.requires_grad


def test_a_gradient_of_a_result_in_between_is_explained():
    y = leaf(1.0) * 2
    with pytest.warns(UserWarning, match="not a leaf"):
        assert y.grad is None


def test_two_threads_pass_backward_at_once():
    def train(results, i):
        x = leaf(*np.linspace(0, 1, 50))
        for _ in range(50):
            ((x * x).softmax(0) * x).sum().backward()
        results[i] = x.grad.numpy()

    results = [None, None]
    threads = [threading.Thread(target=train, args=(results, i)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(results[0], results[1])


# -- found by reviewers ---------------------------------------------------------------------------------------


def test_an_index_changed_later_does_not_redirect_the_gradient():
    i, mask = minidl.tensor([0, 1]), minidl.tensor([True, False, False])
    x = leaf(1.0, 2.0, 3.0)
    y, z = x[i], x[mask]
    values, places = x.max(0)
    i.add_(1)
    mask.fill_(True)
    places.zero_()
    (y.sum() + z.sum() + values).backward()
    assert x.grad.tolist() == [2, 1, 1]


def test_a_constant_that_a_gradient_returns_is_not_taken_for_its_own():
    ones = minidl.ones(3)

    def total(x):
        return record("total", np.asarray(x.array.sum()), (x, lambda gy: ones))

    x = leaf(1.0, 2.0, 3.0)
    for _ in range(3):
        total(x).backward()
    assert x.grad.tolist() == [3, 3, 3]
    assert ones.tolist() == [1, 1, 1]


def test_tensors_held_otherwise_than_in_a_closure_are_watched_too():
    import functools

    def times(z, gy):
        return gy * z

    class Times:
        def __init__(self, z):
            self.z = z

        def gradient(self, gy):
            return gy * self.z

        __call__ = gradient

    for hold in (
        lambda z: lambda gy, z=z: gy * z,
        lambda z: functools.partial(times, z),
        lambda z: lambda gy: gy * [z][0],
        lambda z: Times(z),
        lambda z: Times(z).gradient,
        lambda z: z.mul,
    ):
        x, z = leaf(1.0), minidl.ones(1)
        y = record("held", x.array * 1, (x, hold(z)))
        z.mul_(10)
        with pytest.raises(RuntimeError, match="backward of held"):
            y.sum().backward()


def test_a_parameter_shares_versions_with_the_tensor_it_was_made_of():
    t = minidl.tensor([1.0, 2.0])
    p = minidl.nn.Parameter(t)
    y = (p * p).sum()
    t.mul_(10)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_a_detached_copy_does_not_decide_over_the_leaf():
    p = leaf(1.0, 2.0)
    p.detach().requires_grad_(False)
    with pytest.raises(RuntimeError, match="a view of a leaf"):
        p[0].mul_(2)
    y = p * 2
    y.detach().requires_grad_()
    y.mul_(2)
    assert y.tolist() == [4, 8]


def test_no_grad_as_a_bare_decorator_but_not_on_a_generator():
    @minidl.no_grad
    def double(x):
        return x * 2

    assert not double(leaf(1.0)).requires_grad
    with pytest.raises(TypeError, match="is a generator"):

        @minidl.no_grad()
        def generate():
            yield 1


def test_gradcheck_records_whatever_the_mode():
    with minidl.no_grad():
        assert minidl.gradcheck(minidl.exp, leaf(0.5, dtype=minidl.float64))


def test_gradients_of_many_targets_are_found_by_identity():
    x = leaf(*np.linspace(0, 1, 100))
    targets = [x * i for i in range(100)]
    gradients = minidl.grad(sum(targets[1:], targets[0]).sum(), targets)
    assert all(g.tolist() == [1] * 100 for g in gradients)


def test_a_gradient_that_cannot_be_written_to_is_replaced():
    x = leaf(1.0, 2.0)
    x.grad = minidl.ones(1).expand(2)
    (x * 2).sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_everything_declared_is_bound():
    from minidl.ops._methods import Methods

    declared = {name: value for name, value in vars(Methods).items() if callable(value)}
    assert len(declared) > 90
    assert all(vars(minidl.Tensor)[name] is value for name, value in declared.items())


def test_set_grad_enabled_takes_effect_at_once():
    switch = minidl.set_grad_enabled(False)
    try:
        assert not minidl.is_grad_enabled()
        with minidl.set_grad_enabled(True):
            assert minidl.is_grad_enabled()
        assert not minidl.is_grad_enabled()
    finally:
        minidl.set_grad_enabled(True)
    with switch:  # a context made earlier: what was before it was made comes back
        assert not minidl.is_grad_enabled()
        with switch:
            assert not minidl.is_grad_enabled()
        assert not minidl.is_grad_enabled()
    assert minidl.is_grad_enabled()

    @minidl.set_grad_enabled(False)
    def inside():
        return minidl.is_grad_enabled()

    assert minidl.is_grad_enabled()
    assert not inside()
    assert minidl.is_grad_enabled()


def test_the_base_of_a_power_changed_in_place_is_noticed():
    """Its gradient function is decorated, and yet what it holds is known."""
    x = minidl.tensor([2.0], requires_grad=True)
    y = (x**2).sum()
    with minidl.no_grad():
        x.mul_(10.0)
    with pytest.raises(RuntimeError, match="changed in place after pow used it"):
        y.backward()


def test_the_result_of_a_power_may_be_changed():
    p, t = minidl.tensor([1.0, 2.0], requires_grad=True), minidl.tensor([0.0, 5.0])
    errors = (p - t) ** 2
    errors[t > 3] = 0
    errors.mean().backward()
    assert p.grad.tolist() == [1.0, 0.0]


def test_a_leaf_frozen_before_the_backward_pass_gets_no_gradient():
    x = minidl.ones(2, requires_grad=True)
    y = (x * 2).sum()
    x.requires_grad_(False)
    y.backward()
    assert x.grad is None


def test_requires_grad_of_a_result_can_be_asked_for_again():
    y = minidl.ones(2, requires_grad=True) * 2
    assert y.requires_grad_() is y
    with pytest.raises(RuntimeError, match="only be set on leaf tensors"):
        y.requires_grad_(False)
