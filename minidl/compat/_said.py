"""Remarks on stderr, each printed once per process, and calls that do no more than that."""

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any


@functools.cache
def said_once(text: str) -> None:
    """Print a remark to stderr the first time it is made."""
    print(f"minidl: {text}", file=sys.stderr)


class _Nothing(contextlib.nullcontext[None], contextlib.ContextDecorator):
    """A context, or a decorator, that changes nothing."""


def without_effect(remark: str = "") -> Callable[..., Any]:
    """A function, context or decorator that takes any arguments, changes nothing and says so."""

    def switch(*args: Any, enabled: bool = True, **kwargs: Any) -> _Nothing:
        if remark and enabled:
            said_once(remark)
        return _Nothing()

    return switch
