"""A variational autoencoder: each digit encoded as a normal distribution over a few numbers, new digits from noise.

    python examples/mnist_vae.py
    python examples/mnist_vae.py --full
    python examples/mnist_vae.py --sweep 0.1 0.5 1 4 --latent 20

The first trains with a 2-dimensional latent space on 20,000 digits of MNIST for 20 epochs, in about 40 s on two cores,
to a test ELBO of about -146 nats per image, and draws where the digits lie in that space and what lies between them.
The second, with 20 dimensions, all 60,000 digits and 30 epochs, takes 2.5 minutes and reaches about -96. The third
draws the rate-distortion trade-off, one model per beta, in about 2.5 minutes. Without network access they train on
synthetic digits.
"""

import argparse
import math
from typing import Any

import _common
import _vae_report as report
import numpy as np

import minidl
from minidl import Meter, Tensor, nn, optim
from minidl.data import DataLoader, Dataset
from minidl.nn import functional as F


class VAE(nn.Module):
    """An encoder to q(z|x) = N(mean, e^log_var) over D independent units z, and a decoder to logits of p(x|z).

    Source: D. Kingma, M. Welling, Auto-encoding variational Bayes, arXiv:1312.6114, 2014.
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1),  # (N, 1, 28, 28) to (N, 16, 14, 14)
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),  # to (N, 32, 7, 7)
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 256),
            nn.Tanh(),
        )
        self.mean, self.log_var = nn.Linear(256, latent), nn.Linear(256, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, 256),
            nn.Tanh(),
            nn.Linear(256, 32 * 7 * 7),
            nn.ReLU(),
            nn.Unflatten(1, (32, 7, 7)),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),  # to (N, 16, 14, 14)
            nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),  # to (N, 1, 28, 28)
        )
        # Start with pixels of sigmoid(-2) = 0.12, close to their mean: otherwise the first steps only darken the
        # images, regardless of z, and can make the posterior collapse.
        self.decoder[-1].bias.data.fill_(-2)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        return self.mean(h), self.log_var(h)  # (N, D) each

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_var = self.encode(x)
        return self.decoder(reparameterise(mean, log_var)), mean, log_var


def reparameterise(mean: Tensor, log_var: Tensor) -> Tensor:
    """Sample z from N(mean, e^log_var) so that gradients reach both: the randomness enters as an input, the noise."""
    return mean + (0.5 * log_var).exp() * minidl.randn_like(mean)


def losses(logits: Tensor, images: Tensor, mean: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
    """Distortion -ln p(x|z) and rate KL(q(z|x) || N(0, 1)), in nats per image: the ELBO is minus their sum.

    Each pixel has a Bernoulli distribution, and a grey value counts as that fraction of white, the rest of black. The
    distortion is therefore at least the pixels' entropy, even for a perfect decoder (arXiv:1907.06845).
    """
    distortion = F.binary_cross_entropy_with_logits(logits, images, reduction="sum")
    return distortion / len(images), F.gaussian_kl(mean, log_var) / len(images)


def train(args: argparse.Namespace, train_set: Dataset, test_set: Dataset) -> _common.Run:
    """Train one model, evaluate it on the test images and draw its pictures."""
    minidl.manual_seed(args.seed)
    train_loader = DataLoader(train_set, args.batch_size, shuffle=True, device=args.device)
    test_loader = DataLoader(test_set, 500, device=args.device)
    model = VAE(args.latent).to(args.device)
    optimizer = optim.Adam(model.parameters(), lr=args.lr)
    run = _common.Run(args, model, optimizer)

    for epoch in run:
        optimizer.param_groups[0]["lr"] = args.lr * 0.5 ** ((epoch - 1) / args.half_life)
        train_elbo = Meter("per image")
        for step, (images, _) in enumerate(run.progress(train_loader, epoch)):
            passed = epoch - 1 + step / len(train_loader)  # epochs
            beta = args.beta * min(1, passed / args.warmup) if args.warmup else args.beta
            logits, mean, log_var = model(images)
            distortion, rate = losses(logits, images, mean, log_var)
            loss = distortion + beta * rate
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            train_elbo.update(-(distortion + rate).item(), len(images))
        run.kept = evaluate(model, test_loader)
        test = {f"test_{key}": run.kept[key] for key in ("elbo", "distortion", "rate")}
        run.finish_epoch("nats per image", train_elbo=train_elbo.average, **test)

    model.cpu()  # for the check and the pictures
    run.report(**run.kept, kl_check=report.check_kl(model, _common.images_of(test_set, range(1000))))
    report.show(run.results, args.beta, args.warmup)
    report.draw(run, test_set)
    return run


@minidl.no_grad()
def evaluate(model: nn.Module, loader: DataLoader) -> dict[str, Any]:
    """The ELBO on a data set and its terms, in nats per image, with one sample of z per image."""
    distortion, kl = Meter("per image"), np.zeros(model.mean.out_features)
    for images, _ in loader:
        logits, mean, log_var = model(images)
        distortion.update(losses(logits, images, mean, log_var)[0].item(), len(images))
        kl += F.gaussian_kl(mean, log_var, reduction="none").sum(0).cpu().numpy()  # (D,)
    kl /= len(loader.dataset)
    return {
        "elbo": -distortion.average - kl.sum().item(),
        "distortion": distortion.average,
        "rate": kl.sum().item(),
        "kl_per_dimension": kl.tolist(),
        "active_units": int((kl > report.ACTIVE).sum()),
    }


def main(args: argparse.Namespace) -> None:
    train_set, test_set = _common.load(args)
    betas = vars(args).pop("sweep")  # not a setting: each model of a sweep has its own beta
    if betas is None:
        train(args, train_set, test_set)
    else:
        args.out = args.out / "sweep"
        runs = []
        for beta in dict.fromkeys(betas):
            print(f"beta {beta:g}")
            out = args.out / f"beta_{beta:g}"
            out.mkdir(parents=True, exist_ok=True)
            runs.append(train(argparse.Namespace(**vars(args) | {"beta": beta, "out": out}), train_set, test_set))
        report.draw_sweep(runs, args, test_set)
    print(f"Pictures, checkpoint and metrics are in {args.out.resolve()}")


if __name__ == "__main__":
    full = {"latent": 20, "train_size": 60000, "epochs": 30, "batch_size": 128, "half_life": 6.0}
    options = _common.parser("mnist_vae", __doc__, epochs=20, batch_size=64, lr=2e-3, train_size=20000, full=full)
    number, add = _common.between(0, math.inf), options.add_argument
    half_life = "epochs after which the learning rate has halved (default: %(default)s)"
    add("--latent", type=_common.at_least(1), default=2, metavar="D", help="latent dimensions (default: %(default)s)")
    add(
        "--beta",
        type=number,
        default=1.0,
        help="weight of the KL term in the loss; 1 gives the ELBO (default: %(default)s)",
    )
    add(
        "--warmup",
        type=number,
        default=1.0,
        metavar="EPOCHS",
        help="epochs over which beta rises from 0 (default: %(default)s)",
    )
    add("--half-life", type=_common.between(0.1, math.inf), default=5.0, metavar="EPOCHS", help=half_life)
    add("--sweep", type=number, nargs="+", metavar="BETA", help="train one model for each of these values of --beta")
    _common.start(options, main)
