"""GPUs, under PyTorch's names. All but `is_available` and `device_count` need CuPy, a driver and a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from minidl.device import as_device, device
from minidl.kernels import devices
from minidl.tensor import Tensor


def is_available() -> bool:
    """Whether minidl can use a GPU; if not, ``minidl.zeros(1, device="cuda")`` says what is missing."""
    return device_count() > 0


def device_count() -> int:
    """The number of GPUs; 0 without CuPy or without a driver."""
    try:
        return int(devices.cupy().cuda.runtime.getDeviceCount())
    except RuntimeError:
        return 0


def current_device() -> int:
    """The index of the current GPU, which "cuda" refers to."""
    return _index("cuda")


def set_device(which: Any) -> None:
    """Make a GPU the current one, which "cuda" refers to. Operations run on the current GPU's tensors only."""
    devices.cupy().cuda.runtime.setDevice(_index(which))


def get_device_name(which: Any = "cuda") -> str:
    """The name of a GPU's model."""
    return str(devices.cupy().cuda.runtime.getDeviceProperties(_index(which))["name"].decode())


def synchronize(which: Any = "cuda") -> None:
    """Wait until a GPU has finished all its work, as before reading a clock."""
    with devices.cupy().cuda.Device(_index(which)) as gpu:
        gpu.synchronize()


def _index(which: Any) -> Any:
    return as_device(device("cuda", which) if isinstance(which, int) else device(which)).number


class capture:
    """A training step captured once as a CUDA graph and then replayed: one launch for all of its kernels.

    The first call runs the step eagerly, so that kernels are compiled and the optimiser allocates its state; the second
    captures it; the second and all later calls replay the graph. Each call is one step and gives the same result as
    the step itself. What changes between steps is copied to the GPU before each replay: the inputs, Adam's step count,
    the learning rate, and random numbers (dropout).

    Parameters
    ----------
    step : callable
        Takes tensors and returns a tensor or a tuple of tensors. It must do the same work each time, and must not read
        a value back from the GPU (``item()``, ``if loss > 1``, ``print``); do that afterwards, with its result.

    Raises
    ------
    RuntimeError
        If the step reads a value back, or an input differs in shape, dtype or device from the captured one.

    Notes
    -----
    Each call returns the same tensors and leaves the same gradient tensors, with new values. The graph reads and
    writes the memory it was captured with: capture the step again after ``p.data = ...`` or
    ``optimizer.load_state_dict``. If capturing fails, no random numbers have been drawn and no step counted, but the
    gradients hold no values: call ``zero_grad()``.

    Checks that depend on values, such as whether a class exists, are skipped during capture. Boolean masks cannot be
    captured, since the size of the result depends on values: use ``minidl.where``. Nor can ``cat`` of more than 8
    tensors.

    Examples
    --------
    >>> def step(images):                                      # doctest: +SKIP
    ...     optimizer.zero_grad()
    ...     loss = criterion(model(images), images)
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> step = minidl.cuda.capture(step)                       # doctest: +SKIP
    >>> for images, _ in loader:                               # doctest: +SKIP
    ...     loss = step(images.to("cuda"))
    """

    def __init__(self, step: Callable[..., Any]) -> None:
        self.step = step
        self.stream: Any = None
        self.graph: Any = None

    def __call__(self, *inputs: Tensor) -> Any:
        if self.stream is None:
            self.stream = devices.cupy().cuda.Stream(non_blocking=True)
            with self._on_stream():
                return self.step(*inputs)
        with self._on_stream():
            if self.graph is None:
                self._record(inputs)
            self._send(inputs)
            self.graph.launch(self.stream)
        return self.result

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        """Work on the graph's stream, ordered after the current stream's pending work and before its later work."""
        current = devices.cupy().cuda.get_current_stream()
        self.stream.wait_event(current.record())
        try:
            with self.stream:
                yield
        finally:
            current.wait_event(self.stream.record())

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        cuda = devices.cupy().cuda
        copies = [Tensor(np.empty_like(x.array)) for x in inputs]
        pool = cuda.MemoryPool()
        devices.cupy().get_default_memory_pool().free_all_blocks(self.stream)  # those of the eager step
        with cuda.using_allocator(pool.malloc), devices.captured() as recording:
            self.stream.begin_capture()
            try:
                result = self.step(*copies)
            except Exception as error:
                with suppress(Exception):  # the capture is incomplete
                    self.stream.end_capture()
                raise RuntimeError(
                    "capture: the step cannot be recorded. It may read a value back from the GPU (item(), print, if): "
                    f"move that out of the step. {type(error).__name__}: {error}"
                ) from error
            graph = self.stream.end_capture()
        self.inputs, self.result, self.graph = copies, result, graph
        self.recording = recording  # the buffers to fill before a replay
        self.pool = pool  # owns the memory that the graph reads and writes

    def _send(self, inputs: tuple[Tensor, ...]) -> None:
        """Copy new values into the buffers that the graph reads."""
        found, wanted = ([(x.shape, x.dtype, str(x.device)) for x in given] for given in (inputs, self.inputs))
        if found != wanted:
            raise RuntimeError(f"capture: the step was recorded for inputs of {wanted}, not {found}")
        for buffer, x in zip(self.inputs, inputs, strict=True):
            buffer.array[...] = x.array
        for feed in self.recording.feeds:
            feed.buffer.set(np.asarray(feed.draw()))
        self.recording.feeds = [feed for feed in self.recording.feeds if feed.again]
