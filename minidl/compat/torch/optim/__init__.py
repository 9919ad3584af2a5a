"""``torch.optim``: minidl's optimisers."""

from minidl.compat.torch.optim import lr_scheduler
from minidl.optim import *
