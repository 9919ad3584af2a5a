"""MNIST and FashionMNIST from idx files, CIFAR10 from its Python version, folders of pictures."""

import os
import pickle

import numpy as np
import torch
from PIL import Image


class _Dataset(torch.utils.data.Dataset):
    def __init__(self, root, transform=None, target_transform=None):
        self.root, self.transform, self.target_transform = root, transform, target_transform

    def _changed(self, image, target):
        image = self.transform(image) if self.transform else image
        return image, self.target_transform(target) if self.target_transform else target

    def __len__(self):
        return len(self.targets)


class _InMemory(_Dataset):
    def __init__(self, root, train=True, transform=None, target_transform=None, download=False):
        super().__init__(root, transform, target_transform)
        self.train = train
        self.read()

    def __getitem__(self, index):
        return self._changed(Image.fromarray(np.asarray(self.data[index])), int(self.targets[index]))


class MNIST(_InMemory):
    names = "zero one two three four five six seven eight nine"
    classes = property(lambda self: [f"{i} - {name}" for i, name in enumerate(self.names.split())])

    def read(self):
        part = os.path.join(self.root, type(self).__name__, "raw", "train" if self.train else "t10k")
        pixels = np.fromfile(f"{part}-images-idx3-ubyte", np.uint8)[16:]
        self.data = torch.from_numpy(pixels.reshape(-1, 28, 28))
        self.targets = torch.from_numpy(np.fromfile(f"{part}-labels-idx1-ubyte", np.uint8)[8:].astype(np.int64))


class FashionMNIST(MNIST):
    names = "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle-boot"
    classes = property(lambda self: [name.replace("e-b", "e b") for name in self.names.split()])


class CIFAR10(_InMemory):
    classes = property(lambda self: "airplane automobile bird cat deer dog frog horse ship truck".split())

    def read(self):
        parts, self.targets = [], []
        for name in [f"data_batch_{i}" for i in range(1, 6)] if self.train else ["test_batch"]:
            with open(os.path.join(self.root, "cifar-10-batches-py", name), "rb") as file:
                batch = pickle.load(file, encoding="latin1")
            parts.append(batch["data"])
            self.targets += batch["labels"]
        self.data = np.concatenate(parts).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


class ImageFolder(_Dataset):
    def __init__(self, root, transform=None, target_transform=None):
        super().__init__(root, transform, target_transform)
        self.classes = sorted(os.listdir(root))
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}
        self.samples = self.imgs = [
            (os.path.join(root, name, file), i)
            for name, i in self.class_to_idx.items()
            for file in sorted(os.listdir(os.path.join(root, name)))
        ]
        self.targets = [target for _, target in self.samples]

    def __getitem__(self, index):
        path, target = self.samples[index]
        return self._changed(Image.open(path).convert("RGB"), target)
