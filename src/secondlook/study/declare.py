"""Decorators by which the functions of an experiment's files say what they are for.

    experiment.py   @case(Params)                        the function runs the case of its name: f(params, seed)
                    @case(Params, "a", "b", place=True)  it runs the cases a and b, and takes its Place: f(params, seed, place)
    measures.py     @measure("a", "b")                   a measure f(rows) that cannot do without the cases a and b
                    @measure(cases={"gain": "a", "loss": ("a", "b")})
                                                         two measures: gain is f(rows, "a"), loss is f(rows, "a", "b");
                                                         cases=("a", "b") where they are called as their cases
                    @measure("a", each={"gain": "x"})    gain is f(rows, "x"), where x is no case
    figures.py      @figure("a"), @figure(cases={...})   the same for figures; kind="animation" for one that moves

A function without a decorator is a part of the others. All words are literal: secondlook.study.declared reads them without
running the file, and checks them.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def case(parameters: type, *cases: str, place: bool = False) -> Callable:
    """Mark a function that runs cases with parameters of the class `parameters`. Other cases may be marked with another."""

    def mark(function: Any) -> Any:
        function.parameters = vars(function).get("parameters", {}) | dict.fromkeys(cases or [function.__name__], parameters)
        return function

    return mark


def measure(*_: str, cases: Mapping | Iterable[str] = (), each: Mapping = {}) -> Callable:
    """Mark a function that makes a number or a table of rows."""
    return lambda function: function


def figure(*_: str, cases: Mapping | Iterable[str] = (), each: Mapping = {}, kind: str = "drawing") -> Callable:
    """Mark a function that draws rows."""
    return lambda function: function
