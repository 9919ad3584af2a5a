"""Aliases for programs that import from ``torch.utils``."""

from minidl.utils import data

__all__ = ["data"]
