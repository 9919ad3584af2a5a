"""A linear autoencoder learns the subspace of principal component analysis (PCA), but not its axes.

    python examples/linear_autoencoder_pca.py [--latent 9] [--full]

trains a network 784 - 9 - 784 without activations on 10,000 digits of MNIST for 30 epochs, in about 4 s on two cores.
After each epoch it prints the principal angles between the span of the decoder's columns and that of the first 9
principal components: the largest falls from 57 degrees after the first epoch to 0.4. Both then explain 47.13% of the
variance, with a test error of 0.0357 per pixel (--full, all 60,000: 0.2 degrees, 13 s). It draws eigen-digits beside
the learnt components, and the angles by epoch.

X (n, 784) holds the centred images. Of all linear maps of rank k, the one with the least squared error
|X - X E^T D^T|^2, for an encoder with weight E (k, 784) and a decoder with D (784, k), projects onto the first k right
singular vectors of X (Eckart and Young 1936), and every other stationary point is a saddle (Baldi and Hornik 1989,
doi 10.1016/0893-6080(89)90014-2). But D A and A^-1 E have the same error for every invertible A (k, k): D's columns may
be any basis of the subspace. The closer the variances of components k and k + 1, the more slowly training separates
them: choose k at a gap.
"""

import argparse
from typing import Any

import _common
import matplotlib
import numpy as np
import numpy.typing as npt
from scipy.linalg import subspace_angles

import minidl
from minidl import Meter, Tensor, nn, optim, plot
from minidl.data import DataLoader, TensorDataset

Array = npt.NDArray[Any]
HELD, DECAY = 10, 0.8  # epochs at a constant rate, then its decay; without decay the angle stays at about 7 degrees
SHOWN = 10  # maximum number of axes in the picture


class LinearAutoencoder(nn.Module):
    """Two matrices and nothing else: the images are centred beforehand, so no bias is needed."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(784, latent, bias=False)  # weight (latent, 784)
        self.decoder = nn.Linear(latent, 784, bias=False)  # weight (784, latent)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def main(args: argparse.Namespace) -> None:
    train_set, test_set = _common.load(args)
    if args.latent >= min(len(train_set), 784):
        raise SystemExit(f"--latent {args.latent}: must be less than the {len(train_set)} images and the 784 pixels")
    train, test = (_common.images_of(s, range(len(s))).flatten(1) for s in (train_set, test_set))  # (n, 784) each
    train, test = train - train.mean(0), test - train.mean(0)  # (784,), the training images' mean in both
    axes = np.linalg.svd(train.numpy(), full_matrices=False)[2][: args.latent]  # (latent, 784), by decreasing variance

    loader = DataLoader(TensorDataset(train), args.batch_size, shuffle=True, device=args.device)
    held_out = test.to(args.device)
    model, criterion = LinearAutoencoder(args.latent).to(args.device), nn.MSELoss()
    optimizer = optim.Adam(model.parameters(), lr=args.lr)
    run = _common.Run(args, model, optimizer)
    for epoch in run:
        optimizer.param_groups[0]["lr"] = args.lr * DECAY ** max(0, epoch - HELD)
        train_loss = Meter("per pixel")
        for (images,) in run.progress(loader, epoch):
            loss = criterion(model(images), images)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            train_loss.update(loss.item(), len(images))
        with minidl.no_grad():
            test_loss = criterion(model(held_out), held_out).item()
        if np.isfinite(test_loss):  # otherwise finish_epoch ends the run
            weight = model.decoder.weight.detach().cpu().numpy()  # (784, latent)
            angles = np.degrees(subspace_angles(weight, axes.T))  # (latent,), largest first
            run.kept.setdefault("angles", []).append(angles.tolist())
        run.finish_epoch("per pixel", train_loss=train_loss.average, test_loss=test_loss)
        print("  principal angles, degrees:", *(f"{angle:.2f}" for angle in angles), flush=True)

    model.cpu()  # for the comparison and the pictures
    with minidl.no_grad():
        compare(run, train, test, axes)
        draw(run, train.numpy(), axes)
    print(f"Pictures, checkpoint and metrics are in {args.out.resolve()}")


def compare(run: _common.Run, train: Tensor, test: Tensor, axes: Array) -> None:
    """Print and report the errors of both maps, and the fraction of the images' variance that they explain."""
    project, results = Tensor(axes.T @ axes), {}  # (784, 784), symmetric
    for name, through in (("PCA", lambda x: x @ project), ("linear autoencoder", run.model)):
        errors = [((x - through(x)) ** 2).mean().item() for x in (train, test)]
        explained = 1 - errors[0] / (train**2).mean().item()
        keys = "train_error_per_pixel", "test_error_per_pixel", "explained_variance_train"
        results[name] = dict(zip(keys, [*errors, explained], strict=True))
        print(f"{name:18}  explains {explained:.3%} of the training images' variance;", end="  ")
        print(f"mean squared error per pixel: train {errors[0]:.5f}, test {errors[1]:.5f}")
    angles = run.kept["angles"]
    print(f"Largest principal angle: {angles[0][0]:.2f} degrees after the first epoch, {angles[-1][0]:.2f} at the end.")
    run.report(**results, principal_angles_degrees=angles)


def main_axes(basis: Array, x: Array) -> tuple[Array, Array]:
    """Rotate a basis (784, k) to the principal axes of x (n, 784) within its span; the variance each explains.

    The basis is made orthonormal (QR), x is projected onto it, and an SVD of the n x k coordinates gives the rotation:
    PCA inside the learnt subspace, independent of the PCA of all of x.
    """
    q, _ = np.linalg.qr(basis)  # (784, k)
    _, s, rotation = np.linalg.svd(x @ q, full_matrices=False)  # (k,), (k, k)
    return rotation @ q.T, s**2 / np.sum(x**2)  # (k, 784), (k,)


def draw(run: _common.Run, train: Array, axes: Array) -> None:
    """Draw all pictures of a run."""
    name = _common.source_name(run.settings["data"], "digits")
    weight = run.model.decoder.weight.detach().numpy()  # (784, latent)
    learnt, shares = main_axes(weight, train)
    learnt = learnt * np.where((learnt * axes).sum(1, keepdims=True) < 0, -1, 1)  # an axis has no sign: match PCA's
    _, pca_shares = main_axes(axes.T, train)
    rows = {"the decoder's columns": weight.T, "rotated to principal axes": learnt, "eigen-digits (PCA)": axes}
    columns = [f"{100 * a:.1f} | {100 * b:.1f}%" for a, b in zip(shares, pca_shares, strict=True)][:SHOWN]
    title = f"Axes learnt from {name}, and PCA's: red above 0, blue below; variance explained, learnt | PCA"
    sheet = {key: coloured(row[:SHOWN]) for key, row in rows.items()}
    plot.show_images(sheet, columns, run.picture("eigen_digits.png"), title=title)

    angles = np.array(run.kept["angles"])  # (epochs, latent), largest first
    series = {"largest": angles[:, 0], "median": np.median(angles, 1), "smallest": angles[:, -1]}
    title = f"Learnt subspace against PCA's ({name})"
    plot.curves(series, "epoch", "principal angle, degrees", run.picture("angles.png"), title=title, log=True)


def coloured(rows: Array) -> Tensor:
    """Rows (n, 784) as colours (n, 3, 84, 84): red above 0, white at 0, blue below, with each row scaled on its own."""
    scaled = 0.5 + 0.5 * rows / np.abs(rows).max(1, keepdims=True)
    colours = matplotlib.colormaps["RdBu_r"](scaled.reshape(-1, 28, 28))[..., :3]  # (n, 28, 28, 3)
    return Tensor(colours.transpose(0, 3, 1, 2).repeat(3, 2).repeat(3, 3))  # each pixel repeated 3 x 3 times


if __name__ == "__main__":
    full = {"train_size": 60_000, "epochs": 30, "batch_size": 128, "lr": 1e-2, "latent": 9}
    options = _common.parser(
        "linear_autoencoder_pca", __doc__, epochs=30, batch_size=128, lr=1e-2, train_size=10_000, full=full
    )
    options.add_argument(
        "--latent", type=_common.at_least(1), default=9, help="dimension of the code (default: %(default)s)"
    )
    _common.start(options, main)
