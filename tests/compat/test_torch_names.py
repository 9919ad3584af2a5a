"""torch_names.txt lists what PyTorch 2.13 and torchvision 0.28 really have. Run as a script, this file rewrites it.

Modules that cannot be imported here (torchvision is not required, nor is tensorboard) keep the names that are there.
"""

import contextlib
import importlib
import pkgutil
import textwrap
import types

import pytest

from minidl.compat import names
from minidl.compat._missing import ROOTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # old modules of PyTorch warn when they are imported
]
CLASSES = "torch.Tensor", "torch.nn.Module", "torch.optim.Optimizer"
CURRENT = [path for path in names.NAMES if path.startswith("torch")]
DROPPED = [path.split()[1] for path in names.NAMES if path.startswith("dropped ")]


def _public(path):
    """The public names of a module, without its submodules, or the public attributes of a class."""
    if path in CLASSES:
        owner, _, name = path.rpartition(".")
        return {n for n in dir(getattr(importlib.import_module(owner), name)) if n[0] != "_"}
    module = importlib.import_module(path)
    # A module with settings, such as torch.backends.cudnn, is an object of a class, around the true module `m`.
    listed = {*dir(module), *dir(type(module)), *dir(getattr(module, "m", module))}
    return {n for n in listed if n[0] != "_" and n != "TYPE_CHECKING" and _own(module, n)}


def _submodules(module):
    """The public modules inside a package, imported or not."""
    found = pkgutil.iter_modules(getattr(module, "__path__", []), module.__name__ + ".")
    return {m.name for m in found if "._" not in m.name}


def _own(module, name):
    """Whether the name is the library's own, not a submodule, nor imported from elsewhere, such as typing.Any."""
    value = getattr(module, name)
    if isinstance(value, types.ModuleType):
        return False
    where = getattr(value, "__module__", None) or "torch"
    return not isinstance(where, str) or where.partition(".")[0] in (*ROOTS, "builtins")


def _modules():
    """All that are listed, and the modules inside of those that can be imported here."""
    listed = {path for path in CURRENT if path not in CLASSES}
    for path in sorted(listed):
        with contextlib.suppress(ImportError):
            listed |= _submodules(importlib.import_module(path))
    return listed


def _found(path):
    try:
        return _public(path)
    except ImportError:
        return None


@pytest.mark.parametrize("path", CURRENT)
def test_the_list_is_pytorchs(path):
    pytest.importorskip("torch")
    found = _found(path)
    if found is None:
        pytest.skip(f"{path} cannot be imported here")
    assert names.NAMES[path] == found


def test_all_modules_are_listed():
    pytest.importorskip("torch")
    assert _modules() <= names.NAMES["modules"]
    assert {path for path in names.NAMES["modules"] if path.startswith("torch.")} <= _modules()


@pytest.mark.parametrize("path", DROPPED)
def test_dropped_names_are_gone(path):
    pytest.importorskip("torch")
    found = _found(path)
    if found is None:
        pytest.skip(f"{path} cannot be imported here")
    assert not names.NAMES[f"dropped {path}"] & found


if __name__ == "__main__":
    blocks = {"modules": _modules(), **{path: _found(path) or names.NAMES[path] for path in CURRENT}}
    with open(names.FOLDER / "torch_names.txt", "w") as file:
        for heading, listed in (names.NAMES | blocks).items():
            text = f"{heading}: {' '.join(sorted(listed))}"
            print(textwrap.fill(text, 118, subsequent_indent="  ", break_on_hyphens=False), file=file)
