"""A verdict follows from measures by the declared rules, and from nothing else."""

import json
from pathlib import Path

import pytest
import yaml

from secondlook.errors import Mistake
from secondlook.study.claims import declared, judge, judge_all, markdown_table
from secondlook.study.experiment import Experiment, experiments
from secondlook.study.measures import Summary, from_plain, to_plain
from secondlook.study.statistics import Estimate

ROOT = Path(__file__).parents[1]
CLAIM = {
    "id": "X1", "source": "", "statement": "s", "target": "t", "metric": "a", "figure": "losses",
    "checks": {"a": {"measure": "a", "between": [0, 1]}, "b": {"measure": "b.c", "between": [0.5, float("inf")]}},
    "verdicts": [
        {"verdict": "reproduced", "when": ["a", "b"], "why": "both"},
        {"verdict": "partly", "when": ["a"], "why": "a is << a | number >>"},
        {"verdict": "not reproduced", "why": "neither"},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    "a, b, verdict",
    [
        (Estimate(0.5, 0.2, 0.8, 5), Estimate(0.6), "reproduced"),
        (Estimate(0.5, 0.2, 0.8, 5), Estimate(0.6, 0.4, 0.8, 5), "partly"),  # an interval that leaves the band does not hold
        (Estimate(0.5, 0.2, 1.1, 5), Estimate(0.6), "not reproduced"),
        (Estimate(float("inf")), Estimate(float("inf")), "not reproduced"),
        (Estimate(float("nan")), Estimate(0.6), "not reproduced"),
    ],
)
def test_the_first_rule_that_holds_is_the_verdict(project, a, b, verdict):
    found = judge(CLAIM, Experiment(project.folder, "demo"), Summary({"a": a, "b": {"c": b}}, {}))
    assert found["verdict"] == verdict and found["n"] == a.n
    assert found["interval"] == (None if a.low is None else [a.low, a.high])


def test_why_quotes_the_measures(project):
    summary = Summary({"a": Estimate(0.5), "b": {"c": Estimate(0)}}, {})
    assert judge(CLAIM, Experiment(project.folder, "demo"), summary)["why"] == "a is 0.500"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"figur": "x"}, "unknown key 'figur' in .*claims.yaml: did you mean 'figure'"),
        ({"figure": "nothing"}, "claim X1 of .* names the figure 'nothing', which does not exist"),
        ({"metric": 3}, "'0.metric' in .* must be of type string, got 3"),
        (
            {"verdicts": [{"verdict": "maybe", "why": ""}]},
            "must be one of reproduced, partly, not reproduced, artefact, not test",
        ),
        ({"verdicts": CLAIM["verdicts"][:1]}, "exactly one rule without 'when', the last"),
        (
            {"verdicts": [{"verdict": "partly", "when": ["z"], "why": ""}, CLAIM["verdicts"][2]]},
            "the check 'z', which does not",
        ),
        ({"requires": ["deca"]}, "unknown case 'deca' in claim X1 of .*: did you mean 'decay'"),
        ({"checks": {}}, "'0.checks' in .* must fit its schema"),
        ({"source": None}, "'0.source' in .* must be of type string, got None"),
    ],
)
def test_a_claim_that_is_written_wrongly_is_one_line(project, change, message):
    project.write("experiments/demo/claims.yaml", yaml.safe_dump([{**CLAIM, **change}]))
    with pytest.raises(Mistake, match=message) as refusal:
        declared(Experiment(project.folder, "demo"))
    assert "\n" not in str(refusal.value)


def test_a_missing_key_is_named(project):
    project.write("experiments/demo/claims.yaml", yaml.safe_dump([{k: v for k, v in CLAIM.items() if k != "metric"}]))
    with pytest.raises(Mistake, match="must have the key 'metric'"):
        declared(Experiment(project.folder, "demo"))


def test_a_measure_that_does_not_exist_is_named(project):
    with pytest.raises(Mistake, match="claim X1 of .* names the measure 'b.c', which does not exist"):
        judge(CLAIM, Experiment(project.folder, "demo"), Summary({"a": Estimate(0)}, {}))


def test_a_claim_waits_for_what_it_requires(project):
    """Not judged while a case is missing, judged as ever once none is; without `requires` the missing measure is named."""
    demo = Experiment(project.folder, "demo")
    there = Summary({"a": Estimate(0.5), "b": {"c": Estimate(1)}}, {})
    absent = Summary({}, {}, ("decay",))
    found = judge({**CLAIM, "requires": ["slow", "decay"]}, demo, absent)
    assert found["why"] == "needs stage demo/decay, which has not been recorded (device cuda)"
    assert found["verdict"] == "not testable here" and found["n"] == 0 and found["figure"] is None
    assert judge({**CLAIM, "requires": ["decay"]}, demo, there) == judge(CLAIM, demo, there)
    assert "| t | – | 0 | **not testable here** |" in markdown_table([found])
    with pytest.raises(Mistake, match="claim X1 of .* names the measure 'a', which does not exist without case decay"):
        judge(CLAIM, demo, absent)


def test_an_id_is_used_once(project):
    demo = Experiment(project.folder, "demo")
    summary = Summary({"factor": Estimate(0.64)}, {})
    with pytest.raises(Mistake, match="the id X1 is used twice"):
        judge_all([(demo, summary), (demo, summary)])


def test_summaries_survive_json():
    summary = Summary({"a": Estimate(float("inf"), 1.0, float("inf"), 3), "b": {"c": Estimate(1)}}, {}, ("decay",))
    assert from_plain(json.loads(json.dumps(to_plain(summary)))) == summary


def test_the_table_has_a_row_for_each_claim():
    claim = {**CLAIM, "measured": 0.5, "interval": [0.25, 0.75], "n": 5, "verdict": "partly", "why": "w"}
    assert markdown_table([claim]).splitlines()[2] == "| X1 | s | t | 0.5000 [0.2500, 0.7500] | 5 | **partly** |"


@pytest.mark.parametrize("experiment", experiments(ROOT), ids=lambda e: e.name)
def test_the_study_declares_its_claims_well(experiment):
    """Checked against the schema; each claim can come out in more than one way."""
    for claim in declared(experiment):
        assert len({rule["verdict"] for rule in claim["verdicts"]}) > 1
