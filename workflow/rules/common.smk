# What the rules share: the checked configuration, the experiments, and which files each step depends on.

import fcntl
import os
import re
import shlex
import sys
import threading
from contextlib import suppress
from pathlib import Path

from secondlook.errors import Mistake
from secondlook.study.experiment import experiments
from secondlook.study.needs import data_folder, device_of
from secondlook.study.parent import PARENT
from secondlook.study.records import unrecorded
from secondlook.study.results import Results
from secondlook.study.schema import check
from secondlook.study.sources import PACKAGE, sources
from secondlook.study.tables import beside

ROOT = Path()
os.environ[PARENT] = str(os.getpid())  # a job ends with the workflow that started it, however that one ended
PYTHON = shlex.quote(sys.executable)

# Held while this snakemake lives, so that one that was killed can be told from one that runs (workflow/unlock.py).
with suppress(OSError):
    (ROOT / ".snakemake").mkdir(exist_ok=True)
    ALIVE = open(ROOT / ".snakemake/alive", "a", encoding="utf-8")
    fcntl.flock(ALIVE, fcntl.LOCK_SH)


def settings():
    """Where results are, by the checked configuration; the experiments, and their stages: all, those that are read from their
    records, and those that are left out."""
    check(dict(config), ROOT / "workflow/schemas/config.schema.yaml", "config/config.yaml or --config")
    found = experiments(ROOT)
    stages = {
        f"{experiment.name}/{case}": experiment.setting(case, config["scale"])
        for experiment in found
        for case in experiment.cases
    }
    asked = config["recompute"]
    asked = [asked] if isinstance(asked, str) else asked
    for name in [*config["recorded"], *asked]:
        if name not in stages and name != "all":
            raise Mistake(f"config/config.yaml or --config names the stage '{name}', which does not exist")
    results = Results(ROOT, config["scale"])
    for file in sorted(results.recorded_folder.glob("*/*.csv")):
        if (name := f"{file.parent.name}/{file.stem}") not in config["recorded"]:
            raise Mistake(f"{file} is there, but config/config.yaml does not list {name} under 'recorded'")
    asked = list(stages) if "all" in asked else asked
    recorded = [] if config["scale"] == "smoke" else sorted(set(config["recorded"]) - set(asked))
    left_out = [
        name for name, setting in stages.items() if unrecorded(results, setting) and name not in recorded and name not in asked
    ]
    return results, {experiment.name: experiment for experiment in found}, stages, recorded, left_out


try:
    RESULTS, EXPERIMENTS, STAGES, RECORDED, UNRECORDED = settings()
except Mistake as mistake:
    sys.exit(f"secondlook: {mistake}")

SCALE = config["scale"]
DEVICE = config["device"]
DATA = shlex.quote(str(data_folder(config["data_root"])))


def end_timers():
    """Snakemake would wait for the last of its timers, each as long as the profile's max-jobs-per-timespan."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()


def one_of(names):
    """A pattern that matches exactly these names, and nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


# What a job asks of a cluster: MiB of memory, minutes, GPUs; cores are its rule's threads. One machine asks for nothing.
ASKS = {
    "drawing": {"mem_mb": 4000, "runtime": 15, "gpu": 0},  # figures and paper: below 1 GiB and a minute
    "stage": {"mem_mb": 4000, "runtime": 30, "gpu": 0},  # below 1 GiB and a few minutes
    "recorded": {"mem_mb": 8000, "runtime": 240, "gpu": 0},  # up to 4.7 GiB and 40 minutes, their records say
    "gpu": {"mem_mb": 16000, "runtime": 1440, "gpu": 1},  # hours; one that runs out of time goes on when it is asked for again
}


def kind(stage):
    """Which row of ASKS a stage is."""
    if device_of(STAGES[stage], DEVICE) == "cuda":
        return "gpu"
    return "recorded" if stage in config["recorded"] or "hours" in STAGES[stage].needs else "stage"


def asked(resource):
    """What a stage asks for of a resource, as a function of the wildcards; of minutes, twice those that it is said to need."""

    def of(wildcards):
        said = 120 * STAGES[wildcards.stage].needs.get("hours", 0) if resource == "runtime" else 0
        return max(ASKS[kind(wildcards.stage)][resource], round(said))

    return of


def tables(experiment):
    """The raw tables of an experiment, each followed by its record; none of a stage that is left out."""
    stages = [stage for stage, setting in STAGES.items() if setting.experiment == experiment.name and stage not in UNRECORDED]
    return [file for stage in stages for file in with_record(RESULTS.raw(stage))]


def with_record(table):
    """A table and its record."""
    return [table, beside(table)]


def code(*found):
    """Lists of source files as one, without repetitions, relative to the project where they lie in it."""
    here = ROOT.resolve()
    files = {file.resolve() for files in found for file in files}
    return sorted(str(file.relative_to(here) if file.is_relative_to(here) else file) for file in files)


def module(name):
    """The files on which a module of the package depends."""
    return sources(PACKAGE / name, ROOT)


def figure_files(experiment):
    """The files of all figures of an experiment that can be drawn."""
    missing = [STAGES[stage].case for stage in UNRECORDED if STAGES[stage].experiment == experiment.name]
    drawn = experiment.without("figures", missing)
    return [str(RESULTS.figures / file) for name in drawn for file in experiment.figure_files(name)]


# Each set of code is an input of its own kind of step: restyling a figure never reruns an experiment.
FIGURES = {name: figure_files(experiment) for name, experiment in EXPERIMENTS.items()}
SUMMARIES = [RESULTS.summary(name) for name in EXPERIMENTS]
README = [RESULTS.readme] if SCALE == "paper" else []
RECORDED_FILES = [file for stage in RECORDED for file in with_record(RESULTS.recorded(stage))]


wildcard_constraints:
    experiment=one_of(EXPERIMENTS),


# On a cluster these run where Snakemake does: they take seconds, and `data` may need a network.
localrules:
    data,
    summarise,
    judge,
    claims,
    readme,
