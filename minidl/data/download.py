"""Download a file from whichever mirror answers, verify its digest, and only then rename it into place.

The bytes of an interrupted download are kept in the same folder, in a file with ``.part`` appended to the name. The
next download resumes from there, on any mirror that supports range requests.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]

SLOWEST = 1000  # bytes per second; a slower download is given up
LARGEST = 2**28  # bytes; the largest file here, CIFAR-10's archive, has 170 MB
RANGE_NOT_SATISFIABLE = 416  # HTTP's answer to a request for the rest of a file that is already complete


class DownloadError(OSError):
    """No mirror delivered the file; the message has a line for each, with the reason."""


def fetch(
    name: str, sha256: str, mirrors: Sequence[str], folder: PathLike, *, patience: float = 8.0, in_order: bool = False
) -> Path:
    """Download ``mirror + name`` into `folder`, unless it is already there, and return its path.

    All mirrors are tried at once, and the first to answer is used. If it sends a different file, or is too slow, the
    next that answered is used. The file is renamed into place once its digest is verified; if the connection breaks,
    the partial file is kept, and the next mirror or the next call resumes from there.

    Parameters
    ----------
    name : str
        The file's name on each mirror and in the folder.
    sha256 : str
        The file's SHA-256, in hexadecimal; or "md5:" and its MD5, where nobody publishes a better digest.
    mirrors : sequence of str
        Addresses that end in a slash.
    folder : path
        Created if missing.
    patience : float
        Timeout in seconds for a mirror's first answer, and later for its next bytes. After a longer silence users
        believe that the program hangs.
    in_order : bool
        Use the mirrors in the given order, each after those before it failed: the first to answer may be slow.

    Raises
    ------
    DownloadError
        If no mirror delivered the file. If none can be reached, this is raised after `patience` seconds, even if
        packets are dropped silently.
    ImportError
        If pooch, requests or tqdm is missing.
    OSError
        If the folder cannot be written to.
    """
    path = Path(folder) / name
    if path.is_file():
        if has_digest(path, sha256):
            return path
        print(f"{path}: damaged, or a different file (its sha256 differs): downloading it again", flush=True)
    for package in ("pooch", "requests", "tqdm"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"downloads need {package}: pip install {package}")
    failures: list[str] = []
    said = 0
    for url, problem in _answers([mirror + name for mirror in mirrors], patience, in_order):
        if problem is None:
            for failure in failures[said:]:
                print(f"skipped {failure}", flush=True)
            said = len(failures)
            path.parent.mkdir(parents=True, exist_ok=True)
            problem = _download(url, path, sha256, patience)
            if problem is None:
                return path
        failures.append(f"{url}: {problem}")
    if kept := _size(_part(path)):
        failures.append(f"the next attempt will resume from the {kept:,} bytes in {_part(path)}")
    raise DownloadError("\n  ".join([f"could not download {name}:", *failures]))


def has_digest(path: Path, known: str) -> bool:
    """Whether a file has the known digest: SHA-256 in hexadecimal, or another with its name, "md5:..."."""
    algorithm, _, digest = known.rpartition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm or "sha256").hexdigest() == digest


def _answers(urls: Sequence[str], patience: float, in_order: bool) -> Iterator[tuple[str, str | None]]:
    """Request all `urls` at once; yield (url, problem or None) as the answers arrive, or in the order of `urls`.

    A thread that waits for a name server cannot be stopped, only abandoned: hence daemon threads instead of a pool,
    whose threads Python would join at exit.
    """
    answers: dict[str, Future[str | None]] = {url: Future() for url in urls}
    for url, answer in answers.items():
        threading.Thread(target=_ask, args=(url, patience, answer), daemon=True).start()
    deadline = time.monotonic() + patience
    while answers:
        candidates = list(answers)[:1] if in_order else list(answers)
        wait([answers[url] for url in candidates], max(0.0, deadline - time.monotonic()), FIRST_COMPLETED)
        url = next((url for url in candidates if answers[url].done()), candidates[0])
        answer = answers.pop(url)
        yield url, answer.result() if answer.done() else f"no answer within {patience:g} s"


def _ask(url: str, patience: float, answer: Future[str | None]) -> None:
    """Set `answer` to why `url` is not available, or to None, without reading the body."""
    import requests

    try:
        with requests.get(url, stream=True, timeout=patience) as response:
            answer.set_result(None if response.ok else f"HTTP status {response.status_code} {response.reason}")
    # What requests raises, and what it lets through: missing certificates, redirects without an address.
    except (OSError, ValueError) as error:
        answer.set_result(_reason(error))


def _download(url: str, path: Path, sha256: str, patience: float) -> str | None:
    """Download `url` to `path`, resuming from its partial file; return what went wrong, or None."""
    with _usable_part(path) as part:
        before = _size(part)
        problem = _retrieve(url, path, part, sha256, patience)
        if problem and _size(part) < before:  # the partial file was used up: it may be the one at fault
            print(f"what {_part(path).name} holds is not the start of the file: starting again", flush=True)
            problem = _retrieve(url, path, part, sha256, patience)
        if problem is None or not _size(part):
            part.unlink(missing_ok=True)
    return problem


@contextlib.contextmanager
def _usable_part(path: Path) -> Iterator[Path]:
    """The partial file of `path`: shared by all processes, and locked by one of them (`_lock`).

    Where files cannot be locked, it is renamed to a unique name while in use: if several processes do so at once, one
    succeeds and the others start with an empty file.
    """
    if fcntl is not None:
        yield _part(path)
        return
    own = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    with contextlib.suppress(FileNotFoundError):
        os.rename(_part(path), own)
    try:
        yield own
    finally:
        with contextlib.suppress(FileNotFoundError):  # a complete download leaves none
            os.replace(own, _part(path))


def _retrieve(url: str, path: Path, part: Path, sha256: str, patience: float) -> str | None:
    """Let pooch download `url` to `path`; return what went wrong, or None.

    Pooch announces the download, passes a temporary name, and moves that file once its digest is verified.
    """
    import pooch
    import requests
    from urllib3.exceptions import HTTPError  # a dependency of requests

    def transfer(url: str, target: str, _: Any) -> None:
        with open(target, "wb") as file, part.open("a+b") as start:
            _transfer(url, file, start, path.name, patience)

    try:
        pooch.retrieve(url, sha256, path.name, path.parent, downloader=transfer)
    except (requests.RequestException, HTTPError, TimeoutError) as error:
        return _reason(error)
    except ValueError as error:  # the digest differs, or the file is too large
        return str(error)
    return None


def _transfer(url: str, file: IO[bytes], part: IO[bytes], name: str, patience: float) -> None:
    """Append what `url` sends to `part`; once that is complete, move its contents to `file`.

    If the mirror ignores the range and sends the whole file, or another process holds the lock, write directly to
    `file` and leave `part` alone: the response may be a captive portal's page.
    """
    import requests

    mine = _lock(part)
    start = part.seek(0, os.SEEK_END) if mine else 0
    # "identity": offsets count the bytes of the file on the mirror, not of a compressed response.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, stream=True, timeout=patience, headers=headers) as response:
        whole = start > 0 and response.status_code == RANGE_NOT_SATISFIABLE
        goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        to_part = mine and (start == 0 or goes_on or whole)
        if not whole:
            response.raise_for_status()
            _write(response, part if to_part else file, start if to_part else 0, name, patience)
    if to_part:
        part.seek(0)
        shutil.copyfileobj(part, file)
        part.truncate(0)


def _write(response: Any, file: IO[bytes], start: int, name: str, patience: float) -> None:
    """Append the body of a response to the `start` bytes already there, unless it is too large or too slow.

    It is not decoded, even if a mirror declares the archive's gzip as an encoding.
    """
    from tqdm import tqdm

    size = int(response.headers.get("Content-Length", 0))
    if start + size > LARGEST:
        raise ValueError(f"announces {start + size:,} bytes, but no file here has more than {LARGEST:,}")
    read = getattr(response.raw, "read1", response.raw.read)  # read1, in newer urllib3, does not wait for a full chunk
    began, before = time.monotonic(), start
    with tqdm(total=start + size if size else None, initial=start, unit="B", unit_scale=True, desc=name) as bar:
        while chunk := read(2**16, decode_content=False):
            start += file.write(chunk)
            bar.update(len(chunk))
            if start > LARGEST:
                file.truncate(0)
                raise ValueError(f"sends more than {LARGEST:,} bytes, more than any file here has")
            seconds, count = time.monotonic() - began, start - before
            if seconds >= patience:
                if count < SLOWEST * seconds:
                    raise TimeoutError(f"only {count:,} bytes in {seconds:.1f} s")
                began, before = time.monotonic(), start


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _lock(file: IO[bytes]) -> bool:
    """Lock `file` until it is closed, and return whether that worked: two writers would corrupt a partial file."""
    with contextlib.suppress(OSError):
        if fcntl is not None:  # else see _usable_part
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _reason(error: BaseException) -> str:
    """The root cause of a failed request in one line, without the exceptions wrapped around it."""
    while inner := error.__cause__ or error.__context__ or getattr(error, "reason", None):
        if not isinstance(inner, BaseException):
            break
        error = inner
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
