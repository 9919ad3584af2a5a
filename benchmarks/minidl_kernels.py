"""The kernel calls in a training step of minidl, with their arithmetic and memory traffic."""

import dataclasses
import inspect
import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from train_step import Trainer

import minidl.kernels as kernels


def record(name: str, batch: int) -> list[tuple[str, tuple[Any, ...]]]:
    """Record every kernel call of the second training step, in order, with its arguments."""
    trainer = Trainer("minidl", name, batch, 0, check=False)
    trainer.step(0)
    originals = {key: f for key in kernels.__all__ if inspect.isfunction(f := getattr(kernels, key))}
    calls: list[tuple[str, tuple[Any, ...]]] = []

    def recording(key: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            bound = inspect.signature(kernel).bind(*args, **kwargs)
            if arrays(bound.args):  # the others only compute a few scalars
                calls.append((key, bound.args))
            return kernel(*args, **kwargs)

        return wrapper

    for key, kernel in originals.items():
        setattr(kernels, key, recording(key, kernel))
    trainer.step(1)
    for key, kernel in originals.items():
        setattr(kernels, key, kernel)
    return calls


def describe(args: tuple[Any, ...]) -> str:
    """The shapes, and the other arguments that determine the amount of work."""
    shapes = ["x".join(map(str, a.shape)) + " T" * (a.ndim == 2 and a.strides[0] < a.strides[1]) for a in arrays(args)]
    counts = [(shape, len(list(group))) for shape, group in itertools.groupby(shapes)]
    steps = [text for a in args if (text := _steps(a))]
    return ", ".join([f"{n} of {shape}" if n > 2 else ", ".join([shape] * n) for shape, n in counts] + steps)


def arrays(args: Any) -> list[np.ndarray]:
    """The arrays among the arguments, including those in a list."""
    flat = [part for arg in args for part in (arg if isinstance(arg, list) else (arg,))]
    return [a for a in flat if isinstance(a, np.ndarray)]


def _steps(arg: Any) -> str:
    """Describe a geometry: its sizes, and the settings that differ from the defaults."""
    if hasattr(arg, "sources"):
        return f"{arg.inputs} to {arg.outputs}"
    given = {key: getattr(arg, key)[0] for key in ("kernel", "stride", "padding", "dilation") if hasattr(arg, key)}
    if hasattr(arg, "weight_shape"):
        del given["kernel"]  # the weight's shape says it
    return ", ".join(f"{key} {value}" for key, value in given.items() if value != (key != "padding"))


def flops(name: str, args: tuple[Any, ...]) -> int:
    """Operations of a convolution or matrix product, two per multiplication; 0 for other kernels, bound by memory."""
    if name == "matmul":
        return 2 * args[0].size * args[1].shape[1]
    geometry = next((g for g in args if hasattr(g, "weight_shape")), None)
    return 2 * math.prod(geometry.map_shape) * math.prod(geometry.weight_shape[1:]) if geometry else 0


def traffic(kernel: Callable[..., Any], args: tuple[Any, ...]) -> int:
    """Bytes of all arrays read and written, each counted once, or twice if changed in place."""
    read = arrays(args)
    before = [a.copy() for a in read]
    result = kernel(*args)
    written = arrays(result if isinstance(result, tuple) else (result,))
    written += [a for a, old in zip(read, before, strict=True) if not np.array_equal(a, old, equal_nan=True)]
    return sum(a.nbytes for a in read + list({id(a): a for a in written}.values()))


def plain(arg: Any) -> Any:
    """An argument without minidl's types, for a process that does not import minidl."""
    if not dataclasses.is_dataclass(arg):
        return arg
    keys = [key for key in dir(arg) if not key.startswith("_") and key != "T" and not callable(getattr(arg, key))]
    return SimpleNamespace(**{key: getattr(arg, key) for key in keys})
