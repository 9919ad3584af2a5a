"""The loader and data sets of `minidl.data` under PyTorch's path: ``from minidl.utils.data import DataLoader``."""

from minidl.data.loader import DataLoader, Dataset, Subset, TensorDataset, random_split

__all__ = ["DataLoader", "Dataset", "Subset", "TensorDataset", "random_split"]
