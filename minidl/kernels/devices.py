"""Where arrays live: NumPy's in the CPU's memory, CuPy's in that of a GPU.

A place is "cpu", or "cuda" with a number. CuPy is imported when a GPU is first asked for, never before. NumPy's own
functions (``np.exp``) pass an array of CuPy on to CuPy's function of that name, and refuse a mixture of both.
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

from minidl.kernels import memory

Array = Any  # of NumPy or CuPy


class Place(NamedTuple):
    """A memory: that of the CPU, or of the GPU of this number."""

    type: str
    number: int | None = None

    def __str__(self) -> str:
        return self.type if self.number is None else f"{self.type}:{self.number}"


CPU = Place("cpu")


def cupy() -> Any:
    """CuPy, or an error that says what of CuPy, driver and GPU is missing."""
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


def gpu(index: int | None) -> Place:
    """The memory of the GPU of this number, or of the current one."""
    count = cupy().cuda.runtime.getDeviceCount()
    if index is not None and index >= count:
        there = ", ".join(f"cuda:{number}" for number in range(count))
        raise RuntimeError(f"device 'cuda:{index}': there is no such GPU, only {there}")
    return Place("cuda", cupy().cuda.runtime.getDevice() if index is None else index)


def on_gpu(array: Any) -> bool:
    """Whether this is an array of CuPy's."""
    module = sys.modules.get("cupy")
    return type(array) is not np.ndarray and module is not None and isinstance(array, module.ndarray)


def all_on_cpu(*arrays: Any) -> bool:
    """Whether all of these are NumPy's: a quick answer for the usual case."""
    return all(type(array) is np.ndarray for array in arrays)


def is_array(value: Any) -> bool:
    """Whether this is an array of NumPy's or CuPy's."""
    return isinstance(value, np.ndarray) or on_gpu(value)


def place_of(array: Array) -> Place:
    """Where an array lies."""
    return Place("cuda", array.device.id) if on_gpu(array) else CPU


def moved(array: Array, place: Place) -> Array:
    """The array in another memory: itself where it lies there."""
    if place_of(array) == place:
        return array
    if place == CPU:
        return cupy().asnumpy(array)
    if recording() and place_of(array) == CPU:
        return sent(lambda: array, array.shape, array.dtype, place)
    arrived = _written(array) if on_gpu(array) else None
    with cupy().cuda.Device(place.number):
        if arrived is not None:
            cupy().cuda.get_current_stream().wait_event(arrived)
        return cupy().array(array, order="C")


def _written(array: Array) -> Any:
    """An event on the array's GPU: all that this was given before has been done."""
    with array.device:
        return cupy().cuda.get_current_stream().record()


@functools.lru_cache(maxsize=1024, typed=True)
def _number(value: Any, sign: float, dtype: str, place: Place) -> Array:
    return moved(np.asarray(value, dtype), place)


def number(value: Array, place: Place) -> Array:
    """A 0-d array of NumPy's in another memory; the same one for the same number, so that none is sent twice."""
    if place == CPU:
        return value
    if recording():  # a buffer of the graph, which others must not use
        return sent(lambda: value, (), value.dtype, place, again=False)
    return _number(value.item(), math.copysign(1, value), value.dtype.char, place)  # 0.0 == -0.0


def beside(value: Any, array: Array) -> Array:
    """A NumPy array where `array` lies."""
    return value if type(array) is np.ndarray else moved(value, place_of(array))


def writable(array: Array) -> bool:
    """Whether values can be written to the array, each to a place of its own."""
    steps = zip(array.shape, array.strides, strict=True)
    shared = not array.flags.forc and any(n > 1 and stride == 0 for n, stride in steps)
    return not shared and (on_gpu(array) or array.flags.writeable)


def same_memory(a: Array, b: Array) -> bool:
    """Whether two arrays are the same elements in the same memory."""
    return (_address(a), a.shape, a.strides, a.dtype) == (_address(b), b.shape, b.strides, b.dtype)


def _address(array: Array) -> int:
    return array.data.ptr if on_gpu(array) else array.__array_interface__["data"][0]


def owns(array: Array) -> bool:
    """Whether the array is no view of another one."""
    return array.base is None if on_gpu(array) else memory.owns(array)


# --- Batches on their way -----------------------------------------------------------------------------------

ALIGNMENT = 256  # bytes, of an array within a transfer


@functools.cache
def uploads(place: Place) -> Uploads:
    """For each GPU one, whose stream keeps the memory of earlier groups for later ones."""
    return Uploads(place)


class Uploads:
    """Groups of arrays that are copied to a GPU while it computes, each group in one transfer."""

    def __init__(self, place: Place) -> None:
        self.place = place
        with cupy().cuda.Device(place.number):
            self.stream = cupy().cuda.Stream(non_blocking=True)

    def send(self, arrays: list[Any]) -> Callable[[], list[Array]]:
        """Start copying; what is returned waits until the copies are there, and gives them."""
        import cupyx  # type: ignore[import-not-found]

        ends = list(accumulate(-(-a.nbytes // ALIGNMENT) * ALIGNMENT for a in arrays))
        starts, module = [0, *ends[:-1]], cupy()
        packed = cupyx.empty_pinned(ends[-1], np.uint8)  # from which the GPU reads by itself
        for start, a in zip(starts, arrays, strict=True):
            packed[start : start + a.nbytes] = np.ascontiguousarray(a).reshape(-1).view(np.uint8)
        with module.cuda.Device(self.place.number):
            self.stream.wait_event(module.cuda.get_current_stream().record())  # which may still read this memory
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


# --- Recording a graph --------------------------------------------------------------------------------------


class Feed(NamedTuple):
    """A buffer of the GPU that is filled with what `draw` returns: before each replay, or before the first alone."""

    buffer: Array
    draw: Callable[[], Any]
    again: bool


class Recording:
    """What is sent to the GPU while a graph is recorded, and the memory of it.

    That is not the graph's: there a buffer could lie where an earlier kernel of the graph keeps what nobody needs any
    more, and would be overwritten after it was filled.
    """

    def __init__(self) -> None:
        self.feeds: list[Feed] = []
        self.pool = cupy().cuda.MemoryPool()

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Array:
        with cupy().cuda.using_allocator(self.pool.malloc):
            return cupy().empty(shape, dtype)


class _Current(threading.local):
    recording: Recording | None = None


_current = _Current()


def recording() -> bool:
    """Whether this thread is recording a graph: what is computed now has no values yet that could be read."""
    return _current.recording is not None


@contextlib.contextmanager
def recorded() -> Iterator[Recording]:
    """Record inside, and note what is sent to the GPU meanwhile."""
    _current.recording = Recording()
    try:
        yield _current.recording
    finally:
        _current.recording = None


def sent(draw: Callable[[], Any], shape: tuple[int, ...], dtype: Any, place: Place, again: bool = True) -> Array:
    """What `draw` returns, an array of NumPy's of this shape and dtype, in another memory.

    While recording nothing is drawn: a buffer is returned that will be filled before each replay, or, without `again`,
    before the first.
    """
    recording = _current.recording
    if recording is None or place == CPU:
        return moved(draw(), place)
    recording.feeds.append(Feed(recording.buffer(shape, dtype), draw, again))
    return recording.feeds[-1].buffer


def any_true(mask: Array) -> bool:
    """Whether any element is true; False while recording, when nothing can be read back."""
    return not recording() and bool(mask.any())
