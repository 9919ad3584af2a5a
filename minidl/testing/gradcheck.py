"""Gradient checking: compare the backward pass (vector-Jacobian products) with central finite differences.

Letters: x are the inputs and y = f(x) the outputs, each as one long vector; J[k, j] = dy_k / dx_j is the Jacobian,
with m rows and n columns. K of its rows, or random combinations of them, are compared.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from minidl.autograd import Node, enable_grad, grad, nodes_below
from minidl.nn.module import Module
from minidl.tensor import Array, Tensor
from minidl.testing._diagnosis import ROUNDING, Sweep, Tolerance

LARGEST_JACOBIAN = 4096  # elements; beyond this, PROJECTIONS random combinations of rows are compared
PROJECTIONS = 3


class GradcheckError(RuntimeError):
    """A gradient differs from its finite difference; the message says where, by how much, and the likely cause."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Compare the gradients of a function with central differences.

    Column j of the Jacobian is (f(x + eps e_j) - f(x - eps e_j)) / (2 eps), with an error of O(eps^2). Row k comes from
    the backward pass with a random multiple of e_k as its cotangent. Small Jacobians are compared element by element.
    Of those with more than 4,096 elements, three random combinations of the rows are compared; their plain sum would
    not do, as it is blind to errors in softmax, whose outputs sum to 1. The function is called twice for each element
    of the inputs.

    Parameters
    ----------
    func : callable
        Takes the inputs and returns a tensor, or nested tuples, lists and dicts of tensors. The float ones are checked.
    inputs : Tensor or sequence
        Those that require grad are checked, and should be float64: float32 has too few digits for differences, so it
        gives a warning and mostly fails. Tensors that the function gets from elsewhere, such as a model's parameters,
        are not checked (``minidl.testing.check_operation`` does that). The inputs are not changed.
    eps : float
        The step size.
    atol, rtol : float
        A gradient may differ by atol + rtol * |difference|. If all gradients in an input are below 1, atol is
        multiplied by the largest.
    raise_exception : bool
        Raise an error if they differ; otherwise return False.

    Returns
    -------
    bool

    Raises
    ------
    GradcheckError
        If a gradient differs. The message names the recorded operations, the worst element and both of its values,
        lists the difference quotient for steps from 0.1 to 1e-8, and says whether these indicate a wrong gradient, a
        kink or a tie, or an unsuitable step. Also if the function changes its inputs, returns different values when
        called again, or makes float32 of float64.
    ValueError
        If no input requires grad.

    Examples
    --------
    >>> import minidl
    >>> x = minidl.randn(3, dtype=minidl.float64, requires_grad=True)
    >>> gradcheck(lambda x: (x * x).sum(), x)
    True
    """
    __tracebackhide__ = True  # pytest shows the caller's line
    listed, own = _own_copies("gradcheck", inputs)
    function = _Function("gradcheck", func, own, functools.partial(func, *own), listed)
    return _checked(function, Tolerance(eps, atol, rtol), raise_exception)


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Compare second derivatives with central differences.

    This applies ``gradcheck`` to the function (x, gy) -> gx that the backward pass computes, in both x and gy.

    Parameters
    ----------
    func, inputs, eps, atol, rtol, raise_exception
        As for ``gradcheck``.
    grad_outputs : Tensor or sequence of Tensor, optional
        gy, one for each float output; random by default.

    Returns
    -------
    bool

    Raises
    ------
    GradcheckError, ValueError
        As for ``gradcheck``.

    Examples
    --------
    >>> import minidl
    >>> x = minidl.randn(3, dtype=minidl.float64, requires_grad=True)
    >>> gradgradcheck(lambda x: x**3, x)
    True
    """
    __tracebackhide__ = True
    listed, own = _own_copies("gradgradcheck", inputs)
    cotangents = _cotangents(func, own, grad_outputs)

    def gradient(*args: Any) -> list[Tensor]:
        x = [a for a in args[: len(own)] if isinstance(a, Tensor) and a.requires_grad]
        return _gradients(_real_outputs("gradgradcheck", func(*args[: len(own)])), x, args[len(own) :], True)

    function = _Function("gradgradcheck", gradient, [*own, *cotangents], functools.partial(func, *own), listed)
    return _checked(function, Tolerance(eps, atol, rtol), raise_exception)


def _cotangents(func: Callable[..., Any], inputs: list[Any], given: Tensor | Sequence[Tensor] | None) -> list[Tensor]:
    outputs = _real_outputs("gradgradcheck", func(*inputs))
    if given is None:
        rng = np.random.default_rng(0)
        return [Tensor(np.asarray(rng.standard_normal(y.shape), y.dtype), requires_grad=True) for y in outputs]
    listed = [given] if isinstance(given, Tensor) else list(given)
    found, wanted = [gy.shape for gy in listed], [y.shape for y in outputs]
    if found != wanted:
        raise ValueError(f"gradgradcheck: grad_outputs must have the outputs' shapes {wanted}, not {found}")
    return [Tensor(np.array(gy.array, y.dtype), requires_grad=True) for gy, y in zip(listed, outputs, strict=True)]


def _own_copies(name: str, inputs: Tensor | Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The inputs, and copies: the caller's tensors may share memory with each other, and must not change."""
    listed = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if not any(isinstance(x, Tensor) and x.requires_grad for x in listed):
        raise ValueError(f"{name}: no input requires grad: make one with requires_grad=True")
    for i, x in enumerate(listed):
        if isinstance(x, Tensor) and x.is_cuda:
            raise ValueError(f"{name}: input {i} is on {x.device}: differences are taken on the CPU, pass x.cpu()")
        if isinstance(x, Tensor) and x.requires_grad and x.dtype != np.float64:
            why = "it keeps too few digits for differences over a small step, and the check will probably fail"
            warnings.warn(f"{name}: input {i} is {x.dtype}: {why}; convert it with .double()", stacklevel=3)
    return listed, [Tensor(x.array.copy(order="K"), x.requires_grad) if isinstance(x, Tensor) else x for x in listed]


def _checked(function: _Function, tolerance: Tolerance, raise_exception: bool) -> bool:
    __tracebackhide__ = True
    if not (tolerance.eps > 0 and tolerance.atol >= 0 and tolerance.rtol >= 0):
        found = "{}, {} and {}".format(*tolerance)
        raise ValueError(f"{function.name}: eps must be above 0, atol and rtol at least 0, not {found}")
    try:
        with enable_grad():
            _compare(function, tolerance)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


class _Rows(NamedTuple):
    """The combinations of a Jacobian's m rows that are compared.

    The rows of `cotangents` (K, m) are passed to the backward pass. If each selects a single row of the Jacobian, it is
    scaled by a random factor, in `factors` (K, 1): with factors of 1, a gradient that ignores, squares or clamps gy, or
    loses its sign, would pass.
    """

    cotangents: Array
    factors: Array
    single: bool

    @classmethod
    def for_sizes(cls, m: int, n: int) -> _Rows:
        rng = np.random.default_rng(0)
        if m * n > LARGEST_JACOBIAN:
            return cls(rng.standard_normal((PROJECTIONS, m)), np.ones((PROJECTIONS, 1)), False)
        factors = -rng.uniform(3, 9, m)
        return cls(np.diag(factors), factors[:, None], True)

    def of(self, column: Array) -> Array:
        """(m,) -> (K,); single rows are selected without a product, in which NaNs of other rows would spread."""
        return column if self.single else self.cotangents @ column


class _Function(NamedTuple):
    """A function of tensors, viewed as a map from its checked inputs to one long vector y.

    `func` is the user's function or its gradient; `original` calls the user's. `inputs` are copies of those `given`.
    """

    name: str
    func: Callable[..., Any]
    inputs: list[Any]
    original: Callable[[], Any]
    given: list[Any]

    def title(self) -> str:
        """The operations that the user's function recorded."""
        names = " -> ".join(_operations(_real_outputs(self.name, self.original()))) or "nothing recorded"
        return f"{self.name}: " + ("the gradient of " if self.name == "gradgradcheck" else "") + names

    def checked(self) -> list[int]:
        return [i for i, x in enumerate(self.inputs) if isinstance(x, Tensor) and x.requires_grad]

    def outputs(self) -> list[Tensor]:
        return _real_outputs(self.name, self.func(*self.inputs))

    def values(self) -> Array:
        return np.concatenate([y.array.reshape(-1) for y in self.outputs()])  # (m,)

    def moved(self, i: int, j: int, step: float) -> Array:
        """The values with element j of input i increased by `step`."""
        x = self.inputs[i].array
        index = np.unravel_index(j, x.shape)
        before = x[index]
        x[index] = before + step
        try:
            return self.values()
        finally:
            x[index] = before

    def differences(self, rows: _Rows, i: int, eps: float) -> Array:
        """The Jacobian's columns for input i by central differences, in K combinations of its m rows: (K, n)."""
        n = self.inputs[i].numel()
        columns = [rows.of(self.moved(i, j, eps) - self.moved(i, j, -eps)) for j in range(n)]
        return np.reshape(columns, (n, len(rows.factors))).T / (2 * eps)

    def backward(self, rows: _Rows) -> list[Array]:
        """The same combinations for each checked input, from K backward passes."""
        outputs, x = self.outputs(), [self.inputs[i] for i in self.checked()]
        ends = np.cumsum([y.numel() for y in outputs])[:-1]
        found = []
        for row in rows.cotangents:
            parts = zip(np.split(row, ends), outputs, strict=True)
            cotangents = [Tensor(part.reshape(y.shape).astype(y.dtype)) for part, y in parts]
            found.append([g.array.reshape(-1) for g in _gradients(outputs, x, cotangents, False)])
        shapes = [(len(rows.factors), v.numel()) for v in x]
        return [np.reshape([g[i] for g in found], shape) / rows.factors for i, shape in enumerate(shapes)]


def _real_outputs(name: str, outputs: Any) -> list[Tensor]:
    """The float tensors among the outputs, which may be nested in tuples, lists and dicts."""
    real = [y for y in tensors_in(outputs) if y.is_floating_point()]
    if not real:
        found = ", ".join(str(y.dtype) for y in tensors_in(outputs)) or type(outputs).__name__
        hint = ": is its return missing?" if outputs is None else ""
        raise ValueError(f"{name}: the function returned no float tensor, but {found}{hint}")
    return real


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dicts, and the parameters of modules there."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Module):
        yield from value.parameters()
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(part)


def _gradients(outputs: Sequence[Tensor], x: list[Tensor], cotangents: Sequence[Tensor], create: bool) -> list[Tensor]:
    """The gradient with respect to each x, 0 if the outputs do not depend on it."""
    recorded = [(y, c) for y, c in zip(outputs, cotangents, strict=True) if y.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(x)
    if recorded:
        roots, seeds = zip(*recorded, strict=True)
        found = grad(roots, x, seeds, retain_graph=True, create_graph=create, allow_unused=True)
    return [Tensor(np.zeros(v.shape, v.dtype)) if g is None else g for v, g in zip(x, found, strict=True)]


def _compare(f: _Function, tolerance: Tolerance) -> None:
    __tracebackhide__ = True
    before = [(i, x.array.copy()) for i, x in enumerate(f.inputs) if isinstance(x, Tensor)]
    outputs = _real_outputs(f.name, f.original())
    _reject_outside(f, outputs)
    _reject_narrowed(f, outputs)
    y = f.values()
    _reject_impure(f, before, y)
    rows = _Rows.for_sizes(y.size, sum(f.inputs[i].numel() for i in f.checked()))
    for i, analytic in zip(f.checked(), f.backward(rows), strict=True):
        with np.errstate(invalid="ignore"):
            numeric = f.differences(rows, i, tolerance.eps)  # (K, n), as is analytic
            allowed = _allowed(tolerance, numeric, y)
            wrong = ~(np.abs(analytic - numeric) <= allowed.bound(numeric))  # NaN is wrong
        if wrong.any():
            raise GradcheckError(_message(f, i, rows, analytic, numeric, wrong, allowed))


def _allowed(tolerance: Tolerance, numeric: Array, y: Array) -> Tolerance:
    """If all gradients are small, a smaller atol, but no smaller than the rounding error of the differences."""
    largest = np.abs(numeric[np.isfinite(numeric)]).max(initial=0)
    rounding = ROUNDING * max(1.0, np.abs(y[np.isfinite(y)]).max(initial=0)) / tolerance.eps
    return tolerance._replace(atol=min(tolerance.atol, max(tolerance.atol * largest, rounding)))


def _reject_outside(f: _Function, outputs: Sequence[Tensor]) -> None:
    """Reject a function that uses the caller's tensor instead of its argument: both gradients would be 0."""
    sources = [source for node in _nodes(outputs) for source, _ in node.edges or ()]
    for i, x in enumerate(f.given):
        if isinstance(x, Tensor) and any(source is x for source in [*sources, *outputs]):
            raise ValueError(
                f"{f.name}: the function uses the tensor of input {i} from outside, not its argument, which is a copy; "
                "pass all that it needs as arguments. For a model use minidl.testing.check_operation"
            )


def _reject_narrowed(f: _Function, outputs: Sequence[Tensor]) -> None:
    """Reject a function that loses digits of its float64 inputs, in which no difference can be taken."""
    dtypes = {x.dtype for x in f.given if isinstance(x, Tensor) and x.requires_grad}
    for k, y in enumerate(outputs):
        if y.dtype != np.float64 and dtypes == {np.dtype(np.float64)}:
            what = f"output {k} is {y.dtype}, though all checked inputs are float64"
            raise GradcheckError(f"{f.name}: {what}: let it keep the dtype")


def _reject_impure(f: _Function, before: list[tuple[int, Array]], y: Array) -> None:
    again = f.values()
    for i, old in before:
        if not np.array_equal(old, f.inputs[i].array, equal_nan=old.dtype.kind == "f"):
            raise GradcheckError(f"{f.name}: the function changed its input {i} in place")
    if y.shape != again.shape or not np.array_equal(y, again, equal_nan=True):
        raise GradcheckError(
            f"{f.name}: called twice with the same inputs, the function returned different values; if it draws random "
            "numbers (dropout), seed the generator inside it"
        )


@np.errstate(all="ignore")
def _message(
    f: _Function, i: int, rows: _Rows, analytic: Array, numeric: Array, wrong: Array, tolerance: Tolerance
) -> str:
    """Describe what is wrong with the gradient in input i, and the likely cause."""
    x, outputs = f.inputs[i], f.outputs()

    def sweep_at(k: int, j: int) -> Sweep:
        size = float(np.abs(rows.cotangents[k] / rows.factors[k]) @ np.abs(f.values()))
        values = float(analytic[k, j]), float(numeric[k, j])
        return Sweep(lambda step: float(rows.of(f.moved(i, j, step))[k]), size, *values, tolerance)

    positions = _worst(analytic, numeric, wrong)
    # A kink at one element must not hide an error at another.
    k, j = next((position for position in positions if sweep_at(*position).excuse() is None), positions[0])
    y = _element(outputs, k) if rows.single else f"(random combination {k} of the outputs)"
    what = "of the Jacobian" if rows.single else "of random combinations of the Jacobian's rows"
    index = np.unravel_index(j, x.shape)
    lines = [
        f"{f.title()}: {wrong.sum()} of {wrong.size} elements {what} in input {i} of shape {x.shape} are wrong",
        f"  worst: d {y} / d input {i}{_brackets(index)}, where that element is {x.array[index]:.6g}",
        f"  {analytic[k, j]:.8g} from backward, {numeric[k, j]:.8g} from differences with eps={tolerance.eps}",
    ]
    return "\n".join(lines + sweep_at(k, j).lines(analytic[wrong], numeric[wrong]))


def _worst(analytic: Array, numeric: Array, wrong: Array, most: int = 8) -> list[tuple[int, int]]:
    """The positions of the largest errors, in descending order."""
    error = np.nan_to_num(np.abs(analytic - numeric), nan=np.inf, posinf=np.inf)
    order = np.argsort(np.where(wrong, -error, np.inf), axis=None, kind="stable")[: min(most, wrong.sum())]
    return [(int(k), int(j)) for k, j in zip(*np.unravel_index(order, error.shape), strict=True)]


def _brackets(index: Sequence[Any]) -> str:
    return str([int(a) for a in index]) if len(index) else ""


def _element(outputs: Sequence[Tensor], k: int) -> str:
    """The output and index of element k of the long vector y."""
    for number, y in enumerate(outputs):
        if k < y.numel():
            return f"output {number}{_brackets(np.unravel_index(k, y.shape))}"
        k -= y.numel()
    raise IndexError(k)


def _operations(outputs: Sequence[Tensor], most: int = 8) -> list[str]:
    """The names of the recorded operations in order; the last ones if there are many."""
    names = [node.name for node in _nodes(outputs)]
    return names if len(names) <= most else ["...", *names[-most:]]


def _nodes(outputs: Sequence[Tensor]) -> list[Node]:
    return nodes_below(y.grad_fn or y for y in outputs)
