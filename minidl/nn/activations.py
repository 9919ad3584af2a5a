"""Activations as layers: each is one function of `functional`, with the function's settings as its attributes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from minidl.creation import full
from minidl.nn import functional as F
from minidl.nn.module import Module, Parameter
from minidl.tensor import Tensor


class _Activation(Module):
    """The base: arguments, attributes and printed form come from the function, ``class ELU(_Activation, of=F.elu)``."""

    _function: Callable[..., Tensor]
    _settings: inspect.Signature

    def __init_subclass__(cls, of: Callable[..., Tensor] | None = None) -> None:
        if of is not None:
            _, *settings = inspect.signature(of).parameters.values()
            settings = [x.replace(kind=x.POSITIONAL_OR_KEYWORD) for x in settings if x.name != "dtype"]
            cls._function, cls._settings = staticmethod(of), inspect.Signature(settings)
        cls.__signature__ = cls._settings if of is not None else None  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__()
        bound = self._settings.bind(*args, **named)
        bound.apply_defaults()
        vars(self).update(bound.arguments)

    def forward(self, input: Tensor) -> Tensor:
        """Any shape; the output has the same."""
        names = self._settings.parameters
        return self._function(input, **dict(zip(names, map(vars(self).get, names), strict=True)))

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        shown = [f"{name}={vars(self)[name]!r}" for name in self._settings.parameters if name != "inplace"]
        return ", ".join(shown + ["inplace=True"] * vars(self).get("inplace", False))


class ReLU(_Activation, of=F.relu):
    """Rectified linear unit: max(x, 0), elementwise. With `inplace` the result is written into the input."""


class LeakyReLU(_Activation, of=F.leaky_relu):
    """Leaky ReLU: x where x > 0, negative_slope * x elsewhere (Maas et al., ICML 2013)."""


class Sigmoid(_Activation, of=F.sigmoid):
    """The logistic function, 1 / (1 + e^-x), elementwise."""


class Tanh(_Activation, of=F.tanh):
    """The hyperbolic tangent, elementwise."""


class ELU(_Activation, of=F.elu):
    """Exponential linear unit: x where x > 0, alpha (e^x - 1) elsewhere (Clevert et al., arXiv:1511.07289)."""


class SELU(_Activation, of=F.selu):
    """Scaled ELU, which keeps mean 0 and variance 1 from layer to layer (Klambauer et al., arXiv:1706.02515)."""


class GELU(_Activation, of=F.gelu):
    """Gaussian error linear unit: x times the probability of a smaller normal number (arXiv:1606.08415)."""


class SiLU(_Activation, of=F.silu):
    """Sigmoid linear unit, or swish: x / (1 + e^-x)."""


class Softplus(_Activation, of=F.softplus):
    """A smooth ReLU: ln(1 + e^(beta x)) / beta, and x itself where beta x > threshold."""


class LogSigmoid(_Activation, of=F.logsigmoid):
    """The logarithm of ``Sigmoid``, accurate even where the sigmoid rounds to 0."""


class Hardtanh(_Activation, of=F.hardtanh):
    """x between min_val and max_val, and the bounds outside."""


class ReLU6(_Activation, of=F.relu6):
    """min(max(x, 0), 6)."""


class Softmax(_Activation, of=F.softmax):
    """Probabilities from logits, along dimension `dim`: y_i = e^x_i / (sum over j of e^x_j)."""


class LogSoftmax(_Activation, of=F.log_softmax):
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
