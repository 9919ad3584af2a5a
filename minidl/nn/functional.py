"""The operations of layers as functions, under the names of ``torch.nn.functional``."""

from __future__ import annotations

from minidl.ops.activation import dropout, log_softmax, relu, sigmoid, softmax, tanh
from minidl.ops.conv import conv2d, conv_transpose2d
from minidl.ops.linear import linear
from minidl.ops.loss import mse_loss
from minidl.ops.shape import pad

__all__ = [
    "conv2d",
    "conv_transpose2d",
    "dropout",
    "linear",
    "log_softmax",
    "mse_loss",
    "pad",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]
