"""minidl.save and minidl.load: what goes in comes out, or is refused; a file is old or new, never half."""

import contextlib
import copy
import io
import json
import os
import signal
import subprocess
import sys
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl


def nested(text):
    """Containers of numbers and of strings of at most 5 characters."""
    plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text
    return st.recursive(
        plain,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.dictionaries(text | st.integers(), inner, max_size=3)
        ),
        max_leaves=10,
    )


LETTERS = st.lists(st.sampled_from('a0 ß中😀\0\n"\\/'), max_size=5).map("".join)
ANY_TEXT = st.text(max_size=5)  # for which Hypothesis first reads all of Unicode, for two seconds


@pytest.mark.parametrize("text", [LETTERS, pytest.param(ANY_TEXT, marks=pytest.mark.slow)], ids=["letters", "any text"])
@given(data=st.data())
def test_containers_and_numbers_come_back_as_they_were(tmp_path_factory, text, data):
    obj, path = data.draw(nested(text)), tmp_path_factory.mktemp("saved") / "obj"
    minidl.save(obj, path)
    assert minidl.load(path) == obj
    assert repr(minidl.load(path)) == repr(obj)  # 1 is not True, nor (1,) [1]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_arrays_and_tensors(tmp_path, dtype, shape):
    array = np.ones(shape, dtype)
    minidl.save([array, minidl.Tensor(array), minidl.ones(2, requires_grad=True)], tmp_path / "x")
    a, t, p = minidl.load(tmp_path / "x")
    assert type(a) is np.ndarray
    assert type(t) is minidl.Tensor
    for loaded in (a, t.numpy()):
        assert loaded.dtype == array.dtype
        assert loaded.shape == shape
        assert np.array_equal(loaded, array)
    assert not p.requires_grad


def test_open_files(tmp_path):
    with open(tmp_path / "x.npz", "wb") as file:
        minidl.save({"a": 1}, file)
    assert minidl.load(tmp_path / "x.npz") == {"a": 1}
    buffer = io.BytesIO()
    minidl.save([minidl.ones(2), "b"], buffer)
    buffer.seek(0)
    assert minidl.load(buffer)[0].tolist() == [1, 1]
    with pytest.raises(ValueError, match="BytesIO object .* is damaged, or was not written by minidl.save"):
        minidl.load(io.BytesIO(b"abc"))


def test_the_state_of_a_generator(tmp_path):
    generator = minidl.Generator().manual_seed(5)
    minidl.save(generator.get_state(), tmp_path / "g")
    drawn = minidl.rand(3, generator=generator)
    generator.set_state(minidl.load(tmp_path / "g"))
    assert np.array_equal(minidl.rand(3, generator=generator).numpy(), drawn.numpy())


@pytest.mark.parametrize(
    ("obj", "where"),
    [
        ({"a": [1, {2}]}, r"cannot save obj\['a'\]\[1\], a set"),
        ({"f": print}, "builtin_function_or_method"),
        ({(1, 2): 3}, r"key \(1, 2\) of type tuple"),
        ([np.array(["x"])], r"obj\[0\] is an array of dtype <U1"),
        ([np.array([None])], "array of dtype object"),
    ],
)
def test_what_needs_pickle_is_refused_and_the_old_file_stays(tmp_path, obj, where):
    path = tmp_path / "x"
    minidl.save("old", path)
    with pytest.raises(TypeError, match=where):
        minidl.save(obj, path)
    assert minidl.load(path) == "old"
    assert os.listdir(tmp_path) == ["x"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x"
    minidl.save("old", path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        minidl.save("new", path)
    assert minidl.load(path) == "old"
    assert os.listdir(tmp_path) == ["x"]


KILLED = """
import os, signal, sys, numpy, minidl
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
minidl.save(numpy.zeros(100_000), sys.argv[1])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal on this system")
def test_a_killed_process_leaves_the_old_file(tmp_path):
    minidl.save("old", tmp_path / "x")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "x")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert minidl.load(tmp_path / "x") == "old"
    others = [name for name in os.listdir(tmp_path) if name != "x"]
    assert all(name.startswith(".x.") and name.endswith(".tmp") for name in others)  # what nobody takes for a file


def test_the_name_is_kept_and_the_rights_are_those_of_any_new_file(tmp_path):
    minidl.save(1, tmp_path / "model.ckpt")
    (tmp_path / "other").touch()
    assert (tmp_path / "model.ckpt").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_damage_is_noticed(tmp_path):
    """test_damage.py has more; here is what hides behind the first 4,096 bytes, which np.load checks or not."""
    path = tmp_path / "x"
    minidl.save({"w": minidl.ones(5000)}, path)
    whole = path.read_bytes()
    header = b"'<f4', 'fortran_order': False, 'shape': (5000,), }"
    for damaged in (
        header.replace(b"5000", b"10  "),  # fewer values, and the others never looked at
        header.replace(b"5000", b"0000"),
        header.replace(b"<f4", b"<f2"),
        header.replace(b"<f4", b"|i1"),
        header[:-4] + b"00000000, )",  # more than any memory
        header[:-4],
    ):
        path.write_bytes(whole.replace(header.ljust(len(damaged)), damaged.ljust(len(header))))
        assert path.read_bytes() != whole
        with pytest.raises(ValueError, match=r"x is damaged, or was not written by minidl\.save: Bad CRC"):
            minidl.load(path)
    path.write_bytes(whole.replace(np.ones(2, np.float32).tobytes(), np.zeros(2, np.float32).tobytes()))
    with pytest.raises(ValueError, match="Bad CRC"):
        minidl.load(path)


# -- files with right checksums and wrong content ---------------------------------------------------------------


@contextlib.contextmanager
def memory_at_most(size):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def npy(values, version=(1, 0), **header):
    """The bytes of an npy file; `header` changes what its header says."""
    values = np.asarray(values)
    said = {"descr": values.dtype.str, "fortran_order": False, "shape": values.shape} | header
    text = f"{said}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return (
        b"\x93NUMPY"
        + bytes(version)
        + len(text).to_bytes(2 if version == (1, 0) else 4, "little")
        + text
        + bytes(values.data)
    )


def text(root):
    content = root if isinstance(root, bytes) else json.dumps({"format": 1, "root": root}).encode()
    return npy(np.frombuffer(content, np.uint8))


FIRST = ["list", [["array", "0.array"]]]
VALUES = np.arange(6.0)


def made(*members, root=FIRST, compression=zipfile.ZIP_STORED):
    """A zip archive of `members`, pairs of a name and content, and the structure."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in [*members, ("structure.json.npy", text(root))]:
            archive.writestr(name, content)
    return raw.getvalue()


def of_array(content, **kwargs):
    return made(("0.array.npy", content), **kwargs)


def patched(at, value, size=2):
    """A sound file with one field of its first entry in the directory overwritten."""
    data = bytearray(of_array(npy(VALUES)))
    at += data.index(b"PK\1\2")
    data[at : at + size] = value.to_bytes(size, "little")
    return bytes(data)


def test_the_archives_made_here_are_sound_but_for_what_is_done_to_them(tmp_path):
    for data in (of_array(npy(VALUES)), patched(10, 0), made(root={"a": 1})):
        (tmp_path / "x").write_bytes(data)
        loaded = minidl.load(tmp_path / "x")
        assert loaded == {"a": 1} or loaded[0].tolist() == VALUES.tolist()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (of_array(npy(VALUES, shape=(2**40,))), "cannot reshape array of size 6 into shape"),
        (of_array(npy(VALUES, shape=(2**62, 2**62, 6))), "cannot reshape|too many|too large|too big|Maximum"),
        (of_array(npy(VALUES, shape=(5,))), "cannot reshape array of size 6"),
        (of_array(npy(VALUES, shape=())), "cannot reshape array of size 6"),
        (of_array(npy(VALUES, shape=(-2, -3))), "can only specify one unknown dimension"),
        (of_array(npy(VALUES, shape="6")), "shape is not valid"),
        (of_array(npy(VALUES, descr="|O")), "0.array.npy is an array of object, which save never writes"),
        (of_array(npy(VALUES, descr="<U12")), "0.array.npy is an array of <U12"),
        (of_array(npy(VALUES, descr=[("a", "<f8")])), "0.array.npy is an array of "),
        (of_array(npy(VALUES, descr="<M8[s]")), "0.array.npy is an array of datetime64"),
        (of_array(npy(VALUES, descr="<f7")), "descr is not a valid dtype"),
        (of_array(npy(VALUES, descr=["(" * 2000])), "large and may not be safe"),
        (of_array(npy(VALUES, version=(3, 0))), r"of version \(3, 0\) of the npy format, expected \(1, 0\)"),
        (of_array(npy(VALUES).replace(b"(6,)", b"((((")), "EOF in multi-line statement|never closed|Cannot parse"),
        (of_array(npy(VALUES)[:-1]), "buffer size must be a multiple"),
        (of_array(npy(VALUES)[:50]), "EOF: reading array header"),
        (of_array(b""), "EOF: reading magic string"),
        (of_array(b"no array at all"), "the magic string is not correct"),
        (made(), "0.array is not in it, or is asked for twice"),
        (of_array(npy(VALUES), root=["list", 2 * FIRST[1]]), "0.array is not in it, or is asked for twice"),
        (made(("0.array.npy", npy(VALUES)), ("1.array.npy", npy(VALUES))), "nothing in .* asks for 1.array"),
        (made(("0.array.npy", npy(VALUES)), ("0.array.npy", npy(VALUES))), "it has 0.array twice"),
        (made(("0.array.npy", npy(VALUES)), ("0.array", npy(VALUES))), "it has 0.array twice"),
        (made(("../0.array.npy", npy(VALUES))), "0.array is not in it"),
        (of_array(npy(np.zeros(10_000_000)), compression=zipfile.ZIP_DEFLATED), "0.array is compressed"),
        (of_array(npy(VALUES), compression=zipfile.ZIP_LZMA), "0.array is compressed"),
        (patched(8, 1), "encrypted"),
        (patched(10, 14), "0.array is compressed"),
        (patched(10, 77), "0.array is compressed"),
        (patched(20, 2**31, size=4), "its arrays claim to have 2,147,48.* bytes, but the file has"),
        (patched(24, 2**31, size=4), "its arrays claim to have 2,147,48.* bytes, but the file has"),
        (patched(24, 100, size=4), "Bad CRC"),
        (patched(46, ord("1"), size=1), "File name in directory .* and header .* differ"),
        (of_array(npy(VALUES), root=b"{"), "Expecting property name"),
        (of_array(npy(VALUES), root=b"\xff"), "codec can't decode"),
        (of_array(npy(VALUES), root=b"[]"), "list indices must be"),
        (of_array(npy(VALUES), root=b'{"format": 2}'), "format 2 is not known"),
        (of_array(npy(VALUES), root=["set", []]), "set"),
        (of_array(npy(VALUES), root=["list", 5]), "not iterable"),
        (of_array(npy(VALUES), root=["array", ["0.array"]]), "unhashable"),
        (of_array(npy(VALUES), root=b'{"format": 1, "root": ' + 100_000 * b'["list", ['), "recursion"),
    ],
)
def test_wrong_content_is_refused_and_takes_no_memory(tmp_path, data, message):
    path = tmp_path / "x"
    path.write_bytes(data)
    refusal = f"x is damaged, or was not written by minidl\\.save: .*(?s:{message})"
    with memory_at_most(500_000 + 10 * len(data)), pytest.raises(ValueError, match=refusal):
        minidl.load(path)


def test_files_of_minidl_with_numpy_2_0_and_2_1_are_read(tmp_path):
    """Their np.savez took its own argument allow_pickle for an array, and minidl passed it."""
    path = tmp_path / "model.npz"
    minidl.save({"w": np.ones(2)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        assert archive.namelist() == ["0.array.npy", "structure.json.npy"]
        with archive.open("allow_pickle.npy", "w") as member:
            np.lib.format.write_array(member, np.asarray(False))
    np.testing.assert_array_equal(minidl.load(path)["w"], [1, 1])


def test_members_that_share_their_bytes(tmp_path):
    """Ten thousand entries of the directory that lead to one array would be a bomb."""
    content = npy(np.zeros(100_000))
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("0.array.npy", content)
        for i in range(1, 2000):
            member = copy.copy(archive.infolist()[0])
            member.filename = f"{i}.array.npy"
            archive.filelist.append(member)
        archive.writestr("structure.json.npy", text(["list", [["array", f"{i}.array"] for i in range(2000)]]))
    (tmp_path / "x").write_bytes(raw.getvalue())
    with pytest.raises(ValueError, match=r"its arrays claim to have 1,600,\d+,\d+ bytes, but the file has"):
        minidl.load(tmp_path / "x")


def test_a_large_file_takes_twice_its_size_at_most(tmp_path):
    minidl.save({"w": np.zeros(4_000_000), "f": np.asfortranarray(np.ones((1000, 1000)))}, tmp_path / "x")
    size = (tmp_path / "x").stat().st_size
    with memory_at_most(2 * size):
        loaded = minidl.load(tmp_path / "x")
    assert loaded["f"].flags.f_contiguous
    assert loaded["w"].flags.writeable


def test_what_cannot_be_opened_is_not_called_damaged(tmp_path):
    with pytest.raises(IsADirectoryError):
        minidl.load(tmp_path)


def test_foreign_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        minidl.load(tmp_path / "missing")
    np.savez(tmp_path / "foreign.npz", a=np.ones(2))
    with pytest.raises(ValueError, match="was not written by minidl.save"):
        minidl.load(tmp_path / "foreign.npz")
    np.save(tmp_path / "object.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="was not written by minidl.save"):
        minidl.load(tmp_path / "object.npy")


def test_the_file_is_an_npz_with_json(tmp_path):
    minidl.save({"w": minidl.ones(2)}, tmp_path / "x.npz")
    assert set(zipfile.ZipFile(tmp_path / "x.npz").namelist()) == {"0.array.npy", "structure.json.npy"}
    with np.load(tmp_path / "x.npz") as archive:
        assert json.loads(archive["structure.json"].tobytes())["format"] == 1
