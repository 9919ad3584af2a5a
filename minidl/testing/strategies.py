"""Strategies for Hypothesis: shapes, tensors away from kinks, geometries of convolutions and pooling, whole models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidl import nn
from minidl.kernels.geometry import ConvGeometry, Pair
from minidl.kernels.pool_geometry import PoolGeometry
from minidl.random import default_generator
from minidl.tensor import Array, Tensor

Shape = tuple[int, ...]
SEEDS = st.integers(0, 2**32 - 1)

# --- Shapes and values --------------------------------------------------------------------------------------


def shapes(*, min_dims: int = 0, max_dims: int = 3, min_side: int = 1, max_side: int = 4) -> st.SearchStrategy[Shape]:
    """Shapes of tensors, as tuples of ints; with ``min_side=0`` also empty ones."""
    return hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side)


def broadcastable_shapes(
    number: int = 2, *, min_dims: int = 0, max_dims: int = 3, min_side: int = 1, max_side: int = 3
) -> st.SearchStrategy[tuple[Shape, ...]]:
    """`number` shapes that broadcast with each other."""
    drawn = hnp.mutually_broadcastable_shapes(
        num_shapes=number, min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side
    )
    return drawn.map(lambda shapes: shapes.input_shapes)


@st.composite
def tensors(
    draw: st.DrawFn,
    shape: Shape | st.SearchStrategy[Shape] = shapes(),  # noqa: B008 (a strategy has no state)
    dtype: Any = np.float64,
    *,
    low: float = -2.0,
    high: float = 2.0,
    kinks: Sequence[float] = (0.0,),
    requires_grad: bool = True,
) -> Tensor:
    """Tensors with values suitable for finite differences: no two are equal, and none is close to a kink.

    A difference quotient is not a gradient where a step crosses from one branch of a function to another: where ReLU's
    input changes sign, or another element becomes the maximum. Values are at least (high - low) / 40 away from each
    kink, and any two of n values are at least (high - low) / (2 n) apart, slightly less with kinks.

    Parameters
    ----------
    shape : shape, or strategy for shapes
    dtype : dtype
        Integers are arbitrary from `low` to `high`, and bools arbitrary.
    low, high : float
        The range of values.
    kinks : sequence of float
        Points to keep away from, such as 0 or the bounds of a clamp.
    requires_grad : bool
        For float tensors; others never do.

    Examples
    --------
    >>> tensors((2, 3), low=0.1)  # for log and sqrt
    tensors(shape=(2, 3), low=0.1)
    """
    size = tuple(shape) if isinstance(shape, tuple | list) else draw(shape)
    rng, kind = np.random.default_rng(draw(SEEDS)), np.dtype(dtype)
    if kind.kind == "b":
        return Tensor(rng.random(size) < 0.5)
    if kind.kind != "f":
        return Tensor(rng.integers(int(low), int(high), size, kind, endpoint=True))
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"tensors: low must be less than high, and both finite, not {low} and {high}")
    values = _apart(rng, math.prod(size), low, high, kinks).astype(kind)
    if len(np.unique(values)) < values.size:
        raise ValueError(f"tensors: {kind} cannot hold {values.size} different values from {low} to {high}")
    return Tensor(values.reshape(size), requires_grad)


def _apart(rng: np.random.Generator, count: int, low: float, high: float, kinks: Sequence[float]) -> Array:
    """`count` values in random order, one in the middle half of each cell of a grid over the range minus the kinks."""
    ends = np.array([low, *sorted(k for k in kinks if low < k < high), high])
    margin = (high - low) / 40
    room = np.diff(ends) > 2 * margin
    if not room.any():
        raise ValueError(f"tensors: the kinks {list(kinks)} leave no room from {low} to {high}")
    starts, lengths = (ends[:-1] + margin)[room], (np.diff(ends) - 2 * margin)[room]
    passed = np.cumsum(lengths) - lengths  # the total length of the gaps before this one
    along = (rng.permutation(count) + rng.uniform(0.25, 0.75, count)) * lengths.sum() / max(count, 1)
    gap = np.searchsorted(passed, along, side="right") - 1
    return starts[gap] + along - passed[gap]


# --- Geometries and models ----------------------------------------------------------------------------------


@st.composite
def conv_geometries(
    draw: st.DrawFn, *, max_batch: int = 3, max_channels: int = 5, max_kernel: int = 4, max_extra: int = 6
) -> ConvGeometry:
    """Valid geometries of a convolution, with two independent axes; the batch may be empty.

    With ``g.stride``, ``g.padding`` and ``g.dilation``, ``conv2d`` maps ``g.image_shape`` to ``g.map_shape``, and, with
    ``g.output_padding`` too, ``conv_transpose2d`` maps it back; both take a weight of ``g.weight_shape``. `max_extra`
    limits how much an image may exceed the smallest possible size.
    """
    n, c, o = draw(st.integers(0, max_batch)), draw(st.integers(1, max_channels)), draw(st.integers(1, max_channels))
    kernel, stride = draw(_pairs(1, max_kernel)), draw(_pairs(1, 3))
    padding, dilation = draw(_pairs(0, 3)), draw(_pairs(1, 3))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    least = [max(1, r - 2 * p) for r, p in zip(reach, padding, strict=True)]
    size = [m + extra for m, extra in zip(least, draw(_pairs(0, max_extra)), strict=True)]
    return ConvGeometry.of_conv2d((n, c, *size), (o, c, *kernel), stride, padding, dilation)


@st.composite
def pool_geometries(
    draw: st.DrawFn, *, max_batch: int = 3, max_channels: int = 4, max_kernel: int = 4, dilated: bool = True
) -> PoolGeometry:
    """Valid geometries of pooling, with two independent axes; the batch may be empty.

    They are valid for ``max_pool2d`` with ``g.kernel``, ``g.stride``, ``g.padding``, ``g.dilation`` and
    ``g.ceil_mode``, and without dilation for ``avg_pool2d``. Images from ``tensors(g.image_shape)`` have no ties.
    """
    kernel, stride = draw(_pairs(1, max_kernel)), draw(_pairs(1, max_kernel))
    dilation = draw(_pairs(1, 3)) if dilated else (1, 1)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    # At least as large as the gaps between taps: a dilated window could straddle a smaller image.
    least = [max(d, d * (k - 1) + 1) for k, d in zip(kernel, dilation, strict=True)]
    size = [m + extra for m, extra in zip(least, draw(_pairs(0, 4)), strict=True)]
    shape = (draw(st.integers(0, max_batch)), draw(st.integers(1, max_channels)), *size)
    return PoolGeometry.of_max_pool2d(shape, kernel, stride, padding, dilation, draw(st.booleans()))


def _pairs(least: int, most: int) -> st.SearchStrategy[Pair]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


@st.composite
def models(draw: st.DrawFn, *, max_layers: int = 8, dtype: Any = np.float64) -> tuple[nn.Sequential, Tensor]:
    """A model of random layers that fit together, with at least one parameter, and an input for it.

    The layers are convolutions, transposed convolutions, pooling, upsampling, linear, flatten and activations.
    """
    sizes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
    x = draw(tensors(sizes, dtype, requires_grad=False))
    model, shape = nn.Sequential(), x.shape
    state = default_generator.get_state()  # layers draw their initial values from the user's generator
    try:
        for number in range(draw(st.integers(1, max_layers))):
            model.append(draw(_layers(shape, trained=number == 0)).to(np.dtype(dtype)))
            shape = model[-1](Tensor(np.zeros(shape, dtype))).shape
    finally:
        default_generator.set_state(state)
    rng = np.random.default_rng(draw(SEEDS))
    for p in model.parameters():
        p.data.copy_(Tensor(rng.uniform(-1, 1, p.shape).astype(dtype) / math.sqrt(math.prod(p.shape[1:]))))
    return model, x


def _layers(shape: Shape, trained: bool) -> st.SearchStrategy[nn.Module]:
    """Layers for a batch of this shape; if `trained`, only those with parameters."""
    activations = st.sampled_from([nn.ReLU, nn.Sigmoid, nn.Tanh]).map(lambda layer: layer())
    if len(shape) == 2:
        linear = st.builds(nn.Linear, st.just(shape[1]), st.integers(1, 6), st.booleans())
        unflatten = st.just(nn.Unflatten(1, (1, shape[1], 1)))
        return linear if trained else linear | activations | unflatten
    with_parameters = _convolutions(shape)
    if trained:
        return with_parameters
    others = [activations, st.just(nn.Flatten()), _poolings(shape)]
    return st.one_of(with_parameters, *others, *([_UPSAMPLINGS] if max(shape[2:]) <= 6 else []))


@st.composite
def _convolutions(draw: st.DrawFn, shape: Shape) -> nn.Module:
    channels, out = shape[1], draw(st.integers(1, 4))
    kernel, stride = draw(_fitting(shape)), draw(st.integers(1, 2))
    padding, bias = min(draw(st.integers(0, 1)), (min(kernel) - 1) // 2), draw(st.booleans())
    if draw(st.booleans()) or max(shape[2:]) > 8:
        return nn.Conv2d(channels, out, kernel, stride, padding, bias=bias)
    extra = draw(st.integers(0, stride - 1))
    return nn.ConvTranspose2d(channels, out, kernel, stride, padding, extra, bias=bias)


def _fitting(shape: Shape) -> st.SearchStrategy[Pair]:
    """Kernel sizes that fit in an image."""
    return st.tuples(st.integers(1, min(3, shape[2])), st.integers(1, min(3, shape[3])))


@st.composite
def _poolings(draw: st.DrawFn, shape: Shape) -> nn.Module:
    layer: Callable[..., nn.Module] = draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))
    window = draw(_fitting(shape))
    stride, padding = draw(st.none() | _pairs(1, 2)), draw(st.integers(0, min(window) // 2))
    return layer(window, stride, padding, ceil_mode=draw(st.booleans()))


_UPSAMPLINGS = st.sampled_from(["nearest", "bilinear"]).map(lambda mode: nn.Upsample(scale_factor=2, mode=mode))
