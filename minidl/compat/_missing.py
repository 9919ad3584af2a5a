"""Names that minidl lacks: each way of asking for one raises PyTorch's kind of error, with a text that describes it.

``nn.LSTM`` raises AttributeError, so that ``hasattr`` works; ``from torch.nn import LSTM`` ImportError; ``import
torch.fx`` ModuleNotFoundError.
"""

import dis
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from minidl.compat.names import describe

ROOTS = "torch", "torchvision"


def missing(owner: str) -> Callable[..., NoReturn]:
    """The ``__getattr__`` of a module, or of a class, that scripts know under this name."""

    def __getattr__(*self_and_name: Any) -> NoReturn:
        name: str = self_and_name[-1]  # all that a module is asked with
        if name.startswith("__"):  # Python itself asks for __path__, __all__ and others
            raise AttributeError(f"{owner!r} has no attribute {name!r}")
        text = describe(f"{owner}.{name}")
        frame = sys._getframe(1)
        # Python replaces an AttributeError in `from module import name` with a text of its own.
        imports = frame.f_code.co_code[frame.f_lasti] == dis.opmap["IMPORT_FROM"]
        raise ImportError(text, name=owner) if imports else AttributeError(text)

    return __getattr__


class MissingModules:
    """An entry of ``sys.meta_path``: of PyTorch's modules, those that exist here are in ``sys.modules`` already."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        """Refuse the modules of PyTorch and torchvision, and leave all others to Python."""
        if name.partition(".")[0] in ROOTS:
            raise ModuleNotFoundError(describe(name), name=name)
