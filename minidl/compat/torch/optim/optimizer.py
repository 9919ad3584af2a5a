"""``torch.optim.optimizer``."""

from minidl.optim import Optimizer
