"""Claims and verdicts. A verdict is computed from measures by the rules in an experiment's claims.yaml, never typed.

    - id: A1
      source: where the claim is made
      statement: what it says
      target: the number it gives
      metric: the measure to set beside it
      figure: the figure that shows it
      checks:
        at_epoch_30: {measure: gd_loss.e30, between: [0.08925, 0.08935]}
        at_epoch_40: {measure: gd_loss.e40, between: [0.08925, 0.08935]}
      verdicts:                       # the first rule whose checks all hold; the last has none and always applies
        - {verdict: reproduced, when: [at_epoch_30, at_epoch_40], why: ...}
        - {verdict: partly, when: [at_epoch_30], why: the loss is << gd_loss.e40 | number >> at epoch 40}
        - {verdict: not reproduced, why: ...}

A check holds when the whole interval of its measure lies in the band. A bound may be .inf.

A claim may name cases that it `requires`: while one of them is unrecorded, the verdict is 'not testable here', and says so.
"""

import re
from pathlib import Path

from secondlook.errors import Mistake
from secondlook.study.experiment import Experiment
from secondlook.study.files import read_json, read_yaml
from secondlook.study.measures import Summary
from secondlook.study.parameters import known_keys
from secondlook.study.schema import check
from secondlook.study.statistics import Estimate
from secondlook.study.text import fill, interval

VERDICTS = ("reproduced", "partly", "not reproduced", "artefact", "not testable here")


def declared(experiment: Experiment) -> list[dict]:
    """The claims of an experiment, checked against the schema and against the names that they use."""
    path = experiment.folder / "claims.yaml"
    claims = read_yaml(path)
    check(claims, experiment.root / "workflow" / "schemas" / "claims.schema.yaml", str(path))
    for claim in claims:
        where = f"claim {claim['id']} of {path}"
        if claim["figure"] not in experiment.figures:
            raise Mistake(f"{where} names the figure '{claim['figure']}', which does not exist")
        known_keys(claim.get("requires", []), experiment.cases, where, "case")
        for rule in claim["verdicts"]:
            for name in rule.get("when", []):
                if name not in claim["checks"]:
                    raise Mistake(f"{where} names the check '{name}', which does not exist")
        if "when" in claim["verdicts"][-1] or not all("when" in rule for rule in claim["verdicts"][:-1]):
            raise Mistake(f"{where} needs exactly one rule without 'when', the last")
    return claims


def judge(claim: dict, experiment: Experiment, summary: Summary) -> dict:
    """The claim with its verdict, as it stands in results/claims.json."""
    where = f"claim {claim['id']} of {experiment.folder / 'claims.yaml'}"
    drawn = claim["figure"] in experiment.without("figures", summary.missing)
    result = {
        "id": claim["id"],
        "experiment": experiment.name,
        "statement": claim["statement"],
        "source": claim["source"],
        "target": claim["target"],
        "metric": claim["metric"],
        "figure": f"{experiment.name}/{claim['figure']}" if drawn else None,
    }
    if lacking := [case for case in claim.get("requires", []) if case in summary.missing]:
        stages = " and ".join(f"{experiment.name}/{case}" for case in lacking)
        why = f"needs stage {stages}, which has not been recorded (device cuda)"
        return result | {"measured": None, "interval": None, "n": 0, "verdict": VERDICTS[-1], "why": why, "checks": {}}
    checks = {}
    for name, asked in claim["checks"].items():
        found = summary.find(asked["measure"], where)
        low, high = asked["between"]
        checks[name] = {
            "measure": asked["measure"],
            "value": found.value,
            "interval": _interval(found),
            "between": [float(low), float(high)],
            "holds": found.within(low, high),
        }
    rule = next(rule for rule in claim["verdicts"] if all(checks[name]["holds"] for name in rule.get("when", [])))
    headline = summary.find(claim["metric"], where)
    return result | {
        "measured": headline.value,
        "interval": _interval(headline),
        "n": headline.n,
        "verdict": rule["verdict"],
        "why": " ".join(fill(rule["why"], summary.measures, where).split()),
        "checks": checks,
    }


def _interval(found: Estimate) -> list[float] | None:
    return None if found.low is None else [found.low, found.high]


def by_id(claim: dict) -> list:
    """Sort key: A2 before A10."""
    return [int(part) if part.isdigit() else part for part in re.findall(r"\d+|\D+", claim["id"])]


def judge_all(judged: list[tuple[Experiment, Summary]]) -> list[dict]:
    """All claims of the given experiments in the order of their ids."""
    found = [judge(claim, experiment, summary) for experiment, summary in judged for claim in declared(experiment)]
    repeated = {claim["id"] for claim in found if sum(other["id"] == claim["id"] for other in found) > 1}
    if repeated:
        raise Mistake(f"claims.yaml: the id {min(repeated)} is used twice")
    return sorted(found, key=by_id)


def read_claims(path: Path) -> list[dict]:
    """The verdicts of claims.json, as `judge_all` gave them."""
    claims = read_json(path)
    try:
        for claim in claims:
            f"{claim['id']:4}{claim['verdict']:20}{measured_text(claim):36}{claim['n']:<6}{claim['statement']}"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Mistake(f"{path} is damaged: make it again with 'claims'") from error
    return claims


def measured_text(claim: dict) -> str:
    """Value and interval of a claim of claims.json, as tables show them; a dash where nothing was measured."""
    if claim["measured"] is None:
        return "–"
    low, high = claim["interval"] or (None, None)
    return interval(Estimate(claim["measured"], low, high, claim["n"]), digits=4)


def markdown_table(claims: list[dict]) -> str:
    """The verdict table in Markdown, one row a claim."""
    columns = ["", "Claim", "Stated", "Measured", "n", "Verdict"]
    rows = [[c["id"], c["statement"], c["target"], measured_text(c), str(c["n"]), f"**{c['verdict']}**"] for c in claims]
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
