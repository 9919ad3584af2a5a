"""Losses as modules, and the sum of a loss and a regulariser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.nn import functional as F
from minidl.nn.module import Module
from minidl.tensor import Tensor


class _Loss(Module):
    """A loss of `functional` with its reduction."""

    function: Callable[..., Tensor]

    def __init__(self, *, reduction: str = "mean", **variants: Any) -> None:
        super().__init__()
        for name, value in variants.items():
            raise NotImplementedError(
                f"{type(self).__name__}: {name}={value!r} is not supported, only the argument reduction"
            )
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Prediction and target, in that order."""
        return type(self).function(input, target, reduction=self.reduction)


class MSELoss(_Loss):
    """Squared error; "mean" is per element. See ``functional.mse_loss``."""

    function = F.mse_loss


class L1Loss(_Loss):
    """Absolute error; "mean" is per element. See ``functional.l1_loss``."""

    function = F.l1_loss


class NLLLoss(_Loss):
    """Minus the log-probability of the right class, from log-probabilities. See ``functional.nll_loss``."""

    function = F.nll_loss


class CrossEntropyLoss(_Loss):
    """Minus the log-probability of the right class, from logits. See ``functional.cross_entropy``."""

    function = F.cross_entropy


class BCELoss(_Loss):
    """Cross-entropy of two classes, from probabilities. See ``functional.binary_cross_entropy``."""

    function = F.binary_cross_entropy


class BCEWithLogitsLoss(_Loss):
    """Cross-entropy of two classes, from logits. See ``functional.binary_cross_entropy_with_logits``."""

    function = F.binary_cross_entropy_with_logits


class RegularisedLoss(Module):
    """loss + weight * regulariser, with both terms to be read during training.

    Parameters
    ----------
    loss, regulariser : callable
        Modules or functions that return a tensor of one element.
    weight : float
        May be changed between calls, as for a warm-up.

    Attributes
    ----------
    loss_term, regulariser_term : float
        What the two were at the last call, the regulariser before its weight.

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
        """The arguments of the loss, and those of the regulariser."""
        for args in (loss_args, regulariser_args):
            if not isinstance(args, tuple | list):
                raise TypeError(
                    f"RegularisedLoss: give both terms' arguments as tuples, ((input, target), (mean, log_var)), "
                    f"not {type(args).__name__}"
                )
        loss, regulariser = self.loss(*loss_args), self.regulariser(*regulariser_args)
        self.loss_term, self.regulariser_term = loss.item(), regulariser.item()
        return loss + self.weight * regulariser
