"""``import torch``: minidl's names, and those that only scripts need."""

from math import e, inf, nan, pi

from numpy import dtype, finfo, iinfo

from minidl import *

del autograd, cuda, data, nn, ops, optim, plot, random, utils  # noqa: F821  minidl's own; PyTorch's follow

from minidl.compat.files import load, save
from minidl.compat.torch import (
    accelerator, amp, autograd, backends, cuda, nn, optim, random, testing, utils, version, xpu,
)
from minidl.compat.torch._functions import (
    SECOND_NAMES, Generator, compile, get_default_dtype, inference_mode, is_floating_point,
    set_default_device, set_default_dtype, set_default_tensor_type, set_deterministic_debug_mode,
    set_float32_matmul_precision, set_num_interop_threads, set_printoptions, use_deterministic_algorithms,
)
from minidl.compat.torch._types import Size, Tensor, tensor_types
from minidl.compat.torch.amp import autocast
from minidl.compat.torch.cuda import OutOfMemoryError
from minidl.compat.torch.random import default_generator, get_rng_state, initial_seed, seed, set_rng_state
from minidl.compat.torch.version import __version__
from minidl.ops.shape import t, unflatten

globals().update(tensor_types("torch"), **{name: globals()[own] for name, own in SECOND_NAMES.items()})
