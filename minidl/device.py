"""Devices: the CPU and the GPUs, named as in PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minidl.kernels import devices
from minidl.kernels.devices import Device


@dataclass(frozen=True)
class device:
    """Where tensors are stored: ``device("cpu")``, ``device("cuda")``, ``device("cuda:1")``, ``device("cuda", 1)``.

    Raises
    ------
    RuntimeError
        If `type` is not the name of a device. Whether such a GPU exists is checked when a tensor is moved there.

    Examples
    --------
    >>> device("cuda:1")
    device(type='cuda', index=1)
    >>> print(device("cpu"))
    cpu
    """

    type: str
    index: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.type, device):
            object.__setattr__(self, "index", self.type.index)
            object.__setattr__(self, "type", self.type.type)
        if not isinstance(self.type, str):
            raise TypeError(f"device: expected a name such as 'cpu' or 'cuda:0', not {type(self.type).__name__}")
        name, colon, number = self.type.partition(":")
        if name not in ("cpu", "cuda") or (colon and not number.isdecimal()) or (colon and self.index is not None):
            raise RuntimeError(f"device {self.type!r}: expected 'cpu', 'cuda', or a numbered GPU such as 'cuda:0'")
        object.__setattr__(self, "type", name)
        if colon:
            object.__setattr__(self, "index", int(number))

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"device(type={self.type!r}" + (")" if self.index is None else f", index={self.index})")


def as_device(wanted: Any) -> Device:
    """The device that the user means by a `device` or its name, with a GPU's number; None means the CPU.

    Raises
    ------
    RuntimeError
        If the device is not available; the message says what is missing.
    """
    found = device("cpu" if wanted is None else wanted)
    return devices.CPU if found.type == "cpu" else devices.gpu(found.index)
