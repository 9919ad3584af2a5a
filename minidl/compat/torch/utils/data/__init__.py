"""``torch.utils.data``: minidl's data sets, samplers and loader."""

from minidl.utils.data import *

from . import dataloader, dataset, distributed, sampler
from .dataloader import DataLoader
