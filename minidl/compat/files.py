"""torch.save and torch.load: PyTorch's files, written and read without PyTorch, and without running any pickled code.

Since PyTorch 1.6 a .pt or .pth file is an uncompressed zip archive:

    archive/data.pkl      the containers, numbers and strings, as a pickle
    archive/data/0, 1...  the storages: each the memory of one or more tensors, elements without a header
    archive/byteorder     of these elements: little or big
    archive/version       of the format

A pickle is a program for a stack machine, and can call any function of any module. `_Reader` is Python's own machine
with only the 31 instructions that torch.save needs, and a table of the few names that tensors and plain containers are
made of. It looks nothing up in Python's modules, and refuses any other instruction or name where it meets it.

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
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

import numpy as np

from minidl.device import as_device, device
from minidl.io import STRUCTURE, FileLike, check_members, read, replacing
from minidl.io import save as save_npz
from minidl.kernels import devices
from minidl.nn import Parameter
from minidl.tensor import Array, Tensor
from minidl.versions import Storage

Arrays = dict[Any, tuple[int, Array]]  # by which elements of which memory: its storage's key, and itself

KIND_NAMES = "Bool bool Byte uint8 Char int8 Short int16 Int int32 Long int64 Half float16 Float float32 Double float64"
KINDS = {kind: np.dtype(name) for kind, name in zip(*[iter(KIND_NAMES.split())] * 2, strict=True)}
DTYPES = {dtype: kind for kind, dtype in KINDS.items()}
ATOMS: tuple[type, ...] = type(None), bool, int, float, str  # what can be a key, or a tuple of these
NEVER = "minidl never unpickles code"
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)  # how a file of PyTorch before 1.6 begins
# What torch.save needs of the machine, besides _Reader's own instructions
INSTRUCTIONS = """PROTO STOP MARK BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL BINPERSID APPEND APPENDS
    BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE NONE NEWTRUE NEWFALSE EMPTY_TUPLE EMPTY_LIST EMPTY_DICT
    TUPLE TUPLE1 TUPLE2 TUPLE3"""


def save(obj: Any, f: FileLike, *ignored: Any, **options: Any) -> None:
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
    ignored, options
        PyTorch's pickle_module, pickle_protocol and others: the file is the same for each.

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
    if not isinstance(f, str | os.PathLike):
        return _write([*_members(obj)], f)  # all of them before the first is written
    if os.fspath(f).endswith(".npz"):
        return save_npz(obj, f)
    with replacing(f) as file:
        return save(obj, file)


def load(f: FileLike, map_location: Any = None, *ignored: Any, **options: Any) -> Any:
    """Read what ``torch.save`` wrote, in PyTorch or here, or what ``minidl.save`` wrote.

    Tensors that share memory in the file share it again. torch.Size becomes a tuple.

    Parameters
    ----------
    f : path or open binary file
    map_location : device, dict or callable, optional
        Where to put the tensors: a device; a dict from the devices in the file to others; or a function of a storage
        (a tensor of one dimension) and the name of its device, which returns a tensor on the device to use, or None.
        By default they go where they were when they were saved. Tensors of an npz file were on the CPU.
    ignored, options
        PyTorch's weights_only, mmap, encoding and others: whatever they are, no code is unpickled, and only tensors and
        plain containers are read.

    Raises
    ------
    OSError
        If the file does not exist or cannot be opened.
    pickle.UnpicklingError
        If it contains anything but tensors and plain containers, or is a file of PyTorch before 1.6; the message says
        what to do.
    RuntimeError
        If it is damaged, or a tensor's device is not available.
    """
    if isinstance(f, str | os.PathLike):
        with open(f, "rb") as file:
            return load(file, map_location)
    name, start = getattr(f, "name", f"the {type(f).__name__}"), f.read(len(MAGIC))
    if not start:
        raise EOFError(f"torch.load: {name} has nothing to read here; after writing to an open file, call seek(0)")
    f.seek(-len(start), os.SEEK_CUR)
    try:
        if start == MAGIC:
            raise _Refused("is in the format before PyTorch 1.6; in PyTorch, write torch.load(...) of it to a new file")
        with zipfile.ZipFile(f) as archive:
            reader = None if f"{STRUCTURE}.npy" in archive.namelist() else _Reader(archive, f)
            obj = reader.load() if reader else None
    except MemoryError:
        raise
    except _Refused as error:
        raise pickle.UnpicklingError(f"torch.load: {name} {error}") from None
    except Exception as error:  # zipfile and pickle do not document what they raise for damaged files
        reason = str(error) or "it ends too early"
        raise RuntimeError(f"torch.load: {name} is damaged, or was not written by torch.save: {reason}") from error
    if not reader:
        return read(f, str(name), _target(map_location, "cpu", Tensor(np.empty(0))))
    for tensor, storage in reader.tensors.items():
        target = _target(map_location, storage.location, Tensor(storage.array))
        if target != devices.CPU:  # there, each has memory of its own
            tensor.data = Tensor(devices.moved(tensor.array, target))
    return obj


# -- reading ------------------------------------------------------------------------------------------------------


def _target(map_location: Any, location: str, storage: Tensor) -> devices.Device:
    """The device for a storage that was saved from `location`."""
    wanted = map_location
    if isinstance(map_location, dict):
        wanted = map_location.get(location)
    elif callable(map_location):
        wanted = map_location(storage, location)
        wanted = wanted if wanted is None else wanted.device
    try:
        return as_device(location if wanted is None else wanted)
    except RuntimeError as error:
        hint = "pass map_location='cpu' to load its tensors into the CPU's memory"
        raise RuntimeError(f"torch.load: a storage was saved from {location!r}: {error}; {hint}") from error


class _Storage(NamedTuple):
    array: Array  # of one dimension
    location: str
    memory: Storage  # which its tensors have in common


class _Refused(pickle.UnpicklingError):
    """Sound, but not what minidl reads."""


class _Instructions(dict[int, Any]):
    """Methods of the machine by their codes in a pickle; all other instructions are refused."""

    def __missing__(self, code: int) -> Any:
        opcode = {opcode.code: opcode for opcode in pickletools.opcodes}[chr(code)]
        raise _Refused(f"needs {opcode.name} of pickle protocol {opcode.proto}; save it with pickle_protocol=2")


def _codes(names: str) -> list[int]:
    return [getattr(pickle, name)[0] for name in names.split()]


class _Reader(pickle._Unpickler):
    """The machine, as Python defines it in Python: its memo is a dict, so that large numbers in it cost nothing.

    Only `known` values can be called, only dicts get items, and nothing has its attributes set.
    """

    stack: list[Any]
    pop_mark: Any

    def __init__(self, archive: zipfile.ZipFile, file: IO[bytes]) -> None:
        names = archive.namelist()
        [root] = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")] or [""]
        check_members(archive.infolist(), file)
        byteorder = archive.read(f"{root}byteorder") if f"{root}byteorder" in names else b"little"
        self.order = {b"little": "<", b"big": ">"}[byteorder]
        self.member = lambda name: archive.read(f"{root}{name}")
        self.program = self.member("data.pkl")
        super().__init__(io.BytesIO(self.program))
        self.storages: dict[str, _Storage] = {}
        self.tensors: dict[Tensor, _Storage] = {}
        self.known: dict[str, Any] = {
            **{f"torch.{dtype}": dtype for dtype in KINDS.values()},
            **{f"torch.{kind}Storage": dtype for kind, dtype in KINDS.items()},
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
            "torch.Size": lambda sizes: _only(sizes, tuple),
            "torch.device": lambda kind, *index: device(_only(kind, str), *map(_count, index)),
            "collections.OrderedDict": lambda pairs=(): OrderedDict((_key(k), v) for k, v in pairs),
            "collections.Counter": lambda counts: Counter({_key(k): n for k, n in counts.items()}),
            **dict.fromkeys(("__builtin__.set", "builtins.set"), lambda items: set(map(_key, items))),
        }

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for."""
        found = self.known.get(f"{module}.{name}")
        if found is None and not name:
            raise ValueError("its pickle ends in a name")
        if found is None:
            raise _refusal(module, name, self.program)
        return found

    def persistent_load(self, pid: Any) -> _Storage:
        """Return a storage, which is read when it is met first."""
        kind, dtype, key, location, numel = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise ValueError(f"a storage of a {type(dtype).__name__}")
        if _only(key, str) not in self.storages:
            elements = np.frombuffer(self.member(f"data/{key}"), self.order + dtype.str[1:]).astype(dtype)
            self.storages[key] = _Storage(elements, _only(location, str), Storage())
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

    # -- instructions that Python's machine follows further than is safe --------------------------------------

    def _reduce(self) -> None:
        args = _only(self.stack.pop(), tuple)
        self.stack[-1] = self.stack[-1](*args)

    def _build(self) -> None:
        del self.stack[-1]  # the attribute _metadata of a state_dict, its modules' versions, is left out
        _only(self.stack[-1], OrderedDict)

    def _set_item(self) -> None:
        self._update([self.stack.pop(-2), self.stack.pop()])

    def _set_items(self) -> None:
        self._update(self.pop_mark())

    def _update(self, items: list[Any]) -> None:
        pairs = zip(map(_key, items[::2]), items[1::2], strict=True)
        _only(self.stack[-1], dict, OrderedDict).update(pairs)

    dispatch = _Instructions((code, pickle._Unpickler.dispatch[code]) for code in _codes(INSTRUCTIONS))
    dispatch |= zip(_codes("REDUCE BUILD SETITEM SETITEMS"), (_reduce, _build, _set_item, _set_items), strict=True)


def _refusal(module: str, name: str, program: bytes) -> _Refused:
    if b"_parameters" in program and b"_modules" in program:  # attributes of every module
        return _Refused(f"holds a whole module ({module}.{name}); in PyTorch, save its state_dict() instead: {NEVER}")
    return _Refused(f"holds {module}.{name}, which is not a tensor that minidl has or a plain container; {NEVER}")


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


def _write(members: list[tuple[str, bytes]], file: IO[bytes]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)


def _members(obj: Any) -> Iterator[tuple[str, bytes]]:
    arrays: Arrays = {}
    yield "data.pkl", b"\x80\x02" + _pickled(obj, "obj", arrays) + b"."
    yield "byteorder", b"little"
    for i, array in arrays.values():
        yield f"data/{i}", array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    yield "version", b"3\n"


def _pickled(obj: Any, where: str, arrays: Arrays) -> bytes:
    """The instructions that put `obj` on the stack; the elements of its tensors are added to `arrays`."""

    def inner(values: Iterable[tuple[Any, Any]]) -> bytes:
        return b"".join(_pickled(value, f"{where}[{at!r}]", arrays) for at, value in values)

    obj = obj.item() if isinstance(obj, np.generic) else obj
    match obj:
        case _ if type(obj) in ATOMS:
            return _plain(obj)
        case Tensor():
            return _pickled_tensor(obj, arrays)
        case Counter():
            return _called("collections Counter", _pickled(dict(obj), where, arrays))
        case dict():
            made = _called("collections OrderedDict") if isinstance(obj, OrderedDict) else b"}"
            pairs = (_pickled(_key(key), where, arrays) + inner([(key, value)]) for key, value in obj.items())
            return made + b"(" + b"".join(pairs) + b"u"
        case tuple():
            return b"(" + inner(enumerate(obj)) + b"t"
        case list():
            return b"](" + inner(enumerate(obj)) + b"e"
        case set():
            return _called("__builtin__ set", _pickled(list(map(_key, obj)), where, arrays))
    hint = "save the state_dict() of models and optimizers, and arrays as tensors"
    raise TypeError(f"torch.save: cannot save {where}, a {type(obj).__name__}; {hint}")


def _pickled_tensor(x: Tensor, arrays: Arrays) -> bytes:
    array = devices.moved(x.array, devices.CPU)
    elements = array.__array_interface__["data"][0], array.shape, array.strides, array.dtype
    key, _ = arrays.setdefault(elements, (len(arrays), array))
    kind, shape = _global(f"torch {DTYPES[array.dtype]}Storage"), array.shape
    storage = b"(" + _plain("storage") + kind + _plain(str(key), str(x.device), x.numel()) + b"tQ"
    view = storage + _plain(0, shape, tuple(math.prod(shape[i + 1 :]) for i in range(x.ndim)))
    hooks = _called("collections OrderedDict")
    if not isinstance(x, Parameter):
        return _called("torch._utils _rebuild_tensor_v2", view, _plain(x.requires_grad), hooks)
    tensor = _called("torch._utils _rebuild_tensor_v2", view, _plain(False), hooks)
    return _called("torch._utils _rebuild_parameter", tensor, _plain(x.requires_grad), hooks)


def _plain(*values: Any) -> bytes:
    """What Python pickles, without the instructions at its beginning and end."""
    return b"".join(pickle.dumps(value, 2)[2:-1] for value in values)


def _global(name: str) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


def _called(name: str, *args: bytes) -> bytes:
    return _global(name) + b"(" + b"".join(args) + b"tR"
