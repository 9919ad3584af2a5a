"""Loss functions: one number that says how far a prediction is from its target.

Letters: x is the prediction, t the target, l the loss of one element or sample, gl the gradient in it. Each `reduction`
averages the l ("mean"), sums them ("sum") or returns them ("none"); what the mean is over is the loss's unit. Most are
negative log-likelihoods: of a normal distribution around x (mse_loss), of a class (cross_entropy), of a coin
(binary_cross_entropy).

Source: C. Bishop, Pattern recognition and machine learning, Springer 2006, sections 4.3 and 5.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import kernels
from minidl.autograd import record
from minidl.kernels import devices
from minidl.ops._operands import only_floats, operands, operation
from minidl.ops.activation import log_softmax, sigmoid, sigmoid_backward, softmax
from minidl.ops.arithmetic import abs, log, square
from minidl.ops.comparison import clamp, where
from minidl.ops.conversion import to
from minidl.ops.pointwise import expm1, logsigmoid
from minidl.tensor import Array, Tensor


@operation(errstate=True, wide=True)
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
        If the shapes differ. PyTorch broadcasts them, which turns (N, 1) and (N,) into N x N errors.

    Notes
    -----
    gx = gl 2 (x - t), gt = -gx.
    """
    _check_shapes("mse_loss", input, target)
    _check_reduction("mse_loss", reduction)
    x, t = operands("mse_loss", input, target)
    if not x.is_floating_point():
        raise NotImplementedError(f"mse_loss: input or target must be floats, not {x.dtype}; convert with .float()")
    if reduction == "none":
        return square(x - t)
    # Reduced here, so that the gradient multiplies by one number, not by an array of equal ones.
    share = _share(x.numel(), reduction)
    return record(
        "mse_loss",
        kernels.total_squared_error(x.array, t.array, share),
        (x, lambda gy: _scaled_difference(x, t, gy, 2 * share)),
        (t, lambda gy: _scaled_difference(t, x, gy, 2 * share)),
    )


def _scaled_difference(x: Tensor, t: Tensor, scale: Tensor, factor: float, logistic: bool = False) -> Tensor:
    """factor scale (x - t), where scale is one number; if `logistic`, factor scale (sigmoid(x) - t)."""
    kernel = kernels.scaled_logistic_difference if logistic else kernels.scaled_difference

    def gradient_x(gy: Tensor) -> Tensor:
        gp = gy * (scale * factor)
        return sigmoid_backward(gp, sigmoid(x)) if logistic else gp

    return record(
        "scaled_difference",
        kernel(x.array, t.array, scale.array, factor),
        (x, gradient_x),
        (t, lambda gy: gy * (scale * -factor)),
        (scale, lambda gy: (gy * ((sigmoid(x) if logistic else x) - t)).sum() * factor),
    )


@operation()
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
    return _reduce("l1_loss", abs(input - target), reduction)


@operation(wide=True)
def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """Negative log-likelihood of the right class: l = -w_t x_t;  gx_c = -gl w_t [c = t].

    ``cross_entropy`` takes logits, and has the same arguments.

    Parameters
    ----------
    input : Tensor
        Log-probabilities, such as ``log_softmax`` gives: (N, C), (C,) for one sample, or (N, C, H, W).
    target : Tensor
        Class indices, int64, from 0 to C - 1: (N,), () or (N, H, W).
    weight : Tensor, optional
        w, one for each class, (C,).
    ignore_index : int
        Samples, or pixels, with this target have a loss of 0, and do not count.
    reduction : {"mean", "sum", "none"}
        "mean" is over samples, or over all their pixels, or divides by the sum of their w_t.

    Raises
    ------
    ValueError, RuntimeError, IndexError
        As ``cross_entropy``.
    """
    classes, kept = _known_classes("nll_loss", "log-probabilities", input, target, ignore_index)
    return _class_losses("nll_loss", input, classes, kept, weight, reduction, 0)


@operation(wide=True)
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Negative log-likelihood of the right class: l = -ln softmax(x)[t] = ln(sum over c of e^x_c) - x_t.

    With weights, smoothing s, or probabilities t_c as targets: l = -sum over c of q_c w_c ln softmax(x)_c, where
    q_c = (1 - s) t_c + s / C, and t_c is 1 for the right class, 0 for the others.

    Parameters
    ----------
    input : Tensor
        Logits, real numbers of any size: (N, C), (C,) for one sample, or (N, C, H, W) for a class at each pixel.
    target : Tensor
        Class indices, int64, from 0 to C - 1: (N,), () or (N, H, W). Or probabilities: floats, of the input's shape.
    weight, ignore_index
        As for ``nll_loss``.
    reduction : {"mean", "sum", "none"}
        "mean" is over samples, or over all their pixels; for class indices with weights it divides by the sum of the
        w_t.
    label_smoothing : float
        s, from 0 to 1: how much of the probability is spread evenly over all classes.

    Raises
    ------
    ValueError
        If the batches or sizes of input and target differ.
    RuntimeError
        If the target holds neither class indices nor probabilities, or weight or label_smoothing does not fit.
    IndexError
        If an index is not a class.

    Notes
    -----
    gx_c = gl (softmax(x)_c - [c = t]).

    Source of the smoothing: C. Szegedy et al., Rethinking the Inception architecture for computer vision,
    arXiv:1512.00567, 2015, section 7.

    Examples
    --------
    >>> import minidl
    >>> loss = cross_entropy(minidl.tensor([[1e4, -1e4], [0.0, 0.0]]), minidl.tensor([1, 0]), reduction="none")
    >>> loss.tolist()
    [20000.0, 0.6931471824645996]
    """
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(f"cross_entropy: label_smoothing must be from 0 to 1, not {label_smoothing}")
    if target.shape == input.shape and target.dtype.kind == "f":
        if ignore_index >= 0:
            raise RuntimeError(f"cross_entropy: ignore_index={ignore_index} needs class indices, not probabilities")
        dim = min(1, input.ndim - 1)
        q = target * (1 - label_smoothing) + label_smoothing / input.shape[dim] if label_smoothing else target
        terms = _of_classes("cross_entropy", q, weight) * log_softmax(input, dim)
        return _reduce("cross_entropy", -terms.sum(dim), reduction)
    classes, kept = _known_classes("cross_entropy", "logits", input, target, ignore_index)
    if weight is not None or label_smoothing or kept is not None or input.ndim == 1:
        log_p = log_softmax(input, min(1, input.ndim - 1))
        return _class_losses("cross_entropy", log_p, classes, kept, weight, reduction, label_smoothing)
    _check_reduction("cross_entropy", reduction)
    x = input
    y = kernels.cross_entropy(x.array, classes) if x.numel() else np.zeros_like(x.array, shape=classes.shape)
    share = _share(y.size, reduction)
    if reduction != "none":
        y = kernels.total(y[...], share)  # [...] makes an array of NumPy's scalars
    return record("cross_entropy", y, (x, lambda gy: _cross_entropy_backward(gy * share, x, classes)))


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


@operation(errstate=True)
def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """l = -t ln x - (1 - t) ln(1 - x), for probabilities x; each logarithm at least -100, as in PyTorch.

    Parameters
    ----------
    input, target : Tensor
        Of one shape and floating dtype, with values between 0 and 1.
    weight : Tensor, optional
        Factors of the l, broadcast to their shape.
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
    ``binary_cross_entropy_with_logits`` stays exact; here the probability has been rounded already.
    """
    _check_shapes("binary_cross_entropy", input, target)
    if target.dtype != input.dtype or not input.is_floating_point():
        error = NotImplementedError if target.dtype == input.dtype else RuntimeError  # as in PyTorch
        rule = "input and target must both be float32 or both float64"
        raise error(f"binary_cross_entropy: {rule}, not {input.dtype} and {target.dtype}; convert them with .float()")
    for name, value in (("input", input), ("target", target)):
        if devices.any_true(~((value.array >= 0) & (value.array <= 1))):  # NaN is outside, too
            found = f"and they range from {value.array.min():g} to {value.array.max():g}"
            cure = "for logits use binary_cross_entropy_with_logits"
            raise RuntimeError(
                f"binary_cross_entropy: all elements of {name} must lie between 0 and 1, {found}; {cure}"
            )
    x, t = input, target
    log_x, log_rest = np.maximum(np.log(x.array), -100), np.maximum(np.log1p(-x.array), -100)
    losses = record(
        "binary_cross_entropy",
        -t.array * log_x - (1 - t.array) * log_rest,
        (x, lambda gy: gy * (x - t) / clamp(x * (1 - x), min=1e-12)),
        (t, lambda gy: _bce_target(gy, x, log_rest - log_x)),
    )
    return _reduce("binary_cross_entropy", losses if weight is None else losses * weight, reduction)


def _bce_target(gy: Tensor, x: Tensor, odds: Array) -> Tensor:
    """gt = gy (ln(1 - x) - ln x), each logarithm at least -100 as in the loss."""
    return record(
        "binary_cross_entropy_target",
        gy.array * odds,
        (gy, lambda ggt: _bce_target(ggt, x, odds)),
        (x, lambda ggt: -ggt * gy / clamp(x * (1 - x), min=1e-12)),
    )


@operation(errstate=True, wide=True)
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """``binary_cross_entropy`` of sigmoid(x), without computing it: l = max(x, 0) - x t + ln(1 + e^-|x|).

    With `pos_weight` p, l = p t ln(1 + e^-x) + (1 - t) ln(1 + e^x): the terms of ones and of zeros.

    Parameters
    ----------
    input : Tensor
        Logits, finite real numbers of any size.
    target : Tensor
        Of the same shape and floating dtype, usually between 0 and 1.
    weight, pos_weight : Tensor, optional
        Factors of the l, and of the terms of ones, broadcast to their shape.
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
        found = f"not {input.dtype} and {target.dtype}; convert them with .float()"
        raise NotImplementedError(f"binary_cross_entropy_with_logits: input and target must be float tensors, {found}")
    _check_reduction("binary_cross_entropy_with_logits", reduction)
    kind = np.promote_types(input.dtype, target.dtype)
    x, t = to(input, kind), to(target, kind)
    if reduction == "none" or weight is not None or pos_weight is not None:
        if pos_weight is None:
            losses = record(
                "binary_cross_entropy_with_logits",
                np.maximum(x.array, 0) - x.array * t.array + np.log1p(np.exp(-np.abs(x.array))),
                (x, lambda gy: (sigmoid(x) - t) * gy),
                (t, lambda gy: -x * gy),
            )
        else:
            losses = -(pos_weight * t * logsigmoid(x) + (1 - t) * logsigmoid(-x))
        return _reduce("binary_cross_entropy_with_logits", losses if weight is None else losses * weight, reduction)
    share = _share(x.numel(), reduction)
    return record(
        "binary_cross_entropy_with_logits",
        kernels.total_logistic_loss(x.array, t.array, share),
        (x, lambda gy: _scaled_difference(x, t, gy, share, logistic=True)),
        (t, lambda gy: x * (gy * -share)),
    )


@operation(errstate=True)
def gaussian_kl(mean: Tensor, log_var: Tensor, *, reduction: str = "sum") -> Tensor:
    """Kullback-Leibler divergence of normal distributions from the standard normal one, in nats, in closed form.

    KL(N(m, v) || N(0, 1)) = (m^2 + v - 1 - ln v) / 2 for each dimension, v = e^log_var.

    Parameters
    ----------
    mean, log_var : Tensor
        Means and *logarithms of variances* (not of standard deviations), of one shape, usually (N, D).
    reduction : {"sum", "mean", "none"}
        "sum" is over everything: divide by N for nats per image. "none" is for each dimension of each sample:
        ``.mean(0)`` of it tells which dimensions are used.

    Raises
    ------
    ValueError
        If the shapes differ.

    Notes
    -----
    gm = gl m, and gl (v - 1) / 2 in log_var. Source: D. Kingma, M. Welling, Auto-encoding variational Bayes,
    arXiv:1312.6114, 2014, appendix B.

    Examples
    --------
    >>> import minidl
    >>> gaussian_kl(minidl.zeros(3, 2), minidl.zeros(3, 2)).item()
    0.0
    """
    _check_shapes("gaussian_kl", mean, log_var)
    x = log_var
    # e^x - 1 - x, by expm1, which keeps its digits near x = 0, where the unused dimensions of a VAE are
    distance = record("expm1_minus_x", np.expm1(x.array) - x.array, (x, lambda gy: gy * expm1(x)))
    return _reduce("gaussian_kl", (mean * mean + distance) * 0.5, reduction)


# --- Losses composed of recorded operations, which give the gradients that the docstrings state ----------------


@operation(wide=True)
def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Squared error for small d = x - t, absolute for large: l = d^2 / 2 up to |d| = D, then D (|d| - D / 2).

    D is `delta`. Both are c (d - c / 2), where c is d clamped to [-D, D]. The gradient is c: gx = gl c, gt = -gx.

    Source: P. Huber, Robust estimation of a location parameter, Annals of Mathematical Statistics 35, 1964.
    """
    if not delta > 0:
        raise RuntimeError(f"huber_loss: delta must be greater than 0, not {delta}")
    return _reduce("huber_loss", _huber("huber_loss", input, target, delta), reduction)


def _huber(name: str, input: Tensor, target: Tensor, delta: float) -> Tensor:
    _check_shapes(name, input, target)
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
    return _reduce("smooth_l1_loss", _huber("smooth_l1_loss", input, target, beta) / beta, reduction)


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
    _check_shapes("kl_div", input, target)
    some = Tensor((target.array != 0) | log_target)
    losses = target.exp() * (target - input) if log_target else target * (log(where(some, target, 1)) - input)
    if reduction == "batchmean":
        return where(some, losses, 0).sum() / (input.shape[0] if input.ndim else 1)
    return _reduce("kl_div", where(some, losses, 0), reduction)


# --- What all losses share ----------------------------------------------------------------------------------


def _share(count: int, reduction: str) -> float:
    """Each element's share of a mean or a sum, which is the derivative in it: 1 / count, or 1."""
    return (1 / count if count else np.nan) if reduction == "mean" else 1.0


def _reduce(name: str, losses: Tensor, reduction: str) -> Tensor:
    """The mean or sum of a loss's elements, or the elements themselves."""
    _check_reduction(name, reduction)
    return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()


def _check_reduction(name: str, reduction: str) -> None:
    """Raise unless it is "mean", "sum" or "none"."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none', not {reduction!r}")


def _check_shapes(name: str, input: Tensor, target: Tensor) -> None:
    """Raise unless both have the same shape."""
    if input.shape != target.shape:
        cure = "reshape one of them, since broadcasting would compare each element with several"
        raise ValueError(f"{name}: shapes {input.shape} and {target.shape} differ; {cure}")


def _known_classes(name: str, scores: str, x: Tensor, t: Tensor, ignore_index: int) -> tuple[Array, Array | None]:
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


def _of_classes(name: str, x: Tensor, weight: Tensor | None) -> Tensor:
    """x of shape (N, C, ...) or (C,), times a weight for each class."""
    if weight is None:
        return x
    if weight.shape != x.shape[:2][-1:] or weight.dtype != x.dtype:
        wanted, given = f"shape {x.shape[:2][-1:]} and {x.dtype}", f"{weight.shape} and {weight.dtype}"
        raise RuntimeError(f"{name}: a weight for each class must have {wanted}, not {given}")
    return x * weight.reshape(-1, *[1] * (x.ndim - 2))


def _class_losses(
    name: str, log_p: Tensor, classes: Array, kept: Array | None, weight: Tensor | None, reduction: str, smooth: float
) -> Tensor:
    """-w_t ln p_t, from (N, C, ...), with a part `smooth` spread over all C classes; 0 where the target is ignored.

    l = (1 - smooth) w_t (-ln p_t) + smooth / C (sum over c of w_c (-ln p_c)). The mean divides by the sum of the w_t.
    """
    at: list[Any] = [*np.ogrid[tuple(slice(n) for n in classes.shape)]]
    at.insert(1, Tensor(classes))  # (sample, class, pixel), or for one sample (class,)
    terms = _of_classes(name, log_p, weight)
    losses = -terms[tuple(at)]
    if smooth:
        losses = losses * (1 - smooth) - terms.mean(min(1, terms.ndim - 1)) * smooth
    if weight is None and kept is None:
        return _reduce(name, losses, reduction)
    w = Tensor(np.ones_like(log_p.array, shape=classes.shape)) if weight is None else weight[Tensor(classes)]
    if kept is not None:
        losses, w = (where(Tensor(kept), a, 0) for a in (losses, w))
    return losses.sum() / w.sum() if reduction == "mean" else _reduce(name, losses, reduction)
