"""``python -m minidl run --check script.py``: what a script or notebook uses of PyTorch and minidl lacks.

Nothing is run: names are followed through imports, aliases and assignments in the text (its syntax tree). What is
found is printed with its line, as a compiler does. The script's own modules, beside it, are read as well.

Certain are names of modules, keyword arguments, and imports of modules that are not installed. Only possible are
methods, since the text does not say what ``x`` is in ``x.sort()``: those that PyTorch's Tensor, Module or Optimizer
have and minidl's have not; and what the script tries, in ``try: ... except ImportError`` or after ``hasattr``.
"""

import ast
import importlib.util
import inspect
import json
import re
import sys
import warnings
from collections import ChainMap, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import minidl
from minidl.compat._install import faces
from minidl.compat._missing import ROOTS
from minidl.compat._old_methods import METHODS
from minidl.compat.names import DROPPED, NAMES, explain

FACES = faces()
CLASSES = {"Tensor": minidl.Tensor, "nn.Module": minidl.nn.Module, "optim.Optimizer": minidl.optim.Optimizer}
METHODS_HERE = {f"torch.{path}": {*dir(own), *METHODS.get(own, ())} for path, own in CLASSES.items()}
HANDLED = {"ImportError", "ModuleNotFoundError", "AttributeError"}
EVERYWHERE = {"size_average", "reduce", "axis", "keepdims"}  # arguments that wrappers turn into others
MAGIC = re.compile(r"^([ \t]*)(%+[a-z].*|[!?].*|.*\?|[\w, ]+=\s*[%!].*)$", re.MULTILINE)
FOREIGN = re.compile(r"\s*%%(?!time|capture|prun)")  # a cell that is not Python

Place = tuple[int, int]  # cell of a notebook, or 0, and line


class Unit(NamedTuple):
    """A script, or one cell of a notebook."""

    path: Path
    cell: int
    tree: ast.Module


def main(arguments: list[str]) -> int:
    """List what the script lacks: 0 if nothing is missing for certain, 1 if something is, 2 if it cannot be read."""
    try:
        script = _path(arguments)
        units = _read_all(script)
    except SyntaxError as error:
        print(f"{error.filename}{error.lineno}: {type(error).__name__}: {error.msg}", file=sys.stderr)
        return 2
    except (OSError, ValueError, KeyError) as error:
        print(f"minidl run --check: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    total = {True: 0, False: 0}
    for path in dict.fromkeys(unit.path for unit in units):
        found = Reader(units, path, script.parent).found
        for (text, certain), places in sorted(found.items(), key=lambda item: min(item[1])):
            first, *others = [f"cell {cell}, line {line}" if cell else str(line) for cell, line in sorted(places)]
            print(f"{path}:{first}: {text}{' (also ' * bool(others)}{'; '.join(others)}{')' * bool(others)}")
            total[certain] += 1
    print(f"{script}: {total[True] or 'nothing'} missing{f', {total[False]} possibly' * bool(total[False])}")
    return int(total[True] > 0)


def _path(arguments: list[str]) -> Path:
    match arguments:
        case ["-m", name, *_]:
            spec = importlib.util.find_spec(name)
            if not spec or not spec.origin:
                raise ValueError(f"no module named {name}")
            return Path(spec.origin)
        case [path, *_]:
            return Path(path)
    raise ValueError("expected a script or a notebook")


def _read_all(script: Path) -> list[Unit]:
    """The script, the modules of its folder that it imports, and those that they import."""
    units: list[Unit] = []
    waiting = [script]
    for path in waiting:
        own = list(_read(path))
        units += own
        files = [file for unit in own for node in ast.walk(unit.tree) for file in _local(node, unit.path, script)]
        waiting += [file for file in dict.fromkeys(files) if file not in waiting]
    return units


def _local(node: ast.AST, path: Path, script: Path) -> list[Path]:
    """The files of the script's folder, or for a relative import of this file's, that an import may read."""
    if isinstance(node, ast.Import):
        folder, names = script.parent, [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        folder = path.parents[node.level - 1] if node.level else script.parent
        names = [node.module or "", *(f"{node.module or ''}.{alias.name}" for alias in node.names)]
    else:
        return []
    stems = [folder.joinpath(*name.split(".")) for name in names if name]
    return [file for stem in stems for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()]


def _read(path: Path) -> Iterator[Unit]:
    if path.suffix != ".ipynb":
        yield Unit(path, 0, _parse(path.read_bytes(), f"{path}:"))
        return
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    for i, cell in enumerate(cells, 1):
        source, place = "".join(cell["source"]), f"{path}:cell {i}, line "
        if not FOREIGN.match(source):
            try:
                yield Unit(path, i, _parse(source, place))
            except SyntaxError:
                yield Unit(path, i, _parse(MAGIC.sub(r"\1pass", source), place))


def _parse(source: str | bytes, name: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the script's string literals
        return ast.parse(source, name)


class Reader(ast.NodeVisitor):
    """Follows the names of one file through its text, and keeps in `found` what minidl lacks.

    `names` has what each name stands for, such as "torch.nn.Linear", or "" where that is not followed. A function's
    body is read when all around it has been, since it may use names that are bound later.
    """

    def __init__(self, units: list[Unit], path: Path, folder: Path) -> None:
        self.found: defaultdict[tuple[str, bool], set[Place]] = defaultdict(set)  # (text, certain): places
        self.names: ChainMap[str, str] = ChainMap()
        self.closure = self.names  # what functions see that are defined here: not the names of a class around them
        self.bodies: list[tuple[list[ast.AST], list[str], ChainMap[str, str], int]] = []
        self.trying = False  # inside of `try` or `if hasattr`
        self.folder = folder
        classes = [node for unit in units for node in ast.walk(unit.tree) if isinstance(node, ast.ClassDef)]
        self.own = {n.name for c in classes for n in c.body if isinstance(n, ast.FunctionDef)}
        self.own |= {n.attr for c in classes for n in ast.walk(c) if isinstance(n, ast.Attribute) and _stored(n)}
        for _, self.cell, tree in [unit for unit in units if unit.path == path]:
            self.visit(tree)
        for body, arguments, closure, self.cell in self.bodies:
            self.names = self.closure = closure.new_child(dict.fromkeys(arguments, ""))
            self._visit_all(body)

    def _visit_all(self, nodes: Iterable[ast.AST | None], trying: bool = False) -> None:
        before, self.trying = self.trying, self.trying or trying
        for node in nodes:
            if node is not None:
                self.visit(node)
        self.trying = before

    def _add(self, node: Any, text: str, certain: bool = True) -> None:
        self.found[text, certain and not self.trying].add((self.cell, node.lineno))

    def _path(self, node: ast.AST) -> str:
        """What a name or a chain of attributes stands for."""
        if isinstance(node, ast.Attribute) and (owner := self._path(node.value)):
            return f"{owner}.{node.attr}"
        return self.names.get(node.id, "") if isinstance(node, ast.Name) else ""

    def _use(self, node: ast.AST, path: str) -> Any:
        """Follow a path into minidl's modules, to its value; add what is missing."""
        parts = path.split(".")
        value = FACES[parts[0]] if parts[0] in ROOTS else None
        for i, name in enumerate(parts[1:] if value else [], 1):
            owner, here = ".".join(parts[:i]), ".".join(parts[: i + 1])
            if owner not in FACES and owner not in METHODS_HERE:
                return None  # an attribute of a class, or of a value
            if here not in FACES and name not in METHODS_HERE.get(owner, ()) and not hasattr(value, name):
                self._add(node, f"{here}: {explain(here)}")
                return None
            value = FACES.get(here) or getattr(value, name, None)
        return value

    def _import(self, node: ast.AST, module: str) -> None:
        root = module.partition(".")[0]
        here = root in sys.stdlib_module_names or (self.folder / root).is_dir() or (self.folder / f"{root}.py").exists()
        if root in ROOTS:
            self._use(node, module)
        elif not here and root not in sys.modules and not importlib.util.find_spec(root):
            self._add(node, f"{root}: not installed")

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._import(alias, alias.name)
            root = alias.name.partition(".")[0]
            self.names[alias.asname or root] = alias.name if alias.asname else root

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        if not node.level:
            self._import(node, module)
        for alias in node.names:
            if alias.name == "*":  # what PyTorch's module has, too, so that its use is found
                star = {*vars(FACES.get(module, ast)), *NAMES.get(module, ())} if module in NAMES else ()
                self.names.update({name: f"{module}.{name}" for name in star})
            else:
                self._use(alias, f"{module}.{alias.name}")
                self.names[alias.asname or alias.name] = f"{module}.{alias.name}"

    def visit_FunctionDef(self, node: Any) -> None:
        self._visit_all([*getattr(node, "decorator_list", ()), node.args, getattr(node, "returns", None)])
        self.names[getattr(node, "name", "")] = ""
        arguments = [n.arg for n in ast.walk(node.args) if isinstance(n, ast.arg)]
        self.bodies.append((node.body if isinstance(node.body, list) else [node.body], arguments, self.closure, self.cell))

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_all([*node.decorator_list, *node.bases, *node.keywords])
        self.names[node.name] = ""
        self.names = self.names.new_child()
        self._visit_all(node.body)
        self.names = self.names.parents

    def visit_Try(self, node: Any) -> None:
        caught = [{getattr(n, "id", "") for n in ast.walk(h.type)} if h.type else HANDLED for h in node.handlers]
        trying = any(HANDLED & names for names in caught)
        self._visit_all(node.body, trying)
        bound = {name: path for name, path in self.names.maps[0].items() if path}
        self._visit_all(node.handlers, trying)
        self.names.update(bound)  # `except ImportError: torchvision = None` is not what is to be followed
        self._visit_all([*node.orelse, *node.finalbody])

    def visit_If(self, node: Any) -> None:
        tests = ast.walk(getattr(node, "test", node))
        asks = any(isinstance(n, ast.Name) and n.id == "hasattr" for n in tests)
        self._visit_all(ast.iter_child_nodes(node), asks)

    visit_IfExp = visit_BoolOp = visit_If

    def visit_Name(self, node: ast.Name) -> None:
        if _stored(node):
            self.names[node.id] = ""
        else:
            self._use(node, self._path(node))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        path = self._path(node.value if _stored(node) else node)
        if path:
            self._use(node, path)
        else:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._visit_all([node.value, *node.targets])
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.names[target.id] = self._path(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        path = self._path(node.func)
        if path:
            self._arguments(node, path)
        elif isinstance(node.func, ast.Attribute) and node.func.attr not in self.own:
            name = node.func.attr
            owner = next((path for path in METHODS_HERE if name in NAMES[path] | DROPPED.get(path, set())), None)
            if owner and not any(name in methods for methods in METHODS_HERE.values()):
                self._add(node.func, f".{name}(): possibly {owner}.{name}, {explain(f'{owner}.{name}')}", False)
        self.generic_visit(node)

    def _arguments(self, node: ast.Call, path: str) -> None:
        function = self._use(node.func, path)
        if getattr(function, "__module__", "").endswith("_old_arguments") and isinstance(function, type):
            function = function.__base__
        try:
            takes = inspect.signature(function).parameters
        except (TypeError, ValueError):
            return
        if any(p.kind == p.VAR_KEYWORD for p in takes.values()):
            return
        for keyword in node.keywords:
            none = isinstance(keyword.value, ast.Constant) and keyword.value.value is None
            if keyword.arg and keyword.arg not in {*takes, *EVERYWHERE} and not none:
                self._add(keyword, f"{path}: minidl's does not take the argument {keyword.arg}=")


def _stored(node: ast.Name | ast.Attribute) -> bool:
    return not isinstance(node.ctx, ast.Load)
