"""Memory for results that is used again: new memory costs a page fault for every 4 KB, more than many kernels cost."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

SMALLEST = 2**16  # bytes; below, the allocator itself reuses memory
LARGEST = 2**28  # bytes of all memory that may lie unused
ALIGNMENT = 64  # bytes: a vector, and a cache line


class _Piece(NamedTuple):
    memory: bytearray
    start: int  # the first byte that is aligned


class _Pool:
    """Pieces of memory that no array is in, by size."""

    def __init__(self) -> None:
        self.pieces: defaultdict[int, list[_Piece]] = defaultdict(list)
        self.unused = 0
        self.lock = threading.RLock()  # a collected array may give its piece back in the middle of `take`

    def take(self, size: int) -> _Piece:
        with self.lock:
            if self.pieces[size]:
                self.unused -= size
                return self.pieces[size].pop()
        memory = bytearray(size + ALIGNMENT)
        return _Piece(memory, -np.frombuffer(memory, np.uint8).__array_interface__["data"][0] % ALIGNMENT)

    def give_back(self, size: int, piece: _Piece) -> None:
        with self.lock:
            if self.unused + size > LARGEST:  # all of it, perhaps, of sizes that nobody asks for any more
                self.pieces.clear()
                self.unused = 0
            if size <= LARGEST:
                self.unused += size
                self.pieces[size].append(piece)


_pool = _Pool()


class _Block(np.ndarray):
    """The base of all arrays in one piece of memory: when the last of them is gone, it gives the piece back."""

    piece: _Piece

    def __del__(self, pool: _Pool = _pool) -> None:
        if isinstance(self.base, bytearray):  # and not a view of a block, which has the block as base
            pool.give_back(self.size, self.piece)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """``np.empty``, in memory that an earlier array has left, where there is some."""
    wanted = math.prod(shape) * dtype.itemsize
    if wanted < SMALLEST:
        return np.empty(shape, dtype)
    step = 2 ** (wanted.bit_length() - 4)  # sizes in steps of an eighth, so that similar ones share their memory
    size = -(-wanted // step) * step
    piece = _pool.take(size)
    block = _Block((size,), np.uint8, *piece)
    block.piece = piece
    return np.ndarray(shape, dtype, block)


def owns(array: np.ndarray) -> bool:
    """Whether the array is no view of another one."""
    return array.base is None or type(array.base) is _Block
