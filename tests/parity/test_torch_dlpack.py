"""Tensors travel to PyTorch and back without a copy."""

import numpy as np
import pytest

import minidl
from tests.helpers.with_torch import torch


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0, 2), (3, 4)])
def test_memory_is_shared_both_ways(dtype, shape):
    ours = minidl.ones(shape, dtype=dtype)
    theirs = torch.from_dlpack(ours)
    assert (tuple(theirs.shape), str(theirs.dtype)) == (shape, f"torch.{dtype}")
    back = minidl.from_dlpack(theirs)
    assert (back.shape, back.dtype) == (ours.shape, ours.dtype)
    if ours.numel():
        theirs.zero_()
        assert not ours.numpy().any()
        assert not back.numpy().any()


def test_views_keep_their_strides():
    ours = minidl.arange(12).reshape(3, 4).T[::2]
    np.testing.assert_array_equal(torch.from_dlpack(ours).numpy(), ours.numpy())
    theirs = torch.arange(12).reshape(3, 4).T[::2]
    np.testing.assert_array_equal(minidl.from_dlpack(theirs).numpy(), theirs.numpy())


def test_what_is_refused():
    with pytest.raises(RuntimeError, match="would lose its graph"):
        torch.from_dlpack(minidl.ones(2, requires_grad=True))
    with pytest.raises(TypeError, match="complex64 is not supported"):
        minidl.from_dlpack(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(TypeError, match="from_dlpack: expected a tensor or array that has __dlpack__, not list"):
        minidl.from_dlpack([1, 2])
