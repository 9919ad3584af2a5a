"""Checks of gradients: finite differences, and the adjoint identity, which needs no step size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.autograd import enable_grad, grad
from minidl.tensor import Array, Tensor


class GradcheckError(RuntimeError):
    """A gradient differs from its finite difference; the message says where and by how much."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Tensor],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    second: bool = False,
    seed: int = 0,
    raise_exception: bool = True,
) -> bool:
    """Compare the gradients of a function with central differences.

    With a random cotangent c, the scalar f(x) = sum of c * func(x) has in each element x_i the derivative
    (f(x + eps e_i) - f(x - eps e_i)) / (2 eps), up to an error of the order of eps^2.

    Parameters
    ----------
    func : callable
        Takes the inputs and returns a tensor, or a tuple of tensors of which the floating ones count.
    inputs : Tensor or sequence of Tensor
        Those that require grad, in float64, are checked. They are not changed.
    eps : float
        The step.
    atol, rtol : float
        A gradient may differ by atol + rtol * |difference|.
    second : bool
        Check the gradient of the gradient too.
    seed : int
        Of the cotangent; a cotangent of ones would be blind to softmax, whose outputs sum to 1.
    raise_exception : bool
        Whether a difference is raised, or returned as False.

    Returns
    -------
    bool

    Raises
    ------
    GradcheckError
        If a gradient differs.
    ValueError
        If no input requires grad, or one that does is not float64: float32 has too few digits for differences.

    Examples
    --------
    >>> import minidl
    >>> x = minidl.randn(3, dtype=minidl.float64, requires_grad=True)
    >>> gradcheck(lambda x: (x * x).sum(), x, second=True)
    True
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ValueError("gradcheck: no input requires grad")
    for i in checked:
        if inputs[i].dtype != np.float64:
            raise ValueError(
                f"gradcheck: input {i} is {inputs[i].dtype}; convert it with .double(): float32 keeps 7 digits, and "
                "a difference over a small step loses most of them"
            )
    # Copies: the caller's tensors may share memory with one another, and must stay as they are.
    own = [Tensor(x.array.copy(), x.requires_grad) if isinstance(x, Tensor) else x for x in inputs]
    rng = np.random.default_rng(seed)
    try:
        with enable_grad():
            scalar = _projected(func, own, rng)
            _compare("gradient", scalar, own, checked, (eps, atol, rtol))
            if second:
                slope = _projected(_gradient_of(scalar, checked), own, rng)
                _compare("second gradient", slope, own, checked, (eps, atol, rtol))
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _projected(func: Callable[..., Any], inputs: Sequence[Any], rng: np.random.Generator) -> Callable[..., Tensor]:
    """The scalar function: sum of random cotangents times the outputs of `func`."""
    cotangents = [Tensor(rng.standard_normal(y.shape)) for y in _real_outputs(func(*inputs))]

    def scalar(*args: Any) -> Tensor:
        terms = [(y * c).sum() for y, c in zip(_real_outputs(func(*args)), cotangents, strict=True)]
        return sum(terms[1:], terms[0])

    return scalar


def _real_outputs(outputs: Any) -> list[Tensor]:
    listed = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    return [y for y in listed if isinstance(y, Tensor) and y.is_floating_point()]


def _gradient_of(scalar: Callable[..., Tensor], checked: Sequence[int]) -> Callable[..., Any]:
    def gradient(*args: Any) -> Any:
        x = [args[i] for i in checked]
        y = scalar(*args)
        if not y.requires_grad:  # a constant: its gradient is 0, and so is the gradient's
            return [v * 0 for v in x]
        found = grad(y, x, create_graph=True, allow_unused=True)
        return [v * 0 if g is None else g for v, g in zip(x, found, strict=True)]

    return gradient


def _compare(
    what: str,
    scalar: Callable[..., Tensor],
    inputs: Sequence[Any],
    checked: Sequence[int],
    tolerance: tuple[float, float, float],
) -> None:
    eps, atol, rtol = tolerance
    for i, g in zip(checked, _gradient_of(scalar, checked)(*inputs), strict=True):
        analytic, numeric = g.array, _differences(scalar, inputs, i, eps)
        wrong = ~(np.abs(analytic - numeric) <= atol + rtol * np.abs(numeric))  # NaN is wrong
        if wrong.any():
            error = np.where(np.isnan(analytic - numeric), np.inf, np.abs(analytic - numeric))
            worst = tuple(int(k) for k in np.unravel_index(np.argmax(error), error.shape))
            raise GradcheckError(
                f"gradcheck: the {what} in input {i} of shape {inputs[i].shape} is wrong in {wrong.sum()} of "
                f"{wrong.size} elements, most at {worst}: {analytic[worst]:.8g} from backward, {numeric[worst]:.8g} "
                f"from differences with eps={eps}"
            )


def _differences(scalar: Callable[..., Tensor], inputs: Sequence[Any], i: int, eps: float) -> Array:
    """(f(x + eps e) - f(x - eps e)) / (2 eps) for each unit vector e."""
    x, result = inputs[i].array, np.empty(inputs[i].shape)
    for index in np.ndindex(x.shape):
        before = x[index]
        x[index] = before + eps
        above = scalar(*inputs).item()
        x[index] = before - eps
        below = scalar(*inputs).item()
        x[index] = before
        result[index] = (above - below) / (2 * eps)
    return result


def check_adjoint(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    rtol: float | None = None,
) -> bool:
    """Check that two linear maps are each other's adjoint (transpose): <A x, y> = <x, At y>.

    Parameters
    ----------
    forward, adjoint : callable
        A, from x's shape to y's, and At, from y's shape to x's.
    x, y : Tensor
        Random values of either shape, in either precision.
    rtol : float, optional
        Bound on the difference over |A x| |y| + |x| |At y|; by default 1e-12 in float64 and 1e-5 in float32.

    Returns
    -------
    bool
        True.

    Raises
    ------
    AssertionError
        If the two products differ by more, with both of them; or if a map returns another shape.

    Examples
    --------
    >>> import minidl
    >>> a = minidl.randn(3, 2, dtype=minidl.float64)
    >>> x, y = minidl.randn(2, dtype=minidl.float64), minidl.randn(3, dtype=minidl.float64)
    >>> check_adjoint(lambda x: a @ x, lambda y: a.T @ y, x, y)
    True
    """
    ax, aty = forward(x), adjoint(y)
    for name, result, wanted in (("forward", ax, y), ("adjoint", aty, x)):
        if result.shape != wanted.shape:
            raise AssertionError(f"check_adjoint: {name} returned shape {result.shape} instead of {wanted.shape}")
    left, right = _inner(ax, y), _inner(x, aty)
    scale = np.sqrt(_inner(ax, ax) * _inner(y, y)) + np.sqrt(_inner(x, x) * _inner(aty, aty))
    bound = rtol if rtol is not None else (1e-12 if x.dtype == np.float64 else 1e-5)
    if not abs(left - right) <= bound * scale:
        raise AssertionError(
            f"check_adjoint: <A x, y> = {left:.10g}, and <x, At y> = {right:.10g}: they differ by "
            f"{abs(left - right):.3g}, and rounding explains {bound * scale:.3g}"
        )
    return True


def _inner(a: Tensor, b: Tensor) -> float:
    return float(np.sum(a.array.astype(np.float64) * b.array.astype(np.float64)))
