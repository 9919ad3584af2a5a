"""The report of mnist_vae.py: a check of the KL divergence, a diagnosis of posterior collapse, and the pictures.

Letters in shapes: N images, D latent units z, S samples of z.
"""

from __future__ import annotations

import argparse
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import _common
import numpy as np

import minidl
from minidl import Tensor, nn, plot
from minidl.data import DataLoader, Dataset
from minidl.nn import functional as F

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


ACTIVE = 0.01  # nats of KL per image above which a unit is active: below, it carries almost no information


# -- measurements


@minidl.no_grad()
def check_kl(model: nn.Module, images: Tensor, samples: int = 100) -> dict[str, float]:
    """Compare the closed-form KL with a Monte Carlo estimate: the mean of ln q(z|x) - ln p(z) over z ~ q(z|x)."""
    mean, log_var = (x.double() for x in model.encode(images))  # (N, D)
    closed, prior = F.gaussian_kl(mean, log_var, reduction="none").sum(1), minidl.zeros_like(mean)  # (N,), (N, D)
    draws = [mean + (0.5 * log_var).exp() * minidl.randn_like(mean) for _ in range(samples)]
    estimates = minidl.stack([log_normal(z, mean, log_var) - log_normal(z, prior, prior) for z in draws])  # (S, N)
    error = (estimates - closed).std().item() / math.sqrt(estimates.numel())  # over draws of z: the images are fixed
    monte_carlo = {"monte_carlo": estimates.mean().item(), "standard_error": error}
    apart = abs(monte_carlo["monte_carlo"] - closed.mean().item()) / error if error else 0.0
    return {"images": len(images), "closed_form": closed.mean().item(), **monte_carlo, "apart": apart}


def log_normal(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """ln N(z; mean, e^log_var), summed over the units."""
    return -0.5 * (math.log(2 * math.pi) + log_var + (z - mean) ** 2 / log_var.exp()).sum(1)


def collapse(kl: list[float], beta: float, warmup: float) -> str:
    """A line that says in which units the posterior has collapsed to the prior, and what to try."""
    inactive = [unit for unit, nats in enumerate(kl) if nats <= ACTIVE]
    if not inactive:
        return f"No posterior collapse: each of the {len(kl)} units has a KL above {ACTIVE} nats per image."
    active = len(kl) - len(inactive)
    tries = ["a smaller --beta"] * (beta > 1) + [f"a --warmup longer than {warmup:g}"]
    tries += [f"--latent {active}, which should do as well"] if active else []
    where = f"{len(inactive)} of {len(kl)} units (KL at most {ACTIVE} nats per image)"
    return f"Posterior collapse in {where}: {', '.join(map(str, inactive))}. Try {' or '.join(tries)}."


def show(results: dict[str, Any], beta: float, warmup: float) -> None:
    """Print the ELBO, the check of the KL, and whether the posterior has collapsed."""
    print("Test ELBO {elbo:.2f} = -(distortion {distortion:.2f} + rate {rate:.2f}) nats per image.".format(**results))
    print(
        "KL of {images} test images: closed form {closed_form:.4f}, Monte Carlo {monte_carlo:.4f}, standard error "
        "{standard_error:.4f} nats per image: {apart:.2f} standard errors apart.".format(**results["kl_check"])
    )
    if results["kl_check"]["apart"] > 3:
        print("By chance more than three happens once in 370 runs; otherwise one of the two values is wrong.")
    print(collapse(results["kl_per_dimension"], beta, warmup))


# -- pictures


@minidl.no_grad()
def draw(run: _common.Run, test_set: Dataset) -> None:
    """All pictures of one model: its ELBO, reconstructions, samples from the prior, and what its units encode."""
    digits = _common.source_name(run.settings["data"], "digits")
    latent, beta = run.settings["latent"], run.settings["beta"]
    name = f"VAE with {latent} unit{'s' * (latent > 1)} and beta {beta:g} on {digits}"
    elbo = {key: [-epoch[f"{key}_elbo"] for epoch in run.epochs] for key in ("train", "test")}
    plot.curves(elbo, "epoch", "minus ELBO, nats per image", run.picture("elbo.png"), title=name)
    images = _common.images_of(test_set, range(10))
    rows = {"test images": images, "from the mean": decode(run, run.model.encode(images)[0])}
    rows["from a draw"] = F.sigmoid(run.model(images)[0])
    plot.show_images(rows, path=run.picture("reconstructions.png"), title=f"Reconstructions of test images: {name}")
    samples = decode(run, minidl.randn(60, latent))
    plot.show_images(samples, path=run.picture("samples.png"), title=f"Samples from the prior: {name}")
    if latent == 2:
        draw_scatter(run, test_set, f"Means of test images: {name}")
        draw_manifold(run, f"20 x 20 codes decoded: {name}")
    else:
        draw_kl(run, f"KL of each unit: {name}")
        draw_traversals(run, images[:1], f"One unit changed, the others kept: {name}")


def decode(run: _common.Run, z: Tensor) -> Tensor:
    """Codes (N, D) to each pixel's probability of being white, (N, 1, 28, 28)."""
    return F.sigmoid(run.model.decoder(z))


def draw_kl(run: _common.Run, title: str) -> None:
    """A bar per unit, in descending order."""
    kl = np.array(run.kept["kl_per_dimension"])
    order = np.argsort(-kl)
    figure, axis = new_figure(7, 3.6)
    axis.bar(range(len(kl)), kl[order], color=["C0" if nats > ACTIVE else "C3" for nats in kl[order]])
    axis.axhline(ACTIVE, color="black", linestyle="--", linewidth=1, label=f"active above {ACTIVE} nats")
    axis.set(title=title, xlabel="unit", ylabel="KL, nats per image", yscale="log")
    axis.set_xticks(range(len(kl)), order, size=8 if len(kl) <= 32 else 4)
    axis.legend()
    figure.savefig(run.picture("kl_per_dimension.png"))


def draw_scatter(run: _common.Run, test_set: Dataset, title: str) -> None:
    """A scatter plot of the test images' means, coloured by class, with the circle that holds 95% of the prior."""
    batches = [(run.model.encode(images)[0].numpy(), labels.numpy()) for images, labels in DataLoader(test_set, 500)]
    means, labels = (np.concatenate(part) for part in zip(*batches, strict=True))  # (N, 2), (N,)
    figure, axis = new_figure(7.2, 6.4)
    dots = axis.scatter(means[:, 0], means[:, 1], c=labels, cmap="tab10", vmin=-0.5, vmax=9.5, s=4, linewidths=0)
    angle, radius = np.linspace(0, 2 * np.pi, 200), np.sqrt(-2 * np.log(0.05))
    axis.plot(radius * np.cos(angle), radius * np.sin(angle), "k--", linewidth=1)
    axis.text(0, -radius, "95% of the prior", ha="center", va="center", size=8, bbox={"color": "white", "pad": 1})
    axis.set(title=title, xlabel="mean of unit 0", ylabel="mean of unit 1")
    axis.set_aspect("equal", adjustable="datalim")
    figure.colorbar(dots, ticks=range(10), label="class", shrink=0.8)
    figure.savefig(run.picture("latent_scatter.png"))


def draw_manifold(run: _common.Run, title: str) -> None:
    """Decoded codes at quantiles of the prior: z is the inverse normal distribution function at (i + 1/2)/20."""
    side = 20
    z = np.array([NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)], np.float32)
    grid = np.stack(np.meshgrid(z, z[::-1]), axis=-1).reshape(-1, 2)  # unit 0 to the right, unit 1 upwards
    sheet = plot.make_grid(decode(run, Tensor(grid)), nrow=side, padding=0).numpy()[0]  # (560, 560)
    figure, axis = new_figure(12.2, 12.2)
    figure.set_layout_engine("none")
    axis.set_position((0.8 / 12.2, 0.6 / 12.2, 11.2 / 12.2, 11.2 / 12.2))  # 1120 x 1120 pixels: 2 x 2 each
    axis.imshow(sheet, cmap="gray", vmin=0, vmax=1, extent=(0, side, 0, side), interpolation="nearest")
    axis.set_title(title, size=14)
    shown = [0, 3, 6, 13, 16, 19]
    places, names = [i + 0.5 for i in shown], [f"{z[i]:.2f}" for i in shown]
    axis.set(xlabel="value of unit 0", ylabel="value of unit 1", xticks=places, yticks=places)
    axis.set(xticklabels=names, yticklabels=names)
    figure.savefig(run.picture("manifold.png"))


def draw_traversals(run: _common.Run, image: Tensor, title: str, most: int = 10) -> None:
    """Traverse the units with the largest KL: each takes nine values while the rest of an image's code is fixed."""
    kl = run.kept["kl_per_dimension"]
    order = sorted(range(len(kl)), key=lambda unit: -kl[unit])
    chosen = order if len(order) <= most else [*order[: most - 1], order[-1]]  # also the last: is it inactive?
    values, mean = minidl.linspace(-3, 3, 9), run.model.encode(image)[0]  # (9,), (1, D)
    rows = {}
    for unit in chosen:
        z = minidl.cat([mean] * 9)  # (9, D)
        z[:, unit] = values
        rows[f"unit {unit}: KL {kl[unit]:.2f} nats"] = decode(run, z)
    titles = [f"z = {value:g}" for value in values.tolist()]
    plot.show_images(rows, titles, run.picture("traversals.png"), title=title)


@minidl.no_grad()
def draw_sweep(runs: list[_common.Run], args: argparse.Namespace, test_set: Dataset) -> None:
    """The rate-distortion trade-off, one point per beta, and each model's reconstructions and samples.

    Source: A. Alemi et al., Fixing a broken ELBO, arXiv:1711.00464, 2018.
    """
    betas = [run.settings["beta"] for run in runs]
    vars(args).update(beta=betas, resume=False)
    sweep = _common.Run(args, runs[-1].model, runs[-1].optimizer)
    keys = ("rate", "distortion", "elbo", "active_units")
    sweep.report(points=[{"beta": run.settings["beta"]} | {key: run.kept[key] for key in keys} for run in runs])
    digits = _common.source_name(args.data, "digits")
    draw_balance(sweep, f"Rate-distortion trade-off: VAEs with {args.latent} units on {digits}")
    images, noise = _common.images_of(test_set, range(10)), minidl.randn(10, args.latent)
    rows = {f"beta {run.settings['beta']:g}": decode(run, run.model.encode(images)[0]) for run in runs}
    title = "Test images and what each model decodes from their means"
    plot.show_images({"test images": images} | rows, path=sweep.picture("reconstructions.png"), title=title)
    rows = {f"beta {run.settings['beta']:g}": decode(run, noise) for run in runs}
    title = "Samples from the prior, the same ten z for each model"
    plot.show_images(rows, path=sweep.picture("samples.png"), title=title)


def draw_balance(sweep: _common.Run, title: str) -> None:
    """Distortion against rate, with the line on which ELBO = -(distortion + rate) is that of the best model."""
    points = sweep.results["points"]
    rate, distortion = (np.array([point[key] for point in points]) for key in ("rate", "distortion"))
    figure, axis = new_figure(6.4, 4.8)
    order = np.argsort(rate)
    axis.plot(rate[order], distortion[order], "o-", color="C0")
    for place, i in enumerate(order):
        shift, va = ((0, 9), "bottom") if place % 2 == 0 else ((0, -9), "top")  # neighbouring labels do not overlap
        name = f"beta {points[i]['beta']:g}"
        label = axis.annotate(name, (rate[i], distortion[i]), shift, textcoords="offset points", ha="center", va=va)
        label.set_bbox({"color": "white", "pad": 0.5})
    axis.margins(0.12, 0.15)
    best = max(points, key=lambda point: point["elbo"])
    window, ends = axis.get_ylim(), np.array(axis.get_xlim())
    bound = f"ELBO {best['elbo']:.1f} nats per image, the best (beta {best['beta']:g})"
    axis.plot(ends, -best["elbo"] - ends, "k--", linewidth=1, label=bound)
    axis.set(xlim=ends, ylim=window, title=title)
    axis.set(xlabel="rate KL(q(z|x) || p(z)), nats per image", ylabel="distortion -ln p(x|z), nats per image")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(sweep.picture("rate_distortion.png"))


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of the given size in inches, with one axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    return figure, figure.add_subplot()
