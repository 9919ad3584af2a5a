"""``torch.utils.data.dataloader``: the same names as in ``torch.utils.data``."""

from collections.abc import Iterator
from typing import Any

from minidl.utils import data
from minidl.utils.data import *


class _Batches(Iterator[Any]):
    """The batches in turn, also by the method ``next`` that iterators had before Python 3 and PyTorch's until 1.12."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self.batches = batches

    def __next__(self) -> Any:
        return next(self.batches)

    next = __next__


class DataLoader(data.DataLoader):
    """minidl's loader, whose iterators have a method ``next``."""

    def __iter__(self) -> Iterator[Any]:
        return _Batches(super().__iter__())
