"""What belongs to the whole process, and so to others too: minidl and its examples leave it as they found it."""

import json
import os
import subprocess
import sys

import pytest

from tests.helpers.example_files import EXAMPLES

pytest.importorskip("matplotlib", reason="the examples need the extra: pip install 'minidl[examples]'")

# What there is to change, and how to look at it: in a process of its own, with what others have imported already.
WATCH = """
import gc, json, locale, logging, os, random, signal, sys, threading, warnings
import numpy as np
import matplotlib, numba, scipy.linalg, tqdm
try:
    from threadpoolctl import threadpool_info
except ImportError:
    threadpool_info = list  # the threads of BLAS then stay unknown

def open_files():
    folder = "/proc/self/fd"  # matplotlib keeps the fonts open that it has drawn with
    links = [os.path.join(folder, name) for name in os.listdir(folder)] if os.path.isdir(folder) else []
    return [os.readlink(link) for link in links if os.path.exists(link) and not os.readlink(link).endswith(".ttf")]

def look():
    return {
        "numpy's generator": str(np.random.get_state()),
        "random's generator": str(random.getstate()),
        "np.geterr": np.geterr(),
        "np.get_printoptions": str(np.get_printoptions()),
        "warnings.filters": str(warnings.filters),
        "matplotlib's backend": str(matplotlib.rcParams._get("backend")),
        "matplotlib.rcParams": str(dict.items(matplotlib.rcParams)),
        "pyplot": "matplotlib.pyplot" in sys.modules,
        "os.environ": dict(os.environ),
        "signal handlers": {number: str(signal.getsignal(number)) for number in signal.valid_signals()},
        "sys.excepthook": str(sys.excepthook),
        "sys.unraisablehook": str(sys.unraisablehook),
        "threading.excepthook": str(threading.excepthook),
        "recursion limit": sys.getrecursionlimit(),
        "gc": (gc.isenabled(), gc.get_threshold()),
        "locale": locale.setlocale(locale.LC_ALL),
        "logging": str((logging.getLogger().level, logging.getLogger().handlers, logging.root.manager.disable)),
        "threads of BLAS": [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"],
        "threads of Numba": numba.get_num_threads(),
        "working directory": os.getcwd(),
        "open files": open_files(),
    }

def changed(before, after):
    return {name: [str(before[name]), str(after[name])] for name in before if before[name] != after[name]}
"""

IMPORT = """
before = look()
import minidl, minidl.data, minidl.plot, minidl.testing.property_test
print(json.dumps(changed(before, look())))
"""

TRAIN = """
import minidl
folder, out = sys.argv[1:]
sys.path.insert(0, folder)
import _common, runpy
source = _common.SETS["mnist"]
_common.SETS["mnist"] = source._replace(drawn=lambda n, seed: source.drawn(min(n, 100), seed=seed))
before = look()
sys.argv = ["x.py", "--data", "synthetic", "--train-size", "64", "--epochs", "1", "--out", out]
runpy.run_path(os.path.join(folder, "mnist_autoencoder.py"), run_name="__main__")
sys.argv += ["--lr", "-1"]
try:
    runpy.run_path(os.path.join(folder, "mnist_autoencoder.py"), run_name="__main__")
except SystemExit:
    print(json.dumps(changed(before, look())))
"""

CHANGE_ALL = """
before = look()
np.random.rand(), random.random(), np.seterr(all="raise"), np.set_printoptions(precision=3)
warnings.simplefilter("error")
matplotlib.rcParams["backend"] = "svg"
import matplotlib.pyplot
os.environ["OMP_NUM_THREADS"] = "77"
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.excepthook = sys.unraisablehook = threading.excepthook = lambda *error: None
sys.setrecursionlimit(1234)
gc.disable()
os.chdir("/")
file = open(os.devnull)
numba.set_num_threads(1)
print(json.dumps(sorted(changed(before, look()))))
file.close()
"""
CHANGED = [
    "gc",
    "matplotlib's backend",
    "matplotlib.rcParams",
    "np.get_printoptions",
    "np.geterr",
    "numpy's generator",
    "open files",
    "os.environ",
    "pyplot",
    "random's generator",
    "recursion limit",
    "signal handlers",
    "sys.excepthook",
    "sys.unraisablehook",
    "threading.excepthook",
    "threads of Numba",
    "warnings.filters",
    "working directory",
]


def changes(code, *options, **settings):
    """What the code prints at its end: what it has changed."""
    done = subprocess.run(
        [sys.executable, "-c", WATCH + code, *map(str, options)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | settings,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_changes_nothing():
    assert changes(IMPORT) == {}


@pytest.mark.jit
def test_training_and_an_example_change_nothing(tmp_path):
    assert changes(TRAIN, EXAMPLES, tmp_path / "out") == {}
    assert (tmp_path / "out" / "loss.png").exists()


@pytest.mark.slow
def test_a_change_would_be_noticed():
    assert changes(CHANGE_ALL, NUMBA_NUM_THREADS="2") == sorted(CHANGED)
