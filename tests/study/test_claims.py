"""A verdict follows from measures by the declared rules, and from nothing else."""

import json
import math
import re

import pytest
import yaml
from conftest import ROOT

from secondlook.errors import Mistake
from secondlook.study.claims import PURE, declared, judge, judge_all, markdown_table, measured_text, shown
from secondlook.study.experiment import Experiment, experiments
from secondlook.study.measures import Summary, from_plain, to_plain
from secondlook.study.statistics import Estimate

CLAIM = {
    "id": "X1", "source": "", "kind": "document", "evidence": "original", "statement": "s", "stated": "t",
    "band": "at most 1", "bands": "before the runs", "figure": "losses",
    "measured": [
        {"quantity": "time of a step", "unit": "ms", "measure": "a", "times": 1000},
        {"quantity": "time that is saved", "unit": "%", "measure": "b.c", "times": -100},
    ],
    "checks": {
        "a": {"measure": "a", "between": [0, 1]},
        "b": {"measure": "b.c", "between": [0.5, float("inf")]},
        "against": {"measure": "a", "outside": [0, 1]},
    },
    "verdicts": [
        {"verdict": "reproduced", "when": ["a", "b"], "why": "both"},
        {"verdict": "partly", "when": ["a"], "condition": "without b", "why": "a is << a | number >>"},
        {"verdict": "not reproduced", "any": ["against"], "why": "a is not"},
        {"verdict": "undecided", "why": "neither"},
    ],
}  # fmt: skip
REPRODUCED, PARTLY, NOT_REPRODUCED, UNDECIDED = CLAIM["verdicts"]


def found(a: Estimate, b: Estimate | None = None) -> Summary:
    return Summary({"a": a, "b": {"c": b or Estimate(0.6)}, "n": Estimate(140, 81, 290, 20)}, {})


def judged(project, summary: Summary, **change) -> dict:
    return judge({**CLAIM, **change}, Experiment(project.folder, "demo"), summary)


@pytest.mark.parametrize(
    "a, b, verdict",
    [
        (Estimate(0.5, 0.2, 0.8, 5), Estimate(0.6), "reproduced"),
        (Estimate(0.5, 0.2, 0.8, 5), Estimate(0.6, 0.4, 0.8, 5), "partly"),  # an interval that leaves the band does not hold
        (Estimate(0.5, 0.2, 1.1, 5), Estimate(0.6), "undecided"),  # nor does it refute
        (Estimate(1.5, 1.1, 1.9, 5), Estimate(0.6), "not reproduced"),
        (Estimate(-1.5, -1.9, -0.1, 5), Estimate(0.6), "not reproduced"),
        (Estimate(math.inf), Estimate(math.inf), "not reproduced"),
        (Estimate(math.nan), Estimate(0.6), "undecided"),
    ],
)
def test_the_first_rule_that_applies_is_the_verdict(project, a, b, verdict):
    assert judged(project, found(a, b))["verdict"] == verdict


def test_a_measured_number_has_its_name_unit_interval_and_n(project):
    time, saved = judged(project, found(Estimate(0.5, 0.2, 0.8, 5), Estimate(-0.1, -0.3, 0.2, 4)))["measured"]
    assert time == {"quantity": "time of a step", "unit": "ms", "value": 500, "low": 200, "high": 800, "n": 5, "coverage": None}
    assert (saved["value"], saved["low"], saved["high"]) == (10, -20, 30)  # turned round, and so are its ends
    assert measured_text(time) == "time of a step: 500.0 [200.0, 800.0] ms, n = 5"


def test_a_condition_begins_the_reason_which_quotes_the_measures(project):
    assert judged(project, found(Estimate(0.5), Estimate(0)))["why"] == "It holds only without b. a is 0.500"


def test_what_is_undecided_says_what_would_decide_it_and_its_cost(project):
    asked = {"measure": "n", "of": "seeds", "cost": "<< n.n >> s each"}
    open_ = judged(project, found(Estimate(0.5, 0.2, 1.1, 5)), n_to_decide=asked)
    assert open_["why"] == "neither To show the difference that matters, or its absence, takes 140 [81, 290] seeds (20 s each)."
    assert open_["n_to_decide"] == {"n": 140, "low": 81, "high": 290, "of": "seeds", "cost": "20 s each"}
    assert judged(project, found(Estimate(0.5)), n_to_decide=asked)["n_to_decide"] is None


EXACT = {"exact": True, "verdicts": [REPRODUCED, NOT_REPRODUCED]}


def test_exact_numbers_leave_nothing_undecided(project):
    assert judged(project, found(Estimate(2)), **EXACT)["verdict"] == "not reproduced"
    with pytest.raises(Mistake, match="X1 of .* is 'exact', and none of its rules applies"):
        judged(project, found(Estimate(0.5), Estimate(0)), **EXACT)
    with pytest.raises(Mistake, match="X1 of .* is 'exact', and one of its measures has an interval"):
        judged(project, found(Estimate(0.5, 0.2, 0.8, 5)), **EXACT)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"figur": "x"}, "unknown key 'figur' in .*claims.yaml: did you mean 'figure'"),
        ({"figure": "nothing"}, "claim X1 of .* names the figure 'nothing', which does not exist"),
        ({"stated": 3}, "'0.stated' in .* must be of type string, got 3"),
        ({"kind": "rumour"}, "'0.kind' in .* must be one of document, paper, identity, promise, got 'rumour'"),
        ({"evidence": "not run"}, "'0.evidence' in .* must be one of original, proxy, published numbers, got 'not run'"),
        ({"verdicts": [{"verdict": "maybe", "why": ""}]}, "must be one of reproduced, partly, not reproduced, artefact, undec"),
        ({"verdicts": [REPRODUCED]}, "must end with a rule without a check, whose verdict is 'undecided'"),
        (
            {"verdicts": [{"verdict": "not reproduced", "why": ""}]},
            "must end with a rule without a check, whose verdict is 'un",
        ),
        ({"verdicts": [{**UNDECIDED, "when": ["a"]}]}, "must end with a rule without a check"),
        ({"verdicts": [{"verdict": "artefact", "why": ""}, UNDECIDED]}, "gives 'artefact' without a check"),
        ({"exact": True}, "gives 'undecided' without a check: name one under 'when' or 'any'"),
        ({"verdicts": [{**REPRODUCED, "when": ["z"]}, UNDECIDED]}, "the check 'z', which does not"),
        (
            {"verdicts": [{**REPRODUCED, "verdict": "partly"}, UNDECIDED]},
            "'condition' belongs to 'partly', and 'partly' needs it",
        ),
        ({"verdicts": [{**REPRODUCED, "condition": "b"}, UNDECIDED]}, "'condition' belongs to 'partly', and 'partly' needs it"),
        ({"requires": ["deca"]}, "unknown case 'deca' in claim X1 of .*: did you mean 'decay'"),
        ({"checks": {}}, "'0.checks' in .* must fit its schema"),
        ({"checks": {"a": {"measure": "a"}}}, "'0.checks.a' in .* must fit its schema"),
        ({"source": None}, "'0.source' in .* must be of type string, got None"),
        ({"measured": []}, "'0.measured' in .* must fit its schema"),
        ({"measured": [{"quantity": "gain", "unit": "", "measure": "a"}]}, "'gain' needs a unit, or to be called a share"),
        ({"measured": [{"quantity": " ", "unit": "s", "measure": "a"}]}, "X1 of .*: '' needs a unit"),
        ({"not_run": "no rows"}, "must fit its schema"),
    ],
)
def test_a_claim_that_is_written_wrongly_is_one_line(project, change, message):
    project.write("experiments/demo/claims.yaml", yaml.safe_dump([{**CLAIM, **change}]))
    with pytest.raises(Mistake, match=message) as refusal:
        declared(Experiment(project.folder, "demo"))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("key", ["measured", "kind", "bands"])
def test_a_missing_key_is_named(project, key):
    project.write("experiments/demo/claims.yaml", yaml.safe_dump([{k: v for k, v in CLAIM.items() if k != key}]))
    with pytest.raises(Mistake, match=f"must have the key '{key}'"):
        declared(Experiment(project.folder, "demo"))


def test_a_measure_that_does_not_exist_is_named(project):
    with pytest.raises(Mistake, match="claim X1 of .* names the measure 'b.c', which does not exist"):
        judge(CLAIM, Experiment(project.folder, "demo"), Summary({"a": Estimate(0)}, {}))


def test_a_claim_waits_for_what_it_requires(project):
    """Not judged while a case is missing, judged as ever once none is; without `requires` the missing measure is named."""
    there, absent = found(Estimate(0.5), Estimate(1)), Summary({}, {}, ("decay",))
    project.replace(
        "experiments/demo/config.yaml", "cases:\n  decay:\n", "cases:\n  decay:\n    needs: {device: cuda, hours: 0.5}\n"
    )
    waits = judged(project, absent, requires=["decay"])
    assert waits["why"] == "Needs stage demo/decay (device cuda and 0.5 hours of a core), which has not been recorded."
    assert (waits["verdict"], waits["evidence"], waits["measured"], waits["figure"]) == ("not run", "not run", [], None)
    assert judged(project, there, requires=["decay"]) == judged(project, there)
    assert "X1 | s | document, not run | t | at most 1 | – | **not run** |" in markdown_table([waits])
    with pytest.raises(Mistake, match="claim X1 of .* names the measure 'a', which does not exist without case decay"):
        judged(project, absent)


def test_what_nothing_measures_says_why(project):
    """Such a claim needs no figure, check or rule, and may have none."""
    bare = {key: CLAIM[key] for key in ("id", "source", "kind", "evidence", "statement", "stated")}
    project.write("experiments/demo/claims.yaml", yaml.safe_dump([{**bare, "not_run": "Four\n  GPUs."}]))
    (claim,) = declared(Experiment(project.folder, "demo"))
    result = judge(claim, Experiment(project.folder, "demo"), Summary({}, {}))
    assert (result["verdict"], result["why"], result["measured"], result["band"]) == ("not run", "Four GPUs.", [], "")


def test_an_id_is_used_once(project):
    demo = Experiment(project.folder, "demo")
    summary = Summary({"factor": Estimate(0.64)}, {})
    with pytest.raises(Mistake, match="the id X1 is used twice"):
        judge_all([(demo, summary), (demo, summary)])


def test_summaries_survive_json():
    summary = Summary({"a": Estimate(float("inf"), 1.0, float("inf"), 3), "b": {"c": Estimate(1)}}, {}, ("decay",))
    assert from_plain(json.loads(json.dumps(to_plain(summary)))) == summary


def test_table_and_terminal_show_every_number_of_a_claim(project):
    claim = judged(project, found(Estimate(0.5, 0.25, 0.75, 5)))
    numbers = ["time of a step: 500.0 [250.0, 750.0] ms, n = 5", "time that is saved: −60 %, n = 1"]
    row = f'| <a id="claim:X1"></a>X1 | s | document, original | t | at most 1 | {"<br>".join(numbers)} | **reproduced** |'
    assert markdown_table([claim]).splitlines()[2] == row
    first, *rest = [" ".join(line.split()) for line in shown(claim).splitlines()]
    assert first == "X1 reproduced s (a document, original; )"
    assert rest == ["stated: t (here: at most 1)", *numbers, "why: both"]


def invented(claim: dict) -> Summary:
    """Measures with intervals for everything that a claim names; exact where it says so."""
    names = {asked["measure"] for asked in [*claim["checks"].values(), *claim["measured"]]}
    names |= {claim["n_to_decide"]["measure"]} if "n_to_decide" in claim else set()
    made = {}
    for name in names:
        group, _, key = name.partition(".")
        estimate = Estimate(0.5) if claim.get("exact") else Estimate(0.5, 0.4, 0.6, 20)
        made[group] = made.get(group, {}) | {key: estimate} if key else estimate
    return Summary(made, {})


@pytest.mark.parametrize("experiment", experiments(ROOT), ids=lambda e: e.name)
def test_the_study_declares_its_claims_well(experiment):
    """Checked against the schema; each claim can come out in more than one way, for it and not for it; and its line on a terminal
    and in the tables has no number without what it is, and in what."""
    for claim in declared(experiment):
        if "not_run" in claim:
            continue
        verdicts = {rule["verdict"] for rule in claim["verdicts"]}
        assert len(verdicts) > 1
        told = {**claim, "verdicts": [{**rule, "why": "why"} for rule in claim["verdicts"]]}
        told |= {"n_to_decide": {**claim["n_to_decide"], "cost": "cost"}} if "n_to_decide" in claim else {}
        result = judge(told, experiment, invented(claim))
        flat = " ".join(shown(result).split())
        assert len(result["measured"]) == len(claim["measured"])
        for line in map(measured_text, result["measured"]):
            name, _, number = line.rpartition(": ")
            unit = re.sub(r"^[−\d.,×⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+( \[[^\]]*\])?", "", number).partition(", n = ")[0].strip()
            assert re.search("[A-Za-z]{3}", name), line
            assert unit or any(word in name.lower() for word in PURE), line
            assert line in flat and line in markdown_table([result])
