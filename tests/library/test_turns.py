"""Turns: tasks side by side end as they would alone, and one that fails ends no other."""

import pytest
import torch
from torch.nn.functional import mse_loss

from secondlook.optim import AdaHessian
from secondlook.training import Run, generator, take_turns, train


def counting(number: int, turns: int, said: list, fails: bool = False):
    for turn in range(turns):
        said.append((number, turn))
        if fails:
            raise ValueError(number)
        yield None


def test_turns_go_round_and_the_next_task_takes_a_free_place():
    said = []
    tasks = (counting(number, turns, said, number == 1) for number, turns in enumerate((3, 2, 1, 2)))
    ended = list(take_turns(tasks, at_once=2, device="cpu"))
    assert said == [(0, 0), (1, 0), (0, 1), (2, 0), (0, 2), (3, 0), (3, 1)]
    assert [number for number, _ in ended] == [1, 2, 0, 3]
    assert {number: type(error) for number, error in ended} == {1: ValueError, 0: type(None), 2: type(None), 3: type(None)}


def run(rule, seed: int) -> Run:
    x = torch.randn(24, 5, generator=generator(seed, "start"))
    model = torch.nn.Linear(5, 1)
    with torch.no_grad():
        model.weight.zero_(), model.bias.zero_()
    return Run(
        model,
        rule(model.parameters(), lr=0.1),
        (x, x[:, :1]),
        (x, x[:, :1]),
        epochs=3,
        batch_size=7,
        seed=seed,
        criterion=mse_loss,
    )


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_runs_side_by_side_are_the_runs_alone(at_once):
    kinds = [(rule, seed) for rule in (torch.optim.SGD, AdaHessian) for seed in (0, 1)]
    alone, beside = [run(*kind) for kind in kinds], [run(*kind) for kind in kinds]
    for each in alone:
        assert len(list(train(each))) == 3
    assert all(error is None for _, error in take_turns((train(each, turns=True) for each in beside), at_once, "cpu"))
    for a, b in zip(alone, beside, strict=True):
        assert torch.equal(a.model.weight, b.model.weight)
        assert [row["train_loss"] for row in a.rows] == [row["train_loss"] for row in b.rows]
