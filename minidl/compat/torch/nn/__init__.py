"""``torch.nn``: minidl's layers."""

from minidl.nn import *
