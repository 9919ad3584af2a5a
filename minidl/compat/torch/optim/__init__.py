"""``torch.optim``: minidl's optimisers."""

from minidl.optim import *

del lr_scheduler  # noqa: F821  minidl's own

from . import lr_scheduler, optimizer
