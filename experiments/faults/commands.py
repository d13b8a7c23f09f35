"""A program that runs commands of `python -m secondlook`, each in a fork of itself: what takes long to import is imported once.

stdin    one line of JSON a command: {"words": [...], "folder": where, "stderr": file, "largest": bytes of a file, or null}
stdout   its exit status, one line, negative for a signal, as subprocess has it
"""

import json
import os
import resource
import sys
import traceback

import torch._dynamo  # noqa: F401 (torch imports it for its first optimiser)

import secondlook.study.claims  # noqa: F401 (this and the next two: for the forks)
import secondlook.study.datasets  # noqa: F401
import secondlook.training  # noqa: F401
from secondlook.cli import main


def command(words: list[str], folder: str, stderr: str, largest: int | None) -> int:
    """What the fork does: as a process of its own would."""
    os.chdir(folder)
    for name, stream in ((os.devnull, sys.stdout), (stderr, sys.stderr)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    sys.argv = ["secondlook", *words]
    try:
        return main(words)
    except SystemExit as stop:
        return int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1


for line in sys.stdin:
    child = os.fork()
    if child == 0:
        status = command(**json.loads(line))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
