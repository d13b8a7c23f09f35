"""Newton's method: steps against dense algebra, the trust-region subproblem against brute force, blocks against the Hessian."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import reference
import torch
from cases import CASES, CONV, LOGISTIC, QUADRATIC

from secondlook.curvature.blocks import BlockHessian, neurons, tensors, whole
from secondlook.curvature.trust_region import steihaug, trust_region_step
from secondlook.optim import Absolute, Damped, Eigen, LevenbergMarquardt, Newton, Plain, Steihaug, TrustRegion

DOUBLE = torch.float64


def flat(params):
    return torch.cat([p.detach().reshape(-1) for p in params])


def numbers(*values):
    return torch.tensor(values, dtype=DOUBLE)


def quadratic(eigenvalues, start):
    """A parameter at `start`, and the loss whose Hessian has these eigenvalues, in a rotated basis."""
    n = len(eigenvalues)
    Q = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(n), dtype=DOUBLE)).Q
    H = Q @ torch.diag(numbers(*eigenvalues)) @ Q.T
    theta = (Q @ numbers(*start)).requires_grad_()
    return theta, lambda: theta @ H @ theta / 2, Q, H


def iterate(optimizer, closure, steps):
    return [optimizer.step(closure).item() for _ in range(steps)]


# Directions


ALL = [
    Plain(),
    Damped(1e-12),
    LevenbergMarquardt(damping=1e-12),
    Absolute(),
    TrustRegion(radius=100.0),
    TrustRegion(radius=100.0, subproblem=Steihaug(1e-12)),
]


@pytest.mark.parametrize("direction", ALL, ids=str)
def test_one_step_solves_a_quadratic(direction):
    theta, closure, _, _ = quadratic((0.5, 1, 3, 10), (1, -2, 1, 0.5))
    iterate(Newton([theta], direction=direction), closure, 1)
    assert theta.abs().max() < 1e-9


@pytest.mark.parametrize("case", [QUADRATIC, LOGISTIC, CONV], ids=str)
@pytest.mark.parametrize(
    ("direction", "formula"),
    [
        (Damped(2.0), lambda g, H: -np.linalg.solve(H + 2.0 * np.eye(len(g)), g)),
        (Absolute(0.1), lambda g, H: -(q := np.linalg.eigh(H))[1] @ (q[1].T @ g / np.maximum(abs(q[0]), 0.1))),
    ],
    ids=["damped", "absolute"],
)
def test_a_step_is_that_of_the_dense_formula(case, direction, formula):
    params = case.params()
    Newton(params, lr=0.5, direction=direction).step(lambda: case.loss(params))
    theta = case.start.numpy()
    p = formula(reference.gradient(case, theta), reference.hessian(case, theta))
    np.testing.assert_allclose(flat(params).numpy(), theta + 0.5 * p, rtol=1e-9, atol=1e-11)


def test_plain_newton_goes_to_the_saddle():
    theta, closure, _, _ = quadratic((-1, 2), (1, 1))
    Newton([theta]).step(closure)
    assert theta.abs().max() < 1e-12


def test_a_hessian_that_is_refused_names_the_remedy():
    for eigenvalues, direction, message in [
        ((0, 1), Plain(), r"singular: use Damped\(...\), Absolute\(\) or TrustRegion\(\)"),
        ((-1, 2), Plain(definite=True), "not positive definite: use Absolute"),
        ((-1, 2), Damped(0.5), "with damping 0.5 is not positive definite: raise it"),
    ]:
        theta, closure, _, _ = quadratic(eigenvalues, (1, 1))
        before = theta.detach().clone()
        with pytest.raises(RuntimeError, match=message):
            Newton([theta], direction=direction).step(closure)
        assert torch.equal(theta, before)


@pytest.mark.parametrize("direction", [Damped(1e-6), Absolute(1e-6), LevenbergMarquardt(), TrustRegion()], ids=str)
def test_a_singular_hessian_leaves_its_null_space_alone(direction):
    theta, closure, Q, _ = quadratic((0, 1, 4), (1, 1, 1))
    iterate(Newton([theta], direction=direction), lambda: 1 + closure(), 20)
    torch.testing.assert_close(Q.T @ theta.detach(), numbers(1, 0, 0), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "direction", [Absolute(), TrustRegion(), TrustRegion(subproblem=Steihaug()), LevenbergMarquardt()], ids=str
)
def test_an_indefinite_hessian_is_descended(direction):
    theta, closure, Q, _ = quadratic((-1, 2), (0.1, 1))
    losses = iterate(Newton([theta], direction=direction), closure, 12)
    assert losses[-1] < -0.01 and (Q.T @ theta.detach())[0] > 0.2
    assert losses == sorted(losses, reverse=True)


def test_only_the_exact_subproblem_leaves_a_saddle():
    for direction, leaves in [(TrustRegion(), True), (TrustRegion(subproblem=Steihaug()), False), (Absolute(), False)]:
        theta, closure, Q, _ = quadratic((-1, 2), (0, 0))
        Newton([theta], direction=direction).step(closure)
        torch.testing.assert_close((Q.T @ theta.detach()).abs(), numbers(float(leaves), 0), atol=1e-12, rtol=0)


# The trust region


def model(g, H, p):
    return g @ p + p @ H @ p / 2


def of_dimension(n, hard=False):
    for seed in range(6):
        generator = torch.Generator().manual_seed(100 * n + seed)
        g, M = torch.randn(n, generator=generator, dtype=DOUBLE), torch.randn(n, n, generator=generator, dtype=DOUBLE)
        eigenvalues, Q = torch.linalg.eigh(M + M.T)
        if hard:  # g has no part along the lowest eigenvector, or along two lowest ones, or next to none
            eigenvalues = eigenvalues - eigenvalues[0] - 1
            gamma = Q.T @ g
            gamma[0] = (0, 1e-18, 1e-9)[seed % 3]
            if n > 2 and seed % 2:
                eigenvalues[1], gamma[1] = eigenvalues[0], gamma[0]
            g = Q @ gamma
        yield g, Q @ torch.diag(eigenvalues) @ Q.T, (0.1, 1.0, 10.0)[seed % 3 if not hard else seed // 2]


def ball(n, radius):
    """Points of the ball: its surface by angles, and shells within."""
    angles = [np.linspace(0, math.pi, 19)] * (n - 2) + [np.linspace(0, 2 * math.pi, 73)]
    points = []
    for phi in itertools.product(*angles):
        sines = np.cumprod([1.0, *np.sin(phi)])
        points.append([s * c for s, c in zip(sines, [*np.cos(phi), 1.0], strict=True)])
    surface = torch.tensor(np.array(points), dtype=DOUBLE)
    return torch.cat([radius * share * surface for share in np.linspace(0.02, 1, 50 if n < 4 else 10)])


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_subproblem_is_solved(n, hard):
    for g, H, radius in of_dimension(n, hard):
        p = trust_region_step(g, H, radius)
        assert p.norm() <= radius * (1 + 1e-9)
        best = torch.einsum("bi,i->b", P := ball(n, radius), g) + torch.einsum("bi,ij,bj->b", P, H, P) / 2
        value = model(g, H, p).item()
        scale = abs(value) + 1e-12
        assert value <= best.min().item() + 1e-9 * scale
        mu = (-(p @ (H @ p + g)) / (p @ p)).item()  # Nocedal and Wright, theorem 4.1
        lowest = torch.linalg.eigvalsh(H)[0].item()
        size = H.norm().item() + g.norm().item()
        assert mu >= -1e-9 * size and lowest + mu >= -1e-8 * size
        assert (H @ p + mu * p + g).norm() <= 1e-8 * size * max(1, radius)
        assert abs(mu) * (radius - p.norm()) <= 1e-7 * size


@pytest.mark.parametrize("n", [2, 3, 4, 8])
def test_truncated_conjugate_gradients_stay_between_cauchy_and_exact(n):
    for g, H, radius in of_dimension(n):
        p = steihaug(g, lambda v, H=H: H @ v, radius, 1e-10)
        curvature = (g @ H @ g).item()
        along = min(radius / g.norm().item(), (g @ g).item() / curvature if curvature > 0 else math.inf)
        assert p.norm() <= radius * (1 + 1e-12)
        assert model(g, H, trust_region_step(g, H, radius)) - 1e-9 <= model(g, H, p) <= model(g, H, -along * g) + 1e-12


def test_conjugate_gradients_find_the_newton_step():
    H, g = QUADRATIC.H + torch.eye(6), QUADRATIC.start
    p = steihaug(g, lambda v: H @ v, 1e6, 1e-14)
    torch.testing.assert_close(p, -torch.linalg.solve(H, g), rtol=1e-10, atol=1e-10)


def test_conjugate_gradients_never_form_the_hessian():
    params = LOGISTIC.params()
    optimizer = Newton(params, direction=TrustRegion(subproblem=Steihaug(max_products=3)))
    optimizer.step(lambda: LOGISTIC.loss(params))
    assert optimizer.state[params[0]]["products"] <= 4  # one more for the ratio
    optimizer = Newton(params, direction=TrustRegion())
    optimizer.step(lambda: LOGISTIC.loss(params))
    assert optimizer.state[params[0]]["products"] == 16


@pytest.mark.parametrize("subproblem", [Eigen(), Steihaug()], ids=str)
def test_a_trust_region_never_goes_up(subproblem):
    for case in CASES:
        params = case.params()
        losses = iterate(Newton(params, direction=TrustRegion(subproblem=subproblem)), lambda c=case, p=params: c.loss(p), 15)
        assert all(after <= before + 1e-14 for before, after in itertools.pairwise(losses)), case


def test_a_refused_step_is_undone_bit_for_bit_and_the_radius_shrinks():
    theta = numbers(0.3).requires_grad_()
    optimizer = Newton([theta], direction=TrustRegion(radius=8.0))

    def closure():  # the model promises a fall of 8 g, the loss has a wall at 1
        return (-theta + 100 * torch.relu(theta - 1) ** 2).sum()

    before = theta.detach().clone()
    optimizer.step(closure)
    state = optimizer.state[theta]
    assert torch.equal(theta, before) and not state["accepted"] and state["ratio"] < 0 and state["size"] == 2.0


@pytest.mark.parametrize("start", [LevenbergMarquardt(damping=1.0), TrustRegion(radius=1.0)], ids=str)
def test_a_loss_that_is_not_finite_is_refused(start):
    theta = numbers(0.5).requires_grad_()
    optimizer = Newton([theta], lr=4.0, direction=start)
    optimizer.step(lambda: (theta.log() + theta**2).sum())  # steps to a negative theta, where the loss is NaN
    assert theta.item() == 0.5 and optimizer.state[theta]["ratio"] == -math.inf


def test_a_rate_at_which_the_model_rises_is_refused():
    theta, closure, _, _ = quadratic((1, 1), (1, 1))
    before = theta.detach().clone()
    optimizer = Newton([theta], lr=4.0, direction=TrustRegion(radius=8.0))
    optimizer.step(closure)
    assert torch.equal(theta, before) and optimizer.state[theta]["size"] == 2.0


def test_the_radius_follows_the_ratio():
    resize = TrustRegion(max_radius=3.0).resize
    assert [resize(1.0, ratio, 1.0) for ratio in (0.2, 0.5, 0.9)] == [0.25, 1.0, 2.0]
    assert resize(1.0, 0.9, 0.5) == 1.0 and resize(2.0, 0.9, 2.0) == 3.0
    damping = LevenbergMarquardt(least=1e-2).resize
    assert [damping(0.05, ratio, 1.0) for ratio in (0.2, 0.5, 0.9)] == [0.5, 0.05, 1e-2]


# Blocks


def hessian(case, blocks):
    params = case.params()
    return BlockHessian(case.gradients(params), params, blocks(params))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("blocks", [whole, tensors, neurons, lambda params: neurons(params, bias=False)])
def test_blocks_are_those_of_the_dense_hessian(case, blocks):
    dense = torch.from_numpy(reference.hessian(case, case.start.numpy()))
    for entries, H in hessian(case, blocks).groups:
        for rows, block in zip(entries, H, strict=True):
            torch.testing.assert_close(block, dense[rows][:, rows], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("formed", [False, True])
def test_the_product_is_the_dense_one(formed):
    dense, v = torch.from_numpy(reference.hessian(CONV, CONV.start.numpy())), torch.arange(22, dtype=DOUBLE)
    H = hessian(CONV, whole)
    assert not formed or H.groups
    torch.testing.assert_close(H @ v, dense @ v, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        hessian(CONV, tensors) @ v, torch.block_diag(dense[:16, :16], dense[16:18, 16:18], dense[18:, 18:]) @ v
    )


def test_a_neuron_is_a_row_with_its_bias():
    weight, bias, scale = torch.zeros(2, 3), torch.zeros(2), torch.zeros(2)
    assert neurons([weight, bias, scale]) == [[0, 1, 2, 6], [3, 4, 5, 7], [8], [9]]
    assert neurons([weight, bias], bias=False) == [[0, 1, 2], [3, 4, 5], [6], [7]]
    assert neurons([bias, weight]) == [[0], [1], [2, 3, 4], [5, 6, 7]]


@pytest.mark.parametrize("direction", [Plain(), Damped(0.1), Absolute(), TrustRegion(0.5), LevenbergMarquardt()], ids=str)
def test_blocks_are_all_of_newton_where_the_hessian_has_no_others(direction):
    x, y = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE), torch.ones(20, 2, dtype=DOUBLE)
    paths = []
    for blocks in (None, neurons):  # under a loss that is a sum over outputs, neurons of one layer do not interact
        W, b = torch.ones(2, 3, dtype=DOUBLE, requires_grad=True), torch.zeros(2, dtype=DOUBLE, requires_grad=True)
        optimizer = Newton([W, b], direction=direction, blocks=blocks)
        iterate(optimizer, lambda W=W, b=b: ((torch.sinh(0.5 * (x @ W.T + b)) - y) ** 2).mean() + (W**2).sum(), 3)
        paths.append(flat([W, b]))
    torch.testing.assert_close(*paths, rtol=1e-9, atol=1e-9)


def test_blocks_must_hold_every_entry_once():
    params = LOGISTIC.params()
    with pytest.raises(ValueError, match="blocks must hold every entry"):
        Newton(params, blocks=lambda params: [[0, 1], [1, 2]]).step(lambda: LOGISTIC.loss(params))


# As an optimiser


@pytest.mark.parametrize(
    "direction", [Damped(1.0), LevenbergMarquardt(), TrustRegion(0.1), TrustRegion(0.1, subproblem=Steihaug())], ids=str
)
def test_a_run_resumes_bit_for_bit(direction):
    params = LOGISTIC.params()
    optimizer = Newton(params, direction=direction)
    iterate(optimizer, lambda: LOGISTIC.loss(params), 3)
    saved, copied, (same, pickled) = (
        optimizer.state_dict(),
        copy.deepcopy((params, optimizer)),
        pickle.loads(pickle.dumps((params, optimizer))),
    )
    others = [p.detach().clone().requires_grad_() for p in params]
    resumed = Newton(others, direction=direction)
    resumed.load_state_dict(copy.deepcopy(saved))
    iterate(optimizer, lambda: LOGISTIC.loss(params), 3)
    for theta, again in [(others, resumed), copied, (same, pickled)]:
        iterate(again, lambda theta=theta: LOGISTIC.loss(theta), 3)
        assert torch.equal(flat(theta), flat(params))


def test_frozen_and_unused_parameters_rest():
    used, unused, frozen = (torch.ones(2, dtype=DOUBLE, requires_grad=True) for _ in range(3))
    frozen.requires_grad_(False)
    loss = Newton([unused, used, frozen]).step(lambda: ((used - frozen / 2) ** 2).sum())
    assert used.tolist() == [0.5, 0.5] and unused.tolist() == frozen.tolist() == [1, 1]
    assert loss.item() == 0.5 and not loss.requires_grad and used.grad is None


def test_what_is_refused():
    params = [torch.ones(2, requires_grad=True)]
    for name, make in {
        "lr": lambda: Newton(params, lr=-1.0),
        "direction": lambda: Newton(params, direction="plain"),
        "blocks": lambda: Newton(params, blocks="neurons"),
        "params": lambda: Newton([{"params": params}, {"params": [torch.ones(1)]}]),
        "damping": lambda: Damped(-1.0),
        "factor": lambda: LevenbergMarquardt(factor=1.0),
        "floor": lambda: Absolute(0.0),
        "radius": lambda: TrustRegion(math.nan),
        "accept": lambda: TrustRegion(accept=0.25),
        "tolerance": lambda: Steihaug(1.0),
        "max_products": lambda: Steihaug(max_products=0),
    }.items():
        with pytest.raises(ValueError, match=f"^{name} must be "):
            make()
    with pytest.raises(RuntimeError, match="the loss has no graph"):
        Newton(params).step(lambda: torch.ones(()))
