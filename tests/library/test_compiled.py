"""A compiled step is the ordinary step up to rounding, with the same state and the same probes."""

import copy
import shutil

import pytest
import torch

from secondlook.curvature import Hutchinson
from secondlook.optim import OASIS, AdaHessian, Sophia, compiled_step
from secondlook.problems.batch_norm import BatchNorm2d

X = torch.randn(16, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randint(0, 3, (16,), generator=torch.Generator().manual_seed(1))
CRITERION = torch.nn.CrossEntropyLoss()
OPTIONS = {"weight_decay": 0.1, "hessian_power": 0.5, "averaging": "absolute"}
COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="this backend needs a C++ compiler")


def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        layers = [torch.nn.Conv2d(1, 2, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(32, 3)]
        return torch.nn.Sequential(*layers).double()


@pytest.mark.parametrize(
    "make, backend, options",
    [
        (AdaHessian, "aot_eager", {}),
        (AdaHessian, "aot_eager", {"every": 3}),
        (AdaHessian, "aot_eager", OPTIONS),
        (Sophia, "aot_eager", {"every": 3}),
        (OASIS, "aot_eager", {"warmup": 1, "adaptive": True}),
        pytest.param(AdaHessian, "inductor", OPTIONS, marks=COMPILER),
    ],
)
def test_ten_steps_agree_with_the_ordinary_ones(make, backend, options):
    ours, theirs = network(), network()
    ordinary = make(ours.parameters(), lr=0.01, **options)
    other = make(theirs.parameters(), lr=0.01, **options)
    step = compiled_step(other, theirs, CRITERION, backend)
    for t in range(10):
        loss = CRITERION(ours(X), Y)
        ordinary.zero_grad()
        ordinary.backward(loss)
        ordinary.step()
        if t == 5:  # compiled and ordinary steps may alternate
            other.zero_grad()
            other.backward(CRITERION(theirs(X), Y))
            other.step()
        else:
            assert step(X, Y).item() == pytest.approx(loss.item(), rel=1e-12)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm", [torch.nn.BatchNorm2d, BatchNorm2d], ids=["torch", "library"])
def test_running_means_of_batch_norm_move_as_in_ordinary_steps(norm):
    def model():
        first, *others = network()
        return torch.nn.Sequential(first, norm(2).double(), *others)

    ours, theirs = model(), model()
    ordinary, other = (AdaHessian(m.parameters(), lr=0.01) for m in (ours, theirs))
    step = compiled_step(other, theirs, CRITERION, "aot_eager")
    for _ in range(3):
        ordinary.zero_grad()
        ordinary.backward(CRITERION(ours(X), Y))
        ordinary.step()
        step(X, Y)
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=name)


def test_the_learning_rate_may_change():
    ours = network()
    optimizer = AdaHessian(ours.parameters(), lr=0.01)
    step = compiled_step(optimizer, ours, CRITERION, "aot_eager")
    step(X, Y)
    before = copy.deepcopy(ours)
    optimizer.param_groups[0]["lr"] = 0.0
    step(X, Y)
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), before.parameters(), strict=True))


def data_parallel_in_name(optimizer: AdaHessian) -> AdaHessian:
    optimizer.replicas = object()
    return optimizer


@pytest.mark.parametrize(
    "make",
    [
        lambda m: AdaHessian(m.parameters(), diagonal=Hutchinson(2)),
        lambda m: AdaHessian(m[0].parameters()),
        lambda m: AdaHessian([{"params": m[0].parameters()}, {"params": m[3].parameters()}]),
        lambda m: OASIS(m.parameters()),
        lambda m: torch.optim.SGD(m.parameters()),
        lambda m: data_parallel_in_name(AdaHessian(m.parameters())),
    ],
)
def test_what_cannot_be_compiled_is_refused(make):
    model = network()
    with pytest.raises(ValueError, match="^optimizer must"):
        compiled_step(make(model), model, CRITERION)
