"""``torch.nn.utils``: minidl's, and two names of before 2018."""

from minidl.nn.utils import *
from minidl.nn.utils import clip_grad_norm_ as clip_grad_norm
from minidl.nn.utils import clip_grad_value_ as clip_grad_value
