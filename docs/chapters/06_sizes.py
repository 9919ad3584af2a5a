"""
6. Sizes
========

How large is the output of a convolution with stride 2, padding 1 and a kernel of 3, and why can the
transposed convolution of that output come back a pixel short? Both formulas follow from counting
windows. The count is a floor division, so several inputs share an output size, and
``output_padding`` says which of them is meant.

Explains ``minidl/kernels/geometry.py``, and the arguments of ``minidl/ops/conv.py``.

Sources: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning,
arXiv:1603.07285, 2016; F. Yu, V. Koltun, Multi-scale context aggregation by dilated convolutions,
arXiv:1511.07122, 2016; A. Araujo, W. Norris, J. Sim, Computing receptive fields of convolutional
neural networks, Distill, 2019, doi 10.23915/distill.00021.
"""

import itertools
import textwrap

import matplotlib.pyplot as plt
import numpy as np

import minidl
from minidl import nn
from minidl.nn import functional as F
from minidl.tools.exercise import check

# %%
# Counting windows
# ----------------
# Height and width are independent, so it is enough to look at one of them. Four numbers decide:
#
# - the kernel has K taps, and with *dilation* d they are d pixels apart, so that a window reaches
#   over r = d (K - 1) + 1 pixels;
# - *padding* p puts p zeros on both sides, so the windows move over H + 2 p pixels;
# - *stride* s is the number of pixels from one window to the next.
#
# Below, padding is grey, and the dots are the taps of the first, the second and the last window.


def draw_windows(axis, side, k, s=1, p=0, d=1):
    """A padded grid with its first two windows, and the last one."""
    axis.imshow(np.pad(np.ones((side, side)), p, constant_values=0.8), cmap="gray", vmin=0, vmax=1)
    reach = d * (k - 1) + 1
    last = (side + 2 * p - reach) // s * s  # where it begins
    starts = {"tab:orange": (0, 0, 0), "tab:blue": (0, s, 0.15), "tab:green": (last, last, 0)}
    for colour, (i, j, shift) in starts.items():
        rows, columns = np.mgrid[i : i + reach : d, j : j + reach : d]
        axis.plot(columns.ravel() + shift, rows.ravel() + shift, ".", color=colour, markersize=8)
        style = {"fill": False, "edgecolor": colour, "linewidth": 2, "zorder": 3}
        corner = j - 0.4 + shift, i - 0.4 + shift
        axis.add_patch(plt.Rectangle(corner, reach - 0.2, reach - 0.2, **style))
    lines = np.arange(side + 2 * p) + 0.5
    axis.set(xticks=lines, yticks=lines, xticklabels=[], yticklabels=[])
    axis.tick_params(length=0)
    axis.grid(color="0.85")
    axis.set_title(f"K = {k}, s = {s}, p = {p}, d = {d}")
    axis.set_xlabel(f"{side} x {side} to {last // s + 1} x {last // s + 1} pixels")


figure, axes = plt.subplots(1, 3, figsize=(9, 3.6), layout="constrained")
draw_windows(axes[0], 7, 3, s=2)
draw_windows(axes[1], 7, 3, s=2, p=1)
draw_windows(axes[2], 7, 3, s=1, p=1, d=2)
plt.show()

# %%
# Window i begins at pixel i s and ends before pixel i s + r, which must be at most H + 2 p. So the
# windows begin at 0, s, 2 s, ... up to H + 2 p - r, and there are
#
# .. math:: OH = \left\lfloor \frac{H + 2p - d\,(K - 1) - 1}{s} \right\rfloor + 1
#
# of them.


def map_size(h, k, s=1, p=0, d=1):
    """The number of windows, and so of output pixels, along an axis of h pixels."""
    return (h + 2 * p - d * (k - 1) - 1) // s + 1


ranges = range(7, 12), (1, 2, 3, 4), (1, 2, 3), (0, 1, 2), (1, 2)  # of h, k, s, p, d
for h, k, s, p, d in itertools.product(*ranges):
    y = F.conv2d(minidl.ones(1, 1, h, 7), minidl.ones(1, 1, k, 1), None, (s, 1), (p, 0), (d, 1))
    assert y.shape[2] == len(range(0, h + 2 * p - d * (k - 1), s)) == map_size(h, k, s, p, d)

# %%
# Sizes that do not fit
# ---------------------
# ``minidl/kernels/geometry.py`` holds these formulas and turns impossible sizes into an error that
# does the arithmetic. The usual cause: earlier layers have made the image smaller than the kernel.


def message(function, *arguments, **options):
    """The message of the error that a call raises."""
    try:
        function(*arguments, **options)
    except (RuntimeError, ValueError) as error:
        return textwrap.fill(str(error), 92)


print(message(F.conv2d, minidl.ones(1, 8, 2, 2), minidl.ones(8, 8, 5, 5), padding=1))

# %%
# What the floor forgets
# ----------------------
# With stride 2 and a kernel of 3, images of 7 and of 8 pixels have the same output size. The last
# pixel of 8 is in no window. It does not affect the output, and its gradient is 0. In a row of h
# pixels and with weights of 1, the gradient counts the windows that a pixel is in:

for h in range(5, 11):
    x = minidl.ones(1, 1, 1, h, requires_grad=True)
    F.conv2d(x, minidl.ones(1, 1, 1, 3), stride=(1, 2)).sum().backward()
    print(f"{h:2} -> {map_size(h, 3, s=2)}, gradient {x.grad[0, 0, 0].numpy().astype(int)}")

# %%
# In general s consecutive sizes share an output size. In all but the smallest, no window reaches
# the last rows and columns of the padded image (which may be nothing but zeros of the padding).
#
# The way back
# ------------
# A transposed convolution places the same windows, to add to them instead of reading them (chapter
# 5). The last of H windows begins at (H - 1) s and ends r pixels later, and p pixels are cut off on
# both sides. That is the smallest image with H windows. ``output_padding`` op, from 0 to s - 1,
# leads to the others by adding pixels at the bottom and on the right:
#
# .. math:: OH = (H - 1)\,s - 2p + d\,(K - 1) + op + 1


def image_size(h, k, s=1, p=0, d=1, op=0):
    """The output pixels of a transposed convolution along an axis of h pixels."""
    return (h - 1) * s - 2 * p + d * (k - 1) + op + 1


for h, k, s, p, d in itertools.product(*ranges):
    x, w = minidl.ones(1, 1, h, 7), minidl.ones(1, 1, k, 1)
    for op in range(s):
        y = F.conv_transpose2d(x, w, None, (s, 1), (p, 0), (op, 0), dilation=(d, 1))
        assert y.shape[2] == image_size(h, k, s, p, d, op)
        assert map_size(y.shape[2], k, s, p, d) == h

# %%
# So an encoder's size comes back with ``output_padding`` equal to the remainder that the floor
# dropped. From an ``output_size``, ``ConvTranspose2d`` computes it: that size less the smallest
# one.

down, up = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ConvTranspose2d(4, 1, 3, stride=2, padding=1)
y = down(minidl.ones(1, 1, 28, 28))  # (1, 4, 14, 14)
print(f"28 -> {y.shape[2]} -> {up(y).shape[2]}, or {up(y, output_size=(28, 28)).shape[2]} if asked")
print(message(up, y, output_size=(30, 28)))

# %%
# The name is misleading: ``output_padding`` does not append zeros, it moves the cut. With p = 0
# there is nothing behind the last window, and the new row holds only the bias; with p = 1 it is a
# row that would have been cut off.

ones = minidl.ones(1, 1, 3, 3)
for p in (0, 1):
    y = F.conv_transpose2d(ones, ones, stride=2, padding=p, output_padding=1)[0, 0]
    print(f"p = {p}, last row:", y[-1].numpy().astype(int))
    assert (y[-1] == 0).all() == (p == 0)

# %%
# How far a pixel sees
# --------------------
# The *receptive field* of an output pixel is the part of the input that it depends on. Neighbouring
# pixels of a layer are j pixels of the input apart, where j is the product of the strides so far,
# so the next layer adds d (K - 1) j pixels to the field. The gradient of the output pixel shows it:
# with equal weights it counts the paths through the layers that lead there from each input pixel.


def receptive_field(layers):
    """Pixels of the input that a pixel after each layer, given as (k, s, d), depends on."""
    field, jump, fields = 1, 1, []
    for k, s, d in layers:
        field, jump = field + d * (k - 1) * jump, jump * s
        fields.append(field)
    return fields


def seen(layers, side=63):
    """The gradient (H, W) of the output pixel in the middle, relative to its largest value."""
    x = y = minidl.ones(1, 1, side, side, requires_grad=True, dtype=minidl.float64)
    for k, s, d in layers:
        w = minidl.ones(1, 1, k, k, dtype=minidl.float64) / k**2
        y = F.conv2d(y, w, stride=s, padding=d * (k - 1) // 2, dilation=d)
    middle = y.shape[2] // 2
    y[0, 0, middle, middle].backward()
    return x.grad[0, 0].numpy() / x.grad.max().item()


stacks = {
    "stride 1": [(3, 1, 1)] * 4,
    "stride 2": [(3, 2, 1)] * 4,
    "dilation 1, 2, 4, 8": [(3, 1, d) for d in (1, 2, 4, 8)],
}
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for axis, (name, layers) in zip(axes, stacks.items(), strict=True):
    gradient, fields = seen(layers), receptive_field(layers)
    assert np.count_nonzero(gradient.any(axis=0)) == fields[-1]
    image = axis.imshow(gradient, vmin=0, vmax=1)
    axis.set(title=name, xlabel=f"pixels seen: {', '.join(map(str, fields))}", xticks=[], yticks=[])
figure.colorbar(image, ax=axes, label="gradient / its maximum", shrink=0.8)
plt.show()

# %%
# Four layers with stride 1 see 9 pixels: the field grows by the same amount with each. With stride
# 2, or with dilations that double, the field about doubles with each layer; dilation does so
# without making the map smaller. In all three few paths lead to the edge of the field, so it counts
# for much less than the middle.
#
# `minidl.explain` does the arithmetic of this page for every layer of a model:

layers = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, stride=2)
print(minidl.explain(nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 6 * 6, 10)), (1, 28, 28)))

# %%
# Exercise 1: same padding
# ------------------------
# Which padding keeps the size, for an odd kernel, stride 1 and a given dilation?


def same_padding(k, d):
    """The p with which a kernel of k taps, d apart, makes H pixels of H."""
    return ...


def tried_out(k, d):
    return [map_size(64, k, 1, p, d) for p in range(32)].index(64)


check(same_padding, tried_out, [(1, 1), (3, 1), (3, 2), (7, 3)])

# %%
# Exercise 2: all inputs of an output
# -----------------------------------
# Which heights of an image lead to a map of oh pixels? Return them in ascending order.


def heights(oh, k, s, p, d):
    """All h with map_size(h, k, s, p, d) == oh, as a range, list or array."""
    return ...


def found(oh, k, s, p, d):
    return [h for h in range(1, 100) if map_size(h, k, s, p, d) == oh]


check(heights, found, [(14, 3, 2, 1, 1), (5, 5, 3, 0, 1), (4, 3, 4, 2, 2)])
