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


def _of_pool(name, otherwise=0):
    """What CuPy's memory pool says or does under this name; without a GPU `otherwise`."""

    def ask(device=None):
        return getattr(devices.cupy().get_default_memory_pool(), name)() if is_available() else otherwise

    return ask


manual_seed_all = manual_seed
empty_cache = _of_pool("free_all_blocks", None)
memory_allocated = _of_pool("used_bytes")
# With the memory kept for later tensors, which is the most that was used until now
memory_reserved = max_memory_allocated = max_memory_reserved = _of_pool("total_bytes")
