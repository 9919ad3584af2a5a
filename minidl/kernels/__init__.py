"""The loops of minidl: arrays in, arrays out, nothing recorded.

Every kernel has a definition in `reference.py`, and fast twins of the same name and signature: in `gpu/` for a GPU, and
in `cpu/` where a compiled loop is faster than NumPy. Which one runs is decided here, from the type of the first array,
and nowhere else in the project.

To add a kernel: define it in `reference.py` (any public function there becomes a kernel), write its twins in a file of
`cpu/` and in `gpu/kernels.py`, and add it to the tables at the top of tests/kernels/test_kernels.py and in
tests/gpu/test_gpu_kernels.py, which compare the three. `relu` in cpu/elementwise.py is a short model. The operation
that calls it goes into `ops/`, with its gradient, and into tests/ops/test_gradients.py.

With the environment variable ``MINIDL_KERNELS=reference`` the definitions run in place of the CPU's kernels. Nothing is
compiled then, and Numba need not be installed.
"""

import contextlib
import functools
import importlib.util
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import numpy as np

from minidl.kernels import devices, reference
from minidl.kernels.geometry import ConvGeometry as ConvGeometry
from minidl.kernels.pool_geometry import PoolGeometry as PoolGeometry
from minidl.kernels.reference import *  # noqa: F403 - names, types and docstrings: each function is replaced below

P = ParamSpec("P")
R = TypeVar("R")


def _compiling() -> bool:
    """Whether kernels are compiled: unless MINIDL_KERNELS=reference."""
    wanted = os.environ.get("MINIDL_KERNELS", "")
    if wanted not in ("", "reference"):
        raise ImportError(f"MINIDL_KERNELS={wanted}: unset it for the fast kernels, or set it to reference")
    missing = [name for name in ("numba", "llvmlite") if importlib.util.find_spec(name) is None]
    if missing and not wanted:
        raise ImportError(
            f"minidl compiles its kernels with Numba, and {missing[0]} is not installed: python -m pip install numba "
            "(or set MINIDL_KERNELS=reference in the environment to run, slowly, on NumPy alone)"
        )
    return not wanted


class _Compiled(dict[str, Callable[..., Any]]):
    """The CPU's kernel of each name. The first call of one imports them, and Numba, which takes longer than minidl."""

    def __missing__(self, name: str) -> Callable[..., Any]:
        from minidl.kernels import cpu

        fast = {kernel: value for module in cpu.MODULES for kernel, value in vars(module).items()}
        self.update({kernel: fast.get(kernel, getattr(reference, kernel)) for kernel in KERNELS})
        return self[name]


COMPILING = _compiling()
_compiled = _Compiled()


def set_num_threads(n: int) -> None:
    """Run minidl's kernels on `n` threads from now on, whichever Python thread calls them.

    Results do not depend on it, to the last bit. Until it is called, the kernels run on as many threads as Numba would:
    one per core, or what ``NUMBA_NUM_THREADS`` or ``numba.set_num_threads`` say. Numba's own setting, for the caller's
    own compiled code, is left as it is.

    Parameters
    ----------
    n : int
        At least 1 and at most ``numba.config.NUMBA_NUM_THREADS``, which is the number of cores unless the
        environment variable ``NUMBA_NUM_THREADS`` says otherwise when the process starts.

    Raises
    ------
    RuntimeError
        If `n` is not an int, is less than 1, or is more than the threads that Numba can start.

    Examples
    --------
    >>> before = get_num_threads()
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(before)
    """
    _threads().set_num_threads(n)


def get_num_threads() -> int:
    """The number of threads that minidl's kernels run on when called from here.

    Examples
    --------
    >>> get_num_threads() >= 1
    True
    """
    return int(_threads().get_num_threads())


def _threads() -> ModuleType:
    return importlib.import_module(f"minidl.kernels.{'cpu._threads' if COMPILING else '_one_thread'}")


class _Mode(threading.local):
    reference = not COMPILING


_mode = _Mode()


@contextlib.contextmanager
def use_reference_kernels() -> Iterator[None]:
    """Run the definitions in ``minidl/kernels/reference.py`` instead of the compiled kernels, in this thread.

    They are plain NumPy, which a debugger can step through; results agree up to rounding. To run them in a whole
    process, without a compiler, set ``MINIDL_KERNELS=reference`` in the environment. On a GPU nothing changes.

    Examples
    --------
    >>> import minidl
    >>> with use_reference_kernels():
    ...     y = minidl.conv2d(minidl.ones(1, 1, 3, 3), minidl.ones(1, 1, 2, 2))
    >>> y.tolist()
    [[[[4.0, 4.0], [4.0, 4.0]]]]
    """
    before, _mode.reference = _mode.reference, True
    try:
        yield
    finally:
        _mode.reference = before


def _dispatch(definition: Callable[P, R]) -> Callable[P, R]:
    """The kernel of this definition's name, from the backend that its first array belongs to."""
    name = definition.__name__

    @functools.wraps(definition)
    def kernel(*args: P.args, **kwargs: P.kwargs) -> R:
        array: Any = args[0][0] if type(args[0]) is list else args[0]  # the optimisers take lists
        if type(array) is not np.ndarray and devices.on_gpu(array):
            return getattr(_gpu(), name)(*args, **kwargs)
        if not isinstance(array, np.ndarray):
            raise TypeError(f"minidl's kernels work on arrays of NumPy or CuPy, not on {type(args[0]).__name__}")
        # Dtypes other than float32 and float64 are not worth compiling for: the definition serves them.
        slow = _mode.reference or array.dtype.char not in "fd"
        return (definition if slow else _compiled[name])(*args, **kwargs)

    return kernel


def _gpu() -> Any:
    """The kernels for CuPy's arrays. Importing them imports CuPy."""
    from minidl.kernels.gpu import kernels

    return kernels


KERNELS = [
    name
    for name, value in vars(reference).items()
    if inspect.isfunction(value) and value.__module__ == reference.__name__ and not name.startswith("_")
]
globals().update({name: _dispatch(getattr(reference, name)) for name in KERNELS})
__all__ = ["ConvGeometry", "PoolGeometry", *KERNELS]
