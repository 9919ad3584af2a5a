"""Data sets, real and made up, and the loader that makes batches of them."""

from minidl.data.download import DownloadError
from minidl.data.loader import DataLoader, Dataset, PixelDataset, Subset, TensorDataset, random_split
from minidl.data.mnist import MNIST, read_idx
from minidl.data.synthetic import SyntheticDigits

__all__ = [
    "MNIST",
    "DataLoader",
    "Dataset",
    "DownloadError",
    "PixelDataset",
    "Subset",
    "SyntheticDigits",
    "TensorDataset",
    "random_split",
    "read_idx",
]
