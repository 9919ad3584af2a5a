"""Arguments that PyTorch still takes: ``size_average`` and ``reduce`` of the losses, softmax without ``dim``."""

import functools
import warnings

from minidl import nn
from minidl.tensor import Tensor

# Each loss with its arguments in PyTorch's order, after those of forward
LOSSES = {
    ("MSELoss", "mse_loss"): "size_average reduce reduction weight",
    ("L1Loss", "l1_loss"): "size_average reduce reduction weight",
    ("SmoothL1Loss", "smooth_l1_loss"): "size_average reduce reduction beta",
    ("HuberLoss", "huber_loss"): "reduction delta weight",
    ("KLDivLoss", "kl_div"): "size_average reduce reduction log_target",
    ("NLLLoss", "nll_loss"): "weight size_average ignore_index reduce reduction",
    ("CrossEntropyLoss", "cross_entropy"): "weight size_average ignore_index reduce reduction label_smoothing",
    ("BCELoss", "binary_cross_entropy"): "weight size_average reduce reduction",
    ("BCEWithLogitsLoss", "binary_cross_entropy_with_logits"): "weight size_average reduce reduction pos_weight",
}
SOFTMAX = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}
DEFAULTS = {"ignore_index": -100, "label_smoothing": 0.0, "reduction": "mean"}  # all others: None


def _modern(names, values, named):
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


def _with_old(function, names, first):
    """The function, which also takes old arguments after its `first`."""

    @functools.wraps(function)
    def wrapped(*args, **named):
        return function(*args[:first], **_modern(names, args[first:], named))

    return wrapped


def _guessing_dim(function):
    @functools.wraps(function)
    def softmax(input, dim=None, _stacklevel=2, **named):
        if dim is None:
            dim = 0 if input.ndim in (0, 1, 3) else 1
            warnings.warn(f"{function.__name__} without dim is deprecated: write dim={dim}", stacklevel=_stacklevel)
        return function(input, dim, **named)

    return softmax


def _forward(softmax):
    return lambda self, input: softmax(input, self.dim, _stacklevel=4)


def _subclass(name, **methods):
    return type(name, (getattr(nn, name),), methods)


FUNCTIONS = {name: _with_old(getattr(nn.functional, name), order, 2) for (_, name), order in LOSSES.items()}
FUNCTIONS |= {name: _guessing_dim(getattr(nn.functional, name)) for name in SOFTMAX.values()}
MODULES = {n: _subclass(n, __init__=_with_old(getattr(nn, n).__init__, order, 1)) for (n, _), order in LOSSES.items()}
MODULES |= {name: _subclass(name, forward=_forward(FUNCTIONS[own])) for name, own in SOFTMAX.items()}
