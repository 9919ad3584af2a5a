"""Runs a script as its user would, in PyTorch or under ``python -m minidl run``, in a folder with small data sets."""

import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minidl.data import CIFAR10, SyntheticDigits, SyntheticShapes

HERE = Path(__file__).parent
SCRIPTS = sorted((HERE / "scripts").glob("*.py"))
COMMANDS = {"torch": [], "minidl": ["-m", "minidl", "run"]}
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?(?!\w)")


class Outcome(NamedTuple):
    """What a script did."""

    status: int
    output: str
    errors: str
    draws: list  # of random numbers: kinds and how many
    elsewhere: list  # files opened to be written outside of the script's folder
    files: dict  # what it left in its folder: path by name


def write_idx(path, values):
    """A file in MNIST's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes())


def write_data(folder):
    """Drawn digits and shapes, as MNIST, FashionMNIST, CIFAR10 and folders of pictures."""
    from PIL import Image

    for name in ("MNIST", "FashionMNIST"):
        for part, n, seed in (("train", 320, 0), ("t10k", 100, 1)):
            digits = SyntheticDigits(n, seed=seed)
            write_idx(folder / name / "raw" / f"{part}-images-idx3-ubyte", digits.images)
            write_idx(folder / name / "raw" / f"{part}-labels-idx1-ubyte", digits.labels.astype(np.uint8))
    shapes = SyntheticShapes(384, seed=2)
    batches = folder / "cifar-10-batches-py"
    batches.mkdir()
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        part = slice(64 * i, 64 * i + 64)
        pixels = shapes.images[part].transpose(0, 3, 1, 2).reshape(64, -1).copy()
        batch = {"batch_label": name, "labels": shapes.labels[part].tolist(), "data": pixels}
        (batches / name).write_bytes(pickle.dumps(batch, protocol=4))
    (batches / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR10.classes)}, protocol=4))
    for i, label in enumerate(shapes.labels[:200]):
        if label < 3:
            place = folder / "pictures" / ("train" if i < 140 else "val") / shapes.classes[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(shapes.images[i]).resize((40, 36)).save(place / f"{i:03}.png")


def run(script, library, folder, data):
    """Run a copy of `script` in `folder`, with all that it finds in the folder `data`."""
    place = folder / library
    shutil.copytree(data, place / "data")
    shutil.copy(script, place)
    root = HERE.parents[1]
    paths = [HERE / "patches", root]
    if library == "torch" and find_spec("torchvision") is None:
        paths.append(HERE / "standin")
    cache = os.environ.get("NUMBA_CACHE_DIR", str(root / "minidl" / "kernels" / "cpu" / "__pycache__"))
    named = {"SCRIPT_LIBRARY": library, "SCRIPT_REPORT": str(folder / f"{library}.json"), "NUMBA_CACHE_DIR": cache}
    fixed = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory() as short:  # PyTorch's workers hang if the names of their sockets get too long
        done = subprocess.run(
            [sys.executable, *COMMANDS[library], script.name],
            cwd=place, env={**os.environ, **named, **fixed, "TMPDIR": short},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    report = json.loads(Path(named["SCRIPT_REPORT"]).read_text())
    output = "".join(line for line in done.stdout.splitlines(True) if "not the official file" not in line)
    inputs = {script.name, *(str(path.relative_to(data.parent)) for path in data.rglob("*"))}
    files = {str(path.relative_to(place)): path for path in place.rglob("*") if path.is_file()}
    files = {name: path for name, path in files.items() if name not in inputs}
    return Outcome(done.returncode, output, done.stderr, report["draws"], report["elsewhere"], files)


def losses(text):
    """The numbers in lines that speak of a loss."""
    return [float(x) for line in text.splitlines() if "loss" in line.lower() for x in NUMBER.findall(line)]


def numbers(text):
    """All numbers, and how far each may be off because it was rounded: a unit of its last digit."""
    found = NUMBER.findall(text)
    digits = [len(x.lower().partition("e")[0].partition(".")[2]) for x in found]
    exponents = [int(x.lower().partition("e")[2] or 0) for x in found]
    units = [10.0 ** (e - d) if "." in x else 0.0 for x, d, e in zip(found, digits, exponents, strict=True)]
    return np.array([float(x) for x in found]), np.array(units)


def words(text):
    """The text without its numbers; dtypes, which are NumPy's in minidl, without "torch."."""
    return NUMBER.sub("#", re.sub(r"torch\.(?=u?int|float|bool)", "", text))
