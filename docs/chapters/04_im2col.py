"""
4. Convolution is a matrix product
==================================

A convolution slides a small filter over an image. Written as loops it is seven loops deep (images,
filters, channels, two for the position, two within the window); written as a matrix product it is
one line, runs at the speed of the matrix product, and its gradients follow from those of the
product. The rewriting is called *im2col*, image to columns: each window of the image becomes a
column of a matrix.

Explains ``minidl/kernels/reference.py`` (`im2col`, `col2im` and the three kernels) and
``minidl/ops/unfold.py``.

Sources: K. Chellapilla, S. Puri, P. Simard, High performance convolutional neural networks for
document processing, 2006; V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep
learning, arXiv:1603.07285, 2016.
"""

import matplotlib.pyplot as plt
import numpy as np

import minidl
from minidl.data import MNIST, SyntheticDigits
from minidl.nn import functional as F
from minidl.plot import show_images
from minidl.tools.exercise import check

# %%
# A filter slides over an image
# -----------------------------
# An output pixel is the scalar product of the filter with the window under it. The numbers of a
# filter are its *taps*. For one image x of H x W pixels and one filter w of K x K taps there are OH
# = H - K + 1 positions for the window along the height, and OW = W - K + 1 along the width:
#
# .. math:: y_{ij} = \sum_{u=0}^{K-1} \sum_{v=0}^{K-1} w_{uv} \, x_{i+u,\,j+v}
#
# Mathematicians call this a cross-correlation: their convolution flips the filter. Deep learning
# learns the filter, so it does not matter which way round it is stored.


def convolve(x, w):
    """An image (H, W) and a filter (K, K) give (H - K + 1, W - K + 1)."""
    (height, width), k = x.shape, len(w)
    y = np.zeros((height - k + 1, width - k + 1))
    for i, j in np.ndindex(y.shape):
        y[i, j] = np.sum(w * x[i : i + k, j : j + k])
    return y


x = np.arange(16.0).reshape(4, 4)
w = np.array([[1.0, 0.0], [0.0, -1.0]])  # a pixel minus its neighbour below and to the right
print(x)
print(convolve(x, w))

# %%
# Every window of this image gives -5: each pixel is 5 less than the one a row below and a column to
# the right.
#
# Each window becomes a column
# ----------------------------
# Read the window at (i, j) row by row and write it down as a column: the matrix has a row for each
# tap of the filter and a column for each position. The pixels that tap (u, v) meets form a block of
# the image, OH x OW pixels from pixel (u, v) on, so the matrix can be filled a row at a time, with
# no loop over positions.


def im2col(x, k):
    """An image (H, W) to the matrix (K*K, OH*OW) of its windows."""
    (height, width) = x.shape
    oh, ow = height - k + 1, width - k + 1
    return np.stack([x[u : u + oh, v : v + ow].ravel() for u, v in np.ndindex(k, k)])


columns = im2col(x, 2)
print(columns)

# %%
# The first column holds the window in the top left corner, 0, 1, 4 and 5. Away from the border a
# pixel, such as 5, is in four windows, so it stands in four columns.

windows = {(0, 0): "tab:orange", (1, 1): "tab:blue", (2, 2): "tab:green"}  # where: its colour
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.3), width_ratios=(4, 9))
for axis, matrix, title in (left, x, "the image"), (right, columns, "its windows as columns"):
    axis.imshow(np.ones_like(matrix), cmap="gray", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(matrix):
        axis.text(column, row, f"{value:.0f}", ha="center", va="center")
    axis.set(title=title, xticks=[], yticks=[])
for (i, j), colour in windows.items():
    frame = {"fill": False, "edgecolor": colour, "linewidth": 3}
    left.add_patch(plt.Rectangle((j - 0.44, i - 0.44), 1.88, 1.88, **frame))
    right.add_patch(plt.Rectangle((3 * i + j - 0.44, -0.44), 0.88, 3.88, **frame))
plt.show()

# %%
# The filter, read row by row, times this matrix is the convolution.

product = w.ravel() @ columns  # (K*K,) @ (K*K, OH*OW) -> (OH*OW,)
print(product.reshape(3, 3))
assert np.array_equal(product.reshape(3, 3), convolve(x, w))

# %%
# Channels, filters and a batch
# -----------------------------
# With C channels the windows are C x K x K blocks and the columns C*K*K long. With O filters, each
# becomes a row, and one product of (O, C*K*K) with (C*K*K, OH*OW) computes all of them. Images of a
# batch are independent: a product each. `minidl.nn.functional.unfold` is im2col with stride,
# padding and dilation, so a layer's forward pass is three lines:

minidl.manual_seed(0)
images, weight = minidl.randn(8, 3, 12, 12), minidl.randn(16, 3, 5, 5)  # (N, C, H, W), (O, C, K, K)
columns = F.unfold(images, kernel_size=5)  # (8, 3*5*5, 8*8)
y = (weight.view(16, -1) @ columns).view(8, 16, 8, 8)  # (16, 75) @ (8, 75, 64)
difference = (y - F.conv2d(images, weight)).abs().max().item()
print(f"largest difference to F.conv2d: {difference:.0e}")
assert difference < 1e-4

# %%
# The difference is rounding: the two add up in another order.
#
# On real images, a filter that subtracts the right of its window from the left answers at both
# edges of vertical strokes, and the same filter turned by 90 degrees at those of horizontal ones.

try:
    digits = MNIST(train=False)
except (FileNotFoundError, ImportError):
    digits = SyntheticDigits(1000)  # drawn ones, where MNIST has not been downloaded
scans = minidl.tensor(digits.images[:8, None] / 255, dtype=minidl.float32)  # (8, 1, 28, 28)
vertical = minidl.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
filters = minidl.stack([vertical, vertical.T]).unsqueeze(1)  # (2, 1, 3, 3)
edges = F.conv2d(scans, filters, padding=1).abs() / 4  # (8, 2, 28, 28)
show_images({"image": scans, "vertical": edges[:, :1], "horizontal": edges[:, 1:]})

# %%
# What it costs, and what minidl does instead
# -------------------------------------------
# Every pixel is copied into up to K*K columns, so the matrix needs up to K*K times the memory of
# the images. Here K*K is 25, and it needs less, since many pixels of so small an image are near its
# border, in fewer windows:

kib = 4 / 1024  # of one number
print(f"images {images.numel() * kib:.1f} KiB, columns {columns.numel() * kib:.1f} KiB", end=", ")
print(f"{columns.numel() / images.numel():.1f} times as much")

# %%
# A product of that size uses the processor so much better than the loops that the copy pays, and so
# most libraries do it. minidl's kernels for the CPU go one step further and never write the matrix
# down: the product is computed in tiles, and each tile reads the pixels that its columns would hold
# straight from the image. That is called *indirect convolution*; chapter 14 shows what it buys.
#
# The way back: col2im
# --------------------
# In the backward pass the gradient of the columns is known, and we want that of the image. A pixel
# that was copied into several columns affects the loss through all of them, so by the chain rule
# its gradient is the *sum* over its copies. *col2im* adds every column to the window it was taken
# from; `minidl.nn.functional.fold` does it for batches. Applied to columns of ones, it counts the
# windows that each pixel lies in:

count = F.fold(minidl.ones(1, 9, 36), output_size=8, kernel_size=3)  # 3*3 taps, 6*6 positions
print(count[0, 0].numpy().astype(int))

# %%
# So col2im is not the inverse of im2col: col2im(im2col(x)) multiplies each pixel by that number. It
# is the *adjoint*, what the transpose is for a matrix: applied to the other factor of a scalar
# product it gives the same number,
#
# .. math:: \langle \mathrm{im2col}(x),\, c \rangle = \langle x,\, \mathrm{col2im}(c) \rangle
#           \quad\text{for all } x \text{ and } c.
#
# To test it takes no derivative, only two scalar products of random numbers; a mistake in either
# function breaks it.

x = minidl.randn(2, 3, 8, 8, dtype=minidl.float64)
c = minidl.randn(2, 27, 36, dtype=minidl.float64)  # 3 channels * 3*3 taps, 6*6 positions
one_side = (F.unfold(x, kernel_size=3) * c).sum()
other_side = (x * F.fold(c, output_size=8, kernel_size=3)).sum()
print(f"<im2col(x), c> = {float(one_side):.10f}, <x, col2im(c)> = {float(other_side):.10f}")
assert minidl.allclose(one_side, other_side)

# %%
# Both gradients of the convolution now follow from those of a matrix product (chapter 1). For one
# image let y = rows @ columns, where each row is a filter: the gradient of the filters is gy @
# columns.T (summed over the images of a batch), and that of the image is col2im(rows.T @ gy).
# Chapter 5 derives the same from a single formula.
#
# Exercise 1: im2col with a stride
# --------------------------------
# With stride s the window moves s pixels at a time, and there are OH = (H - K) // s + 1 positions
# along the height. Change ``im2col`` so that it takes a stride. A slice ``a:b:s`` takes every s-th
# element.


def im2col_with_stride(x, k, s):
    """An image (H, W) to (K*K, OH*OW), the windows s pixels apart."""
    return ...


def unfold(x, k, s):
    return F.unfold(minidl.tensor(x[None, None]), kernel_size=k, stride=s)[0]


image = np.random.default_rng(0).normal(size=(7, 9))
check(im2col_with_stride, unfold, [(image, 3, 1), (image, 3, 2), (image, 2, 3)])

# %%
# Exercise 2: col2im
# ------------------
# Write the adjoint for stride 1: begin with zeros and for each tap add its row of the columns to
# the pixels it was taken from. Note ``+=``: with ``=`` only the last copy of each pixel would
# count.


def col2im(columns, shape, k):
    """Columns (K*K, OH*OW) to an image of that shape (H, W)."""
    return ...


def fold(columns, shape, k):
    return F.fold(minidl.tensor(columns[None]), output_size=shape, kernel_size=k)[0, 0]


check(col2im, fold, [(im2col(image, 3), image.shape, 3), (im2col(image, 2), image.shape, 2)])
