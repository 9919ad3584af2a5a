"""Download a file from whichever mirror answers, verify its digest, and only then rename it into place.

The bytes of an interrupted download are kept in the same folder, in a file with ``.part`` appended to the name. The
next download resumes from there, on any mirror that supports range requests.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import Empty, Queue
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
        if _has_digest(path, sha256):
            return path
        print(f"{path}: damaged, or a different file (its sha256 differs): downloading it again", flush=True)
    _packages()  # fail early if one is missing
    failures: list[str] = []
    said = 0
    urls = [mirror + name for mirror in mirrors]
    answers = _answers(urls, patience)
    for url, problem in _in_order(urls, answers) if in_order else answers:
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


def sha256_of(path: Path) -> str:
    """The SHA-256 digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _has_digest(path: Path, known: str) -> bool:
    algorithm, _, digest = known.rpartition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm or "sha256").hexdigest() == digest


def _packages() -> tuple[Any, Any, Any]:
    try:
        import pooch
        import requests
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(f"downloads need {error.name}: pip install {error.name}") from error
    return pooch, requests, tqdm


def _answers(urls: Sequence[str], patience: float) -> Iterator[tuple[str, str | None]]:
    """Request all `urls` at once; yield (url, problem or None) in the order in which the answers arrive.

    A thread that waits for a name server cannot be stopped, only abandoned: hence daemon threads and a queue instead
    of a pool, whose threads Python would join at exit.
    """
    answers: Queue[tuple[str, str | None]] = Queue()
    silent = list(urls)
    for url in urls:
        threading.Thread(target=_ask, args=(url, patience, answers), daemon=True).start()
    deadline = time.monotonic() + patience
    while silent:
        try:
            answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            break
        silent.remove(answer[0])
        yield answer
    for url in silent:
        yield url, f"no answer within {patience:g} s"


def _in_order(urls: Sequence[str], answers: Iterator[tuple[str, str | None]]) -> Iterator[tuple[str, str | None]]:
    """The answers in the order of `urls`, each as soon as those before it have arrived."""
    known: dict[str, str | None] = {}
    for url in urls:
        while url not in known:
            known.update([next(answers)])
        yield url, known[url]


def _ask(url: str, patience: float, answers: Queue[tuple[str, str | None]]) -> None:
    """Put into `answers` whether `url` is available, without reading the body."""
    _, requests, _ = _packages()
    try:
        with requests.get(url, stream=True, timeout=patience) as response:
            answers.put((url, None if response.ok else f"HTTP status {response.status_code} {response.reason}"))
    # What requests raises, and what it lets through: missing certificates, redirects without an address.
    except (OSError, ValueError) as error:
        answers.put((url, _reason(error)))


def _download(url: str, path: Path, sha256: str, patience: float) -> str | None:
    """Download `url` to `path`, resuming from its partial file; return what went wrong, or None."""
    with _usable_part(path) as part:
        before = _size(part)
        problem, broken = _retrieve(url, path, part, sha256, patience)
        if problem and not broken and _size(part) < before:  # the partial file was used: it may be the one at fault
            print(f"what {_part(path).name} holds is not the start of the file: starting again", flush=True)
            problem, broken = _retrieve(url, path, part, sha256, patience)
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


def _retrieve(url: str, path: Path, part: Path, sha256: str, patience: float) -> tuple[str | None, bool]:
    """Let pooch download `url` to `path`; return what went wrong or None, and whether the connection broke.

    Pooch announces the download, passes a temporary name, and moves that file once its digest is verified.
    """
    pooch, requests, _ = _packages()
    from urllib3.exceptions import HTTPError  # a dependency of requests

    def transfer(url: str, target: str, _: Any) -> None:
        with open(target, "wb") as file, part.open("a+b") as start:
            _transfer(url, file, start, path.name, patience)

    try:
        pooch.retrieve(
            url, sha256 if ":" in sha256 else f"sha256:{sha256}", path.name, path.parent, downloader=transfer
        )
    except (requests.RequestException, HTTPError, TimeoutError) as error:
        return _reason(error), True
    except ValueError as error:  # the digest differs, or the file is too large
        return str(error), False
    return None, False


def _transfer(url: str, file: IO[bytes], part: IO[bytes], name: str, patience: float) -> None:
    """Append what `url` sends to `part`; once that is complete, move its contents to `file`.

    If the mirror ignores the range and sends the whole file, or another process holds the lock, write directly to
    `file` and leave `part` alone: the response may be a captive portal's page.
    """
    _, requests, tqdm = _packages()
    mine = _lock(part)
    start = part.seek(0, os.SEEK_END) if mine else 0
    # "identity": offsets count the bytes of the file on the mirror, not of a compressed response.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, stream=True, timeout=patience, headers=headers) as response:
        whole = start > 0 and response.status_code == RANGE_NOT_SATISFIABLE
        if not whole:
            response.raise_for_status()
        goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        to_part = mine and (start == 0 or goes_on or whole)
        if not whole:
            bar = partial(tqdm, unit="B", unit_scale=True, desc=name)
            _write(response, part if to_part else file, start if to_part else 0, bar, patience)
    if to_part:
        part.seek(0)
        shutil.copyfileobj(part, file)
        part.truncate(0)


def _write(response: Any, file: IO[bytes], start: int, progress: Any, patience: float) -> None:
    """Append the body of a response to the `start` bytes already there, unless it is too large."""
    size = int(response.headers.get("Content-Length", 0))
    if start + size > LARGEST:
        raise ValueError(f"announces {start + size:,} bytes, but no file here has more than {LARGEST:,}")
    with progress(total=start + size if size else None, initial=start) as bar:
        for chunk in _chunks(response, patience):
            bar.update(file.write(chunk))
            start += len(chunk)
            if start > LARGEST:
                file.truncate(0)
                raise ValueError(f"sends more than {LARGEST:,} bytes, more than any file here has")


def _chunks(response: Any, patience: float) -> Iterator[bytes]:
    """The undecoded body, even if a mirror declares the archive's gzip as an encoding; raises if it is too slow."""
    read = getattr(response.raw, "read1", response.raw.read)  # read1, in newer urllib3, does not wait for a full chunk
    began, count = time.monotonic(), 0
    while chunk := read(2**16, decode_content=False):
        yield chunk
        count += len(chunk)
        seconds = time.monotonic() - began
        if seconds >= patience:
            if count < SLOWEST * seconds:
                raise TimeoutError(f"only {count:,} bytes in {seconds:.1f} s")
            began, count = time.monotonic(), 0


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _lock(file: IO[bytes]) -> bool:
    """Lock `file` until it is closed, and return whether that worked: two writers would corrupt a partial file."""
    if fcntl is None:  # see _usable_part
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _reason(error: BaseException) -> str:
    """The root cause of a failed request in one line, without the exceptions wrapped around it."""
    while inner := error.__cause__ or error.__context__ or getattr(error, "reason", None):
        if not isinstance(inner, BaseException):
            break
        error = inner
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
