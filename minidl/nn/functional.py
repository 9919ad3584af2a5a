"""The layers' operations as functions, under the names of ``torch.nn.functional``."""

from minidl.ops.activation import dropout, dropout2d, leaky_relu, log_softmax, relu, sigmoid, softmax, tanh
from minidl.ops.conv import conv2d, conv_transpose2d
from minidl.ops.gather import embedding
from minidl.ops.images import (
    adaptive_avg_pool2d, adaptive_max_pool2d, channel_shuffle, interpolate, pixel_shuffle, pixel_unshuffle, upsample,
)
from minidl.ops.linear import linear
from minidl.ops.loss import (
    binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy, gaussian_kl, huber_loss, kl_div, l1_loss,
    mse_loss, nll_loss, smooth_l1_loss,
)
from minidl.ops.normalisation import batch_norm, group_norm, instance_norm, layer_norm
from minidl.ops.other_reductions import cosine_similarity, normalize, pairwise_distance
from minidl.ops.pooling import avg_pool2d, max_pool2d, max_unpool2d
from minidl.ops.pointwise import elu, gelu, hardtanh, logsigmoid, prelu, relu6, selu, silu, softplus
from minidl.ops.shape import one_hot, pad
from minidl.ops.unfold import fold, unfold

__all__ = [
    "adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "batch_norm", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "channel_shuffle", "conv2d", "conv_transpose2d", "cosine_similarity",
    "cross_entropy", "dropout", "dropout2d", "elu", "embedding", "fold", "gaussian_kl", "gelu", "group_norm",
    "hardtanh", "huber_loss", "instance_norm", "interpolate", "kl_div", "l1_loss", "layer_norm", "leaky_relu", "linear",
    "log_softmax", "logsigmoid", "max_pool2d", "max_unpool2d", "mse_loss", "nll_loss", "normalize", "one_hot", "pad",
    "pairwise_distance", "pixel_shuffle", "pixel_unshuffle", "prelu", "relu", "relu6", "selu", "sigmoid", "silu",
    "smooth_l1_loss", "softmax", "softplus", "tanh", "unfold", "upsample",
]
