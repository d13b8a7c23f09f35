"""Eigenvalues, density and trace from products alone, against dense matrices, in float64."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from cases import CASES
from torch import Tensor

from secondlook.curvature import spectrum
from secondlook.curvature.hutchinson import Hutchinson
from secondlook.curvature.products import GraphHessian
from secondlook.curvature.spectrum import (
    condition_number,
    eigenpairs,
    lanczos,
    spectral_density,
    trace,
)
from secondlook.curvature.vectors import flat


@dataclass
class Known:
    """A matrix in full, as an operator on two tensors; counts its products."""

    M: Tensor
    count: int = 0

    @property
    def params(self):
        return [self.M.new_empty(2), self.M.new_empty(len(self.M) - 2)]

    def kept(self):
        return self

    def products(self, vectors):
        for v in vectors:
            self.count += 1
            yield v, list((self.M @ torch.cat(v)).split([2, len(self.M) - 2]))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def symmetric(eigenvalues, seed=0):
    """A matrix with these eigenvalues and random eigenvectors."""
    n = len(eigenvalues)
    Q = torch.linalg.qr(torch.randn(n, n, generator=seeded(seed), dtype=torch.float64)).Q
    return Q @ torch.as_tensor(eigenvalues, dtype=torch.float64).diag() @ Q.T


LONG = [-8.0, *torch.linspace(-1, 1, 56).tolist(), 5.0, 6.0, 9.0]
REPEATED = [4.0, 4.0, 4.0, 2.0, 2.0, -1.0, 0.0, 0.0]


@pytest.mark.parametrize("which", spectrum.ENDS)
@pytest.mark.parametrize(("eigenvalues", "count"), [(LONG, 1), (LONG, 3), (REPEATED, 1)], ids=["long", "three", "repeated"])
def test_eigenpairs_are_those_of_the_dense_matrix(which, eigenvalues, count):
    M = symmetric(eigenvalues)
    key = {"largest": lambda x: -x, "smallest": lambda x: x, "magnitude": lambda x: -abs(x)}[which]
    wanted = sorted(eigenvalues, key=key)[:count]
    found, vectors = eigenpairs(Known(M), count=count, which=which, tolerance=1e-9, generator=seeded(1))
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(vectors @ M, found[:, None] * vectors, rtol=0, atol=1e-7)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(count, dtype=torch.float64), rtol=0, atol=1e-10)


def test_the_ends_of_a_spectrum_need_few_products():
    H = Known(symmetric(LONG))
    eigenpairs(H, count=2, generator=seeded())
    assert H.count <= 30 < len(LONG)


def test_all_of_a_spectrum_with_its_multiplicities_comes_out_in_the_end():
    found, _ = eigenpairs(Known(symmetric(REPEATED)), count=len(REPEATED), generator=seeded())
    torch.testing.assert_close(found, torch.tensor(sorted(REPEATED, reverse=True)).double(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", [case for case in CASES if len(case.start) > 2], ids=str)
def test_eigenvalues_of_a_loss(case):
    params = case.params()
    H = GraphHessian(case.gradients(params), params, retain_graph=True)
    dense = torch.autograd.functional.hessian(lambda t: case.loss(case.split(t)), case.start)
    eigenvalues = torch.linalg.eigvalsh(dense)
    for which, end in (("largest", -1), ("smallest", 0)):
        found, _ = eigenpairs(H, which=which, generator=seeded())
        assert found.item() == pytest.approx(eigenvalues[end].item(), rel=1e-8, abs=1e-10)


def test_lanczos_is_a_factorisation():
    M = symmetric(LONG)
    start = torch.ones(len(M), dtype=torch.float64)
    for m, T in zip(range(1, 21), lanczos(Known(M), start), strict=False):
        identity = torch.eye(m, dtype=torch.float64)
        torch.testing.assert_close(T.Q @ T.Q.T, identity, rtol=0, atol=1e-13)
        tridiagonal = T.diagonal.diag() + T.beside[:-1].diag(1) + T.beside[:-1].diag(-1)
        torch.testing.assert_close(T.Q @ M @ T.Q.T, tridiagonal, rtol=0, atol=1e-12)
        mu, S, residuals = T.ritz()
        vectors = S.T @ T.Q
        torch.testing.assert_close((vectors @ M - mu[:, None] * vectors).norm(dim=1), residuals, rtol=0, atol=1e-11)


@pytest.mark.parametrize("condition", [1.5, 1e3, 1e8])
def test_condition_number(condition):
    M = symmetric(torch.logspace(0, math.log10(condition), 12, dtype=torch.float64))
    assert condition_number(Known(M), generator=seeded()) == pytest.approx(condition, rel=1e-6)


@pytest.mark.parametrize("lowest", [-1e-3, 0.0])
def test_what_is_not_positive_definite_has_no_condition_number_here(lowest):
    with pytest.raises(ValueError, match="a condition number needs a positive definite matrix"):
        condition_number(Known(symmetric([lowest, 1.0, 2.0])), generator=seeded())


def every_sign(n):
    return [torch.tensor(z, dtype=torch.float64) for z in itertools.product((-1.0, 1.0), repeat=n)]


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_moments_of_the_density_over_all_probes(steps, monkeypatch):
    """Right in expectation below 2 x steps, by Gauss quadrature; and not at 2 x steps, so that the test can fail."""
    M = symmetric([-2.0, -1.0, 0.5, 1.0, 2.0, 3.0])
    probes = iter(every_sign(6))
    monkeypatch.setattr(Hutchinson, "probe", lambda self, params, generator: list(next(probes).split([2, 4])))
    density = spectral_density(Known(M), steps=steps, probes=2**6)
    assert density.weights.sum(1).allclose(torch.ones(2**6, dtype=torch.float64))
    for p in range(2 * steps):
        assert density.moment(p) == pytest.approx(M.matrix_power(p).trace().item() / 6, rel=1e-10, abs=1e-10)
    if steps < 6:
        assert abs(density.moment(2 * steps) / (M.matrix_power(2 * steps).trace().item() / 6) - 1) > 1e-4


def test_density_integrates_to_one_and_finds_the_gap():
    density = spectral_density(Known(symmetric([0.0] * 30 + [10.0] * 10)), steps=5, probes=20, generator=seeded())
    x = torch.linspace(-5, 15, 2001, dtype=torch.float64)
    y = density.at(x, 0.5)
    assert torch.trapezoid(y, x).item() == pytest.approx(1, abs=1e-6)
    assert y[(x - 5).abs() < 1].max() < 1e-6
    assert torch.trapezoid(y[x < 5], x[x < 5]).item() == pytest.approx(0.75, abs=0.05)


def test_traces_over_all_probes_are_exact(monkeypatch):
    M = symmetric([-2.0, -1.0, 0.5, 3.0])
    probes = iter(every_sign(4))
    monkeypatch.setattr(Hutchinson, "probe", lambda self, params, generator: list(next(probes).split([2, 2])))
    assert sum(flat(Hutchinson(16)(Known(M), None))).item() == pytest.approx(0.5, abs=1e-12)
    pairs = itertools.product(every_sign(4), repeat=2)  # one probe for Q, one for the rest
    drawn = itertools.chain.from_iterable(pairs)
    monkeypatch.setattr(Hutchinson, "probe", lambda self, params, generator: list(next(drawn).split([2, 2])))
    assert sum(trace(Known(M), products=3) for _ in range(256)) / 256 == pytest.approx(0.5, abs=1e-12)


def test_variance_of_the_trace_follows_its_law():
    """The variance of 4,000 estimates within 5 standard errors of it: a false alarm in 1e6 seeds, by the normal approximation."""
    M, generator = symmetric([-2.0, -1.0, 0.5, 3.0, 4.0]), seeded()
    away = torch.tensor([flat(Hutchinson(2)(Known(M), generator)).sum() for _ in range(4000)]) - M.trace()
    law = (2 * (M**2).sum() - 2 * (M.diagonal() ** 2).sum()) / 2
    error = (away**2).std() / 4000**0.5
    assert abs((away**2).mean() - law) <= 5 * error and error < law / 10


@pytest.mark.parametrize("products", [9, 11])
def test_the_trace_is_exact_at_low_rank_and_keeps_its_budget(products):
    H = Known(symmetric([5.0, -3.0, 1.0, *[0.0] * 20]))
    assert trace(H, products=products, generator=seeded()) == pytest.approx(3, abs=1e-12)
    assert H.count == 9


def test_random_numbers_come_from_the_generator_alone():
    H, state = Known(symmetric(LONG)), torch.get_rng_state()
    for estimate in (
        lambda g: trace(H, products=9, generator=g),
        lambda g: spectral_density(H, steps=4, probes=2, generator=g).moment(5),
        lambda g: eigenpairs(H, generator=g)[1].tolist(),
    ):
        assert estimate(seeded(3)) == estimate(seeded(3))
    assert torch.equal(state, torch.get_rng_state())


def test_single_precision_stays_single():
    H = Known(symmetric(LONG).float())
    found, vectors = eigenpairs(H, count=2, tolerance=1e-3, generator=seeded())
    assert (
        found.dtype == vectors.dtype == spectral_density(H, steps=3, probes=2, generator=seeded()).nodes.dtype == torch.float32
    )
    assert found.tolist() == pytest.approx([9, 6], rel=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda H: eigenpairs(H, which="top"), ValueError, "which must be one of largest, smallest, magnitude, got 'top'"),
        (lambda H: eigenpairs(H, count=0), ValueError, "count must be an integer from 1 to 60, got 0"),
        (lambda H: eigenpairs(H, count=61), ValueError, "count must be an integer from 1 to 60, got 61"),
        (lambda H: eigenpairs(H, count=3, most_products=4), RuntimeError, "3 eigenpairs did not converge in 4 products"),
        (lambda H: spectral_density(H, steps=0), ValueError, "steps must be a positive integer, got 0"),
        (lambda H: trace(H, products=2), ValueError, "products must be an integer of at least 3, got 2"),
    ],
)
def test_arguments_are_checked(call, error, message):
    with pytest.raises(error, match=message):
        call(Known(symmetric(LONG)))
