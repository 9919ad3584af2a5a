"""Optimisers and learning-rate schedules, under the names of ``torch.optim``."""

from minidl.optim import lr_scheduler
from minidl.optim._optimizer import Optimizer
from minidl.optim.adam import Adam, AdamW
from minidl.optim.adaptive import Adadelta, RMSprop
from minidl.optim.sgd import SGD

__all__ = ["SGD", "Adadelta", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]
