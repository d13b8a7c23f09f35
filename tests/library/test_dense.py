"""Dense curvature matrices against torch.autograd.functional and explicit Jacobians, in float64."""

import pytest
import torch
from cases import BOWL, CASES, QUADRATIC
from torch.nn import functional

from secondlook.curvature.dense import fisher, gauss_newton, hessian, jacobians
from secondlook.problems.networks import Network

CLOSE = {"rtol": 0, "atol": 1e-12}
TANH = Network((3, 4, 3), "tanh")
RELU = Network((3, 5, 4, 3), "relu")
CNN = Network((2, 3, 3), "tanh", convolutions=1, side=4)
NETWORKS = pytest.mark.parametrize("network", [TANH, RELU, CNN], ids=["tanh", "relu", "cnn"])


def data(network: Network, examples: int = 7):
    generator = torch.Generator().manual_seed(0)
    shape = (network.widths[0], network.side, network.side) if network.convolutions else (network.widths[0],)
    x = torch.randn(examples, *shape, generator=generator, dtype=torch.float64)
    return network.start(generator), x, torch.arange(examples) % 3


def split(network: Network, theta: torch.Tensor) -> list[torch.Tensor]:
    sizes = [out * inputs for out, inputs in network.shapes]
    return [part.reshape(shape) for part, shape in zip(theta.split(sizes), network.shapes, strict=True)]


def flat(params) -> torch.Tensor:
    return torch.cat([W.reshape(-1) for W in params])


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("chunk_size", [1, 3, 128])
def test_the_hessian_is_that_of_torch(case, chunk_size):
    H = hessian(case.loss, case.params(), chunk_size=chunk_size)
    torch.testing.assert_close(H, torch.autograd.functional.hessian(lambda t: case.loss(case.split(t)), case.start), **CLOSE)


@pytest.mark.parametrize("case", [BOWL, QUADRATIC], ids=str)
def test_a_quadratic_gives_its_matrix(case):
    torch.testing.assert_close(hessian(case.loss, case.params()), case.H, **CLOSE)


@NETWORKS
def test_the_hessian_of_a_network_is_that_of_torch(network):
    params, x, y = data(network)
    H = hessian(lambda theta: functional.cross_entropy(network(theta, x), y), params, chunk_size=10)
    slow = torch.autograd.functional.hessian(lambda t: functional.cross_entropy(network(split(network, t), x), y), flat(params))
    torch.testing.assert_close(H, slow, **CLOSE)
    assert torch.equal(H, H.T)


def test_parameters_without_part_in_the_loss_get_zeros():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor(3.0)
    assert hessian(lambda p: (p[0] ** 3).sum(), [a, b]).tolist() == [[6, 0, 0], [0, 12, 0], [0, 0, 0]]
    assert hessian(lambda p: p[0].sum(), [a, b]).abs().sum() == 0


def test_the_parameters_are_left_alone():
    params, x, y = data(TANH)
    hessian(lambda theta: functional.cross_entropy(TANH(theta, x), y), params)
    assert not any(W.requires_grad or W.grad is not None for W in params)


@NETWORKS
def test_jacobians_are_those_of_torch(network):
    params, x, _ = data(network)
    J, f = jacobians(network, params, x)
    slow = torch.autograd.functional.jacobian(lambda t: network(split(network, t), x), flat(params))
    torch.testing.assert_close(J, slow, **CLOSE)
    torch.testing.assert_close(f, network(params, x), **CLOSE)


@NETWORKS
@pytest.mark.parametrize(
    "loss", [functional.cross_entropy, lambda f, y: (f**4).sum() + y * f[0] ** 2], ids=["softmax", "fourth"]
)
def test_gauss_newton_is_written_out(network, loss):
    params, x, y = data(network)
    J, f = jacobians(network, params, x)
    slow = sum(
        J[b].T @ torch.autograd.functional.hessian(lambda o, b=b: loss(o, y[b]), f[b]) @ J[b] for b in range(len(x))
    ) / len(x)
    G = gauss_newton(network, loss, params, x, y, chunk_size=3)
    torch.testing.assert_close(G, slow, **CLOSE)
    assert torch.equal(G, G.T)


@NETWORKS
def test_the_fisher_matrix_of_a_softmax_is_gauss_newton(network):
    params, x, y = data(network)
    G = gauss_newton(network, functional.cross_entropy, params, x, y)
    torch.testing.assert_close(fisher(network, params, x, chunk_size=2), G, **CLOSE)


def test_gauss_newton_is_the_hessian_of_a_linear_model():
    network = Network((3, 3), "tanh")
    params, x, y = data(network)
    H = hessian(lambda theta: functional.cross_entropy(network(theta, x), y), params)
    torch.testing.assert_close(gauss_newton(network, functional.cross_entropy, params, x, y), H, **CLOSE)


def test_drawn_labels_agree_with_the_expectation():
    """400 independent draws; every entry within 5 standard errors: false alarm below 1e-3 over all entries."""
    params, x, _ = data(TANH, examples=3)
    generator = torch.Generator().manual_seed(1)
    drawn = torch.stack([fisher(TANH, params, x, draws=2, generator=generator) for _ in range(400)])
    error = (drawn.mean(0) - fisher(TANH, params, x)).abs()
    assert (error <= 5 * drawn.std(0) / 400**0.5 + 1e-12).all()


def test_drawn_labels_come_from_the_generator_alone():
    params, x, _ = data(TANH)
    state = torch.get_rng_state()
    one, two = (fisher(TANH, params, x, draws=3, generator=torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(one, two) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("draws", [0, -1, 1.5])
def test_a_number_of_draws_that_makes_no_sense_is_refused(draws):
    params, x, _ = data(TANH)
    with pytest.raises(ValueError, match="draws must be a positive integer"):
        fisher(TANH, params, x, draws=draws)


def test_single_precision_stays_single():
    params, x, y = data(TANH)
    params, x = [W.float() for W in params], x.float()
    G = gauss_newton(TANH, functional.cross_entropy, params, x, y)
    assert G.dtype == hessian(lambda t: functional.cross_entropy(TANH(t, x), y), params).dtype == torch.float32


def test_the_network_is_torch_s():
    params, x, _ = data(CNN)
    kernel, head = params
    s = functional.conv2d(x, kernel[:, :-1].reshape(3, 2, 3, 3), kernel[:, -1], stride=2, padding=1)
    logits = functional.linear(torch.tanh(s).flatten(1), head[:, :-1], head[:, -1])
    torch.testing.assert_close(CNN(params, x), logits, **CLOSE)
