"""``--check`` on the scripts that run in both libraries: it finds what stubs.py stands in for, and nothing else."""

import re

from minidl.compat.check import check
from tests.compat.harness import SCRIPTS
from tests.compat.stubs import TENSOR

CERTAIN = {"torch.optim.AdamW", "torch.optim.RMSprop"}


def test_what_the_scripts_lack_is_what_is_stubbed(capsys):
    status = [check(str(script)) for script in SCRIPTS]
    said = capsys.readouterr().out
    assert set(re.findall(r":[\d, ]+: (torch[\w.]+): ", said)) == CERTAIN
    assert set(re.findall(r": possibly (torch[\w.]+): ", said)) == {f"torch.Tensor.{name}" for name in TENSOR}
    assert (status.count(0), status.count(1)) == (36, 2)
