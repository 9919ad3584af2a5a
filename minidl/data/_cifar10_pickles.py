"""The Python version of CIFAR-10: pickles of NumPy arrays, read without running anything that is in them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from minidl.tensor import Array

FOLDER = "cifar-10-batches-py"
KNOWN = "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"


def read_batch(path: Path) -> tuple[Array, Array]:
    """Read the pixels of a file, uint8 (n, 32, 32, 3), and the classes, int64 (n,)."""
    try:
        batch = _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        planes, classes = np.asarray(batch["data"].values), np.array(batch["labels"])
        n = len(planes)
    except Exception as error:  # a pickle of something else may end in any
        raise ValueError(f"{path}: not a batch of CIFAR-10's Python version: {error}") from error
    if planes.shape != (n, 3072) or classes.shape != (n,) or classes.dtype.kind != "i" or not n:
        raise ValueError(f"{path}: pixels {planes.shape} and labels {classes.shape}, expected (n, 3072) and (n,) ints")
    if not 0 <= classes.min() <= classes.max() <= 9:
        raise ValueError(f"{path}: labels from {classes.min()} to {classes.max()}, expected classes 0 to 9")
    return planes.reshape(n, 3, 32, 32).transpose(0, 2, 3, 1), classes.astype(np.int64)


class _Unpickler(pickle._Unpickler):
    """The one written in Python: in C, a file of a few bytes can ask for gigabytes of memo."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, but such a file needs NumPy's arrays only")
        return _Array


class _Array:
    """Stands for NumPy's array and dtype in a pickle: their own methods would trust what the file says."""

    values: Array | None = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) == 5:  # an array's: version, shape, dtype, Fortran order, bytes (text in Python 2's pickles)
            text = state[4]
            self.values = np.frombuffer(text.encode("latin1") if isinstance(text, str) else text, np.uint8)
            self.values = self.values.reshape(state[1])
