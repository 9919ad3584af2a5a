"""``torch.utils.data``: minidl's data sets and loader."""

from minidl.utils.data import *
