"""What may be handed over as loss, parameters and data: the right value or one line, in float64."""

import copy
import functools
import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from secondlook.curvature import (
    Averaged,
    Bekas,
    Composed,
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
    dense,
    hessian_diagonal,
    of_module,
)
from secondlook.curvature.batches import Batches, count
from secondlook.curvature.gauss_newton_product import GaussNewton
from secondlook.curvature.objective import hessian_of
from secondlook.curvature.products import GraphHessian
from secondlook.curvature.spectrum import condition_number, eigenpairs, spectral_density, trace
from secondlook.curvature.vectors import flat
from secondlook.optim import KFAC, OASIS, AdaBelief, AdaHessian, Newton, Sophia, Steihaug, TrustRegion

CLOSE = {"rtol": 1e-10, "atol": 1e-12}
X = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(8, 2)
Y = torch.sin(3 * X)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def perceptron(*middle):
    """Two layers with parameters of a seed of their own."""
    module = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), *middle, nn.Linear(3, 2)).double()
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(generator=seeded(p.numel()))
    return module


def mean_square(theta, x, y):
    """Of a layer of tanh units (2, 2)."""
    return ((torch.tanh(x @ theta[0]) - y) ** 2).mean()


W = torch.tensor([[0.3, -0.5], [0.8, 0.1]], dtype=torch.float64)
H = torch.autograd.functional.hessian(lambda w: mean_square([w.view(2, 2)], X, Y), W.reshape(-1))


class Generating:
    """Goes through one generator, whoever asks."""

    def __init__(self, batches):
        self.generator = (batch for batch in batches)

    def __iter__(self):
        return self.generator


class Stream(IterableDataset):
    def __init__(self, batches):
        self.batches = iter(batches)

    def __iter__(self):
        yield from self.batches


PAIRS = list(zip(X.split((5, 3)), Y.split((5, 3)), strict=True))
FORMS = {  # of the same data
    "tuple": (X, Y),
    "list": [X, Y],
    "batches": PAIRS,
    "lists": [list(pair) for pair in PAIRS],
    "tuple of batches": tuple(PAIRS),
    "loader": DataLoader(TensorDataset(X, Y), batch_size=3),
    "shuffled": DataLoader(TensorDataset(X, Y), batch_size=3, shuffle=True, generator=seeded()),
    "next of a loader": next(iter(DataLoader(TensorDataset(X, Y), batch_size=8))),
}
ALL = {  # every function of a Hessian, of which all have one value
    "hessian_diagonal": (lambda *of: flat(hessian_diagonal(*of, method=Exact())), H.diagonal()),
    "dense.hessian": (dense.hessian, H),
    "eigenpairs": (lambda *of: eigenpairs(*of, count=4, generator=seeded())[0], torch.linalg.eigvalsh(H).flip(0)),
    "trace": (lambda *of: torch.tensor(trace(*of, products=12, generator=seeded()), dtype=torch.float64), H.trace()),
    "spectral_density": (lambda *of: spectral_density(*of, steps=4, generator=seeded()).nodes[0], torch.linalg.eigvalsh(H)),
}
every_function = pytest.mark.parametrize(("function", "expected"), ALL.values(), ids=ALL)


@every_function
@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_data_may_come_in_many_forms(function, expected, data):
    torch.testing.assert_close(function(mean_square, [W], data), expected, rtol=1e-8, atol=1e-10)


@every_function
def test_a_loss_may_come_in_many_forms(function, expected):
    w = W.clone().requires_grad_()
    module = nn.Linear(2, 2, bias=False).double()
    module.weight.data.copy_(W.T)
    reorder = torch.arange(4).reshape(2, 2).T.reshape(-1)  # the module's weight is the transpose
    g = torch.autograd.grad(mean_square([w], X, Y), [w], create_graph=True)
    for of in (
        (mean_square([w], X, Y), [w]),
        (lambda theta: mean_square(theta, X, Y), [W]),
        (Composed(lambda theta, x: torch.tanh(x @ theta[0]), functional.mse_loss), [W], (X, Y)),
        (GraphHessian(g, [w]),),
        (Objective(mean_square, [W], (X, Y)),),
    ):
        torch.testing.assert_close(function(*of), expected, rtol=1e-8, atol=1e-10)
    found = function(of_module(module, lambda f, y: ((torch.tanh(f) - y) ** 2).mean()), module.parameters(), PAIRS)
    if found.dim() == 2:
        found = found[reorder][:, reorder]
    elif torch.equal(expected, H.diagonal()):
        found = found[reorder]
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_a_condition_number_takes_the_same_forms():
    w = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    expected = pytest.approx(12 / 6)
    assert condition_number((w**3).sum(), [w], generator=seeded()) == expected
    for of in (
        (lambda theta: (theta[0] ** 3).sum(), [w]),
        (lambda theta, x, y: (x @ theta[0] ** 3).mean(), [w], (torch.ones(3, 2).double(), X)),
    ):
        assert condition_number(*of, generator=seeded()) == expected


@every_function
@pytest.mark.parametrize(
    "data",
    [
        lambda: zip(X.split(4), Y.split(4), strict=True),
        lambda: (pair for pair in PAIRS),
        lambda: iter(PAIRS),
        lambda: map(tuple, PAIRS),
        lambda: iter(DataLoader(TensorDataset(X, Y), batch_size=4)),
    ],
    ids=["zip", "generator", "iterator", "map", "loader"],
)
def test_what_one_pass_uses_up_is_refused(function, expected, data):
    with pytest.raises(TypeError, match="^data is used up by one pass .*: hand over list"):
        function(mean_square, [W], data())


@every_function
@pytest.mark.parametrize("make", [Generating, lambda batches: DataLoader(Stream(batches), batch_size=None)], ids=["", "loader"])
def test_what_is_used_up_unseen_is_found_out(function, expected, make):
    module = perceptron()
    for of in ((mean_square, [W]), (of_module(module, functional.mse_loss), module.parameters())):
        with pytest.raises(RuntimeError, match="^data had 8 examples in the first pass and 0 in this one: is it used up"):
            function(*of, make(PAIRS))
    data = make(PAIRS)
    assert len(list(data)) == 2  # the user's own pass
    with pytest.raises(ValueError, match="^data holds no examples; what one pass uses up is empty in the next$"):
        function(mean_square, [W], data)


def test_parameters_that_an_optimiser_used_up_are_missed():
    module = perceptron()
    params = module.parameters()
    AdaHessian(params)
    with pytest.raises(ValueError, match="^params holds no tensor; an iterator, such as module.parameters.., is used up"):
        hessian_diagonal(of_module(module, functional.mse_loss), params, (X, Y))


@pytest.mark.parametrize("container", ["dict", "tuple", "list", "nested"])
def test_examples_of_nested_inputs_are_counted(container):
    """Of batches of 5 and 3 with inputs a and b: as if these were one tensor."""

    def inputs(x):
        a, b = x[:, :1], x[:, 1:]
        return {"dict": {"a": a, "b": b, "scale": 1.0}, "tuple": (a, b), "list": [a, b, None], "nested": ({"a": a}, [b])}[
            container
        ]

    def loss(theta, x, y):
        match container:
            case "dict":
                a, b = x["a"], x["b"]
            case "nested":
                a, b = x[0]["a"], x[1][0]
            case _:
                a, b = x[:2]
        return mean_square(theta, torch.cat([a, b], 1), y)

    nested = [(inputs(x), y) for x, y in PAIRS]
    for data in (nested, [list(pair) for pair in nested]):
        torch.testing.assert_close(dense.hessian(loss, [W], data), H, **CLOSE)
        assert [count(x) for x, _ in Batches(data)] == [5, 3]
    one = (inputs(X), Y)
    torch.testing.assert_close(flat(hessian_diagonal(loss, [W], one, Exact())), H.diagonal(), **CLOSE)


class Fused(nn.Module):
    """Takes what a tokeniser makes."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 2)

    def forward(self, batch):
        return self.head((self.embed(batch["input_ids"]) * batch["attention_mask"][..., None]).mean(1))


def test_a_module_may_take_a_mapping():
    module = Fused().double()
    ids = torch.arange(35).reshape(7, 5) % 5
    batch, y = {"input_ids": ids, "attention_mask": (ids > 0).double()}, torch.arange(7) % 2
    parts = [({name: t[rows] for name, t in batch.items()}, y[rows]) for rows in (slice(0, 2), slice(2, 7))]
    loss = of_module(module, functional.cross_entropy)
    whole = hessian_diagonal(loss, module.parameters(), (batch, y), Exact())
    torch.testing.assert_close(hessian_diagonal(loss, module.parameters(), parts, Exact()), whole, **CLOSE)
    G = dense.matrix(GaussNewton(Objective(loss, module.parameters(), parts)))
    torch.testing.assert_close(G, dense.matrix(GaussNewton(Objective(loss, module.parameters(), (batch, y)))), **CLOSE)
    for method in (PerExample(), GaussNewtonDiagonal()):
        with pytest.raises(
            TypeError, match=f"^{type(method).__name__} takes batches apart: .* must be one tensor each, got dict"
        ):
            hessian_diagonal(loss, module.parameters(), parts, method)


def test_an_autoencoder_with_a_batch_of_two():
    module, (x, _) = perceptron(), (X[:2], None)
    loss = of_module(module, functional.mse_loss)
    expected = dense.hessian(lambda theta: loss(theta, x, x), module.parameters())
    for data in ([x, x], (x, x), [(x, x)], [[x, x]]):
        torch.testing.assert_close(dense.hessian(loss, module.parameters(), data), expected, **CLOSE)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (X, TypeError, r"a batch must be a pair \(x, y\) of inputs and targets, got Tensor"),
        ((X, Y, Y), TypeError, r"a batch must be a pair \(x, y\) of inputs and targets, got Tensor"),
        ([(X, Y, Y)], TypeError, r"a batch must be a pair \(x, y\) of inputs and targets, got tuple of 3"),
        ([{"ids": X, "labels": Y}], TypeError, r"a batch must be a pair .*, got dict with ids, labels"),
        ([{"ids": X, "labels": Y}] * 2, TypeError, r"a batch must be a pair .*, got dict with ids, labels"),
        ({"ids": X, "labels": Y}, TypeError, r"a batch must be a pair .*, got str"),
        (((X, X[:3]), Y), TypeError, "inputs need tensors with the examples in front, got tuple of 2 of 3 and 8"),
        ((X.numpy(), Y), TypeError, "inputs need tensors with the examples in front, got ndarray of no tensor"),
        ((torch.tensor(1.0), Y), TypeError, "inputs need tensors with the examples in front, got Tensor of no tensor"),
        ([], ValueError, "data holds no examples"),
        (TensorDataset(X, Y), TypeError, r"data is a set of single examples \(TensorDataset\): hand over DataLoader"),
        (7, TypeError, r"data must be a batch \(x, y\) or several, got int"),
    ],
)
def test_what_is_no_data_is_refused_in_a_line(data, error, message):
    with pytest.raises(error, match=message):
        Objective(mean_square, [W], data)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.attention(x[:, None], x[:, None].expand(-1, 4, -1), x[:, None].expand(-1, 4, -1))[0][:, 0]


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer = kind(3, 3, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.layer(x[:, None])[0][:, 0]


class Careless(nn.Module):
    """Drops in evaluation, too."""

    def forward(self, x):
        return functional.dropout(x, 0.5)


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x) if self.training else x


class Counting(nn.Module):
    """Is no function of its input in training: it changes a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        self.calls += self.training
        return x * (1 + self.calls)


RANDOM = {
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "attention": Attention,
    "rrelu": nn.RReLU,
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)),
    "encoder": lambda: nn.TransformerEncoderLayer(3, 1, 4, batch_first=True),
    "spectral norm by hooks": lambda: nn.utils.spectral_norm(nn.Linear(3, 3)),
    "noise": Noise,
    "counting": Counting,
}


@pytest.mark.parametrize("make", RANDOM.values(), ids=RANDOM)
def test_modules_that_are_no_function_in_training_are_refused(make):
    module = perceptron(make())
    loss, buffers, state = of_module(module, functional.mse_loss), copy.deepcopy(module.state_dict()), torch.get_rng_state()
    with pytest.raises(
        ValueError, match="^two evaluations of one batch differ|is in training mode: curvature needs module.eval"
    ):
        Objective(loss, module.parameters(), (X, Y))
    assert all(torch.equal(a, b) for a, b in zip(buffers.values(), module.state_dict().values(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    module.eval()
    Objective(loss, module.parameters(), (X, Y))


def test_dropout_that_never_ends_is_refused():
    module = perceptron(Careless()).eval()
    with pytest.raises(ValueError, match=r"^two evaluations of one batch differ, .*functional.dropout training=self.training$"):
        hessian_diagonal(of_module(module, functional.mse_loss), module.parameters(), (X, Y))


@pytest.mark.parametrize("middle", [nn.LayerNorm(3), nn.BatchNorm1d(3).eval(), nn.LSTM(3, 3)], ids=["layer", "batch", "lstm"])
def test_modules_that_are_functions_in_training_are_taken(middle):
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = middle

        def forward(self, x):
            found = self.inner(x)
            return found[0] if isinstance(found, tuple) else found

    module = perceptron(First())
    loss = functional.mse_loss(module(X), Y)  # its graph holds buffers, which stay as they are
    Objective(of_module(module, functional.mse_loss), module.parameters(), (X, Y))
    loss.backward()


def square_net():
    """Three layers whose weights have equal shapes."""
    module = nn.Sequential(*itertools.chain.from_iterable((nn.Linear(2, 2), nn.Tanh()) for _ in range(3))).double()
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.normal_(generator=seeded(i))
    return module


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (4, 5, 2, 3, 0, 1), (2, 0, 4), (5,), (3, 2)], ids=str)
def test_parameters_stand_for_themselves_in_any_order(order):
    """Also some of them, and frozen ones: their rows and columns of the whole Hessian."""
    module = square_net()
    params = list(module.parameters())
    first = [0, *itertools.accumulate(p.numel() for p in params)]
    whole = torch.autograd.functional.hessian(
        lambda t: functional.mse_loss(
            torch.func.functional_call(
                module,
                {
                    name: t[a:b].view(p.shape)
                    for (name, p), a, b in zip(module.named_parameters(), first, first[1:], strict=False)
                },
                (X,),
            ),
            Y,
        ),
        flat(params).detach(),
    )
    entries = torch.cat([torch.arange(first[i], first[i + 1]) for i in order])
    module[2].requires_grad_(False)
    loss, given = of_module(module, functional.mse_loss), [params[i] for i in order]
    for data in ((X, Y), PAIRS):
        torch.testing.assert_close(dense.hessian(loss, given, data), whole[entries][:, entries], **CLOSE)
        torch.testing.assert_close(flat(hessian_diagonal(loss, iter(given), data, Exact())), whole.diagonal()[entries], **CLOSE)
    assert [p.requires_grad for p in params] == [True, True, False, False, True, True]


def test_a_shared_weight_counts_with_all_its_uses():
    module = square_net()
    module[4].weight = module[0].weight
    (found,) = hessian_diagonal(of_module(module, functional.mse_loss), [module[4].weight], (X, Y), Exact())
    loss = functional.mse_loss(module(X), Y)
    torch.testing.assert_close([found], hessian_diagonal(loss, [module[0].weight], method=Exact()), **CLOSE)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda m, c: Objective(of_module(m, c), [W.clone()], (X, Y)),
            ValueError,
            r"params\[0\] of shape \(2, 2\) is no parameter of the module",
        ),
        (lambda m, c: Objective(of_module(m, c), [*m.parameters()] * 2, (X, Y)), ValueError, "params holds a tensor twice"),
        (lambda m, c: Objective(of_module(m, c), m.named_parameters(), (X, Y)), TypeError, "params must be tensors, got tuple"),
        (lambda m, c: Objective(mean_square, W, (X, Y)), TypeError, "params must be tensors in a list, got one tensor"),
        (
            lambda m, c: Objective(mean_square, [W.to(torch.complex128)], (X, Y)),
            TypeError,
            r"dense real tensors, got torch.strided of type torch.complex128 for params\[0\]",
        ),
        (lambda m, c: Objective(mean_square, [W.to_sparse()], (X, Y)), TypeError, "dense real tensors, got torch.sparse_coo"),
        (
            lambda m, c: Objective(m, m.parameters(), (X, Y)),
            TypeError,
            r"loss_fn must be a function \(theta, x, y\), or of_module\(module, criterion\), got Sequential",
        ),
        (lambda m, c: Objective(c(m(X), Y), m.parameters(), (X, Y)), TypeError, "loss_fn must be a function .*, got Tensor"),
        (
            lambda m, c: hessian_diagonal(lambda theta, x, y: c(m(x), y), m.parameters(), (X, Y)),
            RuntimeError,
            "the loss does not depend on the parameters",
        ),
        (
            lambda m, c: hessian_of(c(m(X), Y), [W.clone().requires_grad_()]),
            RuntimeError,
            "the loss does not depend on the parameters",
        ),
        (lambda m, c: hessian_of(c(m(X), Y).detach(), m.parameters()), RuntimeError, "the loss has no graph"),
        (
            lambda m, c: hessian_of(c(m[2](m[1](m[0].requires_grad_(False)(X))), Y), m.parameters()),
            ValueError,
            r"params\[0\] is frozen, and the loss knows nothing of it: leave it out",
        ),
        (lambda m, c: eigenpairs(c(m(X), Y)), TypeError, r"a Hessian needs \(loss, params\), .* got Tensor alone"),
        (
            lambda m, c: trace(c(m(X), Y), m.parameters(), reduction="sum"),
            TypeError,
            "reduction are options of a loss over data",
        ),
    ],
)
def test_what_is_no_loss_or_parameter_is_refused_in_a_line(call, error, message):
    with pytest.raises(error, match=message):
        call(perceptron(), functional.mse_loss)


@pytest.mark.parametrize("method", [PerExample(), PerExample(groups=2), GaussNewtonDiagonal()], ids=str)
@pytest.mark.parametrize("data", [(X[0], torch.tensor(1)), (X, torch.arange(16) % 2)], ids=["one example", "positions"])
def test_what_cannot_be_taken_apart_is_refused(method, data):
    loss = of_module(perceptron(), lambda f, y: (f**2).mean())
    with pytest.raises(TypeError, match=f"^{type(method).__name__} takes batches apart: got inputs .* of other examples$"):
        hessian_diagonal(loss, loss.module.parameters(), data, method)


def test_the_reduction_of_a_criterion_is_that_of_the_objective():
    module = perceptron()
    loss = of_module(module, nn.MSELoss(reduction="sum"))
    with pytest.raises(ValueError, match="^reduction must be that of the criterion, 'sum', got 'mean'$"):
        hessian_diagonal(loss, module.parameters(), PAIRS)
    found = hessian_diagonal(loss, module.parameters(), PAIRS, Exact(), reduction="sum")
    expected = hessian_diagonal(of_module(module, nn.MSELoss()), module.parameters(), PAIRS, Exact())
    torch.testing.assert_close(flat(found), 16 * flat(expected), **CLOSE)
    each = of_module(module, functools.partial(functional.mse_loss, reduction="none"))
    with pytest.raises(RuntimeError, match=r"^the loss must be one number, got shape \(5, 2\): take its mean or sum$"):
        hessian_diagonal(each, module.parameters(), PAIRS)


HALF = {
    "eigenpairs": eigenpairs,
    "trace": trace,
    "spectral_density": lambda *of: spectral_density(*of, steps=3),
    "condition_number": condition_number,
    "XDiag": lambda *of: hessian_diagonal(*of, XDiag(4)),
    "DiagPlusPlus": lambda *of: hessian_diagonal(*of, DiagPlusPlus(6)),
}


@pytest.mark.parametrize("call", HALF.values(), ids=HALF)
def test_half_precision_has_no_factorisations_and_has_products(call):
    module = perceptron().bfloat16()
    of = of_module(module, functional.mse_loss), module.parameters(), (X.bfloat16(), Y.bfloat16())
    with pytest.raises(TypeError, match="needs parameters in float32 or float64, got torch.bfloat16: take model.float"):
        call(*of)
    assert {d.dtype for d in hessian_diagonal(of[0], module.parameters(), of[2], Hutchinson(), seeded())} == {torch.bfloat16}


@pytest.mark.parametrize("method", [Exact(), Hutchinson(), XDiag(4), XDiag(1000), DiagPlusPlus(6), PerExample()], ids=str)
def test_every_parameter_keeps_its_type(method):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 3).double(), nn.Linear(3, 2)

        def forward(self, x):
            return self.second(torch.tanh(self.first(x)).float())

    module = Mixed()
    D = hessian_diagonal(of_module(module, lambda f, y: (f**2).mean()), module.parameters(), (X, Y), method, seeded())
    assert [d.dtype for d in D] == [p.dtype for p in module.parameters()]


ESTIMATORS = [
    Exact(),
    Hutchinson(2),
    Hutchinson(2, "gaussian"),
    Bekas(3),
    XDiag(6),
    XDiag(1000),
    DiagPlusPlus(6),
    DiagPlusPlus(1000),
    LayerWise(),
    LayerWise(Exact()),
    Averaged(Exact(), 2),
    MeanSquare(2),
    PerExample(2),
    Preactivations(2),
    FiniteDifferences(),
    GaussNewtonDiagonal(),
    GaussNewtonBartlett(),
]
IMAGES, LABELS = torch.sin(torch.arange(5 * 2 * 4 * 4, dtype=torch.float64)).view(5, 2, 4, 4), torch.arange(5) % 2


def convolution(strided):
    """A small network; or the same one with parameters that are not contiguous, in two ways."""
    module = nn.Sequential(nn.Conv2d(2, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(18, 2)).double()
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.copy_(torch.cos(torch.arange(p.numel()).double() + i).view(p.shape) / 3)
    if strided:
        module.to(memory_format=torch.channels_last)
        module[3].weight = nn.Parameter(module[3].weight.detach().T.contiguous().T)
        assert not any(module[i].weight.is_contiguous() for i in (0, 3))
    return module


@pytest.mark.parametrize("method", ESTIMATORS, ids=str)
def test_estimators_do_not_mind_how_parameters_lie_in_memory(method):
    plain, strided = (
        hessian_diagonal(of_module(m, functional.cross_entropy), m.parameters(), (IMAGES, LABELS), method, seeded())
        for m in map(convolution, (False, True))
    )
    assert all(torch.isfinite(d).all() for d in plain)
    torch.testing.assert_close(strided, plain, rtol=1e-8, atol=1e-10)


@every_function
def test_functions_of_a_hessian_do_not_mind_either(function, expected):
    plain, strided = (
        function(of_module(m, functional.cross_entropy), m.parameters(), (IMAGES, LABELS))
        for m in map(convolution, (False, True))
    )
    torch.testing.assert_close(strided, plain, rtol=1e-8, atol=1e-10)


OPTIMISERS = {
    "AdaHessian": lambda m: AdaHessian(m.parameters(), lr=0.01, block_size=2),
    "AdaHessian exact": lambda m: AdaHessian(m.parameters(), lr=0.01, diagonal=Exact()),
    "OASIS": lambda m: OASIS(m.parameters(), lr=0.01),
    "Sophia": lambda m: Sophia(m.parameters(), lr=0.01),
    "AdaBelief": lambda m: AdaBelief(m.parameters(), lr=0.01),
    "KFAC": lambda m: KFAC(m, lr=0.01),
    "Newton": lambda m: Newton(m.parameters(), direction=TrustRegion(0.1)),
    "Newton, conjugate gradients": lambda m: Newton(m.parameters(), direction=TrustRegion(0.1, subproblem=Steihaug())),
}


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
def test_optimisers_do_not_mind_how_parameters_lie_in_memory(make):
    ends = []
    for module in map(convolution, (False, True)):
        optimizer = make(module)
        for _ in range(3):
            if isinstance(optimizer, Newton):
                optimizer.step(lambda module=module: functional.cross_entropy(module(IMAGES), LABELS))
                continue
            optimizer.zero_grad()
            loss = functional.cross_entropy(module(IMAGES), LABELS)
            optimizer.backward(loss) if hasattr(optimizer, "backward") else loss.backward()
            optimizer.step()
        ends.append(flat(list(module.parameters())).detach())
    assert (ends[0] - flat(list(convolution(False).parameters()))).abs().max() > 1e-4
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "call",
    [
        lambda *of: eigenpairs(*of, generator=seeded()),
        lambda *of: trace(*of, generator=seeded()),
        lambda *of: spectral_density(*of, steps=3, generator=seeded()),
        lambda *of: condition_number(*of, generator=seeded()),
        lambda *of: hessian_diagonal(*of, XDiag(4), seeded()),
        lambda *of: hessian_diagonal(*of, DiagPlusPlus(6), seeded()),
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_example_that_is_not_finite_is_named(call, value):
    x, module = X.clone(), perceptron()
    x[3, 0] = value
    with pytest.raises(
        RuntimeError, match="^a product with the matrix is not finite: look for nan and inf in data, parameters"
    ):
        call(of_module(module, functional.mse_loss), module.parameters(), (x, Y))
