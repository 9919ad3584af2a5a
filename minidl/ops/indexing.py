"""Indexing: x[index] reads elements; its adjoint adds values to zeros at the positions that were read."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import kernels
from minidl.autograd import record
from minidl.kernels import devices
from minidl.tensor import Tensor

Shape = tuple[int, ...]
Index = tuple[Any, ...]


def getitem(input: Tensor, index: Any) -> Tensor:
    """x[index], with ints, slices, ``...``, None, and integer or boolean tensors, arrays or lists.

    gx is 0 but for the elements that were read: gx[index] += gy, which sums where an element was read twice.
    """
    (first, second), shape = split_index(index, input), input.shape
    y = input.array[first][second]
    return record("getitem", y, (input, lambda gy: _getitem_backward(gy, first, second, shape)), view_of=input)


def _getitem_backward(values: Tensor, first: Index, second: Index, shape: Shape) -> Tensor:
    """The adjoint of x[index]."""
    y = np.zeros_like(values.array, shape=shape or (1,)).reshape(shape)  # CuPy ignores a shape of ()
    if any(devices.is_array(part) and part.dtype != bool for part in second):
        kernels.add_at(y[first], second, values.array)  # arrays of ints can name an element twice
    else:
        y[first][second] = values.array
    return record("getitem_backward", y, (values, lambda gy: gy[first][second]))


def split_index(index: Any, x: Tensor) -> tuple[Index, Index]:
    """An index in two steps, x.array[first][second]: basic indexing, which gives a view, then indexing by arrays.

    PyTorch applies ints before arrays, so x[0, :, [1, 2]] keeps the order (slice, list); NumPy would treat the 0 as
    one of the arrays. Both steps end in `...`, which makes even a single element a view, not a number.
    """
    parts = [_plain_part(part, x) for part in (index if isinstance(index, tuple) else (index,))]
    parts = _without_ellipsis(parts, x.ndim)
    if not any(devices.is_array(part) for part in parts):
        return (*parts, ...), (...,)
    first: list[Any] = []
    for part in parts:
        first += [part] if isinstance(part, int) else [slice(None)] * _dimensions_of(part)
    _refuse_out_of_bounds(parts, x.shape)
    return (*first, ...), (*[part for part in parts if not isinstance(part, int)], ...)


def _refuse_out_of_bounds(parts: list[Any], shape: Shape) -> None:
    """Refuse ints out of bounds, which CuPy would wrap around."""
    d = 0
    for part in parts:
        if devices.is_array(part) and part.dtype != bool and d < len(shape):
            wrong = (part < -shape[d]) | (part >= shape[d])
            if devices.any_true(wrong):
                index = part[np.unravel_index(int(wrong.argmax()), wrong.shape)].item()
                raise IndexError(f"x[index]: index {index} is out of bounds for dimension {d} with size {shape[d]}")
        d += _dimensions_of(part)


def _dimensions_of(part: Any) -> int:
    """How many dimensions a part of an index consumes: None consumes none, a mask as many as it has."""
    mask = devices.is_array(part) and part.dtype == bool
    return part.ndim if mask else int(part is not None)


def _without_ellipsis(parts: list[Any], ndim: int) -> list[Any]:
    """The `...` as the slices it stands for. To NumPy it separates two arrays even if it stands for none."""
    positions = [i for i, part in enumerate(parts) if part is Ellipsis]
    if len(positions) > 1:
        raise IndexError("x[index]: an index can only have a single ellipsis ('...')")
    if not positions:
        return parts
    before, after = parts[: positions[0]], parts[positions[0] + 1 :]
    rest = ndim - sum(_dimensions_of(part) for part in before + after)
    return before + [slice(None)] * rest + after


def _plain_part(part: Any, x: Tensor) -> Any:
    """One part of an index of x as an int, a slice, None, `...` or an array of ints or bools."""
    if part is None or part is Ellipsis:
        return part
    if isinstance(part, slice):
        if part.step is not None and part.step <= 0:
            raise ValueError(f"x[index]: the step of a slice must be greater than 0, not {part.step}")
        return part
    if isinstance(part, Tensor):
        part = part.array
    elif isinstance(part, list | range):
        part = np.array(part, None if len(part) else np.int64)
    elif not isinstance(part, bool | int | np.generic) and not devices.is_array(part):
        error = TypeError if isinstance(part, str) else IndexError  # as PyTorch has it
        raise error(f"x[index]: expected ints, slices, '...', None, tensors, arrays or lists, not {part!r}")
    array = part.copy() if devices.is_array(part) else np.array(part)  # the gradient reads what this index was
    if array.dtype.kind not in "bi":
        raise IndexError(f"x[index]: arrays in an index must be of bools or signed ints, not {array.dtype}; use int64")
    return int(array) if array.ndim == 0 and array.dtype.kind == "i" else devices.beside(array, x.array)
