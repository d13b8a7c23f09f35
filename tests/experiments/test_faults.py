"""Every fault of experiments/faults happens, and is answered as its table states. Others have their place beside what they harm:
image folders and archives in test_images, checkpoints in test_training, records in test_records, the workflow in test_workflow.
"""

import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
from conftest import ROOT, python

from experiments.faults.experiment import outcome_rows
from experiments.faults.measures import answered, fault_table, worst
from experiments.faults.project import Commands, Project
from experiments.faults.scenarios import FAULTS, as_stated, play
from secondlook.errors import Mistake
from secondlook.study import files


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The project to be harmed, and its commands in forks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", python())
        with Commands() as started:
            yield Project.build(tmp_path_factory.mktemp("faults") / "whole", ROOT, started)


@pytest.mark.parametrize("case, name", [(case, name) for case in FAULTS for name in FAULTS[case]])
def test_a_fault_is_answered_as_stated_and_costs_nothing(whole, tmp_path, case, name):
    fault = FAULTS[case][name]
    outcome = play(fault, whole, tmp_path)
    assert as_stated(fault, outcome), outcome
    assert (outcome.tracebacks, outcome.unfinished, outcome.running, outcome.lost) == (0, 0, 0, 0), outcome


def test_a_loss_would_be_counted(whole, tmp_path):
    """The ruler itself: what is missing, half-written or still running is seen."""
    project = whole.copy(tmp_path)
    table = project.table("rows")
    assert project.missing_rows(whole, "rows", "") == 0 and project.unfinished() == set() and project.ends("rows")
    (table.parent / ".rows.csv.17").write_text("half a table")
    table.write_bytes(table.read_bytes()[:-9])
    assert project.missing_rows(whole, "rows", "") == 3 * 201 and project.unfinished() == {".rows.csv.17", "rows.csv"}
    with files.sole_writer(table):
        assert project.running("rows")


def test_the_rows_of_the_experiment_are_the_outcomes(whole, tmp_path):
    """One is answered as stated and costs nothing; the other is said to be answered in other words, and is seen not to be."""
    names = ("data set missing", "configuration of 2 MiB")
    other = replace(FAULTS["commands"][names[1]], said="something else")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAULTS["commands"], names[1], other)
        rows = pd.DataFrame([row for name in names for row in outcome_rows("commands", name, whole, tmp_path / name)])
    assert answered(rows).value == 0.5 and worst(rows)["lost"].value == 0
    table = fault_table(rows)
    assert table.Fault.tolist() == list(names) and table.Exit.tolist() == [1, 1]
    assert "is missing: run 'snakemake data'" in table["What the program says"][0]


def test_a_read_only_folder_is_one_line(tmp_path):
    """A mount, as root may write to any folder."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("mounting needs rights that this user lacks; a file in place of the folder is tested")
    try:
        for refused in (lambda: files.write(tmp_path / "x", ""), lambda: files.sole_writer(tmp_path / "x").__enter__()):
            with pytest.raises(Mistake, match="^cannot write .*/x: Read-only file system$"):
                refused()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_two_files_take_their_places_together(tmp_path, monkeypatch):
    """The second does not fit: the first keeps its old contents, too."""
    paths = [tmp_path / "a", tmp_path / "b"]
    files.write_together(dict.fromkeys(paths, "old"))
    calls = iter([None, OSError(28, "No space left on device")])

    def fsync(handle):
        if error := next(calls):
            raise error

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(Mistake, match=f"^cannot write {paths[1]}: No space left on device$"):
        files.write_together(dict.fromkeys(paths, "new"))
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["old", "old"]
