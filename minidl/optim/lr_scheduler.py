"""Learning-rate schedules: the rate as a function of the epoch, written into an optimiser's parameter groups.

Letters: lr_0 a group's own rate, kept as its "initial_lr"; e the epoch: it counts the calls of ``step()``.

Each rate is computed from lr_0 and e alone (in closed form). PyTorch multiplies the current rate instead, with the same
result unless someone else changed it in between: here such a change lasts until the next step.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minidl.optim._optimizer import Optimizer

Factor = Callable[[int], float]  # of lr_0, by epoch


class LRScheduler:
    """Base class of the schedules: counts epochs, and writes what ``get_lr`` returns into the groups.

    Parameters
    ----------
    optimizer : Optimizer
    last_epoch : int
        -1 to start; to resume a run, its last epoch, if the optimiser's groups have an "initial_lr".

    Attributes
    ----------
    base_lrs : list of float
        lr_0 of each group.
    last_epoch : int
        e; 0 for a new schedule.

    Raises
    ------
    TypeError
        If `optimizer` is not an optimiser.
    KeyError
        If a group to be resumed has no "initial_lr".
    """

    _outside: tuple[str, ...] = ("optimizer",)  # not in the state_dict

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = _checked(self, optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(f"last_epoch={last_epoch} resumes a run, but group {i} has no 'initial_lr'")
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        LRScheduler.step(self)

    def get_lr(self) -> list[float]:
        """The rate of each group at epoch `last_epoch`."""
        raise NotImplementedError(f"{type(self).__name__} defines no get_lr()")

    def get_last_lr(self) -> list[float]:
        """The rate of each group after the last step."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Advance to the next epoch, or to a given one; call it after the optimiser's steps."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=False):
            group["lr"] = lr
        self._last_lr = _rates(self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser."""
        return {name: value for name, value in vars(self).items() if name not in self._outside}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; the rates themselves are in the optimiser's state."""
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict: expected a dict from state_dict(), not {type(state_dict).__name__}")
        own = self.state_dict()
        vars(self).update({name: copy.deepcopy(value) for name, value in state_dict.items() if name in own})


def _checked(scheduler: LRScheduler, optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(scheduler).__name__}: expected an optimizer, not {type(optimizer).__name__}")
    return optimizer


def _rates(optimizer: Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


class LambdaLR(LRScheduler):
    """lr = lr_0 f(e), with one function for all groups or one for each. The functions are not in the state_dict.

    Examples
    --------
    >>> import minidl
    >>> optimizer = minidl.optim.SGD([minidl.zeros(1, requires_grad=True)], lr=1.0)
    >>> scheduler = LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]
    """

    _outside = ("optimizer", "lr_lambdas")

    def __init__(self, optimizer: Optimizer, lr_lambda: Factor | list[Factor], last_epoch: int = -1) -> None:
        groups = _checked(self, optimizer).param_groups
        self.lr_lambdas = list(lr_lambda) if isinstance(lr_lambda, list | tuple) else [lr_lambda] * len(groups)
        if len(self.lr_lambdas) != len(groups):
            raise ValueError(f"LambdaLR: {len(self.lr_lambdas)} functions for {len(groups)} parameter groups")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """lr_0 f(e)."""
        return [lr * f(self.last_epoch) for lr, f in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class StepLR(LRScheduler):
    """lr = lr_0 gamma^floor(e / step_size)."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size, self.gamma = _positive("StepLR: step_size", step_size), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """lr_0 gamma^floor(e / step_size)."""
        return [lr * self.gamma ** (self.last_epoch // self.step_size) for lr in self.base_lrs]


class MultiStepLR(LRScheduler):
    """lr = lr_0 gamma^n, where n is the number of `milestones` that e has reached."""

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones, self.gamma = Counter(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """lr_0 gamma^n."""
        reached = sum(count for epoch, count in self.milestones.items() if epoch <= self.last_epoch)
        return [lr * self.gamma**reached for lr in self.base_lrs]


class ExponentialLR(LRScheduler):
    """lr = lr_0 gamma^e."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """lr_0 gamma^e."""
        return [lr * self.gamma**self.last_epoch for lr in self.base_lrs]


class CosineAnnealingLR(LRScheduler):
    """lr = eta_min + (lr_0 - eta_min) (1 + cos(pi e / T_max)) / 2: down to eta_min at T_max, then up again.

    Notes
    -----
    Source: I. Loshchilov, F. Hutter, SGDR: stochastic gradient descent with warm restarts, arXiv:1608.03983, 2017,
    without the restarts.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max, self.eta_min = _positive("CosineAnnealingLR: T_max", T_max), eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """eta_min + (lr_0 - eta_min) (1 + cos(pi e / T_max)) / 2."""
        share = (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
        return [self.eta_min + (lr - self.eta_min) * share for lr in self.base_lrs]


class ReduceLROnPlateau(LRScheduler):
    """lr = factor lr, after more than `patience` steps without an improvement of a metric.

    Parameters
    ----------
    optimizer : Optimizer
    mode : {"min", "max"}
        Whether a lower or a higher metric is better.
    factor : float
        Less than 1.
    patience : int
    threshold : float
        By how much a metric must beat the best one to count as better.
    threshold_mode : {"rel", "abs"}
        Whether the threshold is relative to the best metric.
    cooldown : int
        How many steps after a reduction do not count as bad.
    min_lr : float or list of float
        The lowest rate, or that of each group.
    eps : float
        A reduction by no more than this is skipped.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | list[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        if not factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor must be less than 1, not {factor}")
        if mode not in ("min", "max"):
            raise ValueError(f"ReduceLROnPlateau: mode must be 'min' or 'max', not {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"ReduceLROnPlateau: threshold_mode must be 'rel' or 'abs', not {threshold_mode!r}")
        self.optimizer = _checked(self, optimizer)
        groups = len(optimizer.param_groups)
        self.min_lrs = list(min_lr) if isinstance(min_lr, list | tuple) else [min_lr] * groups
        if len(self.min_lrs) != groups:
            raise ValueError(f"ReduceLROnPlateau: {len(self.min_lrs)} values of min_lr for {groups} parameter groups")
        self.mode, self.factor, self.patience, self.cooldown, self.eps = mode, factor, patience, cooldown, eps
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.best = math.inf if mode == "min" else -math.inf
        self.last_epoch = self.num_bad_epochs = self.cooldown_counter = 0
        self._last_lr = _rates(optimizer)

    def is_better(self, metric: float) -> bool:
        """Whether the metric beats the best one by the threshold."""
        margin = self.threshold if self.mode == "max" else -self.threshold
        wanted = self.best * (1 + margin) if self.threshold_mode == "rel" else self.best + margin
        return metric > wanted if self.mode == "max" else metric < wanted

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Record an epoch's metric, such as the validation loss: a number or a tensor with one element."""
        metric = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        better, cooling = self.is_better(metric), self.cooldown_counter > 0
        self.best = metric if better else self.best
        self.num_bad_epochs = 0 if better or cooling else self.num_bad_epochs + 1
        self.cooldown_counter -= cooling
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.num_bad_epochs, self.cooldown_counter = 0, self.cooldown
        self._last_lr = _rates(self.optimizer)

    def _reduce(self) -> None:
        for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
            lr = max(group["lr"] * self.factor, least)
            group["lr"] = lr if group["lr"] - lr > self.eps else group["lr"]


def _positive(name: str, value: int) -> int:
    if not value > 0:
        raise ValueError(f"{name} must be greater than 0, not {value}")
    return value
