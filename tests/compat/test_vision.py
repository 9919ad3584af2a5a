"""torchvision's data sets, transforms and grids on small made-up files; test_vision_parity.py compares pixels."""

import io
import struct

import numpy as np
import pytest

import minidl
from minidl.compat.torchvision import datasets, transforms, utils
from minidl.compat.torchvision.transforms import functional as F
from minidl.data import DataLoader, Subset, normalize

Image = pytest.importorskip("PIL.Image", reason="needs the extra: pip install 'minidl[images]'")

N = 9
DIGITS = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
COLOURS = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5, 0.4, 0.3), (0.5, 0.2, 0.1))])
GREY_FIRST = transforms.Compose([transforms.Resize(20), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])


def idx(values):
    return struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def write_mnist(folder, name="MNIST"):
    raw = folder / name / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 256, (N, 28, 28), np.uint8)))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(N, dtype=np.uint8)))
    return folder


@pytest.fixture
def mnist(tmp_path):
    return write_mnist(tmp_path)


def text(value):
    return b"T" + struct.pack("<i", len(value)) + value


def pickled_by_python_2(pixels, labels):
    """A file of CIFAR-10's Python version: a dict of an array and a list, as Python 2 and NumPy 1 wrote them."""
    dtype = (
        b"cnumpy\ndtype\n"
        + text(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = b"J" + struct.pack("<i", len(pixels)) + b"J" + struct.pack("<i", 3072) + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01" + shape + dtype + b"\x89" + text(pixels.tobytes()) + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + numbers + b"u."


def write_cifar10(folder, write=pickled_by_python_2):
    inside = folder / "cifar-10-batches-py"
    inside.mkdir()
    rng = np.random.default_rng(1)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (inside / name).write_bytes(write(rng.integers(0, 256, (4, 3072), np.uint8), [3, 1, 4, 1]))
    return folder


# -- MNIST and FashionMNIST -------------------------------------------------------------------------------------


def test_mnist_has_torchvisions_attributes(mnist):
    digits = datasets.MNIST(str(mnist), train=False)
    assert (digits.data.shape, digits.data.dtype) == ((N, 28, 28), minidl.uint8)
    assert (digits.targets.tolist(), digits.targets.dtype) == (list(range(N)), minidl.int64)
    assert digits.classes[3] == "3 - three"
    assert digits.class_to_idx["9 - nine"] == 9
    assert len(digits) == N
    assert not digits.train
    image, label = digits[-1]
    assert (image.mode, image.size, label, type(label)) == ("L", (28, 28), N - 1, int)


@pytest.mark.parametrize("name", ["train_data", "test_data", "train_labels", "test_labels"])
def test_old_names(mnist, name):
    digits = datasets.MNIST(mnist)
    new = "data" if name.endswith("data") else "targets"
    assert getattr(digits, name) is getattr(digits, new)


@pytest.mark.parametrize(
    "transform",
    [
        DIGITS,
        transforms.ToTensor(),
        transforms.Compose(
            [transforms.ToTensor(), transforms.Resize(14), transforms.Pad(1), transforms.CenterCrop(12)]
        ),
        transforms.Compose([transforms.ToTensor(), transforms.Lambda(lambda x: 2 * x)]),
        GREY_FIRST,
    ],
    ids=["normalized", "floats", "fixed", "lambda", "PIL first"],
)
def test_a_batch_has_the_numbers_of_its_items(mnist, transform):
    digits = datasets.MNIST(mnist, transform=transform)
    images, labels = next(iter(DataLoader(digits, batch_size=4)))
    np.testing.assert_array_equal(images.array, np.stack([digits[i][0].array for i in range(4)]))
    assert (labels.tolist(), labels.dtype, images.dtype) == ([0, 1, 2, 3], minidl.int64, minidl.float32)


def test_whole_batches_are_transformed_at_once(mnist, monkeypatch):
    """Items would go through PIL images."""
    digits = datasets.MNIST(mnist, transform=DIGITS)
    monkeypatch.setattr(datasets._InMemory, "__getitem__", None)
    images, _ = next(iter(DataLoader(Subset(digits, [5, 2]), batch_size=2)))
    wanted = normalize(minidl.Tensor(digits.data.numpy()[[5, 2], None] / np.float32(255)), [0.1307], [0.3081])
    np.testing.assert_allclose(images.array, wanted.array, rtol=1e-6, atol=1e-6)


def test_target_transforms_changed_data_and_subclasses_are_seen_in_batches(mnist):
    digits = datasets.MNIST(mnist, transform=DIGITS, target_transform=lambda y: y % 2)
    assert next(iter(DataLoader(digits, batch_size=3)))[1].tolist() == [0, 1, 0]

    digits = datasets.MNIST(mnist, transform=DIGITS)
    digits.data, digits.targets = digits.data[3:], digits.targets[3:]
    assert len(digits) == N - 3
    assert next(iter(DataLoader(digits, batch_size=3)))[1].tolist() == [3, 4, 5]

    class Ones(datasets.MNIST):
        def __getitem__(self, index):
            return super().__getitem__(index)[0] * 0 + 1, 7

    images, labels = next(iter(DataLoader(Ones(root=str(write_mnist(mnist / "b")), transform=DIGITS), batch_size=2)))
    assert images.array.min() == images.array.max() == 1
    assert labels.tolist() == [7, 7]


def test_a_slice_of_a_data_set_is_refused_with_the_cure(mnist):
    with pytest.raises(TypeError, match=r"MNIST: an index must be an int, not slice\(None, 5, None\); Subset\(dataset"):
        datasets.MNIST(mnist)[:5]
    with pytest.raises(IndexError):
        datasets.MNIST(mnist)[N]


def test_missing_files_are_an_error_with_torchvisions_words(tmp_path):
    for kind in (datasets.MNIST, datasets.FashionMNIST, datasets.CIFAR10):
        with pytest.raises(RuntimeError, match="Dataset not found. You can use download=True to download it"):
            kind(tmp_path)


def test_fashion_mnist_is_read_from_its_own_folder_only(tmp_path):
    write_mnist(tmp_path)
    with pytest.raises(RuntimeError, match=r"FashionMNIST/raw\n.*: FashionMNIST\(root\), or the environment variable"):
        datasets.FashionMNIST(tmp_path)
    clothes = datasets.FashionMNIST(write_mnist(tmp_path, "FashionMNIST"), transform=DIGITS)
    assert clothes.classes[clothes[8][1]] == "Bag"
    assert minidl.data.FashionMNIST(tmp_path)[0][0].shape == (1, 28, 28)


@pytest.mark.parametrize("kind", ["MNIST", "FashionMNIST"])
def test_downloads_go_where_torchvision_looks(tmp_path, monkeypatch, kind):
    source = write_mnist(tmp_path / "mirror")
    asked = []

    def fetch(name, digest, mirrors, folder):
        asked.append((name, digest.partition(":")[0] == "md5"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((source / "MNIST/raw" / name.removesuffix(".gz")).read_bytes())

    monkeypatch.setattr("minidl.data.mnist.fetch", fetch)
    getattr(datasets, kind)(tmp_path, download=True)
    names = ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]
    assert asked == [(name, kind == "FashionMNIST") for name in names]
    assert sorted(path.name for path in (tmp_path / kind / "raw").iterdir()) == names


def test_a_file_may_be_known_by_its_md5(tmp_path):
    (tmp_path / "x").write_bytes(b"hello")
    known = "md5:5d41402abc4b2a76b9719d911017c592"
    assert minidl.data.download.fetch("x", known, [], tmp_path) == tmp_path / "x"
    (tmp_path / "x").write_bytes(b"hullo")
    with pytest.raises((minidl.data.DownloadError, ImportError)):
        minidl.data.download.fetch("x", known, [], tmp_path)


# -- CIFAR-10's Python version ----------------------------------------------------------------------------------


def test_cifar10_reads_torchvisions_files(tmp_path):
    photos = datasets.CIFAR10(write_cifar10(tmp_path), transform=COLOURS)
    assert (photos.data.shape, photos.data.dtype) == ((20, 32, 32, 3), np.uint8)
    assert photos.targets == [3, 1, 4, 1] * 5
    assert photos.classes[photos[0][1]] == "cat"
    first = np.random.default_rng(1).integers(0, 256, (4, 3072), np.uint8)[0].reshape(3, 32, 32)
    np.testing.assert_array_equal(photos.data[0].transpose(2, 0, 1), first)
    images, labels = next(iter(DataLoader(photos, batch_size=3)))
    np.testing.assert_array_equal(images.array, np.stack([photos[i][0].array for i in range(3)]))
    wanted = normalize(minidl.Tensor(first[None] / np.float32(255)), (0.5, 0.4, 0.3), (0.5, 0.2, 0.1)).array
    np.testing.assert_allclose(images.array[:1], wanted, rtol=1e-5, atol=1e-6)
    assert labels.tolist() == [3, 1, 4]
    assert len(datasets.CIFAR10(tmp_path, train=False)) == 4


def test_cifar10_reads_what_todays_numpy_pickles(tmp_path):
    import pickle

    write_cifar10(tmp_path, lambda pixels, labels: pickle.dumps({"data": pixels, "labels": labels}, protocol=4))
    assert datasets.CIFAR10(tmp_path).targets[:4] == [3, 1, 4, 1]


REST = b"K\x00\x85R."  # called with (0,), and the end
HOSTILE = {
    "os.system": b"\x80\x02cposix\nsystem\n" + text(b"true") + b"\x85R.",
    "builtins.eval": b"\x80\x02cbuiltins\neval\n" + text(b"1") + b"\x85R.",
    "numpy.load": b"\x80\x02cnumpy\nload\n" + REST,
    "numpy.ndarray.tofile": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93" + REST,
    "builtins.getattr": b"\x80\x02cbuiltins\ngetattr\n" + REST,
    "copy_reg._reconstructor": b"\x80\x02ccopy_reg\n_reconstructor\n" + REST,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_by_name(tmp_path, name):
    write_cifar10(tmp_path, lambda *_: HOSTILE[name])
    wanted = {"os.system": "posix.system"}.get(name, name)
    with pytest.raises(ValueError, match=f"data_batch_1: not a batch of CIFAR-10's .*: it asks for {wanted}, but"):
        datasets.CIFAR10(tmp_path)


def whole(pixels, labels):
    return pickled_by_python_2(pixels, labels)


DAMAGED = {
    "empty": lambda pixels, labels: b"",
    "cut": lambda pixels, labels: whole(pixels, labels)[:5000],
    "a list": lambda pixels, labels: b"\x80\x02].",
    "no array": lambda pixels, labels: b"\x80\x02}(" + text(b"data") + b"K\x01" + text(b"labels") + b"]u.",
    "fewer bytes than the shape says": lambda pixels, labels: whole(pixels[:, :3000], labels),
    "more labels than images": lambda pixels, labels: whole(pixels, [*labels, 1]),
    "no class": lambda pixels, labels: whole(pixels, [3, 1, 4, 10]),
    "a memo of gigabytes": lambda pixels, labels: b"\x80\x02}r\xff\xff\xff\x7f.",
    "a text of gigabytes": lambda pixels, labels: b"\x80\x02T\xff\xff\xff\x7fabc",
    "an array without a state": lambda pixels, labels: (
        b"\x80\x02}(" + text(b"data") + b"cnumpy\nndarray\n)R" + text(b"labels") + b"]u."
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_batch_is_refused(tmp_path, kind):
    write_cifar10(tmp_path, DAMAGED[kind])
    with pytest.raises(ValueError, match="data_batch_1: "):
        datasets.CIFAR10(tmp_path)


# -- other data sets --------------------------------------------------------------------------------------------


def test_fake_data_is_the_same_each_time_and_leaves_the_default_generator_alone():
    fake = datasets.FakeData(5, (3, 8, 6), num_classes=4, transform=transforms.ToTensor())
    minidl.manual_seed(1)
    state = repr(minidl.random.default_generator.get_state())
    (a, la), (b, lb), (c, _) = fake[2], fake[2], fake[3]
    assert repr(minidl.random.default_generator.get_state()) == state
    assert (a.shape, la) == ((3, 8, 6), lb)
    assert 0 <= la < 4
    np.testing.assert_array_equal(a.array, b.array)
    assert not np.array_equal(a.array, c.array)
    assert len(list(iter(fake))) == 5


def test_an_image_folder(tmp_path):
    for name, value in (("dog", 40), ("cat", 10), ("cat", 20)):
        (tmp_path / name / "deep").mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 3), value).save(tmp_path / name / "deep" / f"{value}.png")
    Image.new("RGB", (4, 3), (250, 0, 0)).save(tmp_path / "dog" / "A.JPG", "jpeg")
    (tmp_path / "dog" / "notes.txt").write_text("no picture")
    folder = datasets.ImageFolder(tmp_path, transform=transforms.ToTensor())
    assert (folder.classes, folder.class_to_idx) == (["cat", "dog"], {"cat": 0, "dog": 1})
    assert folder.targets == [0, 0, 1, 1]
    assert folder.imgs is folder.samples
    assert [path.rsplit("/", 1)[1] for path, _ in folder.samples] == ["10.png", "20.png", "A.JPG", "40.png"]
    image, label = folder[1]
    np.testing.assert_array_equal(image.array, np.full((3, 3, 4), np.float32(20) / 255, np.float32))
    images, labels = next(iter(DataLoader(folder, batch_size=4)))
    assert (images.shape, labels.tolist(), label) == ((4, 3, 3, 4), [0, 0, 1, 1], 0)


def test_what_is_no_image_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="Couldn't find any class folder in "):
        datasets.ImageFolder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="Found no valid file for the classes empty"):
        datasets.ImageFolder(tmp_path)
    assert len(datasets.ImageFolder(tmp_path, allow_empty=True)) == 0
    (tmp_path / "empty" / "x.txt").write_text("words")
    words = datasets.ImageFolder(
        tmp_path, str.upper, loader=lambda path: path.read_text(), is_valid_file=lambda path: path.endswith(".txt")
    )
    assert words.samples == [(str(tmp_path / "empty" / "x.txt"), 0)]


# -- transforms -------------------------------------------------------------------------------------------------


RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (12, 10, 3), np.uint8)
PICTURE = Image.fromarray(PIXELS)
TENSOR = minidl.Tensor(PIXELS.transpose(2, 0, 1).copy())  # uint8 (3, 12, 10)


def channels_last(image):
    """A result of any kind as an array (H, W, C)."""
    return image.numpy().transpose(1, 2, 0) if isinstance(image, minidl.Tensor) else np.atleast_3d(np.asarray(image))


SAME_ON_ALL = {
    "crop": lambda image: F.crop(image, -2, 3, 20, 9),
    "center_crop": lambda image: F.center_crop(image, (5, 14)),
    "pad": lambda image: F.pad(image, (1, 2, 3, 4), (9, 8, 7)),
    "reflect": lambda image: F.pad(image, [2, 1], padding_mode="reflect"),
    "hflip": F.hflip,
    "vflip": F.vflip,
    "rotate": lambda image: F.rotate(image, 180),
    "resize": lambda image: F.resize(image, 6),
    "grey": lambda image: F.rgb_to_grayscale(image, 3),
    "brightness": lambda image: F.adjust_brightness(image, 1.5),
    "contrast": lambda image: F.adjust_contrast(image, 0.5),
    "saturation": lambda image: F.adjust_saturation(image, 0.5),
}


@pytest.mark.parametrize("name", SAME_ON_ALL)
def test_pil_images_tensors_and_arrays_agree(name):
    """Within the rounding of Pillow's fixed-point arithmetic."""
    picture, tensor, array = (channels_last(SAME_ON_ALL[name](image)) for image in (PICTURE, TENSOR, PIXELS))
    np.testing.assert_array_equal(tensor, array)
    np.testing.assert_allclose(picture.astype(int), tensor.astype(int), atol=1)


def test_batches_and_grey_arrays_keep_their_form():
    batch = minidl.stack([TENSOR, TENSOR])
    np.testing.assert_array_equal(F.resize(batch, (4, 4)).array[1], F.resize(TENSOR, (4, 4)).array)
    assert F.resize(PIXELS[..., 0], 5).shape == (6, 5)
    assert F.get_dimensions(batch) == F.get_dimensions(PICTURE) == F.get_dimensions(PIXELS) == [3, 12, 10]


def test_a_quarter_turn_is_counterclockwise():
    x = np.arange(9.0).reshape(1, 3, 3)
    np.testing.assert_array_equal(F.rotate(minidl.Tensor(x), 90).array, np.rot90(x, axes=(1, 2)))
    np.testing.assert_array_equal(np.asarray(F.rotate(Image.fromarray(PIXELS[:10]), 90)), np.rot90(PIXELS[:10]))


def test_the_centre_of_a_smaller_image_has_zeros_around_it():
    """One more row and column after it than before, as torchvision pads."""
    for image in (minidl.ones(1, 2, 2), Image.new("L", (2, 2), 1)):
        assert channels_last(F.center_crop(image, 5))[..., 0].tolist() == np.pad(np.ones((2, 2)), (1, 2)).tolist()


def test_floats_are_not_rounded():
    x = minidl.Tensor(np.float32([[[0.25, 0.75]]]))
    np.testing.assert_array_equal(F.resize(x, (1, 1)).array, [[[0.5]]])
    assert F.adjust_brightness(x, 2.0).tolist() == [[[0.5, 1.0]]]


def test_to_tensor_and_back():
    x = transforms.ToTensor()(PICTURE)
    assert (x.shape, x.dtype) == ((3, 12, 10), minidl.float32)
    np.testing.assert_array_equal(x.array, PIXELS.transpose(2, 0, 1) / np.float32(255))
    np.testing.assert_array_equal(np.asarray(transforms.ToPILImage()(x)), PIXELS)
    assert transforms.ToTensor()(np.eye(2)).dtype == minidl.float64
    one_bit = Image.fromarray(np.eye(2, dtype=bool))
    assert transforms.ToTensor()(one_bit).tolist() == [[[1.0, 0.0], [0.0, 1.0]]]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: F.to_tensor(TENSOR), TypeError, "pic should be PIL Image or ndarray. Got .*Tensor"),
        (lambda: F.to_tensor(np.zeros(3)), ValueError, "pic should be 2/3 dimensional. Got 1 dimensions."),
        (lambda: F.to_pil_image("x"), TypeError, "should be a Tensor or ndarray of 2 or 3 dim.*str"),
        (lambda: COLOURS(PICTURE.convert("L")), ValueError, "mean must have 1 number"),
        (lambda: F.normalized(PICTURE, 0.5, 0), ValueError, "std must not be 0"),
        (lambda: F.hflip("x"), TypeError, "expected a PIL image, a tensor or an array .* not str"),
        (lambda: F.adjust_hue(TENSOR, 0.1), TypeError, "adjust_hue works on PIL images here, not on Tensor"),
        (lambda: F.rotate(TENSOR, 9, expand=True), TypeError, "rotate .*expand=True works on PIL images here"),
        (lambda: F.resize(TENSOR, 5, transforms.InterpolationMode.BICUBIC), TypeError, "BICUBIC works on PIL"),
        (lambda: F.pad(PICTURE, (1, 2, 3)), ValueError, "expected 1, 2 or 4 sizes and a known mode, not \\(1, 2, 3\\)"),
        (lambda: F.adjust_contrast(PICTURE, -1), ValueError, "Contrast: the factor must be at least 0, not -1"),
        (lambda: transforms.RandomCrop(30)(PICTURE), ValueError, r"\(30, 30\) is larger than .* \(12, 10\)"),
        (lambda: transforms.ColorJitter(brightness=-1), ValueError, "brightness must be .* not -1"),
        (lambda: transforms.RandomRotation((5, 1)), ValueError, r"degrees must be .* not \(5, 1\)"),
        (lambda: transforms.Resize(), TypeError, "missing a required argument: 'size'"),
    ],
)  # fmt: skip
def test_wrong_calls_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_random_transforms_follow_the_seed():
    chain = transforms.Compose([
        transforms.RandomCrop(9, padding=2), transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip(),
        transforms.RandomRotation(30), transforms.ColorJitter(0.4, 0.4, 0.4, 0.1), transforms.RandomResizedCrop(8),
        transforms.ToTensor(),
    ])  # fmt: skip

    def draws(seed):
        minidl.manual_seed(seed)
        return [chain(PICTURE).array.tolist() for _ in range(5)]

    assert draws(0) == draws(0) != draws(1)


def test_chances_of_0_and_1():
    for kind, change in ((transforms.RandomHorizontalFlip, F.hflip), (transforms.RandomVerticalFlip, F.vflip)):
        assert kind(0.0)(PICTURE) is PICTURE
        assert kind(p=1.0)(PICTURE).tobytes() == change(PICTURE).tobytes()


def test_what_random_transforms_draw():
    minidl.manual_seed(0)
    crops = {transforms.RandomCrop.get_params(PICTURE, (11, 9)) for _ in range(100)}
    assert crops == {(i, j, 11, 9) for i in (0, 1) for j in (0, 1)}
    x = minidl.arange(120.0).reshape(1, 12, 10)
    for _ in range(100):  # the least and the greatest of a crop tell where its corners are
        crop = transforms.RandomResizedCrop((40, 40), (0.2, 0.5), (0.5, 2), transforms.InterpolationMode.NEAREST)(x)
        (top, left), (bottom, right) = divmod(int(crop.array.min()), 10), divmod(int(crop.array.max()), 10)
        area, aspect = (bottom - top + 1) * (right - left + 1), (right - left + 1) / (bottom - top + 1)
        assert 0.2 * 120 - 6 <= area <= 0.5 * 120 + 6
        assert 0.4 < aspect < 2.5
    whole = transforms.RandomResizedCrop(10, (9, 9), (1, 1))(x)  # none fits: the middle
    assert whole.tolist() == x[:, 1:11].tolist()
    black = Image.new("RGB", (3, 3), (1, 1, 1))
    for _ in range(100):
        factor = np.asarray(transforms.ColorJitter(brightness=(100, 200))(black)).max()
        assert 100 <= factor <= 200
    turns = [transforms.RandomRotation([0, 180])(PICTURE).tobytes() for _ in range(20)]
    assert len(set(turns)) > 10
    assert transforms.RandomRotation([180, 180])(PICTURE).tobytes() == F.rotate(PICTURE, 180).tobytes()
    assert transforms.RandomCrop((20, 9), pad_if_needed=True)(PICTURE).size == (9, 20)


def test_transforms_are_modules_with_their_arguments():
    resize = transforms.Resize(5)
    assert isinstance(resize, minidl.nn.Module)
    assert (resize.size, resize.antialias) == (5, True)
    assert minidl.nn.Sequential(transforms.CenterCrop(4), transforms.Grayscale())(TENSOR).shape == (1, 4, 4)
    assert transforms.RandomCrop(3).size == (3, 3)


def test_normalize_takes_numbers_and_keeps_the_graph():
    x = minidl.ones(1, 2, 2, requires_grad=True)
    y = transforms.Normalize(0.5, 0.25)(x)
    y.sum().backward()
    assert y.tolist() == [[[2.0, 2.0], [2.0, 2.0]]]
    assert x.grad.tolist() == [[[4.0, 4.0], [4.0, 4.0]]]
    z = minidl.ones(1, 2, 2)
    F.normalize(z, [0.5], [0.5], inplace=True)
    assert z.tolist() == [[[1.0, 1.0], [1.0, 1.0]]]


# -- without Pillow ---------------------------------------------------------------------------------------------


def test_without_pillow_arrays_take_the_place_of_images(mnist, monkeypatch):
    wanted = datasets.MNIST(mnist, transform=DIGITS)[3][0]
    monkeypatch.setattr(F, "Image", None)
    monkeypatch.setattr(datasets, "Image", None)
    assert datasets.MNIST(mnist)[3][0].shape == (28, 28)
    chain = transforms.Compose(
        [transforms.RandomHorizontalFlip(0.0), transforms.Pad(2), transforms.CenterCrop(28), DIGITS]
    )
    np.testing.assert_array_equal(datasets.MNIST(mnist, transform=chain)[3][0].array, wanted.array)
    with pytest.raises(ImportError, match="pip install pillow"):
        utils.save_image(minidl.zeros(1, 2, 2), "x.png")
    with pytest.raises(ImportError, match="pip install pillow"):
        datasets.default_loader("x.png")


# -- grids ------------------------------------------------------------------------------------------------------


def test_a_grid():
    images = minidl.arange(3.0).reshape(3, 1, 1, 1)
    assert utils.make_grid(images, nrow=2, padding=1, pad_value=9.0).array[2].tolist() == [
        [9, 9, 9, 9, 9], [9, 0, 9, 1, 9], [9, 9, 9, 9, 9], [9, 2, 9, 9, 9], [9, 9, 9, 9, 9],
    ]  # fmt: skip
    same = utils.make_grid([minidl.ones(3, 2, 2), minidl.zeros(3, 2, 2)])
    assert same.shape == (3, 6, 10)


def test_a_grid_is_normalized_as_a_whole_each_or_from_a_range():
    images = minidl.tensor([[0.0, 1.0], [2.0, 4.0]]).reshape(2, 1, 1, 2)

    def values(**options):
        return utils.make_grid(images, padding=0, normalize=True, **options).array[0].tolist()

    assert values() == [[0.0, 0.25, 0.5, 1.0]]
    assert values(scale_each=True) == [[0.0, 1.0, 0.0, 1.0]]
    assert values(value_range=(1, 3)) == [[0.0, 0.0, 0.5, 1.0]]
    assert images.tolist()[1] == [[[2.0, 4.0]]]
    with pytest.raises(TypeError, match="tensor or list of tensors expected, got .'ndarray'"):
        utils.make_grid(images.numpy())


def test_images_are_saved_to_files_and_open_files(tmp_path):
    x = minidl.tensor([[-1.0, 0.0, 0.5], [0.999, 1.0, 7.0]]).reshape(1, 1, 2, 3)
    utils.save_image(x, tmp_path / "x.png")
    utils.save_image(x, str(tmp_path / "x.picture"), format="bmp")
    utils.save_image(x, buffer := io.BytesIO(), "png", nrow=1)
    for file in (tmp_path / "x.png", tmp_path / "x.picture", buffer):
        with Image.open(file) as image:
            assert image.mode == "RGB"
            assert np.asarray(image)[..., 1].tolist() == [[0, 0, 128], [255, 255, 255]]
