"""``--check`` on the scripts that run in both libraries: they lack nothing, but for methods of other objects."""

import re

from minidl.compat.check import check
from tests.compat.harness import SCRIPTS


def test_the_scripts_lack_nothing(capsys):
    status = [check(str(script)) for script in SCRIPTS]
    said = capsys.readouterr().out
    assert not re.findall(r":[\d, ]+: (torch[\w.]+): ", said)
    assert not re.findall(r": possibly (torch[\w.]+): ", said)
    assert not any(status)
