"""Adam: gradient descent with adaptive moments.

Letters: p a parameter, g its gradient, m and v running means of g and of g^2, t the number of the step, from 1.
"""

from typing import Any

import numpy as np

from minidl import kernels
from minidl.optim._optimizer import Rule, State, buffer, decayed, in_dtype, next_step, once_per_step
from minidl.tensor import Array, Tensor


class Adam(
    Rule, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, amsgrad=False, capturable=False, fused=None,
    decoupled_weight_decay=False,
):  # fmt: skip
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
        Coefficient of an L2 term *in the gradient*.
    amsgrad : bool
        Put the greatest v so far in the place of v.
    decoupled_weight_decay : bool
        ``AdamW``, whose weight decay is not in the gradient.

    Notes
    -----
    1 - beta1^t and 1 - beta2^t are the bias correction: m and v start at 0, so after t steps the weights of the
    gradients in m sum to only 1 - beta1^t, and those of their squares in v to 1 - beta2^t.

    Source: D. Kingma, J. Ba, Adam: a method for stochastic optimization, arXiv:1412.6980, 2015, with eps where
    PyTorch adds it. amsgrad: S. Reddi et al., On the convergence of Adam and beyond, arXiv:1904.09237, 2018.
    """

    def _update(self, params: list[Tensor], grads: list[Array], states: list[State], group: dict[str, Any]) -> None:
        """The formula's four lines run in one pass over memory: `kernels.adam_step`."""
        for p, state in zip(params, states, strict=True):
            if not state:
                state.update(exp_avg=Tensor(np.zeros_like(p.array)), exp_avg_sq=Tensor(np.zeros_like(p.array)))
        ms, vs = ([state[name].array for state in states] for name in ("exp_avg", "exp_avg_sq"))
        beta1, beta2 = group["betas"]
        eps, decay = group["eps"], group["weight_decay"]

        def count_step() -> tuple[float, float, float]:  # the step's (rate, root), and what p keeps of itself
            lr = next_step(states, group)
            return *bias_corrected(lr, beta1, beta2, states[0]["step"]), 1 - lr * group["weight_decay"]

        numbers = once_per_step(count_step, (3,), params[0])
        if group["decoupled_weight_decay"]:
            for p in params:
                p.array *= in_dtype(numbers[2], p)
            decay = 0
        if not group["amsgrad"]:
            kernels.adam_step([p.array for p in params], grads, ms, vs, numbers[:2], beta1, beta2, eps, decay)
            return
        for p, g, m, v, state in zip(params, grads, ms, vs, states, strict=True):
            g = g + decay * p.array if decay else g
            decayed(m, beta1, (1 - beta1) * g)
            decayed(v, beta2, (1 - beta2) * g * g)
            greatest = buffer(p, state, "max_exp_avg_sq")
            np.maximum(greatest, v, out=greatest)
            rate, root = (in_dtype(number, p) for number in numbers[:2])
            p.array -= rate * m / (np.sqrt(greatest) / root + eps)


class AdamW(
    Adam, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False, capturable=False, fused=None,
    decoupled_weight_decay=True,
):  # fmt: skip
    """Adam with decoupled weight decay: p = (1 - lr weight_decay) p before each step, and none in the gradient.

    Source: I. Loshchilov, F. Hutter, Decoupled weight decay regularization, arXiv:1711.05101, 2019.
    """


def bias_corrected(lr: float, beta1: float, beta2: float, t: int) -> tuple[float, float]:
    """Bias correction, all of the formula that depends on t: lr / (1 - beta1^t) and sqrt(1 - beta2^t)."""
    return lr / (1 - beta1**t), (1 - beta2**t) ** 0.5
