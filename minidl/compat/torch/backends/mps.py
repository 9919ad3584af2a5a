"""``torch.backends.mps``: Apple's GPUs, which minidl does not use."""

is_available = is_built = lambda: False
