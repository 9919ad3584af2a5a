"""torchvision's data sets, transforms (v1) and image grids, for scripts written for it."""

from minidl.compat.torchvision import datasets, transforms, utils

__version__ = "0.28.0"  # the torchvision whose names, layouts and pixels these modules reproduce
