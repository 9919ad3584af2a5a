"""Arguments that PyTorch still takes: ``size_average`` and ``reduce`` of the losses."""

import functools

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
DEFAULTS = {"ignore_index": -100, "label_smoothing": 0.0, "reduction": "mean"}  # all others: None


def _modern(names, values, named):
    """The arguments as keywords, without defaults, and with a reduction instead of size_average and reduce."""
    given = dict(zip(names.split(), values, strict=False)) | named
    given = {k: v for k, v in given.items() if isinstance(v, Tensor) or v != DEFAULTS.get(k)}
    average, reduce = (given.pop(name, None) for name in ("size_average", "reduce"))
    if average is not None or reduce is not None:
        reduced = "mean" if average is None or average else "sum"
        given["reduction"] = reduced if reduce is None or reduce else "none"
    return given


def _with_old(function, names, first):
    """The function, which also takes old arguments after its `first`."""

    @functools.wraps(function)
    def wrapped(*args, **named):
        return function(*args[:first], **_modern(names, args[first:], named))

    return wrapped


def _subclass(name, order):
    own = getattr(nn, name)
    exported = "minidl.compat.torch.nn"  # where pickle finds it
    return type(name, (own,), {"__init__": _with_old(own.__init__, order, 1), "__module__": exported})


FUNCTIONS = {name: _with_old(getattr(nn.functional, name), order, 2) for (_, name), order in LOSSES.items()}
MODULES = {name: _subclass(name, order) for (name, _), order in LOSSES.items()}
