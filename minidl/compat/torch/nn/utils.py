"""``torch.nn.utils``: minidl's, and two names of before 2018."""

from minidl.nn import utils
from minidl.nn.utils import *

from .init import old_name

clip_grad_norm, clip_grad_value = old_name(utils.clip_grad_norm_), old_name(utils.clip_grad_value_)
