"""explain: a model's layers as a table, with the arithmetic behind each number."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from minidl import random
from minidl.autograd import no_grad
from minidl.creation import zeros
from minidl.nn import Module
from minidl.ops._operands import listed_sizes
from minidl.tensor import Tensor
from minidl.tools._explanation import Explanation, Layer
from minidl.tools._layers import Fields, fields_of_pixels, multiply_adds, on_grid, receptive_fields, size_arithmetic

TAKEN = "Receptive fields: what is computed without a layer of minidl is taken to act on each pixel separately."


def explain(model: Module, input_shape: Sequence[int]) -> Explanation:
    """The layers of a model in the order of their calls: sizes and their arithmetic, parameters, work, memory, fields.

    One input of zeros passes through a copy of the model in evaluation mode, so the model itself, its training mode,
    running statistics and the random numbers to come stay as they are. A row is a module without children, or with
    parameters of its own; what a model's ``forward`` computes without a module, such as ``F.relu``, has no row.

    Parameters
    ----------
    model : Module
    input_shape : sequence of int
        Of one input, without the batch: (C, H, W) for an image.

    Returns
    -------
    Explanation
        A table to print, with `rows`, `parameters`, `multiply_adds` and `bytes`.

    Raises
    ------
    Exception
        Whatever a layer raises that does not take its input, with a note of its name and of the table up to there.

    Notes
    -----
    Multiply-adds are the products with weights, bias not included: C KH KW for each element of a convolution's output,
    O KH KW for each element of a transposed convolution's *input*. Bytes are those of the output, 0 where it shares its
    memory with an input, as in ``Flatten``.

    One unit sees r pixels of the input, its neighbour's lie j pixels further; at first r = j = 1. A window of size k,
    stride s and dilation d then makes r + d (k - 1) j of r, and s j of j; pixels in the padding count. A transposed
    convolution divides j by s, and its units see unequal parts of the input: r is that of the unit that sees most.

    Source: Dumoulin and Visin 2016, arXiv:1603.07285, for the sizes.

    Examples
    --------
    >>> import minidl
    >>> from minidl import nn
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))
    >>> minidl.explain(model, (1, 8, 8))
    Sequential: one input of shape (1, 8, 8), float32
    layer  type                                          param-  multiply-  output,  receptive  step,
                    output     size: height and width     eters       adds    bytes  field, px     px
    -------------------------------------------------------------------------------------------------
    0      Conv2d   (4, 4, 4)  (8 + 2*1 - 3)//2 + 1 = 4      40        576      256          3      2
    1      ReLU     (4, 4, 4)                                 -          -      256          3      2
    2      Flatten  (64,)      4*4*4 = 64                     -          -        0          3
    3      Linear   (10,)      64 -> 10                     650        640       40          8
    -------------------------------------------------------------------------------------------------
    total                                                   690      1,216      552
    receptive field: the input's pixels that one unit sees, padding included. step: to those of the unit beside it.
    bytes: 0 where an output shares memory with an earlier one.
    """
    if not isinstance(model, Module):
        raise TypeError(f"explain: model must be a Module, not {type(model).__name__}")
    shape = listed_sizes("explain", input_shape)
    # Plain attributes are shared, not copied: one left by an earlier pass may belong to a graph, which has no copy.
    attributes = [value for module in model.modules() for value in vars(module).values()]
    watched = copy.deepcopy(model, {id(value): value for value in attributes if isinstance(value, Tensor)}).eval()
    like = next((p for p in watched.parameters()), zeros(()))
    calls = _Calls(watched, zeros(1, *shape, dtype=like.dtype, device=like.device))
    state = random.default_generator.get_state()
    try:
        with no_grad():
            watched(calls.input)
    except Exception as error:
        error.add_note(f"explain: {calls.place}. The layers before:\n\n{calls.explanation(complete=False)}")
        raise
    finally:
        random.default_generator.set_state(state)
    return calls.explanation()


class _Calls:
    """Watches the calls of a model's modules and makes rows of them.

    Each module gets a `forward` of its own, which the class's ``__call__`` finds first. Since the model is a copy that
    nobody else has, no class is changed, no other thread sees it, and nothing is left behind if a layer raises.
    """

    def __init__(self, model: Module, x: Tensor) -> None:
        self.model, self.input, self.rows, self.notes = model, x, list[Layer](), dict[str, None]()
        self.counted: set[Any] = {x._storage}  # memory and parameters, by identity
        self.fields: dict[Tensor, Fields | None] = {x: fields_of_pixels(*x.shape[2:]) if x.ndim == 4 else None}
        self.error: Exception | None = None
        self.place = ""  # of that error
        for name, module in model.named_modules():
            vars(module)["forward"] = functools.partial(self._call, name, module, module.forward)

    def _call(self, name: str, layer: Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        x = _tensor_among([*args, *kwargs.values()])
        try:
            y = forward(*args, **kwargs)
        except Exception as error:
            if error is not self.error:  # not on its way out of a module inside this one
                shape = "" if x is None else f" an input of shape {x.shape}"
                self.error, self.place = error, f"{name or 'the model'} ({type(layer).__name__}) refused{shape}"
            raise
        if next(layer.children(), None) is None or any(p is not None for p in layer._parameters.values()):
            self._add_row(name, layer, x, _tensor_among(y))
        return y

    def _add_row(self, name: str, layer: Module, x: Tensor | None, y: Tensor | None) -> None:
        own = {p for p in layer._parameters.values() if p is not None}
        if own & self.counted:
            self.notes[f"{name}: parameters that an earlier row counted are not counted again."] = None
        row = Layer(name, type(layer).__name__, parameters=sum(p.numel() for p in own - self.counted))
        self.counted |= own
        if y is not None:
            row = replace(row, output_shape=y.shape[1:], bytes=0 if y._storage in self.counted else y.array.nbytes)
            self.counted.add(y._storage)
        if x is not None and y is not None:
            fields = self.fields[y] = self._fields(layer, x, y)
            size = None if fields is None else (fields[0].size, fields[1].size)
            step = None if fields is None or y.ndim != 4 else (fields[0].step, fields[1].step)
            sizes, work = size_arithmetic(layer, x, y), multiply_adds(layer, x, y)
            row = replace(row, sizes=sizes, multiply_adds=work, receptive_field=size, step=step)
        self.rows.append(row)

    def _fields(self, layer: Module, x: Tensor, y: Tensor) -> Fields | None:
        """The receptive fields of a layer's output y."""
        if next(layer.children(), None) is not None:  # they have computed what it returns
            return self.fields[y] if y in self.fields else self._fields_between(y)
        fields = self.fields[x] if x in self.fields else self._fields_between(x)
        if fields is None:
            return None
        if not type(layer).__module__.startswith("minidl."):
            self.notes[TAKEN] = None
            return on_grid(fields, y.shape[2:]) if y.ndim == 4 else None
        return receptive_fields(layer, fields, x, y, self.input.shape[2:])

    def _fields_between(self, x: Tensor) -> Fields | None:
        """Those of a tensor that no layer returned: the largest that were seen on a grid of its size."""
        known = [fields for fields in self.fields.values() if fields is not None]
        if not known:
            return None
        self.notes[TAKEN] = None
        if x.ndim != 4:
            return known[-1]
        fitting = [on for fields in known if (on := on_grid(fields, x.shape[2:])) is not None]
        return max(fitting, key=lambda fields: fields[0].size + fields[1].size, default=None)

    def explanation(self, complete: bool = True) -> Explanation:
        """The table of the calls so far."""
        parameters, counted = sum(p.numel() for p in self.model.parameters()), sum(row.parameters for row in self.rows)
        if complete and counted < parameters:
            self.notes[f"{parameters - counted:,} parameters belong to modules that this input did not pass."] = None
        title = f"{type(self.model).__name__}: one input of shape {self.input.shape[1:]}, {self.input.dtype}"
        return Explanation(title, self.rows, parameters if complete else counted, list(self.notes))


def _tensor_among(values: Any) -> Tensor | None:
    """The first tensor of what a module takes or returns."""
    given = values if isinstance(values, list | tuple) else values.values() if isinstance(values, dict) else [values]
    return next((value for value in given if isinstance(value, Tensor)), None)
