"""Losses: one number that says how far a prediction is from its target.

Letters: x is the prediction, t the target, l the loss of one element or sample. Each `reduction` averages the l
("mean"), sums them ("sum") or returns them ("none"); what the mean is over is the loss's unit.
"""

from __future__ import annotations

import numpy as np

from minidl import kernels
from minidl.autograd import record
from minidl.kernels import devices
from minidl.ops.activation import sigmoid, sigmoid_backward, softmax
from minidl.ops.arithmetic import abs, clamp, exp
from minidl.ops.dtype import only_tensors, operands, quiet, same_device, to
from minidl.tensor import Array, Tensor


@quiet
def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Squared error: l = (x - t)^2 for each element.

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
    gx = gl 2 (x - t), gt = -gx.
    """
    _check_shapes("mse_loss", input, target)
    _check_reduction("mse_loss", reduction)
    x, t = operands("mse_loss", input, target)
    if not x.is_floating_point():
        raise NotImplementedError(
            f"mse_loss: input or target must be a float tensor, not {x.dtype}; convert them with .float()"
        )
    if x.dtype == np.float16:  # which cannot hold the sum that a mean is made of
        return to(mse_loss(to(x, np.float32), to(t, np.float32), reduction), np.float16)
    if reduction == "none":
        errors = np.square(x.array - t.array)
        return record("mse_loss", errors, (x, lambda gy: (x - t) * (gy * 2)), (t, lambda gy: (t - x) * (gy * 2)))
    # Summed here, so that the gradient takes one number, not an array of equal ones.
    each = _each(x.numel(), reduction)
    return record(
        "mse_loss",
        kernels.total_squared_error(x.array, t.array, each),
        (x, lambda gy: _scaled_difference(x, t, gy, 2 * each)),
        (t, lambda gy: _scaled_difference(t, x, gy, 2 * each)),
    )


def _scaled_difference(x: Tensor, t: Tensor, scale: Tensor, factor: float) -> Tensor:
    """factor scale (x - t), with one number as scale."""
    return record(
        "scaled_difference",
        kernels.scaled_difference(x.array, t.array, scale.array, factor),
        (x, lambda gy: gy * (scale * factor)),
        (t, lambda gy: gy * (scale * -factor)),
        (scale, lambda gy: (gy * (x - t)).sum() * factor),
    )


def l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Absolute error: l = |x - t| for each element;  gx = gl sign(x - t), gt = -gx.

    Parameters
    ----------
    input, target : Tensor
        Of one shape.
    reduction : {"mean", "sum", "none"}
        "mean" is over all elements.

    Raises
    ------
    ValueError
        If the shapes differ, as for ``mse_loss``.
    """
    _check_shapes("l1_loss", input, target)
    return reduce("l1_loss", abs(input - target), reduction)


def nll_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Minus the right class's log-probability: l = -x_t;  gx_c = -gl [c = t]. ``cross_entropy`` takes logits.

    Parameters
    ----------
    input : Tensor
        Log-probabilities, such as ``log_softmax`` gives: (N, C), (C,) for one sample, or (N, C, H, W).
    target : Tensor
        Class indices, int64, from 0 to C - 1: (N,), () or (N, H, W).
    reduction : {"mean", "sum", "none"}
        "mean" is over samples; over pixels where there are any.

    Raises
    ------
    ValueError, RuntimeError, IndexError
        As ``cross_entropy``.
    """
    only_tensors("nll_loss", input, target)
    if input.ndim == 1 and target.ndim == 0:
        loss = nll_loss(input.unsqueeze(0), target.unsqueeze(0), reduction=reduction)
        return loss.squeeze(0) if reduction == "none" else loss
    same_device("nll_loss", input, target)
    _check_classes("nll_loss", "log-probabilities", input, target)
    sample, *pixel = np.ogrid[tuple(slice(n) for n in target.shape)]
    return reduce("nll_loss", -input[(sample, target.long(), *pixel)], reduction)


def cross_entropy(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Minus the log-probability of the right class: l = -ln softmax(x)[t] = ln(sum over c of e^x_c) - x_t.

    Parameters
    ----------
    input : Tensor
        Logits, real numbers of any size: (N, C), (C,) for one sample, or (N, C, H, W) for a class at each pixel.
    target : Tensor
        Class indices, int64, from 0 to C - 1: (N,), () or (N, H, W).
    reduction : {"mean", "sum", "none"}
        "mean" is over samples; over pixels where there are any.

    Raises
    ------
    ValueError
        If the batches or sizes of input and target differ.
    RuntimeError
        If the target is not of class indices. (Probabilities as targets, class weights, label smoothing and
        ignored classes are PyTorch's, but not minidl's.)
    IndexError
        If an index is no class.

    Notes
    -----
    gx_c = gl (softmax(x)_c - [c = t]).

    Examples
    --------
    >>> import minidl
    >>> loss = cross_entropy(minidl.tensor([[1e4, -1e4], [0.0, 0.0]]), minidl.tensor([1, 0]), reduction="none")
    >>> loss.tolist()
    [20000.0, 0.6931471824645996]
    """
    only_tensors("cross_entropy", input, target)
    if input.ndim == 1 and target.ndim == 0:
        loss = cross_entropy(input.unsqueeze(0), target.unsqueeze(0), reduction=reduction)
        return loss.squeeze(0) if reduction == "none" else loss
    same_device("cross_entropy", input, target)
    _check_classes("cross_entropy", "logits", input, target)
    _check_reduction("cross_entropy", reduction)
    x, classes = input, target.array.astype(np.int64)
    y = kernels.cross_entropy(x.array, classes) if x.numel() else np.zeros_like(x.array, shape=classes.shape)
    each = 1.0
    if reduction != "none":
        y, each = _reduced(y, reduction)
    return record("cross_entropy", y, (x, lambda gy: _cross_entropy_backward(gy * each, x, classes)))


def _cross_entropy_backward(gy: Tensor, x: Tensor, classes: Array) -> Tensor:
    """gx_c = gy (softmax(x)_c - [c = t]), with gy one number, or one for each sample."""
    shape = gy.shape
    gx = kernels.cross_entropy_backward(np.broadcast_to(gy.array, classes.shape), x.array, classes)

    def gradient_gy(ggx: Tensor) -> Tensor:
        ones = Tensor(np.ones_like(x.array, shape=classes.shape))
        sums = (ggx * _cross_entropy_backward(ones, x, classes)).sum(1)
        return sums if shape else sums.sum()

    def gradient_x(ggx: Tensor) -> Tensor:
        p, v = softmax(x, 1), ggx * (gy.unsqueeze(1) if shape else gy)
        return p * (v - (v * p).sum(1, keepdim=True))

    return record("cross_entropy_backward", gx, (gy, gradient_gy), (x, gradient_x))


def _check_classes(name: str, scores: str, x: Tensor, t: Tensor) -> None:
    if x.ndim == 0 or not x.is_floating_point():
        kind = NotImplementedError if x.ndim else RuntimeError  # as PyTorch has it
        raise kind(f"{name}: {scores} must be floats of shape (N, classes, ...), not {x.dtype} of shape {x.shape}")
    if t.dtype not in ("int64", "uint8"):
        raise RuntimeError(
            f"{name}: the target must hold class indices in int64, not {t.dtype}; convert it with .long(), "
            "or one-hot rows with .argmax(1)"
        )
    wanted = (x.shape[0], *x.shape[2:]) if x.ndim > 1 else ()
    if t.shape != wanted:
        error = RuntimeError if t.ndim > len(wanted) else ValueError  # as PyTorch has it
        raise error(f"{name}: {scores} of shape {x.shape} need a target of shape {wanted}, not {t.shape}")
    wrong = (t.array < 0) | (t.array >= x.shape[1])
    if devices.any_true(wrong):
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise IndexError(
            f"{name}: target {t.array[place]} at index {place} is out of bounds: {scores} of shape {x.shape} have "
            f"classes 0 to {x.shape[1] - 1}; PyTorch's ignore_index is not supported"
        )


def binary_cross_entropy(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """l = -t ln x - (1 - t) ln(1 - x), for probabilities x; each logarithm at least -100, as in PyTorch.

    Parameters
    ----------
    input, target : Tensor
        Of one shape and floating dtype, with values between 0 and 1.
    reduction : {"mean", "sum", "none"}
        "mean" is over all elements.

    Raises
    ------
    ValueError
        If the shapes differ.
    RuntimeError
        If a value is not between 0 and 1, or the dtypes differ.

    Notes
    -----
    gx = gl (x - t) / max(x (1 - x), 1e-12), gt = gl (ln(1 - x) - ln x). From logits,
    ``binary_cross_entropy_with_logits`` is exact where this has only the rounded probability to go by.
    """
    _check_shapes("binary_cross_entropy", input, target)
    if target.dtype != input.dtype or not input.is_floating_point():
        error = NotImplementedError if target.dtype == input.dtype else RuntimeError  # as PyTorch has it
        raise error(
            f"binary_cross_entropy: input and target must both be float32 or both float64, not {input.dtype} and "
            f"{target.dtype}; convert them with .float()"
        )
    for name, value in (("input", input), ("target", target)):
        if devices.any_true(~((value.array >= 0) & (value.array <= 1))):  # NaN is outside too
            raise RuntimeError(
                f"binary_cross_entropy: all elements of {name} must lie between 0 and 1, and they reach from "
                f"{value.array.min():g} to {value.array.max():g}; for logits use binary_cross_entropy_with_logits"
            )
    return reduce("binary_cross_entropy", _bce(input, target), reduction)


@quiet
def _bce(x: Tensor, t: Tensor) -> Tensor:
    log_x, log_rest = np.maximum(np.log(x.array), -100), np.maximum(np.log1p(-x.array), -100)
    return record(
        "binary_cross_entropy",
        -t.array * log_x - (1 - t.array) * log_rest,
        (x, lambda gy: gy * (x - t) / clamp(x * (1 - x), min=1e-12)),
        (t, lambda gy: _bce_target(gy, x)),
    )


@quiet
def _bce_target(gy: Tensor, x: Tensor) -> Tensor:
    """gt = gy (ln(1 - x) - ln x), each logarithm at least -100 as in the loss."""
    odds = np.maximum(np.log1p(-x.array), -100) - np.maximum(np.log(x.array), -100)
    return record(
        "binary_cross_entropy_target",
        gy.array * odds,
        (gy, lambda ggt: _bce_target(ggt, x)),
        (x, lambda ggt: -ggt * gy / clamp(x * (1 - x), min=1e-12)),
    )


@quiet
def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """``binary_cross_entropy`` of sigmoid(x), without computing it: l = max(x, 0) - x t + ln(1 + e^-|x|).

    Parameters
    ----------
    input : Tensor
        Logits, finite real numbers of any size.
    target : Tensor
        Of the same shape and floating dtype, usually between 0 and 1.
    reduction : {"mean", "sum", "none"}
        "mean" is over all elements.

    Raises
    ------
    ValueError
        If the shapes differ.
    RuntimeError
        If the target's dtype is not floating.

    Notes
    -----
    gx = gl (sigmoid(x) - t), gt = -gl x.
    """
    _check_shapes("binary_cross_entropy_with_logits", input, target)
    if not target.is_floating_point() or not input.is_floating_point():
        raise NotImplementedError(
            f"binary_cross_entropy_with_logits: input and target must be float tensors, not {input.dtype} "
            f"and {target.dtype}; convert them with .float()"
        )
    _check_reduction("binary_cross_entropy_with_logits", reduction)
    kind = np.promote_types(input.dtype, target.dtype)
    if kind == np.float16:  # which cannot hold the sum that a mean is made of
        wide = to(input, np.float32), to(target, np.float32)
        return to(binary_cross_entropy_with_logits(*wide, reduction=reduction), np.float16)
    x, t = to(input, kind), to(target, kind)
    if reduction == "none":
        losses = np.maximum(x.array, 0) - x.array * t.array + np.log1p(np.exp(-np.abs(x.array)))
        edges = (x, lambda gy: (sigmoid(x) - t) * gy), (t, lambda gy: -x * gy)
        return record("binary_cross_entropy_with_logits", losses, *edges)
    each = _each(x.numel(), reduction)
    return record(
        "binary_cross_entropy_with_logits",
        kernels.total_logistic_loss(x.array, t.array, each),
        (x, lambda gy: _scaled_logistic_difference(x, t, gy, each)),
        (t, lambda gy: x * (gy * -each)),
    )


def _scaled_logistic_difference(x: Tensor, t: Tensor, scale: Tensor, factor: float) -> Tensor:
    """factor scale (sigmoid(x) - t), with one number as scale."""
    return record(
        "scaled_logistic_difference",
        kernels.scaled_logistic_difference(x.array, t.array, scale.array, factor),
        (x, lambda gy: sigmoid_backward(gy * (scale * factor), sigmoid(x))),
        (t, lambda gy: gy * (scale * -factor)),
        (scale, lambda gy: (gy * (sigmoid(x) - t)).sum() * factor),
    )


def gaussian_kl(mean: Tensor, log_var: Tensor, *, reduction: str = "sum") -> Tensor:
    """Divergence of normal distributions from the standard normal one, in nats, in closed form.

    KL(N(m, v) || N(0, 1)) = (m^2 + v - 1 - ln v) / 2 for each dimension, v = e^log_var.

    Parameters
    ----------
    mean, log_var : Tensor
        Means and *logarithms of variances* (not of standard deviations), of one shape, usually (N, D).
    reduction : {"sum", "mean", "none"}
        "sum" over everything: divide by N for nats per image. "none" for each dimension of each sample: its
        ``.mean(0)`` tells which dimensions are used.

    Raises
    ------
    ValueError
        If the shapes differ.

    Notes
    -----
    The gradients are gl m and gl (v - 1) / 2. Source: D. Kingma, M. Welling, Auto-encoding variational Bayes,
    arXiv:1312.6114, 2014, appendix B.

    Examples
    --------
    >>> import minidl
    >>> gaussian_kl(minidl.zeros(3, 2), minidl.zeros(3, 2)).item()
    0.0
    """
    _check_shapes("gaussian_kl", mean, log_var)
    return reduce("gaussian_kl", (mean * mean + _expm1_less(log_var)) * 0.5, reduction)


@quiet
def _expm1_less(x: Tensor) -> Tensor:
    """e^x - 1 - x, which near 0, where a VAE's unused dimensions are, keeps its digits only by way of expm1."""
    return record("expm1_less", np.expm1(x.array) - x.array, (x, lambda gy: gy * _expm1(x)))


@quiet
def _expm1(x: Tensor) -> Tensor:
    return record("expm1", np.expm1(x.array), (x, lambda gy: gy * exp(x)))


def _each(count: int, reduction: str) -> float:
    """The gradient of a mean or a sum in each of its elements: 1 over their number, or 1."""
    return (1 / count if count else np.nan) if reduction == "mean" else 1.0


def _reduced(losses: Array, reduction: str) -> tuple[Array, float]:
    """The mean or sum of a loss's elements, and its gradient in each."""
    each = _each(losses.size, reduction)
    whole = losses[...]  # an array, where NumPy gave a scalar
    wide = whole.astype(np.float32) if whole.dtype == np.float16 else whole  # half precision cannot hold the sum
    return kernels.total(wide, each).astype(losses.dtype, copy=False), each


def reduce(name: str, losses: Tensor, reduction: str) -> Tensor:
    """The mean or sum of a loss's elements, or the elements themselves."""
    _check_reduction(name, reduction)
    return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()


def _check_reduction(name: str, reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none', not {reduction!r}")


def _check_shapes(name: str, input: Tensor, target: Tensor) -> None:
    only_tensors(name, input, target)
    same_device(name, input, target)
    if input.shape != target.shape:
        raise ValueError(
            f"{name}: shapes {input.shape} and {target.shape} differ; reshape one of them, since broadcasting would "
            "compare each element with several"
        )
