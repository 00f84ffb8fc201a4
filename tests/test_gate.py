"""The gate before any ranking: its criteria, that nothing is ranked where one fails, the reference run."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from mindgap.results import tables
from mindgap.results.aulc import per_seed, tidy
from mindgap.results.claims import UNRANKED
from mindgap.results.curves import COLUMNS, SETTING, Selection
from mindgap.results.gate import (
    FAILED,
    GATE_SEEDS,
    NOT_SO,
    PASSED,
    SO,
    UNKNOWN,
    gate_of,
    residual_deviation,
    weak_levels,
)
from mindgap.results.names import subset_order
from mindgap.results.power import detectable, smallest_difference
from mindgap.results.site.build import build_report
from mindgap.results.site.content import Inputs, all_statistics, all_tables, content_of
from mindgap.results.site.page import _gate
from mindgap.stages.report import kept_selection, read_inputs, selection_of

ROOT = Path(__file__).parents[1]
PAPER = ROOT / "data" / "paper"
REFERENCE = ROOT / "reports" / "reference"
# Chance and ceiling by dataset: of a weak modality that can know a fifth of 25 classes, and of all others.
CLASSES = {"missing": 10, "share": 10, "unique": 25, "synergy": 25}
MODALITIES = {
    "missing": ("rare", "frequent"),
    "share": ("cifar10", "mnist"),
    "unique": ("partial", "full"),
    "synergy": ("partial_b", "partial_a"),
}
SELECTION = Selection(
    scale="tiny",
    datasets=tuple(MODALITIES),
    regimes=("low",),
    queries=("random", "badge", "entropy", "bald"),
    mitigations=("none", "moddrop"),
    seeds=tuple(range(10)),
    weak={dataset: names[0] for dataset, names in MODALITIES.items()},
)
ROUNDS = 5
# Levels of Random at the end of the curve, by dataset, mitigation and role, as the gate wants them.
GOOD = {
    ("missing", "none"): {"weak": 0.3, "strong": 0.8, "joint": 0.8},
    ("missing", "moddrop"): {"weak": 0.3, "strong": 0.8, "joint": 0.8},
    ("share", "none"): {"weak": 0.2, "strong": 0.8, "joint": 0.8},
    ("share", "moddrop"): {"weak": 0.4, "strong": 0.8, "joint": 0.8},
    ("unique", "none"): {"weak": 0.0, "strong": 0.8, "joint": 0.8},
    ("unique", "moddrop"): {"weak": 0.5, "strong": 0.8, "joint": 0.78},
    ("synergy", "none"): {"weak": 0.4, "strong": 0.8, "joint": 0.5},
    ("synergy", "moddrop"): {"weak": 0.3, "strong": 0.6, "joint": 0.3},
}
METHODS = {"random": 0.0, "badge": 0.06, "entropy": 0.03, "bald": -0.04}
NOISE = 0.01


def subset_of(dataset: str, role: str) -> str:
    weak, strong = MODALITIES[dataset]
    return {"weak": weak, "strong": strong, "joint": f"{weak}+{strong}"}[role]


def make_curves(selection: Selection, changes: dict | None = None, noise: float = NOISE) -> pd.DataFrame:
    """Levels rise in a line from 0; `changes` are other ends by dataset, mitigation and role."""
    rows, rng = [], np.random.default_rng(0)
    cells = itertools.product(
        selection.datasets, selection.regimes, selection.mitigations, selection.queries, selection.seeds
    )
    for dataset, regime, mitigation, query, seed in cells:
        run = f"{dataset} {regime} {mitigation} {query} {seed}"
        for role, end in GOOD[dataset, mitigation].items():
            end = (changes or {}).get((dataset, mitigation, role), end)
            chance = 1 / CLASSES[dataset]
            ceiling = 0.2 if dataset in ("unique", "synergy") and role == "weak" else 1.0
            for i in range(ROUNDS):
                level = (end + METHODS[query] * (role == "weak")) * i / (ROUNDS - 1) + noise * rng.normal()
                value = chance + level * (ceiling - chance)
                cell = (
                    selection.scale,
                    dataset,
                    regime,
                    mitigation,
                    query,
                    seed,
                    run,
                    ROUNDS,
                    i,
                    50 * (i + 1),
                )
                rows.append((*cell, subset_of(dataset, role), value, value, 0.1, chance, ceiling))
    return pd.DataFrame(rows, columns=COLUMNS)


def random_only(**changes) -> Selection:
    return replace(SELECTION, queries=("random",), **changes)


# The criteria


def test_runs_as_they_should_be_pass_in_every_setting():
    gate = gate_of(make_curves(random_only()), random_only())
    assert {verdict for verdict, _ in gate.verdicts.values()} == {PASSED}
    assert len(gate.verdicts) == 4 * 2
    assert gate.failed == {}
    assert set(gate.rows["n_seeds"]) == {10}


FAULTS = {
    "weak below strong": {("missing", "none", "weak"): 0.9},
    "ModDrop lifts the weak modality": {("share", "moddrop", "weak"): 0.2},
    "ModDrop leaves the joint": {("unique", "moddrop", "joint"): 0.6},
    "ModDrop lowers the joint": {("synergy", "moddrop", "joint"): 0.5},
    "joint rises": {("share", "none", "joint"): 0.0},
    "weak rises": {("missing", "moddrop", "weak"): 0.0},
}


@pytest.mark.parametrize("criterion", FAULTS)
def test_each_criterion_fails_by_itself_and_closes_what_it_is_about(criterion):
    ((dataset, mitigation, _),) = FAULTS[criterion]
    gate = gate_of(make_curves(random_only(), FAULTS[criterion]), random_only())
    compares = criterion.startswith("ModDrop")
    closed = {(dataset, "low", name) for name in (SELECTION.mitigations if compares else [mitigation])}
    assert gate.failed == dict.fromkeys(closed, criterion)


def test_weak_is_lower_in_level_and_not_in_accuracy():
    """A modality near its ceiling of a fifth has a lower accuracy than a strong one, and is not weak."""
    curves = make_curves(random_only(), {("unique", "none", "weak"): 0.95})
    means = curves[(curves["dataset"] == "unique") & (curves["mitigation"] == "none")].groupby("subset")
    means = means["balanced_accuracy"].mean()
    assert means["partial"] < means["full"]
    assert "weak below strong" in gate_of(curves, random_only()).failed["unique", "low", "none"]


def test_the_paper_low_regime_of_missing_is_told_and_fails_nothing():
    for end, verdict in ((0.8, NOT_SO), (0.1, SO)):
        curves = make_curves(random_only(), {("missing", "none", "joint"): end})
        gate = gate_of(curves, random_only())
        rows = gate.rows.set_index(["criterion", "mitigation"])
        assert rows.loc[("joint near chance", "none"), "verdict"] == verdict
        assert gate.verdicts["missing", "low", "none"] == (PASSED, "")


def test_four_seeds_or_one_mitigation_are_not_enough_but_what_fails_has_failed():
    few = random_only(seeds=(0, 1, 2, 3))
    assert {verdict for verdict, _ in gate_of(make_curves(few), few).verdicts.values()} == {UNKNOWN}
    alone = random_only(mitigations=("moddrop",))
    verdicts = gate_of(make_curves(alone), alone).verdicts
    assert verdicts["missing", "low", "moddrop"] == (PASSED, "")
    assert verdicts["share", "low", "moddrop"] == (UNKNOWN, "ModDrop lifts the weak modality")
    bad = make_curves(alone, {("share", "moddrop", "weak"): 0.9})
    assert gate_of(bad, alone).failed == {("share", "low", "moddrop"): "weak below strong"}
    without = replace(SELECTION, queries=("badge",))
    assert {verdict for verdict, _ in gate_of(make_curves(without), without).verdicts.values()} == {UNKNOWN}


def test_with_holes_settings_are_asked_that_have_runs_and_of_random_in_both():
    """Random with both mitigations, all methods with one of them, and a regime of one dataset alone."""
    there = [("missing", "mid"), ("missing", "low"), ("synergy", "low")]
    holes = replace(SELECTION, datasets=("missing", "synergy"), regimes=("mid", "low"), there=there)
    curves = make_curves(holes)
    gone = (curves["query"] != "random") & (curves["mitigation"] == "moddrop")
    curves = curves[~gone & ((curves["dataset"] == "missing") | (curves["regime"] == "low"))]
    gate = gate_of(curves, holes)
    settings = {(*pair, mitigation) for pair in there for mitigation in ("none", "moddrop")}
    assert set(gate.verdicts) == settings
    assert {verdict for verdict, _ in gate.verdicts.values()} == {PASSED}
    # A setting without any run is no setting with too few.
    alone = curves[(curves["dataset"] == "missing") | (curves["mitigation"] == "none")]
    verdicts = gate_of(alone, holes).verdicts
    assert set(verdicts) == settings - {("synergy", "low", "moddrop")}
    assert verdicts["synergy", "low", "none"] == (UNKNOWN, "ModDrop lowers the joint")


def test_every_seed_is_enough_where_the_interval_is_not():
    """One seed with a much larger difference widens the interval, and speaks for it all the same."""
    selection = random_only(datasets=("missing",), mitigations=("none",), seeds=(0, 1, 2, 3, 4))
    curves = make_curves(selection, {("missing", "none", "weak"): 0.78}, noise=0.0)
    far = (curves["seed"] == 0) & (curves["subset"] == "rare")
    curves.loc[far, "balanced_accuracy"] = 0.1
    row = gate_of(curves, selection).rows.set_index("criterion").loc["weak below strong"]
    assert row["low"] < 0 < row["effect"]
    assert (row["n_so"], row["verdict"]) == (5, PASSED)


def test_the_interval_is_that_of_paired_seeds():
    selection = random_only(datasets=("unique",))
    curves = make_curves(selection, noise=0.05)
    row = gate_of(curves, selection).rows.set_index("criterion").loc["ModDrop lifts the weak modality"]
    seeds = per_seed(curves[curves["subset"] == "partial"])
    level = (seeds["aulc"] - seeds["chance_aulc"]) / (seeds["ceiling_aulc"] - seeds["chance_aulc"])
    wide = seeds.assign(level=level).pivot(index="seed", columns="mitigation", values="level")
    test = ttest_1samp(wide["moddrop"] - wide["none"], 0)
    interval = test.confidence_interval(0.95)
    assert row["effect"] == pytest.approx((wide["moddrop"] - wide["none"]).mean())
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))


def test_the_residual_deviation_by_hand():
    """Around their means the seeds lie by 0.1 and by 0.3: variances of 0.02 and 0.18, their mean 0.1."""
    curves = pd.DataFrame([[0.1, 0.3], [0.3, 0.9]])
    assert residual_deviation(curves) == pytest.approx(0.1**0.5)


def test_a_dataset_of_three_modalities_has_its_weak_one_below_each_other():
    curves = make_curves(random_only(datasets=("missing",)))
    third = curves[curves["subset"] == "frequent"].assign(subset="third")
    curves["subset"] = curves["subset"].replace("rare+frequent", "rare+frequent+third")
    selection = random_only(datasets=("missing",))
    for factor, verdict in ((1.0, PASSED), (0.2, FAILED)):
        third = third.assign(balanced_accuracy=0.1 + (third["balanced_accuracy"] - 0.1) * factor)
        gate = gate_of(pd.concat([curves, third]), selection)
        rows = gate.rows.set_index(["criterion", "mitigation"])
        assert rows.loc[("weak below strong", "none"), "verdict"] == verdict


def test_nothing_is_asked_at_scale_paper_or_without_a_weak_modality():
    paper = random_only(scale="paper")
    gate = gate_of(make_curves(paper), paper)
    assert "at scale paper" in gate.closed
    assert (len(gate.rows), gate.failed) == (0, {})
    assert gate_of(make_curves(random_only()), random_only(weak={})).verdicts == {}


def test_a_subset_that_knows_nothing_of_the_label_has_no_level():
    curves = make_curves(SELECTION)
    weak = curves["subset"] == "partial"
    curves = curves.assign(ceiling=curves["ceiling"].mask(weak, curves["chance"]))
    found = detectable(per_seed(curves))
    assert "partial" not in set(found["subset"])
    assert found["level"].gt(0).all()
    verdict, names = gate_of(curves, SELECTION).verdicts["unique", "low", "none"]
    assert verdict == UNKNOWN
    assert "weak below strong" in names


# Nothing is ranked where it fails

CLOSED = {("unique", "none", "weak"): 0.95, ("unique", "moddrop", "weak"): 0.95}


def contents(changes: dict | None = None):
    return content_of(Inputs(make_curves(SELECTION, changes)), PAPER, SELECTION)


@pytest.fixture(scope="module")
def closed():
    """All in order but Unique, whose partial modality is the strong one."""
    return contents(CLOSED)


@pytest.fixture(scope="module")
def opened():
    return contents()


def bold(table: tables.Table) -> int:
    return sum(cell.best for row in table.rows for cell in row.cells)


def test_no_number_is_bold_and_the_table_says_why(closed):
    made = {one.name: one for one in [*closed.tables, *closed.paper_tables]}
    for name in ("unique-none", "unique-moddrop", "paper-table-11", "paper-table-12"):
        assert bold(made[name]) == 0, name
        assert any(note.startswith("Not ranked, as the gate failed: Unique, ") for note in made[name].notes)
        numbers = [row for row in made[name].rows if row.kind == "method"]
        assert any(cell.mean > 0 for row in numbers for cell in row.cells), name
    for name in ("share-moddrop", "paper-table-09"):
        assert bold(made[name]) > 0, name
        assert not any("gate" in note for note in made[name].notes), name


def test_rank_sums_leave_it_out_and_say_so(closed):
    made = {one.name: one for one in [*closed.tables, *closed.paper_tables]}
    sums = made["rank_sums-moddrop"]
    assert "added over Missing/rare, Share/cifar10, Synergy/partial_b" in sums.notes[0]
    assert "Not ranked, as the gate failed: Unique, ModDrop, low (not so: weak below strong" in sums.notes[0]
    assert sum(row.cells[0].mean for row in sums.rows) == 3 * (1 + 2 + 3 + 4)
    table_3 = made["paper-table-03"]  # which ranks on all four or not at all
    assert all(np.isnan(cell.mean) for row in table_3.rows for cell in row.cells)
    assert any("Not ranked, as the gate failed: Unique" in note for note in table_3.notes)
    ours = closed.ranks.dropna(subset=["ours"])
    assert set(ours["datasets"]) == {"missing+share+synergy"}


def test_statistics_leave_it_out_and_say_so(closed):
    for one in closed.statistics:
        assert one.n_blocks == 3 * 10
        assert "Not ranked, as the gate failed: Unique, " in one.note
    nothing = dict.fromkeys(itertools.product(SELECTION.datasets, ["low"], SELECTION.mitigations), "")
    assert all_statistics(make_curves(SELECTION), replace(SELECTION, unranked=nothing)) == []


def test_claims_that_compare_methods_are_not_judged_there(closed, opened):
    ours = closed.claims.set_index("key")
    key = "unaddressed-but-missing"  # of all four datasets
    assert ours.loc[key, "verdict"] == UNRANKED
    assert ours.loc[key, "detail"].startswith("Not ranked, as the gate failed: Unique, ModDrop, low")
    assert opened.claims.set_index("key").loc[key, "verdict"].startswith(("holds", "does not hold"))
    assert ours.loc["no-method-best-everywhere", "detail"].endswith("lifts the weak modality).")
    # Claims on modalities, not on methods, are judged as ever.
    assert ours.loc["full-above-partial-everywhere", "verdict"].startswith("does not hold")


def test_the_order_of_methods_is_not_compared_with_the_papers_there(closed, opened):
    summary, everywhere = (one.summary.set_index("table") for one in (closed, opened))
    assert summary.loc[11, "columns"] == 0
    assert everywhere.loc[11, "columns"] > 0
    assert summary.loc[11, "counterparts"] == everywhere.loc[11, "counterparts"]


def test_the_page_says_what_failed_and_ranks_nothing(tmp_path):
    selection = replace(SELECTION, datasets=("unique",), weak={"unique": "partial"})
    build_report(Inputs(make_curves(selection, CLOSED)), tmp_path, PAPER, selection)
    text = (tmp_path / "index.html").read_text()
    assert '<span class="failed">failed</span>: Unique low, no mitigation (not so: weak below strong' in text
    assert "Unique: Partial <span" in text
    assert "is not the weak one</span>; these runs do not show what the dataset is made to show" in text
    assert 'class="best' not in text
    assert 'id="statistics"' not in text
    assert not list((tmp_path / "tables").glob("rank_sums-*"))
    gate = pd.read_csv(tmp_path / "tables" / "gate.csv")
    assert set(gate["verdict"]) == {PASSED, FAILED}


def test_without_enough_runs_the_page_says_that_the_gate_was_not_evaluated(tmp_path):
    selection = replace(SELECTION, datasets=("missing",), mitigations=("moddrop",), seeds=(0, 1))
    selection = replace(selection, weak={"missing": "rare"})
    curves = make_curves(selection)
    build_report(Inputs(curves), tmp_path, PAPER, selection)
    text = (tmp_path / "index.html").read_text()
    assert "<strong>The gate was not evaluated</strong>" in text
    assert "It takes 5 seeds of Random, with ModDrop and without; here are 2, with ModDrop." in text
    assert "Missing: Rare <span" in text
    assert "is the weak one</span>. <span" in text
    told = weak_levels(per_seed(curves), selection.weak).iloc[0]
    assert f"low, ModDrop: {told['weak']:.2f} against {told['strong']:.2f}, below in 8 of 8 runs" in text
    assert 'id="statistics"' in text
    # Many seeds of other methods are no runs of Random.
    others = replace(selection, queries=("badge", "bald"), seeds=SELECTION.seeds)
    told = _gate(content_of(Inputs(make_curves(others)), PAPER, others))["closed"]
    assert told.endswith("here is no run of Random")


# The reference run


def test_every_setting_of_the_reference_run_is_passed_or_ranked_nowhere():
    kept = kept_selection(REFERENCE)
    selection = selection_of(kept, REFERENCE)
    curves = read_inputs(selection, REFERENCE, kept.about).curves
    gate = gate_of(curves, selection)
    weak = curves[curves["dataset"].isin(list(selection.weak))]
    assert set(gate.verdicts) == set(weak[SETTING].itertuples(index=False, name=None))
    enough = len(selection.seeds) >= GATE_SEEDS and set(selection.mitigations) >= {"none", "moddrop"}
    assert {verdict for verdict, _ in gate.verdicts.values()} <= (
        {PASSED, FAILED} if enough else {UNKNOWN, FAILED, PASSED}
    )
    committed = REFERENCE / "tables" / "gate.csv"
    if committed.exists():
        told = pd.read_csv(committed, keep_default_na=False)["verdict"].tolist()
        assert told == gate.rows["verdict"].tolist()
    if not gate.failed:
        return
    selection, seeds = replace(selection, unranked=gate.failed), per_seed(curves)
    order = {name: subset_order(list(part["subset"].unique())) for name, part in curves.groupby("dataset")}
    made = {one.name: one for one in all_tables(tidy(curves, order), selection, selection.ranked(seeds))}
    statistics = {(one.mitigation, one.target): one for one in all_statistics(curves, selection)}
    for dataset, regime, mitigation in gate.failed:
        table = made[f"{dataset}-{mitigation}"]
        places = [i for i, column in enumerate(table.columns) if column.group == regime]
        assert not any(row.cells[i].best for row in table.rows for i in places)
        assert any("Not ranked, as the gate failed" in note for note in table.notes)
        for target in ("weak", "all"):
            if (mitigation, target) in statistics:
                assert "Not ranked, as the gate failed" in statistics[mitigation, target].note


# What the seeds can tell


def test_the_smallest_difference_is_found_in_four_of_five_repetitions():
    """Simulated: a method that is better by just so much, in the layout that the residual is taken from."""
    rng, n, sigma = np.random.default_rng(1), 6, 0.03
    shift = smallest_difference(np.sqrt(2) * sigma, n)
    pairs = sigma * rng.normal(size=(20_000, n, 2)) + 0.2 * rng.normal(size=(20_000, n, 1))
    found = ttest_1samp(pairs[..., 1] - pairs[..., 0] + shift, 0, axis=1).pvalue <= 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_residuals_are_what_methods_and_seeds_leave():
    """Seeds and methods that differ much, and a residual of 0.02 in level: 200 seeds find it again."""
    selection = replace(SELECTION, datasets=("unique",), mitigations=("none",), seeds=tuple(range(200)))
    rows, rng = [], np.random.default_rng(2)
    for (place, query), seed in itertools.product(enumerate(selection.queries), selection.seeds):
        level = 0.1 * place + 0.01 * (seed % 7) + 0.02 * rng.normal()
        area = 4 * (0.04 + level * 0.16)
        cell = ("tiny", "unique", "none", "low", query, "partial")
        rows.append((*cell, seed, 5, area, 4 * 0.04, 4 * 0.2))
    names = ["scale", "dataset", "mitigation", "regime", "query", "subset", "seed", "rounds"]
    seeds = pd.DataFrame(rows, columns=[*names, "aulc", "chance_aulc", "ceiling_aulc"])
    row = detectable(seeds).iloc[0]
    assert row["residual"] == pytest.approx(0.02, rel=0.06)
    assert row["level"] == smallest_difference(np.sqrt(2) * row["residual"], 200)
    # As the table shows it: AULC of a column with a ceiling of a fifth is multiplied by five.
    assert row["aulc"] == pytest.approx(5 * 4 * 0.16 * row["level"])
    assert (row["n_seeds"], row["methods"]) == (200, 4)


def test_one_seed_or_one_method_can_tell_nothing_and_controls_do_not_count():
    seeds = per_seed(make_curves(replace(SELECTION, seeds=(0,))))
    assert detectable(seeds).empty
    seeds = per_seed(make_curves(replace(SELECTION, queries=("random", "badge"))))
    seeds["query"] = seeds["query"].replace("badge", "presence_balanced")
    assert detectable(seeds).empty
