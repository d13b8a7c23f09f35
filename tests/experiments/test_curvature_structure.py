"""The experiment on curvature's structure: its approximations against matrices written out, its data and its measures."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from torch.nn import functional

from secondlook.curvature.dense import fisher, jacobians
from secondlook.errors import Mistake
from secondlook.problems.networks import Network
from secondlook.study import claims, measures
from secondlook.study.experiment import Experiment, run

EXPERIMENT = Experiment(ROOT, "curvature_structure")
structures, training, experiment = (EXPERIMENT.part(name) for name in ("structures", "training", "experiment"))

CLOSE = {"rtol": 0, "atol": 1e-10}
MLP = Network((3, 4, 3), "tanh")
CNN = Network((1, 3, 3), "tanh", convolutions=1, side=4)


def setting(network, examples=9):
    generator = torch.Generator().manual_seed(0)
    shape = (1, 4, 4) if network.convolutions else (3,)
    return network.start(generator), torch.randn(examples, *shape, generator=generator, dtype=torch.float64)


def found(network):
    params, x = setting(network)
    M = fisher(network, params, x)
    return M, experiment.approximations(M, network, structures.kfac(network, params, x))


@pytest.mark.parametrize("network", [MLP, CNN], ids=["mlp", "cnn"])
def test_every_step_is_that_of_its_dense_matrix(network):
    M, all_ = found(network)
    g = torch.randn(len(M), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for name, structure in all_.items():
        w, V = torch.linalg.eigh(structure.dense())
        torch.testing.assert_close(structure.step(g, 0.1), -(V / (w.abs() + 0.1)) @ (V.T @ g), **CLOSE, msg=name)


def test_blocks_are_those_of_the_matrix():
    M, all_ = found(MLP)
    neuron = torch.block_diag(*[torch.ones(inputs, inputs) for out, inputs in MLP.shapes for _ in range(out)])
    layer = torch.block_diag(*[torch.ones(out * inputs, out * inputs) for out, inputs in MLP.shapes])
    for name, mask in (
        ("full", 1),
        ("none", 0),
        ("diagonal", torch.eye(len(M))),
        ("neuron blocks", neuron),
        ("layer blocks", layer),
    ):
        torch.testing.assert_close(all_[name].dense(), M * mask, **CLOSE)
    torch.testing.assert_close(all_["row norms"].dense().diagonal(), (M**2).sum(1).sqrt(), **CLOSE)


def test_stored_numbers_are_counted():
    _, all_ = found(MLP)  # layers 4 x 4 and 3 x 5, so n = 31
    counts = {name: structure.stored for name, structure in all_.items()}
    assert counts["full"] == 31 * 32 / 2 and counts["diagonal"] == counts["row norms"] == 31
    assert counts["neuron blocks"] == 4 * 10 + 3 * 15 and counts["layer blocks"] == 136 + 120
    assert counts["K-FAC"] == counts["best Kronecker"] == 10 + 10 + 6 + 15
    assert counts["low rank"] == 3 * 32 and counts["low rank, small"] == 32


def test_kfac_is_exact_for_one_example():
    params, x = setting(MLP, examples=1)
    factors = structures.kronecker(structures.kfac(MLP, params, x))
    layers = structures.in_blocks(fisher(MLP, params, x), [out * inputs for out, inputs in MLP.shapes])
    torch.testing.assert_close(factors.dense(), layers.dense(), **CLOSE)


def test_kfac_s_factors_are_written_out():
    """A and S of a convolution, patch by patch and label by label."""
    params, x = setting(CNN)
    trace = CNN.trace(params, x)
    p = torch.softmax(trace.logits, 1)
    A, S = torch.zeros(10, 10).double(), torch.zeros(3, 3).double()
    padded = functional.pad(x, (1, 1, 1, 1))
    for b in range(len(x)):

        def logp(s, b=b):
            hidden = torch.tanh(s.T.reshape(1, -1))
            return torch.log_softmax(hidden @ params[1][:, :-1].T + params[1][:, -1], 1)[0]

        d = torch.autograd.functional.jacobian(logp, trace.sums[0][b])  # (y, T, out)
        for t, (i, j) in enumerate((i, j) for i in (0, 2) for j in (0, 2)):
            a = torch.cat([padded[b, 0, i : i + 3, j : j + 3].reshape(-1), torch.ones(1).double()])
            A += torch.outer(a, a) / len(x)
            S += sum(p[b, y] * torch.outer(d[y, t], d[y, t]) for y in range(3)) / (len(x) * 4)
    ours = structures.kfac(CNN, params, x)[0]
    torch.testing.assert_close(ours, (S, A), **CLOSE)


def test_a_kronecker_product_is_its_own_nearest():
    generator = torch.Generator().manual_seed(2)
    S, A = (B @ B.T for B in (torch.randn(k, k, generator=generator, dtype=torch.float64) for k in (3, 4)))
    ((s, a),) = structures.nearest_kronecker(torch.kron(S, A), [(3, 4)])
    torch.testing.assert_close(torch.kron(s, a), torch.kron(S, A), **CLOSE)


def test_no_kronecker_product_is_nearer_than_the_nearest():
    M, all_ = found(MLP)
    errors = {name: torch.linalg.norm(structure.dense() - M) for name, structure in all_.items()}
    assert errors["layer blocks"] <= errors["best Kronecker"] <= errors["K-FAC"]
    assert errors["layer blocks"] <= errors["neuron blocks"] <= errors["diagonal"] <= errors["none"]


def test_the_model_share_of_a_step_is_at_most_one_and_the_full_step_s_is_one():
    M, all_ = found(MLP)
    g = torch.randn(len(M), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    lengths = torch.ones(1, dtype=torch.float64)
    rows = list(experiment.judged(M, g, all_, [0.1], lengths, lambda steps: -(steps @ g) - ((steps @ M) * steps).sum(-1) / 2))
    shares = {row["method"]: row["value"] for row in rows if row["metric"] == "model share"}
    assert shares["full"] == pytest.approx(1) and max(shares.values()) <= 1 + 1e-12
    errors = {row["method"]: row["value"] for row in rows if row["metric"] == "error"}
    assert errors["full"] < 1e-12 and errors["none"] == 1


def test_the_fall_is_the_share_of_the_loss_that_goes():
    params, x = setting(MLP)
    y = torch.arange(len(x)) % 3
    steps = 0.1 * torch.randn(2, 31, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for step, fall in zip(steps, experiment.decreases(MLP, params, x, y, steps), strict=True):
        moved = [params[0] + step[:16].reshape(4, 4), params[1] + step[16:].reshape(3, 5)]
        before, after = (functional.cross_entropy(MLP(theta, x), y) for theta in (params, moved))
        torch.testing.assert_close(fall, (before - after) / before, **CLOSE)


def test_stages_are_passed_in_order_and_a_run_that_never_gets_there_is_a_mistake():
    generator = torch.Generator().manual_seed(0)
    x, y = training.images(30, 3, 8, 0.5, generator)
    x = training.pooled(x)
    losses = []
    network = Network((16, 4, 3), "tanh")
    for _, _, params in training.stages(network, x, y, {"a": 1, "b": 0.5, "c": 0.3}, 0.01, 500, generator):
        losses.append(functional.cross_entropy(network(params, x), y).item())
    assert losses[0] > 2 * losses[1] > losses[2] > 0 and losses[2] <= 0.3 * losses[0]
    with pytest.raises(Mistake, match="does not fall to 0.1 of the first in 2 steps"):
        list(training.stages(network, x, y, {"a": 0.1}, 0.01, 2, generator))


def test_pictures_are_the_same_for_the_same_seed():
    one, two = (training.images(8, 4, 8, 1.0, torch.Generator().manual_seed(5))[0] for _ in range(2))
    assert torch.equal(one, two) and one.shape == (8, 1, 8, 8)
    features = training.pooled(one)
    assert features.shape == (8, 16) and features.std().item() == pytest.approx(1)


@pytest.fixture(scope="module")
def rows():
    return pd.concat(run(EXPERIMENT, EXPERIMENT.setting(case, "smoke")) for case in EXPERIMENT.cases)


def test_measures_claims_and_the_document_s_array(rows):
    summary = measures.summarise(EXPERIMENT, rows)
    verdicts = {claim["id"]: claim for claim in (claims.judge(c, EXPERIMENT, summary) for c in claims.declared(EXPERIMENT))}
    assert verdicts["C6"]["verdict"] == "reproduced" and verdicts["C6"]["measured"][0]["value"] == 0
    assert all(np.isfinite(number["value"]) for name in ("C7", "C7b", "C7c") for number in verdicts[name]["measured"])


def test_an_altered_array_is_noticed(rows):
    altered = rows.copy()
    at = altered.index[(altered.method == "printed") & (altered.value == 7)]
    altered.loc[at[0], "value"] = 8
    assert EXPERIMENT.part("measures").block_diag(altered)["different"].value == 1


def test_jacobians_of_layers_are_outer_products_of_what_the_trace_leaves():
    params, x = setting(MLP)
    J, _ = jacobians(MLP, params, x)
    trace = MLP.trace([W.requires_grad_() for W in params], x)
    (d,) = torch.autograd.grad(trace.logits[:, 0].sum(), trace.sums[:1])
    torch.testing.assert_close(J[:, 0, :16], torch.einsum("nto,nti->noi", d, trace.inputs[0]).flatten(1), **CLOSE)
