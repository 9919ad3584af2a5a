"""The sizes of a convolution, checked once, with every error message about them: convolution arithmetic.

Letters: N images in a batch; C channels of the image, O of the map, in G groups; H x W the image, OH x OW the map,
KH x KW the kernel; k, s, p, d its size, stride, padding and dilation along one axis.
"""

import functools
import math
import numbers
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Pair = tuple[int, int]
Pairlike = int | Sequence[int]
Shape = Sequence[int]
AXES = ("height", "width")
G = TypeVar("G")


@dataclass(frozen=True)
class Windows:
    """Windows that slide over an image (N, C, H, W); each of them is one pixel of a map (N, O, OH, OW)."""

    batch: int
    image_channels: int
    image_size: Pair
    map_channels: int
    map_size: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    @functools.cached_property
    def image_shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)"""
        return (self.batch, self.image_channels, *self.image_size)

    @functools.cached_property
    def map_shape(self) -> tuple[int, int, int, int]:
        """(N, O, OH, OW)"""
        return (self.batch, self.map_channels, *self.map_size)


@dataclass(frozen=True)
class ConvGeometry(Windows):
    """Every size of one convolution, `conv2d` and `conv_transpose2d` alike.

    Both relate an image (N, C, H, W), a weight (O, C/G, KH, KW) and a feature map (N, O, OH, OW). `conv2d` leads from
    the image to the map, `conv_transpose2d` from the map to the image.

    Notes
    -----
    The channels of image and map are cut into G groups, and the map's group g sees only the image's group g.

    The map's height is (H + 2p - d*(KH - 1) - 1)//s + 1. Because of the floor, several image heights lead to the same
    map height; `output_padding` says by how much the image that a transposed convolution makes is higher than the
    smallest of them.

    Source: Dumoulin and Visin 2016, A guide to convolution arithmetic for deep learning, arXiv:1603.07285.
    """

    groups: int = 1

    @functools.cached_property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(O, C/G, KH, KW)"""
        return (self.map_channels, self.image_channels // self.groups, *self.kernel)

    @functools.cached_property
    def is_depthwise(self) -> bool:
        """Whether each channel is a group of its own."""
        return self.groups == self.image_channels == self.map_channels > 1

    @functools.cached_property
    def padded_size(self) -> Pair:
        """(H + 2p, W + 2p)"""
        (h, width), (ph, pw) = self.image_size, self.padding
        return h + 2 * ph, width + 2 * pw

    @functools.cached_property
    def output_padding(self) -> Pair:
        """By how much the image is larger than the smallest that leads to this map."""
        sizes = zip(self.image_size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return pair([(h + 2 * p - d * (k - 1) - 1) % s for h, k, s, p, d in sizes])

    @functools.cached_property
    def multiply_adds(self) -> int:
        """Multiplications in each of the three kernels, those with padding included."""
        return math.prod(self.map_shape) * math.prod(self.weight_shape[1:])

    @classmethod
    def of_conv2d(
        cls, x: Shape, w: Shape, stride: Pairlike = 1, padding: Pairlike = 0, dilation: Pairlike = 1, groups: int = 1
    ) -> "ConvGeometry":
        """The geometry of conv2d(x, w), with x (N, C, H, W) the image and w (O, C/G, KH, KW).

        Raises
        ------
        TypeError
            If stride, padding or dilation is neither an int nor a pair of ints, or `groups` no int.
        RuntimeError
            If the sizes do not fit together.
        """
        op = "conv2d"
        steps, pads, dilations = _step_sizes(op, stride, padding, dilation)
        n, c, *image = four(op, "input", x, "(N, C, H, W)")
        o, wc, *kernel = four(op, "weight", w, "(O, C, KH, KW)")
        _check_groups(op, groups, o, "channels of the output")
        if c != wc * groups:
            each = f" in each of {groups} groups" if groups > 1 else ""
            _refuse_channels(op, x, w, f"{wc}{each}", (o, c // groups, *kernel), (n, wc * groups, *image))
        _positive(op, x, image, o, kernel)
        size = [_map_length(op, *along) for along in zip(AXES, image, kernel, steps, pads, dilations, strict=True)]
        return cls(n, c, pair(image), o, pair(size), pair(kernel), steps, pads, dilations, groups)

    @classmethod
    def of_conv_transpose2d(
        cls,
        x_shape: Shape,
        w_shape: Shape,
        stride: Pairlike = 1,
        padding: Pairlike = 0,
        output_padding: Pairlike = 0,
        dilation: Pairlike = 1,
        groups: int = 1,
    ) -> "ConvGeometry":
        """The geometry of conv_transpose2d(x, w): x (N, O, OH, OW) is the map, w is (O, C/G, KH, KW), the
        output is the image.

        Its height is H = (OH - 1)*s - 2p + d*(KH - 1) + output_padding + 1.

        Raises
        ------
        TypeError
            If stride, padding, output_padding or dilation is neither an int nor a pair of ints, or `groups` no int.
        RuntimeError
            If the sizes do not fit together, or output_padding is not smaller than stride or dilation.
        """
        op = "conv_transpose2d"
        steps, pads, dilations = _step_sizes(op, stride, padding, dilation)
        extra = ints(op, "output_padding", output_padding, 0)
        n, o, *size = four(op, "input", x_shape, "(N, C_in, H, W)")
        wo, c, *kernel = four(op, "weight", w_shape, "(C_in, C_out, KH, KW)")
        if o != wo:
            _refuse_channels(op, x_shape, w_shape, f"{wo}, the first size,", (o, c, *kernel), (n, wo, *size))
        _check_groups(op, groups, o, "channels of the input")
        _positive(op, x_shape, size, c, kernel)
        along = zip(AXES, size, kernel, steps, pads, extra, dilations, strict=True)
        image = [_image_length(op, *sizes) for sizes in along]
        return cls(n, c * groups, pair(image), o, pair(size), pair(kernel), steps, pads, dilations, groups)

    @classmethod
    def of_unfold(
        cls, x: Shape, kernel: Pairlike, dilation: Pairlike, padding: Pairlike, stride: Pairlike, op: str = "unfold"
    ) -> "ConvGeometry":
        """The geometry of unfold(x), with x (N, C, H, W): that of a convolution with one output channel.

        Raises
        ------
        TypeError
            If kernel_size, dilation, padding or stride is neither an int nor a pair of ints.
        RuntimeError
            If the sizes do not fit together.
        """
        steps, pads, dilations = _step_sizes(op, stride, padding, dilation)
        kernel = ints(op, "kernel_size", kernel, 1)
        n, c, *image = four(op, "input", x, "(N, C, H, W)")
        _positive(op, x, (c, *image), 1, kernel)
        size = [_map_length(op, *along) for along in zip(AXES, image, kernel, steps, pads, dilations, strict=True)]
        return cls(n, c, pair(image), 1, pair(size), kernel, steps, pads, dilations)

    @classmethod
    def of_fold(
        cls, x: Shape, size: Pairlike, kernel: Pairlike, dilation: Pairlike, padding: Pairlike, stride: Pairlike
    ) -> "ConvGeometry":
        """The geometry of fold(x), with x (N, C*KH*KW, OH*OW): that of the unfold whose adjoint it is."""
        op, shape = "fold", tuple(x)
        if len(shape) != 3 or min(shape[1:]) < 1:
            raise RuntimeError(
                f"fold: input must be (N, C*KH*KW, OH*OW), or without N for one image, and only N may be 0, got {shape}"
            )
        kernel, image = ints(op, "kernel_size", kernel, 1), ints(op, "output_size", size, 1)
        (n, taps, pixels), (kh, kw) = shape, kernel
        if taps % (kh * kw):
            raise RuntimeError(
                f"fold: input {shape} has columns of {taps} values, no multiple of the kernel's {kh}*{kw} = {kh * kw}"
            )
        g = cls.of_unfold((n, taps // (kh * kw), *image), kernel, dilation, padding, stride, op)
        if pixels != math.prod(g.map_size):
            oh, ow = g.map_size
            raise RuntimeError(
                f"fold: input {shape} has {pixels} columns, and a kernel of {kernel} with stride {g.stride}, padding "
                f"{g.padding} and dilation {g.dilation} has {oh}*{ow} = {oh * ow} positions in an image of {image}",
            )
        return g


def pair(values: Sequence[int]) -> Pair:
    first, second = values
    return first, second


def ints(op: str, name: str, value: Pairlike, least: int) -> Pair:
    """An int or a pair of ints, as a pair; each at least `least`."""
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if not all(is_int(v) for v in values):
        raise TypeError(f"{op}: {name} must be an int or a pair of ints, got {value!r}")
    if len(values) not in (1, 2):
        raise RuntimeError(f"{op}: {name} must be one int, or two for (height, width), got {len(values)}: {value!r}")
    if min(values) < least:
        raise RuntimeError(f"{op}: {name} must be at least {least}, got {value!r}")
    return operator.index(values[0]), operator.index(values[-1])


def is_int(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _step_sizes(op: str, stride: Pairlike, padding: Pairlike, dilation: Pairlike) -> tuple[Pair, Pair, Pair]:
    return ints(op, "stride", stride, 1), ints(op, "padding", padding, 0), ints(op, "dilation", dilation, 1)


def four(op: str, name: str, shape: Shape, letters: str) -> tuple[int, ...]:
    if len(shape) != 4:
        expected = f"{letters}, or {letters.replace('N, ', '')} for one image" if name == "input" else letters
        raise RuntimeError(f"{op}: {name} must be {expected}, got {len(shape)}-d of shape {tuple(shape)}")
    return tuple(shape)


def _refuse_channels(op: str, x: Shape, w: Shape, found: str, fitting_w: Shape, fitting_x: Shape) -> None:
    raise RuntimeError(
        f"{op}: the number of channels is {x[1]} in input {tuple(x)}, but {found} in weight {tuple(w)}; "
        f"a weight of shape {fitting_w} or an input of shape {fitting_x} would fit",
    )


def _check_groups(op: str, groups: int, channels: int, which: str) -> None:
    if not is_int(groups) or groups < 1 or channels % groups:
        error = RuntimeError if is_int(groups) else TypeError
        raise error(f"{op}: groups={groups!r} must be an int of at least 1 and divide the {channels} {which}")


def _positive(op: str, shape: Shape, size: Shape, channels: int, kernel: Shape) -> None:
    """Only the batch and the input's channels may be empty."""
    if min(size) < 1:
        raise RuntimeError(f"{op}: input of shape {tuple(shape)} has no pixels; only the batch may be empty")
    if min(kernel) < 1 or channels < 1:
        raise RuntimeError(
            f"{op}: weight needs at least one output channel and a kernel of 1x1, got {channels} and {tuple(kernel)}",
        )


def _map_length(op: str, axis: str, length: int, kernel: int, s: int, p: int, d: int) -> int:
    result = (length + 2 * p - d * (kernel - 1) - 1) // s + 1
    if length + 2 * p < d * (kernel - 1) + 1:
        reach, short = d * (kernel - 1) + 1, d * (kernel - 1) + 1 - length - 2 * p
        raise RuntimeError(
            f"{op}: kernel {kernel} does not fit in {axis} {length} with padding {p}: "
            f"({length} + 2*{p} - {d}*({kernel} - 1) - 1)//{s} + 1 = {result}; "
            f"at dilation {d} the kernel reaches over {reach} pixels: a {axis} of {reach - 2 * p} or more, "
            f"a padding of {p + (short + 1) // 2} or more, "
            f"or a kernel of at most {(length + 2 * p - 1) // d + 1} would fit",
        )
    return result


def _image_length(op: str, axis: str, length: int, kernel: int, s: int, p: int, extra: int, d: int) -> int:
    if extra >= max(s, d):
        raise RuntimeError(
            f"{op}: output_padding {extra} along the {axis} must be smaller than stride {s} or dilation {d}: "
            f"at most {max(s, d) - 1} would fit",
        )
    result = (length - 1) * s - 2 * p + d * (kernel - 1) + extra + 1
    if result < 0:  # 0 is an empty image
        raise RuntimeError(
            f"{op}: padding {p} takes more than there is of the output's {axis}: "
            f"({length} - 1)*{s} - 2*{p} + {d}*({kernel} - 1) + {extra} + 1 = {result}; "
            f"a padding of at most {(result + 2 * p) // 2} would fit",
        )
    return result


def chosen_size(op: str, output_size: Shape, least: Iterable[int], most: Iterable[int], whole: int = 4) -> list[int]:
    """H and W of `output_size`, (H, W) or the `whole` shape, of so many sizes, if an input can lead to them.

    Raises
    ------
    TypeError
        If `output_size` is not a sequence of ints.
    ValueError
        If its length is neither 2 nor `whole`, or a size is not between `least` and `most`.
    """
    if not isinstance(output_size, Sequence) or not all(is_int(n) for n in output_size):
        raise TypeError(f"{op}: output_size must be a sequence of ints, not {output_size!r}")
    if len(output_size) not in (2, whole):
        shape = "(N, C, H, W)" if whole == 4 else "(C, H, W)"
        raise ValueError(f"{op}: output_size must be (H, W) or {shape}, got {len(output_size)}: {output_size!r}")
    chosen = [int(n) for n in output_size[-2:]]
    for name, length, low, high in zip(AXES, chosen, least, most, strict=True):
        if not low <= length <= high:
            raise ValueError(f"{op}: output_size has {name} {length}, and for this input {low} to {high} would fit")
    return chosen


@functools.lru_cache(maxsize=256, typed=True)
def _from_cache(of: Callable[..., G], *sizes: Any) -> G:
    return of(*sizes)


def cached(of: Callable[..., G], *sizes: Any) -> G:
    """The geometry ``of(*sizes)``, from a cache: a layer's sizes are computed and checked once, not at each step."""
    try:
        return _from_cache(of, *sizes)
    except TypeError:  # a list among the sizes, or not a number
        return of(*sizes)
