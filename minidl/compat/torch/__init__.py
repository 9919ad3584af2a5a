"""``import torch``: minidl's names, and those that only scripts need."""

from math import e, inf, nan, pi

from numpy import dtype, finfo, iinfo

from minidl import *

del autograd, cuda, data, distributed, nn, ops, optim, plot, random, utils  # noqa: F821  minidl's own; PyTorch's follow

from minidl.compat.files import load, save
from minidl.ops.shape import t, unflatten

from . import accelerator, amp, autograd, backends, cuda, distributed, nn, optim, testing, utils, version
from ._functions import SECOND_NAMES, Generator, compile, inference_mode, initial_seed, is_floating_point
from ._functions import set_float32_matmul_precision, set_printoptions, use_deterministic_algorithms
from ._types import Size, Tensor, tensor_types
from .amp import autocast
from .cuda import OutOfMemoryError
from .version import __version__

globals().update(tensor_types("torch"), **{name: globals()[own] for name, own in SECOND_NAMES.items()})
