"""``torch.optim.lr_scheduler``."""

from minidl.optim.lr_scheduler import *
