"""Helpers for training loops: gradient clipping, and all parameters as one vector."""

from __future__ import annotations

from collections.abc import Iterable

from minidl.autograd import no_grad
from minidl.creation import tensor
from minidl.ops._operands import only_tensors
from minidl.ops.shape import cat, reshape, stack
from minidl.tensor import Tensor


def _gradients(name: str, parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    only_tensors(name, *listed)
    return [p.grad.detach() for p in listed if p.grad is not None]


@no_grad()
def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0) -> Tensor:
    """Scale the gradients of all parameters, taken as one vector g, to a norm of at most `max_norm`.

    g = g * min(1, max_norm / (|g| + 1e-6)), where |g| is the Euclidean norm. Returns |g| as it was before.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are skipped.
    max_norm : float
    norm_type : float
        Only 2.

    Notes
    -----
    Source: R. Pascanu et al., On the difficulty of training recurrent neural networks, arXiv:1211.5063, 2013.

    Examples
    --------
    >>> import minidl
    >>> p = minidl.tensor([3.0, 4.0], requires_grad=True)
    >>> (p * p / 2).sum().backward()
    >>> clip_grad_norm_([p], 1.0).item()
    5.0
    >>> p.grad
    tensor([0.6, 0.8], shape=(2,), dtype=float32)
    """
    if norm_type != 2:
        raise NotImplementedError(f"clip_grad_norm_: norm_type={norm_type} is not supported, only norm_type=2")
    gradients = _gradients("clip_grad_norm_", parameters)
    if not gradients:
        return tensor(0.0)
    length = stack([g.square().sum() for g in gradients]).sum().sqrt()
    share = (max_norm / (length + 1e-6)).clamp(max=1.0)
    for g in gradients:
        g.mul_(share)
    return length


@no_grad()
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clamp each element of the gradients to [-clip_value, clip_value]."""
    most = float(clip_value)
    for g in _gradients("clip_grad_value_", parameters):
        g.clamp_(-most, most)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters concatenated into one vector; differentiable."""
    return cat([reshape(p, -1) for p in parameters])
