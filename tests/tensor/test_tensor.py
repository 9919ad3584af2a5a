"""Tensors: construction, types, printing, indexing, and what is refused. (PyTorch's answers are in tests/parity.)"""

import importlib.util
import math

import numpy as np
import pytest

import minidl
from minidl import nn


def test_dtypes_of_new_tensors():
    assert minidl.tensor(1.5).dtype == minidl.tensor([1.0, 2]).dtype == minidl.zeros(2).dtype == minidl.float32
    assert minidl.tensor(1).dtype == minidl.arange(3).dtype == minidl.randperm(3).dtype == minidl.int64
    assert minidl.tensor([True]).dtype == minidl.bool
    assert minidl.tensor(np.ones(2)).dtype == minidl.float64
    assert minidl.full((2,), 7).dtype == minidl.int64
    assert minidl.tensor([], dtype=minidl.int64).dtype == minidl.int64
    assert minidl.tensor([]).dtype == minidl.float32
    assert minidl.arange(0, 1, 0.25).tolist() == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("make", [minidl.tensor, minidl.as_tensor])
def test_python_numbers_keep_all_digits_of_a_wider_dtype(make):
    assert make([0.1, 1e300], dtype=minidl.float64).tolist() == [0.1, 1e300]
    assert make(0.1, dtype=minidl.float64).item() == 0.1
    assert make([16777217.0], dtype=minidl.int64).item() == 16777217


def test_what_is_copied_and_what_is_shared():
    array = np.zeros(2, np.float32)
    copied, shared, same = minidl.tensor(array), minidl.from_numpy(array), minidl.as_tensor(array)
    array[0] = 1
    assert copied.tolist() == [0, 0]
    assert shared.tolist() == same.tolist() == [1, 0]
    assert shared.numpy() is array
    assert minidl.as_tensor(shared) is shared


def test_arrays_of_any_order_and_byte_order():
    array = np.arange(6.0).reshape(2, 3)
    for odd in (array[::-1, ::-1], np.asfortranarray(array), array.astype(">f8"), np.broadcast_to(array, (2, 2, 3))):
        assert np.array_equal((minidl.tensor(odd) * 2).numpy(), odd * 2)
        assert np.array_equal((minidl.ones(1, dtype=minidl.float64) * odd).numpy(), odd)


def test_random_numbers_belong_to_a_seed():
    def draw():
        return (
            minidl.rand(3),
            minidl.randn(2, 2),
            minidl.randint(10, (4,)),
            minidl.randperm(5),
            minidl.nn.Linear(2, 2).weight,
        )

    minidl.manual_seed(1)
    first = draw()
    minidl.manual_seed(1)
    assert all(np.array_equal(a.detach().numpy(), b.detach().numpy()) for a, b in zip(first, draw(), strict=True))
    own = minidl.Generator().manual_seed(1)
    assert minidl.rand(3, generator=own).tolist() == first[0].tolist()
    assert sorted(first[3].tolist()) == [0, 1, 2, 3, 4]


def test_numpys_global_generator_is_left_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    minidl.manual_seed(5)
    minidl.rand(10)
    assert np.array_equal(np.random.get_state()[1], before)


def test_printed():
    x = minidl.tensor([[1.0, -2.5], [3e-5, 4.0]], requires_grad=True)
    assert repr(x).endswith("shape=(2, 2), dtype=float32, requires_grad=True)")
    assert repr(x * 2).endswith("grad_fn=<MulBackward>)")
    assert repr(minidl.tensor(True)) == "tensor(True, shape=(), dtype=bool)"
    assert repr(minidl.nn.Parameter(minidl.ones(1))).startswith("Parameter containing:\ntensor([1.]")
    assert len(repr(minidl.zeros(1000, 1000))) < 1000


def test_numbers_and_sequences():
    x = minidl.tensor([[1.5, 2.0]])
    assert (float(x[0, 0]), int(x[0, 1]), bool(x[0, 0] > 1), x[0, 1].item()) == (1.5, 2, True, 2.0)
    assert len(x) == 1
    assert [row.tolist() for row in x] == [[1.5, 2.0]]
    assert [10, 20, 30][minidl.tensor(1)] == 20
    assert (x.size(), x.size(1), x.dim(), x.numel(), x.ndim) == ((1, 2), 2, 2, 2, 2)
    assert np.asarray(x).tolist() == [[1.5, 2.0]]
    assert str(x.device) == "cpu"
    assert x.device == minidl.device("cpu")


def test_a_view_shares_memory_and_a_copy_does_not():
    x = minidl.zeros(2, 3)
    for view in (x[0], x[0, 0], x.view(3, 2), x.T, x.permute(1, 0), x.unsqueeze(0), x.expand(2, 2, 3), x.detach()):
        assert np.shares_memory(view.array, x.array)
    for copy in (x.clone(), x[[0, 1]], x[x == 0], x.T.contiguous(), x.double()):
        assert not np.shares_memory(copy.array, x.array)
    x[0, 1].fill_(5)
    assert x[0].tolist() == [0, 5, 0]


def test_view_reads_in_logical_order_whatever_the_memory():
    y = minidl.nn.functional.conv2d(minidl.randn(2, 1, 4, 4), minidl.randn(3, 1, 1, 1))  # channels-last memory
    assert np.array_equal(y.view(2, -1).numpy(), np.ascontiguousarray(y.numpy()).reshape(2, -1))


def test_promotion():
    i, f, d = minidl.arange(2), minidl.ones(2), minidl.tensor(1.0, dtype=minidl.float64)
    assert (f * i).dtype == (f * d).dtype == (f * 2.0).dtype == (i * 2.0).dtype == minidl.float32
    assert (i * d).dtype == minidl.float64  # a 0-d tensor of a higher kind counts
    assert (i / i).dtype == minidl.float32
    assert (i + True).dtype == minidl.int64
    assert (f * np.ones(2)).dtype == minidl.float64
    assert (f * np.float64(2)).dtype == minidl.float32


def test_no_warnings_where_pytorch_gives_inf_and_nan():
    x = minidl.tensor([0.0, -1.0, 1e30])
    assert (1 / x).tolist()[0] == np.inf
    assert np.isnan(minidl.log(x).numpy()[1])
    assert (x * x * x).tolist()[2] == minidl.exp(x).tolist()[2] == np.inf
    assert np.isnan(minidl.zeros(0).mean().item())


def test_nan_is_passed_on():
    x = minidl.tensor([1.0, float("nan"), -1.0])
    for y in (minidl.relu(x), x.clamp(0, 1), minidl.maximum(x, minidl.zeros(3))):
        assert np.isnan(y.numpy()).tolist() == [False, True, False]
    assert np.isnan(x.max().item())
    assert x.max(0).indices.item() == 1


def test_the_first_of_equal_maxima():
    values, indices = minidl.tensor([[1, 3, 3], [2, 2, 0]]).max(1)
    assert (values.tolist(), indices.tolist()) == ([3, 2], [1, 0])
    assert minidl.tensor([1, 3, 3]).argmax().item() == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: minidl.Tensor([1.0]), TypeError, r"got list: use minidl.tensor\(data\)"),
        (lambda x: minidl.tensor([[1], [2, 3]]), ValueError, "nested lists and arrays must have equal lengths"),
        (lambda x: minidl.tensor("abc"), TypeError, "expected numbers, not text such as 'abc'"),
        (lambda x: minidl.tensor([1j]), TypeError, "dtype complex128 is not supported"),
        (lambda x: minidl.zeros(2, dtype="nonsense"), TypeError, "dtype 'nonsense' is not known"),
        (lambda x: minidl.zeros(2.5), TypeError, "expected ints, not 2.5"),
        (lambda x: minidl.zeros(-1), RuntimeError, r"no size may be negative, as in \(-1,\)"),
        (lambda x: minidl.arange(0, 5, -1), RuntimeError, "steps of -1 do not lead from 0 to 5"),
        (lambda x: minidl.randint(5, 5, (2,)), RuntimeError, "high must be greater than low, but they are 5 and 5"),
        (lambda x: minidl.randn(2, dtype=minidl.int64), RuntimeError, "must be a float type, not int64"),
        (lambda x: minidl.from_numpy([1]), TypeError, "expected a numpy.ndarray, not list"),
        (lambda x: x + minidl.ones(2), RuntimeError, r"add: shapes \(2, 3\) and \(2,\) do not broadcast"),
        (lambda x: x + "a", TypeError, "unsupported operand"),
        (lambda x: minidl.add(x, "a"), TypeError, "add: expected a tensor, an array or a number, not str"),
        (lambda x: x @ x, RuntimeError, "columns, 3, must be the right's number of rows, 2"),
        (lambda x: x @ minidl.ones(3).double(), RuntimeError, "dtypes float32 and float64 differ"),
        (lambda x: x @ 2.0, TypeError, "expected two tensors"),
        (lambda x: x.reshape(4), RuntimeError, r"reshape: shape \(4,\) .* multiply to 4 instead of 6"),
        (lambda x: x.view(-1, -1), RuntimeError, r"shape \(-1, -1\) may have one -1, to be inferred"),
        (lambda x: x.sum(2), IndexError, r"sum: dim 2 is out of range, expected -2 to 1"),
        (lambda x: x.sum((0, 0)), RuntimeError, "appears twice"),
        (lambda x: x.expand(2, 4), RuntimeError, r"expand: shape \(2, 3\) cannot become \(2, 4\)"),
        (lambda x: x.permute(0), RuntimeError, r"dims \(0,\) must have each dimension of shape \(2, 3\) once"),
        (lambda x: x[2], IndexError, "index 2 is out of bounds"),
        (lambda x: x[0, 0, 0], IndexError, "too many indices"),
        (lambda x: minidl.cat([x, minidl.ones(2)]), RuntimeError, "cat: sizes must be equal except in dim 0"),
        (lambda x: minidl.stack([x, minidl.ones(2)]), RuntimeError, "stack: all shapes must be equal"),
        (lambda x: minidl.stack([]), RuntimeError, "at least one"),
        (lambda x: minidl.arange(3).mean(), RuntimeError, "mean: the input must be a float tensor, not int64"),
        (lambda x: minidl.zeros(0).max(), RuntimeError, "max: no element to choose"),
        (lambda x: minidl.zeros(0, 2).argmax(0), IndexError, "no element to choose"),
        (lambda x: x.clamp(), RuntimeError, "give min, max or both"),
        (lambda x: minidl.where(x, x, x), RuntimeError, "must be a bool tensor, such as x > 0, not float32"),
        (lambda x: -minidl.tensor([True]), RuntimeError, "use ~"),
        (lambda x: minidl.arange(3) ** -1, RuntimeError, "integers to negative powers"),
        (lambda x: minidl.nn.functional.pad(x, (1,)), RuntimeError, r"pad: .* pairs \(before, after\), .*, not \(1,\)"),
        (lambda x: minidl.nn.functional.pad(x, (-2, -2)), RuntimeError, r"cut off more than shape \(2, 3\) has"),
        (lambda x: minidl.nn.functional.pad(x, (1, 1), "odd"), NotImplementedError, "mode must be constant, reflect"),
        (lambda x: x.to("gpu"), RuntimeError, "device 'gpu': expected 'cpu', 'cuda', or .* 'cuda:0'"),
        (lambda x: len(minidl.tensor(1)), TypeError, "0-d tensor"),
        (lambda x: list(minidl.tensor(1)), TypeError, "0-d tensor"),
        (lambda x: minidl.nn.functional.dropout(x, 1.5), ValueError, "between 0 and 1, not 1.5"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(minidl.ones(2, 3))


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is there, and perhaps a GPU")
def test_cuda_is_not_there():
    assert minidl.cuda.is_available() is False


def test_arrays_in_an_index_keep_pytorchs_order():
    x = minidl.arange(120).reshape(2, 3, 4, 5)
    assert x[0, :, [1, 2]].shape == (3, 2, 5)
    assert minidl.arange(6).reshape(1, 2, 3)[:, [0, 1], ..., [0, 1]].shape == (1, 2)


def test_formatted_like_a_number():
    assert f"{minidl.tensor(1.23456):.2f}" == "1.23"
    assert f"{minidl.ones(2)}" == repr(minidl.ones(2))


def test_numbers_that_do_not_fit():
    with pytest.raises(RuntimeError, match="is outside of int64's"):
        minidl.ones(2) * 10**30
    with pytest.raises(TypeError, match="expected a real number, not complex64"):
        minidl.mul(minidl.ones(2), np.complex64(1))
    for wrong in (np.array(["a"]), np.ones(2, complex), np.ones(2, ">f4")):
        with pytest.raises(TypeError, match="Tensor wraps an array of bool, uint8"):
            minidl.Tensor(wrong)


def test_dtypes_of_numpy_numbers_in_lists():
    assert minidl.tensor([np.float64(2), 1]).dtype == minidl.float64
    assert minidl.tensor([[minidl.ones(1, requires_grad=True)]]).shape == (1, 1, 1)
    assert minidl.tensor([True, 1.5]).dtype == minidl.float32


def test_float16_is_computed_by_the_definitions():
    x = minidl.tensor([-1.0, 2.0], dtype=minidl.float16, requires_grad=True)
    (minidl.relu(x) + minidl.sigmoid(x) + minidl.tanh(x)).sum().backward()
    assert x.grad.dtype == minidl.float16
    assert minidl.ones(100_000, dtype=minidl.float16).mean().item() == 1


def test_least_spread_and_any():
    x = minidl.tensor([[3.0, 1.0, 1.0], [2.0, 5.0, 4.0]])
    assert x.min().item() == 1
    assert [part.tolist() for part in x.min(1)] == [[1, 2], [1, 0]]
    assert minidl.std(x).item() == pytest.approx(np.std(x.numpy(), ddof=1))
    assert ((x > 0).all().item(), (x > 9).any().item()) == (True, False)
    assert x.view_as(minidl.zeros(3, 2)).shape == (3, 2)
    assert x.type(minidl.int64).dtype == minidl.int64


def test_conversions_do_not_warn():
    """As in PyTorch: what does not fit is infinite, or any integer."""
    x = minidl.ones(2)
    assert (x < 1e39).tolist() == [True, True]
    assert minidl.tensor([1e300]).tolist() == [math.inf]
    assert minidl.tensor([1e300], dtype=minidl.float64).float().tolist() == [math.inf]
    assert minidl.maximum(x, minidl.tensor(1e39, dtype=minidl.float64)).tolist() == [math.inf] * 2
    assert minidl.tensor([math.nan]).long().dtype == minidl.int64
    x[0] = 1e39
    assert x.tolist() == [math.inf, 1]


def test_large_ints_are_not_taken_for_reals():
    for data in ([-1, 2**63], [[-1], [2**63]], [2**63, -1]):
        with pytest.raises(ValueError, match="an int is outside of int64"):
            minidl.tensor(data)
    assert minidl.tensor([2**63, -1.5]).dtype == minidl.float32


def test_arange_of_tensors():
    assert minidl.arange(minidl.tensor(3)).dtype == minidl.int64
    assert minidl.arange(minidl.tensor(3)).tolist() == [0, 1, 2]
    assert minidl.arange(minidl.tensor(1.5)).tolist() == [0.0, 1.0]


def test_uniform_numbers_are_less_than_1():
    x = minidl.rand(100_000, dtype=minidl.float16)
    assert 0.4 < x.float().mean().item() < 0.6
    assert 0.99 < x.max().item() < 1


def test_data_of_a_parameter_stays_real():
    p = minidl.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="data of int64 for a tensor that requires grad"):
        p.data = minidl.tensor([1, 2])
    assert p.tolist() == [1.0, 1.0]


@pytest.mark.jit
def test_sums_over_many_rows_keep_their_digits():
    rows = minidl.full((1_000_000, 3), 0.1)
    assert rows.mean(0).tolist() == pytest.approx([0.1] * 3, rel=1e-6)
    x = 1e4 + minidl.randn(100_000, 4)
    assert x.var(0).tolist() == pytest.approx([1.0] * 4, abs=0.05)
    b = minidl.zeros(2, requires_grad=True)
    (minidl.full((100_000, 2), 0.1) * (b + 1)).sum().backward()
    assert b.grad.tolist() == pytest.approx([1e4] * 2, rel=1e-6)


@pytest.mark.parametrize(
    "made",
    [
        lambda x: nn.functional.conv2d(x, minidl.randn(4, 3, 3, 3)),
        lambda x: nn.functional.max_pool2d(nn.functional.conv2d(x, minidl.randn(4, 3, 3, 3)), 2),
        lambda x: nn.functional.interpolate(nn.functional.conv2d(x, minidl.randn(4, 3, 3, 3)), scale_factor=2),
        lambda x: nn.functional.conv2d(x, minidl.randn(4, 3, 3, 3)).clone(),
        lambda x: minidl.zeros_like(nn.functional.conv2d(x, minidl.randn(4, 3, 3, 3))),
        lambda x: x[:, [0, 2]],
    ],
)
def test_what_is_written_to_a_view_is_not_lost(made):
    """In PyTorch these are contiguous, so that `view` and `flatten` are views of them."""
    for flat in (lambda y: y.view(y.size(0), -1), lambda y: y.flatten(1), lambda y: y.reshape(-1)):
        y = made(minidl.randn(2, 3, 8, 8))
        wanted = np.array(y.tolist(), np.float32)  # which does not ask y for its memory
        flat(y)[..., :5] = 7.0
        wanted.reshape(flat(y).shape)[..., :5] = 7.0
        np.testing.assert_array_equal(y.numpy(), wanted)


def test_memory_that_others_know_stays_where_it_is():
    array = np.arange(6.0).reshape(2, 3).T
    x = minidl.from_numpy(array)
    assert x.view(-1).tolist() == [0, 3, 1, 4, 2, 5]
    assert x.array is array
    y = (minidl.from_numpy(array) * 2).T  # a view of a result
    y.T.reshape(-1)
    assert y.array.base is not None
    z = minidl.from_numpy(array) * 1
    seen = z.numpy()
    z.reshape(-1)
    assert np.shares_memory(seen, z.array)


def test_gradients_through_a_view_of_a_reordered_result():
    x, w = minidl.randn(2, 3, 5, 5, requires_grad=True), minidl.randn(4, 3, 3, 3, requires_grad=True)
    y = nn.functional.conv2d(x, w)
    flat = y.flatten(1)
    gx, gw = minidl.grad((flat * flat).sum() + y.sum(), (x, w))
    plain = nn.functional.conv2d(x, w)
    for actual, wanted in zip((gx, gw), minidl.grad((plain * plain).sum() + plain.sum(), (x, w)), strict=True):
        np.testing.assert_allclose(actual.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-4)


def test_split_chunk_and_unbind_by_hand():
    x = minidl.arange(10).reshape(2, 5)
    assert [part.tolist() for part in x.split(2, dim=1)] == [[[0, 1], [5, 6]], [[2, 3], [7, 8]], [[4], [9]]]
    assert [part.shape for part in x.chunk(4, dim=1)] == [(2, 2), (2, 2), (2, 1)]
    assert [part.tolist() for part in x.unbind()] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    mean, log_var = minidl.randn(3, 8).chunk(2, dim=1)
    assert mean.shape == log_var.shape == (3, 4)


def test_repeat_copies_memory():
    x = minidl.zeros(2)
    y = x.repeat(1)
    y += 1
    assert x.tolist() == [0, 0]
    assert minidl.tensor([1, 2]).repeat(2, 2).tolist() == [[1, 2, 1, 2], [1, 2, 1, 2]]


def test_numpys_names_of_dimensions():
    x = minidl.arange(6.0).reshape(2, 3)
    assert x.mean(axis=1, keepdims=True).tolist() == [[1.0], [4.0]]
    with pytest.raises(TypeError, match="sum: give dim or axis, which mean the same, not both"):
        x.sum(dim=0, axis=0)


def test_numpys_clip_gives_a_tensor():
    """As in PyTorch: NumPy asks the tensor for its method."""
    x = minidl.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    y = np.clip(x, 0.0, 1.0)
    assert isinstance(y, minidl.Tensor)
    y.sum().backward()
    assert (y.tolist(), x.grad.tolist()) == ([0, 0.5, 1], [0, 1, 0])
    with pytest.raises(TypeError, match="out= is not supported"):
        x.clip(0, 1, out=y)


@pytest.mark.parametrize(
    "array", [np.array([1, 2], np.uint32), np.ones(2, np.longdouble), np.ma.array([1.0], mask=[1])]
)
def test_arrays_that_minidl_cannot_compute_with_are_not_wrapped(array):
    with pytest.raises(TypeError, match=r"Tensor wraps .*, and got (uint32|float128|MaskedArray|longdouble)"):
        minidl.Tensor(array)
    assert (minidl.Tensor(np.array([250, 251], np.uint8)) + 10).tolist() == [4, 5]


@pytest.mark.parametrize("method", ["to", "float", "double", "int", "long", "bool", "type"])
def test_an_unknown_option_of_a_conversion_is_refused_under_its_name(method):
    with pytest.raises(TypeError, match=rf"^{method}\(\) got an unexpected keyword argument 'axis'"):
        getattr(minidl.ones(2), method)(axis=0)


def test_conversions_take_pytorchs_options():
    x = minidl.ones(2, 3, requires_grad=True)
    assert x.to("cpu", minidl.float64, False).dtype == "float64"
    assert x.to("cpu", True) is x.to(minidl.float32, non_blocking=True) is x.to(x, False, False) is x.cpu() is x
    for copy in x.to("cpu", minidl.float32, False, True), x.to(minidl.float32, copy=True), x.to(x, False, True):
        assert not np.shares_memory(copy.array, x.array)
        copy.sum().backward()
    assert x.grad.tolist() == [[3, 3, 3]] * 2


@pytest.mark.parametrize("convert", ["to", "float", "double", "int", "long", "bool", "clone", "contiguous"])
def test_memory_formats_are_honoured(convert):
    x = minidl.arange(24.0).reshape(1, 2, 3, 4)
    last = getattr(x, convert)(memory_format="channels_last")
    assert last.array.transpose(0, 2, 3, 1).flags.c_contiguous
    assert last.tolist() == getattr(x, convert)().tolist()
    assert getattr(last, convert)(memory_format="contiguous_format").array.flags.c_contiguous
    with pytest.raises(RuntimeError, match="channels_last: shape .2, 3. "):
        getattr(minidl.ones(2, 3), convert)(memory_format="channels_last")


def test_a_changed_maximum_is_refused():
    x = minidl.tensor([1.0, 2.0], requires_grad=True)
    y = x.max()
    y.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_transposing_in_place_under_no_grad_keeps_the_graph():
    x = minidl.ones(1, 2, requires_grad=True) * 2
    with minidl.no_grad():
        x.t_()
    assert x.requires_grad
    assert x.shape == (2, 1)


def test_clamp_takes_a_0d_tensor_beside_a_number():
    x = minidl.tensor([-1.0, 7.0])
    assert x.clamp(0, minidl.tensor(5.0)).tolist() == [0, 5]
    with pytest.raises(TypeError, match="both be numbers, or both tensors"):
        x.clamp(0, minidl.ones(2))
