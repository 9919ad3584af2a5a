"""The tests are tested: each fault of mutations.txt, planted in a copy of minidl, must make one of them fail.

    python -m pytest -m slow tests/project/test_mutations.py

takes half an hour and ends with a table: which test caught which fault first, and after how many seconds. A fault that
survives is a property that no test states: state it. With MINIDL_FAULTS=some, as in .ci/run, only those are planted
whose file or tests have changed lately, and a fifth of the rest, another one for each commit.

A fault changes a number and crashes nothing, like a slip of the pen. It has a name, the text that is there (-), which
stands once in its file, and the text instead of it (+). Above some faults stand their file and the tests that should
notice them, which a fault may narrow down to its own (?); none of them needs PyTorch.
"""

import ast
import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("minidl", "tests", "setup.cfg", "README.md")
COMPILED_INTO_OTHERS = ("_compiling", "_vectors")  # kernels/cpu/*.py whose code Numba puts into that of other files


class Fault(NamedTuple):
    """In `file`, `new` stands for `old`."""

    name: str
    file: str
    old: str
    new: str
    tests: str  # pytest's arguments, with names of files somewhere below tests/


def read_faults(text: str) -> Iterator[Fault]:
    """The faults of a text of blocks: a file and its tests in one line, or a fault in three or more."""
    file = usual = ""
    for block in text.strip().split("\n\n"):
        first, *rest = block.splitlines()
        if rest:
            tests, old, new = ("\n".join(line[2:] for line in rest if line[0] == sign) for sign in "?-+")
            yield Fault(first, file, old, new, tests or usual)
        else:
            file, usual = first.split(": ", 1)


LIST = ROOT / "tests/helpers/mutations.txt"
FAULTS = list(read_faults(LIST.read_text()))
faults = pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])

SHARES = 5
LATELY = 20  # commits, where there is no other branch to compare with

# How a test says that a number is wrong. A crash says nothing of the sort, and would be found without any test.
WRONG_NUMBER = re.compile(r"assert |AssertionError|(\w+\.)*GradcheckError|Failed: DID NOT RAISE")

# Pytest in a process of its own, where nothing but the copy must be imported.
RUN = """
import sys, pathlib, minidl, pytest
assert pathlib.Path(minidl.__file__).parents[1] == pathlib.Path.cwd(), minidl.__file__
sys.exit(pytest.main())
"""

# At the end of the copy's conftest.py: of all examples the first that fails will do, and need not be a small one.
FIRST_EXAMPLE = """
import hypothesis
phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
every = hypothesis.settings.get_profile("all")
hypothesis.settings.register_profile("first", every, phases=phases, report_multiple_bugs=False)
hypothesis.settings.load_profile("first")
"""


class Outcome(NamedTuple):
    """How a run of tests ended."""

    status: int  # pytest's: 0 if all passed, 1 if one failed
    failed: str  # the first test that failed
    message: str  # what it said
    seconds: float
    output: str


def run_tests(project: Path, tests: str) -> Outcome:
    """Run tests of a copy, until the first that fails."""
    before, report = time.monotonic(), project / "report.xml"
    arguments = [found(part) if part.startswith("test_") else part for part in shlex.split(tests)]
    ended = subprocess.run(
        [sys.executable, "-c", RUN, "-x", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments],
        cwd=project,
        env=environment(project),
        capture_output=True,
        text=True,
    )
    failed, message = first_failure(report) if report.exists() else ("", "")
    return Outcome(ended.returncode, failed, message, time.monotonic() - before, ended.stdout + ended.stderr)


def found(test: str) -> str:
    """`test_relu.py::test_one` with the folder of its file, `tests/ops/test_relu.py::test_one`."""
    file, *function = test.split("::")
    (path,) = (ROOT / "tests").rglob(file)
    return "::".join([str(path.relative_to(ROOT)), *function])


def environment(project: Path) -> dict[str, str]:
    """Hypothesis draws the same examples each time (CI), and machine code lies beside its source, within the copy."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "PYTEST_"))}
    return {**kept, "CI": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": str(project)}


def first_failure(report: Path) -> tuple[str, str]:
    """The name of the failed test in pytest's report, and its message."""
    for case in ElementTree.parse(report).iter("testcase"):
        failure = case.find("failure")
        if failure is not None:
            module = case.get("classname", "").rpartition(".")[2]
            return f"{module}.py::{case.get('name')}", failure.get("message", "")
    return "", ""


def copy_of(project: Path, place: Path, *left_out: str) -> Path:
    """A copy of the project and of its times, by which Numba tells whether machine code belongs to a source."""
    for name in COPIED:
        source, target = project / name, place / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*left_out))
        else:
            shutil.copy2(source, target)
    return place


def compiled_without(fault: Fault) -> list[str]:
    """Names of the files with code that was compiled before the fault was there."""
    stem = Path(fault.file).stem
    return [f"{stem}.*.pyc", "*.nb[ic]" if stem in COMPILED_INTO_OTHERS else f"{stem}.*.nb[ic]"]


def planted(fault: Fault, root: Path) -> str:
    """The source with the fault in it."""
    source = (root / fault.file).read_text()
    assert source.count(fault.old) == 1, f"{fault.old!r} stands {source.count(fault.old)} times in {fault.file}"
    return source.replace(fault.old, fault.new)


@faults
def test_every_fault_can_still_be_planted(fault: Fault):
    ast.parse(planted(fault, ROOT))
    assert fault.new != fault.old
    for file, function in re.findall(r"(test_\w+\.py)(?:::(\w+))?", fault.tests):
        assert f"def {function or 'test_'}" in (ROOT / found(file)).read_text()


def test_faults_have_names_of_their_own():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The control: a copy without a fault, which passes every test that is to catch one."""
    project = copy_of(ROOT, tmp_path_factory.mktemp("sound"))
    with (project / "tests/conftest.py").open("a") as conftest:
        conftest.write(FIRST_EXAMPLE)
    files = {file for fault in FAULTS for file in re.findall(r"test_\w+\.py", fault.tests)}
    outcome = run_tests(project, " ".join(sorted(files)))
    if outcome.status != 0:
        pytest.fail(f"without any fault {outcome.failed or 'pytest'} fails: {outcome.message}", pytrace=False)
    return project


def git(*command: str) -> str:
    """What git prints, or nothing where it fails."""
    try:
        done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


@functools.cache
def chosen() -> tuple[set[str], str]:
    """The names of the faults to plant, and in words which these are."""
    everything = {fault.name for fault in FAULTS}
    if os.environ.get("MINIDL_FAULTS") != "some":
        return everything, f"all {len(everything)} planted"
    head, parting = git("rev-parse", "HEAD"), git("merge-base", "HEAD", "origin/main")
    since = parting if parting != head and parting else git("rev-parse", f"HEAD~{LATELY}")
    if not since:
        return everything, f"all {len(everything)} planted, since git does not tell what has changed"
    changed = set(git("diff", "--name-only", since).splitlines())
    new = set(git("diff", "-U0", since, "--", str(LIST)).splitlines())
    share = int(head, 16) % SHARES
    touched = {
        fault.name
        for fault in FAULTS
        if changed & {fault.file, *map(found, re.findall(r"test_\w+\.py", fault.tests))} or f"+{fault.name}" in new
    }
    rest = {fault.name for i, fault in enumerate(FAULTS) if i % SHARES == share} - touched
    return touched | rest, (
        f"{len(touched | rest)} of {len(everything)} planted: {len(touched)} whose file or tests have changed since "
        f"{since[:8]}, and of the rest the {len(rest)} of share {share + 1} of {SHARES}"
    )


def line(fault: str, file: str, caught_by: str, seconds: str) -> str:
    return f"{fault:<65} | {file:<33} | {caught_by:<75} | {seconds:>7}"


@pytest.mark.slow
@faults
def test_every_fault_is_caught(
    fault: Fault, request: pytest.FixtureRequest, record_property: Callable[[str, object], None], tmp_path: Path
):
    names, which = chosen()
    record_property("planted faults", which)
    if fault.name not in names:
        pytest.skip(which)
    sound = request.getfixturevalue("sound")
    project = copy_of(sound, tmp_path / "project", *compiled_without(fault))
    (project / fault.file).write_text(planted(fault, project))
    outcome = run_tests(project, fault.tests)
    shutil.rmtree(project)
    caught = outcome.status == 1 and bool(outcome.failed)
    caught_by = outcome.failed if caught else "SURVIVED"
    record_property("planted faults", line(fault.name, fault.file, caught_by, f"{outcome.seconds:.1f}"))
    assert caught, outcome.output
    assert WRONG_NUMBER.match(outcome.message), f"a crash, not a wrong number: {outcome.message}"
