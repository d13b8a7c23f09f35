"""AdaHessian against the paper's equations written out, and against what a user may do with an optimiser."""

import copy
import gc
import io
import math
import pickle
import weakref

import numpy as np
import pytest
import reference
import torch
from cases import BOWL, CASES, CONV, LOGISTIC

from secondlook.curvature import Exact, Hutchinson
from secondlook.optim import AdaHessian

OPTIONS = {
    "defaults": {},
    "power": {"hessian_power": 0.5},
    "decay": {"weight_decay": 0.1},
    "penalty": {"weight_decay": 0.1, "decoupled": False},
    "every third": {"every": 3},
    "absolute": {"averaging": "absolute"},
    "blocks": {"block_size": 2},
    "all": {
        "betas": (0.8, 0.99),
        "eps": 1e-2,
        "hessian_power": 0.7,
        "weight_decay": 0.1,
        "decoupled": False,
        "block_size": 2,
        "averaging": "absolute",
        "every": 2,
    },
}


def fits(case, options):
    """Blocks must divide the number of entries."""
    sizes = [math.prod(shape) for shape in case.shapes if len(shape) < 3]
    return all(size % options.get("block_size", 1) == 0 for size in sizes)


RUNS = [
    pytest.param(case, options, id=f"{case}-{name}")
    for case in CASES
    for name, options in OPTIONS.items()
    if fits(case, options)
]


def iterate(optimizer, case, params, steps):
    """Train, and return the parameters after every step (steps, n)."""
    path = []
    for _ in range(steps):
        optimizer.zero_grad()
        optimizer.backward(case.loss(params))
        optimizer.step()
        path.append(flat(params))
    return torch.stack(path)


def flat(params):
    return torch.cat([p.detach().reshape(-1) for p in params])


def start(case, **options):
    params = case.params()
    return params, AdaHessian(params, **{"lr": 0.05, **options})


def of_generator(seed, case):
    generator, params = torch.Generator().manual_seed(seed), case.params()
    while True:
        yield flat(Hutchinson().probe(params, generator)).numpy()


@pytest.mark.parametrize(("case", "options"), RUNS)
def test_the_path_is_that_of_the_written_out_equations(case, options):
    params, optimizer = start(case, generator=torch.Generator().manual_seed(3), **options)
    path = iterate(optimizer, case, params, 50)
    literal = reference.adahessian(case, of_generator(3, case), steps=50, lr=0.05, **options)
    np.testing.assert_allclose(path, literal, rtol=1e-12, atol=1e-12)


def test_one_step_solves_a_diagonal_quadratic():
    params, optimizer = start(BOWL, lr=1.0)
    assert iterate(optimizer, BOWL, params, 1).abs().max() < 1e-3


def test_the_estimator_is_a_part():
    """On a diagonal Hessian one probe is exact, so the exact diagonal gives the same path; it draws nothing."""
    params, optimizer = start(BOWL)
    path = iterate(optimizer, BOWL, params, 5)
    params, optimizer = start(BOWL, diagonal=Exact())
    before = optimizer.generator.get_state()
    torch.testing.assert_close(iterate(optimizer, BOWL, params, 5), path, rtol=1e-12, atol=1e-12)
    assert torch.equal(before, optimizer.generator.get_state())


def test_a_penalty_is_a_term_of_the_loss():
    params, optimizer = start(LOGISTIC, weight_decay=0.1, decoupled=False)
    path = iterate(optimizer, LOGISTIC, params, 5)
    params, optimizer = start(LOGISTIC)
    for theta in path:
        optimizer.zero_grad()
        optimizer.backward(LOGISTIC.loss(params) + 0.05 * sum((p**2).sum() for p in params))
        optimizer.step()
        torch.testing.assert_close(flat(params), theta, rtol=1e-12, atol=1e-12)


# What is kept: checkpoints, copies, random state, memory


@pytest.mark.parametrize("options", [{}, {"every": 3}, {"diagonal": Hutchinson(2, "gaussian")}], ids=str)
def test_a_run_resumes_bit_for_bit_from_its_state_dict(options):
    params, optimizer = start(CONV, **options)
    iterate(optimizer, CONV, params, 4)
    file = io.BytesIO()
    torch.save((params, optimizer.state_dict()), file)
    path = iterate(optimizer, CONV, params, 6)

    file.seek(0)
    params, saved = torch.load(file)
    resumed = AdaHessian(params, generator=torch.Generator().manual_seed(99), **options)
    resumed.load_state_dict(saved)
    assert torch.equal(iterate(resumed, CONV, params, 6), path)


def test_a_state_dict_without_a_generator_leaves_the_own_one():
    _, optimizer = start(BOWL)
    saved = {key: value for key, value in optimizer.state_dict().items() if key != "generator"}
    before = optimizer.generator.get_state()
    optimizer.load_state_dict(saved)
    assert torch.equal(before, optimizer.generator.get_state())


def test_a_state_dict_of_another_device_says_what_to_do():
    _, optimizer = start(BOWL)
    saved = optimizer.state_dict()
    saved["generator"]["device"] = "cuda"
    with pytest.raises(ValueError, match="generator=torch.Generator\\('cuda'\\)"):
        optimizer.load_state_dict(saved)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_go_on_alone(duplicate):
    params, optimizer = start(CONV)
    iterate(optimizer, CONV, params, 3)
    twin = duplicate(optimizer)
    assert torch.equal(iterate(optimizer, CONV, params, 3), iterate(twin, CONV, twin.param_groups[0]["params"], 3))


def test_a_copy_takes_waiting_curvature_along():
    params, optimizer = start(CONV)
    optimizer.backward(CONV.loss(params))
    twin = copy.deepcopy(optimizer)
    optimizer.step()
    twin.step()
    assert torch.equal(flat(params), flat(twin.param_groups[0]["params"]))


def test_the_global_random_state_is_untouched():
    before = torch.get_rng_state()
    params, optimizer = start(LOGISTIC)
    iterate(optimizer, LOGISTIC, params, 2)
    assert torch.equal(before, torch.get_rng_state())
    again, optimizer = start(LOGISTIC)
    assert torch.equal(iterate(optimizer, LOGISTIC, again, 2)[-1], flat(params))


def test_no_graph_outlives_its_step():
    """Everything autograd saves is boxed and counted; the cycle collector is off, so a cycle would be seen as growth."""

    class Box:
        def __init__(self, tensor):
            self.tensor = tensor

    def box(tensor):
        live.add(boxed := Box(tensor.detach()))
        return boxed

    live = weakref.WeakSet()
    params, optimizer = start(CONV, every=2)
    tensors = []
    gc.disable()
    try:
        for step in range(200):
            optimizer.zero_grad()
            with torch.autograd.graph.saved_tensors_hooks(box, lambda boxed: boxed.tensor):
                loss = CONV.loss(params)
                assert live
                optimizer.backward(loss)
            del loss
            assert not live
            assert all(p.grad.grad_fn is None and not p.grad.requires_grad for p in params)
            optimizer.step()
            if step in (10, 199):
                tensors.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))
    finally:
        gc.enable()
    assert tensors[0] == tensors[1]
    values = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    assert len(values) == 2 * len(params) and not any(v.requires_grad for v in values)


# How it is called: closures, accumulation, schedules, groups


def test_a_closure_returns_the_loss_and_does_not_differentiate_it():
    params, optimizer = start(LOGISTIC)
    path = iterate(optimizer, LOGISTIC, params, 3)
    params, optimizer = start(LOGISTIC)
    for theta in path:
        before = LOGISTIC.loss(params).item()
        loss = optimizer.step(lambda params=params: LOGISTIC.loss(params))
        assert loss.item() == before and not loss.requires_grad
        assert torch.equal(flat(params), theta)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_several_backwards_are_one_of_the_sum(set_to_none):
    """Exact for the exact diagonal; for probes the estimates, with a probe each, add up."""
    params, optimizer = start(LOGISTIC, diagonal=Exact())
    whole, summed = start(LOGISTIC, diagonal=Exact())
    for _ in range(5):
        optimizer.zero_grad(set_to_none)
        for share in (0.25, 0.75):
            optimizer.backward(share * LOGISTIC.loss(params) + share * params[0].pow(3).sum())
        optimizer.step()
        summed.zero_grad()
        summed.backward(LOGISTIC.loss(whole) + whole[0].pow(3).sum())
        summed.step()
    torch.testing.assert_close(flat(params), flat(whole), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("by", ["optimiser", "model"])
def test_a_skipped_step_leaves_no_curvature_behind(by):
    params, optimizer = start(BOWL, diagonal=Exact())
    optimizer.backward(3 * BOWL.loss(params))
    if by == "optimiser":
        optimizer.zero_grad()
    for p in params:
        p.grad = None
    optimizer.backward(BOWL.loss(params))
    optimizer.step()
    fresh, optimizer = start(BOWL, diagonal=Exact())
    assert torch.equal(flat(params), iterate(optimizer, BOWL, fresh, 1)[0])


def test_two_losses_may_share_a_graph():
    params, optimizer = start(LOGISTIC, every=2)
    for _ in ("with an estimate", "without"):
        optimizer.zero_grad()
        loss = LOGISTIC.loss(params)
        optimizer.backward(loss, retain_graph=True)
        first = [p.grad.clone() for p in params]
        optimizer.backward(loss)
        torch.testing.assert_close([p.grad for p in params], [2 * g for g in first])
        with pytest.raises(RuntimeError, match="second time"):
            optimizer.backward(loss)
        optimizer.step()


def test_gradients_do_not_share_memory():
    a, b = (torch.ones(3, requires_grad=True) for _ in range(2))
    AdaHessian([a, b]).backward((a + b).sum())
    a.grad[0] = 7
    assert b.grad.tolist() == [1, 1, 1] and a.grad.tolist() == [7, 1, 1]


def test_schedulers_set_the_rate():
    params, optimizer = start(BOWL, lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.0)
    path = []
    for _ in range(2):
        path.append(iterate(optimizer, BOWL, params, 1))
        scheduler.step()
    assert torch.equal(path[0], path[1]) and not torch.equal(path[0][0], BOWL.start)


def test_groups_have_options_of_their_own_and_may_come_later():
    params = LOGISTIC.params()
    optimizer = AdaHessian([{"params": params[:1], "lr": 0.0, "every": 2}])
    iterate(optimizer, LOGISTIC, params, 1)
    optimizer.add_param_group({"params": params[1:], "every": 3})
    weights, bias = LOGISTIC.split(iterate(optimizer, LOGISTIC, params, 4)[-1])
    assert torch.equal(weights, LOGISTIC.split(LOGISTIC.start)[0]) and not torch.equal(bias, LOGISTIC.split(LOGISTIC.start)[1])
    assert [(state["step"], state["estimates"]) for state in optimizer.state.values()] == [(5, 3), (4, 2)]


def test_a_refused_group_is_not_added():
    params = LOGISTIC.params()
    optimizer = AdaHessian(params[:1])
    with pytest.raises(ValueError, match="lr"):
        optimizer.add_param_group({"params": params[1:], "lr": -1.0})
    optimizer.add_param_group({"params": params[1:]})
    assert len(optimizer.param_groups) == 2


# Odd parameters


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_unused_and_frozen_parameters_rest(set_to_none, every):
    used, late, unused, frozen = (torch.ones(2, requires_grad=True) for _ in range(4))
    frozen.requires_grad_(False)
    frozen.grad = torch.ones(2)  # left from before it was frozen
    optimizer = AdaHessian([unused, used, frozen, late], every=every)
    for step in range(8):
        optimizer.zero_grad(set_to_none)
        optimizer.backward(((used**4).sum() + (late**4).sum()) if step in (4, 5) else (used**4).sum())
        optimizer.step()
    assert unused.tolist() == frozen.tolist() == [1, 1] and unused.grad is None
    assert unused not in optimizer.state and frozen not in optimizer.state
    assert (used < 0.9).all() and (late < 0.95).all() and optimizer.state[used]["step"] == 8
    assert optimizer.state[late]["step"] == (2 if set_to_none else 4)


def test_nothing_to_train():
    frozen, other = torch.ones(2), torch.ones(2, requires_grad=True)
    optimizer = AdaHessian([frozen])
    optimizer.backward(other.sum())
    optimizer.step()
    assert frozen.tolist() == [1, 1] and other.grad is None


def test_zero_curvature_follows_the_rule():
    slope, bowl = (torch.ones(2, requires_grad=True, dtype=torch.float64) for _ in range(2))
    optimizer = AdaHessian([slope, bowl], lr=0.5, eps=0.1)
    optimizer.backward(3 * slope.sum() + (bowl**2).sum())
    optimizer.step()
    torch.testing.assert_close(slope, torch.full_like(slope, 1 - 0.5 * 3 / 0.1))
    torch.testing.assert_close(bowl, torch.full_like(bowl, 1 - 0.5 * 2 / 2.1))


def test_tied_parameters_are_one():
    layer = torch.nn.Linear(2, 2, bias=False, dtype=torch.float64)
    model = torch.nn.Sequential(layer, torch.nn.Tanh(), layer)
    x = torch.ones(3, 2, dtype=torch.float64)
    optimizer = AdaHessian(model.parameters(), diagonal=Exact())
    optimizer.backward(model(x).square().sum())
    W = layer.weight.detach().clone()
    H = torch.autograd.functional.hessian(lambda w: (torch.tanh(x @ w.T) @ w.T).square().sum(), W).reshape(4, 4)
    g = layer.weight.grad.clone()
    optimizer.step()
    torch.testing.assert_close(layer.weight, W - 0.15 * g / (H.diag().abs().reshape(2, 2) + 1e-4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_types(dtype):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(24, 1))
    model = model.to(dtype)
    x = torch.linspace(-1, 1, 64).reshape(8, 1, 8).to(dtype)
    optimizer, losses = AdaHessian(model.parameters(), lr=0.02, averaging="absolute"), []
    for _ in range(20):
        losses.append(optimizer.step(lambda: (model(x) - 1).square().mean()).item())
    assert losses[-1] < losses[0] / 2
    assert all(v.dtype == dtype for state in optimizer.state.values() for k, v in state.items() if k.startswith("exp"))


# What is refused


NAN, INF = math.nan, math.inf
REFUSED = {
    "lr": [-1.0, NAN, INF, "0.1"],
    "betas": [(1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, NAN), (0.9,), 0.9],
    "eps": [-1e-8, NAN, INF],
    "weight_decay": [-1.0, NAN, INF],
    "hessian_power": [-0.1, 1.1, NAN],
    "block_size": [0, -1, 1.5, NAN],
    "every": [0, -1, 1.5, NAN],
    "averaging": ["mean", None],
    "decoupled": ["no", None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_options_are_checked(name, value):
    params = [torch.ones(2, requires_grad=True)]
    with pytest.raises(ValueError, match=f"^{name} must be .*, got "):
        AdaHessian(params, **{name: value})
    with pytest.raises(ValueError, match=f"^{name} must be .*, got "):
        AdaHessian([{"params": params, name: value}])


def test_blocks_must_divide():
    with pytest.raises(ValueError, match=r"block_size 3 does not divide the 4 entries of a parameter of shape \(2, 2\)"):
        AdaHessian([torch.ones(2, 2, requires_grad=True)], block_size=3)
    AdaHessian([torch.ones(2, 2, 2, requires_grad=True)], block_size=3)  # a kernel is averaged whole


def test_a_loss_without_a_graph_is_refused():
    optimizer = AdaHessian([torch.ones(2, requires_grad=True)])
    for loss in (torch.ones(()), 1.0, None):
        with pytest.raises(RuntimeError, match="the loss has no graph"):
            optimizer.backward(loss)
        with pytest.raises(RuntimeError, match="no curvature for this step" if loss is None else "the loss has no graph"):
            optimizer.step(lambda loss=loss: loss)


def test_a_step_needs_a_backward():
    params, optimizer = start(LOGISTIC, every=2)

    def refused():
        with pytest.raises(RuntimeError, match="no curvature for this step"):
            optimizer.step()
        return flat(params)

    assert torch.equal(refused(), LOGISTIC.start)
    LOGISTIC.loss(params).backward()
    assert torch.equal(refused(), LOGISTIC.start)
    after = iterate(optimizer, LOGISTIC, params, 1)[0]
    assert torch.equal(refused(), after)  # also where no estimate is due
    optimizer.zero_grad()
    optimizer.backward(LOGISTIC.loss(params))
    optimizer.zero_grad()
    assert torch.equal(refused(), after)


def test_a_gradient_that_backward_did_not_see_is_refused():
    params, optimizer = start(LOGISTIC)
    optimizer.backward(params[0].square().sum())
    params[1].grad = torch.ones_like(params[1])
    with pytest.raises(RuntimeError, match="no curvature for this step"):
        optimizer.step()
    assert torch.equal(flat(params), LOGISTIC.start)


def test_sparse_and_complex_gradients_are_refused():
    table = torch.nn.Embedding(4, 2, sparse=True)
    with pytest.raises(RuntimeError, match="dense real gradients, got torch.sparse_coo"):
        AdaHessian(table.parameters()).backward(table(torch.tensor([1])).square().sum())
    z = torch.ones(2, dtype=torch.complex64, requires_grad=True)
    with pytest.raises(RuntimeError, match="dense real gradients, got .* of type torch.complex64"):
        AdaHessian([z]).backward(z.abs().square().sum())
    assert table.weight.grad is None and z.grad is None
