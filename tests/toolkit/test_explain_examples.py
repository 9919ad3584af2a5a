"""minidl.explain, of the examples' models."""

import importlib

import pytest

import minidl
from tests.helpers.example_files import EXAMPLES


@pytest.fixture
def examples(monkeypatch):
    """Imports an example by its name."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


@pytest.mark.parametrize(("name", "parameters"), [("mlp", 813_398), ("cnn", 109_050)])
def test_the_courses_classifiers(examples, name, parameters):
    model = getattr(examples("cifar_classifier"), name)(0.25)
    table = minidl.explain(model, (3, 32, 32))
    assert table.parameters == parameters == sum(row.parameters for row in table.rows)
    assert f"{parameters:,}" in str(table).splitlines()[-3]
    assert [row.kind for row in table.rows] == [type(layer).__name__ for layer in model]


def test_the_course_models_fit_into_120_columns(examples):
    models = [(examples("mnist_autoencoder").Autoencoder(), (1, 28, 28)), (examples("mnist_vae").VAE(20), (1, 28, 28))]
    models += [(examples("pixelwise_prediction").PixelClassifier(), (3, 32, 32))]
    for model, shape in models:
        assert max(map(len, str(minidl.explain(model, shape)).splitlines())) <= 120
