"""Optimisers that divide each element's step by the size of its past gradients.

Letters: p a parameter, g its gradient, to which weight decay has been added, v a running mean of g^2. The names of the
buffers are PyTorch's.
"""

from typing import Any

import numpy as np

from minidl.optim._optimizer import Buffers, Rule, decayed
from minidl.tensor import Array


class RMSprop(Rule, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False, capturable=False):
    """Gradients divided by the root of the running mean of their squares.

        v = alpha v + (1 - alpha) g^2            (v - m^2 for v with `centered`, m the running mean of g)
        b = momentum b + g / (sqrt(v) + eps)
        p = p - lr b

    Notes
    -----
    Source: G. Hinton, Neural networks for machine learning, lecture 6e, 2012; centered: A. Graves, Generating sequences
    with recurrent neural networks, arXiv:1308.0850, 2013.
    """

    def _formula(self, p: Array, g: Array, of: Buffers, lr: Any, group: dict[str, Any]) -> None:
        alpha = group["alpha"]
        v = decayed(of("square_avg"), alpha, (1 - alpha) * g * g)
        if group["centered"]:
            v = v - decayed(of("grad_avg"), alpha, (1 - alpha) * g) ** 2
        b = g / (np.sqrt(v) + group["eps"])
        p -= lr * (decayed(of("momentum_buffer"), group["momentum"], b) if group["momentum"] else b)


class Adadelta(Rule, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0, capturable=False):
    """Steps in the unit of the parameter: the root of the mean square of past steps stands for a learning rate.

        v = rho v + (1 - rho) g^2
        d = sqrt(u + eps) / sqrt(v + eps) g
        u = rho u + (1 - rho) d^2
        p = p - lr d

    Notes
    -----
    Source: M. Zeiler, Adadelta: an adaptive learning rate method, arXiv:1212.5701, 2012.
    """

    def _formula(self, p: Array, g: Array, of: Buffers, lr: Any, group: dict[str, Any]) -> None:
        rho, eps, u = group["rho"], group["eps"], of("acc_delta")
        v = decayed(of("square_avg"), rho, (1 - rho) * g * g)
        d = np.sqrt(u + eps) / np.sqrt(v + eps) * g
        decayed(u, rho, (1 - rho) * d * d)
        p -= lr * d
