"""How every figure looks: one colour for each method wherever it appears, the paper's letters, vector output, stable files.

A figure function makes its axes with `axes(...)` and takes colours from `COLOUR`; it never sets a font or a size.
"""

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from secondlook.study.files import write

logging.getLogger("fontTools").setLevel(logging.ERROR)  # it remarks on the age of matplotlib's own fonts

TEXT_WIDTH = 6.3  # inches: the width of the paper's text
GREY = "#7f7f7f"
INK = "#1a1a1a"

# One colour a method, and of no two methods the same but plain descent on all examples or on some; shades of a colour are
# variants of a method. After Okabe and Ito, "Color Universal Design" (2008), and from "momentum" on Tol, "Colour Schemes"
# (2021): told apart with every common colour vision.
COLOUR = {
    "GD": GREY,
    "Newton": "#009e73",
    "damped Newton": "#56b4e9",
    "absolute-value Newton": "#cc79a7",
    "trust-region Newton": "#e69f00",
    "Adam": "#0072b2",
    "AdaHessian": "#d55e00",
    "SGD": GREY,
    "momentum": "#332288",
    "Nesterov": "#88ccee",
    "Adagrad": "#999933",
    "RMSprop": "#ddcc77",
    "Adamax": "#aa4499",
    "NAdam": "#882255",
    "AdamW": "#44aa99",
    "AdaBelief": "#117733",
    "K-FAC": "#ee3377",
    "K-FAC every 10": "#a3174f",
    "Sophia-G": "#6f4c9b",
    "OASIS": "#aa3377",
    "Muon": "#225555",
    "SOAP": "#bb5566",
    "OASIS, fixed": "#ee99aa",
    "AdGD": "#bbcc33",
    "L-BFGS": "#555555",
    "AdaHessian coupled": "#fdb366",
    "AdaHessian absolute": "#eecc66",
    "AdaHessian Gauss-Newton": "#994455",
    "AdaHessian 1/4 batch": "#5289c7",
    "AdaHessian every k": "#7bafde",
    "AdaHessian power 0.5": "#ccbb44",
    "AdaHessian, more probes": "#ae76a3",
    "Adam + Adagrad": "#7eb2e4",
    "AdaHessian + Adagrad": "#e8853d",
    "Adam, larger lr": "#99ddff",
    "adaptive": "#ee6677",
    "careful": INK,
    "careful, back": "#bbbbbb",
    "EVE": "#228833",
    "EVE, walk": "#90c987",
    "adaptive + careful": "#f1932d",
    "adaptive + EVE": "#997700",
}
COLOUR |= {f"AdaHessian every {k}": COLOUR["AdaHessian every k"] for k in (2, 3, 4, 5, 10)}
SERIES = ("#4477aa", "#66ccee", "#cc6677", "#004488", "#dddd77")  # of what is no method

# Colour, marker and filling of each verdict; the colours are those of the words in report/filters/marks.lua.
VERDICT: dict[str, tuple[str, str, Any]] = {
    "reproduced": ("#00684a", "o", "full"),
    "partly": ("#00568a", "o", "left"),
    "not reproduced": ("#a33b00", "X", "full"),
    "artefact": ("#8a3f73", "^", "full"),
    "undecided": ("#595959", "o", "none"),
    "not run": ("#595959", "_", "full"),
}

SURFACE = "cividis"  # colour map of losses: even in lightness, safe for every colour vision
DIVERGING = "RdBu_r"  # colour map of signed quantities

_STYLE: dict[Any, object] = {
    "font.family": ["cmr10", "DejaVu Serif"],
    "mathtext.fontset": "cm",
    "axes.formatter.use_mathtext": True,
    "axes.unicode_minus": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "svg.fonttype": "path",
    "svg.hashsalt": "secondlook",
    "pdf.fonttype": 42,
}


def apply() -> None:
    """Make this the style of all figures drawn from now on."""
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(_STYLE)


def axes(rows: int = 1, columns: int = 1, height: float = 2.6, width: float = TEXT_WIDTH, **options: Any) -> tuple[Figure, Any]:
    """A figure of `width` by `height` inches (the whole of it, not one panel) and its axes, as `plt.subplots` gives them."""
    return plt.subplots(rows, columns, figsize=(width, height), **options)


def note(
    panel: Axes,
    text: str,
    at: tuple[float, float],
    colour: str = INK,
    offset: tuple[float, float] = (5, 0),
    ha: str = "left",
    **options: Any,
) -> None:
    """Text beside a point of the data; `offset` in points."""
    look: dict[str, Any] = {"ha": ha, "va": "center", "fontsize": 8, "annotation_clip": False} | options
    panel.annotate(text, at, xytext=offset, textcoords="offset points", color=colour, **look)


@dataclass(frozen=True)
class Animation:
    """A figure, and `draw(i)`, which turns it into frame i of `frames`; each is shown for `pause` milliseconds."""

    figure: Figure
    draw: Callable[[int], None]
    frames: int
    pause: int


def save(drawing: Figure | Animation, path: Path) -> None:
    """Write a figure (.pdf, .svg) or an animation (.gif). The same drawing gives the same bytes."""
    buffer = io.BytesIO()
    if isinstance(drawing, Animation):
        first, *others = (_frame(drawing, i) for i in range(drawing.frames))
        first.save(buffer, format="gif", save_all=True, append_images=others, duration=drawing.pause, loop=0)
    else:
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else {"Date": None}
        drawing.savefig(buffer, format=path.suffix[1:], metadata=metadata)
    write(path, buffer.getvalue())


def _frame(animation: Animation, i: int) -> Image.Image:
    animation.draw(i)
    canvas: Any = animation.figure.canvas  # agg's, which has a buffer
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("P", palette=Image.Palette.ADAPTIVE)
