"""How many threads the kernels run on, and the region that every call of a parallel kernel stands in."""

from __future__ import annotations

import numbers
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numba
from numba.np.ufunc import parallel as _unchecked

_numbas: Any = numba.config
_wanted: int | None = None  # the argument of `set_num_threads`
_one_at_a_time = threading.RLock()
_nothing = nullcontext()
SMALL = 2**14  # elements, which take one thread a few microseconds


def set_num_threads(n: int) -> None:
    """See `minidl.set_num_threads`."""
    global _wanted
    most = _numbas.NUMBA_NUM_THREADS
    if isinstance(n, bool) or not isinstance(n, numbers.Integral):
        raise RuntimeError(f"set_num_threads: n must be an int, not {n!r}")
    if n < 1:
        raise RuntimeError(f"set_num_threads: n must be at least 1, not {n}")
    if n > most:
        raise RuntimeError(
            f"set_num_threads: {n} threads are more than the {most} that Numba can start in this process; "
            f"take at most {most}, or start it with the environment variable NUMBA_NUM_THREADS={n}"
        )
    _wanted = int(n)


def get_num_threads() -> int:
    """See `minidl.get_num_threads`."""
    if _wanted is not None:
        return _wanted
    if _threading_layer() is None:  # Numba's answer would start its threads
        return int(_numbas.NUMBA_NUM_THREADS)
    return int(numba.get_num_threads())


def parallel_region(work: int) -> AbstractContextManager[Any]:
    """The context for every call of a parallel kernel; `work` is roughly the number of elements it goes through.

    Small jobs stay on the calling thread: where other programs keep the cores busy, waiting for a second thread costs a
    thousand times what it would save. Numba's `workqueue` threading layer aborts the process when two Python threads
    call at once, so there they take turns. Numba knows its layer only after the first call.

    It cannot protect other parallel Numba code: if you run your own in another thread, use the omp or tbb layer.
    """
    layer = _threading_layer()
    guard = _nothing if layer in ("omp", "tbb") else _one_at_a_time
    inside = 1 if work < SMALL and layer is not None else _wanted
    return guard if inside is None else _Region(guard, inside)


def _threading_layer() -> str | None:
    try:
        return str(numba.threading_layer())
    except ValueError:  # not chosen yet
        return None


class _Region:
    """Sets Numba's number of threads, which is per Python thread, to `inside`, and restores it on exit."""

    __slots__ = ("before", "guard", "inside")

    def __init__(self, guard: AbstractContextManager[Any], inside: int) -> None:
        self.guard, self.inside = guard, inside

    def __enter__(self) -> None:
        self.guard.__enter__()
        self.before = _get()
        _set(self.inside)

    def __exit__(self, *error: Any) -> None:
        _set(self.before)
        self.guard.__exit__(*error)


# Numba's public functions check their arguments, which takes ten times as long: half the time of many a kernel.
def _get() -> int:
    return int(getattr(_unchecked, "_get_num_threads", numba.get_num_threads)())


def _set(count: int) -> None:
    getattr(_unchecked, "_set_num_threads", numba.set_num_threads)(count)
