"""Data sets, real and synthetic, the loader that batches them, and image transforms."""

from minidl.data.cifar10 import CIFAR10
from minidl.data.collate import default_collate, default_convert
from minidl.data.dataset import (
    ConcatDataset, Dataset, IterableDataset, PixelDataset, Subset, TensorDataset, random_split,
)
from minidl.data.download import DownloadError
from minidl.data.loader import DataLoader, get_worker_info
from minidl.data.mnist import MNIST, FashionMNIST, read_idx
from minidl.data.sampler import (
    BatchSampler, DistributedSampler, RandomSampler, Sampler, SequentialSampler, SubsetRandomSampler,
    WeightedRandomSampler,
)
from minidl.data.shapes import SyntheticShapes
from minidl.data.synthetic import SyntheticDigits
from minidl.data.transforms import add_noise, normalize

__all__ = [
    "CIFAR10", "MNIST", "BatchSampler", "ConcatDataset", "DataLoader", "Dataset", "DistributedSampler", "DownloadError",
    "FashionMNIST", "IterableDataset", "PixelDataset", "RandomSampler", "Sampler", "SequentialSampler", "Subset",
    "SubsetRandomSampler", "SyntheticDigits", "SyntheticShapes", "TensorDataset", "WeightedRandomSampler", "add_noise",
    "default_collate", "default_convert", "get_worker_info", "normalize", "random_split", "read_idx",
]
