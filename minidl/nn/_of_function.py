"""The base of layers that are one function of `functional`, with the function's settings as their attributes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from minidl.nn.module import Module


class OfFunction(Module):
    """Arguments, attributes and printed form come from the function: ``class ELU(OfFunction, of=F.elu)``."""

    _function: Callable[..., Any]
    _settings: inspect.Signature

    def __init_subclass__(cls, of: Callable[..., Any] | None = None) -> None:
        if of is not None:
            _, *settings = inspect.signature(of).parameters.values()
            settings = [x.replace(kind=x.POSITIONAL_OR_KEYWORD) for x in settings if x.name != "dtype"]
            cls._function, cls._settings = staticmethod(of), inspect.Signature(settings)
        cls.__signature__ = cls._settings if of is not None else None  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__()
        bound = self._settings.bind(*args, **named)
        bound.apply_defaults()
        vars(self).update(bound.arguments)

    def forward(self, input: Any) -> Any:
        """The function of the input, with the layer's settings."""
        names = self._settings.parameters
        return self._function(input, **dict(zip(names, map(vars(self).get, names), strict=True)))

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        shown = [f"{name}={vars(self)[name]!r}" for name in self._settings.parameters if name != "inplace"]
        return super().extra_repr() or ", ".join(shown + ["inplace=True"] * vars(self).get("inplace", False))
