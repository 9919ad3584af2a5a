"""``torch.nn.modules``: the same names as in ``torch.nn``."""

from minidl.compat.torch.nn import *
