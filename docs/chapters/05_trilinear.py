"""
5. One form, three derivatives
==============================

The backward pass of a convolution is a transposed convolution, and the backward pass of a
transposed convolution is a convolution. Both facts, and the gradient of the weight, follow from one
function of three arguments that is linear in each of them, and so do the second derivatives.

Explains ``minidl/ops/conv.py``, and the top of ``minidl/kernels/reference.py``.

Sources: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning,
arXiv:1603.07285, 2016; M. D. Zeiler, R. Fergus, Visualizing and understanding convolutional
networks, arXiv:1311.2901, 2014.
"""

import matplotlib.pyplot as plt
import numpy as np

import minidl
from minidl.data import MNIST, SyntheticDigits
from minidl.nn import functional as F
from minidl.plot import show_images
from minidl.tools.exercise import check

# %%
# A convolution is a matrix
# -------------------------
# For a fixed filter, each output pixel is a weighted sum of input pixels, so the convolution is a
# linear map, and a linear map is a matrix. Its column j is what becomes of the j-th unit image,
# which is 1 in pixel j and 0 elsewhere; a batch of all unit images gives all columns at once.


def matrix(operation, height, width):
    """The matrix (pixels out, pixels in) of a linear operation on images of that size."""
    pixels = height * width
    units = minidl.eye(pixels).view(pixels, 1, height, width)
    return operation(units).view(pixels, -1).numpy().T  # row j: of unit image j; .T: column j


w = minidl.arange(1.0, 10.0).view(1, 1, 3, 3)  # taps 1 to 9, to be recognised in the matrix
A = matrix(lambda x: F.conv2d(x, w), 4, 4)  # 4 x 4 pixels to 2 x 2
B = matrix(lambda y: F.conv_transpose2d(y, w), 2, 2)  # 2 x 2 pixels to 4 x 4
assert np.array_equal(B, A.T)


def draw(axis, values, title, below="", beside=""):
    """Numbers in coloured cells; zeros are left white."""
    axis.imshow(np.where(values, values, np.nan), cmap="Set3", vmin=1, vmax=12)
    for (i, j), value in np.ndenumerate(values):
        axis.text(j, i, f"{value:.0f}", ha="center", va="center", color="k" if value else "0.7")
    axis.set(title=title, xlabel=below, ylabel=beside, xticks=[], yticks=[])


figure = plt.figure(figsize=(9, 5.6), layout="constrained")
axes = figure.subplot_mosaic("KT;AT", width_ratios=(3, 1), height_ratios=(1, 1.3))
draw(axes["K"], w[0, 0].numpy(), "the filter, 3 x 3")
draw(axes["A"], A, "A, the matrix of conv2d", "input pixels (4 x 4)", "output pixels (2 x 2)")
draw(axes["T"], B, "matrix of\nconv_transpose2d", "input pixels (2 x 2)", "output pixels (4 x 4)")
plt.show()

# %%
# A row of A is the filter laid over the image: the nine taps, and zeros for the pixels that the
# window does not meet. The rows are shifted copies of one another, since the filter is the same
# everywhere (such matrices are called *Toeplitz*, here in blocks), so a 3 x 3 filter fills the
# matrix with only nine different numbers and zeros.
#
# The matrix of `minidl.nn.functional.conv_transpose2d` with the same filter is A transposed: hence
# the name *transposed convolution*. A column of it shows what the operation does. Each input pixel
# multiplies the whole filter and adds it to a window of the output; where windows overlap, the
# products add up.
#
# The gradient is the transpose
# -----------------------------
# Read images as vectors. With y = A x, a loss whose gradient in y is gy has the gradient
#
# .. math:: \frac{\partial L}{\partial x_j} = \sum_i \frac{\partial L}{\partial y_i} A_{ij}
#
# by the chain rule, in short :math:`g_x = A^\top g_y`. A is the convolution, so A transposed is the
# transposed convolution: the backward pass of the convolution, used as a layer of its own.

minidl.manual_seed(0)
x = minidl.randn(1, 1, 4, 4, requires_grad=True)
gy = minidl.randn(1, 1, 2, 2)
F.conv2d(x, w).backward(gy)
print(x.grad[0, 0].numpy().round(2))
assert np.allclose(x.grad.view(16).numpy(), A.T @ gy.view(4).numpy(), atol=1e-5)
assert minidl.allclose(x.grad, F.conv_transpose2d(gy, w), atol=1e-5)

# %%
# One form
# --------
# The weight has a gradient, too, and the transposed convolution has gradients of its own. All of
# them come from one function. For any map y of the size of the output, multiply each product of the
# convolution by the value of y at its output pixel, and add up everything:
#
# .. math:: T(x, w, y) = \sum_{i,j} \sum_{u,v} y_{ij} \, w_{uv} \, x_{i+u,\,j+v}
#
# Each term has one factor of each kind, so T is linear in x, in w and in y: a *trilinear form*.


def form(x, w, y):
    """T of an image (H, W), a filter (K, K) and a map (H - K + 1, W - K + 1)."""
    places = [(i, j, u, v) for i, j in np.ndindex(y.shape) for u, v in np.ndindex(w.shape)]
    return sum(y[i, j] * w[u, v] * x[i + u, j + v] for i, j, u, v in places)


# %%
# The partial derivatives of a linear function are its coefficients, and a coefficient is the value
# at a unit array. That gives the derivatives of T exactly, without differentiating anything:


def derivative(function, shape):
    """The coefficients, as an array of that shape, of a linear function of such an array."""
    values = [function(unit.reshape(shape)) for unit in np.eye(np.prod(shape))]
    return np.reshape(values, shape)


rng = np.random.default_rng(0)
x, w, y = rng.normal(size=(6, 6)), rng.normal(size=(3, 3)), rng.normal(size=(4, 4))
in_y = derivative(lambda unit: form(x, w, unit), y.shape)
in_x = derivative(lambda unit: form(unit, w, y), x.shape)
in_w = derivative(lambda unit: form(x, unit, y), w.shape)

# %%
# The derivative in y is the convolution of x with w: the coefficient of an output value is the sum
# of the products that it multiplies. The derivative in x is the transposed convolution of y with w,
# in minidl ``convolve_input``. The one in w has no name of its own; minidl calls it
# ``convolve_weight``. A tap meets a pixel of x for each value of y, so its coefficient is a sum
# over the whole map.

X, W, Y = (minidl.tensor(a[None, None], requires_grad=True) for a in (x, w, y))
gw = minidl.grad(F.conv2d(X, W), W, Y)[0]  # the gradient of the filter, where gy is Y
assert np.allclose(in_y, F.conv2d(X, W)[0, 0].detach().numpy())
assert np.allclose(in_x, F.conv_transpose2d(Y, W)[0, 0].detach().numpy())
assert np.allclose(in_w, gw[0, 0].numpy())

# %%
# Three operations, each other's gradients
# ----------------------------------------
# Let a loss have the gradient gy in y = convolve(x, w). A small change of x or w changes the loss
# by the scalar product of gy with the change of y. Since :math:`\langle g_y, y \rangle = T(x, w,
# g_y)`, the gradients in x and w are the derivatives of T(x, w, gy), which are known already. The
# same holds for the other two operations: the gradient of the result takes the place of the missing
# argument.
#
# - y = convolve(x, w): gx = convolve_input(gy, w) and gw = convolve_weight(x, gy);
# - x = convolve_input(y, w): gy = convolve(gx, w) and gw = convolve_weight(gx, y);
# - w = convolve_weight(x, y): gx = convolve_input(y, gw) and gy = convolve(x, gw).
#
# These are the gradients in ``minidl/ops/conv.py``, line for line. The list is closed: only the
# three operations occur in it. With channels, a batch, stride, padding and dilation T has more
# indices and is as trilinear as before, so nothing changes.
#
# So gradients of gradients need no new kernel. With ``create_graph`` the gradient itself is
# recorded on the tape, and its ``grad_fn`` is named after the operation that computed it. A loss
# may contain such a gradient, as a gradient penalty does; `minidl.gradgradcheck` compares second
# derivatives with finite differences (chapter 3).

Z = F.conv2d(X, W)
gx, gw = minidl.grad((Z**3).sum(), (X, W), create_graph=True)
print(Z.grad_fn, gx.grad_fn, gw.grad_fn)
options = {"stride": 2, "padding": 1}
print("second derivatives:", minidl.gradgradcheck(lambda x, w: F.conv2d(x, w, **options), (X, W)))

# %%
# The adjoint identity
# --------------------
# With A the convolution with w, both sides of
#
# .. math:: \langle A x,\, y \rangle = \langle x,\, A^\top y \rangle
#
# are T(x, w, y), summed up in another order. It holds with stride and padding, too, given to both
# operations alike: a transposed convolution takes the arguments of the convolution that it
# transposes. (`minidl.check_adjoint` runs this test for any pair of linear operations.)

shapes = (2, 3, 9, 9), (6, 3, 3, 3), (2, 6, 5, 5)
x, w, y = (minidl.randn(*shape, dtype=minidl.float64) for shape in shapes)
one_side = (F.conv2d(x, w, **options) * y).sum()
other_side = (x * F.conv_transpose2d(y, w, **options)).sum()
print(f"<A x, y> = {float(one_side):.10f}, <x, A^T y> = {float(other_side):.10f}")
assert minidl.allclose(one_side, other_side)

# %%
# Not a deconvolution
# -------------------
# Transposed convolutions are often called deconvolutions. In signal processing a *deconvolution*
# undoes a convolution: it solves A x = y. The transpose gives back the size of x, not its values.
# Take a blur, the average of 5 x 5 pixels with larger weights in the middle:

try:
    digits = MNIST(train=False)
except (FileNotFoundError, ImportError):
    digits = SyntheticDigits(1000)  # drawn ones, where MNIST has not been downloaded
scans = minidl.tensor(digits.images[:8, None] / 255, dtype=minidl.float64)  # (8, 1, 28, 28)
binomial = minidl.tensor([1.0, 4, 6, 4, 1], dtype=minidl.float64) / 16
blur = (binomial[:, None] * binomial).view(1, 1, 5, 5)
blurred = F.conv2d(scans, blur, padding=2)
twice = F.conv_transpose2d(blurred, blur, padding=2)
A = matrix(lambda x: F.conv2d(x.double(), blur, padding=2), 28, 28)  # (784, 784)
solved = np.linalg.solve(A, blurred.view(8, 784).numpy().T).T.reshape(8, 1, 28, 28)
assert np.abs(solved - scans.numpy()).max() < 1e-4 < 0.1 < (twice - scans).abs().max()
show_images({"x": scans, "A x": blurred, "A^T A x": twice, "solved": solved})

# %%
# This filter is symmetric, so its transpose is the same blur, and applying it blurs a second time.
# The last row is the deconvolution: it restores the images (noise, however, it would magnify).
#
# What a network gets from a transposed convolution is a learned map from a small grid to a larger
# one. Chapter 6 computes its sizes, and chapter 7 looks at its overlaps.
#
# Exercise 1: the other backward pass
# -----------------------------------
# ``x = F.conv_transpose2d(y, w, stride=stride, padding=padding)`` has received the gradient gx.
# Return the gradient in y.


def backward_of_transposed(gx, w, stride, padding):
    """Gradient (N, C, H, W) and weight (O, C, K, K) to the gradient (N, O, OH, OW) in y."""
    return ...


def by_the_tape(gx, w, stride, padding):
    y = minidl.zeros(2, 4, 3, 3, dtype=minidl.float64, requires_grad=True)
    return minidl.grad(F.conv_transpose2d(y, w, None, stride, padding), y, gx)[0]


gx, w = minidl.randn(2, 2, 5, 5).double(), minidl.randn(4, 2, 3, 3).double()
check(backward_of_transposed, by_the_tape, [(gx, w, 1, 0), (gx, w, 2, 1)])

# %%
# Exercise 2: the gradient of the weight, by a convolution
# --------------------------------------------------------
# With stride 1 even ``convolve_weight`` is a convolution, in which gy plays the filter: for one
# image and one channel the gradient of tap (u, v) is the sum over i and j of gy[i, j] x[i + u, j +
# v]. Find it for batches: over which index does ``F.conv2d`` sum, and over which the gradient?


def gradient_of_weight(x, gy):
    """Images (N, C, H, W) and the gradient (N, O, OH, OW) in the map to (O, C, K, K)."""
    return ...


def by_backward(x, gy):
    w = minidl.zeros(gy.shape[1], x.shape[1], 3, 3, dtype=minidl.float64, requires_grad=True)
    return minidl.grad(F.conv2d(x, w), w, gy)[0]


one = minidl.randn(1, 1, 7, 7).double(), minidl.randn(1, 1, 5, 5).double()
many = minidl.randn(4, 3, 7, 7).double(), minidl.randn(4, 2, 5, 5).double()
check(gradient_of_weight, by_backward, [one, many])
