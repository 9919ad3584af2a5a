"""
3. Trusting a gradient
======================

A wrong gradient rarely stops a training; it only makes it worse. So a gradient is compared with
something that does not know its formula: differences of function values or, for a linear operation,
two scalar products. How exact are these checks, and which mistakes does each of them miss?

Explains ``minidl/testing/gradcheck.py``, ``minidl/testing/_diagnosis.py``,
``minidl/testing/adjoint.py`` and ``minidl/testing/property_test.py``.

Sources: A. Baydin et al., Automatic differentiation in machine learning: a survey,
arXiv:1502.05767, 2018; N. Higham, Accuracy and stability of numerical algorithms, SIAM 2002.
"""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from hypothesis import Phase, settings

import minidl
from minidl.autograd import record
from minidl.nn import functional as F
from minidl.testing import property_test_gradient, shapes, tensors
from minidl.tools.exercise import check

# %%
# Two difference quotients
# ------------------------
# The derivative is the limit of a difference quotient, and a small step h comes close to it.
# Taylor's formula tells how close, for the *forward* quotient
#
# .. math:: \frac{f(x+h) - f(x)}{h} = f' + \frac{h}{2} f'' + \ldots
#
# and for the *central* one, where the term with h cancels: both sides err by as much in opposite
# directions.
#
# .. math:: \frac{f(x+h) - f(x-h)}{2h} = f' + \frac{h^2}{6} f''' + \ldots
#
# Half the step gives about half the error of the former, and a quarter of that of the latter:


def forward(f, x, h):
    """(f(x + h) - f(x)) / h, with an error of order h."""
    return (f(x + h) - f(x)) / h


def central(f, x, h):
    """(f(x + h) - f(x - h)) / 2h, with an error of order h^2."""
    return (f(x + h) - f(x - h)) / (2 * h)


for h in (0.1, 0.05, 0.025):
    errors = [quotient(np.exp, 1.0, h) - np.e for quotient in (forward, central)]
    print(f"h = {h:5}: error {errors[0]:.5f} forward, {errors[1]:.5f} central")

# %%
# The V
# -----
# A step can also be too small. A computer stores f(x) with a relative error of about
# :math:`\varepsilon`, the distance from 1 to the next number. As h shrinks, so does f(x + h) -
# f(x), but its rounding error does not, and is divided by h. Both errors form a V on logarithmic
# axes:


figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
for axis, dtype in zip(axes, (np.float64, np.float32), strict=True):
    steps = (10.0 ** np.arange(0, -15, -0.1)).astype(dtype)
    for quotient, colour in (forward, "tab:orange"), (central, "tab:blue"):
        error = np.abs(quotient(np.exp, dtype(1), steps).astype(np.float64) / np.e - 1)
        axis.loglog(steps, error, ".", markersize=3, color=colour, label=quotient.__name__)
    axis.set(title=dtype.__name__, xlabel="step h", ylim=(1e-13, 10))
    eps = np.finfo(dtype).eps
    print(f"{dtype.__name__}: best step {np.sqrt(eps):.0e} forward, {np.cbrt(eps):.0e} central")
axes[0].set_ylabel("relative error of the quotient")
axes[0].legend()
plt.show()

# %%
# The right arm has slope 1 or 2, the order of the quotient, and the left arm -1, up to where x + h
# rounds to x. The sum of h and :math:`\varepsilon / h` is least at :math:`h = \varepsilon^{1/2}`,
# that of :math:`h^2` and :math:`\varepsilon / h` near :math:`h = \varepsilon^{1/3}`, where it is
# about :math:`\varepsilon^{2/3}`.
#
# So central differences in float64 are right to ten digits, enough to find a wrong formula. In
# float32 it is four or five, and fewer for a loss that sums over a batch. That is why
# `minidl.gradcheck` takes central differences with a step of 1e-6, and float64 only.
#
# gradcheck
# ---------
# As an example take the swish, y = x s with s = sigmoid(x). By the product rule its derivative is s
# + x s (1 - s); the gradient below forgets the second term. `minidl.autograd.record` puts an
# operation on the tape: its name, its value, and the function from gy to gx for each input.


def swish(x):
    s = minidl.sigmoid(x)
    return record("swish", x.array * s.array, (x, lambda gy: gy * s))


minidl.manual_seed(0)
x = (minidl.rand(3, dtype=minidl.float64) + 0.5).requires_grad_()
try:
    minidl.gradcheck(swish, x)
except minidl.GradcheckError as error:
    print(error)

# %%
# The Jacobian is compared element by element. A column comes from a difference quotient: one
# element of the input moves, and all outputs answer. A row comes from the backward pass, with a gy
# that is 0 except in one place. There it is a random number, not 1, or a gradient that ignores or
# squares gy would pass.
#
# The verdict comes from a walk along the V. If the quotients agree with each other over a range of
# steps, and not with the gradient, the gradient is wrong. If the slopes to the left and to the
# right do not approach each other, the point is a kink. ReLU at 0 has the slopes 0 and 1, and the
# central quotient is their mean for every h. At a tie, such as two equal inputs of a maximum, it is
# the same. Test inputs should keep away from both.


try:
    minidl.gradcheck(F.relu, minidl.zeros(1, dtype=minidl.float64, requires_grad=True))
except minidl.GradcheckError as error:
    print(str(error)[str(error).index("Verdict") :])

plt.figure(figsize=(6, 2.6), layout="constrained")
plt.plot([-1, 0, 1], [0, 0, 1], color="gray", label="ReLU")
for name, a, b in ("left", -0.5, 0), ("right", 0, 0.5), ("central", -0.5, 0.5):
    plt.plot([a, b], [max(a, 0), max(b, 0)], "o--", label=f"{name} quotient")
plt.gca().set(xlabel="x", ylabel="y")
plt.legend()
plt.show()

# %%
# Adjoints: a check without a step
# --------------------------------
# If an operation is linear, y = A x, its Jacobian is A everywhere, and its vector-Jacobian product
# multiplies by the transpose, the *adjoint* of A. Two functions A and At are adjoint if
#
# .. math:: \langle A x,\, y \rangle = \langle x,\, A^T y \rangle \quad\text{for all } x, y.
#
# `minidl.check_adjoint` compares the two sides for random x and y: no step, hence no V, in float32
# as in float64. The adjoint of a convolution is `minidl.nn.functional.conv_transpose2d` with the
# same filters (chapter 5 shows why). A frequent mistake is to flip them:

w = minidl.randn(4, 3, 5, 5)
flipped = minidl.tensor(w.numpy()[:, :, ::-1, ::-1])
forth = partial(F.conv2d, weight=w, stride=2)
back, wrong = (partial(F.conv_transpose2d, weight=v, stride=2) for v in (w, flipped))
sizes = (2, 3, 11, 11), (2, 4, 4, 4)  # of x and y
minidl.check_adjoint(forth, back, *sizes)
try:
    minidl.check_adjoint(forth, wrong, *sizes)
except AssertionError as error:
    print(*str(error).split(": "), sep="\n")

# %%
# Property tests: many inputs
# ---------------------------
# A check at one point says nothing about other points, shapes and dtypes.
# `minidl.testing.property_test_gradient` turns a function that applies an operation into a test.
# Hypothesis draws shapes and values, away from kinks and ties. First and second derivatives are
# compared with differences, float32 with float64. Four operations with a mistake each:


def leaky_relu(x):
    """The slope 0.1 for x < 0 is missing in the gradient."""
    y = np.where(x.array > 0, x.array, 0.1 * x.array)
    return record("leaky_relu", y, (x, lambda gy: gy * (x > 0)))


def cube(x):
    """The gradient is right, but uses x.array, which is not on the tape: it has no derivative."""
    return record("cube", x.array**3, (x, lambda gy: gy * minidl.tensor(3 * x.array**2)))


def double(x):
    """The gradient is float64, whatever x is."""
    return record("double", 2 * x.array, (x, lambda gy: 2 * gy.double()))


def softmax(x):
    """gx = y (gy - mean(gy)), where y (gy - <y, gy>) is right."""
    y = F.softmax(x, -1)
    return record("softmax", y.array, (x, lambda gy: y * (gy - gy.mean(-1, keepdim=True))))


def property_test(operation):
    test = property_test_gradient(x=tensors(shapes(min_dims=1)))(lambda x: operation(x))
    try:
        settings(max_examples=10, phases=[Phase.generate], derandomize=True, database=None)(test)()
    except (RuntimeError, AssertionError):  # a GradcheckError is a RuntimeError
        return False
    return True


print("passes:     sum of y  gradcheck  gradgradcheck  property test")
for f in leaky_relu, cube, double, softmax:
    total = minidl.gradcheck(lambda x, f=f: f(x).sum(), x, raise_exception=False)
    first = minidl.gradcheck(f, x, raise_exception=False)
    second = minidl.gradgradcheck(f, x, raise_exception=False)
    drawn = property_test(f)
    print(f"{f.__name__:12}{total!s:10}{first!s:11}{second!s:15}{drawn}")
    assert (total, drawn) == (True, False)

# %%
# Each True is a mistake that was missed, and has its reason.
#
# - ``leaky_relu``: all elements of x are positive. A check sees only the branches that x takes.
# - ``cube``: gradcheck needs the values of gx only. `minidl.gradgradcheck` compares the derivative
#   of gx, which a gradient penalty or a Hessian would use.
# - ``double``: float64 inputs hide it. The property test repeats everything in float32.
# - ``softmax``: y sums to 1, so the gradient of that sum is 0, and the wrong formula gives 0, too.
#   And gradgradcheck asks whether the derivative of gx is right, not whether gx is.
#
# A property test is no proof either: an overflow at x = 1000, or a fault that needs a large array,
# lies outside of what it draws.
#
# Exercise 1: remove the next error, too
# --------------------------------------
# The error of the central quotient D(h) is :math:`c h^2` plus terms of order :math:`h^4`, with an
# unknown c. Combine D(h) and D(h/2) so that c cancels (*Richardson extrapolation*).


def richardson(x, h):
    """The derivative of np.sin at x with an error of order h^4, from two calls of central."""
    return ...


check(richardson, lambda x, h: np.cos(x), [(0.0, 0.1), (1.0, 0.2)])

# %%
# Exercise 2: the adjoint of a running sum
# ----------------------------------------
# ``np.cumsum`` is linear: :math:`y_i = x_0 + \ldots + x_i`. Which elements of y does :math:`x_j` go
# into? The check computes the adjoint by its definition: element j is <A e, y>, with e = 1 at j and
# 0 elsewhere.


def cumsum_adjoint(y):
    """y (n,) gives A^T y (n,), where A x = np.cumsum(x)."""
    return ...


def by_definition(y):
    return np.array([np.cumsum(e) @ y for e in np.eye(len(y))])


check(cumsum_adjoint, by_definition, [(np.eye(3)[0],), (np.arange(5.0) ** 2,)])
