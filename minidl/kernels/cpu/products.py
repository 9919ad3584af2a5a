"""Matrix products in blocks that fit in the caches: what convolutions and `matmul` are made of.

`multiply` knows nothing of strides, paddings or dilations. Its matrices are long vectors with tables of offsets, which
is all that it takes to read a convolution's left matrix where it lies (see convolution.py):

    C[i, :] (+)= sum over k of A[i, k] * B[k, :]     A[i, k] = a[rows[i] + cols[k]]
                                                     B[k] begins at b[brows[k]], C[i] at c[crows[i]]

The blocks and their order follow Goto and van de Geijn 2008, Anatomy of high-performance matrix multiplication: a block
of B stays in a cache while all rows of A pass by, and a tile of C in registers (tile.py).

Letters: M, K, N sizes of a matrix product; i counts rows, k the sum, j columns.
"""

import numpy as np
from numba import prange

from minidl.kernels import _arguments
from minidl.kernels._memory import empty
from minidl.kernels.cpu._arrays import copy, plain
from minidl.kernels.cpu._compiling import compiled
from minidl.kernels.cpu._threads import parallel_region
from minidl.kernels.cpu._vectors import VECTOR_BYTES
from minidl.kernels.cpu.tile import TALL_ROWS, TILE_ROWS, tile_1, tile_2, tile_of_groups

Array = np.ndarray

BLOCK_K = 128  # about so many rows of two vectors of B stay in the first-level cache while all rows of A pass by
MATMUL_ROWS = 256  # rows of A for one task of matmul: with fewer, packing B would not pay
PANEL = 64  # columns of B for one task of matmul


@compiled()
def multiply(a, rows, cols, b, brows, n, c, crows, add, bias):
    """C (+)= A B, over blocks of k, pairs of vectors of columns, tiles of rows; tables as above.

    Without `add`, C begins at the bias, or at 0 if that is empty.
    """
    lanes = VECTOR_BYTES // a.itemsize
    blocks = max(1, (len(cols) + BLOCK_K // 2) // BLOCK_K)
    for block in range(blocks):
        k0, k1 = block * len(cols) // blocks, (block + 1) * len(cols) // blocks
        more, biased = add or k0 > 0, len(bias) > 0
        for j in range(0, n, 2 * lanes):
            if n - j > lanes:
                for i in range(0, len(rows), TILE_ROWS):
                    m = len(rows) - i
                    tile_2(a, rows, i, m, cols, k0, k1, b, brows, j, n - j, c, crows, more, bias, biased)
            else:
                for i in range(0, len(rows), TALL_ROWS):
                    m = len(rows) - i
                    tile_1(a, rows, i, m, cols, k0, k1, b, brows, j, n - j, c, crows, more, bias, biased)


@compiled()
def multiply_groups(a, rows, cols, b, brows, n, c, crows, bias, group):
    """C = bias + A B for n <= lanes / group columns; `cols` and `brows` count groups."""
    for i in range(0, len(rows), TALL_ROWS):
        m, biased = len(rows) - i, len(bias) > 0
        tile_of_groups(a, rows, i, m, cols, 0, len(cols), b, brows, 0, n, c, crows, False, bias, biased, group)


def matmul(a: Array, b: Array, bias: Array | None = None) -> Array:
    """Matrix product (M, K) @ (K, N), plus bias (N,); a and b may be transposed in memory. Defined in reference.py.

    Of batches, the matrices may all be the same memory.
    """
    _arguments.same_float("matmul", a, b)
    _arguments.matrices(a, b)
    start = start_of("matmul", bias, b.shape[-1], a.dtype)
    c = empty((*a.shape[:-1], b.shape[-1]), a.dtype)
    if a.shape[-1] == 0:
        c[...] = start if start.size else 0
    elif c.size:
        count, sizes = len(c) if c.ndim == 3 else 1, (*c.shape[-2:], a.shape[-1])
        with parallel_region(elements(c.size * a.shape[-1])):
            _matmul(*_flat_matrices(a), *_flat_matrices(b), c.reshape(-1), start, count, *sizes)
    return c


def elements(multiply_adds: int) -> int:
    """As many elements as take the time of these multiply-adds."""
    return multiply_adds // 32


def start_of(name: str, bias: Array | None, columns: int, dtype: np.dtype) -> Array:
    """What a product begins at: the bias, or an empty array for none."""
    _arguments.bias_of(name, bias, columns, dtype)
    return np.empty(0, dtype) if bias is None else plain(bias)


def _flat_matrices(a: Array) -> tuple[Array, int, int, int]:
    """The values of matrices as one vector, and how far apart matrices, their rows and their columns are in it."""
    if a.ndim == 3 and a.strides[0] == 0:
        values, _, row, column = _flat_matrices(a[0])
        return values, 0, row, column
    turned, size = a.swapaxes(-1, -2), a.shape[-2] * a.shape[-1]
    if not a.flags.c_contiguous and turned.flags.c_contiguous:
        return plain(turned).reshape(-1), size, 1, a.shape[-2]
    return plain(a).reshape(-1), size, a.shape[-1], 1


@compiled(parallel=True)
def _matmul(a, astep, arow, acol, b, bstep, brow, bcol, c, bias, count, M, N, K):
    """Why it is fast: a task copies its block of B, whatever its strides, into cache and uses it for
    all its rows."""
    panels, chunks = (N + PANEL - 1) // PANEL, (M + MATMUL_ROWS - 1) // MATMUL_ROWS
    for task in prange(count * panels * chunks):  # owns one block of one C
        n, i, j = task // panels // chunks, task // panels % chunks * MATMUL_ROWS, task % panels * PANEL
        _matmul_block(a[n * astep :], arow, acol, b[n * bstep :], brow, bcol, c[n * M * N :], bias, M, N, K, i, j)


@compiled()
def _matmul_block(a, arow, acol, b, brow, bcol, c, bias, M, N, K, i, j):
    i1, n = min(i + MATMUL_ROWS, M), min(PANEL, N - j)
    packed = np.empty(BLOCK_K * n, b.dtype)
    rows, crows, brows = np.arange(i, i1) * arow, np.arange(i, i1) * N + j, np.arange(BLOCK_K) * n
    for k0 in range(0, K, BLOCK_K):
        k1 = min(k0 + BLOCK_K, K)
        _pack(b, k0, k1, brow, j, n, bcol, packed)
        cols = np.arange(k0, k1) * acol
        multiply(a, rows, cols, packed, brows, n, c, crows, k0 > 0, bias[j : j + n])


@compiled()
def _pack(b, k0, k1, brow, j, n, bcol, packed):
    """Copy a block of B; of a transposed one 16 rows at a time, since these share the cache lines of B."""
    if bcol == 1:
        for k in range(k0, k1):
            copy(packed, (k - k0) * n, b, k * brow + j, n)
        return
    for k in range(k0, k1, 16):
        for q in range(n):
            for kk in range(k, min(k + 16, k1)):
                # Unsigned, since a signed offset is checked for being negative at each access.
                packed[np.uint64((kk - k0) * n + q)] = b[np.uint64(kk * brow + (j + q) * bcol)]
