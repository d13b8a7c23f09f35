"""Optimisers of second order on several processes: equal replicas, equal to one process, and what happens when one dies."""

import copy
import os
import pickle
import subprocess
import sys

import distributed_worker as worker
import pytest
import torch
import torch.distributed as dist
from conftest import HANG, python
from distributed_worker import DRAWS, LENGTHS, NAMES, SHORT, X, Y, flat, halves, kept, make, network, train
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from secondlook.curvature import Exact
from secondlook.optim import AdaHessian, Sophia, data_parallel
from secondlook.optim import distributed as module

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def killed(folder):
    """A run under torchrun, ended by the death of one rank at step 13."""
    for name in ("new", "killed"):
        (folder / name).mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [python(), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", worker.__file__]
    done = subprocess.run([*command, folder / "killed"], env=environment, capture_output=True, text=True, timeout=HANG)
    assert torch.load(folder / "killed" / "checkpoint.pt")[1]["state"][0]["step"] == 10, done.stderr
    return done


@pytest.fixture(scope="module")
def ranks(folder, killed):
    """What each of four ranks found; the first two of them formed a group too."""
    torch.multiprocessing.set_forkserver_preload(["torch._dynamo", "distributed_worker"])  # imported once, not by each rank
    torch.multiprocessing.start_processes(worker.work, (folder,), nprocs=4, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(4)]


@pytest.fixture
def alone():
    """A group of one process, this one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def single(name):
    """One process on all of the data."""
    model = network()
    return make(name, model.parameters()), model


def same(a, b):
    """The same bits, nan included."""
    return all(x.numpy().tobytes() == y.numpy().tobytes() if torch.is_tensor(x) else x == y for x, y in zip(a, b, strict=True))


# Replicas


@pytest.mark.parametrize("name", LENGTHS)
def test_replicas_are_the_same_bits_at_every_step(ranks, name):
    first, second = (rank["long_runs"][name] for rank in ranks[:2])
    assert len(first["path"]) == LENGTHS[name] and first["path"].isfinite().all() and len(first["path"].unique(dim=0)) > 50
    assert list(first) == list(second) and same(first.values(), second.values())


def test_four_replicas_are_the_same_bits(ranks):
    first, *others = (rank["four"] for rank in ranks)
    assert all(same(first.values(), other.values()) for other in others)


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_at_half_the_batch_are_one_at_the_whole(ranks, name):
    path = train(*single(name), X, Y, SHORT)
    torch.testing.assert_close(ranks[0]["equal_probes"][name], path, **CLOSE)


@pytest.mark.parametrize(("way", "sent"), [("no_sync", SHORT), ("every pass", 2 * SHORT), ("never in sync", SHORT)])
def test_passes_add_up_before_they_are_averaged(ranks, way, sent):
    """One bucket for every average: one a step, unless every pass backward is averaged, gradients and all."""
    optimizer, model = single("AdaHessian")
    parts = [halves(2, r) for r in range(2)]
    whole = [(torch.cat([x[i] for x, _ in parts]), torch.cat([y[i] for _, y in parts])) for i in (slice(4), slice(4, None))]
    found = ranks[0]["accumulation"]
    expected = worker.accumulate(optimizer, model, whole, lambda i: torch.enable_grad())
    torch.testing.assert_close(found[way], expected, **CLOSE)
    assert found[f"{way}, sent"] == sent


def test_ranks_may_use_different_parameters(ranks):
    model = worker.TwoHeads()
    optimizer = AdaHessian(model.parameters(), 0.02, diagonal=Exact())
    for _ in range(SHORT):
        optimizer.zero_grad()
        optimizer.backward(sum(cross_entropy(model(x, r), y) for r, (x, y) in enumerate(halves(2, r) for r in range(2))) / 2)
        optimizer.step()
    first, second = (rank["two_heads"] for rank in ranks[:2])
    assert torch.equal(first, second)
    torch.testing.assert_close(first[-1], flat(model.parameters()), **CLOSE)
    assert torch.equal(first[-1][-15:], flat(worker.TwoHeads().parameters())[-15:])  # the head that nobody uses


def test_an_example_that_is_no_number_reaches_all_ranks_alike(ranks):
    first, second = (rank["one_bad_rank"] for rank in ranks[:2])
    for name in first:
        assert first[name]["path"].isnan().all() and same(first[name].values(), second[name].values())


# Probes


@pytest.mark.parametrize(("probes", "share"), [("independent", 0.5), ("equal", 1.0)])
def test_independent_probes_halve_the_variance(ranks, probes, share):
    """Mean of |D - diag H|^2 over DRAWS against its closed form for signs, sum of H_ij^2 off the diagonal, at 5 standard
    errors: a false alarm in 10^6 runs. Twice as much, or half, would be more than 10 standard errors away."""
    model = network()
    theta = flat(model.parameters())
    sizes = [p.numel() for p in model.parameters()]

    def loss(theta):
        parts = {n: t.view_as(p) for (n, p), t in zip(model.named_parameters(), theta.split(sizes), strict=True)}
        return cross_entropy(torch.func.functional_call(model, parts, (X,)), Y)

    H = torch.autograd.functional.hessian(loss, theta)
    expected = share * (H.square().sum() - H.diagonal().square().sum())
    D = ranks[0]["estimates"][probes]
    errors = (D - H.diagonal()).square().sum(1)
    standard_error = errors.std() / DRAWS**0.5
    assert abs(errors.mean() - expected) < 5 * standard_error and expected > 20 * standard_error
    assert same([D], [ranks[1]["estimates"][probes]])


def test_curvature_from_a_part_with_drawn_labels_is_the_mean_over_ranks(ranks):
    for rank in ranks[:2]:
        D, mean = rank["sampled_labels"]
        torch.testing.assert_close(D, mean, rtol=1e-12, atol=0)
        assert (D > 0).any()


def test_the_generator_is_rank_0s(ranks):
    expected = torch.Generator().manual_seed(0).get_state()
    assert all(torch.equal(rank["own_seeds"], expected) for rank in ranks[:2])


def test_ranks_draw_from_different_generators_and_anew_each_time(alone, monkeypatch):
    model = DistributedDataParallel(network())
    replicas = data_parallel(AdaHessian(model.parameters()), model).replicas
    drawn = []
    for rank in range(3):
        monkeypatch.setattr(dist, "get_rank", lambda group, rank=rank: rank)
        shared = torch.Generator().manual_seed(7)
        drawn += [torch.rand(4, generator=replicas.source(shared)) for _ in range(2)]
    assert len(torch.stack(drawn).unique()) == 24


# Checkpoints


def test_a_checkpoint_of_two_ranks_resumes_on_four_and_on_one(ranks, folder):
    optimizer, model = single("AdaHessian")
    worker.load(folder, optimizer, model)
    expected = train(optimizer, model, X, Y, SHORT)
    torch.testing.assert_close(ranks[0]["saved_and_continued"], expected, **CLOSE)
    for rank in ranks:
        torch.testing.assert_close(rank["resumed_on_four"], expected, **CLOSE)


def test_a_killed_rank_ends_the_run_with_a_clear_line(killed):
    assert killed.returncode != 0 and "Signal 9 (SIGKILL) received by PID" in killed.stderr


def test_a_run_whose_rank_was_killed_resumes_bit_for_bit(ranks, folder):
    assert torch.load(folder / "killed" / "checkpoint.pt")[1]["state"][0]["step"] == 20
    assert all(torch.equal(rank["resumed"], rank["uninterrupted"]) for rank in ranks[:2])


# One rank


@pytest.mark.parametrize("name", NAMES)
def test_one_rank_with_equal_probes_is_no_change(alone, name):
    model = DistributedDataParallel(network())
    optimizer = data_parallel(make(name, model.parameters()), model, "equal")
    one, net = single(name)
    assert torch.equal(train(optimizer, model, X, Y, 5), train(one, net, X, Y, 5))
    assert same(kept(optimizer).values(), kept(one).values())


class Mixed(nn.Module):
    """float32 and float64, and a weight laid out by channels."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.first = nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last)
            self.second = nn.Linear(3, 2).double()

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)).flatten(1).double())


@pytest.mark.parametrize("bucket", [1, 64, 2**20])
def test_buckets_of_any_size_and_type_hold_everything(alone, monkeypatch, bucket):
    monkeypatch.setattr(module, "BUCKET", bucket)
    nets = Mixed(), DistributedDataParallel(Mixed())
    optimizers = [AdaHessian(net.parameters()) for net in nets]
    data_parallel(optimizers[1], nets[1], "equal")
    for optimizer, net in zip(optimizers, nets, strict=True):
        for _ in range(3):
            optimizer.zero_grad()
            optimizer.backward(net(torch.ones(2, 2, 2, 2)).square().mean())
            optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_gradients_pass_the_hooks_that_wait_for_them():
    theta = torch.ones(3, requires_grad=True)
    seen = []
    theta.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    optimizer = AdaHessian([theta])
    for _ in range(2):
        optimizer.backward((theta**2).sum())
    assert [g.tolist() for g in seen] == [[2, 2, 2], [4, 4, 4]] and not theta.grad.requires_grad


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_a_copy_is_for_one_process(alone, duplicate):
    model = DistributedDataParallel(network())
    optimizer = data_parallel(AdaHessian(model.parameters()), model)
    train(optimizer, model, X, Y, 2)
    optimizer.zero_grad()
    optimizer.backward(cross_entropy(model(X), Y))  # whose curvature is on its way
    twin = duplicate(optimizer)
    assert twin.replicas is None and optimizer.replicas is not None
    assert same(kept(twin).values(), kept(optimizer).values())
    with pytest.raises(RuntimeError, match="no curvature for this step"):
        twin.step()
    optimizer.step()


def test_what_cannot_be_averaged_is_refused(alone):
    model, still = DistributedDataParallel(network()), DistributedDataParallel(network(), static_graph=True)
    other = torch.ones(1, requires_grad=True)
    adahessian = AdaHessian(model.parameters())
    for error, message, arguments in [
        (TypeError, "optimizer must be one of .*, got SGD", (torch.optim.SGD(model.parameters()), model)),
        (TypeError, "model must be a DistributedDataParallel, got Sequential", (adahessian, model.module)),
        (ValueError, "probes must be one of independent, equal, got 'same'", (adahessian, model, "same")),
        (ValueError, "probes must be independent for Gauss", (make("Sophia-G", model.parameters()), model, "equal")),
        (ValueError, "model must not have static_graph", (AdaHessian(still.parameters()), still)),
        (ValueError, "optimizer must hold parameters of the model alone", (Sophia([*model.parameters(), other]), model)),
    ]:
        with pytest.raises(error, match=f"^{message}"):
            data_parallel(*arguments)
        assert arguments[0] is not adahessian or adahessian.replicas is None
