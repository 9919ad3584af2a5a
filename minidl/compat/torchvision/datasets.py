"""torchvision.datasets: MNIST, FashionMNIST, CIFAR10, FakeData and folders of pictures.

Items are ``(image, label)``, a PIL image where Pillow is installed, else an array (H, W) or (H, W, C), changed by
`transform`. A loader gets whole batches from what is held in memory if the transform can work on them.
"""

import os
from typing import Any, ClassVar

import numpy as np

import minidl
from minidl import data
from minidl.compat.torchvision.transforms import on_batch
from minidl.compat.torchvision.transforms.functional import Image, to_pil_image

__all__ = ["CIFAR10", "MNIST", "FakeData", "FashionMNIST", "ImageFolder", "VisionDataset"]

NUMBERS = "zero one two three four five six seven eight nine".split()
IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class VisionDataset(data.Dataset):
    """A data set with a folder and transforms; the base of the others, and of scripts' own."""

    def __init__(self, root=None, transforms=None, transform=None, target_transform=None):
        self.root = os.path.expanduser(root) if isinstance(root, str) else root
        self.transforms, self.transform, self.target_transform = transforms, transform, target_transform

    def _transformed(self, image, target):
        image = image if self.transform is None else self.transform(image)
        return image, target if self.target_transform is None else self.target_transform(target)


class _InMemory(VisionDataset):
    """Pixels, uint8 (n, H, W) or (n, H, W, C), and classes, which `source` of minidl.data reads."""

    source: Any
    kept: Any = minidl.Tensor, minidl.Tensor  # as what pixels and classes are kept
    classes: ClassVar[list[str]]
    class_to_idx = property(lambda self: {name: i for i, name in enumerate(self.classes)})

    def __init__(self, root, train=True, transform=None, target_transform=None, download=False):
        super().__init__(root, None, transform, target_transform)
        self.train = train
        try:
            source = self.source(self.root, train, download=download)
        except FileNotFoundError as error:
            raise RuntimeError(f"Dataset not found. You can use download=True to download it.\n{error}") from error
        self.data, self.targets = self.kept[0](source.images), self.kept[1](source.targets)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        if not hasattr(index, "__index__"):
            hint = "Subset(dataset, range(5)) takes the first five"
            raise TypeError(f"{type(self).__name__}: an index must be an int, not {index}; {hint}")
        pixels, target = np.asarray(self.data[index]), int(self.targets[index])
        return self._transformed(pixels if Image is None else Image.fromarray(pixels), target)

    def gather(self, indices):
        """Return a batch; the loader calls this."""
        pixels = np.asarray(self.data)
        if self.target_transform is None and pixels.dtype == np.uint8:
            images = on_batch(self.transform, pixels[indices])
            if images is not None:
                many = self.targets
                chosen = [many[i] for i in indices] if isinstance(many, list) else np.asarray(many)[indices]
                return images, minidl.Tensor(np.asarray(chosen, np.int64))
        return data.default_collate([self[int(i)] for i in indices])


class MNIST(_InMemory):
    """Handwritten digits, read from root/MNIST/raw (or root, or root/mnist)."""

    source = type("MNIST", (data.MNIST,), {"_downloads": "MNIST/raw"})
    classes: ClassVar = [f"{i} - {name}" for i, name in enumerate(NUMBERS)]

    train_data = test_data = property(lambda self: self.data)
    train_labels = test_labels = property(lambda self: self.targets)


class FashionMNIST(MNIST):
    """Articles of clothing in MNIST's format, read from root/FashionMNIST/raw."""

    source = data.FashionMNIST
    classes: ClassVar = [*"T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag".split(), "Ankle boot"]


class CIFAR10(_InMemory):
    """Small photographs. Read from root/cifar-10-batches-py, or as `minidl.data.CIFAR10` does; downloads are binary."""

    source, kept, classes = data.CIFAR10, (np.asarray, np.ndarray.tolist), list(data.CIFAR10.classes)


class FakeData(VisionDataset):
    """Images of noise, the same for each index."""

    def __init__(self, size=1000, image_size=(3, 224, 224), num_classes=10, transform=None, target_transform=None):
        super().__init__(None, None, transform, target_transform)
        self.size, self.image_size, self.num_classes = size, image_size, num_classes

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index >= self.size:
            raise IndexError(f"{type(self).__name__} index out of range")
        generator = minidl.Generator().manual_seed(index)
        image = minidl.randn(*self.image_size, generator=generator)
        target = minidl.randint(0, self.num_classes, (1,), generator=generator).item()
        return self._transformed(to_pil_image(image), target)


def default_loader(path):
    """A picture in RGB."""
    if Image is None:
        raise ImportError("pictures need Pillow: pip install pillow")
    with Image.open(path) as image:
        return image.convert("RGB")


class ImageFolder(VisionDataset):
    """Pictures in a folder for each class."""

    def __init__(
        self, root, transform=None, target_transform=None, loader=default_loader, is_valid_file=None, allow_empty=False
    ):
        super().__init__(root, None, transform, target_transform)
        self.loader = loader
        self.classes = sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir())
        if not self.classes:
            raise FileNotFoundError(f"Couldn't find any class folder in {root}.")
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}
        valid = is_valid_file or (lambda path: path.lower().endswith(IMG_EXTENSIONS))
        self.imgs = self.samples = [
            (path, self.class_to_idx[label])
            for label in self.classes
            for folder, _, names in sorted(os.walk(os.path.join(self.root, label), followlinks=True))
            for path in [os.path.join(folder, name) for name in sorted(names)]
            if valid(path)
        ]
        self.targets = [target for _, target in self.samples]
        empty = [name for name, i in self.class_to_idx.items() if i not in set(self.targets)]
        if empty and not allow_empty:
            raise FileNotFoundError(f"Found no valid file for the classes {', '.join(empty)}. Known: {IMG_EXTENSIONS}")

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        path, target = self.samples[index]
        return self._transformed(self.loader(path), target)
