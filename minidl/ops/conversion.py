"""Conversion: a tensor with elements of another dtype, or on another device. The gradient is converted back."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.autograd import record
from minidl.device import as_device
from minidl.device import device as device_type
from minidl.kernels import devices
from minidl.tensor import Tensor

DType = np.dtype[Any]

float32, int64 = np.dtype("float32"), np.dtype("int64")
DTYPES = set(map(np.dtype, "bool uint8 int8 int16 int32 int64 float16 float32 float64".split()))
# As in PyTorch, 1/0 is inf, log(-1) is nan and 1e300 in float32 is inf, all without a warning.
quiet = np.errstate(all="ignore")


def as_dtype(dtype: Any) -> DType:
    """The NumPy dtype that a dtype, its name, or a Python or NumPy type stands for.

    Raises
    ------
    TypeError
        For types that minidl does not compute with (complex, strings, objects).
    """
    if isinstance(dtype, Tensor):
        raise TypeError("dtype: expected a dtype such as minidl.float32, not a tensor; use its .dtype")
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype {dtype!r} is not known: use one such as minidl.float32 or minidl.int64") from None
    found = found.newbyteorder("=")
    if found not in DTYPES:
        raise TypeError(f"dtype {found} is not supported: use one of {', '.join(sorted(map(str, DTYPES)))}")
    return found


@quiet
def cast(array: Any, dtype: DType, copy: bool = True) -> Any:
    """The array with elements of another type."""
    return array.astype(dtype, copy=copy)


contiguous_format, preserve_format, channels_last = "contiguous_format", "preserve_format", "channels_last"


def laid_out(array: Any, memory_format: str | None) -> Any:
    """The array, or a copy with its memory in this order: (N, H, W, C) for "channels_last"."""
    if memory_format == channels_last:
        if array.ndim != 4:
            raise RuntimeError(f"channels_last: shape {array.shape} does not have the 4 dimensions (N, C, H, W)")
        return laid_out(array.transpose(0, 2, 3, 1), contiguous_format).transpose(0, 3, 1, 2)
    return array.copy(order="C") if memory_format == contiguous_format and not array.flags.c_contiguous else array


def to(
    input: Tensor,
    *args: Any,
    dtype: Any = None,
    device: Any = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """Convert to another dtype or device: ``x.to(minidl.float64)``, ``x.to("cpu")``, ``x.to(other)``.

    Returns the tensor itself if it already has both, unless `copy` asks for another. `non_blocking` is ignored.
    """
    for arg in args:
        if isinstance(arg, Tensor):
            dtype, device = arg.dtype, arg.device
        elif isinstance(arg, device_type | str):
            device = arg
        elif not isinstance(arg, bool):
            dtype = arg
    if copy or [arg for arg in args if isinstance(arg, bool)][1:] == [True]:  # they are non_blocking, copy
        input = input.clone(memory_format=memory_format)
    elif memory_format not in (None, preserve_format):
        input = input.contiguous(memory_format=memory_format)
    moved = input if device is None else to_device(input, as_device(device))
    if dtype is None or as_dtype(dtype) == moved.dtype:
        return moved
    array, source = cast(moved.array, as_dtype(dtype)), moved.dtype
    if array.dtype.kind != "f":
        return Tensor(array)
    return record("to", array, (moved, lambda gy: to(gy, source)))


def to_device(input: Tensor, target: devices.Device) -> Tensor:
    """The tensor on this device: itself if it is there already."""
    source = devices.device_of(input.array)
    if source == target:
        return input
    return record("to", devices.moved(input.array, target), (input, lambda gy: to_device(gy, source)))


def type_(input: Tensor, dtype: Any) -> Tensor:
    """Convert to another dtype, as ``to``."""
    return to(input, as_dtype(dtype))


def int_(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """Convert to int32, truncating towards 0."""
    return to(input, np.int32, memory_format=memory_format)


def bool_(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """Convert to bool: True where not 0."""
    return to(input, np.bool_, memory_format=memory_format)


def double(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """Convert to float64."""
    return to(input, np.float64, memory_format=memory_format)


def float_(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """Convert to float32."""
    return to(input, float32, memory_format=memory_format)


def long(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """Convert to int64, truncating towards 0."""
    return to(input, int64, memory_format=memory_format)


def cpu(input: Tensor) -> Tensor:
    """The tensor in the CPU's memory: itself if it is there already."""
    return to_device(input, devices.CPU)


def cuda(input: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
    """The tensor in the memory of a GPU: this device, or the current GPU. `non_blocking` is ignored."""
    wanted = device_type("cuda", device) if device is None or type(device) is int else device_type(device)
    return to_device(input, as_device(wanted))
