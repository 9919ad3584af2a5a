"""``torch.backends.cudnn``: results are the same in each run anyway, and nothing needs to be tuned."""

enabled, benchmark, deterministic, allow_tf32 = True, False, False, False


def is_available() -> bool:
    """False: minidl has kernels of its own."""
    return False


def version() -> None:
    """None."""
