"""``import torch``: minidl's names, and those that only scripts need."""

from math import e, inf, nan, pi

from numpy import dtype, finfo, iinfo

from minidl import *

del autograd, cuda, data, nn, ops, optim, plot, random, utils  # noqa: F821  minidl's own; PyTorch's follow

from minidl.compat.files import load, save
from minidl.compat.torch import (
    accelerator, amp, autograd, backends, cuda, nn, optim, testing, utils, version,
)
from minidl.compat.torch._functions import (
    SECOND_NAMES, Generator, compile, inference_mode, initial_seed, is_floating_point,
    set_float32_matmul_precision, set_printoptions, use_deterministic_algorithms,
)
from minidl.compat.torch._types import Size, Tensor, tensor_types
from minidl.compat.torch.amp import autocast
from minidl.compat.torch.cuda import OutOfMemoryError
from minidl.compat.torch.version import __version__
from minidl.ops.shape import t, unflatten

globals().update(tensor_types("torch"), **{name: globals()[own] for name, own in SECOND_NAMES.items()})
