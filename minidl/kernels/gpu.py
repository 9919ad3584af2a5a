"""The kernels for arrays of CuPy, on a GPU. Importing this imports CuPy, so kernels/__init__.py does it when asked.

Matrix products are cuBLAS's; every other loop is written in CUDA C, in the files cuda/*.cu, whose first one says by
which rules. All arrays are C-contiguous here: arguments that are not are copied, results are. The sizes of a launch
depend on the shapes alone, and each sum has a fixed order, so two runs give the same bits.

CuPy compiles for speed with -ftz=true: numbers of float32 below the smallest normal one, 1.2e-38, count as 0.

Nothing is read back from the GPU, with one exception: `pick` and `put` ask whether all indices named a pixel, unless
the stream is being recorded into a graph; then a bad index reads 0 and writes nothing.

Letters: as in reference.py. Q pixels of all maps, N*OH*OW; K taps under a window, C*KH*KW.
"""

import functools
import math
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cupy  # type: ignore[import-not-found]
import numpy as np

from minidl.kernels import reference
from minidl.kernels.cpu import _check, same_float
from minidl.kernels.cpu_elementwise import _alike
from minidl.kernels.cpu_pooling import _check_indices
from minidl.kernels.geometry import ConvGeometry
from minidl.kernels.pool_geometry import PoolGeometry, refuse_bad_index
from minidl.kernels.reference import adam_changing
from minidl.kernels.resampling import Axis

Array = Any  # cupy.ndarray

BLOCK = 256  # threads of a block
MOST_BLOCKS = 2**16  # of a launch; a thread then takes several elements
LARGEST_COLUMNS = 2**28  # elements: a convolution with more takes a part of the batch at a time
FEW = 256  # values that one thread sums
SECTOR = 8  # values that memory reads together
MANY = 2**17  # threads that keep a GPU's memory busy
SHARES = 8, 1024  # of a plane that `put` fills: at least, at most
NULL = np.uintp(0)  # as an argument: no array

SOURCES = Path(__file__).parent / "cuda"
FOR_NUMBERS = "common", "pooling", "indexing"
FOR_FLOATS = *FOR_NUMBERS, "convolution", "resampling", "sums", "elementwise", "cross_entropy", "optimisers"
C_NAMES = {
    "float32": "float",
    "float64": "double",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "uint32": "unsigned int",
    "uint64": "unsigned long long",
}


# --- Launches -----------------------------------------------------------------------------------------------


def source(dtype: np.dtype) -> str:
    """The CUDA C of all kernels for elements of this type."""
    names = FOR_FLOATS if dtype.kind == "f" else FOR_NUMBERS
    files = [SOURCES / f"{name}.cu" for name in names]
    return "\n".join(f'#line 1 "{file.name}"\n{file.read_text(encoding="utf-8")}' for file in files)


@functools.cache
def _module(dtype: np.dtype) -> Any:
    """The kernels, which CuPy compiles for each GPU that runs one, and keeps on disk."""
    return cupy.RawModule(code=source(dtype), options=("-std=c++17", f"-Dreal={C_NAMES[dtype.name]}"))


@functools.cache
def _kernel(name: str, dtype: np.dtype) -> Any:
    return _module(dtype).get_function(name)


def _launch(name: str, threads: int, dtype: np.dtype, *args: Any) -> None:
    """Start a kernel with so many threads, or fewer with more to do each. Ints become `int64` there."""
    if threads:
        blocks = min(-(-threads // BLOCK), MOST_BLOCKS)
        _kernel(name, dtype)((blocks,), (BLOCK,), tuple([np.int64(a) if type(a) is int else a for a in args]))


def _plain(x: Array) -> Array:
    """x, or a C-contiguous copy: a kernel sees only where an array begins."""
    return x if x.flags.c_contiguous else cupy.ascontiguousarray(x)


def _optional(x: Array | None) -> Any:
    return NULL if x is None else _plain(x)


def _capturing() -> bool:
    return bool(cupy.cuda.get_current_stream().is_capturing())


# --- The matrix product -------------------------------------------------------------------------------------


def matmul(a: Array, b: Array, bias: Array | None = None) -> Array:
    """Matrix product (M, K) @ (K, N), plus bias (N,); a and b may be transposed in memory. Defined in reference.py."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise RuntimeError(f"matmul: shapes {a.shape} and {b.shape} cannot be multiplied")
    if not _floating(a):
        return reference.matmul(a, b, bias)
    same_float("matmul", a, b)
    _check_bias("matmul", bias, b.shape[1], a.dtype)
    c = _product(a, b)
    return c if bias is None else cupy.add(c, bias, out=c)


def _product(a: Array, b: Array) -> Array:
    """a @ b, by cuBLAS, which takes both C and Fortran order."""
    if not a.size or not b.size:
        return cupy.zeros((a.shape[0], b.shape[1]), a.dtype)
    a, b = (m if m.flags.f_contiguous else _plain(m) for m in (a, b))
    return cupy.dot(a, b)


def _check_bias(name: str, bias: Array | None, columns: int, dtype: np.dtype) -> None:
    if bias is not None and (bias.shape != (columns,) or bias.dtype != dtype):
        raise RuntimeError(f"{name}: expected a bias of shape ({columns},), {dtype}, not {bias.shape}, {bias.dtype}")


# --- The convolutions ---------------------------------------------------------------------------------------


def conv2d(x: Array, w: Array, geometry: ConvGeometry, bias: Array | None = None) -> Array:
    """Convolution (N, C, H, W), (O, C, KH, KW), (O,) -> (N, O, OH, OW). Defined in reference.py."""
    _check(geometry, x=x, w=w)
    _check_bias("conv2d", bias, geometry.map_channels, x.dtype)
    o, y = geometry.map_channels, cupy.empty(geometry.map_shape, x.dtype)
    x, matrix, start = _plain(x), _matrix(w), _optional(bias)
    for part in _parts(geometry):
        products = _product(matrix, _columns(x[part], geometry))  # (O, Q)
        images = y[part]
        _launch("separate_images", images.size, x.dtype, products, start, images, len(images), o, _map_pixels(geometry))
    return y


def conv2d_input(y: Array, w: Array, geometry: ConvGeometry, bias: Array | None = None) -> Array:
    """Transposed convolution (N, O, OH, OW), (O, C, KH, KW), (C,) -> (N, C, H, W). Defined in reference.py."""
    _check(geometry, y=y, w=w)
    _check_bias("conv2d_input", bias, geometry.image_channels, y.dtype)
    x = cupy.empty(geometry.image_shape, y.dtype)
    matrix, start = _matrix(w), _optional(bias)
    for part in _parts(geometry):
        columns, images = _product(matrix.T, _maps(y[part])), x[part]  # columns (K, Q)
        sizes = (len(images), geometry.image_channels, *_windows(geometry), *_steps(geometry))
        _launch("col2im", images.size, y.dtype, columns, start, images, *sizes)
    return x


def conv2d_weight(x: Array, y: Array, geometry: ConvGeometry) -> Array:
    """Gradient in the weight (N, C, H, W), (N, O, OH, OW) -> (O, C, KH, KW). Defined in reference.py."""
    _check(geometry, x=x, y=y)
    x = _plain(x)
    products = [_product(_maps(y[part]), _columns(x[part], geometry).T) for part in _parts(geometry)]  # (O, K) each
    if not products:
        return cupy.zeros(geometry.weight_shape, x.dtype)
    w = products[0]
    for product in products[1:]:
        w += product
    return w.reshape(geometry.weight_shape)


def _columns(x: Array, geometry: ConvGeometry) -> Array:
    """What each tap meets, (K, Q): the left matrix of a convolution's product, written down."""
    n, c = x.shape[:2]
    q = n * _map_pixels(geometry)
    columns = cupy.empty((c * math.prod(geometry.kernel), q), x.dtype)
    _launch("im2col", c * q, x.dtype, x, columns, n, c, *_windows(geometry))
    return columns


def _maps(y: Array) -> Array:
    """(N, O, OH, OW) as (O, Q)."""
    return _matrix(y.transpose(1, 0, 2, 3))


def _matrix(w: Array) -> Array:
    """The first axis against all others: (O, C, KH, KW) as (O, K)."""
    return _plain(w).reshape(w.shape[0], math.prod(w.shape[1:]))


def _parts(geometry: ConvGeometry) -> Iterator[slice]:
    """The batch in parts, by the shapes alone; the columns of all of it could take more memory than there is."""
    rows = max(geometry.image_channels * math.prod(geometry.kernel), geometry.map_channels)
    images = max(1, LARGEST_COLUMNS // max(1, rows * _map_pixels(geometry)))
    for n in range(0, geometry.batch, images):
        yield slice(n, min(n + images, geometry.batch))


def _map_pixels(geometry: ConvGeometry) -> int:
    return math.prod(geometry.map_size)


def _windows(g: ConvGeometry | PoolGeometry) -> tuple[int, ...]:
    """What common.cu calls WINDOWS."""
    return *g.image_size, *g.map_size, *g.kernel, *g.stride, *g.padding, *g.dilation


def _steps(geometry: ConvGeometry) -> tuple[int, ...]:
    """From one tap that meets a pixel to the next: how many taps on, and how many pixels of the map back."""
    along = [(s, d, math.gcd(s, d)) for s, d in zip(geometry.stride, geometry.dilation, strict=True)]
    return *[s // common for s, _, common in along], *[d // common for _, d, common in along]


# --- Pooling ------------------------------------------------------------------------------------------------


def max_pool2d(x: Array, geometry: PoolGeometry) -> tuple[Array, Array]:
    """Maxima of windows (N, C, H, W) -> (N, C, OH, OW), and their flat indices. Defined in reference.py."""
    if x.shape != geometry.image_shape:
        raise RuntimeError(f"max_pool2d: x has shape {x.shape}, but its geometry says {geometry.image_shape}")
    _same_number("max_pool2d", x)
    y, indices = cupy.empty(geometry.map_shape, x.dtype), cupy.empty(geometry.map_shape, np.int64)
    planes = geometry.batch * geometry.channels
    _launch("max_pool2d", y.size, x.dtype, _plain(x), y, indices, planes, *_windows(geometry))
    return y, indices


def pick(x: Array, indices: Array) -> Array:
    """x at the indices: (N, C, H, W), (N, C, OH, OW) -> (N, C, OH, OW). Defined in reference.py."""
    _same_number("pick", x)
    _check_indices("pick", indices, x.shape[:2])
    y, bad = cupy.empty(indices.shape, x.dtype), _no_bad_index()
    sizes = math.prod(x.shape[:2]), math.prod(x.shape[2:]), math.prod(indices.shape[2:])
    _launch("pick", y.size, x.dtype, _plain(x), _plain(indices), y, bad, *sizes)
    _refuse_bad_index(bad, indices, x.shape[2:])
    return y


def put(y: Array, indices: Array, size: tuple[int, int]) -> Array:
    """Sums of y at the indices: (N, C, OH, OW) twice -> (N, C, H, W). Defined in reference.py."""
    _same_number("put", y)
    _check_indices("put", indices, y.shape)
    x, bad = cupy.empty((*y.shape[:2], *size), y.dtype), _no_bad_index()
    planes, pixels = math.prod(y.shape[:2]), math.prod(size)
    shares = _shares(planes)
    sizes = planes, pixels, math.prod(y.shape[2:]), shares
    _launch("put", planes * shares, y.dtype, _plain(y), _plain(indices), x, bad, *sizes)
    _refuse_bad_index(bad, indices, size)
    return x


def _shares(planes: int) -> int:
    """Among how many threads `put` divides a plane: few where there are many planes, since each reads all indices."""
    least, most = SHARES
    wanted = MANY // max(1, planes)
    return min(max(least, 2 ** max(0, wanted.bit_length() - 1)), most)


def _no_bad_index() -> Any:
    """What a kernel tells a bad index in, if it may be read afterwards."""
    return NULL if _capturing() else cupy.zeros(1, np.int64)


def _refuse_bad_index(bad: Any, indices: Array, size: tuple[int, int]) -> None:
    if bad is not NULL and bad.item():
        refuse_bad_index(cupy.asnumpy(indices), size)


def _same_number(name: str, x: Array) -> None:
    if x.dtype.name not in C_NAMES:
        raise RuntimeError(f"{name}: expected an array of float32, float64 or integers on a GPU, got {x.dtype}")


def resample(x: Array, rows: Axis, columns: Axis) -> Array:
    """A linear map along the height and one along the width. Defined in reference.py."""
    same_float("resample", x)
    n, c, h, w = x.shape
    if (h, w) != (rows.inputs, columns.inputs):
        raise RuntimeError(f"resample: x has shape {x.shape}, but its axes say {rows.inputs} x {columns.inputs}")
    y = cupy.empty((n, c, rows.outputs, columns.outputs), x.dtype)
    matrices = *_on_device(rows, x.dtype), *_on_device(columns, x.dtype)
    _launch("resample", y.size, x.dtype, _plain(x), y, n * c, h, w, rows.outputs, columns.outputs, *matrices)
    return y


_copies: weakref.WeakKeyDictionary[Axis, dict[tuple[str, int], tuple[Array, ...]]] = weakref.WeakKeyDictionary()


def _on_device(axis: Axis, dtype: np.dtype) -> tuple[Array, ...]:
    """The starts, sources and weights of an axis on the GPU, where they stay as long as the axis is there."""
    kept = _copies.setdefault(axis, {})
    key = dtype.char, cupy.cuda.runtime.getDevice()
    if key not in kept:
        kept[key] = tuple(cupy.asarray(a) for a in (axis.starts, axis.sources, axis.weights_as(dtype)))
    return kept[key]


# --- Sums ---------------------------------------------------------------------------------------------------


def channel_sums(y: Array) -> Array:
    """The sum of each channel of (N, C, H, W) or (N, C), as (C,). Defined in reference.py."""
    if not _floating(y):
        return reference.channel_sums(y)
    n, c, *size = y.shape
    return _sums(_plain(y), n, c, math.prod(size))


def total(x: Array) -> Array:
    """The sum of all elements, as a 0-d array."""
    same_float("total", x)
    return _sums(_plain(x), 1, 1, x.size).reshape(())


def _sums(y: Array, n: int, c: int, size: int) -> Array:
    """The sums of the channels of y (N, C, size), in one launch to three."""
    if not y.size:
        return cupy.zeros(c, y.dtype)
    sums = cupy.empty(c, y.dtype)
    if n * size <= FEW:
        _launch("sum_channels", c, y.dtype, y, sums, n, c, size)
        return sums
    pieces = _pieces(n * size, c)
    partial = cupy.empty((c, pieces), np.float64)
    _launch("sum_pieces", partial.size, y.dtype, y, partial, n, c, size, pieces, int(size < SECTOR))
    if pieces > 4 * FEW:
        folded = cupy.empty((c, FEW), np.float64)
        _launch("fold_pieces", folded.size, y.dtype, partial, folded, c, pieces, FEW)
        partial, pieces = folded, FEW
    _launch("join_pieces", c, y.dtype, partial, sums, c, pieces)
    return sums


def _pieces(values: int, channels: int) -> int:
    """Into how many pieces the values of each channel are dealt: enough for all threads, of 32 values at least."""
    return max(1, min(-(-values // 32), MANY // channels))


def add_at(y: Array, index: tuple[Any, ...], values: Array) -> None:
    """y[index] += values, in place, in order where a place comes several times. Defined in reference.py."""
    _same_number("add_at", y)
    places = _plain(cupy.arange(y.size, dtype=np.int64).reshape(y.shape)[index])
    values = _plain(cupy.broadcast_to(values, places.shape).astype(y.dtype, copy=False))
    if not places.size:
        return
    work = _plain(y)
    places = places.reshape(-1)
    _launch("add_runs", places.size, y.dtype, work, places, cupy.argsort(places), values, places.size)
    if work is not y:
        y[...] = work


# --- Elementwise --------------------------------------------------------------------------------------------


def _floating(x: Array) -> bool:
    """Whether the kernels are compiled for this type; for others the definitions, with CuPy's operations, serve."""
    return x.dtype.char in "fd"


def _elementwise(name: str, *arrays: Array, numbers: tuple[Array, ...] = ()) -> Array:
    """The kernel of this name on arrays of one shape, and 0-d ones."""
    if not _floating(arrays[0]):
        return getattr(reference, name)(*arrays, *numbers)
    _alike(name, *arrays)
    dtype, out = arrays[0].dtype, cupy.empty(arrays[0].shape, arrays[0].dtype)
    _launch(name, out.size, dtype, *map(_plain, arrays), *numbers, out, out.size)
    return out


def relu(x: Array) -> Array:
    """max(x, 0); NaN stays NaN."""
    return _elementwise("relu", x)


def relu_backward(gy: Array, y: Array) -> Array:
    """gy where y > 0, else 0."""
    return _elementwise("relu_backward", gy, y)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))"""
    return _elementwise("sigmoid", x)


def sigmoid_backward(gy: Array, y: Array) -> Array:
    """gy * y * (1 - y)"""
    return _elementwise("sigmoid_backward", gy, y)


def tanh_backward(gy: Array, y: Array) -> Array:
    """gy * (1 - y*y)"""
    return _elementwise("tanh_backward", gy, y)


def squared_error(x: Array, t: Array) -> Array:
    """(x - t)^2"""
    return _elementwise("squared_error", x, t)


def scaled_difference(x: Array, t: Array, scale: Array) -> Array:
    """scale * (x - t), with a 0-d scale, which stays on the GPU."""
    return _elementwise("scaled_difference", x, t, numbers=(scale,))


def cross_entropy(x: Array, classes: Array) -> Array:
    """(N, C, ...), (N, ...) -> (N, ...), NaN for a class that does not exist. Defined in reference.py."""
    same_float("cross_entropy", x)
    y = cupy.empty(classes.shape, x.dtype)
    _launch("cross_entropy", y.size, x.dtype, _plain(x), _classes(classes), y, *_samples(x))
    return y


def cross_entropy_backward(gy: Array, x: Array, classes: Array) -> Array:
    """(N, ...), (N, C, ...), (N, ...) -> (N, C, ...). Defined in reference.py."""
    same_float("cross_entropy_backward", gy, x)
    gx = cupy.empty(x.shape, x.dtype)
    arrays = _plain(gy), _plain(x), _classes(classes)
    _launch("cross_entropy_backward", classes.size, x.dtype, *arrays, gx, *_samples(x))
    return gx


def _classes(classes: Array) -> Array:
    return _plain(classes.astype(np.int64, copy=False))


def _samples(x: Array) -> tuple[int, int, int]:
    """N, C and the number of samples of each image."""
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])


# --- Optimisers ---------------------------------------------------------------------------------------------


def adam_step(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
    changing: Array | None = None,
) -> None:
    """One step of Adam in one pass over memory. Defined in reference.py.

    Parameters
    ----------
    changing : (2,) float64 array on the GPU, optional
        What `adam_changing` returns, in place of `lr` and `step`: a recorded graph reads it at each replay.
    """
    rate, root = adam_changing(lr, beta1, beta2, step) if changing is None else (0.0, 0.0)
    scalars = rate, root, 1 - beta1, beta2, 1 - beta2, eps, weight_decay, np.finfo(p.dtype).tiny
    _in_place("adam_step", "adam", (p, m, v), g, changing, scalars)


def sgd_step(
    p: Array,
    g: Array,
    buf: Array | None,
    lr: float,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
    changing: Array | None = None,
) -> None:
    """One step of SGD in one pass over memory. Defined in reference.py.

    Parameters
    ----------
    changing : (1,) float64 array on the GPU, optional
        In place of `lr`: a recorded graph reads it at each replay.
    """
    if buf is None:
        _in_place("sgd_step", "sgd", (p,), g, changing, (lr, weight_decay))
        return
    scalars = lr, momentum, 1 - dampening, bool(nesterov), weight_decay, np.finfo(p.dtype).tiny
    _in_place("sgd_step", "sgd_momentum", (p, buf), g, changing, scalars)


def _in_place(
    name: str, kernel: str, written: tuple[Array, ...], g: Array, changing: Array | None, scalars: tuple[Any, ...]
) -> None:
    """Run a step on the arrays, the parameter first, and write back those that had to be copied."""
    _alike(name, *written, g)
    if changing is not None and changing.dtype != np.float64:
        raise RuntimeError(f"{name}: `changing` must be float64, not {changing.dtype}")
    p, *state = map(_plain, written)
    numbers = [int(s) if type(s) is bool else g.dtype.type(s) for s in scalars]
    _launch(kernel, g.size, g.dtype, p, _plain(g), *state, _optional(changing), *numbers, g.size)
    for array, work in zip(written, (p, *state), strict=True):
        if work is not array:
            array[...] = work
