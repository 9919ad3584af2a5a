"""How the kernels are compiled: when they are first called, once for a machine, and kept on disk where that can be.

Numba keeps compiled functions in ``NUMBA_CACHE_DIR``, or else beside the source, or else in the user's cache folder.
What is added here: a disk that is full and files that are damaged cost a compilation and nothing else, files say what
they hold, and whoever has to wait is told why. And a kernel is only taken from the cache if all that was compiled into
it is still the same. Numba compares the kernel's own file, the processor and its features; compiled in are also what
other files of this folder define, and the width of a vector, which minidl takes from the machine it runs on.

With the environment variable ``NUMBA_DISABLE_JIT=1`` nothing is compiled: the kernels run as the Python that they are
written in, thousands of times slower, for a debugger to step through and for the tests to measure their coverage.
"""

# The methods have the arguments of Numba's methods that they replace.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import contextlib
import functools
import hashlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.caching import FunctionCache, IndexDataCacheFile, NullCache
from numba.extending import intrinsic

from minidl.kernels.vectors import VECTOR_BYTES

Function = Callable[..., Any]
_numbas: Any = numba.config


def compiled(**options: Any) -> Callable[[Function], Function]:
    """numba.njit, lazy, its machine code kept on disk, or not, where no directory can be written."""

    def decorate(function: Function) -> Function:
        if _numbas.DISABLE_JIT:
            return np.errstate(all="ignore")(function)  # since compiled code warns of nothing
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
        stamp = self._impl.locator.get_source_stamp(), text_of_the_kernels()
        self._cache_file = _Files(self.cache_path, self._impl.filename_base, stamp)

    def _index_key(self, sig, codegen):
        # Part of the key, not of the stamp: machines of both widths may share a folder, and each has its files there.
        return *super()._index_key(sig, codegen), VECTOR_BYTES

    def load_overload(self, sig, target_context):
        kernel = None
        try:
            kernel = super().load_overload(sig, target_context)
        except Exception:  # a damaged file: what reading it raises, nobody can say
            with contextlib.suppress(OSError):
                self.flush()
        if kernel is None:
            _tell_once(
                "compiling",
                f"compiling kernels that were not used before, up to half a minute; they are kept in {self.cache_path}",
            )
        return kernel

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except Exception as error:  # a full disk, or a folder that is no longer there
            _tell_once("saving", f"compiled kernels cannot be kept, the next start compiles them again: {error}")


@functools.cache
def text_of_the_kernels(folder: Path = Path(__file__).parent) -> str:
    """The digest of all Python files of a folder: their constants and routines are compiled into each other's kernels.

    An edit in any of them has all kernels compiled anew. Which file's text is in which kernel, Numba does not tell.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


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


def by_hand(emit: Callable[..., None]) -> Callable[[Function], Function]:
    """A function whose code is written in LLVM's language, by `emit`; the decorated one is its definition in Python.

    The definition runs where nothing is compiled. `emit` is called with LLVM's builder, the type of the first array's
    elements, and the function's arguments, where an array is the address of its first value.
    """

    def decorate(definition: Function) -> Function:
        return definition if _numbas.DISABLE_JIT else _intrinsic(emit, definition)

    return decorate


def _intrinsic(emit: Callable[..., None], definition: Function) -> Function:
    def generate(context, builder, signature, args):
        def value_of(kind, value):
            return context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value

        values = map(value_of, signature.args, args)
        emit(builder, context.get_data_type(signature.args[0].dtype), *values)
        return context.get_dummy_value()

    @functools.wraps(definition)
    def typing(context, *kinds):
        return types.void(*kinds), generate

    # Numba takes the names of the arguments from here, after a first one, which is its own.
    first = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(definition).parameters.values()
    typing.__signature__ = inspect.Signature([first, *parameters])  # type: ignore[attr-defined]
    return intrinsic(typing)
