"""What an experiment's files declare (secondlook.study.declare), read without running them."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secondlook.errors import Mistake
from secondlook.study.files import read
from secondlook.study.parameters import known_keys

ENDINGS = {"drawing": ("pdf", "svg"), "animation": ("gif",)}  # kinds of figures, and the files of each
KEYWORDS = {"case": ("place",), "measure": ("cases", "each"), "figure": ("cases", "each", "kind")}


@dataclass(frozen=True)
class Declared:
    """One case, measure or figure: the function that makes it, its docstring, the arguments that follow the rows, the cases
    without which it cannot be, the kind of a figure, and whether the function takes its Place."""

    function: str
    text: str
    arguments: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    kind: str = "drawing"
    place: bool = False


def declared(path: Path, decorator: str) -> dict[str, Declared]:
    """Name and declaration of everything in the file at `path` that carries `decorator`, in order."""
    found = {}
    for node in (node for node in ast.parse(read(path)).body if isinstance(node, ast.FunctionDef)):
        for mark in node.decorator_list:
            if ast.unparse(mark).partition("(")[0] == decorator:
                where = f"@{decorator} of '{node.name}' in {path}"
                for name, declaration in _named(node, mark, decorator, where).items():
                    if name in found:
                        raise Mistake(f"{where} declares '{name}' a second time")
                    found[name] = declaration
    return found


def _named(node: ast.FunctionDef, mark: Any, decorator: str, where: str) -> dict[str, Declared]:
    """What one decorator declares."""
    try:
        after = mark.args[1:] if decorator == "case" else mark.args  # the class of its parameters comes first
        words = tuple(ast.literal_eval(word) for word in after)
        given = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in mark.keywords}
    except (AttributeError, ValueError):
        raise Mistake(f"{where} must be called, with plain words: it is read without running the file") from None
    known_keys(given, KEYWORDS[decorator], where, "argument")
    known_keys([given.get("kind", "drawing")], ENDINGS, where, "kind")
    text, cases, each = ast.get_docstring(node) or "", given.pop("cases", ()), given.pop("each", {})
    if decorator == "case":
        return {name: Declared(node.name, text, **given) for name in words or [node.name]}
    if not cases and not each:
        return {node.name: Declared(node.name, text, requires=words, **given)}
    cases = cases if isinstance(cases, dict) else {name: name for name in cases}
    cases = {name: (few,) if isinstance(few, str) else few for name, few in cases.items()}
    found = {name: Declared(node.name, text, few, (*words, *few), **given) for name, few in cases.items()}
    return found | {name: Declared(node.name, text, (word,), words, **given) for name, word in each.items()}
