"""Fetch a file from whichever mirror answers, check it, and only then give it its name."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any

PATIENCE = 8.0  # seconds; who waits longer for a first sign of life believes that the program hangs


class DownloadError(OSError):
    """No mirror gave the file; the message has a line for each that says why."""


def fetch(
    name: str,
    sha256: str,
    mirrors: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    patience: float = PATIENCE,
) -> Path:
    """Download ``mirror + name`` into `folder`, unless it lies there already, and return its path.

    All mirrors are asked at once, and the first that answers is used. One that sends something else than
    the file is passed over for the next that answered. The file gets its name once its digest is right.

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

    Raises
    ------
    DownloadError
        If no mirror gave the file. When none can be reached this is known after `patience` seconds, even if
        packets vanish without an answer.
    ImportError
        If pooch, requests or tqdm is missing: ``pip install "minidl[examples]"``.
    OSError
        If the folder cannot be written to.
    """
    path = Path(folder) / name
    pooch, _, _ = _packages()  # before anything else happens
    if path.is_file() and pooch.file_hash(str(path)) == sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url, problem in _answers([mirror + name for mirror in mirrors], patience):
        if problem is None:
            problem = _download(url, path, sha256, patience)
            if problem is None:
                return path
            print(f"passed over {url}: {problem}", flush=True)
        failures.append(f"{url}: {problem}")
    raise DownloadError("\n  ".join([f"could not download {name}:", *failures]))


def _packages() -> tuple[Any, Any, Any]:
    try:
        import pooch
        import requests
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(f'downloads need {error.name}: pip install "minidl[examples]"') from error
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


def _ask(url: str, patience: float, answers: Queue[tuple[str, str | None]]) -> None:
    """Put whether `url` can be had into `answers`; its content stays where it is."""
    _, requests, _ = _packages()
    try:
        with requests.get(url, stream=True, timeout=patience) as response:
            problem = None if response.ok else f"HTTP status {response.status_code} {response.reason}"
            answers.put((url, problem))
    except OSError as error:  # what requests raises, and what it lets through, such as missing certificates
        answers.put((url, _reason(error)))


def _download(url: str, path: Path, sha256: str, patience: float) -> str | None:
    """Let pooch fetch `url` to `path`; return what is wrong with it, or None.

    Pooch announces the download, writes to a file of another name, and moves it once its digest is right.
    """
    pooch, requests, tqdm = _packages()

    def transfer(url: str, part: str, _: Any) -> None:  # unlike pooch's own, closes what it opens
        with requests.get(url, stream=True, timeout=patience) as response, open(part, "wb") as file:
            response.raise_for_status()
            size = int(response.headers.get("Content-Length", 0)) or None
            with tqdm(total=size, unit="B", unit_scale=True, desc=path.name) as bar:
                for chunk in response.iter_content(2**16):
                    bar.update(file.write(chunk))

    try:
        pooch.retrieve(url, f"sha256:{sha256}", path.name, path.parent, downloader=transfer)
    except requests.RequestException as error:
        return _reason(error)
    except ValueError as error:  # the digest is another
        return str(error)
    return None


def _reason(error: BaseException) -> str:
    """The cause of a failed request in one line: what lies at the bottom, without the layers above."""
    while inner := error.__cause__ or error.__context__ or getattr(error, "reason", None):
        if not isinstance(inner, BaseException):
            break
        error = inner
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
