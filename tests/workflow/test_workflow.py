"""The workflow around the demo experiment: what runs, what does not, and what it takes to recover."""

import json
import os
import re
import subprocess

import pytest
from conftest import ROOT, Project, demo

from secondlook.study.experiment import Experiment
from secondlook.study.results import Results
from secondlook.study.tables import read_table, write_table

README = "<!-- found:begin -->\n<!-- found:end -->\n"

# Lints that do not apply, each with its reason.
EXEMPT = {
    "Specify a conda environment or container": "one lock file is the environment of every rule, and `make` installs it",
    "Shell command directly uses variable PYTHON": "the interpreter that runs Snakemake runs the rules",
    "Shell command directly uses variable SCALE": "the scale is part of every path",
    "Shell command directly uses variable DEVICE": "a result stands, whichever device it was made on; its record says which",
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
    for name in ("claims.json", "summary/demo.json", "figures/demo/losses.svg", "report/report.pdf", "report/supplement.pdf"):
        assert (built.folder / "results" / name).stat().st_size > 0
    assert "claim X1: reproduced" in (built.folder / "README.md").read_text(encoding="utf-8")
    assert "X1 | Each step" in (built.folder / "VERDICTS.md").read_text(encoding="utf-8")
    assert "Nothing to be done" in built.snakemake().stderr


@pytest.mark.parametrize(
    "name, old, new, expected",
    [
        ("src/secondlook/reporting/style.py", '"Adam": "#0072b2"', '"Adam": "#0072b3"', DRAWN),
        ("experiments/demo/figures.py", "height=2.2", "height=2.3", DRAWN),
        ("experiments/demo/config.yaml", "lr: 0.1", "lr: 0.2", {"run_stage demo/decay", "figures_demo"} | JUDGED),
        ("experiments/demo/config.yaml", "# any in (0, 1)", "# whatever", set()),
        ("src/secondlook/study/parameters.py", "Parameters: from", "From", {"run_stage demo/decay", "run_stage demo/slow"} | DRAWN | JUDGED),
        ("experiments/demo/claims.yaml", "0.6399", "0.6398", {"judge", "paper", "readme", "all"}),
        ("experiments/demo/section.md", "shrinks", "falls", {"paper", "readme", "all"}),
    ],
)  # fmt: skip
def test_a_change_reruns_what_depends_on_it(built, name, old, new, expected):
    built.replace(name, old, new)
    assert planned(built) == expected


def test_one_experiment_is_a_target(project):
    assert planned(project, "demo") == {"run_stage demo/decay", "run_stage demo/slow", "summarise demo", "figures_demo", "demo"}


def test_claims_prints_the_verdicts(built):
    assert "X1   reproduced " in built.snakemake("claims").stdout


@pytest.mark.parametrize(
    "config, line",
    [
        ("scal=smoke", "unknown key 'scal' in config/config.yaml or --config: did you mean 'scale'?"),
        ("device=gpu", "'device' in config/config.yaml or --config must be one of cpu, cuda, got 'gpu'"),
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
    table.write_text(table.read_text(encoding="utf-8").replace("loss,1", "loss,2", 1), encoding="utf-8")
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
    assert {"import_demo"} <= planned(built)
    assert {"run_stage demo/slow"} <= planned(built, "--config", "recompute=demo/slow")
    assert {"run_stage demo/slow"} <= planned(built, "--config", "recompute=all")
    done = built.snakemake(check=False)  # made by code that is in no commit
    assert done.returncode != 0 and "was made by code that no commit holds" in done.stderr
    record = json.loads((recorded / "slow.json").read_text(encoding="utf-8"))
    (recorded / "slow.json").write_text(json.dumps({**record, "commit": "0" * 40, "dirty": False}), encoding="utf-8")
    built.snakemake()
    assert json.loads((built.folder / "results/raw/demo/slow.json").read_text(encoding="utf-8"))["recorded"] is True


GPU_CLAIM = """
- id: X2
  source: the same line
  statement: So it does on a GPU.
  kind: promise
  evidence: original
  stated: "0.64"
  bands: before the runs
  measured: [{quantity: final loss, unit: '', measure: gpu_final.all}]
  figure: gpu_losses
  requires: [gpu]
  checks: {small: {measure: gpu_final.all, between: [0, 1]}}
  verdicts: [{verdict: reproduced, when: [small], why: It is small.}, {verdict: undecided, why: It may be.}]
"""
GPU_MEASURE = """

@measure("gpu")
def gpu_final(rows: pd.DataFrame) -> dict[str, Estimate]:
    return final(rows.replace({"case": {"decay": "", "gpu": "decay"}}))
"""
GPU_FIGURE = """

@figure("decay", "gpu")
def gpu_losses(rows: pd.DataFrame) -> Figure:
    \"\"\"Shows: the same on a GPU.\"\"\"
    return losses(rows[rows.case == "gpu"].replace({"case": {"gpu": "decay"}}))
"""
GPU_SECTION = """
<% if has("gpu") %>
On a GPU it ends at << gpu_final.all | number >> (@fig:gpu).

![The same.](figures/demo/gpu_losses.pdf){#fig:gpu}
<% else %>
What happens on a GPU is not recorded.
<% endif %>
"""


@pytest.fixture
def with_gpu(built):
    """The demo with a case that needs a GPU and has no result yet."""
    case = "cases:\n  gpu:\n    seeds: {first: 0, count: 8}\n    needs: {device: cuda}\n    varies: {lr: 0.1}\n"
    built.replace("experiments/demo/config.yaml", "cases:\n", case)
    built.replace("experiments/demo/experiment.py", "@case(Decay)", '@case(Decay, "decay", "gpu")')
    parts = {"claims.yaml": GPU_CLAIM, "measures.py": GPU_MEASURE, "figures.py": GPU_FIGURE, "section.md": GPU_SECTION}
    for part, text in parts.items():
        built.write(f"experiments/demo/{part}", (built.folder / "experiments/demo" / part).read_text(encoding="utf-8") + text)
    return built


def record_gpu(project) -> None:
    """Put a record of the case on file: the rows of the other case, with the note of a made-up GPU."""
    experiment = Experiment(project.folder, "demo")
    setting = experiment.setting("gpu")
    table, record = read_table(project.folder / "results/raw/demo/decay.csv")
    made = {"case": "gpu", "settings_digest": setting.digest, "commit": "0" * 40, "dirty": False, "device": "A made-up GPU"}
    record |= made | {"versions": {"cuda": "0.0"}}
    write_table(Results(project.folder).recorded(setting.name), table.assign(case="gpu"), record)


def test_a_stage_without_a_record_is_left_out_until_there_is_one(with_gpu):
    """The one way in which a result may be missing; with the record there, everything follows from it."""
    assert not [job for job in planned(with_gpu) if "demo/gpu" in job]
    assert "run_stage demo/gpu" in planned(with_gpu, "--config", "recompute=demo/gpu")
    with_gpu.snakemake()
    results = with_gpu.folder / "results"
    known, missing = json.loads((results / "claims.json").read_text(encoding="utf-8"))
    assert known["verdict"] == "reproduced"
    assert (missing["verdict"], missing["evidence"], missing["measured"]) == ("not run", "not run", [])
    assert missing["why"] == "Needs stage demo/gpu (device cuda), which has not been recorded." and missing["figure"] is None
    assert "What happens on a GPU is not recorded." in (results / "report/supplement.html").read_text(encoding="utf-8")
    assert not list(results.glob("figures/demo/gpu_losses.*"))
    assert "Nothing to be done" in with_gpu.snakemake().stderr
    line = with_gpu.mistake("figure", "demo", "gpu_losses")
    assert line == "figure gpu_losses of demo needs a case that is unrecorded: gpu"
    assert "gpu is unrecorded: it needs device cuda" in with_gpu.secondlook("list").stdout
    assert "1 unrecorded" in with_gpu.secondlook("doctor").stdout

    record_gpu(with_gpu)
    done = with_gpu.snakemake("--dry-run", check=False)
    line = "results/recorded/demo/gpu.csv is there, but config/config.yaml does not list demo/gpu under 'recorded'"
    assert done.returncode != 0 and f"secondlook: {line}\n" in done.stderr
    with_gpu.replace("config/config.yaml", "recorded: []", "recorded: [demo/gpu]")
    assert planned(with_gpu) == {"import_demo"} | DRAWN | JUDGED
    with_gpu.snakemake()
    assert json.loads((results / "claims.json").read_text(encoding="utf-8"))[1]["verdict"] == "reproduced"
    assert "On a GPU it ends at" in (results / "report/supplement.html").read_text(encoding="utf-8")
    assert (results / "figures/demo/gpu_losses.pdf").exists()

    for kind in ("csv", "json"):
        (results / f"recorded/demo/gpu.{kind}").unlink()
    done = with_gpu.snakemake("--dry-run", check=False)  # lost, though all that was made from it is there
    assert done.returncode != 0 and "results/recorded/demo/gpu.csv" in done.stdout


def test_smoke_scale_runs_every_stage_on_the_cpu(with_gpu):
    assert "run_demo" in planned(with_gpu, "--config", "scale=smoke", "device=cpu")


def test_snakemakes_own_report_has_captions(built):
    built.snakemake("--report", "report.html")
    text = (built.folder / "report.html").read_text(encoding="utf-8")
    assert "Gradient descent on a parabola" in text and "Shows: the loss of every seed." in text


def test_the_workflow_is_lint_free_but_for_stated_exemptions():
    done = Project.at(ROOT).call("snakemake", "--lint", check=False)
    lints = re.findall(r"^    \* (.*?):?$", done.stderr, re.MULTILINE)
    assert lints, "the lint found nothing at all: are the exemptions still needed?"
    assert [lint for lint in lints if not lint.startswith(tuple(EXEMPT))] == []
