"""Processes that work together: a function on each rank of a group over gloo, on this machine."""

import pickle
import tempfile
from collections.abc import Callable
from multiprocessing import set_forkserver_preload
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

PRELOAD = ("torch._dynamo", "secondlook.optim")  # imported once, and not by every process


def on_ranks(processes: int, function: Callable, *arguments: object) -> list:
    """What `function(*arguments)` returns on each of so many processes of one thread each, started for it, in their order."""
    set_forkserver_preload(list(PRELOAD))
    with tempfile.TemporaryDirectory() as folder:
        start_processes(_rank, (processes, folder, function, arguments), nprocs=processes, start_method="forkserver")
        return [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(processes)]


def _rank(rank: int, processes: int, folder: str, function: Callable, arguments: tuple) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=processes)
    (Path(folder) / str(rank)).write_bytes(pickle.dumps(function(*arguments)))
    dist.barrier()  # a rank that left early would end the connections of the others
    dist.destroy_process_group()
