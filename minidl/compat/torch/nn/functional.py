"""``torch.nn.functional``: minidl's functions, with PyTorch's old arguments of losses."""

from minidl.nn.functional import *

from ._old_arguments import FUNCTIONS

globals().update(FUNCTIONS)
