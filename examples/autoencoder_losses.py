"""Which loss should an autoencoder be trained with? One model and seven losses, compared by one measure.

    python examples/autoencoder_losses.py [--full]

trains seven copies of a small autoencoder on 8,192 digits of MNIST for 10 epochs, in about 35 s on two cores. Whatever
the training loss, it prints each copy's test error in the same unit, mean squared error per pixel of images in [0, 1],
and draws a row of reconstructions. Expected: MSE on probabilities 0.0096, MSE on logits 0.0080 (0.0074 clipped to
[0, 1]), BCE 0.0082; with standardised inputs 0.0088, 0.0076 (0.0071) and 0.0078; the mistake 0.048. With --full, all
60,000 digits for 20 epochs in 5.5 minutes, all six end between 0.0043 and 0.0045: the loss decides how fast the model
learns, not how well. The mistake reaches 0.046.

With an image x, the decoder's output z (logits) and the probabilities s(z) = 1 / (1 + e^-z), the losses are
(s(z) - x)^2, (z - x)^2, and the cross-entropy -x ln s(z) - (1 - x) ln(1 - s(z)). The gradient of the last with respect
to z is s(z) - x; that of the first, 2 (s(z) - x) s(z) (1 - s(z)), vanishes where the sigmoid saturates, right or wrong.
Standardised images are (x - m) / d, with mean m and standard deviation d of all training pixels: for MNIST they range
from -0.4 to 2.8, outside the range of a sigmoid. So only z can be compared with them, and s(z) is compared with x; the
last row shows what happens if s(z) is compared with standardised images by mistake.
"""

import argparse
from typing import NamedTuple

import _common

import minidl
from minidl import Meter, Tensor, nn, optim, plot
from minidl.data import DataLoader, normalize


class Variant(NamedTuple):
    """What an autoencoder gets as input, and which output the loss compares with which target."""

    name: str
    loss: str  # "p": MSE of s(z); "z": MSE of z; "bce": cross-entropy
    standard_input: bool = False
    standard_target: bool = False


VARIANTS = {
    "mse_prob": Variant("MSE on probabilities", "p"),
    "mse_logit": Variant("MSE on logits", "z"),
    "bce": Variant("BCE with logits", "bce"),
    "mse_prob_std": Variant("MSE on probabilities, standardised input", "p", True),
    "mse_logit_std": Variant("MSE on logits, standardised input and target", "z", True, True),
    "bce_std": Variant("BCE with logits, standardised input", "bce", True),
    "mistake": Variant("mistake: MSE on probabilities, standardised target", "p", True, True),
}


def autoencoder() -> nn.Sequential:
    """Compress images (N, 1, 28, 28) to 32 numbers and decode those to logits: no activation at the end."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),  # to (N, 16, 14, 14)
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),  # to (N, 32, 7, 7)
        nn.ReLU(),
        nn.Conv2d(32, 32, 7),  # to (N, 32, 1, 1)
        nn.ConvTranspose2d(32, 32, 7),  # to (N, 32, 7, 7)
        nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1),  # to (N, 16, 14, 14)
        nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 3, stride=2, padding=1, output_padding=1),  # to (N, 1, 28, 28)
    )


class Autoencoders(nn.Module):
    """One autoencoder per variant, stored under its key, all with the same initial weights."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        initial = autoencoder().state_dict()
        for key in VARIANTS:
            setattr(self, key, autoencoder())
            getattr(self, key).load_state_dict(initial)

    def forward(self, x: Tensor, key: str) -> tuple[Tensor, Tensor]:
        """A variant's loss per pixel, in its own unit, and its reconstructions of x, in the range of x, [0, 1]."""
        variant, standard = VARIANTS[key], normalize(x, [self.mean], [self.std])
        z = getattr(self, key)(standard if variant.standard_input else x)
        output = z if variant.loss == "z" else z.sigmoid()
        target = standard if variant.standard_target else x
        bce, mse = nn.functional.binary_cross_entropy_with_logits, nn.functional.mse_loss
        loss = bce(z, target) if variant.loss == "bce" else mse(output, target)
        return loss, output * self.std + self.mean if variant.standard_target else output


def main(args: argparse.Namespace) -> None:
    train_set, test_set = _common.load(args)
    train_loader = DataLoader(train_set, args.batch_size, shuffle=True, device=args.device)
    test_loader = DataLoader(test_set, 500, device=args.device)
    pixels = _common.images_of(train_set, range(len(train_set)))
    model = Autoencoders(pixels.mean().item(), pixels.std().item()).to(args.device)
    # One Adam is equivalent to seven: it updates each parameter from that parameter's own gradients only.
    optimizer = optim.Adam(model.parameters(), lr=args.lr)
    run = _common.Run(args, model, optimizer)
    print("Test error of each variant: mean squared error per pixel in [0, 1].")

    for epoch in run:
        for images, _ in run.progress(train_loader, epoch):
            optimizer.zero_grad()
            for key in VARIANTS:
                loss, _ = model(images, key)
                loss.backward()
            optimizer.step()
        run.finish_epoch("per pixel", **evaluate(model, test_loader))

    plain, clipped = {key: run.epochs[-1][key] for key in VARIANTS}, evaluate(model, test_loader, clip=True)
    print(f"\n{'loss':52}{'test error':>12}{'clipped to [0, 1]':>20}   mean squared error per pixel")
    for key, variant in VARIANTS.items():
        print(f"{variant.name:52}{plain[key]:12.5f}{clipped[key]:20.5f}")
    run.report(test_mean_squared_error_per_pixel=plain, the_same_clipped_to_0_1=clipped)
    run.report(mean_of_pixels=model.mean, standard_deviation_of_pixels=model.std)
    model.cpu()  # for the pictures
    draw(run, _common.images_of(test_set, range(10)))
    print(f"Pictures, checkpoint and metrics are in {args.out.resolve()}")


@minidl.no_grad()
def evaluate(model: nn.Module, loader: DataLoader, clip: bool = False) -> dict[str, float]:
    """Each variant's mean squared error per pixel of images in [0, 1], with outputs as they are or clipped."""
    errors = {key: Meter("per pixel") for key in VARIANTS}
    for images, _ in loader:
        for key, error in errors.items():
            _, output = model(images, key)
            output = output.clamp(0, 1) if clip else output
            error.update(nn.functional.mse_loss(output, images).item(), len(images))
    return {key: error.average for key, error in errors.items()}


@minidl.no_grad()
def draw(run: _common.Run, originals: Tensor) -> None:
    """Draw all pictures of a run."""
    name = _common.source_name(run.settings["data"], "digits")
    rows = {"originals": originals, **{v.name: run.model(originals, key)[1] for key, v in VARIANTS.items()}}
    title = f"Test images ({name}) reconstructed by one autoencoder with seven losses, {len(run.epochs)} epochs"
    plot.show_images(rows, path=run.picture("reconstructions.png"), title=title)
    errors = {variant.name: [epoch[key] for epoch in run.epochs] for key, variant in VARIANTS.items()}
    title = f"Test error by training loss ({name})"
    figure = plot.curves(errors, "epoch", "squared error per pixel in [0, 1]", title=title, log=True)
    figure.axes[0].legend().remove()  # seven long names: they go beside the curves, not over them
    figure.legend(loc="outside right center", fontsize="small")
    figure.set_size_inches(8.5, 3.6)
    figure.savefig(run.picture("errors.png"))


if __name__ == "__main__":
    full = {"train_size": 60_000, "epochs": 20, "batch_size": 64, "lr": 1e-3}
    options = _common.parser(
        "autoencoder_losses", __doc__, epochs=10, batch_size=64, lr=1e-3, train_size=8192, full=full
    )
    _common.start(options, main)
