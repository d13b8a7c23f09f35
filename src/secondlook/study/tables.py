"""A tidy table and, beside it, its record: written together, and read only where they belong together.

<name>.csv     the rows
<name>.json    what the caller says of them, their number, and the sha256 of the table
"""

from io import BytesIO
from pathlib import Path

import pandas as pd

from secondlook.errors import Mistake
from secondlook.study.files import read, read_json, sha256, to_json, write_together


def write_table(path: Path, table: pd.DataFrame, record: dict) -> None:
    """Write the table and its record, both or neither: on a full disk the old ones stay together."""
    data = table.to_csv(index=False).encode()
    write_together({beside(path): to_json({**record, "rows": len(table), "sha256": sha256(data)}), Path(path): data})


def read_table(path: Path) -> tuple[pd.DataFrame, dict]:
    """The table and its record. Raises Mistake where one is missing, damaged, or does not belong to the other."""
    path = Path(path)
    record, data = read_json(beside(path)), read(path)
    known = record.get("sha256") if isinstance(record, dict) else None
    if known != sha256(data):
        data = data.replace(b"\r\n", b"\n")  # a checkout or an archive with the line ends of Windows: the rows are the same
    if known != sha256(data):
        raise Mistake(f"{path} does not match its record: it was edited or is incomplete; remove it, and it is made again")
    try:
        return pd.read_csv(BytesIO(data)), record
    except (ValueError, OverflowError) as error:  # pandas' own faults are ValueErrors
        raise Mistake(f"{path} holds no table: {error}") from error


def beside(path: Path) -> Path:
    """Where the record of the table at `path` is."""
    return Path(path).with_suffix(".json")
