"""``python -m minidl run script.py``: run a script with minidl as its torch, and otherwise as Python runs it."""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any

from minidl.compat import _missing
from minidl.compat._install import install

USAGE = "usage: python -m minidl run [--check] (script.py | -m module) [the script's arguments]"


def run(arguments: list[str]) -> int:
    """Run the script or module that `arguments` name. What it raises passes through, SystemExit included."""
    match arguments:
        case ["--check", *rest]:
            return int(importlib.import_module("minidl.compat.check").main(rest))
        case ["-m", name, *rest]:
            install()
            code, attributes = _module(name)
            _execute(code, [code.co_filename, *rest], attributes)
        case [path, *_] if not path.startswith("-"):
            code, attributes = _script(path)
            if not sys.flags.safe_path:
                sys.path[0] = os.path.dirname(os.path.realpath(path))
            install()
            _execute(code, arguments, attributes)
        case _:
            print(USAGE, file=sys.stderr)
            return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    return 0


def _script(path: str) -> tuple[CodeType, dict[str, Any]]:
    """The code of a script, and what Python sets in its ``__main__``."""
    if path.endswith(".ipynb"):
        sys.exit(f"minidl: {path} is a notebook; run in its first cell: import minidl.compat; minidl.compat.install()")
    where = os.path.abspath(path)
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {where!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    with _traceback_from(None):
        code = compile(source, where, "exec", dont_inherit=True)
    return code, {"__file__": where, "__loader__": SourceFileLoader("__main__", where), "__cached__": None}


def _module(name: str) -> tuple[CodeType, dict[str, Any]]:
    """The code of a module, or of a package's ``__main__``, and what Python sets in it."""
    try:
        spec = importlib.util.find_spec(name)
        if spec and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except ModuleNotFoundError as error:
        sys.exit(f"{sys.executable}: {error}")
    code = getattr(spec and spec.loader, "get_code", lambda name: None)(spec and spec.name)
    if spec is None or code is None:
        sys.exit(f"{sys.executable}: No module named {name}, or none that can be run")
    places = {"__file__": spec.origin, "__loader__": spec.loader, "__cached__": spec.cached}
    return code, {"__spec__": spec, "__package__": spec.parent, **places}


def _execute(code: CodeType, argv: list[str], attributes: dict[str, Any]) -> None:
    main = sys.modules["__main__"] = ModuleType("__main__")
    vars(main).update(attributes, __builtins__=builtins)
    sys.argv = argv
    with _traceback_from(vars(main)):
        exec(code, vars(main))


@contextmanager
def _traceback_from(namespace: dict[str, Any] | None) -> Iterator[None]:
    """Let an exception end the process as in Python itself, with a traceback that begins in the script."""
    try:
        yield
    except BaseException:
        shown = sys.excepthook  # perhaps the script's own

        def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            while trace is not None and trace.tb_frame.f_globals is not namespace:
                trace = trace.tb_next
            last = trace
            while last is not None and last.tb_next is not None:
                if last.tb_next.tb_frame.f_globals is vars(_missing):
                    last.tb_next = None
                last = last.tb_next
            shown(kind, error.with_traceback(trace), trace)

        sys.excepthook = hook
        raise
