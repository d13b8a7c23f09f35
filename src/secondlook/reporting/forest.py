"""The picture of AdaHessian beside first-order methods on every task, as report/tuned.yaml says: differences with their
intervals, and what they cost."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from secondlook.reporting.comparisons import lines
from secondlook.reporting.style import COLOUR, GREY, axes
from secondlook.study.files import read_yaml
from secondlook.study.statistics import Estimate
from secondlook.study.text import interval

Find = Callable[[str, str], Estimate]  # (experiment, measure)


def forest(path: Path, find: Find) -> Figure:
    """A panel for each task that the file at `path` names, a line for each method; right is in AdaHessian's favour."""
    tasks: Sequence[dict] = read_yaml(path)
    methods = list(dict.fromkeys(method for task in tasks for method in task["less"]))
    figure, panels = axes(1, len(tasks), height=1.75, sharey=True, squeeze=False)
    for task, panel in zip(tasks, panels[0], strict=True):
        for method, measure in task["less"].items():
            found, at = find(task["experiment"], measure), methods.index(method)
            panel.plot([task["sign"] * end for end in found.ends], [at, at], color=COLOUR[method])
            panel.plot(task["sign"] * found.value, at, "D", color=COLOUR[method], markersize=4)
        panel.axvline(0, color=GREY, linewidth=0.8)
        lines(panel, methods)
        cost = interval(find(task["experiment"], task["cost"]), digits=2)
        panel.set(title=f"{task['task']}: {cost}\n{task['in']}", xlabel=task["unit"])
    panels[0][0].set_ylabel("AdaHessian against")
    return figure
