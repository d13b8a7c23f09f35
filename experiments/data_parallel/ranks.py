"""Processes that work together: a function on each rank of a group over gloo, on this machine."""

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist


def on_ranks(processes: int, function: Callable, *arguments) -> object:
    """What `function(*arguments)` returns on rank 0 of so many processes of one thread each, started for it."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, (processes, folder, function, arguments), nprocs=processes)
        return pickle.loads((Path(folder) / "found").read_bytes())


def _rank(rank: int, processes: int, folder: str, function: Callable, arguments: tuple) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=processes)
    found = function(*arguments)
    if rank == 0:
        (Path(folder) / "found").write_bytes(pickle.dumps(found))
    dist.barrier()  # a rank that left early would end the connections of the others
    dist.destroy_process_group()


def average(tensors: list[torch.Tensor]) -> None:
    """Put the mean over ranks in place of each tensor."""
    for t in tensors:
        dist.all_reduce(t)
        t.div_(dist.get_world_size())


def spread(t: torch.Tensor) -> float:
    """The largest difference of an entry between ranks; nan where an entry is no number."""
    least, most = t.clone(), t.clone()
    dist.all_reduce(least, dist.ReduceOp.MIN)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return (most - least).max().item()
