"""The toy of proton collisions, and the networks and the loss that find its vertices."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from conftest import ROOT
from torch.nn import functional

from secondlook.study.experiment import Experiment

EXPERIMENT = Experiment(ROOT, "vertex_finding")
networks, toys = (EXPERIMENT.part(name) for name in ("networks", "toy"))
AllCNN, DDplus, Dropout, ratio_loss = networks.AllCNN, networks.DDplus, networks.Dropout, networks.ratio_loss

TOY = toys.Toy(
    bins=40,
    bin_width=0.25,
    vertices=2.5,
    tracks=8.0,
    background=0.25,
    resolution=(0.05, 0.5),
    impact=0.05,
    far=0.5,
    width=0.25,
    reach=3.0,
    most_tracks=200,  # so many that no event of these tests loses any
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def events():
    return TOY.events(2000, generator())


# The toy


def test_same_seed_same_bits_and_no_touch_of_the_global_state():
    before = torch.get_rng_state()
    one, again, other = (vars(TOY.events(5, generator(seed))) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    for name in one:
        assert torch.equal(one[name].nan_to_num(-1), again[name].nan_to_num(-1))
    assert not torch.equal(one["tracks"], other["tracks"])


def test_shapes_and_types(events):
    N, T, J = 2000, TOY.most_tracks, events.vertices.shape[1]
    shapes = {"tracks": (N, T, 4), "mask": (N, T), "density": (N, 40), "target": (N, 40), "vertices": (N, J), "vertex": (N, T)}
    assert {name: tuple(value.shape) for name, value in vars(events).items()} == shapes
    assert events.tracks.dtype == events.density.dtype == events.target.dtype == torch.float32
    assert not events.tracks[~events.mask].any() and not TOY.inputs(events)[~events.mask].any()
    assert (events.vertex[~events.mask] == -1).all() and not events.mask[:, -1].any()


def within(values, mean, variance):
    """The mean of independent `values` is at most 5 standard errors from `mean`: false alarms once in 1.7 million."""
    return abs(values.double().mean().item() - mean) < 5 * math.sqrt(variance / values.numel())


def test_numbers_of_vertices_and_tracks_have_their_distributions(events):
    """V: mean 2.5, variance 1.5. n_j: 8 and (1 - p) / p^2 = 42, with p = 1 / 7. B: a third of the others, Poisson given these."""
    there = ~events.vertices.isnan()
    V = there.sum(1)
    assert within(V, 2.5, 1.5) and V.min() == 1
    n = functional.one_hot(events.vertex + 1, there.shape[1] + 1).sum(1)[:, 1:]  # (N, J)
    assert within(n[there], 8.0, 42.0) and n[there].min() == 2 and not n[~there].any()
    B = (events.mask & (events.vertex < 0)).sum(1)
    assert within(B - n.sum(1) / 3, 0.0, 2.5 * 8 / 3)
    assert within(events.vertices[there], 5.0, 100 / 12)


def test_tracks_are_measured_where_they_are_from_with_their_own_error(events):
    z, sigma, x, y = events.tracks.unbind(-1)
    of_vertex = events.vertex >= 0
    pull = ((z - events.vertices.gather(1, events.vertex.clamp(min=0))) / sigma)[of_vertex]
    assert within(pull, 0.0, 1.0) and within(pull**2, 1.0, 2.0)
    share = ((sigma[events.mask] / 0.05).log() / math.log(10)).clamp(0, 1)
    assert within(share, 0.5, 1 / 12) and sigma[events.mask].min() >= 0.05 * (1 - 1e-6)
    background = events.mask & ~of_vertex
    for miss in (x, y):
        assert within((miss[of_vertex] / 0.05) ** 2, 1.0, 2.0) and within((miss[background] / 0.5) ** 2, 1.0, 2.0)


def test_the_density_is_a_sum_of_gaussians_and_holds_every_track_s_share_of_the_window(events):
    """The sums over bins telescope, so that only rounding is left: 1e-5 of 50 tracks in float32."""
    z, sigma = events.tracks[:200, :, 0].double(), events.tracks[:200, :, 1].double().clamp(min=0.05)
    Phi = torch.special.ndtr
    share = Phi((TOY.window - z) / sigma) - Phi(-z / sigma)
    assert torch.allclose(events.density[:200].double().sum(1), (share * events.mask[:200]).sum(1), rtol=1e-5, atol=0)
    literal = torch.zeros(40, dtype=torch.float64)
    for place in events.mask[0].nonzero()[:, 0]:
        for i in range(40):
            at = [(0.25 * (i + end) - z[0, place]) / sigma[0, place] for end in (0, 1)]
            literal[i] += Phi(at[1]) - Phi(at[0])
    assert torch.allclose(events.density[0].double(), literal, rtol=0, atol=1e-5)


def test_the_target_peaks_at_vertices_and_is_zero_away_from_them(events):
    for Z, target in zip(events.vertices[:50], events.target[:50], strict=True):
        literal = torch.zeros(40)
        for vertex in Z[~Z.isnan()]:
            assert target[min(int(vertex / 0.25), 39)] >= math.exp(-1 / 8) - 1e-5  # half a bin, half a width away at most
            for i in range(40):
                away = (0.25 * (i + 0.5) - vertex) / 0.25
                literal[i] += math.exp(-(away**2) / 2) if abs(away) <= 3 else 0
        assert torch.allclose(target, literal, rtol=0, atol=1e-5)
    assert (events.target == 0).float().mean() > 0.5


def test_tracks_beyond_the_most_are_dropped_and_the_others_are_enough():
    crowded = replace(TOY, vertices=30.0, most_tracks=16).events(20, generator())
    assert crowded.mask.all() and (crowded.vertex >= 0).all()
    assert crowded.density.sum(1).max() <= 16


@pytest.mark.parametrize(
    ("name", "value"),
    [("bins", 0), ("width", math.nan), ("vertices", 0.5), ("tracks", 2.0), ("background", 1.0), ("resolution", (0.5, 0.05))],
)
def test_a_toy_that_cannot_be_is_an_error_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be "):
        replace(TOY, **{name: value})


# The networks


def all_cnn(**more):
    return AllCNN(TOY.bins, generator(), **more)


def dd_plus(**more):
    return DDplus(TOY.bins, toys.FEATURES, generator(), **more)


def sizes(model):
    return sum(p.numel() for p in model.parameters())


def test_the_full_size_has_the_document_s_parameters():
    convolutions = (20 * 25 + 20) + (20 * 10 * 15 + 10) + 2 * (10 * 10 * 15 + 10) + (10 * 5 + 1)
    mix = 4000 * 4000 + 4000
    assert sizes(AllCNN(4000, generator())) == convolutions + mix == 16_010_601
    per_track = (4 * 50 + 50) + 10 * (50 * 50 + 50) + (50 * 16_000 + 16_000)
    assert sizes(DDplus(4000, 4, generator())) == per_track + (4 * 25 * 25 + 25) + (25 * 25 + 1) + mix == 16_848_901


@pytest.mark.parametrize("make", [all_cnn, dd_plus])
def test_weights_come_from_the_generator_alone_within_torch_s_bounds(make):
    before = torch.get_rng_state()
    one, again = make().state_dict(), make().state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], again[name]) for name in one)
    for layer in make().modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv1d):
            bound = layer.weight[0].numel() ** -0.5
            assert max(layer.weight.abs().max(), layer.bias.abs().max()) <= bound
            assert within(layer.weight.detach() / bound, 0.0, 1 / 3)


def test_all_cnn_is_its_formula(events):
    model = all_cnn().double().eval()
    h = events.density[:3].double()[:, None]
    for layer in model.convolutions[::3]:
        h = functional.leaky_relu(functional.conv1d(h, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2), 0.01)
    expected = torch.log1p(torch.exp(h[:, 0] @ model.mix.weight.T + model.mix.bias))
    assert torch.allclose(model(events.density[:3].double()), expected, rtol=1e-12, atol=0)
    assert expected.shape == (3, TOY.bins)


def test_dd_plus_is_its_formula_track_by_track(events):
    """Float64; the last layer per track applied to every track, as the description has it."""
    model = dd_plus().double()
    x = TOY.inputs(events)[:3].double()
    summed = torch.zeros(3, 4 * TOY.bins, dtype=torch.float64)
    for n, place in events.mask[:3].nonzero():
        summed[n] += model.latent(model.per_track(x[n, place, 1:]))
    h = model.convolutions(summed.reshape(3, 4, TOY.bins))[:, 0]
    expected = 0.001 * torch.log1p(torch.exp(model.mix(h)))
    assert torch.allclose(model(x), expected, rtol=1e-12, atol=0)
    assert expected.shape == (3, TOY.bins)


def test_empty_places_and_the_order_of_tracks_have_no_influence(events):
    model = dd_plus().double()
    x = TOY.inputs(events)[:4].double()
    spoilt = x.clone()
    spoilt[..., 1:][~events.mask[:4]] = math.nan
    expected = model(x)
    assert torch.equal(model(spoilt), expected)
    assert torch.equal(model(x[:, :150]), expected) and not events.mask[:4, 150:].any()
    assert torch.allclose(model(x.flip(1)), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("make", [all_cnn, dd_plus])
def test_the_first_prediction_is_at_the_level_asked_for(make, events):
    """But for what the random weights add to it."""
    model = make(first=1e-5).eval()
    plain = make().eval()
    assert torch.equal(model.mix.weight, plain.mix.weight)
    scale = 1.0 if make is all_cnn else 0.001
    moved = (model.mix.bias - plain.mix.bias).double()
    assert torch.allclose(scale * functional.softplus(moved), torch.full_like(moved, 1e-5), rtol=1e-5, atol=0)
    with pytest.raises(ValueError, match="^first must be positive"):
        make(first=0.0)


# The loss


def test_the_loss_is_its_formula_bin_by_bin():
    x, y = torch.rand(2, 3, 7, generator=generator(), dtype=torch.float64)
    y[y < 0.4] = 0
    total = 0.0
    for n in range(3):
        for i in range(7):
            r = abs((x[n, i].item() + 1e-5) / (y[n, i].item() + 1e-5))
            total += -math.log(2 * r / (r * r + 1)) * (1 + 2.5 * math.exp(-r)) / 7
    assert ratio_loss(x, y).item() == pytest.approx(total / 3, rel=1e-12)


def test_the_loss_is_zero_at_the_target_and_a_miss_costs_more_than_an_invention():
    y = torch.rand(2, 5, generator=generator())
    assert ratio_loss(y, y) == 0
    low, high = (ratio_loss(torch.tensor([[x]]), torch.tensor([[y]])) for x, y in ((0.01, 0.1), (0.1, 0.01)))
    assert 3 < low / high < 3.5


def test_the_loss_has_a_finite_gradient_where_prediction_or_target_is_zero():
    x = torch.tensor([[0.0, 0.0, 1.0, 1e-30]], requires_grad=True)
    loss = ratio_loss(x, torch.tensor([[0.0, 1.0, 0.0, 1.0]]))
    (g,) = torch.autograd.grad(loss, x)
    assert loss.isfinite() and g.isfinite().all()
    assert g[0, 0] == 0 and g[0, 1] < 0 < g[0, 2]


# Dropout


def test_dropout_keeps_its_share_and_the_mean_and_does_nothing_in_evaluation():
    dropout, x = Dropout(0.15, generator()), torch.ones(100_000)
    kept = dropout(x)
    assert within((kept == 0).double(), 0.15, 0.15 * 0.85) and set(kept.unique().tolist()) == {0.0, (x / 0.85)[0].item()}
    assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize("p", [-0.1, 1.0, math.nan])
def test_a_share_that_is_none_is_an_error(p):
    with pytest.raises(ValueError, match=r"^p must be in \[0, 1\)"):
        Dropout(p, generator())


def test_dropout_goes_on_from_a_state_dict_and_a_copy_bit_for_bit(events, tmp_path):
    model, x = all_cnn(), events.density[:4]
    model(x)
    copied = copy.deepcopy(model)
    torch.save(model.state_dict(), tmp_path / "state")
    before = torch.get_rng_state()
    expected = model(x)
    assert torch.equal(before, torch.get_rng_state())
    resumed = AllCNN(TOY.bins, generator(7))
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert torch.equal(resumed(x), expected) and torch.equal(copied(x), expected)
    assert not torch.equal(model(x), expected)


@pytest.mark.parametrize("name", ["AllCNN", "DDplus"])
def test_adam_learns_more_than_that_most_bins_are_empty(name):
    """From the start at an empty event, 120 steps on 8 events bring it to less than 3/4 of the best constant's loss."""
    events = TOY.events(8, generator())
    model, x = (all_cnn(first=1e-5), events.density) if name == "AllCNN" else (dd_plus(first=1e-5), TOY.inputs(events))
    constant = min(ratio_loss(torch.full_like(events.target, 10 ** (k / 8)), events.target).item() for k in range(-56, 8))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(120):
        optimizer.zero_grad()
        ratio_loss(model(x), events.target).backward()
        optimizer.step()
    found = ratio_loss(model.eval()(x), events.target).item()
    assert found < 0.75 * constant
