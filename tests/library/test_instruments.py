"""Instruments of training: paths against ones worked out by hand, sketches against their moments, shapes against dense matrices."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from secondlook.curvature.objective import Objective, of_module
from secondlook.optim import KFAC, AdaHessian, Newton
from secondlook.training import eager_step
from secondlook.training.instruments import LocalShape, Recorder, curvature_along, losses_along, noise_scale
from secondlook.training.path import Path, Sketch

torch.set_num_threads(1)
POINTS = torch.tensor([[0.0, 0], [3, 4], [3, 4], [0, 8], [0, 0]], dtype=torch.float64)  # steps (3, 4), 0, (-3, 4), (0, -8)


def walk(points, **options) -> Path:
    """The path of one parameter of shape (1, 1) and one of the rest, through `points` (T + 1, n)."""
    params = [points[0, :1].clone().reshape(1, 1), points[0, 1:].clone()]
    path = Path(params, **options)
    for point in points[1:]:
        params[0].copy_(point[:1].reshape(1, 1))
        params[1].copy_(point[1:])
        path.record()
    return path


def test_a_path_by_hand():
    path = walk(POINTS)
    assert len(path) == 4
    assert path.norms.tolist() == [5, 0, 5, 8]
    assert (path.travelled, path.displacement) == (18, 0)
    assert path.cosines.tolist() == pytest.approx([math.nan, math.nan, math.nan, -0.8], nan_ok=True)
    assert path.cosine_matrix()[0].tolist() == pytest.approx([1, math.nan, 7 / 25, -0.8], nan_ok=True)
    path.restart()
    assert len(path) == 0 and path.displacement == 0


def test_pca_of_a_path_is_that_of_its_points():
    coordinates, ratio = walk(POINTS).pca()
    expected = torch.linalg.eigvalsh(torch.cov(POINTS.T)).flip(0)
    assert torch.allclose(ratio, expected / expected.sum())
    assert torch.allclose(torch.cdist(coordinates, coordinates), torch.cdist(POINTS, POINTS))


def test_pca_of_a_straight_path_has_one_axis():
    line = torch.arange(5.0, dtype=torch.float64)[:, None] ** 2 * torch.tensor([1.0, -2, 3], dtype=torch.float64)
    assert walk(line).pca()[1][0] == pytest.approx(1)
    assert walk(line).cosine_matrix() == pytest.approx(np.ones((4, 4)))


@pytest.mark.parametrize(
    "dtype, kept", [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)]
)
def test_steps_are_kept_in_float32_or_better(dtype, kept):
    assert walk(POINTS.to(dtype)).steps.dtype == kept


def test_a_path_without_steps_keeps_norms_and_neighbours():
    path = walk(POINTS, size=0)
    assert path.norms.tolist() == [5, 0, 5, 8] and path.cosines[-1] == pytest.approx(-0.8)
    assert not path.kept
    with pytest.raises(RuntimeError, match="size is 0"):
        path.pca()


def test_a_sketch_is_the_matrix_of_its_buckets_and_signs():
    S = torch.stack([Sketch(7, 3, seed=5)(e) for e in torch.eye(7, dtype=torch.float64)], dim=1)
    assert (S.abs().sum(0) == 1).all()  # each entry goes to one bucket, with a sign
    x = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(Sketch(7, 3, seed=5)(x), S @ x)
    others = {tuple(Sketch(7, 3, seed)(x).tolist()) for seed in range(4)}
    assert len(others) == 4


def test_moments_and_distortion_of_a_sketch():
    """Mean and variance of 4,000 draws against the closed form within 4.5 standard errors: false alarm below 1e-4 in all."""
    n, k, draws, eps = 300, 50, 4000, 0.4
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, n, generator=generator, dtype=torch.float64)
    sketched = torch.stack([torch.stack([S(x), S(y)]) for S in (Sketch(n, k, seed) for seed in range(draws))])  # (draws, 2, k)
    square, inner = sketched[:, 0].square().sum(1), sketched.prod(1).sum(1)
    for found, mean in ((square, x @ x), (inner, x @ y)):
        assert abs(found.mean() - mean) < 4.5 * found.std() / draws**0.5
    variance = 2 / k * ((x @ x) ** 2 - x.pow(4).sum())
    of_variance = ((square - square.mean()) ** 2).std() / draws**0.5
    assert abs(square.var() - variance) < 4.5 * of_variance
    assert inner.var() <= 2 / k * (x @ x) * (y @ y)
    assert ((square / (x @ x) - 1).abs() > eps).double().mean() <= 2 / (k * eps**2)


def test_a_path_in_sketches_is_close_to_the_exact_one_and_its_norms_are_exact():
    generator = torch.Generator().manual_seed(2)
    points = torch.randn(6, 20_000, generator=generator, dtype=torch.float64).cumsum(0)
    exact, sketched = walk(points), walk(points, size=2000)
    assert sketched.steps.shape == (5, 2000)
    assert torch.equal(exact.norms, sketched.norms)
    # 10 cosines with a standard deviation of sqrt(2 / 2000) at most: 5 of those, a false alarm below 1e-5
    assert (exact.cosine_matrix() - sketched.cosine_matrix()).abs().max() < 5 * (2 / 2000) ** 0.5
    assert torch.allclose(exact.pca()[1], sketched.pca()[1], atol=0.1)


@pytest.mark.parametrize("options", [{"size": -1}, {"size": 1.5}])
def test_sizes_of_paths_are_checked(options):
    with pytest.raises(ValueError, match="size"):
        Path([torch.zeros(3)], **options)
    with pytest.raises(ValueError, match="params"):
        Path([])


X = torch.randn(24, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
Y = X @ torch.tensor([[1.0], [-2], [0.5]], dtype=torch.float64) + 0.1 * X[:, :1] ** 2


def model() -> nn.Module:
    network = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1)).double()
    generator = torch.Generator().manual_seed(4)
    for p in network.parameters():
        nn.init.uniform_(p, -0.5, 0.5, generator=generator)
    return network


OPTIMISERS = {
    "SGD": lambda m: torch.optim.SGD(m.parameters(), 0.05, momentum=0.9),
    "Adam": lambda m: torch.optim.Adam(m.parameters(), 0.01),
    "AdaHessian": lambda m: AdaHessian(m.parameters(), 0.05),
    "K-FAC": lambda m: KFAC(m, 0.05, likelihood="squared"),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_recorder_hears_every_step_of_any_optimiser_and_changes_none(name):
    found = []
    for listen in (False, True):
        network = model()
        optimizer = OPTIMISERS[name](network)
        step = eager_step(optimizer, network, functional.mse_loss)
        recorder = Recorder(optimizer) if listen else None
        points, rows = [Path(network.parameters()).theta], []
        for _ in range(3):
            for i in torch.arange(24).split(6):
                step(X[i], Y[i])
                points.append(Path(network.parameters()).theta)
            rows += recorder.epoch() if listen else []
        found.append(torch.stack(points))
    assert torch.equal(*found)
    value = {(row["metric"], row["step"], row.get("at")): row["value"] for row in rows}
    steps, epochs = found[1].diff(dim=0), found[1][::4].diff(dim=0)
    for e in (1, 2, 3):
        inside = steps[4 * e - 4 : 4 * e]
        cosines = functional.cosine_similarity(inside[1:], inside[:-1])
        assert value["step size", e, None] == pytest.approx(epochs[e - 1].norm().item())
        assert value["travelled", e, None] == pytest.approx(epochs[:e].norm(dim=1).sum().item())
        assert value["displacement", e, None] == pytest.approx((found[1][4 * e] - found[1][0]).norm().item())
        assert value["inner step size", e, None] == pytest.approx(inside.norm(dim=1).mean().item())
        assert value["inner cosine", e, None] == pytest.approx(cosines.mean().item())
        for j in range(1, e):
            expected = functional.cosine_similarity(epochs[e - 1], epochs[j - 1], dim=0).item()
            assert value["cosine", e, j] == pytest.approx(expected)


@pytest.mark.parametrize("every, looked_at", [(1, [1, 2, 3, 4, 5, 6, 7, 8, 9]), (3, [2, 3, 5, 6, 8, 9]), (4, [3, 4, 7, 8])])
def test_a_recorder_looks_at_the_last_two_of_every_few_steps(every, looked_at):
    theta = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = torch.optim.SGD([theta], lr=1.0)
    recorder = Recorder(optimizer, every=every)
    steps = torch.randn(9, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    for _ in range(2):  # epochs are alike
        for s in steps:
            theta.grad = -s
            optimizer.step()
        chosen = [i - 1 for i in looked_at]
        assert torch.allclose(recorder.inner.norms, steps[chosen].norm(dim=1))
        neighbours = [
            functional.cosine_similarity(steps[i], steps[i - 1], dim=0).item() if i and i - 1 in chosen else math.nan
            for i in chosen
        ]
        assert recorder.inner.cosines.tolist() == pytest.approx(neighbours, nan_ok=True)
        recorder.epoch()
    with pytest.raises(ValueError, match="every"):
        Recorder(optimizer, every=2)


def test_a_recorder_hears_a_step_with_a_closure_until_it_is_removed():
    theta = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    optimizer = Newton([theta])
    recorder = Recorder(optimizer)
    optimizer.step(lambda: theta.square().sum())
    assert recorder.inner.norms.tolist() == pytest.approx([5])
    recorder.remove()
    optimizer.step(lambda: theta.square().sum())
    assert len(recorder.inner) == 1


def quadratic(batches=1) -> tuple[Objective, torch.Tensor]:
    """Mean of (x^T theta - y)^2 over the data in batches, and its dense Hessian."""
    theta = [torch.tensor([[0.2], [0.1], [-0.3]], dtype=torch.float64)]
    data = list(zip(X.chunk(batches), Y.chunk(batches), strict=True))
    loss = Objective(lambda theta, x, y: ((x @ theta[0] - y) ** 2).mean(), theta, data)
    return loss, 2 * X.T @ X / len(X)


def test_loss_and_curvature_along_a_step_of_a_quadratic():
    loss, H = quadratic(3)
    s = torch.tensor([1.0, 0.5, -2], dtype=torch.float64)
    assert curvature_along(loss, s) == pytest.approx((s @ H @ s / (s @ s)).item())
    losses = losses_along(loss, s, (-1.0, 0.0, 1.0))
    assert losses[0] - 2 * losses[1] + losses[2] == pytest.approx((s @ H @ s).item())
    direct = ((X @ (loss.params[0] + s[:, None]) - Y) ** 2).mean().item()
    assert losses[2] == pytest.approx(direct)


@pytest.mark.parametrize("batches", [24, 6])
def test_noise_scale_against_the_gradients_of_examples(batches):
    loss, _ = quadratic(batches)
    b = 24 // batches
    g = 2 * (X @ loss.params[0] - Y) * X  # of each example (24, 3)
    means = g.reshape(batches, b, 3).mean(1)
    trace = b * torch.cov(means.T).trace()  # unbiased, of one example
    square = means.mean(0).square().sum() - trace / 24
    assert noise_scale(loss) == pytest.approx((trace / square).item())


def test_noise_scale_needs_equal_batches_and_is_infinite_in_pure_noise():
    with pytest.raises(ValueError, match="two or more batches of one size"):
        noise_scale(quadratic(1)[0])
    theta = [torch.zeros(1, dtype=torch.float64)]
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)
    noise = Objective(lambda theta, x, y: (x * theta[0]).mean(), theta, list(zip(signs.split(1), signs.split(1), strict=True)))
    assert noise_scale(noise) == math.inf


def test_a_shape_is_looked_at_every_so_many_epochs():
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), 0.05)
    data = list(zip(X.chunk(4), Y.chunk(4), strict=True))
    loss = Objective(of_module(network, functional.mse_loss), network.parameters(), data)
    shape = LocalShape(loss, every=2, tolerance=1e-8, generator=torch.Generator().manual_seed(0))
    recorder, step = Recorder(optimizer, shape=shape), eager_step(optimizer, network, functional.mse_loss)
    rows = []
    for _ in range(4):
        step(X, Y)
        rows += recorder.epoch()
    looked = {row["metric"]: row for row in rows if row["metric"] == "trace" or row["step"] == 4}
    assert {row["step"] for row in rows if row["metric"] == "trace"} == {2, 4}
    columns = [
        Hv
        for _, Hv in loss.products(
            [p.reshape(s.shape) for p, s in zip(e.split([6, 2, 2, 1]), loss.params, strict=True)]
            for e in torch.eye(11, dtype=torch.float64)
        )
    ]
    H = torch.stack([torch.cat([part.reshape(-1) for part in column]) for column in columns])
    assert looked["top eigenvalue"]["value"] == pytest.approx(torch.linalg.eigvalsh(H)[-1].item())
    assert looked["trace"]["value"] == pytest.approx(H.trace().item())  # 60 products are enough for all of 11 dimensions
    assert {row["at"] for row in rows if row["metric"] == "loss along"} == {-1.0, -0.5, 0.0, 0.5, 1.0, 2.0}
