"""``torch.version``: the PyTorch whose names minidl follows."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any


class Version(str):
    """A version that is compared by its numbers: "2.13" is newer than "2.4"."""

    __slots__ = ()


def _numbers(version: Any) -> list[int]:
    text = ".".join(map(str, version)) if isinstance(version, tuple) else str(version)
    return [int(n) for n in re.findall(r"\d+", text.partition("+")[0])]


def _by_numbers(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda self, other: compare(_numbers(self), _numbers(other))


for _name in ("__lt__", "__le__", "__gt__", "__ge__"):
    setattr(Version, _name, _by_numbers(getattr(operator, _name)))

__version__ = Version("2.13.0+minidl")
cuda = hip = git_version = None
