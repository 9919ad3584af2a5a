"""Solutions of chapter 7, "Checkerboards"."""

import numpy as np


def taps_of_phases(k, s):
    return [len(range(remainder, k, s)) for remainder in range(s)]


def bilinear_kernel(s):
    distance = np.abs(np.arange(2 * s) - (2 * s - 1) / 2)  # of the taps' centres from the middle
    weights = 1 - distance / s
    return np.outer(weights, weights)
