"""Where arrays live: NumPy's in the CPU's memory, CuPy's in a GPU's.

CuPy is imported only when a GPU is first asked for. NumPy's own functions (``np.exp``) hand a CuPy array over to
CuPy's function of the same name, and raise on a mixture of both.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from minidl.kernels import _memory

Array = Any  # of NumPy or CuPy


class Device(NamedTuple):
    """The CPU, or the GPU with this number. The user's `minidl.device` may leave the number open; see `as_device`."""

    type: str
    number: int | None = None

    def __str__(self) -> str:
        return self.type if self.number is None else f"{self.type}:{self.number}"


CPU = Device("cpu")


def cupy() -> Any:
    """CuPy, or an error that says which of CuPy, driver and GPU is missing."""
    try:
        import cupy  # type: ignore[import-not-found]
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise RuntimeError(
            "device 'cuda': CuPy is missing, with which minidl computes on a GPU: install it with "
            f'pip install "cupy-cuda12x[ctk]", or "cupy-cuda13x[ctk]" for CUDA 13 ({reason})'
        ) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        missing = "an NVIDIA GPU" if "NoDevice" in str(error) else "a driver for it, new enough for this CuPy"
        raise RuntimeError(f"device 'cuda': CuPy is there, {missing} is missing: {error}; see nvidia-smi") from None
    if not count:
        raise RuntimeError("device 'cuda': CuPy is there, an NVIDIA GPU is missing; see nvidia-smi")
    return cupy


def gpu(index: int | None) -> Device:
    """The GPU with this number, or the current one."""
    count = cupy().cuda.runtime.getDeviceCount()
    if index is not None and index >= count:
        there = ", ".join(f"cuda:{number}" for number in range(count))
        raise RuntimeError(f"device 'cuda:{index}': there is no such GPU, only {there}")
    return Device("cuda", cupy().cuda.runtime.getDevice() if index is None else index)


def on_gpu(array: Any) -> bool:
    """Whether this is a CuPy array."""
    module = sys.modules.get("cupy")
    return type(array) is not np.ndarray and module is not None and isinstance(array, module.ndarray)


def all_on_cpu(*arrays: Any) -> bool:
    """Whether all of these are NumPy arrays: a quick answer in the usual case."""
    return all(type(array) is np.ndarray for array in arrays)


def is_array(value: Any) -> bool:
    """Whether this is an array of NumPy or CuPy."""
    return isinstance(value, np.ndarray) or on_gpu(value)


def device_of(array: Array) -> Device:
    """The device in whose memory an array is stored."""
    return CPU if type(array) is np.ndarray or not on_gpu(array) else Device("cuda", array.device.id)


def moved(array: Array, device: Device) -> Array:
    """The array on this device: itself if it is there already, else a copy."""
    if device_of(array) == device:
        return array
    if device == CPU:
        return cupy().asnumpy(array)
    if capturing() and device_of(array) == CPU:
        return sent(lambda: array, array.shape, array.dtype, device)
    cuda = cupy().cuda
    with cuda.Device(device.number):
        if on_gpu(array):
            with array.device:
                written = cuda.get_current_stream().record()  # reached when that GPU has done its work so far
            cuda.get_current_stream().wait_event(written)
        return cupy().array(array, order="C")


@functools.lru_cache(maxsize=1024, typed=True)
def _number(value: Any, sign: float, dtype: str, device: Device) -> Array:
    return moved(np.asarray(value, dtype), device)


def number(value: Array, device: Device) -> Array:
    """A 0-d NumPy array copied to a device; the same array for the same number, so that none is sent twice."""
    if device == CPU:
        return value
    if capturing():  # a buffer of the graph, not to be used by others
        return sent(lambda: value, (), value.dtype, device, again=False)
    return _number(value.item(), math.copysign(1, value), value.dtype.char, device)  # 0.0 == -0.0


def beside(value: Any, array: Array) -> Array:
    """A NumPy array copied to the device of `array`."""
    return value if type(array) is np.ndarray else moved(value, device_of(array))


def writable(array: Array) -> bool:
    """Whether the array can be written to, with a separate memory location for each element."""
    steps = zip(array.shape, array.strides, strict=True)
    shared = not array.flags.forc and any(n > 1 and stride == 0 for n, stride in steps)
    return not shared and getattr(array.flags, "writeable", True)  # CuPy knows no read-only arrays


def same_memory(a: Array, b: Array) -> bool:
    """Whether two arrays are the same elements of the same memory."""
    return (_address(a), a.shape, a.strides, a.dtype) == (_address(b), b.shape, b.strides, b.dtype)


def _address(array: Array) -> int:
    return array.data.ptr if on_gpu(array) else array.__array_interface__["data"][0]


def owns(array: Array) -> bool:
    """Whether the array owns its memory, rather than being a view of another one."""
    return array.base is None if on_gpu(array) else _memory.owns(array)


# --- Batches in transfer ------------------------------------------------------------------------------------

ALIGNMENT = 256  # bytes, of an array within a transfer


class Uploads:
    """Copies groups of arrays to a GPU while it computes, each group in one transfer."""

    def __init__(self, device: Device) -> None:
        self.device = device
        with cupy().cuda.Device(device.number):
            self.stream = cupy().cuda.Stream(non_blocking=True)

    def send(self, arrays: list[Any]) -> Callable[[], list[Array]]:
        """Start a copy; the function returned waits for it to arrive, and returns the arrays."""
        import cupyx  # type: ignore[import-not-found]

        ends = list(accumulate(-(-a.nbytes // ALIGNMENT) * ALIGNMENT for a in arrays))
        starts, module = [0, *ends[:-1]], cupy()
        packed = cupyx.empty_pinned(ends[-1], np.uint8)  # the GPU reads pinned memory by itself
        for start, a in zip(starts, arrays, strict=True):
            packed[start : start + a.nbytes] = np.ascontiguousarray(a).reshape(-1).view(np.uint8)
        with module.cuda.Device(self.device.number):
            self.stream.wait_event(module.cuda.get_current_stream().record())  # it may still be reading this memory
            with self.stream:
                there = module.empty(ends[-1], np.uint8)
                there.set(packed, stream=self.stream)
            sent = self.stream.record()

        def arrived() -> list[Array]:
            nonlocal packed
            module.cuda.get_current_stream().wait_event(sent)
            sent.synchronize()
            packed = None
            parts = zip(starts, arrays, strict=True)
            return [there[start : start + a.nbytes].view(a.dtype).reshape(a.shape) for start, a in parts]

        return arrived


uploads = functools.cache(Uploads)  # one per GPU: its stream reuses the memory of earlier transfers


# --- Capturing a CUDA graph ---------------------------------------------------------------------------------


class Feed(NamedTuple):
    """A GPU buffer that is filled with what `draw` returns: before each replay, or only before the first."""

    buffer: Array
    draw: Callable[[], Any]
    again: bool


class Capture:
    """What is sent to the GPU while a graph is captured, and the memory for it.

    The memory is not the graph's own pool: there, a buffer could share memory with a temporary of an earlier kernel,
    which would overwrite it after it was filled.
    """

    def __init__(self) -> None:
        self.feeds: list[Feed] = []
        self.pool = cupy().cuda.MemoryPool()

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Array:
        with cupy().cuda.using_allocator(self.pool.malloc):
            return cupy().empty(shape, dtype)


class _Current(threading.local):
    capture: Capture | None = None


_current = _Current()


def capturing() -> bool:
    """Whether this thread is capturing a graph: what is computed now has no values yet that could be read."""
    return _current.capture is not None


@contextlib.contextmanager
def captured() -> Iterator[Capture]:
    """The context of a capture: notes what is sent to the GPU inside."""
    _current.capture = Capture()
    try:
        yield _current.capture
    finally:
        _current.capture = None


def sent(draw: Callable[[], Any], shape: tuple[int, ...], dtype: Any, device: Device, again: bool = True) -> Array:
    """What `draw` returns, a NumPy array of this shape and dtype, copied to a device.

    During a capture `draw` is not called: the result is a buffer that will be filled before each replay, or (without
    `again`) before the first.
    """
    capture = _current.capture
    if capture is None or device == CPU:
        return moved(draw(), device)
    capture.feeds.append(Feed(capture.buffer(shape, dtype), draw, again))
    return capture.feeds[-1].buffer


def any_true(mask: Array) -> bool:
    """Whether any element is true; False during a capture, when nothing can be read back."""
    return not capturing() and bool(mask.any())
