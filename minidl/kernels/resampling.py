"""Linear maps along one axis of an image: average pooling and interpolation are made of them.

Both are separable: they treat rows and columns alike, one after the other, so each is two sparse matrices R and C:

    y[n,c,i,j] = sum over h, w of  R[i,h] C[j,w] x[n,c,h,w]

and its adjoint, which is its gradient, is the same with both matrices transposed.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.kernels.geometry import AXES, is_int

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Axis:
    """A sparse matrix (CSR): out[i] = sum over starts[i] <= t < starts[i+1] of weights[t] in[sources[t]].

    Attributes
    ----------
    inputs : int
        Length of the axis before the map.
    starts : (outputs + 1) int64 array
    sources : int64 array
    weights : float64 array
        As many as `sources`.
    """

    inputs: int
    starts: Array
    sources: Array
    weights: Array

    @classmethod
    def of(cls, inputs: int, counts: Array, sources: Array, weights: Array) -> "Axis":
        """From the number of terms of each output, and all terms in order."""
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(inputs, starts, np.ascontiguousarray(sources, np.int64), np.asarray(weights, np.float64))

    @property
    def outputs(self) -> int:
        """Length of the axis after the map."""
        return len(self.starts) - 1

    @functools.cached_property
    def T(self) -> "Axis":
        """The transposed matrix."""
        targets = np.repeat(np.arange(self.outputs), np.diff(self.starts))
        order = np.argsort(self.sources, kind="stable")
        counts = np.bincount(self.sources, minlength=self.inputs)
        return Axis.of(self.outputs, counts, targets[order], self.weights[order])

    @functools.cached_property
    def _weights32(self) -> Array:
        return self.weights.astype(np.float32)

    def weights_as(self, dtype: np.dtype) -> Array:
        """The weights as float32 or float64."""
        return self._weights32 if dtype == np.float32 else self.weights


@functools.lru_cache(maxsize=256)
def nearest(inputs: int, outputs: int, scale: float | None) -> Axis:
    """out[i] = in[floor(i * step)], step = 1 / scale, or inputs / outputs where only the size was given.

    The product is computed in single precision, as in PyTorch, so that the same pixel is chosen; and as there, an axis
    of the same or twice the length is copied or doubled, whatever scale led to it.
    """
    step = np.float32(1 / scale) if scale is not None else np.float32(inputs) / np.float32(outputs)
    if outputs in (inputs, 2 * inputs):
        step = np.float32(inputs / outputs)
    sources = np.floor(np.arange(outputs, dtype=np.float32) * step).astype(np.int64)
    return Axis.of(inputs, np.ones(outputs, np.int64), np.minimum(sources, inputs - 1), np.ones(outputs))


@functools.lru_cache(maxsize=256)
def bilinear(inputs: int, outputs: int, scale: float | None, align_corners: bool) -> Axis:
    """out[i] = (1 - f) in[m] + f in[m + 1] at position m + f of the input, m whole and 0 <= f < 1.

    With `align_corners` the centres of the corner pixels coincide: m + f = i (inputs - 1) / (outputs - 1). Without,
    their outer edges do: m + f = (i + 1/2) step - 1/2, at least 0.
    """
    i = np.arange(outputs, dtype=np.float64)
    if inputs == outputs:
        position: Array = i
    elif align_corners:
        position = i * ((inputs - 1) / max(outputs - 1, 1))
    else:
        position = np.maximum((i + 0.5) * (inputs / outputs if scale is None else 1 / scale) - 0.5, 0)
    lower = np.minimum(position.astype(np.int64), inputs - 1)
    upper = np.minimum(lower + 1, inputs - 1)
    f = np.clip(position - lower, 0, 1)
    sources, weights = np.stack([lower, upper], axis=1), np.stack([1 - f, f], axis=1)  # (outputs, 2)
    kept = weights != 0  # an infinite pixel with weight 0 would make its neighbour NaN
    return Axis.of(inputs, kept.sum(axis=1), sources[kept], weights[kept])


MODES = ("nearest", "bilinear")


def interpolation(
    x_shape: Sequence[int],
    size: int | Sequence[int] | None,
    scale_factor: float | Sequence[float] | None,
    mode: str,
    align_corners: bool | None,
) -> tuple[Axis, Axis]:
    """The two axes of interpolate(x), x (N, C, H, W), all arguments checked."""
    op = "interpolate"
    if mode not in MODES:
        raise NotImplementedError(f"{op}: mode {mode!r} is not supported, only 'nearest' and 'bilinear'")
    if mode == "nearest" and align_corners is not None:
        raise ValueError(f"{op}: align_corners={align_corners} is for mode 'bilinear'; 'nearest' does not use it")
    if (size is None) == (scale_factor is None):
        raise ValueError(f"{op}: give either size or scale_factor, got size={size!r}, scale_factor={scale_factor!r}")
    if len(x_shape) != 4:
        raise NotImplementedError(
            f"{op}: input must be (N, C, H, W), got {len(x_shape)}-d of shape {tuple(x_shape)}; one image (C, H, W) "
            "needs unsqueeze(0), since PyTorch reads three dimensions as (N, C, length)"
        )
    image, scales = tuple(x_shape[2:]), _scales(op, scale_factor)
    sizes = _sizes(op, size) if size is not None else [int(n * s) for n, s in zip(image, scales, strict=True)]  # type: ignore[operator]
    for name, n, m in zip(AXES, image, sizes, strict=True):
        if n < 1 or m < 1 or x_shape[1] < 1:
            raise RuntimeError(
                f"{op}: only the batch may have size 0: input of shape {tuple(x_shape)} makes an output of {name} {m}"
                + (f" = floor({n} * {scale_factor})" if size is None else "")
            )
    along = zip(image, sizes, scales, strict=True)
    if mode == "nearest":
        rows, columns = (nearest(n, m, s) for n, m, s in along)
    else:
        rows, columns = (bilinear(n, m, s, bool(align_corners)) for n, m, s in along)
    return rows, columns


def _sizes(op: str, size: int | Sequence[int]) -> list[int]:
    return [int(n) for n in _two(op, "size", size, "an int or two ints", is_int)]


def _scales(op: str, scale_factor: float | Sequence[float] | None) -> list[float | None]:
    if scale_factor is None:
        return [None, None]
    scales = [float(s) for s in _two(op, "scale_factor", scale_factor, "a number or two numbers", _is_number)]
    if not all(map(math.isfinite, scales)):
        raise RuntimeError(f"{op}: scale_factor must be finite, got {scale_factor}")
    return [*scales]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _two(op: str, name: str, value: Any, wanted: str, fits: Callable[[Any], bool]) -> Sequence[Any]:
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{op}: {name} must be {wanted} for (height, width), got {len(values)}: {value!r}")
    if not all(fits(v) for v in values):
        raise TypeError(f"{op}: {name} must be {wanted}, got {value!r}")
    return values
