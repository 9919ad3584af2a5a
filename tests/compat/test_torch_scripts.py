"""Scripts of many styles and years, untouched, in PyTorch and under ``minidl run``: the same losses to 2e-4.

Both draw their random numbers from one stream (stream.py).
"""

import numpy as np
import pytest

from tests.compat.harness import SCRIPTS, losses, numbers, run, words, write_data

torch = pytest.importorskip("torch", reason="PyTorch, which runs the scripts too, is not installed (torch==2.13.0)")
Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed (pip install pillow)")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "data"
    folder.mkdir()
    write_data(folder)
    return folder


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_prints_the_same_in_both_libraries(script, tmp_path, data):
    theirs, ours = (run(script, library, tmp_path, data) for library in ("torch", "minidl"))
    assert theirs.status == 0, theirs.errors
    assert ours.status == 0, ours.errors
    assert ours.draws == theirs.draws
    assert words(ours.output) == words(theirs.output)
    assert len(losses(theirs.output)) >= 1
    np.testing.assert_allclose(losses(ours.output), losses(theirs.output), rtol=2e-4)
    (found, _), (expected, units) = numbers(ours.output), numbers(theirs.output)
    assert np.all(np.abs(found - expected) <= 2e-4 * np.abs(expected) + units), ours.output
    assert (theirs.elsewhere, ours.elsewhere) == ([], [])
    assert "torch is minidl" in ours.errors
    assert set(ours.files) == set(theirs.files)
    for name, path in ours.files.items():
        assert_same_file(path, theirs.files[name])


def assert_same_file(ours, theirs):
    """Compare pictures and saved tensors. Of other files it is enough that they are there."""
    if ours.suffix == ".png":
        pixels, expected = (np.asarray(Image.open(path), np.int64) for path in (ours, theirs))
        assert pixels.shape == expected.shape
        assert np.abs(pixels - expected).max() <= 2
    elif ours.suffix in (".pt", ".pth", ".pkl", ".tar"):
        found, expected = (dict(tensors(torch.load(path, weights_only=True))) for path in (ours, theirs))
        # Training amplifies rounding: PyTorch with and without oneDNN differ by 1e-3 in the U-Net's running means.
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=4e-3)


def tensors(saved, name=""):
    """The tensors in nested dicts and lists. An optimiser's number of steps is a tensor in PyTorch only."""
    if isinstance(saved, torch.Tensor) and not name.endswith(".step"):
        yield name, saved
    elif isinstance(saved, dict | list):
        for key, value in saved.items() if isinstance(saved, dict) else enumerate(saved):
            yield from tensors(value, f"{name}.{key}")
