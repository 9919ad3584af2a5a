"""Diagnose why a gradient differs from its difference quotient: wrong gradient, kink, jump or unsuitable step.

phi(h) is the output when one element of the input is moved by h. If phi is smooth, the one-sided quotients
(phi(h) - phi(0)) / h and (phi(0) - phi(-h)) / h converge: their gap shrinks in proportion to h. At a kink the gap is
constant, at a jump it grows as 1/h, and when h is too small it is rounding error.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minidl.tensor import Array

STEPS = 10.0 ** -np.arange(1, 9)  # 0.1, 0.01 ... 1e-8
ROUNDING = 16 * np.finfo(np.float64).eps  # relative error of a value after a few operations


class Tolerance(NamedTuple):
    """The step of the differences, and how much a gradient may differ from them."""

    eps: float
    atol: float
    rtol: float

    def bound(self, numeric: Array) -> Array:
        return self.atol + self.rtol * np.abs(numeric)


class Suspect(NamedTuple):
    """The worst element of the Jacobian: phi, the magnitude of the terms summed in phi, and both values."""

    along: Callable[[float], float]
    size: float
    backward: float
    numeric: float


class _Sweep(NamedTuple):
    """The one-sided quotients and their rounding error, for each of STEPS."""

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
    """Lines for a message: the quotient for a sweep of steps, and the verdict.

    `analytic` and `numeric` are all the wrong elements; they are searched for a common factor.
    """
    with np.errstate(all="ignore"):
        sweep = _sweep(suspect)
        error = np.abs(sweep.central - suspect.backward)
        rows = zip(STEPS, sweep.central, error, strict=True)
        table = [f"  {h:8.0e} {quotient:22.10g} {e:12.3g}" for h, quotient, e in rows]
        verdict = _verdict(suspect, sweep, tolerance) or _wrong(analytic, numeric, tolerance)
    lines = textwrap.wrap(f"Verdict: {verdict}", 100, initial_indent="  ", subsequent_indent="  ")
    return [f"  {'step':>8} {'difference quotient':>22} {'error':>12}", *table, *lines]


def is_fault(suspect: Suspect, tolerance: Tolerance) -> bool:
    """Whether the gradient, and not the difference quotient, is wrong here."""
    with np.errstate(all="ignore"):
        return _verdict(suspect, _sweep(suspect), tolerance) is None


def _sweep(suspect: Suspect) -> _Sweep:
    middle = suspect.along(0.0)
    above = np.array([suspect.along(h) for h in STEPS])
    below = np.array([suspect.along(-h) for h in STEPS])
    return _Sweep((above - middle) / STEPS, (middle - below) / STEPS, ROUNDING * suspect.size / STEPS)


def _verdict(suspect: Suspect, sweep: _Sweep, tolerance: Tolerance) -> str | None:
    """The reason why the difference quotient is not a gradient here, or None."""
    small, bound = tolerance.eps >= STEPS, tolerance.bound(sweep.central)
    if not np.isfinite([*sweep.right[small], *sweep.left[small]]).all():
        return "the function is not finite here or a small step away: move the input into its domain."
    error = np.abs(sweep.central - suspect.backward)
    if (error + sweep.noise <= bound)[small & ~np.isclose(STEPS, tolerance.eps)].any():
        return (
            "for smaller steps the quotients agree with backward, which is right: eps reaches over a kink or a tie, "
            "or the function bends too much. Move the input away from the kink, or take a smaller eps."
        )
    if np.abs(suspect.backward - suspect.numeric) <= ROUNDING * suspect.size / tolerance.eps:
        return (
            f"the outputs are sums of terms as large as {suspect.size:.2g}, in which a step of {tolerance.eps} changes "
            "too few digits: take a larger eps, smaller values, or a larger atol."
        )
    if _settled(sweep, tolerance):
        return None
    larger = (error <= bound) & (1.01 * tolerance.eps < STEPS)
    if (larger[1:] & larger[:-1]).any():
        return (
            "for larger steps the quotients agree with backward: at the scale of eps the function is rough, by "
            "rounding inside (float32, large terms that cancel) or a small jump. Take a larger eps."
        )
    return _unsettled(suspect, sweep, tolerance)


def _unsettled(suspect: Suspect, sweep: _Sweep, tolerance: Tolerance) -> str:
    """What is wrong with a function whose quotients do not converge."""
    gap, slope = _growth(sweep.gap, sweep, tolerance), _growth(np.abs(sweep.central), sweep, tolerance)
    if max(gap, slope) > 5:
        return "the function jumps here: it has no gradient at this point. Move the input away."
    if max(gap, slope) > 2:
        return "the slope grows without bound as the step shrinks: there is no gradient here. Move the input away."
    if gap > 1 / 3:
        return _kink(suspect, sweep, tolerance)
    return "the quotients do not settle, since the function bends too much for these steps: take a smaller eps."


def _settled(sweep: _Sweep, tolerance: Tolerance) -> bool:
    """Whether both sides agree on one slope at two consecutive steps with enough digits: that is the gradient."""
    bound = tolerance.bound(sweep.central)
    slack, clear = bound + sweep.noise, sweep.noise <= bound
    largest = 1.01 * max(tolerance.eps, 10 * STEPS[clear].min(initial=0.1))
    one = (sweep.gap[1:] <= slack[1:]) | (sweep.gap[1:] <= 0.3 * sweep.gap[:-1])
    same = np.abs(np.diff(sweep.central)) <= slack[1:]
    return bool((one & same & clear[1:] & (STEPS[:-1] <= largest)).any())


def _growth(values: Array, sweep: _Sweep, tolerance: Tolerance) -> float:
    """The growth factor of `values` when the step shrinks tenfold, at the smallest steps above the noise."""
    counts = (values > 10 * sweep.noise) & (values > tolerance.bound(sweep.central * 0)) & (STEPS < 1e-2)
    last = np.flatnonzero(counts[1:] & counts[:-1])
    return float(values[last[-1] + 1] / values[last[-1]]) if len(last) else 0.0


def _kink(suspect: Suspect, sweep: _Sweep, tolerance: Tolerance) -> str:
    at = int(np.argmin(np.abs(np.log(STEPS / tolerance.eps))))
    left, right = sorted((float(sweep.left[at]), float(sweep.right[at])))
    slack = float(tolerance.bound(sweep.central)[at])
    slopes = f"{sweep.left[at]:.6g} and {sweep.right[at]:.6g}"
    text = f"the point is a kink or a tie: the slopes from its two sides are {slopes}. "
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
    ratios = analytic / np.where(plain, numeric, np.nan)
    if np.ptp(ratios) <= min(1e-3 * np.abs(ratios[0]), 0.1 * np.abs(ratios[0] - 1)):
        factor = "the sign is wrong" if np.isclose(ratios[0], -1, rtol=1e-3) else f"{ratios[0]:.6g} times the quotient"
        return f"{text}; in each wrong element it is off by the same factor: {factor}."
    return f"{text}."
