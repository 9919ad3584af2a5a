"""Where arrays live, under PyTorch's names. This version computes on the CPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class device:
    """A place for tensors: ``device("cpu")``.

    Raises
    ------
    RuntimeError
        If `type` names no device that minidl can compute on.

    Examples
    --------
    >>> print(device("cpu"))
    cpu
    """

    type: str

    def __post_init__(self) -> None:
        if isinstance(self.type, device):
            object.__setattr__(self, "type", self.type.type)
        if not isinstance(self.type, str):
            raise TypeError(f"device: expected a name such as 'cpu', not {type(self.type).__name__}")
        if self.type != "cpu":
            raise RuntimeError(f"device {self.type!r}: this version of minidl computes on 'cpu' only")

    def __str__(self) -> str:
        return self.type
