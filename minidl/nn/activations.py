"""Activations as layers: each is one function of `functional`, with the function's settings as its attributes."""

from __future__ import annotations

from typing import Any

from minidl.creation import full
from minidl.nn import functional as F
from minidl.nn._of_function import OfFunction
from minidl.nn.module import Module, Parameter
from minidl.tensor import Tensor


class ReLU(OfFunction, of=F.relu):
    """Rectified linear unit: max(x, 0), elementwise. With `inplace` the result is written into the input."""


class LeakyReLU(OfFunction, of=F.leaky_relu):
    """Leaky ReLU: x where x > 0, negative_slope * x elsewhere (Maas et al., ICML 2013)."""


class Sigmoid(OfFunction, of=F.sigmoid):
    """The logistic function, 1 / (1 + e^-x), elementwise."""


class Tanh(OfFunction, of=F.tanh):
    """The hyperbolic tangent, elementwise."""


class ELU(OfFunction, of=F.elu):
    """Exponential linear unit: x where x > 0, alpha (e^x - 1) elsewhere (Clevert et al., arXiv:1511.07289)."""


class SELU(OfFunction, of=F.selu):
    """Scaled ELU, which keeps mean 0 and variance 1 from layer to layer (Klambauer et al., arXiv:1706.02515)."""


class GELU(OfFunction, of=F.gelu):
    """Gaussian error linear unit: x times the probability of a smaller normal number (arXiv:1606.08415)."""


class SiLU(OfFunction, of=F.silu):
    """Sigmoid linear unit, or swish: x / (1 + e^-x)."""


class Softplus(OfFunction, of=F.softplus):
    """A smooth ReLU: ln(1 + e^(beta x)) / beta, and x itself where beta x > threshold."""


class LogSigmoid(OfFunction, of=F.logsigmoid):
    """The logarithm of ``Sigmoid``, accurate even where the sigmoid rounds to 0."""


class Hardtanh(OfFunction, of=F.hardtanh):
    """x between min_val and max_val, and the bounds outside."""


class ReLU6(OfFunction, of=F.relu6):
    """min(max(x, 0), 6)."""


class Softmax(OfFunction, of=F.softmax):
    """Probabilities from logits, along dimension `dim`: y_i = e^x_i / (sum over j of e^x_j)."""


class LogSoftmax(OfFunction, of=F.log_softmax):
    """The logarithm of ``Softmax``, accurate even where the softmax itself rounds to 0."""


class PReLU(Module):
    """Leaky ReLU whose slope is learned: one for all, or one for each channel (He et al., arXiv:1502.01852).

    Attributes
    ----------
    weight : Parameter
        (num_parameters,)
    """

    _repr_format = "num_parameters={0.num_parameters}"

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters, self.init = num_parameters, init
        self.weight = Parameter(full((num_parameters,), init, device=device, dtype=dtype))

    def forward(self, input: Tensor) -> Tensor:
        """Any shape; the output has the same."""
        return F.prelu(input, self.weight)
