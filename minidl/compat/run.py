"""``python -m minidl run script.py``: run a script with minidl as its torch, and otherwise as Python runs it."""

import builtins
import functools
import os
import runpy
import sys
from types import ModuleType, TracebackType
from typing import Any

from minidl.compat import _missing
from minidl.compat._install import install

USAGE = """\
usage: python -m minidl run (script.py | -m module) [the script's arguments]
       python -m minidl run --check (script.py | notebook.ipynb)"""


def run(arguments: list[str]) -> int:
    """Run the script or module that `arguments` name. What it raises passes through, SystemExit included."""
    try:
        match arguments:
            case ["--check", script, *_] if not script.startswith("-"):
                from minidl.compat.check import check  # slow, since it imports all faces

                return check(script)
            case ["-m", name, *_]:
                sys.argv = arguments[1:]  # runpy replaces the name by the module's path
                install()
                runpy.run_module(name, run_name="__main__", alter_sys=True)
            case [path, *_] if not path.startswith("-"):
                sys.argv = arguments
                _run_script(path)
            case _:
                print(USAGE, file=sys.stderr)
                return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    except BaseException:
        sys.excepthook = functools.partial(_show, sys.excepthook)  # perhaps the script's own
        raise
    return 0


def _run_script(path: str) -> None:
    """As runpy.run_path, which would not leave the script's ``__main__`` in place, nor sys.argv as it is given."""
    if path.endswith(".ipynb"):
        sys.exit(f"minidl: {path} is a notebook; run in its first cell: import minidl.compat; minidl.compat.install()")
    where = os.path.abspath(path)
    try:
        with open(path, "rb") as file:
            code = compile(file.read(), where, "exec", dont_inherit=True)
    except OSError as error:
        print(f"{sys.executable}: can't open file {where!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    install()
    main = sys.modules["__main__"] = ModuleType("__main__")
    vars(main).update(__builtins__=builtins, __file__=where, __cached__=None)
    exec(code, vars(main))


def _show(shown: Any, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End as Python itself does: without the frames around the script's, and that of _missing.py."""
    frames: list[TracebackType] = []
    while trace is not None:
        frames = [] if trace.tb_frame.f_globals is globals() else [*frames, trace]
        trace = trace.tb_next
    if len(frames) > 1 and frames[-1].tb_frame.f_globals is vars(_missing):
        frames[-2].tb_next = None
    first = next((t for t in frames if not t.tb_frame.f_code.co_filename.startswith("<frozen ")), None)
    shown(kind, error.with_traceback(first), first)
