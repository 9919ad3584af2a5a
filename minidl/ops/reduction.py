"""Reductions: many elements become one, over some dimensions or all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minidl import kernels
from minidl.autograd import record
from minidl.ops.arithmetic import maximum, quiet, sqrt
from minidl.ops.dtype import int64, only_tensors, to
from minidl.ops.shape import dimension, dimensions
from minidl.tensor import Tensor

Dims = int | Sequence[int] | None


def _reduced(name: str, input: Tensor, dim: Dims) -> tuple[int, ...]:
    """The dimensions to reduce: all, also for an empty list of them, as in PyTorch."""
    only_tensors(name, input)
    return dimensions(name, None if isinstance(dim, tuple | list) and not dim else dim, input.ndim)


def _kept(shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with the reduced dimensions as 1."""
    return tuple(1 if d in dims else size for d, size in enumerate(shape))


@quiet
def sum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """y = sum of x over `dim`;  gx = gy, repeated. Integers and booleans are summed in int64."""
    dims = _reduced("sum", input, dim)
    x = to(input, dtype or (int64 if input.dtype.kind in "biu" else input.dtype))
    shape = x.shape
    kept = _kept(shape, dims)
    wide = np.float32 if x.dtype == np.float16 else x.dtype  # half precision stops counting at 2048
    if x.dtype.kind == "f" and x.dtype != np.float16 and len(dims) == x.ndim:
        y = kernels.total(x.array).reshape(kept if keepdim else ())
    else:
        y = x.array.sum(axis=dims, keepdims=keepdim, dtype=wide).astype(x.dtype)
    return record("sum", y, (x, lambda gy: gy.reshape(kept).expand(shape)))


def mean(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """y = sum of x over `dim` / its number of elements;  gx = gy / that number. NaN where there are none."""
    count = math.prod(input.shape[d] for d in _reduced("mean", input, dim))
    if input.dtype == np.float16:  # whose sums soon overflow
        return to(mean(to(input, np.float32), dim, keepdim), np.float16)
    _refuse_integers("mean", input)
    return sum(input, dim, keepdim) / count


def var(input: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    """y = sum of (x - mean)^2 / (n - 1), or / n where not `unbiased`."""
    n = math.prod(input.shape[d] for d in _reduced("var", input, dim))
    _refuse_integers("var", input)
    deviation = input - mean(input, dim, keepdim=True)
    return sum(deviation * deviation, dim, keepdim) / (n - 1 if unbiased and n else n)


def _refuse_integers(name: str, input: Tensor) -> None:
    if not input.is_floating_point():
        raise RuntimeError(f"{name}: of a {input.dtype} tensor is no {input.dtype}; convert it with .float() first")


def std(input: Tensor, dim: Dims = None, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    """The square root of ``var``."""
    return sqrt(var(input, dim, unbiased, keepdim))


def min(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The least element; ``min(x, dim)`` gives (values, indices). It is ``max`` of -x, with its sign turned back."""
    found = max(-input, dim, keepdim)
    return -found if isinstance(found, Tensor) else MaxResult(-found.values, found.indices)


def all(input: Tensor) -> Tensor:
    """Whether all elements are true (not 0), as a 0-d bool tensor."""
    only_tensors("all", input)
    return Tensor(np.asarray(input.array.all()))


def any(input: Tensor) -> Tensor:
    """Whether any element is true (not 0), as a 0-d bool tensor."""
    only_tensors("any", input)
    return Tensor(np.asarray(input.array.any()))


class MaxResult(NamedTuple):
    """What ``max(x, dim)`` returns: the greatest elements, and where they stand in that dimension."""

    values: Tensor
    indices: Tensor


def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None) -> Any:
    """The greatest element; ``max(x, dim)`` gives (values, indices); ``max(a, b)`` is ``maximum``.

    NaN counts as greatest. gx = gy at the element chosen, the first among equals; without `dim`, as in PyTorch,
    gy is shared out among all equals.

    Raises
    ------
    RuntimeError, IndexError
        If there is no element to choose from.
    """
    only_tensors("max", input)
    if other is not None or isinstance(dim, Tensor):
        return maximum(input, dim if other is None else other)
    if dim is None:
        return _max_of_all(input)
    indices = argmax(input, dim, keepdim=True)
    d, shape = dimension("max", dim, input.ndim), input.shape
    values = _take(input, indices, d)
    if keepdim or not shape:
        return MaxResult(values, indices)
    return MaxResult(values.squeeze(d), indices.squeeze(d))


def _max_of_all(input: Tensor) -> Tensor:
    if input.numel() == 0:
        raise RuntimeError(f"max: a tensor of shape {input.shape} has no greatest element")
    y = np.asarray(input.array.max())
    chosen = np.isnan(input.array) if np.isnan(y) else input.array == y
    share = Tensor((chosen / chosen.sum()).astype(input.dtype))
    return record("max", y, (input, lambda gy: gy * share))


def _take(input: Tensor, indices: Tensor, dim: int) -> Tensor:
    """The elements at `indices`, which have size 1 in `dim`."""
    if input.ndim == 0:
        return input.clone()
    grids = np.ogrid[tuple(slice(size) for size in indices.shape)]
    return input[tuple(indices.array if d == dim else grid for d, grid in enumerate(grids))]


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The place of the greatest element in dimension `dim`, or in the flattened tensor; the first among equals."""
    only_tensors("argmax", input)
    d = None if dim is None else dimension("argmax", dim, input.ndim)
    if input.numel() == 0 and (d is None or input.shape[d] == 0):
        raise IndexError(f"argmax: no element to choose from in shape {input.shape}, dim {dim}")
    if input.ndim == 0:
        return Tensor(np.zeros((), np.int64))
    return Tensor(np.asarray(np.argmax(input.array, axis=d, keepdims=keepdim), np.int64))
