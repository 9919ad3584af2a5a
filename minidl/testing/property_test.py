"""A decorator that turns an operation into a whole property test, and the check that it runs on each example."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import cuda, kernels
from minidl.kernels import devices
from minidl.tensor import Tensor
from minidl.testing.gradcheck import gradcheck, gradgradcheck, tensors_in

AGREEMENT: dict[np.dtype, float] = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-5}  # see _check_agreement
SIMILAR = 1e-3  # of float32 and float64, likewise


def property_test_gradient(
    *strategies: st.SearchStrategy[Any], second: bool = True, **named: st.SearchStrategy[Any]
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Turn a function that applies an operation into a property test of it, which pytest runs.

    Parameters
    ----------
    *strategies, **named
        Strategies for the function's arguments, passed as to ``hypothesis.given``: positionally from the right, or by
        name. The arguments to the left are pytest's. Each argument is a tensor, a model, a tuple, list or dict that
        contains these, or a setting.
    second : bool
        Whether to check second derivatives too.

    Returns
    -------
    decorator
        For a function that returns a tensor, or a tuple whose float tensors are checked. The test runs
        ``check_operation`` on each example.

    Notes
    -----
    Hypothesis settings go on top: ``@settings(max_examples=20, deadline=None)``. Set the deadline, since the first
    example may have to wait for kernels to compile.

    Examples
    --------
    >>> from minidl.testing import shapes, tensors
    >>> @property_test_gradient(tensors(shapes(), low=0.1))
    ... def test_log(x):
    ...     return x.log()
    >>> test_log()
    """

    def decorate(operation: Callable[..., Any]) -> Callable[..., None]:
        drawn = _by_name(operation, strategies, named)

        @functools.wraps(operation)
        def test(**arguments: Any) -> None:
            __tracebackhide__ = True  # pytest shows the operation, not this
            check_operation(operation, arguments, second=second)

        return _without_deadline(given(**drawn)(test))

    return decorate


def _by_name(operation: Any, strategies: Sequence[Any], named: dict[str, Any]) -> dict[str, st.SearchStrategy[Any]]:
    """The strategies by parameter name."""
    name, parameters = getattr(operation, "__name__", repr(operation)), list(inspect.signature(operation).parameters)
    count = len(strategies) + len(named)
    if not count or len(strategies) > len(parameters) or not named.keys() <= set(parameters):
        given_for = f"{count} strategies{''.join(f', for {n}' for n in named)}"
        raise TypeError(f"property_test_gradient: {given_for}; the parameters of {name} are {parameters}")
    found = {**dict(zip(parameters[len(parameters) - len(strategies) :], strategies, strict=True)), **named}
    for parameter, strategy in found.items():
        if not isinstance(strategy, st.SearchStrategy):
            raise TypeError(f"property_test_gradient: {parameter} of {name} needs a strategy, not {strategy!r}")
    return found


def _without_deadline(test: Any) -> Any:
    """Disable the deadline, as the first example may wait for kernels to compile; the user's own takes precedence."""
    used = "_hypothesis_internal_use_settings"  # @settings would forbid another @settings on top
    if hasattr(test, used):
        setattr(test, used, settings(getattr(test, used), deadline=None))
    return test


def check_operation(operation: Callable[..., Any], arguments: dict[str, Any], *, second: bool = True) -> None:
    """Check everything that a differentiable operation guarantees, at one point.

    1. Its first and second derivatives agree with finite differences (``gradcheck``, ``gradgradcheck``).
    2. Float32 inputs give float32 outputs and gradients, float64 inputs float64.
    3. No input is changed, whether it requires grad or not.
    4. The gradients that ``backward`` leaves share no memory with each other, an input, an output, or the gradient
       that was passed in.
    5. Outputs and gradients in float32 are close to those in float64, and independent of the inputs' memory order.
    6. They agree with the kernels' definitions in ``minidl/kernels/reference.py``, on the CPU and, if there is one, on
       a GPU. (For an operation of your own that calls NumPy only, this checks nothing.)

    Parameters
    ----------
    operation : callable
    arguments : dict
        Its arguments by name; see ``property_test_gradient``. The float64 tensors that require grad are checked.
    second : bool
        Whether to check second derivatives too.

    Raises
    ------
    GradcheckError, AssertionError
        Names the operation, the violated property and the values.
    """
    __tracebackhide__ = True
    call = _Call(operation, arguments)
    gradcheck(call, call.inputs())
    if second:
        gradgradcheck(call, call.inputs())
    exact = None
    for dtype in AGREEMENT:  # float64 first
        with kernels.use_reference_kernels():
            defined = call.to(dtype, devices.CPU).run()
        exact = exact or defined
        _check_agreement(call, defined, exact, SIMILAR, "that in float64")
        turned = call.to(dtype, devices.CPU, order="F").run()
        _check_agreement(call, turned, defined, AGREEMENT[dtype], "that of inputs in another memory order")
        for device in _devices():
            run = call.to(dtype, device).run()
            _check_dtypes(call, run, dtype)
            _check_memory(call, run)
            _check_agreement(call, run, defined, AGREEMENT[dtype], "that of minidl/kernels/reference.py")


class _Run(NamedTuple):
    """One forward and backward pass."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    cotangents: list[Tensor]

    def results(self) -> list[tuple[str, Tensor | None]]:
        gradients = [(f"gradient {i}", x.grad) for i, x in enumerate(self.inputs)]
        return [(f"output {i}", y) for i, y in enumerate(self.outputs)] + gradients


class _Call:
    """An operation with its arguments, as a function of the tensors among them that require grad."""

    def __init__(self, operation: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self.operation, self.arguments = operation, arguments
        self.name: str = getattr(operation, "__name__", repr(operation))

    def tensors(self) -> list[Tensor]:
        return list(dict.fromkeys(tensors_in(self.arguments)))

    def inputs(self) -> list[Tensor]:
        return [x for x in self.tensors() if x.requires_grad]

    def __call__(self, *inputs: Tensor) -> Any:
        given = iter(inputs)
        return self.operation(**self._replaced(lambda x: next(given) if x.requires_grad else x))

    def to(self, dtype: np.dtype, device: devices.Device, order: Any = "K") -> _Call:
        """The same call with copies of all tensors; float tensors are converted to this dtype."""
        return _Call(self.operation, self._replaced(lambda x: _copy(x, dtype, device, order)))

    def _replaced(self, new: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """The same nested containers and modules with each tensor replaced."""
        return copy.deepcopy(self.arguments, {id(x): new(x) for x in self.tensors()})

    def run(self) -> _Run:
        """Run forward and backward; raises if the operation changes an argument."""
        inputs, held = self.inputs(), self.tensors()
        before = [x.array.copy() for x in held]
        outputs = [y for y in tensors_in(self(*inputs)) if y.requires_grad]
        rng = np.random.default_rng(0)
        drawn = [rng.standard_normal(y.shape).astype(y.dtype) for y in outputs]
        cotangents = [Tensor(devices.beside(gy, y.array)) for y, gy in zip(outputs, drawn, strict=True)]
        for y, gy in zip(outputs, cotangents, strict=True):
            y.backward(gy, retain_graph=True)
        for number, (x, old) in enumerate(zip(held, before, strict=True)):
            a, b = (devices.moved(array, devices.CPU) for array in (x.array, old))
            same = a.dtype == b.dtype and np.array_equal(a, b, equal_nan=b.dtype.kind == "f")
            assert same, f"{self.name}: tensor {number} among the inputs, of shape {x.shape}, was changed"
        return _Run(inputs, outputs, cotangents)


@functools.cache
def _devices() -> list[devices.Device]:
    return [devices.CPU, *([devices.gpu(None)] if cuda.is_available() else [])]


def _copy(x: Tensor, dtype: np.dtype, device: devices.Device, order: Any) -> Tensor:
    array = x.array.astype(dtype, order) if x.is_floating_point() else x.array.copy(order)
    return Tensor(devices.moved(array, device), requires_grad=x.requires_grad)


def _check_dtypes(call: _Call, run: _Run, dtype: np.dtype) -> None:
    for what, x in run.results():
        assert x is None or x.dtype == dtype, f"{call.name}: {what} is {x.dtype}, of inputs in {dtype}"


def _check_memory(call: _Call, run: _Run) -> None:
    gradients = [(what, g) for what, g in run.results()[len(run.outputs) :] if g is not None]
    others = [("an input", x) for x in run.inputs] + [("an output", y) for y in run.outputs]
    others += [("the gradient passed in", gy) for gy in run.cotangents]
    pairs = itertools.chain(itertools.combinations(gradients, 2), itertools.product(gradients, others))
    for (name, a), (other, b) in pairs:
        assert not np.may_share_memory(a.array, b.array), f"{call.name}: {name} shares memory with {other}"


def _check_agreement(call: _Call, run: _Run, defined: _Run, tolerance: float, other: str) -> None:
    """Compare up to rounding, which scales with the largest value involved."""
    size = max((_largest(x) for x in defined.inputs), default=0.0)
    for (what, a), (_, b) in zip(run.results(), defined.results(), strict=True):
        assert (a is None) == (b is None), f"{call.name}: {what} is missing from one of the backends"
        if a is not None and b is not None:
            message, atol = f"{call.name}: {what} differs from {other}", tolerance * max(size, _largest(b))
            np.testing.assert_allclose(a.cpu().array, b.array, tolerance, atol, err_msg=message)


def _largest(x: Tensor) -> float:
    return float(np.abs(x.array[np.isfinite(x.array)]).max(initial=0))
