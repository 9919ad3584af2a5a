"""The adjoint identity <A x, y> = <x, A^T y>: an exact test of linear maps that needs no step size.

A linear operation's vector-Jacobian product is its adjoint; so this tests pairs such as im2col and col2im, convolution
and transposed convolution. (Also known as the dot-product test.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.tensor import Tensor


def check_adjoint(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    x: Tensor | Sequence[int],
    y: Tensor | Sequence[int],
    *,
    dtype: Any = np.float32,
    rtol: float | None = None,
) -> bool:
    """Check that two linear maps are adjoint to each other (transposes): <A x, y> = <x, At y>.

    Parameters
    ----------
    forward, adjoint : callable
        A, which maps x's shape to y's, and At, which maps y's shape to x's.
    x, y : Tensor or shape
        The values to use, or the shapes of random values.
    dtype : dtype
        The dtype of random values: float32 or float64.
    rtol : float, optional
        Bound on the difference relative to |A x| |y| + |x| |At y|; by default 1e-12 in float64 and 1e-5 in float32.
        If y is random, the identity is also checked for y = A x, where no terms cancel, so that it detects any factor
        that is off by more than this.

    Returns
    -------
    bool
        True.

    Raises
    ------
    AssertionError
        If the two products differ by more (the message has both), or a map returns another shape or dtype.

    Examples
    --------
    >>> import minidl
    >>> a = minidl.randn(3, 2)
    >>> check_adjoint(lambda x: a @ x, lambda y: a.T @ y, (2,), (3,))
    True
    """
    __tracebackhide__ = True
    rng = np.random.default_rng(0)
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise TypeError(f"check_adjoint: dtype must be float32 or float64, not {np.dtype(dtype)}")
    drawn = not isinstance(y, Tensor)
    x, y = (v if isinstance(v, Tensor) else Tensor(rng.standard_normal(tuple(v)).astype(dtype)) for v in (x, y))
    _compare_products(forward, adjoint, x, y, rtol)
    if drawn:  # in <A x, A x> nothing cancels, so it reveals smaller errors
        _compare_products(forward, adjoint, x, forward(_copy(x)), rtol)
    return True


def _copy(x: Tensor) -> Tensor:
    """Protects x from maps that change their argument in place."""
    return Tensor(x.array.copy(order="K"))


def _compare_products(
    forward: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, rtol: float | None
) -> None:
    __tracebackhide__ = True
    ax, aty = forward(_copy(x)), adjoint(_copy(y))
    for name, result, wanted in (("forward", ax, y), ("adjoint", aty, x)):
        found, expected = (f"{v.shape} in {v.dtype}" for v in (result, wanted))
        if found != expected:
            raise AssertionError(f"check_adjoint: {name} returned shape {found} instead of {expected}")
    left, right = _inner(ax, y), _inner(x, aty)
    scale = np.sqrt(_inner(ax, ax) * _inner(y, y)) + np.sqrt(_inner(x, x) * _inner(aty, aty))
    bound = rtol if rtol is not None else (1e-12 if x.dtype == y.dtype == np.float64 else 1e-5)
    if not np.isfinite(scale):
        raise AssertionError(f"check_adjoint: <A x, y> = {left:.10g}, and <x, At y> = {right:.10g}: not finite")
    if not abs(left - right) <= bound * scale:
        raise AssertionError(
            f"check_adjoint: <A x, y> = {left:.10g}, and <x, At y> = {right:.10g}: they differ by "
            f"{abs(left - right):.3g}, and rounding explains {bound * scale:.3g}"
        )


@np.errstate(over="ignore", invalid="ignore")
def _inner(a: Tensor, b: Tensor) -> float:
    return float(np.sum(a.array.astype(np.float64) * b.array.astype(np.float64)))
