"""Fetch a file from whichever mirror answers, check it, and only then give it its name.

What a broken download has brought so far waits beside the file's place, under its name with ``.part`` added.
The next download goes on from there, from any mirror that can send the rest of a file.
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

PATIENCE = 8.0  # seconds; who waits longer for a first sign of life believes that the program hangs
SLOWEST = 1000  # bytes per second; what comes in more slowly never ends
LARGEST = 2**28  # bytes; the largest file here, CIFAR-10's archive, has 170 MB
NOTHING_LEFT = 416  # HTTP's answer to who asks for the rest of a file and has it all


class DownloadError(OSError):
    """No mirror gave the file; the message has a line for each that says why."""


def fetch(
    name: str,
    sha256: str,
    mirrors: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    patience: float = PATIENCE,
    in_order: bool = False,
) -> Path:
    """Download ``mirror + name`` into `folder`, unless it lies there already, and return its path.

    All mirrors are asked at once, and the first that answers is used. One that sends something else than the
    file, or hardly anything, is passed over for the next that answered. The file gets its name once its digest is
    right; what there is of it when the connection breaks is kept, and the next mirror or the next call goes on from
    there.

    Parameters
    ----------
    name : str
        The file's name on each mirror and in the folder.
    sha256 : str
        Digest of its bytes, in hexadecimal.
    mirrors : sequence of str
        Addresses that end in a slash.
    folder : path
        Where to put it; made if missing.
    patience : float
        Seconds to wait for a mirror's first answer, and later for its next bytes.
    in_order : bool
        Use the mirrors in the order given, each once those before it failed: a slow one may be the first to answer.

    Raises
    ------
    DownloadError
        If no mirror gave the file. When none can be reached this is known after `patience` seconds, even if
        packets vanish without an answer.
    ImportError
        If pooch, requests or tqdm is missing.
    OSError
        If the folder cannot be written to.
    """
    path = Path(folder) / name
    if path.is_file():
        if sha256_of(path) == sha256:
            return path
        print(f"{path}: damaged, or another file (its sha256 differs): fetching it anew", flush=True)
    _packages()  # before anything else happens
    failures: list[str] = []
    said = 0
    urls = [mirror + name for mirror in mirrors]
    answers = _answers(urls, patience)
    for url, problem in _in_order(urls, answers) if in_order else answers:
        if problem is None:
            for failure in failures[said:]:
                print(f"passed over {failure}", flush=True)
            said = len(failures)
            path.parent.mkdir(parents=True, exist_ok=True)
            problem = _download(url, path, sha256, patience)
            if problem is None:
                return path
        failures.append(f"{url}: {problem}")
    if kept := _size(_part(path)):
        failures.append(f"the next attempt will go on from the {kept:,} bytes in {_part(path)}")
    raise DownloadError("\n  ".join([f"could not download {name}:", *failures]))


def sha256_of(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _packages() -> tuple[Any, Any, Any]:
    try:
        import pooch
        import requests
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(f"downloads need {error.name}: pip install {error.name}") from error
    return pooch, requests, tqdm


def _answers(urls: Sequence[str], patience: float) -> Iterator[tuple[str, str | None]]:
    """Ask for all `urls` at once; give (url, problem or None) as the answers come in, in that order.

    A thread that waits for a name server cannot be stopped, only left behind: hence daemons and a queue,
    not a pool, whose threads Python would wait for at its end.
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
    """The answers in the order of `urls`, each as soon as those before it are there."""
    known: dict[str, str | None] = {}
    for url in urls:
        while url not in known:
            known.update([next(answers)])
        yield url, known[url]


def _ask(url: str, patience: float, answers: Queue[tuple[str, str | None]]) -> None:
    """Put whether `url` can be had into `answers`; its content stays where it is."""
    _, requests, _ = _packages()
    try:
        with requests.get(url, stream=True, timeout=patience) as response:
            problem = None if response.ok else f"HTTP status {response.status_code} {response.reason}"
            answers.put((url, problem))
    # What requests raises, and what it lets through, such as missing certificates and redirections to no address.
    except (OSError, ValueError) as error:
        answers.put((url, _reason(error)))


def _download(url: str, path: Path, sha256: str, patience: float) -> str | None:
    """Download `url` to `path`, going on from its part; return what is wrong with it, or None."""
    with _usable_part(path) as part:
        before = _size(part)
        problem, broken = _retrieve(url, path, part, sha256, patience)
        if problem and not broken and _size(part) < before:  # the part was used: was it the part that is wrong?
            print(f"what {_part(path).name} holds is not the start of the file: starting again", flush=True)
            problem, broken = _retrieve(url, path, part, sha256, patience)
        if problem is None or not _size(part):
            part.unlink(missing_ok=True)
    return problem


@contextlib.contextmanager
def _usable_part(path: Path) -> Iterator[Path]:
    """The file for what `path` has so far: the one that all processes share, which `_lock` gives to one of them.

    Where files cannot be locked, it gets a name of its own for as long as it is used: of several processes that rename
    it at once, one succeeds, and the others begin with an empty one.
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
        with contextlib.suppress(FileNotFoundError):  # nothing is left of it after a whole download
            os.replace(own, _part(path))


def _retrieve(url: str, path: Path, part: Path, sha256: str, patience: float) -> tuple[str | None, bool]:
    """Let pooch fetch `url` to `path`; return what is wrong or None, and whether the connection broke.

    Pooch announces the download, hands out a temporary name, and moves that file once its digest is right.
    """
    pooch, requests, _ = _packages()
    from urllib3.exceptions import HTTPError  # requests comes with it

    def transfer(url: str, target: str, _: Any) -> None:
        with open(target, "wb") as file, part.open("a+b") as start:
            _transfer(url, file, start, path.name, patience)

    try:
        pooch.retrieve(url, f"sha256:{sha256}", path.name, path.parent, downloader=transfer)
    except (requests.RequestException, HTTPError, TimeoutError) as error:
        return _reason(error), True
    except ValueError as error:  # the digest is another, or no file is as large
        return str(error), False
    return None, False


def _transfer(url: str, file: IO[bytes], part: IO[bytes], name: str, patience: float) -> None:
    """Write what `url` sends to `part`, after what is there, and when it is whole move all of it to `file`.

    A mirror that sends the whole file, though there is a part, or while another process is busy with it,
    writes to `file` at once: what it sends may be the page of a hotel's network, and no reason to lose the part.
    """
    _, requests, tqdm = _packages()
    mine = _lock(part)
    start = part.seek(0, os.SEEK_END) if mine else 0
    # "identity": a part is counted in bytes as they lie on the mirror.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, stream=True, timeout=patience, headers=headers) as response:
        whole = start > 0 and response.status_code == NOTHING_LEFT
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
    """Write the body of a response after the `start` bytes that are there, unless there is too much of it."""
    size = int(response.headers.get("Content-Length", 0))
    if start + size > LARGEST:
        raise ValueError(f"announces {start + size:,} bytes, and no file here has more than {LARGEST:,}")
    with progress(total=start + size if size else None, initial=start) as bar:
        for chunk in _chunks(response, patience):
            bar.update(file.write(chunk))
            start += len(chunk)
            if start > LARGEST:
                file.truncate(0)
                raise ValueError(f"sends more than {LARGEST:,} bytes, which no file here has")


def _chunks(response: Any, patience: float) -> Iterator[bytes]:
    """The body as it was sent, even where a mirror calls an archive an encoding, while it comes at some speed."""
    read = getattr(response.raw, "read1", response.raw.read)  # urllib3's read1, if it has it, waits for no full chunk
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
    """Whether `file` is ours until it is closed: two processes that add to one part would spoil it."""
    if fcntl is None:  # see _usable_part
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _reason(error: BaseException) -> str:
    """The cause of a failed request in one line: what lies at the bottom, without the layers above."""
    while inner := error.__cause__ or error.__context__ or getattr(error, "reason", None):
        if not isinstance(inner, BaseException):
            break
        error = inner
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
