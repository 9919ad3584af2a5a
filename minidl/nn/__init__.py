"""Layers, losses and modules, under the names of ``torch.nn``."""

from minidl.nn import functional, init, utils
from minidl.nn.activations import (
    ELU, GELU, SELU, Hardtanh, LeakyReLU, LogSigmoid, LogSoftmax, PReLU, ReLU, ReLU6, SiLU, Sigmoid, Softmax, Softplus,
    Tanh,
)
from minidl.nn.containers import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from minidl.nn.embedding import Embedding
from minidl.nn.layers import Conv2d, ConvTranspose2d, Dropout, Dropout2d, Flatten, Identity, Linear, Unflatten
from minidl.nn.losses import (
    BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss, KLDivLoss, L1Loss, MSELoss, NLLLoss, RegularisedLoss,
    SmoothL1Loss,
)
from minidl.nn.module import Module, Parameter
from minidl.nn.normalisation import BatchNorm1d, BatchNorm2d, GroupNorm, InstanceNorm1d, InstanceNorm2d, LayerNorm
from minidl.nn.padding import (
    CircularPad2d, ConstantPad1d, ConstantPad2d, ReflectionPad1d, ReflectionPad2d, ReplicationPad1d, ReplicationPad2d,
    ZeroPad2d,
)
from minidl.nn.pooling import (
    AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, ChannelShuffle, MaxPool2d, MaxUnpool2d, PixelShuffle,
    PixelUnshuffle, Upsample, UpsamplingBilinear2d, UpsamplingNearest2d,
)
from minidl.nn.unfold import Fold, Unfold

__all__ = [
    "ELU", "GELU", "SELU", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AvgPool2d", "BCELoss", "BCEWithLogitsLoss",
    "BatchNorm1d", "BatchNorm2d", "ChannelShuffle", "CircularPad2d", "ConstantPad1d", "ConstantPad2d", "Conv2d",
    "ConvTranspose2d", "CrossEntropyLoss", "Dropout", "Dropout2d", "Embedding", "Flatten", "Fold", "GroupNorm",
    "Hardtanh", "HuberLoss", "Identity", "InstanceNorm1d", "InstanceNorm2d", "KLDivLoss", "L1Loss", "LayerNorm",
    "LeakyReLU", "Linear", "LogSigmoid", "LogSoftmax", "MSELoss", "MaxPool2d", "MaxUnpool2d", "Module", "ModuleDict",
    "ModuleList", "NLLLoss", "PReLU", "Parameter", "ParameterDict", "ParameterList", "PixelShuffle", "PixelUnshuffle",
    "ReLU", "ReLU6", "ReflectionPad1d", "ReflectionPad2d", "RegularisedLoss", "ReplicationPad1d", "ReplicationPad2d",
    "Sequential", "SiLU", "Sigmoid", "SmoothL1Loss", "Softmax", "Softplus", "Tanh", "Unflatten", "Unfold", "Upsample",
    "UpsamplingBilinear2d", "UpsamplingNearest2d", "ZeroPad2d", "functional", "init", "utils",
]
