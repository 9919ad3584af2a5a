"""Loss functions: one number that says how far a prediction is from its target.

Letters: x is the prediction, t the target, l the loss of one element or sample, gl the gradient in it. Each `reduction`
averages the l ("mean"), sums them ("sum") or returns them ("none"); what the mean is over is the loss's unit. Most are
negative log-likelihoods: of a normal distribution around x (mse_loss), of a class (cross_entropy), of a coin
(binary_cross_entropy).

Source: C. Bishop, Pattern recognition and machine learning, Springer 2006, sections 4.3 and 5.2.
"""

from __future__ import annotations

import numpy as np

from minidl import kernels
from minidl.autograd import record
from minidl.kernels import devices
from minidl.ops._losses import check_reduction, check_shapes, class_losses, known_classes, of_classes, reduce
from minidl.ops._operands import operands, operation
from minidl.ops.activation import log_softmax, sigmoid, sigmoid_backward, softmax
from minidl.ops.arithmetic import abs, exp
from minidl.ops.comparison import clamp
from minidl.ops.conversion import quiet, to
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
    check_shapes("mse_loss", input, target)
    check_reduction("mse_loss", reduction)
    x, t = operands("mse_loss", input, target)
    if not x.is_floating_point():
        raise NotImplementedError(f"mse_loss: input or target must be floats, not {x.dtype}; convert with .float()")
    if reduction == "none":
        errors = np.square(x.array - t.array)
        return record("mse_loss", errors, (x, lambda gy: (x - t) * (gy * 2)), (t, lambda gy: (t - x) * (gy * 2)))
    # Reduced here, so that the gradient multiplies by one number, not by an array of equal ones.
    share = _share(x.numel(), reduction)
    return record(
        "mse_loss",
        kernels.total_squared_error(x.array, t.array, share),
        (x, lambda gy: _scaled_difference(x, t, gy, 2 * share)),
        (t, lambda gy: _scaled_difference(t, x, gy, 2 * share)),
    )


def _scaled_difference(x: Tensor, t: Tensor, scale: Tensor, factor: float) -> Tensor:
    """factor scale (x - t), where scale is one number."""
    return record(
        "scaled_difference",
        kernels.scaled_difference(x.array, t.array, scale.array, factor),
        (x, lambda gy: gy * (scale * factor)),
        (t, lambda gy: gy * (scale * -factor)),
        (scale, lambda gy: (gy * (x - t)).sum() * factor),
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
    check_shapes("l1_loss", input, target)
    return reduce("l1_loss", abs(input - target), reduction)


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
    classes, kept = known_classes("nll_loss", "log-probabilities", input, target, ignore_index)
    return class_losses("nll_loss", input, classes, kept, weight, reduction, 0)


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
        terms = of_classes("cross_entropy", q, weight) * log_softmax(input, dim)
        return reduce("cross_entropy", -terms.sum(dim), reduction)
    classes, kept = known_classes("cross_entropy", "logits", input, target, ignore_index)
    if weight is not None or label_smoothing or kept is not None or input.ndim == 1:
        log_p = log_softmax(input, min(1, input.ndim - 1))
        return class_losses("cross_entropy", log_p, classes, kept, weight, reduction, label_smoothing)
    check_reduction("cross_entropy", reduction)
    x = input
    y = kernels.cross_entropy(x.array, classes) if x.numel() else np.zeros_like(x.array, shape=classes.shape)
    share = 1.0
    if reduction != "none":
        y, share = _mean_or_sum(y, reduction)
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


@operation()
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
    check_shapes("binary_cross_entropy", input, target)
    if target.dtype != input.dtype or not input.is_floating_point():
        error = NotImplementedError if target.dtype == input.dtype else RuntimeError  # as in PyTorch
        raise error(
            f"binary_cross_entropy: input and target must both be float32 or both float64, not {input.dtype} and "
            f"{target.dtype}; convert them with .float()"
        )
    for name, value in (("input", input), ("target", target)):
        if devices.any_true(~((value.array >= 0) & (value.array <= 1))):  # NaN is outside, too
            raise RuntimeError(
                f"binary_cross_entropy: all elements of {name} must lie between 0 and 1, and they range from "
                f"{value.array.min():g} to {value.array.max():g}; for logits use binary_cross_entropy_with_logits"
            )
    losses = _bce(input, target)
    return reduce("binary_cross_entropy", losses if weight is None else losses * weight, reduction)


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
    check_shapes("binary_cross_entropy_with_logits", input, target)
    if not target.is_floating_point() or not input.is_floating_point():
        raise NotImplementedError(
            f"binary_cross_entropy_with_logits: input and target must be float tensors, not {input.dtype} "
            f"and {target.dtype}; convert them with .float()"
        )
    check_reduction("binary_cross_entropy_with_logits", reduction)
    kind = np.promote_types(input.dtype, target.dtype)
    x, t = to(input, kind), to(target, kind)
    if reduction == "none" or weight is not None or pos_weight is not None:
        losses = _logistic_loss(x, t)
        if pos_weight is not None:
            losses = pos_weight * t * softplus(-x) + (1 - t) * softplus(x)
        return reduce("binary_cross_entropy_with_logits", losses if weight is None else losses * weight, reduction)
    share = _share(x.numel(), reduction)
    return record(
        "binary_cross_entropy_with_logits",
        kernels.total_logistic_loss(x.array, t.array, share),
        (x, lambda gy: _scaled_logistic_difference(x, t, gy, share)),
        (t, lambda gy: x * (gy * -share)),
    )


def softplus(x: Tensor) -> Tensor:
    """ln(1 + e^x), computed as the loss of the target 0."""
    return _logistic_loss(x, Tensor(np.zeros_like(x.array)))


@quiet
def _logistic_loss(x: Tensor, t: Tensor) -> Tensor:
    """max(x, 0) - x t + ln(1 + e^-|x|)."""
    losses = np.maximum(x.array, 0) - x.array * t.array + np.log1p(np.exp(-np.abs(x.array)))
    return record(
        "binary_cross_entropy_with_logits", losses, (x, lambda gy: (sigmoid(x) - t) * gy), (t, lambda gy: -x * gy)
    )


def _scaled_logistic_difference(x: Tensor, t: Tensor, scale: Tensor, factor: float) -> Tensor:
    """factor scale (sigmoid(x) - t), where scale is one number."""
    return record(
        "scaled_logistic_difference",
        kernels.scaled_logistic_difference(x.array, t.array, scale.array, factor),
        (x, lambda gy: sigmoid_backward(gy * (scale * factor), sigmoid(x))),
        (t, lambda gy: gy * (scale * -factor)),
        (scale, lambda gy: (gy * (sigmoid(x) - t)).sum() * factor),
    )


@operation()
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
    check_shapes("gaussian_kl", mean, log_var)
    return reduce("gaussian_kl", (mean * mean + _expm1_minus_x(log_var)) * 0.5, reduction)


@quiet
def _expm1_minus_x(x: Tensor) -> Tensor:
    """e^x - 1 - x, by expm1, which keeps its digits near x = 0, where the unused dimensions of a VAE are."""
    return record("expm1_minus_x", np.expm1(x.array) - x.array, (x, lambda gy: gy * _expm1(x)))


@quiet
def _expm1(x: Tensor) -> Tensor:
    return record("expm1", np.expm1(x.array), (x, lambda gy: gy * exp(x)))


def _share(count: int, reduction: str) -> float:
    """Each element's share of a mean or a sum, which is the derivative in it: 1 / count, or 1."""
    return (1 / count if count else np.nan) if reduction == "mean" else 1.0


def _mean_or_sum(losses: Array, reduction: str) -> tuple[Array, float]:
    """The mean or sum of a loss's elements, and each element's share of it."""
    share = _share(losses.size, reduction)
    return kernels.total(losses[...], share), share  # [...] makes an array of NumPy's scalars
