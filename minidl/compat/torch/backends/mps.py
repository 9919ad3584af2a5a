"""``torch.backends.mps``: Apple's GPUs, which minidl does not use."""


def is_available() -> bool:
    """False."""
    return False


is_built = is_available
