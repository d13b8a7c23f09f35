"""The workflow's jobs on the engine of a cluster: any that takes a script, and Slurm itself where `make test-slurm` has started one."""

import os
import re
import subprocess

import pytest
from conftest import Project, demo

SLURM = pytest.mark.skipif("ONE_NODE_SLURM" not in os.environ, reason="needs a Slurm to itself: make test-slurm")

# An engine in four lines: it notes what a job asks for, and runs its script beside the others.
SUBMIT = """#!/bin/sh
echo "$1 $2 $3 $4 $5" >> submitted
sh "$6" > /dev/null 2>&1 &
echo $!
"""
ASKED = "{rule} {threads} {resources.mem_mb} {resources.runtime} {resources.gpu}"
PROFILE = ["--profile", "workflow/profiles/slurm"]
ENGINES = {
    "script": [
        *("--executor", "cluster-generic", "--jobs", "2", "--seconds-between-status-checks", "1"),
        *("--cluster-generic-submit-cmd", f"./submit {ASKED}"),
    ],
    "slurm": [
        *(*PROFILE, "--slurm-init-seconds-before-status-checks", "6"),  # every miss adds ten
        *("--slurm-status-command", "squeue"),  # it keeps no accounts
    ],
}


@pytest.fixture(scope="module", params=["script", pytest.param("slurm", marks=SLURM)])
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def template(engine, tmp_path_factory):
    """A project that the engine has built, and what Snakemake said meanwhile."""
    project = demo(tmp_path_factory.mktemp(engine))
    project.write("README.md", "<!-- found:begin -->\n<!-- found:end -->\n")
    project.write("submit", SUBMIT).chmod(0o755)
    return project, project.snakemake(*ENGINES[engine]).stderr


@pytest.fixture
def built(template, tmp_path):
    """A copy of it, with the times of its files and Snakemake's memory of them."""
    subprocess.run(["cp", "-a", f"{template[0].folder}/.", str(tmp_path)], check=True)
    return Project.at(tmp_path)


def test_an_engine_runs_all_of_it_and_then_nothing_is_left_to_do(template, engine):
    project, said = template
    for name in ("claims.json", "figures/demo/losses.svg", "report/report.pdf", "report/latex/report.tex"):
        assert (project.folder / "results" / name).stat().st_size > 0
    assert "X1 | Each step" in (project.folder / "VERDICTS.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^rule (\w+):", said, re.MULTILINE)) == {"run_stage", "figures_demo", "paper"}
    assert set(re.findall(r"^localrule (\w+):", said, re.MULTILINE)) == {"summarise", "judge", "readme", "all"}
    assert len(re.findall("Submitted job|has been submitted with SLURM jobid", said)) == 4
    assert "Nothing to be done" in project.snakemake(*ENGINES[engine]).stderr


def test_the_line_of_a_job_that_fails_reaches_the_user(built, engine):
    built.replace("experiments/demo/config.yaml", "lr: 0.1", "lr: 1.5")
    config = ["--config", "recompute=[demo/decay,demo/slow]"]  # has to reach the job, too
    done = built.snakemake(*ENGINES[engine], *config, check=False)
    assert done.returncode != 0
    line = "secondlook: 'lr' in experiments/demo/config.yaml must be a number from 0 to 1, got 1.5"
    assert line in done.stdout + done.stderr
    assert not (built.folder / "results/raw/demo/decay.csv").exists()


@pytest.fixture
def with_gpu(built):
    """The same with a stage that needs a GPU and has no result."""
    built.replace("experiments/demo/config.yaml", "  slow:\n    seeds", "  slow:\n    needs: {device: cuda}\n    seeds")
    for kind in ("csv", "json"):
        (built.folder / f"results/raw/demo/slow.{kind}").unlink()
    return built


@pytest.mark.parametrize("engine", [pytest.param("slurm", marks=SLURM)], indirect=True)
def test_a_node_without_a_gpu_refuses_the_stage_that_needs_one(with_gpu, engine):
    assert "demo/slow" not in with_gpu.snakemake("--dry-run", *ENGINES[engine]).stdout  # as always, it is left out
    asked = ["results/raw/demo/slow.csv", "--config", "recompute=demo/slow"]
    done = with_gpu.snakemake(*ENGINES[engine], *asked, check=False)
    assert done.returncode != 0 and "Invalid generic resource" in done.stderr
    assert not (with_gpu.folder / "results/raw/demo/slow.csv").exists()


@pytest.mark.parametrize("engine", ["script"], indirect=True)
def test_what_a_job_asks_for(with_gpu, engine):
    """Cores, MiB, minutes and GPUs: of jobs as submitted above, and of those that only a dry run may start here."""
    submitted = set((with_gpu.folder / "submitted").read_text(encoding="utf-8").splitlines())
    assert submitted == {"run_stage 1 4000 30 0", "figures_demo 1 4000 15 0", "paper 1 4000 15 0"}
    config = ["--config", "recorded=[demo/decay]", "recompute=[demo/decay,demo/slow]"]
    planned = with_gpu.snakemake("--dry-run", "--forcerun", "run_stage", *PROFILE, *config).stdout
    asked = r"wildcards: stage=demo/(\w+)\n(?:    threads: \d+\n)?    resources: .*runtime=(\d+), gpu=(\d), mem_mb=(\d+)"
    assert set(re.findall(asked, planned)) == {("decay", "240", "0", "8000"), ("slow", "1440", "1", "16000")}
