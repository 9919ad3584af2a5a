"""CIFAR-10 files and archives, whole, of the wrong kind and malicious; what is merely damaged is test_damage.py's.

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
import tracemalloc

import numpy as np
import pytest

from minidl.data import CIFAR10, DataLoader, cifar10

RECORDS = 6
SIZE = RECORDS * 3073
NAMES = tuple(cifar10.SHA256)
INSIDE = "cifar-10-batches-bin"


@pytest.fixture(autouse=True)
def short_files(monkeypatch):
    monkeypatch.setattr(cifar10, "RECORDS", RECORDS)


def make_records(name):
    """Records of one file, uint8 (RECORDS, 3073)."""
    records = np.random.default_rng(NAMES.index(name)).integers(0, 256, (RECORDS, 3073), np.uint8)
    records[:, 0] %= 10
    return records


def write_files(folder, names=NAMES):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(make_records(name).tobytes())


def member(name, content=b"", **attributes):
    """One member of an archive: its header, of which `attributes` change fields, and its content."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in attributes.items():
        setattr(info, field, value)
    return info, content


def whole():
    """What the official archive has in it."""
    files = [member(f"{INSIDE}/{name}", make_records(name).tobytes()) for name in NAMES]
    others = [member(f"{INSIDE}/batches.meta.txt", b"airplane\n"), member(f"{INSIDE}/readme.html", b"<html>")]
    return [member(INSIDE, type=tarfile.DIRTYPE), *files[:3], *others, *files[3:]]


def archive_bytes(members):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), 1, mtime=0)


def write_archive(folder, members):
    path = folder / "cifar-10-binary.tar.gz"
    path.write_bytes(archive_bytes(members))
    return path


def refused(folder, message):
    """CIFAR10 raises, and leaves the folder as it was."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(ValueError, match=message) as caught:
        CIFAR10(folder)
    assert str(folder / "cifar-10-binary.tar.gz") in str(caught.value)
    assert sorted(folder.rglob("*")) == before


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


def test_other_files_are_used_and_named_once(tmp_path, capsys):
    write_files(tmp_path)
    for train in (True, False, True):
        CIFAR10(tmp_path, train)
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}: used as they are, but not the official files of CIFAR-10 (their sha256 differs)"
    ]


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
    archive = write_archive(tmp_path, whole())
    photos = CIFAR10(tmp_path)
    np.testing.assert_array_equal(photos.labels[:RECORDS], make_records("data_batch_1.bin")[:, 0])
    assert sorted(os.listdir(tmp_path / INSIDE)) == sorted(NAMES)  # neither the readme nor batches.meta.txt
    assert sorted(os.listdir(tmp_path)) == ["cifar-10-batches-bin", "cifar-10-binary.tar.gz"]
    for name in NAMES:
        assert (tmp_path / INSIDE / name).read_bytes() == make_records(name).tobytes()
    archive.write_bytes(b"not looked at again")
    assert len(CIFAR10(tmp_path, train=False)) == RECORDS
    assert capsys.readouterr().out.count("unpacking") == 1


def test_archive_replaces_no_file(tmp_path):
    write_archive(tmp_path, whole())
    (tmp_path / INSIDE).mkdir()
    mine = make_records("test_batch.bin").tobytes()
    (tmp_path / INSIDE / "data_batch_2.bin").write_bytes(mine)
    CIFAR10(tmp_path)
    assert (tmp_path / INSIDE / "data_batch_2.bin").read_bytes() == mine


def test_order_in_the_archive_does_not_matter(tmp_path):
    write_archive(tmp_path, whole()[::-1])
    np.testing.assert_array_equal(CIFAR10(tmp_path).labels[:RECORDS], make_records("data_batch_1.bin")[:, 0])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (member("/etc/passwd", b"x"), "holds the path '/etc/passwd', which leads out"),
        (member("../evil", b"x"), r"holds the path '\.\./evil', which leads out"),
        (member(f"{INSIDE}/../../test_batch.bin", b"x"), "which leads out"),
        (member("..\\evil", b"x"), "which leads out"),
        (member("C:\\evil", b"x"), "which leads out"),
        (member(f"{INSIDE}/link", type=tarfile.SYMTYPE, linkname="/etc"), "link' is a symbolic link"),
        (member(f"{INSIDE}/link", type=tarfile.LNKTYPE, linkname="x"), "link' is a hard link"),
        (member(f"{INSIDE}/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), "null' is a special file"),
        (member(f"{INSIDE}/disk", type=tarfile.BLKTYPE), "disk' is a special file"),
        (member(f"{INSIDE}/pipe", type=tarfile.FIFOTYPE), "pipe' is a special file"),
        (member(f"{INSIDE}/test_batch.bin", bytes(SIZE)), "test_batch.bin is there twice"),
        (member(INSIDE, b"x"), f"'{INSIDE}' is a file; expected a folder"),
        (member(f"{INSIDE}/{'a' * 200}/../../../evil", b"x"), "which leads out"),  # the name is in an extended header
        (member(f"{INSIDE}/x", b"x", pax_headers={"path": "/etc/passwd"}), "holds the path '/etc/passwd'"),
        (member(f"{INSIDE}/x", b"x", pax_headers={"GNU.sparse.map": "0,1"}), "x' is a special file"),
        (member(f"{INSIDE}/x", b"x", pax_headers={"GNU.sparse.map": "a,b"}), "damaged or cut off: invalid literal"),
        (member(f"{INSIDE}/x", b"x", pax_headers={f"k{i}": "v" for i in range(90_000)}), "unpacks to more than 1,048,"),
    ],
)
@pytest.mark.parametrize("at", [0, 99])
def test_members_that_do_not_belong_there(tmp_path, extra, message, at):
    members = whole()
    members.insert(at, extra)
    write_archive(tmp_path, members)
    refused(tmp_path, message)
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE])
def test_extended_headers_one_after_the_other(tmp_path, kind):
    content = b"11 aa=bbbb\n\0"
    header = member("x", content, type=kind)[0].tobuf(tarfile.USTAR_FORMAT) + content.ljust(512, b"\0")
    data = 1000 * header + gzip.decompress(archive_bytes(whole()))
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(gzip.compress(data))
    refused(tmp_path, "damaged or cut off: maximum recursion depth exceeded|unpacks to more than")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_expected_names_that_are_no_files(tmp_path, kind):
    members = whole()
    members[2] = member(f"{INSIDE}/data_batch_2.bin", type=kind, linkname="/etc/passwd")
    write_archive(tmp_path, members)
    refused(tmp_path, r"data_batch_2\.bin' is a (symbolic link|hard link|special file); expected regular files only")


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1])
def test_members_of_another_size(tmp_path, size):
    members = whole()
    members[1] = member(f"{INSIDE}/data_batch_1.bin", bytes(size))
    write_archive(tmp_path, members)
    refused(tmp_path, f"data_batch_1.bin has {size:,} bytes, expected 18,438")


def test_members_that_are_missing(tmp_path):
    write_archive(tmp_path, [m for m in whole() if "data_batch_4" not in m[0].name])
    refused(tmp_path, r"cifar-10-batches-bin/data_batch_4\.bin is not in the archive; found \['data_batch_1\.bin'")
    write_archive(tmp_path, [member("data_batch_1.bin", bytes(SIZE))])
    refused(tmp_path, r"data_batch_1\.bin is not in the archive; found none")


def test_archive_that_unpacks_to_too_much(tmp_path):
    bomb = member(f"{INSIDE}/readme.html", bytes(30_000_000))
    write_archive(tmp_path, [bomb, *whole()])
    tracemalloc.start()
    refused(tmp_path, "unpacks to more than 1,048,576 bytes beside the files of CIFAR-10, which is too large")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


def test_header_that_claims_too_much_allocates_nothing(tmp_path):
    header = member("claim", size=2**36 - 1, type=tarfile.GNUTYPE_LONGNAME)[0].tobuf(tarfile.GNU_FORMAT)
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(gzip.compress(header + bytes(10_000_000)))
    tracemalloc.start()
    refused(tmp_path, "unpacks to more than|damaged or cut off")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


PROCESS = """
import os, signal, sys
from minidl.data import CIFAR10, cifar10
cifar10.RECORDS = int(sys.argv[2])
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
    command = [sys.executable, "-c", PROCESS, str(folder), str(RECORDS), str(files)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_that_unpack_at_once(tmp_path):
    write_archive(tmp_path, whole())
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
    write_archive(tmp_path, whole())
    process = start_process(tmp_path, files=2)
    process.communicate("\n", timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path / INSIDE)) == 2
    assert len(CIFAR10(tmp_path)) == 5 * RECORDS
    for name in NAMES:
        assert (tmp_path / INSIDE / name).read_bytes() == make_records(name).tobytes()


def test_wrong_checksum_is_seen(tmp_path):
    data = bytearray(archive_bytes(whole()))
    data[-8] ^= 1
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(data)
    refused(tmp_path, "damaged or cut off: CRC check failed")


# -- download and the real thing --------------------------------------------------------------------------------


def test_downloads_and_unpacks(tmp_path, monkeypatch):
    asked = []

    def fetch(name, sha256, mirrors, folder, *, in_order):
        asked.append((name, sha256[:6], mirrors[0], in_order))
        folder.mkdir(parents=True)
        write_archive(folder, whole())

    monkeypatch.setattr(cifar10, "fetch", fetch)
    assert len(CIFAR10(tmp_path / "new", download=True)) == 30
    assert len(CIFAR10(tmp_path / "new", train=False, download=True)) == 6
    assert asked == [("cifar-10-binary.tar.gz", "c4a38c", cifar10.MIRRORS[0], True)]


def test_a_damaged_archive_is_fetched_anew_where_downloads_are_wanted(tmp_path, monkeypatch):
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(archive_bytes(whole())[:1000])
    refused(tmp_path, "damaged or cut off")
    monkeypatch.setattr(cifar10, "fetch", lambda *args, **kwargs: write_archive(tmp_path, whole()))
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
