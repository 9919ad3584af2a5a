"""``torch.utils.data.sampler``: the same names as in ``torch.utils.data``."""

from minidl.utils.data import *
