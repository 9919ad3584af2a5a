"""Types of elements: what an operation's operands become before it computes.

PyTorch's rule: the tensors with dimensions decide; a 0-d tensor, and after it a plain number, counts only if its
kind is higher (bool < integer < real). So float32 with int64, with a 0-d float64 or with 2.0 stays float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.autograd import is_grad_enabled, record
from minidl.device import device as device_type
from minidl.device import place
from minidl.kernels import devices
from minidl.tensor import Tensor

Number = bool | int | float
DType = np.dtype[Any]

float32 = np.dtype("float32")
int64 = np.dtype("int64")
DTYPES = {
    np.dtype(name) for name in ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
}
# As in PyTorch, 1/0 is inf, log(-1) is nan and 1e300 in float32 is inf, all without a warning.
quiet = np.errstate(all="ignore")
_KIND = {"b": 0, "u": 1, "i": 1, "f": 2}


def as_dtype(dtype: Any) -> DType:
    """The NumPy dtype meant by a dtype, its name, or a Python or NumPy type.

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


def to(input: Tensor, *args: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """Convert to another dtype or device: ``x.to(minidl.float64)``, ``x.to("cpu")``, ``x.to(other)``.

    Returns the tensor itself where nothing changes. The gradient is converted back.
    """
    for arg in args:
        if isinstance(arg, Tensor):
            dtype, device = arg.dtype, arg.device
        elif isinstance(arg, device_type | str):
            device = arg
        else:
            dtype = arg
    moved = input if device is None else _moved(input, place(device))
    if dtype is None or as_dtype(dtype) == moved.dtype:
        return moved
    array, source = cast(moved.array, as_dtype(dtype)), moved.dtype
    if array.dtype.kind != "f":
        return Tensor(array)
    return record("to", array, (moved, lambda gy: to(gy, source)))


def _moved(input: Tensor, target: devices.Place) -> Tensor:
    source = devices.place_of(input.array)
    if source == target:
        return input
    return record("to", devices.moved(input.array, target), (input, lambda gy: _moved(gy, source)))


def type_(input: Tensor, dtype: Any) -> Tensor:
    """Convert to another dtype, as ``to``."""
    return to(input, as_dtype(dtype))


def int_(input: Tensor) -> Tensor:
    """Convert to int32; the fraction is cut off."""
    return to(input, np.int32)


def bool_(input: Tensor) -> Tensor:
    """Convert to bool: True where not 0."""
    return to(input, np.bool_)


def double(input: Tensor) -> Tensor:
    """Convert to float64."""
    return to(input, np.float64)


def float_(input: Tensor) -> Tensor:
    """Convert to float32."""
    return to(input, float32)


def long(input: Tensor) -> Tensor:
    """Convert to int64; the fraction is cut off."""
    return to(input, int64)


def cpu(input: Tensor) -> Tensor:
    """The tensor in the CPU's memory: itself where it lies there."""
    return _moved(input, devices.CPU)


def cuda(input: Tensor, device: Any = None) -> Tensor:
    """The tensor in the memory of a GPU: of this device, or of the current GPU."""
    wanted = device_type("cuda", device) if device is None or type(device) is int else device_type(device)
    return _moved(input, place(wanted))


def _promote(a: DType, b: DType) -> DType:
    if (a.kind == "f") != (b.kind == "f"):
        return a if a.kind == "f" else b
    return np.promote_types(a, b)


def _number_dtype(value: Any) -> DType:
    if type(value) is float:
        return float32
    if type(value) is int and -(2**63) <= value < 2**63:
        return int64
    kind = np.asarray(value).dtype.kind
    if kind == "O" and isinstance(value, int):
        raise RuntimeError(f"the number {value} is outside of int64's -2**63 to 2**63 - 1")
    if kind not in "biuf":
        raise TypeError(f"expected a real number, not {type(value).__name__}")
    return {"b": np.dtype(bool), "f": float32}.get(kind, int64)


def result_type(*operands: Any) -> DType:
    """The dtype in which tensors and numbers meet.

    Examples
    --------
    >>> import minidl
    >>> result_type(minidl.zeros(2), minidl.tensor(1.0, dtype=minidl.float64))
    dtype('float32')
    >>> result_type(minidl.arange(3), 0.5)
    dtype('float32')
    """
    ranks: list[DType | None] = [None, None, None]  # tensors with dimensions, 0-d tensors, numbers
    for x in operands:
        rank = 2 if not isinstance(x, Tensor) else 1 if x.ndim == 0 else 0
        dtype = x.dtype if isinstance(x, Tensor) else _number_dtype(x)
        before = ranks[rank]
        ranks[rank] = dtype if before is None else _promote(before, dtype)
    known = [dtype for dtype in ranks if dtype is not None]
    result = known[-1]
    for higher in reversed(known[:-1]):
        result = higher if _KIND[higher.kind] >= _KIND[result.kind] else _promote(higher, result)
    return result


def operand(name: str, value: Any) -> Any:
    """A tensor or a plain number; an array becomes a tensor, anything else is refused."""
    if isinstance(value, Tensor | bool | int | float | np.generic):
        return value
    if devices.is_array(value):
        return Tensor(value.astype(as_dtype(value.dtype), copy=False))
    raise TypeError(f"{name}: expected a tensor, an array or a number, not {type(value).__name__}")


def number(name: str, value: Any, dtype: DType) -> Tensor:
    """A number as a 0-d tensor; one that an integer dtype cannot hold is refused."""
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        raise RuntimeError(f"{name}: {value} is outside of {dtype}'s {np.iinfo(dtype).min} to {np.iinfo(dtype).max}")
    return Tensor(cast(np.asarray(value), dtype))


def same_device(name: str, *values: Tensor | None) -> None:
    """Refuse tensors in different memories; None is let through."""
    arrays = [x.array for x in values if x is not None]
    if devices.all_on_cpu(*arrays):
        return
    places = sorted({str(devices.place_of(array)) for array in arrays})
    if len(places) > 1:
        found = " and ".join(places)
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, and found {found}: use .to(device)")


def only_tensors(name: str, *values: Any) -> None:
    """Refuse anything but tensors."""
    for value in values:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a tensor, not {type(value).__name__}")


def operands(name: str, *values: Any) -> list[Tensor]:
    """Bring an operation's operands to one dtype, and those that need a gradient to the common shape.

    Broadcasting them through `expand` leaves it to expand's gradient to sum; the others NumPy broadcasts itself.

    Raises
    ------
    RuntimeError
        If the shapes do not broadcast.
    TypeError
        If a value is neither tensor, array nor number.
    """
    first = values[0]
    if isinstance(first, Tensor) and all(
        isinstance(x, Tensor)
        and type(x.array) is np.ndarray
        and x.array.dtype == first.array.dtype
        and x.array.shape == first.array.shape
        for x in values
    ):
        return list(values)  # the usual case, which should not wait for the others
    values = tuple(operand(name, value) for value in values)
    dtype, home = result_type(*values), _home(name, values)
    # Numbers wrap around like the tensors' own elements do: uint8 + -1 is uint8 + 255.
    tensors = [_as(dtype, x, home) for x in values]
    shape = common_shape(name, *[x.shape for x in tensors])
    if not is_grad_enabled():
        return tensors
    return [x.expand(shape) if x.requires_grad and x.shape != shape else x for x in tensors]


def _home(name: str, values: Sequence[Any]) -> devices.Place:
    """Where the operands are to meet: as in PyTorch, a 0-d tensor of the CPU goes wherever the others are."""
    tensors = [x for x in values if isinstance(x, Tensor)]
    if devices.all_on_cpu(*[x.array for x in tensors]):
        return devices.CPU
    fixed = [x for x in tensors if x.ndim or x.is_cuda]
    same_device(name, *fixed)
    return devices.place_of(fixed[0].array)


def _as(dtype: DType, x: Any, home: devices.Place) -> Tensor:
    if not isinstance(x, Tensor):
        return Tensor(devices.number(cast(np.asarray(x), dtype), home))
    x = x if x.array.dtype == dtype else to(x, dtype)
    return x if home is devices.CPU else _moved(x, home)


def common_shape(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to which all shapes broadcast: aligned at the right, sizes must be equal or 1."""
    longest = max(shapes, key=len)
    if all(shape in ((), longest) for shape in shapes):  # by far the most usual, and NumPy's function is slow
        return longest
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        listed = " and ".join(map(str, shapes))
        raise RuntimeError(
            f"{name}: shapes {listed} do not broadcast: aligned at the right, sizes must be equal, or one of them 1"
        ) from None


def floating(name: str, input: Tensor) -> Tensor:
    """The operand of a function that is defined on real numbers: integers become float32."""
    only_tensors(name, input)
    return input if input.is_floating_point() else to(input, float32)
