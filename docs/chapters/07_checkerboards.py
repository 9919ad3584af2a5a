"""
7. Checkerboards
================

Images that a network draws with transposed convolutions often show a fine regular pattern, and so
do gradient images of strided convolutions. The windows overlap, and where the stride does not
divide the kernel, some pixels lie in more windows than others. This chapter counts the windows,
measures the pattern, and removes it.

Explains ``minidl/ops/conv.py`` and ``minidl/ops/images.py``. Related:
``examples/transposed_convolution.py`` and ``examples/mnist_upsample_autoencoder.py``.

Sources: A. Odena, V. Dumoulin, C. Olah, Deconvolution and checkerboard artifacts, Distill, 2016,
doi 10.23915/distill.00003; J. Long, E. Shelhamer, T. Darrell, Fully convolutional networks for
semantic segmentation, arXiv:1411.4038, 2015 (bilinear weights).
"""

import matplotlib.pyplot as plt
import numpy as np

import minidl
from minidl import nn, optim
from minidl.data import MNIST, SyntheticDigits
from minidl.nn import functional as F
from minidl.plot import curves, show_images
from minidl.tools.exercise import check

# %%
# Counting the overlap
# --------------------
# A transposed convolution adds a multiple of its kernel to a window of the output for each input
# pixel, and the windows are s pixels apart (chapter 5). With an input and a kernel of ones it
# counts the windows that each output pixel lies in, which are the products added up there.

counts = {
    k: F.conv_transpose2d(minidl.ones(1, 1, 5, 5), minidl.ones(1, 1, k, k), stride=2)[0, 0].numpy()
    for k in (3, 4)
}
figure, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
for axis, (k, count) in zip(axes, counts.items(), strict=True):
    axis.imshow(count, cmap="YlOrRd", vmin=0, vmax=6)
    for (i, j), value in np.ndenumerate(count):
        axis.text(j, i, f"{value:.0f}", ha="center", va="center", size=8)
    axis.set(title=f"kernel {k}, stride 2: windows of a pixel", xticks=[], yticks=[])
plt.show()

# %%
# With kernel 3 the counts inside are 4, 2 and 1 by turns; with kernel 4 all are 4. The reason is
# seen along one axis. Output pixel m receives tap u of window i if m = i s + u, so its taps are
# those that leave the same remainder as m when divided by s. With s = 2, taps 0 and 2 of three fall
# on even pixels, and tap 1 on odd ones. If s divides K, all remainders occur equally often.
#
# The s x s classes of pixels with equal remainders are the *phases* of the image. How much their
# means differ measures the pattern: their standard deviation, relative to the root mean square of
# the pixels.


def phases(images, s=2):
    """The mean of (N, C, H, W) over the pixels (i s + a, j s + b), as (N, C, s, s)."""
    n, c, h, w = images.shape
    return images.reshape(n, c, h // s, s, w // s, s).mean(axis=(2, 4))


def pattern(images, s=2):
    """Standard deviation over the phases, relative to the root mean square."""
    return np.sqrt(phases(images, s).var(axis=(2, 3)).mean() / np.square(images).mean())


for k, count in counts.items():
    inside = count[None, None, 2:10, 2:10]  # from (1, 1, 11, 11) or (1, 1, 12, 12)
    print(f"kernel {k}: phases {phases(inside).ravel()}, pattern {pattern(inside):.2f}")
    assert (pattern(inside) == 0) == (k == 4)

# %%
# Before training
# ---------------
# Weights begin as independent random numbers. A sum of n independent products has n times the
# variance of one, so the variances of the pixels are as uneven as the counts. Beside kernels 3 and
# 4 stands the alternative: enlarge the map by repeating its pixels, then convolve. It is
# `minidl.nn.functional.interpolate`, or the layer ``nn.Upsample``, followed by ``nn.Conv2d``.


def enlarge(kind, c_in, c_out):
    """The layers that double height and width, in one of three ways."""
    return {
        "kernel 3": [nn.ConvTranspose2d(c_in, c_out, 3, stride=2, padding=1, output_padding=1)],
        "kernel 4": [nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1)],
        "resize, kernel 3": [nn.Upsample(scale_factor=2), nn.Conv2d(c_in, c_out, 3, padding=1)],
    }[kind]


minidl.manual_seed(0)
KINDS = "kernel 3", "kernel 4", "resize, kernel 3"
noise = minidl.randn(16, 32, 12, 12)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained")
for axis, kind in zip(axes, KINDS, strict=True):
    y = nn.Sequential(*enlarge(kind, 32, 128))(noise)[:, :, 4:20, 4:20]  # (16, 128, 16, 16)
    energy = y.square().mean(dim=(0, 1), keepdim=True).detach().numpy()  # (1, 1, 16, 16)
    energy /= energy.mean()
    image = axis.imshow(energy[0, 0], vmin=0, vmax=2)
    axis.set(title=kind, xlabel=f"pattern {pattern(energy):.2f}", xticks=[], yticks=[])
    assert (pattern(energy) > 0.3) == (kind == "kernel 3")
figure.colorbar(image, ax=axes, label="mean square of a pixel / mean of all", shrink=0.8)
plt.show()

# %%
# After a little training
# -----------------------
# Training could choose weights that make up for the counts. Three autoencoders, equal but for the
# way in which the decoder enlarges, see a few digits for a few epochs.

try:
    digits = MNIST(train=False)
except (FileNotFoundError, ImportError):
    digits = SyntheticDigits(1000)  # drawn ones, where MNIST has not been downloaded
scans = minidl.tensor(digits.images[:100, None] / 255, dtype=minidl.float32)  # (100, 1, 28, 28)


def autoencoder(kind):
    """28 x 28 pixels through 8 maps of 7 x 7 and back."""
    down = [nn.Conv2d(1, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 4, 2, 1), nn.ReLU()]
    return nn.Sequential(*down, *enlarge(kind, 8, 8), nn.ReLU(), *enlarge(kind, 8, 1))


def train(model, epochs, batch=20):
    """The reconstructions after each epoch."""
    optimizer = optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for x in scans.split(batch):
            optimizer.zero_grad()
            F.mse_loss(model(x), x).backward()
            optimizer.step()
        yield model(scans).detach()


outputs = {}
for kind in KINDS:
    minidl.manual_seed(0)
    outputs[kind] = list(train(autoencoder(kind), epochs=10))
patterns = {kind: [pattern(y.numpy()) for y in after] for kind, after in outputs.items()}
curves(patterns, "epoch", "strength of the pattern", log=True)

# %%
# The images after five epochs:

show_images({"images": scans[:10], **{kind: after[4][:10] for kind, after in outputs.items()}})

# %%
# Digits do not have the pattern, and training weakens it, but ten epochs do not remove it. Kernel 4
# has it, too: each pixel adds up equally many products, but the four phases have weights of their
# own, and only training can make them agree. A kernel size divisible by the stride is necessary for
# an even image, but not sufficient. With resizing the pattern is much weaker from the start.

even = patterns.pop("resize, kernel 3")
for after in patterns.values():
    assert after[-1] < max(after)
    assert all(3 * least < strength for least, strength in zip(even, after, strict=True))

# %%
# Why resizing is even
# --------------------
# A constant map, resized, is a constant image, and a convolution makes a constant image of it,
# whatever the weights. A transposed convolution makes one only if the taps of each phase have the
# same sum.

constant = minidl.ones(1, 8, 8, 8)
for kind in KINDS:
    y = nn.Sequential(*enlarge(kind, 8, 1))(constant).detach().numpy()[:, :, 2:-2, 2:-2]
    print(f"{kind:17} phases {phases(y).ravel().round(3)}")
assert np.ptp(phases(y)) < 1e-6

# %%
# Resizing and convolving is itself a transposed convolution, with a larger kernel whose taps are
# tied: 16 taps that are sums of 9 weights. Its kernel is the response to a single pixel.

w = minidl.randn(1, 1, 3, 3)
tied = F.conv2d(F.interpolate(minidl.ones(1, 1, 1, 1), scale_factor=2), w, padding=2)  # 4 x 4
x = minidl.randn(1, 1, 7, 7)
resized = F.conv2d(F.interpolate(x, scale_factor=2), w, padding=1)  # (1, 1, 14, 14)
assert minidl.allclose(resized, F.conv_transpose2d(x, tied, stride=2, padding=1), atol=1e-5)
print("sums of the taps of each phase:", 4 * phases(tied.numpy()).ravel().round(3))

# %%
# In gradients
# ------------
# The backward pass of a strided convolution is a transposed convolution, so the gradient has the
# pattern, too. Pictures of a classifier's gradient in its input show it, with the periods 2 and 4
# after two layers of stride 2. Here random gradients of the maps are carried back to the digits:

figure, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
for axis, k in zip(axes, (3, 4), strict=True):
    layers = nn.Sequential(nn.Conv2d(1, 64, k, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, k, 2, 1))
    x = scans.clone().requires_grad_()
    maps = layers(x)  # (100, 64, 7, 7)
    gradient = minidl.grad(maps, x, minidl.randn(*maps.shape))[0].numpy()
    energy = np.square(gradient).mean(axis=0, keepdims=True)[:, :, 4:24, 4:24]
    image = axis.imshow(energy[0, 0] / energy.mean(), vmin=0, vmax=3)
    axis.set(title=f"kernel {k}, stride 2", xticks=[], yticks=[])
    axis.set_xlabel(f"pattern of period 4: {pattern(energy, 4):.2f}")
    assert (pattern(energy, 4) > 0.25) == (k == 3)
figure.colorbar(image, ax=axes, label="mean square of a pixel's gradient / mean of all")
plt.show()

# %%
# So there are two cures. A kernel size that is a multiple of the stride makes the counts even, in
# strided convolutions and in transposed ones. Resizing and convolving, as
# ``examples/mnist_upsample_autoencoder.py`` does, keeps a constant map constant, whatever the
# weights.
#
# Exercise 1: the counts
# ----------------------
# How many taps of a kernel of k, with stride s, fall on the output pixels m = 0, 1, ..., s - 1 of a
# long line, far from its ends?


def taps_of_phases(k, s):
    """The numbers of taps u in 0, ..., k - 1 with remainder 0, 1, ..., s - 1: s numbers."""
    return ...


def counted(k, s):
    ones, kernel = minidl.ones(1, 1, 1, 2 * k), minidl.ones(1, 1, 1, k)
    return F.conv_transpose2d(ones, kernel, stride=(1, s))[0, 0, 0, k * s : k * s + s]


check(taps_of_phases, counted, [(4, 2), (3, 2), (5, 3), (2, 4)])

# %%
# Exercise 2: bilinear weights
# ----------------------------
# With an even stride s, padding s / 2 and the right kernel of 2 s taps, a transposed convolution is
# bilinear interpolation, and decoders have been started from it (Long et al. 2015). Along an axis
# the weight of a tap falls linearly from 1 in the kernel's middle to 0 at s pixels from it; the
# taps are at 0, 1, ..., 2 s - 1. Write the kernel for both axes.


def bilinear_kernel(s):
    """The kernel (2 s, 2 s): the product of the weights along both axes."""
    return ...


def interpolated(s):
    pixel = minidl.zeros(1, 1, 5, 5)
    pixel[0, 0, 2, 2] = 1
    window = slice(2 * s - s // 2, 4 * s - s // 2)
    return F.interpolate(pixel, scale_factor=s, mode="bilinear")[0, 0, window, window]


check(bilinear_kernel, interpolated, [(2,), (4,)])
