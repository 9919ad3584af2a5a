"""``torch.version``: the PyTorch whose names minidl follows."""

__version__, cuda = "2.13.0+minidl", None
