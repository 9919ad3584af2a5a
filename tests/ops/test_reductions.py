"""Reductions, extremes, norms, running sums and products of tensors: gradients against differences, values by NumPy.

`FUNCTIONS` and `PRODUCTS` are also run on the stand-in for a GPU (tests/gpu/test_standin.py).
"""

import numpy as np
import pytest

import minidl
from minidl.testing import check_operation, property_test_gradient, shapes, tensors

F = minidl.nn.functional
INF = float("inf")
FUNCTIONS = {
    "mean dtype": lambda x: x.mean(0, dtype=x.dtype),
    "var correction": lambda x: minidl.var(x, correction=-0.5),
    "std correction": lambda x: minidl.std(x, 0, correction=-1) * x.std(correction=-2),
    "amax": lambda x: x.amax((0, -1) if x.ndim > 1 else 0),
    "amin": lambda x: minidl.amin(x, -1, keepdim=True),
    "median": lambda x: x.median() * x.median(0).values,
    "prod": lambda x: x.prod(),
    "prod 0": lambda x: minidl.prod(x, 0, keepdim=True),
    "prod -1": lambda x: x.prod(-1),
    "cumsum": lambda x: x.cumsum(0),
    "cumsum -1": lambda x: minidl.cumsum(x, -1) ** 2,
    "logsumexp": lambda x: x.logsumexp(0),
    "logsumexp all": lambda x: minidl.logsumexp(x, tuple(range(x.ndim)), keepdim=True),
    "norm": lambda x: x.norm(),
    "norm 1": lambda x: minidl.norm(x, 1, 0),
    "norm 3": lambda x: x.norm(3, dim=-1, keepdim=True),
    "norm 1/2": lambda x: x.norm(0.5, (0, -1) if x.ndim > 1 else 0),
    "norm inf": lambda x: x.norm(INF, 0) + x.norm(-INF),
    "norm 0": lambda x: x.norm(0) * x,
    "normalize": lambda x: F.normalize(x, dim=-1),
    "normalize 1": lambda x: F.normalize(x, 1.0, 0),
    "own product": lambda x: minidl.einsum("i,i->", x.reshape(-1), x.reshape(-1)),
}


def numbers(*size, seed=0):
    """As `tensors` draws them: no two are equal, none is near 0."""
    count = int(np.prod(size))
    values = np.random.default_rng(seed).permutation(np.linspace(0.4, 1.6, count) * (-1.0) ** np.arange(count))
    return minidl.tensor(values.reshape(size), requires_grad=True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name):
    check_operation(FUNCTIONS[name], {"x": numbers(2, 3)})


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
@property_test_gradient(tensors(shapes(min_dims=1, max_dims=2, max_side=3)))
def test_function_of_any_shape(name, x):
    return FUNCTIONS[name](x)


PRODUCTS = {  # name: (function, shapes)
    "bmm": (minidl.bmm, (2, 3, 2), (2, 2, 1)),
    "mv": (minidl.mv, (2, 3), (3,)),
    "dot": (minidl.dot, (3,), (3,)),
    "outer": (minidl.outer, (3,), (2,)),
    "rows times a batch": (minidl.matmul, (2, 3), (2, 2, 3, 1)),
    "a batch times columns": (minidl.matmul, (2, 1, 2, 3), (3, 2)),
    "attention": (lambda q, k: minidl.einsum("bhqd,bhkd->bhqk", q, k), (2, 1, 2, 3), (2, 1, 2, 3)),
    "three": (lambda *x: minidl.einsum("ij,jk,kj->ik", *x), (2, 3), (3, 2), (2, 3)),
    "diagonals": (lambda a, b: minidl.einsum("iji,...i->j...", a, b), (2, 3, 2), (3, 2)),
    "broadcast": (lambda a, b: minidl.einsum("...ij,...jk", a, b), (2, 1, 2, 2), (2, 2, 1)),
    "sums": (lambda a, b: minidl.einsum("ij,kl->jl", a, b), (2, 3), (3, 2)),
    "cosine": (lambda a, b: F.cosine_similarity(a, b, -1), (2, 3), (3,)),
    "distance": (lambda a, b: F.pairwise_distance(a, b, 3.0), (2, 3), (2, 3)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_product(name):
    function, *sizes = PRODUCTS[name]
    inputs = [numbers(*size, seed=i) for i, size in enumerate(sizes)]
    check_operation(lambda inputs: function(*inputs), {"inputs": inputs})


X = np.array([[[3.0, -1, 2], [0, 5, -4]], [[1, 1, -2], [6, 0.5, 7]]])
VALUES = {  # name: (what minidl says of X, what NumPy says)
    "all": (lambda x: x.all(1), (X != 0).all(1)),
    "any": (lambda x: (x > 5).any((0, 2), keepdim=True), (X > 5).any((0, 2), keepdims=True)),
    "var": (lambda x: x.var((0, 2), correction=0.5), X.var((0, 2), ddof=0.5)),
    "var False": (lambda x: x.var(False), X.var()),
    "std": (lambda x: minidl.std(x, 1, correction=0, keepdim=True), X.std(1, keepdims=True)),
    "amax": (lambda x: x.amax((0, 1)), X.max((0, 1))),
    "median": (lambda x: x.median(2).values, np.median(X, 2)),
    "median of an even number": (lambda x: x[0].median(), 0),
    "median and NaN": (lambda x: (x / x).log().median(), np.nan),
    "prod": (lambda x: x.prod(1), X.prod(1)),
    "prod of none": (lambda x: x[:0].prod(0), np.ones((2, 3))),
    "cumsum": (lambda x: x.cumsum(-1), X.cumsum(-1)),
    "logsumexp": (lambda x: (x * 1e3).logsumexp(2), X.max(2) * 1e3 + np.log([[1, 1], [2, 1]])),
    "norm": (lambda x: x.norm(dim=(1, 2)), np.linalg.norm(X, axis=(1, 2))),
    "norm 3": (lambda x: x.norm(3, 2), np.linalg.norm(X, 3, axis=2)),
    "norm of tiny numbers": (lambda x: (x.float() * 1e-30).norm().double() * 1e30, np.linalg.norm(X)),
    "norms of a row": (lambda x: minidl.stack([x[1, 1].norm(p) for p in (0, 1, INF, -INF)]), [3, 13.5, 7, 0.5]),
    "einsum": (lambda x: minidl.einsum("ijk,ilk->jl", x, x), np.einsum("ijk,ilk->jl", X, X)),
    "einsum of a batch": (lambda x: minidl.einsum("ijk,ilk->ijl", x, x), np.einsum("ijk,ilk->ijl", X, X)),
    "matmul of rows": (lambda x: x @ x[0].T, X @ X[0].T),
    "matmul of a batch": (lambda x: x[0] @ x.transpose(1, 2), X[0] @ X.transpose(0, 2, 1)),
    "einsum in alphabetical order": (lambda x: minidl.einsum("bCa", x), X.transpose(1, 2, 0)),
    "einsum of a diagonal": (lambda x: minidl.einsum("iji->ij", x[:, :, :2]), np.einsum("iji->ij", X[:, :, :2])),
    "outer": (lambda x: minidl.outer(x[0, 0], x[0, :, 0]), np.outer(X[0, 0], X[0, :, 0])),
    "cosine": (lambda x: F.cosine_similarity(x[0], -2 * x[0]), [-1, -1]),
    "distance": (lambda x: F.pairwise_distance(x[0], x[1], eps=0), np.linalg.norm(X[0] - X[1], axis=1)),
}


@pytest.mark.parametrize("name", VALUES)
def test_value(name):
    function, wanted = VALUES[name]
    np.testing.assert_allclose(function(minidl.tensor(X)).numpy(), wanted, rtol=1e-6)


GRADIENTS = {  # at zeros, ties and kinks: (function, x, gradient), as in PyTorch
    "prod with a zero": (lambda x: x.prod(), [2.0, 0, 3], [0, 6, 0]),
    "prod with two zeros": (lambda x: x.prod(), [2.0, 0, 0], [0, 0, 0]),
    "amax of equals": (lambda x: x.amax(0), [1.0, 3, 3, 2], [0, 0.5, 0.5, 0]),
    "norm at 0": (lambda x: x.norm(), [0.0, 0], [0, 0]),
    "norm 3 beside 0": (lambda x: x.norm(3), [0.0, -2], [0, -1]),
    "norm inf of equals": (lambda x: x.norm(INF), [1.0, 3, -3], [0, 0.5, -0.5]),
    "median of equals": (lambda x: x.median(), [2.0, 2, 1, 3], [0.5, 0.5, 0, 0]),
    "normalize at 0": (lambda x: F.normalize(x, dim=0, eps=0.5), [0.0, 0], [2, 2]),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_where_it_is_a_convention(name):
    function, x, wanted = GRADIENTS[name]
    x = minidl.tensor(x, requires_grad=True)
    function(x).sum().backward()
    assert x.grad.tolist() == wanted


def test_second_gradient_of_the_length_beside_0():
    """It is 1 / ||x|| there: the square must not be that of |x|."""
    x = minidl.tensor([0.0, 2.0], requires_grad=True)
    (slope,) = minidl.grad(x.norm(), x, create_graph=True)
    slope[0].backward()
    assert x.grad.tolist() == [0.5, 0]


def test_kinds_of_numbers():
    i = minidl.tensor([[3, 200], [7, 0]], dtype=minidl.uint8)
    assert i.prod().dtype == i.cumsum(0).dtype == minidl.int64
    assert i.prod(1).tolist() == [600, 0]
    assert i.prod(1, dtype=minidl.uint8).tolist() == [88, 0]
    assert i.any(0).dtype == i.amax().dtype == i.median().dtype == i.mm(i).dtype == minidl.uint8
    assert i.long().float().mean(dtype=minidl.float64).dtype == i.mean(dtype=minidl.float64).dtype == minidl.float64
    assert i.logsumexp(0).dtype == minidl.float32
    assert minidl.tensor([6e4, 6e4], dtype=minidl.float16).mean().item() == 6e4
