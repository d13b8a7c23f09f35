"""The experiment on the cost of a step: what its count of operations says about the Hessian's power."""

import pandas as pd
import pytest
from conftest import ROOT

from secondlook.study import claims, measures
from secondlook.study.experiment import Experiment, run

EXPERIMENT = Experiment(ROOT, "step_cost")


@pytest.mark.parametrize(("more", "expected"), [(1.0, "partly"), (1.5, "reproduced")])
def test_the_power_of_the_diagonal_is_judged_by_the_count_of_operations(more, expected):
    cases = [f"{network}_operations" for network in ("mlp", "transformer", "resnet")]
    rows = pd.concat([run(EXPERIMENT, EXPERIMENT.setting(case, "smoke")) for case in cases], ignore_index=True)
    rows.loc[(rows.method == "AdaHessian") & (rows.case == "mlp_operations"), "value"] *= more
    found = {"power": EXPERIMENT.made("measures", "power", rows)}
    (claim,) = (claim for claim in claims.declared(EXPERIMENT) if claim["id"] == "B4")
    assert claims.judge(claim, EXPERIMENT, measures.Summary(found, {}))["verdict"] == expected
    assert found["power"]["zero_over_sgd"].value > 2
