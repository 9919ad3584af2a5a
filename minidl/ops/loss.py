"""Losses: one number that says how far a prediction is from its target."""

from __future__ import annotations

from minidl.tensor import Tensor


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Squared error: (x - t)^2 for each element, then their mean, their sum, or all of them ("none").

    Parameters
    ----------
    input, target : Tensor
        Of one shape.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of *elements*, so for images it is a loss per pixel.

    Raises
    ------
    ValueError
        If the shapes differ, which PyTorch would broadcast: (N, 1) against (N,) makes N x N errors of N.

    Notes
    -----
    gx = gy 2 (x - t), over the number of elements for "mean"; gt = -gx.
    """
    if input.shape != target.shape:
        raise ValueError(
            f"mse_loss: input of shape {input.shape} and target of shape {target.shape} must have the same shape; "
            "reshape one of them"
        )
    difference = input - target
    return reduce(difference * difference, reduction)


def reduce(losses: Tensor, reduction: str) -> Tensor:
    """The mean or sum of a loss's elements, or the elements themselves."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', not {reduction!r}")
    return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()
