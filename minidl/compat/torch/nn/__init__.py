"""``torch.nn``: minidl's layers, with PyTorch's old arguments of losses."""

from minidl.nn import *

del functional, init, parallel, utils  # noqa: F821  minidl's own

from . import functional, init, parallel, parameter, utils
from ._old_arguments import MODULES
from .parallel import DataParallel

globals().update(MODULES)
