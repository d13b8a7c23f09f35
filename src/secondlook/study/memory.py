"""How much memory a process has held at most."""

import re
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_mib() -> float:
    """The most resident memory that this process has held so far, MiB.

    On Linux that is VmHWM, which begins anew in every program that is started. `ru_maxrss`, taken where there is no VmHWM,
    begins there with the peak of the process that started it, so that after a larger one nothing is seen.
    """
    found = re.search(r"^VmHWM:\s*(\d+) kB$", STATUS.read_text(encoding="utf-8"), re.MULTILINE) if STATUS.exists() else None
    if found:
        return int(found[1]) / 2**10
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, others KiB
