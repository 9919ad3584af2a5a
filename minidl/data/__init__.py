"""Data sets, real and synthetic, the loader that batches them, and image transforms."""

from minidl.data.cifar10 import CIFAR10
from minidl.data.download import DownloadError
from minidl.data.loader import DataLoader, Dataset, PixelDataset, Subset, TensorDataset, random_split
from minidl.data.mnist import MNIST, FashionMNIST, read_idx
from minidl.data.shapes import SyntheticShapes
from minidl.data.synthetic import SyntheticDigits
from minidl.data.transforms import add_noise, normalize

__all__ = [
    "CIFAR10", "MNIST", "DataLoader", "Dataset", "DownloadError", "FashionMNIST", "PixelDataset", "Subset",
    "SyntheticDigits", "SyntheticShapes", "TensorDataset", "add_noise", "normalize", "random_split", "read_idx",
]
