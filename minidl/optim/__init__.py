"""Optimisers and learning-rate schedules, under the names of ``torch.optim``."""

from minidl.optim import lr_scheduler
from minidl.optim._optimizer import Optimizer
from minidl.optim.adam import Adam
from minidl.optim.sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer", "lr_scheduler"]
