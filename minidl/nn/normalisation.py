"""Normalisation layers: y = weight (x - mean) / sqrt(var + eps) + bias. What a mean is taken over tells them apart.

    BatchNorm      a channel of all samples; in evaluation, running averages take the place of mean and variance
    InstanceNorm   a channel of one sample
    GroupNorm      a group of channels of one sample
    LayerNorm      the last dimensions

The gradient and the sources are in ops/normalisation.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minidl.creation import ones, tensor, zeros
from minidl.nn import functional as F
from minidl.nn.module import Module, Parameter
from minidl.tensor import Tensor

Sizes = int | Sequence[int]


class _Norm(Module):
    """The base of all: the parameters."""

    _has_bias = property(lambda self: self.bias is not None)  # as it is printed

    def _add_parameters(self, size: Sizes, weight: bool, bias: bool, **kind: Any) -> None:
        """Register a weight of ones and a bias of zeros, or None."""
        self.register_parameter("weight", Parameter(ones(size, **kind)) if weight else None)
        self.register_parameter("bias", Parameter(zeros(size, **kind)) if weight and bias else None)


class _Running(_Norm):
    """The base of batch and instance norm, which can keep running averages."""

    _dimensions: tuple[int, ...]
    _repr_format = "{0.num_features}, eps={0.eps}, momentum={0.momentum}, affine={0.affine}, bias={0._has_bias}, "
    _repr_format += "track_running_stats={0.track_running_stats}"

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        self.track_running_stats = track = track_running_stats
        self._add_parameters(num_features, affine, bias, device=device, dtype=dtype)
        kind = {"device": device, "dtype": dtype}
        self.register_buffer("running_mean", zeros(num_features, **kind) if track else None)
        self.register_buffer("running_var", ones(num_features, **kind) if track else None)
        self.register_buffer("num_batches_tracked", tensor(0, device=device) if track else None)

    def _check_dimensions(self, input: Tensor) -> None:
        if input.ndim not in self._dimensions:
            wanted = " or ".join(map(str, self._dimensions))
            raise ValueError(f"{type(self).__name__}: expected {wanted} dimensions, not shape {input.shape}")


class _BatchNorm(_Running):
    def forward(self, input: Tensor) -> Tensor:
        """Normalise each channel; the shape does not change."""
        self._check_dimensions(input)
        updated, momentum = self.training and self.track_running_stats, self.momentum
        if momentum is None:  # the average of all batches
            momentum = 1 / (self.num_batches_tracked.item() + 1) if updated else 0.0
        mean, var = (self.running_mean, self.running_var) if updated or not self.training else (None, None)
        by_batch = self.training or (mean is None and var is None)
        y = F.batch_norm(input, mean, var, self.weight, self.bias, by_batch, momentum, self.eps)
        if updated:
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
    momentum : float or None
        running = (1 - momentum) running + momentum batch, after each training batch; None: the average of all batches.
    affine, bias : bool
        Whether the layer has a weight and, with it, a bias.
    track_running_stats : bool
        Without running averages the batch's mean and variance are used in evaluation too.

    Attributes
    ----------
    weight, bias : Parameter or None
        (C,), initially ones and zeros.
    running_mean, running_var : Tensor or None
        (C,), buffers: updated in training, used in evaluation.
    num_batches_tracked : Tensor or None
        The number of training batches so far, int64.
    """

    _dimensions = (4,)


class _InstanceNorm(_Running):
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each channel of each sample, or of a single one; the shape does not change."""
        self._check_dimensions(input)
        if input.ndim == self._dimensions[0]:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        if self.affine and input.shape[1] != self.num_features:
            raise ValueError(f"{type(self).__name__}: num_features is {self.num_features}, not {input.shape[1]}")
        by_sample, momentum = self.training or not self.track_running_stats, self.momentum or 0.0
        running = self.running_mean, self.running_var
        return F.instance_norm(input, *running, self.weight, self.bias, by_sample, momentum, self.eps)


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of (N, C, L) or (C, L), with the arguments of ``BatchNorm2d``."""

    _dimensions = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation of images (N, C, H, W) or (C, H, W), with the arguments of ``BatchNorm2d``."""

    _dimensions = (3, 4)


class GroupNorm(_Norm):
    """Normalisation of groups of channels of (N, C, ...); see `functional.group_norm`.

    Parameters
    ----------
    num_groups, num_channels : int
        The groups, and the channels, C, which they divide.
    eps : float
    affine, bias : bool
        Whether the layer has a weight and, with it, a bias, each (C,).
    """

    _repr_format = "{0.num_groups}, {0.num_channels}, eps={0.eps}, affine={0.affine}, bias={0._has_bias}"

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Any = None,
        dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(f"GroupNorm: num_groups={num_groups} does not divide num_channels={num_channels}")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self._add_parameters(num_channels, affine, bias, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each group; the shape does not change."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class LayerNorm(_Norm):
    """Normalisation over the last dimensions; see `functional.layer_norm`.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Their sizes.
    eps : float
    elementwise_affine, bias : bool
        Whether the layer has a weight and, with it, a bias, each of this shape.
    """

    _repr_format = "{0.normalized_shape}, eps={0.eps}, elementwise_affine={0.elementwise_affine}, bias={0._has_bias}"

    def __init__(
        self, normalized_shape: Sizes, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        self._add_parameters(shape, elementwise_affine, bias, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; the shape does not change."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)
