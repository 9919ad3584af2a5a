"""torchvision.utils: grids of images, also in files."""

import numpy as np

from minidl import plot
from minidl.compat.torchvision.transforms.functional import to_pil_image
from minidl.tensor import Tensor

__all__ = ["make_grid", "save_image"]


def make_grid(tensor, nrow=8, padding=2, normalize=False, value_range=None, scale_each=False, pad_value=0.0):
    """Arrange images (N, C, H, W) in a grid, `nrow` in a row; `normalize` scales `value_range` to 0 to 1."""
    parts = tensor if isinstance(tensor, list) else [tensor]
    if not all(isinstance(part, Tensor) for part in parts):
        raise TypeError(f"tensor or list of tensors expected, got {sorted({type(part).__name__ for part in parts})}")
    images = np.stack([part.detach().cpu().numpy() for part in parts])
    images = images.reshape(-1, *((1,) * (4 - images.ndim) + images.shape)[-3:])  # (N, C, H, W)
    if normalize:
        groups = images if scale_each else images[None]
        images = np.stack([_normalized(group, value_range) for group in groups]).reshape(images.shape)
    return plot.make_grid(images, nrow, padding, pad_value=pad_value)


def _normalized(images, value_range):
    low, high = map(float, value_range or (images.min(), images.max()))
    return (images.clip(low, high) - low) / max(high - low, 1e-5)


def save_image(tensor, fp, format=None, **kwargs):
    """Write `make_grid` of images from 0 to 1 to a file, given by its name or open."""
    grid = make_grid(tensor, **kwargs).numpy()
    to_pil_image((grid * 255 + 0.5).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)).save(fp, format=format)
