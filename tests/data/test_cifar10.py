"""CIFAR-10 files and archives, whole and of the wrong kind; what is merely damaged is test_damage.py's.

The files of these tests hold 6 records, not 10,000.
"""

import gzip
import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from minidl.data import CIFAR10, DataLoader, cifar10

RECORDS = 6
SIZE = RECORDS * 3073
NAMES = tuple(cifar10.SHA256)
INSIDE = "cifar-10-batches-bin"


def make_records(name):
    """Records of one file, uint8 (RECORDS, 3073)."""
    records = np.random.default_rng(NAMES.index(name)).integers(0, 256, (RECORDS, 3073), np.uint8)
    records[:, 0] %= 10
    return records


def write_files(folder, names=NAMES):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(make_records(name).tobytes())


def archive_bytes():
    """An archive as the official one, with a file that nobody asks for, and in an order of its own."""
    raw, files = io.BytesIO(), {"readme.html": b"<html>"} | {name: make_records(name).tobytes() for name in NAMES[::-1]}
    with tarfile.open(fileobj=raw, mode="w") as archive:
        folder = tarfile.TarInfo(INSIDE)
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(f"{INSIDE}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), 1, mtime=0)


WHOLE = archive_bytes()
WHOLE_SHA256 = hashlib.sha256(WHOLE).hexdigest()


@pytest.fixture(autouse=True)
def short_files(monkeypatch):
    monkeypatch.setattr(cifar10, "RECORDS", RECORDS)
    monkeypatch.setattr(cifar10, "ARCHIVE_SHA256", WHOLE_SHA256)


def write_archive(folder, content=WHOLE):
    path = folder / "cifar-10-binary.tar.gz"
    path.write_bytes(content)
    return path


# -- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [".", INSIDE])
def test_reads_its_files(tmp_path, place):
    write_files(tmp_path / place)
    train, test = CIFAR10(tmp_path), CIFAR10(str(tmp_path), train=False)
    assert (len(train), len(test)) == (5 * RECORDS, RECORDS)
    records = np.concatenate([make_records(name) for name in NAMES])
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), records[:, 0])
    for index in (0, 7, 29):  # record after record, plane after plane, row after row
        planes = [records[index, 1 + c * 1024 : 1 + (c + 1) * 1024].reshape(32, 32) for c in range(3)]
        np.testing.assert_array_equal(train.images[index], np.dstack(planes))


def test_has_the_face_of_a_data_set(tmp_path):
    write_files(tmp_path)
    photos = CIFAR10(tmp_path)
    assert (photos.images.shape, photos.images.dtype) == ((30, 32, 32, 3), np.uint8)
    assert photos.images.flags.c_contiguous
    assert (photos.labels.dtype, photos.targets is photos.labels) == (np.int64, True)
    assert " ".join(photos.classes) == "airplane automobile bird cat deer dog frog horse ship truck"
    image, label = photos[3]
    assert (image.shape, image.dtype, type(label)) == ((3, 32, 32), np.float32, int)
    np.testing.assert_array_equal(image.array, photos.images[3].transpose(2, 0, 1) / np.float32(255))
    images, labels = next(iter(DataLoader(photos, batch_size=8)))
    assert (images.shape, labels.shape, labels.dtype) == ((8, 3, 32, 32), (8,), np.int64)


def test_folder_named_by_the_environment(tmp_path, monkeypatch):
    write_files(tmp_path)
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path))
    assert len(CIFAR10()) == 30
    with pytest.raises(FileNotFoundError):
        CIFAR10(tmp_path / "elsewhere")


def test_missing_files_say_what_to_do(tmp_path):
    write_files(tmp_path / INSIDE, NAMES[:3])
    with pytest.raises(FileNotFoundError) as caught:
        CIFAR10(tmp_path)
    message = str(caught.value)
    assert message.startswith("data_batch_4.bin, data_batch_5.bin not found in\n")
    places = (tmp_path / INSIDE, tmp_path / "cifar-10-binary.tar.gz")
    for hint in (*map(str, places), "download=True", "CIFAR10(root)", "--data-dir", "MINIDL_DATA"):
        assert hint in message


def test_other_files_are_used_and_named(tmp_path, capsys, monkeypatch):
    write_files(tmp_path)
    monkeypatch.setitem(cifar10.SHA256, NAMES[0], hashlib.sha256(make_records(NAMES[0])).hexdigest())
    for train, names in ((True, NAMES[1:5]), (False, NAMES[5:]), (False, NAMES[5:])):
        CIFAR10(tmp_path, train)
        line = f"{tmp_path}: used as they are, but not the official files: {', '.join(names)}\n"
        assert capsys.readouterr().out == line


def test_known_files_say_nothing(tmp_path, capsys, monkeypatch):
    write_files(tmp_path)
    for name in NAMES:
        monkeypatch.setitem(cifar10.SHA256, name, hashlib.sha256(make_records(name)).hexdigest())
    CIFAR10(tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1])
def test_files_of_another_size(tmp_path, size):
    write_files(tmp_path)
    (tmp_path / "data_batch_3.bin").write_bytes(bytes(size))
    message = f"data_batch_3.bin: the file has {size:,} bytes, expected 6 x 3,073 = 18,438"
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + f".*{message}"):
        CIFAR10(tmp_path)


def test_labels_beyond_nine(tmp_path):
    write_files(tmp_path)
    records = make_records("test_batch.bin")
    records[4:, 0] = 10, 255
    (tmp_path / "test_batch.bin").write_bytes(records.tobytes())
    with pytest.raises(ValueError, match=r"test_batch\.bin: label 10 at position 4, expected classes 0 to 9"):
        CIFAR10(tmp_path, train=False)


# -- the archive ------------------------------------------------------------------------------------------------


def test_archive_is_unpacked_once(tmp_path, capsys):
    archive = write_archive(tmp_path)
    photos = CIFAR10(tmp_path)
    np.testing.assert_array_equal(photos.labels[:RECORDS], make_records("data_batch_1.bin")[:, 0])
    assert sorted(os.listdir(tmp_path / INSIDE)) == sorted(NAMES)  # without the readme
    assert sorted(os.listdir(tmp_path)) == ["cifar-10-batches-bin", "cifar-10-binary.tar.gz"]
    for name in NAMES:
        assert (tmp_path / INSIDE / name).read_bytes() == make_records(name).tobytes()
    archive.write_bytes(b"not looked at again")
    assert len(CIFAR10(tmp_path, train=False)) == RECORDS
    assert capsys.readouterr().out.count("unpacking") == 1


def test_archive_replaces_no_file(tmp_path):
    write_archive(tmp_path)
    (tmp_path / INSIDE).mkdir()
    mine = make_records("test_batch.bin").tobytes()
    (tmp_path / INSIDE / "data_batch_2.bin").write_bytes(mine)
    CIFAR10(tmp_path)
    assert (tmp_path / INSIDE / "data_batch_2.bin").read_bytes() == mine


@pytest.mark.parametrize(
    "content", [b"", WHOLE[:1000], WHOLE + b"x", gzip.compress(gzip.decompress(WHOLE), 9, mtime=1)]
)
def test_archive_that_is_not_the_official_one(tmp_path, content):
    path = write_archive(tmp_path, content)
    with pytest.raises(ValueError, match=r"damaged, or not the official archive \(its sha256 differs\)") as caught:
        CIFAR10(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    for hint in ("download=True", f"by hand, so that its files are in {tmp_path / INSIDE}"):
        assert hint in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


PROCESS = """
import os, signal, sys
from minidl.data import CIFAR10, cifar10
cifar10.RECORDS, cifar10.ARCHIVE_SHA256 = int(sys.argv[2]), sys.argv[4]
left, replace = int(sys.argv[3]), os.replace

def replace_some(*args):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*args)

os.replace = replace_some
print("ready", flush=True)
sys.stdin.readline()
print(CIFAR10(sys.argv[1]).images.sum())
"""


def start_process(folder, files=99):
    """Another process that will read the data set once it gets a line, and be killed after having unpacked `files`."""
    command = [sys.executable, "-c", PROCESS, str(folder), str(RECORDS), str(files), WHOLE_SHA256]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_processes_that_unpack_at_once(tmp_path):
    write_archive(tmp_path)
    processes = [start_process(tmp_path) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    shown = [process.communicate(timeout=60)[0].splitlines()[-1] for process in processes]
    assert shown == 3 * [str(CIFAR10(tmp_path).images.sum())]
    assert sorted(os.listdir(tmp_path)) == ["cifar-10-batches-bin", "cifar-10-binary.tar.gz"]
    for name in NAMES:
        assert (tmp_path / INSIDE / name).read_bytes() == make_records(name).tobytes()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal on this system")
def test_a_process_killed_while_it_unpacks_leaves_whole_files(tmp_path):
    write_archive(tmp_path)
    process = start_process(tmp_path, files=2)
    process.communicate("\n", timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path / INSIDE)) == 2
    assert len(CIFAR10(tmp_path)) == 5 * RECORDS
    for name in NAMES:
        assert (tmp_path / INSIDE / name).read_bytes() == make_records(name).tobytes()


# -- download and the real thing --------------------------------------------------------------------------------


def test_downloads_and_unpacks(tmp_path, monkeypatch):
    asked = []

    def fetch(name, sha256, mirrors, folder, *, in_order):
        asked.append((name, sha256, mirrors[0], in_order))
        folder.mkdir(parents=True)
        write_archive(folder)

    monkeypatch.setattr(cifar10, "fetch", fetch)
    assert len(CIFAR10(tmp_path / "new", download=True)) == 30
    assert len(CIFAR10(tmp_path / "new", train=False, download=True)) == 6
    assert asked == [("cifar-10-binary.tar.gz", WHOLE_SHA256, cifar10.MIRRORS[0], True)]


def test_a_damaged_archive_is_fetched_anew_where_downloads_are_wanted(tmp_path, monkeypatch):
    write_archive(tmp_path, WHOLE[:1000])
    monkeypatch.setattr(cifar10, "fetch", lambda *args, **kwargs: write_archive(tmp_path))
    assert len(CIFAR10(tmp_path, download=True)) == 30


def test_a_whole_archive_needs_no_network(tmp_path, monkeypatch):
    write_archive(tmp_path)
    monkeypatch.setitem(sys.modules, "requests", None)
    assert len(CIFAR10(tmp_path, download=True)) == 30


def real():
    folder = os.environ.get("MINIDL_DATA")
    return folder and os.path.isdir(os.path.join(folder, INSIDE))


@pytest.mark.skipif(not real(), reason="MINIDL_DATA does not name a folder with CIFAR-10")
@pytest.mark.parametrize(("train", "n", "first"), [(True, 50_000, [6, 9, 9, 4]), (False, 10_000, [3, 8, 8, 0])])
def test_real_cifar10(train, n, first, monkeypatch):
    monkeypatch.setattr(cifar10, "RECORDS", 10_000)
    photos = CIFAR10(train=train)
    assert (len(photos), photos.labels[:4].tolist()) == (n, first)
    assert np.bincount(photos.labels).tolist() == [n // 10] * 10
    assert photos.images.mean(axis=(0, 1, 2)) == pytest.approx([125.3, 123.0, 113.9], abs=1.5)
