"""``torch.cuda``: minidl's GPUs, and what scripts call where there is none."""

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


def empty_cache() -> None:
    """Free the memory that is kept for later tensors on the GPU."""
    if is_available():
        devices.cupy().get_default_memory_pool().free_all_blocks()


def memory_allocated(device: Any = None) -> int:
    """The bytes of all tensors on the GPU."""
    return devices.cupy().get_default_memory_pool().used_bytes() if is_available() else 0


def memory_reserved(device: Any = None) -> int:
    """The bytes of all tensors and of the memory kept for later ones, which is the most that was used until now."""
    return devices.cupy().get_default_memory_pool().total_bytes() if is_available() else 0


manual_seed_all = manual_seed
max_memory_allocated = max_memory_reserved = memory_reserved
