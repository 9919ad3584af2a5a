"""Linear maps along one axis of an image: average pooling and interpolation are made of them.

Both are separable: they treat rows and columns alike, one after the other, so each is two sparse matrices R and C:

    y[n,c,i,j] = sum over h, w of  R[i,h] C[j,w] x[n,c,h,w]

and its adjoint, which is its gradient, is the same with both matrices transposed.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from minidl.kernels.geometry import AXES

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


def _nearest(inputs: int, outputs: int, scale: float | None, corners: bool) -> Axis:
    """out[i] = in[floor(i * step)], step = 1 / scale, or inputs / outputs where only the size was given.

    The product is computed in single precision, as in PyTorch, so that the same pixel is chosen; and as there, an axis
    of the same or twice the length is copied or doubled, whatever scale led to it.
    """
    step = _step(inputs, outputs, None if outputs in (inputs, 2 * inputs) else scale)
    return _chosen(inputs, np.arange(outputs, dtype=np.float32) * step)


def _nearest_exact(inputs: int, outputs: int, scale: float | None, corners: bool) -> Axis:
    """out[i] = in[floor((i + 1/2) * step)]: the pixel that the centre of output pixel i lies in."""
    return _chosen(inputs, (np.arange(outputs, dtype=np.float32) + np.float32(0.5)) * _step(inputs, outputs, scale))


def _step(inputs: int, outputs: int, scale: float | None) -> np.float32:
    return np.float32(inputs) / np.float32(outputs) if scale is None else np.float32(1 / scale)


def _chosen(inputs: int, positions: Array) -> Axis:
    sources = np.minimum(np.floor(positions).astype(np.int64), inputs - 1)
    return Axis.of(inputs, np.ones(len(sources), np.int64), sources, np.ones(len(sources)))


def _linear(inputs: int, outputs: int, scale: float | None, corners: bool) -> Axis:
    """out[i] = (1 - f) in[m] + f in[m + 1] at position m + f of the input, m whole and 0 <= f < 1.

    As in PyTorch, an axis of the same length is copied, whatever scale led to it.
    """
    positions = _positions(inputs, outputs, None if inputs == outputs else scale, corners)
    return _weighted(inputs, positions, 1, lambda t: 1 - t)


def _cubic(inputs: int, outputs: int, scale: float | None, corners: bool) -> Axis:
    """out[i] = sum over k = -1, 0, 1, 2 of K(|f - k|) in[m + k] at position m + f of the input, with a = -3/4 in

    K(t) = (a + 2) t^3 - (a + 3) t^2 + 1 for t <= 1, and a (t^3 - 5 t^2 + 8 t - 4) for 1 < t < 2.

    Source: R. Keys, Cubic convolution interpolation for digital image processing, IEEE Trans. ASSP 29(6), 1981.
    """

    def kernel(t: Array) -> Array:
        return np.where(t <= 1, (1.25 * t - 2.25) * t * t + 1, -0.75 * (((t - 5) * t + 8) * t - 4))

    return _weighted(inputs, _positions(inputs, outputs, scale, corners), 2, kernel)


def _positions(inputs: int, outputs: int, scale: float | None, corners: bool) -> Array:
    """Where in the input the output's pixels lie.

    With align_corners the centres of the corner pixels coincide: i (inputs - 1) / (outputs - 1). Without, their outer
    edges do: (i + 1/2) step - 1/2.
    """
    i = np.arange(outputs, dtype=np.float64)
    if corners:
        return i * ((inputs - 1) / max(outputs - 1, 1))
    return (i + 0.5) * (inputs / outputs if scale is None else 1 / scale) - 0.5


def _weighted(inputs: int, positions: Array, reach: int, kernel: Callable[[Array], Array]) -> Axis:
    """Of `reach` pixels on either side of a position, each with the kernel's weight for its distance.

    A pixel beyond the border is the one at the border.
    """
    k = np.floor(positions).astype(np.int64)[:, None] + np.arange(1 - reach, 1 + reach)  # (outputs, 2 * reach)
    weights = kernel(abs(positions[:, None] - k))
    kept = weights != 0  # an infinite pixel with weight 0 would make its neighbour NaN
    return Axis.of(inputs, kept.sum(axis=1), np.clip(k, 0, inputs - 1)[kept], weights[kept])


def _means(inputs: int, outputs: int, scale: float | None, corners: bool) -> Axis:
    """out[i] = the mean of in[floor(i inputs / outputs)] to in[ceil((i + 1) inputs / outputs) - 1]."""
    windows = adaptive_windows(inputs, outputs)
    counts = np.array([len(k) for k in windows], np.int64)
    return Axis.of(inputs, counts, np.concatenate([[], *windows]), np.repeat(1 / counts, counts))


def adaptive_windows(inputs: int, outputs: int) -> list[Array]:
    """The windows of adaptive pooling: of equal or nearly equal size, they cover the axis and may overlap by one."""
    return [np.arange(i * inputs // outputs, -(-(i + 1) * inputs // outputs)) for i in range(outputs)]


MODES = {"nearest": _nearest, "nearest-exact": _nearest_exact, "area": _means}
SMOOTH = {"linear": (1, _linear), "bilinear": (2, _linear), "trilinear": (3, _linear), "bicubic": (2, _cubic)}


@functools.lru_cache(maxsize=256)
def axis_of(mode: str, inputs: int, outputs: int, scale: float | None = None, corners: bool = False) -> Axis:
    """The matrix of an interpolation along one axis; `corners` for align_corners."""
    return (MODES.get(mode) or SMOOTH[mode][1])(inputs, outputs, scale, corners)


def interpolation(
    x_shape: Sequence[int],
    size: int | Sequence[int] | None,
    scale_factor: float | Sequence[float] | None,
    mode: str,
    align_corners: bool | None,
    recompute_scale_factor: bool | None = None,
) -> list[Axis]:
    """The axes of interpolate(x), with x (N, C, H, W), (N, C, L) or (N, C, D, H, W), all arguments checked."""
    op, dims = "interpolate", len(x_shape) - 2
    if mode not in [*MODES, *SMOOTH]:
        raise NotImplementedError(f"{op}: mode {mode!r} is not supported, only {', '.join([*MODES, *SMOOTH])}")
    if mode in MODES and align_corners is not None:
        raise ValueError(f"{op}: align_corners={align_corners} is for {', '.join(SMOOTH)}; {mode!r} does not use it")
    if (size is None) == (scale_factor is None) or (recompute_scale_factor and scale_factor is None):
        raise ValueError(f"{op}: give either size or scale_factor, got size={size!r}, scale_factor={scale_factor!r}")
    if dims not in (1, 2, 3) or SMOOTH.get(mode, [dims])[0] != dims:
        raise NotImplementedError(
            f"{op}: mode {mode!r} does not take {len(x_shape)}-d input of shape {tuple(x_shape)}: images are (N, C, H, "
            "W), and three dimensions (N, C, length); one image (C, H, W) needs unsqueeze(0)"
        )
    image = tuple(x_shape[2:])
    scales: list[Any] = [None] * dims
    if scale_factor is not None:
        scales = [float(s) for s in _each(op, "scale_factor", scale_factor, dims, Real)]
        if not all(map(math.isfinite, scales)):
            raise RuntimeError(f"{op}: scale_factor must be finite, got {scale_factor}")
        sizes = [int(n * s) for n, s in zip(image, scales, strict=True)]
    else:
        sizes = [int(n) for n in _each(op, "size", size, dims, Integral)]
    for name, n, m in zip(("depth", *AXES)[-dims:], image, sizes, strict=True):
        if n < 1 or m < 1 or x_shape[1] < 1:
            raise RuntimeError(
                f"{op}: only the batch may have size 0: input of shape {tuple(x_shape)} makes an output of {name} {m}"
                + (f" = floor({n} * {scale_factor})" if size is None else "")
            )
    used = [None] * dims if recompute_scale_factor else scales
    return [axis_of(mode, n, m, s, bool(align_corners)) for n, m, s in zip(image, sizes, used, strict=True)]


def _each(op: str, name: str, value: Any, dims: int, kind: type) -> list[Any]:
    """A number, or a sequence with one for each dimension, as a list."""
    values = list(value) if isinstance(value, tuple | list) else [value] * dims
    one, several = ("an int", "ints") if kind is Integral else ("a number", "numbers")
    wanted = f"{one} or {('one', 'two', 'three')[dims - 1]} {several}"
    if len(values) != dims:
        axes = ("length", "(height, width)", "(depth, height, width)")[dims - 1]
        raise ValueError(f"{op}: {name} must be {wanted} for {axes}, got {len(values)}: {value!r}")
    if not all(isinstance(v, kind) and not isinstance(v, bool) for v in values):
        raise TypeError(f"{op}: {name} must be {wanted}, got {value!r}")
    return values
