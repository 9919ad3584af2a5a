"""``torch.version``: the PyTorch whose names minidl follows."""

import operator
import re


class Version(str):
    """A version that is compared by its numbers: "2.13" is newer than "2.4"."""

    __slots__ = ()


def _numbers(version):
    return [int(n) for n in re.findall(r"\d+", version.partition("+")[0])]


for _compare in (operator.lt, operator.le, operator.gt, operator.ge):
    setattr(Version, f"__{_compare.__name__}__", lambda self, other, c=_compare: c(_numbers(self), _numbers(other)))

__version__ = Version("2.13.0+minidl")
cuda = hip = git_version = None
