"""Saving and loading: one npz file, the arrays as arrays, all else as JSON. No pickle: loading runs no code."""

from __future__ import annotations

import json
import os
import uuid
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from minidl.device import device
from minidl.tensor import Array, Tensor

STRUCTURE = "structure.json"
FORMAT = 1


def save(obj: Any, f: str | os.PathLike[str]) -> None:
    """Write dicts, lists, tuples, tensors, arrays, numbers, strings, bools and None to a file.

    The file is written beside its place under another name, flushed to the disk and then renamed. So whatever
    happens in between, `f` is either the old file or the new one, whole.

    Parameters
    ----------
    obj : nested containers
        A model's ``state_dict()``, say, or a dict of several such.
    f : path
        The name as it is; no ending is added.

    Raises
    ------
    TypeError
        If there is something else inside; the message says where. Nothing is written then.
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
    arrays: dict[str, Array] = {}
    structure = {"format": FORMAT, "root": _encode(obj, "obj", arrays)}
    arrays[STRUCTURE] = np.frombuffer(json.dumps(structure).encode(), np.uint8)
    path = Path(os.path.realpath(f))  # of a link, the file that it leads to
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save: there is no folder {path.parent}")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(f: str | os.PathLike[str], map_location: Any = None) -> Any:
    """Read what ``save`` wrote, with the same containers; tensors come back as tensors.

    Parameters
    ----------
    f : path
    map_location : device, optional
        Where the tensors go: "cpu".

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or was not written by ``save``.
    """
    if map_location is not None:
        device(map_location)
    try:
        with open(f, "rb") as file, np.load(file, allow_pickle=False) as archive:
            structure = json.loads(archive[STRUCTURE].tobytes())
            if structure["format"] != FORMAT:
                raise ValueError(f"format {structure['format']} is not known to this version")
            return _decode(structure["root"], archive)
    except FileNotFoundError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        NotImplementedError,
    ) as error:
        raise ValueError(f"{os.fspath(f)} is damaged, or was not written by minidl.save: {error}") from error


def _encode(obj: Any, where: str, arrays: dict[str, Array]) -> Any:
    """JSON for `obj`: plain values as they are, everything else as a list [kind, content]."""
    if obj is None or isinstance(obj, bool | int | float | str):
        return obj
    if isinstance(obj, Tensor | np.ndarray | np.generic):
        return _encode_array(obj, where, arrays)
    if isinstance(obj, list | tuple):
        kind = "list" if isinstance(obj, list) else "tuple"
        return [kind, [_encode(value, f"{where}[{i}]", arrays) for i, value in enumerate(obj)]]
    if isinstance(obj, dict):
        items = [(_encode_key(key, where), _encode(value, f"{where}[{key!r}]", arrays)) for key, value in obj.items()]
        return ["dict", items]
    raise TypeError(f"save: {where} is a {type(obj).__name__}, which cannot be saved without pickle")


def _encode_key(key: Any, where: str) -> Any:
    if not isinstance(key, str | int):
        raise TypeError(f"save: {where} has the key {key!r} of type {type(key).__name__}; use a string or an int")
    return key


def _encode_array(obj: Any, where: str, arrays: dict[str, Array]) -> Any:
    array = obj.array if isinstance(obj, Tensor) else np.asarray(obj)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"save: {where} is an array of {array.dtype}, which cannot be saved without pickle")
    name = f"{len(arrays)}.array"
    arrays[name] = array
    return ["tensor" if isinstance(obj, Tensor) else "array", name]


def _decode(encoded: Any, archive: Any) -> Any:
    if not isinstance(encoded, list):
        return encoded
    kind, content = encoded
    if kind in ("tensor", "array"):
        return Tensor(archive[content]) if kind == "tensor" else archive[content]
    if kind == "dict":
        return {key: _decode(value, archive) for key, value in content}
    values = [_decode(value, archive) for value in content]
    return {"list": list, "tuple": tuple}[kind](values)
