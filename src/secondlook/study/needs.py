"""What a stage needs of a machine: a device, a data set. Asked before anything is computed."""

import os
from pathlib import Path

from secondlook.errors import Mistake
from secondlook.study.experiment import Setting

BUILT = Path("data")  # in the project: data sets that were built from others
INSTEAD = "use the recorded results, or --scale smoke --device cpu"
BUILDABLE = ("cifar10.npy",)  # by the verb and rule `data`; the rest are files that somebody has


def data_folder(given: str | None = None) -> Path:
    """Where data sets are: as given, else where SECONDLOOK_DATA points, else `data`."""
    return Path(given or os.environ.get("SECONDLOOK_DATA") or BUILT)


def data_path(name: str, data_root: Path) -> Path:
    """The data set `name`, in `data_root` or among those that were built."""
    for path in (Path(data_root) / name, BUILT / name):
        if path.exists():
            return path
    remedy = "run 'snakemake data'" if name in BUILDABLE else "name its folder with --data-root or SECONDLOOK_DATA"
    raise Mistake(f"data set {Path(data_root) / name} is missing: {remedy}, or put it there")


def data_of(setting: Setting, data_root: Path) -> Path:
    """The folder in which a stage finds the data set that it needs; `data_root` where it needs none."""
    return data_path(setting.needs["data"], data_root).parent if "data" in setting.needs else data_root


def device_of(setting: Setting, asked: str) -> str:
    """The device that a stage runs on: the one that it needs, or else the one that was asked for."""
    return setting.needs.get("device", asked)


def check_needs(setting: Setting, data_root: Path, asked: str = "cpu") -> None:
    """Refuse a stage whose data or device is not here, before anything is computed."""
    data_of(setting, data_root)
    if device_of(setting, asked) == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise Mistake(f"stage {setting.name} needs device cuda, none is visible; {INSTEAD}")
