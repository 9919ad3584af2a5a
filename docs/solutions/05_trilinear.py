"""Solutions of chapter 5, "One form, three derivatives"."""

from minidl.nn import functional as F


def backward_of_transposed(gx, w, stride, padding):
    return F.conv2d(gx, w, stride=stride, padding=padding)


def gradient_of_weight(x, gy):
    filters = gy.transpose(0, 1)  # (O, N, OH, OW): the sum over the batch takes the place of that over channels
    return F.conv2d(x.transpose(0, 1), filters).transpose(0, 1)  # (C, O, K, K) to (O, C, K, K)
