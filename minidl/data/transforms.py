"""Image transforms, as plain functions on tensors (..., C, H, W)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidl.creation import randn_like
from minidl.random import Generator
from minidl.tensor import Tensor


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    r"""Shift and scale each channel, like torchvision's function of the same name.

    .. math:: y_c = (x_c - \text{mean}_c) / \text{std}_c

    Parameters
    ----------
    images : Tensor
        Floats (..., C, H, W): one image or a batch.
    mean, std : sequence of float
        One number for each channel, or one for all.

    Returns
    -------
    Tensor
        With the same shape and dtype.

    Raises
    ------
    TypeError
        If `images` is not a float tensor.
    ValueError
        If it has fewer than three dimensions, `mean` or `std` has neither C numbers nor one, or a `std` is 0.

    Examples
    --------
    >>> grey = Tensor(np.array([0.0, 0.5, 1.0]).reshape(1, 1, 3))
    >>> normalize(grey, mean=[0.5], std=[0.5]).array
    array([[[-1.,  0.,  1.]]])
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"normalize: images must be a Tensor, not {type(images).__name__}")
    if not images.is_floating_point():
        raise TypeError(f"normalize: images must be a float tensor, not {images.dtype}; convert it with .float()")
    if images.ndim < 3:
        raise ValueError(f"normalize: images must have shape (..., C, H, W), not {images.shape}")
    channels = images.shape[-3]
    numbers = []
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise ValueError(f"normalize: {name} must have 1 number or {channels}, one per channel, not {len(values)}")
        numbers.append(np.asarray(values, images.dtype).reshape(-1, 1, 1))
    if not numbers[1].all():
        raise ValueError(f"normalize: std must not be 0, since it is a divisor; it is {tuple(std)} in {images.dtype}")
    shift, scale = (Tensor(number).to(images.device) for number in numbers)
    return (images - shift) / scale


def add_noise(images: Tensor, sigma: float, generator: Generator | None = None) -> Tensor:
    """Add Gaussian noise of standard deviation `sigma`, and clamp the result to [0, 1].

    Parameters
    ----------
    images : Tensor
        Floats between 0 and 1, of any shape.
    sigma : float
        At least 0; if it is 0, nothing is drawn.
    generator : Generator, optional
        By default `minidl.random.default_generator`.

    Returns
    -------
    Tensor
        With the same shape and dtype.

    Raises
    ------
    ValueError
        If `sigma` is negative or NaN.

    Examples
    --------
    >>> noisy = add_noise(Tensor(np.full((100, 100), 0.5)), sigma=0.1, generator=Generator().manual_seed(0))
    >>> round(float(noisy.array.std()), 2)
    0.1
    """
    if not sigma >= 0:
        raise ValueError(f"add_noise: sigma must be at least 0, not {sigma}")
    return (images + sigma * randn_like(images, generator=generator)).clamp(0, 1) if sigma else images
