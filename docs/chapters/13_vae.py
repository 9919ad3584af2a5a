"""
13. The variational autoencoder
===============================

A code that belongs to no image need not decode to one (chapter 12). A variational autoencoder (VAE)
encodes each image not as a point but as a normal distribution, and pulls these towards the standard
normal one, so that a draw from that one decodes to something like an image. Two things decide
whether it works: that the gradient passes a random draw, and the balance of two terms.

Explains ``minidl/ops/loss.py`` (`minidl.nn.functional.gaussian_kl`) and ``examples/mnist_vae.py``.

Sources: D. Kingma, M. Welling, Auto-encoding variational Bayes, arXiv:1312.6114, 2014; D. Rezende,
S. Mohamed, D. Wierstra, Stochastic backpropagation and approximate inference in deep generative
models, arXiv:1401.4082, 2014; I. Higgins et al., beta-VAE, ICLR 2017; S. Bowman et al., Generating
sentences from a continuous space, arXiv:1511.06349, 2016.
"""

from statistics import NormalDist

import matplotlib.pyplot as plt
import numpy as np

import minidl
from minidl import nn
from minidl.data import MNIST, DataLoader, SyntheticDigits, TensorDataset
from minidl.nn import functional as F
from minidl.optim import Adam
from minidl.plot import make_grid, show_images
from minidl.tools.exercise import check

# %%
# A draw that lets the gradient through
# -------------------------------------
# For each image x and each number z of its code the encoder gives the mean mu and the log-variance
# of a normal distribution q(z|x), and the decoder gets a draw from it. Nothing says how a draw
# would change with mu and sigma: the tape ends at it. *Reparameterisation* draws a standard normal
# number instead and computes z from it:
#
# .. math:: z = \mu + \sigma\, \varepsilon, \qquad \varepsilon \sim N(0, 1).
#
# Now :math:`\partial z / \partial \mu = 1` and :math:`\partial z / \partial \sigma = \varepsilon`.
# To test it: the mean of z^2 is :math:`\mu^2 + \sigma^2`, with the derivatives 2 mu and 2 sigma.

minidl.manual_seed(0)
mu, sigma = (minidl.tensor(value, requires_grad=True) for value in (0.5, 2.0))
z = mu + sigma * minidl.randn(100_000)
(z**2).mean().backward()
print(f"derivatives {mu.grad.item():.2f} and {sigma.grad.item():.2f}; exact: 1 and 4")
assert np.allclose([mu.grad.item(), sigma.grad.item()], [1, 4], atol=0.1)

rng = np.random.default_rng(0)
drawn = minidl.tensor(rng.normal(mu.item(), sigma.item(), 100_000))
assert not drawn.requires_grad  # NumPy's draws know mu and sigma only as numbers

# %%
# The network gives the *logarithm of the variance*, since that may have either sign. The variance
# is its exponential, and sigma is the root of the variance:
#
# .. math:: \sigma = e^{\mathrm{log\_var} / 2}.
#
# Forgetting the half is a known mistake: the model trains, with noise that the KL term misjudges.


def reparameterise(mean, log_var):
    """A draw from N(mean, e^log_var) for each element, with gradients to both."""
    return mean + (log_var / 2).exp() * minidl.randn_like(mean)


z = reparameterise(minidl.zeros(100_000), minidl.full((100_000,), 3.0))
print(f"variance {z.var().item():.2f}, right {np.exp(3):.2f}; the mistake gives {np.exp(6):.2f}")

# %%
# The KL divergence
# -----------------
# How far q = N(mu, sigma^2) is from p = N(0, 1) is measured by the Kullback-Leibler divergence, the
# mean over q of ln q(z) - ln p(z). The logarithm of a normal density, here q, is
# :math:`-\ln \sigma - (z - \mu)^2 / 2 \sigma^2 - \frac{1}{2} \ln 2 \pi`; the last term cancels:
#
# .. math:: \ln q(z) - \ln p(z) = -\ln \sigma - \frac{(z - \mu)^2}{2 \sigma^2} + \frac{z^2}{2}.
#
# The mean of :math:`(z - \mu)^2` is :math:`\sigma^2`, and that of z^2 as above:
#
# .. math:: \mathrm{KL}(q \,\|\, p) = \tfrac{1}{2} ( \mu^2 + \sigma^2 - 1 - \ln \sigma^2 ),
#
# in nats (chapter 10). It is 0 only for mu = 0 and sigma = 1. The mean of many draws should agree:


def kl(mean, log_var):
    """KL(N(mean, e^log_var) || N(0, 1)) for each element."""
    return 0.5 * (mean**2 + log_var.exp() - 1 - log_var)


for m, v in (0.0, 1.0), (1.0, 1.0), (0.5, 0.2), (0.0, 3.0):
    closed = kl(minidl.tensor(m), minidl.tensor(np.log(v))).item()
    z = rng.normal(m, np.sqrt(v), 100_000)
    samples = -0.5 * np.log(v) - (z - m) ** 2 / (2 * v) + z**2 / 2  # ln q(z) - ln p(z)
    print(f"N({m}, {v}): closed form {closed:.4f}, drawn {samples.mean():.4f}")
    assert abs(samples.mean() - closed) <= 4 * samples.std() / np.sqrt(len(z)) + 1e-6
mean, log_var = minidl.randn(5), minidl.randn(5)
assert minidl.allclose(kl(mean, log_var), F.gaussian_kl(mean, log_var, reduction="none"), atol=1e-6)

# %%
# Two terms and their units
# -------------------------
# The standard normal p(z) is the *prior* of the code, and p(x|z) is the decoder's probability of an
# image. One would like to maximise ln p(x), where p(x) is the mean of p(x|z) over the prior, or of
# p(x|z) p(z) / q(z|x) over q. Since the logarithm of a mean is no less than the mean of the
# logarithms, a bound can be computed, the *evidence lower bound* (ELBO). Minus it is the loss:
#
# .. math:: -\ln p(x) \;\le\; E_{q(z|x)}[-\ln p(x|z)] + \mathrm{KL}(q(z|x) \,\|\, p(z)).
#
# The first term, the *reconstruction*, is what it takes to describe the image when the code is
# known: here the binary cross-entropy, *summed* over the pixels, at one draw of z. The second, the
# *divergence*, is what the code costs, *summed* over its numbers. Both are in nats per image. A
# grey pixel costs its entropy even when it is drawn exactly, so the sum stays well above 0.

try:
    digits = MNIST(train=True)
except (FileNotFoundError, ImportError):
    digits = SyntheticDigits(2000)  # drawn ones, where MNIST has not been downloaded
scans = minidl.tensor(digits.images[:2000, None] / 255, dtype=minidl.float32)
X = F.avg_pool2d(scans, 2).flatten(1)  # (2000, 196): digits of 14 x 14 pixels


class VAE(nn.Module):
    """196 pixels, 128 units, a code of 2 numbers, and back."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(196, 128), nn.Tanh(), nn.Linear(128, 4))
        self.decoder = nn.Sequential(nn.Linear(2, 128), nn.Tanh(), nn.Linear(128, 196))
        self.decoder[-1].bias.data.fill_(-2)  # most pixels are dark

    def forward(self, x):
        mean, log_var = self.encoder(x).chunk(2, 1)  # (N, 2) each
        return self.decoder(reparameterise(mean, log_var)), mean, log_var


def terms(model, x):
    """Reconstruction and divergence of images (N, 196), in nats per image."""
    logits, mean, log_var = model(x)
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return reconstruction / len(x), F.gaussian_kl(mean, log_var) / len(x)


def fit(beta, epochs=12, lr=5e-3):
    """A model trained on reconstruction + beta * divergence."""
    minidl.manual_seed(0)
    model = VAE()
    optimizer = Adam(model.parameters())
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = lr * 0.1 ** (epoch / epochs)
        for (x,) in DataLoader(TensorDataset(X), 100, shuffle=True):
            reconstruction, divergence = terms(model, x)
            optimizer.zero_grad()
            (reconstruction + beta * divergence).backward()
            optimizer.step()
    return model


# %%
# Balance and collapse
# --------------------
# A weight beta on the divergence, the beta-VAE of Higgins and others, trades one term for the
# other: a code that may cost little can say little. Taking a mean where the ELBO has a sum also
# sets a beta, unseen. ``F.mse_loss`` and ``F.binary_cross_entropy`` average over the pixels by
# default; with the divergence per image beside them,
#
# .. math:: \frac{\text{reconstruction}}{196} + \text{divergence}
#           = \frac{1}{196} \left( \text{reconstruction} + 196 \cdot \text{divergence} \right):
#
# the gradient is that of beta = 196, but for a factor, to which Adam is blind (chapter 11).

models = {beta: fit(beta) for beta in (0.1, 1, 4, 196)}
for beta, model in models.items():
    with minidl.no_grad():
        r, d = (term.item() for term in terms(model, X))
    print(f"beta {beta:5g}: reconstruction {r:.2f} + KL {d:.3f} = {r + d:.2f} nats per image")
average = X.mean(0, keepdim=True)  # (1, 196)
by_average = F.binary_cross_entropy(average + 0 * X, X, reduction="sum").item() / len(X)
print(f"mean image for all: reconstruction {by_average:.2f}")
assert abs((r + d) / by_average - 1) < 0.01

# %%
# The sum is a bound for every model, whatever beta it was trained with; beta = 1 minimises it. With
# beta = 196 the divergence falls to 0: *posterior collapse* (q(z|x) approximates the posterior
# p(z|x)). The encoder gives N(0, 1) for every image: the code holds nothing, and the mean image is
# the best a decoder can do.
#
# It threatens at beta = 1, too, early in training, when the code says little and giving it up is
# the quickest gain. So Bowman and others raise beta slowly from 0, as ``examples/mnist_vae.py``
# does. In the figure the codes are means, not draws.


def decode(model, z):
    """Each pixel's probability of white, for codes (N, 2)."""
    return F.sigmoid(model.decoder(z)).view(-1, 1, 14, 14)


rows = {"images": X[:10].view(10, 1, 14, 14)}
with minidl.no_grad():
    rows |= {f"beta {b:g}": decode(m, m.encoder(X[:10])[:, :2]) for b, m in models.items()}
rows["mean image"] = average.view(1, 1, 14, 14)
assert (rows["beta 196"] - rows["mean image"]).abs().max().item() < 0.15
show_images(rows)

# %%
# What the code says
# ------------------
# On the left each image is a point at its mean; the colours, which the model never saw, are its
# digit. The dashed circle holds 95% of the prior. On the right codes are decoded, taken at equal
# steps of the prior's probability: z is the inverse of its distribution function at (i + 1/2) / 12.
# Nearby codes decode to similar shapes, also between the digits.

model = models[1]
side = [NormalDist().inv_cdf((i + 0.5) / 12) for i in range(12)]
grid = minidl.tensor([[a, b] for b in reversed(side) for a in side])  # (144, 2)
with minidl.no_grad():
    means = model.encoder(X)[:, :2].numpy()  # (2000, 2)
    sheet = make_grid(decode(model, grid), nrow=12, padding=0).numpy()[0]  # (168, 168)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
dots = left.scatter(*means.T, c=digits.labels[:2000], cmap="tab10", vmin=-0.5, vmax=9.5, s=4)
left.add_patch(plt.Circle((0, 0), np.sqrt(-2 * np.log(0.05)), fill=False, linestyle="--"))
left.set(xlabel="first number of the code", ylabel="second number", aspect="equal")
figure.colorbar(dots, ax=left, ticks=range(10), label="digit", shrink=0.8)
right.imshow(sheet, cmap="gray", extent=(0, 1, 0, 1))
right.set(xlabel="share of the prior below the first number", ylabel="below the second number")
plt.show()

# %%
# Exercise: a hidden beta
# -----------------------
# A program minimises ``binary_cross_entropy(y, x) + gaussian_kl(mean, log_var, reduction="mean")``:
# each term is a mean over all its elements. Which beta is that, for images of so many pixels and
# codes of so many numbers?


def hidden_beta(pixels, code):
    """The beta for which reconstruction + beta * divergence has this minimum."""
    return ...


def by_weights(pixels, code):
    x, z = minidl.full((3, pixels), 0.5), minidl.ones(3, code)
    of_pixels = F.binary_cross_entropy(x, x) / F.binary_cross_entropy(x, x, reduction="sum")
    of_code = F.gaussian_kl(z, z, reduction="mean") / F.gaussian_kl(z, z)
    return of_code / of_pixels


check(hidden_beta, by_weights, [(784, 2), (196, 20)])
