"""Grids as torchvision makes them, sheets with each pixel in its place, and curves with what was measured in them."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import Tensor, plot

pytest.importorskip("matplotlib")


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape)


def pixels(figure):
    """What the figure looks like, uint8 (H, W, 3)."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def contains(picture, patch):
    """Whether `patch` is somewhere in `picture`, pixel by pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, patch.shape)[:, :, 0]
    corner = (windows[..., 0, 0, :] == patch[0, 0]).all(-1)
    return any((windows[y, x] == patch).all() for y, x in np.argwhere(corner))


# -- make_grid --------------------------------------------------------------------------------------------------


@given(
    n=st.integers(2, 9),
    channels=st.sampled_from([1, 2, 3]),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    nrow=st.integers(1, 10),
    padding=st.integers(0, 3),
)
def test_grid_has_each_image_in_its_place(n, channels, size, nrow, padding):
    images = noise(n, channels, *size)
    grid = plot.make_grid(Tensor(images), nrow, padding, pad_value=7.0).numpy()
    columns, rows = min(nrow, n), math.ceil(n / min(nrow, n))
    height, width = size
    expected = (
        3 if channels == 1 else channels,
        rows * (height + padding) + padding,
        columns * (width + padding) + padding,
    )
    assert grid.shape == expected
    for k in range(n):
        top = padding + (height + padding) * (k // columns)
        left = padding + (width + padding) * (k % columns)
        cell = grid[:, top : top + height, left : left + width]
        np.testing.assert_array_equal(cell, np.broadcast_to(images[k], cell.shape))
        cell[...] = 7
    assert (grid == 7).all()  # nothing but padding is left


def test_one_image_has_no_padding():
    image = noise(1, 4, 5)
    for given_ in (image, image[0], image[None], [image], Tensor(image)):
        grid = plot.make_grid(given_).numpy()
        np.testing.assert_array_equal(grid, image.repeat(3, axis=0))
    assert not np.shares_memory(plot.make_grid(noise(1, 3, 2, 2)).numpy(), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_grid_keeps_type_and_takes_lists(dtype):
    images = (255 * noise(5, 3, 2, 2)).astype(dtype)
    grid = plot.make_grid(images)
    assert (type(grid), grid.dtype) == (Tensor, dtype)
    np.testing.assert_array_equal(plot.make_grid([Tensor(image) for image in images]).array, grid.array)


def test_grid_normalizes_all_images_together():
    images = noise(4, 3, 2, 2) * 10 - 3
    grid = plot.make_grid(images.astype(np.float32), 2, 0, True)
    assert grid.dtype == np.float32
    expected = (images[3] - images.min()) / (images.max() - images.min())
    np.testing.assert_allclose(grid.array[:, 2:, 2:], expected, rtol=1e-5)
    assert (plot.make_grid(np.ones((2, 1, 2, 2)), padding=0, normalize=True).array == 0).all()  # no division by 0
    assert plot.make_grid(Tensor(images, requires_grad=True)).requires_grad is False


@pytest.mark.parametrize(
    ("images", "kwargs", "error", "message"),
    [
        (noise(2), {}, ValueError, r"images must have shape \(N, C, H, W\), .* not \(2,\)"),
        (noise(1, 1, 1, 2, 2), {}, ValueError, r"no size 0, not \(1, 1, 1, 2, 2\)"),
        (noise(0, 3, 2, 2), {}, ValueError, r"no size 0, not \(0, 3, 2, 2\)"),
        ([], {}, ValueError, r"no size 0, not \(0,\)"),
        ([noise(1, 2, 2), noise(1, 2, 3)], {}, ValueError, r"the same shape, not \[\(1, 2, 2\), \(1, 2, 3\)\]"),
        (noise(2, 1, 2, 2), {"nrow": 0}, ValueError, "nrow must be at least 1 .* they are 0 and 2"),
        (noise(2, 1, 2, 2), {"padding": -1}, ValueError, "padding at least 0, but they are 8 and -1"),
        (np.ones((2, 1, 2, 2), np.uint8), {"normalize": True}, TypeError, "needs float images, not uint8"),
    ],
)
def test_grid_refuses(images, kwargs, error, message):
    with pytest.raises(error, match=message):
        plot.make_grid(images, **kwargs)


# -- show_images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_sheet_shows_each_image_pixel_by_pixel(channels):
    images = (255 * noise(5, channels, 32, 32)).astype(np.uint8)
    for given_ in (images, Tensor(images), images / np.float32(255), {"a": images[:2], "b": images[2:]}, list(images)):
        picture = pixels(plot.show_images(given_, nrow=3, title="A title"))
        for image in images:
            enlarged = image.transpose(1, 2, 0).repeat(2, axis=0).repeat(2, axis=1)  # 64 pixels
            assert contains(picture, np.broadcast_to(enlarged, (64, 64, 3)))


def test_rows_may_differ_in_length_and_size():
    rows = {"image": noise(4, 3, 28, 28), "maps": noise(6, 1, 7, 7), "huge": noise(1, 1, 100, 80)}
    figure = plot.show_images(rows, title="Features")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(rows)
    picture = pixels(figure)
    for row, factor in ((rows["image"], 2), (rows["maps"], 9), (rows["huge"], 1)):  # each about 64 pixels, or more
        last = (255 * row[-1] + 0.5).astype(np.uint8).transpose(1, 2, 0)
        enlarged = last.repeat(factor, axis=0).repeat(factor, axis=1)
        assert contains(picture, np.broadcast_to(enlarged, (*enlarged.shape[:2], 3)))


def test_titles_stand_over_their_images():
    words = ["cat", "dog", "ship"]
    figure = plot.show_images(noise(3, 1, 32, 32), words, nrow=2)
    placed = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    assert list(placed) == words
    assert placed["cat"][1] == placed["dog"][1] < placed["ship"][1]
    assert placed["cat"][0] == placed["ship"][0] < placed["dog"][0]
    figure = plot.show_images({"a": noise(2, 1, 8, 8), "b": noise(3, 1, 8, 8)}, words)
    assert [text.get_text() for text in figure.axes[0].texts] == words


def test_all_text_is_inside_the_picture():
    figure = plot.show_images({"a very long name of a row": noise(1, 1, 8, 8)}, title="A title that is wider than this")
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    for text in (*figure.axes[0].get_yticklabels(), figure._suptitle):
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y0 >= 0
        assert box.y1 <= height


def test_values_beyond_0_and_1_are_cut_off():
    image = np.array([[-1.0, 0.0], [1.0, 2.0]])
    picture = pixels(plot.show_images(image))
    np.testing.assert_array_equal(picture, pixels(plot.show_images(image.clip(0, 1))))
    pixels(plot.show_images(np.array([[np.nan, np.inf]])))


@pytest.mark.parametrize(
    ("images", "kwargs", "message"),
    [
        (noise(2, 4, 3, 3), {}, r"must have 1 channel or 3, not 4: shape \(2, 4, 3, 3\)"),
        (noise(3), {}, r"no size 0, not \(3,\)"),
        ({}, {}, "at least one row of images, but the dict is empty"),
        (noise(2, 1, 3, 3), {"titles": ["a"]}, "titles: expected 2, one for each image, not 1"),
        ({"a": noise(2, 1, 3, 3)}, {"titles": ["a"] * 3}, "titles: expected 2, one for each column, not 3"),
        (noise(2, 1, 3, 3), {"nrow": 0}, "nrow must be at least 1, not 0"),
    ],
)
def test_sheet_refuses(images, kwargs, message):
    with pytest.raises(ValueError, match=message):
        plot.show_images(images, **kwargs)


# -- curves -----------------------------------------------------------------------------------------------------


def test_curves_show_what_they_are_given():
    series = {"train": [3.0, 2.0, 1.5], "test": [3.5, 2.5]}
    figure = plot.curves(series, ylabel="loss per pixel", title="A run", log=True)
    axis = figure.axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axis.get_lines()}
    assert lines == {"train": [[1, 3], [2, 2], [3, 1.5]], "test": [[1, 3.5], [2, 2.5]]}
    labels = (axis.get_xlabel(), axis.get_ylabel(), figure.get_suptitle(), axis.get_yscale())
    assert labels == ("epoch", "loss per pixel", "A run", "log")
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["train", "test"]


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 30])
def test_epochs_are_whole(epochs):
    figure = plot.curves({"loss": np.ones(epochs)})
    figure.canvas.draw()
    ticks = figure.axes[0].get_xticks()
    np.testing.assert_array_equal(ticks, np.round(ticks))


def test_x_as_given():
    axis = plot.curves({"a": [1, 2]}, x=[0.25, 0.5]).axes[0]
    assert axis.get_lines()[0].get_xdata().tolist() == [0.25, 0.5]
    assert any(tick != round(tick) for tick in axis.get_xticks())


def test_smoothing_keeps_parabolas_and_halves_noise():
    t = np.arange(200.0)
    parabola = 5 + 0.1 * t - 0.001 * t**2
    raw, smooth = plot.curves({"a": parabola}, smooth=21).axes[0].get_lines()
    np.testing.assert_allclose(smooth.get_ydata(), parabola)
    np.testing.assert_allclose(raw.get_ydata(), parabola)
    assert raw.get_alpha() < 0.5
    assert (raw.get_label()[0], smooth.get_label()) == ("_", "a")  # one entry in the legend
    rough = np.random.default_rng(0).normal(size=200)
    _, smooth = plot.curves({"a": rough}, smooth=21).axes[0].get_lines()
    assert smooth.get_ydata().std() < 0.5 * rough.std()


def test_smoothing_of_logarithms():
    _, smooth = plot.curves({"a": np.exp(-np.arange(60.0))}, smooth=9, log=True).axes[0].get_lines()
    np.testing.assert_allclose(smooth.get_ydata(), np.exp(-np.arange(60.0)))
    with_gap = np.ones(60)
    with_gap[30] = 0
    _, smooth = plot.curves({"a": with_gap}, smooth=9, log=True).axes[0].get_lines()
    assert np.isfinite(smooth.get_ydata()).sum() >= 50


@pytest.mark.parametrize(("n", "lines"), [(0, 1), (1, 1), (4, 1), (5, 2), (6, 2), (30, 2)])
def test_few_values_are_smoothed_less_or_not_at_all(n, lines):
    assert len(plot.curves({"a": np.ones(n)}, smooth=51).axes[0].get_lines()) == lines


@pytest.mark.parametrize(
    ("series", "kwargs", "message"),
    [
        ({}, {}, "at least one curve, but the dict is empty"),
        ({"a": [1, 2]}, {"smooth": 4}, "smooth must be 0 or an odd number of at least 5, not 4"),
        ({"a": [1, 2]}, {"smooth": 3}, "odd number of at least 5, not 3"),
        ({"a": [1, 2]}, {"x": [1]}, r"curve 'a' has shape \(2,\), but x has \(1,\): both must be the same \(n,\)"),
        ({"a": [[1, 2]]}, {}, r"curve 'a' has shape \(1, 2\)"),
    ],
)
def test_curves_refuse(series, kwargs, message):
    with pytest.raises(ValueError, match=message):
        plot.curves(series, **kwargs)


# -- files and surroundings -------------------------------------------------------------------------------------


def test_pictures_are_saved_and_small(tmp_path):
    figure = plot.show_images({str(i): noise(10, 3, 32, 32) for i in range(4)}, path=tmp_path / "rows.png")
    assert (tmp_path / "rows.png").stat().st_size < 200 * 1024
    plot.curves({"a": noise(500)}, path=str(tmp_path / "curve.png"), smooth=51)
    assert (tmp_path / "curve.png").stat().st_size < 100 * 1024
    from matplotlib.image import imread

    saved = (255 * imread(tmp_path / "rows.png")[..., :3] + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(saved, pixels(figure))


@pytest.mark.slow  # as does an example in test_globals.py
def test_backend_and_settings_are_left_alone():
    code = """
import matplotlib, sys, numpy as np
settings = lambda: dict(dict.items(matplotlib.rcParams))  # reading the backend would choose one
before = settings()
from minidl import plot
plot.show_images(np.ones((2, 1, 4, 4)), ["a", "b"])
plot.curves({"a": [1, 2]}, smooth=5)
print("matplotlib.pyplot" in sys.modules, settings() == before)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "False True\n"


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.signal", None)
    with pytest.raises(ImportError, match="smoothing needs SciPy: pip install scipy"):
        plot.curves({"a": [1, 2]}, smooth=5)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for draw in (lambda: plot.curves({"a": [1]}), lambda: plot.show_images(noise(2, 2))):
        with pytest.raises(ImportError, match="pictures need matplotlib: pip install matplotlib"):
            draw()
    assert plot.make_grid(noise(2, 1, 2, 2)).shape == (3, 6, 10)  # needs none


def test_a_diverged_curve_is_smoothed_as_far_as_it_goes():
    losses = [*np.linspace(1, 0.1, 20), *[math.nan] * 5]
    (axis,) = plot.curves({"train": losses}, smooth=5).axes
    smoothed = axis.get_lines()[1].get_ydata()
    assert np.allclose(smoothed[:20], losses[:20])  # a straight line stays one
    assert np.isnan(smoothed[20:]).all()


def test_whole_numbers_that_would_all_be_white_are_refused():
    with pytest.raises(ValueError, match="must be uint8, not int64"):
        plot.show_images(np.full((2, 1, 4, 4), 128, np.int64))
    assert plot.show_images(np.ones((2, 1, 4, 4)), titles=np.array(["a", "b"])) is not None


def test_confusion_in_percent_of_the_true_class():
    figure = plot.confusion_matrix(Tensor(np.array([[3, 1, 0], [0, 0, 0], [1, 0, 1]])), ["a", "b", "c"], title="Who")
    axis = figure.axes[0]
    assert {t.get_position(): t.get_text() for t in axis.texts} == {
        (0, 0): "75",  # places are (column, row)
        (1, 0): "25",
        (2, 0): "0",
        (0, 2): "50",  # the second class has no samples
        (1, 2): "0",
        (2, 2): "50",
    }
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "c"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted class", "true class")
    assert figure.get_suptitle() == "Who"


@pytest.mark.parametrize(
    ("counts", "names", "message"),
    [
        ([[1, 2]], ["a", "b"], r"not \(1, 2\) with 2 of them"),
        ([[1, 2], [3, 4]], ["a"], r"not \(2, 2\) with 1 of them"),
        (np.empty((0, 0)), [], "with 0 of them"),
        ([[1, -2], [3, 4]], ["a", "b"], "at least 0"),
        ([[1, math.nan], [3, 4]], ["a", "b"], "at least 0"),
        ([[1, math.inf], [3, 4]], ["a", "b"], "finite"),
    ],
)
def test_confusion_refuses(counts, names, message):
    with pytest.raises(ValueError, match=message):
        plot.confusion_matrix(counts, names)


def test_a_list_of_grey_images_is_not_one_in_colours():
    figure = plot.show_images([np.zeros((4, 4)), np.ones((4, 4)), np.zeros((4, 4))])
    sheet = np.asarray(figure.axes[0].get_images()[0].get_array())
    assert sheet.shape[1] > 2.9 * plot.CELL
    np.testing.assert_array_equal(sheet[..., 0], sheet[..., 1])
    assert len(plot.show_images([np.zeros((4, 4))] * 2).axes) == 1


def test_a_notebook_shows_what_is_returned():
    """It asks for `_repr_png_`, whatever matplotlib's backend is."""
    figure = plot.curves({"loss": [3.0, 2.0, 1.0]})
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_arguments_in_the_wrong_place():
    with pytest.raises(TypeError, match="curves: expected a dict .* not list"):
        plot.curves([1, 2, 3])
    with pytest.raises(TypeError, match="expected a word for each image, not a text; path= and title= take one"):
        plot.show_images(np.ones((3, 1, 4, 4)), "picture.png")
