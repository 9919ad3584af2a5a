"""A convolutional autoencoder: handwritten digits compressed to a bottleneck of 64 numbers and reconstructed.

    python examples/mnist_autoencoder.py

trains on 4,096 digits of MNIST for 20 epochs, in about 8 s on two cores, to a test loss of about 0.0074 (squared
error per pixel), and draws reconstructions, interpolations between digits, and the loss. With --noise 0.3 it learns to
remove noise. Without network access it trains on synthetic digits. To train on several processes, or machines:

    mpiexec -n 2 python -m mpi4py examples/mnist_autoencoder.py --distributed
"""

import argparse

import _common

import minidl
from minidl import Meter, Tensor, nn, optim, plot
from minidl.data import DataLoader, Dataset, add_noise

SHOWN_EPOCHS = (1, 2, 5, 10, 20, 50, 100)


class Autoencoder(nn.Module):
    """The encoder halves the image twice, then maps all of it to 64 numbers; the decoder mirrors it."""

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


def main(args: argparse.Namespace) -> None:
    train_set, test_set = _common.load(args)
    train_loader = _common.train_loader(train_set, args)
    test_loader = DataLoader(_common.share(test_set), 500, device=args.device)
    model, criterion = Autoencoder().to(args.device), nn.MSELoss()
    optimizer = optim.Adam(model.parameters(), lr=args.lr, weight_decay=1e-5)
    run = _common.Run(args, model, optimizer)

    for epoch in run:
        train_loss = Meter("per pixel")
        for images, _ in run.progress(train_loader, epoch):
            output = run.parallel(add_noise(images, args.noise))
            loss = criterion(output, images)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            train_loss.update(loss.item(), len(images))
        train_loss.all_reduce()
        test_loss = evaluate(model, criterion, test_loader, args.noise)
        remember_reconstructions(run, epoch, test_set, args.noise)
        run.finish_epoch("per pixel", train_loss=train_loss.average, test_loss=test_loss.average)

    if _common.rank() == 0:
        model.cpu()  # for the pictures
        draw(run, test_set)
        print(f"Pictures, checkpoint and metrics are in {args.out.resolve()}")


@minidl.no_grad()
def evaluate(model: nn.Module, criterion: nn.Module, loader: DataLoader, noise: float) -> Meter:
    """The mean loss over a data set."""
    model.eval()
    loss = Meter("per pixel")
    for images, _ in loader:
        loss.update(criterion(model(add_noise(images, noise)), images).item(), len(images))
    model.train()
    loss.all_reduce()
    return loss


@minidl.no_grad()
def remember_reconstructions(run: _common.Run, epoch: int, test_set: Dataset, noise: float) -> None:
    """Keep the model's current reconstructions of ten test images, for the picture at the end."""
    if epoch == 1:
        run.kept["originals"] = _common.images_of(test_set, range(10))
        run.kept["noisy"] = add_noise(run.kept["originals"], noise)
    if epoch in SHOWN_EPOCHS or epoch == run.last:
        noisy = run.kept["noisy"].to(run.settings["device"])
        run.kept[f"epoch {epoch}"] = run.model(noisy).cpu()


@minidl.no_grad()
def draw(run: _common.Run, test_set: Dataset) -> None:
    """Draw all pictures of a run."""
    name, noise = f"autoencoder on {_common.source_name(run.settings['data'], 'digits')}", run.settings["noise"]
    losses = {key: [epoch[f"{key}_loss"] for epoch in run.epochs] for key in ("train", "test")}
    plot.curves(losses, "epoch", "loss per pixel", run.picture("loss.png"), title=f"Loss of the {name}", log=True)
    rows = {key: images for key, images in run.kept.items() if key != "noisy" or noise}
    plot.show_images(rows, path=run.picture("reconstructions.png"), title=f"Test images reconstructed by the {name}")
    fours = [i for i in range(100) if test_set[i][1] == 4]
    pairs = {"same_digit": fours[:2], "0_1": (0, 1), "1_10": (1, 10), "4_5": (4, 5), "20_30": (20, 30)}
    for key, (i, j) in pairs.items():
        pair, t = _common.images_of(test_set, [i, j]), minidl.linspace(0, 1, 10).reshape(-1, 1, 1, 1)
        codes, pixels = ((1 - t) * x[0] + t * x[1] for x in (run.model.encoder(pair), pair))  # (10, ...) each
        rows = {"codes": run.model.decoder(codes), "pixels": pixels}
        title = f"From test image {i} to {j}, by interpolating the codes and by interpolating the pixels"
        plot.show_images(rows, path=run.picture(f"interpolation_{key}.png"), title=title)


if __name__ == "__main__":
    options = _common.parser("mnist_autoencoder", __doc__, epochs=20, batch_size=64, lr=1e-3, train_size=4096)
    noise = "standard deviation of the noise added to the input (default: %(default)s)"
    options.add_argument("--noise", type=_common.between(0, 1), default=0.0, metavar="SIGMA", help=noise)
    _common.add_distributed(options)
    _common.start(options, main)
