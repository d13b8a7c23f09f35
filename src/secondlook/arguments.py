"""What an argument must be, and one line that says so where it is not.

COUNT.check(probes=0, draws=3)    ValueError: probes must be a positive integer, got 0
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Must:
    """`be`: what a value must be, as the message says it. `holds`: whether it is; a TypeError says that it is not."""

    be: str
    holds: Callable[[Any], bool]

    def admits(self, value: object) -> bool:
        """Whether `value` is what it must be."""
        try:
            return bool(self.holds(value))
        except TypeError:
            return False

    def check(self, **given: Any) -> None:
        """Raise ValueError for the first argument of `given`, by name, that is not what it must be."""
        for name, value in given.items():
            if not self.admits(value):
                raise ValueError(f"{name} must be {self.be}, got {value!r}")

    def or_none(self) -> "Must":
        """The same, or None."""
        return Must(f"{self.be} or None", lambda x: x is None or self.holds(x))


def one_of(names: Iterable[str]) -> Must:
    """One of these words."""
    return Must(f"one of {', '.join(names)}", lambda x: x in names)


def at_least(least: int) -> Must:
    """An integer that is no smaller."""
    return Must(f"an integer of at least {least}", lambda x: isinstance(x, int) and x >= least)


NOT_NEGATIVE = Must("a finite number, zero or more", lambda x: 0 <= x < math.inf)
POSITIVE = Must("a finite number above zero", lambda x: 0 < x < math.inf)
BETA = Must("a number in [0, 1)", lambda x: 0 <= x < 1)
BETAS = Must("two numbers in [0, 1)", lambda x: len(x) == 2 and all(0 <= beta < 1 for beta in x))
BETWEEN = Must("a number in (0, 1)", lambda x: 0 < x < 1)
SHARE = Must("a number above zero, at most one", lambda x: 0 < x <= 1)
COUNT = Must("a positive integer", lambda x: isinstance(x, int) and x >= 1)
FLAG = Must("True or False", lambda x: isinstance(x, bool))
