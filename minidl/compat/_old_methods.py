"""Methods of Tensor and Module that only old code uses. ``install()`` adds them; the engine does without."""

import functools
from collections.abc import Callable
from typing import Any

import minidl
from minidl.compat._missing import missing
from minidl.compat.torch._functions import SECOND_NAMES
from minidl.compat.torch._types import Size, as_type, construct, type_name
from minidl.nn import Module

Method = Callable[..., Any]


def _without_hints(function: Method) -> Method:
    """The method, with the arguments that change no value taken and dropped."""

    @functools.wraps(function)
    def method(self: Any, *args: Any, non_blocking: bool = False, memory_format: Any = None, **named: Any) -> Any:
        return function(self, *[x for x in args if not isinstance(x, bool)], **named)

    return method


def _new(create: Method) -> Method:
    """x.new_zeros and its kin: with the dtype and device of x."""

    def method(self: minidl.Tensor, *args: Any, dtype: Any = None, device: Any = None, **named: Any) -> Any:
        return create(*args, dtype=dtype or self.dtype, device=device or self.device, **named)

    return method


def _stride(self: minidl.Tensor, dim: int | None = None) -> Any:
    steps = tuple(step // self.array.itemsize for step in self.array.strides)
    return steps if dim is None else steps[dim]


T = minidl.Tensor
_numpy = T.numpy
KINDS = {"byte": minidl.uint8, "char": minidl.int8, "short": minidl.int16, "half": minidl.float16}
METHODS: dict[type, dict[str, Any]] = {
    T: {
        "__getattr__": missing("torch.Tensor"),
        "type": lambda self, dtype=None: type_name(self) if dtype is None else self.to(*as_type(dtype)),
        "new": lambda self, *args: construct("new", args, self.dtype, self.device),
        **{f"new_{name}": _new(getattr(minidl, name)) for name in ("empty", "zeros", "ones", "full", "tensor")},
        **{name: _without_hints(getattr(T, name)) for name in ("to", "cuda", "contiguous", "clone")},
        "size": lambda self, dim=None: Size(self.array.shape) if dim is None else self.array.shape[dim],
        "shape": property(lambda self: Size(self.array.shape)),
        **{name: getattr(T, own) for name, own in SECOND_NAMES.items() if hasattr(T, own)},
        **{name: functools.partialmethod(T.to, kind) for name, kind in KINDS.items() if not hasattr(T, name)},
        "data_ptr": lambda self: self.array.__array_interface__["data"][0],
        "element_size": lambda self: self.array.itemsize,
        "nbytes": property(lambda self: self.array.nbytes),
        "stride": _stride,
        "numpy": lambda self, *, force=False: _numpy(self.detach().cpu() if force else self),
        "share_memory_": lambda self: self,
        "ndimension": T.dim,
        "nelement": T.numel,
        "get_device": lambda self: self.device.index or 0 if self.is_cuda else -1,
        "is_contiguous": lambda self: self.array.flags.c_contiguous,
        "pin_memory": lambda self: self,
        **{name: property(lambda self: False) for name in ("is_xpu", "is_mps", "is_sparse", "volatile")},
    },
    Module: {
        "type": lambda self, dst_type: self.to(*as_type(dst_type)),
        "half": lambda self: self.to(minidl.float16),
        "share_memory": lambda self: self,
        "get_submodule": lambda self, target: functools.reduce(getattr, target.split(".") if target else [], self),
        "get_parameter": lambda self, target: functools.reduce(getattr, target.split("."), self),
        "_get_name": lambda self: type(self).__name__,
    },
}
