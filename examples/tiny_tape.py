"""
A tape from nothing
===================

Reverse-mode differentiation on NumPy arrays, from an empty file to a convolutional network that learns to read drawn
digits in a few seconds (``python examples/tiny_tape.py``). Its gradients are compared with finite differences and with
minidl's for the same network. Each part names the file of minidl that holds its grown-up form. Throughout, ``gx`` is
the gradient of the loss in x, an array of the same shape as x. The guide's page adds an expression worked by hand.

Sources: A. G. Baydin et al., Automatic differentiation in machine learning: a survey, arXiv:1502.05767, 2018;
V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning, arXiv:1603.07285, 2016.
"""

import time
from collections.abc import Callable

import numpy as np

import minidl
from minidl.data import SyntheticDigits
from minidl.nn import functional as F

Array = np.ndarray

# %%
# The computational graph
# -----------------------
# A network is a composition of simple operations, and the chain rule differentiates it: if y = f(x), then gx is gy
# times the Jacobian dy/dx. That matrix is never written down: for a ReLU of a million numbers it would have a million
# million entries, nearly all of them 0. All we need is the function from gy to gx, the *vector-Jacobian product* (vjp).
#
# So a tensor remembers how it was made. Each of its *edges* is a pair: an input, and the function from gy to its gx.
# The edges form the *computational graph*, also called the tape. They lead from a result to its inputs and never back,
# so the graph has no cycles, and Python frees it when the loss goes out of scope.
#
# Grown up: ``minidl/tensor.py``; the operations in ``minidl/ops/arithmetic.py``, ``minidl/ops/linear.py``,
# ``minidl/ops/reduction.py``, ``minidl/ops/shape.py`` and ``minidl/ops/activation.py``.


class Tensor:
    """An array and, for each input of it, the vector-Jacobian product. Below, a and x are self."""

    def __init__(self, array: Array | float, *edges: tuple["Tensor", Callable[[Array], Array]]) -> None:
        self.array = np.asarray(array, dtype=np.float64)
        self.shape = self.array.shape
        self.edges = edges

    def __add__(a, b: "Tensor") -> "Tensor":
        """y = a + b; ga = gy and gb = gy."""
        edge_a, edge_b = (a, lambda gy: sum_to(gy, a.shape)), (b, lambda gy: sum_to(gy, b.shape))
        return Tensor(a.array + b.array, edge_a, edge_b)

    def __mul__(a, b: "Tensor") -> "Tensor":
        """y = a * b; ga = gy * b and gb = gy * a."""
        edge_a = (a, lambda gy: sum_to(gy * b.array, a.shape))
        edge_b = (b, lambda gy: sum_to(gy * a.array, b.shape))
        return Tensor(a.array * b.array, edge_a, edge_b)

    def __matmul__(a, b: "Tensor") -> "Tensor":
        """y = a b, (N, I) times (I, O) is (N, O); ga = gy b^T and gb = a^T gy."""
        return Tensor(a.array @ b.array, (a, lambda gy: gy @ b.array.T), (b, lambda gy: a.array.T @ gy))

    def sum(x) -> "Tensor":
        """y = the sum of all elements; gx = gy at each of them."""
        return Tensor(x.array.sum(), (x, lambda gy: np.broadcast_to(gy, x.shape)))

    def reshape(x, *shape: int) -> "Tensor":
        """The same numbers in another shape; gx is gy in the shape of x."""
        return Tensor(x.array.reshape(shape), (x, lambda gy: gy.reshape(x.shape)))

    def relu(x) -> "Tensor":
        """y = max(x, 0); gx = gy where x > 0, and 0 elsewhere."""
        return Tensor(np.maximum(x.array, 0), (x, lambda gy: gy * (x.array > 0)))


def sum_to(gy: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of broadcasting: the sum over the axes along which this shape was repeated.

    A bias (8, 1, 1) added to (N, 8, 12, 12) uses each number N * 12 * 12 times: gradients add up.
    """
    gy = gy.sum(axis=tuple(range(gy.ndim - len(shape))))  # axes that broadcasting put in front
    return gy.sum(axis=tuple(axis for axis, size in enumerate(shape) if size == 1), keepdims=True)


# %%
# The backward pass
# -----------------
# If x is used several times, gx is the sum of what arrives from all its uses, and is passed on when that sum is
# complete. *Reverse topological order*, in which every result comes before its inputs, ensures that. A depth-first
# search finds it, with a stack of its own: a recursive one would end in RecursionError after some thousand operations.
# Operations only return gradients; the tape adds them up. One pass computes them all, at a few times the forward cost.
#
# Grown up: ``minidl/autograd.py``, which skips what needs no gradient and can differentiate a backward pass. If an
# array changes between the two passes, gradients are silently wrong here; minidl notices (``minidl/versions.py``).


def topological_order(output: Tensor) -> list[Tensor]:
    """Every tensor that the output was computed from, inputs before results; the output comes last."""
    order: list[Tensor] = []
    seen: set[Tensor] = set()
    stack = [(output, False)]
    while stack:
        x, inputs_done = stack.pop()
        if inputs_done:
            order.append(x)
        elif x not in seen:
            seen.add(x)
            stack.append((x, True))  # popped when all its inputs, which go on top of it, are done
            stack += [(source, False) for source, _ in x.edges]
    return order


def backward(loss: Tensor) -> dict[Tensor, Array]:
    """The gradient of the loss, a single number, in every tensor that it was computed from."""
    gradients = {loss: np.ones(loss.shape)}
    for y in reversed(topological_order(loss)):
        for x, vjp in y.edges:
            gx = vjp(gradients[y])
            assert gx.shape == x.shape, f"gradient of shape {gx.shape} for a tensor of shape {x.shape}"
            gradients[x] = gradients[x] + gx if x in gradients else gx
    return gradients


# %%
# Convolution is a matrix product
# -------------------------------
# Each output pixel is the scalar product of a filter with a window of the image. *im2col* makes each window a column of
# a matrix, and one matrix product convolves them all. Where windows overlap, a pixel is copied into several columns;
# *col2im* adds up the gradients of its copies. The two are *adjoint*: the scalar products <im2col(x), c> and
# <x, col2im(c)> are equal for all x and c. The gradient in x, an operation of its own, is the transposed convolution.
#
# Grown up: ``minidl/ops/conv.py``, where both gradients follow from one formula; ``minidl/kernels/reference.py``, with
# padding and dilation; and ``minidl/kernels/cpu/convolution.py``, fast because it never writes the matrix down: it
# multiplies in tiles (``minidl/kernels/cpu/tile.py``) like any matrix product (``minidl/kernels/cpu/products.py``).


def im2col(x: Array, k: int, s: int) -> Array:
    """Images (N, C, H, W) to the columns (N, C*K*K, OH*OW) of their windows: K x K pixels, s apart."""
    (n, c), oh, ow = x.shape[:2], (x.shape[2] - k) // s + 1, (x.shape[3] - k) // s + 1
    columns = np.empty((n, c, k, k, oh, ow))
    for u, v in np.ndindex(k, k):  # pixel (u, v) of all windows at once
        columns[:, :, u, v] = x[:, :, u : u + s * oh : s, v : v + s * ow : s]
    return columns.reshape(n, c * k * k, oh * ow)


def col2im(columns: Array, shape: tuple[int, ...], k: int, s: int) -> Array:
    """Add each number of the columns to the pixel of an (N, C, H, W) that im2col would take it from."""
    (n, c), oh, ow = shape[:2], (shape[2] - k) // s + 1, (shape[3] - k) // s + 1
    x, columns = np.zeros(shape), columns.reshape(n, c, k, k, oh, ow)
    for u, v in np.ndindex(k, k):
        x[:, :, u : u + s * oh : s, v : v + s * ow : s] += columns[:, :, u, v]
    return x


def conv2d(x: Tensor, w: Tensor, s: int) -> Tensor:
    """Images (N, C, H, W), filters (O, C, K, K), stride s: (N, O, OH, OW), OH = (H - K) // s + 1."""
    (n, _, height, width), (o, _, _, k) = x.shape, w.shape
    columns, rows = im2col(x.array, k, s), w.array.reshape(o, -1)  # (N, C*K*K, OH*OW) and (O, C*K*K)
    y = (rows @ columns).reshape(n, o, (height - k) // s + 1, (width - k) // s + 1)
    edge_x = (x, lambda gy: col2im(rows.T @ gy.reshape(n, o, -1), x.shape, k, s))
    edge_w = (w, lambda gy: (gy.reshape(n, o, -1) @ columns.swapaxes(1, 2)).sum(0).reshape(w.shape))
    return Tensor(y, edge_x, edge_w)


# %%
# A network and its loss
# ----------------------
# Two convolutions and a matrix product. The loss is the *cross-entropy*: minus the logarithm of the probability given
# to the right digit, averaged over the images. Grown up: ``minidl/ops/loss.py``.


def log_softmax(x: Tensor) -> Tensor:
    """y = x - log(sum of exp(x)), summed over the classes, (N, 10); gx = gy - softmax(x) * sum(gy)."""
    shifted = x.array - x.array.max(axis=1, keepdims=True)  # y is the same, and exp cannot overflow
    y = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return Tensor(y, (x, lambda gy: gy - np.exp(y) * gy.sum(axis=1, keepdims=True)))


def network(parameters: list[Tensor], images: Array) -> Tensor:
    """The logarithms of the probabilities of the ten digits (N, 10) in images (N, 1, 28, 28)."""
    w1, b1, w2, b2, w3, b3 = parameters
    x = (conv2d(Tensor(images), w1, s=2) + b1).relu()  # (N, 8, 12, 12)
    x = (conv2d(x, w2, s=2) + b2).relu()  # (N, 16, 4, 4)
    return log_softmax(x.reshape(-1, 256) @ w3 + b3)


def loss_of(parameters: list[Tensor], images: Array, labels: Array) -> Tensor:
    """The cross-entropy: -1/N times the sum of the logarithms at the right digits (N,)."""
    return (network(parameters, images) * Tensor(-np.eye(10)[labels] / len(labels))).sum()


# %%
# Two checks, then training
# -------------------------
# The slope of the loss along any direction is the scalar product of gradient and direction. A difference quotient gives
# it without calculus, so it can check a gradient (``minidl/testing/gradcheck.py``). So can the same network in minidl.
# Stochastic gradient descent then subtracts a multiple of each batch's gradient from the parameters
# (``minidl/optim/sgd.py``; with a step size for each parameter, ``minidl/optim/adam.py``).


def slope(parameters: list[Tensor], direction: list[Array], *batch: Array, h: float = 1e-8) -> float:
    """(loss(p + h d) - loss(p - h d)) / 2h; h is so small that hardly any ReLU passes its kink."""
    ahead = loss_of([Tensor(p.array + h * d) for p, d in zip(parameters, direction, strict=True)], *batch)
    behind = loss_of([Tensor(p.array - h * d) for p, d in zip(parameters, direction, strict=True)], *batch)
    return float(ahead.array - behind.array) / (2 * h)


def gradients_by_minidl(parameters: list[Tensor], images: Array, labels: Array) -> list[Array]:
    """The gradients of the same loss in the same parameters."""
    w1, b1, w2, b2, w3, b3 = leaves = [minidl.tensor(p.array, requires_grad=True) for p in parameters]
    x = (F.conv2d(minidl.tensor(images), w1, stride=2) + b1).relu()
    x = (F.conv2d(x, w2, stride=2) + b2).relu()
    F.cross_entropy(x.reshape(-1, 256) @ w3 + b3, minidl.tensor(labels)).backward()
    return [np.asarray(leaf.grad) for leaf in leaves]


def main() -> None:
    rng, train, test = np.random.default_rng(0), SyntheticDigits(2000), SyntheticDigits(500, seed=1)
    images, test_images = train.images[:, None] / 255, test.images[:, None] / 255  # (2000 or 500, 1, 28, 28)
    shapes = [(8, 1, 5, 5), (8, 1, 1), (16, 8, 5, 5), (16, 1, 1), (256, 10), (10,)]
    parameters = [Tensor(rng.normal(0, 0.1, shape)) for shape in shapes]

    direction, batch = [rng.normal(size=shape) for shape in shapes], (images[:8], train.labels[:8])
    gradients = backward(loss_of(parameters, *batch))
    predicted = sum(np.vdot(gradients[p], d) for p, d in zip(parameters, direction, strict=True))
    measured = slope(parameters, direction, *batch)
    print(f"slope of the loss in a random direction: {predicted:.6f}, by finite differences {measured:.6f}")
    theirs = gradients_by_minidl(parameters, *batch)
    difference = max(np.abs(gradients[p] - g).max() for p, g in zip(parameters, theirs, strict=True))
    print(f"largest difference between a gradient here and in minidl: {difference:.0e}")
    assert abs(predicted - measured) < 1e-6, "the gradients contradict the difference quotient"
    assert difference < 1e-12, "the gradients are not minidl's"

    start = time.perf_counter()
    for epoch in range(1, 6):
        total = 0.0
        for rows in rng.permutation(2000).reshape(40, 50):  # 40 batches of 50 images
            loss = loss_of(parameters, images[rows], train.labels[rows])
            gradients = backward(loss)
            for p in parameters:
                p.array -= 0.1 * gradients[p]
            total += loss.array.item()
        right = np.mean(network(parameters, test_images).array.argmax(axis=1) == test.labels)
        print(f"epoch {epoch}: loss {total / 40:.3f}, {right:.1%} of 500 other digits read correctly")
    print(f"trained in {time.perf_counter() - start:.1f} s")
    assert right > 0.9, "the network has not learned"


if __name__ == "__main__":
    main()
