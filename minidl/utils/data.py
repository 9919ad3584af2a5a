"""The loader and data sets of `minidl.data` under PyTorch's path: ``from minidl.utils.data import DataLoader``."""

from minidl.data.dataset import Dataset, Subset, TensorDataset, random_split
from minidl.data.loader import DataLoader

__all__ = ["DataLoader", "Dataset", "Subset", "TensorDataset", "random_split"]
