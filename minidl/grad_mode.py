"""Gradient mode: whether operations are recorded, for each thread on its own."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


class _Mode(threading.local):
    enabled = True


mode = _Mode()


def is_grad_enabled() -> bool:
    """Whether operations are recorded in this thread."""
    return mode.enabled


class GradMode:
    """Set this thread's mode for the duration of the context or the decorated function."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.previous: list[bool] = []  # a stack, so that one object can be entered again inside itself

    def __enter__(self) -> None:
        self.previous.append(mode.enabled)
        mode.enabled = self.enabled

    def __exit__(self, *error: object) -> None:
        mode.enabled = self.previous.pop()

    def __call__(self, function: F) -> F:
        if inspect.isgeneratorfunction(function):
            raise TypeError(f"{function.__name__} is a generator, which this cannot decorate: use `with` inside it")

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with GradMode(self.enabled):
                return function(*args, **kwargs)

        return cast(F, wrapped)


class set_grad_enabled(GradMode):
    """Record operations in this thread, or not, from now on; as a context or a decorator, until its end."""

    def __init__(self, mode: bool) -> None:
        if not isinstance(mode, bool):
            raise TypeError(f"set_grad_enabled: mode must be a bool, not {mode!r}")
        super().__init__(mode)
        self.before = _switch(mode)

    def __enter__(self) -> None:
        _switch(self.enabled if self.previous else self.before)
        super().__enter__()

    def __call__(self, function: F) -> F:
        _switch(self.before)
        return super().__call__(function)


def _switch(enabled: bool) -> bool:
    """Set the mode, and return what it was."""
    before, mode.enabled = mode.enabled, enabled
    return before


class no_grad(GradMode):
    """Compute without recording, as a context (``with no_grad():``) or a decorator (``@no_grad``)."""

    def __new__(cls, function: F | None = None) -> Any:
        return super().__new__(cls) if function is None else cls()(function)

    def __init__(self, function: None = None) -> None:
        super().__init__(False)


class enable_grad(GradMode):
    """Record again inside ``no_grad``, as a context or a decorator."""

    def __new__(cls, function: F | None = None) -> Any:
        return super().__new__(cls) if function is None else cls()(function)

    def __init__(self, function: None = None) -> None:
        super().__init__(True)
