"""CIFAR-10 files and archives, whole, damaged and malicious.  The files of these tests hold 6 records, not 10,000."""

import gzip
import hashlib
import io
import os
import re
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
    message = f"data_batch_3.bin: {size:,} bytes, expected 6 x 3,073 = 18,438"
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
    ],
)
@pytest.mark.parametrize("at", [0, 99])
def test_members_that_do_not_belong_there(tmp_path, extra, message, at):
    members = whole()
    members.insert(at, extra)
    write_archive(tmp_path, members)
    refused(tmp_path, message)
    assert not (tmp_path.parent / "evil").exists()


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
    refused(tmp_path, r"unpacks to more than 1,159,204 bytes, too large for CIFAR-10")
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


def test_archive_cut_off_is_refused(tmp_path):
    data = archive_bytes(whole())
    path = tmp_path / "cifar-10-binary.tar.gz"
    for length in [*range(40), *range(40, len(data), 5003), *range(len(data) - 20, len(data))]:
        path.write_bytes(data[:length])
        refused(tmp_path, "is damaged or cut off")


def test_corrupted_archive_is_refused_or_sound(tmp_path):
    plain = bytearray(gzip.decompress(archive_bytes(whole())))
    heads = [at for at in range(0, len(plain), 512) if plain[at : at + 8] == b"cifar-10"]
    rng = np.random.default_rng(0)
    path = tmp_path / "cifar-10-binary.tar.gz"
    for _ in range(150):
        data = plain.copy()
        for at in rng.choice(heads) + rng.integers(0, 512, rng.integers(1, 4)):
            data[at] = rng.integers(256)
        head = rng.choice(heads)
        if rng.random() < 0.8:  # a checksum that is right, or nothing beyond it would be tested
            block = data[head : head + 512]
            block[148:156] = b" " * 8
            data[head + 148 : head + 156] = b"%06o\0 " % sum(block)
        path.write_bytes(gzip.compress(data, 1))
        try:
            list(cifar10._files(path))
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
    assert os.listdir(tmp_path) == [path.name]


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
