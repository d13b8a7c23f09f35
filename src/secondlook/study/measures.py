"""From rows to the numbers that claims and text quote: runs an experiment's measures.py and keeps what it returns.

results/summary/<experiment>.json   measures: {name: Estimate, or {key: Estimate}}; tables: {name: columns and rows};
                                    missing: cases that are unrecorded

A measure that requires a missing case (`@measure("grid")`) is left out. One that reads several cases and requires none gives
what it finds.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from secondlook.errors import Mistake
from secondlook.study.experiment import Experiment
from secondlook.study.files import read_json
from secondlook.study.records import missing_cases
from secondlook.study.statistics import Estimate


@dataclass(frozen=True)
class Summary:
    """The measures and tables of one experiment, and its cases that have no rows."""

    measures: dict[str, Estimate | dict[str, Estimate]]
    tables: dict[str, pd.DataFrame]
    missing: tuple[str, ...] = ()

    def find(self, name: str, where: str) -> Estimate:
        """The measure called `name`, or `name.key`."""
        found: object = self.measures
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if not isinstance(found, Estimate):
            without = f" without case {', '.join(self.missing)}" if self.missing else ""
            raise Mistake(f"{where} names the measure '{name}', which does not exist{without}")
        return found


def summarise(experiment: Experiment, rows: pd.DataFrame) -> Summary:
    """The measures and tables of an experiment from its rows, without those that need a case that is missing."""
    missing = tuple(missing_cases(experiment, rows))
    found = {name: experiment.made("measures", name, rows) for name in experiment.without("measures", missing)}
    tables = {name: value for name, value in found.items() if isinstance(value, pd.DataFrame)}
    return Summary({name: value for name, value in found.items() if name not in tables}, tables, missing)


def to_plain(summary: Summary) -> dict:
    """As JSON holds it."""
    measures = {
        name: value.as_dict() if isinstance(value, Estimate) else {key: v.as_dict() for key, v in value.items()}
        for name, value in summary.measures.items()
    }
    tables = {
        name: {"columns": list(map(str, table.columns)), "rows": table.astype(object).to_numpy().tolist()}
        for name, table in summary.tables.items()
    }
    return {"measures": measures, "tables": tables, "missing": list(summary.missing)}


def from_plain(plain: dict) -> Summary:
    """The summary that JSON holds so."""
    measures = {
        name: Estimate(**value) if "value" in value else {key: Estimate(**v) for key, v in value.items()}
        for name, value in plain["measures"].items()
    }
    tables = {name: pd.DataFrame(table["rows"], columns=table["columns"]) for name, table in plain["tables"].items()}
    return Summary(measures, tables, tuple(plain["missing"]))


def read_summary(path: Path) -> Summary:
    """The summary in the file at `path`. Raises Mistake where it is damaged."""
    try:
        return from_plain(read_json(path))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Mistake(f"{path} is damaged: make it again with 'summarise'") from error
