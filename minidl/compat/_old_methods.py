"""Methods of Tensor and Module that only old code uses. ``install()`` adds them; the engine does without."""

import functools

import minidl
from minidl.compat._missing import missing
from minidl.compat.files import DTYPES, KINDS
from minidl.compat.torch._functions import SECOND_NAMES
from minidl.compat.torch._types import Size, as_type, construct, type_name
from minidl.nn import Module

T = minidl.Tensor
ITSELF = {dtype: dtype for dtype in DTYPES}  # for `x.dtype is torch.float32`: NumPy's dtypes may have twins
METHODS = {
    T: {
        "__getattr__": missing("torch.Tensor"),
        "type": lambda self, dtype=None: type_name(self) if dtype is None else self.to(*as_type(dtype)),
        "new": lambda self, *args: construct("new", args, self.dtype, self.device),
        "size": lambda self, dim=None: Size(self.array.shape) if dim is None else self.array.shape[dim],
        "shape": property(lambda self: Size(self.array.shape)),
        **{name: getattr(T, own) for name, own in SECOND_NAMES.items() if hasattr(T, own)},
        **{k.lower(): functools.partialmethod(T.to, d) for k, d in KINDS.items() if not hasattr(T, k.lower())},
        "dtype": property(lambda self: ITSELF.get(self.array.dtype, self.array.dtype)),
        "data_ptr": lambda self: self.array.__array_interface__["data"][0],
        "type_as": lambda self, other: self.to(other.dtype),
        "ndimension": T.dim,
        "nelement": T.numel,
        "pin_memory": lambda self: self,
        "is_xpu": property(lambda self: False),
    },
    Module: {"type": lambda self, dst_type: self.to(*as_type(dst_type))},
}
