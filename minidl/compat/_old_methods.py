"""Methods of Tensor and Module that only old code uses. ``install()`` adds them; the engine does without."""

import functools

import minidl
from minidl.compat._missing import missing
from minidl.compat.files import DTYPES, KINDS
from minidl.compat.torch._functions import SECOND_NAMES
from minidl.compat.torch._types import Size, as_type, construct, type_name
from minidl.nn import Module


def _stride(self, dim=None):
    steps = tuple(step // self.array.itemsize for step in self.array.strides)
    return steps if dim is None else steps[dim]


def _inner(self, target):
    return functools.reduce(getattr, target.split(".") if target else [], self)


def _itself(self):
    return self


T = minidl.Tensor
_numpy = T.numpy
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
        "element_size": lambda self: self.array.itemsize,
        "nbytes": property(lambda self: self.array.nbytes),
        "stride": _stride,
        "numpy": lambda self, *, force=False: _numpy(self.detach().cpu() if force else self),
        "ndimension": T.dim,
        "nelement": T.numel,
        "get_device": lambda self: self.device.index or 0 if self.is_cuda else -1,
        "pin_memory": _itself,
        "share_memory_": _itself,
        **dict.fromkeys(("is_xpu", "is_mps", "is_sparse", "volatile"), property(lambda self: False)),
    },
    Module: {
        "type": lambda self, dst_type: self.to(*as_type(dst_type)),
        "half": lambda self: self.to(minidl.float16),
        "share_memory": _itself,
        "get_submodule": _inner,
        "get_parameter": _inner,
        "_get_name": lambda self: type(self).__name__,
    },
}
