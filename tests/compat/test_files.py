"""torch.save and torch.load without PyTorch: its files are read, what is no tensor or plain container is refused.

torch_files.txt holds a file that PyTorch wrote; test_torch_files.py compares both libraries.
"""

import base64
import builtins
import contextlib
import io
import math
import operator
import os
import pickle
import tracemalloc
import zipfile
import zlib
from collections import Counter, OrderedDict, defaultdict, namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import nn, optim
from minidl.compat.files import load, save
from tests.helpers import cupy_stand_in

LINES = Path(__file__).with_name("torch_files.txt").read_text().splitlines()[1:]
WRITTEN = zlib.decompress(base64.b64decode("".join(LINES)))  # by PyTorch
DTYPES = "bool uint8 int8 int16 int32 int64 float16 float32 float64".split()


def loaded(content, **kwargs):
    return load(io.BytesIO(content), **kwargs)


def saved(obj):
    file = io.BytesIO()
    save(obj, file)
    return file.getvalue()


def same(a, b):
    """Equal values of the same types, tensors included."""
    if isinstance(a, minidl.Tensor):
        flags = a.requires_grad == b.requires_grad
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and flags and minidl.equal(a, b)
    if isinstance(a, dict):
        keys = [sorted(map(repr, x)) for x in (a, b)]  # 1 is not True
        return type(a) is type(b) and keys[0] == keys[1] and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b if isinstance(a, set) else repr(a) == repr(b))


# -- what PyTorch wrote -----------------------------------------------------------------------------------------


@pytest.fixture
def content():
    return WRITTEN


def test_what_torch_wrote_is_read(content):
    obj = loaded(content)
    plain = {"epoch": 3, "loss": 0.25, "name": "é", "none": None, "flags": [True, False], "big": -(2**70)}
    plain |= {"size": (3, 4), "device": minidl.device("cpu"), "dtype": minidl.float16, (1, 2): "pair"}
    plain |= {"set": {1, 2}, "counter": Counter([4, 4, 5]), "empty": minidl.zeros(0, 3), "scalar": minidl.tensor(7)}
    plain |= {"parameter": nn.Parameter(minidl.ones(2)), "frozen": nn.Parameter(minidl.ones(2), False)}
    plain |= {"dtypes": {name: minidl.tensor([0, 1], dtype=name) for name in DTYPES}}
    for key, value in plain.items():
        assert same(obj[key], value), key
    assert list(obj) == [*"epoch loss name none flags big model optimizer shared expanded dtypes empty scalar".split(),
                         *"parameter frozen size device dtype set counter".split(), (1, 2)]  # fmt: skip


def test_tensors_that_share_a_storage_still_do(content):
    x, transposed, part = loaded(content)["shared"]
    x[1, 2] = -1
    assert transposed.tolist() == [[0, 4, 8], [1, 5, 9], [2, -1, 10], [3, 7, 11]]
    assert part.tolist() == [[4, -1], [8, 10]]
    transposed.requires_grad_()
    y = transposed * transposed
    part.add_(1)  # the tape knows that this is the same memory
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_an_expanded_tensor_stays_a_view(content):
    x = loaded(content)["expanded"]
    assert x.tolist() == [1, 1, 1]
    with pytest.raises(RuntimeError, match="cannot be written to"):
        x.add_(1)


def test_a_checkpoint_of_torch_goes_on_here(content):
    checkpoint = loaded(content)
    layer = nn.Linear(2, 1)
    layer.load_state_dict(checkpoint["model"])
    adam = optim.Adam(layer.parameters(), 1.0)
    adam.load_state_dict(checkpoint["optimizer"])
    [group], state = adam.param_groups, adam.state[layer.weight]
    assert (group["lr"], group["betas"], state["step"]) == (0.5, (0.9, 0.999), 1)
    assert minidl.allclose(state["exp_avg"], minidl.full((1, 2), 0.1))
    before = layer.weight.detach().clone()
    layer(minidl.ones(1, 2)).sum().backward()
    adam.step()
    assert minidl.allclose(before - layer.weight, minidl.full((1, 2), 0.5))  # as at the first step: the same gradient


def test_paths_and_open_files(tmp_path, content):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with open(path, "rb") as file:
        loads = [load(path), load(str(path), None, pickle, weights_only=True, mmap=True), load(file, encoding="ascii")]
    assert all(same(obj["dtypes"], loads[0]["dtypes"]) for obj in loads)


# -- hostile pickles --------------------------------------------------------------------------------------------


def archive(program, *storages, byteorder=b"little", compression=zipfile.ZIP_STORED, **more):
    file = io.BytesIO()
    members = {"data.pkl": program, "byteorder": byteorder, "version": b"3\n"} | more
    with zipfile.ZipFile(file, "w", compression) as written:
        for name, content in members.items():
            written.writestr(f"archive/{name}", content)
        for i, storage in enumerate(storages):
            written.writestr(f"archive/data/{i}", storage)
    return file.getvalue()


class Calls:
    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


CANARY = []
HOSTILE = {
    "os.system": Calls(os.system, "exit 1"),
    "builtins.eval": Calls(eval, "__import__('os')._exit(1)"),
    "builtins.exec": Calls(exec, "1/0"),
    "builtins.getattr": Calls(getattr, Calls(__import__, "os"), "system"),
    "builtins.__import__": Calls(__import__, "os"),
    "builtins.print": print,
    "operator.attrgetter": Calls(operator.attrgetter("system"), os),
    "tests.compat.test_files.CANARY": Calls(CANARY.append, 1),
    "minidl.tensor.Tensor": minidl.Tensor,
    "collections.defaultdict": defaultdict(list),
    "numpy": np.float64(1),
}


@pytest.mark.parametrize("nested", [lambda x: x, lambda x: {"state": [(1, x)]}], ids=["alone", "nested"])
@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_code_are_refused_before_anything_runs(monkeypatch, tmp_path, name, nested):
    if name.startswith(("operator", "tests")):
        program = f"c{name[: name.rindex('.')]}\n{name[name.rindex('.') + 1 :]}\n.".encode()
    else:
        program = pickle.dumps(nested(HOSTILE[name]), 2)
    said = name.replace("os.", f"{os.name if os.name == 'nt' else 'posix'}.").replace("builtins", "__builtin__")
    (tmp_path / "bad.pt").write_bytes(archive(program))
    with pytest.raises(pickle.UnpicklingError, match=rf"torch.load: .*bad.pt holds {said}.*never unpickles code"):
        load(tmp_path / "bad.pt", weights_only=False)
    assert not CANARY


def test_the_usual_way_in_is_open_in_pickle():
    """These programs are what they seem to be: Python's own unpickler runs them."""
    assert pickle.loads(pickle.dumps(Calls(eval, "6 * 7"), 2)) == 42


REFUSED = {
    b"cos\nsystem\n(S'exit 1'\ntR.": "os.system",
    b"(S'exit 1'\nios\nsystem\n.": "needs STRING of pickle protocol 0",
    b"(ios\nsystem\n.": "needs INST",
    b"\x80\x02(c__main__\nX\no.": "__main__.X",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93.": "needs SHORT_BINUNICODE of pickle protocol 4",
    b"\x80\x02X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93.": "needs STACK_GLOBAL",
    b"\x80\x02\x82\x01.": "needs EXT1",
    b"\x80\x02ccollections\nOrderedDict\n)\x81.": "needs NEWOBJ",
    b"\x80\x02Pmodule\n.": "needs PERSID",
    b"\x80\x02K\x012.": "needs DUP",
    b"\x80\x02ccollections\nOrderedDict\x00\n)R.": "which is not a tensor",
    b"\x80\x02ctorch\nBFloat16Storage\n.": "torch.BFloat16Storage, which is not a tensor that minidl has",
    b"\x80\x02ctorch.cuda\nFloatTensor\n.": "torch.cuda.FloatTensor, which is not",
    b"\x80\x02c__main__\nNet\n)R}(X\x0b\x00\x00\x00_parametersX\x08\x00\x00\x00_modules": r"whole module \(__main__",
}


@pytest.mark.parametrize("program", REFUSED)
def test_instructions_and_names_that_torch_does_not_need(program):
    with pytest.raises(pickle.UnpicklingError, match=f"the BytesIO .*{REFUSED[program]}"):
        loaded(archive(program))


def called(name, args):
    return b"c" + name.replace(" ", "\n").encode() + b"\n" + args + b"R"


def tensor(size=(2, 3), stride=(3, 1), offset=0, kind="Float", key="0", numel=6, location="cpu"):
    one, *others = (pickle.dumps(value, 2)[2:-1] for value in ("storage", key, location, numel, offset, size, stride))
    storage = b"(" + one + f"ctorch\n{kind}Storage\n".encode() + b"".join(others[:3]) + b"tQ"
    rest = b"".join(others[3:]) + b"\x89" + called("collections OrderedDict", b")")
    return called("torch._utils _rebuild_tensor_v2", b"(" + storage + rest + b"t")


SIX = np.arange(6, dtype=np.float32).tobytes()
DEEP = b")" + 10_000 * b"\x85"  # a tuple in a tuple in ...
LAUGHS = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60))  # a list of 2^60
DAMAGED = {
    "append to a tuple": b")K\x01a.",
    "append to a tensor": tensor() + b"K\x01a.",
    "set items of a tensor": tensor() + b"K\x00K\x01s.",
    "set items of a Counter": called("collections Counter", b"}\x85") + b"K\x00K\x01s.",
    "set items of a set": called("builtins set", b"]\x85") + b"K\x00K\x01s.",
    "build a tensor": tensor() + b"}b.",
    "build a type": b"ccollections\nOrderedDict\n}b.",
    "build a function of this file": b"ctorch\nSize\nN}X\x08\x00\x00\x00__code__Ns\x86b.",
    "call a tensor": tensor() + b")R.",
    "call a string": b"X\x01\x00\x00\x00x)R.",
    "call with a list": b"ccollections\nOrderedDict\n]R.",
    "an odd number of items": b"}(K\x01u.",
    "more than the stack has": b"K\x01\x86.",
    "below the mark": b"K\x01(K\x02\x86.",
    "no mark": b"K\x01t.",
    "an empty stack": b".",
    "no end": b"K\x01",
    "no newline": b"cos",
    "no memo": b"h\x07.",
    "nothing to put": b"q\x00.",
    "a deep key": b"}" + DEEP + b"K\x01s.",
    "a deep key of an OrderedDict": called("collections OrderedDict", b"]]" + DEEP + b"aK\x01aa\x85") + b".",
    "a deep member of a set": called("builtins set", b"]" + DEEP + b"a\x85") + b".",
    "counts": called("collections Counter", b"]" + DEEP + b"a\x85") + b".",
    "a tensor as key": b"}" + tensor() + b"K\x01s.",
    "a deep persistent id": DEEP + b"Q.",
    "a deep storage key": b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + DEEP + b"X\x03\x00\x00\x00cpuK\x06tQ.",
    "a persistent id in another": b"(" + tensor() + b"K\x01tQ.",
    "a persistent string": b"X\x05\x00\x00\x00modulQ.",
    "a deep size": tensor().replace(pickle.dumps((2, 3), 2)[2:-1], DEEP) + b".",
    "a size of 2^60": LAUGHS + tensor().replace(pickle.dumps((2, 3), 2)[2:-1], b"h\x3c") + b".",
    "a device of 2^60": LAUGHS + called("torch device", b"\x85") + b".",
    "a deep parameter": called("torch._utils _rebuild_parameter", b"(" + DEEP + b"\x88Nt") + b".",
    "a parameter of integers": called("torch._utils _rebuild_parameter", b"(" + tensor(kind="Int") + b"\x88Nt") + b".",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_python_would_follow_to_its_end_is_refused(name):
    with pytest.raises(RuntimeError, match=r"torch\.load: the BytesIO is damaged, or was not written by torch\.save: "):
        loaded(archive(b"\x80\x02" + DAMAGED[name], SIX))


def test_recursion_and_depth_are_data():
    [inner] = loaded(archive(b"\x80\x02]q\x00h\x00a."))
    assert inner[0] is inner
    deep, depth = loaded(archive(b"\x80\x02" + 100_000 * b"]" + 99_999 * b"a" + b".")), 0
    while deep:
        [deep], depth = deep, depth + 1
    assert depth == 99_999


@contextlib.contextmanager
def memory_at_most(size):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [
        archive(b"\x80\x02K\x01r\xff\xff\xff\xff."),  # a memo of 2^32 entries
        archive(b"\x80\x02X\xff\xff\xff\xffabc."),  # a string of 2^32 bytes
        archive(b"\x80\x02" + tensor(size=(10**6, 10**6), stride=(0, 0)) + b".", SIX),  # read, as a view
        archive(b"\x80\x02" + tensor(numel=10**12) + b".", SIX),
        archive(b"\x80\x02N.", bytes(10**8), compression=zipfile.ZIP_DEFLATED),
    ],
    ids=["memo", "string", "expanded", "storage", "deflated"],
)
def test_what_a_file_claims_costs_no_memory(content):
    with memory_at_most(10**7), contextlib.suppress(RuntimeError):
        loaded(content)


# -- tensors ----------------------------------------------------------------------------------------------------


@given(st.data())
def test_a_tensor_is_the_view_that_its_numbers_say_or_refused(data):
    ndim = data.draw(st.integers(0, 3))
    size, stride = (tuple(data.draw(st.lists(st.integers(0, 4), min_size=ndim, max_size=ndim))) for _ in "12")
    offset = data.draw(st.integers(0, 7))
    reached = {
        offset + sum(i * step for i, step in zip(at, stride, strict=True)): at
        for at in np.ndindex(*size)
    }  # fmt: skip
    content = archive(b"\x80\x02" + tensor(size, stride, offset) + b".", SIX)
    if max(reached, default=0) > 5:
        with pytest.raises(
            RuntimeError, match=f"from element {offset} needs a storage of {max(reached) + 1} elements, not 6"
        ):
            loaded(content)
        return
    x = loaded(content)
    assert (x.shape, x.dtype) == (size, minidl.float32)
    assert all(x.numpy()[at] == element for element, at in reached.items())
    assert x.array.flags.writeable or math.prod(size) > len(reached)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offset": -1}, "at least 0 in its pickle, not -1"),
        ({"size": (-2, 3)}, "at least 0 in its pickle, not -2"),
        ({"stride": (-3, 1)}, "at least 0 in its pickle, not -3"),
        ({"stride": (3,)}, "zip"),
        ({"size": (2.0, 3)}, "expected a int in its pickle, not a float"),
        ({"size": (2**62, 2**62), "stride": (0, 0)}, "too big|too large|Maximum"),
        ({"size": (1,) * 70, "stride": (1,) * 70}, "maximum"),
        ({"size": (1, 2), "stride": (2**70, 1)}, "Maximum|too large"),
        ({"numel": 7}, "storage 0 has 6 elements of float32, not 7 of float32"),
        ({"kind": "Double"}, "storage 0 has 3 elements of float64, not 6 of float64"),
        ({"kind": "Long"}, "storage 0 has 3 elements of int64, not 6 of int64"),
        ({"key": "1"}, "no item named 'archive/data/1'"),
        ({"key": "../0"}, "no item named"),
    ],
)
def test_tensors_that_leave_their_storage_are_refused(tmp_path, changes, message):
    (tmp_path / "x.pt").write_bytes(archive(b"\x80\x02" + tensor(**changes) + b".", SIX))
    with pytest.raises(RuntimeError, match=f"x.pt is damaged, .*{message}"):
        load(tmp_path / "x.pt")


def test_a_storage_has_one_dtype():
    program = b"\x80\x02" + tensor() + tensor(kind="Int") + b"\x86."
    with pytest.raises(RuntimeError, match="storage 0 has 6 elements of float32, not 6 of int32"):
        loaded(archive(program, SIX))


@pytest.mark.parametrize(("byteorder", "dtype"), [(b"little", "<f4"), (b"big", ">f4")])
def test_either_byte_order_is_read(byteorder, dtype):
    content = np.arange(6, dtype=dtype).tobytes()
    x = loaded(archive(b"\x80\x02" + tensor() + b".", content, byteorder=byteorder))
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(RuntimeError, match="damaged.*middle"):
        loaded(archive(b"\x80\x02N.", byteorder=b"middle"))


# -- damaged files ----------------------------------------------------------------------------------------------


def test_a_truncated_file_is_refused(content):
    for length in [1, 2, 3, *range(4, len(content), 97), len(content) - 1]:
        with pytest.raises((RuntimeError, pickle.UnpicklingError), match=r"^torch\.load: the BytesIO "):
            loaded(content[:length])


WHOLE = repr(loaded(WRITTEN))


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_without_effect(at, bit):
    content = bytearray(WRITTEN)
    content[int(at * len(content))] ^= 1 << bit
    with contextlib.suppress(RuntimeError, pickle.UnpicklingError):
        obj = loaded(bytes(content))
        assert repr(obj) == WHOLE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "not a zip file"),
        (archive(b"\x80\x02N.", compression=zipfile.ZIP_DEFLATED), "is compressed"),
        (archive(b"\x80\x02N.", **{"x/data.pkl": b"\x80\x02N."}), "too many values"),
        (archive(b"\x80\x02N.").replace(b"data.pkl", b"data.txt"), "no item named 'data.pkl'"),
        (archive(b"\x80\x02N.").replace(b"\x80\x02N.", b"\x80\x02\x88."), "Bad CRC"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(print), r"before PyTorch 1\.6; in PyTorch, write"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises((RuntimeError, pickle.UnpicklingError), match=rf"^torch\.load: .*x\.pt .*{message}"):
        load(tmp_path / "x.pt")


def test_files_that_are_not_there_or_at_their_end(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        load(tmp_path / "nothing.pt")
    file = io.BytesIO()
    save({}, file)
    with pytest.raises(EOFError, match=r"nothing to read here; .* call seek\(0\)"):
        load(file)


# -- map_location -----------------------------------------------------------------------------------------------


def test_map_location():
    gpu = archive(b"\x80\x02" + tensor(location="mps:0") + b".", SIX)
    seen = []

    def keep(storage, location):
        seen.append((storage.shape, location))
        return storage

    for place in ("cpu", minidl.device("cpu"), {"mps:0": "cpu"}, keep):
        assert loaded(gpu, map_location=place).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert seen == [((6,), "mps:0")]
    for place in (None, {"cuda:0": "cpu"}, lambda storage, location: None):
        with pytest.raises(RuntimeError, match=r"a storage was saved from 'mps:0': .*pass map_location='cpu'"):
            loaded(gpu, map_location=place)
    with pytest.raises(TypeError, match="expected a name such as 'cpu'"):
        loaded(gpu, map_location=3)


def test_a_gpu(monkeypatch, content):
    cupy_stand_in.install(monkeypatch)
    obj = loaded(content, map_location=lambda storage, location: storage.cuda())
    assert obj["parameter"].is_cuda
    assert obj["parameter"].requires_grad
    assert same(obj["shared"][1].cpu(), loaded(content)["shared"][1])
    again = saved({"x": obj["shared"][1], "p": obj["parameter"]})
    assert loaded(again)["x"].is_cuda  # where it was
    assert same(loaded(again, map_location="cpu")["x"], loaded(content)["shared"][1])


# -- saving -----------------------------------------------------------------------------------------------------

letters = st.lists(st.sampled_from('a0 ß中😀\0\n"\\/'), max_size=5).map("".join)  # st.text() reads all of Unicode first
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | letters
keys = plain | st.tuples(plain, plain)
nested = st.recursive(
    plain | st.sets(keys, max_size=3) | st.dictionaries(keys, st.integers(), max_size=2).map(Counter),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(letters, inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=10,
)


@given(nested)
def test_containers_and_numbers_come_back_as_they_were(obj):
    assert same(loaded(saved(obj)), obj)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (3,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_come_back_in_c_order(dtype, shape):
    x = minidl.Tensor(np.asfortranarray(np.arange(math.prod(shape)).reshape(shape).astype(dtype)))
    y = loaded(saved([x]))[0]
    assert same(x, y)
    assert y.array.flags.c_contiguous
    assert y.array.flags.writeable


def test_parameters_and_scalars():
    obj = [nn.Parameter(minidl.ones(2)), nn.Parameter(minidl.ones(2), False), minidl.ones(2, requires_grad=True)]
    assert same(loaded(saved(obj)), obj)
    numbers = loaded(saved([np.float64(0.5), np.int32(3), np.bool_(True)]))
    assert same(numbers, [0.5, 3, True])


def test_tied_weights_stay_tied():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    state = loaded(saved(model.state_dict()))
    state["0.weight"].fill_(7)
    assert state["1.weight"].tolist() == state["0.weight"].tolist()
    assert state["0.bias"].tolist() != state["1.bias"].tolist()


def test_a_checkpoint_goes_on_as_if_it_had_not_stopped():
    def trained(steps, checkpoint=None):
        minidl.manual_seed(0)
        model = nn.Linear(3, 2)
        adam = optim.Adam(model.parameters(), 0.1)
        schedule = optim.lr_scheduler.MultiStepLR(adam, [1, 3])
        parts = {"model": model, "adam": adam, "schedule": schedule}
        for name, part in parts.items():
            if checkpoint:
                part.load_state_dict(checkpoint[name])
        for _ in range(steps):
            model(minidl.ones(1, 3)).sum().backward()
            adam.step()
            schedule.step()
            adam.zero_grad()
        return {name: part.state_dict() for name, part in parts.items()}

    assert same(loaded(saved(trained(2, loaded(saved(trained(2)))))), loaded(saved(trained(4))))


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("obj", "error", "where"),
    [
        ({"a": [1, print]}, TypeError, r"cannot save obj\['a'\]\[1\], a builtin_function_or_method"),
        (nn.Linear(1, 1), TypeError, r"cannot save obj, a Linear; save the state_dict\(\) of models"),
        ({"x": np.ones(2)}, TypeError, r"obj\['x'\], a ndarray; .*arrays as tensors"),
        ([b"x"], TypeError, r"obj\[0\], a bytes"),
        ({(1, (2,)): 3}, TypeError, "a key must be a number, a string or a tuple of these, not a tuple"),
        ({minidl.ones(1): 3}, TypeError, "a key must be a number, .*not a Tensor"),
        (HOSTILE["os.system"], TypeError, "obj, a Calls"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_the_old_file_stays(tmp_path, obj, error, where):
    save("old", tmp_path / "x.pt")
    with pytest.raises(error, match=where):
        save(obj, tmp_path / "x.pt")
    assert load(tmp_path / "x.pt") == "old"
    assert os.listdir(tmp_path) == ["x.pt"]


def test_nothing_is_written_to_an_open_file_before_an_error():
    file = io.BytesIO()
    with pytest.raises(TypeError, match="cannot save"):
        save([minidl.ones(2), print], file)
    assert file.getvalue() == b""


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    save("old", tmp_path / "x.pt")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError, match="No space left"):
        save("new", tmp_path / "x.pt")
    assert load(tmp_path / "x.pt") == "old"
    assert os.listdir(tmp_path) == ["x.pt"]


@pytest.mark.parametrize("name", ["x.pt", "x.pth", "x.ckpt", "x.pth.tar", "x.bin", "x"])
def test_the_format_is_torchs_unless_the_name_says_npz(tmp_path, name):
    save({"w": minidl.ones(2)}, tmp_path / name)
    save({"w": minidl.ones(2)}, str(tmp_path / "y.npz"), pickle, 2, _use_new_zipfile_serialization=False)
    assert "archive/data.pkl" in zipfile.ZipFile(tmp_path / name).namelist()
    assert same(minidl.load(tmp_path / "y.npz"), load(tmp_path / name))
    os.rename(tmp_path / "y.npz", tmp_path / name)  # what a file is, its contents say
    assert load(tmp_path / name, map_location=lambda storage, location: storage)["w"].tolist() == [1, 1]
    with open(tmp_path / name, "rb") as file:
        assert load(file, "cpu")["w"].tolist() == [1, 1]
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1])
    with pytest.raises(RuntimeError, match="x.* is damaged"):
        load(tmp_path / name)


def test_the_same_object_gives_the_same_file(tmp_path):
    obj = {"a": minidl.ones(3), "b": [minidl.zeros(5, dtype=minidl.int8), minidl.ones(2, 2)]}
    with open(tmp_path / "x", "wb") as file:
        save(obj, file)
    assert (tmp_path / "x").read_bytes() == saved(obj)


def test_the_builtins_are_as_they_were():
    """No name in a pickle has reached past this reader's own table."""
    assert builtins.set is set
    assert loaded(archive(b"\x80\x02c__builtin__\nset\n]K\x01a\x85R.")) == {1}
