"""The examples that classify images and pixels, and the autoencoder that upsamples, on a few synthetic images."""

import re

import numpy as np
import pytest

import minidl
from minidl.data import SyntheticShapes
from tests.helpers.example_files import metrics

SMALL = ("--data", "synthetic", "--train-size", 100)


def check_files(out, *pictures):
    assert sorted(p.name for p in out.iterdir()) == sorted([*pictures, "checkpoint.npz", "metrics.json"])
    assert all(0 < (out / name).stat().st_size < 600 * 1024 for name in pictures)


def check_resumed_like_whole(run, tmp_path, name, *options, sub=""):
    """Two epochs in one go end with the same weights and metrics as one and one more."""
    run(name, *options, "--epochs", 2, "--out", tmp_path / "whole")
    run(name, *options, "--epochs", 1, "--out", tmp_path / "parts")
    run(name, *options, "--epochs", 2, "--out", tmp_path / "parts", "--resume")
    whole, parts = (minidl.load(tmp_path / folder / sub / "checkpoint.npz") for folder in ("whole", "parts"))
    assert all(np.array_equal(value.numpy(), parts["model"][key].numpy()) for key, value in whole["model"].items())
    assert metrics(tmp_path / "whole" / sub)["results"] == metrics(tmp_path / "parts" / sub)["results"]
    return whole, parts


# -- mnist_upsample_autoencoder ---------------------------------------------------------------------------------


def test_upsampling_autoencoder(run, tmp_path, capsys):
    run("mnist_upsample_autoencoder", *SMALL, "--epochs", 2, pictures=True)
    out = tmp_path / "out"
    check_files(out, "loss.png", "reconstructions.png", "codes.png")
    found = metrics(out)
    assert found["settings"]["batch_size"] == 20
    assert found["results"]["parameters"] == 1477
    first, last = (epoch["test_loss"] for epoch in found["epochs"])
    assert found["results"]["test_loss_per_pixel"] == last < first
    assert 0 <= found["results"]["dead_maps"] <= 4
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3] == f"1,477 parameters; squared error on 100 test images: {last:.5f} per pixel."


@pytest.mark.slow
def test_upsampling_autoencoder_resumed(run, tmp_path):
    check_resumed_like_whole(run, tmp_path, "mnist_upsample_autoencoder", *SMALL)


# -- cifar_classifier -------------------------------------------------------------------------------------------


def test_both_classifiers(run, tmp_path, capsys):
    out = tmp_path / "out"
    for model, parameters in (("mlp", 813_398), ("cnn", 109_050)):
        run("cifar_classifier", "--model", model, *SMALL, "--epochs", 2, "--nesterov", pictures=model == "cnn")
        results = metrics(out / model)["results"]
        printed = capsys.readouterr().out
        assert results["parameters"] == parameters
        assert re.search(rf"^total +{parameters:,}$", printed, re.MULTILINE)
        confusion = np.array(results["confusion"])
        assert (confusion.sum(axis=1) == 10).all()  # every class has a tenth of the test images
        assert results["test_accuracy"] == pytest.approx(np.trace(confusion) / 100)
        assert results["test_accuracy"] == pytest.approx(np.mean(list(results["test_accuracy_by_class"].values())))
        kept = minidl.load(out / model / "checkpoint.npz")["kept"]
        assert len(kept["train loss"]) == len(kept["train accuracy"]) == 2  # steps: a batch of 100 in each epoch
        assert metrics(out / model)["settings"]["nesterov"] is True
    check_files(out / "cnn", "confusion.png", "predictions.png")
    assert {path.name for path in (out / "mlp").iterdir()} == {path.name for path in (out / "cnn").iterdir()}
    assert re.search(r"^Conv2d +\(1, 16, 10, 10\) +3,216$", printed, re.MULTILINE)
    assert re.search(r"test accuracy 0\.\d{4}, test loss \d\.\d{4} nats per image\.", printed)
    assert sorted(p.name for p in out.iterdir()) == ["cnn", "curves.png", "mlp"]


@pytest.mark.slow
def test_classifier_learns(run, tmp_path):
    run("cifar_classifier", *SMALL, "--epochs", 60, "--batch-size", 20, "--lr", 0.02)
    steps = minidl.load(tmp_path / "out" / "cnn" / "checkpoint.npz")["kept"]["train accuracy"]
    assert np.mean(steps[:10]) < 0.3 < 0.6 < np.mean(steps[-10:])  # knows its 100 images by heart, or nearly so


@pytest.mark.slow
def test_classifier_resumed(run, tmp_path):
    whole, parts = check_resumed_like_whole(
        run, tmp_path, "cifar_classifier", *SMALL, "--model", "cnn", "--dropout", 0.25, sub="cnn"
    )
    assert whole["kept"] == parts["kept"]


@pytest.mark.slow
def test_curves_leave_out_what_was_trained_on_other_images(run, tmp_path, capsys):
    run("cifar_classifier", *SMALL, "--model", "mlp", "--epochs", 1)
    run("cifar_classifier", "--data", "synthetic", "--train-size", 50, "--model", "cnn", "--epochs", 1)
    assert "The mlp is left out of the curves: it was trained on other images." in capsys.readouterr().out


# -- pixelwise_prediction ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pixelwise_prediction(run, tmp_path, capsys):
    run("pixelwise_prediction", "--train-size", 640, "--epochs", 6, pictures=True)
    out = tmp_path / "out"
    check_files(out, "loss.png", "scores.png", "masks_first.png", "masks_worst.png")
    found = metrics(out)
    results = found["results"]
    assert results["test_iou"] == found["epochs"][-1]["test_iou"] > 0.3
    assert results["test_pixel_accuracy"] > results["pixel_accuracy_of_all_background"]
    assert set(results["test_iou_by_shape"]) == set(SyntheticShapes(0).classes)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"test iou +0\.\d{3}", lines[6])


@pytest.mark.slow
def test_pixelwise_prediction_resumed(run, tmp_path):
    check_resumed_like_whole(run, tmp_path, "pixelwise_prediction", "--train-size", 64)


def test_where_everything_is_drawn_there_is_no_data_to_choose(run, capsys):
    with pytest.raises(SystemExit):
        run("pixelwise_prediction", "--data", "cifar10")
    assert "unrecognized arguments: --data cifar10" in capsys.readouterr().err


def test_intersection_over_union(run, monkeypatch):
    monkeypatch.setattr(minidl.data, "SyntheticShapes", lambda n, **options: SyntheticShapes(min(n, 100), **options))
    iou = run("pixelwise_prediction", "--train-size", 64, "--epochs", 1, pictures=True)["iou"]
    a = np.zeros((1, 4, 4), bool)
    b = a.copy()
    a[0, :2], b[0, 1:3] = True, True  # 8 pixels each, 4 of them common: 4 / 12
    assert iou(a, b) == iou(b, a) == pytest.approx(1 / 3)
    assert (iou(a, a), iou(a, ~a)) == (1, 0)
