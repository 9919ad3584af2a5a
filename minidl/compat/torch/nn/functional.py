"""``torch.nn.functional``."""

from minidl.nn.functional import *
