"""Solutions of chapter 12, "What a code holds"."""

import numpy as np


def best_encoder(D):
    return np.linalg.pinv(D)
