"""What all losses share: how they are weighted and reduced, which shapes fit, and the classes a target names.

A "mean" divides by the number of losses; with weights for classes, by the sum of the weights of the targets.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.kernels import devices
from minidl.ops.comparison import where
from minidl.tensor import Array, Tensor


def reduce(name: str, losses: Tensor, reduction: str) -> Tensor:
    """The mean or sum of a loss's elements, or the elements themselves."""
    check_reduction(name, reduction)
    return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()


def check_reduction(name: str, reduction: str) -> None:
    """Raise unless it is "mean", "sum" or "none"."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none', not {reduction!r}")


def check_shapes(name: str, input: Tensor, target: Tensor) -> None:
    """Raise unless both have the same shape."""
    if input.shape != target.shape:
        cure = "reshape one of them, since broadcasting would compare each element with several"
        raise ValueError(f"{name}: shapes {input.shape} and {target.shape} differ; {cure}")


def known_classes(name: str, scores: str, x: Tensor, t: Tensor, ignore_index: int) -> tuple[Array, Array | None]:
    """The target's classes, and where they count: None for everywhere. Those to be ignored become class 0."""
    if x.ndim == 0 or not x.is_floating_point():
        kind = NotImplementedError if x.ndim else RuntimeError  # as in PyTorch
        raise kind(f"{name}: {scores} must be floats of shape (N, classes, ...), not {x.dtype} of shape {x.shape}")
    if t.dtype not in ("int64", "uint8"):
        cure = "convert it with .long(), or one-hot rows with .argmax(1)"
        raise RuntimeError(f"{name}: the target must hold class indices in int64, not {t.dtype}; {cure}")
    wanted, most = (x.shape[0], *x.shape[2:]) if x.ndim > 1 else (), x.shape[:2][-1]
    if t.shape != wanted:
        error = RuntimeError if t.ndim > len(wanted) else ValueError  # as in PyTorch
        raise error(f"{name}: {scores} of shape {x.shape} need a target of shape {wanted}, not {t.shape}")
    classes = t.array.astype(np.int64)
    wrong = (classes < 0) | (classes >= most)
    if not 0 <= ignore_index < most and not devices.any_true(wrong):
        return classes, None
    kept = classes != ignore_index
    if devices.any_true(wrong & kept):
        at = tuple(int(i) for i in np.argwhere(wrong & kept)[0])
        found = f"target {t.array[at]} at index {at} is out of bounds: {scores} of shape {x.shape}"
        raise IndexError(f"{name}: {found} have classes 0 to {most - 1}; ignore_index is {ignore_index}")
    return classes * kept, kept


def of_classes(name: str, x: Tensor, weight: Tensor | None) -> Tensor:
    """x of shape (N, C, ...) or (C,), times a weight for each class."""
    if weight is None:
        return x
    if weight.shape != x.shape[:2][-1:] or weight.dtype != x.dtype:
        wanted, given = f"shape {x.shape[:2][-1:]} and {x.dtype}", f"{weight.shape} and {weight.dtype}"
        raise RuntimeError(f"{name}: a weight for each class must have {wanted}, not {given}")
    return x * weight.reshape(-1, *[1] * (x.ndim - 2))


def class_losses(
    name: str, log_p: Tensor, classes: Array, kept: Array | None, weight: Tensor | None, reduction: str, smooth: float
) -> Tensor:
    """-w_t ln p_t, from (N, C, ...), with a part `smooth` spread over all C classes; 0 where the target is ignored.

    l = (1 - smooth) w_t (-ln p_t) + smooth / C (sum over c of w_c (-ln p_c)). The mean divides by the sum of the w_t.
    """
    at: list[Any] = [*np.ogrid[tuple(slice(n) for n in classes.shape)]]
    at.insert(1, Tensor(classes))  # (sample, class, pixel), or for one sample (class,)
    terms = of_classes(name, log_p, weight)
    losses = -terms[tuple(at)]
    if smooth:
        losses = losses * (1 - smooth) - terms.mean(min(1, terms.ndim - 1)) * smooth
    if weight is None and kept is None:
        return reduce(name, losses, reduction)
    w = Tensor(np.ones_like(log_p.array, shape=classes.shape)) if weight is None else weight[Tensor(classes)]
    if kept is not None:
        losses, w = (where(Tensor(kept), a, 0) for a in (losses, w))
    return losses.sum() / w.sum() if reduction == "mean" else reduce(name, losses, reduction)
