"""All optimisers in one table, and what each must do; beside them torch's Adam, so that the tests are known to be fair."""

import copy
import inspect
import io
import itertools
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import reference
import torch
from cases import BOWL, CONV, LOGISTIC, QUADRATIC
from torch.nn import functional

import secondlook.optim
from secondlook.curvature import Averaged, Exact, GaussNewtonBartlett, Hutchinson, Objective, PerExample
from secondlook.curvature.source import GraphLogits
from secondlook.optim import OASIS, AdaBelief, AdaHessian, Sophia
from secondlook.optim.base import Checked, SecondOrder

NAN, INF = math.nan, math.inf
RATE = {"lr": [-1.0, NAN, INF, "0.1"]}
COMMON = RATE | {"weight_decay": [-1.0, NAN, INF]}
BETAS = {"betas": [(1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, NAN), (0.9,), 0.9]}
COUNTS = [0, -1, 1.5, NAN]
FLAGS = ["no", None, 1]


@dataclass(frozen=True)
class Entry:
    """An optimiser with options, the rate that suits LOGISTIC, and the values that it must refuse."""

    make: Callable
    lr: float
    options: dict = field(default_factory=dict)
    refused: dict = field(default_factory=dict)  # for options of a group
    refused_once: dict = field(default_factory=dict)  # for arguments that no group can have

    def __call__(self, params, **more):
        return self.make(params, **{"lr": self.lr, **self.options, **more})


TABLE = {
    "torch's Adam": Entry(torch.optim.Adam, 0.05),
    "AdaBelief": Entry(AdaBelief, 0.05, {}, COMMON | BETAS | {"eps": [-1e-8, NAN, INF], "decoupled": FLAGS, "rectify": FLAGS}),
    "AdaBelief, rectified": Entry(AdaBelief, 0.05, {"rectify": True}),
    "AdaHessian": Entry(
        AdaHessian,
        0.02,
        {},
        COMMON
        | BETAS
        | {"eps": [-1e-8, NAN, INF], "decoupled": FLAGS, "averaging": ["mean", None], "hessian_power": [-0.1, 1.1, NAN]}
        | {"block_size": COUNTS, "every": COUNTS},
    ),
    "OASIS": Entry(
        OASIS,
        0.1,
        {"alpha": 0.01},
        COMMON | {"beta2": [1.0, -0.1, NAN, None], "alpha": [0.0, -1.0, NAN, INF], "every": COUNTS},
        {"warmup": COUNTS, "adaptive": FLAGS},
    ),
    "OASIS, adaptive": Entry(OASIS, 0.01, {"alpha": 0.01, "adaptive": True}),
    "Sophia-H": Entry(
        Sophia,
        0.02,
        {"every": 3},
        COMMON
        | BETAS
        | {"eps": [0.0, -1e-8, NAN, INF], "gamma": [-1.0, NAN, INF], "rho": [0.0, -1.0, NAN, INF], "every": COUNTS},
    ),
    "Sophia-G": Entry(Sophia, 0.02, {"every": 3, "gamma": 0.05, "diagonal": GaussNewtonBartlett()}),
}
OURS = {name: entry for name, entry in TABLE.items() if entry.make is not torch.optim.Adam}
SCHEDULED = {name: entry for name, entry in TABLE.items() if not entry.options.get("adaptive")}  # rates that are given
FROM_LOSS = {name: entry for name, entry in TABLE.items() if not isinstance(entry.options.get("diagonal"), GaussNewtonBartlett)}
SECOND = {name: entry for name, entry in OURS.items() if issubclass(entry.make, SecondOrder)}


def each(table):
    return pytest.mark.parametrize("entry", [pytest.param(entry, id=name) for name, entry in table.items()])


X, Y = torch.linspace(-2, 2, 36, dtype=torch.float64).sin().reshape(12, 3), torch.arange(12) % 4


def logits(params):
    weight, bias = params  # (4, 3), (4,)
    return X.to(weight.dtype) @ weight.T + bias


def differentiate(optimizer, params):
    """One gradient, and curvature where it is wanted, of the cross entropy of `logits`; returns the loss."""
    out = logits(params)
    loss = functional.cross_entropy(out, Y)
    optimizer.differentiate(loss, out) if isinstance(optimizer, Checked) else loss.backward()
    return loss.item()


def train(optimizer, params, steps):
    """Parameters after every step (steps, n)."""
    path = []
    for _ in range(steps):
        optimizer.zero_grad()
        differentiate(optimizer, params)
        optimizer.step()
        path.append(flat(params))
    return torch.stack(path)


def flat(params):
    return torch.cat([p.detach().reshape(-1) for p in params])


def of(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def test_the_table_is_complete():
    """Newton and K-FAC are not called as the others are, with parameters and a loss: test_newton.py and test_kfac.py."""
    public = {name for name in secondlook.optim.__all__ if isinstance(getattr(secondlook.optim, name), type)}
    optimisers = {name for name in public if issubclass(getattr(secondlook.optim, name), torch.optim.Optimizer)}
    assert {entry.make.__name__ for entry in OURS.values()} | {"Newton", "KFAC"} == optimisers


# What every optimiser does


@each(FROM_LOSS)
@pytest.mark.parametrize("case", [BOWL, QUADRATIC], ids=str)
def test_a_quadratic_decreases(entry, case):
    params = case.params()
    optimizer = entry(params)
    for _ in range(200):
        optimizer.zero_grad()
        loss = case.loss(params)
        loss.backward() if not isinstance(optimizer, SecondOrder) else optimizer.backward(loss)
        optimizer.step()
    assert case.loss(params) < 0.1 * case.loss(case.split(case.start))


@each(TABLE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_types(entry, dtype):
    params = [p.detach().to(dtype).requires_grad_() for p in LOGISTIC.params()]
    optimizer = entry(params)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        losses.append(differentiate(optimizer, params))
        optimizer.step()
    assert losses[-1] < 0.95 * losses[0]
    kept = [v for state in optimizer.state.values() for k, v in state.items() if k != "step" and isinstance(v, torch.Tensor)]
    assert all(p.dtype == dtype for p in params) and kept and all(v.dtype == dtype for v in kept)


@each(TABLE)
@pytest.mark.parametrize("before", [1, 4])
def test_a_run_resumes_bit_for_bit_from_its_state_dict(entry, before):
    params = LOGISTIC.params()
    optimizer = entry(params)
    train(optimizer, params, before)
    file = io.BytesIO()
    torch.save((params, optimizer.state_dict()), file)
    path = train(optimizer, params, 6)

    file.seek(0)
    params, saved = torch.load(file)
    own = {"generator": torch.Generator().manual_seed(99)} if issubclass(entry.make, SecondOrder) else {}
    resumed = entry(params, **{**own, "lr": 7.0})
    resumed.load_state_dict(saved)
    assert torch.equal(train(resumed, params, 6), path)


@each(TABLE)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_go_on_alone(entry, duplicate):
    params = LOGISTIC.params()
    optimizer = entry(params)
    train(optimizer, params, 3)
    twin = duplicate(optimizer)
    assert torch.equal(train(optimizer, params, 4), train(twin, of(twin), 4))


@each(TABLE)
def test_a_run_is_deterministic_and_leaves_the_global_random_state(entry):
    before = torch.get_rng_state()
    paths = []
    for _ in range(2):
        params = LOGISTIC.params()
        paths.append(train(entry(params), params, 4))
    assert torch.equal(*paths) and torch.equal(before, torch.get_rng_state())


@each(SCHEDULED)
def test_groups_have_rates_of_their_own_and_may_come_later(entry):
    weight, bias = params = LOGISTIC.params()
    optimizer = entry([{"params": [weight], "lr": 0.0}])
    train(optimizer, params, 2)
    optimizer.add_param_group({"params": [bias]})
    path = train(optimizer, params, 3)
    assert torch.equal(path[-1][:12], LOGISTIC.start[:12])
    assert not torch.isclose(path[-1][12:], LOGISTIC.start[12:]).any()
    steps = [int(optimizer.state[p]["step"]) for p in params]
    assert steps == [5, 3]


@each(TABLE)
def test_parameters_without_gradient_rest(entry):
    params, unused = LOGISTIC.params(), torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = entry([unused, *params])
    path = train(optimizer, params, 3)
    assert unused.tolist() == [1, 1] and unused.grad is None and unused not in optimizer.state
    alone = LOGISTIC.params()
    assert torch.equal(train(entry(alone), alone, 3), path)


@each(TABLE)
def test_the_order_of_groups_does_not_matter(entry):
    """But for random numbers, which the exact diagonal does not need."""
    exact = {"diagonal": Exact()} if issubclass(entry.make, SecondOrder) else {}
    if isinstance(entry.options.get("diagonal"), GaussNewtonBartlett):
        exact = {}  # labels are drawn for all parameters at once
    paths = []
    for order in ([0, 1], [1, 0]):
        params = LOGISTIC.params()
        paths.append(train(entry([{"params": [params[i]]} for i in order], **exact), params, 5))
    torch.testing.assert_close(*paths, rtol=1e-12, atol=1e-12)


@each(SCHEDULED)
def test_schedulers_set_the_rate(entry):
    params = LOGISTIC.params()
    optimizer = entry(params)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.0)
    path = []
    for _ in range(2):
        path.append(train(optimizer, params, 1)[0])
        scheduler.step()
    assert torch.equal(*path) and not torch.equal(path[0], LOGISTIC.start)


@each(TABLE)
def test_no_graph_is_left(entry):
    params = LOGISTIC.params()
    optimizer = entry(params)
    train(optimizer, params, 2)
    kept = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    assert not any(t.requires_grad or t.grad_fn for t in [*(p.grad for p in params), *kept])


@each(TABLE)
def test_the_decay_shrinks(entry):
    params, decayed = LOGISTIC.params(), LOGISTIC.params()
    train(entry(params), params, 30)
    train(entry(decayed, weight_decay=0.3), decayed, 30)
    assert flat(decayed).norm() < 0.95 * flat(params).norm()


REFUSED = [
    pytest.param(entry, name, value, where, id=f"{label}-{name}-{value}-{where}")
    for label, entry in OURS.items()
    for where, refused in (("group", entry.refused), ("all", entry.refused | entry.refused_once))
    for name, values in refused.items()
    for value in values
]


@pytest.mark.parametrize(("entry", "name", "value", "where"), REFUSED)
def test_options_are_checked(entry, name, value, where):
    params = LOGISTIC.params()
    with pytest.raises(ValueError, match=f"^{name} must be .*, got "):
        entry([{"params": params, name: value}]) if where == "group" else entry(params, **{name: value})


@each({name: entry for name, entry in OURS.items() if entry.refused})
def test_every_option_has_a_refused_value(entry):
    named = set(inspect.signature(entry.make).parameters) - {"params", "diagonal", "generator"}
    assert named == set(entry.refused | entry.refused_once)


@each(OURS)
def test_a_refused_group_is_not_added(entry):
    weight, bias = LOGISTIC.params()
    optimizer = entry([weight])
    with pytest.raises(ValueError, match="lr"):
        optimizer.add_param_group({"params": [bias], "lr": -1.0})
    optimizer.add_param_group({"params": [bias]})
    assert len(optimizer.param_groups) == 2


@each({name: entry for name, entry in FROM_LOSS.items() if name in OURS})
def test_sparse_and_complex_gradients_are_refused(entry):
    table = torch.nn.Embedding(4, 2, sparse=True)
    z = torch.ones(2, dtype=torch.complex64, requires_grad=True)
    for params, loss in [(list(table.parameters()), table(torch.tensor([1])).square().sum()), ([z], z.abs().square().sum())]:
        before = params[0].detach().clone()
        optimizer = entry(params)
        with pytest.raises(RuntimeError, match=f"{entry.make.__name__} needs dense real gradients, got "):
            optimizer.backward(loss) if isinstance(optimizer, SecondOrder) else loss.backward()
            optimizer.step()
        assert torch.equal(params[0], before)


@each(FROM_LOSS)
def test_a_closure_returns_the_loss(entry):
    params, called = LOGISTIC.params(), LOGISTIC.params()
    path = train(entry(params), params, 3)
    optimizer = entry(called)

    def closure():
        loss = functional.cross_entropy(logits(called), Y)
        if not isinstance(optimizer, SecondOrder):
            optimizer.zero_grad()
            loss.backward()
        return loss

    for theta in path:
        before = functional.cross_entropy(logits(called), Y).item()
        assert optimizer.step(closure).item() == before
        assert torch.equal(flat(called), theta)


# What those of second order do


@each(SECOND)
def test_a_step_needs_a_backward(entry):
    params = LOGISTIC.params()
    optimizer = entry(params)
    functional.cross_entropy(logits(params), Y).backward()
    with pytest.raises(RuntimeError, match="no curvature for this step"):
        optimizer.step()
    assert torch.equal(flat(params), LOGISTIC.start) and not optimizer.state


@each(SECOND)
def test_estimates_come_when_they_are_due(entry):
    params = LOGISTIC.params()
    optimizer = entry(params, every=3)
    train(optimizer, params, 7)
    assert [(s["step"], s["estimates"]) for s in optimizer.state.values()] == [(7, 3)] * 2


@each(SECOND)
def test_a_graph_can_be_kept(entry):
    params = LOGISTIC.params()
    optimizer = entry(params)
    out = logits(params)
    loss = functional.cross_entropy(out, Y)
    more = {"curvature_of": out} if isinstance(optimizer.diagonal, GaussNewtonBartlett) else {}
    optimizer.backward(loss, retain_graph=True, **more)
    optimizer.backward(loss, **more)
    with pytest.raises(RuntimeError, match="second time"):
        optimizer.backward(loss, **more)


@pytest.mark.parametrize("make", [AdaHessian, OASIS, Sophia])
def test_each_estimator_fits_each_optimiser(make):
    for diagonal in (Hutchinson(2), Exact(), GaussNewtonBartlett(), Averaged(GaussNewtonBartlett(), 2)):
        params = LOGISTIC.params()
        optimizer = make(params, 0.02, diagonal=diagonal)
        train(optimizer, params, 30)
        assert functional.cross_entropy(logits(params), Y) < 0.95 * functional.cross_entropy(logits(LOGISTIC.params()), Y)


def test_each_estimator_says_what_it_is_estimated_from():
    params = LOGISTIC.params()
    out = logits(params)
    loss = functional.cross_entropy(out, Y)
    sampled, probed = Sophia(params, diagonal=GaussNewtonBartlett()), Sophia(params)
    with pytest.raises(RuntimeError, match=r"needs the model's logits: call optimizer.backward\(loss, curvature_of=logits\)"):
        sampled.backward(loss)
    with pytest.raises(RuntimeError, match=r"Hutchinson needs the curvature of a loss, one number, got shape \(12, 4\)"):
        probed.backward(loss, curvature_of=out)
    with pytest.raises(
        RuntimeError, match=r"^PerExample needs an objective: call optimizer.backward\(loss, curvature_of=Objective"
    ):
        Sophia(params, diagonal=PerExample()).backward(loss)
    with pytest.raises(ValueError, match="^diagonal must be an estimator of the diagonal, such as Hutchinson"):
        Sophia(params, diagonal=Hutchinson)
    with pytest.raises(RuntimeError, match="curvature_of has no graph"):
        sampled.backward(loss, curvature_of=out.detach())


@pytest.mark.parametrize("every", [1, 2])
def test_curvature_may_come_from_part_of_the_batch_or_from_an_objective(every):
    """Both give what the exact diagonal of that part gives; the gradient stays that of the whole loss."""

    def part_loss(params, x, y):
        return functional.cross_entropy(x @ params[0].T + params[1], y)

    ends = []
    for source in ("part", "objective"):
        params = LOGISTIC.params()
        optimizer = AdaHessian(params, diagonal=Exact(), every=every)
        for _ in range(4):
            part = part_loss(params, X[:5], Y[:5]) if source == "part" else Objective(part_loss, params, (X[:5], Y[:5]))
            optimizer.zero_grad()
            loss = functional.cross_entropy(logits(params), Y)
            optimizer.backward(loss, curvature_of=part)
            whole = torch.autograd.grad(functional.cross_entropy(logits(params), Y), params)
            assert all(torch.equal(p.grad, g) for p, g in zip(params, whole, strict=True))
            optimizer.step()
        ends.append(torch.cat([p.detach().reshape(-1) for p in params]))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)
    other = LOGISTIC.params()
    optimizer = AdaHessian(other, diagonal=Exact(), every=every)
    for _ in range(4):
        optimizer.zero_grad()
        optimizer.backward(functional.cross_entropy(logits(other), Y))
        optimizer.step()
    assert (torch.cat([p.detach().reshape(-1) for p in other]) - ends[0]).abs().max() > 1e-3  # the part does matter


# Against the papers' equations written out


def probes(seed, case):
    generator, params = torch.Generator().manual_seed(seed), case.params()
    while True:
        yield flat(Hutchinson().probe(params, generator)).numpy()


def follow(optimizer, case, params, steps=50):
    path = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = case.loss(params)
        optimizer.backward(loss) if isinstance(optimizer, SecondOrder) else loss.backward()
        optimizer.step()
        path.append(flat(params))
    return torch.stack(path)


def literal(options):
    cases = (QUADRATIC, LOGISTIC, CONV)
    return pytest.mark.parametrize(("case", "options"), list(itertools.product(cases, options)), ids=str)


@literal(
    [
        {},
        {"rectify": True},
        {"weight_decay": 0.1},
        {"weight_decay": 0.1, "decoupled": False, "betas": (0.8, 0.99), "eps": 1e-4},
        {"rectify": True, "betas": (0.8, 0.5)},
    ]
)
def test_adabelief_is_its_equations(case, options):
    params = case.params()
    path = follow(AdaBelief(params, lr=0.05, **options), case, params)
    np.testing.assert_allclose(path, reference.adabelief(case, steps=50, lr=0.05, **options), rtol=1e-12, atol=1e-12)


@literal([{}, {"warmup": 1, "beta2": 0.9}, {"every": 3, "weight_decay": 0.1}, {"alpha": 0.5}])
@pytest.mark.parametrize("adaptive", [False, True])
def test_oasis_is_its_equations(case, options, adaptive):
    params, options = case.params(), {"alpha": 0.1, **options, "adaptive": adaptive}
    path = follow(OASIS(params, lr=0.05, generator=torch.Generator().manual_seed(3), **options), case, params)
    expected = reference.oasis(case, probes(3, case), steps=50, lr=0.05, **options)
    exact = 30 if adaptive else 50  # the adaptive rate, a quotient of differences, lets rounding grow
    np.testing.assert_allclose(path[:exact], expected[:exact], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(path, expected, rtol=1e-9, atol=1e-9)


@literal([{}, {"every": 3, "weight_decay": 0.1}, {"gamma": 1.0, "rho": 0.04, "eps": 1e-3, "betas": (0.9, 0.8), "every": 1}])
def test_sophia_h_is_its_equations(case, options):
    def estimates():
        for z in probes(3, case):
            yield lambda theta, z=z: z * (reference.hessian(case, theta) @ z)

    params = case.params()
    path = follow(Sophia(params, lr=0.02, generator=torch.Generator().manual_seed(3), **options), case, params)
    expected = reference.sophia(case, estimates(), steps=50, lr=0.02, **options)
    np.testing.assert_allclose(path, expected, rtol=1e-12, atol=1e-12)


def test_sophia_g_is_its_equations():
    def estimates():
        generator = torch.Generator().manual_seed(3)

        def estimate(theta):
            weight, bias = (p.requires_grad_() for p in LOGISTIC.split(torch.from_numpy(theta.copy())))
            out = logits([weight, bias])
            labels = torch.multinomial(out.detach().softmax(1, dtype=torch.float32), 1, generator=generator)[:, 0]
            g = (
                sum(
                    flat(torch.autograd.grad(functional.cross_entropy(o, y), [weight, bias], retain_graph=True))
                    for o, y in zip(out, labels, strict=True)
                )
                / 12
            )
            return (12 * g * g).numpy()

        while True:
            yield estimate

    params = LOGISTIC.params()
    options = {"gamma": 0.5, "every": 2}
    optimizer = Sophia(params, 0.02, diagonal=GaussNewtonBartlett(), generator=torch.Generator().manual_seed(3), **options)
    case = type(LOGISTIC)("sines", LOGISTIC.shapes, LOGISTIC.start, lambda p: functional.cross_entropy(logits(p), Y))
    expected = reference.sophia(case, estimates(), steps=50, lr=0.02, **options)
    np.testing.assert_allclose(train(optimizer, params, 50), expected, rtol=1e-12, atol=1e-12)


# Each its own


def test_adabelief_without_deviation_takes_large_steps():
    """A constant slope: g - m falls to nothing, and the step is far above lr, where Adam's is lr."""
    theta = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = AdaBelief([theta], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        theta.sum().backward()
        before = theta.item()
        optimizer.step()
    assert before - theta.item() > 0.2


def test_the_eps_of_adabelief_bounds_its_denominator():
    """A zero gradient leaves eps (1 - beta2^t) / (1 - beta2) in s."""
    theta = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = AdaBelief([theta], eps=1e-8)
    for _ in range(5):
        optimizer.zero_grad()
        (0 * theta).sum().backward()
        optimizer.step()
    (state,) = optimizer.state.values()
    torch.testing.assert_close(state["exp_avg_var"].item(), 1e-8 * (1 - 0.999**5) / (1 - 0.999), rtol=1e-12, atol=0)


def test_oasis_steps_to_the_minimum_of_a_bowl():
    params = BOWL.params()
    assert follow(OASIS(params, lr=1.0), BOWL, params, 1).abs().max() < 1e-15


def test_an_adaptive_rate_finds_a_bowls_own_from_any_start():
    """In the metric of H the curvature is 1 everywhere, so eta settles at 1/2, from a start a million times too small."""
    params = BOWL.params()
    optimizer = OASIS(params, lr=1e-6, adaptive=True)
    follow(optimizer, BOWL, params, 60)
    torch.testing.assert_close(optimizer.param_groups[0]["lr"], 0.5, rtol=1e-6, atol=0)
    assert BOWL.loss(params) < 1e-15


def test_an_adaptive_rate_rests_where_nothing_changes():
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = OASIS([theta], lr=0.3, adaptive=True)
    for _ in range(3):
        optimizer.step(lambda: (theta**2).sum())
    assert optimizer.param_groups[0]["lr"] == 0.3 and theta.tolist() == [0, 0]


def test_the_warm_up_is_a_mean_of_estimates():
    params = QUADRATIC.params()
    optimizer = OASIS(params, warmup=7, generator=torch.Generator().manual_seed(3))
    follow(optimizer, QUADRATIC, params, 1)
    z = np.stack(list(itertools.islice(probes(3, QUADRATIC), 7)))
    D = (z * (z @ QUADRATIC.H.numpy())).mean(0)
    np.testing.assert_allclose(flat([optimizer.state[p]["exp_hessian_diag"] for p in params]), D, rtol=1e-12)


@pytest.mark.parametrize("gamma", [0.01, 1.0])
def test_no_entry_moves_further_than_sophias_clip(gamma):
    params = CONV.params()
    optimizer = Sophia(params, lr=0.1, gamma=gamma, rho=0.5, every=2)
    path = torch.cat([CONV.start[None], follow(optimizer, CONV, params, 20)])
    moves = path.diff(dim=0).abs()
    assert moves.max() <= 0.05 * (1 + 1e-12) and torch.isclose(moves, torch.tensor(0.05).double()).any()


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
def test_one_draw_serves_parameters_of_several_types(distribution):
    params = [torch.zeros(3, 5), torch.zeros((), dtype=torch.float64), torch.zeros(70, dtype=torch.bfloat16)]
    z = Hutchinson(1, distribution).probe(params, torch.Generator().manual_seed(0))
    assert [(part.shape, part.dtype) for part in z] == [(p.shape, p.dtype) for p in params]
    drawn = torch.cat([part.double().reshape(-1) for part in z])
    assert (drawn.unique().tolist() == [-1, 1]) == (distribution == "rademacher") and drawn.all()


def test_gauss_newton_bartlett_is_unbiased():
    """Over all labels of three rows, weighted by their probability, its mean is the diagonal of the Gauss-Newton matrix."""
    x = X[:3]
    params = LOGISTIC.params()

    def out(theta):
        weight, bias = LOGISTIC.split(theta)
        return torch.tanh(x @ weight.T + bias)  # (3, 4)

    theta = LOGISTIC.start
    J = torch.autograd.functional.jacobian(out, theta)  # (3, 4, n)
    p = out(theta).softmax(1)
    S = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    expected = torch.einsum("bin,bij,bjn->n", J, S, J) / 3

    mean = torch.zeros_like(theta)
    with pytest.MonkeyPatch.context() as patch:
        for labels in itertools.product(range(4), repeat=3):
            labels = torch.tensor(labels)
            patch.setattr("secondlook.curvature.gauss_newton.drawn_labels", lambda *_, labels=labels: labels)
            z = torch.tanh(x @ params[0].T + params[1])
            mean += p.gather(1, labels[:, None]).prod() * flat(GaussNewtonBartlett()(GraphLogits(z, params), None))
    torch.testing.assert_close(mean, expected, rtol=1e-12, atol=1e-14)


def test_gauss_newton_bartlett_draws_from_the_softmax():
    """40,000 rows of one distribution: the gradient by a bias is p minus the share of its label, at 5 standard errors."""
    bias = torch.tensor([0.0, 1.0, -1.0], requires_grad=True)
    rows = bias.expand(200, 200, 3)  # any number of dimensions before the classes
    (h,) = GaussNewtonBartlett()(GraphLogits(rows, [bias]), torch.Generator().manual_seed(0))
    p = bias.detach().softmax(0)
    assert (h <= 25 * p * (1 - p)).all() and (h > 0).all()
