"""What PyTorch keeps in a module of this name."""

from minidl.utils import data

__all__ = ["data"]
