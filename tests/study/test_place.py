"""A stage that takes long: it stops in time, goes on where it stopped, and ends with the bytes of one that never stopped."""

import json
import math
import subprocess
import sys
import time

import pytest
from conftest import Project

from secondlook.errors import Mistake, OutOfTime
from secondlook.study.cells import finished, kept, name
from secondlook.study.place import Place
from secondlook.study.tables import read_table, write_table

CONFIG = """
title: Networks that take long
cases:
  nets: {seeds: {first: 0, count: 2}, varies: {rates: [0.1, 0.3]}}
  more: {seeds: {first: 0, count: 1}, varies: {rates: [0.2]}}
  quick: {seeds: {first: 0, count: 1}, varies: {rates: [0.2]}}
"""
EXPERIMENT = '''
"""Each network notes that it was begun; in the folder of one that is not finished there is a checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from secondlook.errors import OutOfTime
from secondlook.study.cells import kept
from secondlook.study.declare import case
from secondlook.study.parameters import Positive
from secondlook.study.place import Place


@dataclass(frozen=True)
class Params:
    rates: tuple[Positive, ...]


def _train(seed: int, rate: float, folder: Path):
    with open("begun", "a") as file:
        print(seed, rate, file=file)
    (folder / "checkpoint").touch()
    for step in range(3):
        if Path("stop").exists() and (seed, rate) == (1, 0.1):
            raise OutOfTime(f"time is up at step {step}")
        yield None  # a turn of whatever runs beside it
        yield {"rate": rate, "method": "GD", "step": step, "metric": "loss", "value": (1 - rate) ** step / 3 + seed}


@case(Params, "nets", "more", place=True)
def nets(p: Params, seed: int, place: Place):
    place.data_used("dots", "drawn by hand", "0" * 64)
    for rate in p.rates:
        yield from kept(place, {"seed": seed, "rate": rate}, lambda folder, rate=rate: _train(seed, rate, folder))


@case(Params)
def quick(p: Params, seed: int):
    yield {"step": 0, "metric": "loss", "value": p.rates[0]}
'''
CELL = {"seed": 100, "optimiser": "Adam"}
ROWS = [{"step": 0, "loss": 0.1, "note": "a"}, {"step": 1, "loss": 1 / 3, "note": None}]


@pytest.fixture
def long(tmp_path) -> Project:
    project = Project(tmp_path, [])
    project.write("experiments/long/config.yaml", CONFIG)
    project.write("experiments/long/experiment.py", EXPERIMENT)
    return project


def begun(project: Project) -> list[str]:
    return (project.folder / "begun").read_text().splitlines()


def stopped(project: Project, *words: str) -> str:
    """The one line of a command that ran out of time."""
    done = project.secondlook(*words, check=False)
    assert done.returncode == 75, done.stdout + done.stderr
    return done.stderr.removeprefix("secondlook: ").removesuffix("\n")


@pytest.fixture
def interrupted(long) -> Project:
    """One in which the third of four networks is not finished."""
    (long.folder / "stop").touch()
    line = stopped(long, "run", "long", "--case", "nets", "--max-minutes", "9")
    assert line == (
        "time is up at step 0; 2 finished cells of long/nets are kept in results/raw/long/nets.work; "
        "0 of 1 cases are done; the same command goes on from there"
    )
    assert not (long.folder / "results/raw/long/nets.csv").exists()
    assert len(list(long.folder.glob("results/raw/long/nets.work/*/checkpoint"))) == 1
    (long.folder / "stop").unlink()
    return long


def test_an_interrupted_stage_ends_with_the_same_bytes(interrupted):
    interrupted.secondlook("run", "long", "--case", "nets", "--max-minutes", "9")
    assert begun(interrupted) == ["0 0.1", "0 0.3", "1 0.1", "1 0.1", "1 0.3"]
    out = interrupted.folder / "results/raw/long/nets.csv"
    assert not out.with_suffix(".work").exists()
    interrupted.secondlook("run", "long", "--case", "nets", "--out", "whole.csv")
    assert out.read_bytes() == (interrupted.folder / "whole.csv").read_bytes()
    record, whole = read_table(out)[1], read_table(interrupted.folder / "whole.csv")[1]
    assert record["parts"] == 2 and whole["parts"] == 1
    assert record["data"] == whole["data"] == {"dots": {"origin": "drawn by hand", "sha256": "0" * 64}}


def test_networks_side_by_side_end_with_the_same_bytes(long):
    long.secondlook("run", "long", "--case", "nets", "--out", "one.csv")
    long.secondlook("run", "long", "--case", "nets", "--out", "two.csv", "--at-once", "2")
    assert sorted(begun(long)) == sorted(2 * ["0 0.1", "0 0.3", "1 0.1", "1 0.3"])
    assert (long.folder / "one.csv").read_bytes() == (long.folder / "two.csv").read_bytes()
    assert [read_table(long.folder / f"{name}.csv")[1]["at_once"] for name in ("one", "two")] == [1, 2]
    (long.folder / "stop").touch()
    assert "time is up at step 0; 3 finished cells" in stopped(long, "run", "long", "--case", "nets", "--at-once", "2")
    assert long.mistake("run", "long", "--at-once", "0") == "--at-once must be a positive integer, got 0"


@pytest.mark.parametrize(
    "name, old, new, message",
    [
        ("experiments/long/config.yaml", "[0.1, 0.3]", "[0.1, 0.4]", "holds a run with other settings: rates"),
        (
            "experiments/long/experiment.py",
            "/ 3",
            "/ 4",
            "holds a run of other code: experiments/long/experiment.py; remove it",
        ),
        ("results/raw/long/nets.work/run.json", '"cpu"', '"cuda"', "holds a run on device cuda: remove it, or go on there"),
        ("results/raw/long/nets.work/data.json", "00", "11", "holds a run that began with other data: dots, drawn by hand"),
    ],
)
def test_work_of_another_run_is_refused(interrupted, name, old, new, message):
    interrupted.replace(name, old, new)
    line = interrupted.mistake("run", "long", "--case", "nets")
    assert line.startswith("results/raw/long/nets.work ") and message in line
    assert len(begun(interrupted)) == 3


def test_several_cases_share_the_time_and_what_is_done_is_left(long):
    assert stopped(long, "run", "long", "--out", "box", "--max-minutes", "1e-9") == (
        "time is up; 0 of 3 cases are done; the same command goes on from there"
    )
    words = ["run", "long", "--case", "more", "--case", "quick", "--out", "box", "--max-minutes", "9"]
    long.secondlook(*words)
    first = {path: path.read_bytes() for path in long.folder.glob("box/long/[!.]*")}
    assert sorted(path.name for path in first) == ["more.csv", "more.json", "quick.csv", "quick.json"]
    said = long.secondlook(*words).stdout
    assert said == "box/long/more.csv: is there already\nbox/long/quick.csv: is there already\n"
    assert {path: path.read_bytes() for path in first} == first and begun(long) == ["0 0.2"]


def test_a_bare_machine_runs_a_stage(long):
    """Without git, and without the packages of workflow, schemas, statistics and figures."""
    absent = ["snakemake", "jsonschema", "jinja2", "scipy", "matplotlib", "seaborn", "typst", "pypandoc"]
    words = ["run", "long", "--case", "nets", "--out", "box", "--max-minutes", "9", "--commit", "0123456789"]
    code = f"import sys; sys.modules |= dict.fromkeys({absent}); from secondlook.cli import main; sys.exit(main({words}))"
    command = {**long.command(), "args": [sys.executable, "-c", code]}
    command["env"]["PATH"] = ""
    done = subprocess.run(**command, capture_output=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((long.folder / "box/long/nets.json").read_text())
    assert record["commit"] == "0123456789" and record["dirty"] is False


def test_a_limit_must_leave_time(long):
    assert long.mistake("run", "long", "--max-minutes", "0") == "--max-minutes must be a positive number, got 0.0"


def test_a_cell_is_computed_once(tmp_path):
    place = Place(tmp_path)
    first = list(kept(place, CELL, lambda folder: ROWS))
    again = list(kept(place, dict(reversed(CELL.items())), lambda folder: pytest.fail("computed twice")))
    assert repr(first) == repr(again) and first[1]["loss"] == 1 / 3
    assert finished(tmp_path) == 1 and not (tmp_path / name(CELL)).exists()


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-2]), "does not match its record"),
        (lambda path: path.with_suffix(".json").unlink(), "cannot read"),
        (lambda path: write_table(path, read_table(path)[0], {"key": {"seed": 101}}), "holds another cell than its name says"),
    ],
)
def test_a_bad_cell_is_made_again(tmp_path, capsys, damage, message):
    place = Place(tmp_path)
    first = list(kept(place, CELL, lambda folder: ROWS))
    damage(tmp_path / f"{name(CELL)}.csv")
    assert repr(list(kept(place, CELL, lambda folder: ROWS))) == repr(first)
    said = capsys.readouterr().err
    assert said.startswith("warning: ") and message in said and said.count("\n") == 1


def test_after_the_deadline_no_cell_is_begun(tmp_path):
    early, late = Place(tmp_path, deadline=math.inf), Place(tmp_path, deadline=time.monotonic())
    with pytest.raises(OutOfTime):
        list(kept(late, CELL, lambda folder: pytest.fail("begun")))
    rows = list(kept(early, CELL, lambda folder: ROWS))
    assert repr(list(kept(late, CELL, lambda folder: pytest.fail("begun")))) == repr(rows)


def test_a_run_is_of_one_data_set(tmp_path):
    place = Place(tmp_path)
    assert place.data_sets() == {}
    for _ in range(2):
        place.data_used("cifar10", "original", "a" * 64)
    with pytest.raises(Mistake, match="began with other data: cifar10, original; remove it, or put them back"):
        place.data_used("cifar10", "re-encoded JPEG", "b" * 64)
    assert place.data_sets() == {"cifar10": {"origin": "original", "sha256": "a" * 64}}
