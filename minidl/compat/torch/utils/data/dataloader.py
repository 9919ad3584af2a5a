"""``torch.utils.data.dataloader``: the same names as in ``torch.utils.data``."""

from minidl.utils import data
from minidl.utils.data import *


class _Batches(map):
    """The batches in turn, also by the method ``next`` that iterators had before Python 3 and PyTorch's until 1.12."""

    next = map.__next__


class DataLoader(data.DataLoader):
    """minidl's loader, whose iterators have a method ``next``."""

    def __iter__(self):
        return _Batches(lambda batch: batch, super().__iter__())
