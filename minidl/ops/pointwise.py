"""Pointwise functions: a row of formula and derivative above each name, from which the function is made.

    @pointwise(np.sin, lambda x: cos(x))
    def sin(input: Tensor) -> Tensor:
        \"""y = sin x;  gx = gy cos x.\"""

says how arrays are computed, and dy/dx in tensor functions, so that it can be differentiated again. The Jacobian of a
pointwise function is diagonal: gx = gy dy/dx. The names of the derivative's parameters say what it is computed from,
and so what the tape has to keep: x, the result y, or settings. A derivative that is a mask passes gy where it holds. A
row without derivative is a composition of tensor functions, which are differentiated one by one.

The rest of a row is its domain: the `kinds` of dtypes that the formula takes ("iuf"; without it, bools and integers are
converted to float32), and for the tests, `low`, `high` and `kinks` of the numbers to draw. `ROWS` has all rows.

Sources: D. Clevert et al., Fast and accurate deep network learning by exponential linear units, arXiv:1511.07289, 2015
(elu); G. Klambauer et al., Self-normalizing neural networks, arXiv:1706.02515, 2017 (selu); D. Hendrycks, K. Gimpel,
Gaussian error linear units, arXiv:1606.08415, 2016 (gelu, silu); K. He et al., Delving deep into rectifiers,
arXiv:1502.01852, 2015 (prelu).
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from minidl import kernels
from minidl.autograd import record
from minidl.ops._operands import number, operands, operation
from minidl.ops.activation import sigmoid, tanh
from minidl.ops.arithmetic import div, divisor, exp, with_tensor
from minidl.ops.comparison import where
from minidl.ops.conversion import float32, to
from minidl.ops.inplace import in_place
from minidl.tensor import Array, Tensor

F = TypeVar("F", bound=Callable[..., Any])
ROWS: dict[str, dict[str, Any]] = {}  # the domains of all functions, by name


def pointwise(formula: Any, derivative: Any = None, kinds: str = "", **domain: Any) -> Callable[[F], F]:
    """Make the function from its row; see above. A setting `inplace` writes the result into the input."""
    reads = () if derivative is None else derivative.__code__.co_varnames

    def decorate(function: F) -> F:
        name, parameters = function.__name__, inspect.signature(function).parameters
        ROWS[name] = domain

        @functools.wraps(function)
        def computed(input: Tensor, **settings: Any) -> Tensor:
            if kinds and input.dtype.kind not in kinds:
                raise NotImplementedError(f"{name}: the input must not be {input.dtype}; convert it with .float()")
            half = input.dtype == np.float16  # in which not all formulas are exact
            x = to(input, float32) if half or (not kinds and input.dtype.kind != "f") else input
            if derivative is None:
                y = formula(x, **settings)
            else:
                held = {key: value for key, value in {"x": x, **settings}.items() if key in reads}
                gradient = functools.partial(_chain, derivative, "y" in reads, **held)
                y = record(name, formula(x.array, **settings), (x, gradient), keep_output="y" in reads)
            return to(y, np.float16) if half else y

        @operation(errstate=True)
        @functools.wraps(function)
        def applied(*args: Any, **named: Any) -> Tensor:
            function(*args, **named)  # Python's own errors for arguments that do not fit
            given = dict(zip(parameters, args, strict=False)) | named
            settings = {p: given.get(p, x.default) for p, x in parameters.items()}
            for p, x in parameters.items():
                if x.annotation == "float" and not isinstance(settings[p], int | float | np.number):
                    raise TypeError(f"{name}: {p} must be a number, not {type(settings[p]).__name__}")
                if isinstance(settings[p], np.number):
                    settings[p] = settings[p].item()  # NumPy's numbers would change the result's dtype
            run = in_place(computed) if settings.pop("inplace", False) else computed
            return run(settings.pop("input"), **settings)

        return cast(F, applied)

    return decorate


def _chain(slope: Any, reads_y: bool, gy: Tensor, y: Tensor | None = None, **held: Any) -> Tensor:
    """gx = gy dy/dx."""
    factor = slope(y=y, **held) if reads_y else slope(**held)
    if not isinstance(factor, Tensor):
        return gy * factor if factor else Tensor(np.zeros_like(gy.array))
    return where(factor, gy, 0) if factor.dtype == bool else gy * factor


activation = functools.partial(pointwise, kinds="f")
# fmt: off


@pointwise(np.sin, lambda x: cos(x))
def sin(input: Tensor) -> Tensor:
    """y = sin x;  gx = gy cos x."""


@pointwise(np.cos, lambda x: -sin(x))
def cos(input: Tensor) -> Tensor:
    """y = cos x;  gx = -gy sin x."""


@pointwise(np.tan, lambda y: 1 + y * y, low=-1.3, high=1.3)
def tan(input: Tensor) -> Tensor:
    """y = tan x;  gx = gy (1 + y^2)."""


@pointwise(np.arcsin, lambda x: rsqrt(1 - x * x), low=-0.9, high=0.9)
def asin(input: Tensor) -> Tensor:
    """y = arcsin x, from -pi/2 to pi/2;  gx = gy / sqrt(1 - x^2)."""


@pointwise(np.arccos, lambda x: -rsqrt(1 - x * x), low=-0.9, high=0.9)
def acos(input: Tensor) -> Tensor:
    """y = arccos x, from 0 to pi;  gx = -gy / sqrt(1 - x^2)."""


@pointwise(np.arctan, lambda x: 1 / (1 + x * x))
def atan(input: Tensor) -> Tensor:
    """y = arctan x, from -pi/2 to pi/2;  gx = gy / (1 + x^2)."""


@pointwise(np.sinh, lambda x: cosh(x))
def sinh(input: Tensor) -> Tensor:
    """y = sinh x = (e^x - e^-x) / 2;  gx = gy cosh x."""


@pointwise(np.cosh, lambda x: sinh(x))
def cosh(input: Tensor) -> Tensor:
    """y = cosh x = (e^x + e^-x) / 2;  gx = gy sinh x."""


@pointwise(np.expm1, lambda y: y + 1)
def expm1(input: Tensor) -> Tensor:
    """y = e^x - 1, exact also near 0;  gx = gy (y + 1)."""


@pointwise(np.log1p, lambda x: 1 / (1 + x), low=-0.9)
def log1p(input: Tensor) -> Tensor:
    """y = ln(1 + x), exact also near 0;  gx = gy / (1 + x)."""


@pointwise(np.log2, lambda x: 1 / (x * math.log(2)), low=0.1)
def log2(input: Tensor) -> Tensor:
    """y = ln x / ln 2;  gx = gy / (x ln 2)."""


@pointwise(np.log10, lambda x: 1 / (x * math.log(10)), low=0.1)
def log10(input: Tensor) -> Tensor:
    """y = ln x / ln 10;  gx = gy / (x ln 10)."""


@pointwise(lambda x: 1 / np.sqrt(x), lambda y: -0.5 * y * y * y, low=0.2)
def rsqrt(input: Tensor) -> Tensor:
    """y = x^(-1/2);  gx = -gy y^3 / 2."""


@pointwise(np.reciprocal, lambda y: -y * y)
def reciprocal(input: Tensor) -> Tensor:
    """y = 1 / x;  gx = -gy y^2."""


@pointwise(kernels.erf, lambda x: 2 / math.sqrt(math.pi) * exp(-x * x))
def erf(input: Tensor) -> Tensor:
    """y = 2 / sqrt(pi) (integral of e^(-t^2) over t from 0 to x);  gx = gy 2 / sqrt(pi) e^(-x^2)."""


@pointwise(lambda x: np.floor(x).astype(x.dtype, copy=False), lambda: 0, kinds="iuf", kinks=(-1, 0, 1))
def floor(input: Tensor) -> Tensor:
    """y = the greatest whole number <= x;  gx = 0."""


@pointwise(lambda x: np.ceil(x).astype(x.dtype, copy=False), lambda: 0, kinds="iuf", kinks=(-1, 0, 1))
def ceil(input: Tensor) -> Tensor:
    """y = the least whole number >= x;  gx = 0."""


@pointwise(lambda x: np.trunc(x).astype(x.dtype, copy=False), lambda: 0, kinds="iuf", kinks=(-1, 0, 1))
def trunc(input: Tensor) -> Tensor:
    """y = x without its fraction, rounded towards 0;  gx = 0."""


@pointwise(lambda x, decimals: np.round(x, decimals), lambda: 0, kinds="iuf", kinks=(-1.5, -0.5, 0.5, 1.5))
def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """y = the number nearest to x that has so many decimals, of two equally near the even one;  gx = 0."""


def floor_divide(input: Any, other: Any) -> Tensor:
    """y = floor(a / b), the operator //;  ga = gb = 0."""
    return div(input, other, rounding_mode="floor")


@operation(errstate=True)
def remainder(input: Any, other: Any) -> Tensor:
    """y = a - b floor(a / b), of the sign of b, the operator %;  ga = gy, gb = -gy floor(a / b)."""
    a, b = with_tensor("remainder", input, other)
    y = np.remainder(a.array, divisor("remainder", b.array))
    return record("remainder", y, (a, lambda gy: gy), (b, lambda gy: -gy * (a // b)))


@operation(errstate=True)
def fmod(input: Tensor, other: Any) -> Tensor:
    """y = a - b trunc(a / b), of the sign of a;  ga = gy, gb = -gy trunc(a / b)."""
    a, b = operands("fmod", input, other)
    y = np.fmod(a.array, divisor("fmod", b.array))
    return record("fmod", y, (a, lambda gy: gy), (b, lambda gy: -gy * div(a, b, rounding_mode="trunc")))


@activation(lambda x, beta, threshold: np.where(x * beta > threshold, x, np.log1p(np.exp(x * beta)) / beta),
            lambda x, beta, threshold: where(x * beta > threshold, 1, sigmoid(x * beta)))
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """y = ln(1 + e^(beta x)) / beta, x where beta x > threshold;  gx = gy / (1 + e^(-beta x)), or gy."""


@activation(lambda x: np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))), lambda x: sigmoid(-x))
def logsigmoid(input: Tensor) -> Tensor:
    """y = -ln(1 + e^-x);  gx = gy / (1 + e^x)."""


@activation(lambda x: x * kernels.sigmoid(x), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))))
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """y = x s, with s = 1 / (1 + e^-x);  gx = gy s (1 + x (1 - s))."""


@activation(lambda x, approximate: x * _normal_cdf(x, approximate))
def gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    """y = x P(z <= x) for z from the standard normal distribution; with approximate="tanh" by a formula with tanh."""


def _normal_cdf(x: Tensor, approximate: str) -> Tensor:
    """P(z <= x) = (1 + erf(x / sqrt(2))) / 2."""
    if approximate not in ("none", "tanh"):
        raise RuntimeError(f"gelu: approximate must be 'none' or 'tanh', not {approximate!r}")
    if approximate == "tanh":
        return (1 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))) / 2
    return (1 + erf(x * math.sqrt(0.5))) / 2


@activation(lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(x)), lambda x, y, alpha: where(x > 0, 1, y + alpha))
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """y = x where x > 0, else alpha (e^x - 1);  gx = gy where x > 0, else gy (y + alpha)."""


@activation(lambda x: 1.0507009873554805 * elu(x, 1.6732632423543772))
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """y = s elu(x, alpha), with the s and alpha for which mean 0 and variance 1 of x are those of y too."""


def _bounded(x: Array, min_val: float, max_val: float) -> Array:
    if min_val > max_val:
        raise ValueError(f"hardtanh: no number lies between {min_val} and {max_val}")
    return np.clip(x, *[number("hardtanh", bound, x.dtype).item() for bound in (min_val, max_val)])


@pointwise(_bounded, lambda x, min_val, max_val: (x > min_val) & (x < max_val), kinds="iuf", kinks=(-1, 1))
def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """y = min(max(x, min_val), max_val);  gx = gy between the bounds, else 0."""


@pointwise(lambda x: hardtanh(x, 0, 6), kinds="iuf", low=-3, high=8, kinks=(0, 6))
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """y = min(max(x, 0), 6);  gx = gy between the bounds, else 0."""


@operation()
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """y = x where x > 0, else w x, with one w for all, or for each channel (dimension 1)."""
    if weight.ndim > 1 or weight.numel() not in (1, *input.shape[1:2]):
        wanted = f"1 or {input.shape[1]}, as the channels are" if input.ndim > 1 else "1"
        raise RuntimeError(f"prelu: weight of shape {weight.shape} for {input.shape}: expected {wanted} in number")
    return where(input > 0, input, input * weight.reshape((-1,) + (1,) * (input.ndim - 2) if input.ndim > 1 else ()))
