"""The CUDA C of minidl/kernels/gpu through NVIDIA's compiler NVRTC, which needs no GPU.

Its wheel is enough: ``pip install nvidia-cuda-nvrtc-cu12``.
"""

import ctypes
import functools
import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import cuda_on_cpu as emulated

FLOATS = ["float32", "float64"]
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


def nvrtc_path() -> Path | None:
    """The compiler's library in the folder of its wheel, of CUDA 12 or 13."""
    spec = importlib.util.find_spec("nvidia") if "nvidia" not in sys.modules else sys.modules["nvidia"].__spec__
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    found = [path for folder in folders for path in folder.glob("*/lib/libnvrtc.so.1[0-9]")]
    return found[0] if found else None


PATH = nvrtc_path()
pytestmark = pytest.mark.skipif(PATH is None, reason="needs NVRTC: pip install nvidia-cuda-nvrtc-cu12")


@functools.cache
def nvrtc() -> ctypes.CDLL:
    return ctypes.CDLL(str(PATH))


def checked(function: str, *args: object) -> None:
    code = getattr(nvrtc(), function)(*args)
    assert code == 0, f"{function} failed with code {code}"


def lowest_capability() -> str:
    """Of those that this compiler takes: "50" for 5.0."""
    count = ctypes.c_int()
    checked("nvrtcGetNumSupportedArchs", ctypes.byref(count))
    capabilities = (ctypes.c_int * count.value)()
    checked("nvrtcGetSupportedArchs", capabilities)
    return str(min(capabilities))


def compiled(code: str, target: str, kind: str, *options: str) -> tuple[bytes, str]:
    """The PTX or CUBIN of a program, if it compiled at all, and all that the compiler had to say."""
    program = ctypes.c_void_p()
    checked("nvrtcCreateProgram", ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None)
    flags = [f"--gpu-architecture={target}", "-std=c++17", *options]
    options_given = (ctypes.c_char_p * len(flags))(*[flag.encode() for flag in flags])
    done = nvrtc().nvrtcCompileProgram(program, len(flags), options_given)
    log = output(program, "ProgramLog").decode().strip("\0\n").splitlines()
    said = "\n".join(line for line in log if not line.startswith("nvrtc: warning: Architectures prior to"))
    made = b"" if done else output(program, kind)
    checked("nvrtcDestroyProgram", ctypes.byref(program))
    return made, said


def output(program: ctypes.c_void_p, kind: str) -> bytes:
    size = ctypes.c_size_t()
    checked(f"nvrtcGet{kind}Size", program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    checked(f"nvrtcGet{kind}", program, text)
    return text.raw


@functools.cache
def kernels(dtype: str, target: str, kind: str) -> tuple[bytes, str]:
    """All kernels for one type, with the option that CuPy adds to minidl's."""
    gpu = emulated.emulation()
    return compiled(gpu.source(np.dtype(dtype)), target, kind, f"-Dreal={gpu.C_NAMES[dtype]}", "-ftz=true")


@functools.cache
def ptx(dtype: str) -> str:
    return kernels(dtype, "compute_90", "PTX")[0].decode()


def entries(dtype: str) -> dict[str, str]:
    """Each kernel's PTX by its name."""
    parts = re.split(r"\.visible \.entry ", ptx(dtype))[1:]
    return {part[: part.index("(")]: part for part in parts}


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
@pytest.mark.parametrize("capability", ["lowest", "90"])
def test_kernels_compile_without_a_warning(dtype: str, capability: str):
    number = lowest_capability() if capability == "lowest" else capability
    for target, kind in ((f"compute_{number}", "PTX"), (f"sm_{number}", "CUBIN")):
        made, said = kernels(dtype, target, kind)
        assert said == ""
        assert made


def test_a_warning_is_seen_and_an_error_names_the_file_and_line():
    code = emulated.emulation().source(np.dtype(np.float32))
    body = 'extern "C" __global__ void f(int *x) { int unused; x[0] = 1; }'
    made, said = compiled(code + body, "compute_90", "PTX", "-Dreal=float")
    assert made
    assert "unused" in said
    made, said = compiled(code.replace("real sum = 0;", "real sum = nothing;", 1), "compute_90", "PTX", "-Dreal=float")
    assert not made
    assert re.search(r"^convolution\.cu\(\d+\): error: identifier \"nothing\" is undefined", said)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
def test_all_kernels_are_exported_by_their_names(dtype: str):
    assert entries(dtype).keys() == emulated.kernel_names(emulated.emulation().source(np.dtype(dtype))).keys()


@pytest.mark.parametrize("dtype", [*FLOATS, "int64"])
def test_there_is_nothing_that_depends_on_an_order(dtype: str):
    assert not re.findall(r"\b(?:atom|red|shfl|vote)\.", ptx(dtype))
    waits = emulated.kernel_names(emulated.emulation().source(np.dtype(dtype)))
    for name, text in entries(dtype).items():
        assert bool(re.search(r"\bbar(?:rier)?\.", text)) == waits[name], name


@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_is_copied_to_memory_of_a_thread(dtype: str):
    """As an array of the arguments would be, were its elements not read where they are."""
    assert ".local" not in ptx(dtype)


def test_nothing_is_rounded_more_than_it_must_be():
    assert not re.findall(r"\b(?:add|sub|mul|fma|div|sqrt)\.(?:\w+\.)*(?:approx|full)\b", ptx("float32"))


def test_single_precision_stays_single():
    """A double constant or function by mistake would be slow: only the sums are in double."""
    for name, text in entries("float32").items():
        double = re.search(r"\b(?:add|sub|mul|fma|div)\.(?:\w+\.)*f64\b", text)
        assert bool(double) == (name.startswith("sum_") or name == "join_parts"), name


def test_divisions_are_short_where_the_numbers_fit():
    """A division of 64 bits takes several times as long: the compiler gives each a way around it."""
    for name, text in entries("float32").items():
        long, short = (re.findall(rf"\b(?:div|rem)\.{kind}\b", text) for kind in ("[su]64", "u32"))
        assert len(long) == len(short), name
