"""Checks of the arguments that the CPU's and the GPU's kernels share: compiled loops check no bounds themselves."""

from typing import Any

import numpy as np

from minidl.kernels.geometry import ConvGeometry
from minidl.kernels.pool_geometry import PoolGeometry
from minidl.kernels.resampling import Axis

Array = Any  # of NumPy or CuPy


def same_float(name: str, first: Array, *others: Array) -> None:
    """Reject dtypes that would trigger a recompilation or cannot be compiled. Runs on every call, so it is cheap."""
    kind = first.dtype
    for array in others:
        if array.dtype != kind:
            break
    else:
        if kind.char in "fd":
            return
    found = ", ".join(str(a.dtype) for a in (first, *others))
    raise RuntimeError(f"{name}: expected arrays of one type, float32 or float64, got {found}")


def alike(name: str, *arrays: Array) -> None:
    """Reject arrays that differ in shape or dtype."""
    same_float(name, *arrays)
    for array in arrays:
        if array.shape != arrays[0].shape:
            raise RuntimeError(f"{name}: shapes differ: {', '.join(str(a.shape) for a in arrays)}")


def matrices(a: Array, b: Array) -> None:
    """Reject a product that does not exist: of two matrices, or of two batches (N, M, K) and (N, K, P)."""
    if a.ndim not in (2, 3) or a.shape[-1:] != b.shape[-2:-1] or a.shape[:-2] != b.shape[:-2]:
        raise RuntimeError(f"matmul: shapes {a.shape} and {b.shape} cannot be multiplied")


def bias_of(name: str, bias: Array | None, columns: int, dtype: np.dtype) -> None:
    """Reject a bias of another shape than (columns,), or another dtype."""
    if bias is not None and (bias.shape != (columns,) or bias.dtype != dtype):
        raise RuntimeError(f"{name}: expected a bias of shape ({columns},), {dtype}, not {bias.shape}, {bias.dtype}")


def of_convolution(geometry: ConvGeometry, **arrays: Array) -> None:
    """Reject an image `x`, a weight `w` or a map `y` of another shape than the geometry's."""
    expected = {"x": geometry.image_shape, "w": geometry.weight_shape, "y": geometry.map_shape}
    for name, array in arrays.items():
        if array.shape != expected[name]:
            raise RuntimeError(f"convolution: {name} has shape {array.shape}, but its geometry says {expected[name]}")
    same_float("convolution", *arrays.values())


def of_pooling(x: Array, geometry: PoolGeometry) -> None:
    """Reject an image of another shape than the geometry's."""
    if x.shape != geometry.image_shape:
        raise RuntimeError(f"max_pool2d: x has shape {x.shape}, but its geometry says {geometry.image_shape}")


def indices_of(name: str, indices: Array, shape: tuple[int, ...]) -> None:
    """Reject indices that are not int64, or whose shape does not begin so."""
    if indices.dtype != np.int64 or indices.shape[: len(shape)] != shape:
        raise RuntimeError(f"{name}: indices must be int64 of shape {shape}, not {indices.dtype} of {indices.shape}")


def of_resampling(x: Array, rows: Axis, columns: Axis) -> None:
    """Reject an image of another size than the two axes'."""
    same_float("resample", x)
    if x.shape[2:] != (rows.inputs, columns.inputs):
        raise RuntimeError(f"resample: x has shape {x.shape}, but its axes say {rows.inputs} x {columns.inputs}")
