"""The pixels of torchvision 0.28 (with PyTorch 2.13) and of its stand-in: all slow, and skipped without torchvision."""

import io

import numpy as np
import pytest

import minidl
from minidl.compat.torchvision import datasets, transforms, utils
from minidl.compat.torchvision.transforms import functional as F
from tests.compat.test_vision import write_cifar10, write_mnist

torch = pytest.importorskip("torch", reason="compares with PyTorch (pip install torch==2.13.0 torchvision==0.28.0)")
real = pytest.importorskip("torchvision", reason="compares with torchvision (pip install torchvision==0.28.0)")
Image = pytest.importorskip("PIL.Image")

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(0)
PIXELS = {mode: RNG.integers(0, 256, (23, 31, bands), np.uint8) for mode, bands in (("L", 1), ("RGB", 3), ("RGBA", 4))}
STEP = 1 / 255
PAD_MODES = "constant", "edge", "reflect", "symmetric"


def picture(mode):
    return Image.fromarray(PIXELS[mode].squeeze())


def inputs(mode, kind):
    """The same image for both libraries."""
    planes = PIXELS[mode].transpose(2, 0, 1).copy()
    if kind == "float":
        planes = planes / np.float32(255)
    return (picture(mode),) * 2 if kind == "PIL" else (torch.tensor(planes), minidl.Tensor(planes))


def values(image):
    """The numbers of a result, from 0 to 1, and its kind."""
    if isinstance(image, Image.Image):
        return np.asarray(image) / 255, image.mode
    array = image.numpy()
    return (array / 255 if array.dtype == np.uint8 else array), array.dtype


def assert_same(theirs, ours, tolerance):
    (expected, kind), (got, ours_kind) = values(theirs), values(ours)
    assert ours_kind == kind
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


CALLS = [
    *(("resize", [size]) for size in (10, 40, [7, 50], [23, 31], [64, 9], [12])),
    ("resize", [[10, 40]], {"antialias": False}),
    *(("pad", [p], {"padding_mode": m}) for p in (3, [1, 2], [1, 2, 3, 4]) for m in PAD_MODES),
    ("pad", [3], {"fill": 100}),
    *(("center_crop", [size]) for size in (10, [9, 12], [40, 40], [30, 20], [24, 32], [8, 9], [25, 40])),
    *(("crop", box) for box in ([-2, 3, 40, 10], [2, 3, 4, 10], [20, 25, 10, 10])),
    ("hflip", []),
    ("vflip", []),
    *(("rotate", [angle], options) for angle in (10, 90, -37.5) for options in ({}, {"center": [3, 4]})),
]  # fmt: skip
COLOURS = [
    *((f"adjust_{name}", [factor]) for name in ("brightness", "contrast", "saturation") for factor in (0.6, 1.7)),
    ("rgb_to_grayscale", [1]),
    ("rgb_to_grayscale", [3]),
]
PIL_ONLY = [
    *(("adjust_hue", [turn]) for turn in (-0.3, 0.2, 0.5)),
    *(("rotate", [angle], {"expand": True, "fill": 100}) for angle in (10, 90, -37.5)),
    ("pad", [3], {"fill": 7}),
    ("rotate", [20, transforms.InterpolationMode.BILINEAR]),
    *(("resize", [[11, 40], mode]) for mode in transforms.InterpolationMode),
]


def names(call):
    return f"{call[0]}{call[1:]}".replace("InterpolationMode.", "")


def both(call, theirs, ours):
    name, args, *options = call
    options = options[0] if options else {}
    modes = transforms.InterpolationMode
    for_real = [real.transforms.InterpolationMode(a.value) if isinstance(a, modes) else a for a in args]
    return getattr(real.transforms.functional, name)(theirs, *for_real, **options), getattr(F, name)(
        ours, *args, **options
    )


def cases():
    """Each function on each kind of image that torchvision takes."""
    for call in [*CALLS, *COLOURS]:
        for mode in PIXELS:
            for kind in ("PIL", "float", "byte"):
                refused = mode == "RGBA" or (mode == "L" and call[0] == "rgb_to_grayscale" and kind != "PIL")
                if call in CALLS or not refused:
                    yield pytest.param(call, mode, kind, id=f"{names(call)}-{mode}-{kind}")


@pytest.mark.filterwarnings("ignore:Anti-alias option is always applied")
@pytest.mark.parametrize(("call", "mode", "kind"), list(cases()))
def test_functions(call, mode, kind):
    tolerance = {"PIL": 0, "float": 3e-6, "byte": STEP * 1.01}[kind]
    assert_same(*both(call, *inputs(mode, kind)), tolerance)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("call", PIL_ONLY, ids=names)
def test_functions_of_pil_images(call, mode):
    assert_same(*both(call, *inputs(mode, "PIL")), 0)


@pytest.mark.parametrize("mode", ["1", "I;16", "I", "F", "L", "RGB", "RGBA"])
def test_to_tensor_and_back(mode):
    grey = PIXELS["L"].squeeze()
    wide = Image.fromarray(grey.astype(np.uint16) * 200)
    image = picture(mode) if mode in PIXELS else wide if mode == "I;16" else Image.fromarray(grey).convert(mode)
    theirs, ours = real.transforms.ToTensor()(image), transforms.ToTensor()(image)
    assert_same(theirs, ours, 0)
    name = "F" if mode == "F" else None
    assert_same(real.transforms.ToPILImage(name)(theirs), transforms.ToPILImage(name)(ours), 0)


def test_floats_outside_of_0_to_1_wrap_like_pytorchs():
    x = RNG.normal(size=(3, 5, 6)).astype(np.float32) * 2
    assert_same(real.transforms.functional.to_pil_image(torch.tensor(x)), F.to_pil_image(minidl.Tensor(x)), 0)


@pytest.mark.parametrize("mean", [(0.5,) * 3, (0.485, 0.456, 0.406), (0.5,)], ids=str)
def test_normalized(mean):
    def chain(t):
        return t.Compose([t.ToTensor(), t.Normalize(mean, [value / 2 for value in mean])])(picture("RGB"))

    assert_same(chain(real.transforms), chain(transforms), 1e-6)


def test_random_crops_with_the_same_draws(monkeypatch):
    """torchvision is given what minidl drew."""
    ours, theirs = transforms.RandomCrop, real.transforms.RandomCrop
    drawn, draw = [], ours.get_params

    def draw_and_keep(*args):
        drawn.append(draw(*args))
        return drawn[-1]

    monkeypatch.setattr(ours, "get_params", staticmethod(draw_and_keep))
    monkeypatch.setattr(theirs, "get_params", staticmethod(lambda *_: drawn.pop()))
    for _ in range(10):
        got = ours(20, 4)(picture("RGB"))
        assert_same(theirs(20, 4)(picture("RGB")), got, 0)


GRIDS = {
    "plain": {}, "narrow": {"nrow": 3}, "tight": {"padding": 0}, "normalized": {"normalize": True},
    "range": {"normalize": True, "value_range": (-1, 1)}, "each": {"normalize": True, "scale_each": True},
    "both": {"normalize": True, "scale_each": True, "value_range": (0, 0.5)},
    "framed": {"pad_value": 0.7, "nrow": 2, "padding": 5},
}  # fmt: skip


@pytest.mark.parametrize("options", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize(
    "shape", [(7, 3, 5, 6), (7, 1, 5, 6), (1, 3, 5, 6), (3, 5, 6), (1, 5, 6), (5, 6), (9, 2, 4, 4)], ids=str
)
def test_grids_and_their_files(shape, options):
    x = RNG.normal(size=shape).astype(np.float32)
    theirs, ours = real.utils.make_grid(torch.tensor(x), **options), utils.make_grid(minidl.Tensor(x), **options)
    assert_same(theirs, ours, 1e-6)
    if len(theirs) == 3:
        a, b = io.BytesIO(), io.BytesIO()
        real.utils.save_image(torch.tensor(x), a, "png", **options)
        utils.save_image(minidl.Tensor(x), b, "png", **options)
        assert_same(Image.open(a), Image.open(b), STEP if "value_range" in options else 0)


def test_grids_of_lists_and_of_bytes():
    x = RNG.integers(0, 256, (5, 3, 4, 5), np.uint8)
    assert_same(real.utils.make_grid(list(torch.tensor(x))), utils.make_grid(list(map(minidl.Tensor, x))), 0)


def test_data_sets(tmp_path, monkeypatch):
    monkeypatch.setattr(real.datasets.cifar, "check_integrity", lambda *_: True)
    monkeypatch.setattr(real.datasets.CIFAR10, "_load_meta", lambda self: None)
    write_mnist(write_mnist(tmp_path), "FashionMNIST")
    write_cifar10(tmp_path)
    for name in ("MNIST", "FashionMNIST", "CIFAR10"):
        for train in (True, False):
            theirs, ours = getattr(real.datasets, name)(tmp_path, train), getattr(datasets, name)(tmp_path, train)
            assert np.array_equal(np.asarray(ours.data), np.asarray(theirs.data))
            assert np.array_equal(np.asarray(ours.targets), np.asarray(theirs.targets))
            assert type(ours.targets) is type(theirs.targets) or name != "CIFAR10"
            if name != "CIFAR10":
                assert ours.classes == theirs.classes
            for i in (0, -1):
                (a, la), (b, lb) = theirs[i], ours[i]
                assert_same(a, b, 0)
                assert la == lb


def test_image_folders(tmp_path):
    for i, name in enumerate(("b/x.png", "a/y.jpg", "a/deep/z.bmp", "a/deep/x.PNG")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(PIXELS["RGB"], i)).save(tmp_path / name)
    theirs, ours = real.datasets.ImageFolder(tmp_path), datasets.ImageFolder(tmp_path)
    assert (ours.samples, ours.classes) == (theirs.samples, theirs.classes)
    for (a, _), (b, _) in zip(theirs, ours, strict=True):
        assert_same(a, b, 0)
