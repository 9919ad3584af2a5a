"""A stand-in for CuPy's arrays, so that code that forgets where an array lives fails on any machine.

It also records graphs: while a stream is capturing, each operation leaves what computes its result anew into the same
memory, and computes nothing that could be read.

Stricter than CuPy: it refuses every implicit conversion to NumPy, NumPy arrays as operands, as arguments, as indices
and as values to assign, and functions that CuPy does not have. Its kernels are the definitions in reference.py, or
those of a GPU as cuda_on_cpu.py compiles them. What it launches is counted; new arrays hold garbage.
"""

import contextlib
import sys
import types
import weakref
from collections import Counter

import numpy as np

from minidl import kernels
from minidl.kernels import reference

# What NumPy passes on to CuPy, and the code under test may use; each is in CuPy too.
PASSED_ON = {
    *("all", "any", "argmax", "argmin", "argsort", "argwhere", "array_equal", "broadcast_to", "clip", "concatenate"),
    *("cumsum", "empty_like", "flip", "full_like", "max", "may_share_memory", "min", "ones_like", "pad", "repeat"),
    *("reshape", "roll", "round", "searchsorted", "stack", "sum", "take", "take_along_axis", "transpose", "unique"),
    *("where", "zeros_like"),
}
IN_PLACE = {"adam_step", "sgd_step", "add_at"}
counts = Counter()  # launches by name; those of CuPy's own operations as ``cupy.<name>``
calls = []  # (name, args, kwargs) of the calls of CuPy's functions
METHODS = (
    *("all", "any", "argmax", "argmin", "astype", "copy", "max", "mean", "min", "ravel", "reshape", "squeeze", "sum"),
    *("transpose", "view"),
)


class Recorder:
    """What is recorded at this moment, or None; and the memory that arrays of the recording have left, by size."""

    steps = None
    left = None


def graph_memory(values):
    """The values in memory of the graph: where an earlier array of it lay that nobody holds any more, if one fits."""
    pieces = Recorder.left.setdefault(values.nbytes, [])
    memory = pieces.pop() if pieces else np.empty(values.nbytes, np.uint8)
    array = memory.view(values.dtype).reshape(values.shape) if values.nbytes else values.copy()
    array[...] = values
    made = ndarray(array)
    if values.nbytes:
        weakref.finalize(made, pieces.append, memory)
    return made


def performed(name, compute, owner=None):
    """Compute a result, which is a launch unless it is a view; while recording, also note down how."""
    with np.errstate(all="ignore"):  # a GPU warns of nothing
        result = wrapped(compute(), owner)
    counts[f"cupy.{name}"] += any(isinstance(x, ndarray) and x.base is None for x in _parts(result))
    if Recorder.steps is not None:
        result = tuple(map(_of_the_graph, result)) if isinstance(result, tuple) else _of_the_graph(result)
        targets = [part._hidden if isinstance(part, ndarray) and part.base is None else None for part in _parts(result)]
        Recorder.steps.append(lambda: refill(targets, compute()))
    return result


def _of_the_graph(result):
    made = isinstance(result, ndarray) and result.base is None
    return graph_memory(result._hidden) if made else result


def _parts(result):
    return result if isinstance(result, tuple) else (result,)


def changed(name, compute):
    """Change arrays in place by a launch; while recording, only note down how."""
    counts[name] += 1
    if Recorder.steps is not None:
        Recorder.steps.append(compute)
        return
    with np.errstate(all="ignore"):
        compute()


def refill(targets, values):
    for target, value in zip(targets, _parts(values), strict=True):
        if target is not None:
            target[...] = value


def read(array):
    """The values, which a stream that is capturing cannot give."""
    if Recorder.steps is not None:
        raise OSError("cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing")
    return array._hidden


def refuse_masks(index):
    """How many elements a mask selects is read from the GPU."""
    parts = index if isinstance(index, tuple) else (index,)
    if Recorder.steps is not None and any(isinstance(part, ndarray) and part.dtype == bool for part in parts):
        raise OSError("cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing")


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
            changed(f"cupy.{ufunc.__name__}", lambda: ufunc(*given, out=hidden(out), **options))
            return out[0]
        named = {k: hidden(v) for k, v in options.items()}
        return performed(ufunc.__name__, lambda: ufunc(*given, **named))

    def __array_function__(self, function, kinds, args, kwargs):
        if function.__name__ not in PASSED_ON:
            raise TypeError(f"np.{function.__name__} is not among the functions that arrays of a GPU take here")
        given, named = hidden(args), hidden(kwargs)
        if "shape" in kwargs and not kwargs["shape"] and kwargs["shape"] is not None:
            kwargs = {key: value for key, value in kwargs.items() if key != "shape"}  # as CuPy has it
            named = hidden(kwargs)
        if Recorder.steps is not None and function.__name__ in ("dot", "matmul"):
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
        if function.__name__ == "concatenate" and Recorder.steps is not None and len(args[0]) > 8:
            raise OSError("cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing")
        if function.__name__ == "empty_like":
            return empty(named.get("shape", given[0].shape), named.get("dtype", given[0].dtype))
        return performed(function.__name__, lambda: function(*given, **named), self)

    def __getitem__(self, index):
        plain = hidden(index)
        refuse_masks(index)
        return performed("take", lambda: self._hidden[plain], self)

    def __setitem__(self, index, value):
        plain, values = hidden(index), hidden(value)
        refuse_masks(index)
        changed("cupy.setitem", lambda: self._hidden.__setitem__(plain, values))

    def __len__(self):
        return len(self._hidden)

    def __bool__(self):
        return bool(read(self))

    def __int__(self):
        return int(read(self))

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
        assert isinstance(array, np.ndarray), "Only numpy.ndarray can be set to cupy.ndarray"
        assert (array.shape, array.dtype) == (self.shape, self.dtype)
        self._hidden[...] = array


def _method(name):
    def method(self, *args, **kwargs):
        given, named = hidden(args), hidden(kwargs)
        return performed(name, lambda: getattr(self._hidden, name)(*given, **named), self)

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
            return changed(definition.__name__, lambda: definition(*given, **kwargs))
        return performed(definition.__name__, lambda: definition(*given, **kwargs))

    return kernel


def empty(shape, dtype=float):
    """An array of NaN or -1."""
    array = np.empty(shape, dtype)
    array.view(np.uint8).fill(0xFF) if array.ndim else array.fill(-1)
    return ndarray(array) if Recorder.steps is None or Allocator.own else graph_memory(array)


class Allocator:
    """Whether memory comes from a pool that is not the graph's."""

    own = False


@contextlib.contextmanager
def using_allocator(malloc):
    before, Allocator.own = Allocator.own, malloc == "own" and Recorder.steps is not None
    try:
        yield
    finally:
        Allocator.own = before


def _sent(array, **order):
    return (
        ndarray(np.array(array)) if isinstance(array, np.ndarray) else performed("copy", lambda: array._hidden.copy())
    )


def _function(function):
    """One of NumPy's, that CuPy has too."""

    def call(*args, **kwargs):
        given, named, out = hidden(args), hidden(kwargs), kwargs.get("out")
        if out is not None:
            changed(f"cupy.{function.__name__}", lambda: function(*given, **named))
            return out
        owner = next((x for x in args if isinstance(x, ndarray)), None)
        return performed(function.__name__, lambda: function(*given, **named), owner)

    return call


def argsort(a):
    """CuPy's is stable."""
    return performed("argsort", lambda: np.argsort(hidden(a), kind="stable"))


FUNCTIONS = {
    **{f.__name__: _function(f) for f in (np.add, np.arange, np.broadcast_to, np.dot, np.full, np.matmul, np.zeros)},
    "argsort": argsort,
    "array": _sent,
    "asarray": lambda a: a if isinstance(a, ndarray) else _sent(a),
    "ascontiguousarray": lambda a: a if a.flags.c_contiguous else _function(np.ascontiguousarray)(a),
    "asnumpy": lambda array: array.get(),
    "empty": empty,
}


def _noted(name):
    def function(*args, **kwargs):
        calls.append((name, args, kwargs))
        return FUNCTIONS[name](*args, **kwargs)

    return function


def cupy_module():
    """A module that can be taken for CuPy."""
    module = types.ModuleType("cupy")
    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: 1, getDevice=lambda: 0, setDevice=int, CUDARuntimeError=OSError
    )
    module.ndarray, module.__version__ = ndarray, "stand-in"
    module.get_default_memory_pool = lambda: types.SimpleNamespace(free_all_blocks=lambda stream: None)
    module.__dict__.update({name: _noted(name) for name in FUNCTIONS})
    module.cuda = types.SimpleNamespace(
        runtime=runtime,
        Device=_Device,
        Stream=_Stream,
        MemoryPool=lambda: types.SimpleNamespace(malloc="own"),
        alloc=lambda size: types.SimpleNamespace(ptr=0),
        using_allocator=using_allocator,
        get_current_stream=_Stream,
    )
    return module


class _Stream:
    ptr = 0

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
        Recorder.steps, Recorder.left = [], {}

    def is_capturing(self):
        return Recorder.steps is not None

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


def definitions():
    """The kernels as reference.py defines them."""
    gpu = types.ModuleType("minidl.kernels.gpu.kernels")
    for name in kernels.__all__:
        if hasattr(reference, name):
            setattr(gpu, name, _by_definition(getattr(reference, name)))
    return gpu


def install(monkeypatch, gpu=None):
    """Let "cuda" be this, until the test ends, with the kernels of a module like minidl/kernels/gpu/kernels.py."""
    gpu = gpu or definitions()
    monkeypatch.setitem(sys.modules, "cupy", cupy_module())
    monkeypatch.setitem(sys.modules, "cupyx", types.SimpleNamespace(empty_pinned=np.empty))
    monkeypatch.setitem(sys.modules, "minidl.kernels.gpu.kernels", gpu)
    monkeypatch.setattr("minidl.kernels.gpu.kernels", gpu, raising=False)
