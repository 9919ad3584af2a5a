"""
10. Losses and their units
==========================

A loss is a number with a unit, such as nats per image, and says nothing without it. The unit
depends on what was averaged and what was summed. This chapter computes the three common losses in a
form that cannot overflow, shows which values they can reach, finds out why two published losses are
wrong by factors of 20 and of 1.58, and what such a factor does to the training.

Explains ``minidl/ops/loss.py``, ``minidl/tools/meter.py`` and ``examples/autoencoder_losses.py``.

Sources: C. Bishop, Pattern recognition and machine learning, Springer 2006, sections 4.3 and 5.2;
D. Kingma, J. Ba, Adam: a method for stochastic optimization, arXiv:1412.6980, 2015.
"""

import matplotlib.pyplot as plt
import numpy as np

import minidl
from minidl import Meter, nn, optim
from minidl.data import MNIST, SyntheticDigits
from minidl.nn import functional as F
from minidl.tools.exercise import check

# %%
# Per pixel, per image, per batch
# -------------------------------
# The squared error of a pixel x and its target t is :math:`(x - t)^2`. A batch of N images has N C
# H W such numbers, and `minidl.nn.functional.mse_loss` returns their mean, their sum, or all of
# them. As an example, take the error that blurring makes. For classes the mean is over samples
# instead, so that `minidl.nn.functional.cross_entropy` is per *image*; as an example, take scores
# that call all ten classes equally likely:

try:
    digits = MNIST(train=False)
except (FileNotFoundError, ImportError):
    digits = SyntheticDigits(1000)  # drawn ones, where MNIST has not been downloaded
scans = minidl.tensor(digits.images[:500, None] / 255, dtype=minidl.float32)  # (500, 1, 28, 28)
t = scans[:50]
x = F.avg_pool2d(t, 3, stride=1, padding=1)
per_pixel = F.mse_loss(x, t)  # reduction="mean"
per_batch = F.mse_loss(x, t, reduction="sum")
per_image = per_batch / len(t)  # the sum over each image, averaged over the images
print(f"{per_pixel:.5f} per pixel = {per_image:.3f} per image = {per_batch:.1f} per batch")
scores, classes = minidl.zeros(50, 10), minidl.zeros(50).long()
print(f"{F.cross_entropy(scores, classes):.4f} nats per image; ln 10 = {np.log(10):.4f}")

# %%
# The first three numbers describe the same images. The loss per batch doubles if the batch does,
# and the loss per image grows with the number of pixels. All depend on the unit of x, too: with
# grey levels from 0 to 255 in place of 0 to 1, they would be 255 * 255 times as large.
#
# Losses that cannot overflow
# ---------------------------
# All three losses are negative logarithms of a likelihood: of a normal distribution around x with
# variance 1/2 for the squared error (up to a constant), of a class for the cross-entropy, of a coin
# for the binary one. The likelihood of class t is the softmax of the scores, called *logits*, so
#
# .. math:: l = -\ln \frac{e^{x_t}}{\sum_c e^{x_c}} = \ln \sum_c e^{x_c} - x_t
#
# Written down like that it overflows: in float64 already :math:`e^{710}` is too large. Subtracting
# the maximum m of the logits does not change the result, and no power exceeds 1:
#
# .. math:: \ln \sum_c e^{x_c} = m + \ln \, \sum_c e^{x_c - m}


def log_sum_exp(x):
    """ln(sum over c of e^x_c), for x (N, C)."""
    m = x.max(axis=1)
    return m + np.log(np.exp(x - m[:, None]).sum(axis=1))


logits = np.array([[2.0, 1.0, -1.0], [1000.0, 0.0, -1000.0]])
with np.errstate(over="ignore"):
    print("as written:", np.log(np.exp(logits).sum(axis=1)))
print("shifted:   ", log_sum_exp(logits))

# %%
# A pixel between 0 and 1 is scored as a coin. With s(z) = 1 / (1 + e^-z) the probability of white,
# the *binary cross-entropy* is
#
# .. math:: l = -t \, \ln s(z) - (1 - t) \, \ln(1 - s(z)), \qquad \frac{dl}{dz} = s(z) - t
#
# It should be computed from z, not from s(z): in float32, s(z) is rounded to 1 for z above 16.7,
# and ln(1 - s(z)) is minus infinity. `minidl.nn.functional.binary_cross_entropy`, given
# probabilities, stops at 100, and its gradient vanishes; ``binary_cross_entropy_with_logits`` stays
# exact. The third curve is the squared error of s(z), with the gradient 2 (s(z) - t) s(z) (1 -
# s(z)): it vanishes for every confident mistake, however computed.

z = minidl.linspace(-5, 30, 351).requires_grad_()
zeros = minidl.zeros_like(z)  # the target: black
losses = (
    ("BCE with logits", F.binary_cross_entropy_with_logits, z),
    ("BCE of s(z)", F.binary_cross_entropy, z.sigmoid()),
    ("squared error of s(z)", F.mse_loss, z.sigmoid()),
)
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for name, loss, x in losses:
    each = loss(x, zeros, reduction="none")  # (351,)
    left.plot(z.detach().numpy(), each.detach().numpy(), label=name)
    right.plot(z.detach().numpy(), minidl.grad(each.sum(), z)[0].numpy())
left.set(title="loss of a black pixel", xlabel="logit z", ylabel="loss per pixel", ylim=(-1, 32))
left.legend(loc="upper left")
right.set(title="its gradient", xlabel="logit z", ylabel="dl/dz", ylim=(-0.1, 1.3))
plt.show()

# %%
# A floor that is not zero
# ------------------------
# For a black or a white pixel the binary cross-entropy can be 0. For a grey one it cannot. As a
# function of the probability p it is least at p = t, and there it is the entropy of the coin,
#
# .. math:: H(t) = -t \, \ln t - (1 - t) \, \ln(1 - t).

p = np.linspace(0.001, 0.999, 500)
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
for t in 1.0, 0.8, 0.5:
    axis.plot(p, -t * np.log(p) - (1 - t) * np.log(1 - p), label=f"target {t}")
axis.plot(p, -p * np.log(p) - (1 - p) * np.log(1 - p), "k:", label="entropy H(p)")
axis.set(xlabel="probability p of white", ylabel="BCE, nats per pixel", ylim=(0, 2))
axis.legend()
plt.show()

# %%
# So a perfect reconstruction of these digits, x = t, has a loss that no training can go below.
# (That of the squared error is 0.)

floor = F.binary_cross_entropy(scans, scans)
grey = ((scans > 0) & (scans < 1)).float().mean()
print(f"{floor:.4f} nats per pixel = {784 * floor:.1f} per image, by {grey:.0%} of the pixels")

# %%
# Whether a cross-entropy is good shows only above the floor. And models trained with different
# losses can only be compared by one yardstick: ``examples/autoencoder_losses.py`` measures seven.
#
# The average over an epoch
# -------------------------
# An epoch's loss is the mean over its images; what the loop has are batches, the last one often
# smaller. Two autoencoders in published course notebooks print losses that are too large. The first
# is trained on 60,000 images in batches of 20, multiplies the mean of each batch by its size, and
# divides the sum by the number of *batches*. The second is trained on 50,000 images in batches of
# 128. Tested on 10,000, it divides the sum over each batch by the size of the last training batch,
# left behind in a variable, and takes the mean over the batches. What would they print if the true
# loss of each image were 1?


def batch_sizes(images, size):
    """The number of images in each batch of an epoch."""
    return [min(size, images - start) for start in range(0, images, size)]


first = np.mean([1.0 * n for n in batch_sizes(60_000, 20)])
test_sizes, left_behind = batch_sizes(10_000, 128), batch_sizes(50_000, 128)[-1]
second = np.mean([1.0 * n / left_behind for n in test_sizes])
print(f"first: {first:.4f}; printed 0.1618, so the loss was {0.1618 / first:.5f} per pixel")
print(f"second: {second:.4f}; printed 10.80, so the loss was {10.80 / second:.2f} per image")
print(f"batches divided by {left_behind}: 78 of size {test_sizes[0]}, the last {test_sizes[-1]}")

# %%
# Neither mistake changes the training, or the shape of the curve. Feeding a loss of 1 to the loop
# is a test that finds both. A third mistake, the plain mean of the batches' means, passes this
# test, but gives the images of the last, smaller batch more weight. `minidl.Meter` weights each
# mean by its number of images and prints the unit:


def by_meter(means, sizes):
    meter = Meter("per image")
    for mean, n in zip(means, sizes, strict=True):
        meter.update(mean, n)
    return meter


means = [1.0] * 78 + [2.0]  # an unlucky last batch, of 16
print(f"mean of the means {np.mean(means):.5f}, Meter {by_meter(means, test_sizes)}")

# %%
# What a factor does to the training
# ----------------------------------
# A loss c times as large has gradients c times as large. For SGD, w - lr c g, that is a learning
# rate c times as large. Adam takes steps of lr m / (sqrt(v) + eps), with m the mean of the recent
# gradients and v that of their squares (chapter 11). A factor c multiplies both m and sqrt(v), so
# it cancels, but for the small eps and for a weight decay that is added to the gradient. A small
# autoencoder, trained on the loss per pixel and on that per image, which is 784 times as large, and
# always measured per pixel:


def train(optimizer, factor, lr):
    """The squared error per pixel after each of 10 epochs."""
    minidl.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 784))
    step = optimizer(model.parameters(), lr=lr)
    images = scans.flatten(1)  # (500, 784)
    errors = []
    for _ in range(10):
        for batch in images[minidl.randperm(500)].chunk(10):
            step.zero_grad()
            (factor * F.mse_loss(model(batch), batch)).backward()
            step.step()
        errors.append(F.mse_loss(model(images), images).item())
    return errors


figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
for axis, optimizer, lr in zip(axes, (optim.SGD, optim.Adam), (1e-2, 1e-3), strict=True):
    for unit, factor, style in ("per pixel", 1, "o-"), ("per image", 784, "x--"):
        axis.plot(range(1, 11), train(optimizer, factor, lr), style, label=f"loss {unit}")
    axis.set(title=f"{optimizer.__name__}, lr = {lr}", xlabel="epoch", ylim=(0, None))
axes[0].set(ylabel="squared error per pixel")
axes[0].legend()
plt.show()
assert np.allclose(train(optim.SGD, 1, 7.84), train(optim.SGD, 784, 1e-2), rtol=0.01)
assert np.allclose(train(optim.Adam, 1, 1e-3), train(optim.Adam, 784, 1e-3), rtol=0.05)

# %%
# So a learning rate for SGD is only worth copying together with the loss's unit. Where a loss has
# several terms, their units must agree whatever the optimiser: a reconstruction error per pixel
# beside a divergence per image gives the second 784 times its weight (chapter 13).
#
# Exercise 1: a coin has two classes
# ----------------------------------
# The binary cross-entropy is the cross-entropy of two classes, white with the logit z and black
# with the logit 0. Use that to compute it for logits of any size. (With a grey target t, the loss
# is t times that of white plus 1 - t times that of black.)


def bce_with_logits(z, t):
    """Logits and targets (N,) to the losses (N,)."""
    return ...


def by_minidl(z, t):
    logits, targets = minidl.tensor(z), minidl.tensor(t)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


z, t = np.array([-2.0, 0.0, 3.0, -1000.0, 1000.0]), np.array([0.0, 0.5, 1.0, 1.0, 0.3])
check(bce_with_logits, by_minidl, [(z[:3], t[:3]), (z, t)])

# %%
# Exercise 2: the mean over an epoch
# ----------------------------------
# From the mean loss of each batch and the batches' sizes, compute the mean over all images.


def epoch_mean(means, sizes):
    return ...


cases = ([1.0, 1.0, 1.0], [20, 20, 8]), ([0.5, 0.25, 2.0], [128, 128, 16])
check(epoch_mean, lambda *case: by_meter(*case).average, cases)
