"""Tensor factories: from data, constants, ranges, random numbers. Names and defaults are PyTorch's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.device import as_device
from minidl.kernels import devices
from minidl.ops._operands import Number, common_shape, number, only_tensors, result_type, sizes
from minidl.ops.conversion import DType, as_dtype, cast, float32, int64, laid_out, to
from minidl.ops.inplace import check_writable, overwritten
from minidl.random import Generator, rng_of
from minidl.tensor import Array, Tensor

Shape = tuple[int, ...]
DLPACK_CPU = 1  # kDLCPU, DLPack's device type for the CPU


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of `data`: numbers, nested lists, arrays or tensors.

    Python floats become float32, ints int64, bools bool; arrays keep their dtype.

    Raises
    ------
    TypeError
        If the data is not numeric.
    ValueError
        If nested lists have different lengths.

    Examples
    --------
    >>> tensor([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]], shape=(2, 2), dtype=int64)
    """
    shared = as_tensor(data.detach() if isinstance(data, Tensor) else data, dtype, device)
    return Tensor(shared.array.copy(order="K"), requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """Like ``tensor``, but without copying tensors and arrays that need no conversion."""
    if isinstance(data, Tensor):
        return to(data, data.dtype if dtype is None else dtype, device=device)
    return _finish(_as_array(data, dtype), device, False)


def from_numpy(ndarray: Array) -> Tensor:
    """A tensor that shares the array's memory. minidl does not notice what NumPy writes there later."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"from_numpy: expected a numpy.ndarray, not {type(ndarray).__name__}")
    if as_dtype(ndarray.dtype) != ndarray.dtype:
        raise TypeError(f"from_numpy: {ndarray.dtype} is not in native byte order; minidl.tensor(array) converts it")
    return Tensor(np.asarray(ndarray))


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor that shares memory with one of another library (PyTorch, JAX, CuPy, NumPy), on the CPU or a GPU.

    Parameters
    ----------
    ext_tensor : object with ``__dlpack__``

    Examples
    --------
    >>> from_dlpack(np.arange(3)).tolist()
    [0, 1, 2]
    """
    if not hasattr(ext_tensor, "__dlpack_device__"):
        raise TypeError(f"from_dlpack: expected a tensor or array that has __dlpack__, not {type(ext_tensor).__name__}")
    kind, _ = ext_tensor.__dlpack_device__()
    array = np.from_dlpack(ext_tensor) if kind == DLPACK_CPU else devices.cupy().from_dlpack(ext_tensor)
    as_dtype(array.dtype)
    return Tensor(array)


def _as_array(data: Any, dtype: Any) -> Array:
    data = _without_tensors(data)
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ValueError(f"tensor: nested lists and arrays must have equal lengths: {error}") from None
    if array.dtype.kind in "US":
        raise TypeError(f"tensor: expected numbers, not text such as {str(array.flat[0])!r}")
    strange = [x for x in array.flat if not isinstance(x, int)] if array.dtype == object else []
    if strange:
        raise RuntimeError(f"tensor: expected numbers, not {strange[0]!r} of type {type(strange[0]).__name__}")
    first = _first(data)
    own = dtype is None and not isinstance(first, np.ndarray | np.generic)  # Python's numbers have no dtype to keep
    # Ints beyond int64 become uint64 or objects in NumPy, or float64 where some need int64 and others uint64.
    mixed = own and array.dtype == np.float64 and abs(array).max(initial=0) >= 2**63 and not _any_real(data)
    if mixed or array.dtype == object or (isinstance(first, int) and array.dtype.kind == "u"):
        raise ValueError("tensor: an int is outside of int64's -2**63 to 2**63 - 1")
    if own and (array.dtype == np.float64 or not array.size):
        array = cast(array, float32)
    wanted = as_dtype(array.dtype if dtype is None else dtype)
    if array is not data and array.dtype.kind in "if" and wanted.kind in "iu" and array.size:
        for extreme in (array.min(), array.max()):
            number("tensor", extreme.item(), wanted)
    return cast(array, wanted, copy=False)


def _any_real(data: Any) -> bool:
    return any(map(_any_real, data)) if isinstance(data, list) else isinstance(data, float)


def _drawn(draw: Callable[[], Any], shape: Shape, dtype: DType, device: Any, requires_grad: bool = False) -> Tensor:
    """Draw on the CPU and move to the device, so that a seed gives the same numbers on every device."""
    return Tensor(devices.sent(lambda: np.asarray(draw(), dtype), shape, dtype, as_device(device)), requires_grad)


def uniform(rng: np.random.Generator, shape: Shape, dtype: DType) -> Array:
    """Draw from [0, 1). In float16: multiples of 2^-11, since rounding a float32 could give 1."""
    if dtype == np.float16:
        return (rng.integers(0, 2**11, shape) / 2**11).astype(dtype)
    return rng.random(shape, dtype)


def _without_tensors(data: Any) -> Any:
    if isinstance(data, list | tuple | range):
        return [_without_tensors(x) for x in data]
    return devices.moved(data.array, devices.CPU) if isinstance(data, Tensor) else data


def _first(data: Any) -> Any:
    """The first number in nested lists, or () if there is none."""
    while isinstance(data, list):
        data = data[0] if data else ()
    return data


def _finish(array: Array, device: Any, requires_grad: bool) -> Tensor:
    return Tensor(array if device is None else devices.moved(array, as_device(device)), requires_grad)


def zeros(*args: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros, float32 unless `dtype` says otherwise: ``zeros(2, 3)`` or ``zeros((2, 3))``."""
    return _finish(np.zeros(_shape("zeros", args, size), as_dtype(dtype or float32)), device, requires_grad)


def empty(*args: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor to be overwritten. It is filled with zeros; PyTorch leaves it uninitialised."""
    return _finish(np.zeros(_shape("empty", args, size), as_dtype(dtype or float32)), device, requires_grad)


def ones(*args: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones, float32 unless `dtype` says otherwise."""
    return _finish(np.ones(_shape("ones", args, size), as_dtype(dtype or float32)), device, requires_grad)


def full(
    size: Any, fill_value: Number, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A constant; by default the dtype follows from the value."""
    _numbers("full", fill_value)
    if not isinstance(size, tuple | list):
        raise TypeError(f"full: size must be a tuple or list of ints, such as (3,), not {size!r}")
    value = number("full", fill_value, as_dtype(dtype or result_type(fill_value))).array
    return _finish(np.full(_shape("full", (size,)), value), device, requires_grad)


def arange(
    start: Number = 0,
    end: Number | None = None,
    step: Number = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """From `start` in steps of `step`, up to but excluding `end`; ``arange(n)`` is 0, 1, ... n - 1."""
    numbers = (0, start, step) if end is None else (start, end, step)
    _numbers("arange", *numbers)
    whole = all(x.dtype.kind in "iu" if isinstance(x, Tensor) else isinstance(x, int | np.integer) for x in numbers)
    kind = as_dtype(dtype or (int64 if whole else float32))
    first, last, by = (x.item() if isinstance(x, Tensor) else x for x in numbers)
    if kind == int64:  # in PyTorch the bounds become integers before these are counted
        first, last, by = int(first), int(last), int(by)
    if by == 0 or not 0 <= (last - first) * by < np.inf:
        raise RuntimeError(f"arange: steps of {step} do not lead from {first} to {last}")
    array = np.arange(first, last, by)
    array = int(first) + int(by) * np.arange(len(array)) if kind.kind in "iu" and not whole else array
    return _finish(array.astype(kind), device, requires_grad)


def linspace(
    start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """`steps` evenly spaced numbers from `start` to `end`, both included; as integers rounded towards 0."""
    kind = as_dtype(dtype or float32)
    _numbers("linspace", start, end)
    count, _ = sizes("linspace", (steps, 0))
    if count < 0:
        raise RuntimeError(f"linspace: steps must be at least 0, not {count}")
    ends = (x.item() if isinstance(x, Tensor) else x for x in (start, end))
    first, last = (number("linspace", x, kind).item() for x in ends)
    i, step = np.arange(count), (last - first) / max(count - 1, 1)  # counted from the nearer end: both are met
    array = np.where(i < count / 2, first + step * i, last - step * (count - 1 - i))
    return _finish(cast(array, kind), device, requires_grad)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """The identity matrix with n rows and m columns (by default n)."""
    _shape("eye", (n, n if m is None else m))
    return _finish(np.eye(n, m, dtype=as_dtype(dtype or float32)), device, requires_grad)


def rand(
    *args: Any,
    size: Any = None,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: Any = False,
) -> Tensor:
    """Draw from the uniform distribution on [0, 1)."""
    kind = _real("rand", dtype)
    shape = _shape("rand", args, size)
    return _drawn(lambda: uniform(rng_of(generator), shape, kind), shape, kind, device, requires_grad)


def randn(
    *args: Any,
    size: Any = None,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: Any = False,
) -> Tensor:
    """Draw from the normal distribution with mean 0 and variance 1."""
    kind = _real("randn", dtype)
    shape, drawn = _shape("randn", args, size), kind if kind == np.float64 else float32  # NumPy draws no float16
    return _drawn(lambda: rng_of(generator).standard_normal(shape, drawn), shape, kind, device, requires_grad)


def randint(
    low: int = 0, high: Any = None, size: Any = None, *, generator: Any = None, dtype: Any = None, device: Any = None
) -> Tensor:
    """Integers from `low` to `high` - 1, each equally likely: ``randint(10, (3,))``, ``randint(5, 10, (3,))``."""
    if size is None or high is None:
        low, high, size = 0, low, high if size is None else size
    if size is None:
        raise TypeError("randint: give a size, such as randint(10, (3,))")
    if not isinstance(size, tuple | list):
        raise TypeError(f"randint: size must be a tuple or list of ints, such as (3,), not {size!r}")
    low, high = sizes("randint", (low, high))
    if low >= high:
        raise RuntimeError(f"randint: high must be greater than low, but they are {high} and {low}")
    kind = as_dtype(dtype or np.int64)
    for value in (low, high - 1):
        number("randint", value, kind)
    shape = _shape("randint", (size,))
    return _drawn(lambda: rng_of(generator).integers(low, high, shape), shape, kind, device)


def randperm(n: int, *, generator: Generator | None = None, dtype: Any = None, device: Any = None) -> Tensor:
    """The integers 0 to n - 1 in random order."""
    _shape("randperm", (n,))
    kind = as_dtype(dtype or np.int64)
    number("randperm", max(n - 1, 0), kind)
    return _drawn(lambda: rng_of(generator).permutation(n), (n,), kind, device)


def zeros_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, memory_format: Any = None
) -> Tensor:
    """Zeros with the shape and dtype of another tensor."""
    only_tensors("zeros_like", input)
    array = np.zeros_like(input.array, as_dtype(dtype or input.dtype), order="C")
    return _finish(laid_out(array, memory_format), device, requires_grad)


def ones_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones with the shape and dtype of another tensor."""
    only_tensors("ones_like", input)
    return _finish(np.ones_like(input.array, as_dtype(dtype or input.dtype), order="C"), device, requires_grad)


empty_like = zeros_like


def full_like(
    input: Tensor, fill_value: Number, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A constant, with the shape and dtype of another tensor."""
    only_tensors("full_like", input)
    _numbers("full_like", fill_value)
    value = number("full_like", fill_value, as_dtype(dtype or input.dtype)).array
    return _finish(np.full_like(input.array, value.item(), value.dtype, order="C"), device, requires_grad)


def rand_like(
    input: Tensor, *, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Draw from the uniform distribution on [0, 1), with the shape and dtype of another tensor."""
    only_tensors("rand_like", input)
    kind, where = dtype or input.dtype, device or input.device
    return rand(input.shape, generator=generator, dtype=kind, device=where, requires_grad=requires_grad)


def randn_like(
    input: Tensor, *, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Draw from the normal distribution with mean 0 and variance 1, with another tensor's shape and dtype."""
    only_tensors("randn_like", input)
    kind, where = dtype or input.dtype, device or input.device
    return randn(input.shape, generator=generator, dtype=kind, device=where, requires_grad=requires_grad)


def _new(create: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The method that makes a tensor with the dtype and device of another: ``x.new_zeros(2, 3)``."""

    @functools.wraps(create)
    def method(self: Tensor, *args: Any, dtype: Any = None, device: Any = None, **named: Any) -> Tensor:
        return create(*args, dtype=dtype or self.dtype, device=device or self.device, **named)

    return method


def uniform_(input: Tensor, from_: float = 0.0, to: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill x with draws from the uniform distribution on ``[from_, to)``."""
    kind = _real("uniform_", input.dtype)
    _numbers("uniform_", from_, to)
    if not from_ <= to:
        raise RuntimeError(f"uniform_: from_ must not exceed to, but they are {from_} and {to}")
    check_writable("uniform_", input, False)
    drawn = rand(input.shape, generator=generator, dtype=kind, device=input.device)
    return overwritten("uniform_", input, drawn * (to - from_) + from_)


def normal_(input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill x with draws from the normal distribution with this mean and standard deviation."""
    kind = _real("normal_", input.dtype)
    _numbers("normal_", mean, std)
    if not std >= 0:
        raise RuntimeError(f"normal_: std must be at least 0, not {std}")
    check_writable("normal_", input, False)
    drawn = randn(input.shape, generator=generator, dtype=kind, device=input.device)
    return overwritten("normal_", input, drawn * std + mean)


def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability given by each element (or by p), else 0."""
    only_tensors("bernoulli", input)
    chance = input if p is None else full_like(input, p, dtype=float32)
    if not chance.is_floating_point() or devices.any_true(~((chance.array >= 0) & (chance.array <= 1))):
        raise RuntimeError("bernoulli: the probabilities must be floats of 0 to 1")
    drawn = rand(chance.shape, generator=generator, dtype=chance.dtype, device=chance.device) < chance.detach()
    return to(drawn, input.dtype) + (0 * input if p is None else False)  # with a gradient of 0, as in PyTorch


def bernoulli_(input: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fill x with 1 with probability p, a number or a tensor, and else with 0."""
    check_writable("bernoulli_", input, False)
    chance = p.expand(input.shape) if isinstance(p, Tensor) else full_like(input, p, dtype=float32)
    return overwritten("bernoulli_", input, bernoulli(chance, generator=generator))


def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Draw indices, each in proportion to its weight, from a vector of weights or from each row of a matrix.

    Without replacement these are the indices of the least e_i / weight_i, with e_i from the exponential distribution
    (P. Efraimidis, P. Spirakis, Weighted random sampling with a reservoir, Information Processing Letters 97, 2006).

    Examples
    --------
    >>> import minidl
    >>> minidl.multinomial(minidl.tensor([0.0, 3.0, 0.0]), 4, replacement=True).tolist()
    [1, 1, 1, 1]
    """
    only_tensors("multinomial", input)
    p, (count, _) = input.array.astype(np.float64), sizes("multinomial", (num_samples, 0))
    if not input.is_floating_point() or p.ndim not in (1, 2) or devices.any_true(~((p >= 0) & (p < np.inf))):
        raise RuntimeError("multinomial: expected a vector or matrix of finite float weights, none of them negative")
    needed = 1 if replacement else count
    if count < 1 or devices.any_true((p > 0).sum(-1) < needed):
        raise RuntimeError(f"multinomial: {count} samples need at least {needed} weights greater than 0")
    shape = (*p.shape[:-1], count) if replacement else p.shape
    uniform = rand(shape, generator=generator, dtype=np.float64, device=input.device).array
    if not replacement:
        with np.errstate(divide="ignore"):
            return Tensor(np.argsort(-np.log1p(-uniform) / p, axis=-1)[..., :count].copy())
    rows, ends = uniform.reshape(-1, count), (np.cumsum(p, -1) / p.sum(-1, keepdims=True)).reshape(-1, p.shape[-1])
    return Tensor(np.stack([np.searchsorted(ends[i], u, "right") for i, u in enumerate(rows)]).reshape(shape))


def normal(
    mean: Any, std: Any = 1.0, size: Any = None, *, dtype: Any = None, device: Any = None, requires_grad: Any = False
) -> Tensor:
    """Draw from normal distributions with these means and standard deviations: tensors, or two numbers and a size."""
    given = [x for x in (mean, std) if isinstance(x, Tensor)]
    if given:
        size, dtype, device = common_shape("normal", *[x.shape for x in given]), given[0].dtype, given[0].device
    elif size is None:
        raise TypeError("normal: two numbers need a size, such as normal(0.0, 1.0, (3,))")
    if devices.any_true(as_tensor(std).array < 0):
        raise RuntimeError("normal: std must be at least 0")
    return (randn(size, dtype=dtype, device=device) * std + mean).detach().requires_grad_(requires_grad)


for _method in (uniform_, normal_, bernoulli, bernoulli_, multinomial):
    setattr(Tensor, _method.__name__, _method)
for _create in (tensor, zeros, ones, empty, full):
    setattr(Tensor, f"new_{_create.__name__}", _new(_create))


def _shape(name: str, args: Any, named: Any = None) -> Shape:
    shape = sizes(name, args, named)
    if min(shape, default=0) < 0:
        raise RuntimeError(f"{name}: no size may be negative, as in {shape}")
    return shape


def _numbers(name: str, *values: Any) -> None:
    for value in values:
        if not isinstance(value, int | float | np.number) and not (isinstance(value, Tensor) and value.ndim == 0):
            raise TypeError(f"{name}: expected numbers, not {type(value).__name__}")


def _real(name: str, dtype: Any) -> DType:
    kind = as_dtype(dtype or float32)
    if kind.kind != "f":
        raise NotImplementedError(f"{name}: dtype must be a float type, not {kind}; for integers use minidl.randint")
    return kind
