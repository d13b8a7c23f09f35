"""Data-parallel K-FAC on gloo processes: every placement takes the steps of one process, and sends what the formula says.

All runs of a number of processes happen in one start of them (`spawned`); the tests read what they left.
"""

import datetime
import math
from contextlib import nullcontext

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from experiments.placements import architectures
from experiments.placements.closed_form import Costs, owner_of_each
from secondlook.curvature.kronecker import factor_sizes, input_factor, kronecker_factors
from secondlook.optim.kfac import KFAC
from secondlook.optim.placement import Exchange, Placement, owners

torch.set_num_threads(1)
DOUBLE = torch.float64
OPTIONS = {"lr": 0.05, "factors_every": 2, "inverses_every": 3, "kl_clip": 0.01, "weight_decay": 0.01}
SHARES = {2: (0.5, 1.0), 4: (0.25, 0.5, 1.0)}
RUNS = [("empirical", False), ("exact", False), ("mc", False), ("empirical", True)]  # targets; the same batch on all ranks
STEPS, HALF = 7, 4  # HALF steps from the start the state is saved: in the middle of both rhythms


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


X, Y = normal(8, 2, 5, 5, seed=1), torch.arange(8) % 3


def network():
    """Three layers of different cost, one without a bias."""
    model = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 5, bias=False), nn.Linear(5, 3))
    for i, p in enumerate(model.double().parameters()):
        p.data = 0.5 * normal(*p.shape, seed=100 + i)
    return model


def layers():
    return [m for m in network() if hasattr(m, "weight")]


LAYERS = 3
TRIANGLES = sum(n * (n + 1) // 2 for n in (2 * 9 + 1, 3, 12, 5, 5 + 1, 3))
WEIGHTS = 3 * (2 * 9 + 1) + 5 * 12 + 3 * (5 + 1)


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def train(model, optimizer, steps, x=X, y=Y):
    for _ in range(steps):
        optimizer.zero_grad()
        output = model(x)
        if optimizer.fisher != "empirical":
            optimizer.curvature(output)
        functional.cross_entropy(output, y).backward()
        optimizer.step()


def run(share, fisher, alike, steps=STEPS, start=None):
    """What a rank has after `steps` from the beginning, or from (weights, state_dict); without `share`, a single process."""
    rank, size = (0, 1) if share is None else (distributed.get_rank(), distributed.get_world_size())
    model = network()
    optimizer = KFAC(model, fisher=fisher, placement=None if share is None else Placement(share), **OPTIONS)
    if start is not None:
        model.load_state_dict(start[0])
        optimizer.load_state_dict(start[1])
    parallel = model if share is None else DistributedDataParallel(model)
    mine = slice(None) if alike else slice(rank, None, size)
    train(parallel, optimizer, steps, X[mine], Y[mine])
    names = [
        {name: optimizer.state[layer.weight].get(name) for name in ("A", "A_inverse")} for layer in optimizer.exchange.layers
    ]
    return {
        "theta": flat(model),
        "holds": [{name for name, found in state.items() if found is not None} for state in names],
        "held": {
            kind: sum(len(state[name]) ** 2 for state in optimizer.state.values() for name in pair if name in state)
            for kind, pair in (("factors", ("A", "G")), ("inverses", ("A_inverse", "G_inverse")))
        },
        "bytes": dict(optimizer.exchange.bytes),
        "messages": dict(optimizer.exchange.messages),
        "saved": ({name: p.clone() for name, p in model.state_dict().items()}, optimizer.state_dict()),
    }


def long_run():
    """A thousand steps, each rank with batches of its own."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    parallel = DistributedDataParallel(model)  # it gives all ranks the weights of the first
    optimizer = KFAC(model, fisher="mc", factors_every=10, inverses_every=20, placement=Placement())
    data = torch.Generator().manual_seed(distributed.get_rank())
    for _ in range(1000):
        x, y = torch.randn(4, 3, generator=data, dtype=DOUBLE), torch.randint(3, (4,), generator=data)
        train(parallel, optimizer, 1, x, y)
    return {"theta": flat(model), "saved": optimizer.state_dict()}


def accumulated():
    """The factors of two passes of different size, the first without communication; the second layer rests on rank 1."""
    rank = distributed.get_rank()
    first, second = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    model = nn.ModuleList([first, second])
    model.forward = lambda x: first(x) + (second(x) if rank == 0 else 0)
    parallel = DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = KFAC(model, placement=Placement())
    x = normal(10, 3, seed=3)
    for part, context in ((x[rank : 2 + rank], parallel.no_sync), (x[3 + 4 * rank : 6 + 4 * rank], nullcontext)):
        with context():
            parallel(part).square().mean().backward()
    optimizer.step()
    seen = [torch.cat([x[:2], x[3:6], x[1:3], x[7:10]]), torch.cat([x[:2], x[3:6]])]
    return [
        (optimizer.factors[layer][0] - input_factor(layer, found)).abs().max().item()
        for layer, found in zip((first, second), seen, strict=True)
        if optimizer.exchange.owns(layer)
    ]


def in_pairs():
    """Two runs side by side, each on two of the four ranks."""
    pairs = [distributed.new_group(ranks) for ranks in ([0, 2], [1, 3])]
    half, which = divmod(distributed.get_rank(), 2)
    with pytest.raises(RuntimeError, match="process_group that this process is not in"):
        KFAC(network(), placement=Placement(process_group=pairs[1 - which]))
    model = network()
    optimizer = KFAC(model, placement=Placement(0.5, pairs[which]), **OPTIONS)
    train(DistributedDataParallel(model, process_group=pairs[which]), optimizer, 3, X[half::2], Y[half::2])
    return {"theta": flat(model), "owned": len(optimizer.factors)}


def process(rank, size, folder):
    torch.set_num_threads(1)
    limit = datetime.timedelta(hours=1)  # after which a rank is taken to hang, on a machine however slow
    distributed.init_process_group("gloo", f"file://{folder}/store{size}", limit, rank=rank, world_size=size)
    found = {(share, *how): run(share, *how) for share in SHARES[size] for how in RUNS}
    if size == 2:
        half = run(0.5, "empirical", True, HALF)["saved"]
        found |= {"half": half, "resumed": run(0.5, "empirical", True, STEPS - HALF, half)}
        found |= {"long": long_run(), "accumulated": accumulated()}
    else:
        found["pairs"] = in_pairs()
        half = torch.load(folder / "2-0.pt", weights_only=False)["half"]
        for name, steps in (("begun", 0), ("ended", STEPS - HALF)):
            found |= {(name, share): run(share, "empirical", True, steps, half) for share in SHARES[4]}
    torch.save(found, folder / f"{size}-{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def spawned(tmp_path_factory):
    """{number of processes: what each of them found}."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.set_forkserver_preload(["torch._dynamo", "secondlook.optim.kfac"])  # imported once, and not by each process
    for size in SHARES:
        multiprocessing.start_processes(process, (size, folder), nprocs=size, start_method="forkserver")
    return {size: [torch.load(folder / f"{size}-{i}.pt", weights_only=False) for i in range(size)] for size in SHARES}


CELLS = [(size, share) for size, shares in SHARES.items() for share in shares]
cells = pytest.mark.parametrize(("size", "share"), CELLS, ids=[f"{size} ranks, share {share}" for size, share in CELLS])


def equal(a, b):
    """Two states, bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@cells
@pytest.mark.parametrize("fisher", ["empirical", "exact"])
def test_ranks_with_a_part_of_the_batch_are_one_with_all_of_it(spawned, size, share, fisher):
    alone = run(None, fisher, False)
    for found in spawned[size]:
        torch.testing.assert_close(found[share, fisher, False]["theta"], alone["theta"], rtol=0, atol=1e-10)
        for state, other in zip(*(r["saved"][1]["state"].values() for r in (found[share, fisher, False], alone)), strict=True):
            assert state.keys() == other.keys()
            for name in state:
                torch.testing.assert_close(state[name], other[name], rtol=1e-10, atol=1e-10)


@cells
@pytest.mark.parametrize(("fisher", "alike"), RUNS)
def test_parameters_and_gathered_state_are_equal_on_all_ranks(spawned, size, share, fisher, alike):
    first, *others = (found[share, fisher, alike] for found in spawned[size])
    for other in others:
        assert torch.equal(first["theta"], other["theta"]) and equal(first["saved"], other["saved"])


def test_they_stay_so_for_a_thousand_steps(spawned):
    first, second = (found["long"] for found in spawned[2])
    assert torch.equal(first["theta"], second["theta"]) and equal(first["saved"], second["saved"])


def test_the_steps_do_not_depend_on_the_placement(spawned):
    """To the last bit on as many ranks; on more, a sum of equal numbers may round."""
    alone = run(None, "empirical", True)["theta"]
    for size, shares in SHARES.items():
        for fisher, alike in RUNS:
            first, *others = (spawned[size][0][share, fisher, alike]["theta"] for share in shares)
            assert all(torch.equal(first, other) for other in others)
        torch.testing.assert_close(first, alone, rtol=0, atol=1e-12)


def test_ranks_draw_targets_of_their_own(spawned):
    """With the same targets on two ranks as on one, the same batch would leave the factors as they are on one."""
    model, generator = network(), torch.Generator().manual_seed(5)
    streams = [Exchange(None, []).generator(generator)]
    assert streams == [generator]
    exchange = Exchange(None, [])
    exchange.size, draws = 2, []
    for exchange.rank in (0, 1):
        shared = torch.Generator().manual_seed(5)
        drawn = kronecker_factors(model, X, fisher="mc", likelihood="categorical", generator=exchange.generator(shared))
        draws.append((drawn["4"][1], shared.get_state()))
    (G, state), (other, after) = draws
    assert torch.equal(state, after) and not torch.equal(G, other)


@cells
def test_each_rank_holds_its_share(spawned, size, share):
    ranks = [found[share, "empirical", False]["holds"] for found in spawned[size]]
    for layer in range(LAYERS):
        assert sum("A" in held[layer] for held in ranks) == 1
        assert sum("A_inverse" in held[layer] for held in ranks) == share * size
        assert all("A_inverse" in held[layer] for held in ranks if "A" in held[layer])


@cells
def test_bytes_and_messages_are_those_of_the_formula(spawned, size, share):
    found = [ranks[share, "empirical", False] for ranks in spawned[size]]
    events = {
        "factors": math.ceil(STEPS / OPTIONS["factors_every"]),
        "inverses": math.ceil(STEPS / OPTIONS["inverses_every"]),
        "directions": STEPS,
    }
    width = round(share * size)
    numbers = {
        "factors": (size - 1) * (TRIANGLES + LAYERS),
        "inverses": (width - 1) * TRIANGLES,
        "directions": (size - width) * WEIGHTS,
    }
    costs = Costs(tuple(map(factor_sizes, layers())), size, width)
    assert costs.sent() == numbers
    sent = {kind: sum(rank["bytes"].get(kind, 0) for rank in found) for kind in events}
    assert sent == {kind: 8 * events[kind] * numbers[kind] for kind in events}
    messages = {kind: max(rank["messages"].get(kind, 0) for rank in found) for kind in events}
    assert messages == {kind: events[kind] * n for kind, n in costs.messages().items()}


@cells
def test_memory_is_that_of_the_formula(spawned, size, share):
    held = Costs(tuple(map(factor_sizes, layers())), size, round(share * size)).held()
    for rank, found in enumerate(spawned[size]):
        assert found[share, "empirical", False]["held"] == {kind: held[kind][rank] for kind in held}


def test_a_run_of_two_goes_on_with_two_one_and_four(spawned):
    """On as many ranks with the same bits. On others it starts from the same bits."""
    whole, half = spawned[2][1][0.5, "empirical", True], spawned[2][0]["half"]
    assert equal(whole["saved"], spawned[2][1]["resumed"]["saved"])
    begun, ended = run(None, "empirical", True, 0, half), run(None, "empirical", True, STEPS - HALF, half)
    assert equal(begun["saved"], half)
    torch.testing.assert_close(ended["theta"], whole["theta"], rtol=0, atol=1e-12)
    for rank in spawned[4]:
        for share in SHARES[4]:
            assert equal(rank["begun", share]["saved"], half)
            torch.testing.assert_close(rank["ended", share]["theta"], whole["theta"], rtol=0, atol=1e-12)


def test_factors_are_means_over_the_examples_of_all_ranks_and_passes(spawned):
    differences = [x for found in spawned[2] for x in found["accumulated"]]
    assert len(differences) == 2 and max(differences) < 1e-14


def test_two_runs_on_half_of_the_ranks_each(spawned):
    found = [rank["pairs"] for rank in spawned[4]]
    assert all(torch.equal(found[0]["theta"], other["theta"]) for other in found[1:])
    assert found[0]["owned"] + found[2]["owned"] == LAYERS
    model = network()
    train(model, KFAC(model, **OPTIONS), 3)
    torch.testing.assert_close(found[0]["theta"], flat(model), rtol=0, atol=1e-10)


def test_the_costliest_layers_are_dealt_first():
    assert owners([1, 8, 27, 64], 2) == [1, 1, 1, 0]
    assert owners([5, 5, 5], 4) == [0, 1, 2] and owners([], 3) == []


@pytest.mark.parametrize(
    ("share", "ranks", "workers"), [(1, 4, 4), (0.5, 4, 2), (0.3, 4, 2), (0.6, 4, 4), (1e-9, 6, 1), (0.4, 6, 3)]
)
def test_shares_are_rounded_up(share, ranks, workers):
    assert Placement(share).workers(ranks) == workers


@pytest.mark.parametrize("share", [0, -1, 1.5, math.nan, "all", None])
def test_the_share_is_checked(share):
    with pytest.raises(ValueError, match="share must be a number above zero, at most one, got"):
        Placement(share)


@pytest.mark.parametrize("ranks", [1, 2, 7, 128])
def test_the_formula_deals_layers_as_the_library_does(ranks):
    for found in (architectures.resnet_50(), architectures.bert_large(512)):
        sides = tuple((layer.a, layer.g) for layer in found)
        assert owner_of_each(sides, ranks) == owners([a**3 + g**3 for a, g in sides], ranks)


def test_architectures_have_the_published_numbers_of_weights():
    """ResNet-50: 25,557,032 with 53,120 of batch norms. BERT-Large: 12,596,224 a block with 4,096 of layer norms."""
    assert sum(layer.a * layer.g for layer in architectures.resnet_50()) == 25_557_032 - 53_120
    assert sum(layer.a * layer.g for layer in architectures.bert_large(128)) == 24 * (12_596_224 - 4_096)
    assert len(architectures.resnet_50()) == 54


def test_a_process_group_is_needed_and_one_type_of_number():
    with pytest.raises(RuntimeError, match="placement needs a process group: call torch.distributed.init_process_group"):
        KFAC(network(), placement=Placement())
    model = network()
    model[4].float()
    with pytest.raises(ValueError, match="placement needs a model whose layers are all float32 or all float64"):
        KFAC(model, placement=Placement())
