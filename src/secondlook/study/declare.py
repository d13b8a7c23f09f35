"""What the functions of an experiment's files say of themselves: decorators, which are read without running the files.

    experiment.py   @case(Params)                        the function runs the case of its name: f(params, seed)
                    @case(Params, "a", "b", place=True)  it runs the cases a and b, and takes its Place: f(params, seed, place)
    measures.py     @measure("a", "b")                   a measure f(rows) that cannot do without the cases a and b
                    @measure(cases={"gain": "a", "loss": ("a", "b")})
                                                         two measures: gain is f(rows, "a"), loss is f(rows, "a", "b");
                                                         cases=("a", "b") where they are called as their cases
    figures.py      @figure("a"), @figure(cases={...})   the same for figures; kind="animation" for one that moves

A function without a decorator is a part of the others.
"""

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from secondlook.errors import Mistake
from secondlook.study.files import read
from secondlook.study.parameters import known_keys

ENDINGS = {"drawing": ("pdf", "svg"), "animation": ("gif",)}  # kinds of figures, and the files of each
KEYWORDS = {"case": ("place",), "measure": ("cases",), "figure": ("cases", "kind")}


def case(parameters: type, *_: str, place: bool = False) -> Callable:
    """Mark a function that runs cases with parameters of the class `parameters`."""

    def mark(function: Callable) -> Callable:
        function.parameters = parameters
        return function

    return mark


def measure(*_: str, cases: Mapping | Iterable[str] = ()) -> Callable:
    """Mark a function that makes a number or a table of rows."""
    return lambda function: function


def figure(*_: str, cases: Mapping | Iterable[str] = (), kind: str = "drawing") -> Callable:
    """Mark a function that draws rows."""
    return lambda function: function


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
    for node in ast.parse(read(path)).body:
        for mark in getattr(node, "decorator_list", ()):
            if ast.unparse(mark).partition("(")[0] == decorator:
                where = f"@{decorator} of '{node.name}' in {path}"
                for name, declaration in _named(node, mark, where):
                    if name in found:
                        raise Mistake(f"{where} declares '{name}' a second time")
                    found[name] = declaration
    return found


def _named(node: ast.FunctionDef, mark: ast.Call, where: str) -> list[tuple[str, Declared]]:
    """What one decorator declares."""
    decorator = ast.unparse(mark).partition("(")[0]
    try:
        first = int(decorator == "case")  # the class of its parameters
        words = [ast.literal_eval(word) for word in mark.args[first:]]
        given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in mark.keywords}
    except (AttributeError, ValueError):
        raise Mistake(f"{where} must be called, with plain words: it is read without running the file") from None
    known_keys(given, KEYWORDS[decorator], where, "argument")
    known_keys([given.get("kind", "drawing")], ENDINGS, where, "kind")
    cases = given.pop("cases", ())
    cases = cases if isinstance(cases, dict) else {name: name for name in cases}
    cases = {name: (few,) if isinstance(few, str) else few for name, few in cases.items()}
    text = ast.get_docstring(node) or ""
    if decorator == "case":
        return [(name, Declared(node.name, text, **given)) for name in words or [node.name]]
    if not cases:
        return [(node.name, Declared(node.name, text, requires=tuple(words), **given))]
    return [(name, Declared(node.name, text, few, (*words, *few), **given)) for name, few in cases.items()]
