"""Which of the project's files a Python file depends on: found by reading its imports, not by running them.

The workflow lists them as inputs, a record carries their digests, and the tests check the boundaries between folders
with them. So a change to one module reruns what imports it and nothing else.
"""

import ast
import io
import tokenize
from functools import cache
from pathlib import Path

import secondlook
from secondlook.study.files import read, sha256

PACKAGE = Path(secondlook.__file__).parent
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def _imports(path: Path) -> frozenset[str]:
    """Dotted names of everything that `path` imports, at any depth of nesting; relative names made absolute."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                base = ["experiments", path.parent.name, *base]
            names |= {".".join([*base, alias.name]) for alias in node.names}
    return frozenset(names)


def _files(name: str, root: Path) -> set[Path]:
    """The files that importing `name` runs: the packages on the way and the module itself. None for other people's modules."""
    first, *rest = name.split(".")
    folder = {"secondlook": PACKAGE, "experiments": root / "experiments"}.get(first)
    if folder is None:
        return set()
    found = {folder / "__init__.py"}
    for part in rest:
        found |= {folder / f"{part}.py", folder / part / "__init__.py"}
        folder = folder / part
    return {path for path in found if path.is_file()}


def sources(path: Path, root: Path) -> list[Path]:
    """`path` and every file of the project that it imports, directly or not, sorted. `root` is the project's folder."""
    found, fresh = set(), {Path(path)}
    while fresh:
        found |= fresh
        fresh = {file for path in fresh for name in _imports(path) for file in _files(name, root)} - found
    return sorted(found)


def outside_imports(path: Path, root: Path) -> set[str]:
    """Top-level names of the packages of others that `path` and its sources import."""
    return {name.split(".")[0] for file in sources(path, root) for name in _imports(file)} - {"secondlook", "experiments"}


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
            if lines[string.lineno - 1][: string.col_offset].isspace() or not string.col_offset:
                lines[string.lineno - 1 : string.end_lineno] = [""] * (string.end_lineno - string.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def digests(paths: list[Path], root: Path) -> dict[str, str]:
    """Of the code of each file, so that a result does not go stale by a better docstring."""
    return {relative(path, root): _digest(read(path)) for path in paths}


@cache
def _digest(source: bytes) -> str:
    return sha256(code(source.decode()).encode())
