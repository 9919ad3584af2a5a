"""Foreground or background? Segmentation with one class per pixel, a classic use of transposed convolutions.

    python examples/pixelwise_prediction.py

trains on 10,000 synthetic images of shapes on textured backgrounds for 20 epochs, in about 25 s on two cores, and
segments held-out images with an intersection over union of about 0.94. It draws the predicted masks over the images,
the worst predictions, and the training curves. --full: 50,000 images. All data is synthetic, nothing is downloaded.
"""

import argparse
from typing import Any

import _common
import numpy as np

import minidl
from minidl import Meter, Tensor, nn, optim, plot
from minidl.data import DataLoader, SyntheticShapes

GREEN, RED, BLUE = np.eye(3)[[1, 0, 2]]
COLOURS = "green: hit, red: false alarm, blue: miss"


class PixelClassifier(nn.Module):
    """The encoder trades resolution for context, the decoder brings the answer back to full resolution.

    In the style of Long, Shelhamer and Darrell 2015, "Fully convolutional networks for semantic segmentation" (arXiv
    1411.4038). With kernel 4 and stride 2 the same number of weights reaches every pixel, so there is no checkerboard.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, 4, stride=2, padding=1),  # (N, 3, 32, 32) to (N, 16, 16, 16)
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),  # to (N, 32, 8, 8)
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2, padding=1),  # to (N, 64, 4, 4)
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),  # to (N, 32, 8, 8)
            nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),  # to (N, 16, 16, 16)
            nn.ReLU(),
            nn.ConvTranspose2d(16, 2, 4, stride=2, padding=1),  # to (N, 2, 32, 32): one logit per class
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def main(args: argparse.Namespace) -> None:
    train_set = SyntheticShapes(args.train_size, seed=0, target="mask")
    test_set = SyntheticShapes(2_000, seed=1, target="mask")
    train_loader = DataLoader(train_set, args.batch_size, shuffle=True, device=args.device)
    test_loader = DataLoader(test_set, 500, device=args.device)
    model, criterion = PixelClassifier().to(args.device), nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=args.lr)
    run = _common.Run(args, model, optimizer)

    for epoch in run:
        train_loss = Meter("per pixel")
        for images, masks in run.progress(train_loader, epoch):
            logits = model(images)  # (N, 2, 32, 32)
            loss = criterion(logits, masks)  # masks (N, 32, 32) of 0 and 1
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            train_loss.update(loss.item(), len(images))
        test_loss, predicted = evaluate(model, criterion, test_loader)
        scores = {"test_iou": iou(predicted, test_set.masks), "test_accuracy": (predicted == test_set.masks).mean()}
        run.finish_epoch("(loss: nats per pixel)", train_loss=train_loss.average, test_loss=test_loss.average, **scores)

    predicted = evaluate(model, criterion, test_loader)[1]
    report(run, predicted, test_set)
    draw(run, predicted, test_set)
    print(f"Pictures, checkpoint and metrics are in {args.out.resolve()}")


@minidl.no_grad()
def evaluate(model: nn.Module, criterion: nn.Module, loader: DataLoader) -> tuple[Meter, np.ndarray]:
    """The mean loss over a data set, and the predicted masks, bool (n, 32, 32)."""
    model.eval()
    loss, predicted = Meter("per pixel"), []
    for images, masks in loader:
        logits = model(images)
        loss.update(criterion(logits, masks).item(), len(images))
        predicted.append(logits.argmax(dim=1).cpu().numpy() == 1)
    model.train()
    return loss, np.concatenate(predicted)


def iou(predicted: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of the foreground, |A and B| / |A or B|, over all given pixels together."""
    return float((predicted & true).sum() / max((predicted | true).sum(), 1))


def report(run: _common.Run, predicted: np.ndarray, test_set: SyntheticShapes) -> None:
    """Print and report the scores, overall and by shape, beside two baselines without a model."""
    true, grey = test_set.masks, test_set.images.mean(axis=-1)
    scores = {
        "test_iou": iou(predicted, true),
        "test_pixel_accuracy": float((predicted == true).mean()),
        "iou_of_best_brightness_threshold": max(iou(grey > level, true) for level in range(0, 255, 5)),
        "pixel_accuracy_of_all_background": float((~true).mean()),
    }
    rows = [test_set.labels == k for k in range(10)]
    by_shape = {c: iou(predicted[r], true[r]) for c, r in zip(test_set.classes, rows, strict=True)}
    run.report(**scores, test_iou_by_shape=by_shape, parameters=sum(p.numel() for p in run.model.parameters()))
    for name, score in scores.items():
        print(f"{name.replace('_', ' '):34}{score:.3f}")
    print("IoU by shape:", ", ".join(f"{c} {score:.2f}" for c, score in sorted(by_shape.items(), key=lambda x: x[1])))


def draw(run: _common.Run, predicted: np.ndarray, test_set: SyntheticShapes) -> None:
    """Draw all pictures of a run."""
    losses = {key: [epoch[f"{key}_loss"] for epoch in run.epochs] for key in ("train", "test")}
    label, title = "cross-entropy in nats per pixel", "Pixelwise classification of synthetic shapes"
    plot.curves(losses, "epoch", label, run.picture("loss.png"), title=title, log=True)
    names = {"test_iou": "intersection over union", "test_accuracy": "pixel accuracy"}
    shares = {name: [epoch[key] for epoch in run.epochs] for key, name in names.items()}
    title = "Masks predicted for held-out synthetic shapes"
    plot.curves(shares, "epoch", "fraction of pixels", run.picture("scores.png"), title=title)
    true, each = test_set.masks, [iou(p, t) for p, t in zip(predicted, test_set.masks, strict=True)]
    for name, which in {"first": np.arange(10), "worst": np.argsort(each)[:10]}.items():
        images = test_set.images[which] / 255  # (10, 32, 32, 3)
        tinted = images.copy()
        for colour, where in ((GREEN, predicted & true), (RED, predicted & ~true), (BLUE, ~predicted & true)):
            tinted[where[which]] = (tinted[where[which]] + colour) / 2
        rows = {"image": images.transpose(0, 3, 1, 2), "true mask": true[which, None].astype(float)}
        rows |= {"predicted mask": predicted[which, None].astype(float), "over image": tinted.transpose(0, 3, 1, 2)}
        path = run.picture(f"masks_{name}.png")
        title = f"The {name} ten of {len(true):,} held-out images, each with its IoU ({COLOURS})"
        plot.show_images(rows, [f"{each[i]:.2f}" for i in which], path, title=title)


if __name__ == "__main__":
    defaults: dict[str, Any] = {"epochs": 20, "batch_size": 64, "lr": 2e-3, "train_size": 10_000}
    full = {"train_size": 50_000}
    options = _common.parser("pixelwise_prediction", __doc__, **defaults, data=None, full=full)
    _common.start(options, main)
