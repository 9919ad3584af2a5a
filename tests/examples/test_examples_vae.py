"""The variational autoencoder on a few synthetic digits: its numbers, its pictures, resumed runs, sweeps of beta."""

import re

import numpy as np
import pytest

import minidl
from tests.helpers.example_files import metrics

SMALL = ("--data", "synthetic", "--train-size", 320, "--batch-size", 32, "--warmup", 0)
COMMON = ["elbo.png", "reconstructions.png", "samples.png"]


@pytest.fixture
def images_tested():
    """As many as the KL divergence is checked on."""
    return 1000


@pytest.fixture
def run(run):
    """Run the example with command-line options."""
    return lambda *options: run("mnist_vae", *SMALL, *options, pictures=True)


def names(out):
    return sorted(path.name for path in out.iterdir())


def test_two_units(run, tmp_path, capsys):
    run("--epochs", 2)
    out = tmp_path / "out"
    assert names(out) == sorted([*COMMON, "latent_scatter.png", "manifold.png", "checkpoint.npz", "metrics.json"])
    found = metrics(out)
    first, last = found["epochs"]
    assert last["test_elbo"] > first["test_elbo"]
    results = found["results"]
    assert results["elbo"] == last["test_elbo"]
    assert results["elbo"] == pytest.approx(-results["distortion"] - results["rate"])
    assert sum(results["kl_per_dimension"]) == pytest.approx(results["rate"])
    assert results["active_units"] == sum(kl > 0.01 for kl in results["kl_per_dimension"])
    check = results["kl_check"]
    assert abs(check["closed_form"] - check["monte_carlo"]) < 3 * check["standard_error"]
    lines = capsys.readouterr().out.splitlines()
    number = r"-?\d+\.\d+"
    parts = f"train elbo {number}  test elbo {number}  test distortion {number}  test rate {number}  nats per image"
    assert re.match(f"epoch   1/2  {parts}", lines[0])
    assert re.fullmatch(rf"Test ELBO {number} = -\(distortion {number} \+ rate {number}\) nats per image\.", lines[2])
    assert "closed form" in lines[3]
    assert "ollapse" in lines[4]
    assert lines[-1] == f"Pictures, checkpoint and metrics are in {out}"


@pytest.mark.slow
def test_many_units_under_a_high_beta_collapse(run, tmp_path, capsys):
    run("--epochs", 1, "--latent", 12, "--beta", 1000)
    out = tmp_path / "out"
    assert names(out) == sorted([*COMMON, "kl_per_dimension.png", "traversals.png", "checkpoint.npz", "metrics.json"])
    assert metrics(out)["results"]["active_units"] == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "collapse" in line)
    assert line.startswith("Posterior collapse in 12 of 12 units (KL at most 0.01 nats per image): 0, 1, 2,")
    assert line.endswith(" Try a smaller --beta or a --warmup longer than 0.")


@pytest.mark.slow
def test_a_resumed_run_ends_as_an_uninterrupted_one(run, tmp_path):
    options = ("--warmup", 1.5, "--half-life", 1)
    run(*options, "--epochs", 2, "--out", tmp_path / "whole")
    run(*options, "--epochs", 1)
    run(*options, "--epochs", 2, "--resume")
    whole, parts = (metrics(tmp_path / name)["results"] for name in ("whole", "out"))
    assert whole == parts


@pytest.mark.slow
def test_a_sweep_draws_the_balance(run, tmp_path):
    run("--epochs", 1, "--sweep", 0, 50, 0)
    out = tmp_path / "out" / "sweep"
    pictures = ["rate_distortion.png", "reconstructions.png", "samples.png"]
    assert names(out) == sorted(["beta_0", "beta_50", *pictures, "metrics.json"])
    found = metrics(out)
    assert found["settings"]["beta"] == [0, 50]
    free, dear = found["results"]["points"]
    assert free["rate"] > dear["rate"]
    for point in (free, dear):
        own = metrics(out / f"beta_{point['beta']:g}")
        assert point == {"beta": own["settings"]["beta"]} | {key: own["results"][key] for key in list(point)[1:]}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--latent", "0"), "--latent: must be at least 1, not 0"),
        (("--beta", "-1"), "--beta: must be a number of at least 0, not -1"),
        (("--sweep", "1", "x"), "--sweep: invalid number value: 'x'"),
        (("--half-life", "0"), "--half-life: must be a number of at least 0.1, not 0"),
    ],
)
def test_bad_options_are_refused(run, option, message, capsys):
    with pytest.raises(SystemExit):
        run(*option)
    assert f"argument {message}" in capsys.readouterr().err


def test_the_loss_is_what_the_definition_says(example):
    vae = example("mnist_vae")
    logits, images = minidl.randn(3, 1, 28, 28, dtype="float64"), minidl.rand(3, 1, 28, 28, dtype="float64")
    mean, log_var = minidl.randn(3, 4, dtype="float64"), minidl.randn(3, 4, dtype="float64")
    distortion, rate = vae.losses(logits, images, mean, log_var)
    p, x, m, v = 1 / (1 + np.exp(-logits.numpy())), images.numpy(), mean.numpy(), np.exp(log_var.numpy())
    assert distortion.item() == pytest.approx(-(x * np.log(p) + (1 - x) * np.log(1 - p)).sum() / 3)
    assert rate.item() == pytest.approx((m**2 + v - 1 - np.log(v)).sum() / 2 / 3)
    z = vae.reparameterise(mean[:1].expand(100_000, 4), log_var[:1].expand(100_000, 4)).numpy()
    assert z.mean(0) == pytest.approx(m[0], abs=0.05)
    assert z.var(0) == pytest.approx(v[0], rel=0.05)


class Encoder:
    """A model that encodes everything alike, with a known divergence from the prior."""

    def encode(self, x):
        return minidl.full((len(x), 3), 0.7), minidl.full((len(x), 3), -1.5)


def test_the_check_of_the_kl_agrees_with_the_truth_and_notices_a_wrong_formula(example, monkeypatch):
    report = example("_vae_report")
    truth = 3 * (0.7**2 + np.exp(-1.5) - 1 + 1.5) / 2
    check = report.check_kl(Encoder(), minidl.zeros(400, 1, 28, 28))
    assert check["closed_form"] == pytest.approx(truth)
    assert abs(check["monte_carlo"] - truth) < 4 * check["standard_error"] < 0.1
    right = report.F.gaussian_kl
    with monkeypatch.context() as wrong:
        wrong.setattr(report.F, "gaussian_kl", lambda *args, **kwargs: right(*args, **kwargs) * 1.05)
        assert report.check_kl(Encoder(), minidl.zeros(400, 1, 28, 28))["apart"] > 5


def test_the_line_about_collapse(example):
    collapse = example("_vae_report").collapse
    assert (
        collapse([0.5, 0.02], 1, 0) == "No posterior collapse: each of the 2 units has a KL above 0.01 nats per image."
    )
    assert collapse([0.5, 0.002, 1, 0.01], 1, 2) == (
        "Posterior collapse in 2 of 4 units (KL at most 0.01 nats per image): 1, 3. "
        "Try a --warmup longer than 2 or --latent 2, which should do as well."
    )
