"""Solutions of chapter 3, "Trusting a gradient"; ``central`` is the chapter's."""

import numpy as np


def richardson(x, h):
    return (4 * central(np.sin, x, h / 2) - central(np.sin, x, h)) / 3  # noqa: F821


def cumsum_adjoint(y):
    return np.cumsum(y[::-1])[::-1]
