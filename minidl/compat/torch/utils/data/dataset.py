"""``torch.utils.data.dataset``: the same names as in ``torch.utils.data``."""

from minidl.utils.data import *
