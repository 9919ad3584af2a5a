"""Property tests of operations, for minidl's own tests and for yours: strategies for Hypothesis, and a decorator.

    from minidl.testing import property_test_gradient, shapes, tensors

    @property_test_gradient(tensors(shapes()))
    def test_cube(x):
        return cube(x)

is a whole test: on drawn shapes and values it compares cube's first and second gradients with differences, and checks
that the dtype is kept, that inputs stay as they are, that gradients own their memory, and that the compiled kernels
agree with their definitions. Needs Hypothesis (``pip install hypothesis``), which nothing else in minidl imports.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidl import cuda, kernels, nn
from minidl.checks import gradcheck, gradgradcheck, tensors_in
from minidl.kernels import devices, reference
from minidl.kernels.geometry import ConvGeometry, Pair
from minidl.kernels.pool_geometry import PoolGeometry
from minidl.random import default_generator
from minidl.tensor import Array, Tensor

__all__ = [
    "broadcastable_shapes",
    "check_operation",
    "conv_geometries",
    "models",
    "pool_geometries",
    "property_test_gradient",
    "shapes",
    "tensors",
]

Shape = tuple[int, ...]
SEEDS = st.integers(0, 2**32 - 1)
AGREEMENT: dict[np.dtype, float] = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-5}  # see _check_agreement

SIMILAR = 1e-3  # of float32 and float64, likewise


# --- Shapes and values --------------------------------------------------------------------------------------


def shapes(*, min_dims: int = 0, max_dims: int = 3, min_side: int = 1, max_side: int = 4) -> st.SearchStrategy[Shape]:
    """Shapes of tensors: tuples of ints; with ``min_side=0`` also of empty ones."""
    return hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side)


def broadcastable_shapes(
    number: int = 2, *, min_dims: int = 0, max_dims: int = 3, min_side: int = 1, max_side: int = 3
) -> st.SearchStrategy[tuple[Shape, ...]]:
    """So many shapes that broadcast against one another."""
    drawn = hnp.mutually_broadcastable_shapes(
        num_shapes=number, min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side
    )
    return drawn.map(lambda shapes: shapes.input_shapes)


@st.composite
def tensors(
    draw: st.DrawFn,
    shape: Shape | st.SearchStrategy[Shape] = shapes(),  # noqa: B008 (a strategy has no state)
    dtype: Any = np.float64,
    *,
    low: float = -2.0,
    high: float = 2.0,
    kinks: Sequence[float] = (0.0,),
    requires_grad: bool = True,
) -> Tensor:
    """Tensors whose values suit difference quotients: no two are equal, and none lies at or near a kink.

    A difference quotient is no gradient where a step leads from one branch of a function to another: where ReLU's
    input changes its sign, or another element becomes the maximum. Values lie at least a 40th of high - low away from
    each kink, and of n values two are at least half of an n-th of the range apart, a little less with kinks.

    Parameters
    ----------
    shape : shape, or strategy that draws one
    dtype : dtype
        Of an integer dtype, values are any from `low` to `high`; of bool, any.
    low, high : float
        The range of values.
    kinks : sequence of float
        What values keep away from: 0, the bounds of a clamp.
    requires_grad : bool
        Of floating tensors; others never do.

    Examples
    --------
    >>> tensors((2, 3), low=0.1)  # for log and sqrt
    tensors(shape=(2, 3), low=0.1)
    """
    size = tuple(shape) if isinstance(shape, tuple | list) else draw(shape)
    rng, kind = np.random.default_rng(draw(SEEDS)), np.dtype(dtype)
    if kind.kind == "b":
        return Tensor(rng.random(size) < 0.5)
    if kind.kind != "f":
        return Tensor(rng.integers(int(low), int(high), size, kind, endpoint=True))
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"tensors: low must be less than high, and both finite, not {low} and {high}")
    values = _apart(rng, math.prod(size), low, high, kinks).astype(kind)
    if len(np.unique(values)) < values.size:
        raise ValueError(f"tensors: {kind} cannot hold {values.size} different values from {low} to {high}")
    return Tensor(values.reshape(size), requires_grad)


def _apart(rng: np.random.Generator, count: int, low: float, high: float, kinks: Sequence[float]) -> Array:
    """So many values, one in the middle half of each cell of a grid over the range without the kinks, shuffled."""
    ends = np.array([low, *sorted(k for k in kinks if low < k < high), high])
    margin = (high - low) / 40
    room = np.diff(ends) > 2 * margin
    if not room.any():
        raise ValueError(f"tensors: the kinks {list(kinks)} leave no room from {low} to {high}")
    starts, lengths = (ends[:-1] + margin)[room], (np.diff(ends) - 2 * margin)[room]
    passed = np.cumsum(lengths) - lengths  # the length of all gaps before this one
    along = (rng.permutation(count) + rng.uniform(0.25, 0.75, count)) * lengths.sum() / max(count, 1)
    gap = np.searchsorted(passed, along, side="right") - 1
    return starts[gap] + along - passed[gap]


# --- Geometries and models ----------------------------------------------------------------------------------


@st.composite
def conv_geometries(
    draw: st.DrawFn, *, max_batch: int = 3, max_channels: int = 5, max_kernel: int = 4, max_extra: int = 6
) -> ConvGeometry:
    """Valid sizes of a convolution whose two axes differ; the batch may be empty.

    Both convolutions fit them, with ``g.stride``, ``g.padding``, ``g.dilation`` and, for the transposed one,
    ``g.output_padding``: ``conv2d`` leads from ``g.image_shape`` to ``g.map_shape``, ``conv_transpose2d`` back, either
    with a weight of ``g.weight_shape``. `max_extra` is how much larger than its smallest an image may be.
    """
    n, c, o = draw(st.integers(0, max_batch)), draw(st.integers(1, max_channels)), draw(st.integers(1, max_channels))
    kernel, stride = draw(_pairs(1, max_kernel)), draw(_pairs(1, 3))
    padding, dilation = draw(_pairs(0, 3)), draw(_pairs(1, 3))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    least = [max(1, r - 2 * p) for r, p in zip(reach, padding, strict=True)]
    size = [m + extra for m, extra in zip(least, draw(_pairs(0, max_extra)), strict=True)]
    return ConvGeometry.of_conv2d((n, c, *size), (o, c, *kernel), stride, padding, dilation)


@st.composite
def pool_geometries(
    draw: st.DrawFn, *, max_batch: int = 3, max_channels: int = 4, max_kernel: int = 4, dilated: bool = True
) -> PoolGeometry:
    """Valid sizes of a pooling whose two axes differ; the batch may be empty.

    ``max_pool2d`` fits them with ``g.kernel``, ``g.stride``, ``g.padding``, ``g.dilation`` and ``g.ceil_mode``, and
    without dilation ``avg_pool2d``. Of its images, ``tensors(g.image_shape)`` has no ties.
    """
    kernel, stride = draw(_pairs(1, max_kernel)), draw(_pairs(1, max_kernel))
    dilation = draw(_pairs(1, 3)) if dilated else (1, 1)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    # An image as large as the gaps between taps: a dilated window could straddle a smaller one.
    least = [max(d, d * (k - 1) + 1) for k, d in zip(kernel, dilation, strict=True)]
    size = [m + extra for m, extra in zip(least, draw(_pairs(0, 4)), strict=True)]
    shape = (draw(st.integers(0, max_batch)), draw(st.integers(1, max_channels)), *size)
    return PoolGeometry.of_max_pool2d(shape, kernel, stride, padding, dilation, draw(st.booleans()))


def _pairs(least: int, most: int) -> st.SearchStrategy[Pair]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


@st.composite
def models(draw: st.DrawFn, *, max_layers: int = 8, dtype: Any = np.float64) -> tuple[nn.Sequential, Tensor]:
    """A model of drawn layers that fit each other, with at least one parameter, and an input for it.

    Layers are convolutions and transposed convolutions, poolings, upsampling, linear, flattening and activations.
    """
    x = draw(tensors((draw(st.integers(1, 3)), *draw(_image_sizes())), dtype, requires_grad=False))
    model, shape = nn.Sequential(), x.shape
    with _generator_as_it_was():
        for number in range(draw(st.integers(1, max_layers))):
            model.append(draw(_layers(shape, trained=number == 0)).to(np.dtype(dtype)))
            shape = model[-1](Tensor(np.zeros(shape, dtype))).shape
    rng = np.random.default_rng(draw(SEEDS))
    for p in model.parameters():
        p.data.copy_(Tensor(rng.uniform(-1, 1, p.shape).astype(dtype) / math.sqrt(math.prod(p.shape[1:]))))
    return model, x


@contextlib.contextmanager
def _generator_as_it_was() -> Iterator[None]:
    """Layers draw their first values from minidl's generator, which is the user's."""
    state = default_generator.get_state()
    try:
        yield
    finally:
        default_generator.set_state(state)


def _image_sizes() -> st.SearchStrategy[tuple[int, int, int]]:
    return st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))


def _layers(shape: Shape, trained: bool) -> st.SearchStrategy[nn.Module]:
    """Layers that take a batch of this shape; with `trained` only those that have parameters."""
    activations = st.sampled_from([nn.ReLU, nn.Sigmoid, nn.Tanh]).map(lambda layer: layer())
    if len(shape) == 2:
        linear = st.builds(nn.Linear, st.just(shape[1]), st.integers(1, 6), st.booleans())
        unflatten = st.just(nn.Unflatten(1, (1, shape[1], 1)))
        return linear if trained else linear | activations | unflatten
    with_parameters = _convolutions(shape)
    if trained:
        return with_parameters
    others = [activations, st.just(nn.Flatten()), _poolings(shape)]
    return st.one_of(with_parameters, *others, *([_UPSAMPLINGS] if max(shape[2:]) <= 6 else []))


@st.composite
def _convolutions(draw: st.DrawFn, shape: Shape) -> nn.Module:
    channels, out = shape[1], draw(st.integers(1, 4))
    kernel, stride = draw(_fitting(shape)), draw(st.integers(1, 2))
    padding, bias = min(draw(st.integers(0, 1)), (min(kernel) - 1) // 2), draw(st.booleans())
    if draw(st.booleans()) or max(shape[2:]) > 8:
        return nn.Conv2d(channels, out, kernel, stride, padding, bias=bias)
    extra = draw(st.integers(0, stride - 1))
    return nn.ConvTranspose2d(channels, out, kernel, stride, padding, extra, bias=bias)


def _fitting(shape: Shape) -> st.SearchStrategy[Pair]:
    """Windows that fit in an image."""
    return st.tuples(st.integers(1, min(3, shape[2])), st.integers(1, min(3, shape[3])))


@st.composite
def _poolings(draw: st.DrawFn, shape: Shape) -> nn.Module:
    layer: Callable[..., nn.Module] = draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))
    window = draw(_fitting(shape))
    stride, padding = draw(st.none() | _pairs(1, 2)), draw(st.integers(0, min(window) // 2))
    return layer(window, stride, padding, ceil_mode=draw(st.booleans()))


_UPSAMPLINGS = st.sampled_from(["nearest", "bilinear"]).map(lambda mode: nn.Upsample(scale_factor=2, mode=mode))


# --- One decorator, a whole test ----------------------------------------------------------------------------


def property_test_gradient(
    *strategies: st.SearchStrategy[Any], second: bool = True, **named: st.SearchStrategy[Any]
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Turn a function that applies an operation into a property test of it, which pytest runs.

    Parameters
    ----------
    *strategies, **named
        What is drawn for the function's arguments, given as to ``hypothesis.given``: by place from the right, or by
        name. Arguments to the left are pytest's. Each is a tensor, a model, a tuple, list or dict with such
        in it, or a setting.
    second : bool
        Whether second gradients are checked too.

    Notes
    -----
    Settings of Hypothesis go above: ``@settings(max_examples=20, deadline=None)``, with the deadline, since the first
    example may wait for kernels to be compiled.

    Returns
    -------
    decorator
        Of a function that returns a tensor, or a tuple in which the floating tensors count. The test does what
        ``check_operation`` does for each drawn case.

    Examples
    --------
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
    """Each strategy with the parameter that it is for."""
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
    """The first example may wait for kernels to be compiled; a deadline of the user's own settings counts."""
    used = "_hypothesis_internal_use_settings"  # @settings would forbid another @settings on top
    if hasattr(test, used):
        setattr(test, used, settings(getattr(test, used), deadline=None))
    return test


def check_operation(operation: Callable[..., Any], arguments: dict[str, Any], *, second: bool = True) -> None:
    """Check all that a differentiable operation owes its users, at one point.

    1. Its gradient, and that gradient's gradient, agree with differences (``gradcheck``, ``gradgradcheck``).
    2. Float32 inputs give float32 outputs and gradients, float64 inputs float64.
    3. No input is changed, whether it requires grad or not.
    4. The gradients that ``backward`` leaves share no memory with each other, an input, an output or the gradient
       that was passed in.
    5. Outputs and gradients in float32 are near those in float64, and do not depend on the inputs' memory order.
    6. They are those of the kernels' definitions in ``minidl/kernels/reference.py``, on the CPU and, where there is
       one, on a GPU: of an operation in NumPy of your own this says nothing.

    Parameters
    ----------
    operation : callable
    arguments : dict
        Its arguments by name; see ``property_test_gradient``. The float64 tensors that require grad are checked.
    second : bool
        Whether second gradients are checked.

    Raises
    ------
    GradcheckError, AssertionError
        With the operation, the property and the values that break it.
    """
    __tracebackhide__ = True
    call = _Call(operation, arguments)
    gradcheck(call, call.inputs())
    if second:
        gradgradcheck(call, call.inputs())
    exact = None
    for dtype in AGREEMENT:  # float64 first
        with _defined_kernels():
            defined = call.to(dtype, devices.CPU).run()
        exact = exact or defined
        _check_agreement(call, defined, exact, SIMILAR, "that in float64")
        turned = call.to(dtype, devices.CPU, order="F").run()
        _check_agreement(call, turned, defined, AGREEMENT[dtype], "that of inputs in another memory order")
        for place in _places():
            run = call.to(dtype, place).run()
            _check_dtypes(call, run, dtype)
            _check_memory(call, run)
            _check_agreement(call, run, defined, AGREEMENT[dtype], "that of minidl/kernels/reference.py")


class _Run(NamedTuple):
    """One forward and backward pass."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    cotangents: list[Tensor]

    def gradients(self) -> list[Tensor | None]:
        return [x.grad for x in self.inputs]


class _Call:
    """An operation with its arguments, as a function of those tensors in them that require grad."""

    def __init__(self, operation: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self.operation, self.arguments = operation, arguments

    def inputs(self) -> list[Tensor]:
        return [x for x in _tensors_in(self.arguments) if x.requires_grad]

    def __call__(self, *inputs: Tensor) -> Any:
        given = iter(inputs)
        return self.operation(**_replaced(self.arguments, lambda x: next(given) if x.requires_grad else x))

    def to(self, dtype: np.dtype, place: devices.Place, order: Any = "K") -> _Call:
        """The same with copies of all tensors, floating ones of this dtype."""
        return _Call(self.operation, _replaced(self.arguments, lambda x: _copy(x, dtype, place, order)))

    def run(self) -> _Run:
        """Forward and backward; refuses an operation that changes what it is given."""
        inputs, held = self.inputs(), list(_tensors_in(self.arguments))
        before = [x.array.copy() for x in held]
        result = self(*inputs)
        outputs = [y for y in tensors_in(result) if y.requires_grad]
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

    @property
    def name(self) -> str:
        return getattr(self.operation, "__name__", repr(self.operation))


@functools.cache
def _places() -> list[devices.Place]:
    return [devices.CPU, *([devices.gpu(None)] if cuda.is_available() else [])]


def _copy(x: Tensor, dtype: np.dtype, place: devices.Place, order: Any) -> Tensor:
    array = x.array.astype(dtype, order) if x.is_floating_point() else x.array.copy(order)
    return Tensor(devices.moved(array, place), requires_grad=x.requires_grad)


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested containers and modules."""
    if isinstance(value, nn.Module):
        yield from value.parameters()
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors_in(part)
    elif isinstance(value, Tensor):
        yield value


def _replaced(value: Any, new: Callable[[Tensor], Tensor]) -> Any:
    """The same nested containers and modules with other tensors."""
    if isinstance(value, Tensor):
        return new(value)
    if isinstance(value, nn.Module):
        return _with_parameters(copy.deepcopy(value), new)
    if isinstance(value, dict):
        return {key: _replaced(part, new) for key, part in value.items()}
    if not isinstance(value, list | tuple):
        return value
    parts = [_replaced(part, new) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


def _with_parameters(module: nn.Module, new: Callable[[Tensor], Any]) -> nn.Module:
    known: dict[int, Any] = {}
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None:  # one that two layers share stays shared
                part._parameters[name] = known[id(p)] if id(p) in known else known.setdefault(id(p), new(p))
    return module


def _check_dtypes(call: _Call, run: _Run, dtype: np.dtype) -> None:
    for what, found in (("output", run.outputs), ("gradient", run.gradients())):
        for number, x in enumerate(found):
            assert x is None or x.dtype == dtype, f"{call.name}: {what} {number} is {x.dtype}, of inputs in {dtype}"


def _check_memory(call: _Call, run: _Run) -> None:
    gradients = [(f"gradient {i}", g) for i, g in enumerate(run.gradients()) if g is not None]
    others = [("an input", x) for x in run.inputs] + [("an output", y) for y in run.outputs]
    others += [("the gradient passed in", gy) for gy in run.cotangents]
    pairs = itertools.chain(itertools.combinations(gradients, 2), itertools.product(gradients, others))
    for (name, a), (other, b) in pairs:
        assert not np.may_share_memory(a.array, b.array), f"{call.name}: {name} shares memory with {other}"


def _check_agreement(call: _Call, run: _Run, defined: _Run, tolerance: float, other: str) -> None:
    """Equal but for rounding, which scales with the largest value that took part."""
    size = max((_largest(x) for x in defined.inputs), default=0.0)
    for what, mine, wanted in (
        ("output", run.outputs, defined.outputs),
        ("gradient", run.gradients(), defined.gradients()),
    ):
        for number, (a, b) in enumerate(zip(mine, wanted, strict=True)):
            assert (a is None) == (b is None), f"{call.name}: {what} {number} is missing from one of the backends"
            if a is not None and b is not None:
                message = f"{call.name}: {what} {number} differs from {other}"
                atol = tolerance * max(size, _largest(b))
                np.testing.assert_allclose(a.cpu().array, b.array, tolerance, atol, err_msg=message)


def _largest(x: Tensor) -> float:
    return float(np.abs(x.array[np.isfinite(x.array)]).max(initial=0))


@contextlib.contextmanager
def _defined_kernels() -> Iterator[None]:
    """Every kernel replaced by its definition in NumPy."""
    names = [
        name for name in kernels.__all__ if hasattr(reference, name) and inspect.isfunction(getattr(kernels, name))
    ]
    with mock.patch.multiple(kernels, **{name: getattr(reference, name) for name in names}):
        yield
