"""The examples about autoencoders on a few synthetic images: what they print and leave behind, and what must hold."""

import re

import numpy as np
import pytest

import minidl
from tests.helpers.example_files import metrics

KEPT = ["checkpoint.npz", "metrics.json"]
SMALL = ("--data", "synthetic", "--train-size", 64)


def files(out):
    return sorted(path.name for path in out.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cifar_autoencoder", ("--latent", 4)),
        ("autoencoder_losses", ()),
        ("linear_autoencoder_pca", ("--latent", 3)),
    ],
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(run, tmp_path, name, options):
    run(name, *SMALL, *options, "--epochs", 2, "--out", tmp_path / "whole")
    run(name, *SMALL, *options, "--epochs", 1)
    run(name, *SMALL, *options, "--epochs", 2, "--resume")
    whole, parts = (minidl.load(tmp_path / folder / "checkpoint.npz") for folder in ("whole", "out"))
    for key, value in whole["model"].items():
        assert np.array_equal(value.numpy(), parts["model"][key].numpy())
    found = [metrics(tmp_path / folder)["results"] for folder in ("whole", "out")]
    assert found[0] == found[1]
    assert files(tmp_path / "whole") == files(tmp_path / "out")


# -- cifar_autoencoder -------------------------------------------------------------------------------------------


def test_cifar_autoencoder(run, tmp_path, capsys):
    module = run("cifar_autoencoder", *SMALL, "--epochs", 2, "--batch-size", 16, pictures=True)
    out = tmp_path / "out"
    assert files(out) == sorted([*KEPT, "loss.png", "reconstructions.png", "interpolation.png"])
    found = metrics(out)
    assert found["results"]["parameters"] == 21_331
    assert found["results"]["numbers_in_a_code"] == 512
    last = found["epochs"][-1]["test_loss"]
    assert last < found["epochs"][0]["test_loss"]
    assert found["results"]["test_mean_squared_error_per_pixel"] == pytest.approx(last / 3072)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "21,331 parameters; 3 x 32 x 32 = 3,072 numbers compressed to 512."
    assert re.fullmatch(r"epoch   1/2  train loss \d+\.\d{5}  test loss \d+\.\d{5}  per image  \d+\.\d s", lines[1])
    assert lines[-1] == f"Pictures, checkpoint and metrics are in {out}"

    # The printed loss is that of the kept model: summed over an image, averaged over images, the last batch too.
    model = module["Autoencoder"]()
    model.load_state_dict(minidl.load(out / "checkpoint.npz")["model"])
    images = minidl.data.SyntheticShapes(100, seed=1).gather(np.arange(100))[0]
    with minidl.no_grad():
        errors = (model(images).numpy() - images.numpy()) ** 2
        assert last == pytest.approx(errors.sum((1, 2, 3)).mean(), rel=1e-4)
        loader = minidl.data.DataLoader(minidl.data.TensorDataset(images, images), 30)  # and 10 at last
        average = module["evaluate"](model, minidl.nn.MSELoss(reduction="sum"), loader).average
    assert average == pytest.approx(last, rel=1e-4)


def test_the_code_of_the_cifar_autoencoder_has_latent_channels(run, tmp_path):
    module = run("cifar_autoencoder", *SMALL, "--epochs", 1, "--latent", 5)
    assert module["Autoencoder"](5).encoder(minidl.zeros(2, 3, 32, 32)).shape == (2, 5, 4, 4)
    assert metrics(tmp_path / "out")["results"]["numbers_in_a_code"] == 80


# -- autoencoder_losses ------------------------------------------------------------------------------------------


def test_autoencoder_losses(run, tmp_path, capsys):
    module = run("autoencoder_losses", *SMALL, "--epochs", 2, "--batch-size", 16, "--lr", 0.003, pictures=True)
    out = tmp_path / "out"
    assert files(out) == sorted([*KEPT, "errors.png", "reconstructions.png"])
    found = metrics(out)
    plain, clipped = (found["results"][key] for key in ("test_mean_squared_error_per_pixel", "the_same_clipped_to_0_1"))
    assert list(plain) == list(clipped) == list(module["VARIANTS"])
    for key, variant in module["VARIANTS"].items():
        assert plain[key] == found["epochs"][-1][key]
        assert clipped[key] <= plain[key]  # images are in [0, 1], so cutting off what leaves it helps
        if variant.loss != "z" and not variant.standard_target:
            assert clipped[key] == plain[key]  # probabilities never leave it
    lines = capsys.readouterr().out.splitlines()
    table = lines.index(next(line for line in lines if line.startswith("loss  ")))
    assert "mean squared error per pixel" in lines[table]
    for line, (key, variant) in zip(lines[table + 1 :], module["VARIANTS"].items(), strict=False):
        assert line.startswith(variant.name)
        assert line.split()[-2:] == [f"{plain[key]:.5f}", f"{clipped[key]:.5f}"]


def test_the_losses_are_their_formulas_and_the_yardstick_is_one(example):
    module = example("autoencoder_losses")
    model = module.Autoencoders(0.2, 0.4)
    images = minidl.data.SyntheticDigits(8, seed=3).gather(np.arange(8))[0]
    x = images.numpy().astype(np.float64)
    for key, variant in module.VARIANTS.items():
        loss, output = (value.detach().numpy() for value in model(images, key))
        given = (x - 0.2) / 0.4 if variant.standard_input else x
        z = getattr(model, key)(minidl.Tensor(given.astype(np.float32))).detach().numpy().astype(np.float64)
        p = 1 / (1 + np.exp(-z))
        target = (x - 0.2) / 0.4 if variant.standard_target else x
        expected = {
            "p": (p - target) ** 2,
            "z": (z - target) ** 2,
            "bce": -target * np.log(p) - (1 - target) * np.log(1 - p),
        }[variant.loss].mean()
        assert float(loss) == pytest.approx(expected, rel=1e-4)
        back = z if variant.loss == "z" else p
        back = back * 0.4 + 0.2 if variant.standard_target else back
        np.testing.assert_allclose(output, back, atol=1e-5)


def test_one_optimiser_for_all_trains_each_as_one_of_its_own(example):
    module = example("autoencoder_losses")
    together, alone = (module.Autoencoders(0.2, 0.4) for _ in range(2))
    alone.load_state_dict(together.state_dict())
    images = minidl.data.SyntheticDigits(8, seed=3).gather(np.arange(8))[0]
    for model, keys in ((together, list(module.VARIANTS)), (alone, ["bce"])):
        optimizer = minidl.optim.Adam(model.parameters() if len(keys) > 1 else model.bce.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            for key in keys:
                model(images, key)[0].backward()
            optimizer.step()
    for ours, its in zip(together.bce.parameters(), alone.bce.parameters(), strict=True):
        assert np.array_equal(ours.detach().numpy(), its.detach().numpy())


# -- linear_autoencoder_pca --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_linear_autoencoder_finds_the_subspace_of_pca(run, tmp_path, capsys):
    small = "--data", "synthetic", "--train-size", 2000, "--latent", 6, "--batch-size", 64
    run("linear_autoencoder_pca", *small, pictures=True)
    out = tmp_path / "out"
    assert files(out) == sorted([*KEPT, "angles.png", "eigen_digits.png"])
    results = metrics(out)["results"]
    angles = np.array(results["principal_angles_degrees"])
    assert angles.shape == (30, 6)
    assert angles[-1].max() < 5 < angles[0].max()
    for error in ("train_error_per_pixel", "test_error_per_pixel"):
        assert results["linear autoencoder"][error] == pytest.approx(results["PCA"][error], rel=0.01)
    # No map of rank 6 is better than PCA on the images that it was made from (Eckart and Young).
    learnt, best = (results[name]["train_error_per_pixel"] for name in ("linear autoencoder", "PCA"))
    assert learnt >= best * (1 - 1e-5)
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if line.startswith("  principal angles, degrees: ")]
    assert len(shown) == 30
    assert shown[-1].split()[-6:] == [f"{angle:.2f}" for angle in angles[-1]]
    assert lines[-1] == f"Pictures, checkpoint and metrics are in {out}"

    # What is explained, from the eigenvalues of the covariance instead of the SVD.
    x = minidl.data.SyntheticDigits(2000, seed=0).gather(np.arange(2000))[0].numpy().reshape(2000, 784).astype(float)
    variances = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    assert results["PCA"]["explained_variance_train"] == pytest.approx(variances[:6].sum() / variances.sum(), rel=1e-4)


def test_main_axes_of_any_basis_of_pcas_subspace_are_pcas(run):
    module = run("linear_autoencoder_pca", *SMALL, "--epochs", 1, "--latent", 3, pictures=True)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 8)) * np.arange(8, 0, -1)
    _, s, axes = np.linalg.svd(x, full_matrices=False)
    found, shares = module["main_axes"](axes[:3].T @ rng.standard_normal((3, 3)), x)
    np.testing.assert_allclose(np.abs(found @ axes[:3].T), np.eye(3), atol=1e-10)
    np.testing.assert_allclose(shares, s[:3] ** 2 / (s**2).sum())


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("cifar_autoencoder", ("--latent", "0"), "argument --latent: must be at least 1, not 0"),
        ("linear_autoencoder_pca", ("--latent", "0"), "argument --latent: must be at least 1, not 0"),
    ],
)
def test_bad_options_are_refused(run, name, option, message, capsys):
    with pytest.raises(SystemExit):
        run(name, *option)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        "linear_autoencoder_pca",
        pytest.param("cifar_autoencoder", marks=pytest.mark.slow),
        pytest.param("autoencoder_losses", marks=pytest.mark.slow),
    ],
)
def test_a_diverging_run_ends_in_one_line(run, name):
    with pytest.raises(SystemExit, match="Epoch 1 ended with .*(nan|inf).*: a lower --lr may help"):
        run(name, *SMALL, "--epochs", 1, "--lr", 1e30)


def test_a_code_as_large_as_the_image_is_refused(run):
    with pytest.raises(SystemExit, match="--latent 64: must be less than the 64 images and the 784 pixels"):
        run("linear_autoencoder_pca", *SMALL, "--latent", 64)
