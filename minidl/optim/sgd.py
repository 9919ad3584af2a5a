"""Stochastic gradient descent, with momentum.

Letters: p a parameter, g its gradient, b the momentum buffer, a running sum of gradients.
"""

from typing import Any

from minidl import kernels
from minidl.optim._optimizer import Rule, State, buffer, once_per_step
from minidl.tensor import Array, Tensor


class SGD(Rule, lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False, fused=None):
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
    PyTorch's form, where lr stays outside the momentum buffer.

    Examples
    --------
    >>> import minidl
    >>> p = minidl.tensor([1.0], requires_grad=True)
    >>> (p * p).sum().backward()
    >>> SGD([p], lr=0.25).step()
    >>> p.item()
    0.5
    """

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(
                f"nesterov needs a momentum above 0 and no dampening, not momentum {group['momentum']} and "
                f"dampening {group['dampening']}"
            )

    def _update(self, params: list[Tensor], grads: list[Array], states: list[State], group: dict[str, Any]) -> None:
        """The formula's three lines run in one pass over memory: `kernels.sgd_step`."""
        momentum, first = group["momentum"], states[0].get("momentum_buffer") is None
        bs = [buffer(p, s, "momentum_buffer") for p, s in zip(params, states, strict=True)] if momentum else None
        dampening = 0 if first else group["dampening"]  # from b = 0 this is b = g
        lr = once_per_step(lambda: float(group["lr"]), (), params[0])
        settings = lr, momentum, dampening, group["nesterov"], group["weight_decay"]
        kernels.sgd_step([p.array for p in params], grads, bs, *settings)
