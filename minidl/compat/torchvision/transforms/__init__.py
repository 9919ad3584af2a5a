"""torchvision.transforms, version 1."""

from minidl.compat.torchvision.transforms import functional as functional
from minidl.compat.torchvision.transforms.transforms import *
from minidl.compat.torchvision.transforms.transforms import __all__ as __all__
