"""The study itself: the whole workflow at smoke scale, the same by verbs alone, and the verdicts at paper scale."""

import hashlib
import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, Project

from secondlook.study.claims import markdown_table
from secondlook.study.experiment import experiments
from secondlook.study.files import read_yaml
from secondlook.study.records import timed_stages

FOLDERS = [experiment.folder for experiment in experiments(ROOT)]
TIMED = timed_stages(ROOT)
TABLES = ("raw/**/*.csv", "summary/*.json", "claims.json", "figures/*/*.*")


def digests(folder) -> dict[str, str]:
    """Name and sha256 of every table, number, verdict and figure; a cell that cases share lies in a .work folder, and is none."""
    found = (path for pattern in TABLES for path in folder.glob(pattern))
    files = sorted(path for path in found if not path.name.startswith(".") and path.parent.suffix != ".work")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> Project:
    """The study at smoke scale, by Snakemake."""
    project = Project(tmp_path_factory.mktemp("smoke"), FOLDERS)
    project.snakemake("--config", "scale=smoke")
    return project


def test_the_smoke_scale_workflow_builds_everything(smoke):
    results = smoke.folder / "results" / "smoke"
    for name in ("report", "supplement"):
        assert (results / f"report/{name}.pdf").read_bytes().startswith(b"%PDF")
    claims = json.loads((results / "claims.json").read_text(encoding="utf-8"))
    assert {"A1", "A6", "B1", "B3"} <= {claim["id"] for claim in claims}
    fields = {"id", "kind", "evidence", "statement", "source", "stated", "band", "measured", "verdict", "why", "figure"}
    assert all(fields <= claim.keys() for claim in claims)


def timed(experiment) -> list[str]:
    """The stages of `experiment` whose rows may hold measured times."""
    return [name for case in experiment.cases if (name := f"{experiment.name}/{case}") in TIMED]


def secondlook(project: Project, commands: list[list[str]]) -> None:
    """Verbs one after the other in one process, which imports torch once."""
    code = f"from secondlook.cli import main\nassert not any(main(words) for words in {commands})"
    done = subprocess.run(**{**project.command(), "args": [sys.executable, "-c", code]}, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_verbs_alone_give_the_same_bytes(smoke, tmp_path):
    """Without Snakemake, in another folder: the same tables, numbers, verdicts and figures."""
    project = Project(tmp_path, FOLDERS)
    theirs = smoke.folder / "results/smoke"
    for stage in (stage for experiment in experiments(ROOT) for stage in timed(experiment)):
        for kind in ("csv", "json"):
            copy = tmp_path / f"results/smoke/raw/{stage}.{kind}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((theirs / f"raw/{stage}.{kind}").read_bytes())
    commands = []
    for experiment in experiments(ROOT):
        stages = [case for case in experiment.cases if f"{experiment.name}/{case}" not in timed(experiment)]
        commands += [["run", experiment.name, "--case", case, "--scale", "smoke"] for case in stages]
        commands += [[verb, experiment.name, "--scale", "smoke"] for verb in ("summarise", "figure")]
    secondlook(project, [*commands, ["claims", "--scale", "smoke"]])
    assert digests(tmp_path / "results/smoke") == digests(theirs)


def test_the_table_of_verdicts_is_that_of_recorded_results(tmp_path):
    """Of the experiments that compute nothing here. `make reproduce` computes the others, and compares README.md and the whole of VERDICTS.md."""
    recorded = read_yaml(ROOT / "config" / "config.yaml")["recorded"]
    read = [experiment for experiment in experiments(ROOT) if len(timed(experiment)) == len(experiment.cases)]
    project = Project(tmp_path, [experiment.folder for experiment in read])
    shutil.copytree(ROOT / "results" / "recorded", tmp_path / "results" / "recorded")
    names = [(experiment.name, case) for experiment in read for case in experiment.cases]
    commands = [["import", name, "--case", case] for name, case in names if f"{name}/{case}" in recorded]
    secondlook(project, [*commands, *(["summarise", experiment.name] for experiment in read), ["claims"]])
    _, _, *lines = (
        markdown_table(json.loads((tmp_path / "results/claims.json").read_text(encoding="utf-8"))).strip().splitlines()
    )
    missing = [line for line in lines if line not in (ROOT / "VERDICTS.md").read_text(encoding="utf-8")]
    assert len(lines) > 10 and not missing, "VERDICTS.md is not today's: run `make`, which writes it"
