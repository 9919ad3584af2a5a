"""torchvision.transforms.functional: on PIL images with Pillow, on tensors and arrays with NumPy.

A tensor is an image (C, H, W) or a batch (..., C, H, W). An array is (H, W) or (H, W, C), which is what data sets
yield where Pillow is not installed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.data import normalize as _normalize
from minidl.ops.conversion import as_dtype
from minidl.tensor import Array, Tensor

try:
    from PIL import Image, ImageEnhance, ImageOps
except ImportError:
    Image = None  # type: ignore[assignment]

GREY = np.float32([0.2989, 0.587, 0.114])  # luma of ITU-R BT.601, in torchvision's digits
PILLOW = {"nearest": 0, "nearest-exact": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
InterpolationMode = enum.Enum(  # type: ignore[misc]
    "InterpolationMode", {name.upper().replace("-", "_"): name for name in PILLOW}
)
NEAREST, BILINEAR = InterpolationMode("nearest"), InterpolationMode("bilinear")


def is_pil(image: Any) -> bool:
    """Whether it is a PIL image."""
    return Image is not None and isinstance(image, Image.Image)


def _pil_only(name: str, image: Any) -> Any:
    if not is_pil(image):
        raise NotImplementedError(
            f"{name} works on PIL images here, not on {type(image).__name__}: put it before ToTensor (pip install pillow)"
        )
    return image


def _changed(image: Any, change: Callable[[Array], Array]) -> Any:
    """Apply `change`, which maps arrays (..., C, H, W), to any kind of image, and return that kind."""
    if is_pil(image):
        return Image.fromarray(_changed(np.asarray(image), change))
    if isinstance(image, Tensor):
        return Tensor(np.ascontiguousarray(change(image.detach().cpu().numpy()))).to(image.device)
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
        raise TypeError(f"expected a PIL image, a tensor or an array (H, W) or (H, W, C), not {type(image).__name__}")
    result = change(np.atleast_3d(image).transpose(2, 0, 1)).transpose(1, 2, 0)
    return np.ascontiguousarray(result[..., 0] if image.ndim == 2 and result.shape[2] == 1 else result)


def _name(interpolation: Any) -> str:
    """The name of an interpolation, given as InterpolationMode or as Pillow's constant."""
    known = [name for name, number in PILLOW.items() if interpolation in (InterpolationMode(name), number)]
    return known[0]


def get_dimensions(img: Any) -> list[int]:
    """Channels, height and width."""
    if is_pil(img):
        return [len(img.getbands()), img.height, img.width]
    c, h, w = (-3, -2, -1) if isinstance(img, Tensor) else (2, 0, 1)
    return [img.shape[c] if img.ndim > 2 else 1, img.shape[h], img.shape[w]]


def get_image_size(img: Any) -> list[int]:
    """Width and height."""
    return get_dimensions(img)[:0:-1]


# -- to and from tensors ------------------------------------------------------------------------------------------


def to_tensor(pic: Any, mean: Sequence[float] = (), std: Sequence[float] = ()) -> Tensor:
    """A PIL image or array (H, W[, C]) as a tensor (C, H, W); bytes become floats from 0 to 1, normalized if told to."""
    if not is_pil(pic) and not isinstance(pic, np.ndarray):
        raise TypeError(f"pic should be PIL Image or ndarray. Got {type(pic)}")
    pixels = np.asarray(pic)
    if pixels.ndim not in (2, 3):
        raise ValueError(f"pic should be 2/3 dimensional. Got {pixels.ndim} dimensions.")
    if is_pil(pic) and pic.mode in ("1", "I;16"):
        pixels = 255 * pixels.astype(np.uint8) if pic.mode == "1" else pixels.astype(np.int16)
    if pixels.dtype == np.uint8:
        return Tensor(floats(pixels[None], mean, std)[0])
    return _normalize(_channels_first(pixels), mean, std) if mean else _channels_first(pixels)


def floats(pixels: Array, mean: Sequence[float] = (), std: Sequence[float] = ()) -> Array:
    """Bytes (N, H, W) or (N, H, W, C) as float32 (N, C, H, W) from 0 to 1, and normalized if there is a mean.

    (x / 255 - mean) / std is computed as x * (1 / (255 std)) - mean / std, in a third of the time: the last bit may
    differ.
    """
    n, h, w, c = *pixels.shape, *(1,) * (4 - pixels.ndim)
    flat = pixels.reshape(n, h * w * c).astype(np.float32)
    if mean and {len(mean), len(std)} <= {1, c} and all(std):
        scale, shift = np.divide(1, std), np.divide(mean, std)
        # Rows (H*W*C,), since NumPy is slow where the last axis has only the C channels.
        flat *= np.resize(np.float32(scale / 255), h * w * c)
        flat -= np.resize(np.float32(shift), h * w * c)
        mean = ()
    else:
        flat /= np.float32(255)
    images = flat.reshape(n, h, w, c).transpose(0, 3, 1, 2)
    return _normalize(Tensor(images), mean, std).array if mean else images  # which says what is wrong


def pil_to_tensor(pic: Any) -> Tensor:
    """A PIL image as a tensor (C, H, W) of the same dtype."""
    return _channels_first(np.array(_pil_only("pil_to_tensor", pic)))


def _channels_first(pixels: Array) -> Tensor:
    return Tensor(np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1)))


def to_pil_image(pic: Any, mode: str | None = None) -> Any:
    """A tensor (C, H, W) or (H, W), or an array (H, W[, C]), as a PIL image; floats of a tensor times 255."""
    if Image is None:
        raise ImportError("PIL images need Pillow: pip install pillow")
    if not isinstance(pic, Tensor | np.ndarray) or pic.ndim not in (2, 3):
        raise TypeError(f"pic should be a Tensor or ndarray of 2 or 3 dimensions. Got {type(pic)}.")
    pixels: Any = pic
    if isinstance(pic, Tensor):
        pixels = np.moveaxis(pic.detach().cpu().numpy().reshape(-1, *pic.shape[-2:]), 0, 2)
        if pixels.dtype.kind == "f" and mode != "F":
            pixels = (255 * pixels).astype(np.int64).astype(np.uint8)  # wraps what is outside of 0 to 1, like PyTorch
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    image = Image.fromarray(np.ascontiguousarray(pixels, np.uint16 if pixels.dtype == np.int16 else None))
    return image if mode in (None, image.mode) else Image.frombytes(mode, image.size, image.tobytes())


def convert_image_dtype(image: Tensor, dtype: Any = np.float32) -> Tensor:
    """Convert floats from 0 to 1 to ints from 0 to the largest, or ints to floats."""
    old, new = image.dtype, as_dtype(dtype)
    if old.kind == new.kind:
        return image.to(new)
    return image.to(new) / np.iinfo(old).max if new.kind == "f" else (image * (np.iinfo(new).max + 1 - 1e-3)).to(new)


def normalize(tensor: Tensor, mean: Any, std: Any, inplace: bool = False) -> Tensor:
    """(tensor - mean) / std, for each channel."""
    result = _normalize(tensor, numbers(mean), numbers(std))
    return tensor.copy_(result) if inplace else result


def numbers(values: Any) -> list[float]:
    """Numbers of the channels, from a sequence, a tensor or one number."""
    return [float(value) for value in np.atleast_1d(np.asarray(values))]


# -- geometry -----------------------------------------------------------------------------------------------------


def resize(
    img: Any, size: Any, interpolation: Any = BILINEAR, max_size: Any = None, antialias: Any = True
) -> Any:
    """Resize to (h, w), or so that the shorter side has the given size. PIL images are always antialiased."""
    _, *old = get_dimensions(img)
    new, name = _new_size(old, size, max_size), _name(interpolation)
    if is_pil(img):
        return img.resize(new[::-1], PILLOW[name])
    if name not in ("nearest", "bilinear"):
        _pil_only(f"interpolation={name}", img)
    rows, columns = (_weights(*sizes, name, antialias) for sizes in zip(old, new, strict=True))
    return _changed(img, lambda x: _rounded(rows @ x @ columns.T, x.dtype))


def _new_size(old: list[int], size: Any, max_size: int | None) -> list[int]:
    sizes = [size] if isinstance(size, int) else list(size)
    if len(sizes) == 2:
        return sizes
    short, long = sorted(old)
    if max_size is not None and max_size <= sizes[0]:
        raise ValueError(f"max_size = {max_size} must be greater than the size of the shorter side, {sizes[0]}")
    new = [sizes[0], int(sizes[0] * long / short)]
    if max_size is not None and new[1] > max_size:
        new = [int(max_size * new[0] / new[1]), max_size]
    return new if old[0] <= old[1] else new[::-1]


def _weights(old: int, new: int, name: str, antialias: bool) -> Array:
    """The matrix (new, old) that resizes one axis. (minidl's `interpolate` has no antialiasing.)"""
    scale = old / new
    if name == "nearest":
        return np.eye(old, dtype=np.float32)[(np.arange(new) * scale).astype(int)]
    centre = (np.arange(new)[:, None] + 0.5) * scale - 0.5
    reach = max(scale, 1) if antialias else 1
    weights = np.maximum(1 - np.abs(np.arange(old) - centre) / reach, 0)
    return np.float32(weights / weights.sum(axis=1, keepdims=True))


def _rounded(values: Array, dtype: Any) -> Array:
    return (values if dtype.kind == "f" else np.rint(values)).astype(dtype)


def crop(img: Any, top: int, left: int, height: int, width: int) -> Any:
    """A rectangle of an image, with zeros where it leaves the image."""
    if is_pil(img):
        return img.crop((left, top, left + width, top + height))
    _, h, w = get_dimensions(img)
    outside = [max(0, n) for n in (-left, -top, left + width - w, top + height - h)]
    left, top = left + outside[0], top + outside[1]
    img = pad(img, outside) if any(outside) else img
    return _changed(img, lambda x: x[..., top : top + height, left : left + width])


def center_crop(img: Any, output_size: Any) -> Any:
    """The middle of an image, padded with zeros where it is smaller."""
    _, h, w = get_dimensions(img)
    height, width = pair(output_size)
    # Where the image is smaller, torchvision pads and so rounds in another direction.
    top, left = (-((b - a) // 2) if b > a else round((a - b) / 2) for a, b in ((h, height), (w, width)))
    return crop(img, top, left, height, width)


def resized_crop(
    img: Any, top: int, left: int, height: int, width: int, size: Any, interpolation: Any = BILINEAR
) -> Any:
    """`crop`, then `resize`."""
    return resize(crop(img, top, left, height, width), size, interpolation)


def pair(size: Any) -> tuple[int, int]:
    """(h, w) from a size for both, or a sequence of one or two."""
    sizes = (size,) if isinstance(size, int) else tuple(size)
    if len(sizes) not in (1, 2):
        raise ValueError(f"expected a size, or two (h, w), not {size}")
    return sizes[0], sizes[-1]


def pad(img: Any, padding: Any, fill: Any = 0, padding_mode: str = "constant") -> Any:
    """Pad by (left, top, right, bottom), by (left and right, top and bottom), or by the same everywhere."""
    border = (padding,) if isinstance(padding, int) else tuple(padding)
    if len(border) not in (1, 2, 4) or padding_mode not in ("constant", "edge", "reflect", "symmetric"):
        raise ValueError(f"pad: expected 1, 2 or 4 sizes and a known mode, not {padding!r} and {padding_mode!r}")
    left, top, right, bottom = border * (4 // len(border))
    if is_pil(img) and padding_mode == "constant":
        return ImageOps.expand(img, (left, top, right, bottom), fill=_colour(img, fill))

    def padded(x: Array) -> Array:
        widths = [(0, 0)] * (x.ndim - 2) + [(top, bottom), (left, right)]
        y = np.pad(x, widths, padding_mode)  # type: ignore[call-overload]
        if padding_mode != "constant":
            return y
        inside = np.pad(np.ones(x.shape[-2:], bool), widths[-2:])
        return np.where(inside, y, np.reshape(numbers(fill), (-1, 1, 1)).astype(x.dtype))

    return _changed(img, padded)


def _colour(img: Any, fill: Any) -> Any:
    """What Pillow takes as a colour: a number for each band."""
    bands = len(img.getbands())
    values = [value if img.mode == "F" else int(value) for value in numbers(fill or 0)]
    return values[0] if bands == 1 else tuple(values * (bands // len(values)))


def hflip(img: Any) -> Any:
    """Swap left and right."""
    return ImageOps.mirror(img) if is_pil(img) else _changed(img, lambda x: x[..., ::-1])


def vflip(img: Any) -> Any:
    """Swap top and bottom."""
    return ImageOps.flip(img) if is_pil(img) else _changed(img, lambda x: x[..., ::-1, :])


def rotate(
    img: Any, angle: float, interpolation: Any = NEAREST, expand: bool = False, center: Any = None,
    fill: Any = None,
) -> Any:  # fmt: skip
    """Rotate a PIL image counterclockwise by an angle in degrees."""
    fillcolor = _colour(_pil_only("rotate", img), fill)
    return img.rotate(angle, PILLOW[_name(interpolation)], expand, center, fillcolor=fillcolor)


# -- colours ------------------------------------------------------------------------------------------------------


def rgb_to_grayscale(img: Any, num_output_channels: int = 1) -> Any:
    """The luma of a colour image, in one channel or repeated in three."""
    if is_pil(img):
        return Image.merge("RGB", [img.convert("L")] * 3) if num_output_channels == 3 else img.convert("L")

    def luma(x: Array) -> Array:  # (..., C, H, W) to (..., 1, H, W)
        return x if x.shape[-3] == 1 else (x * GREY.reshape(3, 1, 1)).sum(axis=-3, keepdims=True).astype(x.dtype)

    return _changed(img, lambda x: np.repeat(luma(x), num_output_channels, axis=-3))


to_grayscale = rgb_to_grayscale


def adjust_brightness(img: Any, brightness_factor: float) -> Any:
    """Blend a PIL image with black."""
    return ImageEnhance.Brightness(_pil_only("adjust_brightness", img)).enhance(brightness_factor)


def adjust_contrast(img: Any, contrast_factor: float) -> Any:
    """Blend a PIL image with its mean grey."""
    return ImageEnhance.Contrast(_pil_only("adjust_contrast", img)).enhance(contrast_factor)


def adjust_saturation(img: Any, saturation_factor: float) -> Any:
    """Blend a PIL image with its grey version."""
    return ImageEnhance.Color(_pil_only("adjust_saturation", img)).enhance(saturation_factor)


def adjust_hue(img: Any, hue_factor: float) -> Any:
    """Turn the hue of a PIL image, by a fraction of a circle between -0.5 and 0.5."""
    if len(_pil_only("adjust_hue", img).getbands()) == 1:
        return img
    hue, *others = img.convert("HSV").split()
    turned = hue.point([(h + int(hue_factor * 255)) % 256 for h in range(256)])
    return Image.merge("HSV", (turned, *others)).convert(img.mode)
