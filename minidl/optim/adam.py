"""Adam: gradient descent with adaptive moments.

Letters: p a parameter, g its gradient, m and v running means of g and of g^2, t the number of the step, from 1.
"""

from typing import Any

import numpy as np

from minidl import kernels
from minidl.optim._optimizer import Optimizer, Params, State, once_per_step
from minidl.tensor import Array, Tensor


class Adam(Optimizer):
    """Steps of about lr in each element: the running mean of its gradient over the root of that of its square.

        g = g + weight_decay p
        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2
        p = p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)        at step t = 1, 2, ...

    Parameters
    ----------
    params : iterable of Tensor, or of dict
    lr : float
    betas : (float, float)
        Decay rates of the two running means, each in [0, 1): the closer to 1, the longer they remember.
    eps : float
        Keeps the quotient finite where gradients vanish.
    weight_decay : float
        Coefficient of an L2 term *in the gradient* (coupled; not AdamW).

    Notes
    -----
    1 - beta1^t and 1 - beta2^t are the bias correction: m and v start at 0, so after t steps the weights of the
    gradients in m sum to only 1 - beta1^t, and those of their squares in v to 1 - beta2^t.

    Source: D. Kingma, J. Ba, Adam: a method for stochastic optimization, arXiv:1412.6980, 2015, with eps where
    PyTorch adds it.
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

    def _update(self, params: list[Tensor], grads: list[Array], states: list[State], group: dict[str, Any]) -> None:
        """The formula's four lines run in one pass over memory: `kernels.adam_step`."""
        for p, state in zip(params, states, strict=True):
            if not state:
                state.update(step=0, exp_avg=Tensor(np.zeros_like(p.array)), exp_avg_sq=Tensor(np.zeros_like(p.array)))
        ms, vs = ([state[name].array for state in states] for name in ("exp_avg", "exp_avg_sq"))
        beta1, beta2 = group["betas"]

        def count_step() -> tuple[float, float]:  # the step's (rate, root)
            for state in states:
                state["step"] += 1
            return bias_corrected(group["lr"], beta1, beta2, states[0]["step"])

        settings = once_per_step(count_step, (2,), params[0]), beta1, beta2, group["eps"], group["weight_decay"]
        kernels.adam_step([p.array for p in params], grads, ms, vs, *settings)


def bias_corrected(lr: float, beta1: float, beta2: float, t: int) -> tuple[float, float]:
    """Bias correction, all of the formula that depends on t: lr / (1 - beta1^t) and sqrt(1 - beta2^t)."""
    return lr / (1 - beta1**t), (1 - beta2**t) ** 0.5
