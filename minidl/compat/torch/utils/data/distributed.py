"""``torch.utils.data.distributed``: the sampler for several ranks."""

from minidl.utils.data.distributed import *
