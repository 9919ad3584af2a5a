"""``torch.optim``: minidl's optimisers."""

from minidl.optim import *

from . import lr_scheduler, optimizer
