"""Just-in-time compilation of the kernels: at the first call, once for a machine, and cached on disk if possible.

Numba caches compiled functions in ``NUMBA_CACHE_DIR``, or else beside the source, or else in the user's cache folder.
Added here: a full disk or a damaged file costs a compilation and nothing else, files say what they contain, and users
are told why they wait. And a kernel is loaded from the cache only if everything compiled into it is unchanged. Numba
compares the kernel's own source file, the processor and its features; but constants and functions of other files are
compiled in as well, and so is the width of a vector, which minidl takes from the machine it runs on.

With ``NUMBA_DISABLE_JIT=1`` in the environment nothing is compiled: the kernels run as the Python they are written in,
thousands of times slower, for stepping through with a debugger and for measuring the tests' coverage.
"""

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

from minidl.kernels.cpu._vectors import VECTOR_BYTES

Function = Callable[..., Any]
_numbas: Any = numba.config


def compiled(**options: Any) -> Callable[[Function], Function]:
    """numba.njit, compiled at the first call and cached on disk if there is a folder that can be written to."""

    def decorate(function: Function) -> Function:
        if _numbas.DISABLE_JIT:
            return np.errstate(all="ignore")(function)  # as compiled code emits no warnings
        kernel = numba.njit(**options)(function)
        try:
            kernel._cache = _Cache(function)  # as njit(cache=True) does, with Numba's own cache
        except (RuntimeError, OSError):  # "cannot cache function: no locator available"
            kernel._cache = _NoCache()
        return kernel

    return decorate


class _Files(IndexDataCacheFile):
    """The index and data files of one kernel. Each data file repeats what Numba's index says about it.

    Numba writes the index before the data. A process killed in between, or a second one that writes at the same moment,
    leaves the name of a new kernel on the file of an old one, which would then run in its place.
    """

    def save(self, key, data):
        super().save(key, (self._label(key), data))

    def load(self, key):
        label, data = super().load(key) or (None, None)
        return data if label == self._label(key) else None

    def _label(self, key):
        return self._version, self._source_stamp, key


class _Cache(FunctionCache):
    """The compiled versions of one kernel on disk. Whatever goes wrong there, the kernel is compiled and runs."""

    def __init__(self, function):
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp(), text_of_the_kernels()
        self._cache_file = _Files(self.cache_path, self._impl.filename_base, stamp)

    def _index_key(self, sig, codegen):
        # In the key, not in the stamp: machines of both widths may share a folder, where each has its own files.
        return *super()._index_key(sig, codegen), VECTOR_BYTES

    def load_overload(self, sig, target_context):
        kernel = None
        try:
            kernel = super().load_overload(sig, target_context)
        except Exception:  # a damaged file can raise anything
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
        except Exception as error:  # a full disk, or a folder that was deleted
            _tell_once("saving", f"compiled kernels cannot be kept, the next start compiles them again: {error}")


@functools.cache
def text_of_the_kernels(folder: Path = Path(__file__).parents[1]) -> str:
    """A digest of all Python files below a folder: their constants and routines are compiled into each other's kernels.

    Numba does not say which file's text is in which kernel, so an edit in any of them recompiles all kernels.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode() + path.read_bytes())
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
    """Write a line to stderr once per process. Only called under Numba's compiler lock."""
    if what not in _told:
        _told.add(what)
        with contextlib.suppress(AttributeError, OSError, ValueError):  # no reason to fail
            sys.stderr.write(f"minidl: {line}\n")


def by_hand(emit: Callable[..., None]) -> Callable[[Function], Function]:
    """A Numba intrinsic: `emit` writes its code in LLVM's language; the decorated function is its definition in Python.

    The definition runs when nothing is compiled. `emit` is called with LLVM's builder, the element type of the first
    array, and the function's arguments as LLVM values; an array is the address of its first value.
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

    # Numba reads the argument names from here; the first one is its own.
    first = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(definition).parameters.values()
    typing.__signature__ = inspect.Signature([first, *parameters])  # type: ignore[attr-defined]
    return intrinsic(typing)
