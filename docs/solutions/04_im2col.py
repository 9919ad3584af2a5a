"""Solutions of chapter 4, "Convolution is a matrix product"."""

import numpy as np


def im2col_with_stride(x, k, s):
    (height, width) = x.shape
    oh, ow = (height - k) // s + 1, (width - k) // s + 1
    return np.stack([x[u : u + s * oh : s, v : v + s * ow : s].ravel() for u, v in np.ndindex(k, k)])


def col2im(columns, shape, k):
    x, (oh, ow) = np.zeros(shape), (shape[0] - k + 1, shape[1] - k + 1)
    for row, (u, v) in zip(columns, np.ndindex(k, k), strict=True):
        x[u : u + oh, v : v + ow] += row.reshape(oh, ow)
    return x
