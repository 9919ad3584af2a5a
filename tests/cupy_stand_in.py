"""A stand-in for CuPy's arrays, so that code that forgets where an array lives fails on any machine.

Stricter than CuPy: it refuses every implicit conversion to NumPy, NumPy arrays as operands, as arguments, as indices
and as values to assign, and functions that CuPy does not have. Its kernels are the definitions in reference.py.
"""

import sys
import types

import numpy as np

from minidl import kernels
from minidl.kernels import reference

# What NumPy passes on to CuPy, and the code under test may use; each is in CuPy too.
FUNCTIONS = {
    *("argmax", "argmin", "argsort", "argwhere", "array_equal", "broadcast_to", "clip"),
    *("concatenate", "cumsum", "empty_like", "full_like", "max", "may_share_memory", "min", "ones_like", "pad"),
    *("reshape", "stack", "sum", "transpose", "where", "zeros_like"),
}
METHODS = (
    *("all", "any", "argmax", "argmin", "astype", "copy", "max", "mean", "min", "ravel", "reshape", "squeeze", "sum"),
    *("transpose", "view"),
)


class Flags:
    """CuPy's flags: whether an array may be written to is not among them."""

    def __init__(self, flags):
        self.c_contiguous, self.f_contiguous, self.forc = flags.c_contiguous, flags.f_contiguous, flags.forc
        self.owndata, self.fnc = flags.owndata, flags.fnc


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of a GPU, whose memory is hidden in `_hidden`."""

    def __init__(self, hidden, base=None):
        self._hidden, self.base = np.asarray(hidden), base
        self.device = types.SimpleNamespace(id=0)

    shape = property(lambda self: self._hidden.shape)
    dtype = property(lambda self: self._hidden.dtype)
    ndim = property(lambda self: self._hidden.ndim)
    size = property(lambda self: self._hidden.size)
    itemsize = property(lambda self: self._hidden.itemsize)
    nbytes = property(lambda self: self._hidden.nbytes)
    strides = property(lambda self: self._hidden.strides)
    flags = property(lambda self: Flags(self._hidden.flags))
    T = property(lambda self: wrapped(self._hidden.T, self))

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self._hidden.__array_interface__["data"][0])

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if method != "__call__":
            raise TypeError(f"np.{ufunc.__name__}.{method} is not for arrays of a GPU here")
        with np.errstate(all="ignore"):  # a GPU warns of nothing
            if out is not None:
                ufunc(*[hidden(x) for x in inputs], out=hidden(out), **options)
                return out[0]
            return wrapped(ufunc(*[hidden(x) for x in inputs], **{k: hidden(v) for k, v in options.items()}))

    def __array_function__(self, function, kinds, args, kwargs):
        if function.__name__ not in FUNCTIONS:
            raise TypeError(f"np.{function.__name__} is not among the functions that arrays of a GPU take here")
        with np.errstate(all="ignore"):
            return wrapped(function(*hidden(args), **hidden(kwargs)), self)

    def __getitem__(self, index):
        return wrapped(self._hidden[hidden(index)], self)

    def __setitem__(self, index, value):
        self._hidden[hidden(index)] = hidden(value)

    def __len__(self):
        return len(self._hidden)

    def __bool__(self):
        return bool(self._hidden)

    def __int__(self):
        return int(self._hidden)

    def __index__(self):
        return self._hidden.__index__()

    def __float__(self):
        return float(self._hidden)

    def __format__(self, spec):
        return format(self._hidden.item() if self.ndim == 0 else self._hidden, spec)

    def item(self):
        return self._hidden.item()

    def tolist(self):
        return self._hidden.tolist()

    def get(self):
        return self._hidden.copy()


def _method(name):
    def method(self, *args, **kwargs):
        with np.errstate(all="ignore"):
            return wrapped(getattr(self._hidden, name)(*hidden(args), **hidden(kwargs)), self)

    return method


for _name in METHODS:
    setattr(ndarray, _name, _method(_name))


def hidden(value):
    """A value with the arrays in it taken out of their hiding; NumPy's own are refused."""
    if isinstance(value, ndarray):
        return value._hidden
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return type(value)(hidden(part) for part in value)
    if isinstance(value, dict):
        return {key: hidden(part) for key, part in value.items()}
    return value


def wrapped(value, owner=None):
    """A result as an array of a GPU, also a single number; one that shares the owner's memory is a view of it."""
    if isinstance(value, tuple):
        return tuple(wrapped(part) for part in value)
    if not isinstance(value, np.ndarray | np.generic):
        return value
    view = owner is not None and isinstance(value, np.ndarray) and np.may_share_memory(value, owner._hidden)
    return ndarray(value, owner if view else None)


def _by_definition(definition):
    def kernel(*args, **kwargs):
        return wrapped(definition(*[hidden(arg) for arg in args], **kwargs))

    return kernel


def _cupy():
    module = types.ModuleType("cupy")
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 1, getDevice=lambda: 0, CUDARuntimeError=OSError)
    module.ndarray, module.__version__ = ndarray, "stand-in"
    module.asnumpy = lambda array: array.get()
    module.array = lambda array: ndarray(np.array(array) if isinstance(array, np.ndarray) else array._hidden.copy())
    module.cuda = types.SimpleNamespace(runtime=runtime, Device=_Device)
    return module


class _Device:
    def __init__(self, number):
        assert number == 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def synchronize(self):
        pass


def install(monkeypatch):
    """Let "cuda" be this, until the test ends."""
    gpu = types.ModuleType("minidl.kernels.gpu")
    for name in kernels.__all__:
        if hasattr(reference, name):
            setattr(gpu, name, _by_definition(getattr(reference, name)))
    monkeypatch.setitem(sys.modules, "cupy", _cupy())
    monkeypatch.setitem(sys.modules, "minidl.kernels.gpu", gpu)
    monkeypatch.setattr(kernels, "gpu", gpu, raising=False)
