"""The transforms as objects. Random ones draw from minidl's default generator."""

from __future__ import annotations

import enum
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from minidl import nn
from minidl.compat.torchvision.transforms import functional as F
from minidl.compat.torchvision.transforms.functional import InterpolationMode
from minidl.random import rng_of
from minidl.tensor import Array, Tensor

__all__ = [
    "CenterCrop", "ColorJitter", "Compose", "ConvertImageDtype", "Grayscale", "InterpolationMode", "Lambda",
    "Normalize", "PILToTensor", "Pad", "RandomApply", "RandomCrop", "RandomGrayscale",
    "RandomHorizontalFlip", "RandomResizedCrop", "RandomRotation", "RandomVerticalFlip", "Resize",
    "ToPILImage", "ToTensor",
]  # fmt: skip


class _Transform(nn.Module):
    """A transform: what its static method `change` does with an image. That one's other parameters are its own."""

    change: Callable[..., Any]
    hidden: tuple[str, ...] = ()  # parameters that its text leaves out
    optional: tuple[str, ...] = ()  # those that it leaves out if they are None
    paired = False  # whether `size` becomes (h, w)

    def __init_subclass__(cls) -> None:
        if "change" in vars(cls):
            cls.change = staticmethod(cls.change)
            cls.__signature__ = inspect.signature(functools.partial(cls.change, None))  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        bound = self.__signature__.bind(*args, **kwargs)
        bound.apply_defaults()
        self._names = list(bound.arguments)
        for name, value in bound.arguments.items():
            setattr(self, name, F.pair(value) if self.paired and name == "size" else value)

    def forward(self, img: Any) -> Any:
        """Return the changed image."""
        return type(self).change(img, *[getattr(self, name) for name in self._names])

    def __repr__(self) -> str:
        values = {name: getattr(self, name) for name in self._names if name not in self.hidden}
        values = {name: value for name, value in values.items() if value is not None or name not in self.optional}
        shown = [f"{name}={value.value if isinstance(value, enum.Enum) else value}" for name, value in values.items()]
        return f"{type(self).__name__}({', '.join(shown)})"


def _uniform(low: float, high: float) -> float:
    return float(rng_of(None).uniform(low, high))


def _rectangle(h: int, w: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Draw where a rectangle lies in an image of h x w: top, left, height, width."""
    return int(rng_of(None).integers(h - height + 1)), int(rng_of(None).integers(w - width + 1)), height, width


# -- the same for every image -------------------------------------------------------------------------------------


class ToTensor(_Transform):
    """A PIL image or an array (H, W, C) of bytes as float32 (C, H, W) from 0 to 1."""

    change = F.to_tensor


class PILToTensor(_Transform):
    """A PIL image as a tensor (C, H, W) of the same dtype."""

    change = F.pil_to_tensor


class ToPILImage(_Transform):
    """A tensor (C, H, W) or an array (H, W, C) as a PIL image."""

    change, optional = F.to_pil_image, ("mode",)


class Lambda(_Transform):
    """Any function."""

    hidden = ("lambd",)

    def change(img: Any, lambd: Callable[[Any], Any]) -> Any:
        """Return what the function returns."""
        return lambd(img)


class ConvertImageDtype(_Transform):
    """Another dtype, scaled to its range."""

    change, hidden = F.convert_image_dtype, ("dtype",)


class Normalize(_Transform):
    """(x - mean) / std, for each channel."""

    change, hidden = F.normalize, ("inplace",)


class Resize(_Transform):
    """Resize to (h, w), or so that the shorter side has a size."""

    change = F.resize


class CenterCrop(_Transform):
    """The middle of the image."""

    paired = True

    def change(img: Any, size: Any) -> Any:
        """Return the crop."""
        return F.center_crop(img, size)


class Pad(_Transform):
    """Pad on all sides."""

    change = F.pad


class Grayscale(_Transform):
    """Luma, in one channel or three."""

    change = F.rgb_to_grayscale


# -- one after the other ------------------------------------------------------------------------------------------


class Compose:
    """Transforms one after the other. `ToTensor` and then `Normalize` are one step."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, img: Any) -> Any:
        for step in _steps(self.transforms):
            img = step(img)
        return img

    def __repr__(self) -> str:
        return "\n    ".join([f"{type(self).__name__}(", *map(repr, self.transforms)]) + "\n)"


class RandomApply(Compose):
    """All of the transforms with probability `p`, or else none."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], p: float = 0.5) -> None:
        super().__init__(transforms)
        self.p = p

    def __call__(self, img: Any) -> Any:
        return super().__call__(img) if rng_of(None).random() < self.p else img

    def __repr__(self) -> str:
        return super().__repr__().replace("(", f"(\n    p={self.p}", 1)


def _steps(transforms: Sequence[Callable[[Any], Any]]) -> list[Callable[[Any], Any]]:
    steps = list(transforms)
    for i, (first, second) in enumerate(pairwise(steps)):
        if type(first) is ToTensor and type(second) is Normalize:
            steps[i : i + 2] = [functools.partial(F.normalized, mean=second.mean, std=second.std)]
            break
    return steps


SAME_FOR_ALL = {ConvertImageDtype, Normalize, Resize, CenterCrop, Pad, Grayscale}


def on_batch(transform: Any, pixels: Array) -> Tensor | None:
    """`transform` of bytes (N, H, W) or (N, H, W, C) at once; None if it has to see the images one by one."""
    steps: list[Any] = list(transform.transforms) if type(transform) is Compose else [transform]
    kinds = [type(step) for step in steps]
    if kinds[:1] != [ToTensor] or not SAME_FOR_ALL.issuperset(kinds[1:]):
        return None
    norm = steps.pop(1) if kinds[1:2] == [Normalize] else None
    images = F.on_bytes(pixels, norm.mean, norm.std) if norm else F.on_bytes(pixels)
    for step in steps[1:]:
        images = step(images)
    return images


# -- random -------------------------------------------------------------------------------------------------------


class RandomHorizontalFlip(_Transform):
    """Mirror with probability `p`."""

    def change(img: Any, p: float = 0.5) -> Any:
        """Return the image or its mirror image."""
        return F.hflip(img) if rng_of(None).random() < p else img


class RandomVerticalFlip(_Transform):
    """Turn upside down with probability `p`."""

    def change(img: Any, p: float = 0.5) -> Any:
        """Return the image, perhaps upside down."""
        return F.vflip(img) if rng_of(None).random() < p else img


class RandomGrayscale(_Transform):
    """Grey with probability `p`, in as many channels."""

    def change(img: Any, p: float = 0.1) -> Any:
        """Return the image, perhaps grey."""
        return F.rgb_to_grayscale(img, F.get_dimensions(img)[0]) if rng_of(None).random() < p else img


class RandomCrop(_Transform):
    """A rectangle somewhere in the image, which may be padded first."""

    hidden, paired = ("pad_if_needed", "fill", "padding_mode"), True

    @staticmethod
    def get_params(img: Any, output_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Draw the rectangle: top, left, height, width."""
        (_, h, w), (height, width) = F.get_dimensions(img), output_size
        if h < height or w < width:
            raise ValueError(f"Required crop size {(height, width)} is larger than input image size {(h, w)}")
        return _rectangle(h, w, height, width)

    def change(
        img: Any, size: Any, padding: Any = None, pad_if_needed: bool = False, fill: Any = 0,
        padding_mode: str = "constant",
    ) -> Any:  # fmt: skip
        """Return the crop."""
        if padding is not None:
            img = F.pad(img, padding, fill, padding_mode)
        if pad_if_needed:
            _, h, w = F.get_dimensions(img)
            img = F.pad(img, [max(0, size[1] - w), max(0, size[0] - h)], fill, padding_mode)
        return F.crop(img, *RandomCrop.get_params(img, size))


class RandomResizedCrop(_Transform):
    """A rectangle of random area and aspect ratio, resized."""

    paired = True

    @staticmethod
    def get_params(img: Any, scale: Any, ratio: Any) -> tuple[int, int, int, int]:
        """Draw the rectangle: top, left, height, width."""
        _, h, w = F.get_dimensions(img)
        for _ in range(10):
            area, aspect = h * w * _uniform(*scale), math.exp(_uniform(*np.log(ratio)))
            height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < width <= w and 0 < height <= h:
                return _rectangle(h, w, height, width)
        aspect = min(max(w / h, min(ratio)), max(ratio))  # the largest part of the middle that has an allowed one
        height, width = min(h, round(w / aspect)), min(w, round(h * aspect))
        return (h - height) // 2, (w - width) // 2, height, width

    def change(
        img: Any, size: Any, scale: Any = (0.08, 1.0), ratio: Any = (0.75, 1.3333), interpolation: Any = F.BILINEAR,
        antialias: bool = True,
    ) -> Any:  # fmt: skip
        """Return the crop."""
        rectangle = RandomResizedCrop.get_params(img, scale, ratio)
        return F.resized_crop(img, *rectangle, size, interpolation)


class RandomRotation(_Transform):
    """Rotate by an angle between `degrees`."""

    degrees: Any
    optional = ("center",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.degrees = _range("degrees", self.degrees, 0.0)

    @staticmethod
    def get_params(degrees: Any) -> float:
        """Draw the angle."""
        return _uniform(*degrees)

    def change(
        img: Any, degrees: Any, interpolation: Any = F.NEAREST, expand: bool = False, center: Any = None, fill: Any = 0
    ) -> Any:
        """Return the rotated image."""
        return F.rotate(img, RandomRotation.get_params(degrees), interpolation, expand, center, fill)


class ColorJitter(_Transform):
    """Change brightness, contrast, saturation and hue at random, in random order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, centre in zip(self._names, (1.0, 1.0, 1.0, 0.0), strict=True):
            low, high = _range(name, getattr(self, name), centre)
            setattr(self, name, None if low == high == centre else (max(low, centre - 1), high))

    @staticmethod
    def get_params(*ranges: Any) -> tuple[Any, ...]:
        """Draw the order of brightness, contrast, saturation and hue, and a factor of each, None for what stays."""
        return rng_of(None).permutation(4), *(None if r is None else _uniform(*r) for r in ranges)

    def change(img: Any, brightness: Any = 0, contrast: Any = 0, saturation: Any = 0, hue: Any = 0) -> Any:
        """Return the changed image."""
        order, *factors = ColorJitter.get_params(brightness, contrast, saturation, hue)
        changes = F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue
        for i in order:
            img = img if factors[i] is None else changes[i](img, factors[i])
        return img


def _range(name: str, value: Any, centre: float) -> list[float]:
    """(low, high), from that or from how far both are from the centre."""
    low, high = value if isinstance(value, list | tuple) else (centre - value, centre + value)
    if low > high:
        raise ValueError(f"{name} must be (low, high) or a number of at least 0, not {value}")
    return [float(low), float(high)]
