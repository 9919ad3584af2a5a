"""A convolutional autoencoder for colour photographs: 3,072 numbers compressed to a code of 512.

    python examples/cifar_autoencoder.py [--latent 32] [--full]

trains on all 50,000 photographs of CIFAR-10 for 20 epochs, in about 40 s on two cores, to a test loss of 9 to 12
(squared error summed over an image, averaged over images). --full trains for 48 epochs in 90 s and reaches 6.2, 6.8
and 6.4 with seeds 0, 1 and 2 on a JPEG copy of the data. It draws reconstructions epoch by epoch, interpolations
between photographs in pixel space and in code space, and the loss. The code has --latent channels of 4 x 4 numbers:
fewer channels lose more of the picture. Without network access it trains on synthetic coloured shapes.
"""

import argparse

import _common

import minidl
from minidl import Meter, Tensor, nn, optim, plot
from minidl.data import DataLoader, Dataset

SHOWN_EPOCHS = (1, 2, 5, 10, 20, 48)
PAIRS = ((0, 1), (3, 7), (10, 13))  # test images to interpolate between
STEPS = 11  # pictures in an interpolation, both ends included


class Autoencoder(nn.Module):
    """Kernel 4, stride 2 and padding 1 halve the size, (H + 2 - 4) / 2 + 1 = H / 2; transposed, they double it.

    The stride divides the kernel size, so the same number of kernel entries contributes to each output pixel of a
    transposed layer and no checkerboard is built in (Odena et al. 2016, doi 10.23915/distill.00003).
    """

    def __init__(self, latent: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=2, padding=1),  # (N, 3, 32, 32) to (N, 8, 16, 16)
            nn.ReLU(),
            nn.Conv2d(8, 16, 4, stride=2, padding=1),  # to (N, 16, 8, 8)
            nn.ReLU(),
            nn.Conv2d(16, latent, 4, stride=2, padding=1),  # to (N, latent, 4, 4)
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(latent, 16, 4, stride=2, padding=1),  # to (N, 16, 8, 8)
            nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1),  # to (N, 8, 16, 16)
            nn.ReLU(),
            nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1),  # to (N, 3, 32, 32)
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def main(args: argparse.Namespace) -> None:
    train_set, test_set = _common.load(args, "cifar10")
    train_loader = DataLoader(train_set, args.batch_size, shuffle=True, device=args.device)
    test_loader = DataLoader(test_set, 500, device=args.device)
    model, criterion = Autoencoder(args.latent).to(args.device), nn.MSELoss(reduction="sum")
    optimizer = optim.Adam(model.parameters(), lr=args.lr)
    run = _common.Run(args, model, optimizer)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters; 3 x 32 x 32 = 3,072 numbers compressed to {16 * args.latent:,}.")

    for epoch in run:
        train_loss = Meter("per image")
        for images, _ in run.progress(train_loader, epoch):
            loss = criterion(model(images), images) / len(images)  # summed over an image, averaged over images
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            train_loss.update(loss.item(), len(images))
        test_loss = evaluate(model, criterion, test_loader)
        remember_reconstructions(run, epoch, test_set)
        run.finish_epoch("per image", train_loss=train_loss.average, test_loss=test_loss.average)

    per_pixel = run.epochs[-1]["test_loss"] / 3072
    print(f"Final test error: {per_pixel:.5f}, mean squared error per pixel and channel.")
    run.report(parameters=parameters, numbers_in_a_code=16 * args.latent, test_mean_squared_error_per_pixel=per_pixel)
    model.cpu()  # for the pictures
    draw(run, test_set)
    print(f"Pictures, checkpoint and metrics are in {args.out.resolve()}")


@minidl.no_grad()
def evaluate(model: nn.Module, criterion: nn.Module, loader: DataLoader) -> Meter:
    """The mean loss per image over a data set, each batch weighted by its size: the last may be smaller."""
    model.eval()
    loss = Meter("per image")
    for images, _ in loader:
        loss.update(criterion(model(images), images).item() / len(images), len(images))
    model.train()
    return loss


@minidl.no_grad()
def remember_reconstructions(run: _common.Run, epoch: int, test_set: Dataset) -> None:
    """Keep the model's current reconstructions of ten test images, for the picture at the end."""
    run.kept.setdefault("originals", _common.images_of(test_set, range(10)))
    if epoch in SHOWN_EPOCHS or epoch == run.last:
        originals = run.kept["originals"].to(run.settings["device"])
        run.kept[f"epoch {epoch}"] = run.model(originals).cpu()


@minidl.no_grad()
def draw(run: _common.Run, test_set: Dataset) -> None:
    """Draw all pictures of a run."""
    name = f"autoencoder on {_common.source_name(run.settings['data'], 'images')}"
    losses = {key: [epoch[f"{key}_loss"] for epoch in run.epochs] for key in ("train", "test")}
    path, label = run.picture("loss.png"), "squared error, sum per image"
    plot.curves(losses, "epoch", label, path, title=f"Loss of the {name}", log=True)
    title = f"Test images reconstructed by the {name}: 3,072 numbers from {16 * run.settings['latent']:,}"
    plot.show_images(run.kept, path=run.picture("reconstructions.png"), title=title)
    rows, t = {}, minidl.linspace(0, 1, STEPS).reshape(-1, 1, 1, 1)
    for i, j in PAIRS:
        ends = _common.images_of(test_set, [i, j])  # (2, 3, 32, 32)
        codes, pixels = ((1 - t) * x[0] + t * x[1] for x in (run.model.encoder(ends), ends))  # (STEPS, ...) each
        for name, between in (("pixels", pixels), ("codes", run.model.decoder(codes))):
            rows[f"{name}, {i} to {j}"] = minidl.cat([ends[:1], between, ends[1:]])
    columns = ["image", *(f"{100 * k / (STEPS - 1):.0f}%" for k in range(STEPS)), "image"]
    title = "From one test image to another, by interpolating the pixels and by interpolating the codes"
    plot.show_images(rows, columns, run.picture("interpolation.png"), title=title)


if __name__ == "__main__":
    full = {"train_size": 50_000, "epochs": 48, "batch_size": 128, "lr": 1e-3, "latent": 32}
    options = _common.parser(
        "cifar_autoencoder", __doc__, epochs=20, batch_size=128, lr=1e-3, train_size=50_000, data="cifar10", full=full
    )
    options.add_argument(
        "--latent", type=_common.at_least(1), default=32, help="channels of the code (default: %(default)s)"
    )
    _common.start(options, main)
