"""
14. What makes it fast
======================

A processor multiplies faster than memory delivers numbers, so fast code uses each number many times
before it lets go of it. Five ideas, each with a small experiment: one pass instead of several,
blocks that fit in a cache, tiles that stay in registers, a convolution that reads its matrix
without writing it, and threads that own what they write. All times were measured when this page was
built; on another machine, or a busy one, they are different.

Explains ``minidl/kernels/cpu/tile.py``, ``minidl/kernels/cpu/products.py``,
``minidl/kernels/cpu/convolution.py`` and ``minidl/kernels/cpu/_threads.py``.

Sources: K. Goto, R. van de Geijn, Anatomy of high-performance matrix multiplication, ACM TOMS
34(3), 2008; S. Williams, A. Waterman, D. Patterson, Roofline: an insightful visual performance
model for multicore architectures, CACM 52(4), 2009; M. Dukhan, The indirect convolution algorithm,
arXiv:1907.02129, 2019.
"""

import timeit
from functools import partial

import matplotlib.pyplot as plt
import numpy as np

import minidl
from minidl.nn import functional as F
from minidl.tools.exercise import check

minidl.manual_seed(0)
most = minidl.get_num_threads()
minidl.set_num_threads(1)  # up to the section on threads
plt.rcParams.update({"figure.constrained_layout.use": True, "figure.figsize": (6.5, 3.2)})


def ns(function, times=5):
    """Nanoseconds, the shortest of several runs: other programs can only add to the time."""
    function()
    return 1e9 * min(timeit.repeat(function, number=1, repeat=times))


def show(xlabel, ylabel):
    plt.gca().set(xlabel=xlabel, ylabel=ylabel)
    plt.legend()
    plt.show()


# %%
# Two limits: arithmetic and memory
# ---------------------------------
# The *arithmetic intensity* of a computation is the number of its multiply-adds for each byte that
# it moves between processor and memory. With a bandwidth of B bytes a second and a processor that
# does at most P multiply-adds a second, intensity I allows
#
# .. math:: \text{multiply-adds a second} \le \min(P,\; I\, B).
#
# This is the *roofline*. The mean squared error of n numbers is n multiply-adds, squares of x - t
# added to a sum, on 8 n bytes: I = 1/8. NumPy makes three passes, for the difference, the squares
# and their mean; each reads what the one before has written, in all 24 n bytes: I = 1/24. A product
# of (M, K) with (K, K) is M K K multiply-adds and, for a large M, 8 M K bytes: I = K/8 grows with
# K. B is taken from a copy, P from the fastest product.

n = 2**21  # numbers of 4 bytes: too many for most caches
x, t, out = minidl.randn(n), minidl.randn(n), np.empty(n, np.float32)


def three_passes():
    np.subtract(x.numpy(), t.numpy(), out=out)
    return np.square(out, out=out).mean()


bandwidth = 8 * n / ns(lambda: np.copyto(out, x.numpy()))  # bytes a nanosecond
sizes = [8, 16, 32, 64]
rates = [n * K / ns(partial(minidl.matmul, x.view(-1, K), minidl.randn(K, K))) for K in sizes]
intensity = np.geomspace(1 / 40, 16, 200)
plt.loglog(intensity, np.minimum(max(rates), bandwidth * intensity), "gray", label="roofline")
plt.loglog(1 / 24, n / ns(three_passes), "v", label="mean squared error, three passes")
plt.loglog(1 / 8, n / ns(lambda: F.mse_loss(x, t)), "o", label="F.mse_loss, one pass")
plt.loglog(np.array(sizes) / 8, rates, "s", label="products, K = 8, 16, 32, 64")
show("multiply-adds per byte", "multiply-adds a nanosecond")

# %%
# Left of the ridge memory sets the pace, and arithmetic costs nothing: what helps is fewer passes.
# minidl's mean squared error and its Adam step are one loop each. Right of the ridge arithmetic
# sets the pace, if the numbers come from a cache. (Products below the roof have so few columns that
# they do not fill the processor's vectors.)
#
# Caches come in lines
# --------------------
# Memory is fetched in *lines*, usually of 64 bytes: 16 of these numbers. Whoever reads along a row
# of a matrix uses all 16. Reading down a column uses one of each line, and if the column touches
# more lines than the cache holds, they are evicted before their second number is wanted. A matrix
# is copied as it is, transposed, which reads columns, and transposed in blocks of 64 x 64.


def copy_in_blocks(out, x, size=64):
    for i in range(0, len(x), size):
        for j in range(0, len(x), size):
            out[i : i + size, j : j + size] = x[j : j + size, i : i + size].T


pairs = [np.ones((2, side, side), np.float32) for side in (60, 120, 250, 500, 1000, 2000, 3000)]
ways = {"rows": np.copyto, "columns": lambda out, x: np.copyto(out, x.T), "blocks": copy_in_blocks}
for name, copy in ways.items():
    each = [ns(partial(copy, *pair), times=3) / pair[0].size for pair in pairs]
    plt.loglog([pair[0].nbytes / 1024 for pair in pairs], each, ".-", label=name)
show("size of the matrix in KiB", "ns per number")

# %%
# In a large matrix columns cost many times what rows cost, and blocks win a part of it back. (In a
# small one Python's calls cost more.) So ``minidl/kernels/cpu/products.py`` multiplies in blocks:
# one of B is copied in the order in which it is read, and serves up to 256 rows of A from a cache.
#
# Tiles stay in registers
# -----------------------
# The innermost level is the processor's registers. In the textbook's order, one scalar product
# after another, each multiply-add loads two numbers, and loads are the bottleneck. A *tile* of R x
# S elements of C instead adds up K outer products, of a column of A with a row of B: R + S loads
# for R S multiply-adds, and C is written once, at the end.
#
# .. math:: C = \sum_k A_{:k}\, B_{k:}


def tile(A, B):
    """(R, K) @ (K, S); C is small enough for registers."""
    C = np.zeros((len(A), B.shape[1]), A.dtype)
    for k in range(len(B)):
        C += np.outer(A[:, k], B[k])  # (R, S)
    return C


def product(A, B, R=6, S=16):
    C = np.empty((len(A), B.shape[1]), A.dtype)
    for i in range(0, len(A), R):
        for j in range(0, B.shape[1], S):
            C[i : i + R, j : j + S] = tile(A[i : i + R], B[:, j : j + S])
    return C


A, B = np.random.default_rng(0).normal(size=(2, 40, 40))
assert np.allclose(product(A, B), A @ B)
print("rows x vectors   registers   multiply-adds per load")
for R, V in ((1, 1), (2, 1), (4, 2), (6, 2), (8, 2)):
    print(f"{R} x {V} {R * V + V + 1:18} {R * V / (R + V):18.2f}")

# %%
# A register holds a vector of neighbouring numbers, so the table counts a row of B in vectors, and
# registers for the sums, for the row of B, and for one element of A. A typical processor starts as
# many multiply-adds as loads in a cycle, so there should be at least one for each load; and it
# needs about ten sums that do not wait for one another. 6 x 2 has both within 16 registers, the
# number that x86 processors without AVX-512 have, and is minidl's tile there; it is 8 x 2 with 32.
# The two functions above are in essence ``tile.py`` and ``multiply`` in ``products.py``.
#
# A convolution reads its matrix through two tables
# -------------------------------------------------
# Chapter 4 wrote a convolution as a product with the matrix im2col(x). In memory with *channels
# last*, where the C numbers of a pixel are neighbours, the element for window i and tap k is
#
# .. math:: A_{ik} = x[\,\mathrm{rows}_i + \mathrm{cols}_k\,],
#
# since a tap lies at the same distance from the beginning of each window.


def tables(height, width, channels, k):
    """Where the windows begin, (OH*OW,), and how far from there the taps lie, (K*K*C,)."""
    place = np.arange(height * width * channels).reshape(height, width, channels)
    return place[: height - k + 1, : width - k + 1, 0].ravel(), place[:k, :k].ravel()


image, weight = minidl.randn(1, 3, 6, 6), minidl.randn(16, 3, 3, 3)
rows, cols = tables(6, 6, 3, 3)  # (16,), (27,)
memory = image[0].permute(1, 2, 0).reshape(-1).numpy()  # (6*6*3,)
A = memory[rows[:, None] + cols]  # (16, 27)
y = A @ weight.permute(2, 3, 1, 0).reshape(27, 16).numpy()  # (16 pixels, 16 filters)
assert np.allclose(y, F.conv2d(image, weight)[0].flatten(1).T.numpy(), atol=1e-5)
print("cols =", cols)

# %%
# Here NumPy writes A; minidl's tile looks up each element, so that no matrix is written and read
# back. Channels last has two advantages. The taps of a row of the filter with all their channels
# are K C neighbours, as ``cols`` shows; channels first, only K are. And the tile's columns are the
# filters, so it writes vectors of neighbours, in the order that the next layer reads.

image, weight = minidl.randn(1, 16, 114, 114), minidl.randn(32, 16, 3, 3)
columns = F.unfold(image, kernel_size=3)[0]  # (144, 112*112)
write = ns(lambda: F.unfold(image, kernel_size=3), times=10) / 1e6
multiply = ns(lambda: weight.view(32, 144) @ columns, times=10) / 1e6
convolve = ns(lambda: F.conv2d(image, weight), times=10) / 1e6
in_tables = 8 * sum(map(len, tables(114, 114, 16, 3)))
print(f"matrix {4 * columns.numel() / 2**20:.1f} MiB, tables {in_tables / 2**20:.2f} MiB")
plt.barh("unfold, product", write, label="unfold")
plt.barh("unfold, product", multiply, left=write, label="product")
plt.barh("F.conv2d", convolve, label="conv2d")
show("ms on one thread", "")

# %%
# Threads own what they write
# ---------------------------
# If two threads add to the same number, one of the sums can be lost: a *race*. Locks prevent it and
# cost more than the addition. In minidl each task of a parallel loop owns its part of the result: a
# block of C, some pixels of a map, an image. Nor does the number of threads decide how a sum is
# split, since sums of floats depend on their order; the shapes alone do.

big, one = np.float32(1e8), np.float32(1)
print(f"big - big + 1 = {big - big + one}, but big + 1 - big = {big + one - big}")

images, weight = minidl.randn(32, 16, 32, 32), minidl.randn(32, 16, 3, 3, requires_grad=True)
gy = minidl.randn(32, 32, 30, 30)
threads, times, gradients = sorted({1, 2, most} & set(range(most + 1))), [], []
slope = partial(minidl.grad, inputs=weight, grad_outputs=gy)
for p in threads:
    minidl.set_num_threads(p)
    times.append(ns(lambda: gradients.extend(slope(F.conv2d(images, weight))), times=10))
assert all(minidl.equal(gradient, gradients[0]) for gradient in gradients)  # to the last bit

# %%
# What runs on one thread, such as Python itself, limits the gain. If it takes a share s of the time
# on one thread, p threads need at least s + (1 - s)/p of that time. This is *Amdahl's law*: the
# speed-up is at most 1/s, however many threads there are.
#
# .. math:: \frac{t_1}{t_p} \le \frac{1}{s + (1 - s)/p}
#
# A point far below the lines tells of a busy machine: threads wait for the slowest of them, and
# while they wait they keep their cores from other work (``docs/speed.md`` has a remedy).

many = np.arange(1, max(8, most) + 1)
for s in (0, 0.05, 0.2):
    plt.plot(many, 1 / (s + (1 - s) / many), label=f"Amdahl's law, s = {s}")
plt.plot(threads, times[0] / np.array(times), "ko", label="measured")
show("threads", "speed-up")

# %%
# Exercise: any geometry is a pair of tables
# ------------------------------------------
# ``multiply`` knows nothing of strides and dilations: the tables hold them. Write ``offsets``, rows
# plus cols, for windows s pixels apart and taps d pixels apart.


def offsets(height, width, channels, k, s, d):
    """Where in memory each window's taps lie, (OH*OW, K*K*C)."""
    return ...


def by_unfolding(height, width, channels, k, s, d):
    place = minidl.arange(height * width * channels).double().view(1, height, width, channels)
    columns = F.unfold(place.permute(0, 3, 1, 2), kernel_size=k, stride=s, dilation=d)[0]
    return columns.view(channels, k * k, -1).permute(2, 1, 0).flatten(1)


check(offsets, by_unfolding, [(5, 6, 2, 3, 1, 1), (7, 8, 2, 3, 2, 1), (9, 8, 3, 2, 3, 2)])
