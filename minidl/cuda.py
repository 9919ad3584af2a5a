"""The GPU, under PyTorch's names. This version has none."""


def is_available() -> bool:
    """Whether minidl can compute on a GPU: not in this version."""
    return False
