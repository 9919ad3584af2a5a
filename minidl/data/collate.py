"""Collation: the items of a batch, stacked into tensors; containers keep their structure, tuples become lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from minidl.creation import as_tensor
from minidl.ops._operands import result_type
from minidl.tensor import Array, Tensor

KEPT = (bool, np.ndarray, np.bool_, np.number)  # values that keep their dtype; Python's numbers get one below
TEXT = "SaUO"  # NumPy's kinds of strings and objects


def default_collate(batch: Sequence[Any]) -> Any:
    """Make a batch of a list of items: the default `collate_fn` of `DataLoader`.

    Numbers, arrays and tensors are stacked along a new first dimension: ints to int64, floats to float64 (to float32
    if the first number is an int), NumPy's numbers to their own dtype. Tuples and lists become a list, with each
    position collated; dicts and named tuples keep their keys. Strings are not stacked.

    Parameters
    ----------
    batch : sequence
        The items, at least one.

    Returns
    -------
    Tensor, list, dict or named tuple

    Raises
    ------
    RuntimeError
        If the items differ in shape or length.
    TypeError
        If the items hold anything else, such as None.

    Examples
    --------
    >>> images, labels, names = default_collate([(np.zeros((2, 3)), 0, "a"), (np.ones((2, 3)), 1, "b")])
    >>> images.shape, labels.tolist(), names
    ((2, 2, 3), [0, 1], ('a', 'b'))
    >>> default_collate([{"x": 1.5}, {"x": 2.5}])
    {'x': tensor([1.5, 2.5], shape=(2,), dtype=float64)}
    """
    return collate(batch, range(len(batch)))


def default_convert(data: Any) -> Any:
    """Turn the arrays in one item into tensors: the `collate_fn` of a `DataLoader` with ``batch_size=None``.

    Examples
    --------
    >>> default_convert((np.arange(2), 7, "seven"))
    [tensor([0, 1], shape=(2,), dtype=int64), 7, 'seven']
    """

    def converted(value: Any) -> Any:
        is_numeric = isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind not in TEXT
        return as_tensor(value) if is_numeric else value

    return convert(data, converted)


def convert(data: Any, change: Callable[[Any], Any]) -> Any:
    """Apply `change` to whatever is in nested containers; tuples become lists."""
    if isinstance(data, Mapping):
        return _like(data, {key: convert(value, change) for key, value in data.items()})
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _listed(data, (convert(value, change) for value in data))
    return change(data)


def collate(items: Sequence[Any], indices: Sequence[Any]) -> Any:
    """Collate items; `indices` are their names in error messages."""
    first = items[0]
    if isinstance(first, (str, bytes)):
        return items
    if isinstance(first, Mapping):
        return _like(first, {key: collate(_values(items, key, indices), indices) for key in first})
    if isinstance(first, Sequence):
        return _listed(first, (collate(column, indices) for column in _columns(items, indices)))
    return _stack(items, indices)


def _like(mapping: Mapping[Any, Any], entries: dict[Any, Any]) -> Any:
    """The entries in the type of `mapping`, or in a dict if that type cannot be made from them."""
    try:
        return type(mapping)(entries)  # type: ignore[call-arg]
    except TypeError:
        return entries


def _listed(data: Sequence[Any], values: Iterable[Any]) -> Any:
    return type(data)(*values) if hasattr(data, "_fields") else list(values)  # _fields: a named tuple


def _values(items: Sequence[Any], key: Any, indices: Sequence[Any]) -> list[Any]:
    for index, item in zip(indices, items, strict=True):
        if key not in item:
            raise KeyError(f"item {indices[0]} has the key {key!r}, item {index} has only {list(item)}")
    return [item[key] for item in items]


def _columns(items: Sequence[Any], indices: Sequence[Any]) -> Iterable[tuple[Any, ...]]:
    for index, item in zip(indices, items, strict=True):
        if not isinstance(item, Sequence):
            raise TypeError(
                f"item {indices[0]} holds a {type(items[0]).__name__}, item {index} a {type(item).__name__}"
            )
        if len(item) != len(items[0]):
            raise RuntimeError(
                "each element in list of batch should be of equal size: "
                f"item {indices[0]} holds a sequence of {len(items[0])}, item {index} one of {len(item)}"
            )
    return zip(*items, strict=True)


def _stack(values: Sequence[Any], indices: Sequence[Any]) -> Tensor:
    float_dtype = np.float64 if isinstance(values[0], float) else np.float32  # PyTorch's choice
    arrays = [_as_array(value, index, float_dtype) for value, index in zip(values, indices, strict=True)]
    for index, array in zip(indices, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise RuntimeError(
                "items of a batch must have the same shape: "
                f"that of item {indices[0]} is {arrays[0].shape}, that of item {index} is {array.shape}"
            )
    one_of_each = {array.dtype: array for array in arrays}.values()
    dtype = result_type(*map(Tensor, one_of_each))  # NumPy would promote int64 with float32 to float64
    return Tensor(np.stack(arrays, dtype=dtype))


def _as_array(value: Any, index: Any, float_dtype: Any) -> Array:
    if isinstance(value, Tensor):
        return value.array
    if isinstance(value, KEPT) and np.asarray(value).dtype.kind not in TEXT:
        return np.asarray(value)
    if isinstance(value, (int, float)):
        return np.asarray(value, np.int64 if isinstance(value, int) else float_dtype)
    found = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
    wanted = "tensors, arrays, numbers and strings, or of lists, tuples and dicts of them"
    raise TypeError(f"item {index} holds {found}; a batch is made of {wanted}")
