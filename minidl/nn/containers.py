"""Containers: modules or parameters in a list or a dict, each registered under its position or key."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from itertools import groupby
from typing import Any, TypeVar

from minidl.nn.module import Module, Parameter
from minidl.tensor import Tensor

N = TypeVar("N", bound="_Numbered")


class _Container(Module):
    """The base of all containers, whose contents are in one registry of the module."""

    _registry = "_modules"

    def __len__(self) -> int:
        return len(vars(self)[self._registry])

    def _put(self, name: str, value: Any) -> None:
        self.add_module(name, value)


class _Numbered(_Container):
    """The base of those in order, named by their positions."""

    def append(self: N, value: Any) -> N:
        """Add one at the end."""
        self._put(str(len(self)), value)
        return self

    def extend(self: N, values: Iterable[Any]) -> N:
        """Add several at the end."""
        for value in values:
            self.append(value)
        return self

    __iadd__ = extend

    def insert(self: N, index: int, value: Any) -> N:
        """Insert one before position `index`; those after it are renumbered."""
        kept, last = list(self), str(len(self))
        self._put(last, value)  # raises if it does not belong here
        kept.insert(index, vars(self)[self._registry][last])
        return self._renumber(kept)

    def pop(self, key: int) -> Any:
        """Remove the one at this position, and return it; those after it are renumbered."""
        value = self[key]
        del self[key]
        return value

    def __iter__(self) -> Iterator[Any]:
        return iter(vars(self)[self._registry].values())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._part(OrderedDict(list(vars(self)[self._registry].items())[index]))
        return list(self)[index]

    def __setitem__(self, index: int, value: Any) -> None:
        self._put(list(vars(self)[self._registry])[index], value)

    def __delitem__(self, index: int | slice) -> None:
        kept = list(self)
        del kept[index]
        self._renumber(kept)

    def __add__(self: N, other: Iterable[Any]) -> N:
        return self[:].extend(other)

    def _renumber(self: N, values: list[Any]) -> N:
        registry = vars(self)[self._registry]
        registry.clear()
        registry.update(zip(map(str, range(len(values))), values, strict=True))
        return self

    def _part(self, named: OrderedDict[str, Any]) -> Any:
        return type(self)().extend(named.values())


class ModuleList(_Numbered):
    """A list of modules whose parameters are registered, unlike those in a Python list. It has no forward.

    Examples
    --------
    >>> from minidl import nn
    >>> ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU()])
    ModuleList(
      (0-1): 2 x Linear(in_features=2, out_features=2, bias=True)
      (2): ReLU()
    )
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend([] if modules is None else modules)

    def __repr__(self) -> str:
        lines, first = [], 0
        for text, alike in groupby(map(repr, self)):
            count = len(list(alike))
            lines.append(f"({first}): {text}" if count == 1 else f"({first}-{first + count - 1}): {count} x {text}")
            first += count
        inside = "\n".join(lines).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {inside}\n)" if lines else f"{type(self).__name__}()"


class Sequential(_Numbered):
    """Modules one after another, given in order or as an ``OrderedDict`` with names.

    Examples
    --------
    >>> from minidl import nn
    >>> Sequential(nn.Linear(2, 3), nn.ReLU())
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        named = args[0] if len(args) == 1 and isinstance(args[0], OrderedDict) else dict(enumerate(args))
        for name, module in named.items():
            self.add_module(str(name), module)

    def forward(self, input: Any) -> Any:
        """Pass the input through all modules in turn."""
        for module in self:
            input = module(input)
        return input

    def _part(self, named: OrderedDict[str, Any]) -> Sequential:
        return Sequential(named)


class _Keyed(_Container, MutableMapping[str, Any]):
    """The base of dicts. Like every module, they are equal only to themselves."""

    __eq__, __hash__ = object.__eq__, object.__hash__

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.update(values or {})

    def __getitem__(self, key: str) -> Any:
        return vars(self)[self._registry][key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._put(key, value)

    def __delitem__(self, key: str) -> None:
        del vars(self)[self._registry][key]

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self)[self._registry])


class ModuleDict(_Keyed):
    """A dict of modules, which are registered under their keys. It has no forward.

    Examples
    --------
    >>> from minidl import nn
    >>> ModuleDict({"act": nn.ReLU(), "head": nn.Linear(4, 2)})
    ModuleDict(
      (act): ReLU()
      (head): Linear(in_features=4, out_features=2, bias=True)
    )
    """


class _OfParameters(_Container):
    """The base of ``ParameterList`` and ``ParameterDict``: tensors become parameters."""

    _registry = "_parameters"

    def _put(self, name: str, value: Any) -> None:
        self.register_parameter(name, Parameter(value) if type(value) is Tensor else value)

    def __repr__(self) -> str:
        lines = [
            f"    ({name}): Parameter containing: [{p.dtype} of size {'x'.join(map(str, p.shape))}]"
            for name, p in self.named_parameters()
        ]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])


class ParameterList(_OfParameters, _Numbered):
    """A list of parameters, named by their positions."""

    def __init__(self, values: Iterable[Tensor] | None = None) -> None:
        super().__init__()
        self.extend(values or [])


class ParameterDict(_OfParameters, _Keyed):
    """A dict of parameters, registered under their keys."""
