"""What the filters of a convolutional network respond to: their strongest activations, projected back to the image.

    python examples/feature_visualisation.py                  (CIFAR-10)
    python examples/feature_visualisation.py --images mnist

train the convolutional network of cifar_classifier.py, with dropout, on 50,000 images for 10 epochs to a test accuracy
of about 0.58 (CIFAR-10, a JPEG copy) and 0.987 (MNIST), in 22 s and 15 s on two cores, pictures included. They draw one
sheet per layer. For each filter it shows the test images with the largest activations, cropped to the receptive field
of the activation, beside three projections of the activation onto the image, which differ in how the gradient passes
back through a ReLU (minidl.relu_rule). No ReLU precedes the first convolution, so there all three equal the filter.

    python examples/feature_visualisation.py --checkpoint out/cifar_classifier/cnn/checkpoint.npz

visualises the network of an earlier run instead of training one. Without network access they use synthetic images.

gradient   gx = gy where y > 0, the derivative: K. Simonyan et al., arXiv:1312.6034, 2014
deconvnet  gx = gy where gy > 0, whatever y was: M. Zeiler, R. Fergus, arXiv:1311.2901, 2014
guided     gx = gy where both are positive: J. Springenberg et al., arXiv:1412.6806, 2015
"""

import argparse
from collections.abc import Iterable
from typing import Any

import _common
import numpy as np
from _feature_sheet import draw_sheet

import minidl
from minidl import Meter, Tensor, nn, optim
from minidl.data import DataLoader, Dataset

LAYERS = {"conv1": 2, "conv2": 5, "hidden": 10, "classes": 12}  # name: the activations after so many of the layers
TITLES = {
    "conv1": "First convolution (no ReLU precedes it: the projections are the filter)",
    "conv2": "Second convolution",
    "hidden": "Hidden layer",
    "classes": "Class scores (logits)",
}
RULES = {"deconvnet": "deconv", "guided": "guided", "gradient": "gradient"}  # column: minidl's name for the rule


def cnn(channels: int, side: int) -> nn.Sequential:
    """The network of cifar_classifier.py: 109,050 parameters for images (3, 32, 32)."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 5),  # (N, 3, 32, 32) to (N, 8, 28, 28)
        nn.ReLU(),
        nn.MaxPool2d(2),  # to (N, 8, 14, 14)
        nn.Conv2d(8, 16, 5),  # to (N, 16, 10, 10)
        nn.ReLU(),
        nn.MaxPool2d(2),  # to (N, 16, 5, 5)
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(16 * ((side - 12) // 4) ** 2, 256),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(256, 10),
    )


def main(args: argparse.Namespace) -> None:
    train_set, test_set = _common.load(args, args.images)
    train_loader = DataLoader(train_set, args.batch_size, shuffle=True, device=args.device)
    test_loader = DataLoader(test_set, 500, device=args.device)
    channels, side, _ = test_set[0][0].shape
    model, criterion = cnn(channels, side).to(args.device), nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    if args.checkpoint:
        load_weights(model, args.checkpoint, args.data)
        args.resume, args.out = False, args.out / "from_checkpoint"
        args.out.mkdir(exist_ok=True)
    run = _common.Run(args, model, optimizer)

    for epoch in () if args.checkpoint else run:
        train_loss = Meter("per image")
        for images, labels in run.progress(train_loader, epoch):
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            train_loss.update(loss.item(), len(images))
        run.finish_epoch(
            "(loss: nats per image)", train_loss=train_loss.average, test_accuracy=accuracy(model, test_loader)
        )

    run.report(test_accuracy=accuracy(model, test_loader))
    print(f"test accuracy {run.results['test_accuracy']:.4f}")
    model.cpu().eval()  # for the pictures
    for layer, values in zip(LAYERS, greatest_activations(model, test_set), strict=True):  # (images, filters)
        visualise(run, model, layer, values, test_set)
    print(f"Pictures and metrics are in {args.out.resolve()}")


def load_weights(model: nn.Module, checkpoint: str, data: str) -> None:
    """Load the weights of an earlier run, which must have been trained on the data set to be visualised."""
    try:
        state = minidl.load(checkpoint)
        model.load_state_dict(state["model"])
        trained_on = state["settings"]["data"]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise SystemExit(f"--checkpoint: {checkpoint}: {str(error).splitlines()[0]}") from None
    if trained_on != data:
        raise SystemExit(
            f"--checkpoint: {checkpoint} was trained on {trained_on}, but the images are {data}: see --data"
        )


@minidl.no_grad()
def accuracy(model: nn.Module, loader: DataLoader) -> float:
    """The fraction of a data set's images that are classified correctly."""
    model.eval()
    right = sum((model(images).argmax(1) == labels).sum().item() for images, labels in loader)
    model.train()
    return right / len(loader.dataset)


@minidl.no_grad()
def greatest_activations(model: nn.Sequential, dataset: Dataset) -> list[np.ndarray]:
    """For each of LAYERS, each filter's maximum over all positions of each image: (images, filters)."""
    found: list[list[np.ndarray]] = [[] for _ in LAYERS]
    for x, _ in DataLoader(dataset, 500):
        for number, layer in enumerate(model, 1):
            x = layer(x)
            if number in LAYERS.values():
                values = x.numpy().reshape(*x.shape[:2], -1).max(axis=2)
                found[list(LAYERS.values()).index(number)].append(values)
    return [np.concatenate(values) for values in found]


def receptive_field(layers: Iterable[nn.Module], side: int) -> tuple[int, int]:
    """The side of one activation's receptive field, and the distance between neighbours' fields, both in pixels.

    A window of k values per side that lie `apart` pixels apart enlarges the field by (k - 1) apart; a stride
    multiplies `apart`. The layers must be unpadded. After Flatten the field is the whole image.
    """
    field, apart = 1, 1
    for layer in layers:
        if isinstance(layer, nn.Flatten):
            return side, 0
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
            k, s = (int(np.max(size)) for size in (layer.kernel_size, layer.stride))  # 2 or (2, 2)
            field, apart = field + (k - 1) * apart, apart * s
    return field, apart


def project(layers: nn.Sequential, images: Tensor, filter: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The filter's largest activation in each image, and its patch and projections (N, C, field, field).

    The gradient that is propagated back is the activation's own value there, and 0 everywhere else.
    """
    x = images.detach().requires_grad_()
    y = layers(x)  # (N, filters, H, W) or (N, filters)
    of_filter = y.detach().numpy()[:, filter].reshape(len(images), -1)  # (N, H * W)
    places, values = of_filter.argmax(axis=1), of_filter.max(axis=1)
    seed = np.zeros(y.shape, np.float32)
    seed.reshape(*y.shape[:2], -1)[range(len(images)), filter, places] = values
    whole = {"patch": images.numpy()}
    for column, rule in RULES.items():
        with minidl.relu_rule(rule):
            (gradient,) = minidl.grad(y, x, minidl.tensor(seed), retain_graph=True)
            assert gradient is not None  # the activation depends on the image
            whole[column] = gradient.numpy()
    field, apart = receptive_field(layers, x.shape[-1])
    tops, lefts = apart * (places // y.shape[-1]), apart * (places % y.shape[-1])
    return values, {
        key: np.stack([z[:, i : i + field, j : j + field] for z, i, j in zip(full, tops, lefts, strict=True)])
        for key, full in whole.items()
    }


def visualise(run: _common.Run, model: nn.Sequential, layer: str, values: np.ndarray, dataset: Any) -> None:
    """Draw a layer's sheet: the --top images for every class, or for the filters with the largest activations."""
    top, layers, kind = run.settings["top"], model[: LAYERS[layer]], "filter" if "conv" in layer else "unit"
    strongest = np.sort(values, axis=0)[-top:]  # (top, filters)
    dead = int((strongest[-1] <= 0).sum()) if layer != "classes" else 0  # class scores may be negative
    field, _ = receptive_field(layers, dataset[0][0].shape[-1])
    print(f"{layer:8}{values.shape[1]:4} {kind}s, {dead} dead, receptive field {field}x{field} pixels")
    if layer == "classes":
        names = {f: str(name) for f, name in enumerate(getattr(dataset, "classes", range(10)))}
    else:
        alive = [int(f) for f in np.argsort(-strongest.mean(axis=0)) if strongest[0, f] > 0]
        names = {f: f"{kind} {f}" for f in sorted(alive[: run.settings["filters"]])}
    rows = {}
    for f, name in names.items():
        chosen = np.argsort(-values[:, f], kind="stable")[:top]
        rows[name] = project(layers, _common.images_of(dataset, chosen.tolist()), f)
    activations = {name: [float(v) for v in found] for name, (found, _) in rows.items()}
    run.report(**{layer: {"receptive_field_pixels": field, "dead": dead, "greatest_activations": activations}})
    if rows:
        title = f"{TITLES[layer]}, trained on {_common.source_name(run.settings['data'], 'images')}\n"
        title += f"patch: receptive field ({field}x{field} pixels) of the activation above it; projections: grey is 0"
        draw_sheet(rows, title, run.picture(f"{layer}.png"))


if __name__ == "__main__":
    choice = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # --data and --out depend on it
    choice.add_argument("--images", choices=["cifar10", "mnist"], default="cifar10")
    images = choice.parse_known_args()[0].images
    published: dict[str, Any] = {"train_size": 50_000, "batch_size": 128, "epochs": 10, "lr": 1e-2}
    options = _common.parser(f"feature_visualisation_{images}", __doc__, **published, data=images, full=published)
    add = options.add_argument
    add("--images", choices=["cifar10", "mnist"], default="cifar10", help="data set to train on (default: %(default)s)")
    add(
        "--filters",
        type=_common.at_least(1),
        default=8,
        help="maximum number of filters shown per layer (default: %(default)s)",
    )
    add("--top", type=_common.at_least(1), default=3, help="images shown per filter (default: %(default)s)")
    add("--checkpoint", metavar="FILE", help="visualise the network of this checkpoint instead of training one")
    _common.start(options, main)
