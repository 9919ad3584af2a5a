"""The report of `python -m minidl doctor`: each wrong state is seen, said and told by the exit status."""

import configparser
import gzip
import hashlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest

import minidl
from minidl import kernels
from minidl.__main__ import main
from minidl.data import cifar10, mnist
from minidl.kernels import reference
from minidl.kernels.cpu import _compiling as compiling
from minidl.kernels.cpu import _threads as threads
from minidl.tools import doctor
from minidl.tools.doctor import NOTE, OK, WRONG, Finding

ROOT = Path(minidl.__file__).parents[1]
RECORDS = 6


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for data."""
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path))
    monkeypatch.setattr(cifar10, "RECORDS", RECORDS)
    return tmp_path


@pytest.fixture
def interpreted(monkeypatch):
    """Kernels that are their definitions, so that a test of something else does not wait for compilation."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 0)
    for name in set(kernels.__all__) & set(vars(reference)):
        monkeypatch.setattr(kernels, name, getattr(reference, name))


def status(monkeypatch, *checks):
    """The exit status if these were all checks."""
    monkeypatch.setattr(doctor, "CHECKS", checks)
    return main(["doctor"])


def missing(name):
    """`importlib.util.find_spec` where the package `name` is not installed."""
    found = importlib.util.find_spec
    return lambda wanted: None if wanted == name else found(wanted)


# -- the command ------------------------------------------------------------------------------------------------


def test_all_is_well(folder, interpreted, monkeypatch, capsys):
    """No connection is opened, no folder changes, and every line fits."""
    monkeypatch.setattr(socket, "socket", None)
    before = dict(os.environ)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "WRONG" not in out
    assert out.isascii()
    assert all(len(line) <= 100 or max(map(len, line.split())) > 60 for line in out.splitlines())  # a long path
    assert list(folder.iterdir()) == []
    assert dict(os.environ) == before


@pytest.mark.slow
@pytest.mark.jit
def test_in_a_process_of_its_own():
    done = subprocess.run([sys.executable, "-m", "minidl", "doctor"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search("^ok +kernels +49 results agree with their definitions", done.stdout, re.MULTILINE)
    assert re.search("^(ok|note) +thread layer +(omp|tbb|workqueue)", done.stdout, re.MULTILINE)
    assert len(re.findall("^(ok|note|WRONG) ", done.stdout, re.MULTILINE)) == len(doctor.CHECKS)


@pytest.mark.parametrize("arguments", [[], ["docter"], ["doctor", "--all"]])
def test_what_is_no_command_gets_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m minidl")


@pytest.mark.parametrize(
    ("states", "expected", "summary"),
    [
        ([OK, NOTE], 0, "minidl can train on this machine: 0 wrong, 1 to note."),
        ([OK, WRONG, NOTE, WRONG], 1, "Not all is well: 2 wrong, 1 to note."),
    ],
)
def test_the_status_is_that_of_the_worst(states, expected, summary, monkeypatch, capsys):
    checks = [lambda state=state: Finding("topic", state, "text") for state in states]
    assert status(monkeypatch, *checks) == expected
    assert capsys.readouterr().out.splitlines()[-1] == summary


def test_a_check_that_fails_does_not_stop_the_others(monkeypatch, capsys):
    def processor():
        raise OSError("no such\nthing")

    monkeypatch.setenv("NUMBA_CPU_NAME", "z80")
    assert status(monkeypatch, processor, doctor.python) == 1
    out = capsys.readouterr().out
    assert re.search("^WRONG processor +the check failed: OSError: no such thing$", out, re.MULTILINE)
    assert re.search(r"^    > unset .*\bNUMBA_CPU_NAME\b", out, re.MULTILINE)
    assert re.search("^ok +Python", out, re.MULTILINE)


def test_text_is_wrapped_and_a_command_is_not():
    lines = doctor._lines(Finding("topic", WRONG, "some words " * 30, "command " * 30))
    assert max(map(len, lines[:-1])) <= doctor.WIDTH
    assert lines[-1] == "    > " + "command " * 30
    assert all(line.startswith(" " * 20) for line in lines[1:-1])


# -- packages ---------------------------------------------------------------------------------------------------


def test_the_packages_are_those_of_setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    text = "\n".join([config["options"]["install_requires"], extras["examples"], extras["io"], extras["test"]])
    declared = dict(re.findall(r"^(\S+) >= (\S+)$", text, re.MULTILINE))
    listed = doctor.NEEDED | {name: least for name, (least, _) in doctor.EXTRAS.items()}
    assert listed == {name: declared[name] for name in declared if not name.startswith("pytest")}


def test_an_old_package_is_wrong(monkeypatch):
    assert doctor.packages().state == OK
    monkeypatch.setattr(numba, "__version__", "0.60.0")
    finding = doctor.packages()
    assert (finding.state, finding.advice) == (WRONG, 'python -m pip install "numba>=0.61"')


def test_missing_and_old_extras_are_named_with_their_command(monkeypatch):
    versions = {name: least for name, (least, _) in doctor.EXTRAS.items()}
    monkeypatch.setattr(doctor, "_version", versions.__getitem__)
    assert doctor.extras().state == OK
    versions |= {"pooch": "", "tqdm": "4.9.1"}
    finding = doctor.extras()
    assert (finding.state, finding.advice) == (NOTE, 'python -m pip install "tqdm>=4.66" pooch')
    assert "pooch (downloads); found" in finding.text


def test_a_package_that_is_not_installed_has_no_version():
    assert doctor._version("minidl-has-no-such-extra") == ""


@pytest.mark.parametrize(
    ("version", "least", "older"),
    [("2.0.1", "2.0", False), ("1.26.4", "2.0", True), ("0.100", "0.61", False), ("2.0rc1", "2.0", False)]
    + [("", "0.4", True), ("8", "8", False), ("7", "8", True), ("4.66.1.dev0", "4.66", False)],
)
def test_versions_are_compared_as_numbers(version, least, older):
    assert doctor._older(version, least) == older


# -- the processor and its threads ------------------------------------------------------------------------------


@pytest.mark.parametrize(("setting", "value"), [("CPU_NAME", "generic"), ("CPU_FEATURES", "-avx2")])
def test_code_for_another_processor_is_noted(monkeypatch, setting, value):
    monkeypatch.setattr(numba.config, "CPU_NAME", None)
    monkeypatch.setattr(numba.config, "CPU_FEATURES", None)
    assert doctor.processor().state == OK
    monkeypatch.setattr(numba.config, setting, value)
    assert (doctor.processor().state, doctor.processor().advice[:5]) == (NOTE, "unset")


@pytest.mark.parametrize(("flags", "name"), [(["avx2", "avx512f"], "AVX-512"), (["avx2"], "AVX2"), ([], "no wide")])
def test_the_widest_vectors_are_named(monkeypatch, flags, name):
    monkeypatch.setattr(doctor.llvm, "get_host_cpu_features", lambda: dict.fromkeys(flags, True) | {"avx512bw": False})
    assert f"with {name}" in doctor.processor().text


@pytest.mark.parametrize(
    ("count", "state", "says"), [(3, NOTE, "each other down"), (2, OK, "not set)"), (1, OK, "cores idle")]
)
def test_threads_are_compared_with_cores(monkeypatch, count, state, says):
    monkeypatch.setattr(numba.config, "NUMBA_DEFAULT_NUM_THREADS", 2)
    monkeypatch.setattr(threads, "_wanted", count)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    finding = doctor.thread_count()
    assert finding.state == state
    assert finding.text.startswith(f"{count} for 2 cores")
    assert finding.text.endswith(says)
    assert "OMP_NUM_THREADS=7, OMP_WAIT_POLICY not set" in finding.text


@pytest.mark.parametrize(
    ("layer", "asked", "system", "state", "advice"),
    [
        ("omp", "default", "Linux", OK, ""),
        ("tbb", "default", "Linux", OK, ""),
        ("workqueue", "default", "Linux", NOTE, "sudo apt-get install libgomp1"),
        ("workqueue", "default", "Darwin", NOTE, "numba -s  # why not omp or tbb"),
        ("workqueue", "workqueue", "Linux", NOTE, "unset NUMBA_THREADING_LAYER"),
        (None, "default", "Linux", NOTE, ""),
    ],
)
def test_the_threading_layer(monkeypatch, layer, asked, system, state, advice):
    monkeypatch.setattr(threads, "_threading_layer", lambda: layer)
    monkeypatch.setattr(numba.config, "THREADING_LAYER", asked)
    monkeypatch.setattr(doctor.platform, "system", lambda: system)
    finding = doctor.thread_layer()
    assert (finding.state, finding.advice) == (state, advice)
    assert finding.text.startswith(layer or "not known")


def test_blas_with_and_without_threadpoolctl(monkeypatch):
    name = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", missing("threadpoolctl"))
        assert doctor.blas().text.startswith(name)
        assert "MKL_NUM_THREADS=3" in doctor.blas().text
    pools = [{"user_api": "blas", "num_threads": 5}, {"user_api": "openmp", "num_threads": 9}]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "threadpoolctl", SimpleNamespace(threadpool_info=lambda: pools))
    assert doctor.blas().text.endswith("threads: 5")


# -- kernels ----------------------------------------------------------------------------------------------------


def test_kernels_that_are_not_compiled_are_wrong(monkeypatch, capsys):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert status(monkeypatch, doctor.kernel_check) == 1
    assert "    > unset NUMBA_DISABLE_JIT\n" in capsys.readouterr().out


@pytest.mark.jit
def test_compiled_kernels_agree():
    assert doctor.kernel_check().state == OK


ALSO = [pytest.param(n, marks=pytest.mark.slow) for n in ("conv2d_input", "conv2d_weight", "resample", "sigmoid")]


@pytest.mark.parametrize("factor", [1.001, pytest.param(np.nan, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["conv2d", "matmul", "pick", *ALSO])
def test_a_wrong_kernel_is_found(interpreted, monkeypatch, capsys, name, factor):
    monkeypatch.setattr(kernels, name, lambda *args: getattr(reference, name)(*args) * np.float32(factor))
    assert status(monkeypatch, doctor.kernel_check) == 1
    assert "cannot be trusted" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 2, 4, 8])
def test_a_fault_of_one_path_alone_is_found(interpreted, monkeypatch, channels):
    def conv2d(x, w, *rest):
        return reference.conv2d(x, w, *rest) * np.float32(1.001 if len(w) == channels else 1)

    monkeypatch.setattr(kernels, "conv2d", conv2d)
    assert re.match(rf"conv2d, \d channels to {channels}: not what", doctor.kernel_check().text)


def test_a_wrong_optimiser_is_found_and_named(interpreted, monkeypatch):
    def adam_step(ps, gs, ms, vs, rate_and_root, *rest):
        rate, root = rate_and_root
        reference.adam_step(ps, gs, ms, vs, (1.001 * rate, root), *rest)

    monkeypatch.setattr(kernels, "adam_step", adam_step)
    assert doctor.kernel_check().text.startswith("adam_step: not what")


def compiled(cache_path, misses=0):
    """Something with the statistics of a compiled function."""
    return SimpleNamespace(stats=SimpleNamespace(cache_path=cache_path, cache_misses={"float32": misses}))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A folder with two compiled kernels of 1 MB together, which the only compiled function has come from."""
    folder = tmp_path / "kernels_0"
    folder.mkdir()
    for i in (1, 2):
        (folder / f"kernel.{i}.nbc").write_bytes(bytes(500_000))
    (folder / "kernel.nbi").write_bytes(bytes(100))
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling, "_told", set())
    monkeypatch.setattr(doctor, "_compiled_functions", lambda: [compiled(str(folder))])
    return folder


def test_a_cache_that_has_all(cache):
    assert doctor.kernel_cache() == ("kernel cache", OK, f"{cache}: 2 kernels, 1.0 MB; up to date", "")


def test_a_cache_that_had_to_be_filled(cache, monkeypatch):
    monkeypatch.setattr(doctor, "_compiled_functions", lambda: [compiled(str(cache), 1), compiled(str(cache), 2)])
    finding = doctor.kernel_cache()
    assert finding.state == OK
    assert finding.text.endswith("3 of them new, which the next start finds here")


def test_a_cache_that_cannot_take_more_is_wrong(cache, monkeypatch, capsys):
    monkeypatch.setattr(compiling, "_told", {"saving"})
    assert status(monkeypatch, doctor.kernel_cache) == 1
    assert "every start recompiles" in " ".join(capsys.readouterr().out.split())


def test_a_folder_that_numba_does_not_use_is_noted(cache, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(cache / "elsewhere"))
    finding = doctor.kernel_cache()
    assert (finding.state, finding.advice) == (NOTE, "unset NUMBA_CACHE_DIR")


def test_without_compilation_there_is_no_cache(monkeypatch):
    monkeypatch.setattr(doctor, "_compiled_functions", list)
    assert doctor.kernel_cache().state == NOTE


@pytest.mark.jit
def test_no_folder_for_kernels_is_wrong(monkeypatch, capsys):
    for function in doctor._compiled_functions():
        monkeypatch.setattr(function, "_cache", compiling._NoCache())
    assert status(monkeypatch, doctor.kernel_cache) == 1
    assert "    > export NUMBA_CACHE_DIR=" in capsys.readouterr().out


@pytest.mark.jit
def test_the_folder_is_the_one_that_is_told_when_kernels_are_compiled():
    folder = doctor._compiled_functions()[0].stats.cache_path
    assert {function.stats.cache_path for function in doctor._compiled_functions()} == {folder}
    assert doctor.kernel_cache().text.startswith(f"{folder}: ")


@pytest.mark.parametrize("check", [doctor.kernel_cache, doctor.data_folder])
def test_a_full_disk_is_noted(cache, folder, monkeypatch, check):
    assert check().state == OK
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(3_000_000))
    finding = check()
    assert finding.state == NOTE
    assert finding.text.endswith("only 3 MB are free on this disk")
    assert finding.advice.startswith("df -h ")


# -- data -------------------------------------------------------------------------------------------------------


def test_the_folder_is_the_librarys(folder, monkeypatch):
    assert doctor.data_folder().text == f"{folder} (from MINIDL_DATA)"
    monkeypatch.setenv("MINIDL_DATA", str(folder / "later" / "still"))
    assert doctor.data_folder().text.endswith(": not made yet")
    monkeypatch.delenv("MINIDL_DATA")
    pytest.importorskip("pooch")
    assert doctor.data_folder().text.startswith(f"{mnist.default_folder()} (the default")
    assert list(folder.iterdir()) == []


def test_a_file_in_the_folders_place_is_wrong(folder, monkeypatch, capsys):
    (folder / "file").write_text("")
    monkeypatch.setenv("MINIDL_DATA", str(folder / "file" / "data"))
    assert status(monkeypatch, doctor.data_folder) == 1
    assert "file is a file" in " ".join(capsys.readouterr().out.split())


def test_a_folder_that_cannot_be_written_to_is_noted(folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # since to root nothing is forbidden
    assert doctor.data_folder().state == NOTE


def test_without_pooch_and_a_folder(monkeypatch):
    monkeypatch.delenv("MINIDL_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert [check().state for check in (doctor.data_folder, doctor.mnist_files, doctor.cifar10_files)] == [NOTE] * 3
    assert doctor.data_folder().advice == "python -m pip install pooch requests tqdm"


def write_mnist(folder):
    """Two small sets of digits, one of them packed."""
    for name in mnist.UNPACKED:
        values = bytes(2) if "labels" in name else bytes(2 * 28 * 28)
        header = "00000801 00000002" if "labels" in name else "00000803 00000002 0000001c 0000001c"
        data = bytes.fromhex(header) + values
        packed = name.startswith("train")
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(data) if packed else data)


def write_cifar10(folder):
    for name in cifar10.SHA256:
        (folder / name).write_bytes(bytes(RECORDS * cifar10.RECORD))


DATA = [
    (doctor.mnist_files, write_mnist, doctor.FETCH_MNIST),
    (doctor.cifar10_files, write_cifar10, doctor.FETCH_CIFAR10),
]
of_both_sets = pytest.mark.parametrize(("check", "write", "fetch"), DATA, ids=["mnist", "cifar10"])


@of_both_sets
def test_no_data_is_noted_with_the_command(folder, monkeypatch, capsys, check, write, fetch):
    assert status(monkeypatch, check) == 0
    assert f"    > {fetch}\n" in capsys.readouterr().out
    compile(fetch.split('"')[1], "command", "exec")


@of_both_sets
def test_missing_files_are_named(folder, check, write, fetch):
    write(folder)
    gone = sorted(folder.iterdir())[-2]
    gone.unlink()
    finding = check()
    assert (finding.state, finding.advice) == (NOTE, fetch)
    assert f"missing: {gone.name.removesuffix('.gz')};" in finding.text


@of_both_sets
def test_files_that_are_not_the_official_ones_are_noted(folder, check, write, fetch, capsys):
    write(folder)
    for finding in (check(), check()):
        assert finding.state == NOTE
        assert "not the official file" in finding.text
    assert capsys.readouterr().out == ""


@of_both_sets
def test_a_damaged_file_is_wrong(folder, monkeypatch, capsys, check, write, fetch):
    write(folder)
    path = sorted(folder.iterdir())[-2]
    path.write_bytes(path.read_bytes()[:-5])
    assert status(monkeypatch, check) == 1
    assert f"    > rm {path}\n    > {fetch}\n" in capsys.readouterr().out
    assert path.exists()


def test_a_file_that_cannot_be_read_is_wrong(folder, monkeypatch):
    write_mnist(folder)

    def no_permission(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(mnist, "read_idx", no_permission)
    finding = doctor.mnist_files()
    assert finding.state == WRONG
    assert finding.advice.startswith(f"chmod u+r {folder}")


def test_whole_data_is_well(folder, monkeypatch):
    write_cifar10(folder)
    digest = hashlib.sha256(bytes(RECORDS * cifar10.RECORD)).hexdigest()
    monkeypatch.setattr(cifar10, "SHA256", dict.fromkeys(cifar10.SHA256, digest))
    assert doctor.cifar10_files() == ("CIFAR-10", OK, "30 + 6 images", "")


def test_an_archive_is_not_unpacked(folder):
    (folder / cifar10.ARCHIVE).write_bytes(b"archive")
    assert doctor.cifar10_files().state == OK
    assert [path.name for path in folder.iterdir()] == [cifar10.ARCHIVE]


# -- the GPU ----------------------------------------------------------------------------------------------------


def cupy(count):
    return SimpleNamespace(
        __version__="13.4", cuda=SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count)), __spec__=None
    )


def test_no_gpu_is_no_error(monkeypatch):
    def none():
        raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    monkeypatch.setattr(importlib.util, "find_spec", missing("cupy"))
    assert doctor.gpu().state == OK
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "cupy", cupy(none))
    assert doctor.gpu().state == NOTE
    assert "cudaErrorNoDevice" in doctor.gpu().text
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it fails
    assert doctor.gpu().state == NOTE


def test_a_gpu_that_is_there(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "cupy", cupy(lambda: 2))
    assert doctor.gpu() == ("GPU", OK, "found: 2, by CuPy 13.4", "")
