"""``torch.nn.init``: minidl's, and the names of before 2018, without an underscore at the end."""

import functools
import warnings

from minidl.nn import init
from minidl.nn.init import *
from minidl.nn.init import _fans as _calculate_fan_in_and_fan_out


def old_name(function):
    """The function, with a warning that names it."""

    @functools.wraps(function)
    def renamed(*args, **kwargs):
        name = function.__name__
        warnings.warn(f"{name[:-1]} is deprecated: write {name}", FutureWarning, stacklevel=2)
        return function(*args, **kwargs)

    return renamed


globals().update({n[:-1]: old_name(f) for n, f in vars(init).items() if n.endswith("_") and n[0] != "_"})
