"""Several runs in one process, each on a stream of its own: what one small network leaves idle of a GPU, others use.

    tasks = (train(run, turns=True) for run in runs)
    for task, error in take_turns(tasks, at_once=5, device="cuda"):
        ...

A task is an iterator; each `next` is a turn, in which it hands the GPU the work of one step and waits for nothing. Turns go
round the tasks, so that every stream has a step waiting. On a CPU turns are taken alike, and save nothing.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch

ENDED = object()


def take_turns(tasks: Iterable[Iterator], at_once: int, device: str) -> Iterator[tuple[int, Exception | None]]:
    """Drive `tasks` to their ends, `at_once` at a time, and drop what they yield. Yields the number of each, counted from 0, as
    it ends, with the exception that ended it or None. A task that fails ends no other."""
    waiting = enumerate(tasks)
    going: dict[int, tuple[Iterator, Any]] = {}  # number: (task, stream)
    while True:
        while len(going) < at_once and (found := next(waiting, None)) is not None:
            going[found[0]] = (found[1], _stream(device) if at_once > 1 else None)
        if not going:
            return
        for number, (task, stream) in list(going.items()):
            error = None
            try:
                with torch.cuda.stream(stream):  # of None: nothing
                    ended = next(task, ENDED) is ENDED
            except Exception as failed:
                error, ended = failed, True
            if ended:
                del going[number]
                yield number, error


def _stream(device: str) -> "torch.cuda.Stream | None":
    """A new one, behind all that the current one was given before."""
    if device != "cuda":
        return None
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    return stream
