"""PyTorch's equivalents of minidl's kernel calls. Each function builds one from the kernel's arguments, as tensors.

Letters are as in minidl/kernels/reference.py; a geometry g has the attributes of minidl's.
"""

import importlib
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

torch: Any = importlib.import_module("torch")
aten, functional = torch.ops.aten, torch.nn.functional

Call = Callable[[], Any]
TOLERANCE = 1e-3  # of a result, relative to its largest element


def variants(name: str, args: list[Any], wanted: Any) -> list[Call]:
    """The calls whose result is `wanted`, with 4-d arrays in NCHW and in channels_last; none for an unknown kernel."""
    formats = (False, True) if any(getattr(a, "ndim", 0) == 4 for a in args) else (False,)
    found = []
    for last in formats:
        for make in CALLS.get(name, ()):
            try:
                call = make(*(_tensor(a, last) for a in args))
                if call is None:
                    continue
                if not _agrees(call(), wanted):
                    raise ValueError("its result differs")
            except Exception as error:  # a variant of the kernel that this file does not know yet
                print(f"{name}: PyTorch's {make.__name__} is skipped: {error}", file=sys.stderr)
                continue
            found.append(call)
    return found


def _tensor(arg: Any, last: bool) -> Any:
    if isinstance(arg, list):  # an optimiser's
        return [_tensor(part, False) for part in arg]
    if not isinstance(arg, np.ndarray):
        return arg
    if arg.ndim != 4:
        return torch.from_numpy(arg.copy(order="K"))
    return torch.from_numpy(arg).clone(memory_format=torch.channels_last if last else torch.contiguous_format)


def _agrees(result: Any, wanted: Any) -> bool:
    if wanted is None:  # an in-place step on the tensors themselves
        return True
    if isinstance(wanted, tuple):
        result, wanted = result[0], wanted[0]
    result = result.numpy()
    return result.shape == wanted.shape and bool(abs(result - wanted).max() <= TOLERANCE * abs(wanted).max())


def _bias_and_geometry(args: Iterable[Any]) -> tuple[list[Any], Any]:
    """The bias as a list, empty if there is none, and the geometry."""
    *bias, g = sorted((arg for arg in args if arg is not None), key=lambda arg: hasattr(arg, "map_size"))
    return bias, g


def conv2d(x: Any, w: Any, *rest: Any) -> Call:
    bias, g = _bias_and_geometry(rest)
    return lambda: functional.conv2d(x, w, *(bias or [None]), g.stride, g.padding, g.dilation)


def conv_transpose2d(y: Any, w: Any, *rest: Any) -> Call:
    bias, g = _bias_and_geometry(rest)
    axes = zip(g.image_size, g.map_size, g.kernel, g.stride, g.padding, g.dilation, strict=True)
    more = [size - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for size, m, k, s, p, d in axes]
    options = {"stride": g.stride, "padding": g.padding, "output_padding": more, "dilation": g.dilation}
    return lambda: functional.conv_transpose2d(y, w, *bias, **options)


def conv2d_gradient_in_image(y: Any, w: Any, *rest: Any) -> Call | None:
    bias, g = _bias_and_geometry(rest)
    if bias:  # then the call is a forward pass
        return None
    x = _empty(g.image_shape, y, w)
    return lambda: _convolution_backward(y, x, w, g, [True, False, False])[0]


def conv2d_gradient_in_weight(x: Any, y: Any, g: Any) -> Call:
    w = _empty(g.weight_shape, x, y)
    return lambda: _convolution_backward(y, x, w, g, [False, True, False])[1]


def _empty(shape: tuple[int, ...], *like: Any) -> Any:
    """An empty tensor in the memory format of `like`."""
    last = not all(x.is_contiguous() for x in like)
    return torch.empty(shape, memory_format=torch.channels_last if last else torch.contiguous_format)


def _convolution_backward(gy: Any, x: Any, w: Any, g: Any, which: list[bool]) -> Any:
    return aten.convolution_backward(gy, x, w, None, g.stride, g.padding, g.dilation, False, [0, 0], 1, which)


def matmul(a: Any, b: Any, bias: Any = None) -> Call:
    return lambda: torch.mm(a, b) if bias is None else torch.addmm(bias, a, b)


def max_pool2d(x: Any, g: Any) -> Call:
    options = {"stride": g.stride, "padding": g.padding, "dilation": g.dilation, "return_indices": True}
    return lambda: functional.max_pool2d(x, g.kernel, **options)


def max_pool2d_backward(y: Any, indices: Any, size: tuple[int, int]) -> Call:
    """Only for windows that tile the image: others are not determined by `size` alone."""
    x = _empty((*y.shape[:2], *size), y, indices)
    window = [image // windows for image, windows in zip(size, y.shape[2:], strict=True)]
    return lambda: aten.max_pool2d_with_indices_backward(y, x, window, window, [0, 0], [1, 1], False, indices)


def nearest(x: Any, rows: Any, columns: Any) -> Call:
    """Nearest-neighbour upsampling by an integer factor, or its gradient."""
    size = rows.outputs, columns.outputs
    if rows.outputs >= rows.inputs:
        return lambda: functional.interpolate(x, size=size, mode="nearest")
    return lambda: aten.upsample_nearest2d_backward(x, x.shape[2:], [*x.shape[:2], *size])


def add_bias(y: Any, b: Any) -> Call:
    b = b[:, None, None]
    return lambda: y + b


def channel_sums(y: Any) -> Call:
    axes = (0, *range(2, y.ndim))
    return lambda: y.sum(axes)


def adam(p: Any, g: Any, m: Any, v: Any, rate_and_root: Any, b1: float, b2: float, eps: float, decay: float) -> Call:
    rate, root = rate_and_root  # lr / (1 - b1^n) and sqrt(1 - b2^n), where PyTorch takes lr and n
    step = torch.tensor(math.log(1 - root**2) / math.log(b2))
    options = {"lr": rate * (1 - b1 ** step.item()), "beta1": b1, "beta2": b2, "weight_decay": decay, "eps": eps}
    return lambda: aten._fused_adam_(p, g, m, v, [], [step] * len(p), **options, amsgrad=False, maximize=False)


def sgd(p: Any, g: Any, buf: Any, lr: float, momentum: float, dampening: float, nesterov: bool, decay: float) -> Call:
    options = {"lr": lr, "momentum": momentum, "dampening": dampening, "nesterov": nesterov, "weight_decay": decay}
    return lambda: aten._fused_sgd_(p, g, buf or [], **options, maximize=False, is_first_step=False)


def _elementwise(operation: Callable[..., Any], *more: float) -> Callable[..., Call]:
    def make(*tensors: Any) -> Call:
        return lambda: operation(*tensors, *more)

    make.__name__ = operation.__name__
    return make


CALLS: dict[str, tuple[Callable[..., Call | None], ...]] = {
    "conv2d": (conv2d,),
    "conv2d_input": (conv_transpose2d, conv2d_gradient_in_image),
    "conv2d_weight": (conv2d_gradient_in_weight,),
    "max_pool2d": (max_pool2d,),
    "put": (max_pool2d_backward,),
    "resample": (nearest,),
    "add_bias": (add_bias,),
    "channel_sums": (channel_sums,),
    "matmul": (matmul,),
    "relu": (_elementwise(torch.relu),),
    "relu_backward": (_elementwise(aten.threshold_backward, 0),),
    "sigmoid": (_elementwise(torch.sigmoid),),
    "sigmoid_backward": (_elementwise(aten.sigmoid_backward),),
    "tanh_backward": (_elementwise(aten.tanh_backward),),
    "adam_step": (adam,),
    "sgd_step": (sgd,),
}
