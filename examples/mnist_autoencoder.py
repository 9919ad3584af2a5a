"""A convolutional autoencoder: handwritten digits through a bottleneck of 64 numbers and back.

    python examples/mnist_autoencoder.py

trains on 4,096 digits of MNIST for 20 epochs, in about 15 s on two cores, to a test loss of about 0.0074 (squared
error per pixel), and draws reconstructions, ways between digits, and the loss. With --noise 0.3 it learns to
remove noise. Without a network it uses digits that it draws itself.
"""

import argparse

import _common

import minidl
from minidl import Tensor, nn, optim
from minidl.data import DataLoader, Dataset

SHOWN_EPOCHS = (1, 2, 5, 10, 20, 50, 100)
UNIT = "per pixel"


class Autoencoder(nn.Module):
    """Halves the image twice, then looks at all of it at once; the decoder is the mirror image."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1),  # (N, 1, 28, 28) to (N, 16, 14, 14)
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),  # to (N, 32, 7, 7)
            nn.ReLU(),
            nn.Conv2d(32, 64, 7),  # to (N, 64, 1, 1)
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(64, 32, 7),  # to (N, 32, 7, 7)
            nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1),  # to (N, 16, 14, 14)
            nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 3, stride=2, padding=1, output_padding=1),  # to (N, 1, 28, 28)
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def main() -> None:
    args = options()
    minidl.manual_seed(args.seed)
    train_set, test_set = _common.load_digits(args.data, args.data_dir, args.train_size)
    train_loader = DataLoader(train_set, args.batch_size, shuffle=True)
    test_loader = DataLoader(test_set, 500)
    model, criterion = Autoencoder(), nn.MSELoss()
    optimizer = optim.Adam(model.parameters(), lr=args.lr, weight_decay=1e-5)
    run = _common.Run(args, model, optimizer)

    for epoch in run:
        losses = []
        for images, _ in run.progress(train_loader, epoch):
            output = model(_common.add_noise(images, args.noise))
            loss = criterion(output, images)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append((loss.item(), len(images)))
        test_loss = evaluate(model, criterion, test_loader, args.noise)
        remember_reconstructions(run, epoch, test_set, args.noise)
        run.finish_epoch(UNIT, train_loss=_common.average(losses), test_loss=test_loss)

    draw(run, test_set)
    print(f"Pictures, checkpoint and metrics are in {args.out}.")


def options() -> argparse.Namespace:
    """The command line."""
    parser = _common.parser("mnist_autoencoder", __doc__, epochs=20, batch_size=64, lr=1e-3)
    parser.add_argument("--train-size", type=_common.positive_int, default=4096, help="images used (%(default)s)")
    parser.add_argument(
        "--noise", type=_common.fraction, default=0.0, metavar="SIGMA", help="noise to remove (%(default)s)"
    )
    return parser.parse_args()


@minidl.no_grad()
def evaluate(model: nn.Module, criterion: nn.Module, loader: DataLoader, noise: float) -> float:
    """The mean loss over a data set."""
    model.eval()
    losses = [(criterion(model(_common.add_noise(x, noise)), x).item(), len(x)) for x, _ in loader]
    model.train()
    return _common.average(losses)


@minidl.no_grad()
def remember_reconstructions(run: _common.Run, epoch: int, test_set: Dataset, noise: float) -> None:
    """Keep what the model makes of ten test images now, for the picture at the end."""
    if epoch == 1:
        originals = _common.images_of(test_set, range(10))
        run.kept["originals"], run.kept["noisy"] = originals, _common.add_noise(originals, noise)
    if epoch in SHOWN_EPOCHS or epoch == run.last:
        run.kept[f"epoch {epoch}"] = run.model(run.kept["noisy"])


@minidl.no_grad()
def draw(run: _common.Run, test_set: Dataset) -> None:
    """All pictures of a run."""
    _common.save_loss(run.picture("loss.png"), "MNIST autoencoder", UNIT, run.epochs)
    rows = {name: images.numpy() for name, images in run.kept.items() if name != "noisy" or run.settings["noise"]}
    _common.save_rows(run.picture("reconstructions.png"), "Test images and their reconstructions", rows)
    fours = [i for i in range(100) if test_set[i][1] == 4]
    pairs = {"same_digit": fours[:2], "0_1": (0, 1), "1_10": (1, 10), "4_5": (4, 5), "20_30": (20, 30)}
    for name, (i, j) in pairs.items():
        a, b = _common.images_of(test_set, [i, j])
        t = minidl.linspace(0, 1, 10).reshape(-1, 1, 1, 1)
        code_a, code_b = run.model.encoder(a), run.model.encoder(b)
        between = run.model.decoder((1 - t) * code_a + t * code_b)  # (10, 1, 28, 28)
        rows = {"latent space": between.numpy(), "pixel space": ((1 - t) * a + t * b).numpy()}
        title = f"From test image {i} to {j}: codes blended and decoded, and pixels blended"
        _common.save_rows(run.picture(f"interpolation_{name}.png"), title, rows)


if __name__ == "__main__":
    _common.start(main)
