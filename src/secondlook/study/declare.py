"""Decorators by which the functions of an experiment's files say what they are for.

    experiment.py   @case(Params)                        the function runs the case of its name: f(params, seed)
                    @case(Params, "a", "b", place=True)  it runs the cases a and b, and takes its Place: f(params, seed, place)
    measures.py     @measure("a", "b")                   a measure f(rows) that cannot do without the cases a and b
                    @measure(cases={"gain": "a", "loss": ("a", "b")})
                                                         two measures: gain is f(rows, "a"), loss is f(rows, "a", "b");
                                                         cases=("a", "b") where they are called as their cases
    figures.py      @figure("a"), @figure(cases={...})   the same for figures; kind="animation" for one that moves

A function without a decorator is a part of the others. All words are literal: secondlook.study.declared reads them without
running the file, and checks them.
"""

from collections.abc import Callable, Iterable, Mapping


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
