"""Matrix products by cuBLAS, for CuPy arrays.

It is called through ctypes, since CuPy does not allow its own cuBLAS calls to be captured into a CUDA graph (cupy issue
6290). Each stream has its own handle and a workspace that is never freed, as a graph uses it at every replay. Products
are computed in the arrays' own precision, without TF32.

Source: the cuBLAS library's documentation, sections "cublasGemmStridedBatchedEx" and "cublasSetWorkspace".
"""

import ctypes
import functools
from typing import Any

import cupy  # type: ignore[import-not-found]
from cuda.pathfinder import load_nvidia_dynamic_lib  # type: ignore[import-not-found]

Array = Any  # cupy.ndarray

TYPES = {"f": (ctypes.c_float, 0, 68), "d": (ctypes.c_double, 1, 70)}  # ctypes' type, CUDA's, cuBLAS' compute type
DEFAULT_ALGORITHM = -1
WORKSPACE = 2**25  # bytes: what NVIDIA recommends for its largest GPUs


def multiply(a: Array, b: Array, c: Array) -> None:
    """c[n] = a[n] @ b[n] for each n: (N, M, K), (N, K, P) and (N, M, P), in one call.

    Each matrix is stored by rows or by columns, and the matrices of an array equally far apart; those of a and b may
    all be the same memory.
    """
    if not a.size or not b.size:
        c[...] = 0
        return
    if _step(c) is None:
        a, b, c = (x.transpose(0, 2, 1) for x in (b, a, c))
    (n, m, p), k = c.shape, a.shape[2]
    if max(n, m, k, p) >= 2**31:
        raise RuntimeError(f"cuBLAS: {n} products of {m} x {k} and {k} x {p} matrices: it counts up to 2**31 - 1")
    real, _, compute = TYPES[c.dtype.char]
    # cuBLAS expects columns (Fortran order) and sees matrices stored by rows as transposed: c^T = b^T a^T.
    orders = [int(_step(x) is None) for x in (b, a)]
    one, zero = ctypes.byref(real(1)), ctypes.byref(real(0))
    handle, _ = _handle(cupy.cuda.runtime.getDevice(), cupy.cuda.get_current_stream().ptr)
    arguments = *orders, p, m, k, one, *_described(b), *_described(a), zero, *_described(c), n, compute
    _call("cublasGemmStridedBatchedEx", handle, *arguments, DEFAULT_ALGORITHM)


def _step(x: Array) -> int | None:
    """The distance in elements between the rows of each matrix (its leading dimension); None if stored by columns."""
    (_, rows, columns), (_, down, right) = x.shape, x.strides
    if columns == 1 or right == x.itemsize:
        return max(1, columns, down // x.itemsize if rows > 1 else 0)
    return None


def _described(x: Array) -> tuple[Any, ...]:
    """The address of matrices, their type, leading dimension, and distance from one to the next."""
    step = _step(x) or _step(x.transpose(0, 2, 1))
    distance = x.strides[0] // x.itemsize if x.shape[0] > 1 else 0
    return ctypes.c_void_p(x.data.ptr), TYPES[x.dtype.char][1], step, ctypes.c_longlong(distance)


@functools.cache
def _handle(device: int, stream: int) -> tuple[Any, Any]:
    """The handle for a GPU's stream, and its workspace."""
    handle, workspace = ctypes.c_void_p(), cupy.cuda.alloc(WORKSPACE)
    _call("cublasCreate_v2", ctypes.byref(handle))
    _call("cublasSetStream_v2", handle, ctypes.c_void_p(stream))
    _call("cublasSetWorkspace_v2", handle, ctypes.c_void_p(workspace.ptr), ctypes.c_size_t(WORKSPACE))
    return handle, workspace


@functools.cache
def _library() -> Any:
    return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)


def _call(function: str, *args: Any) -> None:
    status = getattr(_library(), function)(*args)
    if status:
        raise RuntimeError(f"cuBLAS: {function} failed with status {status}")
