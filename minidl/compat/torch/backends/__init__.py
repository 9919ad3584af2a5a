"""``torch.backends``: the settings of libraries that minidl does not use. They can be set, without effect."""

from . import cuda, cudnn, mps
