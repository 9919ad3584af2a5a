"""``python -m minidl run script.py``: run a script with minidl as its torch, and otherwise as Python runs it."""

import builtins
import contextlib
import importlib
import os
import runpy
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from types import ModuleType, TracebackType

from minidl.compat import _missing
from minidl.compat._install import install

USAGE = """\
usage: python -m minidl run (script.py | -m module) [the script's arguments]
       python -m minidl run --check (script.py | notebook.ipynb)"""


def run(arguments: list[str]) -> int:
    """Run the script or module that `arguments` name. What it raises passes through, SystemExit included."""
    match arguments:
        case ["--check", script, *_] if not script.startswith("-"):
            return int(importlib.import_module("minidl.compat.check").check(script))
        case ["-m", name, *_]:
            sys.argv = arguments[1:]  # runpy replaces the name by the module's path
            install()
            with _pythons_traceback():
                runpy.run_module(name, run_name="__main__", alter_sys=True)
        case [path, *_] if not path.startswith("-"):
            sys.argv = arguments
            with _pythons_traceback():
                _run_script(path)
        case _:
            print(USAGE, file=sys.stderr)
            return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    return 0


def _run_script(path: str) -> None:
    """As runpy.run_path, which would not leave the script's ``__main__`` in place, nor sys.argv as it is given."""
    if path.endswith(".ipynb"):
        sys.exit(f"minidl: {path} is a notebook; run in its first cell: import minidl.compat; minidl.compat.install()")
    where = os.path.abspath(path)
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {where!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    code = compile(source, where, "exec", dont_inherit=True)
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    install()
    main = sys.modules["__main__"] = ModuleType("__main__")
    loader = SourceFileLoader("__main__", where)
    vars(main).update(__builtins__=builtins, __file__=where, __loader__=loader, __cached__=None)
    exec(code, vars(main))


@contextlib.contextmanager
def _pythons_traceback() -> Iterator[None]:
    """Let an exception end the process as in Python itself, without minidl's frames around the script's."""
    try:
        yield
    except BaseException:
        shown = sys.excepthook  # perhaps the script's own

        def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            first = _of_the_script(trace)
            shown(kind, error.with_traceback(first), first)

        sys.excepthook = hook
        raise


def _of_the_script(trace: TracebackType | None) -> TracebackType | None:
    """The traceback between the frames of this file, with Python's own for modules, and a frame of _missing.py."""
    first, last = None, trace
    while last is not None:
        following = last.tb_next
        if following and following.tb_frame.f_globals is vars(_missing):
            last.tb_next = following = None
        if last.tb_frame.f_globals is globals():
            first = following
        last = following
    while first is not None and first.tb_frame.f_code.co_filename.startswith("<frozen "):
        first = first.tb_next
    return first
