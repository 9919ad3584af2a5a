"""
11. Momentum and Adam, term by term
===================================

Gradient descent is slow where the loss curves far more in one direction than in another: the step
that the steep direction allows is tiny for the flat one. Momentum adds up the gradients that agree;
Adam divides each parameter's step by the usual size of its gradient. A quadratic valley shows each
of their terms at work.

Explains ``minidl/optim/sgd.py`` and ``minidl/optim/adam.py``.

Sources: B. Polyak, Some methods of speeding up the convergence of iteration methods, 1964; I.
Sutskever et al., On the importance of initialization and momentum in deep learning, 2013; D.
Kingma, J. Ba, Adam: a method for stochastic optimization, arXiv:1412.6980, 2015; G. Goh, Why
momentum really works, Distill, 2017, doi:10.23915/distill.00006.
"""

import math
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import brentq

import minidl
from minidl.optim import SGD, Adam
from minidl.plot import curves
from minidl.tools.exercise import check

# %%
# Gradient descent and its largest stable step
# --------------------------------------------
# The valley has curvature 1 along the first axis and L = 25 along the second:
#
# .. math:: f(p) = \tfrac{1}{2}\, p^\top A\, p, \quad
#           A = \begin{bmatrix} 1 & 0 \\ 0 & L \end{bmatrix}, \quad \nabla f(p) = A\, p.
#
# Near a minimum a smooth loss is close to such a function, with an axis for each parameter. A step
# p <- p - lr A p multiplies each axis by its own factor: 1 - lr along the valley and 1 - lr L
# across.

L, start = 25.0, np.array([-10.0, 2.0])
A = np.diag([1.0, L])


def sgd_path(lr, momentum=0.0, nesterov=False, steps=60):
    """The points (steps + 1, 2) that gradient descent passes through."""
    p, v, path = start, 0.0, [start]
    for _ in range(steps):
        g = A @ p
        v = momentum * v + g
        p = p - lr * (g + momentum * v if nesterov else v)
        path.append(p)
    return np.array(path)


def f(path, A=A):
    """The loss p A p / 2 at each point of a path (T, 2)."""
    return np.sum((path @ A) * path, axis=1) / 2


def draw(axis, paths, A=A):
    """Paths over the contour lines of the loss."""
    grid = np.mgrid[-11:5:80j, -8:4:80j]  # (2, 80, 80)
    loss = f(grid.reshape(2, -1).T, A).reshape(80, 80)
    axis.contour(*grid, loss, np.geomspace(0.5, 500, 9), colors="lightgray")
    for name, path in paths.items():
        axis.plot(*path.T, ".-", label=name, linewidth=1)
    axis.set(xlabel="first parameter", ylabel="second parameter", aspect="equal")
    axis.legend(loc="lower right", fontsize="small")


# %%
# An axis shrinks while its factor lies between -1 and 1. Across the valley that asks for lr < 2 /
# L: this is the largest stable step, and the steepest direction alone sets it. Below 1 / L the path
# bends into the valley, between 1 / L and 2 / L it jumps from side to side, and above 2 / L it is
# thrown out. Meanwhile the flat direction keeps at least 1 - 2 / L of its distance in each step.

paths = {f"lr = {c:g} / L": sgd_path(c / L, steps=30) for c in (0.5, 1.9, 2.02)}
figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
draw(axis, paths)
plt.show()

# %%
# Momentum: gradients that agree add up
# -------------------------------------
# Momentum steps along a running sum v of the gradients, in which each counts :math:`\mu` times as
# much as the next. This is the form of PyTorch and minidl:
#
# .. math:: v \leftarrow \mu\, v + g, \qquad p \leftarrow p - \mathrm{lr}\; v.
#
# Equal gradients add up to g / (1 - mu), those that change sign at each step cancel to g / (1 +
# mu). So the flat direction is speeded up and the steep one calmed: the largest stable step grows;
# the exercise asks how far.
#
# Polyak and Sutskever write v <- mu v - lr g and p <- p + v. With a constant lr that is the same
# path. *Nesterov's* form evaluates the gradient not where the parameters are but where the momentum
# is about to carry them. Written for the point looked ahead to, which is what is stored, that is
# the line with ``g + momentum * v`` in ``sgd_path``. minidl's optimisers take the same steps:


def minidl_path(make, A=A, start=start):
    """The points (61, 2) that an optimiser passes through; `make` makes it from its parameters."""
    p, A, path = minidl.tensor(start, requires_grad=True), minidl.tensor(A), [start]
    optimizer = make([p])
    for _ in range(60):
        optimizer.zero_grad()
        (p @ A @ p / 2).backward()
        optimizer.step()
        path.append(p.detach().numpy().copy())
    return np.array(path)


for settings in {"momentum": 0.0}, {"momentum": 0.6}, {"momentum": 0.6, "nesterov": True}:
    by_minidl = minidl_path(partial(SGD, lr=1 / L, **settings))
    assert np.allclose(sgd_path(1 / L, **settings), by_minidl, rtol=1e-12)

# %%
# Polyak computed the best lr and momentum for given curvatures. In the long run each step then
# shrinks the distance by the factor :math:`(\sqrt{L} - 1) / (\sqrt{L} + 1)`; the best gradient
# descent, lr = 2 / (1 + L), has (L - 1) / (L + 1). So the number of steps grows with the square
# root of L instead of L. The loss may rise first: Polyak's lr is above 2 / L. Nesterov's method is
# drawn with its textbook settings.

root, factors = L**0.5, ((L - 1) / (L + 1), (L**0.5 - 1) / (L**0.5 + 1))
print(f"factors {factors[0]:.3f} without and {factors[1]:.3f} with momentum")
paths = {
    "gradient descent": sgd_path(2 / (1 + L)),
    "Polyak's momentum": sgd_path(4 / (1 + root) ** 2, factors[1] ** 2),
    "Nesterov's": sgd_path(1 / L, factors[1], nesterov=True),
}
curves({name: f(path)[:41] for name, path in paths.items()}, "step", "loss", x=range(41), log=True)

# %%
# Adam: two running means
# -----------------------
# Adam keeps two running means for each parameter, m of the gradient and v of its square, and at
# step t = 1, 2, ... divides one by the root of the other:
#
# .. math:: m \leftarrow \beta_1 m + (1 - \beta_1)\, g, \qquad
#           v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2,
#
# .. math:: \hat m = \frac{m}{1 - \beta_1^t}, \quad \hat v = \frac{v}{1 - \beta_2^t}, \quad
#           p \leftarrow p - \mathrm{lr}\, \frac{\hat m}{\sqrt{\hat v} + \epsilon}.


def adam_steps(gradients, beta1=0.9, beta2=0.999, eps=1e-8, corrected=True):
    """What Adam subtracts at each step, for lr = 1, given the gradients (T,) or (T, D)."""
    m, v, steps = 0.0, 0.0, []
    for t, g in enumerate(gradients, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t) if corrected else m
        v_hat = v / (1 - beta2**t) if corrected else v
        steps.append(m_hat / (np.sqrt(v_hat) + eps))
    return np.array(steps)


path = minidl_path(partial(Adam, lr=0.5))
assert np.allclose(np.diff(path, axis=0), -0.5 * adam_steps(path[:-1] @ A), rtol=1e-9)

# %%
# Bias correction
# ---------------
# A running mean that starts at 0 is too small at first: after t steps the weights of the gradients
# in m sum to :math:`1 - \beta_1^t`, and those of their squares in v to :math:`1 - \beta_2^t`.
# Divided by these sums, both are weighted means. Without it the first steps would not be too small
# but too *large*: v forgets more slowly, so it is further from its final value than m is, and m is
# divided by its root. For a constant gradient the step should be lr:

constant, t = np.ones(200), np.arange(1, 201)
without = adam_steps(constant, corrected=False)
print(f"without it: first step {without[0]:.2f} lr, largest {without.max():.2f} lr")
assert np.allclose(without, (1 - 0.9**t) / np.sqrt(1 - 0.999**t), rtol=1e-5)
steps = {"with bias correction": adam_steps(constant), "without": without}
curves(steps, "step t", "size of the step, in lr")

# %%
# lr bounds the step, nearly
# --------------------------
# Gradients a thousand times as large make m and the root of v a thousand times as large and leave
# the step as it was; at t = 1 it is lr times the sign of the gradient. So lr has the unit of the
# parameters. Gradients that change sign cancel in m but not in v, and the steps become small, as
# near a minimum or in noise.
#
# lr is not a strict bound: after a long time without a gradient, the first one gives a step of (1 -
# beta1) / sqrt(1 - beta2) times lr, and if it stays, the next steps follow the orange curve, as
# bias correction has worn off. The Cauchy-Schwarz inequality bounds every sequence.
#
# The last term, eps, keeps the quotient finite where gradients vanish. It is a threshold: a
# gradient g that is small beside eps moves its parameter by only lr g / eps.

noise = np.random.default_rng(0).normal(size=1000)
assert np.allclose(adam_steps(noise), adam_steps(1000 * noise), rtol=1e-4)
print(f"pure noise: {np.abs(adam_steps(noise)[500:]).mean():.2f} lr on average")
woken = adam_steps(np.repeat([0.0, 1.0], [10_000, 50]))[10_000:]
bound = (1 - 0.9) / math.sqrt((1 - 0.999) * (1 - 0.9**2 / 0.999))
print(f"after zeros: first {woken[0]:.2f} lr, largest {woken.max():.2f} lr, bound {bound:.2f} lr")
for g in 1e-4, 1e-8, 1e-10:
    print(f"gradient {g:.0e}: a first step of {adam_steps([g])[0]:.4f} lr")

# %%
# Adam rescales axes, not directions
# ----------------------------------
# In a valley along an axis Adam starts with equal steps along both axes, however narrow it is.
# Turned by 45 degrees, the same valley gives both parameters gradients of about the same size.
# Dividing by it changes little: Adam first crosses the valley, then goes along it in smaller steps.

turn = np.array([[1, -1], [1, 1]]) / math.sqrt(2)
turned = turn @ A @ turn.T
diagonal = minidl_path(partial(Adam, lr=0.5), turned, turn @ start)
print(f"loss after 20 steps: {f(path)[20]:.2f}, in the turned valley {f(diagonal, turned)[20]:.2f}")
figure, axes = plt.subplots(1, 2, figsize=(8, 3.1), layout="constrained")
draw(axes[0], {"Adam": path})
draw(axes[1], {"Adam, the valley turned": diagonal}, turned)
plt.show()

# %%
# Weight decay inside Adam
# ------------------------
# ``weight_decay`` adds weight_decay * p to the gradient, the derivative of an L2 penalty. In SGD
# this multiplies p by 1 - lr * weight_decay at each step. In Adam it is divided by the root of v
# like the rest of the gradient. Where the loss has large gradients, little is left of it; where it
# has none, the decay alone moves p at full speed, *whatever its coefficient*. AdamW (Loshchilov and
# Hutter, arXiv:1711.05101) shrinks p outside the quotient instead.

for decay in 1e-4, 1e-1:
    p = minidl.ones(1, requires_grad=True)
    p.grad = minidl.zeros(1)  # a parameter that the loss does not depend on
    Adam([p], lr=0.01, weight_decay=decay).step()
    print(f"weight_decay {decay:g}: Adam takes 1 to {p.item():.6f}, SGD to {1 - 0.01 * decay:.6f}")

# %%
# Exercise: the largest stable step with momentum
# -----------------------------------------------
# On an axis with curvature L, where g = L p, the two lines of momentum give the next p as (1 + mu -
# lr L) p minus mu times the p before. It shrinks if both roots of z^2 - (1 + mu - lr L) z + mu lie
# inside the unit circle. Up to which lr do they?


def largest_stable_lr(L, mu):
    """The learning rate above which momentum diverges."""
    return ...


def by_search(L, mu):
    return brentq(lambda lr: abs(np.roots([1, lr * L - 1 - mu, mu])).max() - 1, 1 / L, 10 / L)


check(largest_stable_lr, by_search, [(25.0, 0.0), (25.0, 0.9), (4.0, 0.5)])
