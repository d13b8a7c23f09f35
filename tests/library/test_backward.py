"""What scales, hides or doubles a gradient on its way to a step: the right value, or one line that says what to do."""

import itertools
import math
from functools import partial

import pytest
import torch
from cases import LOGISTIC
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from secondlook.curvature import (
    Averaged,
    Bekas,
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
    hessian_diagonal,
    of_module,
)
from secondlook.optim import KFAC, OASIS, AdaBelief, AdaHessian, LevenbergMarquardt, Newton, Sophia, TrustRegion

SECOND = {"AdaHessian": AdaHessian, "OASIS": OASIS, "Sophia": Sophia}
MAKERS = {**SECOND, "AdaBelief": AdaBelief, "K-FAC": KFAC}
second = pytest.mark.parametrize("make", SECOND.values(), ids=SECOND)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flat(tensors):
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def linear(outputs=4):
    layer = nn.Linear(2, outputs).double()
    layer.weight.data, layer.bias.data = normal(outputs, 2, seed=1), normal(outputs, seed=2)
    return layer


# The scale of a loss


X, Y, SOFT = normal(3, 2, seed=3), torch.tensor([0, 3, 1]), normal(3, 4, seed=4).softmax(1)
WEIGHTS = torch.tensor([0.2, 1.0, 3.0, 0.5], dtype=torch.float64)
LOSSES = {
    "mean": lambda z, y: functional.cross_entropy(z, y),
    "sum": partial(functional.cross_entropy, reduction="sum"),
    "share": lambda z, y: functional.cross_entropy(z, y) / 16,
    "weights of classes": partial(functional.cross_entropy, weight=WEIGHTS),
    "ignored": partial(functional.cross_entropy, ignore_index=3),
    "smoothed": partial(functional.cross_entropy, label_smoothing=0.2),
    "soft": lambda z, y: functional.cross_entropy(z, SOFT[: len(z)]),
    "weights of rows": lambda z, y: functional.cross_entropy(z, y, reduction="none") @ WEIGHTS[: len(z)],
}


def mean_over_labels(monkeypatch, D) -> torch.Tensor:
    """The expectation of D(p) over labels of the rows of X drawn from p (3, 4)."""
    p, mean = linear()(X).detach().softmax(1), 0.0
    for labels in itertools.product(range(4), repeat=3):
        left = list(labels)
        monkeypatch.setattr(
            "secondlook.curvature.gauss_newton.drawn_labels",
            lambda rows, _, left=left: torch.tensor([left.pop(0) for _ in rows]),
        )
        mean = mean + math.prod(p[i, c].item() for i, c in enumerate(labels)) * D()
    return mean


@pytest.mark.parametrize("batches", [[3], [1, 2]], ids=str)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_drawn_labels_have_the_curvature_of_the_summed_loss(monkeypatch, loss, batches):
    """Of a model that is linear in theta it is the Hessian's diagonal, whatever scales the loss."""
    layer = linear()
    parts = list(zip(X.split(batches), Y.split(batches), strict=True))
    parts = [(x, y) for x, y in parts if loss is not LOSSES["ignored"] or (y != 3).any()]
    total = sum(loss(layer(x), y) for x, y in parts)
    expected = flat(hessian_diagonal(total, list(layer.parameters()), method=Exact()))

    def drawn():
        optimizer = Sophia(layer.parameters(), diagonal=GaussNewtonBartlett())
        optimizer.zero_grad()
        for x, y in parts:
            z = layer(x)
            optimizer.backward(loss(z, y), curvature_of=z)
        return flat(optimizer.curvature.values())

    torch.testing.assert_close(mean_over_labels(monkeypatch, drawn), expected, rtol=1e-12, atol=1e-14)


def test_so_they_have_from_an_objective(monkeypatch):
    layer = linear()
    loss = of_module(layer, LOSSES["weights of classes"])
    L = Objective(loss, list(layer.parameters()), (X, Y))
    expected = flat(Exact()(L))
    found = mean_over_labels(monkeypatch, lambda: flat(GaussNewtonBartlett()(L, None)))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", [PerExample(), PerExample(groups=3), GaussNewtonDiagonal(), GaussNewtonDiagonal(2)], ids=str)
def test_examples_that_do_not_count_for_themselves_are_not_taken_apart(method):
    """Class weights are divided by their sum over the batch: of an example alone they cancel."""
    layer = linear()
    for name in ("weights of classes", "ignored", "share"):
        L = Objective(of_module(layer, LOSSES[name]), list(layer.parameters()), (X, Y))
        if name == "share":
            method(L, torch.Generator().manual_seed(0))
            continue
        with pytest.raises(
            ValueError, match="^the loss of a batch is not the mean of its examples' own, .* divide by a constant"
        ):
            method(L, torch.Generator().manual_seed(0))
    L = Objective(of_module(layer, LOSSES["sum"]), list(layer.parameters()), (X, Y))
    with pytest.raises(ValueError, match="^the loss of a batch is not the mean"):
        method(L, torch.Generator().manual_seed(0))


def one_logit(z, y):
    return functional.binary_cross_entropy_with_logits(z, functional.one_hot(y, 4).double())


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, y: functional.mse_loss(z, SOFT),
        one_logit,
        lambda z, y: functional.cross_entropy(z / 2, y),  # of other logits, and so another softmax
        lambda z, y: -functional.cross_entropy(z, y),
        lambda z, y: functional.cross_entropy(z, y) + 0.01 * z.logsumexp(1).square().mean(),
        lambda z, y: functional.nll_loss(z, y),
        lambda z, y: functional.cross_entropy(z.T, torch.zeros(4, dtype=torch.long)),  # classes are not last
    ],
)
def test_a_loss_that_is_no_cross_entropy_of_the_logits_is_refused(loss):
    layer = linear()
    z = layer(X)
    with pytest.raises(RuntimeError, match="^the loss is no sum of weighted cross entropies of the rows in curvature_of"):
        AdaHessian(layer.parameters(), diagonal=GaussNewtonBartlett()).backward(loss(z, Y), curvature_of=z)


@pytest.mark.parametrize("other", [lambda layer, z: layer(X), lambda layer, z: z.view(3, 4)], ids=["forward", "view"])
def test_logits_that_the_loss_does_not_come_from_are_refused(other):
    layer = linear()
    z = layer(X)
    with pytest.raises(RuntimeError, match="^the loss does not depend on the logits in curvature_of: hand over the tensor"):
        OASIS(layer.parameters(), diagonal=GaussNewtonBartlett()).backward(
            functional.cross_entropy(z, Y), curvature_of=other(layer, z)
        )


def test_a_certain_row_has_no_curvature_and_a_row_of_nan_has_nan():
    z = torch.tensor([[200.0, 0.0], [0.0, 1.0]], requires_grad=True)
    optimizer = AdaHessian([z], diagonal=GaussNewtonBartlett())
    optimizer.backward(functional.cross_entropy(z, torch.tensor([0, 1])), curvature_of=z)
    assert optimizer.curvature[z][0].tolist() == [0, 0] and (optimizer.curvature[z][1] > 0).all()
    bad = torch.full((2, 2), math.nan, requires_grad=True)
    optimizer = AdaHessian([bad], diagonal=GaussNewtonBartlett())
    optimizer.backward(functional.cross_entropy(bad, torch.tensor([0, 1])), curvature_of=bad)
    assert optimizer.curvature[bad].isnan().all()


# Gradients that hide


def checkpointed(reentrant):
    """A frozen embedding, whose output asks for gradients, and a block behind a checkpoint."""
    embedding, block = nn.Embedding(5, 3).double().requires_grad_(False), nn.Linear(3, 3).double()
    tokens = torch.arange(5)
    return block, lambda: checkpoint(block, embedding(tokens).requires_grad_(), use_reentrant=reentrant).pow(3).mean()


def test_parameters_behind_a_reentrant_checkpoint_are_refused_and_reached_behind_the_other():
    for make in SECOND.values():
        block, loss = checkpointed(True)
        with pytest.raises(RuntimeError, match=r"^parameters behind a reentrant checkpoint .*use_reentrant=False\)$"):
            make(block.parameters()).backward(loss())
        with pytest.raises(RuntimeError, match="^parameters behind a reentrant checkpoint"):
            make(block.parameters()).backward(flat_loss(block), curvature_of=loss())
        block, loss = checkpointed(False)
        optimizer = make(block.parameters(), diagonal=Exact())
        optimizer.backward(loss())
        expected = flat(hessian_diagonal(loss(), list(block.parameters()), method=Exact()))
        torch.testing.assert_close(flat(optimizer.curvature.values()), expected)
    block, loss = checkpointed(True)
    with pytest.raises(RuntimeError, match="^parameters behind a reentrant checkpoint"):
        Newton(block.parameters()).step(loss)
    other = torch.ones((), dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="^parameters behind a reentrant checkpoint"):
        hessian_diagonal(loss() + other**2, [other, *block.parameters()])


def flat_loss(block):
    return sum(p.pow(2).sum() for p in block.parameters())


def test_unused_parameters_still_rest():
    theta, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = AdaHessian([theta, unused])
    optimizer.step(lambda: checkpoint(torch.sum, theta**3, use_reentrant=False))
    assert (theta != 1).all() and unused.tolist() == [1, 1]


# Gradients that are scaled


def test_a_gradient_scaler_is_refused_by_all_that_know_curvature():
    scaler = torch.amp.GradScaler("cpu")
    for name in (*SECOND, "K-FAC"):
        model = linear()
        optimizer = MAKERS[name](model if name == "K-FAC" else model.parameters())
        loss = scaler.scale(functional.cross_entropy(model(X), Y))
        loss.backward() if isinstance(optimizer, KFAC) else optimizer.backward(loss)
        before = flat(model.parameters())
        with pytest.raises(RuntimeError, match=r"^\w+ takes no GradScaler, .*: use autocast to bfloat16, which needs none$"):
            scaler.step(optimizer)
        assert torch.equal(flat(model.parameters()), before)
    torch.amp.GradScaler("cpu", enabled=False).step(optimizer)  # which is none


def test_adabelief_knows_no_curvature_and_takes_one():
    scaler, ends = torch.amp.GradScaler("cpu", init_scale=2.0**10), []
    for scaled in (True, False):
        model = linear()
        optimizer = AdaBelief(model.parameters(), lr=0.1)
        loss = functional.cross_entropy(model(X), Y)
        (scaler.scale(loss) if scaled else loss).backward()
        scaler.step(optimizer) if scaled else optimizer.step()
        ends.append(flat(model.parameters()))
    assert torch.equal(*ends)


# Closures, and gradients that are there twice


def closures(model, optimizer):
    """Ways to say the same step."""

    def loss():
        return functional.cross_entropy(model(X), Y)

    def differentiate(value):
        value.backward() if isinstance(optimizer, KFAC | AdaBelief) else optimizer.backward(value)
        return value

    def by_itself():
        optimizer.zero_grad()
        return differentiate(loss())

    def nothing_left():
        return None

    return {"plain": loss, "by itself": by_itself, "done before": nothing_left}, lambda: differentiate(loss())


@pytest.mark.parametrize("name", MAKERS)
def test_one_rule_for_every_closure(name):
    ends = []
    for how in ("no closure", "plain", "by itself", "done before"):
        model = linear()
        optimizer = MAKERS[name](model if name == "K-FAC" else model.parameters(), lr=0.1)
        ways, before = closures(model, optimizer)
        for _ in range(3):
            if how in ("no closure", "done before"):
                optimizer.zero_grad()
                before()
            loss = optimizer.step(ways.get(how))
            assert (loss is None) == (how in ("no closure", "done before")) and (loss is None or not loss.requires_grad)
        ends.append(flat(model.parameters()))
    assert all(torch.equal(end, ends[0]) for end in ends[1:])


@pytest.mark.parametrize("options", [{}, {"create_graph": True}, {"retain_graph": True}], ids=str)
@pytest.mark.parametrize("make", [*SECOND.values(), Newton, partial(Newton, direction=TrustRegion())])
def test_a_closure_that_differentiates_once_is_refused(make, options):
    model = linear()
    optimizer = make(model.parameters())

    def closure():
        loss = functional.cross_entropy(model(X), Y)
        loss.backward(**options)
        return loss

    before = flat(model.parameters())
    with pytest.raises(
        RuntimeError, match=r"^closure must compute the loss and not call loss.backward\(\): step differentiates"
    ):
        optimizer.step(closure)
    assert torch.equal(flat(model.parameters()), before)


@second
def test_both_backwards_are_refused(make):
    model = linear()
    optimizer = make(model.parameters())
    loss = functional.cross_entropy(model(X), Y)
    loss.backward(create_graph=True)
    with pytest.raises(RuntimeError, match=r"^there are gradients already: call optimizer.backward\(loss\) in place of loss"):
        optimizer.backward(loss)
    optimizer.zero_grad(set_to_none=False)  # zeros are no gradients
    optimizer.backward(loss)


def test_a_closure_that_raises_leaves_the_gradients():
    model = linear()
    optimizer = AdaHessian(model.parameters())
    optimizer.backward(functional.cross_entropy(model(X), Y))
    gradients = [p.grad for p in model.parameters()]
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))


@second
def test_a_sparse_gradient_that_comes_after_backward_is_refused(make):
    model = linear()
    optimizer = make(model.parameters())
    optimizer.backward(functional.cross_entropy(model(X), Y))
    model.weight.grad = model.weight.grad.to_sparse()
    with pytest.raises(RuntimeError, match="^[A-Za-z]+ needs dense real gradients, got torch.sparse_coo"):
        optimizer.step()


def test_a_complex_parameter_is_refused():
    z = torch.ones(2, dtype=torch.complex128, requires_grad=True)
    for make in (*SECOND.values(), Newton):
        with pytest.raises(RuntimeError, match="needs dense real gradients, got torch.strided of type torch.complex128"):
            make([z]).step(lambda: z.abs().pow(3).sum())


# Second derivatives that torch does not have


def attention():
    q = normal(1, 2, 5, 4).float().requires_grad_()
    return [q], lambda: functional.scaled_dot_product_attention(q, q, q).pow(2).sum()


def embedding_bag():
    bag = nn.EmbeddingBag(5, 3, mode="mean")
    return list(bag.parameters()), lambda: bag(torch.arange(4).view(2, 2)).pow(3).sum()


def ctc():
    z = normal(6, 2, 5).float().requires_grad_()
    lengths = {"input_lengths": torch.tensor([6, 6]), "target_lengths": torch.tensor([2, 2])}
    return [z], lambda: functional.ctc_loss(z.log_softmax(2), torch.tensor([[1, 2], [3, 4]]), **lengths)


def compiled():
    model = linear().float()
    forward = torch.compile(model, backend="aot_eager")
    return list(model.parameters()), lambda: forward(X.float()).pow(3).sum()


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (attention, r"attention has no second derivative: run the forward pass under .*sdpa_kernel\(SDPBackend.MATH\)$"),
        (
            embedding_bag,
            "has no derivative in torch, so that the loss has no second one: .*, such as GaussNewtonBartlett or K-FAC$",
        ),
        (ctc, "has no derivative in torch, so that the loss has no second one"),
        (
            compiled,
            "^a compiled model cannot be differentiated twice: take the loss of the model as it was, or optim.compiled_step$",
        ),
    ],
)
def test_what_cannot_be_differentiated_twice_says_what_to_do(problem, message):
    params, loss = problem()
    with pytest.raises(RuntimeError, match=message):
        AdaHessian(params).backward(loss())
    with pytest.raises(RuntimeError, match=message):
        Newton(params, direction=TrustRegion()).step(loss)
    with pytest.raises(RuntimeError, match=message):
        hessian_diagonal(loss(), params)


def test_and_it_helps():
    (q,), loss = attention()
    with sdpa_kernel(SDPBackend.MATH):
        AdaHessian([q]).step(loss)
    assert (q != normal(1, 2, 5, 4).float()).any()


# Parameters that are not contiguous


GRAPH = [Hutchinson(2), Bekas(3), Exact(), XDiag(4), XDiag(1000), DiagPlusPlus(6), DiagPlusPlus(1000), LayerWise(XDiag(4))]
GRAPH += [MeanSquare(2), Averaged(Hutchinson(), 1)]
TAKEN_APART = [PerExample(), PerExample(groups=2), Preactivations(3), FiniteDifferences(), GaussNewtonDiagonal()]


def network(apart):
    """A convolution and a dense layer; where `apart`, with weights that are channels_last and transposed in memory."""
    model = nn.Sequential(nn.Conv2d(2, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).double()
    for i, p in enumerate(model.parameters()):
        p.data = normal(*p.shape, seed=i)
    if apart:
        model[0].weight.data = model[0].weight.data.to(memory_format=torch.channels_last)
        model[3].weight.data = model[3].weight.data.T.contiguous().T
        assert not model[0].weight.is_contiguous() and not model[3].weight.is_contiguous()
    return model


IMAGES, LABELS = normal(6, 2, 3, 3, seed=9), torch.arange(6) % 3


@pytest.mark.parametrize("method", [*GRAPH, *TAKEN_APART, GaussNewtonBartlett()], ids=str)
def test_every_estimator_takes_any_strides(method):
    found = []
    for apart in (False, True):
        model = network(apart)
        L = Objective(of_module(model, functional.cross_entropy), list(model.parameters()), (IMAGES, LABELS))
        found.append(flat(method(L, torch.Generator().manual_seed(0))))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


MADE = {f"{name} {method}": partial(make, diagonal=method) for name, make in SECOND.items() for method in GRAPH[:4]}
MADE |= {
    "OASIS adaptive": partial(OASIS, adaptive=True),
    "AdaBelief": AdaBelief,
    "Sophia-G": partial(Sophia, diagonal=GaussNewtonBartlett()),
}
MADE |= {f"Newton {d}": partial(Newton, direction=d) for d in (TrustRegion(), LevenbergMarquardt())} | {"K-FAC": KFAC}


@pytest.mark.parametrize("name", MADE)
def test_every_optimiser_takes_any_strides(name):
    ends = []
    for apart in (False, True):
        model = network(apart)
        optimizer = MADE[name](model if name == "K-FAC" else model.parameters(), lr=0.01)
        for _ in range(3):
            z = model(IMAGES)
            loss = functional.cross_entropy(z, LABELS)
            if isinstance(optimizer, Newton):
                optimizer.step(lambda model=model: functional.cross_entropy(model(IMAGES), LABELS))
            else:
                optimizer.zero_grad()
                optimizer.differentiate(loss, z)
                optimizer.step()
        ends.append(flat(model.parameters()))
    torch.testing.assert_close(*ends, rtol=1e-8, atol=1e-10)


# Newton's trials


@pytest.mark.parametrize("direction", [TrustRegion(), LevenbergMarquardt()], ids=str)
def test_a_loss_may_differentiate_by_its_inputs(direction):
    """A physics-informed loss: u' = -u at some points, u(0) = 1."""
    model = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    for i, p in enumerate(model.parameters()):
        p.data = normal(*p.shape, seed=i)
    t = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None].requires_grad_()

    def loss():
        u = model(t)
        (slope,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        return (slope + u).square().mean() + (model(torch.zeros(1, 1, dtype=torch.float64)) - 1).square().sum()

    optimizer = Newton(model.parameters(), direction=direction)
    losses = [optimizer.step(loss).item() for _ in range(12)]
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("direction", [TrustRegion(), LevenbergMarquardt()], ids=str)
def test_a_trial_that_raises_leaves_the_parameters_as_they_were(direction):
    params = LOGISTIC.params()
    calls = iter(range(100))

    def closure():
        if next(calls) == 3:
            raise ZeroDivisionError
        return LOGISTIC.loss(params)

    optimizer = Newton(params, direction=direction)
    optimizer.step(closure)
    before = flat(params)
    with pytest.raises(ZeroDivisionError):
        optimizer.step(closure)
    assert torch.equal(flat(params), before) and not torch.equal(before, LOGISTIC.start)
    optimizer.step(closure)
    assert LOGISTIC.loss(params) < LOGISTIC.loss(LOGISTIC.params())
