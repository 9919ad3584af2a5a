"""Wrong calls, and what is said of them: bad_calls.txt has a call, then the type of its error and the whole message.

The type is PyTorch's where PyTorch has the call (tests/parity compares many more). A message names the operation, the
values given, and what would fit; "..." in it stands for what depends on the machine. Nothing is changed by such a call.
"""

import re
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import data, nn, optim

LINES = (Path(__file__).parents[1] / "helpers/bad_calls.txt").read_text().splitlines()
CALLS = list(zip(LINES[::2], LINES[1::2], strict=True))


def names():
    """What the calls speak of."""
    tensors = {
        "x": minidl.zeros(3, 4),
        "v": minidl.zeros(5),
        "i": minidl.tensor([0, 1]),
        "im": minidl.zeros(2, 3, 5, 5),
        "w": minidl.zeros(4, 3, 3, 3),
        "p": minidl.zeros(2, requires_grad=True),
    }
    layer, p = nn.Linear(2, 2), tensors["p"]
    adam = optim.Adam([p])
    p.grad = minidl.ones(2)
    adam.step()
    modules = {"m": minidl, "np": np, "nn": nn, "F": nn.functional, "optim": optim, "data": data}
    return {**modules, **tensors, "layer": layer, "conv": nn.Conv2d(3, 4, 3), "adam": adam}


def contents(known):
    """All that a call could change, as text."""
    found = {name: (value.tolist(), value.shape, value.dtype, value.requires_grad, value._storage.version, value.grad)
             for name, value in known.items() if isinstance(value, minidl.Tensor)}  # fmt: skip
    state = minidl.random.default_generator.get_state(), minidl.is_grad_enabled(), minidl.get_num_threads()
    return repr((found, state, known["layer"].state_dict(), known["adam"].state_dict()))


def test_there_are_many():
    assert len(CALLS) >= 100
    assert len({call for call, _ in CALLS}) == len(CALLS)


@pytest.mark.parametrize(("call", "answer"), CALLS, ids=[call for call, _ in CALLS])
def test_bad_call(call, answer):
    known = names()
    before = contents(known)
    with pytest.raises(Exception) as caught:  # noqa: PT011 (which one is what is tested)
        eval(call, known)
    said = f"    {type(caught.value).__name__}: {caught.value}".splitlines()[0]
    assert re.fullmatch(re.escape(answer).replace(re.escape("..."), ".*"), said), said
    assert contents(known) == before
