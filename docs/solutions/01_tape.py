"""Solutions of chapter 1, "A tape from nothing"; ``Tensor`` is the chapter's."""

import numpy as np


def tanh(x):
    y = np.tanh(x.array)
    return Tensor(y, (x, lambda gy: gy * (1 - y * y)))  # noqa: F821


def row_max(x):
    y = x.array.max(axis=1, keepdims=True)
    return Tensor(y, (x, lambda gy: gy * (x.array == y)))  # noqa: F821
