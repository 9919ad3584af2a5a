"""``torch.nn.init``: minidl's, and the names of before 2018, without an underscore at the end."""

from minidl.nn import init
from minidl.nn.init import *
from minidl.nn.init import _fans as _calculate_fan_in_and_fan_out

globals().update({name[:-1]: f for name, f in vars(init).items() if name.endswith("_") and name[0] != "_"})
