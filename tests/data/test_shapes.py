"""Made-up shapes: repeatable, balanced, masked exactly, and telling enough to learn from; and the transforms."""

import time

import numpy as np
import pytest

import minidl
from minidl import Tensor
from minidl.data import DataLoader, SyntheticShapes, add_noise, normalize, shapes
from minidl.random import Generator


@pytest.fixture(scope="module")
def drawn():
    return SyntheticShapes(1000, seed=0)


def test_has_the_face_of_cifar10(drawn):
    image, label = drawn[3]
    assert (image.shape, image.dtype, type(label)) == ((3, 32, 32), np.float32, int)
    assert (drawn.images.shape, drawn.images.dtype) == ((1000, 32, 32, 3), np.uint8)
    assert (drawn.masks.shape, drawn.masks.dtype) == ((1000, 32, 32), np.bool_)
    assert drawn.targets is drawn.labels
    assert len(set(drawn.classes)) == 10
    images, labels = next(iter(DataLoader(drawn, batch_size=64)))
    assert (images.shape, labels.shape, labels.dtype) == ((64, 3, 32, 32), (64,), np.int64)


def test_masks_as_targets(drawn):
    masked = SyntheticShapes(130, seed=0, target="mask")
    np.testing.assert_array_equal(masked.images, drawn.images[:130])
    image, mask = masked[7]
    assert (image.shape, mask.shape, mask.dtype) == ((3, 32, 32), (32, 32), np.int64)
    np.testing.assert_array_equal(mask.array, drawn.masks[7])
    images, masks = next(iter(DataLoader(masked, batch_size=64)))
    assert (images.shape, masks.shape, masks.dtype) == ((64, 3, 32, 32), (64, 32, 32), np.int64)
    np.testing.assert_array_equal(masks.array, drawn.masks[:64])
    np.testing.assert_array_equal(images.array[7], image.array)


@pytest.mark.parametrize("n", [0, 1, 99, 100, 101, 250])
def test_first_images_do_not_depend_on_n(drawn, n):
    few = SyntheticShapes(n, seed=0)
    for name in ("images", "labels", "masks"):
        np.testing.assert_array_equal(getattr(few, name), getattr(drawn, name)[:n])


def test_seeds_differ_and_numpys_state_is_left_alone(drawn):
    before = np.random.get_state()[1].copy()
    other = SyntheticShapes(100, seed=1)
    assert (other.images != drawn.images[:100]).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_classes_are_balanced_and_shuffled(drawn):
    tens = drawn.labels.reshape(-1, 10)
    np.testing.assert_array_equal(np.sort(tens, axis=1), np.tile(np.arange(10), (100, 1)))
    assert len(np.unique(tens, axis=0)) > 90


def test_each_shape_is_there_and_no_image_twice(drawn):
    share = drawn.masks.mean(axis=(1, 2))
    assert share.min() > 0.02
    assert share.max() < 0.6
    assert len(np.unique(drawn.images.reshape(1000, -1), axis=0)) == 1000


def test_shape_and_ground_differ(drawn):
    images = drawn.images / 255.0
    inside, outside = drawn.masks[..., None], ~drawn.masks[..., None]
    gap = (images * inside).sum((1, 2)) / inside.sum((1, 2)) - (images * outside).sum((1, 2)) / outside.sum((1, 2))
    distance = np.linalg.norm(gap, axis=1)  # (1000,)
    assert np.percentile(distance, 2) > 0.15
    assert np.median(distance) < 0.9


def test_pixels_alone_do_not_tell_the_class(drawn):
    x = np.c_[drawn.images.reshape(1000, -1) / 255.0, np.ones(1000)]
    test = SyntheticShapes(500, seed=9)
    ridge = np.linalg.solve(x @ x.T + 30 * np.eye(1000), np.eye(10)[drawn.labels])  # (1000, 10)
    scores = np.c_[test.images.reshape(500, -1) / 255.0, np.ones(500)] @ (x.T @ ridge)
    assert (scores.argmax(axis=1) == test.labels).mean() < 0.4


def test_masks_have_the_proportions_of_their_shapes():
    """The second moment over the squared area, which neither place nor size nor direction changes."""
    drawn = SyntheticShapes(2000, seed=3)
    inner = drawn.masks[:, 2:-2, 2:-2]
    whole = drawn.masks.sum(axis=(1, 2)) == inner.sum(axis=(1, 2))  # not cut by the image's edge
    area = drawn.masks.sum(axis=(1, 2))
    y, x = np.mgrid[:32, :32]
    second = ((x**2 + y**2) * drawn.masks).sum((1, 2)) / area
    second -= ((x * drawn.masks).sum((1, 2)) / area) ** 2 + ((y * drawn.masks).sum((1, 2)) / area) ** 2
    spread = second / area
    by_class = {name: spread[whole & (drawn.labels == i)].mean() for i, name in enumerate(drawn.classes)}
    assert by_class["circle"] == pytest.approx(1 / (2 * np.pi), rel=0.02)
    assert by_class["square"] == pytest.approx(1 / 6, rel=0.02)
    assert by_class["triangle"] == pytest.approx(1 / (3 * 3**0.5), rel=0.03)
    assert by_class["ellipse"] == pytest.approx((1.05**2 + 0.55**2) / (4 * np.pi * 1.05 * 0.55), rel=0.03)
    assert by_class["ring"] == pytest.approx((1 + 0.52**2) / (2 * np.pi * (1 - 0.52**2)), rel=0.05)


@pytest.mark.parametrize("name", list(shapes.SHAPES))
def test_distances_are_distances(name):
    """Near the edge, walking by one unit changes the distance by one: what makes edges smooth alike."""
    step = 1e-3
    y, x = np.mgrid[-1.4:1.4:0.02, -1.4:1.4:0.02]
    shape = shapes.SHAPES[name]
    slope = np.hypot(shape(x + step, y) - shape(x - step, y), shape(x, y + step) - shape(x, y - step)) / (2 * step)
    near = np.abs(shape(x, y)) < 0.05
    assert near.sum() > 300
    assert np.median(slope[near]) == pytest.approx(1, abs=0.05)
    assert (np.abs(slope[near] - 1) < 0.25).mean() > 0.9  # but for corners


def test_polygon_by_its_definition():
    square = shapes.polygon((0.0, 0.0), (2.0, 0.0), (2.0, 1.0), (0.0, 1.0))
    x, y = np.array([1.0, 1.0, 3.0, 3.0, 0.25, -2.0]), np.array([0.5, 2.0, 0.5, 2.0, 0.5, 0.5])
    np.testing.assert_allclose(square(x, y), [-0.5, 1.0, 1.0, 2**0.5, -0.25, 2.0], rtol=1e-6)


def test_ten_thousand_do_not_take_long():
    started = time.perf_counter()
    SyntheticShapes(1000, seed=5)
    assert time.perf_counter() - started < 2  # 0.1 s on a quiet machine


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n": -1}, "SyntheticShapes: n must be .* not -1"),
        ({"n": 2.5}, r"not 2\.5"),
        ({"seed": -3}, "seed must be .* not -3"),
        ({"target": "masks"}, "target must be 'label' or 'mask', not 'masks'"),
    ],
)
def test_refuses_other_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SyntheticShapes(**kwargs)


# -- transforms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 5), (2, 2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalize_each_channel(shape, dtype):
    x = np.random.default_rng(0).random(shape).astype(dtype)
    mean, std = [0.1, 0.5, 0.9], (1.0, 2.0, 0.25)
    y = normalize(Tensor(x), mean, std)
    assert y.dtype == dtype
    for c in range(3):
        np.testing.assert_allclose(y.array[..., c, :, :], (x[..., c, :, :] - mean[c]) / std[c], rtol=1e-5, atol=1e-6)


def test_normalize_by_one_number_and_with_a_gradient():
    x = Tensor(np.ones((1, 3, 2, 2)), requires_grad=True)
    y = normalize(x, [0.5], [0.25])
    np.testing.assert_allclose(y.detach().numpy(), 2.0)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.array, 4.0)


@pytest.mark.parametrize(
    ("images", "mean", "std", "error", "message"),
    [
        (np.ones((3, 2, 2)), [0], [1], TypeError, "images must be a Tensor, not ndarray"),
        (Tensor(np.ones((3, 2, 2), np.uint8)), [0], [1], TypeError, "must be a float tensor, not uint8"),
        (Tensor(np.ones((2, 2))), [0], [1], ValueError, r"must have shape \(\.\.\., C, H, W\), not \(2, 2\)"),
        (Tensor(np.ones((3, 2, 2))), [0, 0], [1], ValueError, "mean must have 1 number or 3, one per channel, not 2"),
        (Tensor(np.ones((3, 2, 2))), [0], [1] * 4, ValueError, "std must have 1 number or 3, one per channel, not 4"),
        (Tensor(np.ones((3, 2, 2))), [0], [1, 0, 1], ValueError, r"std must not be 0, .*; it is \(1, 0, 1\)"),
        (Tensor(np.ones((1, 2, 2), np.float32)), [0], [1e-60], ValueError, "std must not be 0, .* in float32"),
    ],
)
def test_normalize_refuses(images, mean, std, error, message):
    with pytest.raises(error, match=message):
        normalize(images, mean, std)


def test_noise_has_its_size_and_stays_between_0_and_1():
    grey = Tensor(np.full((1, 3, 200, 200), 0.5, np.float32))
    noisy = add_noise(grey, 0.1)
    assert noisy.dtype == np.float32
    assert noisy.array.std() == pytest.approx(0.1, rel=0.02)
    assert noisy.array.mean() == pytest.approx(0.5, abs=0.002)
    strong = add_noise(grey, 5.0).array
    assert (strong.min(), strong.max()) == (0, 1)
    assert (grey.array == 0.5).all()


def test_noise_is_the_generators():
    x = Tensor(np.full((2, 1, 8, 8), 0.5))
    first, second, third = (add_noise(x, 0.2, Generator().manual_seed(s)).array for s in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != third).any()
    minidl.manual_seed(1)
    np.testing.assert_array_equal(add_noise(x, 0.2).array, first)


def test_no_noise_draws_nothing():
    state = str(minidl.random.default_generator.get_state())
    x = Tensor(np.ones((1, 2, 2)))
    assert add_noise(x, 0) is x
    assert str(minidl.random.default_generator.get_state()) == state


@pytest.mark.parametrize("sigma", [-0.1, float("nan")])
def test_noise_refuses(sigma):
    with pytest.raises(ValueError, match=f"add_noise: sigma must be at least 0, not {sigma}"):
        add_noise(Tensor(np.ones((1, 2, 2))), sigma)
