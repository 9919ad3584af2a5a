"""The examples with --device, on the stand-in for CuPy: the results of a GPU are the CPU's, and need no GPU later."""

import contextlib
import re
import sys

import numpy as np
import pytest

import minidl
from minidl import plot
from minidl.data import SyntheticShapes, add_noise, normalize
from tests.helpers import cupy_stand_in
from tests.helpers.example_files import EXAMPLES, metrics

SMALL = ("--train-size", 24, "--batch-size", 8, "--epochs", 1)
DRAWN = (*SMALL, "--data", "synthetic")
RUNS = {
    "mnist_autoencoder": (*DRAWN, "--noise", 0.2),
    "mnist_upsample_autoencoder": DRAWN,
    "mnist_vae": DRAWN,
    "mnist_vae sweep": (*DRAWN, "--latent", 3, "--sweep", 0.5),
    "cifar_autoencoder": DRAWN,
    "autoencoder_losses": DRAWN,
    "linear_autoencoder_pca": (*DRAWN, "--latent", 3),
    "cifar_classifier mlp": (*DRAWN, "--model", "mlp", "--nesterov"),
    "cifar_classifier cnn": (*DRAWN, "--model", "cnn", "--dropout", 0.5),
    "feature_visualisation": (*DRAWN, "--top", 1, "--filters", 2),
    "pixelwise_prediction": SMALL,
}
TRAINING = sorted({path.stem for path in EXAMPLES.glob("[!_]*.py")} - {"transposed_convolution", "tiny_tape"})


class FewShapes(SyntheticShapes):
    """At most 100 of those that are asked for."""

    def __init__(self, n, **options):
        super().__init__(min(n, 100), **options)


@pytest.fixture
def run(example, run, monkeypatch):
    """The fixture of that name with 100 test images, of which only the VAE needs more."""
    sets = example("_common").SETS

    def run_with_few(name, *options):
        tested = 1000 if name == "mnist_vae" else 100
        with monkeypatch.context() as patch:
            patch.setattr(minidl.data, "SyntheticShapes", FewShapes)
            for key, source in list(sets.items()):
                fewer = source._replace(drawn=lambda n, seed, drawn=source.drawn: drawn(min(n, tested), seed=seed))
                patch.setitem(sets, key, fewer)
            return run(name, *options)

    return run_with_few


@pytest.fixture
def places(example, monkeypatch):
    """Where the parameters and what is kept were at the end of each epoch."""
    common, seen = example("_common"), []
    finish = common.Run.finish_epoch

    def finish_epoch(self, *args, **kwargs):
        kept = [x for x in self.kept.values() if isinstance(x, minidl.Tensor)]
        seen.append(({str(p.device) for p in self.model.parameters()}, {str(x.device) for x in kept} - {"cpu"}))
        finish(self, *args, **kwargs)

    monkeypatch.setattr(common.Run, "finish_epoch", finish_epoch)
    return seen


def without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)


def files(out):
    return sorted(str(path.relative_to(out)) for path in out.rglob("*"))


def check_epochs_agree(one, other):
    """Losses to 1e-4, shares of images or pixels to one image of a hundred."""
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"seconds"}:
            close = {"abs": 0.01} if re.search("accuracy|iou", name) else {"rel": 1e-4}
            assert a[name] == pytest.approx(b[name], **close), name


@pytest.mark.parametrize(
    "name", [n if n == "mnist_autoencoder" else pytest.param(n, marks=pytest.mark.slow) for n in RUNS]
)
def test_a_gpu_gives_the_cpus_results(run, places, monkeypatch, tmp_path, name):
    script, cpu, gpu = name.split()[0], tmp_path / "cpu", tmp_path / "cuda"
    run(script, *RUNS[name], "--out", cpu)
    cupy_stand_in.install(monkeypatch)
    run(script, *RUNS[name], "--out", gpu, "--device", "cuda")
    assert places == [({"cpu"}, set()), ({"cuda:0"}, set())]
    assert files(cpu) == files(gpu)

    without_cupy(monkeypatch)
    for path in cpu.rglob("checkpoint.npz"):
        (here, there), folder = (minidl.load(p)["model"] for p in (path, gpu / path.relative_to(cpu))), path.parent
        assert {str(value.device) for value in there.values()} == {"cpu"}
        assert [(k, v.shape, v.dtype) for k, v in here.items()] == [(k, v.shape, v.dtype) for k, v in there.items()]
        one, other = metrics(folder), metrics(gpu / folder.relative_to(cpu))
        assert (one["settings"].pop("device"), other["settings"].pop("device")) == ("cpu", "cuda")
        assert one["settings"] == other["settings"]
        check_epochs_agree(one["epochs"], other["epochs"])
        assert one["results"].keys() == other["results"].keys()
        assert one["pictures"] == other["pictures"]
    assert list(cpu.rglob("checkpoint.npz"))


def test_every_example_that_trains_is_among_them():
    assert sorted({name.split()[0] for name in RUNS}) == TRAINING


@pytest.mark.parametrize(("first", "second"), [("cuda", "cpu"), pytest.param("cpu", "cuda", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["mnist_autoencoder", pytest.param("cifar_autoencoder", marks=pytest.mark.slow)])
def test_a_run_goes_on_elsewhere(run, places, monkeypatch, tmp_path, name, first, second):
    options = [option for option in RUNS[name] if option not in ("--epochs", 1)]
    run(name, *options, "--epochs", 2, "--out", tmp_path / "whole")
    cupy_stand_in.install(monkeypatch)
    run(name, *options, "--epochs", 1, "--device", first)
    run(name, *options, "--epochs", 2, "--device", second, "--resume")
    of = {"cpu": ({"cpu"}, set()), "cuda": ({"cuda:0"}, set())}
    assert places == [of["cpu"], of["cpu"], of[first], of[second]]
    whole, parts = metrics(tmp_path / "whole"), metrics(tmp_path / "out")
    check_epochs_agree(whole["epochs"], parts["epochs"])
    assert parts["settings"]["device"] == second
    kept = [minidl.load(tmp_path / folder / "checkpoint.npz")["kept"] for folder in ("whole", "out")]
    assert list(kept[0]) == list(kept[1])
    for key, images in kept[0].items():
        np.testing.assert_allclose(images.numpy(), kept[1][key].numpy(), 1e-3, 1e-3)


def test_a_checkpoint_from_before_the_option_goes_on(run, tmp_path):
    run("mnist_autoencoder", *RUNS["mnist_autoencoder"])
    path = tmp_path / "out" / "checkpoint.npz"
    checkpoint = minidl.load(path)
    del checkpoint["settings"]["device"]
    minidl.save(checkpoint, path)
    run("mnist_autoencoder", *RUNS["mnist_autoencoder"], "--epochs", 2, "--resume")
    assert [epoch["epoch"] for epoch in metrics(tmp_path / "out")["epochs"]] == [1, 2]


def check_refused(run, capsys, tmp_path, name, device, message):
    """One line after the usage, status 2, and nothing has begun."""
    with pytest.raises(SystemExit) as ended:
        run(name, *SMALL, "--device", device)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    (line,) = [line for line in printed.err.splitlines() if not re.match("usage:| ", line)]
    assert line.startswith(f"{name}.py: error: argument --device: {message}")
    assert printed.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", TRAINING)
def test_without_cupy_it_ends_with_one_line(run, monkeypatch, capsys, tmp_path, name):
    without_cupy(monkeypatch)
    message = "device 'cuda': CuPy is missing, with which minidl computes on a GPU: install it with pip install"
    check_refused(run, capsys, tmp_path, name, "cuda", message)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:1", "device 'cuda:1': there is no such GPU, only cuda:0"),
        ("gpu", "device 'gpu': expected 'cpu', 'cuda', or a numbered GPU such as 'cuda:0'"),
        ("cuda:", "device 'cuda:': expected 'cpu', 'cuda', or a numbered GPU such as 'cuda:0'"),
        ("", "device '': expected 'cpu', 'cuda', or a numbered GPU such as 'cuda:0'"),
    ],
)
def test_a_device_that_is_not_there_is_refused(run, monkeypatch, capsys, tmp_path, device, message):
    cupy_stand_in.install(monkeypatch)
    check_refused(run, capsys, tmp_path, "mnist_autoencoder", device, message)


def test_without_a_gpu_it_ends_with_one_line(run, monkeypatch, capsys, tmp_path):
    cupy_stand_in.install(monkeypatch)
    monkeypatch.setattr(sys.modules["cupy"].cuda.runtime, "getDeviceCount", lambda: 0)
    check_refused(run, capsys, tmp_path, "mnist_autoencoder", "cuda", "device 'cuda': CuPy is there, an NVIDIA GPU")


def test_the_gpu_named_becomes_the_current_one(example, monkeypatch):
    cupy_stand_in.install(monkeypatch)
    cuda, made_current = sys.modules["cupy"].cuda, []
    monkeypatch.setattr(cuda.runtime, "getDeviceCount", lambda: 2)
    monkeypatch.setattr(cuda.runtime, "setDevice", made_current.append)
    monkeypatch.setattr(cuda, "Device", lambda number: contextlib.nullcontext())
    assert [example("_common").device(name) for name in ("cuda:1", "cpu", "cuda:0")] == ["cuda:1", "cpu", "cuda:0"]
    assert made_current == [1, 0]


def test_an_error_of_many_lines_becomes_one(run, monkeypatch, capsys, tmp_path):
    def zeros(*size, device):
        raise RuntimeError("device 'cuda': CuPy is missing (Failed to import CuPy.\n\n  libnvrtc.so: no such file)")

    monkeypatch.setattr(minidl, "zeros", zeros)
    message = "device 'cuda': CuPy is missing (Failed to import CuPy. libnvrtc.so: no such file)"
    check_refused(run, capsys, tmp_path, "mnist_autoencoder", "cuda", message)


# -- what the examples take from minidl ---------------------------------------------------------------------------


@pytest.mark.parametrize("change", [lambda x: normalize(x, [0.2, 0.3], [0.4, 0.5]), lambda x: add_noise(x, 0.3)])
def test_images_are_prepared_where_they_are(monkeypatch, change):
    cupy_stand_in.install(monkeypatch)
    images, found = minidl.rand(3, 2, 4, 5, requires_grad=True), []
    for device in ("cpu", "cuda"):
        minidl.manual_seed(1)
        x = images.detach().to(device).requires_grad_()
        y = change(x)
        y.sum().backward()
        assert y.device == x.grad.device == x.device
        found.append([y.detach().cpu().numpy(), x.grad.cpu().numpy()])
    for here, there in zip(*found, strict=True):
        np.testing.assert_allclose(here, there, 1e-6)


def test_pictures_of_what_is_on_a_gpu(monkeypatch, tmp_path):
    cupy_stand_in.install(monkeypatch)
    counts, images = minidl.tensor([[3, 1], [0, 5]]), minidl.rand(3, 1, 4, 4)
    for device in ("cpu", "cuda"):
        plot.confusion_matrix(counts.to(device), ["cat", "dog"], tmp_path / f"counts_{device}.png")
        plot.show_images(images.to(device), path=tmp_path / f"images_{device}.png")
    for name in ("counts", "images"):
        assert (tmp_path / f"{name}_cpu.png").read_bytes() == (tmp_path / f"{name}_cuda.png").read_bytes()
