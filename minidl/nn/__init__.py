"""Layers, losses and modules, under the names of ``torch.nn``."""

from minidl.nn import functional, init, parallel, utils
from minidl.nn.containers import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from minidl.nn.layers import (
    ELU, GELU, SELU, Conv2d, ConvTranspose2d, Dropout, Dropout2d, Embedding, Flatten, Hardtanh, Identity, LeakyReLU,
    Linear, LogSigmoid, LogSoftmax, PReLU, ReLU, ReLU6, SiLU, Sigmoid, Softmax, Softplus, Tanh, Unflatten,
)
from minidl.nn.losses import (
    BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss, KLDivLoss, L1Loss, MSELoss, NLLLoss, RegularisedLoss,
    SmoothL1Loss,
)
from minidl.nn.module import Module, Parameter
from minidl.nn.normalisation import BatchNorm1d, BatchNorm2d, GroupNorm, InstanceNorm1d, InstanceNorm2d, LayerNorm
from minidl.nn.pooling import (
    AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, ChannelShuffle, CircularPad2d, ConstantPad1d, ConstantPad2d, Fold,
    MaxPool2d, MaxUnpool2d, PixelShuffle, PixelUnshuffle, ReflectionPad1d, ReflectionPad2d, ReplicationPad1d,
    ReplicationPad2d, Unfold, Upsample, UpsamplingBilinear2d, UpsamplingNearest2d, ZeroPad2d,
)

__all__ = [
    "ELU", "GELU", "SELU", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AvgPool2d", "BCELoss", "BCEWithLogitsLoss",
    "BatchNorm1d", "BatchNorm2d", "ChannelShuffle", "CircularPad2d", "ConstantPad1d", "ConstantPad2d", "Conv2d",
    "ConvTranspose2d", "CrossEntropyLoss", "Dropout", "Dropout2d", "Embedding", "Flatten", "Fold", "GroupNorm",
    "Hardtanh", "HuberLoss", "Identity", "InstanceNorm1d", "InstanceNorm2d", "KLDivLoss", "L1Loss", "LayerNorm",
    "LeakyReLU", "Linear", "LogSigmoid", "LogSoftmax", "MSELoss", "MaxPool2d", "MaxUnpool2d", "Module", "ModuleDict",
    "ModuleList", "NLLLoss", "PReLU", "Parameter", "ParameterDict", "ParameterList", "PixelShuffle", "PixelUnshuffle",
    "ReLU", "ReLU6", "ReflectionPad1d", "ReflectionPad2d", "RegularisedLoss", "ReplicationPad1d", "ReplicationPad2d",
    "Sequential", "SiLU", "Sigmoid", "SmoothL1Loss", "Softmax", "Softplus", "Tanh", "Unflatten", "Unfold", "Upsample",
    "UpsamplingBilinear2d", "UpsamplingNearest2d", "ZeroPad2d", "functional", "init", "parallel", "utils",
]
