"""Remarks on stderr, each printed once per process."""

from __future__ import annotations

import functools
import sys


@functools.cache
def said_once(text: str) -> None:
    """Print a remark to stderr the first time it is made."""
    print(f"minidl: {text}", file=sys.stderr)
