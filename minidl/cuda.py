"""GPUs, under PyTorch's names. Each call but `is_available` and `device_count` needs CuPy, a driver and a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from minidl.device import device, place
from minidl.kernels import devices
from minidl.tensor import Tensor


def is_available() -> bool:
    """Whether minidl can compute on a GPU; where it cannot, ``minidl.zeros(1, device="cuda")`` says what is missing."""
    return device_count() > 0


def device_count() -> int:
    """How many GPUs there are: 0 without CuPy or without a driver."""
    try:
        return int(devices.cupy().cuda.runtime.getDeviceCount())
    except RuntimeError:
        return 0


def current_device() -> int:
    """The number of the GPU that "cuda" stands for."""
    number = place("cuda").number
    assert number is not None
    return number


def set_device(which: Any) -> None:
    """Make a GPU the current one, which "cuda" stands for. Work on another GPU's tensors needs that to be current."""
    wanted = device("cuda", which) if isinstance(which, int) else device(which)
    devices.cupy().cuda.runtime.setDevice(place(wanted).number)


def get_device_name(which: Any = "cuda") -> str:
    """What a GPU's maker calls it."""
    wanted = device("cuda", which) if isinstance(which, int) else device(which)
    properties = devices.cupy().cuda.runtime.getDeviceProperties(place(wanted).number)
    return str(properties["name"].decode())


def synchronize(which: Any = "cuda") -> None:
    """Wait until a GPU has done all that it was given: before a clock is read."""
    wanted = device("cuda", which) if isinstance(which, int) else device(which)
    with devices.cupy().cuda.Device(place(wanted).number) as gpu:
        gpu.synchronize()


class capture:
    """A training step that is recorded once into a CUDA graph and then replayed: one launch for all of its kernels.

    The first call runs the step as it is, so that kernels are compiled and the optimiser has its state; the second
    records it; this and every later one replay the record. Each call is one step, with the same result as the step
    itself. What changes from step to step is sent to the GPU before each replay: the inputs, Adam's step count and
    the learning rate, random numbers (dropout).

    Parameters
    ----------
    step : callable
        Takes tensors and returns a tensor, or a tuple of them. It must do the same work each time, and read no value
        back from the GPU (``item()``, ``if loss > 1``, ``print``); that is for afterwards, with what it returns.

    Raises
    ------
    RuntimeError
        If the step reads a value back, or an input has another shape, dtype or device than those recorded.

    Notes
    -----
    The tensors returned, and the gradients of the parameters, are the same at each call, with new values. The graph
    reads and writes the memory that it was recorded with: after ``p.data = ...`` or ``optimizer.load_state_dict``
    capture the step anew. A step that cannot be recorded has drawn no random numbers and counted no step, but leaves
    gradients without values: call ``zero_grad()``.

    While a step is recorded nothing can be checked that depends on values: whether a class exists, say. Boolean masks
    cannot be recorded, since how much they select is such a value: use ``minidl.where``; nor can ``cat`` of more
    than 8 tensors.

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
        self.pool: Any = None  # the memory that the graph reads and writes
        self.inputs: list[Tensor] = []
        self.recording: devices.Recording | None = None  # and what it holds for it
        self.result: Any = None

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
        """Work on the stream of the graph, after what the current one was given, and before what it will be."""
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
        devices.cupy().get_default_memory_pool().free_all_blocks(self.stream)  # of the step that was not recorded
        with cuda.using_allocator(pool.malloc), devices.recorded() as recording:
            self.stream.begin_capture()
            try:
                result = self.step(*copies)
            except Exception as error:
                with suppress(Exception):  # the record is not whole
                    self.stream.end_capture()
                raise RuntimeError(
                    "capture: the step cannot be recorded. It may read a value back from the GPU (item(), print, if): "
                    f"move that out of the step. {type(error).__name__}: {error}"
                ) from error
            graph = self.stream.end_capture()
        self.inputs, self.recording, self.pool, self.result, self.graph = copies, recording, pool, result, graph

    def _send(self, inputs: tuple[Tensor, ...]) -> None:
        """Fill the buffers that the graph reads."""
        found, wanted = ([(x.shape, x.dtype, str(x.device)) for x in given] for given in (inputs, self.inputs))
        if found != wanted:
            raise RuntimeError(f"capture: the step was recorded for inputs of {wanted}, not {found}")
        for buffer, x in zip(self.inputs, inputs, strict=True):
            buffer.array[...] = x.array
        assert self.recording is not None
        for feed in self.recording.feeds:
            feed.buffer.set(np.asarray(feed.draw()))
        self.recording.feeds = [feed for feed in self.recording.feeds if feed.again]
