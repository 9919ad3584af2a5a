"""Weight initialisation. Each function overwrites a tensor, outside of the computational graph, and returns it.

fan_in is the number of products summed into one element of a layer's output, fan_out the number summed into one
element of its input's gradient. For a weight (out, in, KH, KW) they are in*KH*KW and out*KH*KW. As in PyTorch, a
transposed convolution's weight (in, out, KH, KW) is read in the same way.
"""

from __future__ import annotations

import math

from minidl.random import Generator
from minidl.tensor import Tensor

_LINEAR = ["linear", *[f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)]]
_GAINS = {**dict.fromkeys(_LINEAR, 1.0), "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with draws from the uniform distribution on [a, b)."""
    tensor.detach().uniform_(a, b, generator=generator)
    return tensor


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with draws from the normal distribution with this mean and standard deviation."""
    tensor.detach().normal_(mean, std, generator=generator)
    return tensor


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one value."""
    tensor.detach().fill_(val)
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    return constant_(tensor, 1.0)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor for a weight's standard deviation that compensates for the nonlinearity that follows.

    Parameters
    ----------
    nonlinearity : str
        "linear", the name of a convolution or "sigmoid": 1; "tanh": 5/3; "relu": sqrt(2), since it halves the second
        moment of a symmetric variable; "leaky_relu": sqrt(2 / (1 + param^2)); "selu": 3/4.
    param : float, optional
        The negative slope, by default 0.01.

    Examples
    --------
    >>> calculate_gain("leaky_relu", 1.0)
    1.0
    """
    if nonlinearity == "leaky_relu":
        if isinstance(param, bool) or not isinstance(param, int | float | None):
            raise ValueError(f"calculate_gain: the negative slope must be a number, not {param!r}")
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in _GAINS:
        raise ValueError(f"calculate_gain: nonlinearity {nonlinearity!r} is not known")
    return _GAINS[nonlinearity]


def _fans(tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim < 2:
        raise ValueError(f"fan_in and fan_out need a weight of at least 2 dimensions, not of shape {tensor.shape}")
    outputs, inputs, *kernel = tensor.shape
    return inputs * math.prod(kernel), outputs * math.prod(kernel)


def _xavier_std(tensor: Tensor, gain: float) -> float:
    return gain * math.sqrt(2 / sum(_fans(tensor)))


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"kaiming: mode must be 'fan_in' or 'fan_out', not {mode!r}")
    fan = max(_fans(tensor)[mode == "fan_out"], 1)  # a tensor without elements has fan 0
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Glorot initialisation: uniform with mean 0 and variance gain^2 * 2 / (fan_in + fan_out).

    A compromise that keeps the variance of both the signal and the gradient from layer to layer. The uniform
    distribution on [-b, b) has variance b^2 / 3. Source: X. Glorot, Y. Bengio, Understanding the difficulty of training
    deep feedforward neural networks, AISTATS 2010.
    """
    bound = math.sqrt(3) * _xavier_std(tensor, gain)
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with mean 0 and variance gain^2 * 2 / (fan_in + fan_out); see ``xavier_uniform_``."""
    return normal_(tensor, 0.0, _xavier_std(tensor, gain), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """He initialisation: uniform with mean 0 and variance gain^2 / fan, which preserves variance through ReLU layers.

    Parameters
    ----------
    a : float
        The negative slope of the leaky ReLU that follows; 0 for a ReLU.
    mode : {"fan_in", "fan_out"}
        Whether to preserve the variance of the signal or of the gradient.
    nonlinearity : str
        The nonlinearity that follows, as for ``calculate_gain``.

    Notes
    -----
    Source: K. He et al., Delving deep into rectifiers: surpassing human-level performance on ImageNet classification,
    arXiv:1502.01852, 2015.
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Normal with mean 0 and variance gain^2 / fan; see ``kaiming_uniform_``."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def default_(weight: Tensor, bias: Tensor | None) -> None:
    """PyTorch's default for linear and convolution layers: weight and bias uniform on +-1 / sqrt(fan_in).

    As in PyTorch, fan_in is the number of elements in weight[0]: C*KH*KW for a convolution, out*KH*KW for a transposed
    convolution's weight (in, out, KH, KW). PyTorch documents the weight's rule as Kaiming's with a = sqrt(5), which is
    the same: sqrt(3) * sqrt(2 / (1 + 5)) / sqrt(fan_in) = 1 / sqrt(fan_in).
    """
    fan_in = math.prod(weight.shape[1:])
    bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
    uniform_(weight, -bound, bound)
    if bias is not None:
        uniform_(bias, -bound, bound)
