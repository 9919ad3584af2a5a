"""Containers whose contents are registered: a dict of modules, and a list and a dict of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from minidl.nn.module import Module, Parameter
from minidl.tensor import Tensor


class ModuleDict(Module, MutableMapping[str, Module]):
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

    __eq__, __hash__ = object.__eq__, object.__hash__

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def __getitem__(self, key: str) -> Any:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


class _Parameters(Module):
    """The base of ``ParameterList`` and ``ParameterDict``: tensors become parameters."""

    def _set(self, name: str, value: Any) -> None:
        if not isinstance(value, Tensor):
            kind, container = type(value).__name__, type(self).__name__
            raise TypeError(f"{container}: {name} must be a Tensor or a Parameter, not {kind}")
        self.__setattr__(name, value if isinstance(value, Parameter) else Parameter(value))

    def __len__(self) -> int:
        return len(self._parameters)

    def __repr__(self) -> str:
        sizes = {name: "x".join(map(str, p.shape)) for name, p in self._parameters.items() if p is not None}
        dtypes = {name: str(p.dtype) for name, p in self._parameters.items() if p is not None}
        lines = [f"    ({name}): Parameter containing: [{dtypes[name]} of size {sizes[name]}]" for name in sizes]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"]) if lines else f"{type(self).__name__}()"


class ParameterList(_Parameters):
    """A list of parameters, named by their positions."""

    def __init__(self, values: Iterable[Tensor] | None = None) -> None:
        super().__init__()
        self.extend(values or [])

    def append(self, value: Tensor) -> ParameterList:
        """Add a parameter at the end."""
        self._set(str(len(self)), value)
        return self

    def extend(self, values: Iterable[Tensor]) -> ParameterList:
        """Add several parameters at the end."""
        for value in values:
            self.append(value)
        return self

    def __getitem__(self, index: int | slice) -> Any:
        chosen = list(self._parameters.values())[index]
        return ParameterList(chosen) if isinstance(chosen, list) else chosen  # type: ignore[arg-type]

    def __setitem__(self, index: int, value: Tensor) -> None:
        self._set(list(self._parameters)[index], value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._parameters.values())


class ParameterDict(_Parameters, MutableMapping[str, Parameter]):
    """A dict of parameters, registered under their keys."""

    __eq__, __hash__ = object.__eq__, object.__hash__

    def __init__(self, parameters: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.update(parameters or {})  # type: ignore[arg-type]

    def __getitem__(self, key: str) -> Any:
        return self._parameters[key]

    def __setitem__(self, key: str, value: Tensor) -> None:
        self._set(key, value)

    def __delitem__(self, key: str) -> None:
        del self._parameters[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)
