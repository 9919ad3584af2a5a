"""The guide: each chapter names its sources and the files it explains, has exercises, and their solutions are right."""

import ast
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import minidl

ROOT = Path(minidl.__file__).parents[1]
DOCS = ROOT / "docs"
BUILT = DOCS / "_build"
FIRST = DOCS / "chapters" / "01_tape.py"  # docs/conf.py writes it
OTHERS = [path for path in sorted((DOCS / "chapters").glob("[0-9]*.py")) if path != FIRST]
chapters = pytest.mark.parametrize("chapter", [FIRST, *OTHERS], ids=lambda path: path.stem)


def text_of(chapter):
    if chapter != FIRST:
        return chapter.read_text()
    return (ROOT / "examples" / "tiny_tape.py").read_text() + (DOCS / "chapters" / "exercises_of_01.txt").read_text()


def functions(text):
    return {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}


def gaps(text):
    """The functions that the reader is to write: they return an ellipsis."""
    return [name for name, node in functions(text).items() if ast.unparse(node.body[-1]) == "return ..."]


def solved(text, solutions):
    """The chapter's code with the solutions in the gaps."""
    answers, module = functions(solutions), ast.parse(text)
    module.body = [answers.get(node.name, node) if isinstance(node, ast.FunctionDef) else node for node in module.body]
    solution_imports = [node for node in ast.parse(solutions).body if isinstance(node, ast.Import | ast.ImportFrom)]
    module.body = solution_imports + [node for node in module.body if not _from_future(node)]
    return ast.fix_missing_locations(module)


def _from_future(node):
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


@chapters
def test_a_chapter_has_a_source_and_names_files_that_exist(chapter):
    introduction = ast.get_docstring(ast.parse(text_of(chapter)))
    assert re.search(r"^Sources?: ", introduction, re.MULTILINE)
    named = re.findall(r"``((?:minidl|examples|docs|benchmarks|tests)/[^`]*)``", text_of(chapter))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("chapter", OTHERS, ids=lambda path: path.stem)
def test_a_chapter_is_short_and_its_code_fits_a_page(chapter):
    lines = chapter.read_text().splitlines()
    assert 100 <= len(lines) <= 250
    assert [line for line in lines if len(line) > 100 and not line.startswith("#")] == []


@chapters
def test_a_chapter_has_exercises_and_each_a_solution(chapter):
    open_ones = gaps(text_of(chapter))
    assert 1 <= len(open_ones) <= 2
    assert set(open_ones) <= set(functions((DOCS / "solutions" / chapter.name).read_text()))


def run_solved(text, solutions, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "show", lambda: None)
    exec(compile(solved(text, solutions), "<chapter>", "exec"), {"__name__": "__main__"})
    pyplot.close("all")


@pytest.mark.slow
@chapters
def test_the_solutions_are_right(chapter, monkeypatch, capsys):
    text = text_of(chapter)
    run_solved(text, (DOCS / "solutions" / chapter.name).read_text(), monkeypatch)
    output = capsys.readouterr().out
    assert [name for name in gaps(text) if f"{name}: right" not in output] == []


class Page(HTMLParser):
    """The links and anchors of an HTML page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        names = dict(attributes)
        self.links += [names[key] for key in ("href", "src") if names.get(key)]
        self.anchors |= {names[key] for key in ("id", "name") if names.get(key)}


@pytest.mark.slow
@pytest.mark.skipif(not BUILT.exists(), reason="the guide is not built: sphinx-build -W docs docs/_build")
def test_every_link_of_the_built_guide_leads_somewhere():
    pages = {path.resolve(): Page(path) for path in BUILT.rglob("*.html")}
    assert len(pages) > 200
    for path, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if not url.scheme and not url.netloc:
                assert target.exists(), f"{path.name}: {link}"
                assert target not in pages or unquote(url.fragment) in pages[target].anchors, f"{path.name}: {link}"
