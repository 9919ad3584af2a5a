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


class Sweep:
    """The one-sided quotients of phi for each of STEPS, their rounding error, and what they say.

    `size` is the magnitude of the terms summed in phi; backward and the quotient for eps give `backward` and `numeric`.
    """

    def __init__(
        self, phi: Callable[[float], float], size: float, backward: float, numeric: float, tolerance: Tolerance
    ) -> None:
        self.size, self.backward, self.numeric, self.tolerance = size, backward, numeric, tolerance
        middle = phi(0.0)
        self.right = (np.array([phi(h) for h in STEPS]) - middle) / STEPS
        self.left = (middle - np.array([phi(-h) for h in STEPS])) / STEPS
        self.noise = ROUNDING * size / STEPS
        self.central, self.gap = (self.right + self.left) / 2, np.abs(self.right - self.left)
        self.error, self.bound = np.abs(self.central - backward), tolerance.bound(self.central)

    def lines(self, analytic: Array, numeric: Array) -> list[str]:
        """Lines for a message: the quotient for each step, and the verdict.

        `analytic` and `numeric` are all the wrong elements; they are searched for a common factor.
        """
        rows = zip(STEPS, self.central, self.error, strict=True)
        table = [f"  {h:8.0e} {quotient:22.10g} {e:12.3g}" for h, quotient, e in rows]
        verdict = f"Verdict: {self.excuse() or _wrong(analytic, numeric, self.tolerance)}"
        lines = textwrap.wrap(verdict, 100, initial_indent="  ", subsequent_indent="  ")
        return [f"  {'step':>8} {'difference quotient':>22} {'error':>12}", *table, *lines]

    def excuse(self) -> str | None:
        """The reason why the difference quotient is not a gradient here, or None: then the gradient is wrong."""
        eps = self.tolerance.eps
        small = eps >= STEPS
        if not np.isfinite([*self.right[small], *self.left[small]]).all():
            return "the function is not finite here or a small step away: move the input into its domain."
        if (self.error + self.noise <= self.bound)[small & ~np.isclose(STEPS, eps)].any():
            return (
                "for smaller steps the quotients agree with backward, which is right: eps reaches over a kink or a "
                "tie, or the function bends too much. Move the input away from the kink, or take a smaller eps."
            )
        if np.abs(self.backward - self.numeric) <= ROUNDING * self.size / eps:
            return (
                f"the outputs are sums of terms as large as {self.size:.2g}, in which a step of {eps} changes too "
                "few digits: take a larger eps, smaller values, or a larger atol."
            )
        if self._settled():
            return None
        larger = (self.error <= self.bound) & (1.01 * eps < STEPS)
        if (larger[1:] & larger[:-1]).any():
            return (
                "for larger steps the quotients agree with backward: at the scale of eps the function is rough, by "
                "rounding inside (float32, large terms that cancel) or a small jump. Take a larger eps."
            )
        gap, slope = self._growth(self.gap), self._growth(np.abs(self.central))
        if max(gap, slope) > 5:
            return "the function jumps here: it has no gradient at this point. Move the input away."
        if max(gap, slope) > 2:
            return "the slope grows without bound as the step shrinks: there is no gradient here. Move the input away."
        if gap > 1 / 3:
            return self._kink()
        return "the quotients do not settle, since the function bends too much for these steps: take a smaller eps."

    def _settled(self) -> bool:
        """Whether both sides agree on one slope at two consecutive steps with enough digits: that is the gradient."""
        slack, clear = self.bound + self.noise, self.noise <= self.bound
        largest = 1.01 * max(self.tolerance.eps, 10 * STEPS[clear].min(initial=0.1))
        one = (self.gap[1:] <= slack[1:]) | (self.gap[1:] <= 0.3 * self.gap[:-1])
        same = np.abs(np.diff(self.central)) <= slack[1:]
        return bool((one & same & clear[1:] & (STEPS[:-1] <= largest)).any())

    def _growth(self, values: Array) -> float:
        """The growth factor of `values` when the step shrinks tenfold, at the smallest steps above the noise."""
        counts = (values > 10 * self.noise) & (values > self.tolerance.atol) & (STEPS < 1e-2)
        last = np.flatnonzero(counts[1:] & counts[:-1])
        return float(values[last[-1] + 1] / values[last[-1]]) if len(last) else 0.0

    def _kink(self) -> str:
        at = int(np.argmin(np.abs(np.log(STEPS / self.tolerance.eps))))
        left, right = sorted((float(self.left[at]), float(self.right[at])))
        slopes = f"{self.left[at]:.6g} and {self.right[at]:.6g}"
        text = f"the point is a kink or a tie: the slopes from its two sides are {slopes}. "
        if left - self.bound[at] <= self.backward <= right + self.bound[at]:
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
