"""The inner tile: the loop in which all matrix products and convolutions spend their time.

This is the hardest text of the project, and the one where the machine shows through most. A tile is a small block of a
matrix product, C = A B, that stays in registers while it is summed over k. Step k of the loop, for 8 rows i0 + r of C
and two vectors of its columns from j0 on (6 rows where there are 16 registers for vectors, not 32):

    b0, b1 = B[k, j0 : j0 + lanes], B[k, j0 + lanes : j0 + 2 * lanes]      two loads, used by all rows
    for r in range(8):
        ar = A[i0 + r, k], repeated in every lane                          one load, used by all columns
        sums[r, 0] += ar * b0                                              one fused multiply-add each
        sums[r, 1] += ar * b1

Nothing is written to memory before the loop ends, and the 16 sums do not depend on each other: the processor starts two
multiply-adds in each cycle without waiting for earlier ones. The definition of a tile in NumPy is the function `tile`
below. It runs where nothing is compiled, and the tests compare the two.

The code is written in LLVM's language, since for a loop in Python it is the compiler's guess whether the sums stay in
registers. Is that worth it? The plain form, in 40 lines, copies rows of im2col into the cache and multiplies them by
`np.dot` (BLAS) in compiled Python. It was measured at 1.2 to 2.9 times the time of this tile on eight convolutions of
the examples, and at 0.9 to 1.5 times on three of ResNet's, which have more channels.

    _emit_tile    the whole: which rows and columns are there, then sum, then write
    masks         ragged edges: a lane beyond the last column reads 0 and writes nothing, so nothing has to be padded
    _emit_sum     the loop over k above
    _emit_write   C = start + sums, row after row

Source of the idea: K. Goto, R. van de Geijn, Anatomy of high-performance matrix multiplication, ACM TOMS 34(3), 2008.
"""

import functools
from collections import namedtuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils

from minidl.kernels.cpu._compiling import by_hand
from minidl.kernels.cpu._vectors import BYTES, I64, VECTOR_BYTES, Vectors

TILE_ROWS = 8 if VECTOR_BYTES == 64 else 6  # times two vectors of columns: more sums would not fit in registers
TALL_ROWS = 8  # times one vector: fewer sums would leave the processor waiting for the last ones
ROWS = {1: TALL_ROWS, 2: TILE_ROWS}  # of a tile of so many vectors

_Arguments = namedtuple("_Arguments", "a rows i0 m cols k0 k1 b brows j0 n c crows add bias biased")


def tile(vectors, group, a, rows, i0, m, cols, k0, k1, b, brows, j0, n, c, crows, add, bias, biased):
    """C[i, j0:] = start + sum over k0 <= k < k1 of A[i, k] * B[k, j0:], for i from i0 on; m rows, n columns left.

    The start is C itself (add), the bias (biased), or 0. The tile has so many `vectors` of columns.

    The matrices are long vectors with tables of offsets (products.py): A[i, k] = a[rows[i] + cols[k]], row k of B
    begins at b[brows[k]], row i of C at c[crows[i]].

    A few columns would leave most lanes of a vector idle. With `group` > 1 that many neighbouring lanes share a column,
    and take as many values of A, which are neighbours in memory; at the end they are added up. A step of k is then a
    whole group.
    """
    columns = min(n, vectors * (VECTOR_BYTES // a.itemsize) // group)
    lanes = np.arange(columns * group).reshape(columns, group)
    B = b[brows[k0:k1, None, None] + j0 + lanes]  # (K, columns, group)
    for i in range(i0, i0 + min(m, ROWS[vectors])):
        A = a[rows[i] + cols[k0:k1, None] + np.arange(group)]  # (K, group)
        crow = c[crows[i] + j0 :][:columns]
        start = crow if add else bias[j0 : j0 + columns] if biased else 0
        crow[:] = start + np.einsum("kg,kjg->j", A, B)


def _emit_tile(vectors, group, builder, element, *arguments) -> None:
    """Write a tile's code: the masks of what is there of it, the sum, the store. An array is its first value's address.

    Sum and store come twice, with masks and without: a processor without AVX-512 has no registers for masks, and is
    slow to store with them.
    """
    t = _Arguments(*arguments)
    v = Vectors(builder, element, VECTOR_BYTES // BYTES[element])
    starts = [I64(i * v.lanes) for i in range(vectors)]
    inside = [v.below(builder.mul(I64(group), builder.sub(t.n, s))) for s in starts]  # the lanes that read B
    columns = [v.below(builder.sub(t.n, s)) for s in starts]  # the lanes that write C
    live = [builder.icmp_signed("<", I64(r), t.m) for r in range(ROWS[vectors])]
    row = [builder.add(t.i0, builder.select(alive, I64(r), I64(0))) for r, alive in enumerate(live)]  # dead ones: i0
    arow = [v.at(t.a, builder.load(v.at(t.rows, r))) for r in row]
    sums = [[cgutils.alloca_once_value(builder, v.zero) for _ in starts] for _ in row]
    full = builder.icmp_signed(">=", builder.mul(I64(group), t.n), I64(vectors * v.lanes))
    with builder.if_else(full) as (then, otherwise):
        with then:
            _emit_sum(v, group, t, starts, [None] * vectors, arow, sums)
        with otherwise:
            _emit_sum(v, group, t, starts, inside, arow, sums)
    if group > 1:  # its columns fill only a part of a vector
        _emit_write(v, group, t, starts, columns, live, row, sums)
        return
    with builder.if_else(builder.and_(full, live[-1])) as (then, otherwise):
        with then:
            _emit_write(v, group, t, starts, [None] * vectors, live, row, sums)
        with otherwise:
            _emit_write(v, group, t, starts, columns, live, row, sums)


def _emit_sum(v, group, t, starts, masks, arow, sums) -> None:
    """The loop over k: each row's sums += A[i, k] * B[k]."""
    builder = v.builder
    with cgutils.for_range_slice(builder, t.k0, t.k1, I64(1), I64) as (k, _):
        acol, brow = builder.load(v.at(t.cols, k)), builder.load(v.at(t.brows, k))
        bs = [v.load(mask, t.b, brow, t.j0, s) for s, mask in zip(starts, masks, strict=True)]
        for start, totals in zip(arow, sums, strict=True):
            ar = _emit_group(v, group, v.at(start, acol))
            for total, bv in zip(totals, bs, strict=True):
                builder.store(v.multiply_add(ar, bv, builder.load(total)), total)


def _emit_write(v, group, t, starts, masks, live, row, sums) -> None:
    """C = start + sums. Without masks all of the tile is there.

    Row after row, each loaded after the last one is stored: rows of C may overlap (conv2d_input relies on it).
    """
    builder = v.builder
    begins, started = builder.select(t.add, t.c, t.bias), builder.or_(t.add, t.biased)
    for alive, i, totals in zip(live, row, sums, strict=True):
        crow = builder.load(v.at(t.crows, i))
        for s, mask, total in zip(starts, masks, totals, strict=True):
            written = v.splat(alive) if mask is None else builder.and_(mask, v.splat(alive))
            old_row = builder.select(t.add, crow, I64(0))
            old = v.load(builder.and_(written, v.splat(started)), begins, old_row, t.j0, s)
            new = builder.fadd(old, _emit_folded(v, group, builder.load(total)))
            v.store(new, None if mask is None else written, t.c, crow, t.j0, s)


def _emit_group(v, group, address):
    """`group` neighbouring values of A, repeated to fill a vector."""
    if group == 1:
        return v.splat(v.builder.load(address))
    pointer = ir.VectorType(v.element, group).as_pointer()
    return v.chosen(v.builder.load(v.builder.bitcast(address, pointer), align=v.size), *range(group))


def _emit_folded(v, group, total):
    """The sums of each group, side by side."""
    for _ in range(group.bit_length() - 1):
        total = v.builder.fadd(v.chosen(total, *range(0, v.lanes, 2)), v.chosen(total, *range(1, v.lanes, 2)))
    return total


tile_1, tile_2 = (
    by_hand(functools.partial(_emit_tile, vectors, 1))(functools.partial(tile, vectors, 1)) for vectors in (1, 2)
)


def _emit_tile_of_groups(builder, element, *arguments) -> None:
    """The code of each size of a group that fits in a vector; `group` says at run time which to take."""
    *others, group = arguments
    for size in (2, 4, 8, 16):
        if size <= VECTOR_BYTES // BYTES[element]:
            with builder.if_then(builder.icmp_signed("==", group, I64(size))):
                _emit_tile(1, size, builder, element, *others)


@by_hand(_emit_tile_of_groups)
def tile_of_groups(a, rows, i0, m, cols, k0, k1, b, brows, j0, n, c, crows, add, bias, biased, group):
    """A tile of one vector, for few columns: n <= lanes / group."""
    tile(1, group, a, rows, i0, m, cols, k0, k1, b, brows, j0, n, c, crows, add, bias, biased)
