"""The numbers that the claim and the section quote: what placements send, hold and take, the model, the way to the target.

Keys: p4_w2 is two of four ranks with the inverses of a layer.
"""

import numpy as np
import pandas as pd

from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, median, share
from secondlook.study.text import fixed, interval, key, number

from .selections import (
    DEVICES,
    KINDS,
    METHODS,
    NETWORKS,
    PUBLISHED,
    RHYTHM,
    TARGET,
    best_rates,
    counted,
    divisors,
    exact,
    expected,
    fitted,
    on_paper,
    paired_ratios,
    reached,
)

MIB = 2**20


@measure()
def settings(rows: pd.DataFrame) -> dict[str, Estimate]:
    """What the text says of the extrapolation and the target."""
    return {
        "devices": exact(DEVICES),
        "factors_every": exact(RHYTHM[0]),
        "inverses_every": exact(RHYTHM[1]),
        "target": exact(TARGET),
    }


@measure("steps")
def formula(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Bytes counted and held, against the closed form: the largest difference, and how many numbers were compared."""
    found, closed = counted(rows), expected(rows)
    names = [*KINDS, *(f"held {kind}" for kind in KINDS[:2])]
    differences = (found[names] - closed[names]).abs().to_numpy()
    return {"difference": exact(differences.max()), "compared": exact(differences.size)}


@measure("steps")
def fit(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The fitted coefficients, and the relative residuals of the model: median of their size, and largest."""
    machine, table = fitted(rows)
    residuals = (table.model / table.value - 1).abs()
    rates = {"gradient": machine.gradient, "factors": machine.factors, "latency": machine.message}
    rates |= {"nanoseconds_operation": 1e6 * machine.operation, "nanoseconds_byte": 1e6 * machine.byte}
    errors = {"median": residuals.median(), "largest": residuals.max(), "points": len(table)}
    return {name: exact(value) for name, value in (rates | errors).items()}


@measure("steps")
def memory(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Bytes of factors and inverses on the rank with most, over those on one process."""
    table = counted(rows).assign(held=lambda t: t["held factors"] + t["held inverses"])
    whole = table[table.ranks == 1].held.iloc[0]
    return {f"p{r.ranks}_w{round(r.share * r.ranks)}": exact(r.held / whole) for r in table.itertuples()}


@measure("steps")
def traded(rows: pd.DataFrame) -> dict[str, Estimate]:
    """On the most processes, one owner for each layer against inverses everywhere: what the rank with most holds, as a ratio;
    bytes of results that all send at a step with one owner, and with inverses everywhere."""
    table = counted(rows).assign(held=lambda t: t["held factors"] + t["held inverses"])
    most = table[table.ranks == table.ranks.max()].sort_values("share")
    owner, everywhere = most.iloc[0], most.iloc[-1]
    sent = {"results_owner": owner.directions, "results_everywhere": everywhere.directions}
    return {name: exact(value) for name, value in {"held": owner.held / everywhere.held, **sent}.items()}


@measure()
def paper(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The model on DEVICES devices: a step of K-FAC over one of SGD, by share; the GiB held by the rank with most; the part of
    the steps that K-FAC must save for the published saving of time, at the least ratio."""
    found = {}
    for name in NETWORKS:
        ratios = {w: _ratio(name, w / DEVICES) for w in divisors(DEVICES)}
        gib = {w: _held(name, w / DEVICES) for w in (1, DEVICES)}
        cheapest = min(ratios, key=ratios.get)
        values = {"owner": ratios[1], "everywhere": ratios[DEVICES], "least": ratios[cheapest], "workers": cheapest}
        values |= {"owner_gib": gib[1], "everywhere_gib": gib[DEVICES]}
        values |= {
            f"needed_{end}": 1 - (1 - saved) / ratios[cheapest] for end, saved in zip(("low", "high"), PUBLISHED, strict=True)
        }
        found |= {f"{key(name)}_{what}": exact(value) for what, value in values.items()}
    return found


def _ratio(name: str, share: float) -> float:
    sgd, kfac, _ = on_paper(name, share)
    return kfac / sgd


def _held(name: str, share: float) -> float:
    held = on_paper(name, share)[2].held()
    return 4 * max(map(sum, zip(held["factors"], held["inverses"], strict=True))) / 2**30


@measure("rates", "training")
def tuned(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The best learning rates of case rates, and how many have as few epochs (_tied: the last accuracy decides between them);
    whether case training uses them; whether one is at an end of the list."""
    best = best_rates(rows)
    used = rows[rows.case == "training"].groupby("method").lr.first()
    tried = rows[rows.case == "rates"].lr
    at_edge = [rate in (tried.min(), tried.max()) for rate in best.values()]
    found = {key(method): exact(rate) for method, rate in best.items()}
    medians = reached(rows, "rates").groupby(["method", "lr"]).epochs.median()
    found |= {f"{key(m)}_tied": exact((medians[m] == medians[m].min()).sum()) for m in METHODS}
    return found | {"used": exact(all(used[m] == best[m] for m in METHODS)), "at_edge": exact(sum(at_edge))}


@measure("training")
def reach(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Median epochs and seconds to the target, by method and number of processes; the share of runs that reach it."""
    found = {}
    table = reached(rows)
    for (method, ranks), runs in table.groupby(["method", "ranks"]):
        name = f"{key(method)}_p{int(ranks)}"
        found |= {f"{name}_epochs": median(runs.epochs), f"{name}_seconds": median(runs.seconds)}
    for method in METHODS:
        found[f"{key(method)}_reached"] = share(np.isfinite(table[(table.method == method) & (table.ranks == 1)].epochs))
        found[f"{key(method)}_last"] = median(table[(table.method == method) & (table.ranks == 1)]["last"])
    return found


@measure("training")
def gain(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Part of SGD's epochs and time that K-FAC saves until the target, median over seeds: positive where it is faster."""
    found = {}
    for ranks in sorted(int(n) for n in rows[rows.case == "training"].ranks.unique()):
        for quantity in ("epochs", "seconds"):
            found[f"{quantity}_p{ranks}"] = median(1 - paired_ratios(rows, quantity, ranks))
    return found


@measure("steps")
def placements(rows: pd.DataFrame) -> pd.DataFrame:
    """Each placement: MiB of each kind, held, and milliseconds beside the model's."""
    _, table = fitted(rows)
    held = counted(rows)
    slowest = table[table.inverses_every > 0].groupby(["factors_every", "inverses_every"]).size().index
    lines = []
    for r in held.itertuples():
        line = {"P": f"{r.ranks}", "w": f"{round(r.share * r.ranks)}"}
        line |= {f"{kind} sent": fixed(getattr(r, kind) / MIB) for kind in KINDS}
        line["Held"] = fixed((held["held factors"] + held["held inverses"])[r.Index] / MIB)
        for rhythm in slowest:
            at = table[(table.ranks == r.ranks) & (table.share == r.share)].set_index(["factors_every", "inverses_every"])
            line[f"ms {rhythm[0]}/{rhythm[1]} (model)"] = f"{at.value[rhythm]:.0f} ({at.model[rhythm]:.0f})"
        lines.append(line)
    return pd.DataFrame(lines)


@measure("training")
def training(rows: pd.DataFrame) -> pd.DataFrame:
    """Epochs and seconds to the target, and the last accuracy."""
    table = reached(rows)
    lines = []
    for (ranks, method), runs in sorted(table.groupby(["ranks", "method"]), key=lambda found: (found[0][0], -len(found[0][1]))):
        lines.append(
            {
                "Processes": f"{ranks:.0f}",
                "Method": method,
                "Epochs": interval(median(runs.epochs)),
                "Seconds": interval(median(runs.seconds)),
                "Reached": f"{np.isfinite(runs.epochs).sum()} of {len(runs)}",
                "Last accuracy": number(median(runs["last"])),
            }
        )
    return pd.DataFrame(lines)
