"""The kernels for CuPy arrays, on a GPU. Importing this imports CuPy, so kernels/__init__.py does it only when needed.

Convolution is im2col written down, the textbook form: `im2col` in CUDA C makes the matrix, and the rest is a matrix
product (reference.py). Products are computed by cuBLAS; every other loop is CUDA C, in the *.cu files beside this one,
by the rules that common.cu states. `add` and the normalisation's kernels are the definitions, which run on CuPy's
operations. Source of im2col: K. Chellapilla, S. Puri, P. Simard, High performance convolutional neural networks for
document processing, 2006.

All arrays are C-contiguous here; arguments that are not are copied. The sizes of a launch depend on the shapes alone,
and each sum has a fixed order, so two runs give the same bits. CuPy compiles for speed with -ftz=true: float32 numbers
below the smallest normal one, 1.2e-38, count as 0. Nothing is read back from the GPU. An index outside of its plane
reads 0 and writes nothing.

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

from minidl.kernels import _arguments, reference
from minidl.kernels.geometry import ConvGeometry
from minidl.kernels.gpu import _cublas
from minidl.kernels.pool_geometry import PoolGeometry
from minidl.kernels.reference import add, moments, normalise, normalise_backward, normalise_sums  # noqa: F401
from minidl.kernels.resampling import Axis

Array = Any  # cupy.ndarray
Arrays = list[Array]

BLOCK = 256  # threads of a block
SUMMING_THREADS = 256  # threads of a block that sums: THREADS in sums.cu
MOST_BLOCKS = 2**16  # blocks of a launch; with more elements, each thread takes several
LARGEST_COLUMNS = 2**28  # elements of im2col's matrix; if there were more, the batch is taken in parts
VALUES = 2**14  # values that a block sums: 64 for each thread
SUMMING_BLOCKS = 2**10  # blocks that keep a GPU's memory busy
SECTOR = 8  # values that are read from memory together
WARP = 32  # threads whose neighbouring reads are combined
MANY = 2**17  # threads that keep a GPU's memory busy
SHARES = 8, 1024  # of a plane that `put` fills: at least, at most
NULL = np.uintp(0)  # the argument for "no array"

PARAMETERS = 64  # of one launch, as in optimisers.cu
LIST_OF_PARAMETERS = np.dtype(
    [("count", np.int64), ("ends", np.int64, PARAMETERS), *((name, np.uintp, PARAMETERS) for name in "pgmv")]
)

SOURCES = Path(__file__).parent
FOR_NUMBERS = "common", "pooling", "indexing"
FOR_FLOATS = *FOR_NUMBERS, "convolution", "resampling", "sums", "elementwise", "cross_entropy", "optimisers"
C_NAMES = {"float32": "float", "float64": "double"}
for bits, integer in ((8, "char"), (16, "short"), (32, "int"), (64, "long long")):
    C_NAMES |= {f"int{bits}": f"signed {integer}", f"uint{bits}": f"unsigned {integer}"}


# --- Launches -----------------------------------------------------------------------------------------------


def source(dtype: np.dtype) -> str:
    """The CUDA C of all kernels for elements of this type."""
    names = FOR_FLOATS if dtype.kind == "f" else FOR_NUMBERS
    files = [SOURCES / f"{name}.cu" for name in names]
    return "\n".join(f'#line 1 "{file.name}"\n{file.read_text(encoding="utf-8")}' for file in files)


@functools.cache
def _module(dtype: np.dtype) -> Any:
    """All kernels for one dtype. CuPy compiles them for each GPU that runs one, and caches them on disk."""
    return cupy.RawModule(code=source(dtype), options=("-std=c++17", f"-Dreal={C_NAMES[dtype.name]}"))


@functools.cache
def _kernel(name: str, dtype: np.dtype) -> Any:
    return _module(dtype).get_function(name)


def _launch(name: str, threads: int, dtype: np.dtype, *args: Any, block: int | None = None) -> None:
    """Launch a kernel with this many threads, or with fewer that do more each. Ints are passed as `int64`."""
    if threads:
        block = block or BLOCK
        blocks = min(-(-threads // block), MOST_BLOCKS)
        _kernel(name, dtype)((blocks,), (block,), tuple([np.int64(a) if type(a) is int else a for a in args]))


def _launch_blocks(name: str, blocks: int, dtype: np.dtype, *args: Any) -> None:
    """Launch a kernel whose blocks have a fixed size, with this many blocks, or with fewer that do more each."""
    _launch(name, blocks * SUMMING_THREADS, dtype, *args, block=SUMMING_THREADS)


def _plain(x: Array) -> Array:
    """x, or a C-contiguous copy: a kernel is only given an array's address."""
    return x if x.flags.c_contiguous else cupy.ascontiguousarray(x)


def _optional(x: Array | None) -> Any:
    return NULL if x is None else _plain(x)


# --- The matrix product -------------------------------------------------------------------------------------


def matmul(a: Array, b: Array, bias: Array | None = None) -> Array:
    """Matrix product (M, K) @ (K, N), plus bias (N,); a and b may be transposed in memory. Defined in reference.py."""
    _arguments.matrices(a, b)
    if not _floating(a):
        return reference.matmul(a, b, bias)
    _arguments.same_float("matmul", a, b)
    _arguments.bias_of("matmul", bias, b.shape[-1], a.dtype)
    c = _product(a, b)
    return c if bias is None else cupy.add(c, bias, out=c)


def _product(a: Array, b: Array) -> Array:
    """a @ b, each C- or, of two dimensions, F-contiguous."""
    c = cupy.empty((*a.shape[:-1], b.shape[-1]), a.dtype)
    a, b = (m if m.ndim == 2 and m.flags.f_contiguous else _plain(m) for m in (a, b))
    _cublas.multiply(*(m if m.ndim == 3 else m[None] for m in (a, b, c)))
    return c


def _multiply_each(a: Array, b: Array, c: Array) -> None:
    """c[n] = a @ b[n] for each image n: (M, K), (N, K, P) and (N, M, P)."""
    if b.shape[2] == 1:  # one pixel each: the images make one matrix
        b, c = (x.transpose(2, 1, 0) for x in (b, c))  # (1, K, N), (1, M, N)
    _cublas.multiply(cupy.broadcast_to(a, (len(b), *a.shape)), b, c)


# --- The convolutions ---------------------------------------------------------------------------------------


def conv2d(x: Array, w: Array, geometry: ConvGeometry, bias: Array | None = None) -> Array:
    """Convolution (N, C, H, W), (O, C, KH, KW), (O,) -> (N, O, OH, OW). Defined in reference.py."""
    _arguments.of_convolution(geometry, x=x, w=w)
    _arguments.bias_of("conv2d", bias, geometry.map_channels, x.dtype)
    y = cupy.empty(geometry.map_shape, x.dtype)
    x, matrix = _plain(x), _rows(w)
    for part in _parts(geometry):
        columns, pixels = _columns(x[part], geometry), _pixels(y[part])
        for o, k in _groups(geometry):
            _multiply_each(matrix[o], columns[:, k], pixels[:, o])
    _add_bias(y, bias)
    return y


def conv2d_input(y: Array, w: Array, geometry: ConvGeometry, bias: Array | None = None) -> Array:
    """Transposed convolution (N, O, OH, OW), (O, C, KH, KW), (C,) -> (N, C, H, W). Defined in reference.py."""
    _arguments.of_convolution(geometry, y=y, w=w)
    _arguments.bias_of("conv2d_input", bias, geometry.image_channels, y.dtype)
    x = cupy.empty(geometry.image_shape, y.dtype)
    y, matrix, direct = _plain(y), _rows(w), _is_columns(geometry)
    for part in _parts(geometry):
        images, pixels = x[part], _pixels(y[part])
        columns = _as_columns(images, geometry) if direct else _empty_columns(images, geometry)
        for o, k in _groups(geometry):
            _multiply_each(matrix[o].T, pixels[:, o], columns[:, k])
        if not direct:
            _add_columns(columns, bias, images, geometry)
    if direct:
        _add_bias(x, bias)
    return x


def conv2d_weight(x: Array, y: Array, geometry: ConvGeometry) -> Array:
    """Gradient in the weight (N, C, H, W), (N, O, OH, OW) -> (O, C, KH, KW). Defined in reference.py."""
    _arguments.of_convolution(geometry, x=x, y=y)
    x, y, w = _plain(x), _plain(y), cupy.empty(geometry.weight_shape, x.dtype)
    matrix = _rows(w)
    for part in _parts(geometry):
        left, right = _taps_first(_pixels(y[part])), _taps_first(_columns(x[part], geometry)).T  # (O, Q), (Q, K)
        for o, k in _groups(geometry):
            if part.start == 0:
                _cublas.multiply(left[None, o], right[None, :, k], matrix[None, o])
            else:
                matrix[o] += _product(left[o], right[:, k])
    if not geometry.batch:
        w[...] = 0
    return w


def im2col(x: Array, geometry: ConvGeometry) -> Array:
    """(N, C, H, W) -> (N, C*KH*KW, OH*OW). Defined in reference.py."""
    _arguments.of_convolution(geometry, x=x)
    return cupy.array(_columns(_plain(x), geometry), order="C")  # a copy, which shares no memory with x


def col2im(columns: Array, geometry: ConvGeometry) -> Array:
    """(N, C*KH*KW, OH*OW) -> (N, C, H, W). Defined in reference.py."""
    _arguments.same_float("col2im", columns)
    if _is_columns(geometry):
        return columns.reshape(geometry.image_shape).copy()
    x = cupy.empty(geometry.image_shape, columns.dtype)
    _add_columns(columns, None, x, geometry)
    return x


def _groups(geometry: ConvGeometry) -> Iterator[tuple[slice, slice]]:
    """For each group, the slice of the map's O channels, and of the K taps, that belong to it."""
    o, k = geometry.map_channels // geometry.groups, math.prod(geometry.weight_shape[1:])
    for g in range(geometry.groups):
        yield slice(g * o, (g + 1) * o), slice(g * k, (g + 1) * k)


def _add_columns(columns: Array, bias: Array | None, x: Array, geometry: ConvGeometry) -> None:
    """Fill images x with the sums of the columns (N, K, P) that meet each pixel, and a bias."""
    sizes = (len(x), geometry.image_channels, *_windows(geometry), *_steps(geometry))
    _launch("col2im", x.size, x.dtype, _plain(_taps_first(columns)), _optional(bias), x, *sizes)


def _columns(x: Array, geometry: ConvGeometry) -> Array:
    """im2col(x), (N, K, P): what each tap meets at each pixel of the map, the right matrix of the products."""
    if _is_columns(geometry):
        return _as_columns(x, geometry)
    columns = _empty_columns(x, geometry)
    n, c = x.shape[:2]
    threads = n * c * math.prod(geometry.map_size)
    _launch("im2col", threads, x.dtype, x, _taps_first(columns), n, c, *_windows(geometry))
    return columns


def _is_columns(geometry: ConvGeometry) -> bool:
    """Whether images are their own im2col: under a single window of their size, or under windows of one pixel."""
    sizes = geometry.kernel, geometry.map_size
    return geometry.padding == (0, 0) and geometry.image_size in sizes


def _as_columns(x: Array, geometry: ConvGeometry) -> Array:
    """(N, C, H, W) as (N, K, P)."""
    return x.reshape(len(x), x.shape[1] * math.prod(geometry.kernel), math.prod(geometry.map_size))


def _empty_columns(x: Array, geometry: ConvGeometry) -> Array:
    """(N, K, P) with the taps outermost in memory, so that all images together are also one matrix, (K, Q)."""
    k, p = x.shape[1] * math.prod(geometry.kernel), math.prod(geometry.map_size)
    return cupy.empty((k, len(x), p), x.dtype).transpose(1, 0, 2)


def _pixels(y: Array) -> Array:
    """(N, O, OH, OW) as (N, O, P)."""
    return y.reshape(*y.shape[:2], math.prod(y.shape[2:]))


def _taps_first(columns: Array) -> Array:
    """(N, K, P) as (K, Q): a copy if it does not lie so in memory."""
    n, k, p = columns.shape
    return columns.transpose(1, 0, 2).reshape(k, n * p)


def _rows(w: Array) -> Array:
    """(O, C, KH, KW) as (O, K)."""
    return _plain(w).reshape(w.shape[0], math.prod(w.shape[1:]))


def _add_bias(y: Array, bias: Array | None) -> None:
    """Add a bias to each channel of (N, O, OH, OW), in place."""
    if bias is not None:
        _launch("add_bias", y.size, y.dtype, y, _plain(bias), *y.shape[:2], math.prod(y.shape[2:]))


def _parts(geometry: ConvGeometry) -> Iterator[slice]:
    """The batch in parts, by the shapes alone: im2col of all of it could take more memory than there is."""
    rows = max(geometry.image_channels * math.prod(geometry.kernel), geometry.map_channels)
    images = max(1, LARGEST_COLUMNS // max(1, rows * math.prod(geometry.map_size)))
    for n in range(0, geometry.batch, images):
        yield slice(n, min(n + images, geometry.batch))


def _windows(g: ConvGeometry | PoolGeometry) -> tuple[int, ...]:
    """The arguments that common.cu calls WINDOWS."""
    return *g.image_size, *g.map_size, *g.kernel, *g.stride, *g.padding, *g.dilation


def _steps(geometry: ConvGeometry) -> tuple[int, ...]:
    """From one tap that meets a pixel to the next: how many taps forward, and how many pixels of the map back."""
    along = [(s, d, math.gcd(s, d)) for s, d in zip(geometry.stride, geometry.dilation, strict=True)]
    return *[s // common for s, _, common in along], *[d // common for _, d, common in along]


# --- Pooling ------------------------------------------------------------------------------------------------


def max_pool2d(x: Array, geometry: PoolGeometry) -> tuple[Array, Array]:
    """Maxima of windows (N, C, H, W) -> (N, C, OH, OW), and their flat indices. Defined in reference.py."""
    _arguments.of_pooling(x, geometry)
    _same_number("max_pool2d", x)
    y, indices = cupy.empty(geometry.map_shape, x.dtype), cupy.empty(geometry.map_shape, np.int64)
    planes = geometry.batch * geometry.image_channels
    _launch("max_pool2d", y.size, x.dtype, _plain(x), y, indices, planes, *_windows(geometry))
    return y, indices


def pick(x: Array, indices: Array) -> Array:
    """x at the indices: (N, C, H, W), (N, C, OH, OW) -> (N, C, OH, OW). Defined in reference.py."""
    _same_number("pick", x)
    _arguments.indices_of("pick", indices, x.shape[:2])
    y = cupy.empty(indices.shape, x.dtype)
    sizes = math.prod(x.shape[:2]), math.prod(x.shape[2:]), math.prod(indices.shape[2:])
    _launch("pick", y.size, x.dtype, _plain(x), _plain(indices), y, *sizes)
    return y


def put(y: Array, indices: Array, size: tuple[int, int]) -> Array:
    """Sums of y at the indices: (N, C, OH, OW) twice -> (N, C, H, W). Defined in reference.py."""
    _same_number("put", y)
    _arguments.indices_of("put", indices, y.shape)
    x = cupy.empty((*y.shape[:2], *size), y.dtype)
    planes, pixels = math.prod(y.shape[:2]), math.prod(size)
    least, most = SHARES  # few threads share a plane where there are many planes: each reads all indices
    shares = min(max(least, 2 ** max(0, (MANY // max(1, planes)).bit_length() - 1)), most)
    sizes = planes, pixels, math.prod(y.shape[2:]), shares
    _launch("put", planes * shares, y.dtype, _plain(y), _plain(indices), x, *sizes)
    return x


def _same_number(name: str, x: Array) -> None:
    if x.dtype.name not in C_NAMES:
        raise RuntimeError(f"{name}: expected an array of float32, float64 or integers on a GPU, got {x.dtype}")


def resample(x: Array, rows: Axis, columns: Axis) -> Array:
    """A linear map along the height and one along the width. Defined in reference.py."""
    _arguments.of_resampling(x, rows, columns)
    n, c, h, w = x.shape
    y = cupy.empty((n, c, rows.outputs, columns.outputs), x.dtype)
    matrices = *_on_device(rows, x.dtype), *_on_device(columns, x.dtype)
    _launch("resample", y.size, x.dtype, _plain(x), y, n * c, h, w, rows.outputs, columns.outputs, *matrices)
    return y


_copies: weakref.WeakKeyDictionary[Axis, dict[tuple[str, int], tuple[Array, ...]]] = weakref.WeakKeyDictionary()


def _on_device(axis: Axis, dtype: np.dtype) -> tuple[Array, ...]:
    """The starts, sources and weights of an axis on the GPU, kept there as long as the axis exists."""
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
    return _sums("sum_parts", [y], n, c, math.prod(size))


def total(x: Array, scale: float = 1.0) -> Array:
    """The sum of all elements, times `scale`, as a 0-d array."""
    _arguments.same_float("total", x)
    return _sums("sum_parts", [x], 1, 1, x.size, scale).reshape(())


def total_squared_error(x: Array, t: Array, scale: float = 1.0) -> Array:
    """The sum of (x - t)^2 over all elements, times `scale`, as a 0-d array."""
    _arguments.alike("total_squared_error", x, t)
    return _sums("sum_squared_errors", [x, t], 1, 1, x.size, scale).reshape(())


def total_logistic_loss(x: Array, t: Array, scale: float = 1.0) -> Array:
    """The sum of max(x, 0) - x t + ln(1 + e^-|x|) over all elements, times `scale`, as a 0-d array."""
    _arguments.alike("total_logistic_loss", x, t)
    return _sums("sum_logistic_losses", [x, t], 1, 1, x.size, scale).reshape(())


def _sums(kernel: str, arrays: list[Array], n: int, c: int, size: int, scale: float = 1.0) -> Array:
    """The sums of what a kernel computes from each element of (N, C, size) over its channel, times `scale`.

    Several blocks share each sum, enough to fill a GPU, each with enough work; a second launch adds up what they found.
    Few values need one launch, if it is the elements themselves that are summed.
    """
    dtype = arrays[0].dtype
    if not arrays[0].size:
        return cupy.full(c, 0 * scale, dtype)
    width = WARP if size < SECTOR else 1  # channels of a block
    blocks = -(-c // width)
    parts = max(1, min(-(-n * size * width // VALUES), SUMMING_BLOCKS // blocks))
    given, sums = [_plain(a) for a in arrays], cupy.empty(c, dtype)
    if kernel == "sum_parts" and parts == 1:
        _launch_blocks("sum_channels", blocks, dtype, *given, sums, n, c, size, width, float(scale))
        return sums
    partial = cupy.empty((c, parts), np.float64)
    _launch_blocks(kernel, blocks * parts, dtype, *given, partial, n, c, size, parts, width)
    _launch_blocks("join_parts", c, dtype, partial, sums, c, parts, float(scale))
    return sums


def add_at(y: Array, index: tuple[Any, ...], values: Array) -> None:
    """y[index] += values, in place, in order where an element is named several times. Defined in reference.py."""
    _same_number("add_at", y)
    positions = _plain(cupy.arange(y.size, dtype=np.int64).reshape(y.shape)[index])
    values = _plain(cupy.broadcast_to(values, positions.shape).astype(y.dtype, copy=False))
    if not positions.size:
        return
    work = _plain(y)
    positions = positions.reshape(-1)
    _launch("add_runs", positions.size, y.dtype, work, positions, cupy.argsort(positions), values, positions.size)
    if work is not y:
        y[...] = work


# --- Elementwise --------------------------------------------------------------------------------------------


def _floating(x: Array) -> bool:
    """Whether the kernels are compiled for this dtype; for others the definitions run, on CuPy's operations."""
    return x.dtype.char in "fd"


def _elementwise(name: str, *arrays: Array, numbers: tuple[Any, ...] = ()) -> Array:
    """The kernel of this name on arrays of one shape, and 0-d ones."""
    if not _floating(arrays[0]):
        return getattr(reference, name)(*arrays, *numbers)
    _arguments.alike(name, *arrays)
    dtype, out = arrays[0].dtype, cupy.empty(arrays[0].shape, arrays[0].dtype)
    numbers = tuple([dtype.type(x) if type(x) is float else x for x in numbers])
    _launch(name, out.size, dtype, *map(_plain, arrays), *numbers, out, out.size)
    return out


relu = functools.partial(_elementwise, "relu")
relu_backward = functools.partial(_elementwise, "relu_backward")
sigmoid = functools.partial(_elementwise, "sigmoid")
sigmoid_backward = functools.partial(_elementwise, "sigmoid_backward")
tanh_backward = functools.partial(_elementwise, "tanh_backward")
erf = functools.partial(_elementwise, "erf_kernel")  # the name of CUDA's own function is taken


def scaled_difference(x: Array, t: Array, scale: Array, factor: float) -> Array:
    """factor * scale * (x - t), with a 0-d scale, which stays on the GPU."""
    return _elementwise("scaled_difference", x, t, numbers=(scale, factor))


def scaled_logistic_difference(x: Array, t: Array, scale: Array, factor: float) -> Array:
    """factor * scale * (sigmoid(x) - t), with a 0-d scale, which stays on the GPU."""
    return _elementwise("scaled_logistic_difference", x, t, numbers=(scale, factor))


def cross_entropy(x: Array, classes: Array) -> Array:
    """(N, C, ...), (N, ...) -> (N, ...), NaN for a class that does not exist. Defined in reference.py."""
    _arguments.same_float("cross_entropy", x)
    y = cupy.empty(classes.shape, x.dtype)
    _launch("cross_entropy", y.size, x.dtype, _plain(x), _classes(classes), y, *_samples(x))
    return y


def cross_entropy_backward(gy: Array, x: Array, classes: Array) -> Array:
    """(N, ...), (N, C, ...), (N, ...) -> (N, C, ...). Defined in reference.py."""
    _arguments.same_float("cross_entropy_backward", gy, x)
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


def adam_step(ps: Arrays, gs: Arrays, ms: Arrays, vs: Arrays, rate_and_root: Any, *settings: float) -> None:
    """One step of Adam for all parameters in one pass over memory. Defined in reference.py."""
    beta1, beta2, eps, weight_decay = settings
    scalars = 1 - beta1, beta2, 1 - beta2, eps, weight_decay, np.finfo(ps[0].dtype).tiny
    _in_place("adam_step", "adam", (ps, gs, ms, vs), rate_and_root, scalars)


def sgd_step(ps: Arrays, gs: Arrays, bufs: Arrays | None, lr: float | Array, *settings: float) -> None:
    """One step of SGD for all parameters in one pass over memory. Defined in reference.py."""
    momentum, dampening, nesterov, weight_decay = settings
    if bufs is None:
        _in_place("sgd_step", "sgd", (ps, gs), lr, (weight_decay,))
        return
    scalars = momentum, 1 - dampening, bool(nesterov), weight_decay, np.finfo(ps[0].dtype).tiny
    _in_place("sgd_step", "sgd_momentum", (ps, gs, bufs), lr, scalars)


def _in_place(name: str, kernel: str, lists: tuple[Arrays, ...], changing: Any, scalars: tuple[Any, ...]) -> None:
    """Run a step on lists of arrays, parameters and gradients first, and write back those that had to be copied.

    `changing` holds the numbers that change from step to step: floats, or a buffer, which a captured graph reads anew
    at each replay.
    """
    buffer, first = (changing, np.zeros(changing.size)) if isinstance(changing, cupy.ndarray) else (None, changing)
    for arrays in zip(*lists, strict=True):
        _arguments.alike(name, *arrays)
    _arguments.same_float(name, *lists[0])
    if buffer is not None and buffer.dtype != np.float64:
        raise RuntimeError(f"{name}: a buffer of learning rates must be float64, not {buffer.dtype}")
    dtype = lists[0][0].dtype
    numbers = [int(s) if type(s) is bool else dtype.type(s) for s in (*np.ravel(first), *scalars)]
    for start in range(0, len(lists[0]), PARAMETERS):
        given = [arrays[start : start + PARAMETERS] for arrays in lists]
        work = [[_plain(a) for a in arrays] for arrays in given]
        elements = sum(p.size for p in work[0])
        _launch(kernel, elements, dtype, _parameters(work), _optional(buffer), *numbers)
        for i in (0, *range(2, len(work))):  # all but the gradients
            for array, copy in zip(given[i], work[i], strict=True):
                if copy is not array:
                    array[...] = copy


def _parameters(lists: list[Arrays]) -> Any:
    """The struct Parameters of optimisers.cu, as CuPy passes a struct by value: an array of one element."""
    table = np.zeros(1, LIST_OF_PARAMETERS)
    table["count"] = len(lists[0])
    table["ends"][0, : len(lists[0])] = np.cumsum([p.size for p in lists[0]])
    for name, arrays in zip("pgmv", lists, strict=False):
        table[name][0, : len(arrays)] = [a.data.ptr for a in arrays]
    return table
