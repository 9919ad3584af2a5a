"""Hooks on tensors and modules: what they see, what they may change, and when. Parity: test_torch_autograd.py."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

import minidl
from minidl import hooks, nn


def leaf(*values):
    return minidl.tensor(list(values), requires_grad=True)


def test_a_hook_sees_the_complete_gradient_and_may_replace_it():
    x, seen = leaf(1.0, 2.0), []
    y = x * 2
    y.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g + 1)
    (y * y + y).sum().backward()  # 2 y + 1 = [5, 9], summed over three uses
    assert seen == [[5, 9]]
    assert x.grad.tolist() == [101, 181]


def test_what_a_hook_keeps_stays_as_it_was():
    x, seen = leaf(1.0), []
    x.register_hook(seen.append)
    for _ in range(2):
        (x * 3).sum().backward()
    assert [g.tolist() for g in seen] == [[3], [3]]
    assert x.grad.tolist() == [6]


def test_hooks_run_once_with_create_graph():
    w = minidl.ones(2, requires_grad=True)
    w.register_hook(lambda g: g * 10)
    x = minidl.tensor([[1.0, 2.0], [4.0, 8.0]])
    (nn.functional.batch_norm(x, None, None, w, None, True) ** 2).sum().backward(create_graph=True)
    np.testing.assert_allclose(w.grad.detach().numpy(), 40, rtol=1e-4)


def test_grad_passes_through_hooks():
    x = leaf(1.0, 2.0)
    y = x * 3
    y.register_hook(lambda g: g * 2)
    x.register_hook(lambda g: g * 5)
    gx, gy = minidl.grad(y.sum(), [x, y])
    assert (gx.tolist(), gy.tolist()) == ([30, 30], [2, 2])


def test_a_removed_hook_is_gone():
    x = leaf(1.0)
    with x.register_hook(lambda g: g * 5) as handle:
        (x * 1).backward()
    (x * 1).backward()
    handle.remove()
    assert x.grad.tolist() == [6]


def test_hooks_go_with_their_tensor():
    gc.collect()  # what other tests left
    before = len(hooks.of_leaves)
    x = leaf(1.0)
    x.register_hook(lambda g: g)
    assert len(hooks.of_leaves) == before + 1
    del x
    gc.collect()
    assert len(hooks.of_leaves) == before


def test_no_leaf_is_remembered_for_a_hook_that_was_removed():
    before, x = set(hooks.of_leaves), leaf(1.0)
    first, second = x.register_hook(lambda g: g), x.register_post_accumulate_grad_hook(lambda leaf: None)
    first.remove()
    assert set(hooks.of_leaves) == before | {id(x)}
    second.remove()
    assert set(hooks.of_leaves) == before


def test_a_hook_may_remove_those_of_a_leaf_that_is_completed_later():
    called, a, b = [], leaf(2.0), leaf(3.0)
    removed = [a.register_hook(called.append), a.register_post_accumulate_grad_hook(called.append)]
    own = b.register_hook(lambda g: [handle.remove() for handle in (*removed, own)] and None)
    (a * 1 * b).backward()
    assert (called, a.grad.item(), b.grad.item()) == ([], 3.0, 2.0)


def test_a_leaf_is_complete_while_the_pass_goes_on():
    order = []
    layers = [leaf(2.0) for _ in range(3)]
    y = minidl.tensor([1.0])
    for i, w in enumerate(layers):
        w.register_post_accumulate_grad_hook(lambda w, i=i: order.append((i, w.grad.tolist())))
        y = y * w
        y.register_hook(lambda g, i=i: order.append(i))
    y.backward()
    assert order == [2, (2, [4]), 1, (1, [4]), 0, (0, [4])]


def test_a_leaf_used_twice_is_complete_after_its_first_use():
    w, order = leaf(3.0), []
    early = w * 2
    late = early * w
    early.register_hook(lambda g: order.append("early"))
    w.register_post_accumulate_grad_hook(lambda w: order.append(w.grad.tolist()))
    late.backward()
    assert order == ["early", [12]]


def test_a_leaf_that_is_the_output():
    x, order = leaf(3.0), []
    x.register_hook(lambda g: g * 2)
    x.register_post_accumulate_grad_hook(lambda x: order.append(x.grad.tolist()))
    x.backward()
    assert order == [[2]]


def test_retained_gradients():
    x = leaf(1.0, 2.0)
    y = x * 2
    y.retain_grad()
    y.register_hook(lambda g: g * 10)
    assert y.retains_grad
    assert y.grad is None
    y.sum().backward()
    assert y.grad.tolist() == [10, 10]  # after all other hooks
    assert x.grad.tolist() == [20, 20]
    with pytest.warns(UserWarning, match=r"retain_grad\(\) was called before"):
        assert (x * 1).grad is None


def test_backward_to_chosen_inputs():
    a, b = leaf(1.0), leaf(2.0)
    y = a * b
    (y * 3).backward(inputs=[a, y])
    assert (a.grad.tolist(), y.grad.tolist(), b.grad) == ([6], [3], None)


def test_what_a_hook_returns_is_checked():
    x = leaf(1.0, 2.0)
    y = x * 1
    with y.register_hook(lambda g: 3), pytest.raises(TypeError, match="a Tensor or None, not int"):
        y.sum().backward(retain_graph=True)
    with y.register_hook(lambda g: g.sum()), pytest.raises(RuntimeError, match=r"shape \(\) .* shape \(2,\)"):
        y.sum().backward()
    assert x.grad is None


def test_where_hooks_are_refused():
    x = minidl.tensor([1.0])
    for register in (x.register_hook, x.register_post_accumulate_grad_hook):
        with pytest.raises(RuntimeError, match="does not require grad, so it gets no gradient"):
            register(print)
    with pytest.raises(RuntimeError, match="does not require grad, so it gets no gradient"):
        x.retain_grad()
    with pytest.raises(RuntimeError, match="only for leaves"):
        (leaf(1.0) * 1).register_post_accumulate_grad_hook(print)


# --- modules -----------------------------------------------------------------------------------------------


def test_forward_hooks_see_and_replace():
    layer, seen = nn.ReLU(), []
    layer.register_forward_pre_hook(lambda m, args: (args[0] - 1,))
    layer.register_forward_hook(lambda m, args, y: seen.append((args[0].tolist(), y.tolist())))
    first = layer.register_forward_hook(lambda m, args, y: y + 10, prepend=True)
    assert layer(minidl.tensor([0.0, 3.0])).tolist() == [10, 12]
    assert seen == [([-1, 2], [10, 12])]
    first.remove()
    assert layer(minidl.tensor([0.0, 3.0])).tolist() == [0, 2]


def test_forward_hooks_with_keywords():
    class Scale(nn.Module):
        def forward(self, x, factor=1):
            return x * factor

    scale = Scale()
    scale.register_forward_pre_hook(lambda m, args, kwargs: (args, {"factor": kwargs["factor"] + 1}), with_kwargs=True)
    scale.register_forward_hook(lambda m, args, kwargs, y: y + kwargs["factor"], with_kwargs=True)
    assert scale(minidl.tensor([1.0]), factor=4).tolist() == [10]


def test_backward_hooks_see_both_ends():
    layer, seen = nn.Linear(2, 1, bias=False), []
    layer.weight.data = minidl.tensor([[2.0, 3.0]])
    layer.register_full_backward_hook(lambda m, gx, gy: seen.append((gx[0].tolist(), gy[0].tolist())))
    handle = layer.register_full_backward_hook(lambda m, gx, gy: (gx[0] * 10,))
    layer.register_full_backward_pre_hook(lambda m, gy: (gy[0] * 2,))
    x = minidl.ones(1, 2, requires_grad=True)
    layer(x).sum().backward()
    assert seen == [([[4, 6]], [[2]])]
    assert x.grad.tolist() == [[40, 60]]
    assert layer.weight.grad.tolist() == [[2, 2]]
    handle.remove()
    minidl.grad(layer(x).sum(), x)
    assert seen[1] == seen[0]


def test_a_backward_hook_of_a_first_layer():
    layer, seen = nn.Linear(2, 1), []
    layer.register_full_backward_hook(lambda m, gx, gy: seen.append((gx, gy[0].tolist())))
    layer(minidl.ones(1, 2)).sum().backward()
    assert seen == [((None,), [[1]])]


def test_a_module_with_several_arguments_and_results():
    class Mix(nn.Module):
        def forward(self, a, n, b):
            return a * b, (a + b) * n

    mix, seen = Mix(), []
    mix.register_full_backward_hook(lambda m, gx, gy: seen.append([g if g is None else g.tolist() for g in (*gx, *gy)]))
    a, b = leaf(2.0), leaf(3.0)
    product, total = mix(a, 4, b)
    (product + 2 * total).sum().backward()
    assert seen == [[[11], None, [10], [1], [2]]]
    assert (a.grad.tolist(), b.grad.tolist()) == ([11], [10])


def add_one(module, args, output):
    return output + 1


def test_copies_keep_their_hooks():
    layer = nn.ReLU()
    layer.register_forward_hook(add_one)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other(minidl.tensor([1.0])).tolist() == [2]


def test_a_module_with_named_results_and_a_backward_hook():
    class Greatest(nn.Module):
        def forward(self, x):
            return x.max(1)

    module, seen = Greatest(), []
    module.register_full_backward_hook(lambda m, gx, gy: seen.append(gx[0].tolist()))
    y = module(minidl.tensor([[1.0, 3.0]], requires_grad=True))
    y.values.sum().backward()
    assert seen == [[[0, 1]]]


def test_modules_with_backward_hooks_keep_no_results():
    layer = nn.ReLU()
    layer.register_full_backward_hook(lambda m, gx, gy: None)
    gc.collect()
    gc.disable()
    try:
        y = layer(minidl.ones(2, requires_grad=True))
        gone = weakref.ref(y)
        del y
        assert gone() is None
    finally:
        gc.enable()
