"""The number of threads with MINIDL_KERNELS=reference: the definitions run on the calling thread."""

import numbers


def set_num_threads(n: int) -> None:
    """Check `n` as the compiled kernels' ``set_num_threads`` does; the definitions run on one thread all the same."""
    if isinstance(n, bool) or not isinstance(n, numbers.Integral) or n < 1:
        raise RuntimeError(f"set_num_threads: n must be an int of at least 1, not {n!r}")


def get_num_threads() -> int:
    """1, the number of threads that the definitions run on. (NumPy's BLAS may start its own for matrix products.)"""
    return 1
