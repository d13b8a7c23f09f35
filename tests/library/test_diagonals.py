"""Estimators of the Hessian's diagonal: exact means over all probes, laws of variance, exact cases, costs, refusals; float64.

Statistical tests: means and variances within 5.5 standard errors, a false alarm in 2.6e7 for every number by the normal
approximation, and at most 60 numbers a test. Seeds are fixed.
"""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from secondlook.curvature import (
    Averaged,
    Bekas,
    Composed,
    Cost,
    DiagPlusPlus,
    Exact,
    FiniteDifferences,
    GaussNewtonBartlett,
    GaussNewtonDiagonal,
    Hutchinson,
    LayerWise,
    MeanSquare,
    Objective,
    PerExample,
    Preactivations,
    XDiag,
    estimate,
    hessian_diagonal,
    of_module,
)
from secondlook.curvature.averaging import spatial_average
from secondlook.curvature.dense import matrix
from secondlook.curvature.gauss_newton import drawn_labels
from secondlook.curvature.gauss_newton_product import GaussNewton
from secondlook.curvature.products import GraphHessian
from secondlook.optim import AdaHessian

CLOSE = {"rtol": 1e-10, "atol": 1e-12}
SPLITS = (4, 2, 1)  # unequal batches


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


class Sequence(nn.Module):
    """A linear layer at every position, which attention mixes."""

    def __init__(self):
        super().__init__()
        self.mix, self.head = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)

    def forward(self, x):
        h = torch.tanh(self.mix(x))  # (N, T, 2)
        return self.head(torch.softmax(h @ h.mT, dim=2) @ h).sum(1)


MODELS = {  # module, shape of an example, dimensions: every kind of layer that Preactivations knows
    "tiny": (lambda: nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 2)), (1,)),
    "dense": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False)), (3,)),
    "relu": (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (3,)),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(2, 2, 2, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(4, 2)), (2, 4)),
    "conv2d": (
        lambda: nn.Sequential(nn.Conv2d(2, 2, 2, padding=1, groups=2), nn.Sigmoid(), nn.Flatten(), nn.Linear(18, 2)),
        (2, 2, 2),
    ),
    "sequence": (Sequence, (3, 2)),
}
CRITERIA = {
    "softmax": functional.cross_entropy,
    "square": lambda f, y, reduction: functional.mse_loss(f, torch.eye(2).double()[y], reduction=reduction),
}
every_model = pytest.mark.parametrize("model", MODELS)
every_loss = pytest.mark.parametrize(("criterion", "reduction"), list(itertools.product(CRITERIA, ("mean", "sum"))))


def objective(model="dense", criterion="softmax", reduction="mean", splits=SPLITS, **options):
    make, shape = MODELS[model]
    module = make().double()
    params = list(module.requires_grad_(False).parameters())
    for i, p in enumerate(params):
        p.copy_(normal(*p.shape, seed=i) / 2)
    x, y = normal(sum(splits), *shape, seed=9), torch.arange(sum(splits)) % 2
    loss = of_module(module, lambda f, y: CRITERIA[criterion](f, y, reduction=reduction))
    return Objective(loss, params, list(zip(x.split(splits), y.split(splits), strict=True)), reduction=reduction, **options)


class Matrix:
    """The operator that is this matrix, on two tensors."""

    def __init__(self, M):
        self.M, self.params = M, list(torch.zeros(len(M), dtype=M.dtype).split([len(M) // 2, len(M) - len(M) // 2]))

    def products(self, vectors):
        for v in vectors:
            yield v, list((self.M @ flat(v)).split([len(p) for p in self.params]))

    def kept(self):
        return self


def symmetric(n, rank=None, seed=0):
    A, signs = normal(n, rank or n, seed=seed), 1 - 2.0 * (torch.arange(rank or n) % 3 == 0)
    return (A * signs) @ A.T / (rank or n)


def drawn(monkeypatch, sequence):
    """Probes of signs are the next of `sequence`, flat; afterwards none may be left."""
    left = [list(z) for z in sequence]

    def probe(self, params, generator):
        z = torch.tensor(left.pop(0), dtype=torch.float64).split([p.numel() for p in params])
        return [part.view(p.shape) for part, p in zip(z, params, strict=True)]

    monkeypatch.setattr(Hutchinson, "probe", probe)
    return left


def all_signs(n):
    return list(itertools.product((-1.0, 1.0), repeat=n))


# --- mean over all probes


@pytest.mark.parametrize(("method", "rank"), [(XDiag(4), 1), (XDiag(4), 6), (XDiag(5), 2)], ids=str)
def test_xdiag_has_the_diagonal_as_mean(method, rank, monkeypatch):
    """Over all pairs of 32 signs, equal ones too; z and -z make the same."""
    H = symmetric(6, rank)
    choices = list(itertools.product(all_signs(6)[:32], repeat=2))
    left = drawn(monkeypatch, [z for choice in choices for z in choice])
    mean = sum(flat(method(Matrix(H), None)) for _ in choices) / len(choices)
    assert not left
    torch.testing.assert_close(mean, H.diag(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rank", [1, 7])
@pytest.mark.parametrize("method", [DiagPlusPlus(3), DiagPlusPlus(6)], ids=str)
def test_diag_plus_plus_has_the_diagonal_as_mean(method, rank, monkeypatch):
    """For any Q; D is a mean over the other probes, which may all be the same."""
    H, s = symmetric(7, rank), method.budget // 3
    sketches = [all_signs(7)[first : first + s] for first in (0, 21, 62)]
    left = drawn(monkeypatch, [z for sketch in sketches for u in all_signs(7) for z in (*sketch, *[u] * s)])
    mean = sum(flat(method(Matrix(H), None)) for _ in range(3 * 128)) / (3 * 128)
    assert not left
    torch.testing.assert_close(mean, H.diag(), rtol=1e-9, atol=1e-9)


def test_layer_wise_has_the_diagonal_as_mean(monkeypatch):
    H = symmetric(6)
    choices = list(itertools.product(all_signs(3), repeat=2))
    left = drawn(monkeypatch, [z for choice in choices for z in choice])
    mean = sum(flat(LayerWise()(Matrix(H), None)) for _ in choices) / len(choices)
    assert not left
    torch.testing.assert_close(mean, H.diag(), **CLOSE)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_per_example_has_the_diagonal_as_mean(mode, reduction, monkeypatch):
    """10 parameters and all 1,024 signs: as many copies of each example, with one of the signs each."""
    L = objective("tiny", "softmax", reduction, splits=(2, 1), mode=mode)
    probes = torch.tensor(all_signs(10))  # (1024, 10)
    copies = [(x.repeat(len(probes), *[1] * (x.dim() - 1)), y.repeat(len(probes))) for x, y in L.batches]
    parts = [probes.repeat_interleave(len(y), 0).split([p.numel() for p in L.params], 1) for _, y in L.batches]
    left = drawn(monkeypatch, [torch.cat([part.reshape(-1) for part in each]).tolist() for each in parts])
    many = Objective(L.loss_fn, L.params, copies, reduction=reduction, mode=mode)
    D = flat(PerExample(chunk_size=4096)(many, None))
    assert not left
    torch.testing.assert_close(D if reduction == "mean" else D / len(probes), flat(Exact()(L)), **CLOSE)


@every_model
@every_loss
def test_preactivations_are_exact_from_enough_probes(model, criterion, reduction):
    L = objective(model, criterion, reduction, chunk_size=5)
    D = Preactivations(10**6)(L, seeded())
    assert [d.shape for d in D] == [p.shape for p in L.params]
    torch.testing.assert_close(flat(D), flat(Exact()(L)), **CLOSE)


def test_preactivations_have_the_diagonal_as_mean(monkeypatch):
    """One example of a model with 4 sums, all 16 signs; the row of Hadamard's matrix, the same each time, permutes them."""
    L = objective("tiny", splits=(1,))
    left = drawn(monkeypatch, all_signs(4))
    mean = sum(flat(Preactivations()(L, seeded())) for _ in range(16)) / 16
    assert not left
    torch.testing.assert_close(mean, flat(Exact()(L)), **CLOSE)


def test_preactivations_do_not_depend_on_the_chunks():
    one, many = (Preactivations(7)(objective("conv2d", chunk_size=size), seeded(1)) for size in (1, 3))
    torch.testing.assert_close(flat(one), flat(many), **CLOSE)


# --- laws of variance


def assert_law(method, L, law, draws=300, spread=8):
    """Mean and variance (n,) of D; `spread`: the largest ratio of the law to the error that a variance may have."""
    generator = seeded(5)
    away = torch.stack([flat(method(L, generator)) for _ in range(draws)]) - flat(Exact()(L))
    assert (away.mean(0).abs() <= 5.5 * (law / draws).sqrt() + 1e-12).all()
    error = (away**2).std(0) / draws**0.5
    assert ((away**2).mean(0) - law).abs().le(5.5 * error + 1e-12).all()
    assert (error <= law / spread + 1e-12).all()  # so the bound can fail


def off_diagonal_squares(H):
    return (H**2).sum(1) - H.diag() ** 2


def of_each(L):
    return [matrix(Objective(L.loss_fn, L.params, (x[i : i + 1], y[i : i + 1]))) for x, y in L.batches for i in range(len(x))]


def test_bekas_law():
    H = symmetric(6)
    assert_law(Bekas(8), Matrix(H), off_diagonal_squares(H) / 6)


def test_layer_wise_law():
    H = symmetric(6)
    law = torch.cat([off_diagonal_squares(H[:3, :3]), off_diagonal_squares(H[3:, 3:])])
    assert_law(LayerWise(Hutchinson(2)), Matrix(H), law / 2)


def test_per_example_law():
    L = objective("tiny", splits=(2, 1))
    law = sum(off_diagonal_squares(H / 3) for H in of_each(L))
    assert_law(PerExample(), L, law)


def test_groups_law():
    """Two groups of a batch of 3, and of a batch of 1."""
    L = objective("tiny", splits=(3, 1))
    parts = [(x[s], y[s]) for (x, y), ends in zip(L.batches, ((2, 3), (1,)), strict=True) for s in slices(ends)]
    law = sum(off_diagonal_squares(matrix(Objective(L.loss_fn, L.params, part)) * len(part[0]) / 4) for part in parts)
    assert_law(PerExample(groups=2), L, law)


def slices(ends):
    return [slice(first, last) for first, last in itertools.pairwise((0, *ends))]


@pytest.mark.parametrize("probes", [1, 3])
def test_preactivations_law(probes):
    """A layer of 3 outputs under a softmax: S = (diag(p) - p p^T) / N, m = 4."""
    x, y, W = normal(5, 2, seed=1), torch.arange(5) % 3, normal(3, 2, seed=2)
    L = Objective(Composed(lambda theta, x: functional.linear(x, theta[0]), functional.cross_entropy), [W], (x, y))
    p = torch.softmax(x @ W.T, 1)
    S2 = torch.stack([off_diagonal_squares((q.diag() - torch.outer(q, q)) / 5) for q in p])  # (5, 3)
    law = (4 - probes) / (probes * 3) * (S2.T @ x**4)
    assert_law(Preactivations(probes), L, law.reshape(-1))


def test_gauss_newton_draws_law():
    L = objective("relu", "square", splits=(7,))
    x = torch.cat([x for x, _ in L.batches])
    J = torch.autograd.functional.jacobian(lambda *t: L.loss_fn.model(list(t), x), tuple(L.params))
    P2 = torch.cat([part.flatten(2) for part in J], 2) ** 2 / len(x)  # (N, C, n); H_b = I / N
    law = 2 * (P2.sum(1) ** 2 - (P2**2).sum(1)).sum(0)
    assert_law(GaussNewtonDiagonal(1), L, law)


def test_mean_square_tends_to_the_row_norm():
    """D^2 is unbiased for the row's squared norm, with the variance stated; the diagonal is far off."""
    H, draws = symmetric(6), 1000
    rows, fourth = (H**2).sum(1), (H**4).sum(1)
    for beta2, factor in ((None, 1 / 4), (0.5, (0.5 / 1.5) * (1 + 0.5**4) / (1 - 0.5**4))):
        generator = seeded(1)
        squares = torch.stack([flat(MeanSquare(4, beta2)(Matrix(H), generator)) ** 2 for _ in range(draws)])
        law = (2 * rows**2 - 2 * fourth) * factor
        assert ((squares.mean(0) - rows).abs() <= 5.5 * (law / draws).sqrt()).all()
        error = ((squares - rows) ** 2).std(0) / draws**0.5
        assert (((squares - rows) ** 2).mean(0) - law).abs().le(5.5 * error).all()
    many = flat(MeanSquare(2000)(Matrix(H), seeded()))
    assert ((many - rows.sqrt()).abs() < 0.1 * rows.sqrt()).all()
    assert (many - H.diag().abs()).norm() > 0.5 * H.diag().norm()


# --- exact cases


@pytest.mark.parametrize("method", [XDiag(6), XDiag(100), DiagPlusPlus(6)], ids=str)
def test_low_rank_methods_are_exact_at_full_budget(method):
    H = symmetric(6)
    torch.testing.assert_close(flat(method(Matrix(H), None)), H.diag(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("method", "rank"), [(XDiag(8), 3), (DiagPlusPlus(9), 3), (DiagPlusPlus(12), 3)], ids=str)
def test_low_rank_methods_are_exact_for_a_low_rank(method, rank):
    H = symmetric(30, rank)
    torch.testing.assert_close(flat(method(Matrix(H), seeded())), H.diag(), rtol=1e-8, atol=1e-8)
    full = flat(method(Matrix(symmetric(30)), seeded()))
    assert (full - symmetric(30).diag()).norm() > 0.05  # and not otherwise


def test_no_curvature_at_all_is_found():
    for method in (XDiag(6), DiagPlusPlus(6)):
        assert flat(method(Matrix(torch.zeros(9, 9).double()), seeded())).tolist() == [0.0] * 9


def test_averaged_is_the_mean_of_blocks():
    H = symmetric(8)
    for averaging in ("signed", "absolute"):
        D = Averaged(Exact(), 2, averaging)(Matrix(H), None)
        torch.testing.assert_close(flat(D), spatial_average(H.diag(), 2, averaging), **CLOSE)


@every_model
@every_loss
def test_gauss_newton_diagonal(model, criterion, reduction):
    L = objective(model, criterion, reduction)
    expected = matrix(GaussNewton(L)).diag()
    torch.testing.assert_close(flat(GaussNewtonDiagonal(chunk_size=3)(L)), expected, **CLOSE)
    if model == "relu":
        torch.testing.assert_close(expected, flat(Exact()(L)), **CLOSE)
    elif model == "dense":
        assert (expected - flat(Exact()(L))).norm() > 0.01 * expected.norm()


def test_gauss_newton_of_a_criterion_that_is_not_convex(monkeypatch):
    """Exactly, and from all 4 signs of two outputs as draws."""
    L = objective("dense")
    loss = Composed(L.loss_fn.model, lambda f, y: (f[:, 0] ** 3 - f[:, 0] * f[:, 1] ** 2).mean())
    L = Objective(loss, L.params, L.batches)
    expected = matrix(GaussNewton(L)).diag()
    torch.testing.assert_close(flat(GaussNewtonDiagonal()(L)), expected, **CLOSE)
    left = drawn(monkeypatch, [[v for z in all_signs(2) for v in z] * len(x) for x, _ in L.batches])
    torch.testing.assert_close(flat(GaussNewtonDiagonal(4)(L, None)), expected, **CLOSE)
    assert not left


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gauss_newton_bartlett_of_an_objective(reduction):
    L = objective("dense", "softmax", reduction)
    draws = torch.stack([flat(GaussNewtonBartlett()(L, seeded(i))) for i in range(400)])
    expected = matrix(GaussNewton(L)).diag()
    error = draws.std(0) / 400**0.5
    assert ((draws.mean(0) - expected).abs() <= 5.5 * error + 1e-12).all() and error.norm() < expected.norm() / 8


def test_labels_are_drawn_from_the_softmax_and_from_anything():
    """5.5 standard errors on four counts: one false alarm in ten million."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).expand(10_000, 4)
    p, share = logits[0].softmax(0), drawn_labels(logits, seeded(0)).bincount(minlength=4) / len(logits)
    assert ((share - p).abs() <= 5.5 * (p * (1 - p) / len(logits)).sqrt()).all()
    assert drawn_labels(torch.tensor([[math.nan, 0.0], [math.inf, 0.0]]), seeded(0)).shape == (2,)


@pytest.mark.parametrize("order", [2, 4, 6])
def test_finite_differences_have_the_order_that_they_state(order):
    L = objective("dense", criterion="square")
    exact = flat(Exact()(L))
    errors = [(flat(FiniteDifferences(Exact(), step, order)(L, None)) - exact).norm() for step in (0.1, 0.05)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.5)
    assert (flat(FiniteDifferences(Exact())(L, None)) - exact).norm() < 1e-9 * exact.norm()


def test_finite_differences_serve_every_estimator_of_operators():
    L = objective("dense")
    for method in (Hutchinson(3), Bekas(3), XDiag(6), DiagPlusPlus(6), LayerWise(), MeanSquare(2, 0.9)):
        D = FiniteDifferences(method)(L, seeded())
        torch.testing.assert_close(flat(D), flat(method(L, seeded())), rtol=1e-5, atol=1e-7)


# --- one interface

METHODS = {  # at s = 6: (gradients, products) spent with k products to a pass over the data, and what the estimator declares
    "Hutchinson": (Hutchinson(6), (6, 6), (0, 6)),
    "Bekas": (Bekas(6), (6, 6), (0, 6)),
    "XDiag": (XDiag(6), (6, 6), (0, 6)),
    "DiagPlusPlus": (DiagPlusPlus(6), (6, 6), (0, 6)),
    "LayerWise": (LayerWise(Hutchinson(2)), (6, 6), (0, 6)),
    "MeanSquare": (MeanSquare(6), (6, 6), (0, 6)),
    "Averaged": (Averaged(Hutchinson(6), 2), (6, 6), (0, 6)),
    "PerExample": (PerExample(6), (6, 6), (6, 6)),
    "groups": (PerExample(6, groups=2), (6, 6), (6, 6)),
    "Preactivations": (Preactivations(6), (6 + 2 / 3, 0), None),
    "FiniteDifferences": (FiniteDifferences(Hutchinson(6), order=2), (12, 0), (12, 0)),
    "GaussNewtonDiagonal": (GaussNewtonDiagonal(), (5 / 3, 0), None),
    "draws": (GaussNewtonDiagonal(6), (25 / 3, 0), (25 / 3, 0)),
    "GaussNewtonBartlett": (GaussNewtonBartlett(), (1, 0), (2 / 3, 0)),
}
every_method = pytest.mark.parametrize(("method", "cost", "declared"), METHODS.values(), ids=METHODS)
TAKES_APART = (PerExample(), Preactivations(), FiniteDifferences(), GaussNewtonDiagonal(), GaussNewtonBartlett())


@every_method
def test_cost_and_shape_and_source_of_chance(method, cost, declared):
    L, before = objective("dense"), torch.get_rng_state()
    D, spent = estimate(L, method, seeded())
    assert (spent.gradients, spent.products) == (pytest.approx(cost[0]), pytest.approx(cost[1]))
    if declared is None:
        with pytest.raises(ValueError, match=f"^the cost of .*{type(method).__name__} depends on"):
            method.cost(L.params)
    else:
        assert method.cost(L.params) == Cost(*declared)
    assert [d.shape for d in D] == [p.shape for p in L.params] and not any(d.requires_grad for d in D)
    assert all(torch.equal(a, b) for a, b in zip(D, method(L, seeded()), strict=True))
    assert torch.equal(before, torch.get_rng_state()) and not any(p.requires_grad for p in L.params)


@pytest.mark.parametrize(
    "method", [XDiag(6), DiagPlusPlus(6), LayerWise(), LayerWise(XDiag(4)), Bekas(3), MeanSquare(3)], ids=str
)
def test_the_graph_is_kept_only_as_asked(method):
    params = [normal(3).requires_grad_(), normal(2, 2).requires_grad_()]
    gradients = torch.autograd.grad((flat(params) ** 4).sum() + flat(params).prod(), params, create_graph=True)
    kept = flat(method(GraphHessian(gradients, params, retain_graph=True), seeded()))
    assert torch.equal(flat(method(GraphHessian(gradients, params), seeded())), kept)
    with pytest.raises(RuntimeError, match="second time"):
        method(GraphHessian(gradients, params), seeded())


@pytest.mark.parametrize("method", TAKES_APART, ids=lambda m: type(m).__name__)
def test_what_cannot_be_taken_apart_is_refused(method):
    params = [normal(3).requires_grad_()]
    gradients = torch.autograd.grad((params[0] ** 3).sum(), params, create_graph=True)
    with pytest.raises(TypeError, match=f"^{type(method).__name__} needs"):
        method(GraphHessian(gradients, params), seeded())


@pytest.mark.parametrize("method", [Preactivations(), GaussNewtonDiagonal(), GaussNewtonBartlett()], ids=str)
def test_a_loss_without_outputs_is_refused(method):
    with pytest.raises(TypeError, match=f"^{type(method).__name__} needs"):
        method(Matrix(symmetric(4)), seeded())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


class Folded(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x):
        return torch.tanh(self.layer(x.reshape(-1, 1))).reshape(len(x), 2)  # what an example is, is lost


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.other = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), "parameter 2 is used in layer_norm"),
        (Tied, "parameter 0 is used twice"),
        (Folded, "parameter 0 is in a layer whose input's first dimension is not that of the examples"),
        (Unused, "parameter 2 is in none"),
    ],
)
def test_layers_that_preactivations_cannot_take(make, message):
    module = make().double()
    L = Objective(of_module(module, functional.mse_loss), module.parameters(), (normal(3, 2), normal(3, 2)))
    with pytest.raises(ValueError, match=message):
        Preactivations()(L, seeded())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bekas(0), "probes must be a positive integer, got 0"),
        (lambda: XDiag(1), "budget must be an integer of at least 2, got 1"),
        (lambda: DiagPlusPlus(2.5), "budget must be an integer of at least 3, got 2.5"),
        (lambda: MeanSquare(1, 1.0), r"beta2 must be a number in \[0, 1\) or None, got 1.0"),
        (lambda: Averaged(Exact(), 0), "block_size must be a positive integer, got 0"),
        (lambda: Averaged(Exact(), 1, "mean"), "averaging must be one of signed, absolute, got 'mean'"),
        (lambda: Averaged(Exact(), 4)(Matrix(symmetric(6)), None), "block_size 4 does not divide the entries of shape"),
        (lambda: PerExample(groups=0), "groups must be a positive integer or None, got 0"),
        (lambda: Preactivations(0), "probes must be a positive integer, got 0"),
        (lambda: GaussNewtonDiagonal(draws=0), "draws must be a positive integer or None, got 0"),
        (lambda: LayerWise(PerExample()), "method must be an estimator that needs products with a matrix"),
        (lambda: FiniteDifferences(GaussNewtonBartlett()), "method must be an estimator that needs products with a matrix"),
        (lambda: Averaged(Exact), "method must be an estimator of the diagonal, such as Hutchinson\\(\\), got <class"),
        (lambda: FiniteDifferences(order=3), "order must be an even integer of at least 2, got 3"),
        (lambda: FiniteDifferences(step=0), "step must be a finite number above zero, got 0"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_one_call():
    module = MODELS["dense"][0]().double()
    data = (normal(7, 3), torch.arange(7) % 2)
    loss = of_module(module, functional.cross_entropy)
    exact = flat(hessian_diagonal(loss, module.parameters(), data, Exact(), chunk_size=8))
    D = hessian_diagonal(loss, module.parameters(), data, method=XDiag(budget=100))
    torch.testing.assert_close(flat(D), exact, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("diagonal", [PerExample(), Preactivations()], ids=str)
def test_an_optimiser_takes_it_from_an_objective(diagonal):
    """The first step of AdaHessian with k = 1 is lr g / (|D| + eps)."""
    module = MODELS["dense"][0]().double()
    params, (x, y) = list(module.parameters()), (normal(7, 3), torch.arange(7) % 2)
    L = Objective(of_module(module, functional.cross_entropy), params, (x, y))
    D, before = diagonal(L, seeded(3)), [p.detach().clone() for p in params]
    optimizer = AdaHessian(params, lr=0.1, diagonal=diagonal, generator=seeded(3))
    loss = functional.cross_entropy(module(x), y)
    optimizer.backward(loss, curvature_of=L)
    g = [p.grad.clone() for p in params]
    optimizer.step()
    for p, old, gi, d in zip(params, before, g, D, strict=True):
        torch.testing.assert_close(p.detach(), old - 0.1 * gi / (d.abs() + 1e-4), **CLOSE)
