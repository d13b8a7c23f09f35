"""The workflow around the demo experiment: what runs, what does not, and what it takes to recover."""

import json
import os
import re
import signal
import subprocess
import time

import pytest
from conftest import ROOT, Project, demo

pytestmark = pytest.mark.xdist_group("workflow")
README = "<!-- claims:begin -->\n<!-- claims:end -->\n![Losses](report/readme/demo-losses.svg)\n"

# Lints that do not apply, each with its reason.
EXEMPT = {
    "Specify a conda environment or container": "one lock file is the environment of every rule, and `make` installs it",
    "Shell command directly uses variable PYTHON": "the interpreter that runs Snakemake runs the rules",
    "Shell command directly uses variable SCALE": "the scale is part of every path",
    "Shell command directly uses variable DATA": "where the data lie does not change a result; which data they are is in the record",
    "No log directive defined": "`snakemake claims` is there to print",
}


def planned(project, *words) -> set[str]:
    """What a dry run would do: names of rules, with the stage or experiment where there is one."""
    text = project.snakemake("--dry-run", *words).stdout
    jobs = re.split(r"\n\[[^\n]*\]\n", text)[1:]
    found = set()
    for job in jobs:
        rule = re.match(r"(?:local)?rule (\w+):", job)
        wildcards = re.search(r"wildcards: \w+=(\S+)", job)
        if rule:
            found.add(rule[1] + (f" {wildcards[1]}" if wildcards else ""))
    return found


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A project that was built once."""
    project = demo(tmp_path_factory.mktemp("built"))
    project.write("README.md", README)
    project.snakemake()
    return project


@pytest.fixture
def built(template, tmp_path):
    """A copy of it, with the times of its files and Snakemake's memory of them."""
    subprocess.run(["cp", "-a", f"{template.folder}/.", str(tmp_path)], check=True)
    return Project.at(tmp_path)


DRAWN = {"figures_demo", "paper", "readme", "all"}
JUDGED = {"summarise demo", "judge", "paper", "readme", "all"}


def test_everything_is_built_and_then_nothing_is_left_to_do(built):
    for name in ("claims.json", "summary/demo.json", "figures/demo/losses.svg", "report/report.pdf", "report/latex/report.tex"):
        assert (built.folder / "results" / name).stat().st_size > 0
    assert "| X1 |" in (built.folder / "README.md").read_text()
    start = time.perf_counter()
    assert "Nothing to be done" in built.snakemake().stderr
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    "name, old, new, expected",
    [
        ("src/secondlook/reporting/style.py", '"Adam": "#0072b2"', '"Adam": "#0072b3"', DRAWN),
        ("experiments/demo/figures.py", "height=2.2", "height=2.3", DRAWN),
        ("experiments/demo/config.yaml", "lr: 0.1", "lr: 0.2", {"run_stage demo/decay", "figures_demo"} | JUDGED),
        ("experiments/demo/config.yaml", "# any in (0, 1)", "# whatever", set()),
        ("src/secondlook/study/parameters.py", "Parameters: from", "From", {"run_stage demo/decay", "run_stage demo/slow"} | DRAWN | JUDGED),
        ("experiments/demo/claims.yaml", "0.6399", "0.6398", {"judge", "paper", "readme", "all"}),
        ("experiments/demo/section.md", "shrinks", "falls", {"paper", "all"}),
    ],
)  # fmt: skip
def test_a_change_reruns_what_depends_on_it(built, name, old, new, expected):
    built.replace(name, old, new)
    assert planned(built) == expected


def test_one_experiment_is_a_target(project):
    assert planned(project, "demo") == {"run_stage demo/decay", "run_stage demo/slow", "summarise demo", "figures_demo", "demo"}


def test_claims_prints_the_verdicts(built):
    assert "X1  reproduced" in built.snakemake("claims").stdout


@pytest.mark.parametrize(
    "config, line",
    [
        ("scal=smoke", "unknown key 'scal' in config/config.yaml or --config: did you mean 'scale'?"),
        ("scale=smok", "'scale' in config/config.yaml or --config must be one of paper, smoke, got 'smok'"),
        ("recompute=demo/deca", "config/config.yaml or --config names the stage 'demo/deca', which does not exist"),
        ("recorded=demo", "'recorded' in config/config.yaml or --config must be of type array, got 'demo'"),
    ],
)
def test_a_bad_configuration_is_one_line(project, config, line):
    done = project.snakemake("--dry-run", "--config", config, check=False)
    assert done.returncode != 0 and f"secondlook: {line}\n" in done.stderr and "Traceback" not in done.stderr


def test_a_hand_edited_result_stops_the_workflow_with_its_line(built):
    table = built.folder / "results/raw/demo/decay.csv"
    table.write_text(table.read_text().replace("loss,1", "loss,2", 1))
    done = built.snakemake(check=False)
    assert done.returncode != 0 and "secondlook: results/raw/demo/decay.csv does not match its record" in done.stderr
    table.unlink()
    built.snakemake()


def test_a_recorded_stage_is_read_and_not_computed(built):
    built.replace("config/config.yaml", "recorded: []", "recorded: [demo/slow]")
    done = built.snakemake("--dry-run", check=False)
    assert done.returncode != 0 and "results/recorded/demo/slow.csv" in done.stdout  # missing, though its figures are there
    recorded = built.folder / "results/recorded/demo"
    recorded.mkdir(parents=True)
    for kind in ("csv", "json"):
        os.rename(built.folder / f"results/raw/demo/slow.{kind}", recorded / f"slow.{kind}")
    assert {"import_recorded demo/slow"} <= planned(built)
    assert {"run_stage demo/slow"} <= planned(built, "--config", "recompute=demo/slow")
    assert {"run_stage demo/slow"} <= planned(built, "--config", "recompute=all")
    done = built.snakemake(check=False)  # made by code that is in no commit
    assert done.returncode != 0 and "was made by code that no commit holds" in done.stderr
    record = json.loads((recorded / "slow.json").read_text())
    (recorded / "slow.json").write_text(json.dumps({**record, "commit": "0" * 40, "dirty": False}))
    built.snakemake()
    assert json.loads((built.folder / "results/raw/demo/slow.json").read_text())["recorded"] is True


def test_after_a_kill_the_next_run_recovers(project):
    project.write("README.md", README)
    project.replace("experiments/demo/config.yaml", "pause: 0.0", "pause: 2.0")
    killed = subprocess.Popen(
        **project.command("snakemake", "--cores", "2"),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    lock = project.folder / "results/raw/demo/.slow.csv.lock"
    deadline = time.monotonic() + 120
    while not lock.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (project.folder / "results/raw/demo/slow.csv").exists()
    done = project.snakemake(check=False)
    assert done.returncode != 0 and "--unlock" in done.stderr
    project.snakemake("--unlock")
    project.snakemake()
    assert (project.folder / "results/report/report.pdf").exists()


def test_snakemakes_own_report_has_captions(built):
    built.snakemake("--report", "report.html")
    text = (built.folder / "report.html").read_text()
    assert "Gradient descent on a parabola" in text and "Shows: the loss of every seed." in text


def test_the_workflow_is_lint_free_but_for_stated_exemptions():
    done = subprocess.run(**{**Project.at(ROOT).command("snakemake", "--lint")}, capture_output=True)
    lints = re.findall(r"^    \* (.*?):?$", done.stderr, re.MULTILINE)
    assert lints, "the lint found nothing at all: are the exemptions still needed?"
    assert [lint for lint in lints if not lint.startswith(tuple(EXEMPT))] == []
