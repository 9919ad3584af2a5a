"""``torch.utils``."""

from minidl.compat.torch.utils import data
