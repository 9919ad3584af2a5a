"""Module: the base of layers and models, a tree of parameters, buffers and submodules."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import numpy as np

from minidl._settings import Settings
from minidl.creation import as_tensor
from minidl.nn._hooks import Hooked, call
from minidl.ops.conversion import as_dtype
from minidl.ops.inplace import refuse_unwritable
from minidl.tensor import Array, Tensor, zero_grads

T = TypeVar("T", bound="Module")
V = TypeVar("V")


class Parameter(Tensor):
    """A trainable tensor: a leaf that requires a gradient, registered when assigned to a `Module`.

    Parameters
    ----------
    data : Tensor or numpy.ndarray
        The initial values; the memory is shared.
    requires_grad : bool
        False freezes the parameter.
    """

    def __init__(self, data: Tensor | Array, requires_grad: bool = True) -> None:
        shared = {"storage": data._storage} if isinstance(data, Tensor) else {}
        super().__init__(data.array if isinstance(data, Tensor) else data, requires_grad, **shared)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        copy = super().__deepcopy__(memo)
        copy.grad = None  # or the first step of the copy would use it
        vars(copy).update(vars(self))  # attributes that a user has set
        return cast(Parameter, copy)

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class IncompatibleKeys(NamedTuple):
    """The keys that ``load_state_dict(strict=False)`` could not match."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not any(self):
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class Module(Hooked):
    """Base of all layers and models: define the parts in ``__init__`` and the computation in ``forward``.

    Parameters and modules assigned as attributes are registered, in the order of assignment.

    Attributes
    ----------
    training : bool
        Whether layers such as dropout are in training mode; see ``train`` and ``eval``.

    Examples
    --------
    >>> from minidl import nn
    >>> class Double(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.inner = nn.Linear(3, 3)
    ...     def forward(self, x):
    ...         return self.inner(x) * 2
    >>> [name for name, _ in Double().named_parameters()]
    ['inner.weight', 'inner.bias']
    """

    training: bool
    _repr_format = ""  # the format of extra_repr; {0} is the module
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _unsaved: frozenset[str] = frozenset()  # the buffers that state_dict() leaves out

    def __init__(self) -> None:
        vars(self).update(training=True, _parameters={}, _buffers={}, _modules={})

    # -- parts ------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        for registry, kind in ((vars(self).get("_parameters"), Parameter), (vars(self).get("_modules"), Module)):
            known = registry is not None and name in registry
            if isinstance(value, kind) or (known and value is None):
                if registry is None:
                    raise AttributeError(f"call super().__init__() in {type(self).__name__} before assigning {name}")
                self._forget(name, other_than=registry)
                registry[name] = value
                return
            if known and not isinstance(value, Parameter | Module):
                wanted = "nn.Parameter" if kind is Parameter else "nn.Module"
                raise TypeError(f"cannot assign {type(value).__name__} as {name!r}, which must be an {wanted} or None")
        if name in vars(self).get("_buffers", ()):
            self.register_buffer(name, value, persistent=name not in self._unsaved)
            return
        object.__setattr__(self, name, value)

    def _forget(self, name: str, other_than: Any = None) -> bool:
        registries = vars(self), self._parameters, self._buffers, self._modules
        others = [registry for registry in registries if registry is not other_than]
        return sum(registry.pop(name, self) is not self for registry in others) > 0  # pops from each, so no any()

    def __getattr__(self, name: str) -> Any:  # called only if normal look-up fails
        for registry in ("_parameters", "_buffers", "_modules"):
            if name in vars(self).get(registry, ()):
                return vars(self)[registry][name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        if not self._forget(name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._parameters, *self._buffers, *self._modules]

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Register a parameter, or None for one that this variant of the layer lacks."""
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"{name!r} must be a Parameter, not {type(param).__name__}; nn.Parameter(tensor) makes one")
        self._enter(self._parameters, name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Register a tensor that is moved and, if `persistent`, saved with the parameters, but not trained."""
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"the buffer {name!r} must be a Tensor or None, not {type(tensor).__name__}")
        self._enter(self._buffers, name, tensor)
        self._unsaved = self._unsaved - {name} if persistent else self._unsaved | {name}

    def add_module(self, name: str, module: Module | None) -> None:
        """Register a submodule; the name need not be an identifier."""
        if module is not None and not isinstance(module, Module):
            kind = type(module).__name__
            raise TypeError(f"{type(self).__name__}: {name!r} must be a Module such as nn.ReLU(), not {kind}")
        self._enter(self._modules, name, module)

    def _enter(self, registry: dict[str, Any], name: str, value: Any) -> None:
        """Register a value. A new name must not be taken, nor make dotted names ambiguous."""
        if name not in registry:
            if not isinstance(name, str):
                raise TypeError(f"the name of a parameter or module must be a str, not {type(name).__name__}")
            if name == "" or "." in name:
                raise KeyError(f"the name of a parameter or module must not be empty or contain a dot: {name!r}")
            if hasattr(self, name):
                raise KeyError(f"{type(self).__name__} already has an attribute {name!r}")
        registry[name] = value

    def children(self) -> Iterator[Module]:
        """The direct submodules."""
        return (module for _, module in self.named_children())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct submodules with their names."""
        return _unique((name, module) for name, module in self._modules.items() if module is not None)

    def modules(self) -> Iterator[Module]:
        """This module and all its submodules, each once."""
        return (module for _, module in self.named_modules())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all its submodules with their dotted names, each once."""
        return _unique(self._walk(prefix))

    def _walk(self, prefix: str) -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module._walk(f"{prefix}.{name}" if prefix else name)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once; without `recurse`, those of submodules are left out."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their dotted names, each once or under all its names."""
        found = self._entries(prefix, "_parameters", recurse=recurse)
        return _unique(found) if remove_duplicate else found

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """All buffers with their dotted names, each once or under all its names."""
        found = self._entries(prefix, "_buffers", recurse=recurse)
        return _unique(found) if remove_duplicate else found

    def _saved(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """What ``state_dict()`` holds."""
        unsaved = {f"{path}.{name}" if path else name for path, m in self._walk(prefix) for name in m._unsaved}
        return ((name, x) for name, x in self._entries(prefix, "_parameters", "_buffers") if name not in unsaved)

    def _entries(self, prefix: str, *registries: str, recurse: bool = True) -> Iterator[tuple[str, Any]]:
        """What these registries of this module and its submodules hold; a shared entry under each of its names."""
        for path, module in self._walk(prefix) if recurse else [(prefix, self)]:
            for name, value in chain.from_iterable(vars(module)[registry].items() for registry in registries):
                if value is not None:
                    yield (f"{path}.{name}" if path else name), value

    # -- computing --------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the module's output; calling the module calls this."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(): define it in the class")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooks is not None:
            return call(self, self._hooks, args, kwargs)
        return self.forward(*args, **kwargs)

    def train(self: T, mode: bool = True) -> T:
        """Set training mode in this module and all its submodules, and return this module."""
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode must be a bool, not {type(mode).__name__}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: T) -> T:
        """Set evaluation mode: ``train(False)``."""
        return self.train(False)

    def apply(self: T, fn: Callable[[Module], Any]) -> T:
        """Call `fn` on all submodules, then on this module, and return this module."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def requires_grad_(self: T, requires_grad: bool = True) -> T:
        """Make all parameters trainable, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or set them to zero."""
        zero_grads(self.parameters(), set_to_none)

    def to(self: T, *args: Any, **kwargs: Any) -> T:
        """Convert parameters and buffers in place to a float dtype or a device; integer buffers keep their dtype."""
        kwargs.pop("memory_format", None)  # the kernels read weights in any order
        for parameter in self.parameters():
            converted = parameter.detach().to(*args, **kwargs)
            if not converted.is_floating_point():
                raise TypeError(f"to: parameters can only be converted to float dtypes, not {converted.dtype}")
            parameter.data = converted
            if parameter.grad is not None:
                parameter.grad = parameter.grad.to(*args, **kwargs)
        for buffer in self.buffers():
            converted = buffer.to(*args, **kwargs)
            buffer.data = converted if buffer.is_floating_point() else converted.to(buffer.dtype)
        return self

    def float(self: T) -> T:
        """Convert all parameters and float buffers to float32."""
        return self.to(as_dtype(np.float32))

    def double(self: T) -> T:
        """Convert all parameters and float buffers to float64."""
        return self.to(as_dtype(np.float64))

    def cpu(self: T) -> T:
        """Move all parameters and buffers to the CPU."""
        return self.to("cpu")

    def cuda(self: T, device: Any = None) -> T:
        """Move all parameters and buffers to a GPU: the given one, or the current one."""
        return self.to("cuda" if device is None else f"cuda:{device}" if type(device) is int else device)

    # -- state ------------------------------------------------------------------------------------------------

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> OrderedDict[str, Tensor]:
        """All parameters and buffers by dotted name; the tensors share their memory. Keys are PyTorch's.

        `prefix` comes before each name, as in PyTorch; with `keep_vars` the parameters themselves are returned.
        Arrays must be contiguous for safetensors: ``safetensors.numpy.save_file({name:
        numpy.ascontiguousarray(value.numpy()) for name, value in model.state_dict().items()}, path)``.
        """
        saved = self._saved(prefix.removesuffix("."))
        return OrderedDict((name, value if keep_vars else value.detach()) for name, value in saved)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy values into the parameters and buffers, converting them to their dtypes.

        Parameters
        ----------
        state_dict : mapping of str to Tensor or array
            As ``state_dict`` returns it, from minidl or from PyTorch.
        strict : bool
            Whether the keys must match this module's exactly.

        Returns
        -------
        IncompatibleKeys
            The missing and unexpected keys; both empty if `strict`.

        Raises
        ------
        RuntimeError
            If keys or shapes do not match; the message names all of them, and nothing is changed.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict: expected a dict from state_dict(), not {type(state_dict).__name__}")
        own: dict[str, Tensor] = dict(self._saved())
        # Files of PyTorch's before 0.4.1, and averages of weights, have no num_batches_tracked: it keeps its value.
        missing = [k for k in own if k not in state_dict and k.rpartition(".")[2] != "num_batches_tracked"]
        keys = IncompatibleKeys(missing, [k for k in state_dict if k not in own])
        faults = [f"missing key {key!r}" for key in keys.missing_keys] if strict else []
        faults += [f"unexpected key {key!r}" for key in keys.unexpected_keys] if strict else []
        given = {}
        for key in [key for key in own if key in state_dict]:
            value, shape = state_dict[key], own[key].shape
            try:
                value = as_tensor(value.detach() if hasattr(value, "detach") else value)  # a parameter of PyTorch too
            except (TypeError, ValueError, RuntimeError) as error:
                faults.append(f"{key!r} is not an array of numbers: {error}")
                continue
            given[key] = value[0] if shape == () and value.shape == (1,) else value  # by numpy.ascontiguousarray
            if given[key].shape != shape:
                faults.append(f"{key!r} has shape {value.shape} in the state, {shape} in the model")
        if faults:
            raise RuntimeError(f"load_state_dict of {type(self).__name__}: " + "; ".join(faults))
        for key in given:
            refuse_unwritable(f"load_state_dict of {key!r}", own[key])
        for key, value in given.items():
            own[key].detach().copy_(value)
        return keys

    # -- printing ---------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """The settings, as printed between the parentheses; PyTorch's text."""
        return self._repr_format.format(self)

    def __repr__(self) -> str:
        lines = [f"({name}): " + repr(module).replace("\n", "\n  ") for name, module in self._modules.items()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        extra = [self.extra_repr()] if self.extra_repr() else []
        return f"{type(self).__name__}(\n  " + "\n  ".join(extra + lines) + "\n)"


class OfFunction(Settings, Module):
    """A layer that is one function: ``class ELU(OfFunction, of=F.elu)``.

    The function's parameters after the input are the layer's arguments, which it keeps as attributes and prints.
    """

    function: ClassVar[Callable[..., Any]]
    _inputs = 1  # how many of the function's parameters are those of `forward`

    def __init_subclass__(cls, of: Callable[..., Any] | None = None) -> None:
        super().__init_subclass__()
        if of is not None:
            cls.function = staticmethod(of)
            arguments = [*inspect.signature(of).parameters.values()][cls._inputs :]
            cls._declare(argument for argument in arguments if argument.name != "dtype")
        if "__init__" in vars(cls):  # with defaults of its own
            cls.__signature__ = None

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__()
        vars(self).update(self._settings(args, named))
        self._prepare()

    def _prepare(self) -> None:
        """Called once the arguments are attributes, which a subclass may change here."""

    def forward(self, input: Any) -> Any:
        """The function of the input, with the layer's settings."""
        names = self._arguments.parameters
        return self.function(input, **dict(zip(names, map(vars(self).get, names), strict=True)))

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        shown = [f"{name}={vars(self)[name]!r}" for name in self._arguments.parameters if name != "inplace"]
        return super().extra_repr() or ", ".join(shown + ["inplace=True"] * vars(self).get("inplace", False))


def _unique(named: Iterable[tuple[str, V]]) -> Iterator[tuple[str, V]]:
    """Each value under the first of its names."""
    seen: set[int] = set()
    for name, value in named:
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value
