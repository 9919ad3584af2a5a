"""The examples that show what layers do: transposed_convolution.py and feature_visualisation.py."""

import re

import numpy as np
import pytest

import minidl
from minidl import nn
from tests.helpers.example_files import metrics

F = nn.functional


def results(out):
    return metrics(out)["results"]


# -- transposed_convolution.py -----------------------------------------------------------------------------------

GIFS = ("padding", "strides", "transposed", "transposed_strides", "transposed_output_padding")


@pytest.mark.slow
def test_transposed_convolution(run, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    run("transposed_convolution", pictures=True)
    out = tmp_path / "out"
    pictures = [*(f"{name}.gif" for name in GIFS), "matrices.png", "overlap.png"]
    assert sorted(p.name for p in out.iterdir()) == sorted([*pictures, "metrics.json"])
    assert all((out / name).stat().st_size < 600 * 1024 for name in pictures)
    with image.open(out / "transposed_strides.gif") as gif:
        assert gif.n_frames == 49  # 3x3 pixels to 7x7
        assert gif.info["loop"] == 0

    found = results(out)
    assert all(claim["holds"] == "yes" for claim in found["claims"])
    sides = [claim["side in pixels"] for claim in found["claims"]]
    for published in ("64 -> 60 -> 64", "64 -> 68", "64 -> 128", "64 -> 30 -> 63", "64 -> 30 -> 64"):
        assert published in sides
    assert set(found["greatest difference of the matrices"].values()) == {0.0}
    assert found["products in an output pixel inside, stride 2, by kernel"] == {
        "2": [1], "3": [1, 2, 4], "4": [4], "5": [4, 6, 9],
    }  # fmt: skip

    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"claim +layers +side in pixels +holds", lines[0])
    assert re.search(r"Conv2d\(5, s=2\) ConvTranspose2d\(5, s=2, op=1\) +64 -> 30 -> 64 +yes$", "\n".join(lines), re.M)
    assert "Kernel 4, stride 2: products per output pixel 4 everywhere inside." in lines
    assert lines[-1] == f"Pictures and numbers are in {out}"


@pytest.mark.slow
def test_it_leaves_the_same_each_time(run, example, tmp_path, monkeypatch):
    monkeypatch.setattr(example("_moving_window"), "animate", lambda *arguments: None)
    run("transposed_convolution", "--out", tmp_path / "a", "--seed", 3, pictures=True)
    run("transposed_convolution", "--out", tmp_path / "b", "--seed", 3, pictures=True)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_claim_that_does_not_hold_is_found(example):
    check = example("transposed_convolution").check
    assert check("right", [nn.Conv2d(1, 1, 5)], [64, 60])[-1] == "yes"
    assert check("wrong", [nn.Conv2d(1, 1, 5)], [64, 61])[-1] == "NO"


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 0), (2, 1), (3, 2)])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_window_drawn_holds_what_the_output_pixel_depends_on(example, stride, padding, transposed):
    """In the tilted grid, the input's pixels in the window are those with weight in the layer's matrix."""
    spread = example("_moving_window").spread
    layer = (nn.ConvTranspose2d if transposed else nn.Conv2d)(1, 1, 3, stride, padding, bias=False)
    side, k = 5, 3
    units = minidl.eye(side * side).reshape(-1, 1, side, side)
    with minidl.no_grad():
        weights = layer(units).numpy()[:, 0].reshape(side, side, -1)  # (side, side, pixels out)
    out = round(weights.shape[-1] ** 0.5)
    grid, step = spread(layer, side)
    assert grid.sum() == side * side
    number = np.cumsum(grid.ravel()).reshape(grid.shape) - 1  # of each input pixel, row by row
    for i, j in np.ndindex(out, out):
        window = np.s_[i * step : i * step + k, j * step : j * step + k]
        assert grid[window].shape == (k, k)
        inside = set(number[window][grid[window]].tolist())
        assert inside == set(np.flatnonzero(weights.reshape(-1, out * out)[:, i * out + j]).tolist())


def test_bad_options_of_transposed_convolution_are_refused(run, capsys):
    with pytest.raises(SystemExit):
        run("transposed_convolution", "--seed", "-1")
    assert "argument --seed: must be at least 0, not -1" in capsys.readouterr().err


# -- feature_visualisation.py ------------------------------------------------------------------------------------

SMALL = ("--data", "synthetic", "--train-size", 64, "--batch-size", 16)
SHEETS = ("conv1", "conv2", "hidden", "classes")


def test_feature_visualisation(run, tmp_path, capsys):
    run("feature_visualisation", *SMALL, "--epochs", 1, "--top", 2, "--filters", 3, pictures=True)
    out = tmp_path / "out"
    pictures = [f"{name}.png" for name in SHEETS]
    assert sorted(p.name for p in out.iterdir()) == sorted([*pictures, "checkpoint.npz", "metrics.json"])
    assert all((out / name).stat().st_size < 600 * 1024 for name in pictures)
    first = results(out)
    assert [first[name]["receptive_field_pixels"] for name in SHEETS] == [5, 14, 32, 32]
    assert len(first["conv2"]["greatest_activations"]) == 3
    assert len(first["classes"]["greatest_activations"]) == 10
    for name in SHEETS:
        for values in first[name]["greatest_activations"].values():
            assert len(values) == 2
            assert values[0] >= values[1]
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"epoch   1/1  train loss \d\.\d{5}  test accuracy 0\.\d{5}  \(loss: nats per image\)  \d+\.\d s", lines[0]
    )
    assert re.fullmatch(r"conv2     16 filters, \d+ dead, receptive field 14x14 pixels", lines[3])
    assert lines[-1] == f"Pictures and metrics are in {out}"

    before = {name: (out / name).read_bytes() for name in pictures}
    run("feature_visualisation", *SMALL, "--epochs", 1, "--top", 2, "--filters", 3, "--resume", pictures=True)
    assert "Nothing left to train: epoch 1 is done" in capsys.readouterr().out
    assert before == {name: (out / name).read_bytes() for name in pictures}

    run("feature_visualisation", *SMALL, "--top", 2, "--filters", 3, "--checkpoint", out / "checkpoint.npz")
    assert results(out / "from_checkpoint") == first
    with pytest.raises(SystemExit, match="--checkpoint: .*has shape"):
        run("feature_visualisation", *SMALL, "--images", "mnist", "--checkpoint", out / "checkpoint.npz")
    with pytest.raises(SystemExit, match="--checkpoint: .*metrics.json is damaged"):
        run("feature_visualisation", *SMALL, "--checkpoint", out / "metrics.json")


def test_feature_visualisation_of_digits(run, tmp_path, capsys):
    run("feature_visualisation", *SMALL, "--images", "mnist", "--epochs", 1, "--top", 1, "--filters", 2)
    assert list(results(tmp_path / "out")["classes"]["greatest_activations"]) == [str(i) for i in range(10)]
    with pytest.raises(SystemExit):
        run("feature_visualisation", "--images", "mnist", "--data", "cifar10")
    assert "argument --data: invalid choice: 'cifar10'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("feature_visualisation", "--images", "faces")
    assert "argument --images: invalid choice: 'faces'" in capsys.readouterr().err


@pytest.mark.parametrize(("layer", "field", "apart"), [("conv1", 5, 1), ("conv2", 14, 2), ("hidden", 32, 0)])
def test_the_receptive_field_is_what_the_activation_depends_on(example, layer, field, apart):
    """One activation's gradient is zero outside of its patch, and not at the patch's border."""
    script = example("feature_visualisation")
    layers = script.cnn(3, 32).eval()[: script.LAYERS[layer]]
    assert script.receptive_field(layers, 32) == (field, apart)
    linear = nn.Sequential(*(nn.AvgPool2d(2) if isinstance(m, nn.MaxPool2d) else m for m in layers
                             if not isinstance(m, nn.ReLU)))  # fmt: skip
    x = minidl.rand(1, 3, 32, 32, requires_grad=True)
    y = linear(x)
    at = (0, 3, 2, 4) if y.ndim == 4 else (0, 3)
    gradient = minidl.grad(y[at], x)[0].numpy()[0]  # (3, 32, 32)
    rows, columns = (np.flatnonzero(np.abs(gradient).max(axis=(0, axis))) for axis in (2, 1))
    i, j = (apart * n for n in at[2:]) if y.ndim == 4 else (0, 0)
    assert (rows.min(), rows.max()) == (i, i + field - 1)
    assert (columns.min(), columns.max()) == (j, j + field - 1)


def test_projections_of_the_first_convolution_are_its_filters(example):
    script = example("feature_visualisation")
    model = script.cnn(1, 28).eval()
    images = minidl.rand(5, 1, 28, 28)
    values, pictures = script.project(model[:2], images, 6)
    scale = values[:, None, None, None]
    for column in script.RULES:
        np.testing.assert_allclose(pictures[column], scale * model[0].weight.detach().numpy()[6], rtol=1e-5)
    # The patch excites the filter by exactly that value: filter times patch, and the bias.
    again = F.conv2d(minidl.tensor(pictures["patch"]), model[0].weight, model[0].bias).detach().numpy()[:, 6, 0, 0]
    np.testing.assert_allclose(values, np.maximum(again, 0), rtol=1e-5, atol=1e-6)


def test_the_rules_differ_above_and_the_patch_alone_explains_the_activation(example):
    script = example("feature_visualisation")
    model = script.cnn(3, 32).eval()
    images = minidl.rand(4, 3, 32, 32)
    strongest = int(model[:5](images).detach().numpy().max(axis=(2, 3)).min(axis=0).argmax())
    values, pictures = script.project(model[:5], images, strongest)
    assert values.min() > 0
    alone = model[:5](minidl.tensor(pictures["patch"])).detach().numpy()[:, strongest, 0, 0]
    np.testing.assert_allclose(alone, values, rtol=1e-5, atol=1e-6)
    assert not np.allclose(pictures["deconvnet"], pictures["gradient"])
    assert not np.allclose(pictures["guided"], pictures["gradient"])


def test_zero_is_grey(example):
    around_grey = example("_feature_sheet").around_grey
    np.testing.assert_allclose(around_grey(np.array([-4.0, 0.0, 2.0])), [0, 0.5, 0.75])
    np.testing.assert_allclose(around_grey(np.zeros(3)), 0.5)
