"""PyTorch's classes of tensors, ``torch.Tensor(2, 3)`` and ``FloatTensor``, and its class of shapes.

minidl has one class of tensors. The classes here make such tensors, and recognise them in ``isinstance``.
"""

import math

import numpy as np

import minidl
from minidl.compat._said import said_once
from minidl.compat.files import KINDS
from minidl.ops.conversion import as_dtype
from minidl.tensor import Tensor as AnyTensor


class Size(tuple):
    """A shape: a tuple that counts its elements."""

    def numel(self):
        """The number of elements of a tensor of this shape."""
        return math.prod(self)

    def __getitem__(self, index):
        found = super().__getitem__(index)
        return Size(found) if isinstance(index, slice) else found

    def __add__(self, other):
        return Size(super().__add__(other))

    def __repr__(self):
        return f"torch.Size({list(self)})"


class TensorType(type):
    """The class of ``torch.Tensor`` and its kin: calling one makes a tensor from sizes, a list or an array."""

    dtype = device = None  # None: any, and float32 for new tensors
    path = property(lambda cls: f"{cls.__module__}.{cls.__name__}")

    def __call__(cls, *args, device=None):
        if cls.device == "cuda" and not minidl.cuda.is_available():
            raise TypeError(f"{cls.path} makes tensors on a GPU, and minidl finds none here: use torch.{cls.__name__}")
        return construct(cls.path, args, cls.dtype, device or cls.device)

    def __instancecheck__(cls, x):
        return isinstance(x, AnyTensor) and (cls.dtype is None or type_name(x) == cls.path)

    def __subclasscheck__(cls, other):
        return other is cls or (cls.dtype is None and issubclass(other, AnyTensor))

    def __eq__(cls, other):  # so that type(x) == torch.Tensor
        return other is cls or (cls.dtype is None and other is AnyTensor)

    __hash__ = type.__hash__

    def __getattr__(cls, name):  # torch.Tensor.view
        return getattr(AnyTensor, name)


def construct(name, args, dtype, device):
    """PyTorch's old constructor: sizes make a tensor to be filled; a list or array is copied, a tensor is shared."""
    if len(args) != 1 or isinstance(args[0], int | np.integer | Size):
        sizes = args[0] if args and isinstance(args[0], Size) else args or (0,)
        return minidl.empty(*sizes, dtype=dtype, device=device)
    (data,) = args
    if isinstance(data, AnyTensor):
        if dtype is not None and data.dtype != dtype:
            raise TypeError(f"{name}: expected a tensor of {dtype}, not {data.dtype}; convert it with x.to({dtype})")
        return data
    if not isinstance(data, list | tuple | range | np.ndarray):
        raise TypeError(f"{name}: expected sizes, a list, an array or a tensor, not {type(data).__name__}")
    return minidl.tensor(data, dtype=dtype or minidl.float32, device=device)


class _VariableType(TensorType):
    def __call__(cls, data, requires_grad=False, volatile=False):  # type: ignore[override]
        if not isinstance(data, AnyTensor):
            raise TypeError(f"Variable: expected a tensor, not {type(data).__name__}")
        if volatile:
            said_once("Variable: volatile does nothing any more; write `with torch.no_grad():` instead")
        return data.detach().requires_grad_(requires_grad)


Tensor = TensorType("Tensor", (), {"__module__": "torch"})
Variable = _VariableType("Variable", (), {"__module__": "torch.autograd"})

# "torch.FloatTensor", "torch.cuda.LongTensor" and the others
TENSOR_TYPES = {
    f"{module}.{kind}Tensor": TensorType(f"{kind}Tensor", (), {"__module__": module, "dtype": dtype, "device": device})
    for module, device in (("torch", "cpu"), ("torch.cuda", "cuda"))
    for kind, dtype in KINDS.items()
}


def tensor_types(module):
    """The classes of one module, "torch" or "torch.cuda", by their names there."""
    return {c.__name__: c for c in TENSOR_TYPES.values() if c.__module__ == module}


def type_name(x):
    """What ``x.type()`` returns, such as "torch.FloatTensor"."""
    return next(name for name, c in TENSOR_TYPES.items() if (c.dtype, c.device) == (x.dtype, x.device.type))


def as_type(dtype):
    """The device and dtype that the argument of ``x.type(dtype)`` asks for: a class, its name, or a dtype alone."""
    wanted = TENSOR_TYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if isinstance(wanted, TensorType):
        return wanted.device or "cpu", wanted.dtype or minidl.float32
    return (as_dtype(wanted),)
