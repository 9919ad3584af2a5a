"""``python -m minidl run --check script.py``: what a script or notebook uses of PyTorch and minidl lacks.

Nothing is run: names are followed through the text's syntax tree, from imports through aliases and assignments, and
what is missing is printed with its line, as a compiler does. Modules beside the script that it imports are read too.

Certain are missing names, and imports that are not installed. Only possible are methods, since the text
does not say what ``x`` is in ``x.sort()``: those that PyTorch's Tensor, Module or Optimizer have and minidl's have not;
and what is tried, in ``try: ... except ImportError``. The exit status is 1 if something is missing
for certain, 2 if the script cannot be read, and otherwise 0.
"""

import ast
import json
import re
import sys
import warnings
from collections import ChainMap, defaultdict
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import minidl
from minidl.compat._install import faces
from minidl.compat._missing import ROOTS
from minidl.compat._old_methods import METHODS as OLD_METHODS
from minidl.compat.names import NAMES, explain

FACES = faces()
CLASSES = ("Tensor", minidl.Tensor), ("nn.Module", minidl.nn.Module), ("optim.Optimizer", minidl.optim.Optimizer)
METHODS = {f"torch.{path}": {*dir(own), *OLD_METHODS.get(own, ())} for path, own in CLASSES}
KNOWN = {"", "__main__", *ROOTS, *sys.stdlib_module_names}
HANDLED = re.compile("'(ImportError|ModuleNotFoundError|AttributeError)'")
# In notebooks, lines that are not Python, and the rest of a cell in another language
MAGIC = re.compile(r"^%%(?!time|capture)(?s:.*)|^([ \t]*)(%+[a-z]|!(?!=)|[?]|[\w.]+[?]+$|[\w, ]+=\s*[%!]).*$", re.M)


def check(script: str) -> int:
    """Print what the script and its own modules lack, and return the exit status."""
    files, counts = [Path(script)], [0, 0]
    for path in files:
        try:
            reader = Reader(path, files[0].parent)
        except (SyntaxError, OSError, ValueError, LookupError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 2
        for (text, certain), places in sorted(reader.found.items(), key=lambda item: min(item[1])):
            where = ", ".join(f"cell {cell} line {line}" if cell else f"{line}" for cell, line in sorted(places))
            print(f"{path}:{where}: {'' if certain else 'possibly '}{text}")
            counts[certain] += 1
        files += [file for file in dict.fromkeys(reader.imported) if file not in files]
    print(f"{script}: {counts[True] or 'nothing'} missing{f', {counts[False]} possibly' if counts[False] else ''}")
    return int(counts[True] > 0)


def _cells(path: Path) -> Iterator[tuple[int, ast.AST]]:
    """The syntax trees of a notebook's code cells, numbered from 1, or that of a script, with number 0."""
    sources: dict[int, Any] = {0: path.read_bytes()}
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(sources[0])["cells"] if cell["cell_type"] == "code"]
        sources = {i: MAGIC.sub(r"\1pass", "".join(cell["source"])) for i, cell in enumerate(cells, 1)}
    with warnings.catch_warnings(action="ignore"):
        for i, source in sources.items():
            yield i, ast.parse(source, f"cell {i}" if i else path.name)


class Reader(ast.NodeVisitor):
    """Follows the names of a file through its text.

    `names` says what each name stands for, such as "torch.nn.Linear", or "" where that is not followed. The body of a
    function is read when all around it has been, since it may use names that are bound later.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.folder = folder  # of the script; its own modules lie there
        self.imported: list[Path] = []  # of those
        self.found: defaultdict[tuple[str, bool], set[tuple[int, int]]] = defaultdict(set)  # (what, certain): places
        self.names: ChainMap[str, str] = ChainMap()
        self.closure = self.names  # what functions see that are defined here: not the names of a class around them
        self.bodies: list[tuple[list[ast.AST], ChainMap[str, str], int]] = []
        self.tried = False
        cells = list(_cells(path))
        nodes = [node for _, tree in cells for node in ast.walk(tree)]
        # Methods that are not a tensor's: those of the script's classes, their attributes, and s.index, d.values
        self.own = {n.name for n in nodes if isinstance(n, ast.FunctionDef)}.union(dir(str), dir(dict))
        self.own |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
        for self.cell, tree in cells:
            self.visit(tree)
        for body, scope, cell in self.bodies:
            self.names, self.closure, self.cell = scope, scope, cell
            self._visit(body)

    def _visit(self, nodes: Iterable[ast.AST | None], tried: bool = False) -> None:
        before, self.tried = self.tried, self.tried or tried
        for node in filter(None, nodes):
            self.visit(node)
        self.tried = before

    def _add(self, node: Any, text: str, certain: bool = True) -> None:
        self.found[text, certain and not self.tried].add((self.cell, node.lineno))

    def _path(self, node: ast.AST) -> str:
        """What a name or a chain of attributes stands for."""
        if isinstance(node, ast.Attribute) and (owner := self._path(node.value)):
            return f"{owner}.{node.attr}"
        return self.names.get(node.id, "") if isinstance(node, ast.Name) else ""

    def _use(self, node: ast.AST, path: str) -> Any:
        """Follow a path into minidl's modules, to its value, or to what is missing."""
        owner, *rest = path.split(".")
        value = FACES.get(owner)
        for i, name in enumerate(rest):
            here = f"{owner}.{name}"
            found = here in FACES or name in METHODS.get(owner, ()) or hasattr(value, name)
            if not found and (owner in FACES or owner in METHODS):  # not an attribute of something else
                for name in rest[i + 1 :]:
                    here += f".{name}" if name in NAMES.get(here, ()) else ""
                return self._add(node, f"{here}: {explain(here)}")
            owner, value = here, FACES.get(here) or getattr(value, name, None)
        return value

    def _import(self, node: ast.AST, module: str) -> None:
        files = [Path(f"{self.folder}/{module.replace('.', '/')}{end}") for end in (".py", "/__init__.py")]
        self.imported += [file for file in files if file.is_file()]
        root = module.partition(".")[0]
        if not (root in KNOWN or root in {p.stem for p in self.folder.iterdir()} or find_spec(root)):
            self._add(node, f"{root}: not installed")

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._import(alias, alias.name)
            self._use(alias, alias.name)
            bound = alias.name if alias.asname else alias.name.partition(".")[0]
            self.names[alias.asname or bound] = bound

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        self._import(node, module)
        for alias in node.names:
            self._use(alias, f"{module}.{alias.name}".removesuffix(".*"))
            # A star stands for PyTorch's names, too: those that minidl lacks are found where they are used.
            names = NAMES.get(module, ()) if alias.name == "*" else [alias.name]
            self.names.update({alias.asname or name: f"{module}.{name}" for name in names})

    def visit_FunctionDef(self, node: Any) -> None:
        self._visit([*getattr(node, "decorator_list", ()), node.args, getattr(node, "returns", None)])
        self.names[getattr(node, "name", "")] = ""
        scope = self.closure.new_child({n.arg: "" for n in ast.walk(node.args) if isinstance(n, ast.arg)})
        self.bodies.append((node.body if isinstance(node.body, list) else [node.body], scope, self.cell))

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit([*node.decorator_list, *node.bases, *node.keywords])
        self.names[node.name] = ""
        self.names = self.names.new_child()
        self._visit(node.body)
        self.names = self.names.parents

    def visit_Try(self, node: ast.Try) -> None:
        caught = any(not handler.type or HANDLED.search(ast.dump(handler.type)) for handler in node.handlers)
        # The handlers first: what the body binds counts, and not `except ImportError: torchvision = None`.
        self._visit([*node.handlers, *node.body], caught)
        self._visit([*node.orelse, *node.finalbody])

    def visit_Name(self, node: Any) -> None:
        if isinstance(node.ctx, ast.Load):
            self._use(node, self._path(node))
        else:
            self.names[node.id] = ""

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if path := self._path(node if isinstance(node.ctx, ast.Load) else node.value):
            self._use(node, path)
        else:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._visit([node.value, *node.targets])
        self.names.update({n.id: self._path(node.value) for n in node.targets if isinstance(n, ast.Name)})

    def visit_Call(self, node: ast.Call) -> None:
        path, method = self._path(node.func), getattr(node.func, "attr", "")
        owner = next((owner for owner in METHODS if method in NAMES[owner]), "")
        if owner and not path and method not in self.own.union(*METHODS.values()):
            self._add(node.func, f"{owner}.{method}: {explain(f'{owner}.{method}')}", certain=False)
        self.generic_visit(node)
