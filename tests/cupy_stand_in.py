"""A stand-in for CuPy's arrays, so that code that forgets where an array lives fails on any machine.

It also records graphs: while a stream is capturing, each operation leaves what computes its result anew into the same
memory, and computes nothing that could be read.

Stricter than CuPy: it refuses every implicit conversion to NumPy, NumPy arrays as operands, as arguments, as indices
and as values to assign, and functions that CuPy does not have. Its kernels are the definitions in reference.py.
"""

import contextlib
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
IN_PLACE = {"adam_step", "sgd_step", "add_at"}
METHODS = (
    *("all", "any", "argmax", "argmin", "astype", "copy", "max", "mean", "min", "ravel", "reshape", "squeeze", "sum"),
    *("transpose", "view"),
)


class Recorder:
    """What is recorded at this moment, or None."""

    steps = None


def performed(compute, owner=None):
    """Compute a result; while recording, also note down how."""
    with np.errstate(all="ignore"):  # a GPU warns of nothing
        result = wrapped(compute(), owner)
    if Recorder.steps is not None:
        parts = result if isinstance(result, tuple) else (result,)
        Recorder.steps.append(lambda: refill(parts, compute()))
    return result


def changed(compute):
    """Change arrays in place; while recording, only note down how."""
    if Recorder.steps is not None:
        Recorder.steps.append(compute)
        return
    with np.errstate(all="ignore"):
        compute()


def refill(parts, values):
    values = values if isinstance(values, tuple) else (values,)
    for part, value in zip(parts, values, strict=True):
        if isinstance(part, ndarray) and not (isinstance(value, np.ndarray) and part.base is not None):
            part._hidden[...] = value


def read(array):
    """The values, which a stream that is capturing cannot give."""
    if Recorder.steps is not None:
        raise OSError("cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing")
    return array._hidden


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
        given = [hidden(x) for x in inputs]
        if out is not None:
            changed(lambda: ufunc(*given, out=hidden(out), **options))
            return out[0]
        named = {k: hidden(v) for k, v in options.items()}
        return performed(lambda: ufunc(*given, **named))

    def __array_function__(self, function, kinds, args, kwargs):
        if function.__name__ not in FUNCTIONS:
            raise TypeError(f"np.{function.__name__} is not among the functions that arrays of a GPU take here")
        given, named = hidden(args), hidden(kwargs)
        return performed(lambda: function(*given, **named), self)

    def __getitem__(self, index):
        plain = hidden(index)
        return performed(lambda: self._hidden[plain], self)

    def __setitem__(self, index, value):
        plain, values = hidden(index), hidden(value)
        changed(lambda: self._hidden.__setitem__(plain, values))

    def __len__(self):
        return len(self._hidden)

    def __bool__(self):
        return bool(read(self))

    def __int__(self):
        return int(read(self))

    def __index__(self):
        return read(self).__index__()

    def __float__(self):
        return float(read(self))

    def __format__(self, spec):
        return format(read(self).item() if self.ndim == 0 else read(self), spec)

    def item(self):
        return read(self).item()

    def tolist(self):
        return read(self).tolist()

    def get(self):
        return read(self).copy()

    def set(self, array, stream=None):
        assert (array.shape, array.dtype) == (self.shape, self.dtype)
        self._hidden[...] = array


def _method(name):
    def method(self, *args, **kwargs):
        given, named = hidden(args), hidden(kwargs)
        return performed(lambda: getattr(self._hidden, name)(*given, **named), self)

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
        given = [hidden(arg) for arg in args]
        if definition.__name__ in IN_PLACE:
            return changed(lambda: definition(*given, **kwargs))
        return performed(lambda: definition(*given, **kwargs))

    return kernel


def _cupy():
    module = types.ModuleType("cupy")
    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: 1, getDevice=lambda: 0, setDevice=int, CUDARuntimeError=OSError
    )
    module.ndarray, module.__version__ = ndarray, "stand-in"
    module.asnumpy = lambda array: array.get()
    module.array = lambda array, order: ndarray(
        np.array(array) if isinstance(array, np.ndarray) else array._hidden.copy()
    )
    module.empty = lambda shape, dtype: ndarray(np.full(shape, 99, dtype))
    module.cuda = types.SimpleNamespace(
        runtime=runtime,
        Device=_Device,
        Stream=_Stream,
        MemoryPool=lambda: types.SimpleNamespace(malloc=None),
        using_allocator=lambda malloc: contextlib.nullcontext(),
        get_current_stream=_Stream,
    )
    return module


class _Stream:
    def __init__(self, non_blocking=False):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def record(self):
        return types.SimpleNamespace(synchronize=lambda: None)

    def wait_event(self, event):
        pass

    def begin_capture(self):
        Recorder.steps = []

    def end_capture(self):
        steps, Recorder.steps = Recorder.steps, None
        return types.SimpleNamespace(launch=lambda stream: [step() for step in steps])


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
    monkeypatch.setitem(sys.modules, "cupyx", types.SimpleNamespace(empty_pinned=np.empty))
    monkeypatch.setitem(sys.modules, "minidl.kernels.gpu", gpu)
    monkeypatch.setattr(kernels, "gpu", gpu, raising=False)
