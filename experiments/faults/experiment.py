"""Faults: what does the study say and lose when data, settings, results, disk or processes fail?

Claim: none of the documents'; this study's own promise, that a fault is answered by one line, leaves nothing half-written, and
costs no result: put right, the same command gives every row that a run without the fault gives.

Cases: commands (faults that meet a verb), workflow (faults that meet Snakemake). Every fault of `scenarios` happens for real,
to commands that run as processes of their own on a small project in a temporary folder (`project`, `victim`). Hardware: one
CPU core, no GPU, no network. Run time: about a minute.
"""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from secondlook.study.declare import case
from secondlook.study.parameters import PositiveInt

from .project import Commands, Project
from .scenarios import FAULTS, as_stated, play


@dataclass(frozen=True)
class Faults:
    every: PositiveInt


@case(Faults)
def commands(params: Faults, seed: int):
    return _all("commands", params)


@case(Faults)
def workflow(params: Faults, seed: int):
    return _all("workflow", params)


def _all(case: str, params: Faults):
    with tempfile.TemporaryDirectory() as folder, Commands() as started:
        whole = Project.build(Path(folder) / "whole", Path(), started)
        for number, name in enumerate(FAULTS[case]):
            if number % params.every == 0:
                yield from outcome_rows(case, name, whole, Path(folder) / str(number))


def outcome_rows(case: str, name: str, whole: Project, folder: Path):
    """A row for each number of a fault's outcome, and one for whether it was answered as `scenarios` states."""
    fault = FAULTS[case][name]
    outcome = play(fault, whole, folder)
    found = {"as stated": as_stated(fault, outcome)} | asdict(outcome)
    said = found.pop("said") or "(nothing)"
    for metric, value in found.items():
        yield {"fault": name, "said": said, "step": 0, "metric": metric, "value": value}
