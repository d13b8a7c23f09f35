"""What ranks compute together."""

import torch
import torch.distributed as dist


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
