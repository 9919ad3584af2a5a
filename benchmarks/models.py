"""The workloads, six and a ResNet-20, each written once for both libraries: `m` is the module `minidl` or `torch`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

BATCHES = 4  # different batches, used in turn
LATENT = 20


@dataclass(frozen=True)
class Workload:
    """A model with its loss and optimiser.

    Attributes
    ----------
    batch : int
        Samples per step.
    sample : tuple of int
        The shape of one input.
    parameters : int
        The model's number of parameters, to check that it is the published model.
    second : str
        What a step needs besides images: "labels", "noise" (sampled in the step unless given) or nothing.
    model : callable
        ``model(m, dropout)`` builds it.
    loss : callable
        ``loss(m, model, images, second)``.
    optimiser : callable
        ``optimiser(m, parameters)``, and with ``fused=True`` for PyTorch's fused variant.
    """

    batch: int
    sample: tuple[int, ...]
    parameters: int
    second: str
    model: Callable[[Any, float], Any]
    loss: Callable[[Any, Any, Any, Any], Any]
    optimiser: Callable[..., Any]

    def data(self, batch: int, give_noise: bool) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """Batches of random images in [0, 1] with labels or noise, the same in every call."""
        rng = np.random.default_rng(0)
        second = {
            "labels": lambda: rng.integers(0, 10, batch),
            "noise": lambda: rng.standard_normal((batch, LATENT), dtype=np.float32) if give_noise else None,
        }.get(self.second, lambda: None)
        return [(rng.random((batch, *self.sample), dtype=np.float32), second()) for _ in range(BATCHES)]


def _encoder(nn: Any, outputs: int) -> list[Any]:
    return [
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, outputs, 7),
    ]


def _decoder(nn: Any, inputs: int) -> list[Any]:
    return [
        nn.ConvTranspose2d(inputs, 32, 7),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 3, stride=2, padding=1, output_padding=1),
    ]


def _mnist_ae(m: Any, dropout: float) -> Any:
    return m.nn.Sequential(*_encoder(m.nn, 64), *_decoder(m.nn, 64), m.nn.Sigmoid())


def _pool_ae(m: Any, dropout: float) -> Any:
    nn = m.nn
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(4, 16, 3, padding=1),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(16, 1, 3, padding=1),
        nn.Sigmoid(),
    )


def _mlp(m: Any, dropout: float) -> Any:
    nn = m.nn
    return nn.Sequential(
        nn.Linear(3072, 256),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(256, 100),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(100, 10),
    )


def _cnn(m: Any, dropout: float) -> Any:
    nn = m.nn
    return nn.Sequential(
        nn.Conv2d(3, 8, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(400, 256),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(256, 10),
    )


def _cifar_ae(m: Any, dropout: float) -> Any:
    nn, halve = m.nn, {"kernel_size": 4, "stride": 2, "padding": 1}
    return nn.Sequential(
        nn.Conv2d(3, 8, **halve),
        nn.ReLU(),
        nn.Conv2d(8, 16, **halve),
        nn.ReLU(),
        nn.Conv2d(16, 32, **halve),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 16, **halve),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 8, **halve),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 3, **halve),
        nn.Sigmoid(),
    )


def _vae(m: Any, dropout: float) -> Any:
    class VAE(m.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = m.nn.Sequential(*_encoder(m.nn, 2 * LATENT), m.nn.Flatten())
            self.decoder = m.nn.Sequential(m.nn.Unflatten(1, (LATENT, 1, 1)), *_decoder(m.nn, LATENT))

        def forward(self, images: Any, noise: Any) -> Any:
            code = self.encoder(images)
            mean, logvar = code[:, :LATENT], code[:, LATENT:]
            noise = m.randn_like(mean) if noise is None else noise
            return self.decoder(mean + m.exp(0.5 * logvar) * noise), mean, logvar

    return VAE()


def _resnet20(m: Any, dropout: float) -> Any:
    """K. He et al., Deep residual learning, arXiv:1512.03385, 2015, section 4.2, with projections as shortcuts."""
    nn = m.nn

    class Block(nn.Module):  # type: ignore[name-defined]
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
            self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            self.shortcut = nn.Sequential(*projection if stride > 1 else ())

        def forward(self, x: Any) -> Any:
            relu = nn.functional.relu
            return relu(self.norm2(self.conv2(relu(self.norm1(self.conv1(x))))) + self.shortcut(x))

    sizes = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
    first = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
    return nn.Sequential(*first, *(Block(*s) for s in sizes), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10))


def _mse(m: Any, model: Any, images: Any, second: Any) -> Any:
    return m.nn.functional.mse_loss(model(images), images)


def _mse_an_image(m: Any, model: Any, images: Any, second: Any) -> Any:
    return m.nn.functional.mse_loss(model(images), images, reduction="sum") / len(images)


def _cross_entropy(m: Any, model: Any, images: Any, labels: Any) -> Any:
    return m.nn.functional.cross_entropy(model(images), labels)


def _elbo(m: Any, model: Any, images: Any, noise: Any) -> Any:
    logits, mean, logvar = model(images, noise)
    distortion = m.nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="sum")
    rate = -0.5 * (1 + logvar - mean * mean - m.exp(logvar)).sum()
    return (distortion + rate) / len(images)


def _adam(m: Any, parameters: Any, **fused: bool) -> Any:
    return m.optim.Adam(parameters, lr=1e-3, **fused)


def _adam_decayed(m: Any, parameters: Any, **fused: bool) -> Any:
    return m.optim.Adam(parameters, lr=1e-3, weight_decay=1e-5, **fused)


def _sgd(m: Any, parameters: Any, **fused: bool) -> Any:
    return m.optim.SGD(parameters, lr=1e-2, momentum=0.9, **fused)


SIX = {
    "mnist_ae": Workload(64, (1, 28, 28), 210_369, "", _mnist_ae, _mse, _adam_decayed),
    "pool_ae": Workload(20, (1, 28, 28), 1_477, "", _pool_ae, _mse, _adam),
    "mlp": Workload(128, (3072,), 813_398, "labels", _mlp, _cross_entropy, _sgd),
    "cnn": Workload(128, (3, 32, 32), 109_050, "labels", _cnn, _cross_entropy, _sgd),
    "cifar_ae": Workload(128, (3, 32, 32), 21_331, "", _cifar_ae, _mse_an_image, _adam),
    "vae": Workload(64, (1, 28, 28), 103_721, "noise", _vae, _elbo, _adam),
}


def _slow_sgd(m: Any, parameters: Any) -> Any:
    """So slow that rounding, which batch normalisation amplifies, does not part the losses of 20 steps."""
    return m.optim.SGD(parameters, lr=1e-5)


WORKLOADS = SIX | {"resnet20": Workload(64, (3, 32, 32), 272_474, "labels", _resnet20, _cross_entropy, _slow_sgd)}


def flops(model: Any, sample: tuple[int, ...]) -> int:
    """Operations per sample in the products of convolutions and linear layers, forward and backward.

    A layer has one product in the forward pass and one for each gradient, with two operations per multiplication; the
    first layer needs no input gradient. Layers must be created in the order of use, and images must be square; a
    convolution with a 1x1 kernel is a shortcut beside those before it.
    """
    products, side = [], sample[-1]
    for layer in model.modules():
        kind = type(layer).__name__
        if kind in ("MaxPool2d", "Upsample"):
            side = side // 2 if kind == "MaxPool2d" else side * 2
        elif kind == "Linear":
            products.append(math.prod(layer.weight.shape))
        elif kind in ("Conv2d", "ConvTranspose2d"):
            k, stride, pad, more = (
                getattr(layer, a)[0] for a in ("kernel_size", "stride", "padding", "output_padding")
            )
            before = side
            if k > 1:
                side = (
                    (side + 2 * pad - k) // stride + 1 if kind == "Conv2d" else (side - 1) * stride - 2 * pad + k + more
                )
            products.append(math.prod(layer.weight.shape) * (side if kind == "Conv2d" else before) ** 2)
    return 2 * (3 * sum(products) - products[0])
