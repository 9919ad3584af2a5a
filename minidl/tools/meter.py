"""Meter: a running average with a unit."""

from __future__ import annotations

from typing import Literal

import numpy as np

from minidl import distributed
from minidl.creation import tensor

Unit = Literal["per pixel", "per image", "per batch"]


class Meter:
    """The average of a loss over an epoch, with its unit.

    The last batch of an epoch is usually smaller, so each batch's mean is weighted by its number of samples; with
    "per batch", all have weight 1.

    Parameters
    ----------
    unit : {"per pixel", "per image", "per batch"}
        What a value is the mean over. It is printed with the average; nothing is converted.

    Examples
    --------
    >>> meter = Meter("per image")
    >>> meter.update(1.0, 3)  # 3 images with a mean loss of 1
    >>> meter.update(5.0, 1)
    >>> print(meter)
    2.00000 per image
    """

    def __init__(self, unit: Unit) -> None:
        if unit not in ("per pixel", "per image", "per batch"):
            raise ValueError(f"Meter: unit must be 'per pixel', 'per image' or 'per batch', not {unit!r}")
        self.unit = unit
        self.reset()

    def reset(self) -> None:
        """Start over."""
        self._sum, self._count = 0.0, 0

    def update(self, value: float, n: int = 1) -> None:
        """Add a mean over `n` samples."""
        if n < 1:
            raise ValueError(f"Meter: n, the number of samples, must be at least 1, not {n}")
        weight = 1 if self.unit == "per batch" else n
        self._sum += float(value) * weight
        self._count += weight

    def all_reduce(self) -> None:
        """Add up over all ranks: the average of all samples, each counted once. Without a process group, nothing."""
        if distributed.is_initialized():
            total = tensor([self._sum, self._count], dtype=np.float64)
            distributed.all_reduce(total)
            self._sum, self._count = total.tolist()

    @property
    def average(self) -> float:
        """The average so far; NaN before the first value."""
        return self._sum / self._count if self._count else float("nan")

    def __float__(self) -> float:
        return self.average

    def __format__(self, spec: str) -> str:
        return format(self.average, spec) if spec else str(self)

    def __str__(self) -> str:
        return f"{self.average:.5f} {self.unit}"

    __repr__ = __str__
