"""A process that ends with the one that started it, however that one ended."""

import os
import signal
import threading
import time

PARENT = "SECONDLOOK_PARENT"  # environment variable: the process with which a command ends
EVERY = 0.5  # seconds between two looks


def end_with(pid: int) -> None:
    """Kill this process soon after process `pid` of this machine is gone: what it writes is whole or not there at all."""

    def watch() -> None:
        while _lives(pid):
            time.sleep(EVERY)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True
