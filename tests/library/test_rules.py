"""Rules between epochs: worked examples, any optimiser and schedule, and a roll-back that is exact to the bit."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, SequentialLR

from secondlook.optim import KFAC, AdaHessian
from secondlook.training import Run, eager_step, train
from secondlook.training.rules import EVE, AdaptiveRate, Among, CarefulRate, Walk, scale_rate

torch.set_num_threads(1)
NEVER = None  # stands for evaluate where a rule must not call it


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def put(p: nn.Parameter, *values: float) -> None:
    with torch.no_grad():
        p.copy_(torch.tensor(values))


def test_the_adaptive_rate_follows_the_cosine():
    p = parameter(0, 0)
    optimizer = torch.optim.SGD([{"params": [p], "lr": 1.0}, {"params": [parameter(1)], "lr": 0.1}])
    rule = AdaptiveRate(optimizer, c=0.15)
    rates = []
    for point in ((1, 0), (2, 0), (2, 1), (2, 0), (2, 0)):  # the same way, a right angle, back, no step
        put(p, *point)
        rule.after_epoch(1.0, NEVER)
        rates.append([group["lr"] for group in optimizer.param_groups])
    expected = [1, 1.15, 1.15, 1.15 * 0.85, 1.15 * 0.85]
    assert [first for first, _ in rates] == pytest.approx(expected)
    assert [second for _, second in rates] == pytest.approx([0.1 * rate for rate in expected])


def test_the_careful_rate_falls_where_the_loss_rises_by_more_than_two_percent():
    optimizer = torch.optim.SGD([parameter(0)], lr=1.0)
    rule, rates = CarefulRate(optimizer), []
    for loss in (10, 10.19, 10.4, 8, 8.2, 8.2, math.nan, 8.2):  # 10.4 > 1.02 * 10.19; 8.2 > 1.02 * 8
        rule.after_epoch(loss, NEVER)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1, 1, 0.8, 0.8, 0.64, 0.64, 0.512, 0.512])
    assert rule.cuts == 3


X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 2


def network() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        nn.init.uniform_(p, -0.5, 0.5, generator=generator)
    return model


OPTIMISERS = {
    "momentum": lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9),
    "Adam": lambda m: torch.optim.Adam(m.parameters(), 0.01),
    "AdaHessian": lambda m: AdaHessian(m.parameters(), 0.1),
    "K-FAC": lambda m: KFAC(m, 0.01),
}


def flattened(state) -> list:
    """Every tensor and number in a nest of state dictionaries, in order."""
    if isinstance(state, dict):
        return [x for key in state for x in flattened(state[key])]
    if isinstance(state, list | tuple):
        return [x for part in state for x in flattened(part)]
    return [state]


def same(a, b) -> bool:
    pairs = list(zip(flattened(a), flattened(b), strict=True))
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_roll_back_restores_model_and_optimiser_bit_for_bit(name):
    model = network()
    optimizer = OPTIMISERS[name](model)
    step = eager_step(optimizer, model, functional.cross_entropy)
    rule = CarefulRate(optimizer, model=model)

    def epoch():
        return [step(x, y).item() for x, y in zip(X.split(5), Y.split(5), strict=True)]

    def state():
        return copy.deepcopy([model.state_dict(), optimizer.state_dict()])

    epoch()
    rule.after_epoch(1.0, NEVER)
    before, after = state(), epoch()
    rule.after_epoch(1.5, NEVER)
    for group in before[1]["param_groups"]:
        group["lr"] *= 0.8
    assert same(state(), before)
    for group in optimizer.param_groups:
        group["lr"] = OPTIMISERS[name](network()).defaults["lr"]
    assert epoch() == after  # with the old rate the epoch is the same again: nothing is left of the one that was taken back
    rule.after_epoch(1.5, NEVER)
    assert rule.cuts == 2 and rule.last == 1.0


SCHEDULES = {
    "exponential": lambda o: ExponentialLR(o, 0.9),
    "lambda": lambda o: LambdaLR(o, lambda t: 1 / (1 + t)),
    "cosine": lambda o: CosineAnnealingLR(o, 10),
    "sequence": lambda o: SequentialLR(o, [LambdaLR(o, lambda t: 0.1 * (t + 1)), ExponentialLR(o, 0.9)], [3]),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # a scheduler that is advanced without steps says so
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_changed_rate_lasts_under_a_schedule(name):
    rates = {}
    for factor in (1.0, 0.5):
        optimizer = torch.optim.SGD([parameter(0)], lr=1.0)
        schedule, rates[factor] = SCHEDULES[name](optimizer), []
        for t in range(8):
            if t == 2:
                scale_rate(optimizer, factor, schedule)
            rates[factor].append(optimizer.param_groups[0]["lr"])
            schedule.step()
    changed = [0.5 if t >= 2 else 1.0 for t in range(8)]
    assert rates[0.5] == pytest.approx([lr * share for lr, share in zip(rates[1.0], changed, strict=True)])


@pytest.mark.parametrize("best, chosen", [(1.0, 0.0), (1.4, 0.5), (1.9, 1.0), (3.0, 2.0), (5.5, 4.0), (100, 8.0), (-3, 0.0)])
def test_eve_takes_the_best_multiple(best, chosen):
    p = parameter(0)
    rule = EVE([p])
    put(p, 1)
    rule.after_epoch(1.0, lambda: (p.item() - best) ** 2)
    assert rule.chosen == [chosen] and rule.evaluations == 6
    assert p.item() == 1 + chosen
    put(p, 1 + chosen + 2)  # the next epoch's step is measured from there
    rule.after_epoch(1.0, lambda: -p.item())
    assert p.item() == 1 + chosen + 2 + 8 * 2


@pytest.mark.parametrize("best, strides", [(1.0, 0), (1.28, 3), (-3, 0), (2.5, 15)])
def test_eve_on_the_slides_walks_while_the_loss_falls(best, strides):
    p = parameter(0)
    rule = EVE([p], Walk())
    put(p, 1)
    rule.after_epoch(1.0, lambda: (p.item() - best) ** 2)
    assert rule.chosen == [pytest.approx(0.1 * strides)] and rule.evaluations == strides + 2
    assert p.item() == pytest.approx(1 + 0.1 * strides)


@pytest.mark.parametrize("search", [Among(), Walk()])
def test_eve_stays_bit_for_bit_where_no_step_is_better(search):
    p = parameter(0.1, 0.2)
    rule = EVE([p], search)
    put(p, 1 / 3, math.inf)
    end = p.detach().clone()
    rule.after_epoch(1.0, lambda: math.nan)
    assert torch.equal(p, end) and rule.chosen == [0.0]


@pytest.mark.parametrize(
    "build, name",
    [
        (lambda o: AdaptiveRate(o, c=1.0), "c"),
        (lambda o: CarefulRate(o, rise=-0.1), "rise"),
        (lambda o: CarefulRate(o, factor=1.0), "factor"),
        (lambda o: Among((1.0, 2.0)), "multiples"),
        (lambda o: Walk(0.0), "stride"),
    ],
)
def test_options_are_checked(build, name):
    with pytest.raises(ValueError, match=f"^{name} must"):
        build(torch.optim.SGD([parameter(0)], lr=1.0))


def test_rules_compose_in_a_run():
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    schedule = ExponentialLR(optimizer, 0.9)
    run = Run(model, optimizer, (X, Y), (X, Y), epochs=4, batch_size=5, seed=0, schedule=schedule)
    eve = EVE(model.parameters())
    rules = [AdaptiveRate(optimizer, schedule), CarefulRate(optimizer, schedule, model=model), eve]

    @torch.no_grad()
    def evaluate() -> float:
        return functional.cross_entropy(model.eval()(X), Y).item()

    held_out = []
    for row in train(run):
        before = evaluate()
        for rule in rules:
            rule.after_epoch(row["train_loss"], evaluate)
        held_out.append(evaluate() - before)
    assert len(eve.chosen) == 4 and max(held_out) <= 0
    assert run.lr != pytest.approx(0.01 * 0.9**4)
