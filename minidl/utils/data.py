"""Loader, samplers and data sets of `minidl.data` under PyTorch's path: ``from minidl.utils.data import Subset``."""

from minidl.data.collate import default_collate, default_convert
from minidl.data.dataset import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset, random_split
from minidl.data.loader import DataLoader
from minidl.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from minidl.data.worker import get_worker_info

__all__ = [
    "BatchSampler",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "WeightedRandomSampler",
    "default_collate",
    "default_convert",
    "get_worker_info",
    "random_split",
]
