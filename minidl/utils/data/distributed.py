"""The sampler for several ranks, under PyTorch's path."""

from minidl.data.sampler import DistributedSampler

__all__ = ["DistributedSampler"]
