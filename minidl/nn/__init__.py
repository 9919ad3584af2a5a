"""Neural-network layers, under the names of ``torch.nn``."""

from minidl.nn import functional, init
from minidl.nn.layers import (
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    Linear,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
    Unflatten,
)
from minidl.nn.losses import BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, MSELoss, RegularisedLoss
from minidl.nn.module import Module, Parameter
from minidl.nn.pooling import AvgPool2d, MaxPool2d, MaxUnpool2d, Upsample, UpsamplingBilinear2d, UpsamplingNearest2d

__all__ = [
    "AvgPool2d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Linear",
    "MSELoss",
    "MaxPool2d",
    "MaxUnpool2d",
    "Module",
    "Parameter",
    "ReLU",
    "RegularisedLoss",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "Unflatten",
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
    "functional",
    "init",
]
