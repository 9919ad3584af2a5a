"""`minidl.data`'s loader and data sets, where PyTorch has them: ``from minidl.utils.data import DataLoader``."""

from minidl.data.loader import DataLoader, Dataset, Subset, TensorDataset, random_split

__all__ = ["DataLoader", "Dataset", "Subset", "TensorDataset", "random_split"]
