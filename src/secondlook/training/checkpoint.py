"""A run on disk, so that one that was killed, or ran out of time, goes on as if nothing had happened.

    FOLDER/checkpoint             the newest state: a line with the SHA-256 of what follows, then what torch.save makes
    FOLDER/checkpoint.previous    the one before, for when the newest is damaged

A file is written beside its place and renamed, so that a kill at any moment leaves a whole one. Cost: a copy of the state in
memory, and two on disk.
"""

import hashlib
import io
import os
import pickle
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch

from secondlook.errors import Mistake, OutOfTime


class Checkpoints:
    """Where and when a run is kept.

    Arguments:
        folder      holds the files of one run and of no other; made if it is not there
        minutes     from one checkpoint to the next; 0 keeps the run whenever the loop looks at the clock
        deadline    value of time.monotonic() after which the run is kept and stops, between two steps; None: never
        settings    more that makes a run this run, beside what the run says of itself: model, data, scale
    """

    def __init__(
        self, folder: Path, minutes: float = 5.0, deadline: float | None = None, settings: Mapping[str, object] | None = None
    ):
        self.newest = Path(folder) / "checkpoint"
        self.previous = Path(folder) / "checkpoint.previous"
        self.minutes, self.deadline = minutes, deadline
        self.settings = {name: repr(value) for name, value in (settings or {}).items()}
        self._saved_at = time.monotonic()

    def look(self, state: Callable[[], dict], where: str) -> None:
        """Keep `state()` if it is time to. Raises OutOfTime, with `where` the run stands, once the deadline has passed."""
        now = time.monotonic()
        late = self.deadline is not None and now >= self.deadline
        if late or now - self._saved_at >= 60 * self.minutes:
            self.save(state())
        if late:
            raise OutOfTime(f"time is up {where}; what was done is kept in {self.newest}")

    def save(self, state: dict) -> None:
        """Write `state` as the newest; what was the newest becomes the previous one."""
        buffer = io.BytesIO()
        torch.save(state | {"settings": state["settings"] | self.settings}, buffer)
        fresh = self.newest.with_name("checkpoint.new")
        try:
            fresh.parent.mkdir(parents=True, exist_ok=True)
            with open(fresh, "wb") as file:
                file.write(_digest(buffer.getbuffer()) + b"\n")
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileNotFoundError):
                os.replace(self.newest, self.previous)
            os.replace(fresh, self.newest)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise Mistake(f"cannot write {self.newest}: {error.strerror}") from error
        self._saved_at = time.monotonic()

    def load(self, settings: Mapping[str, str]) -> dict | None:
        """The newest state that is whole, or None. Warns of a damaged file, by its path, and removes it.

        Raises Mistake if the state is of a run with other `settings`, or no state at all. Nothing in a file is run as code.
        """
        state = _read(self.newest) or _read(self.previous)
        if state is None:
            return None
        expected = {**settings, **self.settings}
        other = [name for name in {**expected, **state["settings"]} if expected.get(name) != state["settings"].get(name)]
        if other:
            raise Mistake(f"{self.newest.parent} holds a run with other settings: {', '.join(other)}")
        return state


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def _read(path: Path) -> dict | None:
    """The state in `path`; None if there is none, or none that is whole."""
    try:
        digest, _, data = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Mistake(f"cannot read {path}: {error.strerror}") from error
    if digest == _digest(data):
        return _state(path, data)
    warnings.warn(f"{path} is corrupt or truncated: going on from the checkpoint before it, or from the start", stacklevel=4)
    path.unlink()
    return None


def _state(path: Path, data: bytes) -> dict:
    """The state in `data`, which is whole but not trusted: whoever wrote it could write its digest, too."""
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, EOFError, AttributeError) as error:
        raise Mistake(f"{path} is refused: it holds more than tensors and plain values, or no state; remove it") from error
    if not isinstance(state, dict) or not isinstance(state.get("settings"), dict):
        raise Mistake(f"{path} is refused: it holds no state of a run; remove it")
    return state
