"""Batch normalisation layers; the running statistics are buffers.

Training: y = weight (x - mean) / sqrt(var + eps) + bias, with the mean and the (biased) variance of each channel over
the batch. Evaluation uses their running averages. Source: S. Ioffe, C. Szegedy, Batch normalization: accelerating deep
network training by reducing internal covariate shift, arXiv:1502.03167, 2015. The gradient is in ops/normalisation.py.
"""

from __future__ import annotations

from typing import Any

from minidl.creation import ones, tensor, zeros
from minidl.nn import functional as F
from minidl.nn.module import Module, Parameter
from minidl.tensor import Tensor


class _BatchNorm(Module):
    """The base of ``BatchNorm1d`` and ``BatchNorm2d``."""

    _dimensions: tuple[int, ...]

    _repr_format = "{0.num_features}, eps={0.eps}, momentum={0.momentum}, affine={0.affine}, bias={0.affine}"
    _repr_format += ", track_running_stats=True"

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if not track_running_stats or momentum is None:
            raise NotImplementedError(f"{name}: track_running_stats=False and momentum=None are not supported")
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        kind = {"device": device, "dtype": dtype}
        self.register_parameter("weight", Parameter(ones(num_features, **kind)) if affine else None)
        self.register_parameter("bias", Parameter(zeros(num_features, **kind)) if affine else None)
        self.register_buffer("running_mean", zeros(num_features, **kind))
        self.register_buffer("running_var", ones(num_features, **kind))
        self.register_buffer("num_batches_tracked", tensor(0, device=device))

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each channel; the shape does not change."""
        if input.ndim not in self._dimensions:
            wanted = " or ".join(map(str, self._dimensions))
            raise ValueError(f"{type(self).__name__}: expected {wanted} dimensions, not shape {input.shape}")
        running = self.running_mean, self.running_var
        y = F.batch_norm(input, *running, self.weight, self.bias, self.training, self.momentum, self.eps)
        if self.training:
            self.num_batches_tracked.add_(1)
        return y


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L), with the arguments and attributes of ``BatchNorm2d``."""

    _dimensions = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images (N, C, H, W); see `functional.batch_norm`.

    Parameters
    ----------
    num_features : int
        The number C of channels.
    eps : float
    momentum : float
        running = (1 - momentum) running + momentum batch, after each training batch.
    affine : bool
        Whether the layer has a weight and a bias.
    track_running_stats : bool
        Only True.

    Attributes
    ----------
    weight, bias : Parameter or None
        (C,), initially ones and zeros.
    running_mean, running_var : Tensor
        (C,), buffers: updated in training, used in evaluation.
    num_batches_tracked : Tensor
        The number of training batches so far, int64.
    """

    _dimensions = (4,)
