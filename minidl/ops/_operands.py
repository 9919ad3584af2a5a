"""What happens to an operation's arguments before it computes: checks, type promotion and broadcasting.

The decorator `@operation` wraps the function that computes. At each call it raises unless the tensors among the
arguments are tensors, all on one device; where the operation asks for it, it makes a batch of a single image or float32
of float16, and undoes that in the result. `operands` promotes dtypes and broadcasts, for operations with two operands.

Operands of different dtypes meet by PyTorch's rule: the tensors with dimensions decide; a 0-d tensor, and after it a
plain number, counts only if its kind is higher (bool < integer < real). So float32 with int64, with a 0-d float64 or
with 2.0 stays float32.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Any, TypeVar
from typing import cast as typed

import numpy as np

from minidl.autograd import is_grad_enabled
from minidl.kernels import devices
from minidl.ops.conversion import DType, as_dtype, cast, float32, int64, quiet, to, to_device
from minidl.tensor import Tensor

Number = bool | int | float
Function = Callable[..., Any]
F = TypeVar("F", bound=Function)
_KIND = {"b": 0, "u": 1, "i": 1, "f": 2}


# --- The decorator ------------------------------------------------------------------------------------------


def operation(
    *, errstate: bool = False, axis: bool = False, images: Sequence[str] = (), wide: bool = False
) -> Callable[[F], F]:
    """Check an operation's arguments: a parameter annotated as Tensor must get one, and all must be on one device.

    Parameters
    ----------
    errstate : bool
        NumPy gives no warning inside: 1/0 is inf.
    axis : bool
        Accept NumPy's ``axis=`` for ``dim=`` and ``keepdims=`` for ``keepdim=`` too, as PyTorch does.
    images : sequence of str
        These arguments are (N, C, H, W); if the first is one image (C, H, W), they become batches of one, and the
        results single images again.
    wide : bool
        Compute float16 inputs in float32, since the sum behind a mean can exceed float16's range.
    """

    def decorate(function: F) -> F:
        name, signature = function.__name__, inspect.signature(function).parameters
        kinds = ((i, p, x.annotation) for i, (p, x) in enumerate(signature.items()))
        expected = [(i, p, "None" in kind) for i, p, kind in kinds if kind in ("Tensor", "Tensor | None")]
        tensors = {key for i, p, _ in expected for key in (i, p)}  # arguments by position and by name
        batches = {key for i, p, _ in expected if p in images for key in (i, p)}
        body: Function = quiet(function) if errstate else function
        if not expected and not axis:
            return typed(F, body)

        @functools.wraps(function)
        def checked(*args: Any, **named: Any) -> Any:
            if axis and named:
                _rename_axis(name, named)
            given: list[Tensor] = []
            elsewhere = half = False
            for i, p, optional in expected:
                value = args[i] if i < len(args) else named.get(p)
                if isinstance(value, Tensor):
                    given.append(value)
                    elsewhere = elsewhere or type(value.array) is not np.ndarray
                    half = half or value.array.dtype.char == "e"
                elif (i < len(args) or p in named) and not (optional and value is None):
                    which = f"{p} must be a Tensor" if len(expected) > 1 else "expected a tensor"
                    raise TypeError(f"{name}: {which}, not {type(value).__name__}")
            if elsewhere:
                same_device(name, *given)
            if batches and given and given[0].array.ndim == 3:
                y = _call_changed(body, batches, lambda image: image.unsqueeze(0), args, named)
                return tuple(x.squeeze(0) for x in y) if isinstance(y, tuple) else y.squeeze(0)
            if wide and half and named.get("dtype") is None:
                y = _call_changed(body, tensors, _widened, args, named)
                return to(y, functools.reduce(_promote, [x.dtype for x in given]))
            return body(*args, **named)

        return typed(F, checked)

    return decorate


def _rename_axis(name: str, named: dict[str, Any]) -> None:
    for numpys, own in (("axis", "dim"), ("keepdims", "keepdim")):
        if numpys in named:
            if own in named:
                raise TypeError(f"{name}: give {own} or {numpys}, which mean the same, not both")
            named[own] = named.pop(numpys)


def _call_changed(
    function: Function, which: set[int | str], change: Function, args: Sequence[Any], named: dict[str, Any]
) -> Any:
    """Call the function with `change` applied to the tensors given at these positions or by these names."""

    def changed(key: int | str, x: Any) -> Any:
        return change(x) if key in which and isinstance(x, Tensor) else x

    return function(*starmap(changed, enumerate(args)), **{p: changed(p, x) for p, x in named.items()})


def _widened(x: Tensor) -> Tensor:
    return to(x, float32) if x.dtype == np.float16 else x


def same_device(name: str, *values: Tensor) -> None:
    """Raise if the tensors are on different devices."""
    different = sorted({str(devices.device_of(x.array)) for x in values})
    if len(different) > 1:
        found = " and ".join(different)
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, and found {found}: use .to(device)")


def only_tensors(name: str, *values: Any) -> None:
    """Raise for anything but tensors."""
    for value in values:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a tensor, not {type(value).__name__}")


def only_floats(name: str, input: Tensor, error: type[Exception] = RuntimeError) -> None:
    """Raise for a tensor of integers or bools."""
    if not input.is_floating_point():
        raise error(f"{name}: the input must be a float tensor, not {input.dtype}; convert it with .float()")


def only_compiled(name: str, input: Tensor) -> None:
    """Raise for dtypes that the kernels are not compiled for."""
    if input.dtype.char not in "fd":
        raise NotImplementedError(f"{name}: input must be float32 or float64, not {input.dtype}; convert with .float()")


def floating(input: Tensor) -> Tensor:
    """The operand of a function of real numbers: integers become float32."""
    return input if input.array.dtype.kind == "f" else to(input, float32)


# --- Sizes and dimensions -----------------------------------------------------------------------------------


def sizes(name: str, args: Sequence[Any], named: Sequence[int] | None = None) -> tuple[int, ...]:
    """Sizes given one by one, ``f(2, 3)``, as one tuple, ``f((2, 3))``, or by name, ``f(size=(2, 3))``."""
    args = args if named is None else (named,)
    given = args[0] if len(args) == 1 and isinstance(args[0], tuple | list) else args
    for size in given:
        if not isinstance(size, int | np.integer) or isinstance(size, bool):
            raise TypeError(f"{name}: expected ints, not {size!r} of type {type(size).__name__}")
    return tuple(int(size) for size in given)


def listed_sizes(name: str, given: Any) -> tuple[int, ...]:
    """Sizes given as one tuple or list."""
    if not isinstance(given, tuple | list):
        raise TypeError(f"{name}: expected a tuple or list of ints, not {type(given).__name__}")
    return sizes(name, (given,))


def dimension(name: str, dim: int, ndim: int) -> int:
    """`dim`, counted from the end if negative, as 0 <= dim < ndim."""
    if isinstance(dim, bool) or not isinstance(dim, int | np.integer):
        raise TypeError(f"{name}: dim must be an int, not {type(dim).__name__}")
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        least, most = -max(ndim, 1), max(ndim, 1) - 1
        raise IndexError(f"{name}: dim {dim} is out of range, expected {least} to {most}")
    return int(dim) % max(ndim, 1)


def dimensions(name: str, dim: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Several dimensions, all of them for None, in the order given."""
    if dim is None:
        return tuple(range(ndim))
    given: Sequence[Any] = dim if isinstance(dim, tuple | list) else [dim]
    dims = tuple(dimension(name, d, ndim) for d in given)
    if len(set(dims)) != len(dims):
        raise RuntimeError(f"{name}: a dimension appears twice in dim={dim}")
    return dims if ndim else ()


# --- Promotion and broadcasting -----------------------------------------------------------------------------


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
    """A tensor or a plain number as it is, an array as a tensor; raise for anything else."""
    if isinstance(value, Tensor | bool | int | float | np.generic):
        return value
    if devices.is_array(value):
        return Tensor(value.astype(as_dtype(value.dtype), copy=False))
    raise TypeError(f"{name}: expected a tensor, an array or a number, not {type(value).__name__}")


def number(name: str, value: Any, dtype: DType) -> Tensor:
    """A number as a 0-d tensor; raise if an integer dtype cannot hold it."""
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        raise RuntimeError(f"{name}: {value} is outside of {dtype}'s {np.iinfo(dtype).min} to {np.iinfo(dtype).max}")
    return Tensor(cast(np.asarray(value), dtype))


def operands(name: str, *values: Any) -> list[Tensor]:
    """Convert an operation's operands to one dtype, and expand those that need a gradient to the common shape.

    `expand` is recorded, so its gradient does the summing that broadcasting needs. NumPy broadcasts the others.

    Raises
    ------
    RuntimeError
        If the shapes do not broadcast.
    TypeError
        If a value is neither tensor, array nor number.
    """
    first = values[0]
    for x in values:
        if not isinstance(x, Tensor) or type(x.array) is not np.ndarray:
            return _promoted(name, *values)
        if x.array.dtype != first.array.dtype or x.array.shape != first.array.shape:
            return _promoted(name, *values)
    return list(values)  # the common case, kept fast


def _promoted(name: str, *values: Any) -> list[Tensor]:
    values = tuple(operand(name, value) for value in values)
    dtype, device = result_type(*values), _common_device(name, values)
    # Numbers wrap around like the elements of tensors: uint8 + -1 is uint8 + 255.
    tensors = [_converted(x, dtype, device) for x in values]
    shape = common_shape(name, *[x.shape for x in tensors])
    if not is_grad_enabled():
        return tensors
    return [x.expand(shape) if x.requires_grad and x.shape != shape else x for x in tensors]


def _common_device(name: str, values: Sequence[Any]) -> devices.Device:
    """The device on which the operands meet: as in PyTorch, a 0-d tensor on the CPU goes to the others' device."""
    tensors = [x for x in values if isinstance(x, Tensor)]
    if devices.all_on_cpu(*[x.array for x in tensors]):
        return devices.CPU
    fixed = [x for x in tensors if x.ndim or x.is_cuda]
    same_device(name, *fixed)
    return devices.device_of(fixed[0].array)


def _converted(x: Any, dtype: DType, device: devices.Device) -> Tensor:
    if not isinstance(x, Tensor):
        return Tensor(devices.number(cast(np.asarray(x), dtype), device))
    x = x if x.array.dtype == dtype else to(x, dtype)
    return x if device is devices.CPU else to_device(x, device)


def fitting(name: str, value: Any, shape: tuple[int, ...], x: Tensor, drop_ones: bool = False) -> Tensor:
    """The value as a tensor of this shape and of x's dtype; with `drop_ones`, without superfluous leading 1s."""
    value = operand(name, value)
    given = to(value if isinstance(value, Tensor) else number(name, value, x.dtype), x.dtype, device=x.device)
    while drop_ones and given.ndim > len(shape) and given.shape[0] == 1:
        given = given.squeeze(0)
    try:
        return given.expand(shape)
    except RuntimeError:
        raise RuntimeError(f"{name}: a value of shape {given.shape} does not fit in the shape {shape}") from None


def common_shape(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to which all shapes broadcast: aligned at the right, sizes must be equal or 1."""
    longest = max(shapes, key=len)
    if all(shape in ((), longest) for shape in shapes):  # the common case; NumPy's function is slow
        return longest
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        listed = " and ".join(map(str, shapes))
        rule = "aligned at the right, sizes must be equal, or one of them 1"
        raise RuntimeError(f"{name}: shapes {listed} do not broadcast: {rule}") from None
