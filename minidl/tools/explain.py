"""explain: a model's layers as a table, with the arithmetic behind each number."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minidl import random
from minidl.autograd import no_grad
from minidl.creation import zeros
from minidl.nn import Module
from minidl.ops._operands import listed_sizes
from minidl.tensor import Tensor

if TYPE_CHECKING:
    from minidl.tools._explanation import Explanation


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
    receptive field: the input's pixels that one unit sees, padding included.
    step: to those of the unit beside it. bytes: 0 where an output shares memory with an earlier one.
    """
    from minidl.tools._explanation import Calls  # at the first use, so that it costs `import minidl` no time

    if not isinstance(model, Module):
        raise TypeError(f"explain: model must be a Module, not {type(model).__name__}")
    shape = listed_sizes("explain", input_shape)
    # Plain attributes are shared, not copied: one left by an earlier pass may belong to a graph, which has no copy.
    attributes = [value for module in model.modules() for value in vars(module).values()]
    watched = copy.deepcopy(model, {id(value): value for value in attributes if isinstance(value, Tensor)}).eval()
    like = next((p for p in watched.parameters()), zeros(()))
    calls = Calls(watched, zeros(1, *shape, dtype=like.dtype, device=like.device))
    state = random.default_generator.get_state()
    try:
        with no_grad():
            watched(calls.input)
    except Exception as error:
        table = f"The layers before it:\n\n{calls.explanation(complete=False)}"
        error.add_note(f"explain: {calls.place}. {table if calls.rows else 'It is the first layer.'}")
        raise
    finally:
        random.default_generator.set_state(state)
    return calls.explanation()
