"""minidl/kernels/gpu.py without a GPU: its CUDA C compiled as C++, and a stand-in for what it uses of CuPy.

    gpu = emulation()          the module, whose arrays are those of `cupy` below

The compiled text is the one that a GPU gets. A launch runs its threads one after the other, in an order that `LAUNCHES`
chooses; since no kernel has a barrier, each order is one that a GPU might take. What a GPU would let pass is refused:
an argument of another type than the kernel's parameter, an array that is not contiguous or that shares memory with one
that is written, NumPy arrays among CuPy's. New arrays hold garbage. With MINIDL_SANITIZE=1 the compiled code checks
each access to memory and each overflow of an integer; it has to be loaded into a process with `sanitizer()` preloaded.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import numpy as np

from minidl import kernels

COMPILER = shutil.which("g++")
SANITIZE = os.environ.get("MINIDL_SANITIZE") == "1"
FLAGS = ["-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-tautological-compare"]
# Contraction of a * b + c to one rounding is what NVRTC does too.
PLAIN = ["-O1", "-march=native", "-ffp-contract=fast"]
SANITIZED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

# --- The compiled kernels -----------------------------------------------------------------------------------

PRELUDE = """
#include <cmath>
#include <string>
#include <utility>
#define __global__
#define __device__ static inline
struct Dim3 { unsigned x, y, z; };
static Dim3 blockIdx, threadIdx, blockDim, gridDim;
namespace emulated {
using std::exp; using std::fabs; using std::fma; using std::log; using std::nan; using std::sqrt;
"""

LAUNCHER = """
}  // namespace emulated

template <class T> struct Name;
#define NAMED(T, letter) template <> struct Name<T> { static std::string of() { return letter; } };
NAMED(float, "f") NAMED(double, "d") NAMED(signed char, "b") NAMED(short, "h") NAMED(int, "i") NAMED(long long, "q")
NAMED(unsigned char, "B") NAMED(unsigned short, "H") NAMED(unsigned, "I") NAMED(unsigned long long, "Q")
template <class T> struct Name<T *> { static std::string of() { return "written " + Name<T>::of(); } };
template <class T> struct Name<const T *> { static std::string of() { return "read " + Name<T>::of(); } };

template <class... A> static const char *types_of(void (*)(A...)) {
    static std::string names;
    names.clear();
    ((names += Name<A>::of() + ","), ...);
    return names.c_str();
}

template <class... A, std::size_t... I>
static void call(void (*kernel)(A...), void **args, std::index_sequence<I...>) {
    kernel(*static_cast<A *>(args[I])...);
}

// CuPy compiles with -ftz=true, by which denormal numbers of single precision count as zero.
struct FlushedToZero {
#ifdef __SSE__
    unsigned before = __builtin_ia32_stmxcsr();
    FlushedToZero() { __builtin_ia32_ldmxcsr(sizeof(real) == sizeof(float) ? before | 0x8040 : before); }
    ~FlushedToZero() { __builtin_ia32_ldmxcsr(before); }
#else
    FlushedToZero() {}
#endif
};

template <class... A>
static void run(void (*kernel)(A...), void **args, unsigned grid, unsigned block, const unsigned *blocks,
                unsigned count, const unsigned *threads) {
    FlushedToZero flushed;
    gridDim = {grid, 1, 1};
    blockDim = {block, 1, 1};
    for (unsigned b = 0; b < count; b++)
        for (unsigned t = 0; t < block; t++) {
            blockIdx = {blocks[b], 0, 0};
            threadIdx = {threads[t], 0, 0};
            call(kernel, args, std::index_sequence_for<A...>());
        }
}
"""

ENTRY = """
extern "C" const char *types_of_{0}() {{ return types_of(emulated::{0}); }}
extern "C" void run_{0}(void **args, unsigned grid, unsigned block, const unsigned *blocks, unsigned count,
                        const unsigned *threads) {{
    run(emulated::{0}, args, grid, block, blocks, count, threads);
}}
"""


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="cuda_on_cpu")


def kernel_names(code: str) -> list[str]:
    return re.findall(r"__global__ void (\w+)\(", code)


@functools.cache
def library(code: str, options: tuple[str, ...] = ()) -> ctypes.CDLL:
    """CUDA C, compiled as C++ for this processor."""
    text = PRELUDE + code + LAUNCHER + "".join(ENTRY.format(name) for name in kernel_names(code))
    number = len(os.listdir(_folder().name))
    source = Path(_folder().name) / f"kernels{number}.cpp"
    source.write_text(text, encoding="utf-8")
    built = source.with_suffix(f".{number}.so")
    macros = [option for option in options if option.startswith("-D")]
    command = [COMPILER, *FLAGS, *(SANITIZED if SANITIZE else PLAIN), *macros, str(source), "-o", str(built)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{COMPILER} failed:\n{done.stderr}")
    return ctypes.CDLL(str(built))


def sanitizer() -> str | None:
    """The library to preload into a process that loads sanitized code, where this compiler has one."""
    if COMPILER is None:
        return None
    path = subprocess.run([COMPILER, "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    return path if os.path.isabs(path) else None


# --- Launches -----------------------------------------------------------------------------------------------


class Launches:
    """How the threads of a launch are ordered, which of its blocks run at all, and what was launched.

    Attributes
    ----------
    order : {"forward", "backward", "shuffled"}
    only : list of int, or None
        The blocks to run, for arrays too large to run them all.
    counts : Counter
        Launches by name; those of CuPy's own operations as ``cupy.<name>``.
    calls : list of (name, args, kwargs)
        The calls of CuPy's functions.
    """

    def __init__(self) -> None:
        self.order = "forward"
        self.only: list[int] | None = None
        self.counts: Counter[str] = Counter()
        self.calls: list[tuple[str, tuple, dict]] = []
        self.capturing = False

    def sequence(self, numbers: np.ndarray) -> np.ndarray:
        if self.order == "shuffled":
            return np.random.default_rng(len(numbers)).permutation(numbers)
        return np.ascontiguousarray(numbers[::-1] if self.order == "backward" else numbers)


LAUNCHES = Launches()


class Kernel:
    """What ``RawModule.get_function`` returns."""

    def __init__(self, code: str, options: tuple[str, ...], name: str) -> None:
        built = library(code, options)
        self.name, self._run = name, getattr(built, f"run_{name}")
        types_of = getattr(built, f"types_of_{name}")
        types_of.restype = ctypes.c_char_p
        self.types = types_of().decode().split(",")[:-1]

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple) -> None:
        (blocks,), (threads,) = grid, block
        assert 0 < blocks < 2**31, "so many blocks a GPU does not take"
        assert 0 < threads <= 1024, "so many threads a block does not have"
        if len(args) != len(self.types):
            raise TypeError(f"{self.name}: {len(args)} arguments for {len(self.types)} parameters")
        values = [_argument(self.name, a, t) for a, t in zip(args, self.types, strict=True)]
        _refuse_shared_memory(self.name, args, self.types)
        pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(v) for v in values])
        order = LAUNCHES.sequence(np.arange(blocks, dtype=np.uint32) if LAUNCHES.only is None else _only(blocks))
        within = LAUNCHES.sequence(np.arange(threads, dtype=np.uint32))
        pointer = ctypes.POINTER(ctypes.c_uint)
        self._run(pointers, blocks, threads, order.ctypes.data_as(pointer), len(order), within.ctypes.data_as(pointer))
        LAUNCHES.counts[self.name] += 1


def _only(blocks: int) -> np.ndarray:
    assert LAUNCHES.only is not None
    return np.array([b % blocks for b in LAUNCHES.only], np.uint32)


def _argument(name: str, value: object, wanted: str) -> ctypes._SimpleCData:
    """An argument as CuPy passes it: an array as a pointer, an int as long long, a float as double."""
    if isinstance(value, ndarray):
        if not value.flags.c_contiguous:
            raise TypeError(f"{name}: an array that is not C-contiguous, which a kernel cannot know")
        found = _letter(value.dtype)
        if wanted not in (f"read {found}", f"written {found}"):
            raise TypeError(f"{name}: an array of {value.dtype} for a parameter that is {wanted!r}")
        return ctypes.c_void_p(value._a.ctypes.data)
    if type(value) is int:
        value = np.int64(value)
    elif type(value) is float:
        value = np.float64(value)
    if not isinstance(value, np.generic):
        raise TypeError(f"{name}: CuPy does not pass {type(value).__name__}")
    if " " in wanted and value.dtype == np.uintp and value == 0:  # no array
        return ctypes.c_void_p(0)
    if wanted != _letter(value.dtype):
        raise TypeError(f"{name}: a {value.dtype} for a parameter that is {wanted!r}")
    return np.ctypeslib.as_ctypes_type(value.dtype)(value.item())


def _letter(dtype: np.dtype) -> str:
    return {"l": "q", "L": "Q"}.get(dtype.char, dtype.char)


def _refuse_shared_memory(name: str, args: tuple, types: list[str]) -> None:
    arrays = [(a, t) for a, t in zip(args, types, strict=True) if isinstance(a, ndarray)]
    for i, (a, wanted) in enumerate(arrays):
        for j, (b, _) in enumerate(arrays):
            if i != j and wanted.startswith("written") and np.may_share_memory(a._a, b._a):
                raise TypeError(f"{name}: array {i}, which is written, shares memory with array {j}")


class RawModule:
    def __init__(self, code: str | None = None, *, options: tuple[str, ...] = ()) -> None:
        assert isinstance(options, tuple), "CuPy refuses a list"
        self._of = code, options

    def get_function(self, name: str) -> Kernel:
        return Kernel(*self._of, name)


# --- Arrays -------------------------------------------------------------------------------------------------


def _unwrapped(value: object) -> object:
    """The NumPy array in a stand-in; refuses a bare one, as CuPy does."""
    if isinstance(value, ndarray):
        return value._a
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return type(value)(_unwrapped(v) for v in value) if type(value) in (tuple, list) else value


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    """A NumPy array that cannot be taken for one. As in CuPy, results are arrays even where they have no dimension."""

    def __init__(self, a: np.ndarray) -> None:
        self._a = np.asarray(a)

    def __array__(self, *args: object, **kwargs: object) -> None:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct one.")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        kwargs = {key: _unwrapped(value) for key, value in kwargs.items()}
        return ndarray(getattr(ufunc, method)(*map(_unwrapped, inputs), **kwargs))

    def __array_function__(self, function, types, args, kwargs):
        kwargs = {key: _unwrapped(value) for key, value in kwargs.items()}
        return ndarray(function(*map(_unwrapped, args), **kwargs))

    shape = property(lambda self: self._a.shape)
    dtype = property(lambda self: self._a.dtype)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    flags = property(lambda self: self._a.flags)
    T = property(lambda self: ndarray(self._a.T))

    def __len__(self) -> int:
        return len(self._a)

    def __getitem__(self, index: object) -> ndarray:
        if any(isinstance(part, ndarray) for part in (index if isinstance(index, tuple) else (index,))):
            LAUNCHES.counts["cupy.take"] += 1
        return ndarray(self._a[_unwrapped(index)])  # type: ignore[index]

    def __setitem__(self, index: object, value: object) -> None:
        self._a[_unwrapped(index)] = _unwrapped(value)  # type: ignore[index]

    def reshape(self, *shape) -> ndarray:
        return ndarray(self._a.reshape(*shape))

    def transpose(self, *axes: int) -> ndarray:
        return ndarray(self._a.transpose(*axes))

    def astype(self, dtype, order: str = "K", casting=None, subok=None, copy: bool = True) -> ndarray:
        made = self._a.astype(dtype, order=order, copy=copy)
        return self if made is self._a else ndarray(made)

    def sum(self, axis=None) -> ndarray:
        return ndarray(self._a.sum(axis=axis))

    def item(self) -> object:
        return self._a.item()


# --- The module ---------------------------------------------------------------------------------------------


def _garbage(shape, dtype=float, order: str = "C") -> ndarray:
    a = np.empty(shape, dtype)
    a.view(np.uint8).fill(0xFF) if a.ndim else a.fill(-1)  # NaN, or -1
    return ndarray(a)


def _add(a, b, out=None):
    return ndarray(np.add(_unwrapped(a), _unwrapped(b))) if out is None else _filled(out, np.add, a, b)


def _filled(out: ndarray, function, *args) -> ndarray:
    function(*map(_unwrapped, args), out=out._a)
    return out


def _contiguous(a: ndarray, dtype=None) -> ndarray:
    return a if a.flags.c_contiguous else ndarray(np.ascontiguousarray(_unwrapped(a), dtype))


FUNCTIONS = {
    "add": _add,
    "arange": lambda *args, **kwargs: ndarray(np.arange(*args, **kwargs)),
    "argsort": lambda a, axis=-1, kind=None: ndarray(np.argsort(_unwrapped(a), axis=axis, kind="stable")),
    "array": lambda a: ndarray(np.array(a)),
    "asarray": lambda a: a if isinstance(a, ndarray) else ndarray(np.array(a)),
    "ascontiguousarray": _contiguous,
    "asnumpy": lambda a: a._a.copy(),
    "broadcast_to": lambda array, shape: ndarray(np.broadcast_to(_unwrapped(array), shape)),
    "dot": lambda a, b: ndarray(np.dot(_unwrapped(a), _unwrapped(b))),
    "empty": _garbage,
    "zeros": lambda shape, dtype=float: ndarray(np.zeros(shape, dtype)),
}


def _recorded(name: str):
    def function(*args, **kwargs):
        LAUNCHES.calls.append((name, args, kwargs))
        if name not in ("empty", "asnumpy"):
            LAUNCHES.counts[f"cupy.{name}"] += 1
        return FUNCTIONS[name](*args, **kwargs)

    return function


def _stand_in() -> ModuleType:
    module = ModuleType("cupy")
    module.__dict__.update({name: _recorded(name) for name in FUNCTIONS})
    stream = SimpleNamespace(is_capturing=lambda: LAUNCHES.capturing)
    cuda = SimpleNamespace(runtime=SimpleNamespace(getDevice=lambda: 0), get_current_stream=lambda: stream)
    module.__dict__.update(ndarray=ndarray, RawModule=RawModule, cuda=cuda)
    return module


cupy = _stand_in()


@functools.cache
def emulation() -> ModuleType:
    """minidl/kernels/gpu.py, a copy of its own, on the stand-in."""
    path = Path(kernels.__file__).with_name("gpu.py")
    spec = importlib.util.spec_from_file_location("gpu_on_cpu", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {"cupy": cupy}):
        spec.loader.exec_module(module)
    return module
