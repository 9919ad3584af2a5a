"""``torch.cuda``: minidl's GPUs, and what scripts call where there is none."""

from minidl.compat.torch._types import tensor_types
from minidl.compat.torch.cuda import amp
from minidl.cuda import current_device, device_count, get_device_name, is_available, set_device, synchronize
from minidl.kernels import devices
from minidl.random import default_generator

globals().update(tensor_types("torch.cuda"))


class OutOfMemoryError(RuntimeError):
    """For ``except torch.cuda.OutOfMemoryError``; minidl raises MemoryError."""


def manual_seed(seed):
    """Seed the one generator that draws for all devices, if there is a GPU. PyTorch's GPUs have their own."""
    if is_available():
        default_generator.manual_seed(seed)


def memory_allocated(device=None):
    """Bytes that CuPy's pool holds for tensors, also for later ones: the most that they needed until now."""
    return devices.cupy().get_default_memory_pool().total_bytes() if is_available() else 0


manual_seed_all, empty_cache = manual_seed, lambda: None
memory_reserved = max_memory_allocated = max_memory_reserved = memory_allocated
