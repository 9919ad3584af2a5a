"""
8. Pick and put
===============

Max-pooling keeps the greatest pixel of each window, and unpooling puts values back where the
greatest pixels were. Write down the positions of the maxima once, and both become linear: pooling
*picks* pixels at these positions, unpooling *puts* values there. Picking and putting are adjoint,
so each is the gradient of the other, and max-pooling needs no further mathematics.

Explains ``minidl/ops/pooling.py``, and ``max_pool2d``, ``pick`` and ``put`` in
``minidl/kernels/reference.py``.

Sources: M. D. Zeiler, R. Fergus, Visualizing and understanding convolutional networks,
arXiv:1311.2901, 2014 (unpooling with recorded positions, section 2.1); V. Dumoulin, F. Visin, A
guide to convolution arithmetic for deep learning, arXiv:1603.07285, 2016 (the sizes).
"""

import inspect

import matplotlib.pyplot as plt
import numpy as np

import minidl
from minidl.data import MNIST, SyntheticDigits
from minidl.nn import functional as F
from minidl.ops import pooling
from minidl.plot import show_images
from minidl.tools.exercise import check

# %%
# The maxima and their positions
# ------------------------------
# With K x K windows, K pixels apart, an image x gives
#
# .. math:: y_{ij} = \max_{0 \le u,\,v < K} x_{iK+u,\,jK+v}
#
# `minidl.nn.functional.max_pool2d` also returns where each maximum lies: pixel (h, w) of a plane W
# pixels wide has the number h W + w, its position when the plane is read row by row. Zeiler and
# Fergus call these positions *switches*.

x = np.array([[3.0, 1, 0, 2], [0, 2, 6, 1], [4, 0, 1, 1], [2, 5, 3, 0]])  # (H, W)
image = minidl.tensor(x[None, None], requires_grad=True)  # (1, 1, H, W)
maxima = F.max_pool2d(image, 2, return_indices=True)
y, indices = (result[0, 0].detach().numpy() for result in maxima)
print(y, indices, sep="\n")  # (OH, OW)

# %%
# 6 lies in row 1 and column 2, and 1 * 4 + 2 = 6; 5 in row 3 and column 1 has number 13. Given the
# indices, the maxima no longer have to be searched for. They are picked; the opposite of picking is
# to put values at the same positions of an empty image:


def pick(x, indices):
    """y_k = x_{indices_k}: (H, W) to the shape of the indices."""
    return x.ravel()[indices]


def put(y, indices, shape):
    """x_{indices_k} += y_k, from zeros: the shape of the indices to (H, W)."""
    x = np.zeros(shape)
    np.add.at(x.reshape(-1), indices, y)  # unlike x[indices] += y, counts repeated indices
    return x


assert np.array_equal(pick(x, indices), y)
panels = {"x": x, "y = pick(x)": y, "put(y)": put(y, indices, x.shape)}
figure, axes = plt.subplots(1, 3, figsize=(7, 2.7), width_ratios=[4, 2, 4])
for axis, (title, values) in zip(axes, panels.items(), strict=True):
    axis.imshow(values, cmap="Blues", vmin=0, vmax=12)
    for (row, column), value in np.ndenumerate(values):
        axis.text(column, row, f"{value:.0f}", ha="center", va="center")
    axis.axhline(len(values) / 2 - 0.5, color="black")  # between the windows
    axis.axvline(len(values) / 2 - 0.5, color="black")
    axis.set(title=title, xticks=[], yticks=[])
plt.show()

# %%
# Each the other's adjoint
# ------------------------
# With the indices held fixed, ``pick`` is linear in x, so it is a matrix P: each row has a single
# 1, in the column of the pixel that is picked. Its transpose takes a number for each window to that
# pixel, and that is ``put``:

P = np.zeros((y.size, x.size))
P[np.arange(y.size), indices.ravel()] = 1
assert np.array_equal(P.T @ y.ravel(), put(y, indices, x.shape).ravel())
print(P.astype(int))

# %%
# So pick and put are adjoint,
#
# .. math:: \langle \mathrm{pick}(x),\, z \rangle = \langle x,\, \mathrm{put}(z) \rangle
#           \quad\text{for all } x \text{ and } z,
#
# and the gradient of a linear map is its transpose: if the loss has the gradient gy in y = pick(x),
# it has put(gy) in x; if it has gx in x = put(y), it has pick(gx) in y. In minidl each function
# names the other as its gradient, so derivatives of any order are covered:

print(inspect.getsource(pooling.pick), inspect.getsource(pooling.put), sep="\n")

# %%
# ``max_pool2d`` searches for the maxima and has put(gy) as its gradient;
# `minidl.nn.functional.max_unpool2d` is ``put`` itself.

gy = np.array([[1.0, 2], [3, 4]])
F.max_pool2d(image, 2).backward(minidl.tensor(gy[None, None]))
print(image.grad[0, 0].numpy())

# %%
# What unpooling restores
# -----------------------
# If no value is negative and windows do not overlap, pooling an unpooled map gives it back: the
# zeros never win. The other order loses all pixels but the maxima. On digits that were pooled to a
# quarter of the height and width, the recorded positions still show the stroke where it was; the
# same values put into the corner of each window give no more than a coarse raster.

try:
    digits = MNIST(train=False)
except (FileNotFoundError, ImportError):
    digits = SyntheticDigits(1000)  # drawn ones, where MNIST has not been downloaded
scans = minidl.tensor(digits.images[:8, None] / 255, dtype=minidl.float32)  # (8, 1, 28, 28)
pooled, switches = F.max_pool2d(scans, 4, return_indices=True)  # (8, 1, 7, 7)
unpooled = F.max_unpool2d(pooled, switches, 4)  # (8, 1, 28, 28)
assert minidl.equal(F.max_pool2d(unpooled, 4), pooled)
corners = F.max_pool2d(minidl.zeros_like(scans), 4, return_indices=True)[1]  # of equals: the first
raster = F.max_unpool2d(pooled, corners, 4)
show_images({"image": scans, "pooled": pooled, "at the maxima": unpooled, "at corners": raster})

# %%
# Windows that overlap
# --------------------
# With a stride smaller than the window, a pixel may be the maximum of several windows. Its index
# then occurs several times, and the column of P for that pixel holds several ones. The transpose
# leaves no choice: put *adds*, as the chain rule demands of a number that is used more than once.

x = minidl.tensor([[[[0.0, 1, 0], [2, 9, 3], [0, 4, 0]]]], requires_grad=True)
y, indices = F.max_pool2d(x, 2, stride=1, return_indices=True)  # 4 windows, each holds the 9
y.sum().backward()
unpooled = F.max_unpool2d(y.detach(), indices, 2, stride=1)
print(indices[0, 0].numpy(), x.grad[0, 0].numpy(), unpooled[0, 0].numpy(), sep="\n")

# %%
# The gradient of the middle pixel is 4, in PyTorch as in minidl. Unpooling the four maxima gives 36
# in minidl, which adds here, too, and 9 in PyTorch, which overwrites: of several values with one
# index it keeps one, and its documentation warns that the result may not be deterministic. Neither
# refuses repeated indices. minidl adds because only then is unpooling the adjoint of picking: a
# value that is overwritten has no influence on the result, so its gradient is 0, and pick gives it
# another. (PyTorch uses pick all the same.) Where windows do not overlap no index occurs twice, and
# the two agree.
#
# The kink
# --------
# The indices depend on x, so max-pooling as a whole is not linear. As long as no maximum changes
# hands, though, the indices stay the same: the function is *piecewise* linear, and within a piece
# put(gy) is the exact gradient. Where the two greatest pixels of a window are equal, two pieces
# meet in a kink. The smallest example is a window of two pixels, t and 1:


def larger(t, t_first):
    """The maximum of two pixels, t and 1, and its derivative in t: two arrays (T,)."""
    t = minidl.tensor(t, requires_grad=True)
    pair = [t, minidl.ones_like(t)] if t_first else [minidl.ones_like(t), t]
    y = F.max_pool2d(minidl.stack(pair, dim=1)[None, None], (1, 2))  # (1, 1, T, 2) to (1, 1, T, 1)
    return y.detach().numpy().ravel(), minidl.grad(y.sum(), t)[0].numpy()


t = np.linspace(0, 2, 21)
figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3), layout="constrained")
left.plot(t, larger(t, True)[0], color="tab:blue")
left.set(xlabel="pixel t", ylabel="maximum of t and 1", title="the function")
right.plot(t, larger(t, True)[1], "o", color="tab:orange", label="window (t, 1)")
right.plot(t, larger(t, False)[1], "x", color="tab:blue", label="window (1, t)")
right.set(xlabel="pixel t", ylabel="derivative in t", title="its gradient in minidl")
right.legend()
plt.show()

# %%
# At t = 1 the slope is 0 to the left and 1 to the right; no single number is *the* derivative, and
# any number between the two is a subgradient. minidl, like PyTorch, takes the first of equal
# values, row by row, and sends the whole gradient there. A central difference, by contrast, gives
# the mean of the slopes and would report a mistake where there is none, so a test of max-pooling
# keeps its inputs away from ties. In practice they are common: a black border is full of them.

below, above = larger(np.array([0.999, 1.001]), True)[0]
print(f"central difference at t = 1: {(above - below) / 0.002:.3f}")
windows = F.unfold(scans, 2, stride=2)  # (8, 4, 14*14)
ties = (windows == windows.max(1, keepdim=True)[0]).sum(1) > 1
print(f"windows whose maximum occurs more than once: {ties.float().mean().item():.0%}")

# %%
# After a ReLU every window without a positive value is a tie of zeros, and there it does no harm:
# the pixel that is sent the gradient comes from an inactive ReLU, which stops it.
#
# The average, and the padding
# ----------------------------
# Average pooling has no switches. It is linear everywhere: each row of its matrix holds K*K entries
# of 1/(K*K), and the transpose spreads a gradient evenly over the window, where max-pooling gives
# all of it to one pixel.

(gradient,) = minidl.grad(F.avg_pool2d(image, 2), image, minidl.tensor(gy[None, None]))
print(gradient[0, 0].numpy())

# %%
# The two also pad differently. Zeros beside the image count as pixels of the average (unless
# ``count_include_pad=False``), but a maximum is padded with minus infinity, so that a padded
# position never wins. (``max_pool2d`` in ``reference.py`` does not write minus infinity; it marks
# the padding, so that the maximum of an image of minus infinities still lies inside.) Padding with
# zeros is wrong as soon as pixels are negative, a mistake that has been made in more than one
# library:

x = -minidl.ones(1, 1, 4, 4)
print(F.max_pool2d(x, 3, stride=2, padding=1)[0, 0].numpy())
print(F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, stride=2)[0, 0].numpy())

# %%
# Exercise 1: the switches
# ------------------------
# Find the indices of the maxima for windows of k x k that do not overlap; k divides H and W.


def indices_of_maxima(x, k):
    """An image (H, W) to the numbers h W + w of its maxima, (H/k, W/k)."""
    return ...


def switches_of(x, k):
    return F.max_pool2d(minidl.tensor(x[None, None]), k, return_indices=True)[1][0, 0]


noise = np.random.default_rng(0).normal(size=(6, 12))
check(indices_of_maxima, switches_of, [(noise, 2), (noise, 3), (np.zeros((4, 4)), 2)])

# %%
# Exercise 2: the gradient of the average
# ---------------------------------------
# Given the gradient gy of the means of k x k windows that do not overlap, what is that of the
# image?


def gradient_of_average(gy, k):
    """(OH, OW) to (OH*k, OW*k)."""
    return ...


def by_minidl(gy, k):
    x = minidl.zeros(1, 1, k * len(gy), k * gy.shape[1], dtype=minidl.float64, requires_grad=True)
    return minidl.grad(F.avg_pool2d(x, k), x, minidl.tensor(gy[None, None]))[0][0, 0]


check(gradient_of_average, by_minidl, [(noise, 2), (noise.T, 3)])
