"""What the ranks of test_distributed.py do, a process each, over gloo; and what one process does in their place.

work(rank, folder)                      everything that needs two or four ranks, in one start of the processes
torchrun distributed_worker.py FOLDER   a run with checkpoints, of which one rank kills itself
"""

import copy
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from secondlook.curvature import Exact, GaussNewtonBartlett, Objective, of_module
from secondlook.curvature.source import GraphLogits
from secondlook.optim import OASIS, AdaHessian, Sophia, data_parallel

X = torch.randn(16, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(16) % 3
LONG, SHORT, DRAWS = 1000, 30, 400
NAMES = ("AdaHessian", "AdaHessian every 3", "OASIS", "OASIS, adaptive", "Sophia-H")  # linear in z * H z until it is averaged
LENGTHS = {**dict.fromkeys((*NAMES, "Sophia-G"), 200), "AdaHessian": LONG}


def make(name: str, params) -> torch.optim.Optimizer:
    return {
        "AdaHessian": lambda: AdaHessian(params, 0.02, weight_decay=0.01, averaging="absolute"),
        "AdaHessian every 3": lambda: AdaHessian(params, 0.02, every=3),
        "OASIS": lambda: OASIS(params, 0.02, alpha=0.01, warmup=3),
        "OASIS, adaptive": lambda: OASIS(params, 0.002, alpha=0.01, adaptive=True),
        "Sophia-H": lambda: Sophia(params, 0.02, every=3),
        "Sophia-G": lambda: Sophia(params, 0.02, every=3, gamma=0.05, diagonal=GaussNewtonBartlett()),
    }[name]()


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).to(dtype)


def flat(tensors) -> Tensor:
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def step(optimizer, model, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    backward(optimizer, model, x, y)
    optimizer.step()


def backward(optimizer, model, x: Tensor, y: Tensor, share: float = 1.0) -> None:
    logits = model(x)
    sampled = isinstance(optimizer.diagonal, GaussNewtonBartlett)
    optimizer.backward(share * cross_entropy(logits, y), curvature_of=logits if sampled else None)


def train(optimizer, model, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """Parameters after every step (steps, n)."""
    path = []
    for _ in range(steps):
        step(optimizer, model, x, y)
        path.append(flat(model.parameters()))
    return torch.stack(path)


def kept(optimizer) -> dict:
    """All that a checkpoint holds, as one dictionary of tensors and numbers."""
    saved = optimizer.state_dict()
    states = {f"{i}.{name}": value for i, state in saved["state"].items() for name, value in state.items()}
    rates = {f"lr {i}": group["lr"] for i, group in enumerate(saved["param_groups"])}
    return {**states, **rates, "generator": saved["generator"]["state"]}


def accumulate(optimizer, model, parts, quiet, steps: int = SHORT) -> Tensor:
    """Train on the sum of two passes backward; `quiet(i)` is the context of pass i."""
    path = []
    for _ in range(steps):
        optimizer.zero_grad()
        for i, (x, y) in enumerate(parts):
            with quiet(i):
                backward(optimizer, model, x, y, share=0.5)
        optimizer.step()
        path.append(flat(model.parameters()))
    return torch.stack(path)


class TwoHeads(nn.Module):
    """A body and two heads, of which a pass uses one, or both; and one that nobody uses."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.body = nn.Linear(3, 4).double()
            self.heads = nn.ModuleList(nn.Linear(4, 3).double() for _ in range(3))

    def forward(self, x: Tensor, head: int) -> Tensor:
        return self.heads[head](torch.tanh(self.body(x)))


def halves(count: int, index: int) -> tuple[Tensor, Tensor]:
    return X[index::count], Y[index::count]


# With ranks


class Ranks:
    """This process among `size` of a group."""

    def __init__(self, group, size: int):
        self.group, self.size, self.index = group, size, dist.get_rank(group)
        self.part = halves(size, self.index)

    def wrap(self, model: nn.Module, **options) -> DistributedDataParallel:
        return DistributedDataParallel(model, process_group=self.group, **options)

    def pair(self, name: str, probes: str, dtype: torch.dtype = torch.float64):
        model = self.wrap(network(dtype))
        return data_parallel(make(name, model.parameters()), model, probes), model


def long_runs(ranks: Ranks) -> dict:
    """In single precision, where no order of a sum is exact."""
    x, y = ranks.part
    found = {}
    for name, steps in LENGTHS.items():
        optimizer, model = ranks.pair(name, "independent", torch.float32)
        found[name] = {"path": train(optimizer, model, x.float(), y, steps), **kept(optimizer)}
    return found


def equal_probes(ranks: Ranks) -> dict:
    found = {}
    for name in NAMES:
        optimizer, model = ranks.pair(name, "equal")
        found[name] = train(optimizer, model, *ranks.part, SHORT)
    return found


def accumulation(ranks: Ranks) -> dict:
    """Paths, and the times that curvature was sent in a run of SHORT steps."""
    x, y = ranks.part
    found = {}
    send = dist.all_reduce
    for way in ("no_sync", "every pass", "never in sync"):
        optimizer, model = ranks.pair("AdaHessian", "equal")

        def quiet(i, way=way, model=model):
            return model.no_sync() if way == "no_sync" and i == 0 else nullcontext()

        sent = []
        dist.all_reduce = lambda *args, sent=sent, **options: sent.append(1) or send(*args, **options)
        if way == "never in sync":  # as DDP with gradients averaged by hand
            found[way] = _by_hand(optimizer, model, (x[:4], y[:4]), (x[4:], y[4:]), ranks, send)
        else:
            found[way] = accumulate(optimizer, model, [(x[:4], y[:4]), (x[4:], y[4:])], quiet)
        dist.all_reduce = send
        found[f"{way}, sent"] = len(sent)
    return found


def _by_hand(optimizer, model, first, second, ranks: Ranks, send) -> Tensor:
    path = []
    for _ in range(SHORT):
        optimizer.zero_grad()
        with model.no_sync():
            for x, y in (first, second):
                backward(optimizer, model, x, y, share=0.5)
        for p in model.parameters():
            send(p.grad, group=ranks.group)
            p.grad /= ranks.size
        optimizer.step()
        path.append(flat(model.parameters()))
    return torch.stack(path)


def two_heads(ranks: Ranks) -> Tensor:
    """Rank r uses head r alone."""
    model = ranks.wrap(TwoHeads(), find_unused_parameters=True)
    optimizer = data_parallel(AdaHessian(model.parameters(), 0.02, diagonal=Exact()), model)
    path = []
    for _ in range(SHORT):
        optimizer.zero_grad()
        optimizer.backward(cross_entropy(model(ranks.part[0], ranks.index), ranks.part[1]))
        optimizer.step()
        path.append(flat(model.parameters()))
    return torch.stack(path)


def estimates(ranks: Ranks) -> dict:
    """D of DRAWS steps at the same parameters (DRAWS, n); all ranks have all of the data, so the same Hessian."""
    found = {}
    for probes in ("independent", "equal"):
        model = ranks.wrap(network())
        optimizer = data_parallel(Sophia(model.parameters(), 0.0, (0.0, 0.0), every=1), model, probes)
        D = []
        for _ in range(DRAWS):
            step(optimizer, model, X, Y)
            D.append(flat(state["exp_hessian_diag"] for state in optimizer.state.values()))
        found[probes] = torch.stack(D)
    return found


def sampled_labels(ranks: Ranks) -> tuple[Tensor, Tensor]:
    """D of Gauss-Newton-Bartlett, and the mean over ranks of each one's own; the logits come from the model inside DDP."""
    x, y = ranks.part
    model = ranks.wrap(network())
    optimizer = Sophia(model.parameters(), 0.0, (0.0, 0.0), diagonal=GaussNewtonBartlett())
    data_parallel(optimizer, model)
    own = optimizer.replicas.source(torch.Generator().set_state(optimizer.generator.get_state()))
    mean = flat(optimizer.diagonal(GraphLogits(model.module(x[:4]), list(model.parameters())), own))
    dist.all_reduce(mean, group=ranks.group)
    part = Objective(of_module(model.module, cross_entropy), list(model.parameters()), (x[:4], y[:4]))
    optimizer.backward(cross_entropy(model(x), y), curvature_of=part)
    optimizer.step()
    return flat(state["exp_hessian_diag"] for state in optimizer.state.values()), mean / ranks.size


def one_bad_rank(ranks: Ranks) -> dict:
    """Rank 1 has an example that is not a number, once."""
    found = {}
    for name in ("AdaHessian", "OASIS, adaptive"):
        optimizer, model = ranks.pair(name, "independent")
        train(optimizer, model, *ranks.part, 2)
        step(optimizer, model, ranks.part[0] * (float("nan") if ranks.index == 1 else 1.0), ranks.part[1])
        found[name] = {"path": train(optimizer, model, *ranks.part, 1), **kept(optimizer)}
    return found


def own_seeds(ranks: Ranks) -> Tensor:
    """The state of a generator that every rank seeded by itself."""
    model = ranks.wrap(network())
    optimizer = AdaHessian(model.parameters(), generator=torch.Generator().manual_seed(ranks.index))
    return data_parallel(optimizer, model).generator.get_state()


def saved_and_continued(ranks: Ranks, folder: Path) -> Tensor:
    optimizer, model = ranks.pair("AdaHessian", "equal")
    train(optimizer, model, *ranks.part, 5)
    if ranks.index == 0:
        torch.save((model.module.state_dict(), optimizer.state_dict()), folder / "checkpoint.pt")
    return train(optimizer, model, *ranks.part, SHORT)


def load(folder: Path, optimizer, module: nn.Module) -> None:
    weights, state = torch.load(folder / "checkpoint.pt")
    module.load_state_dict(weights)
    optimizer.load_state_dict(state)


def resumed_on_four(ranks: Ranks, folder: Path) -> Tensor:
    optimizer, model = ranks.pair("AdaHessian", "equal")
    load(folder, optimizer, model.module)
    return train(optimizer, model, *ranks.part, SHORT)


def run(ranks: Ranks, folder: Path, steps: int, killed_at: int | None = None) -> Tensor:
    """A run with independent probes that saves every five steps, goes on from what is there, and returns its parameters."""
    optimizer, model = ranks.pair("AdaHessian", "independent")
    first = 0
    if (folder / "checkpoint.pt").exists():
        load(folder, optimizer, model.module)
        first = optimizer.state[next(model.parameters())]["step"]
    for t in range(first + 1, steps + 1):
        if t == killed_at and ranks.index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        step(optimizer, model, *ranks.part)
        if t % 5 == 0 and ranks.index == 0:
            torch.save((copy.deepcopy(model.module.state_dict()), optimizer.state_dict()), folder / "new.pt")
            (folder / "new.pt").rename(folder / "checkpoint.pt")
    return flat(model.parameters())


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=4)
    pair, four = dist.new_group([0, 1]), Ranks(dist.group.WORLD, 4)
    found = {}
    if rank < 2:
        two = Ranks(pair, 2)
        jobs = (long_runs, equal_probes, accumulation, two_heads, estimates, sampled_labels, one_bad_rank, own_seeds)
        found = {job.__name__: job(two) for job in jobs}
        found["saved_and_continued"] = saved_and_continued(two, folder)
        found["uninterrupted"] = run(two, folder / "new", steps=20)
        found["resumed"] = run(two, folder / "killed", steps=20)
    dist.barrier()
    found["resumed_on_four"] = resumed_on_four(four, folder)
    optimizer, model = four.pair("OASIS, adaptive", "independent")
    found["four"] = {"path": train(optimizer, model, *four.part, SHORT), **kept(optimizer)}
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    run(Ranks(dist.group.WORLD, 2), Path(sys.argv[1]), steps=20, killed_at=13)
