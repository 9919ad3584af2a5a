"""Layers: each a module that wraps one operation of `functional` and owns its parameters.

Arguments, defaults, weight layouts and printed forms are PyTorch's. N images in a batch, C channels, H x W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.autograd import is_grad_enabled
from minidl.creation import full, randn, zeros
from minidl.kernels.geometry import ConvGeometry, Pairlike, cached, chosen_size
from minidl.nn import functional as F
from minidl.nn import init
from minidl.nn.module import Module, OfFunction, Parameter
from minidl.ops.shape import BORDERS, flatten, unflatten
from minidl.tensor import Tensor


class Identity(Module):
    """y = x, whatever the arguments: a placeholder for a layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """The input itself."""
        return input


class _Weighted(Module):
    """The base of ``Linear`` and the convolutions: a weight, and a bias or None."""

    def _make_parameters(self, shape: tuple[int, ...], out: int, bias: bool, device: Any, dtype: Any) -> None:
        self.weight = Parameter(zeros(shape, device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(zeros(out, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values: uniform on +-1 / sqrt(fan_in); see ``init.default_``."""
        init.default_(self.weight, self.bias)


class Linear(_Weighted):
    """Fully connected layer, y = x w^T + b on the last dimension: (..., in_features) to (..., out_features).

    Parameters
    ----------
    in_features, out_features : int
    bias : bool

    Attributes
    ----------
    weight : Parameter
        (out_features, in_features)
    bias : Parameter or None
        (out_features,)
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        _check_counts("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self._make_parameters((out_features, in_features), out_features, bias, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class _Conv(_Weighted):
    """The base of both convolutions: their settings, parameters and printed form."""

    transposed = False  # whether the weight is (in, out, KH, KW) instead of (out, in, KH, KW)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pairlike,
        stride: Pairlike = 1,
        padding: Pairlike | str = 0,
        output_padding: Pairlike = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Pairlike = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        _check_counts(name, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if groups < 1 or in_channels % groups or out_channels % groups:
            rule = f"must be at least 1 and divide both in_channels={in_channels} and out_channels={out_channels}"
            raise ValueError(f"{name}: groups={groups} {rule}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride, self.dilation = pair(kernel_size), pair(stride), pair(dilation)
        named = isinstance(padding, str) and not self.transposed
        self.padding: Any = padding if named else pair(padding)  # type: ignore[arg-type]
        self.output_padding = pair(output_padding)
        if named and (padding not in ("same", "valid") or (padding == "same" and self.stride != (1, 1))):
            rule = "numbers, 'valid' or, with stride 1, 'same'"
            raise ValueError(f"{name}: padding must be {rule}, not {padding!r} with stride {self.stride}")
        if padding_mode != "zeros" and (self.transposed or padding_mode not in BORDERS):
            modes = ["zeros"] if self.transposed else ["zeros", *BORDERS]
            raise ValueError(f"{name}: padding_mode must be one of {modes}, not {padding_mode!r}")
        self.padding_mode = padding_mode
        channels = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = channels[0], channels[1] // groups, *self.kernel_size
        self._make_parameters(shape, out_channels, bias, device, dtype)

    def extra_repr(self) -> str:
        """The settings that differ from the defaults, as PyTorch prints them."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for option, usual in (("padding", (0, 0)), ("dilation", (1, 1)), ("output_padding", (0, 0)), ("groups", 1)):
            text += f", {option}={getattr(self, option)}" if getattr(self, option) != usual else ""
        mode = "" if self.padding_mode == "zeros" else f", padding_mode={self.padding_mode}"
        return text + ("" if self.bias is not None else ", bias=False") + mode


class Conv2d(_Conv):
    """Convolution of images (N, in_channels, H, W) with out_channels filters.

    OH = floor((H + 2 padding - dilation (KH - 1) - 1) / stride) + 1, and OW alike. For the formula, its gradients and
    sources see `functional.conv2d`.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation : int or (int, int)
        The padding may also be "same" or "valid".
    groups : int
        Cut the channels in and out into so many groups; an output sees only the inputs of its own group.
    bias : bool
    padding_mode : str
        What the padding holds: "zeros", or pixels of the image by "reflect", "replicate" or "circular", as in
        `functional.pad`.

    Attributes
    ----------
    weight : Parameter
        (out_channels, in_channels / groups, KH, KW)
    bias : Parameter or None
        (out_channels,)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pairlike,
        stride: Pairlike = 1,
        padding: Pairlike | str = 0,
        dilation: Pairlike = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        window = kernel_size, stride, padding, 0
        super().__init__(in_channels, out_channels, *window, groups, bias, dilation, padding_mode, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, OH, OW)."""
        padding = self.padding
        if self.padding_mode != "zeros":
            reach = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            borders = {"same": [(r // 2, r - r // 2) for r in reach], "valid": [(0, 0), (0, 0)]}
            height, width = borders.get(padding) or [(p, p) for p in padding]
            input, padding = F.pad(input, (*width, *height), self.padding_mode), 0
        return F.conv2d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class ConvTranspose2d(_Conv):
    """Transposed convolution of (N, in_channels, H, W): the adjoint of ``Conv2d`` in its input.

    OH = (H - 1) stride - 2 padding + dilation (KH - 1) + output_padding + 1, and OW alike. For the formula, its
    gradients and sources see `functional.conv_transpose2d`.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, output_padding, dilation : int or (int, int)
    groups : int
        As for ``Conv2d``.
    bias : bool
    padding_mode : str
        Only "zeros".

    Attributes
    ----------
    weight : Parameter
        (in_channels, out_channels / groups, KH, KW)
    bias : Parameter or None
        (out_channels,)
    """

    transposed = True

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, OH, OW).

        With stride > 1, ``Conv2d`` maps several sizes to one. `output_size` (OH, OW) chooses among them, in place of
        the layer's output_padding.
        """
        extra = self.output_padding if output_size is None else self._padding_for(input, output_size)
        window = self.stride, self.padding, extra, self.groups, self.dilation
        return F.conv_transpose2d(input, self.weight, self.bias, *window)

    def _padding_for(self, input: Tensor, output_size: Sequence[int]) -> tuple[int, int]:
        batch = input.shape if input.ndim == 4 else (1, *input.shape)
        sizes = batch, self.weight.shape, self.stride, self.padding, 0, self.dilation, self.groups
        least = cached(ConvGeometry.of_conv_transpose2d, *sizes).image_size
        most = [n + s - 1 for n, s in zip(least, self.stride, strict=True)]
        h, w = chosen_size("ConvTranspose2d", output_size, least, most, whole=input.ndim)
        return h - least[0], w - least[1]


class Flatten(OfFunction, of=flatten):
    """Flatten the dimensions from `start_dim` to `end_dim` into one: by default, (N, C, H, W) to (N, C*H*W)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__(start_dim, end_dim)


class Unflatten(Module):
    """Split dimension `dim` into the sizes `unflattened_size`, one of which may be -1."""

    _repr_format = "dim={0.dim}, unflattened_size={0.unflattened_size}"

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        if not isinstance(unflattened_size, tuple | list) or not all(isinstance(n, int) for n in unflattened_size):
            raise TypeError(f"Unflatten: unflattened_size must be a tuple or list of ints, not {unflattened_size!r}")
        self.dim, self.unflattened_size = dim, unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        """(N, C*H*W) to (N, C, H, W)."""
        return unflatten(input, self.dim, self.unflattened_size)


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


class Dropout(Module):
    """In training, set each element to 0 with probability `p` and multiply the others by 1 / (1 - p).

    This keeps the expected value, so that evaluation needs no scaling. Source: N. Srivastava et al., Dropout: a simple
    way to prevent neural networks from overfitting, JMLR 15, 2014.
    """

    _function = staticmethod(F.dropout)
    _repr_format = "p={0.p}, inplace={0.inplace}"

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p is a probability, between 0 and 1, not {p}")
        self.p, self.inplace, self._warned = p, inplace, False

    def forward(self, input: Tensor) -> Tensor:
        """Any shape; the output has the same."""
        if self.training and self.p and not is_grad_enabled() and not self._warned:
            warnings.warn(
                f"{type(self).__name__} is on under no_grad, as in training: call model.eval() to evaluate",
                stacklevel=3,
            )
            self._warned = True
        return self._function(input, self.p, self.training, self.inplace)


class Dropout2d(Dropout):
    """``Dropout`` of whole channels, of (N, C, H, W): neighbouring pixels are too alike to be dropped one by one."""

    _function = staticmethod(F.dropout2d)


class Embedding(Module):
    """y = the rows of the weight that the indices name; see `functional.embedding`.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        The number of rows, K, and the length of each, D.
    padding_idx : int, optional
        A row that starts as zeros and gets no gradient.

    Attributes
    ----------
    weight : Parameter, shape (K, D)
        Initially normal, with mean 0 and variance 1.

    Examples
    --------
    >>> import minidl
    >>> Embedding(10, 3)(minidl.tensor([[1, 2, 4, 5]])).shape
    (1, 4, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        assert -num_embeddings <= (padding_idx or 0) < num_embeddings, "padding_idx must be within num_embeddings"
        weight = randn(num_embeddings, embedding_dim, device=device, dtype=dtype)
        if padding_idx is not None:
            padding_idx %= num_embeddings
            weight[padding_idx] = 0
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.weight = Parameter(weight)

    def forward(self, input: Tensor) -> Tensor:
        """(...) to (..., D)."""
        return F.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """What stands in the parentheses."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


def _check_counts(layer: str, **counts: Any) -> None:
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int | np.integer):
            raise TypeError(f"{layer}: {name} must be an int, not {count!r}")
        if count < 0:
            raise RuntimeError(f"{layer}: {name} must be at least 0, not {count}")


def pair(value: Pairlike) -> tuple[int, int]:
    """One int as a pair, for height and width."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in pair):
        raise TypeError(f"kernel_size, stride, padding and dilation must be an int or a pair of ints, not {value!r}")
    return int(pair[0]), int(pair[1])
