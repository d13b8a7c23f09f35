"""The study itself: the whole workflow at smoke scale, the same by verbs alone, and the verdicts at paper scale."""

import hashlib
import json
import resource
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, Project

from secondlook.study.claims import markdown_table
from secondlook.study.experiment import experiments
from secondlook.study.files import read_yaml

small = pytest.mark.xdist_group("study at smoke scale")  # tests that share one build
FOLDERS = [experiment.folder for experiment in experiments(ROOT)]
TABLES = ("raw/**/*.csv", "summary/*.json", "claims.json", "figures/**/*.*")


def digests(folder) -> dict[str, str]:
    """Name and sha256 of every table, number, verdict and figure."""
    files = sorted(path for pattern in TABLES for path in folder.glob(pattern) if not path.name.startswith("."))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> Project:
    """The study at smoke scale, by Snakemake."""
    project = Project(tmp_path_factory.mktemp("smoke"), FOLDERS)
    before = _seconds_of_processor()
    project.snakemake("--config", "scale=smoke", timeout=900)
    assert _seconds_of_processor() - before < 2 * 180  # three minutes of two cores, whatever runs beside it
    return project


def _seconds_of_processor() -> float:
    """Used so far by the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@small
def test_the_smoke_scale_workflow_builds_everything(smoke):
    results = smoke.folder / "results" / "smoke"
    assert (results / "report/report.pdf").read_bytes().startswith(b"%PDF")
    claims = json.loads((results / "claims.json").read_text())
    assert {"A1", "A6", "B1", "B3"} <= {claim["id"] for claim in claims}
    fields = {"id", "statement", "source", "target", "measured", "interval", "n", "verdict", "why", "figure"}
    assert all(fields <= claim.keys() for claim in claims)


def timed(experiment) -> list[str]:
    """Stages whose rows hold measured times, which no second run repeats: those that are recorded or need a device."""
    recorded = read_yaml(ROOT / "config" / "config.yaml")["recorded"]
    names = {case: f"{experiment.name}/{case}" for case in experiment.cases}
    return [n for case, n in names.items() if n in recorded or "device" in experiment.setting(case).needs]


def build(project: Project, scale: str, verbs=("summarise", "figure")) -> None:
    """Everything up to the verdicts by verbs alone, in one process. Timed stages are imported at paper scale, as far as they are
    recorded; at smoke scale their raw tables must be there already."""
    recorded = read_yaml(ROOT / "config" / "config.yaml")["recorded"]
    commands = []
    for experiment in experiments(project.folder):
        for case in experiment.cases:
            if f"{experiment.name}/{case}" not in timed(experiment):
                commands.append(["run", experiment.name, "--case", case, "--scale", scale])
            elif scale == "paper" and f"{experiment.name}/{case}" in recorded:
                commands.append(["import", experiment.name, "--case", case])
        commands += [[verb, experiment.name, "--scale", scale] for verb in verbs]
    commands.append(["claims", "--scale", scale])
    code = f"from secondlook.cli import main\nassert not any(main(words) for words in {commands})"
    done = subprocess.run(**{**project.command(), "args": [sys.executable, "-c", code]}, capture_output=True)
    assert done.returncode == 0, done.stderr


@small
def test_verbs_alone_give_the_same_bytes(smoke, tmp_path):
    """Without Snakemake, in another folder: the same tables, numbers, verdicts and figures."""
    project = Project(tmp_path, FOLDERS)
    theirs = smoke.folder / "results/smoke"
    for stage in (stage for experiment in experiments(ROOT) for stage in timed(experiment)):
        for kind in ("csv", "json"):
            copy = tmp_path / f"results/smoke/raw/{stage}.{kind}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((theirs / f"raw/{stage}.{kind}").read_bytes())
    build(project, "smoke")
    assert digests(tmp_path / "results/smoke") == digests(theirs)


def test_the_readme_shows_the_verdicts_of_the_paper_scale(tmp_path):
    project = Project(tmp_path, FOLDERS)
    shutil.copytree(ROOT / "results" / "recorded", tmp_path / "results" / "recorded")
    build(project, "paper", verbs=("summarise",))
    table = markdown_table(json.loads((tmp_path / "results/claims.json").read_text()))
    assert table in (ROOT / "README.md").read_text(), "README.md is not today's: run `make`, which writes its table"
