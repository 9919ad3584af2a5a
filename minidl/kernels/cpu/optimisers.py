"""The optimisers' steps, each in one pass over memory.

Formulas and letters as in reference.py. Running means of a gradient that stays zero become denormal numbers, which are
slow: they are flushed to zero.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import prange

from minidl.kernels import _arguments
from minidl.kernels.cpu._arrays import like, vectors
from minidl.kernels.cpu._compiling import compiled
from minidl.kernels.cpu._threads import parallel_region

Array = np.ndarray
Arrays = list[Array]

TINY = {kind: np.finfo(kind).tiny for kind in "fd"}  # the smallest normal numbers


def _in_place(name: str, loop: Callable[..., None], written: tuple[Array, ...], g: Array, *scalars: Any) -> None:
    """Run a compiled step on the arrays as vectors, and copy back those that had to be copied."""
    _arguments.alike(name, *written, g)
    flat = vectors(*written, g)
    with parallel_region(g.size):
        loop(*flat, *map(g.dtype.type, scalars))
    for array, vector in zip(written, flat, strict=False):
        if vector.base is not array and not np.may_share_memory(array, vector):
            array[...] = like(written[0], vector)


def adam_step(ps: Arrays, gs: Arrays, ms: Arrays, vs: Arrays, rate_and_root: Any, *settings: float) -> None:
    """One step of Adam in one pass over memory. Defined in reference.py."""
    beta1, beta2, eps, weight_decay = settings
    rate, root = map(float, rate_and_root)
    for p, g, m, v in zip(ps, gs, ms, vs, strict=True):
        scalars = rate, root, 1 - beta1, beta2, 1 - beta2, eps, weight_decay, TINY[p.dtype.char]
        _in_place("adam_step", _adam, (p, m, v), g, *scalars)


@compiled(parallel=True)
def _adam(p, m, v, g, rate, root, rate1, beta2, rate2, eps, decay, tiny):
    zero = p.dtype.type(0)
    for i in prange(len(p)):
        gi = g[i] + decay * p[i] if decay else g[i]
        mi = m[i] + rate1 * (gi - m[i])
        vi = beta2 * v[i] + rate2 * gi * gi
        mi = zero if abs(mi) < tiny else mi
        vi = zero if vi < tiny else vi
        m[i], v[i] = mi, vi
        p[i] -= rate * mi / (np.sqrt(vi) / root + eps)


def sgd_step(ps: Arrays, gs: Arrays, bufs: Arrays | None, lr: float | Array, *settings: float) -> None:
    """One step of SGD in one pass over memory. Defined in reference.py."""
    momentum, dampening, nesterov, weight_decay = settings
    sums: list[Any] = [None] * len(ps) if bufs is None else bufs
    for p, g, buf in zip(ps, gs, sums, strict=True):
        if buf is None:
            _in_place("sgd_step", _sgd, (p,), g, float(lr), weight_decay)
        else:
            scalars = float(lr), momentum, 1 - dampening, nesterov, weight_decay, TINY[p.dtype.char]
            _in_place("sgd_step", _sgd_momentum, (p, buf), g, *scalars)


@compiled(parallel=True)
def _sgd(p, g, lr, decay):
    for i in prange(len(p)):
        p[i] -= lr * (g[i] + decay * p[i] if decay else g[i])


@compiled(parallel=True)
def _sgd_momentum(p, buf, g, lr, momentum, rate, nesterov, decay, tiny):
    zero = p.dtype.type(0)
    for i in prange(len(p)):
        gi = g[i] + decay * p[i] if decay else g[i]
        bi = momentum * buf[i] + rate * gi
        bi = zero if abs(bi) < tiny else bi
        buf[i] = bi
        p[i] -= lr * (gi + momentum * bi if nesterov else bi)
