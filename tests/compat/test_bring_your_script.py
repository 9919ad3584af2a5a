"""The page docs/bring_your_script.md: its scripts, run by its commands as a new user would, do what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compat.harness import write_data

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "bring_your_script.md").read_text("utf-8")
SCRIPTS = dict(re.findall(r"`(\w+\.py)`:\n\n```py\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
SESSIONS = dict(re.findall(r"^```\n\$ python (.*)\n((?:.+\n)+)```", PAGE, re.MULTILINE))


@pytest.fixture
def said(tmp_path):
    """What a command of the page prints, in a folder with its scripts."""
    for name, text in SCRIPTS.items():
        (tmp_path / name).write_text(text)

    def run(command):
        done = subprocess.run(
            [sys.executable, *command.split()],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip
        lines = (done.stderr + done.stdout).replace("; the PyTorch installed here is not used", "").splitlines()
        return [line for line in lines if "not the official" not in line and "compiling kernels" not in line]

    return run


def test_the_page_has_two_scripts_and_three_sessions():
    assert (set(SCRIPTS), len(SESSIONS)) == ({"train.py", "tagger.py"}, 3)


def test_the_autoencoder_trains_and_leaves_its_files(said, tmp_path):
    pytest.importorskip("PIL")
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data")
    command = "-m minidl run train.py --epochs 2"
    shown = re.sub(r"loss \S+", "loss #", SESSIONS[command])
    assert [re.sub(r"loss \S+", "loss #", line) for line in said(command)] == shown.splitlines()
    assert (tmp_path / "digits.png").exists()
    assert (tmp_path / "autoencoder.pt").read_bytes()[:2] == b"PK"


@pytest.mark.slow
def test_check_lists_what_the_tagger_lacks(said):
    command = "-m minidl run --check tagger.py"
    assert said(command) == SESSIONS[command].splitlines()


@pytest.mark.slow
def test_the_tagger_ends_with_the_text_of_the_page(said):
    command = "-m minidl run tagger.py"
    assert said(command)[-1:] == SESSIONS[command].splitlines()
