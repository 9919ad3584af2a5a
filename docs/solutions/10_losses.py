"""Solutions of chapter 10, "Losses and their units"."""

import numpy as np


def bce_with_logits(z, t):
    log_sum = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))  # ln(e^z + e^0)
    return log_sum - t * z


def epoch_mean(means, sizes):
    return np.dot(means, sizes) / np.sum(sizes)
