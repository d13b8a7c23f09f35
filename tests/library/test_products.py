"""Products with the Hessian and with Gauss-Newton of a loss over unequal batches, against dense matrices, in float64."""

import itertools
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional

from secondlook.curvature import Exact, Objective, of_module
from secondlook.curvature.dense import matrix
from secondlook.curvature.gauss_newton_product import GaussNewton
from secondlook.curvature.products import GraphHessian, hvp

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
CLASSES, SPLITS = 3, (5, 3, 1)


def _fourth(f, y, reduction):
    """A criterion that is neither quadratic nor a likelihood, with curvature between the outputs."""
    each = (f**4).sum(1) + f[:, 0] * f[:, 1] ** 2 * (1 + y)
    return each.mean() if reduction == "mean" else each.sum()


MODELS = {
    "tanh": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, CLASSES)), (4,)),
    "relu": (lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, CLASSES, bias=False)), (4,)),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(8, CLASSES)),
        (1, 4, 4),
    ),
    "normalised": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.GELU(), nn.BatchNorm1d(3).eval(), nn.Linear(3, CLASSES)),
        (4,),
    ),
}
CRITERIA = {
    "softmax": lambda f, y, reduction: functional.cross_entropy(f, y, reduction=reduction),
    "square": lambda f, y, reduction: getattr((f - torch.eye(CLASSES).double()[y]) ** 2, reduction)(),
    "fourth": _fourth,
}
every_case = pytest.mark.parametrize(
    ("model", "criterion", "reduction"), list(itertools.product(MODELS, CRITERIA, ("mean", "sum"))), ids=str
)
every_mode = pytest.mark.parametrize("mode", ["reverse", "forward"])


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


@cache
def problem(model, criterion, reduction):
    """The loss, its parameters, and the data as one batch."""
    generator = torch.Generator().manual_seed(0)
    make, shape = MODELS[model]
    module = make().double()
    loss = of_module(module, lambda f, y: CRITERIA[criterion](f, y, reduction))
    module.requires_grad_(False)
    for p in module.parameters():
        p.normal_(generator=generator).div_(2)
    x = torch.randn(sum(SPLITS), *shape, generator=generator, dtype=torch.float64)
    y = torch.arange(len(x)) % CLASSES
    return loss, list(module.parameters()), (x, y)


@cache
def dense(model, criterion, reduction):
    """H and G by torch.autograd.functional, from the loss as a function of one flat vector."""
    loss, params, (x, y) = problem(model, criterion, reduction)

    def split(t):
        return [part.view(p.shape) for part, p in zip(t.split([p.numel() for p in params]), params, strict=True)]

    theta = flat(params)
    H = torch.autograd.functional.hessian(lambda t: loss(split(t), x, y), theta)
    J = torch.autograd.functional.jacobian(lambda t: loss.model(split(t), x), theta).reshape(-1, len(theta))  # (N C, n)
    f = loss.model(params, x).detach()
    Hf = torch.autograd.functional.hessian(lambda f: loss.criterion(f, y), f).reshape(len(J), len(J))
    return H, J.T @ Hf @ J


def objective(model, criterion, reduction, **options):
    loss, params, (x, y) = problem(model, criterion, reduction)
    return Objective(loss, params, list(zip(x.split(SPLITS), y.split(SPLITS), strict=True)), reduction=reduction, **options)


def vectors(params, count):
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in params] for _ in range(count)]


def assert_products(operator, M, count=4):
    """`count` products with given vectors, which come back with them."""
    V = vectors(operator.params, count)
    found = list(operator.products(iter(V)))
    assert len(found) == count
    for v, (given, Mv) in zip(V, found, strict=True):
        assert given is v and [p.shape for p in Mv] == [p.shape for p in operator.params]
        assert not any(p.requires_grad for p in Mv)
        torch.testing.assert_close(flat(Mv), M @ flat(v), **CLOSE)


@every_case
@every_mode
@pytest.mark.parametrize("chunk_size", [1, 3])
def test_products_are_those_of_the_dense_matrices(model, criterion, reduction, mode, chunk_size):
    L = objective(model, criterion, reduction, mode=mode, chunk_size=chunk_size)
    H, G = dense(model, criterion, reduction)
    assert_products(L, H)
    assert_products(GaussNewton(L), G)


@every_case
@every_mode
def test_examples_products_add_up(model, criterion, reduction, mode):
    L = objective(model, criterion, reduction, mode=mode)
    (v,) = vectors(L.params, 1)
    each = [torch.cat(parts) for parts in zip(*L.of_examples(v), strict=True)]  # (N, *shape)
    total = flat([part.mean(0) if reduction == "mean" else part.sum(0) for part in each])
    torch.testing.assert_close(total, dense(model, criterion, reduction)[0] @ flat(v), **CLOSE)
    loss, params, (x, y) = problem(model, criterion, reduction)
    alone = Objective(loss, params, (x[6:7], y[6:7]))
    torch.testing.assert_close(flat([part[6] for part in each]), flat(next(alone.products([v]))[1]), **CLOSE)


@every_mode
def test_a_part_of_the_data_is_an_objective_of_its_own(mode):
    loss, params, (x, y) = problem("tanh", "softmax", "mean")
    halves = [matrix(Objective(loss, params, (x[part], y[part]), mode=mode)) for part in (slice(0, 4), slice(4, 9))]
    torch.testing.assert_close((4 * halves[0] + 5 * halves[1]) / 9, dense("tanh", "softmax", "mean")[0], **CLOSE)


@every_mode
@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_the_matrix_of_an_operator_is_dense(mode, chunk_size):
    L = objective("convolution", "softmax", "mean", mode=mode, chunk_size=chunk_size)
    H, G = dense("convolution", "softmax", "mean")
    for operator, M in ((L, H), (GaussNewton(L), G)):
        found = matrix(operator)
        torch.testing.assert_close(found, M, **CLOSE)
        assert torch.equal(found, found.T)


@every_mode
def test_the_exact_diagonal_takes_chunks(mode):
    D = Exact()(objective("relu", "square", "sum", mode=mode, chunk_size=7))
    torch.testing.assert_close(flat(D), dense("relu", "square", "sum")[0].diagonal(), **CLOSE)


@every_mode
@pytest.mark.parametrize("batched", [False, True])
def test_what_has_no_part_in_the_loss_has_no_curvature(mode, batched):
    params = [torch.tensor([1.0, 2.0]), torch.tensor(3.0), torch.tensor([4.0])]
    data = (torch.ones(2, 2), torch.zeros(2))
    L = Objective(lambda t, x, y: (x @ t[0] ** 3).mean() + 5 * t[2].sum(), params, data, mode=mode, chunk_size=1 + batched)
    for _, Hv in L.products([[torch.ones_like(p) for p in params]] * 2):
        assert [part.tolist() for part in Hv] == [[6.0, 12.0], 0.0, [0.0]]


@every_mode
def test_cost_is_counted_in_passes_over_all_of_the_data(mode):
    L = objective("tanh", "softmax", "mean", mode=mode, chunk_size=2)
    list(L.products(vectors(L.params, 5)))
    assert (L.cost.gradients, L.cost.products) == (3, 5)
    before = L.cost
    list(GaussNewton(L).products(vectors(L.params, 2)))
    assert (L.cost - before).in_gradients == pytest.approx({"reverse": 1 + 8 / 3, "forward": 2 + 2 / 3}[mode])
    before = L.cost
    list(L.of_examples(vectors(L.params, 1)[0]))
    assert (L.cost - before).in_gradients == pytest.approx(3)


@every_mode
def test_parameters_are_left_alone_and_products_can_be_repeated(mode):
    L = objective("tanh", "softmax", "mean", mode=mode)
    for operator in (L, GaussNewton(L)):
        first, again = (flat(next(operator.products(vectors(L.params, 1)))[1]) for _ in range(2))
        assert torch.equal(first, again)
    assert not any(p.requires_grad or p.grad is not None for p in L.params)


@every_mode
@pytest.mark.parametrize("layer", [nn.BatchNorm1d, nn.Dropout])
def test_layers_that_are_random_or_mix_examples_are_refused(mode, layer):
    module = nn.Sequential(nn.Linear(4, 3), layer(3) if layer is nn.BatchNorm1d else layer(0.5))
    loss, data = of_module(module, functional.cross_entropy), (torch.ones(2, 4), torch.tensor([0, 1]))
    message = "'1' is in training mode: curvature needs module.eval()"
    with pytest.raises(ValueError, match=message):
        Objective(loss, module.parameters(), data, mode=mode)
    module.eval()
    L = Objective(loss, module.parameters(), data, mode=mode)
    assert next(L.products(vectors([p.detach() for p in L.params], 1)))
    module.train()
    for operator in (L, GaussNewton(L)):
        with pytest.raises(ValueError, match=message):
            next(operator.products(vectors(L.params, 1)))


def test_gradients_of_some_parameters_give_their_rows():
    loss, params, (x, y) = problem("tanh", "softmax", "mean")
    theta = [p.clone().requires_grad_() for p in params]
    gradients = torch.autograd.grad(loss(theta, x, y), theta, create_graph=True)
    (v,) = vectors(params[2:3], 1)
    rows = slice(15, 24)  # of the third tensor, 3 x 3
    product = hvp(gradients[2:3], theta, v, retain_graph=True)
    torch.testing.assert_close(flat(product), flat(v) @ dense("tanh", "softmax", "mean")[0][rows], **CLOSE)
    assert_products(GraphHessian(gradients, theta, retain_graph=True), dense("tanh", "softmax", "mean")[0])


def test_arguments_are_checked():
    loss, params, data = problem("tanh", "softmax", "mean")
    with pytest.raises(ValueError, match="mode must be one of reverse, forward, got 'both'"):
        Objective(loss, params, data, mode="both")
    with pytest.raises(TypeError, match="GaussNewton needs a loss that tells its outputs"):
        GaussNewton(Objective(lambda theta, x, y: loss(theta, x, y), params, data))
