"""``python -m minidl run script.py``: run a script with minidl as its torch, and otherwise as Python runs it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
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
            code, path, spec = _module(name)
            _execute(code, [path, *rest], __file__=path, __spec__=spec, __package__=spec.parent)
        case [path, *_] if not path.startswith("-"):
            code = _script(path)
            if not sys.flags.safe_path:
                sys.path[0] = os.path.dirname(os.path.realpath(path))
            install()
            _execute(code, arguments, __file__=code.co_filename, __spec__=None, __package__=None)
        case _:
            print(USAGE, file=sys.stderr)
            return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    return 0


def _script(path: str) -> CodeType:
    if path.endswith(".ipynb"):
        sys.exit(f"minidl: {path} is a notebook; run in its first cell: import minidl.compat; minidl.compat.install()")
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {os.path.abspath(path)!r}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    with _Trimmed(None):
        return compile(source, os.path.abspath(path), "exec", dont_inherit=True)


def _module(name: str) -> tuple[CodeType, str, ModuleSpec]:
    """The code of a module, or of a package's ``__main__``."""
    spec = importlib.util.find_spec(name)
    if spec and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    code = getattr(spec and spec.loader, "get_code", lambda name: None)(spec and spec.name)
    if spec is None or spec.origin is None or code is None:
        sys.exit(f"{sys.executable}: No module named {name}, or none that can be run")
    return code, spec.origin, spec


def _execute(code: CodeType, argv: list[str], **attributes: Any) -> None:
    main = sys.modules["__main__"] = ModuleType("__main__")
    vars(main).update(attributes, __builtins__=__builtins__)
    sys.argv = argv
    with _Trimmed(vars(main)):
        exec(code, vars(main))


class _Trimmed:
    """Let an exception end the process as in Python itself, with a traceback that begins in the script."""

    def __init__(self, namespace: dict[str, Any] | None) -> None:
        self.namespace = namespace

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: TracebackType | None) -> None:
        shown = sys.excepthook  # perhaps the script's own

        def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            while trace is not None and trace.tb_frame.f_globals is not self.namespace:
                trace = trace.tb_next
            last = trace
            while last is not None and last.tb_next is not None:
                if last.tb_next.tb_frame.f_code.co_filename == _missing.__file__:
                    last.tb_next = None
                last = last.tb_next
            shown(kind, error.with_traceback(trace), trace)

        if error is not None:
            sys.excepthook = hook
