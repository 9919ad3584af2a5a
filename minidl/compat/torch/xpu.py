"""``torch.xpu``: Intel's GPUs, which minidl does not use."""

from minidl.compat.torch.backends.mps import is_available
