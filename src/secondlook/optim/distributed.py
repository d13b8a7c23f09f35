r"""AdaHessian, OASIS and Sophia on several processes, one replica of the model each, beside DistributedDataParallel (DDP).

For R ranks, each with its part of the batch and the loss L_r of that part, a mean:

    g = (1/R) sum_r g_r        by DDP, in its buckets, as it was set up (no_sync, communication hooks, unused parameters)
    D = (1/R) sum_r D_r        here, once for every step: in flat buckets, sent while DDP sends g, awaited by `step`

Parameters and state then are the same bits on every rank. With equal parts and equal probes it is the step of one process on
the whole batch, up to rounding:  (1/R) sum_r z * H_r z = z * H z. Example, one process for each rank:

    network = DistributedDataParallel(network)
    optimizer = data_parallel(AdaHessian(network.parameters()), network)
    for x, y in my_batches:
        optimizer.zero_grad()
        optimizer.backward(criterion(network(x), y))
        optimizer.step()

Probes
    independent   (1/R) sum_r z_r * H_r z_r: a rank draws from a generator of its own, seeded by its number and the state of the
                  shared one. The noise is averaged too: where the parts have equal Hessians, its variance is 1/R of one probe's
    equal         every rank draws what a single process would draw, for parameters that all ranks use

In both the shared generator advances alike on all ranks, so a state_dict is the same everywhere: save it on one, and load it
on any number of ranks, or on one process without any of this.

Cost:    n numbers sent for each estimate, as many as DDP sends for g at every step.
Memory:  n more while D is copied into its buckets.

Deviations
    estimators  `GaussNewtonBartlett` squares a gradient of B/R rows on each rank, and the squares are averaged: unbiased as
                ever, with less noise than on one process, and so never equal to it. An estimator that is not linear in H is
                averaged too.
    no_sync     D adds up on its rank like g, and is averaged in the pass backward that is not under `no_sync`, or else in
                `step`.
    last batch  Ranks count alike, as in DDP: parts should be equal. `join` is not supported.
    nan         A loss that is not finite on one rank makes parameters nan on all, at that step.
"""

import hashlib

import torch
import torch.distributed
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from secondlook.arguments import one_of
from secondlook.curvature.source import Source
from secondlook.optim.base import SecondOrder

PROBES = ("independent", "equal")
BUCKET = 25 * 2**20  # bytes, about: DDP's default


def data_parallel(optimizer: SecondOrder, model: DistributedDataParallel, probes: str = "independent") -> SecondOrder:
    """`optimizer`, which from now on averages its curvature over the processes of `model`; to be called on all of them.

    Its generator takes the state of rank 0's. Load a state_dict before or after, the same on every rank. A copy of the
    optimiser is for one process. `curvature_of` may come from `model.module`: curvature needs no hooks of DDP.

    Raises TypeError for another optimiser or a model without DDP; ValueError for parameters that DDP does not average, for a
    model with `static_graph`, which averages nothing here, and for probes of another name, or equal ones for
    `GaussNewtonBartlett`, whose labels are of each rank's own rows.

    >>> torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    >>> network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
    >>> optimizer = data_parallel(AdaHessian(network.parameters()), network)
    >>> optimizer.backward(network(torch.ones(4, 2)).square().mean())
    >>> optimizer.step()
    >>> torch.distributed.destroy_process_group()
    """
    if not isinstance(optimizer, SecondOrder):
        raise TypeError(f"optimizer must be one of AdaHessian, OASIS and Sophia, got {type(optimizer).__name__}")
    if not isinstance(model, DistributedDataParallel):
        raise TypeError(f"model must be a DistributedDataParallel, got {type(model).__name__}")
    one_of(PROBES).check(probes=probes)
    if probes == "equal" and optimizer.diagonal.source is Source.LOGITS:
        name = type(optimizer.diagonal).__name__
        raise ValueError(f"probes must be independent for {name}: its labels are of each rank's own rows")
    if model.static_graph:
        raise ValueError("model must not have static_graph=True: it averages no gradients that come from autograd.grad")
    averaged = {p for name, p in model.module.named_parameters() if name not in model.parameters_to_ignore}
    if any(p not in averaged for group in optimizer.param_groups for p in group["params"]):
        raise ValueError("optimizer must hold parameters of the model alone: others are averaged by nobody")
    optimizer.replicas = Replicas(model, probes)
    optimizer.replicas.share(optimizer.generator)
    return optimizer


class Replicas:
    """What `SecondOrder` asks of the other processes: a source of probes, and the average of its curvature."""

    def __init__(self, model: DistributedDataParallel, probes: str):
        self.model = model
        self.probes = probes
        self._sent: list[tuple[torch.distributed.Work, Tensor]] = []  # buckets on their way

    def share(self, generator: torch.Generator) -> None:
        """Give `generator` the state that it has on rank 0."""
        group, device = self.model.process_group, next(self.model.parameters()).device
        state = generator.get_state().to(device)
        torch.distributed.broadcast(state, torch.distributed.get_global_rank(group, 0), group=group)
        generator.set_state(state.cpu())

    def source(self, shared: torch.Generator) -> torch.Generator:
        """What the next estimate draws from; `shared` stays the same on all ranks."""
        if self.probes == "equal":
            return shared
        rank = torch.distributed.get_rank(self.model.process_group)
        state = shared.get_state().numpy().tobytes()  # known to the host, where a number drawn on a GPU is waited for
        torch.empty(1, device=shared.device).uniform_(generator=shared)  # so that the next estimate finds another state
        word = hashlib.blake2b(state, digest_size=8, salt=rank.to_bytes(8, "little")).digest()
        return torch.Generator(shared.device).manual_seed(int.from_bytes(word, "little") >> 1)

    def start(self, D: dict[Tensor, Tensor]) -> None:
        """Send D, if this is a pass backward in which DDP averages. Its tensors may not be used before `wait` or `finish`."""
        if self.model.require_backward_grad_sync:
            self._send(D)

    def wait(self) -> None:
        """Until what was sent is averaged."""
        for work, flat in self._sent:
            work.wait()
            flat.div_(torch.distributed.get_world_size(self.model.process_group))
        self._sent.clear()

    def finish(self, D: dict[Tensor, Tensor]) -> None:
        """Until D is averaged, which is sent if it was not."""
        if not self._sent:
            self._send(D)
        self.wait()

    def _send(self, D: dict[Tensor, Tensor]) -> None:
        """Start to add up D over the ranks, in buckets, of which its tensors become parts."""
        for params in _buckets(D):
            flat = torch.cat([D[p].reshape(-1) for p in params])
            parts = flat.split([p.numel() for p in params])
            D.update((p, part.view(p.shape)) for p, part in zip(params, parts, strict=True))
            self._sent.append((torch.distributed.all_reduce(flat, group=self.model.process_group, async_op=True), flat))


def _buckets(D: dict[Tensor, Tensor]) -> list[list[Tensor]]:
    """The parameters of D in order, BUCKET bytes or one tensor at a time, each bucket of one type and device."""
    full: list[list[Tensor]] = []
    filling: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for p, d in D.items():
        bucket = filling.setdefault((d.dtype, d.device), [])
        bucket.append(p)
        if sum(q.numel() for q in bucket) * d.element_size() >= BUCKET:
            full.append(filling.pop((d.dtype, d.device)))
    return full + list(filling.values())
