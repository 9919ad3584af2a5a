"""
12. What a code holds
=====================

An autoencoder squeezes an image into a few numbers, its *code*, and draws the image again from
these. With linear maps it can do no better than principal component analysis (PCA), and training
finds exactly that optimum. This gives a baseline for nonlinear ones, which pays off: they are
better where the code is short, and not always where it is long.

Explains ``examples/linear_autoencoder_pca.py``, ``examples/mnist_autoencoder.py`` and the layers of
``minidl/nn/layers.py`` that they are made of.

Sources: H. Bourlard, Y. Kamp, Auto-association by multilayer perceptrons and singular value
decomposition, 1988; P. Baldi, K. Hornik, Neural networks and principal component analysis: learning
from examples without local minima, 1989; C. Eckart, G. Young, The approximation of one matrix by
another of lower rank, 1936.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.linalg import subspace_angles

import minidl
from minidl import nn
from minidl.data import MNIST, DataLoader, SyntheticDigits, TensorDataset
from minidl.nn import functional as F
from minidl.optim import Adam
from minidl.plot import show_images
from minidl.tools.exercise import check

# %%
# The images are digits, halved to 14 x 14 pixels. The mean image is removed: an autoencoder need
# not spend its code on what all images have in common.

try:
    digits = MNIST(train=True)
except (FileNotFoundError, ImportError):
    digits = SyntheticDigits(2000)  # drawn ones, where MNIST has not been downloaded
scans = minidl.tensor(digits.images[:2000, None] / 255, dtype=minidl.float32)
images = F.avg_pool2d(scans, 2)  # (2000, 1, 14, 14)
mean = images[:1500].mean(0)  # (1, 14, 14)
train, test = images[:1500] - mean, images[1500:] - mean
X, X_test = train.flatten(1), test.flatten(1)  # (1500, 196) and (500, 196)

# %%
# The best linear code: PCA
# -------------------------
# A linear autoencoder with a code of k numbers has two matrices, an encoder E (k, 196) and a
# decoder D (196, k). An image x becomes the code E x and the reconstruction D E x. So the
# reconstructions of all images form a matrix of rank k, and Eckart and Young found the one nearest
# to the images X. With the singular value decomposition
#
# .. math:: X = U\, S\, V^\top,
#
# this is X projected onto the first k columns of V, the *principal axes*: orthogonal directions in
# which the images vary most. What it misses is the variance along the others.

_, s, axes = np.linalg.svd(X.numpy(), full_matrices=False)  # (196,), a row of axes for each


def pca(x, k):
    """Images (N, 196) projected onto the first k axes."""
    return x @ axes[:k].T @ axes[:k]  # (N, k), then (N, 196)


def error(y, x):
    """Squared error per pixel."""
    return F.mse_loss(minidl.as_tensor(y), x).item()


assert np.isclose(error(pca(X.numpy(), 8), X), np.sum(s[8:] ** 2) / X.numel(), rtol=1e-3)

# %%
# A linear autoencoder finds the same subspace
# --------------------------------------------
# Nothing in the loss mentions axes or variance, only the squared error. Baldi and Hornik showed
# that it has no local minimum but the global one, all other stationary points being saddles, so
# gradient descent should arrive at PCA. We take the code size between 4 and 12 after which the
# variance drops most, since axes with nearly equal variance are hard to tell apart.

k = 4 + int(np.argmax(s[3:12] / s[4:13]))
minidl.manual_seed(0)
encoder = nn.Linear(196, k, bias=False)  # weight (k, 196)
decoder = nn.Linear(k, 196, bias=False)  # weight (196, k)
optimizer = Adam([*encoder.parameters(), *decoder.parameters()])
for step in range(400):
    optimizer.param_groups[0]["lr"] = 0.02 * 0.03 ** (step / 400)
    loss = F.mse_loss(decoder(encoder(X)), X)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step in (0, 49, 99, 199, 399):
        E, D = encoder.weight.detach().numpy(), decoder.weight.detach().numpy()
        angle = np.degrees(subspace_angles(D, axes[:k].T)[0])  # the largest of k
        print(f"step {step + 1:3}: error {loss.item():.6f}, angle {angle:5.2f} degrees")

least = error(pca(X.numpy(), k), X)
print(f"code of {k}: linear autoencoder {loss.item():.6f}, PCA {least:.6f} per pixel")
assert abs(loss.item() / least - 1) < 0.001
assert angle < 2

# %%
# The *principal angles* compare two subspaces, whatever bases they are given in; the largest is 0
# if they are the same. The error reaches its optimum first: where two axes have nearly the same
# variance, mixing them up costs little.
#
# But not the axes
# ----------------
# The columns of D span what the principal axes span, and are not the axes. They need not even be
# orthogonal, since for every invertible matrix M the decoder D M with the encoder :math:`M^{-1} E`
# makes the same reconstructions. Training stops at one of these pairs, which depends on the start.
# What is determined is the product: D E is the projection, and therefore E D = I: encoding what a
# code decodes to gives the code back.

cosines = np.abs(axes[:k] @ D) / np.linalg.norm(D, axis=0)  # (k, k): axes, columns of D
print("columns of D, |cosine| with the nearest axis:", cosines.max(axis=0).round(2))
assert np.allclose(E @ D, np.eye(k), atol=0.01)
assert cosines.max(axis=0).min() < 0.95


def as_pictures(rows):
    """Rows (k, 196) of either sign as images: grey is 0."""
    return (0.5 + 0.5 * rows / np.abs(rows).max(1, keepdims=True)).reshape(-1, 1, 14, 14)


show_images({"principal axes": as_pictures(axes[:k]), "columns of D": as_pictures(D.T)})

# %%
# So a single number of the code means nothing by itself; what is learnt is the subspace.
#
# A nonlinear code
# ----------------
# With a nonlinear function between its layers the decoder can draw images that lie on a curved
# surface, not in a plane. It mirrors the encoder.


def autoencoder(k):
    """Encoder and decoder, by way of 32 maps of 4 x 4."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, stride=2, padding=1),  # (N, 1, 14, 14) to (N, 8, 7, 7)
        nn.LeakyReLU(0.1),
        nn.Conv2d(8, 32, 3, stride=2, padding=1),  # to (N, 32, 4, 4)
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.Linear(512, k),
    ), nn.Sequential(
        nn.Linear(k, 512),
        nn.LeakyReLU(0.1),
        nn.Unflatten(1, (32, 4, 4)),
        nn.ConvTranspose2d(32, 8, 3, stride=2, padding=1),  # to (N, 8, 7, 7)
        nn.LeakyReLU(0.1),
        nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1),  # to (N, 1, 14, 14)
    )


def fit(model, epochs=8, lr=5e-3):
    """Train with Adam and a falling learning rate."""
    optimizer = Adam(model.parameters())
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = lr * 0.1 ** (epoch / epochs)
        for (x,) in DataLoader(TensorDataset(train), 50, shuffle=True):
            optimizer.zero_grad()
            F.mse_loss(model(x), x).backward()
            optimizer.step()


sizes, errors, models = (2, 8, 32), [], {}
for k in sizes:
    model = models[k] = nn.Sequential(*autoencoder(k))
    fit(model)
    with minidl.no_grad():
        train_error, test_error = (error(model(x), x) for x in (train, test))
    errors.append(test_error)
    print(f"code of {k:2}: train {train_error:.4f}, test {test_error:.4f} per pixel", end=", ")
    print(f"PCA, test {error(pca(X_test.numpy(), k), X_test):.4f}")

figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
axis.plot([error(pca(X_test.numpy(), k), X_test) for k in range(41)], label="PCA")
axis.plot(sizes, errors, "o", label="convolutional network")
axis.set(xlabel="numbers in the code", ylabel="squared error per pixel, test images", ylim=0)
axis.legend()
plt.show()

# %%
# With 8 numbers the nonlinear code is the better one, also on the test images. With 32 numbers PCA
# is, which has its optimum at once, while the network is still far from its own after 8 epochs: a
# comparison of codes is one of trainings as well.

with minidl.no_grad():
    by_network = models[8](test)
by_pca = minidl.as_tensor(pca(X_test.numpy(), 8)).view(500, 1, 14, 14)
assert error(by_network, test) < error(by_pca, test)
rows = {"test images": test, "PCA, code of 8": by_pca, "network, code of 8": by_network}
show_images({name: row[:10] + mean for name, row in rows.items()})

# %%
# Between two codes
# -----------------
# Half way between two images lies a double exposure. Half way between two codes something else can
# lie, if the decoder is nonlinear: a linear one turns a blend of codes into the blend of their
# reconstructions.

encoder, decoder = models[8]
t = minidl.linspace(0, 1, 9).view(-1, 1)
with minidl.no_grad():
    first, second = encoder(test[:2])  # (8,) each
    in_code = decoder(first + t * (second - first))  # (9, 1, 14, 14)
in_pixels = test[0] + t.view(-1, 1, 1, 1) * (test[1] - test[0])  # (9, 1, 14, 14)
show_images({"blending codes": in_code + mean, "blending pixels": in_pixels + mean})

# %%
# Which midpoint looks more like a digit can be measured by its distance from the nearest training
# image, over many pairs of test images. The reconstructions are blended instead of the images, to
# compare like with like: they are smoother.


def distance(y):
    """Mean over images (N, 1, 14, 14) of the squared distance per pixel from the nearest in X."""
    y = y.flatten(1)  # (N, 196)
    squares = (y**2).sum(1).unsqueeze(1) + (X**2).sum(1) - 2 * y @ X.T  # (N, 1500)
    return squares.min(1).values.mean().item() / 196


with minidl.no_grad():
    a, b = encoder(test[:250]), encoder(test[250:])  # (250, 8) each
    apart, together = (decoder(a) + decoder(b)) / 2, decoder((a + b) / 2)
print(f"blended reconstructions {distance(apart):.4f} per pixel from the nearest digit")
print(f"blended codes           {distance(together):.4f}")
assert distance(together) < distance(apart)

# %%
# Midpoints of codes lie nearer to real digits, though not by much: nothing in the loss asks for
# codes between codes to mean anything. Chapter 13 adds a term that does.
#
# Exercise: the best encoder for a decoder
# ----------------------------------------
# Given a decoder D (pixels, k), its best code for an image x is the one whose reconstruction is
# nearest to x, as in linear regression. Write the encoder that computes it.


def best_encoder(D):
    """The matrix E (k, pixels) for which D E x is nearest to x, for all x."""
    return ...


def by_regression(D):
    return np.linalg.lstsq(D, np.eye(len(D)), rcond=None)[0]  # the best code of each unit vector


check(best_encoder, by_regression, [(D[:, :1].astype(float),), (D.astype(float),)])
