"""minidl: a small, readable deep-learning engine on NumPy and Numba, with PyTorch's interface."""

import numpy as _np

from minidl import cuda, nn, ops, optim, random
from minidl.autograd import enable_grad, grad, is_grad_enabled, no_grad, set_grad_enabled
from minidl.checks import GradcheckError, check_adjoint, gradcheck
from minidl.creation import (
    arange,
    as_tensor,
    eye,
    from_numpy,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    randperm,
    tensor,
    zeros,
    zeros_like,
)
from minidl.device import device
from minidl.nn.functional import conv2d, conv_transpose2d, dropout
from minidl.ops.activation import log_softmax, relu, sigmoid, softmax, tanh
from minidl.ops.arithmetic import (
    abs,
    add,
    clamp,
    div,
    eq,
    exp,
    ge,
    gt,
    le,
    log,
    lt,
    matmul,
    maximum,
    mul,
    ne,
    neg,
    pow,
    sqrt,
    sub,
    where,
)
from minidl.ops.dtype import result_type
from minidl.ops.reduction import argmax, max, mean, sum, var
from minidl.ops.shape import (
    cat,
    clone,
    flatten,
    permute,
    reshape,
    squeeze,
    stack,
    transpose,
    unsqueeze,
)
from minidl.random import Generator, manual_seed
from minidl.serialization import load, save
from minidl.tensor import Tensor

__version__ = "0.1.0"

bool, uint8, int8, int16, int32, int64 = map(_np.dtype, "bool uint8 int8 int16 int32 int64".split())
float16, float32, float64 = map(_np.dtype, "float16 float32 float64".split())
long, int, float, double = int64, int32, float32, float64
