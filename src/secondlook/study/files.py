"""Files on disk: whole or not at all, one writer at a time, and every fault in one line."""

import fcntl
import hashlib
import json
import math
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from secondlook.errors import Mistake

LARGEST_YAML = 1 << 20  # bytes, and values with every alias written out; no file that a person writes here comes near it


def sha256(data: bytes | memoryview) -> str:
    """The digest in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def read(path: Path) -> bytes:
    """The bytes of a file. Raises Mistake where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Mistake(f"cannot read {path}: {error.strerror}") from error


def write(path: Path, data: str | bytes | memoryview) -> None:
    """Put `data` at `path` in one atomic step. After a failure the old file is still there, and nothing else."""
    write_together({Path(path): data})


def write_together(contents: Mapping[Path, str | bytes | memoryview]) -> None:
    """As `write` for several files: none takes its place before all of them are on the disk."""
    temporaries = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in contents}
    try:
        for path, data in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporaries[path], "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
    except OSError as error:
        raise Mistake(f"cannot write {path}: {error.strerror}") from error
    finally:
        for temporary in temporaries.values():
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Hold `path` for this process. The kernel lets go when the process ends, however it ends."""
    path = Path(path)
    lock = path.with_name(f".{path.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = open(lock, "a+", encoding="utf-8")  # noqa: SIM115 (entered below, outside of what may fail)
    except OSError as error:
        raise Mistake(f"cannot write {path}: {error.strerror}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise Mistake(f"{path} is being written by {handle.read() or 'another process'}") from None
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()} ({' '.join(sys.argv)})")
        handle.flush()
        yield


# What the loader raises for text that is no YAML, or for a value that its tag does not fit, such as `!!bool maybe`.
FAULTS_OF_YAML = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


class _Loader(yaml.SafeLoader):
    """YAML with the numbers of version 1.2 (1e-3 is a number) and without repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
        if repeated is not None:
            raise yaml.constructor.ConstructorError(None, None, f"repeated key {repeated!r}", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text. `where` names it in the line that says what is wrong with it."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _values(node, {}) > LARGEST_YAML:
            raise Mistake(f"{where} is too large for a configuration: its aliases stand for more than {LARGEST_YAML} values")
        value = loader.construct_document(node)
        _check_plain(value)
        return value
    except FAULTS_OF_YAML as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or (str(error) or type(error).__name__).splitlines()[0]
        raise Mistake(f"{where}{line} is not valid YAML: {reason}") from error


def _check_plain(value: object) -> None:
    """Refuse what JSON has not: dates, sets, bytes, and keys that are no text."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is no text")
            _check_plain(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner)
    elif not isinstance(value, str | int | float | None):
        raise ValueError(f"{value!r} is neither a text, a number, a list nor a table")


def _values(node: yaml.Node, known: dict[yaml.Node, int | None]) -> int:
    """How many values `node` stands for when every alias in it is written out. `known`: of nodes seen, None while inside."""
    if node not in known:
        known[node] = None
        inner = [] if isinstance(node, yaml.ScalarNode) else node.value
        parts = [part for item in inner for part in (item if isinstance(item, tuple) else [item])]
        known[node] = 1 + sum(_values(part, known) for part in parts)
    if (count := known[node]) is None:
        raise yaml.constructor.ConstructorError(None, None, "a value that contains itself", node.start_mark)
    return count


def read_yaml(path: Path) -> Any:
    """The value of a YAML file. Raises Mistake where it is none, or no configuration by its size."""
    data = read(path)
    if len(data) > LARGEST_YAML:
        raise Mistake(f"{path} is too large for a configuration: {len(data)} bytes, at most {LARGEST_YAML}")
    try:
        return parse_yaml(data.decode(), str(path))
    except UnicodeDecodeError as error:
        raise Mistake(f"{path} is not UTF-8 text: byte {error.start}") from error


def to_json(value: object) -> str:
    """Strict JSON, in a stable layout; numbers that JSON lacks become the strings 'inf', '-inf' and 'nan'."""

    def plain(v: object) -> object:
        if isinstance(v, dict):
            return {str(k): plain(w) for k, w in v.items()}
        if isinstance(v, list | tuple):
            return [plain(w) for w in v]
        return str(v) if isinstance(v, float) and not math.isfinite(v) else v

    return json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises Mistake where it is none."""
    try:
        return json.loads(read(path))
    except (ValueError, RecursionError) as error:  # no text, no JSON, a number of thousands of digits; brackets without end
        raise Mistake(f"{path} is damaged: it is not valid JSON") from error
