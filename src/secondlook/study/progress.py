"""Progress on standard error: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence

EVERY = 5.0  # seconds between two lines of a log


def watch(items: Sequence, what: str, clock: Callable[[], float] = time.monotonic) -> Iterable:
    """Iterate over `items`, saying how far it is. Silent for what takes less than a few seconds."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=what, leave=False, delay=1)
        return
    said = clock()
    for i, item in enumerate(items, 1):
        yield item
        if clock() - said > EVERY:
            said = clock()
            print(f"{what}: {i} of {len(items)}", file=sys.stderr, flush=True)
