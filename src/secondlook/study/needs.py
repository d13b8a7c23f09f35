"""What a stage needs of a machine: a device, a data set. Asked before anything is computed."""

import os
from pathlib import Path

from secondlook.errors import Mistake
from secondlook.study.experiment import Setting


def data_folder(given: str | None = None) -> Path:
    """Where data sets are: as given, else where SECONDLOOK_DATA points, else `data`."""
    return Path(given or os.environ.get("SECONDLOOK_DATA") or "data")


def check_needs(setting: Setting, data_root: Path) -> None:
    """Refuse a stage whose data or device is not here, before anything is computed."""
    if "data" in setting.needs and not (path := Path(data_root) / setting.needs["data"]).exists():
        raise Mistake(f"data set {path} is missing: put it there, or point data_root (SECONDLOOK_DATA) at its folder")
    if setting.needs.get("device") == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise Mistake(f"stage {setting.name} needs device cuda, none is visible; use the recorded results")
