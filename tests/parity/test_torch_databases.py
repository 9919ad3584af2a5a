"""Every sample input of PyTorch's own databases, as far as minidl has their names.

`databases.py` runs and judges them; as a script it prints what is not equal.
"""

from collections import Counter

import numpy as np
import pytest

import minidl
from tests.helpers.with_torch import REASON

torch = pytest.importorskip("torch", reason=REASON)
pytest.importorskip("expecttest", reason="PyTorch's databases need expecttest (pip install expecttest)")

from tests.parity import databases  # noqa: E402
from tests.parity.databases import DIFFERENT, INTERNAL, MEANT, ON_PURPOSE, REFUSED  # noqa: E402

# How many samples minidl may refuse, each with a message that names operation and option.
MOST_REFUSED = {"operators": 100, "modules": 0, "optimisers": 0}


@pytest.mark.parametrize("database", databases.DATABASES)
def test_no_sample_of_pytorchs_databases_is_different_and_few_are_refused(database, record_property):
    found = list(databases.outcomes(database))
    wrong = [outcome for outcome in found if outcome.kind in (DIFFERENT, INTERNAL)]
    assert not wrong, "\n".join(databases.grouped(wrong))
    refused = [outcome for outcome in found if outcome.kind == REFUSED]
    assert len(refused) <= MOST_REFUSED[database], "\n".join(databases.grouped(refused))
    seen = {outcome.message for outcome in found if outcome.kind == MEANT}
    names = {outcome.name for outcome in found}
    no_longer = [row for row in ON_PURPOSE if row[0] in names and row[-1] not in seen]
    assert not no_longer, "these differences on purpose no longer occur"
    kinds = Counter(outcome.kind for outcome in found)
    counted = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    record_property("PyTorch's databases", f"PyTorch's database of {database}: {counted}")


ABS = minidl.abs
FAULTS = {  # functions in place of minidl.abs, by what the harness has to find of them
    "different: values": lambda x: ABS(x) + 1,
    "different: minidl returns f32": lambda x: ABS(x).float(),
    "different: minidl returns ('neither', 'nor')": lambda x: ("neither", "nor"),
    "different: minidl changes other arguments": lambda x: (ABS(x), x.array.fill(0))[0],
    "different: gradient of leaf 0": lambda x: ABS(x.detach()) + 0 * x,
    "different: PyTorch's result requires grad": lambda x: ABS(x).detach(),
    "refused: TypeError: abs: expected a tensor": lambda x: ABS("text"),
    "internal error: [does not name the operation]": lambda x: minidl.square("text"),
    "internal error: [not raised by minidl]": lambda x: np.zeros(3).reshape("abs"),
}


@pytest.mark.parametrize("expected", FAULTS)
def test_a_fault_of_an_operator_is_found(monkeypatch, expected):
    monkeypatch.setattr(minidl, "abs", FAULTS[expected])
    kind, _, part = expected.partition(": ")
    found = {outcome.message for outcome in databases.outcomes("operators", "abs".__eq__) if outcome.kind == kind}
    assert any(part in message for message in found), found


def test_a_copy_where_pytorch_returns_a_view_is_found(monkeypatch):
    permute = minidl.permute
    monkeypatch.setattr(minidl, "permute", lambda x, dims: permute(x, dims).clone())
    found = [outcome.message for outcome in databases.outcomes("operators", "permute".__eq__)]
    assert "minidl returns a copy, PyTorch a view" in found


def test_an_answer_where_pytorch_raises_is_found(monkeypatch):
    monkeypatch.setattr(minidl, "ge", lambda a, b: a)
    found = [outcome.message for outcome in databases.outcomes("operators", "ge".__eq__)]
    assert any(message.startswith("minidl answers 2, PyTorch raises TypeError") for message in found)
