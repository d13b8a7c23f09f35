"""The picture of all verdicts, drawn from claims.json: one row a claim, grouped by question.

A row shows the numbers that a claim needs for *reproduced*, by how far each lies inside of its band, which is grey: 0 is at
the nearest end of the band, 1 is the border of the picture, and left of 0 lies what does not agree. The unit is half a band
that has two ends; all of a band that begins at 0, with no number below, or ends at 1; and for an open band the distance to
that end of the interval which is farthest from the band's own. Of several numbers the one that is farthest from what the
claim needs has its interval, the others are dots; what lies beyond the border is an arrow. An exact number has no interval,
and a check that is true or false lies halfway, on its side.

Not here are identities and what this study promises of itself: the supplement has those.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from secondlook.errors import Mistake
from secondlook.reporting.style import INK, TEXT_WIDTH, VERDICT, plt
from secondlook.study.claims import NOT_RUN
from secondlook.study.files import read_yaml
from secondlook.study.parameters import known_keys

SHOWN = ("document", "paper")  # kinds of claims
BADGE = {"original": "original", "proxy": "proxy", "published numbers": "published", NOT_RUN: ""}
HEIGHT, HEADING, TALLEST = 0.163, 1.45, 8.9  # of a row in inches, of a question in rows, and of the picture in inches
COLUMN = TEXT_WIDTH / 2 - 0.06  # inches
BARS = 0.65, 0.85  # where a row's numbers lie, as shares of a column
QUIET = "#6a6a6a"
KEY = "grey: the band of the claim; diamond and line: the number farthest from what is needed, with its interval; dots: others"


@dataclass(frozen=True)
class Depth:
    """How far inside of its band a number lies, and the ends of its interval; at most 1, and negative outside."""

    value: float
    low: float
    high: float


def depth(check: Mapping) -> Depth:
    """The depth of the number of a check of claims.json."""
    value, *ends = (float(check[name] if check[name] is not None else check["value"]) for name in ("value", "low", "high"))
    low, high = map(float, check.get("between") or (check["outside"][1], math.inf))
    if low == high:
        return Depth(*[0.5 if check["holds"] else -0.5] * 3)
    if low == 0 and math.isfinite(high) and min(value, *ends) >= 0:
        low, unit = -math.inf, high
    elif high == 1 and math.isfinite(low):
        high, unit = math.inf, 1 - low
    elif math.isfinite(low) and math.isfinite(high):
        unit = (high - low) / 2
    else:
        edge = low if math.isfinite(low) else high
        unit = max((abs(x - edge) for x in (value, *ends) if math.isfinite(x)), default=0) or 1

    def inside(x: float) -> float:
        return min(x - low, high - x, unit) / unit

    deepest = 1.0 if ends[0] <= (low + high) / 2 <= ends[1] else max(map(inside, ends))
    return Depth(inside(value), min(map(inside, ends)), deepest)


def grouped(claims: Sequence[dict], questions: Mapping[str, str]) -> dict[str, list[dict]]:
    """The claims that the picture shows by the title of their question, in the order of the questions."""
    shown = [claim for claim in claims if claim["kind"] in SHOWN]
    for claim in shown:
        where = f"claim {claim['id']} of experiments/{claim['experiment']}/claims.yaml"
        if not claim["question"] or not claim["short"]:
            raise Mistake(f"{where} lacks 'question', one of report/questions.yaml, or 'short', what it says in a few words")
        known_keys([claim["question"]], questions, where, "question")
    found = {title: [claim for claim in shown if claim["question"] == key] for key, title in questions.items()}
    return {title: some for title, some in found.items() if some}


def verdicts(claims: Sequence[dict], path: Path) -> Figure:
    """The picture, by the questions in the file at `path`."""
    groups = grouped(claims, read_yaml(path))
    columns = _columns({title: len(some) + HEADING for title, some in groups.items()})
    length = max(1.0, *(sum(len(groups[title]) + HEADING for title in column) for column in columns))
    above = 3 / (length + 3)
    figure, panels = plt.subplots(1, 2, figsize=(TEXT_WIDTH, min(TALLEST, HEIGHT * (length + 3))), layout="none")
    for begin, titles, panel in zip((0, 1 - COLUMN / TEXT_WIDTH), columns, panels, strict=True):
        panel.set_position((begin, 0, COLUMN / TEXT_WIDTH, 1 - above))
        panel.set(xlim=(0, 1), ylim=(length, 0))
        panel.axis("off")
        at = 0.0
        for title in titles:
            panel.text(0, at + 0.9, title, fontsize=7.6, fontfamily="cmb10", va="center")
            at += HEADING
            for claim in groups[title]:
                _row(panel, at + 0.5, claim)
                at += 1
    figure.text(0.5, 1 - above, KEY, fontsize=6.8, ha="center", va="bottom", color=QUIET)
    figure.legend([_mark(verdict) for verdict in VERDICT], VERDICT, loc="upper center", ncols=len(VERDICT), handletextpad=0.1)
    return figure


def _columns(lengths: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """The questions in two columns that are as equal in length as their order allows."""
    titles = list(lengths)

    def longer(cut: int) -> float:
        return max(sum(map(lengths.__getitem__, part)) for part in (titles[:cut], titles[cut:]))

    cut = min(range(len(titles) + 1), key=longer)
    return titles[:cut], titles[cut:]


def _row(panel: Axes, at: float, claim: dict) -> None:
    colour = VERDICT[claim["verdict"]][0]
    panel.text(0, at, claim["id"], fontsize=6.2, va="center", color=QUIET)
    panel.text(0.073, at, claim["short"], fontsize=6.8, va="center", color=QUIET if claim["verdict"] == NOT_RUN else INK)
    panel.add_line(_mark(claim["verdict"], 0.89, at))
    panel.text(0.914, at, BADGE[claim["evidence"]], fontsize=5.6, va="center", color=QUIET)
    if not claim["needs"]:
        return
    left, right = BARS
    middle, unit = (left + right) / 2, (right - left) / 2
    panel.fill_between([middle, right], at - 0.36, at + 0.36, color="#dcdcdc", linewidth=0)
    first, *others = sorted((depth(claim["checks"][name]) for name in claim["needs"]), key=lambda found: found.low)
    for other in others:
        panel.plot(middle + unit * max(other.value, -1), at, ".", color=colour, markersize=2.8, alpha=0.6, markeredgewidth=0)
    panel.plot([middle + unit * max(x, -1) for x in (first.low, first.high)], [at, at], color=colour, linewidth=1)
    if first.low < -1:
        panel.plot(left, at, "<", color=colour, markersize=3.4, markeredgewidth=0)
    if first.value >= -1:
        panel.plot(middle + unit * first.value, at, "D", color=colour, markersize=2.6, markeredgewidth=0)


def _mark(verdict: str, x: float = 0, y: float = 0) -> Line2D:
    """The verdict as a mark."""
    colour, marker, filling = VERDICT[verdict]
    look: dict[str, Any] = {"markersize": 4.8, "markeredgewidth": 0.9, "markerfacecoloralt": "white", "clip_on": False}
    return Line2D([x], [y], linestyle="", color=colour, marker=marker, fillstyle=filling, **look)
