"""make_grid and save_image, for batches of images between 0 and 1."""

import torch
from PIL import Image


def make_grid(tensor, nrow=8, padding=2, normalize=False, pad_value=0.0):
    """Images (n, C, H, W) in rows of `nrow`, on one sheet with three channels."""
    if tensor.dim() == 3:  # one image
        return tensor.expand(3, -1, -1)
    images = tensor.detach().expand(-1, 3, -1, -1)
    if normalize:
        low, high = images.min(), images.max()
        images = (images - low) / max(high - low, 1e-5)
    n, c, h, w = images.shape
    columns = min(nrow, n)
    sheet = torch.full((c, -(-n // columns) * (h + padding) + padding, columns * (w + padding) + padding), pad_value)
    for i, image in enumerate(images):
        top, left = (k * (side + padding) + padding for k, side in zip(divmod(i, columns), (h, w), strict=True))
        sheet[:, top : top + h, left : left + w] = image
    return sheet


def save_image(tensor, fp, **options):
    """Write the sheet as a picture."""
    pixels = make_grid(tensor, **options).mul(255).add(0.5).clamp(0, 255).byte()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(fp)
