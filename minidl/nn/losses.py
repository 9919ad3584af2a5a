"""Loss functions as modules, and the sum of a loss and a regulariser. Formulas and sources: ``ops/loss.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.nn import functional as F
from minidl.nn.module import Module
from minidl.tensor import Tensor


class _Loss(Module):
    """A loss from `functional` with its reduction: "mean", "sum" or "none"."""

    function: Callable[..., Tensor]

    def __init__(self, *, reduction: str = "mean", **variants: Any) -> None:
        super().__init__()
        for name, value in variants.items():
            raise NotImplementedError(f"{type(self).__name__}: {name}={value!r} is not supported, only reduction is")
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compute the loss from the prediction and the target, in this order."""
        return type(self).function(input, target, reduction=self.reduction)


class MSELoss(_Loss):
    """Squared error (x - y)^2; "mean" is per element. See `functional.mse_loss`."""

    function = F.mse_loss


class L1Loss(_Loss):
    """Absolute error |x - y|; "mean" is per element. See `functional.l1_loss`."""

    function = F.l1_loss


class NLLLoss(_Loss):
    """Negative log-likelihood of the correct class, from log-probabilities (N, C). See `functional.nll_loss`."""

    function = F.nll_loss


class CrossEntropyLoss(_Loss):
    """Negative log-likelihood of the correct class, from logits (N, C). See `functional.cross_entropy`."""

    function = F.cross_entropy


class BCELoss(_Loss):
    """Binary cross-entropy from probabilities. See `functional.binary_cross_entropy`."""

    function = F.binary_cross_entropy


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy from logits. See `functional.binary_cross_entropy_with_logits`."""

    function = F.binary_cross_entropy_with_logits


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
