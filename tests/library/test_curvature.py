"""Products and diagonal estimators against the dense Hessian: exactly, over all probes, and in distribution."""

import itertools

import pytest
import torch
from cases import CASES, CONV, LOGISTIC, QUADRATIC
from reference import averaged, blocks, hessian

from secondlook.curvature import Exact, Hutchinson
from secondlook.curvature.averaging import spatial_average
from secondlook.curvature.products import GraphHessian, hvp

every_case = pytest.mark.parametrize("case", CASES, ids=str)


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def dense(case):
    return torch.from_numpy(hessian(case, case.start.numpy()))


def signs(case):
    """All 2^n vectors of signs, shaped as the parameters."""
    return [case.split(torch.tensor(z).double()) for z in itertools.product((-1.0, 1.0), repeat=len(case.start))]


@every_case
def test_product_is_that_of_the_dense_hessian(case):
    params = case.params()
    v = torch.randn(len(case.start), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    product = hvp(case.gradients(params), params, case.split(v))
    assert [p.shape for p in product] == [p.shape for p in params]
    assert not any(p.requires_grad for p in product)
    torch.testing.assert_close(flat(product), dense(case) @ v, rtol=1e-12, atol=1e-12)


def test_dense_hessian_of_a_quadratic_is_known():
    torch.testing.assert_close(dense(QUADRATIC), QUADRATIC.H, rtol=1e-12, atol=1e-12)


def test_product_is_zero_where_the_gradient_does_not_depend_on_the_parameter():
    x, y, unused = (torch.full((2,), 3.0, requires_grad=True) for _ in range(3))
    loss = (x**3).sum() + 5 * y.sum()
    gradients = [*torch.autograd.grad(loss, [x, y], create_graph=True), torch.zeros(2)]
    product = hvp(gradients, [x, y, unused], [torch.ones(2)] * 3, retain_graph=True)
    assert [p.tolist() for p in product] == [[18.0, 18.0], [0.0, 0.0], [0.0, 0.0]]
    assert hvp(gradients[1:], [y, unused], [torch.ones(2)] * 2)[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("diagonal", [Hutchinson(), Hutchinson(3), Exact()], ids=str)
def test_the_graph_is_kept_only_as_asked(diagonal):
    params = LOGISTIC.params()
    gradients = LOGISTIC.gradients(params)
    diagonal(GraphHessian(gradients, params, retain_graph=True), torch.Generator())
    diagonal(GraphHessian(gradients, params), torch.Generator())
    with pytest.raises(RuntimeError, match="second time"):
        diagonal(GraphHessian(gradients, params), torch.Generator())


@every_case
def test_exact_diagonal(case):
    params = case.params()
    torch.testing.assert_close(
        flat(Exact()(GraphHessian(case.gradients(params), params))), dense(case).diag(), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("case", [case for case in CASES if len(case.start) <= 10], ids=str)
def test_mean_over_all_probes_is_the_exact_diagonal(case, monkeypatch):
    probes = signs(case)
    every = Hutchinson(len(probes))
    monkeypatch.setattr(Hutchinson, "probe", lambda self, params, generator: probes.pop())
    params = case.params()
    D = every(GraphHessian(case.gradients(params), params), None)
    assert not probes
    torch.testing.assert_close(flat(D), dense(case).diag(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("probes", [1, 3])
@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
def test_mean_and_variance_follow_the_closed_form(distribution, probes):
    """24 means and 24 variances within 5.5 standard errors: a false alarm in 5e5 seeds, by the normal approximation."""
    draws, params, diagonal = 2500, QUADRATIC.params(), Hutchinson(probes, distribution)
    gradients, generator = QUADRATIC.gradients(params), torch.Generator().manual_seed(0)
    D = torch.stack([flat(diagonal(GraphHessian(gradients, params, retain_graph=True), generator)) for _ in range(draws)])
    H = QUADRATIC.H
    law = ((H**2).sum(1) + (1 if distribution == "gaussian" else -1) * H.diag() ** 2) / probes
    away = D - H.diag()
    assert (away.mean(0).abs() <= 5.5 * (law / draws).sqrt()).all()
    error = (away**2).std(0) / draws**0.5
    assert ((away**2).mean(0) - law).abs().le(5.5 * error).all()
    assert (error < law / 10).all()  # so the bound can fail: the two laws differ by more


def test_some_of_the_parameters_give_their_part_of_the_diagonal():
    params = LOGISTIC.params()
    D = Exact()(GraphHessian(LOGISTIC.gradients(params)[1:], params[1:]))
    torch.testing.assert_close(flat(D), dense(LOGISTIC).diag()[12:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_probes_come_from_the_generator_alone(dtype):
    before = torch.get_rng_state()
    shapes = [torch.zeros(1000, dtype=dtype), torch.zeros((), dtype=dtype)]
    first, again = (Hutchinson().probe(shapes, torch.Generator().manual_seed(1)) for _ in range(2))
    assert all(torch.equal(a, b) and a.dtype == dtype for a, b in zip(first, again, strict=True))
    assert first[0].unique().tolist() == [-1.0, 1.0] and first[1].shape == ()
    assert Hutchinson(distribution="gaussian").probe(shapes, torch.Generator())[0].unique().numel() > 2
    assert torch.equal(before, torch.get_rng_state())


def test_signs_of_one_probe_are_fair_and_uncorrelated():
    """E[z] = 0 and E[z z^T] = I over the 64 signs of a random word, at 6 standard errors: a false alarm in 2e5 seeds."""
    (z,) = Hutchinson().probe([torch.zeros(4096 * 64 - 7)], torch.Generator().manual_seed(0))
    z = z[: 4095 * 64].reshape(-1, 64)
    assert z.mean(0).abs().max() < 6 / len(z) ** 0.5
    assert (z.T @ z / len(z) - torch.eye(64)).abs().max() < 6 / len(z) ** 0.5


@pytest.mark.parametrize("averaging", ["signed", "absolute"])
@pytest.mark.parametrize("case", [CONV, QUADRATIC], ids=str)
def test_spatial_average(case, averaging):
    D = case.start
    fast = flat([spatial_average(d, 2, averaging) for d in case.split(D)])
    torch.testing.assert_close(fast, torch.from_numpy(averaged(D.numpy(), blocks(case, 2), averaging)), rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probes": 0}, "probes must be a positive integer, got 0"),
        ({"probes": 1.5}, "probes must be a positive integer, got 1.5"),
        ({"distribution": "normal"}, "distribution must be one of rademacher, gaussian, got 'normal'"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        Hutchinson(**arguments)
