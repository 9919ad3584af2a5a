"""torch.save and torch.load: PyTorch's files, written and read without PyTorch, and without running any pickled code.

Since PyTorch 1.6 a .pt or .pth file is an uncompressed zip archive:

    archive/data.pkl      the containers, numbers and strings, as a pickle
    archive/data/0, 1...  the storages: each the memory of one or more tensors, elements without a header
    archive/byteorder     of these elements: little or big
    archive/version       of the format

A pickle is a program for a stack machine, and can call any function of any module. `_Reader` is such a machine with
the 32 instructions that torch.save needs and a table of the few names that tensors and plain containers are made of.
It looks nothing up in Python's modules, and refuses any other instruction or name where it meets it.

A tensor is ``torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)``, all counted in
elements, and its storage the tuple ``("storage", torch.FloatStorage, "0", "cpu", 6)``: dtype, key, device, elements.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import IO, Any, NamedTuple

import numpy as np

from minidl.device import as_device, device
from minidl.io import STRUCTURE, check_members, read, replacing
from minidl.io import save as save_npz
from minidl.kernels import devices
from minidl.nn import Parameter
from minidl.tensor import Array, Tensor
from minidl.versions import Storage

FileLike = str | os.PathLike[str] | IO[bytes]
DType = np.dtype[Any]
Arrays = dict[Any, tuple[int, Array]]  # by which elements of which memory: its storage's key, and itself

NAMES = "bool Bool uint8 Byte int8 Char int16 Short int32 Int int64 Long float16 Half float32 Float float64 Double"
DTYPES = {np.dtype(name): f"{kind}Storage" for name, kind in zip(*[iter(NAMES.split())] * 2, strict=True)}
ATOMS: tuple[type, ...] = type(None), bool, int, float, str  # what can be a key, or a tuple of these
HEADER, ALIGNMENT = 30, 64  # bytes before a member's name; where storages begin, for PyTorch's mmap=True
NEVER = "minidl never unpickles code"
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)  # how a file of PyTorch before 1.6 begins

# The instructions: those that put a value on the stack, those whose argument is the value, and how many values the
# others take from the stack, where None stands for all above the last mark.
EMPTY: dict[str, type] = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
CONSTANTS: dict[str, Callable[[], Any]] = {**EMPTY, "NEWFALSE": bool, "NEWTRUE": lambda: True, "NONE": lambda: None}
LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
TAKES: dict[str, int | None] = {
    **dict.fromkeys(("TUPLE", "APPENDS", "SETITEMS"), None),
    **dict.fromkeys(("TUPLE1", "APPEND", "BUILD", "BINPERSID", "STOP"), 1),
    **dict.fromkeys(("TUPLE2", "SETITEM", "REDUCE"), 2),
    "TUPLE3": 3,
}


def save(
    obj: Any,
    f: FileLike,
    pickle_module: Any = None,
    pickle_protocol: int = 2,
    _use_new_zipfile_serialization: bool = True,
) -> None:
    """Write tensors, numbers, strings and plain containers to a file that PyTorch can load, or to an npz file.

    PyTorch's ``torch.load`` reads it with ``weights_only=True``. Tensors are written in C order; those that are the
    same elements of the same memory stay so, other views become separate. NumPy's scalars become Python's numbers.

    Parameters
    ----------
    obj : nested containers
        For example a model's ``state_dict()``, or a dict with several of these.
    f : path or open binary file
        The file at a path is replaced once all is written, and left as it was if anything fails. If its name ends in
        .npz, ``minidl.save`` writes it; otherwise it is PyTorch's format.
    pickle_module, pickle_protocol, _use_new_zipfile_serialization
        Ignored: the file is the same for each.

    Raises
    ------
    TypeError
        If `obj` contains anything else; the message says where. Nothing is written.

    Examples
    --------
    >>> import io, minidl
    >>> file = io.BytesIO()
    >>> save({"weights": minidl.ones(2), "epoch": 3}, file)
    >>> _ = file.seek(0)
    >>> load(file)
    {'weights': tensor([1., 1.], shape=(2,), dtype=float32), 'epoch': 3}
    """
    if isinstance(f, str | os.PathLike):
        if os.fspath(f).endswith(".npz"):
            return save_npz(obj, f)
        members = _members(obj)
        with replacing(f) as file:
            return _write(members, file)
    return _write(_members(obj), f)


def load(f: FileLike, map_location: Any = None, pickle_module: Any = None, **ignored: Any) -> Any:
    """Read what ``torch.save`` wrote, in PyTorch or here, or what ``minidl.save`` wrote.

    Both of PyTorch's formats are read, the zip archive and the one before PyTorch 1.6. Tensors that share memory in
    the file share it again. torch.Size becomes a tuple.

    Parameters
    ----------
    f : path or open binary file
    map_location : device, dict or callable, optional
        Where to put the tensors: a device; a dict from the devices in the file to others; or a function of a storage
        (a tensor of one dimension) and the name of its device, which returns a tensor on the device to use, or None.
        By default they go where they were when they were saved. Tensors of an npz file were on the CPU.
    pickle_module, weights_only, mmap, encoding, ...
        Ignored: whatever they are, no code is unpickled, and only tensors and plain containers are read.

    Raises
    ------
    OSError
        If the file does not exist or cannot be opened.
    pickle.UnpicklingError
        If it contains anything but tensors and plain containers; the message says what.
    RuntimeError
        If it is damaged, or a tensor's device is not available.
    """
    if isinstance(f, str | os.PathLike):
        with open(f, "rb") as file:
            return _load(file, os.fspath(f), map_location)
    return _load(f, str(getattr(f, "name", f"the {type(f).__name__}")), map_location)


# -- reading ------------------------------------------------------------------------------------------------------


def _load(file: IO[bytes], name: str, map_location: Any) -> Any:
    reader = _Reader()
    start = file.read(len(MAGIC))
    if not isinstance(start, bytes):
        raise TypeError(f"torch.load: {name} is open as text; open it in mode 'rb'")
    if not start:
        raise EOFError(f"torch.load: {name} has nothing to read here; after writing to an open file, call seek(0)")
    file.seek(-len(start), os.SEEK_CUR)
    try:
        if start == MAGIC:
            obj = reader.legacy(io.BytesIO(file.read()))
        else:
            with zipfile.ZipFile(file) as archive:
                npz = f"{STRUCTURE}.npy" in archive.namelist()
                obj = None if npz else reader.archive(archive, file)
    except MemoryError:
        raise
    except _Refused as error:
        raise pickle.UnpicklingError(f"torch.load: {name} {error}") from None
    except Exception as error:  # zipfile and pickletools do not document what they raise for damaged files
        raise RuntimeError(f"torch.load: {name} is damaged, or was not written by torch.save: {error}") from error
    if start != MAGIC and npz:
        return read(file, name, _target(map_location, "cpu", Tensor(np.empty(0))))
    reader.place(map_location)
    return obj


def _target(map_location: Any, location: str, storage: Tensor) -> devices.Device:
    """The device for a storage that was saved from `location`."""
    wanted = location if map_location is None else map_location
    if isinstance(map_location, dict):
        wanted = map_location.get(location, location)
    elif callable(map_location):
        moved = map_location(storage, location)
        if not isinstance(moved, Tensor | None):
            raise TypeError(f"torch.load: map_location returned a {type(moved).__name__}, not the storage or None")
        wanted = location if moved is None else moved.device
    try:
        return as_device(wanted)
    except RuntimeError as error:
        hint = "pass map_location='cpu' to load its tensors into the CPU's memory"
        raise RuntimeError(f"torch.load: a storage was saved from {location!r}: {error}; {hint}") from error


class _Storage(NamedTuple):
    key: str
    array: Array  # of one dimension
    location: str
    memory: Storage  # which its tensors have in common


class _Refused(pickle.UnpicklingError):
    """Sound, but not what minidl reads."""


class _Reader:
    """The stack machine, for one file.

    Only `known` values can be called, only lists and dicts extended, and nothing has its attributes set. A memo is a
    dict, so that large numbers in it cost nothing.
    """

    def __init__(self) -> None:
        self.elements: Callable[[str, DType, int], Array]  # of the storage with this key
        self.storages: dict[str, _Storage] = {}
        self.tensors: dict[Tensor, _Storage] = {}
        self.known: dict[str, Any] = {
            **{f"torch {dtype}": dtype for dtype in DTYPES},
            **{f"torch {storage}": dtype for dtype, storage in DTYPES.items()},
            "torch._utils _rebuild_tensor_v2": self._tensor,
            "torch._utils _rebuild_parameter": self._parameter,
            "torch._utils _rebuild_parameter_with_state": self._parameter,
            "torch Size": lambda sizes: _only(sizes, tuple),
            "torch device": lambda kind, i=None: device(_only(kind, str), i if i is None else _count(i)),
            "collections OrderedDict": lambda pairs=(): OrderedDict((_key(k), v) for k, v in pairs),
            "collections Counter": lambda counts: Counter({_key(k): n for k, n in counts.items()}),
            **dict.fromkeys(("__builtin__ set", "builtins set"), lambda items: set(map(_key, items))),
        }

    def run(self, stream: io.BytesIO) -> Any:
        """Run the program at the stream's position, up to its STOP."""
        stack: list[Any] = []
        marks: list[int] = []  # heights of the stack
        memo: dict[int, Any] = {}

        def take(count: int | None) -> list[Any]:
            at = marks.pop() if count is None else len(stack) - count
            if at < (marks[-1] if marks else 0):
                raise ValueError("its pickle takes more values from the stack than it has put there")
            taken = stack[at:]
            del stack[at:]
            return taken

        arg: Any
        for opcode, arg, _ in pickletools.genops(stream):
            taken = take(TAKES[opcode.name]) if opcode.name in TAKES else []
            match opcode.name:
                case "MARK":
                    marks.append(len(stack))
                case "BINPUT" | "LONG_BINPUT":
                    memo[arg] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[arg])
                case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                    stack.append(tuple(taken))
                case "APPEND" | "APPENDS":
                    _only(stack[-1], list).extend(taken)
                case "SETITEM" | "SETITEMS":
                    pairs = zip(map(_key, taken[::2]), taken[1::2], strict=True)
                    _only(stack[-1], dict, OrderedDict).update(pairs)
                case "REDUCE":
                    function, args = taken
                    stack.append(function(*_only(args, tuple)))
                case "BUILD":
                    _only(stack[-1], OrderedDict)  # its attribute _metadata, the modules' versions, is left out
                case "GLOBAL":
                    if arg not in self.known:
                        raise _refusal(arg, stream.getvalue())
                    stack.append(self.known[arg])
                case "BINPERSID":
                    stack.append(self._storage(*_only(taken[0], tuple)))
                case "STOP":
                    return taken[0]
                case name if name in LITERALS:
                    stack.append(arg)
                case name if name in CONSTANTS:
                    stack.append(CONSTANTS[name]())
                case name if name != "PROTO":
                    raise _Refused(f"needs {name} of pickle protocol {opcode.proto}; save it with pickle_protocol=2")
        raise ValueError("its pickle has no end")

    # -- what the names stand for -----------------------------------------------------------------------------

    def _storage(self, kind: str, dtype: DType, key: str, location: str, numel: int, view: Any = None) -> _Storage:
        _only(key, str)
        if kind != "storage" or not isinstance(dtype, np.dtype) or view is not None:
            raise ValueError(f"storage {key} is of a {type(dtype).__name__}, or part of another storage")
        if key not in self.storages:
            array = self.elements(key, dtype, _count(numel))
            self.storages[key] = _Storage(key, array, _only(location, str), Storage())
        array = self.storages[key].array
        if (array.size, array.dtype) != (numel, dtype):
            raise ValueError(f"storage {key} has {array.size:,} elements of {array.dtype}, not {numel:,} of {dtype}")
        return self.storages[key]

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, *unused: Any) -> Tensor:
        """A view of the storage. `unused` are hooks, and whether a view is conjugate, as only complex ones are."""
        elements = _only(storage, _Storage).array
        reach = sum((_count(n) - 1) * _count(step) for n, step in zip(size, stride, strict=True)) + 1
        if 0 in size:
            array = np.zeros(size, elements.dtype)
        elif _count(offset) + reach > elements.size:
            view = f"a tensor of size {tuple(size)} and stride {tuple(stride)} from element {offset}"
            raise ValueError(f"{view} needs a storage of {offset + reach:,} elements, not {elements.size:,}")
        else:
            itemsize = elements.itemsize
            array = np.ndarray(size, elements.dtype, elements, offset * itemsize, [n * itemsize for n in stride])
            array.flags.writeable = math.prod(size) <= reach  # else elements share an address
        tensor = Tensor(array, bool(requires_grad), storage=storage.memory)
        self.tensors[tensor] = storage
        return tensor

    def _parameter(self, data: Any, requires_grad: Any, *unused: Any) -> Parameter:
        parameter = Parameter(_only(data, Tensor), bool(requires_grad))
        self.tensors[parameter] = self.tensors[data]
        return parameter

    # -- the two formats --------------------------------------------------------------------------------------

    def archive(self, archive: zipfile.ZipFile, file: IO[bytes]) -> Any:
        """The format since PyTorch 1.6."""
        names, order = archive.namelist(), "<"
        [root] = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")] or [""]
        if f"{root}constants.pkl" in names:
            raise _Refused("is a TorchScript archive; in PyTorch, save torch.jit.load(...).state_dict() instead")
        check_members(archive.infolist(), file)
        if f"{root}byteorder" in names:
            order = {b"little": "<", b"big": ">"}[archive.read(f"{root}byteorder")]

        def elements(key: str, dtype: DType, numel: int) -> Array:
            return np.frombuffer(archive.read(f"{root}data/{key}"), order + dtype.str[1:]).astype(dtype)

        self.elements = elements
        return self.run(io.BytesIO(archive.read(f"{root}data.pkl")))

    def legacy(self, stream: io.BytesIO) -> Any:
        """The format before: pickles of the magic number, version, system, object and keys; then the storages."""
        _, version, system = self.run(stream), self.run(stream), self.run(stream)
        if version != 1001:
            raise ValueError("its version is not 1001")
        order, size = "<" if system["little_endian"] else ">", len(stream.getbuffer())
        self.elements = lambda key, dtype, numel: np.zeros(min(numel, size // dtype.itemsize), dtype)
        obj = self.run(stream)
        unread = dict(self.storages)
        for key in _only(self.run(stream), list):
            array = unread.pop(_only(key, str)).array
            if np.frombuffer(stream.read(8), order + "i8") != array.size:
                raise ValueError(f"storage {key} does not have the {array.size:,} elements that its pickle says")
            array[:] = np.frombuffer(stream.read(array.nbytes), order + array.dtype.str[1:], array.size)
        if unread:
            raise ValueError(f"it has no elements of storage {next(iter(unread))}")
        return obj

    def place(self, map_location: Any) -> None:
        """Move the tensors to the devices where they belong; there, each has memory of its own."""
        targets = {key: _target(map_location, s.location, Tensor(s.array)) for key, s in self.storages.items()}
        for tensor, storage in self.tensors.items():
            if targets[storage.key] != devices.CPU:
                tensor.data = Tensor(devices.moved(tensor.array, targets[storage.key]))


def _refusal(name: str, program: bytes) -> _Refused:
    module, dotted = name.partition(" ")[0], name.replace(" ", ".")
    if b"_parameters" in program and b"_modules" in program:  # attributes of every module
        return _Refused(f"holds a whole module ({dotted}); in PyTorch, save its state_dict() instead: {NEVER}")
    if module in ("torch", "torch._utils", "torch.storage"):
        return _Refused(f"holds {dotted}; minidl has no bfloat16, complex, quantized or sparse tensors")
    return _Refused(f"holds {dotted}, which is not a tensor or a plain container; {NEVER}")


def _only(value: Any, *kinds: type) -> Any:
    """The value, which must be of one of these types and of no subclass."""
    if type(value) not in kinds:
        raise ValueError(f"expected a {kinds[0].__name__} in its pickle, not a {type(value).__name__}")
    return value


def _count(n: Any) -> int:
    if _only(n, int) < 0:
        raise ValueError(f"expected a size of at least 0 in its pickle, not {n}")
    return n


def _key(key: Any) -> Any:
    """A key of a dict, or what a set contains. In deeper tuples, Python's hash would recurse without a limit."""
    parts = key if type(key) is tuple else (key,)
    if not all(isinstance(part, ATOMS) for part in parts):
        raise TypeError(f"a key must be a number, a string or a tuple of these, not a {type(key).__name__}")
    return key


# -- writing ------------------------------------------------------------------------------------------------------


def _members(obj: Any) -> list[tuple[str, bytes | Array]]:
    arrays: Arrays = {}
    try:
        program = b"\x80\x02" + _pickled(obj, "obj", arrays) + b"."
    except RecursionError:
        raise ValueError("torch.save: the object contains itself, or its containers are nested too deeply") from None
    storages = [(f"data/{i}", array) for i, array in arrays.values()]
    return [("data.pkl", program), ("byteorder", b"little"), *storages, ("version", b"3\n")]


def _write(members: list[tuple[str, bytes | Array]], file: IO[bytes]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members:
            member = zipfile.ZipInfo(f"archive/{name}")
            padding = -(archive.start_dir + HEADER + len(member.filename) + 4) % ALIGNMENT
            member.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)
            if isinstance(content, np.ndarray):
                content = content.astype(content.dtype.newbyteorder("<"), copy=False).tobytes()
            archive.writestr(member, content)


def _pickled(obj: Any, where: str, arrays: Arrays) -> bytes:
    """The instructions that put `obj` on the stack; the elements of its tensors are added to `arrays`."""

    def inner(values: Iterable[tuple[Any, Any]]) -> bytes:
        return b"".join(_pickled(value, f"{where}[{at!r}]", arrays) for at, value in values)

    if isinstance(obj, np.generic):
        obj = obj.item()
    if type(obj) in ATOMS:
        return _plain(obj)
    if isinstance(obj, Tensor):
        return _pickled_tensor(obj, where, arrays)
    if isinstance(obj, Counter):
        return _called("collections Counter", _pickled(dict(obj), where, arrays))
    if isinstance(obj, dict):
        made = _called("collections OrderedDict") if isinstance(obj, OrderedDict) else b"}"
        pairs = (_pickled(_key(key), where, arrays) + inner([(key, value)]) for key, value in obj.items())
        return made + b"(" + b"".join(pairs) + b"u"
    if isinstance(obj, tuple):
        return b"(" + inner(enumerate(obj)) + b"t"
    if isinstance(obj, list):
        return b"](" + inner(enumerate(obj)) + b"e"
    if type(obj) is set:
        return _called("__builtin__ set", _pickled(list(map(_key, obj)), where, arrays))
    if isinstance(obj, np.dtype) and obj in DTYPES:
        return _global(f"torch {obj}")
    if isinstance(obj, device):
        return _called("torch device", _plain(str(obj)))
    hint = "save the state_dict() of models and optimizers, and arrays as tensors"
    raise TypeError(f"torch.save: cannot save {where}, a {type(obj).__name__}; {hint}")


def _pickled_tensor(x: Tensor, where: str, arrays: Arrays) -> bytes:
    array = devices.moved(x.array, devices.CPU)
    if array.dtype not in DTYPES:
        raise TypeError(f"torch.save: {where} is a tensor of {array.dtype}, which minidl cannot read again")
    elements = array.__array_interface__["data"][0], array.shape, array.strides, array.dtype
    key, _ = arrays.setdefault(elements, (len(arrays), array))
    storage = (
        _plain("storage"),
        _global(f"torch {DTYPES[array.dtype]}"),
        *map(_plain, (str(key), str(x.device), x.numel())),
    )
    strides = tuple(math.prod(x.shape[i + 1 :]) for i in range(x.ndim))
    view = b"(" + b"".join(storage) + b"tQ" + b"".join(map(_plain, (0, array.shape, strides)))
    hooks = _called("collections OrderedDict")
    if not isinstance(x, Parameter):
        return _called("torch._utils _rebuild_tensor_v2", view, _plain(x.requires_grad), hooks)
    tensor = _called("torch._utils _rebuild_tensor_v2", view, _plain(False), hooks)
    return _called("torch._utils _rebuild_parameter", tensor, _plain(x.requires_grad), hooks)


def _plain(value: Any) -> bytes:
    """What Python pickles, without the instructions at its beginning and end."""
    return pickle.dumps(value, 2)[2:-1]


def _global(name: str) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


def _called(name: str, *args: bytes) -> bytes:
    return _global(name) + b"(" + b"".join(args) + b"tR"
