"""Which of the project's files a Python file depends on: found by reading its imports, not by running them.

    imported    every file that an import runs; the tests check the boundaries between folders with them
    sources     the files on which what it computes depends; the workflow lists them as inputs, a record carries their digests

The two differ by the `__init__` files that only re-export. What is imported through one depends on the file that defines the
name, and neither on the `__init__` nor on its neighbours: `from secondlook.optim import AdaHessian` depends on adahessian.py
and on what that imports. So a change to one module reruns what uses it and nothing else, and a new module reruns nothing.
"""

import ast
import io
import tokenize
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import secondlook
from secondlook.study.files import read, sha256

PACKAGE = Path(secondlook.__file__).parent
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(read(path), str(path))


def _names(node: ast.AST, path: Path) -> dict[str, str]:
    """What the statement `node` of `path` imports: its name there, and its dotted name, which is made absolute."""
    if isinstance(node, ast.Import):
        return {alias.asname or alias.name: alias.name for alias in node.names}
    if not isinstance(node, ast.ImportFrom):
        return {}
    inside = PACKAGE in path.parents
    package = ["secondlook", *path.parent.relative_to(PACKAGE).parts] if inside else ["experiments", path.parent.name]
    base = package[: len(package) + 1 - node.level] if node.level else []
    base += [node.module] if node.module else []
    return {alias.asname or alias.name: ".".join([*base, alias.name]) for alias in node.names}


@cache
def _imports(path: Path) -> frozenset[str]:
    """Dotted names of everything that `path` imports, at any depth of nesting."""
    return frozenset(name for node in ast.walk(_tree(path)) for name in _names(node, path).values())


@cache
def _re_exports(path: Path) -> dict[str, str] | None:
    """Name and dotted name of what an `__init__` hands on; None where it does anything else. A docstring and a dunder name that
    is assigned (`__all__`) are nothing else."""
    handed: dict[str, str] = {}
    for node in _tree(path).body:
        if isinstance(node, ast.ImportFrom) and node.names[0].name != "*":
            handed |= _names(node, path)
        elif isinstance(node, ast.Assign):
            if not all(isinstance(target, ast.Name) and target.id.startswith("__") for target in node.targets):
                return None
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            return None
    return handed


def _folder(name: str, root: Path) -> Path | None:
    """The folder of the project's package `name`; None for other people's."""
    return {"secondlook": PACKAGE, "experiments": root / "experiments"}.get(name)


def _run_by(name: str, root: Path) -> Iterator[Path]:
    """The files that importing `name` runs: the packages on the way and the module itself."""
    first, *rest = name.split(".")
    if folder := _folder(first, root):
        yield folder / "__init__.py"
        for part in rest:
            yield from (folder / f"{part}.py", folder / part / "__init__.py")
            folder = folder / part


def _meant_by(name: str, root: Path) -> Iterator[Path]:
    """The file that defines `name`, which is followed through every `__init__` that only re-exports; one that does more counts
    too. A package that is wanted whole, or asked for what it does not hand on, is its `__init__` with all that this imports."""
    first, *rest = name.split(".")
    folder = _folder(first, root)
    if folder is None:
        return
    for depth, part in enumerate(rest, 1):
        package, own = folder / "__init__.py", ".".join([first, *rest[:depth]])
        handed = _re_exports(package) if package.is_file() else {}
        if handed is None:
            yield package
        elif handed.get(part, own) != own:  # and no module of the package's own
            yield from _meant_by(handed[part], root)
            return
        if (folder / f"{part}.py").is_file():
            yield folder / f"{part}.py"
            return
        if not (folder / part).is_dir():
            yield package
            return
        folder = folder / part
    yield folder / "__init__.py"


def _closure(path: Path, root: Path, files: Callable[[str, Path], Iterable[Path]]) -> list[Path]:
    """`path` and all that it needs, directly or not, sorted. `files` gives those that stand for a name."""
    found, fresh = set(), {Path(path)}
    while fresh:
        found |= fresh
        fresh = {file for path in fresh for name in _imports(path) for file in files(name, root) if file.is_file()} - found
    return sorted(found)


def imported(path: Path, root: Path) -> list[Path]:
    """`path` and every file of the project that importing it runs, sorted. `root` is the project's folder."""
    return _closure(path, root, _run_by)


def sources(path: Path, root: Path) -> list[Path]:
    """`path` and every file of the project on which what it computes depends, sorted. `root` is the project's folder."""
    return _closure(path, root, _meant_by)


def outside_imports(path: Path, root: Path) -> set[str]:
    """Top-level names of the packages of others that importing `path` imports."""
    return {name.split(".")[0] for file in imported(path, root) for name in _imports(file)} - {"secondlook", "experiments"}


def relative(path: Path, root: Path) -> str:
    """The name under which a source stands in a record: relative to the project, or to the package where it is installed."""
    for base, prefix in ((root, ""), (PACKAGE.parent, "src/")):
        if path.is_relative_to(base):
            return prefix + path.relative_to(base).as_posix()
    return path.name


def code(text: str) -> str:
    """The part of a Python file on which a result can depend: no comments, docstrings and blank lines."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            string = node.body[0]
            end = string.end_lineno or string.lineno
            if lines[string.lineno - 1][: string.col_offset].isspace() or not string.col_offset:
                lines[string.lineno - 1 : end] = [""] * (end - string.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def digests(paths: list[Path], root: Path) -> dict[str, str]:
    """Of the code of each file, so that a result does not go stale by a better docstring."""
    return {relative(path, root): _digest(read(path)) for path in paths}


@cache
def _digest(source: bytes) -> str:
    return sha256(code(source.decode()).encode())
