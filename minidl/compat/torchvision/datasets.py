"""torchvision.datasets: MNIST, FashionMNIST, CIFAR10, FakeData and folders of pictures.

Items are ``(image, label)``, a PIL image where Pillow is installed, else an array (H, W) or (H, W, C), changed by
`transform`. A loader gets whole batches from what is held in memory if the transform can work on them.
"""

from __future__ import annotations

import operator
import os
import pickle
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minidl import data
from minidl.compat.torchvision.transforms.functional import Image, to_pil_image
from minidl.compat.torchvision.transforms.transforms import on_batch
from minidl.creation import randint, randn
from minidl.data import cifar10, mnist
from minidl.data.download import fetch
from minidl.data.loader import _collate
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
        lines = [f"Number of datapoints: {len(self)}", f"Root location: {self.root}" if self.root is not None else ""]
        lines += self.extra_repr().splitlines()
        given = [(head, t) for head, t in (("Transform: ", self.transform), ("Target transform: ", self.target_transform)) if t is not None]
        text = "\n    ".join([f"Dataset {type(self).__name__}", *filter(None, lines), *(["StandardTransform"] if given else [])])
        return "\n".join([text, *(head + repr(t).replace("\n", "\n" + " " * len(head)) for head, t in given)])


class _InMemory(VisionDataset):
    """Pixels, uint8 (n, H, W) or (n, H, W, C), and classes."""

    data: Any
    targets: Any
    classes: list[str]

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
        try:
            i = operator.index(index)
        except TypeError:
            raise TypeError(f"{type(self).__name__}: an index must be an int, not {index}; Subset(dataset, range(5)) has 5 items") from None
        pixels = np.asarray(self.data[i])
        return self._transformed(pixels if Image is None else Image.fromarray(pixels), int(self.targets[i]))

    def gather(self, indices: Array) -> Any:
        """Return a batch; the loader calls this."""
        pixels = self.data.numpy() if isinstance(self.data, Tensor) else np.asarray(self.data)
        if self.target_transform is None and pixels.dtype == np.uint8:
            images = on_batch(self.transform, pixels[indices])
            if images is not None:
                targets = self.targets
                chosen = targets[indices] if not isinstance(targets, list) else [targets[i] for i in indices]
                return images, Tensor(np.asarray(chosen, np.int64))
        return _collate([self[int(i)] for i in indices], indices)

    def extra_repr(self) -> str:
        """Training or test set."""
        return f"Split: {'Train' if self.train else 'Test'}"


class MNIST(_InMemory):
    """Handwritten digits. Read from root/MNIST/raw, like torchvision's, or where `minidl.data.MNIST` looks in root."""

    mirrors, archives = mnist.MIRRORS, mnist.ARCHIVES
    classes = [f"{i} - {name}" for i, name in enumerate("zero one two three four five six seven eight nine".split())]

    @property
    def raw_folder(self) -> str:
        """Where downloads go."""
        return os.path.join(self.root, type(self).__name__, "raw")

    def _load(self, download: bool) -> tuple[Tensor, Tensor]:
        part = "train" if self.train else "t10k"
        paths = [self._path(f"{part}-{what}-ubyte", download) for what in ("images-idx3", "labels-idx1")]
        images, labels = map(mnist.read_idx, paths)
        mnist._check_pair(images, labels, *paths)
        return Tensor(images), Tensor(labels.astype(np.int64))

    def _path(self, name: str, download: bool) -> Path:
        places = self.raw_folder, *([self.root] if type(self).__name__ == "MNIST" else [])
        if found := [path for place in places for path in mnist.found_in(Path(place), name)]:
            return found[0]
        archive = f"{name}.gz"
        if not download:
            raise FileNotFoundError(f"neither {name} nor {archive} is in {self.raw_folder}")
        return fetch(archive, self.archives[archive], self.mirrors, self.raw_folder)


def _renamed(old: str, new: str) -> property:
    def get(self: MNIST) -> Any:
        warnings.warn(f"{old} has been renamed {new}", stacklevel=2)
        return getattr(self, new)

    return property(get)


for _part in ("train", "test"):
    setattr(MNIST, f"{_part}_data", _renamed(f"{_part}_data", "data"))
    setattr(MNIST, f"{_part}_labels", _renamed(f"{_part}_labels", "targets"))


class FashionMNIST(MNIST):
    """Articles of clothing, in the format of MNIST (Xiao, Rasul and Vollgraf 2017). Read from root/FashionMNIST/raw."""

    mirrors = (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    )
    archives = {
        "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
    }
    classes = "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag".split() + ["Ankle boot"]


class CIFAR10(_InMemory):
    """Small photographs. Read from root/cifar-10-batches-py, or as `minidl.data.CIFAR10` does; downloads are binary."""

    base_folder = "cifar-10-batches-py"
    classes = list(cifar10.CLASSES)

    def _load(self, download: bool) -> tuple[Array, list[int]]:
        names = [Path(name).stem for name in (cifar10.TRAIN if self.train else cifar10.TEST)]
        paths = [Path(self.root, self.base_folder, name) for name in names]
        if not all(path.is_file() for path in paths):
            binary = data.CIFAR10(self.root, self.train, download=download)
            return binary.images, binary.targets.tolist()
        planes, targets = zip(*map(read_pickled_batch, paths), strict=True)
        images = np.concatenate(planes).reshape(-1, 3, 32, 32)
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1)), [label for part in targets for label in part]


def read_pickled_batch(path: Path) -> tuple[Array, list[int]]:
    """Pixels, uint8 (n, 3072), and classes of a file of CIFAR-10's Python version; nothing in it is run."""
    with path.open("rb") as file:
        try:
            batch = _Unpickler(file, encoding="latin1").load()
            pixels, labels = batch["data"].pixels, batch["labels"]
        except (pickle.UnpicklingError, AttributeError, KeyError, TypeError, ValueError, EOFError, IndexError) as error:
            raise ValueError(f"{path}: not a batch of CIFAR-10: {error!r}") from error
    if pixels.shape != (len(labels), 3072) or not all(type(label) is int and 0 <= label <= 9 for label in labels):
        raise ValueError(f"{path}: pixels of shape {pixels.shape} and {len(labels)} labels, expected (n, 3072) and n")
    return pixels, labels


class _Pickled:
    """What stands in a pickle for NumPy's array and dtype, whose own unpickling would trust the file."""

    def __init__(self, *_: Any) -> None:
        self.pixels = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) == 5:  # an array: version, shape, dtype, whether in Fortran's order, bytes
            values = state[4].encode("latin1") if isinstance(state[4], str) else state[4]
            self.pixels = np.frombuffer(values, np.uint8).reshape(state[1])


class _Unpickler(pickle.Unpickler):
    known = {f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")} | {"numpy.ndarray", "numpy.dtype"}

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self.known:
            raise pickle.UnpicklingError(f"it names {module}.{name}, but these files need no more than NumPy's arrays")
        return _Pickled


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
