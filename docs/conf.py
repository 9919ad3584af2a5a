"""Sphinx's settings: the guide's chapters are run, the pages of docs/ join them, the API comes from the docstrings."""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx_gallery.scrapers import figure_rst
from sphinx_gallery.sorting import FileNameSortKey

import minidl

DOCS = Path(__file__).parent
CHAPTERS = DOCS / "chapters"

project, author = "minidl", "the developers of minidl"
version = release = minidl.__version__
extensions = """myst_parser numpydoc sphinx.ext.autodoc sphinx.ext.autosummary sphinx.ext.viewcode
    sphinx_gallery.gen_gallery""".split()
exclude_patterns = ["_build", "chapters"]
default_role = "py:obj"  # `minidl.relu` in a chapter's text links to its page
myst_heading_anchors = 3
autodoc_typehints = "none"  # the docstrings name the types
numpydoc_show_class_members = False

html_theme, html_title = "furo", "minidl"
html_static_path, html_css_files = ["static"], ["guide.css"]
html_copy_source = False
html_math_renderer = "mathml"


def show_last_figure(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save the figure that a block's last expression returns, as a notebook would show it: minidl.plot's are such."""
    names = block_vars["example_globals"]
    if not isinstance(names.get("___"), Figure):
        return ""
    path = next(block_vars["image_path_iterator"])
    names["___"].savefig(path)
    names["___"] = None
    return figure_rst([path], gallery_conf["src_dir"])


sphinx_gallery_conf = {
    "examples_dirs": "chapters",
    "gallery_dirs": "guide",
    "filename_pattern": r"/\d\d_",
    "within_subsection_order": FileNameSortKey,
    "image_scrapers": ("matplotlib", show_last_figure),
    "ignore_repr_types": "matplotlib|NoneType",
    "backreferences_dir": "guide/uses",
    "doc_module": ("minidl",),
    "reference_url": {"minidl": None},
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 3600,
}


def write_first_chapter() -> None:
    """Chapter 1 is an example, followed by exercises."""
    example, exercises = DOCS.parent / "examples" / "tiny_tape.py", CHAPTERS / "exercises_of_01.txt"
    (CHAPTERS / "01_tape.py").write_text(example.read_text() + exercises.read_text())


def link_chapters(app: Sphinx, page: str, source: list[str]) -> None:
    """Make each "chapter 4" of a chapter's text a link; the script and the notebook keep the words."""
    if page.startswith("guide/"):
        source[0] = re.sub(r"\b[Cc]hapter (\d+)\b", lambda words: _link(words[0], int(words[1])), source[0])


def _link(words: str, number: int) -> str:
    found = list(CHAPTERS.glob(f"{number:02}_*.py"))
    return f":doc:`{words} <{found[0].stem}>`" if found else words


def write_math(translator: Any, node: nodes.Node, block: bool) -> None:
    """Write a formula as MathML, which browsers lay out by themselves, offline."""
    translator.body.append(str(latex2mathml.tex2mathml(node.astext(), as_block=block)))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    write_first_chapter()
    app.connect("source-read", link_chapters)
    inline, block = (lambda t, n: write_math(t, n, False), None), (lambda t, n: write_math(t, n, True), None)
    app.add_html_math_renderer("mathml", inline, block)
