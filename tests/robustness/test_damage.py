"""Damaged files of every kind that minidl reads: each is refused, or read as exactly what it says.

Every form of file is cut off at every length and corrupted 1,000 times with the marker `slow`, and for a sample of
both without. Where a checksum covers the content only the original may be read. Elsewhere what was read is compared
with the damaged bytes, by code that shares nothing with the reader's. The forms named "inside" are damaged before they
are packed, so that the checksum is right and the reader behind it has to see the damage.

All is read in a few dozen megabytes of address space, and no file may take longer than a few seconds.

    python -m pytest -m "slow or not slow" -rP tests/robustness/test_damage.py     (prints what was found)
"""

import contextlib
import gzip
import io
import json
import math
import signal
import struct
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.data import cifar10, read_idx

resource = pytest.importorskip("resource", reason="limits of memory and time are Unix's")

SPARE = 64 * 2**20  # bytes of address space, beyond what the process has when the survey begins
STATM = Path("/proc/self/statm")  # the process's size, in pages, is its first number
SECONDS = 10  # for one file of a few kilobytes
ORIGINAL, OTHER, REFUSED = "read as the original", "read as what is there now", "refused"


# -- damage -----------------------------------------------------------------------------------------------------


def flip_bit(data, at, other, size, rng):
    data[at] ^= 1 << rng.integers(8)


def change_bytes(data, at, other, size, rng):
    for place in range(at, min(at + rng.integers(1, 4), len(data))):
        data[place] = rng.integers(256)


def delete_block(data, at, other, size, rng):
    del data[at : at + size]


def insert_block(data, at, other, size, rng):
    data[at:at] = rng.bytes(size)


def duplicate_block(data, at, other, size, rng):
    data[at:at] = data[at : at + size]


def zero_block(data, at, other, size, rng):
    data[at : at + size] = bytes(len(data[at : at + size]))


def fill_block(data, at, other, size, rng):
    data[at : at + size] = b"\xff" * len(data[at : at + size])


def swap_blocks(data, at, other, size, rng):
    size = min(size, abs(at - other), len(data) - max(at, other))
    data[at : at + size], data[other : other + size] = data[other : other + size], data[at : at + size]


DAMAGES = (flip_bit, change_bytes, delete_block, insert_block, duplicate_block, zero_block, fill_block, swap_blocks)


def corruptions(whole, count, heads):
    """`count` damaged copies of `whole`, half of them with the damage in its `heads`: (start, end) of each header."""
    rng = np.random.default_rng(0)
    while count:
        low, high = heads[rng.integers(len(heads))] if rng.random() < 0.5 else (0, len(whole))
        data = bytearray(whole)
        damage = DAMAGES[rng.integers(len(DAMAGES))]
        damage(data, rng.integers(low, high), rng.integers(len(whole)), int(2 ** rng.uniform(0, 8)), rng)
        if data != whole:
            count -= 1
            yield damage.__name__, bytes(data)


# -- forms ------------------------------------------------------------------------------------------------------


class Form:
    """A kind of file: the bytes of an example, what is in it, how it is packed and read."""

    checksum = False  # whether one covers all that is read
    heads = ()  # where its headers are, as (start, end)
    packed = staticmethod(bytes)

    def read(self, path):
        """Raise ValueError with the path, or return what was read."""
        raise NotImplementedError

    def accepts(self, data, found):
        """Whether `found` is what the damaged bytes say, worked out without the reader."""
        return False


class Idx(Form):
    def __init__(self):
        self.values = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
        self.values[1, 3:25] = 0  # something to compress
        self.whole = bytes([0, 0, 8, 3]) + struct.pack(">3I", 3, 28, 28) + self.values.tobytes()
        self.heads = [(0, 16)]
        self.original = (self.values.shape, self.values.tobytes())

    def read(self, path):
        values = read_idx(path)
        return values.shape, values.tobytes()

    def accepts(self, data, found):
        start = 4 + 4 * data[3]
        shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
        return data[:3] == b"\0\0\x08" and math.prod(shape) == len(data) - start and found == (shape, data[start:])


class IdxInside(Idx):
    packed = staticmethod(lambda data: gzip.compress(data, 1))


class IdxPacked(Idx):
    checksum = True

    def __init__(self):
        super().__init__()
        self.whole = gzip.compress(self.whole, mtime=0)
        self.heads = [(0, 10), (len(self.whole) - 8, len(self.whole))]


class CifarFile(Form):
    """A file of the binary version, of one record."""

    def __init__(self):
        self.whole = self.original = bytes([7]) + np.random.default_rng(0).bytes(3072)
        self.heads = [(0, 1)]

    def read(self, path):
        pixels, labels = cifar10._read_binary(path)
        return labels.astype(np.uint8).tobytes() + pixels.transpose(0, 3, 1, 2).tobytes()

    def accepts(self, data, found):
        return found == data and data[0] < 10 and len(data) == 3073


def make_model():
    return nn.Sequential(nn.Linear(60, 18), nn.Linear(18, 3))


def make_state():
    """What the examples put into their checkpoints; the first array is too long for one read of a zip archive."""
    minidl.manual_seed(1)
    model = make_model()
    optimizer = optim.Adam(model.parameters())
    model(minidl.randn(2, 60)).sum().backward()
    optimizer.step()
    epochs = [{"epoch": 1, "test_loss": 0.25, "seconds": 1.5}]
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": minidl.random.default_generator.get_state(),
        "epochs": epochs,
        "kept": {"train loss": [0.5, 0.25]},
        "settings": {"lr": 0.001, "data": "synthetic", "resume": None, "sizes": (1, 2)},
    }


def plain(obj):
    """Nested containers in which arrays can be compared with ==, and 1 is not True."""
    if isinstance(obj, dict):
        return {key: plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return (type(obj).__name__, *map(plain, obj))
    if isinstance(obj, minidl.Tensor | np.ndarray):
        array = np.asarray(obj)
        return type(obj).__name__, array.dtype.str, array.shape, array.tobytes()
    return type(obj).__name__, obj


class Checkpoint(Form):
    checksum = True

    def __init__(self):
        state = make_state()
        self.original = plain(state)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "checkpoint.npz")
            minidl.save(state, file)
            self.whole = file.read_bytes()
        with zipfile.ZipFile(io.BytesIO(self.whole)) as archive:
            starts = [info.header_offset for info in archive.infolist()]
        directory = self.whole.index(b"PK\1\2")
        self.heads = [(start, start + 180) for start in starts] + 4 * [(directory, len(self.whole))]

    def read(self, path):
        return plain(minidl.load(path))


class CheckpointInside(Form):
    """One array and the structure, each damaged and given a right checksum: what a damaged writer would leave."""

    def __init__(self):
        weight = np.arange(600, dtype=np.float32).reshape(20, 30)
        self.array = npy(weight)
        text = {"format": 1, "root": ["dict", [["weight", ["tensor", "0.array"]], ["epoch", 3]]]}
        self.whole = self.array + npy(np.frombuffer(json.dumps(text).encode(), np.uint8))
        self.heads = [(0, 128), (len(self.array), len(self.whole))]
        self.original = plain({"weight": minidl.Tensor(weight), "epoch": 3})

    def packed(self, data):
        return npz({"0.array": data[: len(self.array)], "structure.json": data[len(self.array) :]})

    def read(self, path):
        return plain(minidl.load(path))

    def accepts(self, data, found):
        """All values of an array that was read have to be there; the structure is JSON, and may say anything."""
        arrays = [value for value in found.values() if len(value) == 4] if isinstance(found, dict) else []
        return all(value[3] in data for value in arrays)


class Safetensors(Form):
    """A state_dict, read by safetensors and copied into a model; the format has no checksum."""

    def __init__(self):
        self.library = pytest.importorskip("safetensors.numpy")
        self.model = make_model()
        state = {name: value.array for name, value in self.model.state_dict().items()}
        self.whole = self.library.save(state)
        self.start = 8 + int.from_bytes(self.whole[:8], "little")
        self.heads = [(0, 8), (8, self.start)]
        self.original = self.contents()

    def contents(self):
        return {name: value.array.tobytes() for name, value in self.model.state_dict().items()}

    def read(self, path):
        for parameter in self.model.parameters():
            parameter.detach().fill_(0)
        before = self.contents()
        try:
            state = self.library.load_file(path)
        except Exception as error:  # the library's
            raise ValueError(path) from error
        try:
            self.model.load_state_dict(state)
        except RuntimeError as error:
            assert self.contents() == before, "refused, and changed all the same"
            raise ValueError(path) from error
        return self.contents()

    def accepts(self, data, found):
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        for name, value in self.model.state_dict().items():
            low, high = (start + offset for offset in header[name]["data_offsets"])
            numbers = np.frombuffer(data[low:high], {"F32": "<f4", "I32": "<i4", "U32": "<u4"}[header[name]["dtype"]])
            same = found.pop(name) == numbers.astype(np.float32).tobytes()
            if not same or header[name]["shape"] != list(value.shape):
                return False
        return not found


def npy(array):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version=(1, 0))
    return file.getvalue()


def npz(members, **kwargs):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", **kwargs) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return raw.getvalue()


FORMS = (
    Idx,
    IdxPacked,
    IdxInside,
    CifarFile,
    Checkpoint,
    CheckpointInside,
    Safetensors,
)


# -- the survey -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def little_memory():
    """Let the process have `SPARE` bytes more than now, however little of what is asked for it would use."""
    if not STATM.exists():  # not Linux
        yield
        return
    size = int(STATM.read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + SPARE, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def little_time():
    def over(*args):
        raise AssertionError(f"still not read after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, over)
    try:
        yield lambda: signal.setitimer(signal.ITIMER_REAL, SECONDS)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_the_limits_can_be_felt(monkeypatch):
    if STATM.exists():
        with little_memory(), pytest.raises(MemoryError):
            np.empty(16 * SPARE, np.uint8)
    monkeypatch.setattr(sys.modules[__name__], "SECONDS", 0.05)
    with little_time() as start_clock, pytest.raises(AssertionError, match="still not read after 0.05 s"):
        start_clock()
        while True:
            pass


def verdict(form, data, path):
    path.write_bytes(form.packed(data))
    try:
        found = form.read(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017
        return REFUSED
    if found == form.original:
        return ORIGINAL
    assert form.accepts(data, found)
    return OTHER


def survey(form, damaged, path):
    """The verdicts on `damaged`, pairs of a damage's name and the bytes it left: how often each."""
    counts = Counter()
    with little_memory(), little_time() as start_clock:
        for name, data in damaged:
            start_clock()
            try:
                counts[name, verdict(form, data, path)] += 1
            except BaseException as error:
                error.add_note(f"{type(form).__name__}: {name}; the damaged file is {path}")
                raise
    return counts


@pytest.fixture
def form(request, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "RECORDS", 1)
    form = request.param()
    assert verdict(form, form.whole, tmp_path / "damaged") == ORIGINAL  # and all is imported and compiled
    return form


def report(form, counts):
    print(f"{type(form).__name__}, {len(form.whole):,} bytes:")
    for name in sorted({name for name, _ in counts}):
        print(f"  {name}: " + ", ".join(f"{n:,} {said}" for (what, said), n in sorted(counts.items()) if what == name))


@pytest.mark.parametrize("form", FORMS, indirect=True)
@pytest.mark.parametrize("step", [97, pytest.param(1, marks=pytest.mark.slow)])
def test_cut_off_anywhere(form, step, tmp_path):
    cuts = {*range(0, len(form.whole), step), *range(len(form.whole) - 3, len(form.whole))}
    counts = survey(form, (("cut off", form.whole[:size]) for size in sorted(cuts)), tmp_path / "damaged")
    report(form, counts)
    assert counts["cut off", OTHER] == 0
    assert counts["cut off", REFUSED] == len(cuts)


@pytest.mark.parametrize("form", FORMS, indirect=True)
@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_corrupted_anyhow(form, count, tmp_path):
    counts = survey(form, corruptions(form.whole, count, form.heads), tmp_path / "damaged")
    report(form, counts)
    verdicts = Counter()
    for (_, said), n in counts.items():
        verdicts[said] += n
    assert verdicts.total() == count
    assert verdicts[REFUSED] > count / 4
    if form.checksum:
        assert verdicts[OTHER] == 0
