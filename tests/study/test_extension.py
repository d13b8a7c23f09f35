"""A recorded stage grows by parts, each with its own provenance; what is no part of it is refused."""

import pandas as pd
import pytest

from secondlook.errors import Mistake
from secondlook.study.experiment import Setting
from secondlook.study.extension import extended
from secondlook.study.tables import read_table

WHOLE = {"steps": 9, "methods": ["SGD", "Adam"], "rates": {"SGD": 1.0, "Adam": 0.1}, "seeds": [0, 1]}


def part(methods=("SGD", "Adam"), seeds=(0, 1), value=0.5, **changes):
    """A run of these methods and seeds, with its record."""
    keys = {"experiment": "demo", "case": "decay"}
    rows = [{**keys, "seed": s, "method": m, "step": 9, "metric": "loss", "value": value} for s in seeds for m in methods]
    rows += [{**keys, "seed": s, "step": 0, "metric": "images", "value": 40.0} for s in seeds]  # what every part says of a seed
    settings = WHOLE | {"methods": list(methods), "seeds": list(seeds)} | changes
    cost = {"wall_s": 1.5, "peak_memory_mib": 100 * len(rows), "device": "cpu", "processor": "P"}
    return pd.DataFrame(rows), {"settings": settings, "commit": methods[0] * 9, "dirty": False, "sources": {}, **cost}


def grown(*parts):
    made = parts[0]
    for new in parts[1:]:
        made = extended(
            Setting("demo", "decay", "paper", (0, 1), {k: v for k, v in WHOLE.items() if k != "seeds"}, {}), made, new
        )
    return made


@pytest.mark.parametrize("parts", [[{"methods": ["SGD"]}, {"methods": ["Adam"]}], [{"seeds": [0]}, {"seeds": [1]}]])
def test_parts_make_up_the_stage_and_keep_their_own_records(parts):
    rows, record = grown(*(part(**given) for given in parts))
    whole, _ = part()
    by = ["seed", "method", "metric"]
    pd.testing.assert_frame_equal(
        rows.sort_values(by, ignore_index=True), whole.sort_values(by, ignore_index=True), check_dtype=False
    )
    assert record["settings"] == WHOLE and record["wall_s"] == 3
    assert [made["settings"] for made in record["made_of"]] == [part(**given)[1]["settings"] for given in parts]


def test_a_dictionary_may_have_had_fewer_entries():
    before = part(methods=["SGD"], rates={"SGD": 1.0})
    assert grown(before, part(methods=["Adam"]))[1]["made_of"][0]["settings"]["rates"] == {"SGD": 1.0}


REFUSED = {
    "'steps' of a part is not some of what is declared": [{"methods": ["SGD"]}, {"methods": ["Adam"], "steps": 8}],
    "'methods' of a part is not some of what is declared": [{"methods": ["SGD"]}, {"methods": ["Muon"]}],
    "'rates' of a part is not some of what is declared": [{"methods": ["SGD"], "rates": {"SGD": 2.0}}, {"methods": ["Adam"]}],
    "'lr' of a part is not some of what is declared": [{"methods": ["SGD"], "lr": 1.0}, {"methods": ["Adam"]}],
    "is not whole with this part: methods Adam, seeds 1 is missing": [
        {"methods": ["SGD"]},
        {"methods": ["Adam"], "seeds": [0]},
    ],
    "is not whole with this part: rates Adam, seeds 1 is missing": [{"rates": {"SGD": 1.0}}, {"seeds": [0]}],
    "loss of seed 0 is in two parts, and differs": [{}, {"value": 0.25}],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_no_part_is_refused_by_name(message):
    with pytest.raises(Mistake, match=message):
        grown(*(part(**given) for given in REFUSED[message]))


def test_a_record_is_extended_from_the_command_line(project):
    """By seeds: the numbers are those of one run of all of them."""
    commit = ("--commit", "c" * 40)
    case = ("demo", "--case", "decay")
    project.replace("experiments/demo/config.yaml", "count: 8", "count: 5")
    project.secondlook("run", *case, *commit)
    project.secondlook("record", "results/raw/demo/decay.csv")
    project.replace("experiments/demo/config.yaml", "count: 5", "count: 8")
    project.secondlook("run", *case, *commit, "--set", "seeds={first: 5, count: 2}", "--out", "new.csv")
    line = "demo/decay is not whole with this part: seeds 7 is missing"
    assert project.mistake("record", "--extend", "new.csv") == line
    project.secondlook("run", *case, *commit, "--set", "seeds={first: 5, count: 3}", "--out", "more.csv")
    project.secondlook("record", "--extend", "more.csv")
    project.secondlook("run", *case, "--out", "whole.csv")
    recorded, record = read_table(project.folder / "results/recorded/demo/decay.csv")
    pd.testing.assert_frame_equal(recorded, read_table(project.folder / "whole.csv")[0])
    assert [part["settings"]["seeds"] for part in record["made_of"]] == [[0, 1, 2, 3, 4], [5, 6, 7]]
