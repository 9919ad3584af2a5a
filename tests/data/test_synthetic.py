"""Made-up digits: repeatable, balanced, placed as in MNIST, and telling enough to learn from."""

import numpy as np
import pytest

from minidl.data import DataLoader, SyntheticDigits


@pytest.fixture(scope="module")
def digits():
    return SyntheticDigits(1000, seed=0)


def test_has_the_face_of_mnist(digits):
    image, label = digits[3]
    assert (image.shape, image.dtype, type(label)) == ((1, 28, 28), np.float32, int)
    assert (digits.images.shape, digits.images.dtype) == ((1000, 28, 28), np.uint8)
    assert digits.targets is digits.labels
    images, labels = next(iter(DataLoader(digits, batch_size=64)))
    assert (images.shape, labels.shape, labels.dtype) == ((64, 1, 28, 28), (64,), np.int64)


@pytest.mark.parametrize("n", [0, 1, 99, 100, 101, 250])
def test_first_images_do_not_depend_on_n(digits, n):
    few = SyntheticDigits(n, seed=0)
    np.testing.assert_array_equal(few.images, digits.images[:n])
    np.testing.assert_array_equal(few.labels, digits.labels[:n])


def test_seeds_differ_and_numpys_state_is_left_alone(digits):
    before = np.random.get_state()[1].copy()
    assert (SyntheticDigits(100, seed=1).images != digits.images[:100]).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_classes_are_balanced_and_shuffled(digits):
    tens = digits.labels.reshape(-1, 10)
    np.testing.assert_array_equal(np.sort(tens, axis=1), np.tile(np.arange(10), (100, 1)))
    assert len(np.unique(tens, axis=0)) > 90


def test_placed_like_mnist(digits):
    mass = digits.images / 255.0  # (N, 28, 28)
    grid = np.arange(28)
    total = mass.sum(axis=(1, 2))
    y, x = (mass.sum(axis=2) @ grid) / total, (mass.sum(axis=1) @ grid) / total
    assert np.abs(x - 13.5).max() < 0.8
    assert np.abs(y - 13.5).max() < 0.8
    size = np.maximum((mass.max(axis=2) > 0.5).sum(axis=1), (mass.max(axis=1) > 0.5).sum(axis=1))
    assert np.percentile(size, 2) >= 17
    assert np.percentile(size, 98) <= 22


def test_no_image_is_empty_full_or_twice_there(digits):
    mean = digits.images.mean(axis=(1, 2))
    assert mean.min() > 8
    assert mean.max() < 90
    assert 25 < mean.mean() < 45  # MNIST: 33
    assert len(np.unique(digits.images.reshape(1000, -1), axis=0)) == 1000
    assert (digits.images.reshape(1000, -1).max(axis=1) > 180).all()


def test_nearest_neighbours_recognise_another_seed(digits):
    test = SyntheticDigits(300, seed=9)
    a, b = (set_.images.reshape(len(set_), -1) / 255.0 for set_ in (test, digits))
    distance = (b**2).sum(axis=1) - 2 * a @ b.T  # (300, 1000), up to a constant in each row
    accuracy = (digits.labels[distance.argmin(axis=1)] == test.labels).mean()
    assert accuracy > 0.9


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n": -1}, "SyntheticDigits: n must be .* not -1"),
        ({"n": 2.5}, r"not 2\.5"),
        ({"seed": -3}, "seed must be .* not -3"),
    ],
)
def test_refuses_other_sizes_and_seeds(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SyntheticDigits(**kwargs)
