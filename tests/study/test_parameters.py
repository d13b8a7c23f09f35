"""A value is taken or refused, and the refusal is one line that names the key, the file and what is wanted."""

from dataclasses import dataclass

import pytest

from secondlook.errors import Mistake
from secondlook.study import parameters as p
from secondlook.study.files import parse_yaml


@dataclass(frozen=True)
class Params:
    steps: p.PositiveInt
    lr: p.Positive
    betas: tuple[p.Fraction, ...]
    rule: p.one_of("adam", "sgd")
    data: dict[str, tuple[p.Number, ...]]


GOOD = {"steps": 3, "lr": 1, "betas": [0.9, 1], "rule": "sgd", "data": {"a": [1, -2]}}


def test_good_values_get_the_declared_types():
    assert p.build(Params, GOOD, "FILE") == Params(3, 1.0, (0.9, 1.0), "sgd", {"a": (1.0, -2.0)})
    assert isinstance(p.build(Params, GOOD, "FILE").lr, float)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"stepz": 1}, "unknown key 'stepz' in FILE: did you mean 'steps'?"),
        ({"steps": 1.5}, "'steps' in FILE must be a positive integer, got 1.5"),
        ({"steps": True}, "'steps' in FILE must be a positive integer, got True"),
        ({"steps": 0}, "'steps' in FILE must be a positive integer, got 0"),
        ({"lr": 1e200}, "'lr' in FILE must be at most 3.4e+38 in size, got 1e+200"),
        ({"lr": 10**400}, f"'lr' in FILE must be at most 3.4e+38 in size, got {10**400}"),
        ({"lr": float("inf")}, "'lr' in FILE must be a positive number, got inf"),
        ({"steps": 2**63}, f"'steps' in FILE must be at most 9.22e+18 in size, got {2**63}"),
        ({"data": {"a": [1, -1e39]}}, "'data.a[1]' in FILE must be at most 3.4e+38 in size, got -1e+39"),
        ({"lr": "fast"}, "'lr' in FILE must be a positive number, got 'fast'"),
        ({"lr": float("nan")}, "'lr' in FILE must be a positive number, got nan"),
        ({"betas": [0.9, 2]}, "'betas[1]' in FILE must be a number from 0 to 1, got 2"),
        ({"betas": []}, "'betas' in FILE must be a list, not empty, got []"),
        ({"betas": 0.9}, "'betas' in FILE must be a list, not empty, got 0.9"),
        ({"rule": "adamw"}, "'rule' in FILE must be one of adam, sgd, got 'adamw'"),
        ({"data": {"a": [None]}}, "'data.a[0]' in FILE must be a finite number, got None"),
        ({"data": 3}, "'data' in FILE must be a table of keys and values, got 3"),
    ],
)
def test_bad_values_are_one_line(change, message):
    with pytest.raises(Mistake) as refusal:
        p.build(Params, {**GOOD, **change}, "FILE")
    assert str(refusal.value) == message


def test_a_missing_value_is_named():
    with pytest.raises(Mistake, match="'lr' is missing in FILE"):
        p.build(Params, {k: v for k, v in GOOD.items() if k != "lr"}, "FILE")


def test_yaml_reads_exponents_and_refuses_repeated_keys():
    assert parse_yaml("[1e-3, 1.5E+2, .5e1]", "FILE") == [1e-3, 150.0, 5.0]
    with pytest.raises(Mistake, match="FILE line 1 is not valid YAML: repeated key 'a'"):
        parse_yaml("{a: 1, a: 2}", "FILE")
