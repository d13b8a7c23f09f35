"""Numbers as sentences show them, and references that must exist."""

import pytest

from secondlook.errors import Mistake
from secondlook.study.statistics import Estimate
from secondlook.study.text import fill, key

VALUES = {
    "loss_of_all": Estimate(0.4741, 0.4741, 0.4741, 20),
    "loss": Estimate(0.07727, 0.07, 0.081, 20),
    "rate": {"e30": Estimate(3.16e-5)},
    "miss": Estimate(float("inf")),
    "few": Estimate(3.116, 2.999, 3.746, 5, coverage=0.9375),
}


@pytest.mark.parametrize(
    "template, text",
    [
        ("<< loss | number >>", "0.0773"),
        ("<< loss | interval >>", "0.0773 [0.0700, 0.0810]"),
        ("<< loss | percent(1) >>", "7.7 %"),
        ("<< loss | percent_interval >>", "8 % [7 %, 8 %]"),
        ("<< rate.e30 | number >>", "3.16×10⁻⁵"),
        ("<< rate['e30'] | interval >>", "3.16×10⁻⁵"),
        ("<< miss | number >>", "∞"),
        ("<< few | interval >>", "3.12 [3.00, 3.75; 94 %]"),
        ("<< loss_of_all | interval(digits=4) >>", "0.4741"),
        ("<< 1e6 | number(1) >>", "10⁶"),
        ("<< 1e6 | number >>", "1.00×10⁶"),
        ("<< 12345.6 | number >>", "12,300"),
        ("<< 0 | number >>", "0"),
        ("<< -0.5 | number(1) >>", "−0.5"),
        ("<< 99.96 | number >>", "100"),
        ("<< 2 | fixed(1) >>", "2.0"),
        ("<< 7.2e-16 | magnitude >>", "10⁻¹⁶"),
        ("<< 0 | magnitude >>", "0"),
        ("$\\frac{1}{2}$ {#fig:x}", "$\\frac{1}{2}$ {#fig:x}"),
    ],
)
def test_numbers(template, text):
    assert fill(template, VALUES, "FILE") == text


@pytest.mark.parametrize(
    "template", ["<< los | number >>", "<< loss | nmber >>", "<< rate.e31 | number >>", "<< rate | interval >>", "<< loss"]
)
def test_a_reference_that_leads_nowhere_is_an_error(template):
    with pytest.raises(Mistake, match="^FILE: ") as refusal:
        fill(template, VALUES, "FILE")
    assert "\n" not in str(refusal.value)


def test_labels_become_names_that_a_template_can_use():
    assert key("AdaHessian 1/4 batch") == "adahessian_1_4_batch"
    assert key("CG, no matrix", "K-FAC") == "cg_no_matrix_k_fac"
