"""minidl.save and minidl.load: what goes in comes out, or is refused; a file is old or new, never half."""

import json
import os
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
nested = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(nested)
def test_containers_and_numbers_come_back_as_they_were(tmp_path_factory, obj):
    path = tmp_path_factory.mktemp("saved") / "obj"
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


def test_the_state_of_a_generator(tmp_path):
    generator = minidl.Generator().manual_seed(5)
    minidl.save(generator.get_state(), tmp_path / "g")
    drawn = minidl.rand(3, generator=generator)
    generator.set_state(minidl.load(tmp_path / "g"))
    assert np.array_equal(minidl.rand(3, generator=generator).numpy(), drawn.numpy())


@pytest.mark.parametrize(
    ("obj", "where"),
    [
        ({"a": [1, {2}]}, r"obj\['a'\]\[1\] is a set"),
        ({"f": print}, "builtin_function_or_method"),
        ({(1, 2): 3}, r"key \(1, 2\) of type tuple"),
        ([np.array(["x"])], r"obj\[0\] is an array of <U1"),
        ([np.array([None])], "array of object"),
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


def test_the_name_is_kept_and_the_rights_are_those_of_any_new_file(tmp_path):
    minidl.save(1, tmp_path / "model.ckpt")
    (tmp_path / "other").touch()
    assert (tmp_path / "model.ckpt").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_damage_is_noticed(tmp_path):
    path = tmp_path / "x"
    minidl.save({"w": minidl.ones(100)}, path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 50):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="x is damaged, or was not written by minidl.save"):
            minidl.load(path)
    path.write_bytes(whole.replace(np.ones(100, np.float32).tobytes(), np.zeros(100, np.float32).tobytes()))
    with pytest.raises(ValueError, match="CRC"):
        minidl.load(path)


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
