"""Loader, samplers and data sets of `minidl.data` under PyTorch's path: ``from minidl.utils.data import Subset``."""

from minidl.data import (  # isort: skip
    BatchSampler, ConcatDataset, DataLoader, Dataset, DistributedSampler, IterableDataset, RandomSampler, Sampler,
    SequentialSampler, Subset, SubsetRandomSampler, TensorDataset, WeightedRandomSampler, default_collate,
    default_convert, get_worker_info, random_split,
)  # fmt: skip
from minidl.utils.data import distributed

__all__ = [
    "BatchSampler", "ConcatDataset", "DataLoader", "Dataset", "DistributedSampler", "IterableDataset", "RandomSampler",
    "Sampler", "SequentialSampler", "Subset", "SubsetRandomSampler", "TensorDataset", "WeightedRandomSampler",
    "default_collate", "default_convert", "distributed", "get_worker_info", "random_split",
]  # fmt: skip
