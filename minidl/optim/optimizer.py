"""Optimisers: change parameters by their gradients. Arguments, defaults and formulas are PyTorch's.

Letters: p a parameter, g its gradient, m and v running means of g and g^2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from minidl import kernels
from minidl.autograd import enable_grad
from minidl.kernels import devices
from minidl.nn.module import zero_grad
from minidl.ops.inplace import refuse_unwritable
from minidl.tensor import Array, Tensor

Params = Iterable[Tensor] | Iterable[dict[str, Any]]


class Optimizer:
    """What all optimisers share: groups of parameters with settings, and a state for each parameter.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        The parameters; it may be a generator. A dict is a group ``{"params": ..., "lr": ...}`` with settings of
        its own.
    defaults : dict
        The settings of groups that have none of their own.

    Attributes
    ----------
    param_groups : list of dict
        The groups with their settings, which may be changed between steps.
    state : dict
        For each parameter that was stepped, its buffers by PyTorch's names.

    Raises
    ------
    TypeError
        If `params` is a single tensor, or holds something else than leaf tensors.
    ValueError
        If there is no parameter, one appears twice, or a setting is out of its range.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError("params must be an iterable of tensors or of dicts, not one tensor: use [tensor]")
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        given = _listed(params)
        if not given:
            raise ValueError("the optimizer got an empty parameter list: pass model.parameters()")
        groups = given if isinstance(given[0], dict) else [{"params": given}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, with settings of their own where given."""
        if not isinstance(param_group, dict):
            raise TypeError(f"a parameter group must be a dict with the key 'params', not {type(param_group).__name__}")
        if "params" not in param_group:
            raise KeyError(f"a parameter group needs the key 'params', and has {sorted(param_group)}")
        params = param_group["params"]
        group = {
            **self.defaults,
            **param_group,
            "params": [params] if isinstance(params, Tensor) else _listed(params),
        }
        seen = {id(p) for other in self.param_groups for p in other["params"]}
        for p in group["params"]:
            if not isinstance(p, Tensor):
                raise TypeError(
                    f"an optimizer can only optimize tensors, not {type(p).__name__}; pass model.parameters()"
                )
            if not p.is_leaf:
                raise ValueError(
                    f"can't optimize a tensor that {p.grad_fn!r} computed, only leaf tensors such as parameters"
                )
            if id(p) in seen:
                raise ValueError(f"a parameter of shape {p.shape} appears more than once in the parameter groups")
            seen.add(id(p))
        self._check(group)
        _refuse_variants(group)
        self.param_groups.append(group)

    def _check(self, group: dict[str, Any]) -> None:
        """Refuse settings out of their range."""
        for name in ("lr", "momentum", "weight_decay", "eps"):
            if name in group and not isinstance(group[name], int | float | np.number):
                raise TypeError(
                    f"invalid {name} {group[name]!r}: it must be a number, not {type(group[name]).__name__}"
                )
            if name in group and not group[name] >= 0:
                raise ValueError(f"invalid {name} {group[name]}: it must be at least 0")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                zero_grad(p, set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss again and its gradients; its result is returned.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for p in self._parameters():
            refuse_unwritable(f"{type(self).__name__}.step", p)
        for group in self.param_groups:
            grads = {p: p.grad.array for p in group["params"] if p.grad is not None}
            for params in self._alike(grads):
                self._update(params, [grads[p] for p in params], [self.state[p] for p in params], group)
                for p in params:
                    p._storage.version += 1
        return loss

    def _alike(self, params: Iterable[Tensor]) -> Iterable[list[Tensor]]:
        """The parameters in lists that one call of a kernel can step: of one dtype, place, and number of steps."""
        lists: dict[Any, list[Tensor]] = {}
        for p in params:
            state = self.state.setdefault(p, {})
            key = p.dtype, devices.place_of(p.array), state.get("step", 0), state.get("momentum_buffer") is None
            lists.setdefault(key, []).append(p)
        return lists.values()

    def _update(
        self, params: list[Tensor], grads: list[Array], states: list[dict[str, Any]], group: dict[str, Any]
    ) -> None:
        """Change parameters by their gradients: all of one dtype and place, after equally many steps."""
        raise NotImplementedError(f"{type(self).__name__} defines no _update()")

    def state_dict(self) -> dict[str, Any]:
        """The state and settings, with parameters replaced by their positions; the buffers are shared."""
        positions = {id(p): i for i, p in enumerate(self._parameters())}
        groups = [{**group, "params": [positions[id(p)] for p in group["params"]]} for group in self.param_groups]
        return {"state": {positions[id(p)]: dict(s) for p, s in self.state.items()}, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state and settings that ``state_dict`` returned, for the same parameters in the same order.

        Raises
        ------
        ValueError
            If the groups or the shapes do not match; nothing has been changed.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict: expected a dict from state_dict(), not {type(state_dict).__name__}")
        groups, parameters = state_dict["param_groups"], self._parameters()
        if isinstance(groups, list | tuple) and len(groups) != len(self.param_groups):
            raise ValueError(
                f"load_state_dict: parameter groups: {len(groups)} in the state, {len(self.param_groups)} here"
            )
        if not isinstance(groups, list | tuple) or not all(isinstance(group, Mapping) for group in groups):
            raise TypeError(f"load_state_dict: param_groups must be a list of dicts, not {groups!r}")
        sizes, own = [len(g["params"]) for g in groups], [len(g["params"]) for g in self.param_groups]
        if sizes != own:
            raise ValueError(
                f"load_state_dict: parameters in each group: {sizes} in the state, {own} in this optimizer"
            )
        for group in groups:
            _refuse_variants(group)
        positions = [i for group in groups for i in group["params"]]
        given = dict(zip(positions, parameters, strict=True))
        unknown = [i for i in state_dict["state"] if i not in given]
        if unknown:
            raise ValueError(f"load_state_dict: a state of parameter {unknown[0]!r}, but the groups have {positions}")
        state = {given[i]: _own(s, given[i]) for i, s in state_dict["state"].items()}
        for group, loaded in zip(self.param_groups, groups, strict=True):
            group.update({name: copy.deepcopy(value) for name, value in loaded.items() if name != "params"})
        self.state = state

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


def _listed(params: Any) -> list[Any]:
    if not isinstance(params, Iterable):
        raise TypeError(
            f"params must be an iterable of tensors or of dicts, not {type(params).__name__}: pass model.parameters()"
        )
    if isinstance(params, set | frozenset):
        raise TypeError("params must have an order, which a set has not: pass a list")
    return list(params)


def _refuse_variants(group: Mapping[str, Any]) -> None:
    """Refuse settings of PyTorch's that change the formula and that minidl does not have."""
    for name in ("amsgrad", "maximize", "decoupled_weight_decay", "differentiable"):
        if group.get(name):
            raise ValueError(f"optimizer: {name}={group[name]} is not supported")


def _changing(draw: Callable[[], Array], count: int, p: Tensor) -> Array | None:
    """Numbers that change from step to step, while a graph is recorded: a buffer that is filled before each replay."""
    return devices.sent(draw, (count,), np.float64, devices.place_of(p.array)) if devices.recording() else None


def _own(state: Mapping[str, Any], p: Tensor) -> dict[str, Any]:
    """A copy of a parameter's loaded state, its buffers as arrays of the parameter's shape and dtype."""
    copied: dict[str, Any] = {"step": int(state["step"])} if "step" in state else {}
    for name in state.keys() - {"step"}:
        value = state[name].cpu() if isinstance(state[name], Tensor) else state[name]
        buffer = None if value is None else np.array(np.asarray(value), p.dtype)
        if buffer is not None and buffer.shape != p.shape:
            raise ValueError(f"load_state_dict: {name} has shape {buffer.shape} in the state, its parameter {p.shape}")
        copied[name] = None if buffer is None else Tensor(devices.beside(buffer, p.array))
    return copied


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

        g = g + weight_decay p
        b = momentum b + (1 - dampening) g        (b = g at the first step)
        p = p - lr b                              (p - lr (g + momentum b) with nesterov)

    Parameters
    ----------
    params : iterable of Tensor, or of dict
    lr, momentum, dampening, weight_decay : float
    nesterov : bool
        Needs a momentum and no dampening.

    Notes
    -----
    Source: I. Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013, in
    the form of PyTorch's, where lr stands outside the momentum buffer.

    Examples
    --------
    >>> import minidl
    >>> p = minidl.tensor([1.0], requires_grad=True)
    >>> (p * p).sum().backward()
    >>> SGD([p], lr=0.25).step()
    >>> p.item()
    0.5
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
    ) -> None:
        settings = {
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, {"lr": lr, **settings})

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(
                f"nesterov needs a momentum above 0 and no dampening, not momentum {group['momentum']} and "
                f"dampening {group['dampening']}"
            )

    def _update(
        self, params: list[Tensor], grads: list[Array], states: list[dict[str, Any]], group: dict[str, Any]
    ) -> None:
        first = group["momentum"] and states[0].get("momentum_buffer") is None
        if first:
            for p, state in zip(params, states, strict=True):
                state["momentum_buffer"] = Tensor(np.zeros_like(p.array))
        buffers = [state["momentum_buffer"].array for state in states] if group["momentum"] else None
        dampening = 0 if first else group["dampening"]
        settings = group["lr"], group["momentum"], dampening, group["nesterov"], group["weight_decay"]
        changing = _changing(lambda: np.array([group["lr"]], np.float64), 1, params[0])
        kernels.sgd_step([p.array for p in params], grads, buffers, *settings, changing)


class Adam(Optimizer):
    """Steps of about lr in each element, by running means of its gradient and squared gradient.

        g = g + weight_decay p
        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2
        p = p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)        at step t = 1, 2, ...

    Parameters
    ----------
    params : iterable of Tensor, or of dict
    lr : float
    betas : (float, float)
        How slowly the two means forget, each in [0, 1).
    eps : float
        Keeps the quotient finite where gradients vanish.
    weight_decay : float
        Coefficient of an L2 term *in the gradient* (coupled; not AdamW).

    Notes
    -----
    Source: D. Kingma, J. Ba, Adam: a method for stochastic optimization, arXiv:1412.6980, 2015, with PyTorch's
    place for eps.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if len(group["betas"]) != 2:
            raise ValueError(f"invalid betas {group['betas']}: there must be two, such as (0.9, 0.999)")
        for i, beta in enumerate(group["betas"]):
            if not 0 <= beta < 1:
                raise ValueError(f"invalid beta {beta} at index {i}: it must be at least 0 and less than 1")

    def _update(
        self, params: list[Tensor], grads: list[Array], states: list[dict[str, Any]], group: dict[str, Any]
    ) -> None:
        for p, state in zip(params, states, strict=True):
            if not state:
                state.update(step=0, exp_avg=Tensor(np.zeros_like(p.array)), exp_avg_sq=Tensor(np.zeros_like(p.array)))
        means, squares = ([state[name].array for state in states] for name in ("exp_avg", "exp_avg_sq"))
        beta1, beta2 = group["betas"]

        def advance() -> Array:
            for state in states:
                state["step"] += 1
            return np.array(kernels.adam_changing(group["lr"], beta1, beta2, states[0]["step"]))

        changing = _changing(advance, 2, params[0])
        if changing is None:
            advance()
        settings = group["lr"], beta1, beta2, group["eps"], group["weight_decay"], states[0]["step"]
        kernels.adam_step([p.array for p in params], grads, means, squares, *settings, changing)
