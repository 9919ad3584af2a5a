"""A memory pool for results: fresh memory costs a page fault for every 4 KB, which takes longer than many a kernel."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

SMALLEST = 2**16  # bytes; below, the allocator itself reuses memory
LARGEST = 2**28  # bytes of unused memory that the pool may hold
ALIGNMENT = 64  # bytes: a vector, and a cache line


class _Piece(NamedTuple):
    memory: bytearray
    start: int  # the first aligned byte


class _Pool:
    """Unused pieces of memory, by size."""

    def __init__(self) -> None:
        self.pieces: defaultdict[int, list[_Piece]] = defaultdict(list)
        self.unused = 0
        self.lock = threading.RLock()  # the garbage collector may call `give_back` in the middle of `take`

    def take(self, size: int) -> _Piece:
        with self.lock:
            if self.pieces[size]:
                self.unused -= size
                return self.pieces[size].pop()
        memory = bytearray(size + ALIGNMENT)
        return _Piece(memory, -np.frombuffer(memory, np.uint8).__array_interface__["data"][0] % ALIGNMENT)

    def give_back(self, size: int, piece: _Piece) -> None:
        with self.lock:
            if self.unused + size > LARGEST:  # perhaps all of sizes that are no longer asked for
                self.pieces.clear()
                self.unused = 0
            if size <= LARGEST:
                self.unused += size
                self.pieces[size].append(piece)


_pool = _Pool()


class _Block(np.ndarray):
    """The base of all arrays in one piece of memory. When the last of them is gone it returns the piece to the pool."""

    piece: _Piece

    def __del__(self, pool: _Pool = _pool) -> None:
        if isinstance(self.base, bytearray):  # not a view of a block, whose base is the block
            pool.give_back(self.size, self.piece)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """``np.empty``, in memory of an array that is gone, if the pool has some."""
    wanted = math.prod(shape) * dtype.itemsize
    if wanted < SMALLEST:
        return np.empty(shape, dtype)
    step = 2 ** (wanted.bit_length() - 4)  # sizes in steps of an eighth, so that similar arrays share memory
    size = -(-wanted // step) * step
    piece = _pool.take(size)
    block = _Block((size,), np.uint8, *piece)
    block.piece = piece
    return np.ndarray(shape, dtype, block)


def owns(array: np.ndarray) -> bool:
    """Whether the array owns its memory, rather than being a view of another one."""
    return array.base is None or type(array.base) is _Block
