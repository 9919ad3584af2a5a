"""The workloads of models.py in JAX: channels last, a whole step under jit, parameters as in PyTorch's state_dict."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from models import LATENT, WORKLOADS

Params = dict[str, jax.Array]


def conv(p: Params, name: str, x: jax.Array, stride: int = 1, pad: int = 0) -> jax.Array:
    """``Conv2d`` of an input (N, H, W, K) with a weight (C, K, KH, KW)."""
    layout = ("NHWC", "OIHW", "NHWC")
    strides, pads = (stride, stride), ((pad, pad), (pad, pad))
    y = lax.conv_general_dilated(x, p[f"{name}.weight"], strides, pads, dimension_numbers=layout)
    return y + p[f"{name}.bias"]


def deconv(p: Params, name: str, x: jax.Array, stride: int = 1, pad: int = 0, more: int = 0) -> jax.Array:
    """``ConvTranspose2d``: a convolution of the dilated input with the flipped weight."""
    w = p[f"{name}.weight"][:, :, ::-1, ::-1]
    before = w.shape[-1] - 1 - pad
    pads, layout = ((before, before + more),) * 2, ("NHWC", "IOHW", "NHWC")
    y = lax.conv_general_dilated(x, w, (1, 1), pads, lhs_dilation=(stride, stride), dimension_numbers=layout)
    return y + p[f"{name}.bias"]


def linear(p: Params, name: str, x: jax.Array) -> jax.Array:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def max_pool(x: jax.Array) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def upsample(x: jax.Array) -> jax.Array:
    return x.repeat(2, axis=1).repeat(2, axis=2)


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0) if rate else x


def _encode(p: Params, x: jax.Array, first: str) -> jax.Array:
    x = jax.nn.relu(conv(p, first.format(0), x, 2, 1))
    return conv(p, first.format(4), jax.nn.relu(conv(p, first.format(2), x, 2, 1)))


def _decode(p: Params, x: jax.Array, names: list[str]) -> jax.Array:
    x = jax.nn.relu(deconv(p, names[0], x))
    return deconv(p, names[2], jax.nn.relu(deconv(p, names[1], x, 2, 1, 1)), 2, 1, 1)


def _mnist_ae(p: Params, x: jax.Array, second: Any, rate: float, key: jax.Array) -> jax.Array:
    y = jax.nn.sigmoid(_decode(p, _encode(p, x, "{}"), ["5", "7", "9"]))
    return jnp.square(y - x).mean()


def _pool_ae(p: Params, x: jax.Array, second: Any, rate: float, key: jax.Array) -> jax.Array:
    y = max_pool(jax.nn.relu(conv(p, "0", x, pad=1)))
    y = max_pool(jax.nn.relu(conv(p, "3", y, pad=1)))
    y = jax.nn.relu(conv(p, "7", upsample(y), pad=1))
    return jnp.square(jax.nn.sigmoid(conv(p, "10", upsample(y), pad=1)) - x).mean()


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()


def _mlp(p: Params, x: jax.Array, labels: Any, rate: float, key: jax.Array) -> jax.Array:
    one, two = jax.random.split(key)
    y = dropout(jax.nn.relu(linear(p, "0", x)), rate, one)
    y = dropout(jax.nn.relu(linear(p, "3", y)), rate, two)
    return _cross_entropy(linear(p, "6", y), labels)


def _cnn(p: Params, x: jax.Array, labels: Any, rate: float, key: jax.Array) -> jax.Array:
    one, two = jax.random.split(key)
    y = max_pool(jax.nn.relu(conv(p, "0", x)))
    y = max_pool(jax.nn.relu(conv(p, "3", y)))
    y = dropout(y.transpose(0, 3, 1, 2).reshape(len(x), -1), rate, one)
    y = dropout(jax.nn.relu(linear(p, "8", y)), rate, two)
    return _cross_entropy(linear(p, "11", y), labels)


def _cifar_ae(p: Params, x: jax.Array, second: Any, rate: float, key: jax.Array) -> jax.Array:
    y = x
    for name in ("0", "2", "4"):
        y = jax.nn.relu(conv(p, name, y, 2, 1))
    y = jax.nn.relu(deconv(p, "6", y, 2, 1))
    y = jax.nn.relu(deconv(p, "8", y, 2, 1))
    return jnp.square(jax.nn.sigmoid(deconv(p, "10", y, 2, 1)) - x).sum() / len(x)


def _vae(p: Params, x: jax.Array, noise: Any, rate: float, key: jax.Array) -> jax.Array:
    code = _encode(p, x, "encoder.{}").reshape(len(x), -1)
    mean, logvar = code[:, :LATENT], code[:, LATENT:]
    z = mean + jnp.exp(0.5 * logvar) * (jax.random.normal(key, mean.shape) if noise is None else noise)
    y = _decode(p, z[:, None, None, :], ["decoder.1", "decoder.3", "decoder.5"])
    distortion = (jax.nn.softplus(y) - x * y).sum()
    return (distortion - 0.5 * (1 + logvar - mean * mean - jnp.exp(logvar)).sum()) / len(x)


LOSSES = {
    "mnist_ae": _mnist_ae,
    "pool_ae": _pool_ae,
    "mlp": _mlp,
    "cnn": _cnn,
    "cifar_ae": _cifar_ae,
    "vae": _vae,
}


def sgd(p: jax.Array, g: jax.Array, state: Any, i: jax.Array) -> tuple[jax.Array, Any]:
    velocity = 0.9 * state[0] + g
    return p - 1e-2 * velocity, (velocity, state[1])


def adam(p: jax.Array, g: jax.Array, state: Any, i: jax.Array, decay: float) -> tuple[jax.Array, Any]:
    g = g + decay * p
    m, v = 0.9 * state[0] + 0.1 * g, 0.999 * state[1] + 0.001 * g * g
    unbiased_m, unbiased_v = (x / -jnp.expm1(i * np.log(beta)) for x, beta in ((m, 0.9), (v, 0.999)))
    p = p - 1e-3 * unbiased_m / (jnp.sqrt(unbiased_v) + 1e-8)
    return p, (m, v)


def make_step(loss: Callable[..., jax.Array], update: Callable[..., Any]) -> Callable[..., Any]:
    """One step as one compiled function of the parameters, the optimiser's state, the batch and the step number."""

    def step(params: Params, states: Any, x: jax.Array, second: Any, i: jax.Array) -> Any:
        key = jax.random.fold_in(jax.random.key(0), i)
        value, grads = jax.value_and_grad(loss)(params, x, second, key)
        done = {name: update(p, grads[name], states[name], i + 1.0) for name, p in params.items()}
        return {n: p for n, (p, _) in done.items()}, {n: s for n, (_, s) in done.items()}, value

    return jax.jit(step, donate_argnums=(0, 1))


class Trainer:
    """A workload in JAX, with the interface of ``train_step.Trainer``."""

    def __init__(self, library: str, name: str, batch: int, threads: int, check: bool) -> None:
        if hasattr(os, "sched_setaffinity"):  # XLA starts a thread per visible core, without a setting
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        rate = 0.0 if check else 0.25
        self.batches = [tuple(map(self._array, pair)) for pair in WORKLOADS[name].data(batch, give_noise=check)]
        if name in ("mlp", "cnn"):
            update = sgd
        else:
            update = functools.partial(adam, decay=1e-5 if name == "mnist_ae" else 0.0)
        self.call = make_step(lambda p, x, second, key: LOSSES[name](p, x, second, rate, key), update)

    @staticmethod
    def _array(array: np.ndarray | None) -> Any:
        if array is None:
            return None
        return jnp.asarray(array.transpose(0, 2, 3, 1) if array.ndim == 4 else array)

    def load(self, path: str) -> None:
        with np.load(path) as state:
            self.params = {name: jnp.asarray(state[name]) for name in state.files}
        self.states = {name: (jnp.zeros_like(p), jnp.zeros_like(p)) for name, p in self.params.items()}
        self.i = 0

    def step(self, i: int) -> Any:
        self.params, self.states, loss = self.call(
            self.params, self.states, *self.batches[i % len(self.batches)], self.i
        )
        self.i += 1
        jax.block_until_ready(self.params)
        return loss
