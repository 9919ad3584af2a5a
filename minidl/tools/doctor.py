"""``python -m minidl doctor``: check everything that minidl needs on this machine, and say how to fix what is wrong.

Each check is a function without arguments that returns a finding. No check uses the network, changes a setting or
writes a file, except that the kernels compiled for the check are cached, as in any run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import platform
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import minidl
from minidl import kernels
from minidl.data import CIFAR10, MNIST, cifar10, mnist
from minidl.kernels import ConvGeometry, PoolGeometry, reference
from minidl.kernels.resampling import axis_of

if kernels.COMPILING:
    import llvmlite  # type: ignore[import-untyped]
    import llvmlite.binding as llvm  # type: ignore[import-untyped]
    import numba

    from minidl.kernels import cpu
    from minidl.kernels.cpu import _compiling, _threads

OK, NOTE, WRONG = "ok", "note", "WRONG"
WIDTH = 92  # of a line of text; commands are not wrapped, so that they can be copied
NEEDED = {"numpy": "2.0", "numba": "0.61"}
EXTRAS = {  # the minimum version and the purpose
    "matplotlib": ("3.9", "pictures"),
    "tqdm": ("4.66", "examples, downloads"),
    "scipy": ("1.13", "smoothed curves, PCA"),
    "pooch": ("1.8", "downloads"),
    "requests": ("2.31", "downloads"),
    "safetensors": ("0.4", "weights for PyTorch"),
    "pillow": ("10", "torchvision's images"),
    "hypothesis": ("6.100", "minidl.testing"),
}
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "neon": "NEON"}
THREAD_SETTINGS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
BLAS_SETTINGS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
FETCH_MNIST = 'python -c "from minidl.data import MNIST; [MNIST(train=t, download=True) for t in (1, 0)]"'
FETCH_CIFAR10 = 'python -c "from minidl.data import CIFAR10; CIFAR10(download=True)"'
LITTLE = 500e6  # bytes; CIFAR-10 takes 354 MB, compiled kernels some 40 MB
TOLERANCE = 1e-4  # relative to the largest value; float32 rounding errors are a hundredth of it here
_numbas: Any = numba.config if kernels.COMPILING else None


class Finding(NamedTuple):
    """The result of a check; `advice` has one command or hint per line."""

    topic: str
    state: str
    text: str
    advice: str = ""


# -- packages ---------------------------------------------------------------------------------------------------


def python() -> Finding:
    """The running Python."""
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    return Finding("Python", OK, text)


def packages() -> Finding:
    """Versions of minidl and its required packages, and the path minidl was imported from."""
    found = {"numpy": np.__version__, **({"numba": numba.__version__} if kernels.COMPILING else {})}
    compiler = f", Numba {numba.__version__}, llvmlite {llvmlite.__version__}" if kernels.COMPILING else ""
    text = f"minidl {minidl.__version__}, NumPy {np.__version__}{compiler}; minidl is in {Path(minidl.__file__).parent}"
    if old := [f'"{name}>={NEEDED[name]}"' for name in found if _older(found[name], NEEDED[name])]:
        return Finding("packages", WRONG, f"too old: {text}", f"python -m pip install {' '.join(old)}")
    return Finding("packages", OK, text)


def extras() -> Finding:
    """Optional packages, each needed for some features only."""
    found = {name: _version(name) for name in EXTRAS}
    has = ", ".join(f"{name} {version}" for name, version in found.items() if version) or "none"
    lacks = {name: EXTRAS[name] for name, version in found.items() if _older(version, EXTRAS[name][0])}
    if not lacks:
        return Finding("extras", OK, has)
    told = ", ".join(f"{name} ({purpose})" for name, (_, purpose) in lacks.items())
    wanted = " ".join(f'"{name}>={least}"' if found[name] else name for name, (least, _) in lacks.items())
    return Finding("extras", NOTE, f"missing or too old: {told}; found: {has}", f"python -m pip install {wanted}")


def _version(name: str) -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return ""


def _older(version: str, least: str) -> bool:
    """Whether a version ("" if missing) is older than `least`, by their first two numbers."""
    numbers = [int("".join(filter(str.isdigit, part)) or 0) for part in version.split(".")[:2]]
    return numbers < [int(part) for part in least.split(".")]


# -- the processor and its threads ------------------------------------------------------------------------------


def processor() -> Finding:
    """Cores and vector instructions, as Numba detects them."""
    features = llvm.get_host_cpu_features()
    vectors = next((name for flag, name in VECTORS.items() if features.get(flag)), "no wide vectors")
    text = f"{llvm.get_host_cpu_name()} with {vectors}, cores for this process: {_numbas.NUMBA_DEFAULT_NUM_THREADS}"
    if _numbas.CPU_NAME or _numbas.CPU_FEATURES:
        text += "; NUMBA_CPU_NAME or NUMBA_CPU_FEATURES make kernels compile for another processor"
        return Finding("processor", NOTE, text, "unset NUMBA_CPU_NAME NUMBA_CPU_FEATURES")
    return Finding("processor", OK, text)


def thread_count() -> Finding:
    """The number of threads that kernels run on, and the settings that affect it."""
    count, cores = minidl.get_num_threads(), int(_numbas.NUMBA_DEFAULT_NUM_THREADS)
    text = f"{count} for {cores} cores ({_settings(THREAD_SETTINGS)})"
    if count > cores:
        text += ": more threads than cores slow each other down"
        return Finding("threads", NOTE, text, "unset NUMBA_NUM_THREADS")
    return Finding("threads", OK, f"{text}: NUMBA_NUM_THREADS leaves cores idle" if count < cores else text)


def _settings(names: Sequence[str]) -> str:
    return ", ".join(f"{name}={os.environ[name]}" if name in os.environ else f"{name} not set" for name in names)


def thread_layer() -> Finding:
    """Numba's threading layer, known once a parallel kernel has run."""
    layer = _threads._threading_layer()
    if layer is None:
        return Finding("thread layer", NOTE, "not known, since no parallel kernel has run")
    if layer != "workqueue":
        hint = "; where other programs keep the cores busy, start with OMP_WAIT_POLICY=passive"
        return Finding("thread layer", OK, layer + hint if layer == "omp" else layer)
    text = "workqueue: slower for small kernels, and Python threads that train at once take turns; "
    if _numbas.THREADING_LAYER == "workqueue":
        return Finding("thread layer", NOTE, f"{text}NUMBA_THREADING_LAYER asks for it", "unset NUMBA_THREADING_LAYER")
    advice = "sudo apt-get install libgomp1" if platform.system() == "Linux" else "numba -s  # why not omp or tbb"
    return Finding("thread layer", NOTE, f"{text}Numba found no OpenMP", advice)


def blas() -> Finding:
    """NumPy's BLAS library."""
    config: Any = np.show_config(mode="dicts")
    built = config.get("Build Dependencies", {}).get("blas", {})
    text = f"{built.get('name', 'not known')} {built.get('version', '')}, which minidl's kernels do not need; "
    if importlib.util.find_spec("threadpoolctl") is None:
        text += f"{_settings(BLAS_SETTINGS)} (with threadpoolctl installed, its threads are counted here)"
        return Finding("BLAS", OK, text)
    before = set(os.environ)
    pools = importlib.import_module("threadpoolctl").threadpool_info()
    for name in set(os.environ) - before:  # importing it sets a variable
        del os.environ[name]
    counts = {str(pool["num_threads"]) for pool in pools if pool["user_api"] == "blas"}
    return Finding("BLAS", OK, f"{text}threads: {', '.join(sorted(counts)) or 'not known'}")


def gpu() -> Finding:
    """The GPUs that CuPy finds. minidl needs only a CPU."""
    if importlib.util.find_spec("cupy") is None:
        text = 'CuPy is not installed, which a GPU needs and a CPU run does not: pip install "cupy-cuda12x[ctk]"'
        return Finding("GPU", OK, text)
    try:
        cupy = importlib.import_module("cupy")
        return Finding("GPU", OK, f"found: {cupy.cuda.runtime.getDeviceCount()}, by CuPy {cupy.__version__}")
    except Exception as error:  # no driver, no device, a CuPy for another driver: each raises its own errors
        return Finding("GPU", NOTE, f"CuPy finds none, which a CPU run does not need ({type(error).__name__}: {error})")


# -- kernels ----------------------------------------------------------------------------------------------------


def kernel_check() -> Finding:
    """Compare the compiled kernels with their definitions, on a shape for each path through their code."""
    if _numbas.DISABLE_JIT:
        text = "not checked: with NUMBA_DISABLE_JIT they run as Python, thousands of times slower"
        return Finding("kernels", WRONG, text, "unset NUMBA_DISABLE_JIT")
    start = time.perf_counter()
    found = dict(kernel_results(kernels))
    seconds = time.perf_counter() - start
    wrong = [name for name, y in kernel_results(reference) if not _agree(found[name], y)]
    if wrong:
        text = f"{', '.join(wrong)}: not what the definition gives; results on this machine cannot be trusted"
        advice = "delete the *.nbi and *.nbc files in the kernel cache; if that does not help, report these lines"
        return Finding("kernels", WRONG, text, advice)
    text = f"{len(found)} results agree with their definitions; {seconds:.1f} s with compilation"
    return Finding("kernels", OK, text)


def _agree(y: np.ndarray, expected: np.ndarray) -> bool:
    return y.shape == expected.shape and bool(np.abs(y - expected).max() <= TOLERANCE * np.abs(expected).max())


def definitions() -> Finding:
    """What takes the place of the checks of compiled kernels with MINIDL_KERNELS=reference."""
    text = "MINIDL_KERNELS=reference: the definitions in NumPy run, many times slower than the compiled kernels"
    return Finding("kernels", NOTE, text, "unset MINIDL_KERNELS")


CONVOLUTIONS = {  # name: shapes of image and weight, then stride, padding and dilation
    "1 channel to 16": ((3, 1, 12, 11), (16, 1, 3, 3), 2, 1, 1),
    "3 channels to 1": ((3, 3, 11, 9), (1, 3, 5, 5), 1, 2, 1),  # 1 to 8 output channels share a vector with groups
    "5 channels to 2": ((3, 5, 9, 11), (2, 5, 4, 4), 2, 1, 1),  # of taps: of 16, 8, 4 or 2
    "6 channels to 4": ((3, 6, 9, 11), (4, 6, 3, 3), 1, 0, 2),
    "8 channels to 8": ((3, 8, 7, 9), (8, 8, 3, 3), 1, 1, 1),
    "7 channels to 19": ((5, 7, 9, 10), (19, 7, 3, 2), 1, 1, 1),  # remainders: no size is a multiple of the tile's
    "40 channels to 48": ((4, 40, 8, 8), (48, 40, 3, 3), 1, 1, 1),  # a sum over 360 taps: more than one block
}


def kernel_results(k: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Named results of the kernels in module `k`: small shapes, one for each path through the code."""
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    for name, (image, weight, stride, padding, dilation) in CONVOLUTIONS.items():
        geometry = ConvGeometry.of_conv2d(image, weight, stride, padding, dilation)
        x, w, gy = drawn(*image), drawn(*weight), drawn(*geometry.map_shape)
        yield f"conv2d, {name}", k.conv2d(x, w, geometry, drawn(weight[0]))
        yield f"conv2d_input, {name}", k.conv2d_input(gy, w, geometry, drawn(weight[1]))
        yield f"conv2d_weight, {name}", k.conv2d_weight(x, gy, geometry)
    for m, inner, n in ((1, 5, 3), (60, 300, 64), (37, 70, 101)):
        yield f"matmul, {m} x {inner} by {inner} x {n}", k.matmul(drawn(m, inner), drawn(inner, n), drawn(n))
        yield f"matmul, {m} x {inner}, transposed", k.matmul(drawn(inner, m).T, drawn(n, inner).T)
    for channels in (3, 8, 16):
        pool = PoolGeometry.of_max_pool2d((2, channels, 9, 11), 3, 2, 1)
        y, indices = k.max_pool2d(drawn(*pool.image_shape), pool)
        yield f"max_pool2d, {channels} channels", y
        yield f"indices of max_pool2d, {channels} channels", indices
        yield f"pick, {channels} channels", k.pick(drawn(*pool.image_shape), indices)
        yield f"put, {channels} channels", k.put(y, indices, pool.image_size)
    yield "resample", k.resample(drawn(2, 3, 5, 7), axis_of("bilinear", 5, 9), axis_of("nearest", 7, 14))
    x, gy, classes = drawn(50, 7), drawn(50, 7), np.arange(50) % 7
    yield "relu", k.relu(x)
    yield "relu_backward", k.relu_backward(gy, k.relu(x))
    yield "sigmoid", (y := k.sigmoid(x))
    yield "sigmoid_backward", k.sigmoid_backward(gy, y)
    yield "total", np.asarray(k.total(x))
    yield "total_squared_error", np.asarray(k.total_squared_error(x, gy))
    yield "channel_sums", k.channel_sums(drawn(3, 5, 4, 6))
    yield "cross_entropy", np.asarray(k.cross_entropy(x, classes))
    p, moment, square = (np.zeros((50, 7), np.float32) for _ in range(3))
    k.adam_step([p], [gy], [moment], [square], (1e-2, 0.03), 0.9, 0.999, 1e-8, 0.0)
    yield "adam_step", p


def kernel_cache() -> Finding:
    """The cache of compiled kernels, and whether the kernel check found its kernels there."""
    functions, wanted = _compiled_functions(), _numbas.CACHE_DIR
    if not functions:
        return Finding("kernel cache", NOTE, "none, since nothing is compiled")
    folder = functions[0].stats.cache_path
    if folder is None:
        text = "there is no folder to cache compiled kernels in: every start recompiles them"
        return Finding("kernel cache", WRONG, text, "export NUMBA_CACHE_DIR=FOLDER  # one that can be written to")
    sizes = [path.stat().st_size for path in Path(folder).glob("*.nbc")]
    text = f"{folder}: {len(sizes)} kernels, {sum(sizes) / 1e6:.1f} MB; "
    if "saving" in _compiling._told:
        return Finding("kernel cache", WRONG, f"{text}no more can be saved: every start recompiles", f"df {folder}")
    fresh = sum(sum(function.stats.cache_misses.values()) for function in functions)
    text += f"{fresh} of them new, which the next start finds here" if fresh else "up to date"
    if wanted and Path(wanted) not in Path(folder).parents:
        text += f"; NUMBA_CACHE_DIR={wanted} cannot be written to and is not used"
        return Finding("kernel cache", NOTE, text, "unset NUMBA_CACHE_DIR")
    return _unless_full(Finding("kernel cache", OK, text), Path(folder))


def _compiled_functions() -> list[Any]:
    found = [function for module in cpu.MODULES for function in vars(module).values() if hasattr(function, "stats")]
    return list(dict.fromkeys(found))  # a function may be imported into several modules


# -- data -------------------------------------------------------------------------------------------------------


def data_folder() -> Finding:
    """The default folder of data sets."""
    folder = _data_folder()
    if folder is None:
        text = "not known: MINIDL_DATA names none, and pooch, which knows the user's cache folder, is missing"
        return Finding("data folder", NOTE, text, "python -m pip install pooch requests tqdm")
    source = "from MINIDL_DATA" if os.environ.get("MINIDL_DATA") else "the default, as MINIDL_DATA is not set"
    text = f"{folder} ({source})"
    exists = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not exists.is_dir():
        return Finding("data folder", WRONG, f"{text}: {exists} is a file", "export MINIDL_DATA=FOLDER")
    if not os.access(exists, os.W_OK):
        text += ": it cannot be written to, so nothing can be downloaded"
        return Finding("data folder", NOTE, text, "export MINIDL_DATA=FOLDER  # one that can be written to")
    return _unless_full(Finding("data folder", OK, text if exists == folder else f"{text}: not made yet"), exists)


def mnist_files() -> Finding:
    """Whether MNIST is there and intact: it is loaded."""
    folder = _data_folder()
    lacks = [name for name in mnist.UNPACKED if not (folder and mnist.found_in(folder, name))]
    return _data_set("MNIST", MNIST, lacks, len(mnist.UNPACKED), FETCH_MNIST)


def cifar10_files() -> Finding:
    """Whether CIFAR-10 is there and intact. An archive that is not unpacked yet is left alone."""
    folder = _data_folder()
    places = (cifar10.FOLDER, ".")
    lacks = [n for n in cifar10.SHA256 if not (folder and any((folder / p / n).is_file() for p in places))]
    if lacks and folder and (folder / cifar10.ARCHIVE).is_file():
        return Finding("CIFAR-10", OK, f"{folder / cifar10.ARCHIVE}, checked and unpacked when first used")
    return _data_set("CIFAR-10", CIFAR10, lacks, len(cifar10.SHA256), FETCH_CIFAR10)


def _data_set(name: str, kind: Callable[..., Any], lacks: Sequence[str], files: int, fetch: str) -> Finding:
    if lacks:
        text = f"missing: {', '.join(lacks)}" if len(lacks) < files else "not there"
        return Finding(name, NOTE, f"{text}; examples download it, or use synthetic images", fetch)
    said = io.StringIO()  # filled if the files are not the official ones
    try:
        with contextlib.redirect_stdout(said):
            train, test = (len(kind(train=part)) for part in (True, False))
    except (OSError, ValueError) as error:
        path = shlex.quote(str(getattr(error, "filename", None) or str(error).split(": ")[0]))
        mend = f"chmod u+r {path}" if isinstance(error, PermissionError) else f"rm {path}\n{fetch}"
        return Finding(name, WRONG, str(error), mend)
    return Finding(name, NOTE if said.getvalue() else OK, said.getvalue() or f"{train:,} + {test:,} images")


def _data_folder() -> Path | None:
    with contextlib.suppress(ImportError):  # without pooch
        return mnist.default_folder()
    return None


def _unless_full(finding: Finding, folder: Path) -> Finding:
    if (free := shutil.disk_usage(folder).free) >= LITTLE:
        return finding
    text = f"{finding.text}; only {free / 1e6:.0f} MB are free on this disk"
    return Finding(finding.topic, NOTE, text, f"df -h {shlex.quote(str(folder))}")


# -- the report -------------------------------------------------------------------------------------------------

_COMPILED = processor, kernel_check, kernel_cache, thread_count, thread_layer
_MACHINE = *(_COMPILED if kernels.COMPILING else (definitions,)), blas, gpu
CHECKS = (python, packages, extras, *_MACHINE, data_folder, mnist_files, cifar10_files)


def report() -> int:
    """Print all findings and a summary; return 0 if minidl can train on this machine, 1 if something is wrong."""
    states = []
    for check in CHECKS:
        finding = _found_by(check)
        states.append(finding.state)
        print("\n".join(_lines(finding)), flush=True)
    wrong, notes = states.count(WRONG), states.count(NOTE)
    print(f"\n{'Not all is well' if wrong else 'minidl can train on this machine'}: {wrong} wrong, {notes} to note.")
    return 1 if wrong else 0


def _found_by(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # whatever is broken here, the other findings are still needed
        settings = " ".join(name for name in os.environ if name.startswith("NUMBA_"))
        advice = f"unset {settings}  # and try again" if settings else "report these lines"
        return Finding(check.__name__, WRONG, f"the check failed: {type(error).__name__}: {error}", advice)


def _lines(finding: Finding) -> list[str]:
    start = f"{finding.state:<6}{finding.topic:<14}"
    wrap = textwrap.TextWrapper(WIDTH, initial_indent=start, subsequent_indent=" " * len(start))
    wrap.break_long_words = wrap.break_on_hyphens = False
    return [*wrap.wrap(finding.text), *(f"    > {line}" for line in finding.advice.splitlines())]
