"""Arguments declared in the class statement: ``class StepLR(LRScheduler, step_size=..., gamma=0.1)``."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from inspect import Parameter
from typing import Any, ClassVar


class Settings:
    """Base class: a subclass's table has its arguments in order, with their defaults, or ``...`` for none."""

    _arguments: ClassVar[inspect.Signature]
    __signature__: ClassVar[inspect.Signature | None]

    def __init_subclass__(cls, **table: Any) -> None:
        cls.__signature__ = None  # a subclass without a table has its parent's, or an __init__ of its own
        if table:
            defaults = {name: Parameter.empty if value is ... else value for name, value in table.items()}
            cls._declare(Parameter(name, Parameter.KEYWORD_ONLY, default=x) for name, x in defaults.items())

    @classmethod
    def _declare(cls, arguments: Iterable[Parameter]) -> None:
        """Take these arguments, each by position or by name."""
        listed = [argument.replace(kind=Parameter.POSITIONAL_OR_KEYWORD) for argument in arguments]
        cls.__signature__ = inspect.Signature(listed)
        cls._arguments = inspect.Signature([x.replace(annotation=Parameter.empty) for x in listed])  # as errors show it

    def _settings(self, args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name, with the defaults of those not given."""
        try:
            bound = self._arguments.bind(*args, **named)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}{self._arguments}: {error}") from None
        bound.apply_defaults()
        return bound.arguments
