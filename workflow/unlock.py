"""Take away the lock of a snakemake that was killed in this folder. `make` does so before it builds.

A living snakemake holds a shared lock on ALIVE (workflow/rules/common.smk), which the kernel takes back when the process ends,
however it ends. Where one lives, or the file system cannot tell, nothing is taken away, and snakemake says what is the matter.
"""

import fcntl
from pathlib import Path

STATE = Path(".snakemake")
ALIVE = STATE / "alive"

if locks := list(STATE.glob("locks/*.lock")):
    with open(ALIVE, "a", encoding="utf-8") as alive:
        try:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemExit from None
        for lock in locks:
            lock.unlink()
    print("make: the last build here was killed. Its lock is taken away, and this one goes on from what is finished.")
