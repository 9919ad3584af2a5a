"""How the kernels are compiled: when they are first called, once for a machine, and kept on disk where that can be.

Numba keeps compiled functions in ``NUMBA_CACHE_DIR``, or else beside the source, or else in the user's cache folder.
What is added here: a disk that is full and files that are damaged cost a compilation and nothing else, files say what
they hold, and whoever has to wait is told why.
"""

# The methods have the arguments of Numba's methods that they replace.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import numba
from numba import types
from numba.core.caching import FunctionCache, IndexDataCacheFile, NullCache
from numba.extending import intrinsic

Function = Callable[..., Any]


def compiled(**options: Any) -> Callable[[Function], Function]:
    """numba.njit, lazy, its machine code kept on disk, or not, where no directory can be written."""

    def decorate(function: Function) -> Function:
        kernel = numba.njit(**options)(function)
        kernel._cache = _cache_for(function)  # what njit(cache=True) sets, but one of Numba's own
        return kernel

    return decorate


def _cache_for(function: Function) -> "_Cache | _NoCache":
    try:
        return _Cache(function)
    except (RuntimeError, OSError):  # "cannot cache function: no locator available"
        return _NoCache()


class _Files(IndexDataCacheFile):
    """The index and the data files of one kernel; in each of these, also what Numba's index says of it.

    Numba writes the index before the data. A process that is stopped in between, or another one that does the same
    at that moment, leaves a name of a new kernel on the file of an old one, which then would run in its place.
    """

    def save(self, key, data):
        super().save(key, (self._label(key), data))

    def load(self, key):
        label, data = super().load(key) or (None, None)
        return data if label == self._label(key) else None

    def _label(self, key):
        return self._version, self._source_stamp, key


class _Cache(FunctionCache):
    """The compiled forms of one kernel on disk. Whatever happens there, the kernel is compiled and runs."""

    def __init__(self, function):
        super().__init__(function)
        self._cache_file = _Files(self.cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp())

    def load_overload(self, sig, target_context):
        kernel = None
        try:
            kernel = super().load_overload(sig, target_context)
        except Exception:  # a damaged file: what reading it raises, nobody can say
            with contextlib.suppress(OSError):
                self.flush()
        if kernel is None:
            _tell_once("compiling", f"compiling kernels for this machine, once: they are kept in {self.cache_path}")
        return kernel

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except Exception as error:  # a full disk, or a folder that is no longer there
            _tell_once("saving", f"compiled kernels cannot be kept, the next start compiles them again: {error}")


class _NoCache(NullCache):
    def load_overload(self, sig, target_context):
        _tell_once(
            "compiling",
            "compiling kernels for this machine, at each start, since there is no folder to keep them in: "
            "set NUMBA_CACHE_DIR to one that can be written to",
        )


_told: set[str] = set()


def _tell_once(what: str, line: str) -> None:
    """Write a line to the terminal, the first time in this process. Only called under Numba's compiler lock."""
    if what not in _told:
        _told.add(what)
        with contextlib.suppress(AttributeError, OSError, ValueError):  # no terminal is no reason to stop
            sys.stderr.write(f"minidl: {line}\n")


# A function whose code is written in LLVM's language.
by_hand: Any = intrinsic


def unpacked(context, builder, signature, args) -> list[Any]:
    """What the code of such a function works with: the type of the first array's elements, then the arguments, where
    an array is the address of its first value."""
    kinds = zip(signature.args, args, strict=True)
    values = [context.make_array(k)(context, builder, a).data if isinstance(k, types.Array) else a for k, a in kinds]
    return [context.get_data_type(signature.args[0].dtype), *values]
