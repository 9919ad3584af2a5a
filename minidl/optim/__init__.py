"""Optimisers, and schedules of their learning rates, under the names of ``torch.optim``."""

from minidl.optim import lr_scheduler
from minidl.optim.optimizer import SGD, Adam, Optimizer

__all__ = ["SGD", "Adam", "Optimizer", "lr_scheduler"]
