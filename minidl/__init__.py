"""minidl: a small, readable deep-learning engine on NumPy and Numba, with PyTorch's interface."""

from functools import partial as _partial

import numpy as _np

from minidl import autograd, cuda, data, distributed, function, nn, ops, optim, plot, random, utils
from minidl.autograd import enable_grad, grad, is_grad_enabled, no_grad, set_grad_enabled
from minidl.creation import (
    arange, as_tensor, bernoulli, empty, empty_like, eye, from_dlpack, from_numpy, full, full_like, linspace,
    multinomial, normal, ones, ones_like, rand, rand_like, randint, randn, randn_like, randperm, tensor, zeros,
    zeros_like,
)
from minidl.device import device
from minidl.function import Function
from minidl.io import load, save
from minidl.kernels import get_num_threads, set_num_threads, use_reference_kernels
from minidl.nn.functional import conv2d, conv_transpose2d, dropout
from minidl.ops._operands import result_type
from minidl.ops.activation import log_softmax, relu, relu_rule, sigmoid, softmax, tanh
from minidl.ops.arithmetic import abs, add, div, exp, log, mul, neg, pow, sign, sqrt, square, sub
from minidl.ops.comparison import (
    allclose, clamp, clip, eq, equal, ge, gt, isfinite, isinf, isnan, le, logical_and, logical_not, logical_or,
    logical_xor, lt, maximum, minimum, ne, nonzero, where,
)
from minidl.ops.conversion import channels_last, contiguous_format, preserve_format
from minidl.ops.gather import *
from minidl.ops.linear import matmul
from minidl.ops.other_reductions import amax, amin, argmax, argmin, cumsum, logsumexp, max, median, min, norm, prod
from minidl.ops.pointwise import (
    acos, asin, atan, ceil, cos, cosh, erf, expm1, floor, floor_divide, fmod, log1p, log2, log10, prelu, reciprocal,
    remainder, round, rsqrt, sin, sinh, tan, trunc,
)
from minidl.ops.pooling import max_pool2d
from minidl.ops.product import bmm, dot, einsum, mm, mv, outer
from minidl.ops.reduction import all, any, mean, std, sum, var
from minidl.ops.shape import (
    cat, chunk, clone, flatten, permute, reshape, split, squeeze, stack, transpose, unbind, unsqueeze,
)
from minidl.random import Generator, manual_seed
from minidl.tensor import Tensor, is_tensor, numel
from minidl.testing.adjoint import check_adjoint
from minidl.testing.gradcheck import GradcheckError, gradcheck, gradgradcheck
from minidl.tools.explain import explain
from minidl.tools.graph import show_graph
from minidl.tools.meter import Meter

__version__ = "0.1.0"

# where PyTorch has them
vars(autograd).update(gradcheck=gradcheck, gradgradcheck=gradgradcheck, Function=Function, function=function)


def _missing(owner: str, name: str) -> None:
    """What Python calls for a name that a module or tensor lacks."""
    hint = "`python -m minidl run --check script.py` says what to write instead of names of PyTorch"
    raise AttributeError(f"{owner} has no attribute {name!r}; {hint}")


for _module in (nn, nn.functional, nn.init, optim, optim.lr_scheduler):
    vars(_module)["__getattr__"] = _partial(_missing, _module.__name__)
globals()["__getattr__"] = _partial(_missing, __name__)  # type checkers still report such a name
Tensor.__getattr__ = staticmethod(_partial(_missing, "Tensor"))  # type: ignore[attr-defined]

bool = _np.dtype("bool")
uint8, int8, int16 = _np.dtype("uint8"), _np.dtype("int8"), _np.dtype("int16")
int32, int64 = _np.dtype("int32"), _np.dtype("int64")
float16, float32, float64 = _np.dtype("float16"), _np.dtype("float32"), _np.dtype("float64")
long, int, float, double = int64, int32, float32, float64

__all__ = [
    "Generator", "GradcheckError", "Meter", "Tensor", "__version__", "abs", "acos", "add", "all", "allclose", "amax",
    "amin", "any", "arange", "argmax", "argmin", "as_tensor", "asin", "atan", "autograd", "bernoulli", "bmm", "bool",
    "cat", "ceil", "channels_last", "check_adjoint", "chunk", "clamp", "clip", "clone", "contiguous_format", "conv2d",
    "conv_transpose2d", "cos", "cosh", "cuda", "cumsum", "data", "device", "distributed", "div", "dot", "double",
    "dropout", "einsum", "empty", "empty_like", "enable_grad", "eq", "equal", "erf", "exp", "explain", "expm1", "eye",
    "flatten", "float", "float16", "float32", "float64", "floor", "floor_divide", "fmod", "from_dlpack", "from_numpy",
    "full", "full_like", "ge", "get_num_threads", "grad", "gradcheck", "gradgradcheck", "gt", "int", "int8", "int16",
    "int32", "int64", "is_grad_enabled", "is_tensor", "isfinite", "isinf", "isnan", "le", "linspace", "load", "log",
    "log1p", "log2", "log10", "log_softmax", "logical_and", "logical_not", "logical_or", "logical_xor", "logsumexp",
    "long", "lt", "manual_seed", "matmul", "max", "max_pool2d", "maximum", "mean", "median", "min", "minimum", "mm",
    "mul", "multinomial", "mv", "ne", "neg", "nn", "no_grad", "nonzero", "norm", "normal", "numel", "ones", "ones_like",
    "ops", "optim", "outer", "permute", "plot", "pow", "prelu", "preserve_format", "prod", "rand", "rand_like",
    "randint", "randn", "randn_like", "random", "randperm", "reciprocal", "relu", "relu_rule", "remainder", "reshape",
    "result_type", "round", "rsqrt", "save", "set_grad_enabled", "set_num_threads", "show_graph", "sigmoid", "sign",
    "sin", "sinh", "softmax", "split", "sqrt", "square", "squeeze", "stack", "std", "sub", "sum", "tan", "tanh",
    "tensor", "transpose", "trunc", "uint8", "unbind", "unsqueeze", "use_reference_kernels", "utils", "var", "where",
    "zeros", "zeros_like",
]
__all__ += ops.gather.__all__
