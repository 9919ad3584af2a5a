"""GPUs, under PyTorch's names. Each call but `is_available` and `device_count` needs CuPy, a driver and a GPU."""

from __future__ import annotations

from typing import Any

from minidl.device import device, place
from minidl.kernels import devices


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
