"""``torch.xpu``: Intel's GPUs, which minidl does not use."""


def is_available() -> bool:
    """False."""
    return False
