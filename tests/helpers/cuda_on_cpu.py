"""minidl/kernels/gpu/kernels.py without a GPU: its CUDA C compiled as C++, on the arrays of cupy_stand_in.py.

    gpu = emulation()          the module, whose arrays are those of `cupy` below

The compiled text is the one that a GPU gets. A launch runs its threads one after the other, in an order that `ORDER`
chooses; where they wait for one another at a barrier, each runs up to it before one goes on, so that each order is one
that a GPU might take. What a GPU would let pass is refused: an argument of another type than the kernel's parameter, an
array that is not contiguous or that shares memory with one that is written. With MINIDL_SANITIZE=1 the compiled code
checks each access to memory and each overflow of an integer; it has to be loaded into a process with `sanitizer()`
preloaded.
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
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from minidl.kernels import gpu
from tests.helpers.cupy_stand_in import changed, cupy_module, ndarray

COMPILER = shutil.which("g++")
SANITIZE = os.environ.get("MINIDL_SANITIZE") == "1"
FLAGS = ["-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-tautological-compare"]
# Contraction of a * b + c to one rounding is what NVRTC does too.
PLAIN = ["-O1", "-march=native", "-ffp-contract=fast"]
SANITIZED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

# --- The compiled kernels -----------------------------------------------------------------------------------

PRELUDE = """
#include <cmath>
#include <cstdlib>
#include <functional>
#include <string>
#include <ucontext.h>
#include <utility>
#include <vector>
#define __global__
#define __device__ inline
#define __shared__ static
#define __launch_bounds__(threads)
struct Dim3 { unsigned x, y, z; };
static Dim3 blockIdx, threadIdx, blockDim, gridDim;

// A thread of a block with barriers has a stack of its own, which it leaves at each of them.
struct Thread { ucontext_t at; std::vector<char> stack; bool done; };
static ucontext_t scheduler;
static Thread *running;
static std::function<void()> body;
inline void __syncthreads() { swapcontext(&running->at, &scheduler); }
static void begin() { body(); running->done = true; }
namespace emulated {
using std::exp; using std::fabs; using std::fma; using std::log; using std::log1p; using std::nan; using std::sqrt;
"""

LAUNCHER = """
}  // namespace emulated

template <class T> struct Name { static std::string of() { return "struct " + std::to_string(sizeof(T)); } };
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

static void run_waiting(unsigned count, const unsigned *order) {
    static std::vector<Thread> threads;
    if (threads.size() < count) threads.resize(count);
    for (unsigned t = 0; t < count; t++) {
        Thread &thread = threads[t];
        thread.stack.resize(1 << 16);
        thread.done = false;
        getcontext(&thread.at);
        thread.at.uc_stack = {thread.stack.data(), 0, thread.stack.size()};
        thread.at.uc_link = &scheduler;
        makecontext(&thread.at, begin, 0);
    }
    for (unsigned left = count; left;)
        for (unsigned t = 0; t < count; t++) {
            running = &threads[order[t]];
            if (running->done) continue;
            threadIdx = {order[t], 0, 0};
            swapcontext(&scheduler, &running->at);
            left -= running->done;
        }
}

template <class... A>
static void run(void (*kernel)(A...), bool waits, void **args, unsigned grid, unsigned block, const unsigned *blocks,
                unsigned count, const unsigned *threads) {
    FlushedToZero flushed;
    gridDim = {grid, 1, 1};
    blockDim = {block, 1, 1};
    body = [=] { call(kernel, args, std::index_sequence_for<A...>()); };
    for (unsigned b = 0; b < count; b++) {
        blockIdx = {blocks[b], 0, 0};
        if (waits)
            run_waiting(block, threads);
        else
            for (unsigned t = 0; t < block; t++) {
                threadIdx = {threads[t], 0, 0};
                body();
            }
    }
}
"""

ENTRY = """
extern "C" const char *types_of_{0}() {{ return types_of(emulated::{0}); }}
extern "C" void run_{0}(void **args, unsigned grid, unsigned block, const unsigned *blocks, unsigned count,
                        const unsigned *threads) {{
    run(emulated::{0}, {1}, args, grid, block, blocks, count, threads);
}}
"""


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="cuda_on_cpu")


def kernel_names(code: str) -> dict[str, bool]:
    """The kernels, and whether their threads wait for one another: then the number of threads is bounded."""
    found = re.findall(r"__global__ void (__launch_bounds__\(\w+\))?\s*(\w+)\(", code)
    return {name: bool(bound) for bound, name in found}


@functools.cache
def library(code: str, options: tuple[str, ...] = ()) -> ctypes.CDLL:
    """CUDA C, compiled as C++ for this processor."""
    entries = [ENTRY.format(name, str(waits).lower()) for name, waits in kernel_names(code).items()]
    text = PRELUDE + code + LAUNCHER + "".join(entries)
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


class Order:
    """How the blocks and threads of a launch are ordered, and which of its blocks run at all.

    Attributes
    ----------
    name : {"forward", "backward", "shuffled"}
    only : list of int, or None
        The blocks to run, for arrays too large to run them all.
    """

    def __init__(self) -> None:
        self.name = "forward"
        self.only: list[int] | None = None

    def blocks(self, count: int) -> np.ndarray:
        return self.of(np.arange(count) if self.only is None else np.array([b % count for b in self.only]))

    def of(self, numbers: np.ndarray) -> np.ndarray:
        if self.name == "shuffled":
            numbers = np.random.default_rng(len(numbers)).permutation(numbers)
        return np.ascontiguousarray(numbers[::-1] if self.name == "backward" else numbers, np.uint32)


ORDER = Order()


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
        some, all_threads = ORDER.blocks(blocks), ORDER.of(np.arange(threads))
        first, second = (order.ctypes.data_as(ctypes.POINTER(ctypes.c_uint)) for order in (some, all_threads))

        def run(kept: object = (args, values, some, all_threads)) -> None:  # a recorded launch reads them later
            self._run(pointers, blocks, threads, first, len(some), second)

        changed(self.name, run)


def _argument(name: str, value: object, wanted: str) -> object:
    """An argument as CuPy passes it: an array as a pointer, an int as long long, a float as double, a struct."""
    if isinstance(value, ndarray):
        if not value.flags.c_contiguous:
            raise TypeError(f"{name}: an array that is not C-contiguous, which a kernel cannot know")
        found = _letter(value.dtype)
        if wanted not in (f"read {found}", f"written {found}"):
            raise TypeError(f"{name}: an array of {value.dtype} for a parameter that is {wanted!r}")
        return ctypes.c_void_p(value._hidden.ctypes.data)
    if isinstance(value, np.ndarray) and value.size == 1 and wanted == f"struct {value.itemsize}":
        return (ctypes.c_char * value.itemsize).from_buffer_copy(value.tobytes())
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
            if i != j and wanted.startswith("written") and np.may_share_memory(a._hidden, b._hidden):
                raise TypeError(f"{name}: array {i}, which is written, shares memory with array {j}")


class RawModule:
    def __init__(self, code: str | None = None, *, options: tuple[str, ...] = ()) -> None:
        assert isinstance(options, tuple), "CuPy refuses a list"
        self._of = code, options

    def get_function(self, name: str) -> Kernel:
        return Kernel(*self._of, name)


# --- Products of matrices -----------------------------------------------------------------------------------


def _at(pointer: int, length: int, dtype: type) -> np.ndarray:
    """The memory that a pointer points to."""
    return np.ctypeslib.as_array((np.ctypeslib.as_ctypes_type(dtype) * length).from_address(pointer))


def _matrices(pointer: int, transposed: int, shape: tuple[int, int], step: int, distance: int, n: int, dtype: type):
    """Matrices as cuBLAS is told of them, as an array (n, rows, columns).

    Their columns, or, transposed, their rows are `step` apart, and each matrix is `distance` from the next.
    """
    rows, columns = shape
    assert step >= max(1, columns if transposed else rows), "a leading dimension that cuBLAS refuses"
    strides = (distance, step, 1) if transposed else (distance, 1, step)
    reach = 1 + sum((size - 1) * stride for size, stride in zip((n, *shape), strides, strict=True))
    memory = _at(pointer, reach, dtype)
    return np.lib.stride_tricks.as_strided(memory, (n, *shape), [stride * memory.itemsize for stride in strides])


class Cublas:
    """What minidl/kernels/gpu/_cublas.py calls of cuBLAS."""

    def cublasCreate_v2(self, handle) -> int:
        return 0

    def cublasSetStream_v2(self, handle, stream) -> int:
        return 0

    def cublasSetWorkspace_v2(self, handle, pointer, size) -> int:
        return 0

    def cublasGemmStridedBatchedEx(
        self, handle, a_op, b_op, m, n, k, alpha, a, a_type, a_step, a_far, b, b_type, b_step, b_far, beta, c, *rest
    ) -> int:
        c_type, c_step, c_far, count, compute, algorithm = rest
        dtype = {0: np.float32, 1: np.float64}[a_type]
        assert (a_type, b_type, compute) == (c_type, c_type, {0: 68, 1: 70}[c_type])
        assert (alpha._obj.value, beta._obj.value, algorithm) == (1, 0, -1)
        left = _matrices(a.value, a_op, (m, k), a_step, a_far.value, count, dtype)
        right = _matrices(b.value, b_op, (k, n), b_step, b_far.value, count, dtype)
        result = _matrices(c.value, 0, (m, n), c_step, c_far.value, count, dtype)
        changed("cublas", lambda: result.__setitem__(..., left @ right))
        return 0


# --- The module ---------------------------------------------------------------------------------------------


def _stand_in() -> ModuleType:
    module = cupy_module()
    module.RawModule = RawModule  # type: ignore[attr-defined]
    return module


cupy = _stand_in()


def _copy_of(name: str, **modules: Any) -> ModuleType:
    """A module of minidl.kernels.gpu, loaded once more, to which these are the modules of their names."""
    path = Path(gpu.__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"{name}_on_cpu", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {key.replace("__", "."): value for key, value in modules.items()}):
        spec.loader.exec_module(module)
    return module


@functools.cache
def emulation() -> ModuleType:
    """minidl/kernels/gpu/kernels.py, a copy of its own, on the stand-in."""
    finder: Any = ModuleType("cuda.pathfinder")
    finder.load_nvidia_dynamic_lib = None  # there is none
    cublas: Any = _copy_of("_cublas", cupy=cupy, cuda=ModuleType("cuda"), cuda__pathfinder=finder)
    cublas._library = Cublas
    with mock.patch.object(gpu, "_cublas", cublas, create=True):
        return _copy_of("kernels", cupy=cupy)
