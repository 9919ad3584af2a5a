"""Why a gradient differs from its difference quotient: a wrong gradient, a kink, a jump, or a step that does not suit.

Along one element of the input, phi(h) is the output that the element is moved by h. A smooth phi has one slope: what
the quotients from the right, (phi(h) - phi(0)) / h, and from the left, (phi(0) - phi(-h)) / h, are apart shrinks in
proportion to h. At a kink it stays, at a jump it grows as 1/h, and where h is so small that phi keeps no digits, it
is rounding.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minidl.tensor import Array

STEPS = 10.0 ** -np.arange(1, 9)  # 0.1, 0.01 ... 1e-8
ROUNDING = 16 * np.finfo(np.float64).eps  # of a value that some operations computed, relative


class Tolerance(NamedTuple):
    """The step of the differences, and what a gradient may differ from them."""

    eps: float
    atol: float
    rtol: float

    def bound(self, numeric: Array) -> Array:
        return self.atol + self.rtol * np.abs(numeric)


class Suspect(NamedTuple):
    """The element of the Jacobian that is furthest off: phi, the size of the terms that phi sums, and both values."""

    along: Callable[[float], float]
    size: float
    backward: float
    numeric: float


class _Sweep(NamedTuple):
    """The quotients from either side and the error that rounding leaves in them, for each of STEPS."""

    right: Array
    left: Array
    noise: Array

    @property
    def central(self) -> Array:
        return (self.right + self.left) / 2

    @property
    def gap(self) -> Array:
        return np.abs(self.right - self.left)


def explain(suspect: Suspect, analytic: Array, numeric: Array, tolerance: Tolerance) -> list[str]:
    """Lines for a message: the quotient over a sweep of steps, and what that shows.

    `analytic` and `numeric` are all the wrong elements, in which a common factor is looked for.
    """
    with np.errstate(all="ignore"):
        sweep = _sweep(suspect)
        error = np.abs(sweep.central - suspect.backward)
        rows = zip(STEPS, sweep.central, error, strict=True)
        table = [f"  {h:8.0e} {quotient:22.10g} {e:12.3g}" for h, quotient, e in rows]
        verdict = _verdict(suspect, sweep, tolerance) or _wrong(analytic, numeric, tolerance)
    lines = textwrap.wrap(f"Verdict: {verdict}", 100, initial_indent="  ", subsequent_indent="  ")
    return [f"  {'step':>8} {'difference quotient':>22} {'error':>12}", *table, *lines]


def _sweep(suspect: Suspect) -> _Sweep:
    middle = suspect.along(0.0)
    above = np.array([suspect.along(h) for h in STEPS])
    below = np.array([suspect.along(-h) for h in STEPS])
    return _Sweep((above - middle) / STEPS, (middle - below) / STEPS, ROUNDING * suspect.size / STEPS)


def _verdict(suspect: Suspect, sweep: _Sweep, tolerance: Tolerance) -> str | None:
    """The reason why the difference quotient is no gradient here, if there is one."""
    small = tolerance.eps >= STEPS
    if not np.isfinite([*sweep.right[small], *sweep.left[small]]).all():
        return "the function is not finite here or a small step away: move the input into its domain."
    fits = np.abs(sweep.central - suspect.backward) + sweep.noise <= tolerance.bound(sweep.central)
    if fits[tolerance.eps > STEPS].any():
        return (
            "for smaller steps the quotients agree with backward, which is right: eps reaches over a kink or a tie, "
            "or the function bends too much. Move the input away from the kink, or take a smaller eps."
        )
    growth = _growth_of_gap(sweep, tolerance)
    if growth > 3:
        return "the function jumps here: it has no gradient at this point. Move the input away."
    if growth > 1 / 3:
        return _kink(suspect, sweep, tolerance)
    if ROUNDING * suspect.size / tolerance.eps > tolerance.bound(sweep.central).max():
        return (
            f"the outputs are sums of terms as large as {suspect.size:.2g}, of which a step of {tolerance.eps} moves "
            "too few digits: take a larger eps, or smaller values."
        )
    return None


def _growth_of_gap(sweep: _Sweep, tolerance: Tolerance) -> float:
    """By how much the gap grows from one step to the next that is a tenth of it, at the smallest steps that count."""
    counts = (sweep.gap > 10 * sweep.noise) & (sweep.gap > tolerance.bound(sweep.central)) & (STEPS < 1e-2)
    last = np.flatnonzero(counts[1:] & counts[:-1])
    return float(sweep.gap[last[-1] + 1] / sweep.gap[last[-1]]) if len(last) else 0.0


def _kink(suspect: Suspect, sweep: _Sweep, tolerance: Tolerance) -> str:
    at = int(np.argmin(np.abs(np.log(STEPS / tolerance.eps))))
    left, right = sorted((float(sweep.left[at]), float(sweep.right[at])))
    slack = float(tolerance.bound(sweep.central)[at])
    text = (
        "the point is a kink or a tie: the slopes from its two sides are "
        f"{sweep.left[at]:.6g} and {sweep.right[at]:.6g}. "
    )
    if left - slack <= suspect.backward <= right + slack:
        return text + "Backward's value is one of those or between them, so this is no fault: move the input away."
    return text + "Backward's value is not even between them, which is a fault all the same."


def _wrong(analytic: Array, numeric: Array, tolerance: Tolerance) -> str:
    text = "the quotients agree with one another and not with backward: the gradient is wrong, not the step"
    if np.isnan(analytic).any():
        return f"{text}; backward gives NaN."
    if not np.any(analytic):
        return f"{text}; backward gives 0 in each wrong element: is the graph cut (detach, no_grad, x.array)?"
    plain = np.abs(numeric) > tolerance.bound(numeric)
    ratios = analytic[plain] / numeric[plain]
    if len(ratios) and np.ptp(ratios) <= 1e-3 * np.abs(ratios[0]):
        factor = "the sign is wrong" if np.isclose(ratios[0], -1, rtol=1e-3) else f"{ratios[0]:.4g} times the quotient"
        return f"{text}; in each wrong element it is off by the same factor: {factor}."
    return f"{text}."
