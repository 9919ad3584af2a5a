"""``torch.nn.parameter``."""

from minidl.nn import Parameter
