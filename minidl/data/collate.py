"""Collation: the items of a batch, stacked into tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.ops._operands import result_type
from minidl.tensor import Array, Tensor

KEPT: Any = (bool, np.bool_, np.ndarray, np.floating)  # items that keep their dtype
ITEM_DTYPES = (KEPT, None), ((int, np.integer), np.int64), (float, np.float32)


def collate(items: list[Any], indices: Array) -> Any:
    """Stack items into a tensor, or tuples of items into a tuple of tensors."""
    if not isinstance(items[0], (tuple, list)):
        return _stack(items, indices)
    sizes = [len(item) if isinstance(item, (tuple, list)) else None for item in items]
    for index, size in zip(indices, sizes, strict=True):
        if size != sizes[0]:
            raise ValueError(f"item {indices[0]} is a tuple of {sizes[0]}, and item {index} is not")
    return tuple(_stack(list(column), indices) for column in zip(*items, strict=True))


def _stack(values: list[Any], indices: Array) -> Tensor:
    arrays = [_as_array(value, index) for value, index in zip(values, indices, strict=True)]
    for index, array in zip(indices, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"items of a batch must have the same shape: that of item {indices[0]} is {arrays[0].shape}, "
                f"that of item {index} is {array.shape}"
            )
    one_of_each = {array.dtype: array for array in arrays}.values()
    dtype = result_type(*map(Tensor, one_of_each))  # NumPy would promote int64 with float32 to float64
    return Tensor(np.stack(arrays, dtype=dtype))


def _as_array(value: Any, index: int) -> Array:
    if isinstance(value, Tensor):
        return value.array
    for kinds, dtype in ITEM_DTYPES:
        if isinstance(value, kinds):
            return np.asarray(value, dtype)
    wanted = "tensors, arrays, numbers and bools, or of tuples of them"
    raise TypeError(f"item {index} holds a {type(value).__name__}; a batch is made of {wanted}")
