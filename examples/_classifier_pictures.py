"""Pictures of cifar_classifier.py besides its confusion matrix: predictions, and training curves of both models."""

from pathlib import Path

import _common
import numpy as np
from matplotlib.figure import Figure

import minidl
from minidl.data import CIFAR10, SyntheticShapes


def draw_predictions(run: _common.Run, probabilities: np.ndarray, test_set: CIFAR10 | SyntheticShapes) -> None:
    """The first sixteen test images classified correctly, and the first sixteen misclassified."""
    predicted, names = probabilities.argmax(axis=1), test_set.classes
    right = predicted == test_set.labels
    figure = Figure((8.6, 6.0), layout="constrained")
    model, halves = run.settings["model"], figure.add_gridspec(2)
    kinds = (("right", right, "tab:green"), ("wrong", ~right, "tab:red"))
    for half, (word, chosen, colour) in enumerate(kinds):
        part = figure.add_subfigure(halves[half])
        part.suptitle(f"The first test images the {model} gets {word}: true class above, prediction below", size=11)
        for axis, i in zip(part.subplots(2, 8).flat, np.flatnonzero(chosen)[:16], strict=False):
            axis.imshow(test_set.images[i])
            axis.set_title(names[test_set.labels[i]], size=8, pad=3)
            axis.set_xlabel(f"{names[predicted[i]]} {probabilities[i].max():.0%}", size=8, color=colour, labelpad=3)
            axis.set(xticks=[], yticks=[])
    figure.savefig(run.picture("predictions.png"))


def draw_curves(folder: Path, run: _common.Run) -> None:
    """Loss and accuracy of every model trained on these images: smoothed training steps, and a test per epoch."""
    figure = Figure((10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for name, colour in (("mlp", "tab:blue"), ("cnn", "tab:orange")):
        try:
            state = minidl.load(folder / name / _common.CHECKPOINT)
        except (OSError, ValueError):
            continue  # not trained yet
        if any(state["settings"][key] != run.settings[key] for key in ("data", "train_size")):
            print(f"The {name} is left out of the curves: it was trained on other images.")
            continue
        epochs, noise = len(state["epochs"]), f"dropout {state['settings']['dropout']:g}"
        for axis, key in zip(axes, ("loss", "accuracy"), strict=True):
            steps = np.array(state["kept"][f"train {key}"])
            window = np.ones(len(steps) // 40 | 1)  # odd
            smooth = np.convolve(steps, window, "same") / np.convolve(np.ones(len(steps)), window, "same")
            x = np.arange(1, len(steps) + 1) * epochs / len(steps)
            axis.plot(x, smooth, color=colour, label=f"{name}, training ({noise})")
            test = [epoch[f"test_{key}"] for epoch in state["epochs"]]
            axis.plot(range(1, epochs + 1), test, "o--", color=colour, markersize=4, label=f"{name}, test")
    for axis, label in zip(axes, ("cross-entropy in nats per image", "accuracy (share of images)"), strict=True):
        axis.set(xlabel="epoch", ylabel=label)
        axis.grid(alpha=0.3)
        axis.locator_params("x", integer=True)
    axes[1].legend(loc="lower right")
    source = _common.source_name(run.settings["data"], "images")
    figure.suptitle(f"Classifying {source}: training steps (moving average), and a test after each epoch")
    figure.savefig(folder / "curves.png")
