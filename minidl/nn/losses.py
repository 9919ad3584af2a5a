"""Loss functions as modules, and the sum of a loss and a regulariser. Formulas: ``ops/loss.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.nn import functional as F
from minidl.nn.module import Module, OfFunction
from minidl.tensor import Tensor


class _Loss(OfFunction):
    """A loss from `functional` as a module: the options are attributes; `weight` and `pos_weight` are buffers."""

    _inputs = 2
    extra_repr = Module.extra_repr  # PyTorch prints no options

    def _prepare(self) -> None:
        for name in ("weight", "pos_weight"):
            if name in self._arguments.parameters:
                self.register_buffer(name, vars(self).pop(name))

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """Compute the loss from the function's tensors: for most, the prediction and the target, in this order."""
        return self.function(*inputs, **named, **{name: getattr(self, name) for name in self._arguments.parameters})


class MSELoss(_Loss, of=F.mse_loss):
    """Squared error (x - t)^2; "mean" is per element. See `functional.mse_loss`."""


class L1Loss(_Loss, of=F.l1_loss):
    """Absolute error |x - t|; "mean" is per element. See `functional.l1_loss`."""


class SmoothL1Loss(_Loss, of=F.smooth_l1_loss):
    """Squared error up to |x - t| = beta, absolute error beyond. See `functional.smooth_l1_loss`."""


class HuberLoss(_Loss, of=F.huber_loss):
    """Squared error up to |x - t| = delta, absolute error times delta beyond. See `functional.huber_loss`."""


class NLLLoss(_Loss, of=F.nll_loss):
    """Negative log-likelihood of the correct class, from log-probabilities (N, C). See `functional.nll_loss`."""


class CrossEntropyLoss(_Loss, of=F.cross_entropy):
    """Negative log-likelihood of the correct class, from logits (N, C). See `functional.cross_entropy`."""


class BCELoss(_Loss, of=F.binary_cross_entropy):
    """Binary cross-entropy from probabilities. See `functional.binary_cross_entropy`."""


class BCEWithLogitsLoss(_Loss, of=F.binary_cross_entropy_with_logits):
    """Binary cross-entropy from logits. See `functional.binary_cross_entropy_with_logits`."""


class KLDivLoss(_Loss, of=F.kl_div):
    """Kullback-Leibler divergence from log-probabilities to probabilities. See `functional.kl_div`."""


class RegularisedLoss(Module):
    """loss + weight * regulariser, keeping both terms for monitoring.

    With weight = beta and `functional.gaussian_kl` it is the objective of the beta-VAE; with weight 1, that of the
    VAE (Kingma and Welling 2014, arXiv:1312.6114).

    Parameters
    ----------
    loss, regulariser : callable
        Modules or functions that return a tensor of one element.
    weight : float
        May be changed between calls, e.g. for a warm-up.

    Attributes
    ----------
    loss_term, regulariser_term : float
        Their values at the last call, the regulariser's without its weight.

    Examples
    --------
    >>> import minidl
    >>> criterion = RegularisedLoss(MSELoss(), F.gaussian_kl, weight=0.5)
    >>> x, mean, log_var = minidl.ones(4), minidl.ones(2), minidl.zeros(2)
    >>> criterion((x, 3 * x), (mean, log_var)).item()
    4.5
    >>> criterion.loss_term, criterion.regulariser_term
    (4.0, 1.0)
    """

    _repr_format = "weight={0.weight}"

    def __init__(self, loss: Callable[..., Tensor], regulariser: Callable[..., Tensor], weight: float = 1.0) -> None:
        super().__init__()
        self.loss, self.regulariser, self.weight = loss, regulariser, weight
        self.loss_term = self.regulariser_term = float("nan")

    def forward(self, loss_args: tuple[Any, ...], regulariser_args: tuple[Any, ...]) -> Tensor:
        """Compute the sum from the arguments of the loss and those of the regulariser."""
        for args in (loss_args, regulariser_args):
            if not isinstance(args, tuple | list):
                wanted = "pass both terms' arguments as tuples, ((input, target), (mean, log_var))"
                raise TypeError(f"RegularisedLoss: {wanted}, not {type(args).__name__}")
        loss, regulariser = self.loss(*loss_args), self.regulariser(*regulariser_args)
        self.loss_term, self.regulariser_term = loss.item(), regulariser.item()
        return loss + self.weight * regulariser
