"""Claims and verdicts. A verdict is computed from measures by the rules in an experiment's claims.yaml, never typed.

    - id: A1
      source: where the claim is made
      kind: document                  # who says it: a document, the paper behind it, an identity, a promise of this study
      evidence: original              # what is measured: the original, a proxy, published numbers
      question: scale                 # of report/questions.yaml, under which the picture of all verdicts has it
      short: what it says in that picture, in 48 characters
      statement: what it says, one thing
      stated: the document's words or numbers, and nothing else
      band: what counts as agreement, in words, where that is this study's own
      bands: when the bands were written, relative to the runs
      measured:
        - {quantity: loss after 30 updates of gradient descent, unit: '', measure: gd_loss.e30}
        - {quantity: loss that 30 updates take away, unit: '%', measure: improvement.gd_e30, times: 100}
      figure: the figure that shows it
      checks:
        at_epoch_30: {measure: gd_loss.e30, between: [0.08925, 0.08935]}
        not_at_40: {measure: gd_loss.e40, outside: [0.08925, 0.08935]}
      n_to_decide: {measure: n_needed.sgd, of: seeds, cost: 40 s of two cores each}
      verdicts:                       # the first rule that applies: all checks of `when` hold, and one of `any`
        - {verdict: reproduced, when: [at_epoch_40], why: ...}
        - {verdict: partly, when: [at_epoch_30], condition: at epoch 30, why: it is << gd_loss.e40 | number >> at epoch 40}
        - {verdict: not reproduced, any: [not_at_40], why: ...}
        - {verdict: undecided, why: ...}

A check holds when the whole interval of its measure lies `between` two bounds, or `outside` of them; a bound may be .inf. The
last rule needs no check, and is 'undecided': nothing is refuted because nothing was shown. 'partly' names its condition, with
which the reason begins. Where every number is exact (`exact: true`) nothing can be undecided: the checks are complementary,
every rule needs one, and it is a fault if none applies.

A measured number has a unit; one without is named by its quantity as a share, a ratio or another of PURE. `times` turns the
measure into the unit. Positive is in the claim's favour.

A claim may name cases that it `requires`: while one of them is unrecorded, the verdict is 'not run', and says so. A claim that
nothing measures yet says why under `not_run`, in place of `measured`, `figure`, `checks` and `verdicts`.
"""

import re
from pathlib import Path
from textwrap import wrap

from secondlook.errors import Mistake
from secondlook.study.experiment import Experiment
from secondlook.study.files import read_json, read_yaml
from secondlook.study.measures import Summary
from secondlook.study.parameters import known_keys
from secondlook.study.schema import check
from secondlook.study.statistics import Estimate
from secondlook.study.text import fill, fixed, interval

UNDECIDED, NOT_RUN = "undecided", "not run"
VERDICTS = ("reproduced", "partly", "not reproduced", "artefact", UNDECIDED, NOT_RUN)
KINDS = {"document": "a document", "paper": "the paper behind it", "identity": "an identity", "promise": "this study"}
WIDTH = 107  # of what stands beside id and verdict on a terminal
COMPARED = ("share", "ratio", "relative", "factor", "slope", "exponent", "difference", "correlation", "cosine")
PURE = (*COMPARED, "loss", "distance", "coordinate")


def declared(experiment: Experiment) -> list[dict]:
    """The claims of an experiment, checked against the schema and against the names that they use."""
    path = experiment.folder / "claims.yaml"
    claims = read_yaml(path)
    check(claims, experiment.root / "workflow" / "schemas" / "claims.schema.yaml", str(path))
    for claim in claims:
        where = f"claim {claim['id']} of {path}"
        known_keys(claim.get("requires", []), experiment.cases, where, "case")
        if "not_run" in claim:
            continue
        if claim["figure"] not in experiment.figures:
            raise Mistake(f"{where} names the figure '{claim['figure']}', which does not exist")
        for number in claim["measured"]:
            _named(number, where)
        _rules(claim, where)
    return claims


def _named(number: dict, where: str) -> None:
    """Raise Mistake unless a measured number says what it is, and in what."""
    quantity, unit = number["quantity"].strip(), number["unit"].strip()
    if not quantity or not (unit or any(word in quantity.lower() for word in PURE)):
        raise Mistake(f"{where}: '{quantity}' needs a unit, or to be called a {', '.join(PURE[:-1])} or {PURE[-1]}")


def _rules(claim: dict, where: str) -> None:
    """Raise Mistake unless the rules of a claim can give a verdict, and none that rests on nothing."""
    *first, last = claim["verdicts"]
    if claim.get("exact"):
        first.append(last)
    elif _asked(last) or last["verdict"] != UNDECIDED:
        raise Mistake(f"{where} must end with a rule without a check, whose verdict is '{UNDECIDED}'")
    for rule in first:
        if not _asked(rule):
            raise Mistake(f"{where} gives '{rule['verdict']}' without a check: name one under 'when' or 'any'")
        for name in _asked(rule):
            if name not in claim["checks"]:
                raise Mistake(f"{where} names the check '{name}', which does not exist")
    for rule in claim["verdicts"]:
        if (rule["verdict"] == "partly") != ("condition" in rule):
            raise Mistake(f"{where}: 'condition' belongs to 'partly', and 'partly' needs it")


def _asked(rule: dict) -> list[str]:
    """The checks that a rule names."""
    return [*rule.get("when", []), *rule.get("any", [])]


def _applies(rule: dict, checks: dict) -> bool:
    holds = {name: checks[name]["holds"] for name in _asked(rule)}
    return all(holds[name] for name in rule.get("when", [])) and ("any" not in rule or any(holds[name] for name in rule["any"]))


def judge(claim: dict, experiment: Experiment, summary: Summary) -> dict:
    """The claim with its verdict, as it stands in results/claims.json."""
    where = f"claim {claim['id']} of {experiment.folder / 'claims.yaml'}"
    named = ("id", "source", "kind", "evidence", "question", "short", "statement", "stated", "band", "bands")
    result = {name: claim.get(name, "") for name in named} | {"experiment": experiment.name}
    result["command"] = f"snakemake {experiment.name} --cores 2"
    if not_run := claim.get("not_run") or _lacking(claim, experiment, summary):
        nothing: dict[str, object] = {
            "measured": [],
            "n_to_decide": None,
            "figure": None,
            "checks": {},
            "needs": [],
            "evidence": NOT_RUN,
        }
        return result | nothing | {"verdict": NOT_RUN, "why": " ".join(not_run.split())}
    checks = {name: _checked(asked, summary, where) for name, asked in claim["checks"].items()}
    rule = next((rule for rule in claim["verdicts"] if _applies(rule, checks)), None)
    if claim.get("exact") and any(found["low"] is not None for found in checks.values()):
        raise Mistake(f"{where} is 'exact', and one of its measures has an interval")
    if rule is None:
        raise Mistake(f"{where} is 'exact', and none of its rules applies: its checks are not complementary")
    told = [f"It holds only {rule['condition']}."] if "condition" in rule else []
    told.append(fill(rule["why"], summary.measures, where))
    decide = _to_decide(claim, summary, where) if rule["verdict"] == UNDECIDED else None
    told += [f"To show the difference that matters, or its absence, takes {decide_text(decide)}."] if decide else []
    drawn = claim["figure"] in experiment.without("figures", summary.missing)
    return result | {
        "measured": [_measured(number, summary, where) for number in claim["measured"]],
        "verdict": rule["verdict"],
        "why": " ".join(" ".join(told).split()),
        "n_to_decide": decide,
        "figure": f"{experiment.name}/{claim['figure']}" if drawn else None,
        "checks": checks,
        "needs": _asked(next((rule for rule in claim["verdicts"] if rule["verdict"] == "reproduced"), claim["verdicts"][0])),
    }


def _lacking(claim: dict, experiment: Experiment, summary: Summary) -> str:
    """Why a claim cannot be judged while cases that it requires are missing; nothing where none is."""
    cases = [experiment.setting(case) for case in claim.get("requires", []) if case in summary.missing]
    stages = [f"{setting.name} ({setting.costly})" for setting in cases]
    return f"Needs stage {' and '.join(stages)}, which has not been recorded." if stages else ""


def _checked(asked: dict, summary: Summary, where: str) -> dict:
    found = summary.find(asked["measure"], where)
    (side,) = asked.keys() - {"measure"}
    low, high = map(float, asked[side])
    holds = found.within(low, high) if side == "between" else found.outside(low, high)
    ends = {"low": found.low, "high": found.high}
    return {"measure": asked["measure"], "value": found.value} | ends | {side: [low, high], "holds": holds}


def _measured(number: dict, summary: Summary, where: str) -> dict:
    """A measured number in its unit, with its interval and n."""
    found, times = summary.find(number["measure"], where), number.get("times", 1)
    low, high = (None, None) if found.low is None else sorted((times * found.low, times * found.high))
    named = {name: number[name].strip() for name in ("quantity", "unit")}
    return named | {"value": times * found.value, "low": low, "high": high, "n": found.n, "coverage": found.coverage}


def _to_decide(claim: dict, summary: Summary, where: str) -> dict | None:
    """The n that would decide a claim, with its interval, of what, and what one costs; None where none can be computed."""
    if (asked := claim.get("n_to_decide")) is None:
        return None
    found = summary.find(asked["measure"], where)
    cost = fill(asked["cost"], summary.measures, where)
    return {"n": found.value, "low": found.low, "high": found.high, "of": asked["of"], "cost": cost}


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
            shown(claim)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Mistake(f"{path} is damaged: make it again with 'claims'") from error
    return claims


def measured_text(number: dict) -> str:
    """One measured number of claims.json: what it is, value [interval] unit, n. A whole, exact number has no decimals."""
    estimate = Estimate(number["value"], number["low"], number["high"], coverage=number["coverage"])
    whole = number["low"] is None and estimate.value.is_integer()
    found = fixed(estimate, 0) if whole else interval(estimate, digits=4)
    return " ".join(f"{number['quantity']}: {found} {number['unit']}".split()) + f", n = {number['n']:,}"


def decide_text(decide: dict) -> str:
    """The n that would decide a claim, and its cost: 140 [81, 290] seeds (40 s each)."""
    return f"{interval(Estimate(decide['n'], decide['low'], decide['high']), digits=2)} {decide['of']} ({decide['cost']})"


def shown(claim: dict) -> str:
    """A claim of claims.json for a terminal: id, verdict, statement, who makes it, what is stated, what is measured, why."""
    stated = f"stated: {claim['stated']}" + (f" (here: {claim['band']})" if claim["band"] else "")
    lines = [f"{claim['statement']} ({KINDS[claim['kind']]}, {claim['evidence']}; {claim['source']})", stated]
    lines += [*map(measured_text, claim["measured"]), f"why: {claim['why']}"]
    wrapped = [part for line in lines for part in wrap(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)]
    return f"{claim['id']:5}{claim['verdict']:16}" + f"\n{'':21}".join(wrapped)


def markdown_table(claims: list[dict]) -> str:
    """The verdict table in Markdown, one row a claim."""
    columns = ["", "Claim", "Kind", "Stated", "Band of this study", "Measured", "Verdict"]
    rows = [
        [
            f'<a id="claim:{c["id"]}"></a>{c["id"]}',
            c["statement"],
            f"{c['kind']}, {c['evidence']}",
            c["stated"],
            c["band"],
            numbers(c),
            f"**{c['verdict']}**",
        ]
        for c in claims
    ]
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def numbers(claim: dict) -> str:
    """All measured numbers of a claim of claims.json for a cell of a table; a dash where nothing was measured."""
    return "<br>".join(map(measured_text, claim["measured"])) or "–"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
