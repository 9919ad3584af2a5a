"""The guide's exercises: compare an attempt with what is right, and say what is off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.tensor import Array, Tensor


def check(attempt: Callable[..., Any], expected: Callable[..., Any], cases: Sequence[tuple[Any, ...]]) -> None:
    """Print whether an attempt at an exercise is right, and what is off if it is not.

    Parameters
    ----------
    attempt : callable
        The function to write; as long as it returns ``...``, it is the reader's turn.
    expected : callable
        Computes the same in another way. Results are arrays, tensors or numbers, equal to a relative 1e-5.
    cases : sequence of tuples
        The arguments of each call.

    Examples
    --------
    >>> def slope_of_square(x):
    ...     return x
    >>> check(slope_of_square, lambda x: 2 * x, [(0.0,), (3.0,)])
    slope_of_square(3.0): not yet. It gives 3, where 6 is right: 0.5 times what is right.
    >>> def slope_of_square(x):
    ...     2 * x
    >>> check(slope_of_square, lambda x: 2 * x, [(0.0,), (3.0,)])
    slope_of_square: not yet. It gives None, as a function without a return does.
    >>> def slope_of_square(x):
    ...     return ...
    >>> check(slope_of_square, lambda x: 2 * x, [(0.0,), (3.0,)])
    slope_of_square: your turn.
    """
    print(f"{attempt.__name__}{_verdict(attempt, expected, cases)}")


def _verdict(attempt: Callable[..., Any], expected: Callable[..., Any], cases: Sequence[tuple[Any, ...]]) -> str:
    for case in cases:
        answer, right = attempt(*case), expected(*case)
        if answer is ...:
            return ": your turn."
        if answer is None:
            return ": not yet. It gives None, as a function without a return does."
        if fault := _fault(_array(answer), _array(right)):
            return f"({', '.join(map(_short, case))}): not yet. It gives {fault}."
    return f": right, in {len(cases)} cases."


def _array(value: Any) -> Array:
    return np.asarray(value.detach().cpu().numpy() if isinstance(value, Tensor) else value)


def _fault(answer: Array, right: Array) -> str:
    """What is wrong with the answer, or nothing."""
    if answer.dtype.kind not in "biuf":
        return f"{answer.dtype} values, where numbers are right"
    if answer.shape != right.shape:
        return f"shape {answer.shape}, where {right.shape} is right"
    wrong = ~np.isclose(answer, right, rtol=1e-5, atol=1e-9)
    if not wrong.any():
        return ""
    first = tuple(map(int, np.argwhere(wrong)[0]))
    where = f" at {first}" if first else ""
    count = f"; {wrong.sum()} of {wrong.size} elements are wrong" if first else ""
    return f"{answer[first]:.4g}{where}, where {right[first]:.4g} is right{count}{_relation(answer, right)}"


def _relation(answer: Array, right: Array) -> str:
    """How the whole answer is related to what is right, if it is in a simple way."""
    factor = np.vdot(right, answer) / (np.vdot(right, right) or 1)
    if factor and np.allclose(answer, factor * right, rtol=1e-5):
        return f": {factor:.4g} times what is right"
    if right.ndim == 2 and right.shape[0] == right.shape[1] and np.allclose(answer, right.T):
        return ": the transpose of what is right"
    return ""


def _short(value: Any) -> str:
    """An argument in a few characters: numbers as they are, arrays by their shape."""
    shape = getattr(value, "shape", None)
    return f"array of shape {tuple(shape)}" if shape else repr(value)
