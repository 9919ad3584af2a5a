"""A multilayer perceptron and a convolutional network that classify small photographs into ten classes.

    python examples/cifar_classifier.py --model mlp
    python examples/cifar_classifier.py --model cnn

train on the 50,000 images of CIFAR-10 for 10 epochs, the published setting, to a test accuracy of about 0.47 (mlp,
813,398 parameters, 12 s on two cores) and 0.59 to 0.63 (cnn, 109,050 parameters, 20 s), on a JPEG copy of the data.
Each run prints the layers and draws a confusion matrix and some correct and wrong predictions in its own folder; the
training curves of both models share one picture. The perceptron uses dropout, the convolutional network does not: with
--dropout 0.25 it reaches about 0.60. --nesterov uses Nesterov momentum. Without network access they train on synthetic
shapes, and learn more slowly. mpiexec -n 2 python -m mpi4py before the command, and --distributed behind it, train on
two processes.
"""

import argparse
from typing import Any

import _common
import numpy as np
from _classifier_pictures import draw_curves, draw_predictions

import minidl
from minidl import Meter, Tensor, nn, optim, plot
from minidl.data import DataLoader


def mlp(dropout: float) -> nn.Sequential:
    """A multilayer perceptron: it sees all pixels at once and ignores how they are arranged."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(3072, 256),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(256, 100),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(100, 10),
    )


def cnn(dropout: float) -> nn.Sequential:
    """A convolutional network: it shares a few weights across all positions, and has an eighth of the parameters."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(400, 256),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(256, 10),
    )


def main(args: argparse.Namespace) -> None:
    train_set, test_set = _common.load(args, "cifar10")
    train_loader = _common.train_loader(train_set, args)
    test_loader = DataLoader(_common.share(test_set), 500, device=args.device)
    if args.dropout is None:
        args.dropout = {"mlp": 0.25, "cnn": 0.0}[args.model]
    model = {"mlp": mlp, "cnn": cnn}[args.model](args.dropout).to(args.device)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, nesterov=args.nesterov)
    together, args.out = args.out, args.out / args.model
    args.out.mkdir(exist_ok=True)
    parameters = print_layers(model, test_set[0][0].to(args.device))
    run = _common.Run(args, model, optimizer)

    for epoch in run:
        train_loss, steps = Meter("per image"), []
        for images, labels in run.progress(train_loader, epoch):
            logits = run.parallel(images)  # (N, 10)
            loss = criterion(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            train_loss.update(loss.item(), len(images))
            accuracy = (logits.argmax(dim=1) == labels).float().mean().item()
            steps.append((loss.item(), accuracy))
        for key, values in zip(("loss", "accuracy"), zip(*steps, strict=True), strict=True):
            run.kept.setdefault(f"train {key}", []).extend(_common.averaged(values))  # per step, for the curves
        train_loss.all_reduce()
        test_loss, probabilities = evaluate(model, criterion, test_loader, len(test_set))
        accuracy = float((probabilities.argmax(axis=1) == test_set.labels).mean())
        losses = {"train_loss": train_loss.average, "test_loss": test_loss.average}
        run.finish_epoch("(loss: nats per image)", **losses, test_accuracy=accuracy)

    test_loss, probabilities = evaluate(model, criterion, test_loader, len(test_set))
    if _common.rank() > 0:
        return
    confusion = np.zeros((10, 10), np.int64)
    np.add.at(confusion, (test_set.labels, probabilities.argmax(axis=1)), 1)
    accuracy = float(np.trace(confusion) / confusion.sum())
    by_class = dict(zip(test_set.classes, (np.diag(confusion) / confusion.sum(axis=1)).tolist(), strict=True))
    results = {"test_accuracy": accuracy, "test_loss_nats_per_image": test_loss.average, "parameters": parameters}
    run.report(**results, test_accuracy_by_class=by_class, confusion=confusion.tolist())
    print(f"{args.model}: test accuracy {accuracy:.4f}, test loss {test_loss.average:.4f} nats per image.")
    title = f"The {args.model} on {_common.source_name(args.data, 'test images')}: {accuracy:.1%} correct"
    plot.confusion_matrix(confusion, test_set.classes, run.picture("confusion.png"), title=title)
    draw_predictions(run, probabilities, test_set)
    draw_curves(together, run)
    print(f"Pictures, checkpoint and metrics are in {args.out.resolve()}, the curves of both models in {together}")


@minidl.no_grad()
def print_layers(model: nn.Sequential, image: Tensor) -> int:
    """Print each layer, its output shape for one image and its number of parameters; return the total."""
    model.eval()
    x, total = image.unsqueeze(0), 0
    print(f"{'layer':12}{'output for one image':22}{'parameters':>10}\n{'input':12}{tuple(x.shape)!s:22}")
    for layer in model.children():
        x, number = layer(x), sum(p.numel() for p in layer.parameters())
        total += number
        print(f"{type(layer).__name__:12}{tuple(x.shape)!s:22}{number:10,}")
    print(f"{'total':34}{total:10,}")
    model.train()
    return total


@minidl.no_grad()
def evaluate(model: nn.Module, criterion: nn.Module, loader: DataLoader, count: int) -> tuple[Meter, np.ndarray]:
    """The mean loss over a data set of so many images and their class probabilities (n, 10), without dropout."""
    model.eval()
    loss, probabilities = Meter("per image"), []
    for images, labels in loader:
        logits = model(images)
        loss.update(criterion(logits, labels).item(), len(images))
        probabilities.append(minidl.softmax(logits, dim=1).cpu())
    model.train()
    loss.all_reduce()
    return loss, _common.joined(minidl.cat(probabilities), count).numpy()


if __name__ == "__main__":
    published: dict[str, Any] = {"train_size": 50_000, "batch_size": 128, "epochs": 10, "lr": 1e-2}
    options = _common.parser("cifar_classifier", __doc__, **published, data="cifar10", full=published)
    add = options.add_argument
    add(
        "--model",
        choices=["mlp", "cnn"],
        default="cnn",
        help="multilayer perceptron or convolutional network (default: %(default)s)",
    )
    add("--nesterov", action="store_true", help="use Nesterov momentum: the gradient at the look-ahead point")
    add("--dropout", type=_common.between(0, 1), help="fraction of values to drop (default: mlp 0.25, cnn 0)")
    _common.add_distributed(options)
    _common.start(options, main)
