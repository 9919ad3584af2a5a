"""MNIST files, whole and wrong, and downloads from mirrors that behave in every way but the right one.

Files that are merely damaged are test_damage.py's.
"""

import contextlib
import gzip
import hashlib
import inspect
import logging
import os
import re
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidl.data import MNIST, DataLoader, DownloadError, download, mnist, read_idx

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")


def idx(values):
    """The bytes of an IDX file, written independently of the reader."""
    values = np.asarray(values, np.uint8)
    return struct.pack(">I", 0x800 + values.ndim) + np.array(values.shape, ">u4").tobytes() + values.tobytes()


def images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 28, 28), np.uint8)


def write_pair(folder, pictures, labels, packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in zip(TRAIN, (pictures, labels), strict=True):
        data = idx(values)
        path = folder / f"{name}.gz" if packed else folder / name
        path.write_bytes(gzip.compress(data) if packed else data)


# -- IDX -----------------------------------------------------------------------------------------------------


@given(shape=st.lists(st.integers(0, 6), min_size=1, max_size=3), packed=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_idx_is_read_back(tmp_path, shape, packed):
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    path = tmp_path / "values"
    path.write_bytes(gzip.compress(idx(values)) if packed else idx(values))
    np.testing.assert_array_equal(read_idx(path), values)
    assert read_idx(str(path)).dtype == np.uint8


def test_packed_is_seen_from_the_content(tmp_path):
    (tmp_path / "plain.gz").write_bytes(idx([1, 2]))
    (tmp_path / "packed").write_bytes(gzip.compress(idx([1, 2])))
    assert read_idx(tmp_path / "plain.gz").tolist() == read_idx(tmp_path / "packed").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an IDX file: it begins with nothing, expected 00 00, a type code and the number of dimensions"),
        (b"\0\0\x08", "not an IDX file: it begins with 00 00 08"),
        (b"<html>", "not an IDX file: it begins with 3c 68 74 6d, expected 00 00"),
        (b"\0\0\x0d\x01\0\0\0\x01" + bytes(4), r"type code 13, expected 8 \(unsigned bytes\)"),
        (b"\0\0\x08\0", "0 dimensions, expected 1 .* to 3"),
        (b"\0\0\x08\xff" + bytes(2000), "255 dimensions, expected 1 .* to 3"),
        (b"\0\0\x08\x03" + bytes(7), "the header ends after 11 bytes, expected 16"),
        (idx([1, 2, 3])[:-1], "the header says 3 = 3 bytes of values, but there are 2"),
        (idx(np.zeros((2, 3))) + b"x", "the header says 2 x 3 = 6 bytes of values, but there are more"),
        (b"\0\0\x08\x02" + b"\xff" * 8 + b"xy", "4294967295 x 4294967295 = .* bytes of values, but there are 2"),
    ],
)
def test_damaged_idx_is_refused(tmp_path, data, message):
    path = tmp_path / "file"
    for stored in (data, gzip.compress(data)):
        path.write_bytes(stored)
        with pytest.raises(ValueError, match=message) as caught:
            read_idx(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_header_alone_allocates_nothing(tmp_path, packed):
    claim = 900_000_000  # within what a deflated megabyte could hold
    data = struct.pack(">II", 0x801, claim) + np.random.default_rng(0).bytes(1_000_000)
    path = tmp_path / "absurd"
    path.write_bytes(gzip.compress(data, 1) if packed else data)
    tracemalloc.start()
    with pytest.raises(ValueError, match="the header says 900000000"):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


def test_what_unpacks_to_more_than_the_header_says_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(idx([1, 2, 3]) + bytes(200_000_000), 1))
    tracemalloc.start()
    with pytest.raises(ValueError, match="the header says 3 = 3 bytes of values, but there are more"):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


# -- MNIST ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [".", "MNIST/raw", "MNIST", "mnist"])
@pytest.mark.parametrize("packed", [False, True])
def test_finds_its_files(tmp_path, place, packed):
    pictures, labels = images(5), [3, 1, 4, 1, 5]
    write_pair(tmp_path / place, pictures, labels, packed)
    digits = MNIST(tmp_path)
    np.testing.assert_array_equal(digits.images, pictures)
    assert digits.targets.tolist() == labels
    image, label = digits[2]
    assert (image.shape, image.dtype, label, type(label)) == ((1, 28, 28), np.float32, 4, int)
    np.testing.assert_array_equal(image.array[0], pictures[2] / np.float32(255))
    batch, numbers = next(iter(DataLoader(digits, batch_size=5)))
    assert (batch.shape, numbers.dtype) == ((5, 1, 28, 28), np.int64)


def test_folder_named_by_the_environment(tmp_path, monkeypatch):
    write_pair(tmp_path, images(2), [0, 9])
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path))
    assert len(MNIST()) == 2
    with pytest.raises(FileNotFoundError):
        MNIST(tmp_path / "elsewhere")  # root comes first


def test_folder_is_the_users_cache_otherwise(monkeypatch):
    pooch = pytest.importorskip("pooch")
    monkeypatch.delenv("MINIDL_DATA", raising=False)
    assert mnist.default_folder() == pooch.os_cache("minidl")
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match="pooch: pip install pooch"):
        mnist.default_folder()


def test_missing_files_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        MNIST(tmp_path, train=False)
    message = str(caught.value)
    assert "neither t10k-images-idx3-ubyte nor t10k-images-idx3-ubyte.gz" in message
    for hint in (
        str(tmp_path),
        str(tmp_path / "MNIST" / "raw"),
        "download=True",
        "--data-dir",
        "MINIDL_DATA",
    ):
        assert hint in message


def test_other_files_are_used_and_named(tmp_path, capsys):
    write_pair(tmp_path, images(2), [0, 9])
    for _ in range(2):  # whenever they are read, since what was said before is forgotten by then
        MNIST(tmp_path)
        for name, line in zip(TRAIN, capsys.readouterr().out.splitlines(), strict=True):
            assert line.startswith(f"{tmp_path / name}.gz: used as it is, but not the official file (unpacked sha256 ")


def test_known_files_say_nothing(tmp_path, capsys, monkeypatch):
    pictures, labels = images(2), [0, 9]
    write_pair(tmp_path, pictures, labels)
    for name, values in zip(TRAIN, (pictures, labels), strict=True):
        monkeypatch.setitem(mnist.UNPACKED, name, hashlib.sha256(idx(values)).hexdigest())
    MNIST(tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("pictures", "labels", "message"),
    [
        (images(3), [1, 2], r"labels-idx1-ubyte\.gz: 2 labels, but .*images-idx3-ubyte\.gz holds 3 images"),
        (images(2)[:, :27], [1, 2], r"images of shape \(2, 27, 28\), expected \(n, 28, 28\)"),
        (images(2)[0], [1, 2], r"images of shape \(28, 28\), expected"),
        (images(2), [[1], [2]], r"labels of shape \(2, 1\), expected \(n,\)"),
        (images(2), [1, 10], "label 10 at position 1, expected digits 0 to 9"),
    ],
)
def test_files_that_do_not_belong_together(tmp_path, pictures, labels, message):
    write_pair(tmp_path, pictures, labels)
    with pytest.raises(ValueError, match=message):
        MNIST(tmp_path)


@pytest.mark.skipif(not os.environ.get("MINIDL_DATA"), reason="MINIDL_DATA does not name a folder with MNIST")
@pytest.mark.parametrize(("train", "n", "first"), [(True, 60_000, [5, 0, 4]), (False, 10_000, [7, 2, 1])])
def test_real_mnist(train, n, first, capsys):
    digits = MNIST(train=train)
    assert capsys.readouterr().out == ""  # the official files
    assert (len(digits), digits.labels[:3].tolist()) == (n, first)
    assert digits.images.mean() == pytest.approx(33.3 if train else 33.8, abs=0.1)


# -- downloads -----------------------------------------------------------------------------------------------

GOOD = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(GOOD).hexdigest()


REDIRECTION = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nConnection: close\r\nLocation: {}\r\n\r\n"
RAW = {  # answers sent as they are, of which those in KEEP_ON go on with KEEP_ON's bytes, again and again
    kind: answer.encode("latin1")
    for kind, answer in {
        "loop": REDIRECTION.format("/loop/file.gz"),
        "nowhere": REDIRECTION.format("http://["),
        "unspeakable": REDIRECTION.format("http://\xff/"),
        "local": REDIRECTION.format("file:///etc/hostname"),
        "error": "HTTP/1.1 500 Oops\r\nContent-Length: 6\r\n\r\n<html>",
        "nothing": "",
        "noise": "\0" * 1000,
        "empty": "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "announced": "HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\nx",
        "no-number": "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nx",
        "cut-chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nxx",
        "endless": "HTTP/1.1 200 OK\r\n\r\n",
        "drip": "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n",
        "drip-header": "HTTP/1.1 200 OK\r\nX: ",
    }.items()
}
KEEP_ON = {"endless": bytes(2**16), "drip": b"x", "drip-header": b"x"}


class Mirror(BaseHTTPRequestHandler):
    """Answers according to the folder: /good/, /late/, /slow/, /wrong/, /page/, /half/, /stuck/, RAW; otherwise 404.

    What begins with "rest" can send the rest of a file: /rest/, /rest-half/ (half of what is asked for),
    /rest-shifted/ (from another place). /packed/ says that the file is an encoding of something else.
    """

    def do_GET(self):
        kind = self.path.split("/")[1]
        self.server.asked.append(self.path)
        if kind in RAW:
            self.send_raw(kind)
            return
        if kind == "late":
            time.sleep(0.3)
        body = {
            "good": GOOD,
            "late": GOOD,
            "slow": GOOD,
            "half": GOOD,
            "stuck": GOOD,
            "rest": GOOD,
            "rest-half": GOOD,
            "rest-shifted": GOOD,
            "packed": GOOD,
            "wrong": GOOD[::-1],
            "page": b"<html>",
        }.get(kind, b"")
        status, sent = (200 if body else 404), self.headers.get("Range")
        if sent and kind.startswith("rest"):
            start = int(sent.removeprefix("bytes=").removesuffix("-")) - (kind == "rest-shifted")
            status, total, body = (206, len(body), body[start:]) if start < len(body) else (416, len(body), b"")
        self.server.answered.append((kind, status))
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if kind == "packed":
            self.send_header("Content-Encoding", "x-gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            while kind == "slow" and len(body) > 10_000:
                self.wfile.write(body[:10_000])
                body = body[10_000:]
                time.sleep(0.03)
            self.wfile.write(body[: len(body) // 2 if kind in ("half", "stuck", "rest-half") else None])
            if kind == "stuck":
                self.server.over.wait(10)
        except OSError:  # the other side has seen enough
            pass

    def send_raw(self, kind):
        with contextlib.suppress(OSError):
            self.wfile.write(RAW[kind])
            while kind in KEEP_ON and not self.server.over.wait(0 if kind == "endless" else 0.02):
                self.wfile.write(KEEP_ON[kind])

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        server.asked, server.answered, server.over = [], [], threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.05))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def silent_port():
    """A port where connections are accepted by the system, and nobody ever answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def closed_port():
    with socketserver.TCPServer(("127.0.0.1", 0), None) as server:
        return server.server_address[1]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def fetch(server, kinds, folder, **kwargs):
    pytest.importorskip("requests")
    return download.fetch("file.gz", SHA256, [f"{server.url}{kind}/" for kind in kinds], folder, **kwargs)


@pytest.fixture
def said_by_pooch():
    """The lines that pooch prints, whose stream is the one that was standard error when it was imported."""
    pooch = pytest.importorskip("pooch")
    handler = logging.Handler()
    lines = []
    handler.emit = lambda record: lines.append(record.getMessage())
    pooch.get_logger().addHandler(handler)
    yield lines
    pooch.get_logger().removeHandler(handler)


def test_fetch_writes_the_file_and_says_so(server, tmp_path, capsys, said_by_pooch):
    folder = tmp_path / "new" / "folder"
    path = fetch(server, ["good"], folder)
    assert path == folder / "file.gz"
    assert path.read_bytes() == GOOD
    assert os.listdir(folder) == ["file.gz"]
    assert said_by_pooch == [f"Downloading data from '{server.url}good/file.gz' to file '{path}'."]
    assert "file.gz: 100%" in capsys.readouterr().err


def test_fetch_keeps_what_is_there(server, tmp_path, capsys):
    (tmp_path / "file.gz").write_bytes(GOOD)
    before = len(server.asked)
    fetch(server, ["good"], tmp_path)
    assert len(server.asked) == before
    assert capsys.readouterr().out == ""


def test_fetch_replaces_a_damaged_file_and_says_so(server, tmp_path, capsys):
    path = tmp_path / "file.gz"
    path.write_bytes(GOOD[:100])
    assert fetch(server, ["good"], tmp_path).read_bytes() == GOOD
    assert (
        capsys.readouterr().out == f"{path}: damaged, or a different file (its sha256 differs): downloading it again\n"
    )


BAD = {
    "loop": "Exceeded 30 redirects",
    "nowhere": "Invalid IPv6 URL",
    "unspeakable": "can't decode byte 0xff",
    "local": "No connection adapters were found for 'file:///etc/hostname'",
    "missing": "HTTP status 404 Not Found",
    "error": "HTTP status 500 Oops",
    "nothing": "Remote end closed connection without response",
    "noise": "BadStatusLine",
    "empty": "does not match the known hash",
    "wrong": "does not match the known hash",
    "page": "does not match the known hash",
    "half": "150000 bytes read, 150000 more expected",
    "announced": "announces 999,999,999,999 bytes, but no file here has more than 1,048,576",
    "no-number": "many",
    "cut-chunk": "IncompleteRead",
    "endless": "sends more than 1,048,576 bytes, more than any file here has",
    "drip": r"only \d+ bytes in 1\.\d s",
    "drip-header": "no answer within 1 s",
    "stuck": "timed out",
}


@pytest.mark.parametrize("kind", BAD)
def test_every_bad_mirror_is_passed_over_in_time_and_named(server, tmp_path, capsys, monkeypatch, kind):
    monkeypatch.setattr(download, "LARGEST", 2**20)
    started = time.monotonic()
    path = fetch(server, [kind, "good"], tmp_path, patience=1, in_order=True)
    assert time.monotonic() - started < 5
    assert path.read_bytes() == GOOD
    assert os.listdir(tmp_path) == ["file.gz"]
    (line,) = capsys.readouterr().out.splitlines()
    assert re.search(f"skipped {server.url}{kind}/file.gz: .*{BAD[kind]}", line)


def test_no_good_mirror_at_all(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LARGEST", 2**20)
    bad = {kind: problem for kind, problem in BAD.items() if kind not in KEEP_ON}  # whose sending slows down the rest
    (tmp_path / "file.gz").write_bytes(b"what was there")
    started = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        fetch(server, bad, tmp_path, patience=2, in_order=True)
    assert time.monotonic() - started < 10
    head, *lines = str(caught.value).splitlines()
    assert head == "could not download file.gz:"
    for (kind, problem), line in zip(bad.items(), lines, strict=False):
        assert re.search(f"{server.url}{kind}/file.gz: .*{problem}", line)
    assert (tmp_path / "file.gz").read_bytes() == b"what was there"
    assert set(os.listdir(tmp_path)) <= {"file.gz", "file.gz.part"}


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_thread_ends_in_an_exception(server, tmp_path, capfd):
    with pytest.raises(DownloadError):
        fetch(server, ["nowhere", "unspeakable", "local", "loop", "noise"], tmp_path)
    assert "Traceback" not in capfd.readouterr().err


PROCESS = """
import sys, pooch, requests, tqdm
from minidl.data import download
print("ready", flush=True)
sys.stdin.readline()
print(download.fetch("file.gz", sys.argv[1], [sys.argv[2]], sys.argv[3]))
"""


def start_process(server, kind, folder, before=""):
    """Another process that will fetch the file once it gets a line; it first runs the code `before`."""
    pytest.importorskip("requests")
    command = [sys.executable, "-c", before + PROCESS, SHA256, f"{server.url}{kind}/", str(folder)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, text=True, **pipes)


NO_LOCKS = "import sys; sys.modules['fcntl'] = None\n"  # as on Windows


@pytest.mark.slow
@pytest.mark.parametrize("before", ["", NO_LOCKS])
def test_processes_that_download_at_once(server, tmp_path, before):
    processes = [start_process(server, "slow", tmp_path, before) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    server.answered.clear()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, f"{tmp_path / 'file.gz'}\n"), err
    assert len(statuses(server, "slow")) > 3  # more than one of them has downloaded
    assert (tmp_path / "file.gz").read_bytes() == GOOD
    assert os.listdir(tmp_path) == ["file.gz"]


def test_killed_process_leaves_nothing_that_is_taken_for_the_file(server, tmp_path):
    process = start_process(server, "slow", tmp_path)
    process.stdin.write("\n")
    process.stdin.flush()
    part = tmp_path / "file.gz.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 50_000):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not (tmp_path / "file.gz").exists()
    kept = part.read_bytes()
    assert kept == GOOD[: len(kept)]
    server.answered.clear()
    assert fetch(server, ["rest"], tmp_path).read_bytes() == GOOD
    assert statuses(server, "rest") == [206]
    assert not part.exists()


@pytest.mark.parametrize("kind", ["wrong", "page", "missing"])
def test_failed_download_leaves_nothing(server, tmp_path, kind):
    with pytest.raises(DownloadError, match=f"could not download file.gz:\n  {server.url}{kind}/file.gz: "):
        fetch(server, [kind], tmp_path)
    assert os.listdir(tmp_path) == []


def test_mirrors_that_cannot_be_reached(server, silent_port, closed_port, tmp_path, capsys):
    mirrors = [
        f"http://127.0.0.1:{silent_port}/",
        f"http://127.0.0.1:{closed_port}/",
        f"{server.url}missing/",
    ]
    pytest.importorskip("requests")
    started = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        download.fetch("file.gz", SHA256, mirrors, tmp_path, patience=0.7)
    assert time.monotonic() - started < 2
    problems = dict(line.strip().split(": ", 1) for line in str(caught.value).splitlines()[1:])
    assert re.search("ReadTimeout|TimeoutError|no answer within 0.7 s", problems[mirrors[0] + "file.gz"])
    assert re.search("ConnectionRefused|refused", problems[mirrors[1] + "file.gz"])
    assert problems[mirrors[2] + "file.gz"] == "HTTP status 404 Not Found"
    assert capsys.readouterr().out == ""  # nothing was downloaded


@pytest.mark.parametrize("in_order", [False, True])
def test_silent_mirror_does_not_hold_up_another(server, silent_port, tmp_path, in_order):
    pytest.importorskip("requests")
    mirrors = [f"http://127.0.0.1:{silent_port}/", f"{server.url}good/"]
    started = time.monotonic()
    download.fetch("file.gz", SHA256, mirrors[::-1] if in_order else mirrors, tmp_path, patience=1.5, in_order=in_order)
    assert time.monotonic() - started < 1


def test_name_server_that_never_answers(tmp_path, monkeypatch):
    pytest.importorskip("requests")
    over = threading.Event()

    def never(*args, **kwargs):
        over.wait(10)
        raise socket.gaierror("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    started = time.monotonic()
    with pytest.raises(DownloadError, match=r"http://a\.invalid/file\.gz: no answer within 0\.3 s"):
        download.fetch("file.gz", SHA256, ["http://a.invalid/", "http://b.invalid/"], tmp_path, patience=0.3)
    assert time.monotonic() - started < 2
    over.set()


def test_nothing_reachable_is_known_within_ten_seconds():
    assert inspect.signature(download.fetch).parameters["patience"].default <= 9


# Downloads that break off and go on.  PART is what file.gz.part is to hold before and after.

PART = GOOD[:100_000]


def fetch_with_part(server, kinds, folder, part=PART, **kwargs):
    (folder / "file.gz.part").write_bytes(part)
    server.answered.clear()
    return fetch(server, kinds, folder, **kwargs)


def statuses(server, kind):
    """The answers to downloads: each mirror's first request only asks whether it is there."""
    return [status for name, status in server.answered if name == kind][1:]


@pytest.mark.parametrize("locks", [True, False])
def test_broken_download_is_kept_and_goes_on(server, tmp_path, capsys, monkeypatch, locks):
    if not locks:
        monkeypatch.setattr(download, "fcntl", None)
    kept = f"the next attempt will resume from the 150,000 bytes in {tmp_path / 'file.gz.part'}"
    with pytest.raises(DownloadError, match=re.escape(kept)):
        fetch(server, ["rest-half"], tmp_path)
    assert os.listdir(tmp_path) == ["file.gz.part"]
    assert (tmp_path / "file.gz.part").read_bytes() == GOOD[:150_000]
    with pytest.raises(DownloadError, match="75000 bytes read, 75000 more expected"):
        fetch(server, ["rest-half"], tmp_path)
    server.answered.clear()
    assert fetch(server, ["rest"], tmp_path).read_bytes() == GOOD
    assert statuses(server, "rest") == [206]
    assert os.listdir(tmp_path) == ["file.gz"]
    assert "225k/300k" in capsys.readouterr().err  # the bar begins where the download does


def test_second_mirror_goes_on_where_the_first_broke_off(server, tmp_path):
    server.answered.clear()
    path = fetch(server, ["rest-half", "rest"], tmp_path, in_order=True)
    assert path.read_bytes() == GOOD
    assert (statuses(server, "rest-half"), statuses(server, "rest")) == ([200], [206])
    assert os.listdir(tmp_path) == ["file.gz"]


def test_mirror_that_sends_no_rest_starts_again(server, tmp_path):
    assert fetch_with_part(server, ["good"], tmp_path).read_bytes() == GOOD
    assert os.listdir(tmp_path) == ["file.gz"]


@pytest.mark.parametrize("kind", ["page", "wrong", "half", "missing", "rest-shifted"])
def test_part_outlives_a_mirror_that_sends_no_rest(server, tmp_path, kind):
    with pytest.raises(DownloadError):
        fetch_with_part(server, [kind], tmp_path)
    assert os.listdir(tmp_path) == ["file.gz.part"]
    assert (tmp_path / "file.gz.part").read_bytes() == PART
    server.answered.clear()
    assert fetch(server, ["rest"], tmp_path).read_bytes() == GOOD
    assert statuses(server, "rest") == [206]


@pytest.mark.parametrize(
    ("part", "answers"),
    [
        (b"x" * 1000, [206, 200]),  # of another file
        (GOOD[:-1] + b"x", [416, 200]),
        (GOOD + b"x", [416, 200]),
        (GOOD, [416]),  # whole, and never looked at
        (b"", [200]),
    ],
)
def test_parts_that_are_wrong_or_whole(server, tmp_path, capsys, part, answers):
    assert fetch_with_part(server, ["rest"], tmp_path, part).read_bytes() == GOOD
    assert statuses(server, "rest") == answers
    assert os.listdir(tmp_path) == ["file.gz"]
    said = "what file.gz.part holds is not the start of the file: starting again\n" if len(answers) == 2 else ""
    assert capsys.readouterr().out == said


def test_part_that_another_process_writes_to_is_left_alone(server, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / "file.gz.part").open("wb") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        part.write(b"busy")
        part.flush()
        server.answered.clear()
        assert fetch(server, ["rest"], tmp_path).read_bytes() == GOOD
        assert statuses(server, "rest") == [200]
        assert os.fstat(part.fileno()).st_size == 4


def test_without_locks_one_of_several_goes_on_from_the_part(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "fcntl", None)
    path, part = tmp_path / "file.gz", tmp_path / "file.gz.part"
    part.write_bytes(PART)
    with download._usable_part(path) as first, download._usable_part(path) as second:
        assert (first.read_bytes(), second.exists(), part.exists()) == (PART, False, False)
        second.write_bytes(b"another")
    assert os.listdir(tmp_path) == ["file.gz.part"]
    assert part.read_bytes() == PART


def test_archive_that_a_mirror_calls_an_encoding_stays_packed(server, tmp_path):
    assert fetch(server, ["packed"], tmp_path).read_bytes() == GOOD


def test_mirrors_in_the_order_given(server, tmp_path):
    server.answered.clear()
    fetch(server, ["late", "good"], tmp_path, in_order=True)
    assert (statuses(server, "late"), statuses(server, "good")) == ([200], [])


def test_logging_is_left_alone(server, tmp_path, capsys):
    root = logging.getLogger()
    before = (root.level, list(root.handlers), logging.root.manager.disable)
    fetch(server, ["good"], tmp_path)
    assert (root.level, list(root.handlers), logging.root.manager.disable) == before


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(ImportError, match="downloads need (.*): pip install"):
        download.fetch("file.gz", SHA256, [], tmp_path)


@pytest.fixture
def labels_to_fetch(server, monkeypatch):
    """The labels 4, 5, 6, which a mirror has."""
    pytest.importorskip("requests")
    labels = gzip.compress(idx([4, 5, 6]))
    monkeypatch.setattr(sys.modules[__name__], "GOOD", labels)
    monkeypatch.setitem(mnist.ARCHIVES, f"{TRAIN[1]}.gz", hashlib.sha256(labels).hexdigest())
    monkeypatch.setattr(mnist.MNIST, "_mirrors", (f"{server.url}missing/", f"{server.url}good/"))


def test_mnist_downloads_what_is_missing(labels_to_fetch, tmp_path):
    write_pair(tmp_path, images(3), [1, 2, 3])
    (tmp_path / f"{TRAIN[1]}.gz").unlink()
    assert MNIST(tmp_path, download=True).labels.tolist() == [4, 5, 6]
    assert (tmp_path / "mnist" / f"{TRAIN[1]}.gz").is_file()


def test_mnist_downloads_anew_what_is_damaged_where_downloads_go(labels_to_fetch, tmp_path):
    write_pair(tmp_path / "mnist", images(3), [1, 2, 3])
    assert MNIST(tmp_path, download=True).labels.tolist() == [1, 2, 3]  # another file, but a whole one
    damaged = tmp_path / "mnist" / f"{TRAIN[1]}.gz"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    with pytest.raises(ValueError, match="damaged or truncated gzip: .*; delete it"):
        MNIST(tmp_path)
    assert MNIST(tmp_path, download=True).labels.tolist() == MNIST(tmp_path).labels.tolist() == [4, 5, 6]


def test_mnist_leaves_a_damaged_file_elsewhere_to_the_user(labels_to_fetch, tmp_path):
    write_pair(tmp_path, images(3), [1, 2, 3])
    path = tmp_path / f"{TRAIN[1]}.gz"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="delete it and download it again"):
        MNIST(tmp_path, download=True)
