"""Arguments that PyTorch still takes: ``size_average`` and ``reduce`` of the losses, softmax without ``dim``."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

from minidl import nn
from minidl.tensor import Tensor

# Each loss with its arguments in PyTorch's order, after those of forward
LOSSES = {
    ("MSELoss", "mse_loss"): "size_average reduce reduction weight",
    ("L1Loss", "l1_loss"): "size_average reduce reduction weight",
    ("NLLLoss", "nll_loss"): "weight size_average ignore_index reduce reduction",
    ("CrossEntropyLoss", "cross_entropy"): "weight size_average ignore_index reduce reduction label_smoothing",
    ("BCELoss", "binary_cross_entropy"): "weight size_average reduce reduction",
    ("BCEWithLogitsLoss", "binary_cross_entropy_with_logits"): "weight size_average reduce reduction pos_weight",
}
SOFTMAX = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}
DEFAULTS: dict[str, Any] = {"ignore_index": -100, "label_smoothing": 0.0, "reduction": "mean"}  # all others: None


def _modern(names: str, values: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """The arguments as keywords, without defaults, and with a reduction instead of size_average and reduce."""
    given = dict(zip(names.split(), values, strict=False)) | named
    given = {k: v for k, v in given.items() if isinstance(v, Tensor) or v != DEFAULTS.get(k)}
    average, reduce = (given.pop(name, None) for name in ("size_average", "reduce"))
    if average is not None or reduce is not None:
        reduced = "mean" if average is None or average else "sum"
        given["reduction"] = reduced if reduce is None or reduce else "none"
        text = f"size_average and reduce are deprecated: write reduction={given['reduction']!r}"
        warnings.warn(text, UserWarning, stacklevel=3)
    return given


def _function(function: Callable[..., Tensor], names: str) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def loss(input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return function(input, target, **_modern(names, args, kwargs))

    return loss


def _module(base: Any, names: str) -> type[nn.Module]:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        base.__init__(self, **_modern(names, args, kwargs))

    return type(base.__name__, (base,), {"__init__": __init__, "__doc__": base.__doc__})


def _guessing_dim(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 2, **kwargs: Any) -> Tensor:
        if dim is None:
            dim = 0 if input.ndim in (0, 1, 3) else 1
            warnings.warn(f"{function.__name__} without dim is deprecated: write dim={dim}", stacklevel=_stacklevel)
        return function(input, dim, **kwargs)

    return softmax


def _layer(base: Any, function: str) -> type[nn.Module]:
    def forward(self: Any, input: Tensor) -> Tensor:
        return FUNCTIONS[function](input, self.dim, _stacklevel=4)

    return type(base.__name__, (base,), {"forward": forward, "__doc__": base.__doc__})


FUNCTIONS = {name: _function(getattr(nn.functional, name), order) for (_, name), order in LOSSES.items()}
FUNCTIONS |= {name: _guessing_dim(getattr(nn.functional, name)) for name in SOFTMAX.values()}
MODULES = {name: _module(getattr(nn, name), order) for (name, _), order in LOSSES.items()}
MODULES |= {name: _layer(getattr(nn, name), function) for name, function in SOFTMAX.items()}
