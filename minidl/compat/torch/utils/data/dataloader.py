"""``torch.utils.data.dataloader``: the same names as in ``torch.utils.data``."""

from minidl.utils.data import *
