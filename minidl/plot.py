"""Figures: grids of images, curves of losses, confusion matrices.

They are drawn with matplotlib, which is imported on first use, and without pyplot, so that the user's windows and
backend are left alone.

N images, C channels (1 grey, 3 red, green and blue), H x W pixels.
"""

from __future__ import annotations

import functools
import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from minidl.tensor import Array, Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Images = Tensor | Array | Sequence[Tensor] | Sequence[Array]
PathLike = str | os.PathLike[str]

DPI = 100
CELL = 64  # approximate size of an image in a sheet, in pixels: images are enlarged by an integer factor
GAP = 4  # pixels between images
MARGIN = 8  # pixels around a sheet
TEXT = 8  # points
LINE = 16  # pixels that a line of such text takes


def make_grid(
    tensor: Images, nrow: int = 8, padding: int = 2, normalize: bool = False, *, pad_value: float = 0.0
) -> Tensor:
    """Arrange images in a grid, like torchvision's function of the same name.

    Parameters
    ----------
    tensor : Tensor, array or sequence of them
        Images (N, C, H, W), a list of images (C, H, W), or a single image (C, H, W) or (H, W). One channel is
        repeated to three.
    nrow : int
        Number of images per row, not of rows.
    padding : int
        Pixels around each image.
    normalize : bool
        Shift and scale all images jointly to the range 0 to 1.
    pad_value : float
        The value between the images and where the last row has none.

    Returns
    -------
    Tensor
        One image of the same dtype: (C, rows (H + padding) + padding, columns (W + padding) + padding), where columns
        is the smaller of `nrow` and N. A single image is returned without padding.

    Raises
    ------
    ValueError
        If the shape is different, there are no images, `nrow` is less than 1 or `padding` less than 0.
    TypeError
        If integers are to be normalized.

    Examples
    --------
    >>> make_grid(Tensor(np.ones((3, 1, 2, 2))), nrow=2, padding=1).array[0]
    array([[0., 0., 0., 0., 0., 0., 0.],
           [0., 1., 1., 0., 1., 1., 0.],
           [0., 1., 1., 0., 1., 1., 0.],
           [0., 0., 0., 0., 0., 0., 0.],
           [0., 1., 1., 0., 0., 0., 0.],
           [0., 1., 1., 0., 0., 0., 0.],
           [0., 0., 0., 0., 0., 0., 0.]])
    """
    images = _as_batch(tensor)
    n, channels, height, width = images.shape
    if nrow < 1 or padding < 0:
        raise ValueError(f"nrow must be at least 1 and padding at least 0, but they are {nrow} and {padding}")
    if channels == 1:
        images = images.repeat(3, axis=1)
    if normalize:
        images = _normalized(images)
    if n == 1:
        return Tensor(images[0].copy())
    columns = min(nrow, n)
    rows = math.ceil(n / columns)
    dy, dx = height + padding, width + padding
    grid = np.full((images.shape[1], rows * dy + padding, columns * dx + padding), pad_value, images.dtype)
    for k, image in enumerate(images):
        y, x = k // columns * dy + padding, k % columns * dx + padding
        grid[:, y : y + height, x : x + width] = image
    return Tensor(grid)


def _as_batch(images: Images) -> Array:
    """Images as one array (N, C, H, W) with at least one image and one pixel."""
    parts = images if isinstance(images, (list, tuple)) else [images]
    arrays = [part.detach().cpu().numpy() if isinstance(part, Tensor) else np.asarray(part) for part in parts]
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(f"images must all have the same shape, not {sorted({array.shape for array in arrays})}")
    batch = np.stack(arrays) if parts is images and arrays else arrays[0] if arrays else np.empty(0)
    while batch.ndim in (2, 3):
        batch = batch[None]
    if batch.ndim != 4 or 0 in batch.shape:
        raise ValueError(f"images must have shape (N, C, H, W), (C, H, W) or (H, W), no size 0, not {batch.shape}")
    return batch


def _normalized(images: Array) -> Array:
    if images.dtype.kind != "f":
        raise TypeError(f"normalize=True needs float images, not {images.dtype}; convert them with .float()")
    low, high = float(images.min()), float(images.max())
    return ((images - low) / max(high - low, 1e-5)).astype(images.dtype)


# -- sheets of images -------------------------------------------------------------------------------------------


def show_images(
    images: Images | Mapping[str, Images],
    titles: Sequence[str] | None = None,
    path: PathLike | None = None,
    *,
    title: str | None = None,
    nrow: int = 10,
) -> Figure:
    """Draw images in a grid, or in labelled rows.

    Parameters
    ----------
    images : Tensor, array, sequence of them or dict
        Images (N, C, H, W) with 1 or 3 channels, floats clamped to [0, 1] or unsigned bytes. Each entry of a dict
        is a row, labelled with its key; rows may differ in length and in the size of their images.
    titles : sequence of str, optional
        A caption for each image or, with a dict, for each column.
    path : path, optional
        Where to save the figure; the extension determines the format.
    title : str, optional
        The title of the figure.
    nrow : int
        Number of images per row, unless `images` is a dict.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; notebooks display it.

    Raises
    ------
    ValueError
        If the images have a different shape or number of channels, or there are too few or too many titles.
    ImportError
        If matplotlib is missing: ``pip install matplotlib``.

    Examples
    --------
    >>> noise = np.random.default_rng(0).random((2, 8, 3, 16, 16))
    >>> figure = show_images({"before": noise[0], "after": noise[1]}, title="Noise")
    >>> figure.axes[0].get_yticklabels()[1].get_text()
    'after'
    """
    if isinstance(images, Mapping):
        names, rows = list(images), [_as_colours(row) for row in images.values()]
        if not rows:
            raise ValueError("expected at least one row of images, but the dict is empty")
        nrow = expected = max(len(row) for row in rows)
    else:
        batch = _as_colours(images)
        if nrow < 1:
            raise ValueError(f"nrow must be at least 1, not {nrow}")
        expected = len(batch)
        names, rows = [], [batch[i : i + nrow] for i in range(0, expected, nrow)]
    thing = "column" if isinstance(images, Mapping) else "image"
    if isinstance(titles, str):
        raise TypeError(f"titles: expected a word for each {thing}, not a text; path= and title= take one")
    if titles is not None and len(titles) != expected:
        raise ValueError(f"titles: expected {expected}, one for each {thing}, not {len(titles)}")
    above = [titles[i : i + nrow] for i in range(0, expected, nrow)] if titles is not None else []
    return _saved(_draw_sheet(rows, names, above, title), path)


def _as_colours(images: Images) -> Array:
    """Images as uint8 (N, H, W, 3). In a list they may be (H, W)."""
    if isinstance(images, list | tuple):
        images = [part[None] if np.ndim(part) == 2 else part for part in images]
    batch = _as_batch(images)
    if batch.shape[1] not in (1, 3):
        raise ValueError(f"images must have 1 channel or 3, not {batch.shape[1]}: shape {batch.shape}")
    if batch.dtype.kind in "iu" and batch.dtype != np.uint8 and (batch.size and batch.max() > 1):
        raise ValueError(f"images of whole numbers up to 255 must be uint8, not {batch.dtype}; use .to(minidl.uint8)")
    if batch.dtype != np.uint8:
        batch = (255 * np.nan_to_num(np.clip(batch, 0, 1)) + 0.5).astype(np.uint8)  # NaN is black
    return batch.transpose(0, 2, 3, 1).repeat(3 // batch.shape[1], axis=3)


def _draw_sheet(rows: list[Array], names: list[str], above: Sequence[Sequence[str]], title: str | None) -> Figure:
    """Draw rows of images (N, H, W, 3), each pixel as a square of whole screen pixels.

    `names` label the rows, if there are any; `above` has the captions of the images in the first rows.
    """
    figure, axis = _figure()
    rows = [_enlarge(row) for row in rows]
    cell = max(row.shape[2] for row in rows)
    heads = [LINE if r < len(above) else 0 for r in range(len(rows))]
    ends = np.cumsum([head + row.shape[1] + GAP for head, row in zip(heads, rows, strict=True)]) - GAP
    canvas = np.full((ends[-1], max(len(row) for row in rows) * (cell + GAP) - GAP, 3), 255, np.uint8)  # white
    for end, row in zip(ends, rows, strict=True):
        for k, image in enumerate(row):
            left = k * (cell + GAP) + (cell - image.shape[1]) // 2
            canvas[end - image.shape[0] : end, left : left + image.shape[1]] = image
    axis.imshow(canvas, interpolation="nearest")
    for end, row, words in zip(ends, rows, above, strict=False):
        for k, word in enumerate(words):
            middle = k * (cell + GAP) + cell / 2
            axis.text(middle, end - row.shape[1] - 3, word, size=TEXT, ha="center", va="bottom")
    middles = [end - row.shape[1] / 2 - 0.5 for end, row in zip(ends, rows, strict=True)]
    axis.set(xticks=[], yticks=middles if names else [], yticklabels=names)
    axis.tick_params(length=0, labelsize=TEXT)
    axis.spines[:].set_visible(False)
    _fit(figure, axis, canvas.shape[1], canvas.shape[0], title)
    return figure


def _enlarge(row: Array) -> Array:
    """Repeat the pixels of (N, H, W, 3) so that the images are about `CELL` pixels in size."""
    factor = max(1, round(CELL / max(row.shape[1:3])))
    return row.repeat(factor, axis=1).repeat(factor, axis=2)


def _fit(figure: Figure, axis: Axes, width: int, height: int, title: str | None) -> None:
    """Size the figure so that the axes have `width` x `height` pixels and the texts fit."""
    extents = [label.get_window_extent().width for label in axis.get_yticklabels()]
    left = MARGIN + (math.ceil(max(extents)) + 6 if extents else 0)
    heading = figure.suptitle(title, size=TEXT + 2) if title else None
    top = MARGIN + (LINE + 6 if heading else 0)
    wide = left + width + MARGIN
    if heading:
        wide = max(wide, math.ceil(heading.get_window_extent().width) + 2 * MARGIN)
        heading.set_y(1 - MARGIN / (top + height + MARGIN))
    total = top + height + MARGIN
    figure.set_size_inches(wide / DPI, total / DPI)
    axis.set_position((left / wide, MARGIN / total, width / wide, height / total))


def _figure() -> tuple[Figure, Axes]:
    """A figure with one pair of axes, unknown to pyplot."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(5, 3.2), dpi=DPI)
    FigureCanvasAgg(figure)
    figure._repr_png_ = functools.partial(_png, figure)  # type: ignore[attr-defined]  # how a notebook displays it
    return figure, figure.add_subplot()


def _saved(figure: Figure, path: PathLike | None) -> Figure:
    if path is not None:
        figure.savefig(path)
    return figure


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file)
    return file.getvalue()


# -- curves -----------------------------------------------------------------------------------------------------


def curves(
    series: Mapping[str, Sequence[float] | Array],
    xlabel: str = "epoch",
    ylabel: str = "loss",
    path: PathLike | None = None,
    *,
    x: Sequence[float] | Array | None = None,
    title: str | None = None,
    smooth: int = 0,
    log: bool = False,
) -> Figure:
    """Plot curves, such as the loss by epoch.

    Parameters
    ----------
    series : dict of str to sequence of float
        The values of each curve, by name. They may differ in length.
    xlabel, ylabel : str
        The labels of the axes, with units.
    path : path, optional
        Where to save the figure; the extension determines the format.
    x : sequence of float, optional
        The x coordinates; by default 1, 2, 3, ...
    title : str, optional
        The title of the figure.
    smooth : int
        An odd window size of at least 5: draw a smoothed curve over the faint original, by fitting a parabola to that
        many neighbours of each value, or to all if there are fewer.
    log : bool
        Use a logarithmic y axis, and smooth the logarithms.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; notebooks display it.

    Raises
    ------
    ValueError
        If there is no curve, `x` and a curve differ in length, or `smooth` is not such a number.
    ImportError
        If matplotlib is missing, or SciPy for smoothing: ``pip install matplotlib scipy``.

    Notes
    -----
    Smoothing uses the Savitzky-Golay filter (1964), `scipy.signal.savgol_filter`.

    Examples
    --------
    >>> figure = curves({"train": [0.9, 0.5, 0.4], "test": [0.8, 0.6, 0.5]}, ylabel="loss per pixel")
    >>> [line.get_label() for line in figure.axes[0].get_lines()]
    ['train', 'test']
    """
    if not isinstance(series, Mapping):
        raise TypeError(f"curves: expected a dict such as {{'loss': values}}, not {type(series).__name__}")
    if not series:
        raise ValueError("expected at least one curve, but the dict is empty")
    if smooth and (smooth < 5 or smooth % 2 == 0):
        raise ValueError(f"smooth must be 0 or an odd number of at least 5, not {smooth}")
    figure, axis = _figure()
    figure.set_layout_engine("constrained")
    for i, (name, values) in enumerate(series.items()):
        y = np.asarray(values, np.float64)
        where = np.arange(1, len(y) + 1) if x is None else np.asarray(x)
        if where.shape != y.shape or y.ndim != 1:
            raise ValueError(f"curve {name!r} has shape {y.shape}, but x has {where.shape}: both must be the same (n,)")
        smoothed = _smooth(y, smooth, log) if smooth else None
        if smoothed is not None:
            axis.plot(where, y, color=f"C{i}", alpha=0.25, linewidth=1)
            axis.plot(where, smoothed, color=f"C{i}", label=name)
        else:
            axis.plot(where, y, ".-" if len(y) <= 50 else "-", color=f"C{i}", label=name)
    axis.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
    _whole_ticks(axis)
    if log:
        _plain_logarithmic_ticks(axis)
    if title:
        wide = figure.suptitle(title, size="large").get_window_extent().width + 4 * MARGIN
        figure.set_figwidth(max(figure.get_figwidth(), wide / DPI))
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    return _saved(figure, path)


def _smooth(y: Array, window: int, log: bool) -> Array | None:
    """Smooth `y` (n,), keeping gaps where it is NaN; None if there are too few values."""
    try:
        from scipy.signal import savgol_filter
    except ImportError as error:
        raise ImportError("smoothing needs SciPy: pip install scipy") from error
    window = min(window, len(y) - 1 + len(y) % 2)  # odd
    if window < 5:
        return None
    if log:
        y = np.log(np.where(y > 0, y, np.nan))  # leaves a gap, as in the original curve
    smoothed = np.full(len(y), np.nan)
    edges = np.flatnonzero(np.diff(np.isfinite(y), prepend=False, append=False))
    for start, stop in edges.reshape(-1, 2):  # each run of finite values separately
        if stop - start >= window:
            smoothed[start:stop] = savgol_filter(y[start:stop], window, polyorder=2)
    return np.exp(smoothed) if log else smoothed


def _whole_ticks(axis: Axes) -> None:
    """Integer ticks for integer x: there is no epoch 2.5."""
    from matplotlib.ticker import MaxNLocator

    places = [np.asarray(line.get_xdata(), np.float64) for line in axis.get_lines()]
    if all((x == np.round(x)).all() for x in places):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


# -- confusion matrix -------------------------------------------------------------------------------------------


def confusion_matrix(
    counts: Tensor | Array | Sequence[Sequence[int]],
    names: Sequence[str],
    path: PathLike | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Draw a confusion matrix: how often each class is predicted, in percent of the samples of each true class.

    Parameters
    ----------
    counts : Tensor, array or sequence of sequences
        (C, C): row i, column j counts the samples of class i that were predicted as class j.
    names : sequence of str
        The names of the C classes.
    path : path, optional
        Where to save the figure; the extension determines the format.
    title : str, optional
        The title of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; notebooks display it.

    Raises
    ------
    ValueError
        If `counts` is not (C, C) with C names, or contains invalid counts.
    ImportError
        If matplotlib is missing: ``pip install matplotlib``.

    Notes
    -----
    Each row sums to 100 percent; the diagonal shows each class's recall. The row of a class without samples is empty.

    Examples
    --------
    >>> figure = confusion_matrix([[3, 1], [0, 5]], ["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['75', '25', '0', '100']
    """
    table = np.asarray(counts.detach().cpu().numpy() if isinstance(counts, Tensor) else counts, np.float64)
    n = len(names)
    if table.shape != (n, n) or n == 0:
        raise ValueError(f"counts of C classes must be (C, C) with C names, not {table.shape} with {n} of them")
    if not (table >= 0).all() or np.isinf(table).any():
        raise ValueError("counts must be finite numbers of at least 0")
    sums = table.sum(axis=1, keepdims=True)
    percent = np.divide(100 * table, sums, out=np.full_like(table, np.nan), where=sums > 0)
    figure, axis = _figure()
    side = max(3.0, 0.45 * n)  # inches
    figure.set_size_inches(side + 2.1, side + 1.3)
    figure.set_layout_engine("constrained")
    image = axis.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for (i, j), share in np.ndenumerate(percent):
        if not np.isnan(share):
            colour = "white" if share > 50 else "black"
            axis.text(j, i, f"{share:.0f}", ha="center", va="center", size=TEXT + 1, color=colour)
    axis.set(xlabel="predicted class", ylabel="true class", xticks=range(n), yticks=range(n), yticklabels=names)
    axis.set_xticklabels(names, rotation=40, ha="right", rotation_mode="anchor")
    figure.colorbar(image, label="percent of the samples of the true class", shrink=0.9)
    if title:
        figure.suptitle(title, size=TEXT + 3)
    return _saved(figure, path)


def _plain_logarithmic_ticks(axis: Axes) -> None:
    """0.05 instead of 5 x 10^-2: losses rarely span many powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_ylim()
    decades = math.log10(high / low)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
