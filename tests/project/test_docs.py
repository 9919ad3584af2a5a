"""Every example in a docstring, in the README or in docs/ is run, links resolve, and importing minidl stays light."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import minidl

ROOT = Path(minidl.__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
NEEDS_CUPY = "minidl.kernels.gpu._cublas", "minidl.kernels.gpu.kernels"
NAMES = [module.name for module in pkgutil.walk_packages(minidl.__path__, "minidl.")]
MODULES = [name for name in NAMES if name not in NEEDS_CUPY]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def name_of(page):
    return str(page.relative_to(ROOT))


def code_blocks(page):
    """The Python code of a page that is not a session with a prompt."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [block for block in blocks if not block.startswith(">>>")]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_sessions_of_a_page(page):
    assert doctest.testfile(str(page), module_relative=False).failed == 0


def test_the_readme_has_a_session():
    assert doctest.testfile(str(README), module_relative=False).attempted > 0


@pytest.mark.parametrize("page", [page for page in PAGES if code_blocks(page)], ids=name_of)
def test_the_code_of_a_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in code_blocks(page):
        exec(block, namespace)


@pytest.mark.slow
def test_the_plain_form_of_the_convolution_is_right():
    namespace = {}
    exec(code_blocks(ROOT / "docs" / "tile.md")[0], namespace)
    x, w = minidl.randn(3, 4, 9, 8), minidl.randn(5, 4, 3, 3)
    channels_last = (np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1)), w.numpy().transpose(2, 3, 1, 0).copy())
    for stride, chunk in ((1, 64), (2, 7)):
        y = namespace["conv2d"](*channels_last, stride, chunk).transpose(0, 3, 1, 2)
        wanted = minidl.nn.functional.conv2d(x, w, stride=stride).numpy()
        np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)


def test_the_caught_bug():
    """The test shown there fails with the message shown there, but for the last digits of numbers."""

    def short(text):
        return re.sub(r"\.\d{4}\d*", lambda digits: digits[0][:4], text)

    def shown(page):
        block = re.search(r"^```\n(gradcheck: cube.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        return short(block[1])

    page = ROOT / "docs" / "property_tests.md"
    code = next(block for block in code_blocks(page) if "def test_cube" in block)
    assert code in code_blocks(README)
    namespace = {}
    exec(code, namespace)
    with pytest.raises(minidl.GradcheckError) as caught:
        settings(database=None, derandomize=True)(namespace["test_cube"])()
    message = [short(line) for line in str(caught.value).splitlines()]
    assert [line for line in message if line not in shown(page)] == []
    assert [line for line in shown(README).splitlines() if line not in message] == []


def test_the_table_of_images_a_rank_is_what_the_code_above_it_prints(capsys):
    page = ROOT / "docs/distributed.md"
    exec(code_blocks(page)[0], {})
    rows = re.findall(r"^\| (\S+) \| (\d+ Gbit/s) \| (\S+) \| (\S+) \| (\S+) \|$", page.read_text(), re.MULTILINE)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [" ".join(row).split() for row in rows]


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 160


def test_where_to_read_counts_the_lines_there_are():
    rows = re.findall(r"^\| \[(minidl/\S+)\]\(\1\) \| (\d+) \|", README.read_text(), re.MULTILINE)
    said = {name: int(lines) for name, lines in rows}
    assert said == {name: len((ROOT / name).read_text().splitlines()) for name in said}
    assert {"minidl/tensor.py", "minidl/autograd.py", "minidl/ops/conv.py", "minidl/optim/adam.py"} <= set(said)
    assert sum(said.values()) <= 3100


def anchors(page):
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page):
    """The targets of links and pictures outside of code blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\]\(([^)\s]+)\)", text)


def broken_links(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if "://" not in target and (not file.exists() or (anchor and anchor not in anchors(file))):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page):
    assert list(broken_links(page)) == []


def test_every_page_and_picture_is_linked():
    linked = {(page.parent / target.partition("#")[0]).resolve() for page in PAGES for target in links(page)}
    sphinx = {ROOT / "docs" / name for name in ("conf.py", "index.md", "api.md", "sg_execution_times.rst")}
    assert {path for path in (ROOT / "docs").iterdir() if path.is_file()} - linked - sphinx == set()


HEAVY = {"matplotlib", "cupy", "scipy.linalg", "scipy.ndimage", "tqdm", "pooch", "requests", "hypothesis"}
IMPORT = f"""
import sys
import numba.core.event
compiled = []
class Listener(numba.core.event.Listener):
    def on_start(self, event): compiled.append(event.data)
    def on_end(self, event): pass
with numba.core.event.install_listener("numba:compile", Listener()):
    import minidl, minidl.data
    minidl.ones(2).to("cpu")
print({HEAVY} & set(sys.modules), compiled)
"""


def test_import_brings_in_nothing_that_is_not_needed_and_compiles_nothing():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    assert done.stdout == "set() []\n"


def test_everything_public_says_what_it_is():
    undocumented = [name for name in minidl.__all__ if not (getattr(minidl, name).__doc__ or "").strip()]
    assert [name for name in undocumented if name not in ("__version__",)] == []
