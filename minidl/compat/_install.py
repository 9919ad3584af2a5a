"""install(): from now on, ``import torch`` finds minidl in this process."""

import importlib.util
import os
import pkgutil
import sys
from types import ModuleType

import minidl
from minidl.compat._missing import ROOTS, MissingModules, missing
from minidl.compat._said import said_once

PACKAGE = "minidl.compat."


def install() -> None:
    """Let ``import torch`` and ``import torchvision`` find minidl, from now on in this process.

    Also adds the methods of Tensor and Module that only old code uses. A line on stderr says so. Calling it again
    changes nothing.

    Raises
    ------
    RuntimeError
        If modules of PyTorch have been imported already: its tensors and minidl's would get mixed.
    """
    if MissingModules in sys.meta_path:
        return
    if real := [name for name in sys.modules if name.partition(".")[0] in ROOTS]:
        raise RuntimeError(
            f"install: PyTorch itself has been imported in this process ({real[0]} and {len(real) - 1} more modules); "
            "call minidl.compat.install() in a new process (a restarted kernel), before anything imports torch"
        )
    beside = "; the PyTorch installed here is not used" if importlib.util.find_spec("torch") else ""
    sys.modules.update(faces())
    sys.meta_path.insert(0, MissingModules)
    from minidl.compat._old_methods import METHODS

    for owner, methods in METHODS.items():
        for name, method in methods.items():
            setattr(owner, name, method)
    said_once(f"torch is minidl {minidl.__version__} in this process{beside}")


def faces() -> dict[str, ModuleType]:
    """The modules that scripts import, by the names that scripts know: "torch.nn" is ``minidl.compat.torch.nn``."""
    found = {}
    for module in pkgutil.walk_packages([os.path.dirname(__file__)], PACKAGE):
        name = module.name.removeprefix(PACKAGE)
        if name.partition(".")[0] in ROOTS and "._" not in name:
            found[name] = importlib.import_module(module.name)
            vars(found[name]).setdefault("__getattr__", missing(name))
            vars(found[name]).setdefault("__path__", [])  # so that a missing submodule is described, too
    return found
