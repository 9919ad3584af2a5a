"""What all optimisers need around their formula: parameter groups, the state of each parameter, captured steps.

The formulas stand in sgd.py, adam.py and adaptive.py. Arguments, defaults and the layout of a state_dict are PyTorch's.
"""

from __future__ import annotations

import copy
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from minidl._settings import Settings
from minidl.autograd import enable_grad
from minidl.kernels import devices
from minidl.ops.inplace import refuse_unwritable
from minidl.tensor import Array, Tensor, zero_grads
from minidl.versions import written

Params = Iterable[Tensor] | Iterable[dict[str, Any]]
State = dict[str, Any]  # of one parameter: its buffers and number of steps, by name
Buffers = Callable[..., Array]


class Optimizer:
    """Base class of all optimisers: groups of parameters with their settings, and a state for each parameter.

    A subclass defines `_update`, which changes a list of parameters by their gradients.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        The parameters; a generator will do. A dict is a group ``{"params": ..., "lr": ...}`` with its own settings.
    defaults : dict
        Settings for groups that do not set their own.

    Attributes
    ----------
    param_groups : list of dict
        The groups with their settings, which may be changed between steps.
    state : dict
        The buffers of each parameter that has been stepped, under PyTorch's names.

    Raises
    ------
    TypeError
        If `params` is a single tensor, or contains anything but leaf tensors.
    ValueError
        If there are no parameters, one appears twice, or a setting is out of range.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError("params must be an iterable of tensors or of dicts, not one tensor: use [tensor]")
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        given = _listed(params)
        if not given:
            raise ValueError("the optimizer got an empty parameter list: pass model.parameters()")
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; settings that it does not give are the defaults."""
        if not isinstance(param_group, dict):
            raise TypeError(f"a parameter group must be a dict with the key 'params', not {type(param_group).__name__}")
        if "params" not in param_group:
            raise KeyError(f"a parameter group needs the key 'params', and has {sorted(param_group)}")
        params = param_group["params"]
        group = {**self.defaults, **param_group, "params": [params] if isinstance(params, Tensor) else _listed(params)}
        seen = {id(p) for other in self.param_groups for p in other["params"]}
        for p in group["params"]:
            if not isinstance(p, Tensor):
                kind = type(p).__name__
                raise TypeError(f"an optimizer can only optimize tensors, not {kind}; pass model.parameters()")
            if not p.is_leaf:
                raise ValueError(f"can't optimize a tensor that {p.grad_fn!r} computed, only leaves such as parameters")
            if id(p) in seen:
                raise ValueError(f"a parameter of shape {p.shape} appears more than once in the parameter groups")
            seen.add(id(p))
        self._check(group)
        _refuse_variants(group)
        self.param_groups.append(group)

    def _check(self, group: dict[str, Any]) -> None:
        """Raise if a setting is out of range."""
        for name in ("lr", "momentum", "weight_decay", "eps", "alpha", "rho"):
            value = group.get(name, 0)
            value = value.item() if name == "lr" and isinstance(value, Tensor) and value.numel() == 1 else value
            if not isinstance(value, int | float | np.number):
                raise TypeError(f"invalid {name} {value!r}: it must be a number, not {type(value).__name__}")
            if not value >= 0:
                raise ValueError(f"invalid {name} {value}: it must be at least 0")
        if not group.get("rho", 0) <= 1:
            raise ValueError(f"invalid rho {group['rho']}: it must be at most 1")
        betas = group.get("betas", (0, 0))
        if len(betas) != 2 or any(isinstance(beta, Tensor) for beta in betas):
            raise ValueError(f"invalid betas {betas}: there must be two numbers, such as (0.9, 0.999)")
        for i, beta in enumerate(betas):
            if not 0 <= beta < 1:
                raise ValueError(f"invalid beta {beta} at index {i}: it must be at least 0 and less than 1")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients of all parameters to None, or to zeros."""
        zero_grads(self._parameters(), set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Recomputes the loss and its gradients; `step` returns what it returns.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for p in self._parameters():
            if p._grad is not None:
                refuse_unwritable(f"{type(self).__name__}.step", p)
        for group in self.param_groups:
            grads = {p: g.array for p in group["params"] if (g := p.grad) is not None}
            if group.get("maximize"):
                grads = {p: -g for p, g in grads.items()}
            for params in self._alike(grads):
                self._update(params, [grads[p] for p in params], [self.state[p] for p in params], group)
                written(*params)
        return loss

    def _alike(self, params: Iterable[Tensor]) -> Iterable[list[Tensor]]:
        """Lists of parameters that one kernel call can step: of the same dtype, device and number of steps."""
        lists: dict[Any, list[Tensor]] = {}
        for p in params:
            state = self.state[p]
            key = p.array.dtype, devices.device_of(p.array), state.get("step", 0), state.get("momentum_buffer") is None
            lists.setdefault(key, []).append(p)
        return lists.values()

    def _update(self, params: list[Tensor], grads: list[Array], states: list[State], group: dict[str, Any]) -> None:
        """Update parameters that all have the same dtype, device and number of steps behind them."""
        raise NotImplementedError(f"{type(self).__name__} defines no _update()")

    def state_dict(self) -> dict[str, Any]:
        """The state and settings, with parameters replaced by their positions. The buffers are not copied."""
        positions = {id(p): i for i, p in enumerate(self._parameters())}
        groups = [{**group, "params": [positions[id(p)] for p in group["params"]]} for group in self.param_groups]
        return {"state": {positions[id(p)]: dict(s) for p, s in self.state.items()}, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned, for the same parameters in the same order.

        Raises
        ------
        ValueError
            If the groups or shapes do not match; nothing is changed then.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict: expected a dict from state_dict(), not {type(state_dict).__name__}")
        groups, parameters = state_dict["param_groups"], self._parameters()
        if isinstance(groups, list | tuple) and len(groups) != len(self.param_groups):
            sizes = f"{len(groups)} in the state, {len(self.param_groups)} in the optimizer"
            raise ValueError(f"load_state_dict: parameter groups: {sizes}")
        if not isinstance(groups, list | tuple) or not all(isinstance(group, Mapping) for group in groups):
            raise TypeError(f"load_state_dict: param_groups must be a list of dicts, not {groups!r}")
        given, own = ([len(g["params"]) for g in of] for of in (groups, self.param_groups))
        if given != own:
            raise ValueError(f"load_state_dict: parameters in each group: {given} in the state, {own} in the optimizer")
        for group in groups:
            _refuse_variants(group)
        positions = [i for group in groups for i in group["params"]]
        at = dict(zip(positions, parameters, strict=True))
        unknown = [i for i in state_dict["state"] if i not in at]
        if unknown:
            raise ValueError(f"load_state_dict: a state of parameter {unknown[0]!r}, but the groups have {positions}")
        state = {at[i]: _own(s, at[i]) for i, s in state_dict["state"].items()}
        for group, loaded in zip(self.param_groups, groups, strict=True):
            group.update({name: copy.deepcopy(value) for name, value in loaded.items() if name != "params"})
        self.state = defaultdict(dict, state)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


class Rule(Settings, Optimizer):
    """Base class of the optimisers here: a table of settings, and a formula for one parameter.

    All have PyTorch's further settings: `maximize` climbs instead of descending; `foreach`, `fused` and `capturable`,
    which choose among equal computations in PyTorch, change nothing.
    """

    def __init_subclass__(cls, **table: Any) -> None:
        further = {"foreach": None, "maximize": False, "differentiable": False}
        super().__init_subclass__(**({"params": ..., **table, **further} if table else {}))

    def __init__(self, *args: Any, **named: Any) -> None:
        settings = self._settings(args, named)
        super().__init__(settings.pop("params"), settings)

    def _update(self, params: list[Tensor], grads: list[Array], states: list[State], group: dict[str, Any]) -> None:
        lr = once_per_step(lambda: next_step(states, group), (), params[0])
        decay = group.get("weight_decay")
        for p, g, state in zip(params, grads, states, strict=True):
            g = g + decay * p.array if decay else g
            self._formula(p.array, g, functools.partial(buffer, p, state), in_dtype(lr, p), group)

    def _formula(self, p: Array, g: Array, of: Buffers, lr: Any, group: dict[str, Any]) -> None:
        """Change p by its gradient g, to which weight decay has been added. Its buffers are ``of(name)``."""
        raise NotImplementedError(f"{type(self).__name__} defines no _formula()")


def buffer(p: Tensor, state: State, name: str) -> Array:
    """The array of this name in p's state, made of zeros when it is first asked for."""
    if state.get(name) is None:
        state[name] = Tensor(np.zeros_like(p.array))
    return state[name].array


def next_step(states: list[State], group: dict[str, Any]) -> float:
    """Count a step of these parameters; the learning rate of their group."""
    for state in states:
        state["step"] = state.get("step", 0) + 1
    return float(group["lr"])


def in_dtype(number: Any, p: Tensor) -> Any:
    """A step's number for arithmetic with p: as it is, or of p's dtype where it stands in a buffer on a device."""
    return number if isinstance(number, float) else number.astype(p.dtype)


def decayed(b: Array, rate: float, x: Array) -> Array:
    """b = rate b + x, in place, as running means and sums take in x; denormal numbers, which are slow, become 0."""
    b *= rate
    b += x
    b *= np.abs(b) >= np.finfo(b.dtype).tiny
    return b


def once_per_step(numbers: Callable[[], Any], shape: tuple[int, ...], p: Tensor) -> Any:
    """`numbers()`: the number or numbers in a formula that change from step to step, such as Adam's bias correction.

    It is called exactly once in each step, so it may count steps. While a step is captured into a CUDA graph
    (`minidl.cuda.capture`) the result is a float64 buffer of this shape on p's device instead, and each replay of the
    graph calls `numbers` and refills the buffer.
    """
    if not devices.capturing():
        return numbers()
    return devices.sent(lambda: np.array(numbers(), np.float64), shape, np.float64, devices.device_of(p.array))


def _listed(params: Any) -> list[Any]:
    if not isinstance(params, Iterable):
        kind = type(params).__name__
        raise TypeError(f"params must be an iterable of tensors or of dicts, not {kind}: pass model.parameters()")
    if isinstance(params, set | frozenset):
        raise TypeError("params must have an order, and a set has none: pass a list")
    return list(params)


def _refuse_variants(group: Mapping[str, Any]) -> None:
    """Raise on PyTorch's settings that would change the formula and that minidl does not implement."""
    if group.get("differentiable"):
        raise ValueError("optimizer: differentiable=True is not supported: steps are not recorded")


def _own(state: Mapping[str, Any], p: Tensor) -> dict[str, Any]:
    """Copy the loaded state of p; its buffers are converted to p's dtype and device, and must have p's shape."""
    copied: dict[str, Any] = {"step": int(state["step"])} if "step" in state else {}
    for name in state.keys() - {"step"}:
        value = state[name].cpu() if isinstance(state[name], Tensor) else state[name]
        buffer = None if value is None else np.array(np.asarray(value), p.dtype)
        if buffer is not None and buffer.shape != p.shape:
            raise ValueError(f"load_state_dict: {name} has shape {buffer.shape} in the state, its parameter {p.shape}")
        copied[name] = None if buffer is None else Tensor(devices.beside(buffer, p.array))
    return copied
