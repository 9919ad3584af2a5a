"""torchvision.transforms, version 1: the functions as objects. Random ones draw from minidl's default generator."""

import functools
import inspect
import math
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from minidl import nn
from minidl.compat.torchvision.transforms import functional
from minidl.compat.torchvision.transforms import functional as F
from minidl.compat.torchvision.transforms.functional import InterpolationMode
from minidl.random import rng_of


class _Transform(nn.Module):
    """A transform: what its static method `change` does with an image. That one's other parameters are its own."""

    change: Any
    kept: ClassVar[Any] = {}  # how parameters are kept, if not as they are given

    def __init_subclass__(cls):
        cls.change = staticmethod(cls.change)
        cls.__signature__ = inspect.signature(functools.partial(cls.change, None))  # type: ignore[attr-defined]

    def __init__(self, *args, **kwargs):
        super().__init__()
        bound = self.__signature__.bind(*args, **kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            setattr(self, name, self.kept[name](value) if name in self.kept else value)

    def forward(self, img):
        """Return the changed image."""
        return self.change(img, *[getattr(self, name) for name in self.__signature__.parameters])


PAIR = {"size": F.pair}


def _uniform(low, high):
    return float(rng_of(None).uniform(low, high))


def _range(name, value, centre):
    """(low, high), from that or from how far both are from the centre."""
    low, high = value if isinstance(value, list | tuple) else (centre - value, centre + value)
    if low > high:
        raise ValueError(f"{name} must be (low, high) or a number of at least 0, not {value}")
    return [float(low), float(high)]


def _transform(name, change, **options):
    return type(name, (_Transform,), {"change": change, "__doc__": change.__doc__, "__module__": __name__, **options})


ToTensor = _transform("ToTensor", F.to_tensor)
ToPILImage = _transform("ToPILImage", F.to_pil_image)
Lambda = _transform("Lambda", lambda img, lambd: lambd(img))
Normalize = _transform("Normalize", F.normalize)
Resize = _transform("Resize", F.resize)
CenterCrop = _transform("CenterCrop", lambda img, size: F.center_crop(img, size), kept=PAIR)
Pad = _transform("Pad", F.pad)
Grayscale = _transform("Grayscale", F.rgb_to_grayscale)
SAME_FOR_ALL = {Normalize, Resize, CenterCrop, Pad, Grayscale}


def _perhaps(change, p):
    def perhaps(img, p=p):
        return change(img) if rng_of(None).random() < p else img

    return perhaps


RandomHorizontalFlip = _transform("RandomHorizontalFlip", _perhaps(F.hflip, 0.5))
RandomVerticalFlip = _transform("RandomVerticalFlip", _perhaps(F.vflip, 0.5))


class Compose:
    """Transforms one after the other. `ToTensor` and then `Normalize` are one step."""

    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, img):
        steps = list(self.transforms)
        for i, (first, second) in enumerate(pairwise(steps)):
            if type(first) is ToTensor and type(second) is Normalize:
                steps[i : i + 2] = [functools.partial(F.normalized, mean=second.mean, std=second.std)]
                break
        return functools.reduce(lambda image, step: step(image), steps, img)


def on_batch(transform, pixels):
    """`transform` of bytes (N, H, W) or (N, H, W, C) at once; None if it has to see the images one by one."""
    first, *rest = transform.transforms if type(transform) is Compose else [transform]
    if type(first) is not ToTensor or not SAME_FOR_ALL.issuperset(map(type, rest)):
        return None
    norm = rest.pop(0) if rest and type(rest[0]) is Normalize else None
    images = F.on_bytes(pixels, norm.mean, norm.std) if norm else F.on_bytes(pixels)
    return functools.reduce(lambda x, step: step(x), rest, images)


class RandomCrop(_Transform):
    """A rectangle somewhere in the image, which may be padded first."""

    kept = PAIR

    @staticmethod
    def get_params(img, output_size):
        """Draw the rectangle: top, left, height, width."""
        (_, h, w), (height, width) = F.get_dimensions(img), output_size
        if h < height or w < width:
            raise ValueError(f"Required crop size {(height, width)} is larger than input image size {(h, w)}")
        return int(rng_of(None).integers(h - height + 1)), int(rng_of(None).integers(w - width + 1)), height, width

    def change(img, size, padding=None, pad_if_needed=False, fill=0, padding_mode="constant"):
        """Return the crop."""
        if padding is not None:
            img = F.pad(img, padding, fill, padding_mode)
        if pad_if_needed:
            _, h, w = F.get_dimensions(img)
            img = F.pad(img, [max(0, size[1] - w), max(0, size[0] - h)], fill, padding_mode)
        return F.crop(img, *RandomCrop.get_params(img, size))


class RandomResizedCrop(_Transform):
    """A rectangle of random area and aspect ratio, resized."""

    kept = PAIR

    def change(img, size, scale=(0.08, 1.0), ratio=(0.75, 1.3333), interpolation=F.BILINEAR, antialias=True):
        """Return the crop."""
        _, h, w = F.get_dimensions(img)
        for _ in range(10):
            area, aspect = h * w * _uniform(*scale), math.exp(_uniform(*np.log(ratio)))
            height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < width <= w and 0 < height <= h:
                return F.resize(F.crop(img, *RandomCrop.get_params(img, (height, width))), size, interpolation)
        aspect = min(max(w / h, min(ratio)), max(ratio))  # the largest part of the middle that has an allowed one
        return F.resize(F.center_crop(img, (min(h, round(w / aspect)), min(w, round(h * aspect)))), size, interpolation)


class RandomRotation(_Transform):
    """Rotate by an angle between `degrees`."""

    kept: ClassVar = {"degrees": lambda value: _range("degrees", value, 0.0)}

    def change(img, degrees, interpolation=F.NEAREST, expand=False, center=None, fill=0):
        """Return the rotated image."""
        return F.rotate(img, _uniform(*degrees), interpolation, expand, center, fill)


def _factors(name, centre=1.0):
    """How ColorJitter keeps a range: None for one that changes nothing."""

    def kept(value):
        low, high = _range(name, value, centre)
        return None if low == high == centre else (max(low, centre - 1), high)

    return kept


class ColorJitter(_Transform):
    """Change brightness, contrast, saturation and hue at random, in random order."""

    kept = {name: _factors(name) for name in ("brightness", "contrast", "saturation")} | {"hue": _factors("hue", 0.0)}

    def change(img, brightness=0, contrast=0, saturation=0, hue=0):
        """Return the changed image."""
        ranges = brightness, contrast, saturation, hue
        changes = F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue
        for i in rng_of(None).permutation(4):
            img = img if ranges[i] is None else changes[i](img, _uniform(*ranges[i]))
        return img


__all__ = [name for name, value in list(globals().items()) if isinstance(value, type) and name[0] != "_"]
