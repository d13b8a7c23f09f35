"""Parameters: from YAML to a frozen dataclass, or one line that says what is wrong with them.

A parameter's type is its check. The types below are `Annotated` with a sentence and a test, and may be nested in
`tuple[T, ...]` and `dict[str, T]`:

    @dataclass(frozen=True)
    class Params:
        steps: PositiveInt
        learning_rates: tuple[Positive, ...]
"""

import difflib
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from secondlook.arguments import Must
from secondlook.errors import Mistake

Built = TypeVar("Built")
LARGEST: dict[type, float] = {float: 3.4e38, int: 2**63 - 1}  # what float32 and int64 hold, in which it is computed
LARGEST_SEED = 2**31 - 1  # every generator takes it, and those of seeds derived from it


def _integer(x: object) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def _number(x: object) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < math.inf


PositiveInt = Annotated[int, Must("a positive integer", lambda x: _integer(x) and x > 0)]
Count = Annotated[int, Must("an integer, zero or more", lambda x: _integer(x) and x >= 0)]
Number = Annotated[float, Must("a finite number", _number)]
Positive = Annotated[float, Must("a positive number", lambda x: _number(x) and x > 0)]
NonNegative = Annotated[float, Must("a number, zero or more", lambda x: _number(x) and x >= 0)]
Fraction = Annotated[float, Must("a number from 0 to 1", lambda x: _number(x) and 0 <= x <= 1)]
Seed = Annotated[int, Must(f"an integer from 0 to {LARGEST_SEED}", lambda x: _integer(x) and 0 <= x <= LARGEST_SEED)]
Flag = Annotated[bool, Must("true or false", lambda x: isinstance(x, bool))]
Text = Annotated[str, Must("a text", lambda x: isinstance(x, str))]


def one_of(*names: str) -> Any:
    """The type of a text that is one of `names`."""
    return Annotated[str, Must(f"one of {', '.join(names)}", lambda x: x in names)]


def known_keys(given: Iterable, known: Iterable[str], where: str, what: str = "key") -> None:
    """Refuse a key (or another name: `what`) that is not known, and name the one that was probably meant."""
    known = list(known)
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known) or 'none'}"
            raise Mistake(f"unknown {what} '{key}' in {where}: {hint}")


def mapping(value: object, name: str, where: str) -> Mapping:
    """`value`, which must be a table. `name` and `where` say in a Mistake which one it is."""
    if not isinstance(value, Mapping):
        raise Mistake(f"'{name}' in {where} must be a table of keys and values, got {value!r}")
    return value


def _convert(kind: Any, value: Any, name: str, where: str) -> Any:
    """`value` as the annotated type `kind`: numbers become `float` where a float is asked for, lists become tuples."""
    origin = typing.get_origin(kind)
    if origin is tuple:
        if not isinstance(value, list | tuple) or not value:
            raise Mistake(f"'{name}' in {where} must be a list, not empty, got {value!r}")
        item = typing.get_args(kind)[0]
        return tuple(_convert(item, v, f"{name}[{i}]", where) for i, v in enumerate(value))
    if origin is dict:
        item = typing.get_args(kind)[1]
        return {k: _convert(item, v, f"{name}.{k}", where) for k, v in mapping(value, name, where).items()}
    return checked(kind, value, f"'{name}' in {where}")


def checked(kind: Any, value: Any, what: str) -> Any:
    """`value` as the annotated type `kind`, one of the types above. Raises Mistake where it is none, or too large to compute
    with; `what` names it there."""
    base, must = typing.get_args(kind)
    if not must.admits(value):
        raise Mistake(f"{what} must be {must.be}, got {value!r}")
    if base in LARGEST and abs(value) > LARGEST[base]:
        raise Mistake(f"{what} must be at most {LARGEST[base]:.3g} in size, got {value!r}")
    return base(value)


def build(cls: type[Built], values: Mapping, where: str) -> Built:
    """An instance of the frozen dataclass `cls` from `values`, read in `where`. Every field must be given, nothing else may."""
    kinds = typing.get_type_hints(cls, include_extras=True)
    known_keys(values, kinds, where)
    for name in kinds:
        if name not in values:
            raise Mistake(f"'{name}' is missing in {where}")
    return cls(**{name: _convert(kind, values[name], name, where) for name, kind in kinds.items()})
