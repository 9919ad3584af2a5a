"""The public names, and the arguments of what is called: whoever imports minidl today finds them tomorrow."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import TypeVar

import pytest

import minidl
from minidl import nn

LIST = Path(__file__).parents[1] / "helpers/public_names.txt"
MODULES = (
    "minidl minidl.autograd minidl.compat minidl.cuda minidl.data minidl.distributed minidl.nn minidl.nn.functional "
    "minidl.nn.init minidl.nn.parallel minidl.nn.utils minidl.optim minidl.optim.lr_scheduler minidl.plot "
    "minidl.testing minidl.utils.data minidl.utils.data.distributed"
).split()


def public_names() -> list[str]:
    """A line for each public name of a module, each public attribute of a class, with its arguments."""
    lines = []
    for name in MODULES:
        module = importlib.import_module(name)
        wanted = getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])
        for attribute in sorted(wanted):
            value = getattr(module, attribute)
            if inspect.ismodule(value) or (not hasattr(module, "__all__") and _imported(value, name)):
                continue
            lines.append(f"{name}.{attribute}{_arguments(value)}")
            if inspect.isclass(value):
                lines += [
                    f"{name}.{attribute}.{member}{_arguments(getattr(value, member))}"
                    for member in dir(value)  # inherited ones too
                    if not member.startswith("_")
                ]
    return lines


def _imported(value: object, module: str) -> bool:
    """Whether a module without __all__ only uses this name."""
    elsewhere = "minidl.testing.gradcheck", "minidl.grad_mode"  # and meant to be found here too
    return isinstance(value, TypeVar) or getattr(value, "__module__", "") not in (module, *elsewhere)


def _arguments(value: object) -> str:
    try:
        parameters = inspect.signature(value).parameters.values() if callable(value) else None
    except (TypeError, ValueError):
        parameters = None
    if parameters is None:
        return ""
    return f"({', '.join(p.name for p in parameters)})"


def test_the_public_names_are_what_they_were():
    """New ones may come, beside or behind these; to write the list anew: python tests/project/test_public_names.py."""
    lacks = set(LIST.read_text().splitlines()) - set(public_names())
    assert not lacks, "\n".join(sorted(lacks))


def test_every_listed_module_is_there():
    assert all(name in sys.modules or importlib.import_module(name) for name in MODULES)
    assert minidl.__version__


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (minidl, "compile"),
        (nn, "LSTM"),
        (nn.functional, "lstm"),
        (nn.init, "sparse_"),
        (minidl.optim, "SparseAdam"),
        (minidl.optim.lr_scheduler, "CyclicLR"),
        (minidl.ones(2), "svd"),
    ],
)
def test_a_missing_name_says_where_to_find_what_to_write_instead(owner, name):
    with pytest.raises(AttributeError, match=rf" has no attribute '{name}'; `python -m minidl run --check script.py`"):
        getattr(owner, name)
    assert not hasattr(owner, name)


if __name__ == "__main__":
    LIST.write_text("\n".join(public_names()) + "\n")
