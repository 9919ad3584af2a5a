"""Initial values of parameters."""

from __future__ import annotations

import math

from minidl import random
from minidl.creation import uniform
from minidl.tensor import Tensor


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill with draws from the uniform distribution on [a, b)."""
    drawn = uniform(random.default_generator.rng, tensor.shape, tensor.dtype)
    tensor.detach().copy_(Tensor(drawn * tensor.dtype.type(b - a) + tensor.dtype.type(a)))
    return tensor


def default_(weight: Tensor, bias: Tensor | None) -> None:
    """PyTorch's default for linear and convolution layers: both uniform in +-1 / sqrt(fan_in).

    fan_in is the number of products summed into an output, taken, as PyTorch does, as the number of elements in
    weight[0]: C*KH*KW for a convolution. For a transposed convolution's weight (in, out, KH, KW) this is
    out*KH*KW. (The layers' documented rule for the weight, Kaiming's with a = sqrt(5), is the same number:
    sqrt(6 / (1 + 5)) / sqrt(fan_in).)
    """
    fan_in = math.prod(weight.shape[1:])
    bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
    uniform_(weight, -bound, bound)
    if bias is not None:
        uniform_(bias, -bound, bound)
