"""What a stage's record says of the runs in it that diverged: their sentences, from every part and process."""

import pytest
import torch
from conftest import Project

from secondlook.errors import Diverged
from secondlook.study.tables import read_table
from secondlook.training import Run, train

CONFIG = """
title: Networks, some of which diverge
cases:
  nets: {seeds: {first: 0, count: 2}, varies: {rates: [0.1, 0.3]}}
  quick: {seeds: {first: 0, count: 2}, varies: {rates: [0.2]}}
"""
EXPERIMENT = '''
"""Seed 1 diverges."""

import warnings
from dataclasses import dataclass
from pathlib import Path

from secondlook.errors import Diverged, OutOfTime
from secondlook.study.cells import kept
from secondlook.study.declare import case
from secondlook.study.parameters import Positive
from secondlook.study.place import Place


@dataclass(frozen=True)
class Params:
    rates: tuple[Positive, ...]


def _train(rate: float, seed: int):
    if seed == 1:
        warnings.warn(f"non-finite loss nan at step 6 (SGD, lr {rate}, seed {seed})", Diverged)
    yield {"rate": rate, "step": 0, "metric": "loss", "value": rate}


@case(Params, place=True)
def nets(p: Params, seed: int, place: Place):
    for rate in p.rates:
        if Path("stop").exists() and (seed, rate) == (1, 0.3):
            raise OutOfTime("time is up")
        yield from kept(place, {"seed": seed, "rate": rate}, lambda folder, rate=rate: _train(rate, seed))


@case(Params)
def quick(p: Params, seed: int):
    return _train(p.rates[0], seed)
'''


@pytest.fixture
def project(tmp_path) -> Project:
    project = Project(tmp_path, [])
    project.write("experiments/nets/config.yaml", CONFIG)
    project.write("experiments/nets/experiment.py", EXPERIMENT)
    return project


def sentences(*rates: float) -> list[str]:
    return [f"non-finite loss nan at step 6 (SGD, lr {rate}, seed 1)" for rate in rates]


def diverged(project: Project, case: str) -> list[str]:
    return read_table(project.folder / f"results/raw/nets/{case}.csv")[1]["diverged"]


def test_what_diverges_is_printed_and_recorded(project):
    done = project.secondlook("run", "nets", "--case", "quick")
    assert done.stderr == f"warning: {sentences(0.2)[0]}\n" and diverged(project, "quick") == sentences(0.2)


def test_so_it_is_from_every_part_of_a_stage(project):
    (project.folder / "stop").touch()
    assert sentences(0.1)[0] in project.secondlook("run", "nets", "--case", "nets", check=False).stderr
    (project.folder / "stop").unlink()
    done = project.secondlook("run", "nets", "--case", "nets")
    assert done.stderr == f"warning: {sentences(0.3)[0]}\n" and diverged(project, "nets") == sentences(0.1, 0.3)


def test_so_it_is_from_every_process_of_a_stage(project):
    done = project.secondlook("run", "nets", "--case", "nets", "--at-once", "2")
    assert all(sentence in done.stderr for sentence in sentences(0.1, 0.3))
    assert diverged(project, "nets") == sentences(0.1, 0.3)


def test_a_run_says_when_it_diverges():
    x = torch.ones(4, 1)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e30)
    with pytest.warns(Diverged, match=r"^non-finite .* step \d+ \(SGD, lr 1e\+30, seed 7\)$"):
        list(
            train(Run(model, optimizer, (x, x), (x, x), criterion=torch.nn.functional.mse_loss, seed=7, batch_size=4, epochs=9))
        )
