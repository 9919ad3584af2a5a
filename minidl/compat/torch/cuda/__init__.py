"""``torch.cuda``: minidl's GPUs, and what scripts call where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.compat.torch._types import tensor_types
from minidl.compat.torch.cuda import amp
from minidl.cuda import current_device, device_count, get_device_name, is_available, set_device, synchronize
from minidl.kernels import devices
from minidl.random import default_generator

globals().update(tensor_types("torch.cuda"))


class OutOfMemoryError(RuntimeError):
    """For ``except torch.cuda.OutOfMemoryError``; minidl raises MemoryError."""


def manual_seed(seed: int) -> None:
    """Seed the one generator that draws for all devices, if there is a GPU. PyTorch's GPUs have their own."""
    if is_available():
        default_generator.manual_seed(seed)


manual_seed_all = manual_seed


def empty_cache() -> None:
    """Free the memory that is kept for later tensors on the GPU."""
    if is_available():
        devices.cupy().get_default_memory_pool().free_all_blocks()


def _bytes_of(name: str) -> Callable[..., int]:
    def count(device: Any = None) -> int:
        if is_available():
            raise NotImplementedError(f"torch.cuda.{name}: minidl does not count the memory of a GPU")
        return 0

    return count


for _name in ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"):
    globals()[_name] = _bytes_of(_name)
