"""``torch.version``: the PyTorch whose names minidl follows."""

import operator
import re
from typing import Any


class Version(str):
    """A version that is compared by its numbers: "2.13" is newer than "2.4"."""

    __slots__ = ()


def _by_numbers(compare: Any) -> Any:
    def numbers(version: str) -> list[int]:
        return [int(n) for n in re.findall(r"\d+", version.partition("+")[0])]

    return lambda self, other: compare(numbers(self), numbers(other))


for _name in ("__lt__", "__le__", "__gt__", "__ge__"):
    setattr(Version, _name, _by_numbers(getattr(operator, _name)))

__version__ = Version("2.13.0+minidl")
cuda = hip = git_version = None
