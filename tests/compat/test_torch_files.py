"""torch.save and torch.load against PyTorch: each reads what the other wrote, with weights_only=True."""

import base64
import io
import pickle
import warnings
import zlib
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from minidl import nn
from minidl.compat import files
from tests.helpers.with_torch import same, torch

pytestmark = pytest.mark.slow

DTYPES = "bool uint8 int8 int16 int32 int64 float16 float32 float64".split()


def to_minidl(obj, **kwargs):
    file = io.BytesIO()
    torch.save(obj, file)
    file.seek(0)
    return files.load(file, **kwargs)


def to_torch(obj, **kwargs):
    file = io.BytesIO()
    files.save(obj, file)
    file.seek(0)
    return torch.load(file, weights_only=True, **kwargs)


def write_torch_files(path):
    """Write what torch_files.txt holds; another version of PyTorch may write other bytes."""
    torch.manual_seed(0)
    x = torch.arange(12.0).reshape(3, 4)
    layer = torch.nn.Linear(2, 1)
    adam = torch.optim.Adam(layer.parameters(), 0.5)
    layer(torch.ones(1, 2)).sum().backward()
    adam.step()
    obj = {
        "epoch": 3,
        "loss": 0.25,
        "name": "é",
        "none": None,
        "flags": [True, False],
        "big": -(2**70),
        "model": layer.state_dict(),
        "optimizer": adam.state_dict(),
        "shared": (x, x.T, x[1:, ::2]),
        "expanded": torch.ones(1).expand(3),
        "dtypes": {name: torch.tensor([0, 1], dtype=getattr(torch, name)) for name in DTYPES},
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(7),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "frozen": torch.nn.Parameter(torch.ones(2), False),
        "size": x.shape,
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "set": {1, 2},
        "counter": Counter([4, 4, 5]),
        (1, 2): "pair",
    }
    file = io.BytesIO()
    torch.save(obj, file)
    text = base64.b64encode(zlib.compress(file.getvalue(), 9)).decode()
    lines = ["# Written by write_torch_files of test_torch_files.py with PyTorch 2.13: its format, deflated, base64."]
    Path(path).write_text("\n".join([*lines, *(text[i : i + 116] for i in range(0, len(text), 116))]) + "\n")


def alike(ours, theirs):
    """The same containers, numbers, and tensors with equal flags; NaN is NaN."""
    if isinstance(theirs, torch.Tensor):
        same(ours, theirs, 0, 0)
        assert ours.requires_grad == theirs.requires_grad
        assert isinstance(ours, nn.Parameter) == isinstance(theirs, torch.nn.Parameter)
    elif isinstance(theirs, torch.dtype | torch.device):
        assert str(ours) == str(theirs).removeprefix("torch.")
    elif isinstance(theirs, dict):
        assert type(ours) is type(theirs)
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            alike(ours[key], value)
    elif isinstance(theirs, list | tuple):
        assert type(ours) is (tuple if isinstance(theirs, tuple) else list)
        for a, b in zip(ours, theirs, strict=True):
            alike(a, b)
    else:
        assert type(ours) is type(theirs)
        assert repr(ours) == repr(theirs)


def test_torch_reads_the_committed_files_as_it_did(tmp_path):
    write_torch_files(tmp_path / "again.txt")
    for file in (tmp_path / "again.txt", Path(__file__).with_name("torch_files.txt")):
        content = zlib.decompress(base64.b64decode("".join(file.read_text().splitlines()[1:])))
        alike(files.load(io.BytesIO(content)), torch.load(io.BytesIO(content), weights_only=True))


# -- drawn objects ----------------------------------------------------------------------------------------------


@st.composite
def tensors(draw):
    """A view of a tensor of any dtype: transposed, cut out, expanded; perhaps a parameter."""
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    dtype = draw(st.sampled_from(DTYPES))
    values = np.random.default_rng(draw(st.integers(0, 99))).normal(0, 50, shape).astype(dtype)
    x = torch.from_numpy(values)
    if shape and draw(st.booleans()):
        x = x.permute(draw(st.permutations(range(x.ndim))))
    if shape and draw(st.booleans()):
        x = x[draw(st.integers(0, 2)) :: draw(st.integers(1, 2))]
    if draw(st.booleans()):
        x = x.expand(draw(st.integers(0, 3)), *x.shape)
    if x.is_floating_point() and draw(st.booleans()):
        return torch.nn.Parameter(x, draw(st.booleans()))
    return x.requires_grad_() if x.is_floating_point() and draw(st.booleans()) else x


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
keys = st.text(max_size=5) | st.integers() | st.booleans() | st.tuples(st.integers(), st.text(max_size=2))
leaves = plain | tensors() | st.sets(keys, max_size=1) | st.lists(st.integers(), max_size=4).map(Counter)
objects = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4).map(OrderedDict)
    ),
    max_leaves=15,
)


@settings(max_examples=150)
@given(objects)
def test_both_ways(obj):
    ours = to_minidl(obj)
    alike(ours, obj)
    alike(ours, to_torch(ours))
    alike(to_minidl(to_torch(ours)), obj)


@settings(max_examples=100)
@given(st.data())
def test_views_of_one_storage_share_it(data):
    x = torch.arange(24.0).reshape(2, 3, 4)
    cuts = st.tuples(st.integers(0, 1), st.integers(0, 2), st.sampled_from([1, 2]))
    views = [x.permute(data.draw(st.permutations(range(3))))[a:, b::step] for a, b, step in data.draw(st.lists(cuts))]
    theirs = [x, *views]
    ours = to_minidl(theirs)
    alike(ours, theirs)
    theirs[0].mul_(2)
    ours[0].mul_(2)
    alike(ours, theirs)


# -- models and optimisers --------------------------------------------------------------------------------------

SETTINGS = {
    "Adam": {"lr": 0.1, "weight_decay": 0.01, "betas": (0.8, 0.9)},
    "SGD": {"lr": 0.1},
    "SGD momentum": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "SGD dampening": {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1},
}


def parts(m, name):
    layers = m.nn
    convolution = layers.Conv2d(1, 2, 3)
    model = layers.Sequential(convolution, layers.BatchNorm2d(2), layers.ReLU(), layers.Flatten(), layers.Linear(18, 1))
    optimizer = getattr(m.optim, name.split()[0])(model.parameters(), **SETTINGS[name])
    schedule = m.optim.lr_scheduler.MultiStepLR(optimizer, [1, 1, 3])
    return {"model": model, "optimizer": optimizer, "schedule": schedule}


def trained(m, parts, steps=2):
    for i in range(steps):
        x = m.from_numpy(np.random.default_rng(i).normal(size=(4, 1, 5, 5)).astype(np.float32))
        parts["optimizer"].zero_grad()
        parts["model"](x).square().mean().backward()
        parts["optimizer"].step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parts["schedule"].step()


def restored(m, name, checkpoint):
    made = parts(m, name)
    for key, part in made.items():
        part.load_state_dict(checkpoint[key])
    return made


def checkpoint(parts):
    return {key: part.state_dict() for key, part in parts.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_goes_on_in_the_other_library_and_back(name):
    """Two steps each in torch, minidl and torch again are six steps in torch."""
    whole = parts(torch, name)
    start = {key: part.state_dict() for key, part in whole.items()}
    mine = restored(minidl, name, to_minidl(start))
    trained(torch, whole)
    trained(minidl, mine)
    for _ in range(2):
        there = restored(torch, name, to_torch(checkpoint(mine)))
        trained(torch, there)
        trained(torch, whole)
        mine = restored(minidl, name, to_minidl(checkpoint(there)))
    for (key, ours), theirs in zip(
        mine["model"].state_dict().items(), whole["model"].state_dict().values(), strict=True
    ):
        same(ours, theirs, 1e-4, 1e-5)
        assert key in whole["model"].state_dict()
    assert mine["optimizer"].param_groups[0]["lr"] == whole["optimizer"].param_groups[0]["lr"]


def test_untrained_optimizers():
    for name in SETTINGS:
        restored(torch, name, to_torch(checkpoint(parts(minidl, name))))
        restored(minidl, name, to_minidl(checkpoint(parts(torch, name))))


# -- paths, options, errors -------------------------------------------------------------------------------------


def test_paths_and_mmap(tmp_path):
    for name in ("x.pt", "x.pth.tar", "x"):
        files.save({"w": minidl.arange(5), "v": minidl.ones(3, 3)}, tmp_path / name)
        for mmap in (False, True):
            theirs = torch.load(tmp_path / name, mmap=mmap, weights_only=True)
            alike(files.load(tmp_path / name), theirs)
        torch.save(theirs, tmp_path / "again")
        alike(files.load(tmp_path / "again"), theirs)


def test_tied_weights_stay_tied_in_torch():
    weight = nn.Parameter(minidl.ones(3, 3))
    theirs = to_torch({"a": weight, "b": weight.detach(), "c": minidl.ones(3, 3)})
    assert theirs["a"].data_ptr() == theirs["b"].data_ptr() != theirs["c"].data_ptr()


@pytest.mark.parametrize(
    "obj",
    [
        torch.ones(2).bfloat16(),
        torch.ones(2) * 1j,
        torch.eye(2).to_sparse(),
        torch.bfloat16,
        torch.tensor([1], dtype=torch.uint16),
        torch.nn.Linear(1, 1),
        torch.optim.SGD([torch.ones(1, requires_grad=True)], 0.1),
        np.ones(2),
        np.float64(1),
        print,
        frozenset([1]),
    ],
    ids=repr,
)
def test_what_minidl_lacks_is_refused_by_name(obj):
    with pytest.raises(pickle.UnpicklingError, match=r"^torch\.load: the BytesIO holds "):
        to_minidl({"x": obj})


def test_the_format_before_pytorch_1_6_is_refused_with_the_cure(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(pickle.UnpicklingError, match=r"before PyTorch 1\.6; in PyTorch, write torch\.load\(\.\.\.\)"):
        files.load(tmp_path / "old.pt")
    torch.save(torch.load(tmp_path / "old.pt"), tmp_path / "new.pt")
    assert files.load(tmp_path / "new.pt")["w"].tolist() == [1, 1]


def test_errors_are_of_the_same_type(tmp_path):
    torch.save({"w": torch.ones(100)}, tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    cases = {"cut": content[:-50], "empty": b"", "code": None}
    for name, damaged in cases.items():
        if damaged is None:
            torch.save(print, tmp_path / name)
        else:
            (tmp_path / name).write_bytes(damaged)
        kinds = []
        for read in (files.load, torch.load):
            with pytest.raises(Exception) as raised:  # noqa: PT011
                read(tmp_path / name)
            kinds.append(raised.type)
        assert issubclass(*kinds), (name, kinds)
