"""How many threads the kernels run on, and what every call of a parallel kernel stands in."""

from __future__ import annotations

import numbers
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numba

_numbas: Any = numba.config
_wanted: int | None = None  # what `set_num_threads` was told
_one_at_a_time = threading.RLock()
_nothing = nullcontext()


def set_num_threads(n: int) -> None:
    """Let minidl's kernels run on `n` threads from now on, whichever Python thread calls them.

    Results do not depend on it, to the last bit. Until it is called, the kernels run on as many threads as Numba
    would: one for each core, or what ``NUMBA_NUM_THREADS`` or ``numba.set_num_threads`` say. That setting of Numba's
    stays as it is, for the caller's own compiled code.

    Parameters
    ----------
    n : int
        At least 1 and at most ``numba.config.NUMBA_NUM_THREADS``, which is the number of cores unless the
        environment variable ``NUMBA_NUM_THREADS`` says otherwise when the process starts.

    Raises
    ------
    RuntimeError
        If `n` is no int, less than 1, or more than the threads that Numba can start.

    Examples
    --------
    >>> before = get_num_threads()
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(before)
    """
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
    """The number of threads that minidl's kernels run on when they are called from here.

    Examples
    --------
    >>> get_num_threads() >= 1
    True
    """
    if _wanted is not None:
        return _wanted
    if _threading_layer() is None:  # Numba's answer would start its threads
        return int(_numbas.NUMBA_NUM_THREADS)
    return int(numba.get_num_threads())


def parallel_region() -> AbstractContextManager[Any]:
    """What to hold around every call of a parallel kernel: Numba's `workqueue` threads abort the process when two
    Python threads come at once, so one has to wait. Which layer it is, Numba knows after the first call.

    It cannot see parallel code that is not minidl's: who runs some of their own in another thread at the same time
    needs the `omp` or `tbb` layer.
    """
    guard = _nothing if _threading_layer() in ("omp", "tbb") else _one_at_a_time
    if _wanted is None:
        return guard
    before = int(numba.get_num_threads())
    return guard if before == _wanted else _Region(guard, before, _wanted)


def _threading_layer() -> str | None:
    try:
        return str(numba.threading_layer())
    except ValueError:  # not chosen yet
        return None


class _Region:
    """Numba's number of threads, which each Python thread has its own of, is `inside` inside and `before` after."""

    def __init__(self, guard: AbstractContextManager[Any], before: int, inside: int) -> None:
        self.guard, self.before, self.inside = guard, before, inside

    def __enter__(self) -> None:
        numba.set_num_threads(self.inside)
        self.guard.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.guard.__exit__(*error)
        numba.set_num_threads(self.before)
