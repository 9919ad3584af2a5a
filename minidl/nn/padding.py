"""Padding as layers: what the border holds is in the name. Arguments, defaults and printed forms are PyTorch's."""

from __future__ import annotations

from collections.abc import Sequence

from minidl.nn.module import Module
from minidl.ops.shape import pad
from minidl.tensor import Tensor


class _Pad(Module):
    """A border of zeros, or by the mode, of an image (2 dimensions) or a sequence (1); see `functional.pad`."""

    _mode, _dimensions, value = "constant", 2, 0.0
    _repr_format = "{0.padding}"

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        widths = tuple(padding) if isinstance(padding, Sequence) else (padding,) * (2 * self._dimensions)
        self.padding: tuple[int, ...] = widths

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) or (N, C, L), or without N, to the same with a border."""
        return pad(input, self.padding, self._mode, self.value)


class ConstantPad2d(_Pad):
    """A border of `value` around images; `padding` is one int or (left, right, top, bottom)."""

    _repr_format = "padding={0.padding}, value={0.value}"

    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value


class ConstantPad1d(ConstantPad2d):
    """A border of `value` around sequences; `padding` is one int or (left, right)."""

    _dimensions = 1


class ZeroPad2d(_Pad):
    """A border of zeros around images; `padding` is one int or (left, right, top, bottom)."""


class ReflectionPad2d(_Pad):
    """Images mirrored at their border pixels: c b | a b c | b a; `padding` is one int or (left, right, top, bottom)."""

    _mode = "reflect"


class ReflectionPad1d(ReflectionPad2d):
    """Sequences mirrored at their ends: c b | a b c | b a; `padding` is one int or (left, right)."""

    _dimensions = 1


class ReplicationPad2d(_Pad):
    """The border pixels repeated: a a | a b c | c c; `padding` is one int or (left, right, top, bottom)."""

    _mode = "replicate"


class ReplicationPad1d(ReplicationPad2d):
    """The ends repeated: a a | a b c | c c; `padding` is one int or (left, right)."""

    _dimensions = 1


class CircularPad2d(_Pad):
    """The opposite side of the image: b c | a b c | a b; `padding` is one int or (left, right, top, bottom)."""

    _mode = "circular"
