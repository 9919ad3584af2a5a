"""The sizes of a pooling and of its inverse, checked once, with every error message about them.

Letters: as in geometry.py, with C channels in the image and in the map.
"""

import functools
from collections.abc import Sequence

import numpy as np

from minidl.kernels import devices
from minidl.kernels.geometry import AXES, Pair, Pairlike, Shape, Windows, chosen_size, four, ints, is_int, pair
from minidl.kernels.resampling import Axis

Array = np.ndarray
Stride = Pairlike | None  # None: that of the window's own size


class PoolGeometry(Windows):
    """Every size of one pooling, `max_pool2d`, `avg_pool2d` and `max_unpool2d` alike.

    All relate an image (N, C, H, W) to a map (N, C, OH, OW) of its windows. Pooling leads from the image to the map,
    unpooling from the map to the image.

    Notes
    -----
    The map's height is (H + 2p - d*(k - 1) - 1)/s + 1, rounded down, or up with `ceil_mode`. Then the last window hangs
    over the border; it is left out if it would begin behind the image, in the padding below it.
    """

    @functools.cached_property
    def ceil_mode(self) -> bool:
        """Whether a last window reaches beyond the padding, which happens only with ceil_mode."""
        sizes = zip(self.image_size, self.map_size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return any((m - 1) * s + d * (k - 1) + 1 > h + 2 * p for h, m, k, s, p, d in sizes)

    @classmethod
    def of_max_pool2d(
        cls,
        x_shape: Shape,
        kernel_size: Pairlike,
        stride: Stride = None,
        padding: Pairlike = 0,
        dilation: Pairlike = 1,
        ceil_mode: bool = False,
        op: str = "max_pool2d",
    ) -> "PoolGeometry":
        """The geometry of max_pool2d(x) with x (N, C, H, W), or of another pooling `op`.

        Raises
        ------
        TypeError
            If a size is neither an int nor a pair of ints.
        RuntimeError
            If the sizes do not fit together, or a window lies wholly in the padding.
        """
        kernel, steps, pads = _window(op, kernel_size, stride, padding)
        dilations = ints(op, "dilation", dilation, 1)
        if not isinstance(ceil_mode, bool):
            raise TypeError(f"{op}: ceil_mode must be a bool, not {ceil_mode!r}")
        n, c, *image = _sizes_of(op, x_shape)
        along = zip(AXES, image, kernel, steps, pads, dilations, strict=True)
        size = [_map_length(op, ceil_mode, *sizes) for sizes in along]
        g = cls(n, c, pair(image), c, pair(size), kernel, steps, pads, dilations)
        for axis in (0, 1):
            _refuse_empty_window(op, g, axis)
        return g

    @classmethod
    def of_avg_pool2d(
        cls, x: Shape, kernel_size: Pairlike, stride: Stride, padding: Pairlike, ceil_mode: bool
    ) -> "PoolGeometry":
        """The geometry of avg_pool2d(x): that of a max-pool without dilation, with its errors."""
        return cls.of_max_pool2d(x, kernel_size, stride, padding, 1, ceil_mode, "avg_pool2d")

    @classmethod
    def of_max_unpool2d(
        cls, y: Shape, kernel_size: Pairlike, stride: Stride, padding: Pairlike, output_size: Shape | None
    ) -> "PoolGeometry":
        """The geometry of max_unpool2d(y): y (N, C, OH, OW) is the map, the output is the image.

        Its height is (OH - 1)*s + k - 2p, or that of `output_size`, which may differ by less than s.

        Raises
        ------
        TypeError
            If a size is neither an int nor a pair of ints.
        ValueError
            If the length of `output_size` is neither 2 nor 4, or a size is out of range.
        RuntimeError
            If the sizes do not fit together.
        """
        op = "max_unpool2d"
        kernel, steps, pads = _window(op, kernel_size, stride, padding)
        n, c, *size = _sizes_of(op, y)
        usual = [(m - 1) * s + k - 2 * p for m, s, k, p in zip(size, steps, kernel, pads, strict=True)]
        image = usual
        if output_size is not None:
            reach = np.subtract(steps, 1)  # by as many pixels may a size differ
            image = chosen_size(op, output_size, usual - reach, usual + reach)
        for name, length, m, s, k, p in zip(AXES, image, size, steps, kernel, pads, strict=True):
            if length < 1:
                raise RuntimeError(
                    f"{op}: padding {p} leaves nothing of the output's {name}: ({m} - 1)*{s} + {k} - 2*{p} = {length}",
                )
        return cls(n, c, pair(image), c, pair(size), kernel, steps, pads, (1, 1))

    def windows(self, axis: int) -> Array:
        """For each window along an axis, the first tap inside the image and the number of taps inside. (OH, 2)"""
        return _windows(self, axis)

    def averages(self, count_include_pad: bool, divisor_override: int | None) -> tuple[Axis, Axis]:
        """The mean over each window as a sum over rows and one over columns, each with its share of the divisor.

        The divisor is the number of taps in the padded image, or (without `count_include_pad`) in the image itself, or
        `divisor_override`.
        """
        if divisor_override is not None and not is_int(divisor_override):
            raise TypeError(f"avg_pool2d: divisor_override must be an int, not {divisor_override!r}")
        if divisor_override == 0:
            raise RuntimeError("avg_pool2d: divisor_override must not be 0: every sum would be divided by it")
        return _averages(self, count_include_pad, divisor_override)

    def _window_starts(self, axis: int) -> Array:
        return np.arange(self.map_size[axis]) * self.stride[axis] - self.padding[axis]


@functools.lru_cache(maxsize=256)
def _windows(g: PoolGeometry, axis: int) -> Array:
    length, k, d = g.image_size[axis], g.kernel[axis], g.dilation[axis]
    start = g._window_starts(axis)
    above = -(np.minimum(start, 0) // d)  # so many taps lie before the image
    stop = np.minimum(-((start - length) // d), k)  # so many before its end
    return np.ascontiguousarray(np.stack([start + above * d, stop - above], axis=1))


@functools.lru_cache(maxsize=256)
def _averages(g: PoolGeometry, count_include_pad: bool, divisor_override: int | None) -> tuple[Axis, Axis]:
    def mean(axis: int) -> Axis:
        first, inside = g.windows(axis).T
        if divisor_override is not None:
            divisor = np.full(len(first), divisor_override if axis == 0 else 1)
        elif count_include_pad:
            start = g._window_starts(axis)
            divisor = np.minimum(start + g.kernel[axis], g.image_size[axis] + g.padding[axis]) - start
        else:
            divisor = inside
        sources = np.concatenate([np.arange(a, a + n) for a, n in zip(first, inside, strict=True)])
        return Axis.of(g.image_size[axis], inside, sources, np.repeat(1 / divisor, inside))

    return mean(0), mean(1)


def refuse_bad_index(name: str, indices: Array, size: Pair, cure: str = "") -> None:
    """Raise RuntimeError if an index of (N, C, OH, OW) names no pixel of a plane of this size, and say which."""
    bad = (indices < 0) | (indices >= size[0] * size[1])
    if devices.any_true(bad):
        at = tuple(int(k) for k in np.unravel_index(int(bad.argmax()), bad.shape))
        raise RuntimeError(
            f"{name}: index {indices[at].item()} at {at} of the indices is no pixel of the {size[0]} x {size[1]} "
            f"planes, which are numbered 0 to {size[0]}*{size[1]} - 1 = {size[0] * size[1] - 1}{cure}"
        )


def _window(op: str, kernel_size: Pairlike, stride: Stride, padding: Pairlike) -> tuple[Pair, Pair, Pair]:
    kernel = ints(op, "kernel_size", kernel_size, 1)
    none = stride is None or (isinstance(stride, Sequence) and not len(stride))
    return kernel, kernel if none else ints(op, "stride", stride, 1), ints(op, "padding", padding, 0)  # type: ignore[arg-type]


def _sizes_of(op: str, shape: Shape) -> tuple[int, ...]:
    sizes = four(op, "input", shape, "(N, C, H, W)")
    if min(sizes[1:]) < 1:
        raise RuntimeError(f"{op}: input of shape {sizes} has no channels or no pixels; only the batch may be empty")
    return sizes


def _map_length(op: str, ceil_mode: bool, name: str, length: int, k: int, s: int, p: int, d: int) -> int:
    reach = d * (k - 1) + 1
    if 2 * p > k:
        raise RuntimeError(
            f"{op}: padding {p} along the {name} must be at most half of the window {k}: at most {k // 2} would fit"
        )
    room = length + 2 * p - reach
    result = -(-room // s) + 1 if ceil_mode else room // s + 1
    if (result - 1) * s >= length + p and ceil_mode:
        result -= 1
    if result < 1:
        rounding = "up" if ceil_mode else "down"
        raise RuntimeError(
            f"{op}: window {k} does not fit in {name} {length} with padding {p}: "
            f"({length} + 2*{p} - {d}*({k} - 1) - 1)/{s} + 1, rounded {rounding}, = {result}; "
            f"at dilation {d} the window reaches over {reach} pixels, and there are {length + 2 * p}",
        )
    return result


def _refuse_empty_window(op: str, g: PoolGeometry, axis: int) -> None:
    """Raise if a window has no tap inside the image, as with dilation: an empty window has no maximum."""
    count = g.windows(axis)[:, 1]
    if count.min() < 1:
        i = int(np.argmin(count > 0))
        start, d = int(g._window_starts(axis)[i]), g.dilation[axis]
        taps = ", ".join(str(start + u * d) for u in range(g.kernel[axis]))
        raise RuntimeError(
            f"{op}: window {i} along the {AXES[axis]} lies wholly in the padding: it reads at {taps}, "
            f"and the image has {AXES[axis]} {g.image_size[axis]}; "
            "a smaller padding or dilation would fit",
        )
