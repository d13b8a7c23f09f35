"""The picture of all verdicts: where a number lies on the scale of its band, and which claims must say where they belong."""

import math
import re
from collections import Counter

import pytest
from conftest import ROOT

from secondlook.errors import Mistake
from secondlook.reporting import overview, style
from secondlook.study.claims import VERDICTS, declared
from secondlook.study.experiment import experiments
from secondlook.study.files import read_yaml

INF = math.inf


def check(value, low, high, **band) -> dict:
    return {"value": value, "low": low, "high": high, "holds": True} | band


@pytest.mark.parametrize(
    "found, expected",
    [
        (check(3, 2, 4, between=[2, 6]), (0.5, 0, 1)),  # two ends: half a band is the unit, and the middle is deepest
        (check(7, 6, 8, between=[2, 6]), (-0.5, -1, 0)),
        (check(4, 1, 7, between=[2, 6]), (1, -0.5, 1)),
        (check(1.5, 1, 3, between=[0, 2]), (0.25, -0.5, 0.5)),  # nothing lies below 0
        (check(-0.4, -0.8, -0.1, between=[0, 1]), (-0.4, -0.8, -0.1)),  # but for a number that may
        (check(0.75, 0.5, 1, between=[0.5, 1]), (0.5, 0, 1)),  # nor above 1
        (check(2, 1, 4, between=[0, INF]), (0.5, 0.25, 1)),  # open: the farthest end is at 1
        (check(2, -1, 4, between=[-INF, 0]), (-0.5, -1, 0.25)),  # the other way round, the claim's favour is on the right
        (check(2, -INF, 4, between=[0, INF]), (0.5, -INF, 1)),
        (check(0.5, 0.3, 0.75, outside=[0, 0.25]), (0.5, 0.1, 1)),  # above a band that must not hold
        (check(5, None, None, between=[3, INF]), (1, 1, 1)),  # exact
        (check(1, None, None, between=[1, 1]), (0.5, 0.5, 0.5)),  # true
        (check(1, None, None, between=[1, 1], holds=False), (-0.5, -0.5, -0.5)),
    ],
)
def test_where_a_number_lies(found, expected):
    depth = overview.depth(found)
    assert (depth.value, depth.low, depth.high) == pytest.approx(expected, abs=1e-12)


def test_every_claim_of_a_document_belongs_to_a_question():
    questions = read_yaml(ROOT / "report" / "questions.yaml")
    claims = [claim | {"experiment": found.name} for found in experiments(ROOT) for claim in declared(found)]
    shown = [claim for claim in claims if claim["kind"] in overview.SHOWN]
    groups = overview.grouped([{"question": "", "short": ""} | claim for claim in claims], questions)
    assert sum(map(len, groups.values())) == len(shown) and set(groups) == set(questions.values())
    assert not [claim["short"] for claim in shown if len(claim["short"]) > 43]  # what its column holds
    again = Counter((claim["question"], claim["short"]) for claim in shown)
    assert max(again.values()) == 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"question": ""}, r"claim A1 of experiments/toy/claims\.yaml lacks 'question', one of report/questions\.yaml"),
        ({"question": "scal"}, r"unknown question 'scal' in claim A1 .*did you mean 'scale'"),
    ],
)
def test_a_claim_that_belongs_nowhere_is_named(change, message):
    claim = {"id": "A1", "experiment": "toy", "kind": "paper", "question": "scale", "short": "a loss"}
    with pytest.raises(Mistake, match=message):
        overview.grouped([claim | change], {"scale": "Scale?"})


def test_verdicts_look_alike_in_text_and_picture():
    text = (ROOT / "report" / "filters" / "marks.lua").read_text()
    colours = {word: f"#{colour.lower()}" for word, colour in re.findall(r'\["([a-z ]+)"\] = "(\w{6})"', text)}
    assert colours == {word: look[0] for word, look in style.VERDICT.items()} and tuple(colours) == VERDICTS
    assert len({look[1:] for look in style.VERDICT.values()}) == len(VERDICTS)  # told apart without colour
