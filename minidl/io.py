"""Saving and loading: one npz file with the arrays, and the rest as JSON. No pickle, so loading runs no code."""

from __future__ import annotations

import contextlib
import io
import json
import os
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from minidl.device import as_device
from minidl.kernels import devices
from minidl.kernels.devices import Device
from minidl.tensor import Array, Tensor

FileLike = str | os.PathLike[str] | IO[bytes]
STRUCTURE = "structure.json"
FORMAT = 1
KINDS = "biufc"  # kinds of NumPy dtypes that hold numbers or bools, and so need no pickle
STRAY = "allow_pickle"  # an unused array in files that older versions of minidl wrote with NumPy 2.0 or 2.1


def save(obj: Any, f: FileLike) -> None:
    """Write dicts, lists, tuples, tensors, arrays, numbers, strings, bools and None to a file.

    The data goes to a temporary file in the same folder, which is flushed to disk and then renamed. If the process is
    killed at any point, `f` is either the old file or the new one, intact.

    Parameters
    ----------
    obj : nested containers
        For example a model's ``state_dict()``, or a dict with several of these.
    f : path or open binary file
        A path is used as it is; no extension is added.

    Raises
    ------
    TypeError
        If `obj` contains anything else; the message says where. Nothing is written.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import minidl, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "model.npz")
    >>> save({"weights": minidl.ones(2), "epoch": 3}, path)
    >>> load(path)["epoch"]
    3
    """
    arrays: dict[str, Any] = {}
    structure = {"format": FORMAT, "root": _encode(obj, "obj", arrays)}
    arrays[STRUCTURE] = np.frombuffer(json.dumps(structure).encode(), np.uint8)
    with contextlib.nullcontext(f) if hasattr(f, "write") else replacing(f) as file:
        np.savez(file, **arrays)  # never pickles: _encode_array passes numbers and bools only


@contextlib.contextmanager
def replacing(f: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write to, which becomes `f` once the block has ended without an error."""
    path = Path(os.path.realpath(f))  # a link is followed, not replaced
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save: there is no folder {path.parent}; make it first")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(f: FileLike, map_location: Any = None) -> Any:
    """Read what ``save`` wrote: the same containers, with tensors as tensors.

    Parameters
    ----------
    f : path or open binary file
    map_location : device, optional
        The device of the tensors; by default the CPU, whatever it was when they were saved.

    Raises
    ------
    OSError
        If the file does not exist or cannot be opened.
    ValueError
        If the file is damaged, or was not written by ``save``. The contents are verified against the file's checksums,
        and reading needs no more than a few times the file's size in memory.
    """
    target = as_device(map_location)
    with open(f, "rb") if isinstance(f, str | os.PathLike) else contextlib.nullcontext(f) as file:
        return read(file, str(f), target)


def read(file: IO[bytes], name: str, target: Device) -> Any:
    """What ``save`` wrote to the file of this name."""
    try:
        return _read(file, target)
    except MemoryError:  # not a damaged file: no more was requested than its size justifies
        raise
    except Exception as error:  # zipfile and json do not document what they raise for damaged files
        raise ValueError(f"{name} is damaged, or was not written by minidl.save: {error}") from error


def _read(file: IO[bytes], target: Device) -> Any:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        check_members(members, file)
        arrays = {member.filename.removesuffix(".npy"): _read_array(archive, member) for member in members}
    if STRUCTURE not in arrays:
        raise ValueError(f"it has no {STRUCTURE}")
    structure = json.loads(arrays.pop(STRUCTURE).tobytes())
    if structure["format"] != FORMAT:
        raise ValueError(f"format {structure['format']} is not known to this version")
    obj = _decode(structure["root"], arrays, target)
    arrays.pop(STRAY, None)
    if arrays:
        raise ValueError(f"nothing in {STRUCTURE} asks for {', '.join(arrays)}")
    return obj


def check_members(members: list[zipfile.ZipInfo], file: IO[bytes]) -> None:
    """Reject what ``save`` does not write, and arrays that claim more bytes than the file has."""
    names = [member.filename.removesuffix(".npy") for member in members]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"it has {twice[0]} twice")
    if packed := [name for name, member in zip(names, members, strict=True) if member.compress_type]:
        raise ValueError(f"{packed[0]} is compressed, as save never does")
    size = sum(max(member.file_size, member.compress_size) for member in members)
    available = file.seek(0, os.SEEK_END)
    if size > available:
        raise ValueError(f"its arrays claim to have {size:,} bytes, but the file has {available:,}")


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """Read one array. Unlike np.load, read the member to its end, so that its checksum is verified."""
    content = archive.read(member)
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"{member.filename} is of version {version} of the npy format, expected (1, 0)")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=1000)
    if dtype.kind not in KINDS:
        raise ValueError(f"{member.filename} is an array of {dtype}, which save never writes")
    values = np.frombuffer(content, dtype, offset=file.tell())
    return values.reshape(shape, order="F" if fortran_order else "C").copy(order="K")


def _encode(obj: Any, where: str, arrays: dict[str, Array]) -> Any:
    """`obj` as JSON: plain values as they are, everything else as a list [kind, content]."""
    if obj is None or isinstance(obj, bool | int | float | str):
        return obj
    if isinstance(obj, Tensor | np.ndarray | np.generic):
        return _encode_array(obj, where, arrays)
    if isinstance(obj, list | tuple):
        kind = "list" if isinstance(obj, list) else "tuple"
        return [kind, [_encode(value, f"{where}[{i}]", arrays) for i, value in enumerate(obj)]]
    if isinstance(obj, dict):
        if wrong := [key for key in obj if not isinstance(key, str | int)]:
            found = f"the key {wrong[0]!r} of type {type(wrong[0]).__name__}"
            raise TypeError(f"save: {where} has {found}; use a string or an int")
        return ["dict", [(key, _encode(value, f"{where}[{key!r}]", arrays)) for key, value in obj.items()]]
    raise TypeError(f"save: cannot save {where}, a {type(obj).__name__}; for models and optimizers, save state_dict()")


def _encode_array(obj: Any, where: str, arrays: dict[str, Array]) -> Any:
    array = devices.moved(obj.array, devices.CPU) if isinstance(obj, Tensor) else np.asarray(obj)
    if array.dtype.kind not in KINDS:
        raise TypeError(f"save: {where} is an array of dtype {array.dtype}; only numbers and bools can be saved")
    name = f"{len(arrays)}.array"
    arrays[name] = array
    return ["tensor" if isinstance(obj, Tensor) else "array", name]


def _decode(encoded: Any, arrays: dict[str, Array], target: Device) -> Any:
    """The inverse of `_encode`; each array used is removed from `arrays`."""
    if not isinstance(encoded, list):
        return encoded
    kind, content = encoded
    if kind in ("tensor", "array"):
        if content not in arrays:
            raise ValueError(f"{content} is not in it, or is asked for twice")
        return Tensor(devices.moved(arrays.pop(content), target)) if kind == "tensor" else arrays.pop(content)
    if kind == "dict":
        return {key: _decode(value, arrays, target) for key, value in content}
    values = [_decode(value, arrays, target) for value in content]
    return {"list": list, "tuple": tuple}[kind](values)
