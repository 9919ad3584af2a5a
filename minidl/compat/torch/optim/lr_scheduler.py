"""``torch.optim.lr_scheduler``: minidl's schedules."""

from minidl.optim.lr_scheduler import *
from minidl.optim.lr_scheduler import LRScheduler as _LRScheduler
