"""Gathering, scattering, sorting, rearranging: gradients, adjoints, and what NumPy and the definitions say."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import check_adjoint, nn
from minidl.ops.gather import added, put, taken
from minidl.testing import check_operation

F = nn.functional
INDEX = minidl.tensor([[2, 0, 0], [1, 1, 2]])  # some places twice, some never
ROWS = minidl.tensor([1, 0, 1])
ORDER = minidl.tensor([2, 0, 1])
APART = minidl.tensor([[2, 0], [1, 2]])
MASK = minidl.tensor([[True, False, True], [False, False, True]])


def on(x, index):
    """The index, on the device of x."""
    return index.to(x.device)


READ = {  # of x of shape (2, 3)
    "gather": lambda x: x.gather(1, on(x, INDEX)),
    "gather 0": lambda x: x.gather(0, on(x, ROWS[None])),
    "index_select": lambda x: x.index_select(0, on(x, ROWS)),
    "masked_select": lambda x: x.masked_select(on(x, MASK[0])),
    "masked_fill": lambda x: x.masked_fill(on(x, MASK), 2.0),
    "scatter a number": lambda x: x.scatter(1, on(x, INDEX), 3.0),
    "embedding": lambda x: F.embedding(on(x, ROWS), x),
    "sort": lambda x: x.sort(1).values,
    "sort descending": lambda x: x.sort(0, descending=True)[0],
    "topk": lambda x: x.topk(2).values,
    "flip": lambda x: x.flip(0, 1),
    "roll": lambda x: x.roll((1, -1), (0, 1)),
    "tril": lambda x: x.tril(),
    "triu": lambda x: x.triu(1),
    "narrow": lambda x: x.narrow(1, 1, 2),
    "repeat_interleave": lambda x: x.repeat_interleave(on(x, ORDER), 1),
    "meshgrid": lambda x: minidl.meshgrid(x[0], x[1, :2], indexing="xy")[1],
    "channels last": lambda x: x[None, None].contiguous(memory_format=minidl.channels_last),
    "in place": lambda x: (x * 2).masked_fill_(on(x, MASK), 1.0).tril_().unsqueeze_(0).transpose_(0, 1),
}
WRITE = {  # of x of shape (2, 3) and values of shape (2, 3)
    "scatter": lambda x, v: x.scatter(1, on(x, APART), v),
    "scatter_add": lambda x, v: x.scatter_add(1, on(x, INDEX), v),
    "index_add": lambda x, v: x.index_add(1, on(x, ROWS * 2), v, alpha=2),
    "write in place": lambda x, v: (x * 2).scatter_(1, on(x, INDEX[:, :1]), v).index_add_(0, on(x, ROWS[:2]), v * v),
    "masked_fill with a value": lambda x, v: x.masked_fill(on(x, MASK), v[0, 0]),
    "where": lambda x, v: minidl.where(on(x, MASK), x, v).flip(1),
}


def values(seed):
    return minidl.tensor(np.random.default_rng(seed).permutation(6).reshape(2, 3) - 2.5, requires_grad=True)


@pytest.mark.parametrize("name", READ)
def test_what_reads(name):
    """One example shows a linear map."""
    check_operation(lambda x: READ[name](x) * READ[name](x), {"x": values(0)})


@pytest.mark.parametrize("name", WRITE)
def test_what_writes(name):
    check_operation(lambda x, v: WRITE[name](x, v) * WRITE[name](x, v), {"x": values(1), "v": values(2)})


@given(st.integers(0, 2), st.integers(0, 2**16))
def test_gather_and_scatter_add_are_adjoint(dim, seed):
    rng = np.random.default_rng(seed)
    shape, sizes = (3, 4, 2), list(rng.integers(1, (3, 4, 2), endpoint=True))
    sizes[dim] = 5
    index = minidl.tensor(rng.integers(0, shape[dim], sizes))
    assert check_adjoint(
        lambda x: x.gather(dim, index), lambda y: minidl.zeros(shape).scatter_add(dim, index, y), shape, tuple(sizes)
    )


def test_by_their_definitions():
    rng = np.random.default_rng(0)
    x, index = minidl.tensor(rng.standard_normal((3, 4))), minidl.tensor(rng.integers(0, 3, (2, 4)))
    src, y, z = minidl.tensor(rng.standard_normal((2, 4))), x.clone(), x.clone()
    read = x.gather(0, index)
    for i, j in itertools.product(range(2), range(4)):
        assert read[i, j] == x[index[i, j], j]
        y[index[i, j], j] = src[i, j]
        z[index[i, j], j] += src[i, j]
    assert minidl.equal(x.scatter(0, index, src), y)
    np.testing.assert_allclose(x.scatter_add(0, index, src).numpy(), z.numpy())
    assert minidl.equal(x.scatter(0, index, src, reduce="add"), x.scatter_add(0, index, src))


def test_values_by_hand():
    x = minidl.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert x.masked_fill(MASK, 0.0).tolist() == [[0, 2, 0], [4, 5, 0]]
    assert (x.tril().tolist(), x.triu(1).tolist()) == ([[1, 0, 0], [4, 5, 0]], [[0, 2, 3], [0, 0, 6]])
    assert x.index_add(0, minidl.tensor([1]), x[:1], alpha=10).tolist() == [[1, 2, 3], [14, 25, 36]]
    assert x.roll((1, 1), (0, 1)).tolist() == [[6, 4, 5], [3, 1, 2]]
    assert [g.tolist() for g in minidl.meshgrid(x[0, :2], x[1, :1], indexing="xy")] == [[[1, 2]], [[4, 4]]]


def test_a_gradient_reads_the_index_that_was_given():
    x, index = minidl.ones(3, requires_grad=True), minidl.tensor([0, 0])
    y = x.gather(0, index)
    index.fill_(2)
    y.sum().backward()
    assert x.grad.tolist() == [2, 0, 0]


def test_the_three_maps_are_closed_under_differentiation():
    at = (slice(None, None, 2),), (...,)

    x = minidl.arange(4.0, dtype=minidl.float64).requires_grad_()
    v = minidl.tensor([5.0, 6.0], dtype=minidl.float64, requires_grad=True)
    assert put("put", x, *at, v).tolist() == [5, 1, 6, 3]
    assert added("take", v, *at, (4,)).tolist() == [5, 0, 6, 0]
    assert minidl.gradgradcheck(lambda x, v: put("put", x, *at, v) * taken("take", x, *at).sum(), (x, v))


def test_order_of_equal_values_and_nan():
    x = minidl.tensor([2.0, float("nan"), 1.0, 2.0, float("nan")])
    assert x.sort().indices.tolist() == [2, 0, 3, 1, 4]
    assert x.sort(descending=True).indices.tolist() == [1, 4, 0, 3, 2]
    assert x.topk(3).indices.tolist() == [1, 4, 0]
    assert minidl.tensor([3, 1, 3]).unique(return_inverse=True, return_counts=True)[1].tolist() == [1, 0, 1]


def test_writes_through_views_arrive():
    x = minidl.zeros(3, 4)
    x.narrow(1, 3, 1).fill_(2)
    x.select(0, 2)[0] = 3
    assert x.tolist() == [[0, 0, 0, 2], [0, 0, 0, 2], [3, 0, 0, 2]]


def test_shapes_change_in_place():
    x = minidl.arange(6.0).reshape(2, 3)
    assert x.unsqueeze_(0).transpose_(1, 2).squeeze_(0) is x
    assert (x.shape, x.tolist()) == ((3, 2), [[0, 3], [1, 4], [2, 5]])
    with pytest.raises(RuntimeError, match="unsqueeze_: a leaf tensor that requires grad"):
        minidl.ones(2, requires_grad=True).unsqueeze_(0)
    y = minidl.ones(2, requires_grad=True)
    z = (y * 2).detach_()
    assert not z.requires_grad
    assert (3 in minidl.tensor([1, 3]), 2 in minidl.tensor([1, 3])) == (True, False)


def strides(x):
    return tuple(step // 4 for step in x.array.strides)


def test_memory_formats():
    x = minidl.arange(24.0).reshape(1, 2, 3, 4)
    y = x.contiguous(memory_format=minidl.channels_last)
    assert (strides(x), strides(y)) == ((24, 12, 4, 1), (24, 1, 8, 2))
    assert minidl.equal(x, y)
    assert y.contiguous(memory_format=minidl.channels_last) is y
    assert x.to(memory_format=minidl.channels_last).is_contiguous(memory_format=minidl.channels_last)
    assert strides(y.clone()) == strides(y)
    assert y.clone(memory_format=minidl.contiguous_format).is_contiguous()
    assert strides(minidl.zeros_like(x, memory_format=minidl.channels_last)) == strides(y)


# -- numbers that are drawn ---------------------------------------------------------------------------------------


def test_the_distributions_that_are_drawn():
    minidl.manual_seed(0)
    n = 20_000
    assert abs(minidl.bernoulli(minidl.full((n,), 0.3)).mean().item() - 0.3) < 0.02
    assert abs(minidl.zeros(n, dtype=minidl.int64).bernoulli_(0.7).float().mean().item() - 0.7) < 0.02
    mean, std = minidl.tensor([0.0, 10.0]).repeat(n // 2), minidl.tensor([1.0, 2.0]).repeat(n // 2)
    drawn = minidl.normal(mean, std).reshape(-1, 2)
    assert minidl.allclose(drawn.mean(0), minidl.tensor([0.0, 10.0]), atol=0.1)
    assert minidl.allclose(drawn.std(0), minidl.tensor([1.0, 2.0]), atol=0.1)


@pytest.mark.parametrize("replacement", [False, True])
def test_multinomial_draws_in_proportion(replacement):
    minidl.manual_seed(0)
    weights = minidl.tensor([[1.0, 0.0, 2.0, 5.0], [4.0, 4.0, 0.0, 8.0]]).repeat(5000, 1)
    drawn = minidl.multinomial(weights, 2, replacement).numpy().reshape(5000, 2, 2)
    for row, p in enumerate(([1 / 8, 0, 2 / 8, 5 / 8], [1 / 4, 1 / 4, 0, 1 / 2])):
        p = np.array(p)
        second = p if replacement else [sum(p[j] * p[i] / (1 - p[j]) for j in range(4) if j != i) for i in range(4)]
        for column, wanted in enumerate((p, second)):
            share = np.bincount(drawn[:, row, column], minlength=4) / 5000
            np.testing.assert_allclose(share, wanted, atol=0.03)
            assert (share[np.asarray(wanted) == 0] == 0).all()


def test_new_tensors_take_dtype_and_device():
    x = minidl.zeros(2, dtype=minidl.float64)
    new = [x.new_zeros(3), x.new_ones((3,)), x.new_full((3,), 2), x.new_tensor([1, 2, 3]), x.new_empty(3)]
    assert {(y.dtype, y.shape) for y in new} == {(minidl.float64, (3,))}
    assert x.new_zeros(1, dtype=minidl.int64).dtype == minidl.int64


def test_sequences_of_numbers_as_pytorch_counts_them():
    assert minidl.linspace(-2, 1, 7, dtype=minidl.int64).tolist() == [-2, -1, -1, 0, 0, 0, 1]
    assert minidl.arange(0, 3.1, dtype=minidl.int64).tolist() == [0, 1, 2]
    assert minidl.arange(0.5, 5, 1.5, dtype=minidl.int32).tolist() == [0, 1, 2]
    third = minidl.linspace(minidl.tensor(0.0), minidl.tensor(1.0), 4, dtype=minidl.float64)[1].item()
    assert third == 1 / 3
    assert minidl.linspace(0, 1, 50, dtype=minidl.float64)[-1] == 1  # though 49 * (1 / 49) is not


def test_an_embedding_is_trained_but_for_its_padding():
    layer = nn.Embedding(4, 2, padding_idx=-1)
    assert repr(layer) == "Embedding(4, 2, padding_idx=3)"
    assert layer.weight[3].tolist() == [0, 0]
    layer(minidl.tensor([[1, 3], [1, 0]])).sum().backward()
    assert layer.weight.grad.tolist() == [[1, 1], [2, 2], [0, 0], [0, 0]]
