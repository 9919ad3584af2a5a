"""torchvision.datasets: MNIST, FashionMNIST, CIFAR10, FakeData and folders of pictures.

Items are ``(image, label)``, a PIL image where Pillow is installed, else an array (H, W) or (H, W, C), changed by
`transform`. A loader gets whole batches from what is held in memory if the transform can work on them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from minidl import data
from minidl.compat.torchvision.transforms.functional import Image, to_pil_image
from minidl.compat.torchvision.transforms.transforms import on_batch
from minidl.creation import randint, randn
from minidl.data.cifar10 import CLASSES
from minidl.random import Generator
from minidl.tensor import Array, Tensor

__all__ = ["CIFAR10", "MNIST", "DatasetFolder", "FakeData", "FashionMNIST", "ImageFolder", "VisionDataset"]

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
Transform = Callable[[Any], Any] | None


class VisionDataset(data.Dataset):
    """A data set with a folder and transforms; the base of the others, and of scripts' own."""

    def __init__(
        self, root: Any = None, transforms: Any = None, transform: Transform = None, target_transform: Transform = None
    ) -> None:
        self.root = os.path.expanduser(root) if isinstance(root, str) else root
        self.transforms, self.transform, self.target_transform = transforms, transform, target_transform

    def _transformed(self, image: Any, target: Any) -> tuple[Any, Any]:
        image = image if self.transform is None else self.transform(image)
        return image, target if self.target_transform is None else self.target_transform(target)

    def extra_repr(self) -> str:
        """More lines for the text of the data set."""
        return ""

    def __repr__(self) -> str:
        lines = [f"Dataset {type(self).__name__}", f"Number of datapoints: {len(self)}"]
        lines += [f"Root location: {self.root}"] * (self.root is not None) + self.extra_repr().splitlines()
        heads = {"Transform: ": self.transform, "Target transform: ": self.target_transform}
        given = [f"{t!r}".replace("\n", "\n" + " " * len(head)).join([head, ""]) for head, t in heads.items() if t]
        return "\n".join(["\n    ".join(lines + ["StandardTransform"] * bool(given)), *given])


class _InMemory(VisionDataset):
    """Pixels, uint8 (n, H, W) or (n, H, W, C), and classes."""

    data: Any
    targets: Any
    classes: ClassVar[list[str]]

    def __init__(
        self, root: Any, train: bool = True, transform: Transform = None, target_transform: Transform = None,
        download: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(root, None, transform, target_transform)
        self.train = train
        try:
            self.data, self.targets = self._load(download)
        except FileNotFoundError as error:
            raise RuntimeError(f"Dataset not found. You can use download=True to download it.\n{error}") from error

    def _load(self, download: bool) -> tuple[Any, Any]:
        raise NotImplementedError

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The number of each class."""
        return {name: i for i, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if not hasattr(index, "__index__"):
            hint = "Subset(dataset, range(5)) takes the first five"
            raise TypeError(f"{type(self).__name__}: an index must be an int, not {index}; {hint}")
        pixels, target = np.asarray(self.data[index]), int(self.targets[index])
        return self._transformed(pixels if Image is None else Image.fromarray(pixels), target)

    def gather(self, indices: Array) -> Any:
        """Return a batch; the loader calls this."""
        pixels = self.data.numpy() if isinstance(self.data, Tensor) else np.asarray(self.data)
        if self.target_transform is None and pixels.dtype == np.uint8:
            images = on_batch(self.transform, pixels[indices])
            if images is not None:
                many = self.targets
                chosen = [many[i] for i in indices] if isinstance(many, list) else np.asarray(many)[indices]
                return images, Tensor(np.asarray(chosen, np.int64))
        return data.default_collate([self[int(i)] for i in indices])

    def extra_repr(self) -> str:
        """Training or test set."""
        return f"Split: {'Train' if self.train else 'Test'}"


class _MNIST(data.MNIST):
    _downloads = "MNIST/raw"


class MNIST(_InMemory):
    """Handwritten digits, read from root/MNIST/raw (or root, or root/mnist)."""

    _source: type[data.MNIST] = _MNIST
    classes: ClassVar = [
        f"{i} - {name}" for i, name in enumerate("zero one two three four five six seven eight nine".split())
    ]

    def _load(self, download: bool) -> tuple[Tensor, Tensor]:
        source = self._source(self.root, self.train, download=download)
        return Tensor(source.images), Tensor(source.targets)

    def __getattr__(self, name: str) -> Any:
        if name not in ("train_data", "test_data", "train_labels", "test_labels"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        new = "data" if name.endswith("data") else "targets"
        warnings.warn(f"{name} has been renamed {new}", stacklevel=2)
        return getattr(self, new)


class FashionMNIST(MNIST):
    """Articles of clothing in MNIST's format, read from root/FashionMNIST/raw."""

    _source = data.FashionMNIST
    classes: ClassVar = [*"T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag".split(), "Ankle boot"]


class CIFAR10(_InMemory):
    """Small photographs. Read from root/cifar-10-batches-py, or as `minidl.data.CIFAR10` does; downloads are binary."""

    classes: ClassVar = list(CLASSES)

    def _load(self, download: bool) -> tuple[Array, list[int]]:
        source = data.CIFAR10(self.root, self.train, download=download)
        return source.images, source.targets.tolist()


class FakeData(VisionDataset):
    """Images of noise, the same for each index."""

    def __init__(
        self, size: int = 1000, image_size: Sequence[int] = (3, 224, 224), num_classes: int = 10,
        transform: Transform = None, target_transform: Transform = None, random_offset: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(None, None, transform, target_transform)
        self.size, self.image_size, self.num_classes, self.random_offset = size, image_size, num_classes, random_offset

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if index >= self.size:
            raise IndexError(f"{type(self).__name__} index out of range")
        generator = Generator().manual_seed(index + self.random_offset)
        image = randn(*self.image_size, generator=generator)
        target = randint(0, self.num_classes, (1,), generator=generator).item()
        return self._transformed(to_pil_image(image), target)


class DatasetFolder(VisionDataset):
    """Files in a folder for each class, read by `loader`."""

    def __init__(
        self, root: Any, loader: Callable[[str], Any], extensions: Any = None, transform: Transform = None,
        target_transform: Transform = None, is_valid_file: Callable[[str], bool] | None = None,
        allow_empty: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(root, None, transform, target_transform)
        self.loader, self.extensions = loader, extensions
        self.classes, self.class_to_idx = self.find_classes(self.root)
        endings = tuple(extensions) if extensions is not None else ()
        valid = is_valid_file or (lambda path: path.lower().endswith(endings))
        self.samples = [
            (os.path.join(folder, name), self.class_to_idx[label])
            for label in self.classes
            for folder, _, names in sorted(os.walk(os.path.join(self.root, label), followlinks=True))
            for name in sorted(names)
            if valid(os.path.join(folder, name))
        ]
        self.targets = [target for _, target in self.samples]
        empty = [name for name, i in self.class_to_idx.items() if i not in set(self.targets)]
        if empty and not allow_empty:
            raise FileNotFoundError(f"Found no valid file for the classes {', '.join(empty)}. Known: {extensions}")

    def find_classes(self, directory: Any) -> tuple[list[str], dict[str, int]]:
        """The names of the folders, sorted, and their numbers."""
        classes = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
        if not classes:
            raise FileNotFoundError(f"Couldn't find any class folder in {directory}.")
        return classes, {name: i for i, name in enumerate(classes)}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, target = self.samples[index]
        return self._transformed(self.loader(path), target)


def default_loader(path: str) -> Any:
    """A picture in RGB."""
    if Image is None:
        raise ImportError("pictures need Pillow: pip install pillow")
    with Image.open(path) as image:
        return image.convert("RGB")


class ImageFolder(DatasetFolder):
    """Pictures in a folder for each class."""

    def __init__(
        self, root: Any, transform: Transform = None, target_transform: Transform = None,
        loader: Callable[[str], Any] = default_loader, is_valid_file: Callable[[str], bool] | None = None,
        allow_empty: bool = False,
    ) -> None:  # fmt: skip
        known = IMG_EXTENSIONS if is_valid_file is None else None
        super().__init__(root, loader, known, transform, target_transform, is_valid_file, allow_empty)
        self.imgs = self.samples
