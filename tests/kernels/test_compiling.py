"""Compiled kernels on disk: whatever state the folder is in, the results are right, and who waits is told why."""

import errno
import itertools
import os
import pickle
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile

import minidl
from minidl.kernels.cpu import _compiling as compiling

KERNELS = """
from minidl.kernels.cpu._compiling import compiled

@compiled()
def times(x): return FACTOR * x

@compiled()
def twice(x): return times(times(x))
"""


class Project:
    """A file with kernels and a folder to keep them in; `start` is what importing that file is in a new process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.source, self.cache = folder / "kernels.py", folder / "cache"
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(numba.config, "CACHE_DIR", str(self.cache))
        monkeypatch.setattr(numba.config, "DISABLE_JIT", 0)
        self.write(2)

    def write(self, factor: int) -> None:
        self.source.write_text(KERNELS.replace("FACTOR", str(factor)))

    def start(self) -> dict[str, Callable]:
        self.monkeypatch.setattr(compiling, "_told", set())
        namespace = {"__name__": "kernels_of_a_test"}
        exec(compile(self.source.read_text(), str(self.source), "exec"), namespace)
        return namespace

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.cache.rglob(pattern))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


def results(kernels: dict[str, Callable]) -> list[float]:
    """Of two types: two compiled forms of each kernel."""
    return [kernels["times"](3), kernels["times"](0.5), kernels["twice"](3)]


# --- The line ---


def test_the_first_compilation_is_told_in_one_line_and_a_start_from_the_cache_in_none(project, capsys):
    kernels = project.start()
    assert capsys.readouterr().err == ""
    assert results(kernels) == [6, 1.0, 12]
    folder = project.files("*.nbi")[0].parent
    assert (
        capsys.readouterr().err
        == f"minidl: compiling kernels that were not used before, up to half a minute; they are kept in {folder}\n"
    )
    assert results(project.start()) == [6, 1.0, 12]
    assert capsys.readouterr().err == ""


def test_it_is_one_line_for_many_threads(project, capsys):
    kernels = project.start()
    workers = [threading.Thread(target=kernels["times"], args=(x,)) for x in (1, 1.0, 1j, True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert capsys.readouterr().err.count("\n") == 1


class Closed:
    def write(self, line: str) -> None:
        raise ValueError("I/O operation on closed file")


@pytest.mark.parametrize("stderr", [None, Closed()])
def test_where_nothing_can_be_written_kernels_still_compile(project, monkeypatch, stderr):
    kernels = project.start()
    monkeypatch.setattr(sys, "stderr", stderr)
    assert results(kernels) == [6, 1.0, 12]


def test_code_that_is_not_minidls_is_not_told_of(capsys):
    assert numba.njit(lambda x: x + 1)(1) == 2
    assert capsys.readouterr().err == ""


# --- Damaged files ---


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage\n" * 100)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def another_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps("something else"))


def of_an_older_numba(path: Path) -> None:
    path.write_bytes(pickle.dumps("0.1.0") + b"what that version wrote")


DAMAGES = (garbage, empty, halve, zeros, another_pickle, of_an_older_numba, Path.unlink)
QUICK = (("*.nbi", garbage), ("*.nbi", another_pickle), ("*.nbc", halve), ("*.nbc", Path.unlink))


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow)
        for case in itertools.product(("*.nbi", "*.nbc", "*.nb?"), DAMAGES)
    ],
)
def test_damaged_files_are_compiled_anew(project, capsys, pattern, damage):
    results(project.start())
    for path in project.files(pattern):
        damage(path)
    capsys.readouterr()
    assert results(project.start()) == [6, 1.0, 12]
    assert capsys.readouterr().err.startswith("minidl: compiling")
    assert results(project.start()) == [6, 1.0, 12]
    assert capsys.readouterr().err == ""  # they are whole again


def test_a_changed_source_is_compiled_anew(project, capsys):
    results(project.start())
    project.write(3)
    capsys.readouterr()
    assert results(project.start()) == [9, 1.5, 27]
    assert capsys.readouterr().err.count("\n") == 1


def test_the_code_of_another_type_is_not_taken(project):
    results(project.start())
    first, second = (path for path in project.files("*.nbc") if "times" in path.name)
    whole = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(whole)
    assert project.start()["times"](0.5) == 1.0
    assert results(project.start()) == [6, 1.0, 12]


def no_space(*args: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_code_of_an_older_source_is_not_taken(project):
    """Stopped between the index and the data of a new version, which then lie beside each other, one new, one old."""
    results(project.start())
    project.write(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IndexDataCacheFile, "_save_data", no_space)
        results(project.start())
    assert results(project.start()) == [9, 1.5, 27]


# --- What is compiled in from elsewhere ---

WIDTHS = """
import sys
import llvmlite.binding as llvm
features = dict(llvm.get_host_cpu_features())
features["avx512f"] = sys.argv[2] == "64"
llvm.get_host_cpu_features = lambda: features

import numpy as np
from minidl import kernels
from minidl.tools import doctor
from minidl.kernels import ConvGeometry, reference
for dtype in (np.float32, np.float64):
    for image, weight, *rest in doctor.CONVOLUTIONS.values():
        geometry = ConvGeometry.of_conv2d(image, weight, *rest)
        rng = np.random.default_rng(0)
        x, w = (rng.standard_normal(shape).astype(dtype) for shape in (image, weight))
        np.testing.assert_allclose(kernels.conv2d(x, w, geometry), reference.conv2d(x, w, geometry), atol=1e-4)
"""


@pytest.mark.slow
@pytest.mark.jit
def test_machines_with_vectors_of_different_width_share_a_folder(tmp_path, monkeypatch):
    """As on a cluster with one home folder, whose users tell Numba a processor that all machines can stand in for."""
    monkeypatch.setenv("NUMBA_CPU_NAME", "x86-64-v3" if platform.machine() in ("x86_64", "AMD64") else "generic")
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "")
    root = Path(minidl.__file__).parents[1]
    for width, says in (("32", "compiling"), ("64", "compiling"), ("32", ""), ("64", "")):
        done = run(WIDTHS, root, tmp_path, width)
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith(f"minidl: {says}" if says else "")
        assert bool(done.stderr) == bool(says)


@pytest.mark.parametrize("edit", ["a constant", "a routine", "another file", "a folder below"])
def test_an_edit_in_any_file_of_the_folder_changes_its_text(tmp_path, edit):
    def text():
        compiling.text_of_the_kernels.cache_clear()
        return compiling.text_of_the_kernels(tmp_path)

    (tmp_path / "tile.py").write_text("ROWS = 6\ndef tile(): ...\n")
    before = text()
    assert text() == before
    if edit == "another file":
        (tmp_path / "pooling.py").write_text("")
    elif edit == "a folder below":
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu" / "pooling.py").write_text("")
    else:
        old, new = {"a constant": ("6", "8"), "a routine": ("...", "pass")}[edit]
        (tmp_path / "tile.py").write_text((tmp_path / "tile.py").read_text().replace(old, new))
    assert text() != before


@pytest.mark.parametrize("what", ["VECTOR_BYTES", "text_of_the_kernels"])
def test_what_is_compiled_in_from_elsewhere_is_part_of_the_label(project, capsys, monkeypatch, what):
    results(project.start())
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(compiling, what, 16 if what == "VECTOR_BYTES" else lambda: "other text")
        assert results(project.start()) == [6, 1.0, 12]
        assert capsys.readouterr().err.startswith("minidl: compiling")
        assert results(project.start()) == [6, 1.0, 12]
        assert capsys.readouterr().err == ""
    results(project.start())
    assert bool(capsys.readouterr().err) == (what == "text_of_the_kernels")  # both widths are kept, only one text


# --- Without compilation ---


def test_without_compilation_a_kernel_is_its_python_and_warns_of_nothing_either(project, monkeypatch, capsys):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    kernels = project.start()
    assert results(kernels) == [6, 1.0, 12]
    assert kernels["times"](np.float32(3e38)) == np.inf
    assert project.files("*.nb?") == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("disabled", "used"), [(0, "LLVM"), (1, "Python")])
def test_a_function_by_hand_is_llvm_or_its_definition(disabled, used, monkeypatch):
    run = []

    def emit(builder, element, x, i, y, j):
        run.append("LLVM")
        builder.store(builder.load(builder.gep(x, [i])), builder.gep(y, [j]))

    def move(x, i, y, j):
        run.append("Python")
        y[j] = x[i]

    monkeypatch.setattr(numba.config, "DISABLE_JIT", disabled)
    by_hand = compiling.by_hand(emit)(move)
    x, y = np.arange(4.0), np.zeros(3)
    numba.njit(lambda x, y: by_hand(x, 3, y, 1))(x, y)
    np.testing.assert_array_equal(y, [0, 3, 0])
    assert set(run) == {used}


# --- Folders that cannot be written to ---


def test_a_full_disk_is_told_of_once(project, monkeypatch, capsys):
    monkeypatch.setattr(IndexDataCacheFile, "_save_data", no_space)
    for _ in range(2):
        assert results(project.start()) == [6, 1.0, 12]
        first, second = capsys.readouterr().err.splitlines()
        assert first.startswith("minidl: compiling kernels")
        assert second.startswith("minidl: compiled kernels cannot be kept, the next start compiles them again: ")
        assert second.endswith("No space left on device")


def test_a_folder_that_is_lost_after_the_start(project):
    kernels = project.start()
    shutil.rmtree(project.cache)
    project.cache.write_text("a file where the folder was")
    assert results(kernels) == [6, 1.0, 12]


def test_no_folder_at_all_is_told_of_once(project, monkeypatch, capsys):
    def no_locator(function: Callable) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(compiling, "_Cache", no_locator)
    assert results(project.start()) == [6, 1.0, 12]
    assert capsys.readouterr().err.startswith("minidl: compiling kernels for this machine, at each start, since")
    assert project.files("*.nb?") == []


def test_a_data_file_that_cannot_be_replaced(project):
    results(project.start())
    for path in project.files("*.nbc"):
        path.unlink()
        path.mkdir()
    assert results(project.start()) == [6, 1.0, 12]


TRAIN = """
import sys
import minidl
assert minidl.__file__.startswith(sys.argv[1]), minidl.__file__
x = minidl.tensor([[-1.0, 2.0]], requires_grad=True)
minidl.relu(x).sum().backward()
print(x.grad.tolist())
"""


def run(code: str, folder: Path, cache: Path, *arguments: str) -> subprocess.CompletedProcess:
    """With the package of `folder`, and no other folder to write to than `cache`."""
    nowhere = str(folder / "setup.cfg" / "nowhere")  # below a file, since to root nothing is forbidden
    homes = dict.fromkeys(["HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE"], nowhere)
    paths = os.pathsep.join([str(folder), *filter(None, sys.path)])
    environment = {**os.environ, **homes, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": paths}
    command = [sys.executable, "-W", "error", "-c", code, str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of the package without its compiled kernels, where no new ones can be put beside the source."""
    package = Path(minidl.__file__).parent
    shutil.copytree(package, tmp_path / "minidl", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "minidl" / "kernels" / "cpu" / "__pycache__").write_text("a file")
    (tmp_path / "setup.cfg").write_text("a file")
    return tmp_path


@pytest.mark.slow
@pytest.mark.jit
def test_without_any_folder_kernels_are_compiled_at_each_start(installed):
    for _ in range(2):
        done = run(TRAIN, installed, installed / "setup.cfg" / "cache")
        assert (done.returncode, done.stdout) == (0, "[[0.0, 1.0]]\n"), done.stderr
        assert done.stderr == (
            "minidl: compiling kernels for this machine, at each start, since there is no folder to keep them in: "
            "set NUMBA_CACHE_DIR to one that can be written to\n"
        )


@pytest.mark.slow
@pytest.mark.jit
def test_the_package_says_once_that_it_compiles(installed):
    first, second = (run(TRAIN, installed, installed / "cache") for _ in range(2))
    assert first.stdout == second.stdout == "[[0.0, 1.0]]\n"
    assert first.stderr.startswith(
        "minidl: compiling kernels that were not used before, up to half a minute; they are kept in "
    )
    assert first.stderr.count("\n") == 1
    assert second.stderr == ""


@pytest.mark.slow
@pytest.mark.jit
def test_an_edit_in_another_file_is_run(installed):
    """The tile of the products is in tile.py, the multiply-add that it is made of in _vectors.py."""
    matmul = "import minidl, sys; print(minidl.matmul(minidl.full((2, 3), 2.0), minidl.ones(3, 1)).tolist())"
    assert run(matmul, installed, installed / "cache").stdout == "[[6.0], [6.0]]\n"
    vectors = installed / "minidl" / "kernels" / "cpu" / "_vectors.py"
    whole = vectors.read_text()
    edited = whole.replace(
        'return self._call(f"fmuladd.{self.name}", self.kind, a, b, c)', "return self.builder.fsub(c, a)"
    )
    assert edited != whole
    vectors.write_text(edited)
    assert run(matmul, installed, installed / "cache").stdout == "[[-6.0], [-6.0]]\n"
