"""``import torch``: minidl's names, and those that only scripts need."""

from math import e, inf, nan, pi

from minidl import *
from minidl.compat.torch import autograd, nn, optim, utils
from minidl.compat.torch._types import Size, Tensor, tensor_types

globals().update(tensor_types("torch."))
