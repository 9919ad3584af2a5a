"""Sphinx's settings: the guide's chapters are run, the pages of docs/ join them, the API comes from the docstrings."""

import ast
import inspect
import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx_gallery.scrapers import figure_rst
from sphinx_gallery.sorting import FileNameSortKey

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait do not take the cores of others

import minidl
from minidl.kernels.cpu import _compiling

DOCS = Path(__file__).parent
CHAPTERS = DOCS / "chapters"

project, author = "minidl", "the developers of minidl"
version = release = minidl.__version__
extensions = """myst_parser numpydoc sphinx.ext.autodoc sphinx.ext.autosummary sphinx.ext.viewcode
    sphinx_gallery.gen_gallery""".split()
exclude_patterns = ["_build", "chapters", "templates"]
templates_path = ["templates"]
suppress_warnings = ["config.cache"]  # sphinx_gallery_conf holds a function
default_role = "py:obj"  # `minidl.relu` in a chapter's text links to its page
smartquotes = False  # "mean" is a value to type, and (..., C) a shape
myst_heading_anchors = 3
autodoc_typehints = "none"  # the docstrings name the types
autosummary_ignore_module_all = False
numpydoc_show_class_members = False

html_theme, html_title = "furo", "minidl"
html_static_path, html_css_files = ["static"], ["guide.css"]
html_copy_source = False
html_math_renderer = "mathml"

_compiling._told.add("compiling")  # the line about it belongs on a terminal, not in a page's output


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
    numbered = re.sub(r"^(.+)\n(=+)\n", r"1. \1\n===\2\n", example.read_text(), count=1, flags=re.MULTILINE)
    (CHAPTERS / "01_tape.py").write_text(numbered + exercises.read_text())


def rewrite(app: Sphinx, page: str, source: list[str]) -> None:
    """Link each "chapter 4" of a chapter; name what the pages of docs/ link to outside of it, since it is not there.

    Their links to a chapter's script, or to the folder, lead to its page.
    """
    if page.startswith("guide/"):
        source[0] = re.sub(r"\b[Cc]hapter\s+(\d+)\b", lambda words: _link(words[0], int(words[1])), source[0])
    else:
        chapter = r"\]\(chapters(?:/(\w+)\.py)?\)"
        source[0] = re.sub(chapter, lambda link: f"](guide/{link[1] or 'index'}.rst)", source[0])
        source[0] = re.sub(r"\[([^]]+)\]\(\.\./([^)]+)\)", lambda link: _path(*link.groups()), source[0])


def _link(words: str, number: int) -> str:
    found = list(CHAPTERS.glob(f"{number:02}_*.py"))
    return f":doc:`{words} <{found[0].stem}>`" if found else words


def _path(words: str, path: str) -> str:
    return f"`{path}`" if words in (path, Path(path).name, f"{path}/") else f"{words} (`{path}`)"


def keep_formulas(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Keep the bars of |x| in a docstring, which would be a substitution, and the lines of several equations."""
    escaped = [line if line.lstrip().startswith(">>>") else line.replace("|", r"\|") for line in lines]
    equal = [re.match(r"\s*\w+ = ", line) for line in ("", *lines, "")]
    several = [mid and (above or below) for above, mid, below in zip(equal, equal[1:], equal[2:], strict=False)]
    lines[:] = [re.sub(r"^\s*", r"\g<0>| ", line) if one else line for line, one in zip(escaped, several, strict=True)]


def unlink_parameters(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Show a parameter as code, not as a link to a namesake: `dim` of argmax is not the method Tensor.dim."""
    if what in ("function", "method") and (names := "|".join(inspect.signature(value).parameters)):
        lines[:] = [re.sub(rf"(?<!`)`({names})`(?!`)", r"``\1``", line) for line in lines]


def explained_in(file: str) -> list[Path]:
    """The chapters whose introduction says that they explain this file."""
    return [path for path in sorted(CHAPTERS.glob("[0-9]*.py")) if f"``{file}``" in _introduction(path)]


def _introduction(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def add_links(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Link to the chapters that explain the file a function or class is defined in."""
    if what in ("function", "class") and (chapters := explained_in(_file_of(value))):
        lines += ["", f"**In the guide:** {', '.join(f':doc:`/guide/{path.stem}`' for path in chapters)}", ""]


def _file_of(value: Any) -> str:
    file = inspect.getsourcefile(inspect.unwrap(value))
    return Path(file).relative_to(DOCS.parent).as_posix() if file and DOCS.parent in Path(file).parents else ""


def mend_source(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Link from source to a function's page as a whole: viewcode's anchor is not there if it has two names."""
    if page.startswith("_modules/"):
        context["body"] = re.sub(r'#[\w.]+">\[docs\]', '">[docs]', context["body"])


def write_math(translator: Any, node: nodes.Node, block: bool) -> None:
    """Write a formula as MathML, which browsers lay out by themselves, offline."""
    mathml = str(latex2mathml.tex2mathml(node.astext(), as_block=block))
    functions = r"<mi>(?:ln|log|exp|max|min|sin|cos|tanh)</mi>(?!\s*<mo>\S*</mo>\s*<mo[^>]*>\()"
    translator.body.append(re.sub(functions, r'\g<0><mspace width="0.17em"></mspace>', mathml))  # ln x, not lnx; ln(x)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    write_first_chapter()
    app.connect("source-read", rewrite)
    app.connect("autodoc-process-docstring", keep_formulas)  # after numpydoc
    app.connect("autodoc-process-docstring", unlink_parameters)
    app.connect("autodoc-process-docstring", add_links, priority=900)  # after numpydoc
    app.connect("html-page-context", mend_source)
    inline, block = (lambda t, n: write_math(t, n, False), None), (lambda t, n: write_math(t, n, True), None)
    app.add_html_math_renderer("mathml", inline, block)
