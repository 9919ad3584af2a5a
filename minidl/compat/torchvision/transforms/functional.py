"""torchvision.transforms.functional: on PIL images with Pillow, on tensors and arrays with NumPy.

A tensor is an image (C, H, W) or a batch (..., C, H, W). An array is (H, W) or (H, W, C), which is what data sets
yield where Pillow is not installed.
"""

import enum

import numpy as np

from minidl import data
from minidl.data import _images
from minidl.tensor import Tensor

try:
    from PIL import Image, ImageEnhance
except ImportError:
    Image = None

PILLOW = {"nearest": 0, "nearest-exact": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
InterpolationMode = enum.Enum("InterpolationMode", {name.upper().replace("-", "_"): name for name in PILLOW})  # type: ignore[misc]
NEAREST, BILINEAR = InterpolationMode("nearest"), InterpolationMode("bilinear")


def _is_pil(image):
    return Image is not None and isinstance(image, Image.Image)


def _pil_only(name, image):
    if not _is_pil(image):
        kind = type(image).__name__
        raise TypeError(f"{name} works on PIL images here, not on {kind}: put it before ToTensor (pip install pillow)")
    return image


def _changed(image, change, *args):
    """Apply `change`, which maps arrays (..., C, H, W), to any kind of image, and return that kind."""
    if _is_pil(image):
        return Image.fromarray(_changed(np.asarray(image), change, *args))
    if isinstance(image, Tensor):
        return Tensor(np.ascontiguousarray(change(image.detach().cpu().numpy(), *args))).to(image.device)
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
        raise TypeError(f"expected a PIL image, a tensor or an array (H, W) or (H, W, C), not {type(image).__name__}")
    result = change(_channels_first(image), *args).transpose(1, 2, 0)
    return np.ascontiguousarray(result[..., 0] if image.ndim == 2 and result.shape[2] == 1 else result)


def _channels_first(pixels):
    return np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))


def get_dimensions(img):
    """Channels, height and width."""
    if _is_pil(img):
        return [len(img.getbands()), img.height, img.width]
    if isinstance(img, Tensor):
        return [1, *img.shape][-3:]
    return [np.atleast_3d(img).shape[i] for i in (2, 0, 1)]


# -- to and from tensors ------------------------------------------------------------------------------------------


def to_tensor(pic):
    """A PIL image or array (H, W[, C]) as a tensor (C, H, W); bytes become float32 from 0 to 1."""
    return normalized(pic)


def normalized(pic, mean=(), std=()):
    """`to_tensor` and, given a mean, `normalize`, in one step if possible."""
    if not _is_pil(pic) and not isinstance(pic, np.ndarray):
        raise TypeError(f"pic should be PIL Image or ndarray. Got {type(pic)}")
    pixels = np.asarray(pic)
    if pixels.ndim not in (2, 3):
        raise ValueError(f"pic should be 2/3 dimensional. Got {pixels.ndim} dimensions.")
    if _is_pil(pic) and pic.mode in ("1", "I;16"):
        pixels = 255 * pixels.astype(np.uint8) if pic.mode == "1" else pixels.astype(np.int16)
    if pixels.dtype == np.uint8:
        return on_bytes(pixels[None], mean, std)[0]
    image = Tensor(_channels_first(pixels))
    return normalize(image, mean, std) if numbers(mean) else image


def on_bytes(pixels, mean=(), std=()):
    """The same for a batch of bytes (N, H, W) or (N, H, W, C)."""
    mean, std = numbers(mean), numbers(std)
    if {len(mean), len(std)} <= {1, *pixels.shape[3:]} and all(std):
        return Tensor(_images.to_floats(pixels, mean, std))
    images = Tensor(_images.to_floats(pixels))
    return normalize(images, mean, std) if mean else images  # which says what is wrong


def to_pil_image(pic, mode=None):
    """A tensor (C, H, W) or (H, W), or an array (H, W[, C]), as a PIL image; floats of a tensor times 255."""
    if Image is None:
        raise ImportError("PIL images need Pillow: pip install pillow")
    if not isinstance(pic, Tensor | np.ndarray) or pic.ndim not in (2, 3):
        raise TypeError(f"pic should be a Tensor or ndarray of 2 or 3 dimensions. Got {type(pic)}.")
    pixels = pic
    if isinstance(pic, Tensor):
        pixels = np.moveaxis(pic.detach().cpu().numpy().reshape(-1, *pic.shape[-2:]), 0, 2)
        if pixels.dtype.kind == "f" and mode != "F":
            pixels = (255 * pixels).astype(np.int64).astype(np.uint8)  # wraps what is outside of 0 to 1, like PyTorch
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    image = Image.fromarray(np.ascontiguousarray(pixels, np.uint16 if pixels.dtype == np.int16 else None))
    return image if mode in (None, image.mode) else Image.frombytes(mode, image.size, image.tobytes())


def normalize(tensor, mean, std, inplace=False):
    """(tensor - mean) / std, for each channel."""
    result = data.normalize(tensor, numbers(mean), numbers(std))
    return tensor.copy_(result) if inplace else result


def numbers(values):
    """Numbers of the channels, from a sequence, a tensor or one number."""
    return [float(value) for value in (values if isinstance(values, list | tuple) else np.atleast_1d(values))]


# -- geometry -----------------------------------------------------------------------------------------------------


def resize(img, size, interpolation=BILINEAR, antialias=True):
    """Resize to (h, w), or so that the shorter side has the given size. PIL images are always antialiased."""
    _, *old = get_dimensions(img)
    new, mode = _new_size(old, size), _pillow(interpolation)
    if _is_pil(img):
        return img.resize(new[::-1], mode)
    if mode not in (0, 2):
        _pil_only(f"resize with {interpolation}", img)
    return _changed(img, _images.resize, new, mode == 0, bool(antialias))


def _pillow(interpolation):
    """Pillow's constant of an interpolation, which may be one already."""
    return PILLOW[interpolation.value] if isinstance(interpolation, InterpolationMode) else int(interpolation)


def _new_size(old, size):
    short, *others = [size] if isinstance(size, int) else size
    if others:
        return [short, *others]
    long = int(short * max(old) / min(old))
    return [short, long] if old[0] <= old[1] else [long, short]


def crop(img, top, left, height, width):
    """A rectangle of an image, with zeros where it leaves the image."""
    return _changed(img, _images.crop, top, left, height, width)


def center_crop(img, output_size):
    """The middle of an image, with zeros around it where it is smaller."""
    (_, h, w), (height, width) = get_dimensions(img), pair(output_size)
    # torchvision pads smaller images first, and so rounds in the other direction.
    top, left = (-((b - a) // 2) if b > a else round((a - b) / 2) for a, b in ((h, height), (w, width)))
    return crop(img, top, left, height, width)


def pair(size):
    """(h, w) from a size for both, or a sequence of one or two."""
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return sizes[0], sizes[-1]


def pad(img, padding, fill=0, padding_mode="constant"):
    """Pad by (left, top, right, bottom), by (left and right, top and bottom), or by the same everywhere."""
    border = (padding,) if isinstance(padding, int) else tuple(padding)
    if len(border) not in (1, 2, 4) or padding_mode not in ("constant", "edge", "reflect", "symmetric"):
        raise ValueError(f"pad: expected 1, 2 or 4 sizes and a known mode, not {padding!r} and {padding_mode!r}")
    border *= 4 // len(border)
    return _changed(img, _images.pad, *border, padding_mode, numbers(fill))


def _colour(img, fill):
    """What Pillow takes as a colour: a number for each band."""
    bands = len(img.getbands())
    values = [value if img.mode == "F" else int(value) for value in numbers(fill or 0)]
    return values[0] if bands == 1 else tuple(values * (bands // len(values)))


def hflip(img):
    """Swap left and right."""
    return _changed(img, lambda x: x[..., ::-1])


def vflip(img):
    """Swap top and bottom."""
    return _changed(img, lambda x: x[..., ::-1, :])


def rotate(img, angle, interpolation=NEAREST, expand=False, center=None, fill=0):
    """Rotate counterclockwise by an angle in degrees; what is not a PIL image only by nearest pixels."""
    mode = _pillow(interpolation)
    if not _is_pil(img) and mode == 0 and not expand:
        return _changed(img, _images.rotate, angle, center, numbers(fill or 0))
    fillcolor = _colour(_pil_only(f"rotate with {interpolation}, {expand=}", img), fill)
    return img.rotate(angle, mode, expand, center, fillcolor=fillcolor)


# -- colours ------------------------------------------------------------------------------------------------------


def rgb_to_grayscale(img, num_output_channels=1):
    """The luma of a colour image, in one channel or repeated in three."""
    if _is_pil(img):
        return Image.merge("RGB", [img.convert("L")] * 3) if num_output_channels == 3 else img.convert("L")
    return _changed(img, _images.grey, num_output_channels)


def _blended(img, enhancer, other, factor):
    if factor < 0:
        raise ValueError(f"{enhancer}: the factor must be at least 0, not {factor}")
    if _is_pil(img):
        return getattr(ImageEnhance, enhancer)(img).enhance(factor)
    return _changed(img, _images.blend, other, factor)


def adjust_brightness(img, brightness_factor):
    """Blend with black."""
    return _blended(img, "Brightness", "black", brightness_factor)


def adjust_contrast(img, contrast_factor):
    """Blend with the mean grey."""
    return _blended(img, "Contrast", "mean", contrast_factor)


def adjust_saturation(img, saturation_factor):
    """Blend with grey."""
    return _blended(img, "Color", "grey", saturation_factor)


def adjust_hue(img, hue_factor):
    """Turn the hue of a PIL image, by a fraction of a circle between -0.5 and 0.5."""
    if get_dimensions(img)[0] == 1:
        return img
    hue, *others = _pil_only("adjust_hue", img).convert("HSV").split()
    turned = hue.point([(h + int(hue_factor * 255)) % 256 for h in range(256)])
    return Image.merge("HSV", (turned, *others)).convert(img.mode)
