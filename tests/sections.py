"""An experiment's section, filled as the supplement fills it, with plain words in place of tables and verdicts."""

import re

from secondlook.study.experiment import Experiment
from secondlook.study.measures import Summary
from secondlook.study.text import fill


def section(experiment: Experiment, summary: Summary) -> str:
    """The text, in which a verdict is the name of its claim and a table the number of its lines. Every number must be there."""
    given = {
        **summary.measures,
        "tables": summary.tables,
        "has": experiment.cases.__contains__,
        "table": lambda table: str(len(table)),
        "csv": lambda table, name: f"{name}, {len(table)}",
        "verdict": lambda name: name,
    }
    text = fill((experiment.folder / "section.md").read_text(encoding="utf-8"), given, "section.md")
    assert "<<" not in text and not re.search(r"(?<!\w)(nan|n/a)(?!\w)", text)
    return text
