"""Learning-rate schedules: the rate as a function of the epoch, written into an optimiser's parameter groups.

Letters: lr_0 a group's own rate, kept as its "initial_lr"; e the epoch: it counts the calls of ``step()``.

Each rate is computed from lr_0 and e alone (in closed form). PyTorch multiplies the current rate instead, with the same
result unless someone else changed it in between: here such a change lasts until the next step.
"""

from __future__ import annotations

import bisect
import copy
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from minidl._settings import Settings
from minidl.optim._optimizer import Optimizer
from minidl.tensor import Tensor

Factor = Callable[[int], float]  # of lr_0, by epoch
Groups = list[dict[str, Any]]
CHOICES = ("mode", "min", "max"), ("threshold_mode", "rel", "abs"), ("anneal_strategy", "cos", "linear")


class LRScheduler(Settings, optimizer=..., last_epoch=-1):
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
    optimizer: Optimizer
    last_epoch: int
    eta_min = 0.0
    if TYPE_CHECKING:  # the arguments become attributes

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, *args: Any, **named: Any) -> None:
        self._take(args, named)
        first, groups = self.last_epoch == -1, self.optimizer.param_groups
        self._prepare(groups)
        for i, group in enumerate(groups):
            if first:
                group.setdefault("initial_lr", float(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(f"last_epoch={self.last_epoch} resumes a run, but group {i} has no 'initial_lr'")
        self.base_lrs = [group["initial_lr"] for group in groups]
        self.step(*[] if first else [self.last_epoch + 1])

    def _take(self, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Keep the arguments as attributes; raise for impossible ones."""
        vars(self).update(self._settings(args, named))
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: expected an optimizer, not {type(self.optimizer).__name__}")
        for name in ("step_size", "T_max", "total_steps"):
            if (value := getattr(self, name, None)) is not None and not value > 0:
                raise ValueError(f"{type(self).__name__}: {name} must be greater than 0, not {value}")
        for name, a, b in CHOICES:
            if getattr(self, name, a) not in (a, b):
                raise ValueError(f"{type(self).__name__}: {name} must be {a!r} or {b!r}, not {getattr(self, name)!r}")

    def _prepare(self, groups: Groups) -> None:
        """What is to be done before the first step."""

    def _each(self, name: str, value: Any) -> list[Any]:
        """A value for each group: those of a list, or the same for all."""
        groups = len(self.optimizer.param_groups)
        values = list(value) if isinstance(value, list | tuple) else [value] * groups
        if len(values) != groups:
            raise ValueError(f"{type(self).__name__}: {len(values)} {name} for {groups} parameter groups")
        return values

    def _factor(self, e: int) -> float:
        raise NotImplementedError(f"{type(self).__name__} defines no get_lr()")

    def get_lr(self) -> list[float]:
        """The rate of each group at epoch `last_epoch`: least + (lr_0 - least) f(e), the least being 0 or `eta_min`."""
        factor = self._factor(self.last_epoch)
        return [self.eta_min + (lr - self.eta_min) * factor for lr in self.base_lrs]

    def get_last_lr(self) -> list[float]:
        """The rate of each group after the last step."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Advance to the next epoch, or to a given one; call it after the optimiser's steps."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._write(self.get_lr())

    def _write(self, rates: list[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, rates, strict=False):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
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


def _rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


class LambdaLR(LRScheduler, optimizer=..., lr_lambda=..., last_epoch=-1):
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

    def _prepare(self, groups: Groups) -> None:
        self.lr_lambdas: list[Factor] = self._each("functions", vars(self).pop("lr_lambda"))

    def get_lr(self) -> list[float]:
        """lr_0 f(e)."""
        return [lr * f(self.last_epoch) for lr, f in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class StepLR(LRScheduler, optimizer=..., step_size=..., gamma=0.1, last_epoch=-1):
    """lr = lr_0 gamma^floor(e / step_size)."""

    def _factor(self, e: int) -> float:
        return self.gamma ** (e // self.step_size)


class MultiStepLR(LRScheduler, optimizer=..., milestones=..., gamma=0.1, last_epoch=-1):
    """lr = lr_0 gamma^n, where n is the number of `milestones` that e has reached."""

    def _prepare(self, groups: Groups) -> None:
        self.milestones: Counter[int] = Counter(vars(self)["milestones"])

    def _factor(self, e: int) -> float:
        return self.gamma ** sum(count for epoch, count in self.milestones.items() if epoch <= e)


class ExponentialLR(LRScheduler, optimizer=..., gamma=..., last_epoch=-1):
    """lr = lr_0 gamma^e."""

    def _factor(self, e: int) -> float:
        return self.gamma**e


class CosineAnnealingLR(LRScheduler, optimizer=..., T_max=..., eta_min=0.0, last_epoch=-1):
    """lr = eta_min + (lr_0 - eta_min) (1 + cos(pi e / T_max)) / 2: down to eta_min at T_max, then up again.

    Notes
    -----
    Source: I. Loshchilov, F. Hutter, SGDR: stochastic gradient descent with warm restarts, arXiv:1608.03983, 2017,
    without the restarts.
    """

    def _factor(self, e: int) -> float:
        return (1 + math.cos(math.pi * e / self.T_max)) / 2


class OneCycleLR(
    LRScheduler, optimizer=..., max_lr=..., total_steps=None, epochs=None, steps_per_epoch=None, pct_start=0.3,
    anneal_strategy="cos", cycle_momentum=True, base_momentum=0.85, max_momentum=0.95, div_factor=25.0,
    final_div_factor=1e4, three_phase=False, last_epoch=-1,
):  # fmt: skip
    """Up from max_lr / div_factor to max_lr in the first part of all steps, then down to 1 / final_div_factor of that.

    The first part is `pct_start` of `total_steps`, which is epochs * steps_per_epoch if not given. With `three_phase`
    the rate comes down to its first value in as many steps, and goes on down in those that are left. Between two values
    a and b it follows b + (a - b) (1 + cos(pi s)) / 2, or a + (b - a) s with anneal_strategy="linear", while s goes
    from 0 to 1. The momentum goes down from max_momentum to base_momentum and up again.

    Notes
    -----
    Source: L. Smith, N. Topin, Super-convergence: very fast training of neural networks using large learning rates,
    arXiv:1708.07120, 2018.
    """

    def _prepare(self, groups: Groups) -> None:
        if self.cycle_momentum and not all("momentum" in group or "betas" in group for group in groups):
            raise ValueError("OneCycleLR: cycle_momentum=True needs an optimizer with momentum or betas")
        if not self.total_steps and not (self.epochs and self.steps_per_epoch):
            raise ValueError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
        if not 0 <= self.pct_start <= 1:
            raise ValueError(f"OneCycleLR: pct_start is a share of the steps, from 0 to 1, not {self.pct_start}")
        for momenta in (self.base_momentum, self.max_momentum):
            self._each("momenta", momenta)  # which raises
        self.total_steps: int = self.total_steps or self.epochs * self.steps_per_epoch
        if self.last_epoch == -1:
            for group, lr in zip(groups, self._each("values of max_lr", self.max_lr), strict=True):
                group["initial_lr"] = lr / self.div_factor

    def _between(self, *levels: float) -> float:
        """The value at this step on the way from the first level to the last."""
        if self.last_epoch > self.total_steps:
            raise ValueError(f"OneCycleLR: step {self.last_epoch}, but the schedule has only {self.total_steps}")
        up, last = self.pct_start * self.total_steps - 1, self.total_steps - 1
        ends = [0, up, 2 * up, last] if self.three_phase else [0, up, last]
        i = min(max(bisect.bisect_left(ends, self.last_epoch), 1), len(ends) - 1)
        s = (self.last_epoch - ends[i - 1]) / (ends[i] - ends[i - 1])
        share = s if self.anneal_strategy == "linear" else (1 - math.cos(math.pi * s)) / 2
        return levels[i - 1] + (levels[i] - levels[i - 1]) * share

    def get_lr(self) -> list[float]:
        """The rate of each group at this step."""
        pairs = zip(self.base_lrs, self._each("values of max_lr", self.max_lr), strict=True)
        return [self._between(lr, most, *[lr] * self.three_phase, lr / self.final_div_factor) for lr, most in pairs]

    def step(self, epoch: int | None = None) -> None:
        """Advance to the next step, or to a given one; call it after each of the optimiser's steps."""
        super().step(epoch)
        bounds = zip(self._each("momenta", self.base_momentum), self._each("momenta", self.max_momentum), strict=True)
        groups = self.optimizer.param_groups if self.cycle_momentum else []
        for group, (least, most) in zip(groups, bounds, strict=False):
            m = self._between(most, least, most, most)
            group.update({"betas": (m, *group["betas"][1:])} if "betas" in group else {"momentum": m})


class ReduceLROnPlateau(
    LRScheduler, optimizer=..., mode="min", factor=0.1, patience=10, threshold=1e-4, threshold_mode="rel", cooldown=0,
    min_lr=0, eps=1e-8,
):  # fmt: skip
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

    def __init__(self, *args: Any, **named: Any) -> None:
        self._take(args, named)
        if not self.factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor must be less than 1, not {self.factor}")
        self.min_lrs = self._each("values of min_lr", vars(self).pop("min_lr"))
        self.best = math.inf if self.mode == "min" else -math.inf
        self.last_epoch = self.num_bad_epochs = self.cooldown_counter = 0
        self._last_lr = _rates(self.optimizer)

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
            rates = [(lr, max(lr * self.factor, least)) for lr, least in zip(self._last_lr, self.min_lrs, strict=True)]
            self._write([new if old - new > self.eps else old for old, new in rates])
            self.num_bad_epochs, self.cooldown_counter = 0, self.cooldown
        self._last_lr = _rates(self.optimizer)
