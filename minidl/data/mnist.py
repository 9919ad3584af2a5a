"""MNIST: 70,000 handwritten digits of 28 x 28 pixels (LeCun, Cortes and Burges 1998), and its IDX files.

An IDX file has a big-endian header (two zero bytes, a type code, the number of dimensions, the dimensions as int32),
followed by the values in row-major order. MNIST's files hold unsigned bytes: type code 8.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, ClassVar

import numpy as np

from minidl.data.dataset import PixelDataset
from minidl.data.download import PathLike, fetch
from minidl.tensor import Array

Stream = IO[bytes] | gzip.GzipFile

ARCHIVES = {  # sha256 of the gzip archives on the mirrors
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
UNPACKED = {  # sha256 of the files after decompression
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
SUBFOLDERS = (".", "mnist", "MNIST/raw", "MNIST")  # the third is torchvision's
UNSIGNED_BYTE = 8
GZIP_MAGIC = b"\x1f\x8b"


class MNIST(PixelDataset):
    """Handwritten digits: 60,000 for training, 10,000 for testing.

    Items are ``(image, label)``: float32 (1, 28, 28) between 0 and 1, white on black, and an int.

    Parameters
    ----------
    root : path, optional
        Folder with the four files, gzipped or not, directly or in a subfolder MNIST/raw/, MNIST/ or mnist/. By
        default the folder named by the environment variable MINIDL_DATA, or else the user's cache folder.
    train : bool
        Whether to load the training or the test set.
    download : bool
        Download missing files, 12 MB in all, to the subfolder mnist/, and replace damaged ones there.

    Attributes
    ----------
    images : numpy.ndarray
        The pixels, uint8 (n, 28, 28).
    labels, targets : numpy.ndarray
        The digits, int64 (n,).

    Raises
    ------
    FileNotFoundError
        If a file is missing and `download` is False.
    ValueError
        If a file is damaged.
    DownloadError
        If no mirror delivered the file.

    Notes
    -----
    A file that is not the official one is still used, but a line is printed to say so.

    Examples
    --------
    >>> digits = MNIST(download=True)  # doctest: +SKIP
    >>> image, label = digits[0]  # doctest: +SKIP
    >>> image.shape, label  # doctest: +SKIP
    ((1, 28, 28), 5)
    """

    _mirrors: Sequence[str] = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    _archives: ClassVar[Mapping[str, str]] = ARCHIVES
    _unpacked: ClassVar[Mapping[str, str]] = UNPACKED
    _subfolders: Sequence[str] = SUBFOLDERS
    _downloads = "mnist"
    _elsewhere = ", --data-dir in the examples"

    def __init__(self, root: PathLike | None = None, train: bool = True, *, download: bool = False) -> None:
        folder = Path(root).expanduser() if root is not None else default_folder()
        part = "train" if train else "t10k"
        names = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
        (images_path, images), (labels_path, labels) = (self._load(folder, name, download) for name in names)
        _check_pair(images, labels, images_path, labels_path)
        super().__init__(images, labels.astype(np.int64))

    def _load(self, folder: Path, name: str, download: bool) -> tuple[Path, Array]:
        """A file's path and values; downloaded if it is missing, or is a damaged download."""
        archive, found = f"{name}.gz", found_in(folder, name, self._subfolders)
        if not found and not download:
            looked = "\n  ".join(str(folder / sub) for sub in self._subfolders)
            raise FileNotFoundError(
                f"neither {name} nor {archive} is in any of\n  {looked}\n"
                f"Pass download=True to fetch it, or say where it is: {type(self).__name__}(root){self._elsewhere}, or "
                "the environment variable MINIDL_DATA."
            )
        fetched = folder / self._downloads / archive
        path = found[0] if found else fetched
        try:
            return path, self._read_known(path, name)
        except (FileNotFoundError, ValueError):
            if not download or path != fetched:
                raise
            fetch(archive, self._archives[archive], self._mirrors, path.parent)
            return path, self._read_known(path, name)

    def _read_known(self, path: Path, name: str) -> Array:
        values = read_idx(path)
        digest = hashlib.sha256(struct.pack(f">4B{values.ndim}I", 0, 0, UNSIGNED_BYTE, values.ndim, *values.shape))
        digest.update(values.data)
        if digest.hexdigest() != self._unpacked.get(name, digest.hexdigest()):
            print(
                f"{path}: used as it is, but not the official file (unpacked sha256 {digest.hexdigest()})", flush=True
            )
        return values


class FashionMNIST(MNIST):
    """Zalando's articles of clothing, 60,000 for training and 10,000 for testing: MNIST's format, and harder to learn.

    Parameters, attributes and errors are those of `MNIST`, but the four files are only looked for in root's subfolder
    FashionMNIST/raw/, and downloaded there (31 MB). The labels are ten classes, from T-shirts (0) to ankle boots (9):
    H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, 2017, arXiv 1708.07747.

    Examples
    --------
    >>> clothes = FashionMNIST(download=True)  # doctest: +SKIP
    >>> image, label = clothes[0]  # doctest: +SKIP
    >>> image.shape, label  # doctest: +SKIP
    ((1, 28, 28), 9)
    """

    _mirrors = (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    )
    _archives: ClassVar = {  # the publishers name only these digests
        "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
    }
    _unpacked: ClassVar[Mapping[str, str]] = {}
    _subfolders = ("FashionMNIST/raw",)
    _downloads = "FashionMNIST/raw"
    _elsewhere = ""  # no example uses it


def default_folder() -> Path:
    """The default folder of data sets: MINIDL_DATA, or else the user's cache folder."""
    if named := os.environ.get("MINIDL_DATA"):
        return Path(named).expanduser()
    try:
        import pooch
    except ImportError as error:
        raise ImportError("without a folder for the data, minidl needs pooch: pip install pooch") from error
    return Path(pooch.os_cache("minidl"))


def read_idx(path: PathLike) -> Array:
    """Read an IDX file of unsigned bytes with one to three dimensions, gzipped or not.

    Parameters
    ----------
    path : path
        Whether it is gzipped is decided by its first bytes, not by its name.

    Returns
    -------
    numpy.ndarray
        The values, uint8.

    Raises
    ------
    ValueError
        If the file is not such an IDX file, or is shorter or longer than its header says. Reading never allocates
        more than the file's actual content.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "three-labels")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3]) + bytes([7, 2, 1]))
    ...     read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    path = Path(path)
    with path.open("rb") as file:
        packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        if not packed:
            return _read_stream(file, path)
        try:
            with gzip.open(file) as stream:
                return _read_stream(stream, path)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path}: damaged or truncated gzip: {error}; delete it and download it again") from error


def _read_stream(stream: Stream, path: Path) -> Array:
    shape = _read_header(stream, path)
    size = math.prod(shape)
    says = f"the header says {' x '.join(map(str, shape))} = {size} bytes of values"
    values = _read_at_most(stream, size + 1)
    if len(values) != size:
        found = f"there are {len(values)}" if len(values) < size else "there are more"
        raise ValueError(f"{path}: {says}, but {found}")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _read_header(stream: Stream, path: Path) -> tuple[int, ...]:
    magic = _read_at_most(stream, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        found, wanted = magic.hex(" ") or "nothing", "00 00, a type code and the number of dimensions"
        raise ValueError(f"{path}: not an IDX file: it begins with {found}, expected {wanted}")
    if magic[2] != UNSIGNED_BYTE:
        raise ValueError(f"{path}: the header says type code {magic[2]}, expected {UNSIGNED_BYTE} (unsigned bytes)")
    if not 1 <= magic[3] <= 3:
        raise ValueError(f"{path}: the header says {magic[3]} dimensions, expected 1 (labels) to 3 (images)")
    sizes = _read_at_most(stream, 4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise ValueError(f"{path}: the header ends after {4 + len(sizes)} bytes, expected {4 + 4 * magic[3]}")
    return struct.unpack(f">{magic[3]}I", sizes)


def _read_at_most(stream: Stream, size: int) -> bytearray:
    """Read `size` bytes, or fewer if the stream ends; memory grows only with the data that is there."""
    values = bytearray()
    while len(values) < size and (more := stream.read(min(size - len(values), 2**20))):
        values += more
    return values


def found_in(folder: Path, name: str, subfolders: Sequence[str] = SUBFOLDERS) -> list[Path]:
    """All paths of a file below `folder`, gzipped or not; the first is used."""
    paths = [folder / sub / file for sub in subfolders for file in (name, f"{name}.gz")]
    return [path for path in paths if path.is_file()]


def _check_pair(images: Array, labels: Array, images_path: Path, labels_path: Path) -> None:
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise ValueError(f"{images_path}: images of shape {images.shape}, expected (n, 28, 28)")
    if labels.ndim != 1:
        raise ValueError(f"{labels_path}: labels of shape {labels.shape}, expected (n,)")
    if len(labels) != len(images):
        raise ValueError(f"{labels_path}: {len(labels)} labels, but {images_path} holds {len(images)} images")
    check_classes(labels, labels_path, "digits")


def check_classes(labels: Array, path: Path, kind: str = "classes") -> None:
    """Raise a ValueError if one of the ten classes is not from 0 to 9."""
    if wrong := np.flatnonzero((labels < 0) | (labels > 9)).tolist():
        raise ValueError(f"{path}: label {labels[wrong[0]]} at position {wrong[0]}, expected {kind} 0 to 9")
