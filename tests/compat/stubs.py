"""Mathematics that minidl lacks and the scripts use, written with what it has. What minidl gets leaves this file.

Everything here is only as general as the scripts need it.
"""

import numpy as np

import minidl
from minidl import optim
from minidl.compat.torch import optim as torch_optim
from minidl.optim._optimizer import Optimizer


class AdamW(optim.Adam):
    """Adam, and before it p = p - lr weight_decay p."""

    def __init__(self, params, lr=1e-3, weight_decay=1e-2):
        super().__init__(params, lr)
        self.decay = weight_decay

    def step(self, closure=None):
        """Decay and step."""
        for group in self.param_groups:
            for p in group["params"]:
                p.array *= 1 - group["lr"] * self.decay
        return super().step(closure)


class RMSprop(Optimizer):
    """v = alpha v + (1 - alpha) g^2;  p = p - lr g / (sqrt(v) + eps)."""

    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8):
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps})

    def _update(self, params, grads, states, group):
        for p, g, state in zip(params, grads, states, strict=True):
            v = state.setdefault("square_avg", minidl.zeros_like(p)).array
            v[...] = group["alpha"] * v + (1 - group["alpha"]) * g * g
            p.array -= group["lr"] * g / (np.sqrt(v) + group["eps"])


TENSOR = {}
STUBS = {
    minidl.Tensor: TENSOR,
    torch_optim: {"AdamW": AdamW, "RMSprop": RMSprop},
}


def missing():
    """The stubs that are needed: what minidl has got meanwhile is to be deleted here."""
    return [(owner, name) for owner, names in STUBS.items() for name in names if name not in dir(owner)]


def install():
    """Add them."""
    for owner, name in missing():
        setattr(owner, name, STUBS[owner][name])
