"""
15. Your own operation
======================

An operation needs a formula, its derivative, and a test of that derivative; a loop that suits the
processor can follow later. This chapter adds one to minidl from outside, the *squareplus*: first in
NumPy, then as a compiled kernel that is compared with the first. It shows what the tests say of two
wrong gradients, and how minidl's own operations are made.

Explains ``minidl/autograd.py`` (`record`), ``minidl/ops/_operands.py``,
``minidl/ops/activation.py``, ``minidl/kernels/__init__.py`` and
``minidl/testing/property_test.py``.

Sources: J. Barron, Squareplus: a softplus-like algebraic rectifier, arXiv:2112.11687, 2021; K.
Claessen, J. Hughes, QuickCheck: a lightweight tool for random testing of Haskell programs, ICFP
2000 (property tests).
"""

import functools
import timeit

import matplotlib.pyplot as plt
import numba
import numpy as np
from hypothesis import Phase, settings

import minidl
from minidl import GradcheckError, gradcheck, gradgradcheck
from minidl.autograd import record
from minidl.testing import property_test_gradient, shapes, tensors
from minidl.tools.exercise import check

# %%
# A formula and its derivative
# ----------------------------
# Squareplus is a smooth relative of the ReLU without an exponential: one branch of a hyperbola. Its
# derivative follows from the chain rule, with 2x inside the root:
#
# .. math:: y = \frac{x + \sqrt{x^2 + 4}}{2}, \qquad
#           \frac{dy}{dx} = \frac{1}{2} \left(1 + \frac{x}{\sqrt{x^2 + 4}}\right)
#
# `minidl.autograd.record` makes an operation of them. It takes a name for messages, the array of
# the result, and with each differentiable input the function from gy, the gradient in y, to gx:
#
# .. math:: g_x = g_y\, \frac{dy}{dx}
#
# What such a function may and may not do is listed at the top of ``minidl/autograd.py``.


def definition(x):
    """y for each number of an array."""
    return (x + np.sqrt(x * x + 4)) / 2


def slope(x):
    """dy/dx, in operations on tensors."""
    return (1 + x / (x * x + 4).sqrt()) / 2


def squareplus(x):
    return record("squareplus", definition(x.array), (x, lambda gy: gy * slope(x)))


# %%
# The result is computed on arrays, but the gradient on *tensors*. So when the backward pass is to
# be recorded too (``create_graph=True``), the gradient is made of operations like any others, and
# its own derivative needs no formula:


def with_derivatives(function):
    """The function that returns y, dy/dx and d2y/dx2 of each x, as rows; ... for a gap."""

    @functools.wraps(function)
    def rows(x):
        y = function(x)
        if y is ...:
            return ...
        # With gy = 2 a forgotten gy shows; 0 * x is there in case `first` does not depend on x.
        (first,) = minidl.grad(2 * y.sum(), x, create_graph=True)
        (second,) = minidl.grad((first + 0 * x).sum(), x)
        return minidl.stack([y, first / 2, second / 2])  # (3, N)

    return rows


x = minidl.linspace(-6, 6, 121, dtype=minidl.float64, requires_grad=True)
plt.figure(figsize=(6.5, 3.2), layout="constrained")
for row, name in zip(with_derivatives(squareplus)(x), ("y", "dy/dx", "d2y/dx2"), strict=True):
    plt.plot(x.detach().numpy(), row.detach().numpy(), label=name)
plt.ylim(-0.2, 3)
plt.xlabel("x")
plt.legend()
plt.show()

# %%
# Is the gradient right?
# ----------------------
# `minidl.gradcheck` compares the gradient with difference quotients (chapter 3), and
# `minidl.gradgradcheck` the gradient's gradient.

minidl.manual_seed(0)
x = minidl.randn(2, 3, dtype=minidl.float64, requires_grad=True)
print(gradcheck(squareplus, x), gradgradcheck(squareplus, x))

# %%
# What they say of a mistake is worth seeing once. The first wrong version forgets the 2x.


def without_chain_rule(x):
    root = (x * x + 4).sqrt()
    return record("squareplus", definition(x.array), (x, lambda gy: gy * (1 + 1 / root / 2) / 2))


def print_verdict(checker, function):
    try:
        print(checker(function, x))
    except GradcheckError as error:
        print(error)


print_verdict(gradcheck, without_chain_rule)

# %%
# The table tells a wrong gradient from an unlucky step: over many steps the quotients agree with
# each other, and not with the gradient. The second wrong version has the right formula, but
# computes it on arrays.


def cut_off(x):
    constant = minidl.Tensor(slope(x).array)
    return record("squareplus", definition(x.array), (x, lambda gy: gy * constant))


print_verdict(gradcheck, cut_off)
print_verdict(gradgradcheck, cut_off)

# %%
# The first derivative is right, and training would work. But the tape sees a constant where dy/dx
# depends on x, so the second derivative is 0, and a penalty on the gradient would be wrong without
# a word. That is why both are checked.
#
# A kernel
# --------
# NumPy passes over memory five times, once for each operation; chapter 14 says why one loop is
# better. Numba compiles this one when it first meets a dtype. The constants are of that dtype: with
# plain numbers, which Numba takes as 64 bits wide, float32 would be computed as float64.


@numba.njit
def loop(x, y):
    half, four = x.dtype.type(0.5), x.dtype.type(4)
    for i in range(len(x)):
        y[i] = half * (x[i] + np.sqrt(x[i] * x[i] + four))


def kernel(x):
    """The loop, for arrays of any shape and memory order."""
    y = np.empty(x.size, x.dtype)
    loop(x.ravel(), y)
    return y.reshape(x.shape)


# %%
# The slow version stays: it *defines* what the fast one has to compute, and is short enough to be
# checked by reading. Compare the two on what is special: dtypes, memory order, no elements,
# infinity and NaN. Here the operations and their order are the same, so the bits are; where a
# kernel adds in another order, rounding differs, and the comparison needs a tolerance.

values = np.r_[np.linspace(-80, 80, 1000), 0, 1e4, -1e4, np.inf, -np.inf, np.nan].reshape(2, -1)
for dtype in (np.float32, np.float64):
    for a in (values.astype(dtype), values.astype(dtype).T, np.empty((0, 3), dtype)):
        with np.errstate(invalid="ignore"):  # inf - inf is NaN, in both
            np.testing.assert_array_equal(kernel(a), definition(a), strict=True)

a = np.random.default_rng(0).normal(size=2**20).astype(np.float32)
plt.figure(figsize=(6.5, 1.8), layout="constrained")
for function in (definition, kernel):
    times = timeit.repeat(functools.partial(function, a), number=1, repeat=7)
    plt.barh(function.__name__, 1e3 * min(times))
plt.xlabel("ms for a million numbers, when this page was built")
plt.show()


def fast_squareplus(x):
    values = kernel if x.dtype in (minidl.float32, minidl.float64) else definition
    return record("squareplus", values(x.array), (x, lambda gy: gy * slope(x)))


# %%
# minidl's own kernels go the same way. Each public function of ``minidl/kernels/reference.py`` is a
# definition; ``minidl/kernels/cpu/elementwise.py`` has loops like this one, parallel and kept in a
# cache. Which one runs when an operation calls ``kernels.relu(array)`` is decided in
# ``minidl/kernels/__init__.py`` and nowhere else: the loop, for other dtypes the definition, and
# for an array on a GPU that of ``minidl/kernels/gpu/kernels.py``. The context
# ``minidl.kernels.use_reference_kernels()`` runs the definitions, for a debugger to step through.
#
# A property test
# ---------------
# So far the gradient was checked at a few points of one shape. A *property test* states what holds
# for all inputs; Hypothesis draws inputs, and makes one that fails as simple as it can. The
# property is all that an operation owes its users: first and second derivatives, inputs left alone,
# the dtype kept, gradients that share no memory, results that do not depend on the memory order.
# `minidl.testing.property_test_gradient` makes a test of it, which pytest finds by its name. (It
# also compares minidl's kernels with their definitions, but it does not know ours.)

phases = Phase.generate, Phase.shrink  # no search for what in it matters
reproducible = settings(max_examples=20, derandomize=True, deadline=None, phases=phases)


@reproducible
@property_test_gradient(tensors(shapes()))
def test_fast_squareplus(x):
    return fast_squareplus(x)


test_fast_squareplus()
test_wrong_one = reproducible(property_test_gradient(tensors(shapes()))(without_chain_rule))
try:
    test_wrong_one()
except GradcheckError as error:
    print(*error.__notes__)

# %%
# A single number is enough to show the mistake, so it has nothing to do with shapes.
#
# Adding it to minidl
# -------------------
# 1. The operation, with both formulas in its docstring: ``minidl/ops/activation.py``. The decorator
#    ``operation`` of ``minidl/ops/_operands.py`` checks the arguments before it computes.
# 2. If NumPy is too slow, the definition goes into ``minidl/kernels/reference.py``, and its twins
#    into ``minidl/kernels/cpu/elementwise.py`` and ``minidl/kernels/gpu/kernels.py``.
# 3. The public name: ``minidl/nn/functional.py`` and ``tests/helpers/public_names.txt``.
# 4. Tests, most of them a line: the property test in ``tests/ops/test_gradients.py``, comparisons
#    with the definition in ``tests/kernels/test_kernels.py`` and ``tests/gpu/test_gpu_kernels.py``,
#    messages in ``tests/helpers/bad_calls.txt``, and in ``tests/helpers/mutations.txt`` a fault,
#    such as the forgotten 2x, that the tests have to find.
#
# Exercise: softplus
# ------------------
# Write the operation y = ln(1 + exp(x)) with ``record``, and its gradient with tensors: the rows
# that are compared, 0, 1 and 2, are y, its first and its second derivative.


def softplus(x):
    return ...


points = [(minidl.randn(n, dtype=minidl.float64, requires_grad=True),) for n in (1, 5)]
check(with_derivatives(softplus), with_derivatives(lambda x: (1 + x.exp()).log()), points)
