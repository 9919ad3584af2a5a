"""The transforms as functions: the one that scripts use."""

import numpy as np
import torch


def to_tensor(image):
    """Pixels (H, W, C) or (H, W) of bytes as floats (C, H, W)."""
    pixels = np.array(image)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255
