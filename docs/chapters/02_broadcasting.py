"""
2. Broadcasting and its gradient
================================

Arrays of different shapes meet in nearly every line of a network: a bias and a batch of images, a
row and its mean. *Broadcasting* repeats the smaller array until the shapes agree. Whatever is
repeated is used several times, so its gradient is a sum, over exactly the axes along which it was
repeated. The same rule can turn a forgotten axis into a wrong loss without any error.

Explains ``minidl/ops/_operands.py`` (``operands``), ``minidl/ops/shape.py`` (``expand``),
``minidl/ops/arithmetic.py`` and the check of shapes in ``minidl/ops/loss.py``.

Sources: C. Harris et al., Array programming with NumPy, Nature 585, 2020, arXiv:2006.10256; A.
Baydin et al., Automatic differentiation in machine learning: a survey, arXiv:1502.05767, 2018.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np

import minidl
from minidl.nn import functional as F
from minidl.tools.exercise import check

# %%
# What is repeated
# ----------------
# The rule: write the shapes below each other, aligned at the right. An axis that is missing on the
# left counts as 1. Two sizes must be equal, or one of them 1, and an axis of size 1 is repeated to
# the size of the other. A column (3, 1) and a row (4,) thus meet in (3, 4):

column, row = np.array([[10.0], [20.0], [30.0]]), np.array([1.0, 2.0, 3.0, 4.0])
print(column + row)
copies = np.broadcast_to(row, (3, 4))
print(f"row {row.shape}, repeated {copies.shape}, strides {copies.strides} bytes")

# %%
# The repetition is not copied: its stride along the first axis is 0 bytes, so a step down leads to
# the same number in memory. ``expand`` does the same to tensors. An orange frame shows what is
# stored:

repeated = np.broadcast_to(column, (3, 4)), copies, column + row
figure, axes = plt.subplots(1, 3, figsize=(8, 2.3), layout="constrained")
titles = "column (3, 1)", "row (4,)", "column + row (3, 4)"
for axis, matrix, title in zip(axes, repeated, titles, strict=True):
    axis.imshow(matrix, cmap="Blues", vmin=0, vmax=60)
    for (i, j), value in np.ndenumerate(matrix):
        axis.text(j, i, f"{value:.0f}", ha="center", va="center")
    axis.set(title=title, xticks=[], yticks=[])
for axis, width, height in (axes[0], 1, 3), (axes[1], 4, 1), (axes[2], 4, 3):
    frame = {"fill": False, "edgecolor": "tab:orange", "lw": 3, "clip_on": False, "zorder": 3}
    axis.add_patch(plt.Rectangle((-0.5, -0.5), width, height, **frame))
plt.show()

# %%
# The gradient of a repetition is a sum
# -------------------------------------
# Let y be the row repeated n times, :math:`y_{ij} = x_j`. A change of :math:`x_j` changes n
# elements of y at once, and by the chain rule their contributions add up:
#
# .. math:: gx_j = \sum_i gy_{ij} \frac{\partial y_{ij}}{\partial x_j} = \sum_i gy_{ij}

x = minidl.tensor(row, requires_grad=True)
gy = minidl.arange(12, dtype=minidl.float64).reshape(3, 4)
x.expand(3, 4).backward(gy)
print(f"gy =\n{gy.numpy()}\ngx = {x.grad.numpy()}")
assert minidl.allclose(x.grad, gy.sum(0))

# %%
# In the language of matrices: repetition is linear, and its matrix R stacks n identity matrices.
# The vector-Jacobian product multiplies by its transpose, which has the identities side by side,
# and that is the sum over the copies. Sum and repetition are each other's *adjoint*, so the
# gradient of a sum is in turn a repetition. `minidl.check_adjoint` compares <repeat(x), y> with <x,
# sum(y)> for random x and y.

R = np.stack([np.broadcast_to(e, (2, 3)).ravel() for e in np.eye(3)], axis=1)  # (2*3, 3)
print(f"R.T =\n{R.T.astype(int)}")
assert minidl.check_adjoint(lambda x: x.expand(2, 3), lambda y: y.sum(0), (3,), (2, 3))

# %%
# In general, the axes to sum over can be read off the two shapes: those that broadcasting put in
# front, and those where the input has size 1. The former disappear and the latter stay with size 1
# (``keepdims``), so that the gradient gets the shape of its input.


def sum_to(gy, shape):
    """The gradient of broadcasting an array of this shape to the shape of gy."""
    gy = gy.sum(axis=tuple(range(gy.ndim - len(shape))))  # the axes put in front
    ones = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return gy.sum(axis=ones, keepdims=True)


rng = np.random.default_rng(0)
gy = rng.normal(size=(5, 3, 4))
for shape in (4,), (3, 1), (5, 1, 1), (1, 3, 4), ():
    x = minidl.zeros(shape, dtype=minidl.float64, requires_grad=True)
    x.expand(5, 3, 4).backward(minidl.tensor(gy))
    print(f"{shape!s:9} was repeated {gy.size // x.numel():2} times")
    assert sum_to(gy, shape).shape == shape
    assert np.allclose(sum_to(gy, shape), x.grad.numpy())

# %%
# minidl implements this once. In every operation with several operands, the function ``operands``
# finds the common shape and applies ``expand`` to those that need a gradient. ``expand`` is on the
# tape like any other operation, with the sum as its gradient. So the formulas in
# ``minidl/ops/arithmetic.py`` see equal shapes: the gradients of ``mul`` are gy * b and gy * a, and
# no sum appears there.
#
# The bias of a convolution
# -------------------------
# A convolution adds to each of its O output channels one number, the same for all images and
# pixels: a bias (O, 1, 1) meets (N, O, OH, OW). Its gradient is the sum of gy over images and
# pixels, N * OH * OW terms, whatever the images and the filters are.

minidl.manual_seed(0)
images, weight = minidl.randn(16, 1, 28, 28), minidl.randn(4, 1, 5, 5)
bias = minidl.zeros(4, requires_grad=True)
y = F.conv2d(images, weight, bias)  # (16, 4, 24, 24)
gy = minidl.randn(*y.shape)
y.backward(gy)
by_hand = sum_to(gy.numpy(), (4, 1, 1)).ravel()
print(f"bias gradient {bias.grad.numpy().round(2)}, by hand {by_hand.round(2)}")
assert np.allclose(bias.grad.numpy(), by_hand, atol=1e-2)

# %%
# keepdim
# -------
# To subtract from each row of (N, C) its mean, the means must be a column (N, 1). A sum or mean
# drops the axis it runs over, and (N,) would be aligned with the C columns. Where N and C differ,
# that is an error. Where they happen to be equal, it is a wrong result: element j of every row is
# reduced by the mean of row j.

x = minidl.tensor([[1.0, 2, 3], [10, 20, 30], [100, 200, 300]])
print("right:\n", (x - x.mean(1, keepdim=True)).numpy(), sep="")
print("wrong:\n", (x - x.mean(1)).numpy(), sep="")
try:
    x[:2] - x[:2].mean(1)
except RuntimeError as error:
    print(error)

# %%
# A loss that is silently wrong
# -----------------------------
# A model ends in a layer with one output, so its predictions x have shape (N, 1); the targets t
# come from a file and have shape (N,). Their difference has shape (N, N): every prediction is
# compared with every target. The mean of its squares is not the mean squared error, but
#
# .. math:: \frac{1}{N^2} \sum_{ij} (x_i - t_j)^2
#           = \frac{1}{N} \sum_i (x_i - \bar t)^2 + \frac{1}{N} \sum_j (t_j - \bar t)^2
#
# where :math:`\bar t` is the mean of the targets. (Insert :math:`x_i - t_j = (x_i - \bar t) - (t_j
# - \bar t)`; the mixed terms cancel, as the deviations from a mean sum to 0.) Which target belongs
# to which prediction no longer matters. The second term is constant, and the first is least where
# every prediction is :math:`\bar t`. Gradient descent fits a line to points with the right loss and
# with this one:

inputs = minidl.linspace(-1, 1, 40).reshape(40, 1)
targets = 2 * inputs[:, 0] + 1 + 0.3 * minidl.randn(40)  # (40,)


def fit(loss):
    """Slope and offset of a line after gradient descent, and the losses on the way."""
    slope, offset = (minidl.zeros(1, requires_grad=True) for _ in range(2))
    optimizer, losses = minidl.optim.SGD([slope, offset], lr=0.1), []
    for _ in range(200):
        optimizer.zero_grad()
        losses.append(loss(inputs * slope + offset, targets))
        losses[-1].backward()
        optimizer.step()
    return slope.item(), offset.item(), [each.item() for each in losses]


fits = {
    "(N,) and (N,)": fit(lambda x, t: ((x.squeeze(1) - t) ** 2).mean()),
    "(N, 1) and (N,)": fit(lambda x, t: ((x - t) ** 2).mean()),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
left.plot(inputs.numpy(), targets.numpy(), ".", color="gray")
for name, colour in zip(fits, ("tab:blue", "tab:orange"), strict=True):
    slope, offset, losses = fits[name]
    left.plot(inputs.numpy(), slope * inputs.numpy() + offset, color=colour, label=name)
    right.plot(losses, color=colour)
left.set(xlabel="input", ylabel="target, prediction")
right.set(xlabel="step", ylabel="loss", ylim=(0, None))
left.legend()
plt.show()
variance = ((targets - targets.mean()) ** 2).mean().item()
print(f"wrong loss at the end {losses[-1]:.3f}, variance of the targets {variance:.3f}")
assert np.isclose(losses[-1], variance)

# %%
# The loss falls and settles, as in a training that works; only it settles at the variance of the
# targets, and the predictions are the same everywhere. In a regression that "learns the mean", look
# at the shapes first. PyTorch's loss warns and goes on. minidl's losses require equal shapes, since
# they never have a reason to broadcast:

try:
    F.mse_loss(inputs * 2, targets)
except ValueError as error:
    print(textwrap.fill(str(error), 90))

# %%
# In formulas of your own, ``x - t`` follows the rule of this page, in minidl as in NumPy and
# PyTorch.
#
# Exercise 1: the gradient of a scale
# -----------------------------------
# A normalisation layer multiplies each channel by a learned number: y = x * w with images x of
# shape (N, C, H, W) and w of shape (C, 1, 1). Return the gradient in w.


def scale_gradient(gy, x):
    """gy and x (N, C, H, W) give gw (C, 1, 1)."""
    return ...


def scale_gradient_on_the_tape(gy, x):
    w = minidl.ones(x.shape[1], 1, 1, dtype=minidl.float64, requires_grad=True)
    (minidl.tensor(x) * w).backward(minidl.tensor(gy))
    return w.grad


shapes = (2, 3, 4, 5), (3, 2, 1, 1)
cases = [(rng.normal(size=shape), rng.normal(size=shape)) for shape in shapes]
check(scale_gradient, scale_gradient_on_the_tape, cases)

# %%
# Exercise 2: the gradient of centring
# ------------------------------------
# Subtract from each row its mean, y = x - mean(x) along the second axis: x is used directly and
# through the mean. Return gx. The mean's own gradient is a repetition, as above.


def centring_gradient(gy):
    """gy (N, C) gives gx (N, C)."""
    return ...


def centring_gradient_on_the_tape(gy):
    x = minidl.zeros(gy.shape, dtype=minidl.float64, requires_grad=True)
    (x - x.mean(1, keepdim=True)).backward(minidl.tensor(gy))
    return x.grad


check(
    centring_gradient,
    centring_gradient_on_the_tape,
    [(rng.normal(size=s),) for s in ((2, 3), (4, 4))],
)
