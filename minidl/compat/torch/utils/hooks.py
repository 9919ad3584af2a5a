"""``torch.utils.hooks``."""

from minidl.hooks import RemovableHandle
