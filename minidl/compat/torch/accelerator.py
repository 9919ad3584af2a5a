"""``torch.accelerator``: the GPU, where there is one."""

from minidl.cuda import device_count, is_available, synchronize
from minidl.device import device


def current_accelerator(check_available=False):
    """The device "cuda", or None without a GPU."""
    return device("cuda") if is_available() else None
