"""The page to explore: every claim with its statement, quotation, evidence, figure, rule, records and command, in one file that
needs no other and no server. report/templates/explore.html has its few lines of JavaScript, which filter what is there."""

import json
from collections.abc import Mapping, Sequence

from secondlook.reporting.overview import SHOWN, grouped
from secondlook.study.claims import KINDS, declared, measured_text
from secondlook.study.experiment import Experiment
from secondlook.study.files import read, read_yaml
from secondlook.study.results import Results
from secondlook.study.statistics import Estimate
from secondlook.study.text import fill, interval

OWN = "What is true by algebra, and what this study promises of itself"


def explore(results: Results, claims: Sequence[dict], found: Sequence[Experiment], records: Sequence[Mapping]) -> str:
    """The page. `records` are the lines of the table of stages."""
    source = results.root / "report"
    rules = {claim["id"]: claim.get("verdicts", []) for experiment in found for claim in declared(experiment)}
    shows = {f"{one.name}/{name}": made.text.splitlines()[0] for one in found for name, made in one.figures.items()}
    by_stage: dict[str, list[str]] = {}
    for record in records:
        by_stage.setdefault(record["Stage"].partition("/")[0], []).append(
            f"{record['Stage']}: commit {record['Commit']}, {record['Machine']}, {record['Time']}, {record['Origin']}"
        )
    pages = [
        {
            **claim,
            "document": claim["source"].partition(",")[0].partition(";")[0],
            "kind": KINDS[claim["kind"]],
            "measured": list(map(measured_text, claim["measured"])),
            "rules": [_rule(rule) for rule in rules.get(claim["id"], [])] if claim["checks"] else [],
            "checks": [_check(name, check) for name, check in claim["checks"].items()],
            "shows": shows.get(claim["figure"], ""),
            "records": by_stage.get(claim["experiment"], []),
        }
        for claim in claims
    ]
    shown = {claim["id"] for claim in claims if claim["kind"] in SHOWN}
    order = {
        title: {claim["id"] for claim in some} for title, some in grouped(claims, read_yaml(source / "questions.yaml")).items()
    }
    order[OWN] = {page["id"] for page in pages} - shown
    groups = {title: [page for page in pages if page["id"] in some] for title, some in order.items() if some}
    names = ("verdict", "document", "kind", "evidence")
    drawn = {claim["figure"] for claim in claims if claim["figure"]}
    values = {
        "groups": groups,
        "filters": {name: sorted({page[name] for page in pages}) for name in names},
        "figures": _inlined({name: read(results.figures / f"{name}.svg").decode() for name in sorted(drawn)}),
    }
    path = source / "templates" / "explore.html"
    return fill(read(path).decode(), values, str(path))


def _inlined(texts: Mapping[str, str]) -> str:
    """As JSON that no closing tag in it can end."""
    return json.dumps(texts).replace("</", "<\\/")


def _rule(rule: Mapping) -> str:
    """A rule as a sentence: partly, if a and b hold, and one of c, d."""
    parts = [" and ".join(rule["when"])] if "when" in rule else []
    parts += [f"one of {', '.join(rule['any'])}"] if "any" in rule else []
    return f"{rule['verdict']}, if {', and '.join(parts)}" if parts else f"{rule['verdict']} otherwise"


def _check(name: str, check: Mapping) -> tuple[str, ...]:
    """A check as a line of a table: its name, measure, number, band, and whether it holds."""
    estimate = Estimate(check["value"], check["low"], check["high"])
    side = "between" if "between" in check else "outside"
    low, high = check[side]
    return name, check["measure"], interval(estimate), f"{side} {low} and {high}", "yes" if check["holds"] else "no"
