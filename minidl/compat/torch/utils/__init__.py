"""``torch.utils``."""

from . import data, tensorboard
