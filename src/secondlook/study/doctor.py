"""What this machine can do: packages, device, data, and which stages can run here."""

import importlib.util
import os
import platform
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from secondlook.errors import Mistake
from secondlook.study.experiment import experiments
from secondlook.study.needs import check_needs, data_folder
from secondlook.study.records import recorded_stages, unrecorded
from secondlook.study.results import Results

CAN = "can run here"
NEEDED = {
    "torch": "runs the experiments",
    "numpy": "runs the experiments",
    "pandas": "runs the experiments",
    "scipy": "statistics",
    "matplotlib": "figures",
    "seaborn": "figures",
    "typst": "the PDF",
    "pypandoc": "the PDF, HTML and LaTeX",
    "snakemake": "the workflow",
    "pytest": "the tests",
}


def examine(root: Path, data_root: str | None, each: bool = False) -> Iterator[str]:
    """Lines to print: of the stages a summary, or one for `each`."""
    yield f"python {platform.python_version()}, {os.cpu_count()} cores"
    for package, use in NEEDED.items():
        yield f"{package:12} {_version(package):10} {use}"
    yield f"device       {_device()}"
    folder = data_folder(data_root)
    yield f"data         {folder}: {_contents(folder)}"
    stages = list(_stages(root, folder))
    if each:
        yield from (f"stage        {name}: {', '.join(filter(None, (here, kept)))}" for name, here, kept in stages)
        return
    counts = Counter(kept or "computed" for _, _, kept in stages)
    listed = ", ".join(f"{count} {kept}" for kept, count in counts.items())
    able = sum(here == CAN for _, here, _ in stages)
    yield f"stages       {len(stages)}: {listed}; {able} can run here ('doctor --stages' lists them)"


def _stages(root: Path, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Of each stage its name, whether it can run here, and whether it is recorded, or unrecorded."""
    recorded = recorded_stages(root)
    for experiment in experiments(root):
        for case in experiment.cases:
            setting = experiment.setting(case)
            try:
                check_needs(setting, folder)
                here = CAN
            except Mistake as mistake:
                here = str(mistake)
            kept = "recorded" if setting.name in recorded else "unrecorded" * unrecorded(Results(root), setting)
            yield setting.name, here, kept


def _version(package: str) -> str:
    if importlib.util.find_spec(package) is None:
        return "missing"
    try:
        return version("pypandoc-binary" if package == "pypandoc" else package)
    except PackageNotFoundError:
        return "unknown"


def _device() -> str:
    if importlib.util.find_spec("torch") is None:
        return "unknown without torch"
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _contents(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder; no stage of the default workflow needs one"
    return ", ".join(sorted(path.name for path in folder.iterdir())) or "empty"
