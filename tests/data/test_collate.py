"""Collation: what becomes of numbers, arrays, text and containers, and what is refused."""

from collections import OrderedDict, defaultdict, namedtuple
from types import MappingProxyType

import numpy as np
import pytest

import minidl
from minidl.data import DataLoader, default_collate, default_convert

Point = namedtuple("Point", "x y")


def test_containers_keep_their_structure_and_tuples_become_lists():
    item = {"image": np.zeros((2, 3), np.float32), "name": "a", "more": (1, [2.0, Point(3, True)])}
    batch = default_collate([item, item])
    assert type(batch) is dict
    assert batch["image"].shape == (2, 2, 3)
    assert batch["name"] == ["a", "a"]
    one, (two, point) = batch["more"]
    assert type(batch["more"]) is list
    assert (one.tolist(), two.tolist(), two.dtype) == ([1, 1], [2, 2], minidl.float64)
    assert isinstance(point, Point)
    assert (point.x.tolist(), point.y.tolist()) == ([3, 3], [True, True])


@pytest.mark.parametrize("data", [[(1, 2), (3, 4)], [[1, 2], [3, 4]], minidl.data.TensorDataset(minidl.arange(2))])
def test_batches_are_lists(data):
    for workers in (0, 2):
        (batch,) = DataLoader(data, 2, num_workers=workers)
        assert type(batch) is list


@pytest.mark.parametrize("text", ["ab", b"ab"])
def test_text_is_not_stacked(text):
    assert default_collate([text, text]) == [text, text]
    assert default_collate([(text, 1), (text, 2)])[0] == (text, text)


@pytest.mark.parametrize("kind", [dict, OrderedDict, MappingProxyType, lambda entries: defaultdict(int, entries)])
def test_mappings(kind):
    batch = default_collate([kind({"a": 1}), kind({"a": 2})])
    assert batch["a"].tolist() == [1, 2]
    if kind is OrderedDict:
        assert type(batch) is OrderedDict


def test_items_that_do_not_fit_together():
    with pytest.raises(RuntimeError, match="equal size: item 0 holds a sequence of 2, item 1 one of 3"):
        default_collate([(1, 2), (1, 2, 3)])
    with pytest.raises(TypeError, match="item 0 holds a tuple, item 1 a int"):
        default_collate([(1, 2), 3])
    with pytest.raises(KeyError, match=r"item 0 has the key 'a', item 1 has only \['b'\]"):
        default_collate([{"a": 1}, {"b": 1}])
    with pytest.raises(RuntimeError, match=r"that of item 0 is \(2,\), that of item 1 is \(3,\)"):
        default_collate([minidl.zeros(2), minidl.zeros(3)])


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        (None, "a NoneType"),
        ({1}, "a set"),
        (1j, "a complex"),
        (np.array(["a"]), "an array of <U1"),
        ((1, None), "a None"),
    ],
)
def test_items_that_are_no_numbers(item, kind):
    with pytest.raises(
        TypeError, match=f"item 0 holds {kind}.*; a batch is made of tensors, arrays, numbers and strings"
    ):
        default_collate([item])
    with pytest.raises(TypeError, match="item 1 holds a str; a batch is made of"):
        default_collate([(1, 2), (1, "two")])


def test_convert_turns_arrays_into_tensors_and_leaves_the_rest():
    array, point, words = np.arange(2), Point(np.float32(1), "x"), np.array(["a"])
    converted = default_convert({"a": (array, 1), "p": point, "w": words, "n": None})
    assert type(converted["a"]) is list
    assert (converted["a"][0].tolist(), converted["a"][1]) == ([0, 1], 1)
    assert isinstance(converted["p"], Point)
    assert (converted["p"].x.item(), converted["p"].y) == (1, "x")
    assert converted["w"] is words
    assert converted["n"] is None
