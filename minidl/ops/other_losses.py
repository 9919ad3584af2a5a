"""Losses that are needed less often than those of loss.py: robust ones, and a divergence. Letters as there.

All are composed of recorded operations, which give the gradients that the docstrings state.
"""

from __future__ import annotations

from minidl.ops._losses import check_shapes, reduce
from minidl.ops._operands import only_floats, operation
from minidl.ops.arithmetic import log
from minidl.ops.comparison import clamp, where
from minidl.ops.loss import l1_loss
from minidl.tensor import Tensor


@operation(wide=True)
def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Squared error for small d = x - t, absolute for large: l = d^2 / 2 up to |d| = D, then D (|d| - D / 2).

    D is `delta`. Both are c (d - c / 2), where c is d clamped to [-D, D]. The gradient is c: gx = gl c, gt = -gx.

    Source: P. Huber, Robust estimation of a location parameter, Annals of Mathematical Statistics 35, 1964.
    """
    if not delta > 0:
        raise RuntimeError(f"huber_loss: delta must be greater than 0, not {delta}")
    return reduce("huber_loss", _huber("huber_loss", input, target, delta), reduction)


def _huber(name: str, input: Tensor, target: Tensor, delta: float) -> Tensor:
    check_shapes(name, input, target)
    d = input - target
    only_floats(name, d, NotImplementedError)
    c = clamp(d, -delta, delta)
    return c * (d - c / 2)


@operation(wide=True)
def smooth_l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """``huber_loss`` with delta = beta, divided by beta: l = d^2 / (2 beta) up to |d| = beta, then |d| - beta / 2.

    gx = gl c / beta, gt = -gx, where c is d = x - t clamped to [-beta, beta]. For beta = 0 it is ``l1_loss``.
    """
    if not beta >= 0:
        raise RuntimeError(f"smooth_l1_loss: beta must be at least 0, not {beta}")
    if not beta:
        return l1_loss(input, target, reduction=reduction)
    return reduce("smooth_l1_loss", _huber("smooth_l1_loss", input, target, beta) / beta, reduction)


@operation(wide=True)
def kl_div(input: Tensor, target: Tensor, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """Kullback-Leibler divergence from the *logarithms* x of probabilities to the probabilities t: l = t (ln t - x).

    Parameters
    ----------
    input, target : Tensor
        Of one shape; the target holds probabilities, or their logarithms with `log_target`: l = e^t (t - x).
    reduction : {"mean", "batchmean", "sum", "none"}
        "batchmean", the sum divided by the batch size N, is the divergence; "mean" divides by all elements.
    log_target : bool

    Notes
    -----
    gx = -gl t, gt = gl (ln t + 1 - x). Where t = 0, l = 0 and gt = 0.
    """
    check_shapes("kl_div", input, target)
    some = Tensor((target.array != 0) | log_target)
    losses = target.exp() * (target - input) if log_target else target * (log(where(some, target, 1)) - input)
    if reduction == "batchmean":
        return where(some, losses, 0).sum() / (input.shape[0] if input.ndim else 1)
    return reduce("kl_div", where(some, losses, 0), reduction)
