"""K-FAC: its factors against the dense Gauss-Newton matrix, its update against the equations, and what a user may do with it."""

import copy
import io
import math
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from secondlook.curvature.kronecker import damped_inverses, damping_ratio, input_factor, kronecker_factors, output_factor
from secondlook.optim.kfac import KFAC
from secondlook.problems.convolution import Conv2d
from secondlook.problems.layers import with_layers_of_torch
from secondlook.problems.resnet import resnet

torch.set_num_threads(1)
DOUBLE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def build(*modules, seed=0):
    """The modules in a row, in float64, with parameters drawn from `seed`."""
    model = nn.Sequential(*modules).double()
    for i, p in enumerate(model.parameters()):
        p.data = 0.5 * normal(*p.shape, seed=1000 * seed + i)
    return model


def perceptron():
    return build(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4))


def convolutional():
    return build(nn.Conv2d(1, 3, 3, padding=1, stride=2), nn.Tanh(), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 4))


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


IMAGES, POINTS, CLASSES = normal(12, 1, 6, 6, seed=1), normal(12, 3, seed=2), torch.arange(12) % 4


def train(optimizer, model, steps, x=POINTS, y=CLASSES):
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        output = model(x)
        if optimizer.fisher != "empirical":
            optimizer.curvature(output)
        loss = functional.cross_entropy(output, y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# The factors


def gauss_newton(model, layer, x, likelihood):
    """The exact block of `layer`, (1/N) sum_n J_n^T S S^T J_n, rows of [W b] one after the other."""
    params = [p for p in (layer.weight, layer.bias) if p is not None]
    total = 0
    for example in x:
        f = model(example[None])[0]
        rows = [torch.autograd.grad(f[k], params, retain_graph=True) for k in range(len(f))]
        J = torch.stack([torch.cat([r.reshape(len(r), -1) for r in row], dim=1).reshape(-1) for row in rows])
        p = torch.softmax(f.detach(), 0)
        S2 = torch.diag(p) - torch.outer(p, p) if likelihood == "categorical" else 2 / len(f) * torch.eye(len(f), dtype=DOUBLE)
        total = total + J.T @ S2 @ J / len(x)
    return total


DEEP_LINEAR = (nn.Linear(3, 5), nn.Linear(5, 4, bias=False), nn.Linear(4, 2))
NONLINEAR = (nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 2))
EXACT = {
    "one layer": ((nn.Linear(3, 4),), 12, ("squared",)),
    "deep linear": (DEEP_LINEAR, 12, ("squared",)),
    "one example": (NONLINEAR, 1, ("squared", "categorical")),
}


@pytest.mark.parametrize(
    ("modules", "n", "likelihood"),
    [pytest.param(m, n, like, id=f"{name}-{like}") for name, (m, n, likes) in EXACT.items() for like in likes],
)
def test_the_kronecker_product_is_the_gauss_newton_block(modules, n, likelihood):
    model, x = build(*copy.deepcopy(modules)), normal(n, 3, seed=7)
    factors = kronecker_factors(model, x, likelihood=likelihood)
    assert list(factors) == [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    for name, (A, G) in factors.items():
        block = gauss_newton(model, model.get_submodule(name), x, likelihood)
        torch.testing.assert_close(torch.kron(G, A), block, rtol=1e-10, atol=1e-10)
    assert all(p.grad is None for p in model.parameters())


def test_elsewhere_it_is_an_approximation():
    model, x = build(*copy.deepcopy(NONLINEAR)), normal(12, 3, seed=7)
    A, G = kronecker_factors(model, x)["0"]
    block = gauss_newton(model, model[0], x, "squared")
    assert 0.01 < (torch.kron(G, A) - block).norm() / block.norm() < 1


def test_factors_are_those_of_a_model_in_either_mode():
    model, x = build(*copy.deepcopy(NONLINEAR)), normal(12, 3, seed=7)
    trained = kronecker_factors(model, x)
    model.eval()
    for name, factors in kronecker_factors(model, x).items():
        assert all(map(torch.equal, factors, trained.pop(name)))
    assert not trained and not any(m.training for m in model.modules())
    for without in (nn.LayerNorm(3).double(), model.requires_grad_(False)):
        with pytest.raises((ValueError, RuntimeError), match="^model has no Linear or Conv2d|^the output has no graph"):
            kronecker_factors(without, x)


@pytest.mark.parametrize("likelihood", ["categorical", "squared"])
def test_drawn_targets_have_the_exact_expectation(likelihood):
    """4000 draws for each of 6 examples, within five standard errors of every entry."""
    model, x = perceptron(), normal(6, 3, seed=7)
    exact = kronecker_factors(model, x, likelihood=likelihood)
    generator, draws = torch.Generator().manual_seed(0), 400
    for name in ("0", "2"):
        G = [
            kronecker_factors(model, x.repeat(10, 1), fisher="mc", likelihood=likelihood, generator=generator)[name][1]
            for _ in range(draws)
        ]
        G = torch.stack(G)
        error = (G.mean(0) - exact[name][1]).abs()
        assert (error <= 5 * G.std(0) / math.sqrt(draws) + 1e-12).all()


def test_empirical_factors_are_those_of_the_data():
    model = perceptron()
    optimizer = KFAC(model)
    train(optimizer, model, 1)
    A, G = optimizer.factors[model[2]]
    again = perceptron()
    a = again[1](again[0](POINTS)).detach()
    f = again(POINTS).detach()
    g = torch.softmax(f, 1) - functional.one_hot(CLASSES, 4)
    a = torch.cat([a, torch.ones(12, 1, dtype=DOUBLE)], dim=1)
    torch.testing.assert_close(A, a.T @ a / 12, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(G, g.T @ g / 12, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"dilation": (1, 2), "bias": False}], ids=str)
def test_convolution_factors_against_patches_one_by_one(options):
    layer = nn.Conv2d(2, 3, (2, 3), **options).double()
    x = normal(4, 2, 6, 7, seed=1)
    output = layer(x)
    g = normal(*output.shape, seed=2)
    padded = functional.pad(x, [layer.padding[1]] * 2 + [layer.padding[0]] * 2)
    (sh, sw), (dh, dw) = layer.stride, layer.dilation
    A, G, (height, width) = 0, 0, output.shape[2:]
    for n in range(4):
        for i in range(height):
            for j in range(width):
                patch = padded[n, :, i * sh : i * sh + dh + 1 : dh, j * sw : j * sw + 2 * dw + 1 : dw].reshape(-1)
                if layer.bias is not None:
                    patch = torch.cat([patch, torch.ones(1, dtype=DOUBLE)])
                A = A + torch.outer(patch, patch) / 4
                G = G + torch.outer(4 * g[n, :, i, j], 4 * g[n, :, i, j]) / (4 * height * width)
    torch.testing.assert_close(input_factor(layer, x), A, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(output_factor(layer, g), G, rtol=1e-12, atol=1e-12)


def test_further_dimensions_are_positions():
    """A linear layer on sequences is a 1 x 1 convolution."""
    linear, conv = nn.Linear(3, 2).double(), nn.Conv2d(3, 2, 1).double()
    x, g = normal(4, 5, 3), normal(4, 5, 2)
    torch.testing.assert_close(input_factor(linear, x), input_factor(conv, x.mT[..., None]))
    torch.testing.assert_close(output_factor(linear, g), output_factor(conv, g.mT[..., None]))


# The update


def test_damping_by_hand():
    A, G = torch.diag(torch.tensor([4.0, 12.0])).double(), torch.diag(torch.tensor([1.0, 2.0, 3.0])).double()
    assert damping_ratio(A, G) == 2  # sqrt((16 / 2) / (6 / 3))
    A_inverse, G_inverse = damped_inverses(A, G, 0.25)
    torch.testing.assert_close(A_inverse.diag(), 1 / torch.tensor([5.0, 13.0]).double())
    torch.testing.assert_close(G_inverse.diag(), 1 / torch.tensor([1.25, 2.25, 3.25]).double())
    assert damping_ratio(A, 0 * G) == 1


def test_one_step_solves_linear_regression():
    model, x = build(nn.Linear(3, 2)), normal(12, 3)
    y = x @ normal(3, 2, seed=3) + 1
    optimizer = KFAC(model, 1.0, 0.0, damping=1e-20, kl_clip=math.inf, fisher="exact", likelihood="squared")
    optimizer.curvature(output := model(x))
    functional.mse_loss(output, y).backward()
    optimizer.step()
    assert functional.mse_loss(model(x), y) < 1e-16


@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("kl_clip", [1e-3, math.inf])
def test_the_path_is_that_of_the_written_out_equations(decoupled, kl_clip):
    lr, momentum, damping, decay, factor_decay = 0.3, 0.8, 0.1, 0.01, 0.6
    model, literal = perceptron(), perceptron()
    optimizer = KFAC(
        model, lr, momentum, damping, factor_decay, kl_clip, decay, decoupled=decoupled, factors_every=2, inverses_every=4
    )
    theta = [torch.cat([m.weight, m.bias[:, None]], 1).detach() for m in (literal[0], literal[2])]
    m, factors, j = [torch.zeros_like(W) for W in theta], [None, None], 0
    x1 = torch.cat([POINTS, torch.ones(12, 1, dtype=DOUBLE)], 1)
    for step in range(9):
        h = torch.cat([torch.tanh(x1 @ theta[0].T), torch.ones(12, 1, dtype=DOUBLE)], 1)
        g2 = torch.softmax(h @ theta[1].T, 1) - functional.one_hot(CLASSES, 4)
        g1 = g2 @ theta[1][:, :-1] * (1 - h[:, :-1] ** 2)
        gradients = [g1.T @ x1 / 12, g2.T @ h / 12]
        if step % 2 == 0:
            j += 1
            c = min(1 - 1 / j, factor_decay)
            new = [(x1.T @ x1 / 12, g1.T @ g1 / 12), (h.T @ h / 12, g2.T @ g2 / 12)]
            if j == 1:
                factors = new
            factors = [(c * A + (1 - c) * a, c * G + (1 - c) * g) for (A, G), (a, g) in zip(factors, new, strict=True)]
        if step % 4 == 0:
            inverses = []
            for A, G in factors:
                pi = math.sqrt((A.trace() / len(A)) / (G.trace() / len(G)))
                eye = torch.eye(len(A), dtype=DOUBLE), torch.eye(len(G), dtype=DOUBLE)
                inverses.append((torch.inverse(A + pi * damping**0.5 * eye[0]), torch.inverse(G + damping**0.5 / pi * eye[1])))
        if not decoupled:
            gradients = [g + decay * W for g, W in zip(gradients, theta, strict=True)]
        V = [G @ g @ A for (A, G), g in zip(inverses, gradients, strict=True)]
        nu = min(1.0, math.sqrt(kl_clip / (lr**2 * sum((v * g).sum().item() for v, g in zip(V, gradients, strict=True)))))
        m = [momentum * old + nu * v for old, v in zip(m, V, strict=True)]
        theta = [W - lr * (d + (decay * W if decoupled else 0)) for W, d in zip(theta, m, strict=True)]
        train(optimizer, model, 1)
        for layer, W in zip((model[0], model[2]), theta, strict=True):
            torch.testing.assert_close(torch.cat([layer.weight, layer.bias[:, None]], 1), W, rtol=1e-10, atol=1e-10)
    assert nu < 1 or kl_clip == math.inf


def test_other_parameters_take_plain_sgd():
    model = convolutional()
    optimizer = KFAC(model, lr=0.1, momentum=0.5, skip=[model[4]])
    twin = copy.deepcopy(model)
    plain = [twin[2].weight, twin[2].bias, twin[4].weight, twin[4].bias]
    sgd = torch.optim.SGD(plain, lr=0.1, momentum=0.5)
    for _ in range(3):
        functional.cross_entropy(twin(IMAGES), CLASSES).backward()
        sgd.step()
        train(optimizer, model, 1, IMAGES)
        for p, q in zip([*model[2].parameters(), *model[4].parameters()], plain, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
        twin.load_state_dict(model.state_dict())
        twin.zero_grad()
    assert list(optimizer.factors) == [model[0]]


@pytest.mark.parametrize("fisher", ["empirical", "mc", "exact"])
@pytest.mark.parametrize(("make", "x"), [(perceptron, POINTS), (convolutional, IMAGES)], ids=["perceptron", "convolutional"])
def test_training_is_faster_than_sgd_at_the_same_rate(make, x, fisher):
    """Same start, rate and momentum, 30 steps, deterministic: the loss at the end is less than half."""
    model, other = make(), make()
    optimizer = KFAC(model, lr=0.03, fisher=fisher, kl_clip=0.01)
    sgd = torch.optim.SGD(other.parameters(), lr=0.03, momentum=0.9)
    losses = train(optimizer, model, 30, x)
    for _ in range(30):
        sgd.zero_grad()
        loss = functional.cross_entropy(other(x), CLASSES)
        loss.backward()
        sgd.step()
    assert losses[-1] < loss.item() / 2 and losses[-1] < losses[0] / 4


# When factors are estimated


def counts(optimizer):
    return [optimizer.state.get(p, {}).get("estimates", 0) for p in optimizer.param_groups[0]["params"] if p.dim() > 1]


@pytest.mark.parametrize("fisher", ["empirical", "mc"])
def test_factors_and_inverses_have_rhythms_of_their_own(fisher):
    model = perceptron()
    optimizer = KFAC(model, factors_every=2, inverses_every=3, fisher=fisher)
    inverses = []
    for _ in range(7):
        train(optimizer, model, 1)
        inverses.append(optimizer.state[model[0].weight]["A_inverse"])
    assert counts(optimizer) == [4, 4]
    assert [a is b for a, b in zip(inverses, inverses[1:], strict=False)] == [True, True, False, True, True, False]


def test_forwards_that_do_not_train_leave_the_factors_alone():
    model, other = perceptron(), perceptron()
    optimizer, alone = KFAC(model), KFAC(other)
    for _ in range(3):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(POINTS), CLASSES)
        with torch.no_grad():
            model(3 * POINTS)
        model.eval()
        model(5 * POINTS).sum().backward(inputs=[model[0].weight])
        model.train()
        model[0].weight.grad = None
        model(7 * POINTS)  # no pass backward
        loss.backward()
        optimizer.step()
        train(alone, other, 1)
    assert torch.equal(flat(model), flat(other))
    for layer, twin in ((model[0], other[0]), (model[2], other[2])):
        assert all(torch.equal(F, E) for F, E in zip(optimizer.factors[layer], alone.factors[twin], strict=True))


def test_batches_of_different_size_and_several_passes():
    model = perceptron()
    optimizer = KFAC(model)
    for batch in (POINTS[:5], POINTS[5:]):
        functional.cross_entropy(model(batch), CLASSES[: len(batch)]).backward()
    optimizer.step()
    A, _ = optimizer.factors[model[0]]
    torch.testing.assert_close(A, input_factor(model[0], POINTS))
    train(optimizer, model, 1, POINTS[:1], CLASSES[:1])
    assert counts(optimizer) == [2, 2]


@pytest.mark.parametrize("sizes", [[12], [6, 6], [4, 4, 4], [3, 9]], ids=str)
@pytest.mark.parametrize("fisher", ["empirical", "exact"])
def test_micro_batches_give_the_factors_and_the_step_of_the_whole_batch(fisher, sizes):
    model, other = perceptron(), perceptron()
    optimizer, whole = (KFAC(m, fisher=fisher) for m in (model, other))
    train(whole, other, 1)
    for x, y in zip(POINTS.split(sizes), CLASSES.split(sizes), strict=True):
        output = model(x)
        if fisher == "exact":
            optimizer.curvature(output)
        (functional.cross_entropy(output, y) * len(x) / 12).backward()
    optimizer.step()
    torch.testing.assert_close(flat(model), flat(other), rtol=1e-10, atol=1e-12)
    for layer, twin in ((model[0], other[0]), (model[2], other[2])):
        for found, expected in zip(optimizer.factors[layer], whole.factors[twin], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


class Turned(nn.Module):
    """Positions first inside."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return self.inside(x.transpose(0, 1)).transpose(0, 1)


@pytest.mark.parametrize("fisher", ["empirical", "mc", "exact"])
def test_sequences_say_which_dimension_counts_the_examples(fisher):
    """(4, 5, 3) and the same with positions first: the same factors, and the same steps."""
    x, y, found = normal(4, 5, 3), normal(4, 5, 4, seed=1), []
    for first in (True, False):
        model = perceptron()
        optimizer = KFAC(model, fisher=fisher, likelihood="squared", batch_first=first)
        output = model(x if first else x.transpose(0, 1))
        if fisher != "empirical":
            optimizer.curvature(output)
        functional.mse_loss(output, y if first else y.transpose(0, 1)).backward()
        optimizer.step()
        found.append([flat(model), *optimizer.factors[model[0]], *optimizer.factors[model[2]]])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    model = Turned(perceptron())
    optimizer = KFAC(model, fisher=fisher, likelihood="squared")
    with pytest.raises(ValueError, match=r"^layer 'inside.0' has an input of shape \(5, 4, 3\), .* say batch_first=True or"):
        model(x)


def test_a_model_that_was_compiled_before_says_so():
    model = perceptron()
    forward = torch.compile(model, backend="eager")
    functional.cross_entropy(forward(POINTS), CLASSES).backward()
    optimizer = KFAC(model)
    optimizer.zero_grad()
    functional.cross_entropy(forward(POINTS), CLASSES).backward()
    with pytest.raises(RuntimeError, match=r"compiled and has run before K-FAC was built .*: torch.compiler.reset\(\) first$"):
        optimizer.step()
    torch.compiler.reset()
    optimizer.zero_grad()
    functional.cross_entropy(forward(POINTS), CLASSES).backward()
    optimizer.step()


def test_a_cleared_pass_leaves_nothing_behind():
    model, other = perceptron(), perceptron()
    optimizer, fresh = KFAC(model), KFAC(other)
    functional.cross_entropy(model(3 * POINTS), CLASSES).backward()
    train(optimizer, model, 1)
    train(fresh, other, 1)
    assert torch.equal(flat(model), flat(other))


def test_frozen_layers_rest_and_may_be_released():
    model = perceptron()
    model[0].requires_grad_(False)
    model[2].bias.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    optimizer = KFAC(model)
    train(optimizer, model, 2)
    assert torch.equal(model[0].weight, before["0.weight"]) and torch.equal(model[2].bias, before["2.bias"])
    assert list(optimizer.factors) == [model[2]] and optimizer.factors[model[2]][0].shape == (5, 5)
    model.requires_grad_(True)
    train(optimizer, model, 1)
    assert optimizer.factors[model[2]][0].shape == (6, 6) and counts(optimizer) == [1, 1]


def test_activations_in_place_change_nothing():
    paths = []
    for inplace in (False, True):
        model = build(nn.Linear(3, 5), nn.ReLU(inplace), nn.Linear(5, 4))
        train(KFAC(model), model, 3)
        paths.append(flat(model))
    assert torch.equal(*paths)


# What is kept


@pytest.mark.parametrize("options", [{}, {"fisher": "mc"}, {"factors_every": 2, "inverses_every": 5}], ids=str)
def test_a_run_resumes_bit_for_bit(options):
    model = convolutional()
    optimizer = KFAC(model, **options)
    train(optimizer, model, 3, IMAGES)
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    train(optimizer, model, 4, IMAGES)

    file.seek(0)
    weights, saved = torch.load(file)
    again = convolutional()
    again.load_state_dict(weights)
    resumed = KFAC(again, generator=torch.Generator().manual_seed(99), **options)
    resumed.load_state_dict(saved)
    train(resumed, again, 4, IMAGES)
    assert torch.equal(flat(again), flat(model))


def test_the_global_random_state_is_untouched():
    model = perceptron()
    before = torch.get_rng_state()
    train(KFAC(model, fisher="mc"), model, 2)
    assert torch.equal(before, torch.get_rng_state())


def test_a_copy_of_the_model_is_not_watched():
    model = perceptron()
    optimizer = KFAC(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin(POINTS).sum().backward()
    assert not optimizer._statistics.factors()
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="build one on the copy, and load the state_dict"):
            duplicate(optimizer)


def test_hooks_go_with_the_optimiser_or_when_asked():
    model = perceptron()
    KFAC(model).remove_hooks()
    assert not any(m._forward_hooks for m in model.modules())
    KFAC(model)  # gone at once; its hooks are dead
    model(POINTS).sum().backward()


# What is refused


def test_a_layer_used_twice():
    layer = nn.Linear(3, 3).double()
    model = nn.Sequential(layer, nn.Tanh(), layer)
    optimizer = KFAC(model)
    with pytest.raises(RuntimeError, match="layer '0' is used twice in one pass: .* skip="):
        functional.cross_entropy(model(POINTS), CLASSES % 3).backward()
    optimizer.remove_hooks()
    assert train(KFAC(model, skip=[layer]), model, 1, y=CLASSES % 3)


def test_tied_weights():
    model = build(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    with pytest.raises(ValueError, match="layers '0' and '2' share a parameter"):
        KFAC(model)
    KFAC(model, skip=[model[0], model[2]])


def test_a_step_needs_factors():
    model = perceptron()
    for optimizer, call in [(KFAC(model), "loss.backward"), (KFAC(model, fisher="mc"), r"optimizer.curvature\(output\)")]:
        model.eval()
        model(POINTS).sum().backward()
        model.train()
        with pytest.raises(RuntimeError, match=f"no factors for this step: .* {call}"):
            optimizer.step()
    with pytest.raises(RuntimeError, match="the output has no graph"):
        optimizer.curvature(model(POINTS).detach())
    with pytest.raises(RuntimeError, match="fisher is 'empirical'"):
        KFAC(model).curvature(model(POINTS))


NAN, INF = math.nan, math.inf
REFUSED = {
    "lr": [-1.0, NAN, INF, "0.1"],
    "momentum": [-0.1, 1.0, NAN],
    "damping": [0.0, -1.0, NAN, INF],
    "factor_decay": [1.0, -0.1, NAN],
    "kl_clip": [0.0, -1.0, NAN, None],
    "weight_decay": [-1.0, NAN],
    "decoupled": ["no", None],
    "factors_every": [0, 1.5],
    "inverses_every": [0, 1.5],
    "fisher": ["true", None],
    "likelihood": ["poisson", None],
    "batch_first": ["yes", 1],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_options_are_checked(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .*, got "):
        KFAC(perceptron(), **{name: value})


class Doubled(nn.Linear):
    """No plain Linear: of the factors of one, K-FAC would make a wrong step."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_layers_without_factors_are_named():
    """A subclass, a convolution in groups and one that is padded otherwise, unless they are in `skip` or frozen."""
    others = [
        Doubled(3, 3),
        nn.Conv2d(2, 2, 1, groups=2),
        nn.Conv2d(2, 2, 3, padding="same"),
        nn.Conv2d(2, 2, 3, padding_mode="circular"),
    ]
    for other in others:
        model = nn.Sequential(nn.Linear(3, 3), other)
        with pytest.warns(UserWarning, match=r"^layers \['1'\] have no Kronecker factors"):
            optimizer = KFAC(model)
        assert list(optimizer._statistics.layers) == ["0"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            KFAC(model, skip=[other])
            other.requires_grad_(False)
            KFAC(model)
    with (
        pytest.warns(UserWarning, match=r"^layers \['0'\] have no Kronecker factors"),
        pytest.raises(ValueError, match="^model has no"),
    ):
        kronecker_factors(nn.Sequential(Doubled(3, 1)), torch.ones(1, 3))


def test_the_library_s_convolution_has_factors_where_it_is_named():
    """Those of torch's own, on a residual network whose every convolution is the library's."""
    model, x = resnet(8, torch.Generator().manual_seed(0), 2, 3).double(), normal(4, 3, 8, 8, seed=1)
    layers = [name for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    ours = kronecker_factors(model, x, subclasses=[Conv2d])
    theirs = kronecker_factors(with_layers_of_torch(model, Conv2d), x)
    assert list(ours) == list(theirs) == layers and len(layers) == 8
    for name, factors in ours.items():
        torch.testing.assert_close(factors, theirs[name], rtol=1e-9, atol=1e-12)
    assert list(KFAC(model.float(), subclasses=[Conv2d])._statistics.layers) == layers


def test_models_and_groups_are_checked():
    with pytest.raises(ValueError, match="subclasses must be of Linear or Conv2d, got BatchNorm2d"):
        KFAC(perceptron(), subclasses=[nn.BatchNorm2d])
    with pytest.raises(ValueError, match="model must be of type float32 or float64, got torch.bfloat16 in layer '0'"):
        KFAC(perceptron().bfloat16())
    with pytest.raises(ValueError, match="params must be those of the model"):
        KFAC(perceptron()).add_param_group({"params": [torch.ones(1)]})
    with pytest.raises(ValueError, match="fisher must be one of mc, exact"):
        kronecker_factors(perceptron(), POINTS, fisher="empirical")
