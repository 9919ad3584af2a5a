"""The speed of each GPU kernel on large inputs, relative to the GPU's copy bandwidth and matrix product.

    python benchmarks/gpu_kernels.py

README.md explains the columns of its table.
"""

import argparse
import importlib
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import common
import numpy as np
from common import spread

HEADER = ("kernel", "arguments", "ms [min, max]", "GB/s", "of copy", "GFLOP/s", "of product")
WANTED = 0.7  # of the bandwidth of a copy
COPIED, SIDE = 2**30, 8192  # bytes of the copy and side of the square matrices that determine the GPU's limits
ELEMENTWISE = {  # number of array arguments
    "add": 2,
    "erf": 1,
    "relu": 1,
    "relu_backward": 2,
    "sigmoid": 1,
    "sigmoid_backward": 2,
    "tanh_backward": 2,
}
IN_PLACE = {"adam_step": (0, 2, 3), "sgd_step": (0, 2), "add_at": (0,)}  # the arguments that each changes in place
CHANNELS, MAPS, PIXELS, CLASSES = 16, 32, 28, 10  # PIXELS along each axis


class Case(NamedTuple):
    """A call, the bytes that it must read and write, and its operations if it is bound by arithmetic."""

    kernel: str
    arguments: str
    call: Callable[[], Any]
    bytes: int
    flops: int = 0


class Cases:
    """Every kernel of `gpu`, a module like minidl/kernels/gpu/kernels.py, on arrays of about `elements` elements."""

    def __init__(self, gpu: Any, cupy: Any, elements: int) -> None:
        self.gpu, self.cupy, self.elements = gpu, cupy, elements
        self.numbers = np.random.default_rng(0).standard_normal(elements, np.float32)
        self.images = max(1, elements // (CHANNELS * PIXELS**2))

    def __iter__(self) -> Iterator[Case]:
        """Yield the cases one by one, so that only one case's arrays are in memory."""
        yield from self._elementwise()
        yield from self._sums()
        yield from self._cross_entropies()
        yield from self._pooling()
        yield from self._resampling()
        yield from self._norms()
        yield from self._optimisers()
        yield self._adding()
        yield self._product()
        yield from self._convolutions()

    def array(self, *shape: int) -> Any:
        """Normally distributed numbers."""
        return self.cupy.asarray(np.resize(self.numbers, shape))

    def integers(self, most: int, *shape: int) -> Any:
        return self.cupy.asarray(np.random.default_rng(0).integers(0, most, shape))

    def of(self, kernel: str, *args: Any, flops: int = 0) -> Case:
        call = partial(getattr(self.gpu, kernel), *args)
        result = call()
        written = [result, *(args[i] for i in IN_PLACE.get(kernel, ()))]
        return Case(kernel, described(args), call, size((*args, *written)), flops)

    def _elementwise(self) -> Iterator[Case]:
        for name, count in ELEMENTWISE.items():
            yield self.of(name, *(self.array(self.elements) for _ in range(count)))
        for name in ("scaled_difference", "scaled_logistic_difference"):
            yield self.of(name, self.array(self.elements), self.array(self.elements), self.array(), 2.0)

    def _sums(self) -> Iterator[Case]:
        yield self.of("total", self.array(self.elements))
        for name in ("total_squared_error", "total_logistic_loss"):
            yield self.of(name, self.array(self.elements), self.array(self.elements))
        yield self.of("channel_sums", self.array(self.images, CHANNELS, PIXELS, PIXELS))
        yield self.of("channel_sums", self.array(self.elements // MAPS, MAPS))

    def _norms(self) -> Iterator[Case]:
        x, *numbers = self.array(self.images, CHANNELS, PIXELS, PIXELS), *(self.array(CHANNELS) for _ in range(4))
        yield self.of("moments", x)
        yield self.of("normalise", x, *numbers[:3])
        yield self.of("normalise_sums", x, x, numbers[0])
        yield self.of("normalise_backward", x, x, *numbers)

    def _cross_entropies(self) -> Iterator[Case]:
        n = self.elements // CLASSES
        x, classes = self.array(n, CLASSES), self.integers(CLASSES, n)
        yield self.of("cross_entropy", x, classes)
        yield self.of("cross_entropy_backward", self.array(n), x, classes)

    def _pooling(self) -> Iterator[Case]:
        from minidl.kernels import PoolGeometry

        x = self.array(self.images, CHANNELS, PIXELS, PIXELS)
        geometry = PoolGeometry.of_max_pool2d(x.shape, 2)
        yield self.of("max_pool2d", x, geometry)
        y, indices = self.gpu.max_pool2d(x, geometry)
        yield self.of("pick", x, indices)  # reads all of x: a memory transaction is larger than a window
        del x
        yield self.of("put", y, indices, (PIXELS, PIXELS))

    def _resampling(self) -> Iterator[Case]:
        from minidl.kernels.resampling import axis_of

        half = PIXELS // 2
        for mode, up in ((mode, axis_of(mode, half, PIXELS)) for mode in ("nearest", "bilinear")):
            for axis in (up, up.T):
                case = self.of("resample", self.array(self.images, CHANNELS, axis.inputs, axis.inputs), axis, axis)
                yield case._replace(arguments=f"{case.arguments}, {mode} to {axis.outputs}")

    def _optimisers(self) -> Iterator[Case]:
        """Two parameters, a large one and a small one."""
        p, g, m = ([self.array(size) for size in (self.elements - 9, 9)] for _ in range(3))
        yield self.of("sgd_step", p, g, m, 1e-3, 0.9, 0.0, False, 0.0)
        v = [x * x for x in m]
        yield self.of("adam_step", p, g, m, v, (1e-2, 0.03), 0.9, 0.999, 1e-8, 0.0)

    def _adding(self) -> Case:
        """Add at random places, one in eight on average."""
        n = self.elements // 8
        y, places, values = self.array(self.elements), self.integers(self.elements, n), self.array(n)
        # Only the indexed elements of y must be read and written, not all of it.
        case = self.of("add_at", y, (places,), values)
        return case._replace(bytes=size((places, values, values, values)))

    def _product(self) -> Case:
        side = 2 ** (int(math.log2(self.elements)) // 2)
        return self.of("matmul", self.array(side, side), self.array(side, side), flops=2 * side**3)

    def _convolutions(self) -> Iterator[Case]:
        """Each convolution as a whole, and the kernels that it launches."""
        from minidl.kernels import ConvGeometry

        n = max(1, self.images // 9)  # so that the columns have about `elements` elements
        geometry = ConvGeometry.of_conv2d((n, CHANNELS, PIXELS, PIXELS), (MAPS, CHANNELS, 3, 3), 1, 1, 1)
        yield self.of("im2col", self.array(*geometry.image_shape), geometry)
        yield self.of("col2im", self.array(n, 9 * CHANNELS, PIXELS * PIXELS), geometry)
        shapes = {"x": geometry.image_shape, "w": geometry.weight_shape, "y": geometry.map_shape}
        given = {"conv2d": "xw", "conv2d_input": "yw", "conv2d_weight": "xy"}
        seen = set()
        for name, letters in given.items():
            arrays = [self.array(*shapes[letter]) for letter in letters]
            case = self.of(name, *arrays, geometry, flops=2 * geometry.multiply_adds)
            yield case
            for launch in launches(self.gpu, case.call):
                if launch[0] not in seen:
                    seen.add(launch[0])
                    call = partial(self.gpu._launch, *launch)
                    yield Case(f"{launch[0]} of {name}", described(launch), call, size(launch))


def launches(gpu: Any, call: Callable[[], Any]) -> list[tuple[Any, ...]]:
    """The arguments of each CUDA C kernel launch that a call makes."""
    found, launch = [], gpu._launch

    def recording(*args: Any) -> None:
        found.append(args)
        launch(*args)

    gpu._launch = recording
    try:
        call()
    finally:
        gpu._launch = launch
    return found


def arrays(args: Any) -> list[Any]:
    """The arrays among the arguments, including those in a tuple or a list."""
    flat = [part for arg in args for part in (arg if isinstance(arg, tuple | list) else (arg,))]
    return [a for a in flat if hasattr(a, "flags") and a.ndim]  # not NumPy scalars


def described(args: Any) -> str:
    return ", ".join("x".join(map(str, a.shape)) for a in arrays(args))


def size(args: Any) -> int:
    """Bytes of all arrays; an array that is listed twice counts twice."""
    return sum(a.size * a.dtype.itemsize for a in arrays(args))


def seconds(cupy: Any, call: Callable[[], Any], rounds: int, calls: int) -> list[float]:
    """The time per call in each round, by the GPU's own clock."""
    for _ in range(3):  # to compile the kernel and fill the memory pool
        call()
    times = []
    for _ in range(rounds):
        start, stop = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        for _ in range(calls):
            call()
        stop.record()
        stop.synchronize()
        times.append(cupy.cuda.get_elapsed_time(start, stop) / calls / 1e3)
    return times


def limits(cupy: Any, args: argparse.Namespace) -> dict[str, float]:
    """Bytes per second, read and written, of a copy within the GPU, and FLOP/s of a product: the best of all rounds."""
    blocks = [cupy.zeros(COPIED, np.uint8) for _ in range(2)]
    copy = min(seconds(cupy, partial(cupy.copyto, *blocks), args.rounds, args.calls))
    square = cupy.asarray(np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32))
    product = min(seconds(cupy, partial(cupy.matmul, square, square), args.rounds, args.calls))
    return {"copy": 2 * COPIED / copy, "product": 2 * SIDE**3 / product}


def measured(case: Case, cupy: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one kernel: its row of the table."""
    times = seconds(cupy, case.call, args.rounds, args.calls)
    found = {"kernel": case.kernel, "arguments": case.arguments, "bytes": case.bytes, "flops": case.flops}
    speeds = {"bandwidth": case.bytes / median(times), "speed": case.flops / median(times)}
    return found | speeds | {"ms": spread([s * 1e3 for s in times])}


def line(row: dict[str, Any], limit: dict[str, float]) -> list[str]:
    """The cells of one row of the table; bandwidth below the goal is in bold."""
    share = f"{row['bandwidth'] / limit['copy']:.0%}"
    cells = [row["kernel"], row["arguments"], "{:.3f} [{:.3f}, {:.3f}]".format(*row["ms"])]
    cells += [f"{row['bandwidth'] / 1e9:.0f}", f"**{share}**" if slow(row, limit) else share]
    return cells + (
        [f"{row['speed'] / 1e9:.0f}", f"{row['speed'] / limit['product']:.0%}"] if row["flops"] else ["", ""]
    )


def slow(row: dict[str, Any], limit: dict[str, float]) -> bool:
    """Whether the kernel is memory-bound but below the bandwidth wanted."""
    return not row["flops"] and row["bandwidth"] < WANTED * limit["copy"]


def print_report(report: dict[str, Any]) -> None:
    """Print the table, its heading and the lines under it."""
    limit, settings, rows = report["limits"], report["settings"], report["rows"]
    print(f"### {report['machine']['GPU']}, kernels on arrays of about {settings['elements']:,} elements\n")
    common.print_table(HEADER, [line(row, limit) for row in rows])
    print("\n{rounds} rounds of {calls} calls".format(**settings), end=", ")
    print(f"copy of {COPIED / 2**20:.0f} MiB {limit['copy'] / 1e9:.0f} GB/s,", end=" ")
    print(f"product of {SIDE} x {SIDE} matrices {limit['product'] / 1e9:.0f} GFLOP/s without TF32;", end=" ")
    print(common.listed(report["machine"]))
    below = [row["kernel"] for row in rows if slow(row, limit)]
    print(f"Below {WANTED:.0%} of the copy: {', '.join(below) or 'none'}.")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = common.command_line(__doc__)
    p.add_argument("--elements", type=int, default=2**27, help="elements per array, about (%(default)s: 512 MiB)")
    p.add_argument("--rounds", type=int, default=7, help="rounds per kernel (%(default)s)")
    p.add_argument("--calls", type=int, default=20, help="calls per round (%(default)s)")
    return p


def main() -> None:
    args = parser().parse_args()
    try:
        machine = common.machine() | common.gpu()
    except RuntimeError as error:
        parser().error(str(error))
    cupy, gpu = importlib.import_module("cupy"), importlib.import_module("minidl.kernels.gpu.kernels")
    report: dict[str, Any] = {"settings": common.settings(args), "machine": machine, "limits": limits(cupy, args)}
    rows = report["rows"] = []
    for case in Cases(gpu, cupy, args.elements):
        rows.append(measured(case, cupy, args))
        cupy.get_default_memory_pool().free_all_blocks()
    print_report(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
