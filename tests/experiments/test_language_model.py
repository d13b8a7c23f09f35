"""The character transformer: causal, tied, drawn from its generator alone; the text as declared; every method as declared."""

import math
import re
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import ROOT
from sections import section
from torch.nn.functional import cross_entropy

from experiments.language_model import experiment, measures, names, selections, texts
from experiments.language_model.methods import METHODS
from experiments.language_model.transformer import transformer
from secondlook.errors import Mistake
from secondlook.study import claims
from secondlook.study import measures as study
from secondlook.study.experiment import Experiment, parameters, run
from secondlook.study.files import sha256
from secondlook.study.needs import data_folder
from secondlook.study.place import Place
from secondlook.study.text import key
from secondlook.training import generator

LANGUAGE = Experiment(ROOT, "language_model")
SHAPE = {"vocabulary": 7, "width": 8, "blocks": 2, "heads": 2, "length": 5}


def params(case: str, scale: str = "paper", changes=()) -> experiment.Params:
    return parameters(LANGUAGE, LANGUAGE.setting(case, scale, changes))


def small(seed: int = 0) -> torch.nn.Module:
    return transformer(**SHAPE, generator=generator(seed, "start"))


def characters(count: int = 3) -> torch.Tensor:
    shape = (count, SHAPE["length"])
    return torch.randint(SHAPE["vocabulary"], shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("work")
    cases = [run(LANGUAGE, LANGUAGE.setting(case, "smoke"), Place(folder / case)) for case in LANGUAGE.cases]
    return pd.concat(cases, ignore_index=True)


def test_logits_stand_where_cross_entropy_wants_them_and_are_small_at_first():
    x = characters()
    logits = small()(x)
    assert logits.shape == (3, SHAPE["vocabulary"], SHAPE["length"])
    each = [cross_entropy(logits[b, :, t], x[b, t]) for b in range(3) for t in range(SHAPE["length"])]
    torch.testing.assert_close(cross_entropy(logits, x), torch.stack(each).mean())
    p = params("comparison")
    model = transformer(66, p.width, p.blocks, p.heads, p.length, generator(0, "start"))
    x = torch.randint(66, (32, p.length), generator=torch.Generator().manual_seed(0))
    assert cross_entropy(model(x), x.roll(1, 0)).item() == pytest.approx(math.log(66), abs=0.2)


def test_no_logit_depends_on_a_later_character():
    model, x = small().double(), characters(1)
    before = model(x)
    for t in range(SHAPE["length"]):
        changed = x.clone()
        changed[0, t] = (x[0, t] + 1) % SHAPE["vocabulary"]
        same = (model(changed) == before).all(1)[0]
        assert same[:t].all() and not same[t:].any()


def test_embeddings_and_output_are_one_parameter_with_the_gradient_of_both():
    model, x = small().double(), characters()
    E = model.characters.weight
    assert sum(p.shape == E.shape for p in model.parameters()) == 1
    once = torch.autograd.grad(cross_entropy(model(x), x), E)[0]
    into, out = (E.detach().clone().requires_grad_() for _ in range(2))
    h = SHAPE["width"] ** 0.5 * (into[x] + model.positions.weight)
    logits = model.norm(model.blocks(h)) @ out.T
    both = torch.autograd.grad(cross_entropy(logits.flatten(0, 1), x.flatten()), (into, out))
    torch.testing.assert_close(once, sum(both))
    assert all(part.abs().max() > 1e-3 for part in both)


def test_the_start_is_the_generators_and_touches_no_global_state():
    before = torch.get_rng_state()
    one, same, other = (list(small(seed).parameters()) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(p, q) for p, q in zip(one, same, strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(one, other, strict=True) if p.unique().numel() > 1)
    assert all(p.isfinite().all() for p in one)


def test_every_size_of_block_divides_every_parameter_with_both_averages():
    p = params("signed_blocks")
    model = transformer(66, p.width, p.blocks, p.heads, p.length, generator(0, "start"))
    methods = (*params("absolute_blocks").methods, *p.methods)
    groups = {name: METHODS[name].optimizer(model, 0.1, p).param_groups[0] for name in methods}
    found = {(group["averaging"], group["block_size"]): name for name, group in groups.items()}
    assert found == {(a, size): names.block(size, a) for a in names.AVERAGES for size in names.BLOCKS}


@pytest.mark.parametrize(
    "name, decay", {"SGD": 5e-4, "Adam": 5e-4, "AdamW": 5e-3, "AdaHessian": 5e-3, "Sophia-G": 5e-3, "Muon": 5e-3}.items()
)
def test_decay_is_coupled_as_given_and_decoupled_over_the_rate(name, decay):
    made = METHODS[name].optimizer(small(), 0.1, params("peers"))
    assert made.param_groups[0]["weight_decay"] == pytest.approx(decay)
    assert made.param_groups[0].get("decoupled", True)


def test_powers_are_as_named():
    p = params("rates")
    powers = {
        name: METHODS[name].optimizer(small(), 0.1, p).param_groups[0]["hessian_power"]
        for name in p.methods
        if "AdaHessian" in name
    }
    assert powers == {"AdaHessian": 1, "AdaHessian power 0.5": 0.5}


def test_sophia_estimates_the_gauss_newton_diagonal_of_every_position():
    """The mean over many labels drawn for one position of a linear model of the logits: B g * g against the closed form."""
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]], dtype=torch.float64)  # (t, vocabulary)
    theta = torch.nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))

    class Linear(torch.nn.Module):
        def forward(self, x):
            return (logits + theta).T[None]  # (1, vocabulary, t)

    seen, draws = [], 1500
    optimizer = METHODS["Sophia-G"].rule(
        [theta], diagonal=METHODS["Sophia-G"].constants(params("comparison"))["diagonal"], every=1
    )
    for _ in range(draws):
        METHODS["Sophia-G"].differentiate(optimizer, Linear(), cross_entropy, None, torch.zeros(1, 2, dtype=torch.long))
        seen.append(optimizer.curvature[theta])
    found, p = torch.stack(seen), logits.softmax(1)
    error = (found.mean(0) - p * (1 - p) / 2).abs() / (found.std(0) / draws**0.5)
    assert error.max() < 4.5  # six numbers: a false alarm in 20,000 seeds


def test_windows_do_not_overlap_and_labels_are_one_ahead():
    text = "".join(chr(97 + i % 26) for i in range(199)) + "0"
    found = texts.windows(text, (0.5, 0.25, 0.25), (10, 5, 7), 6)
    assert found.vocabulary == 27  # 26 letters, and one for what is not in the training part
    for part in (found.train, found.validation, found.test):
        assert torch.equal(part[0][:, 1:], part[1][:, :-1])
    x, y = found.train
    assert x.shape == (10, 6) and torch.equal(x[:, 0], torch.arange(10) * 10 % 26)
    x, y = texts.windows(text, (0.5, 0.25, 0.25), (2, 1, 1), 49).test
    assert torch.equal(x[0], torch.arange(150, 199) % 26) and y[0, -1] == 26
    with pytest.raises(Mistake, match="^40 windows of 7 characters do not fit into the text's part 'validation': it has 50$"):
        texts.windows(text, (0.5, 0.25, 0.25), (10, 40, 5), 6)


def test_counting_models_are_what_they_say():
    """On 'abab...' after training on it: b follows a in 4 of 4 pairs, each count one more than it is, of two characters."""
    x = torch.tensor([[0, 1, 0, 1, 0, 1, 0, 1]])
    y = torch.tensor([[1, 0, 1, 0, 1, 0, 1, 0]])
    found = texts.entropies(2, (x, y), (x, y))
    assert found == pytest.approx({"unigram_bits": 1.0, "bigram_bits": -math.log2(5 / 6)})


def test_a_text_that_is_missing_or_altered_is_refused_in_one_line(tmp_path):
    path = tmp_path / texts.NAME
    p, place = params("rates"), Place(tmp_path / "work", data=tmp_path)
    with pytest.raises(Mistake) as missing:
        next(experiment.run(p, 0, place))
    assert (
        str(missing.value)
        == f"data set {path} is missing: name its folder with --data-root or SECONDLOOK_DATA, or put it there"
    )
    path.write_text("To be")
    with pytest.raises(Mistake) as altered:
        next(experiment.comparison(p, 0, place))
    assert str(altered.value) == f"{path} is corrupt or truncated: sha256 {sha256(b'To be')} (5 bytes), expected {p.sha256}"


def test_the_declared_text_has_the_declared_parts(tmp_path):
    folder = data_folder()
    if not (folder / texts.NAME).exists():
        pytest.skip(f"{texts.NAME} is not in the data folder")
    p, place = params("rates"), Place(tmp_path, data=folder)
    found = experiment._windows(p, place)
    assert [len(x) for x, _ in (found.train, found.validation, found.test)] == list(p.windows)
    assert p.windows[0] % p.batch == 0 and place.data_sets()[texts.NAME]["sha256"] == p.sha256


def test_tuning_sees_no_window_and_no_seed_of_the_report():
    rounds, reports = ("rates", "fine_rates", "peer_rates"), ("comparison", "scaling", "peers")
    blocks = [f"{averaging}_{part}" for part in ("rates", "blocks") for averaging in names.AVERAGES]
    rounds, reports = (*rounds, *blocks[:2]), (*reports, *blocks[2:])
    tuning = {seed for case in rounds for seed in LANGUAGE.setting(case).seeds}
    compared = set(LANGUAGE.setting("comparison").seeds)
    for case in reports:
        seeds = set(LANGUAGE.setting(case).seeds)
        assert not tuning & seeds and seeds <= compared and params(case).judged == "test"
    assert all(params(case).judged == "validation" for case in rounds)
    assert set(params("rates").methods) - {"AdaHessian power 0.5"} == set(params("fine_rates").methods) == set(names.TUNED)
    assert set(params("peer_rates").methods) == set(names.PEERS)
    assert all(params(f"{a}_rates").methods == params(f"{a}_blocks").methods for a in names.AVERAGES)
    assert set(params("comparison").methods) == set(names.TUNED) and set(params("peers").methods) == {"SGD", *names.PEERS}
    trials = {case: len(params(case).factors) for case in rounds}
    assert trials["rates"] + trials["fine_rates"] == trials["peer_rates"]
    rates = params("comparison").learning_rates
    assert params("scaling").learning_rates == rates and params("peers").learning_rates["SGD"] == rates["SGD"]


def test_every_case_runs_and_says_what_its_steps_cost(rows):
    """Six steps in two epochs, so one estimate of Sophia: gradient equivalents over SGD's."""
    last = rows[(rows.case == "comparison") & (rows.step == 2) & (rows.seed == 200)].set_index(["metric", "method"]).value
    spent = last["gradient_equivalents"] / last["gradient_equivalents", "SGD"]
    expected = {"SGD": 1, "Adam": 1, "AdamW": 1, "AdaHessian": 3, "Sophia-G": 1 + 2 / 3 / 6}
    assert dict(spent) == pytest.approx(expected)
    assert set(rows.case) == set(LANGUAGE.cases) and not rows[rows.metric == "diverged"].value.any()
    for averaging in names.AVERAGES:
        sizes = {names.block(size, averaging) for size in names.BLOCKS}
        assert set(rows[rows.case == f"{averaging}_blocks"].method.dropna()) == sizes
    assert set(rows[(rows.case == "scaling") & (rows.metric == "bits")].step) == {2}
    assert "seconds" not in set(rows[~rows.case.isin(["comparison", "peers"])].metric)


def test_two_runs_give_the_same_rows(rows, tmp_path):
    again = run(LANGUAGE, LANGUAGE.setting("rates", "smoke"), Place(tmp_path))
    pd.testing.assert_frame_equal(again, rows[rows.case == "rates"].reset_index(drop=True)[again.columns])


def test_a_run_that_diverges_is_counted(tmp_path):
    setting = LANGUAGE.setting("rates", "smoke", ["factors=[1e30]", "methods=[SGD]"], seed=0)
    found = run(LANGUAGE, setting, Place(tmp_path))
    assert found[found.metric == "diverged"].value.tolist() == [1] and found[found.metric == "bits"].value.isna().all()


def test_the_second_round_is_centred_on_the_best_of_the_first():
    """As recorded: none of these is at the edge of its range."""
    found = measures.trials(pd.read_csv(ROOT / "results" / "recorded" / "language_model" / "rates.csv"), "rates")
    for name, lr in params("fine_rates").learning_rates.items():
        assert found[f"{key(name)}_lr"].value == pytest.approx(lr), name
        assert found[f"{key(name)}_inside"].value == 1, name


def test_muon_has_the_matrices_of_hidden_layers_and_adamw_the_rest():
    model = small()
    optimizer = METHODS["Muon"].optimizer(model, 0.1, params("peers"))
    hidden, others = (group["params"] for group in optimizer.param_groups)
    named = dict(model.named_parameters())
    known = {name for name, p in named.items() if any(p is q for q in hidden)}
    assert known == {
        name for name in named if re.fullmatch(r"blocks\.\d+\.\w+\.\d+(\.\w+)?\.weight", name) and named[name].dim() == 2
    }
    assert len(hidden) + len(others) == len(named)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5)
    assert [part.param_groups[0]["lr"] for part in optimizer.parts] == [0.05, 0.05] == schedule.get_last_lr()


def test_muon_with_adamw_goes_on_from_its_state_as_if_never_stopped():
    """Four steps, and two steps, a checkpoint and two more, of which the last are at another rate: the same bits."""

    def step(model, optimizer):
        optimizer.zero_grad()
        cross_entropy(model(characters()), characters()).backward()
        optimizer.step()

    through, stopped = small(), small()
    ends = []
    for model, again in ((through, False), (stopped, True)):
        optimizer = METHODS["Muon"].optimizer(model, 0.01, params("peers"))
        for t in range(4):
            if again and t == 2:
                kept, optimizer = optimizer.state_dict(), METHODS["Muon"].optimizer(model, 0.01, params("peers"))
                optimizer.load_state_dict(kept)
            for group in optimizer.param_groups:
                group["lr"] = 0.01 if t < 3 else 0.001
            step(model, optimizer)
        ends.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_soap_gets_what_is_declared_and_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(
        sys.modules, "pytorch_optimizer", SimpleNamespace(SOAP=lambda params, **options: (list(params), options))
    )
    model, p = small(), params("peers")
    given, options = METHODS["SOAP"].optimizer(model, 0.1, p)
    assert len(given) == len(list(model.parameters()))
    decay = pytest.approx(p.weight_decay / 0.1)
    assert options == {"lr": 0.1, "weight_decay": decay, "betas": p.soap_betas, "precondition_frequency": p.soap_every}
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(Mistake, match="^language_model needs the package pytorch_optimizer: install the extra 'benchmark'$"):
        METHODS["SOAP"].optimizer(model, 0.1, p)


def made_up(case: str, bits: dict[tuple[str, float], list[float]]) -> pd.DataFrame:
    """Bits after the last epoch by (method, factor), one value a seed; frequencies alone need 4 bits; rates are 0.1 factor."""
    lines = [
        (case, method, factor, 100 + seed, 1, "bits", value)
        for (method, factor), runs in bits.items()
        for seed, value in enumerate(runs)
    ]
    lines += [(case, method, factor, 100, 0, "rate", 0.1 * factor) for method, factor in bits]
    lines.append((case, None, None, 100, 0, "unigram_bits", 4.0))
    return pd.DataFrame(lines, columns=["case", "method", "factor", "seed", "step", "metric", "value"])


def test_a_run_that_diverged_or_ends_above_frequencies_counts_as_these():
    tuned = made_up("comparison", {(method, 1.0): [2.0, 2.5] for method in ("AdamW", "AdaHessian")})
    swept = {
        ("AdamW", 2.0): [2.5, 3.0],
        ("AdamW", 10.0): [math.nan, 5.0],
        ("AdaHessian", 2.0): [2.0, 2.5],
        ("AdaHessian", 10.0): [3.0, 4.5],
    }
    rows = pd.concat([tuned, made_up("scaling", swept)])
    found = measures.scaling(rows)
    assert (found["adamw_near"].value, found["adamw_far"].value) == (0.5, 1.75)
    assert (found["adahessian_near"].value, found["adahessian_far"].value) == (0, 1.25)
    assert (found["over_adamw_near"].value, found["over_adamw_far"].value) == (-0.5, -0.5)
    assert selections.broken(rows)["AdamW"][10.0].tolist() == [True, True]
    assert measures.scaling_table(rows).set_index("Factor").loc["10"].tolist() == ["4.00 (2)", "3.50 (1)"]


def test_the_best_rate_and_whether_it_is_inside():
    bits = {
        ("SGD", 0.1): [3.0, 3.0],
        ("SGD", 1.0): [2.0, 2.2],
        ("SGD", 10.0): [1.5, math.nan],
        ("Adam", 0.1): [2.0, 2.0],
        ("Adam", 1.0): [3.0, 3.0],
    }
    found = measures.trials(made_up("rates", bits), "rates")
    assert (found["sgd_lr"].value, found["sgd_inside"].value) == (pytest.approx(0.1), 1)
    assert (found["adam_lr"].value, found["adam_inside"].value) == (pytest.approx(0.01), 0)


BASE = [2.0, 2.1, 1.9, 2.05, 1.95, 2.02, 1.98, 2.0]
NOISE = [1, -1, 2, -2, 3, -3, 1, -1]


@pytest.mark.parametrize(
    "shift, spread, word", [(-0.1, 0.005, "better"), (0.1, 0.005, "worse"), (0, 0.002, "equivalent"), (0, 0.1, "undecided")]
)
def test_words_of_a_comparison(shift, spread, word):
    runs = {(method, 1.0): BASE for method in names.TUNED}
    runs["AdaHessian", 1.0] = [value + shift + spread * noise for value, noise in zip(BASE, NOISE, strict=True)]
    table = measures.comparisons(made_up("comparison", runs)).set_index("First minus second")
    assert table.Word["AdaHessian − AdamW"] == word


def test_every_number_of_section_and_claims_is_measured(rows):
    summary = study.summarise(LANGUAGE, rows)
    found = [claim["id"] for claim in claims.judge_all([(LANGUAGE, summary)])]
    assert found == ["E5b", "E5c", "E5t", "E7", "E7b", "E7g", "E7p"]
    text = section(LANGUAGE, summary)
    assert all(f"E{name}" in text for name in ("7", "5t", "5b", "5c"))
    assert all(list(summary.tables[f"{a}_table"]["Block size"]) == [1, *names.BLOCKS] for a in names.AVERAGES)
    assert summary.measures["runs"]["comparison"].value == 2 * len(names.TUNED)


def test_figures_draw(rows):
    assert all(LANGUAGE.made("figures", name, rows).axes for name in LANGUAGE.figures)


def test_the_centre_of_rates_is_the_vertex_of_a_parabola():
    """Bits are a parabola in the logarithm of the rate, least at 2 times AdamW's and half of AdaHessian's centre."""
    runs = {
        (method, factor): [1 + 0.01 * math.log(factor / least) ** 2] * 2
        for method, least in {"AdamW": 2.0, "AdaHessian": 0.5}.items()
        for factor in (0.1, 0.3, 1.0, 3.0, 10.0)
    }
    found = measures.centre(made_up("fine_rates", runs))
    assert [found[name].value for name in ("adamw", "adahessian", "over_adamw")] == pytest.approx([3 / 2, 0.3 / 0.5, 0.4])
