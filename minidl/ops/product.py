"""Products of vectors, matrices and tensors: ``einsum``, and what is shorter to write without it.

All are made of the matrix product, the elementwise product and the sum, and have their gradients from these.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from minidl.ops._operands import common_shape, only_tensors
from minidl.ops.arithmetic import mul
from minidl.ops.linear import matmul
from minidl.tensor import Tensor

Labels = list[int]


def _product(name: str, a: Tensor, m: int, b: Tensor, n: int) -> Tensor:
    """The product of tensors that must have m and n dimensions, and one batch."""
    only_tensors(name, a, b)
    if (a.ndim, b.ndim) != (m, n) or (m == n == 3 and len(a) != len(b)):
        wanted = f"tensors of {m} and {n} dimensions" + ", and batches of one size" * (m == 3)
        raise RuntimeError(f"{name}: expected {wanted}, not shapes {a.shape} and {b.shape}; use matmul")
    return matmul(a, b)


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The matrix product of (M, K) and (K, N)."""
    return _product("mm", input, 2, mat2, 2)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The matrix products of a batch: (B, M, K) and (B, K, N) give (B, M, N)."""
    return _product("bmm", input, 3, mat2, 3)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix (M, K) and a vector (K,): (M,)."""
    return _product("mv", input, 2, vec, 1)


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The sum of the products of the elements of two vectors, a 0-d tensor."""
    return _product("dot", input, 1, tensor, 1)


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """y[i, j] = a_i b_j, of two vectors."""
    only_tensors("outer", input, vec2)
    if input.ndim != 1 or vec2.ndim != 1:
        raise RuntimeError(f"outer: expected two vectors, not shapes {input.shape} and {vec2.shape}")
    return mul(input.unsqueeze(1), vec2)


def einsum(equation: str, *operands: Any) -> Tensor:
    """Sums of products, in Einstein's notation: ``einsum("bik,bkj->bij", a, b)`` is ``bmm(a, b)``.

    A letter names a dimension, of one size in all operands. Letters missing from the result are summed over; a letter
    repeated in one operand takes its diagonal. ``...`` stands for further dimensions, which broadcast. Without "->" the
    result has these, and the letters that occur once, in alphabetical order.

    Operands are multiplied from left to right: two at a time, as a batch of matrix products.

    Raises
    ------
    RuntimeError
        If the equation does not fit the shapes.

    Examples
    --------
    >>> import minidl
    >>> a, b = minidl.ones(2, 3), minidl.ones(3, 4)
    >>> minidl.einsum("ij,jk->ki", a, b).shape
    (4, 2)
    """
    if not isinstance(equation, str):
        raise TypeError(f"einsum: expected an equation such as 'ij,jk->ik' first, not {type(equation).__name__}")
    tensors = operands[0] if len(operands) == 1 and isinstance(operands[0], tuple | list) else operands
    only_tensors("einsum", *tensors)
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(tensors):
        raise RuntimeError(f"einsum: '{equation}' is for {len(terms)} operands, and there are {len(tensors)}")
    labels = [_labels(term, x.ndim, equation) for term, x in zip(terms, tensors, strict=True)]
    counts = Counter(chain(*labels))
    dots = sorted(label for label in counts if label < 0)
    result = dots + sorted(label for label, n in counts.items() if n == 1 and label > 0)
    if arrow:
        result = _labels(right, len(right.replace("...", "")) + len(dots) * ("..." in right), equation)
    if len(set(result)) < len(result) or not set(result) <= set(counts):
        raise RuntimeError(f"einsum: each letter of the result must be one of the operands', once, in '{equation}'")
    return _contracted(tensors, labels, result)


def _labels(term: str, ndim: int, equation: str) -> Labels:
    """The label of each dimension: the code of its letter, and for those of an ellipsis ..., -2, -1."""
    before, dots, after = term.partition("...")
    count = ndim - len(before) - len(after)
    if count < 0 or (count and not dots) or not (before + after + "a").isalpha():
        raise RuntimeError(f"einsum: '{term}' in '{equation}' does not fit an operand of {ndim} dimensions")
    return [*map(ord, before), *range(-count, 0), *map(ord, after)]


def _contracted(tensors: Sequence[Tensor], labels: Sequence[Labels], result: Labels) -> Tensor:
    """The product of all tensors, summed over the labels that the result lacks."""
    sizes: dict[int, int] = {}
    for label, size in chain(*map(zip, labels, [x.shape for x in tensors])):
        (sizes[label],) = common_shape("einsum", (sizes.get(label, 1),), (size,))
    needed = Counter([*result, *chain(*map(set, labels))])
    (y, names), *others = [_prepared(*pair, sizes, needed) for pair in zip(tensors, labels, strict=True)]
    for x, own in others:
        y, names = _multiplied(y, names, x, own, needed)
    return y.permute([names.index(label) for label in result])


def _prepared(x: Tensor, labels: Labels, sizes: dict[int, int], needed: Counter[int]) -> tuple[Tensor, Labels]:
    """The tensor in full size, on the diagonal of equal labels, summed over what nothing else needs; and its labels."""
    x, names = x.expand([sizes[label] for label in labels]), list(dict.fromkeys(labels))
    if len(names) < len(labels):
        steps = dict(zip(names, np.ogrid[tuple(slice(sizes[label]) for label in names)], strict=True))
        x = x[tuple(steps[label] for label in labels)]
    alone = [d for d, label in enumerate(names) if needed[label] == 1]
    return (x.sum(alone) if alone else x), [label for label in names if needed[label] > 1]


def _multiplied(a: Tensor, left: Labels, b: Tensor, right: Labels, needed: Counter[int]) -> tuple[Tensor, Labels]:
    """The product of two tensors, summed over the common labels that nothing else needs, and its labels."""
    batch = [label for label in left if label in right and needed[label] > 2]
    inner = [label for label in left if label in right and needed[label] == 2]
    rows, columns = [label for label in left if label not in right], [label for label in right if label not in left]
    needed.subtract(batch)
    names, sizes = batch + rows + columns, dict(zip(left + right, a.shape + b.shape, strict=True))
    n, m, k, p = (math.prod(sizes[label] for label in group) for group in (batch, rows, inner, columns))
    a = a.permute([left.index(label) for label in batch + rows + inner]).reshape(n, m, k)
    b = b.permute([right.index(label) for label in batch + inner + columns]).reshape(n, k, p)
    by_matrices = inner and (not batch or (rows and columns))  # else the elementwise product is no larger than a or b
    y = matmul(a, b) if by_matrices else mul(a.unsqueeze(3), b.unsqueeze(1)).sum(2, dtype=a.dtype)
    return y.reshape([sizes[label] for label in names]), names
