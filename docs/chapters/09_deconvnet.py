"""
9. Undoing a network
====================

What has a unit deep inside a network seen in an image? A *deconvnet* answers by sending the unit's
activation back to the pixels: it unpools where the network pooled, and applies the filters
transposed. That is the backward pass with another rule at each ReLU. This chapter builds it by
hand, compares three rules, and ends with a test that two of them fail.

Explains ``minidl/ops/activation.py`` (``relu`` and ``relu_rule``) and
``examples/feature_visualisation.py``, which draws such pictures for whole layers.

Sources: M. D. Zeiler, R. Fergus, Visualizing and understanding convolutional networks,
arXiv:1311.2901, 2014; K. Simonyan, A. Vedaldi, A. Zisserman, Deep inside convolutional networks,
arXiv:1312.6034, 2014 (the gradient); J. Springenberg et al., Striving for simplicity,
arXiv:1412.6806, 2015 (guided backpropagation); J. Adebayo et al., Sanity checks for saliency maps,
arXiv:1810.03292, 2018; W. Nie, Y. Zhang, A. Patel, A theoretical explanation for perplexing
behaviors of backpropagation-based visualizations, arXiv:1805.07039, 2018.
"""

import inspect

import matplotlib.pyplot as plt
import numpy as np

import minidl
from minidl import nn, optim
from minidl.data import MNIST, SyntheticDigits
from minidl.nn import functional as F
from minidl.ops import activation
from minidl.plot import show_images
from minidl.tools.exercise import check

# %%
# A network to look into
# ----------------------
# Two convolutions, each with a ReLU and a max-pool, and a linear layer that scores the ten classes;
# briefly trained on a few digits.

try:
    digits = MNIST(train=False)
except (FileNotFoundError, ImportError):
    digits = SyntheticDigits(3000)  # drawn ones, where MNIST has not been downloaded
scans = minidl.tensor(digits.images[:2000, None] / 255, dtype=minidl.float32)  # (2000, 1, 28, 28)
labels = minidl.tensor(digits.labels[:2000]).long()


def network():
    return nn.Sequential(
        nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2),  # to (N, 8, 24, 24), then (N, 8, 12, 12)
        nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2),  # to (N, 16, 8, 8), then (N, 16, 4, 4)
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


minidl.manual_seed(0)
model = network()
optimizer = optim.Adam(model.parameters(), lr=3e-3)
for _ in range(3):
    for batch in minidl.randperm(1500).chunk(30):
        optimizer.zero_grad()
        F.cross_entropy(model(scans[batch]), labels[batch]).backward()
        optimizer.step()
accuracy = (model(scans[1500:]).argmax(1) == labels[1500:]).float().mean().item()
print(f"accuracy on 500 other digits: {accuracy:.2f}")
assert accuracy > 0.8

# %%
# From one activation to the pixels
# ---------------------------------
# We look at the second convolution, after its ReLU: 16 maps of 8 x 8 activations. For each of its 8
# strongest filters, take the digit that excites it most, and of that digit's activations keep only
# this filter's greatest. That is the seed. (To keep the greatest of a map and set all else to zero
# is to max-pool the whole map and unpool it.)

with minidl.no_grad():
    greatest = model[:5](scans).numpy().max(axis=(2, 3))  # (2000, 16)
    filters = np.argsort(-greatest.max(axis=0))[:8]
    images = scans[greatest[:, filters].argmax(axis=0)]  # (8, 1, 28, 28), one for each filter
    y = model[:5](images)  # (8, 16, 8, 8)
    peaks = F.max_unpool2d(*F.max_pool2d(y, 8, return_indices=True), 8)
    seed = peaks * F.one_hot(minidl.tensor(filters), 16).view(8, 16, 1, 1)

# %%
# The deconvnet undoes layer by layer what the network did. A convolution is undone by its
# transpose, pooling by unpooling with the switches (chapter 8), and the ReLU by another ReLU:
# feature maps are never negative, so what is sent back is kept from being so. "Undone" is meant
# loosely. The transpose is not the inverse; it sends each activation back along the weights it came
# from.

conv1, conv2 = model[0], model[3]


def deconvnet(seed, switches):
    """Activations (N, 16, 8, 8) to pixels (N, 1, 28, 28), step by step."""
    filtered = F.conv_transpose2d(seed, conv2.weight)  # (N, 8, 12, 12)
    unpooled = F.max_unpool2d(filtered, switches, 2)  # (N, 8, 24, 24)
    rectified = F.relu(unpooled)
    return filtered, unpooled, rectified, F.conv_transpose2d(rectified, conv1.weight)


with minidl.no_grad():
    switches = F.max_pool2d(F.relu(conv1(images)), 2, return_indices=True)[1]
    steps = seed, *deconvnet(seed, switches), images
titles = "seed", "transposed filters", "unpooled", "rectified", "transposed filters", "image"
figure, axes = plt.subplots(2, 3, figsize=(7, 5), layout="constrained")
for axis, title, maps in zip(axes.flat, titles, steps, strict=True):
    picture = max(maps[0].numpy(), key=np.max)  # of the channels, the one with the greatest value
    axis.imshow(picture, cmap="RdBu_r", vmin=-np.abs(picture).max(), vmax=np.abs(picture).max())
    axis.set(title=f"{title}, {len(picture)} x {len(picture)}", xticks=[], yticks=[])
plt.show()

# %%
# Red is positive, blue negative; of several channels, the one with the greatest value is shown.
# Note what the image contributes: its switches, and the seed. Its pixels and the signs of its
# activations play no other part. In a network without pooling, a unit's picture would be the same
# for every image but for its scale, which is what led Springenberg et al. to the third of the rules
# below.
#
# It is the backward pass
# -----------------------
# The transposed convolution is the gradient of the convolution (chapter 5), and unpooling that of
# max-pooling. Only the ReLU is treated differently. So no deconvnet has to be built: it is enough
# to change what the backward pass does at a ReLU, and `minidl.relu_rule` does that.


def project(layers, images, seed, rule):
    """Send the seed back through the layers to the images, with that rule at each ReLU."""
    x = images.detach().requires_grad_()
    with minidl.relu_rule(rule):
        return minidl.grad(layers(x), x, seed)[0]


assert minidl.allclose(project(model[:5], images, seed, "deconv"), steps[-2], atol=1e-6)

# %%
# Three rules
# -----------
# With y the output of the ReLU, gy what arrives from above, and [condition] 1 if it holds and 0 if
# not, the rules are
#
# - the gradient, :math:`gx = gy \, [y > 0]`: units that were active pass on what arrives;
# - the deconvnet, :math:`gx = gy \, [gy > 0]`: all units pass on what is positive;
# - *guided backpropagation*, :math:`gx = gy \, [y > 0] \, [gy > 0]`: both conditions.
#
# Here are the four combinations of an active unit or not and a positive signal or not, then
# minidl's code:

x = minidl.tensor([3.0, 3.0, -3.0, -3.0], requires_grad=True)
gy = minidl.tensor([1.0, -1.0, 1.0, -1.0])
rules = "gradient", "deconv", "guided"
for rule in rules:
    print(f"{rule:9}{project(minidl.relu, x, gy, rule).tolist()}")
print(inspect.getsource(activation.relu_backward))

# %%
# In pictures, for the eight filters and their digits, cut to the 14 x 14 pixels that one activation
# of this layer depends on. Grey is zero.


def grey(maps):
    """Scale each map (N, C, H, W) to the range 0 to 1, with 0 in the middle."""
    return 0.5 + maps / (2 * np.abs(maps).max(axis=(1, 2, 3), keepdims=True))


def cut(maps):
    """The pixels that the seeds depend on: an activation (i, j) sees 14 x 14 from (2i, 2j) on."""
    _, _, rows, columns = np.nonzero(seed.numpy())
    corners = zip(maps.numpy(), 2 * rows, 2 * columns, strict=True)
    return np.stack([image[:, i : i + 14, j : j + 14] for image, i, j in corners])


projections = {rule: cut(project(model[:5], images, seed, rule)) for rule in rules}
show_images({"image": cut(images), **{rule: grey(maps) for rule, maps in projections.items()}})

# %%
# The guided pictures are the cleanest: a signal reaches the image only along units that were active
# and speak for the activation. But a cleaner picture is not a truer one. Only the first rule
# computes a derivative, which predicts how the eight activations change with the pixels; here, by
# how much they grow together when the contrast rises by 1%.

active = (seed > 0).float()
with minidl.no_grad():
    lighter, darker = ((model[:5](images * c) * active).sum().item() for c in (1.005, 0.995))
print(f"activations grow by   {lighter - darker:.3f}")
for rule in rules:
    predicted = (project(model[:5], images, active, rule) * 0.01 * images).sum().item()
    print(f"predicted by {rule:9}{predicted:.3f}")
    assert rule != "gradient" or np.isclose(predicted, lighter - darker, rtol=0.01)

# %%
# A caution
# ---------
# A picture that explains what a network has learned has to change when the network has learned
# something else. Adebayo et al. test this by drawing weights anew: first those of the last layer,
# so that the class scores mean nothing any more, then all of them. Below, the seed is a 1 at the
# score of the digit's class.

redrawn = nn.Sequential(*model[:7], nn.Linear(256, 10))
networks = {"trained": model, "last layer redrawn": redrawn, "all redrawn": network()}
others, classes = scans[1500:1600], F.one_hot(labels[1500:1600], 10).float()
maps = {
    (rule, name): project(net, others, classes, rule).numpy()
    for rule in rules
    for name, net in networks.items()
}
show_images({"image": others[:6], **{f"{r}: {n}": grey(m[:6]) for (r, n), m in maps.items()}})

# %%
# The gradient becomes another picture. The guided maps, and those of the deconvnet, show the digit
# in all three networks, although two of these cannot tell one digit from another. As numbers, the
# correlation of each map with that of the trained network, averaged over 100 digits:


def correlation(rule, name):
    """Correlation of the pixels with those of the trained network's maps, mean over the images."""
    pairs = zip(maps[rule, "trained"], maps[rule, name], strict=True)
    return np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])


for rule, name in maps:
    print(f"{rule:10}{name:20}{correlation(rule, name):6.2f}")
assert abs(correlation("gradient", "last layer redrawn")) < 0.2
assert min(correlation(rule, "last layer redrawn") for rule in rules[1:]) > 0.5

# %%
# Adebayo et al. found this for guided backpropagation (they did not test the deconvnet), and Nie et
# al. explain it for both: rectifying the backward signal makes these methods recover parts of the
# image, with random weights, too. Such a picture may say more about the image than about the
# network. Before it is taken as an explanation, it should be compared with that of a random
# network.
#
# Exercise: guided backpropagation by hand
# ----------------------------------------
# For a network of two convolutions with a ReLU between them, ``conv2d(relu(conv2d(image, w1)),
# w2)``, write the guided pass as ``deconvnet`` above was written, without ``minidl.grad``.


def guided(seed, image, w1, w2):
    """The seed, of the output's shape, sent back to the image."""
    return ...


def by_minidl(seed, image, w1, w2):
    return project(lambda x: F.conv2d(F.relu(F.conv2d(x, w1)), w2), image, seed, "guided")


sizes = (1, 3, 4, 4), (1, 1, 8, 8), (5, 1, 3, 3), (3, 5, 3, 3)  # of the four arguments
check(guided, by_minidl, [[minidl.randn(*size) for size in sizes] for _ in range(2)])
