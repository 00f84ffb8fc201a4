"""AULC, the paper's ranks, tables, figures and the page, on curves made here."""

import copy
import hashlib
import itertools
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mindgap.core.records import MEASURED_COLUMNS
from mindgap.results import figures, tables
from mindgap.results.aulc import aulc, over_seeds, per_seed, rank_sums, tidy
from mindgap.results.balance import measured_tables, read_measured
from mindgap.results.claims import claims
from mindgap.results.curves import COLUMNS, ReportError, Selection, read_curves
from mindgap.results.metrics import all_metrics, few_metrics, plot_points
from mindgap.results.names import subset_order, subset_title
from mindgap.results.paper import (
    load_paper,
    ordered_weak_cells,
    published_cells,
    published_rank_sums,
    weak_cells,
    with_paper,
)
from mindgap.results.provenance import Origin
from mindgap.results.scales import definitions
from mindgap.results.site.build import build_report
from mindgap.results.site.content import Inputs

PAPER = Path(__file__).parents[1] / "data" / "paper"
MODALITIES = {
    "missing": ("rare", "frequent"),
    "unique": ("full", "partial"),
    "trio": ("twin_a", "twin_b", "solo"),
}
LOW_CEILING = {"unique": {"partial"}, "trio": {"twin_a", "twin_b", "solo", "twin_a+twin_b"}}
ROUNDS = 4
SELECTION = Selection(
    scale="tiny",
    datasets=("missing", "unique"),
    regimes=("low",),
    queries=("random", "badge", "class_balanced_oracle"),
    mitigations=("none", "moddrop"),
    seeds=(0, 1),
    weak={"missing": "rare", "unique": "partial"},
)


def all_subsets(dataset: str) -> list[str]:
    names = MODALITIES[dataset]
    return ["+".join(s) for size in range(1, len(names) + 1) for s in itertools.combinations(names, size)]


def accuracy(query: str, seed: int, round: int, place: int) -> float:
    return 0.2 + 0.1 * round + 0.01 * seed + 0.02 * place + (0.05 if query == "badge" else 0.0)


def make_curves(
    dataset: str, selection: Selection, regime: str = "low", rounds: int = ROUNDS, values: int = 10
) -> pd.DataFrame:
    chance, rows = 1 / values if dataset == "missing" else 1 / values**2, []
    for mitigation, query, seed in itertools.product(
        selection.mitigations, selection.queries, selection.seeds
    ):
        name = f"{dataset} {regime} {mitigation} {query} {seed}"
        run = hashlib.sha256(name.encode()).hexdigest()[:16]
        for i, (place, subset) in itertools.product(range(rounds), enumerate(all_subsets(dataset))):
            ceiling = 1 / values if subset in LOW_CEILING.get(dataset, ()) else 1.0
            value = ceiling * min(accuracy(query, seed, i, place), 1.0)
            cell = (selection.scale, dataset, regime, mitigation, query, seed, run, rounds, i, 50 * (i + 1))
            rows.append((*cell, subset, value, value, 0.1, chance, ceiling))
    return pd.DataFrame(rows, columns=COLUMNS)


def write_curves(folder: Path, selection: Selection = SELECTION, **kwargs) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for dataset, regime in itertools.product(selection.datasets, selection.regimes):
        make_curves(dataset, selection, regime, **kwargs).to_csv(
            folder / f"{dataset}-{regime}.csv", index=False
        )
    return folder


def origins_of(selection: Selection) -> list[Origin]:
    """Where runs come from that are what their scale defines."""
    table = copy.deepcopy(definitions())
    one, origins = table["scales"][selection.scale], []
    for dataset, regime in itertools.product(selection.datasets, selection.regimes):
        recipes = one["recipe"][dataset]
        setting = {
            "start": table["loop"]["start"],
            "budget": one["budget"][dataset][regime],
            "recipe": recipes.get(regime) or recipes["all"],
            "training": one["training"],
            "model": {**one["model"], "encoder": {"image": one["encoder"]["image"]}},
        }
        alone = setting["model"].pop("head_dropout_for") == "bald_only"
        settings = {
            (mitigation, query): {
                "setting": copy.deepcopy(setting),
                "mitigation_settings": table["mitigation_settings"][mitigation],
                "query_settings": table["query_settings"][query],
                "data": {"render": one["render"], "prepare": one["prepare"][dataset]},
            }
            for mitigation, query in itertools.product(selection.mitigations, selection.queries)
        }
        for (_, query), of_cell in settings.items():
            if alone and query != "bald":
                of_cell["setting"]["model"]["head_dropout"] = 0.0
        made = {"commits": ["c"], "devices": ["cpu"], "versions": ["torch 2"]}
        settings = copy.deepcopy(settings)
        origins.append(Origin(dataset, regime, 1, "d" * 64, "n" * 64, **made, settings=settings))
    return origins


def report_of(folder: Path, selection: Selection, **kwargs) -> Path:
    """A whole report in `folder`, beside the curves it is made of."""
    curves = read_curves(write_curves(folder / "curves", selection, **kwargs), selection)
    build_report(Inputs(curves, origins_of(selection)), folder, PAPER, selection)
    return folder


@pytest.fixture
def curves_dir(tmp_path) -> Path:
    return write_curves(tmp_path / "curves")


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """A whole report; tests only read it."""
    folder = tmp_path_factory.mktemp("report")
    selection = replace(
        SELECTION, datasets=("missing", "trio"), weak={"missing": "rare"}, mitigations=("moddrop",)
    )
    return report_of(folder / "reports", selection)


def order_of(curves: pd.DataFrame) -> dict[str, list[str]]:
    return {d: subset_order(list(part["subset"].unique())) for d, part in curves.groupby("dataset")}


# AULC


@pytest.mark.parametrize(("level", "area"), [(0.1, 0.9), (0.5, 4.5), (1.0, 9.0)])
def test_aulc_of_a_constant_curve_is_exact(level, area):
    assert aulc([level] * 10) == area


def test_aulc_is_the_trapezoid_and_needs_two_points():
    assert aulc([0.0, 1.0]) == 0.5
    assert aulc([0.25, 0.5, 1.0]) == 0.375 + 0.75
    with pytest.raises(ValueError, match="needs two points, this one has 1"):
        aulc([0.3])


def test_tidy_means_and_spreads(curves_dir):
    curves = read_curves(curves_dir, SELECTION)
    table = tidy(curves, order_of(curves))
    row = table[
        (table["query"] == "badge") & (table["subset"] == "rare") & (table["mitigation"] == "none")
    ].iloc[0]
    areas = [aulc([accuracy("badge", seed, i, 0) for i in range(ROUNDS)]) for seed in (0, 1)]
    assert row["aulc_mean"] == pytest.approx(sum(areas) / 2)
    assert row["aulc_std"] == pytest.approx(
        abs(areas[0] - areas[1]) / math.sqrt(2)
    )  # n - 1 in the denominator
    assert row["mean_accuracy"] == pytest.approx(row["aulc_mean"] / 3)
    assert (row["n_seeds"], row["rounds"]) == (2, ROUNDS)
    assert row["chance_aulc"] == pytest.approx(0.3)
    assert row["ceiling_aulc"] == 3.0
    assert table["subset"].tolist()[:3] == ["rare", "rare+frequent", "frequent"]  # the paper's order


def test_one_seed_has_no_spread(curves_dir):
    curves = read_curves(curves_dir, replace(SELECTION, seeds=(1,)))
    table = over_seeds(per_seed(curves))
    assert table["aulc_std"].isna().all()
    made = tables.dataset_table(table, "missing", "none", replace(SELECTION, seeds=(1,)))
    assert made.rows[0].cells[0].text.endswith(" ± –")
    assert tables.ONE_SEED in made.notes


def test_order_of_rows_changes_no_bit(curves_dir):
    curves = read_curves(curves_dir, SELECTION)
    shuffled = tidy(curves.sample(frac=1, random_state=0), order_of(curves)).sort_values(
        list(curves.columns[:1])
    )
    keys = ["dataset", "mitigation", "query", "subset"]
    first = tidy(curves, order_of(curves)).sort_values(keys).reset_index(drop=True)
    pd.testing.assert_frame_equal(first, shuffled.sort_values(keys).reset_index(drop=True), check_exact=True)


# The paper


def test_all_21_published_rank_sums_follow():
    keys = ["regime", "query"]
    sums = rank_sums(ordered_weak_cells(PAPER))
    merged = sums.merge(published_rank_sums(PAPER), on=keys, suffixes=("", "_published"))
    assert len(merged) == 21
    assert (merged["rank_sum"] == merged["rank_sum_published"]).all()


def test_the_misprint_is_mended_and_matters():
    weak = weak_cells(PAPER).set_index(["regime", "dataset", "query"])["aulc_mean"]
    assert weak[("mid", "synergy", "badge")] == 5.87
    weak[("mid", "synergy", "badge")] = 5.42
    sums = rank_sums(weak.reset_index()).set_index(["regime", "query"])["rank_sum"]
    assert (sums["mid", "badge"], sums["mid", "grace_r"]) == (23, 16)  # printed: 22 and 17


def test_equal_means_share_their_rank():
    weak = pd.DataFrame(
        {"regime": "low", "dataset": "missing", "query": ["a", "b", "c"], "aulc_mean": [1.0, 1.0, 2.0]}
    )
    assert rank_sums(weak)["rank_sum"].tolist() == [2.5, 2.5, 1.0]


def test_published_cells_have_our_names_and_scale():
    assert len(load_paper(PAPER)) == 1032
    cells = published_cells(PAPER).set_index(["dataset", "mitigation", "regime", "query", "subset"])
    assert cells.loc[("synergy", "none", "mid", "badge", "partial_b"), "paper_mean"] == pytest.approx(0.587)
    assert cells.loc[("unique", "none", "low", "kcenter_greedy", "full"), "paper_mean"] == 3.94
    assert cells.index.is_unique
    assert not cells.isna().any(axis=None)


def test_paper_numbers_stand_beside_paper_scale_and_its_rounds_only(tmp_path):
    for scale, rounds, expected in (("tiny", 10, False), ("paper", 5, False), ("paper", 10, True)):
        selection = replace(SELECTION, scale=scale)
        curves = read_curves(write_curves(tmp_path / f"{scale}{rounds}", selection, rounds=rounds), selection)
        table = with_paper(tidy(curves, order_of(curves)), PAPER)
        methods = table[table["query"] != "class_balanced_oracle"]
        assert methods["paper_mean"].notna().all() == expected, (scale, rounds)
        assert table["paper_mean"].notna().any() == expected
    made = tables.dataset_table(table, "unique", "none", selection)
    assert [row.kind for row in made.rows] == ["method", "paper", "method", "paper", "control"]
    assert made.rows[1].cells[2].text == "0.92 ± 0.03"  # scaled by ten again, as printed


# What is refused


def drop(frame, **cell):
    return frame[~pd.concat([frame[k] == v for k, v in cell.items()], axis=1).all(axis=1)]


def at(frame, **cell):
    return pd.concat([frame[k] == v for k, v in cell.items()], axis=1).all(axis=1)


CELL = {"mitigation": "none", "query": "badge", "seed": 1}
FAULTS = {
    "missing run": (lambda f: drop(f, **CELL), "run badge, none, seed 1 is missing"),
    "missing round": (lambda f: drop(f, **CELL, round=2), r"\(badge, none, seed 1\).* lacks rounds 2 of 4"),
    "missing subset": (lambda f: drop(f, **CELL, subset="rare"), "run badge, none, seed 1 has the subset"),
    "round too many": (
        lambda f: pd.concat([f, f[at(f, **CELL, round=3)].assign(round=4)]),
        "has rounds 4 of 4",
    ),
    "a seed twice": (
        lambda f: pd.concat([f, f[at(f, **CELL)].assign(run="0" * 16)]),
        "run badge, none, seed 1 is there twice .*0000000000000000",
    ),
    "mixed digests": (
        lambda f: f.assign(run=f["run"].mask(at(f, **CELL, round=3), "0" * 16)),
        "run badge, none, seed 1 mixes the digests 0000000000000000",
    ),
    "shared digest": (lambda f: f.assign(run="0" * 16), "run 0000000000000000 is given for several cells"),
    "NaN": (
        lambda f: f.assign(
            balanced_accuracy=f["balanced_accuracy"].mask(at(f, **CELL, round=1, subset="rare"))
        ),
        r"run \w{16} \(badge, none, seed 1\), round 1, subset rare: balanced_accuracy is nan, not a number",
    ),
    "no count": (
        lambda f: f.assign(labelled=f["labelled"] + 0.5 * at(f, **CELL)),
        "labelled is 50.5, not a whole number",
    ),
    "other scale": (lambda f: f.assign(scale="paper"), "is of scale 'paper', not 'tiny'"),
    "other regime": (lambda f: f.assign(regime="mid"), "is of regime 'mid', not 'low'"),
    "labels do not grow": (lambda f: f.assign(labelled=50), "the number of labels does not grow"),
    "other labels": (
        lambda f: f.assign(labelled=f["labelled"] + at(f, **CELL)),
        "runs disagree on labelled of round 0",
    ),
    "one round": (lambda f: f[f["round"] == 0].assign(rounds=1), "says it has 1 rounds"),
    "no column": (lambda f: f.drop(columns=["ece"]), "lacks the columns ece"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_curves_are_refused_with_file_and_mend(curves_dir, fault):
    path = curves_dir / "missing-low.csv"
    spoil, message = FAULTS[fault]
    spoil(pd.read_csv(path, dtype={"run": str})).to_csv(path, index=False)
    with pytest.raises(ReportError, match=message) as error:
        read_curves(curves_dir, SELECTION)
    assert str(path) in str(error.value)
    assert "dvc repro -f -s acquire@missing-low" in str(error.value)


def test_missing_and_unreadable_files_are_refused(curves_dir):
    (curves_dir / "unique-low.csv").write_text("")
    with pytest.raises(ReportError, match=r"unique-low\.csv is empty"):
        read_curves(curves_dir, SELECTION)
    with pytest.raises(ReportError, match=r"missing-mid\.csv is not there; .*acquire@missing-mid"):
        read_curves(curves_dir, replace(SELECTION, regimes=("mid",)))
    with pytest.raises(ReportError, match="the selection has no seeds"):
        read_curves(curves_dir, replace(SELECTION, seeds=()))


def test_a_refused_report_writes_nothing(curves_dir, tmp_path):
    out = tmp_path / "reports"
    (out / "tables").mkdir(parents=True)
    (out / "tables" / "kept.csv").write_text("old")
    mixed = read_curves(curves_dir, SELECTION)
    mixed.loc[mixed["dataset"] == "unique", "scale"] = "paper"
    with pytest.raises(ReportError, match="mixes the scales paper, tiny"):
        build_report(Inputs(mixed), out, PAPER, SELECTION)
    assert [p.name for p in out.rglob("*") if p.is_file()] == ["kept.csv"]


def test_rows_of_dropped_cells_do_not_mix_in(curves_dir):
    small = replace(SELECTION, queries=("random",), mitigations=("none",), seeds=(1,), datasets=("unique",))
    (curves_dir / "missing-low.csv").write_text("not even read")
    curves = read_curves(curves_dir, small)
    assert set(zip(curves["query"], curves["mitigation"], curves["seed"], strict=True)) == {
        ("random", "none", 1)
    }


def test_digests_stay_text_and_floats_keep_every_bit(curves_dir):
    path = curves_dir / "missing-low.csv"
    frame = pd.read_csv(path, dtype={"run": str})
    frame.loc[at(frame, **CELL), "run"] = "0012345678901e12"
    frame["balanced_accuracy"] = 0.1 + 0.2
    frame.to_csv(path, index=False)
    curves = read_curves(curves_dir, replace(SELECTION, datasets=("missing",)))
    assert "0012345678901e12" in set(curves["run"])
    assert set(curves["balanced_accuracy"]) == {0.1 + 0.2}


# Tables


def test_subset_names_and_order():
    two, three = ("rare", "rare+frequent"), all_subsets("trio")
    assert [subset_title(s, two) for s in two] == ["Rare", "Both"]
    assert [subset_title(s, three) for s in ("twin_a+solo", "twin_a+twin_b+solo")] == ["Twin A + Solo", "All"]
    assert subset_order(["rare", "frequent", "rare+frequent"]) == ["rare", "rare+frequent", "frequent"]
    assert subset_order(all_subsets("trio")) == all_subsets("trio")
    assert subset_order(["only"]) == ["only"]


def made_table(curves_dir, dataset="unique") -> tables.Table:
    curves = read_curves(curves_dir, SELECTION)
    return tables.dataset_table(tidy(curves, order_of(curves)), dataset, "moddrop", SELECTION)


def test_table_layout(curves_dir):
    table = made_table(curves_dir)
    assert [(c.group, c.title, c.weak, c.factor) for c in table.columns] == [
        ("low", "Full", False, 1.0),
        ("low", "Both", False, 1.0),
        ("low", "Partial", True, 10.0),
    ]
    assert [(row.title, row.kind) for row in table.rows] == [
        ("Random", "method"),
        ("BADGE", "method"),
        ("Class-balanced oracle", "control"),
    ]
    assert not any(cell.best for row in table.rows for cell in row.cells)  # two seeds carry no test
    assert table.rows[0].cells[2].mean == pytest.approx(
        table.rows[0].cells[0].mean + 3 * 0.02
    )  # scaled by ten


def test_a_control_is_never_best(tmp_path):
    selection = replace(SELECTION, seeds=range(6))
    curves = read_curves(write_curves(tmp_path, selection), selection)
    curves.loc[curves["query"] == "class_balanced_oracle", "balanced_accuracy"] = 1.0
    asked = ("missing", "none", selection)
    table = tables.dataset_table(tidy(curves, order_of(curves)), *asked, per_seed(curves))
    assert [[cell.best for cell in row.cells] for row in table.rows] == [[False] * 3, [True] * 3, [False] * 3]


def test_csv(curves_dir):
    lines = tables.to_csv(made_table(curves_dir)).splitlines()
    assert lines[0].startswith("method,kind,low Full mean,low Full std,low Full ci95,low Both mean")
    assert lines[0].endswith("low Partial ×10 mean,low Partial ×10 std,low Partial ×10 ci95")
    assert len(lines) == 4
    assert len({line.count(",") for line in lines}) == 1


def test_markdown(tmp_path):
    selection = replace(SELECTION, seeds=range(6))  # two methods need six seeds
    curves = read_curves(write_curves(tmp_path, selection), selection)
    asked = ("unique", "moddrop", selection)
    text = tables.to_markdown(tables.dataset_table(tidy(curves, order_of(curves)), *asked, per_seed(curves)))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert "low: *Partial* ×10" in lines[0]
    assert "*controls*" in text
    assert re.search(r"\*\*\d\.\d\d ± \d\.\d\d\*\*", text)


@pytest.mark.parametrize("name", ["moddrop", "weak", "ranks"])
def test_latex_is_well_formed(tmp_path, name):
    selection = replace(SELECTION, seeds=range(6))
    curves = read_curves(write_curves(tmp_path, selection), selection)
    table, seeds = tidy(curves, order_of(curves)), per_seed(curves)
    made = {
        "moddrop": tables.dataset_table(table, "unique", "moddrop", selection, seeds),
        "weak": tables.weak_table(table, "moddrop", selection, seeds),
        "ranks": tables.rank_table(table, "moddrop", selection, seeds),
    }[name]
    text = tables.to_latex(made)
    bare = re.sub(r"\\.", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert sorted(re.findall(r"\\begin\{(\w+)\}", text)) == sorted(re.findall(r"\\end\{(\w+)\}", text))
    body = text.split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == len(made.rows)
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(made.columns)}
    assert text.isascii()
    assert r"\textbf{" in text


def test_weak_and_rank_tables(curves_dir):
    curves = read_curves(curves_dir, SELECTION)
    table = tidy(curves, order_of(curves))
    weak = tables.weak_table(table, "none", SELECTION)
    assert [(c.title, c.factor) for c in weak.columns] == [("Missing: Rare", 1.0), ("Unique: Partial", 10.0)]
    ranks = tables.rank_table(table, "none", SELECTION)
    assert [(row.title, row.cells[0].text) for row in ranks.rows] == [("Random", "4"), ("BADGE", "2")]
    nobody = replace(SELECTION, weak={})
    assert tables.weak_table(table, "none", nobody) is None
    assert tables.rank_table(table, "none", nobody) is None


# Figures, numbers, page


def test_every_method_has_its_own_fixed_look():
    looks = [figures.style_of(query) for query in figures.STYLES]
    assert len(set(looks)) == len(looks)
    assert figures.style_of("a_plug_in") == figures.style_of("a_plug_in")


def test_report_holds_every_file(report):
    names = {str(path.relative_to(report)) for path in report.rglob("*") if path.is_file()}
    stems = [f"{kind}-{dataset}-moddrop" for kind in ("curves", "bars") for dataset in ("missing", "trio")]
    wanted = {f"figures/{stem}.{ending}" for stem in stems for ending in ("svg", "png")}
    made = ["missing-moddrop", "trio-moddrop", "weak-moddrop", "rank_sums-moddrop"]
    wanted |= {f"tables/{name}.{ending}" for name in made for ending in ("csv", "md", "tex")}
    numbers = (1, 2, 3, 4, *range(7, 17))
    wanted |= {f"tables/paper-table-{n:02}.{ending}" for n in numbers for ending in ("csv", "md", "tex")}
    parts = ("ranks", "friedman", "pairwise", "bootstrap", "wins", "refusals")
    wanted |= {f"tables/statistics_{part}.csv" for part in parts}
    wanted |= {f"tables/comparison{end}.csv" for end in ("", "_summary", "_ranks")}
    wanted |= {"figures/comparison.svg", "figures/comparison.png", "tables/claims.csv", "tables/aulc.csv"}
    wanted |= {"tables/gate.csv", "tables/detectable.csv", "tables/mitigations.csv", "tables/speed_up.csv"}
    wanted |= {"curves/missing-low.csv", "curves/trio-low.csv", "plots/curves.csv"}
    assert names == wanted | {"metrics.json", "metrics_full.json", "index.html", "comparison.html"}
    assert all((report / name).stat().st_size for name in names)


def test_report_is_deterministic_and_forgets_older_selections(report, tmp_path):
    selection = replace(
        SELECTION, datasets=("missing", "trio"), weak={"missing": "rare"}, mitigations=("moddrop",)
    )
    (tmp_path / "reports" / "tables").mkdir(parents=True)
    (tmp_path / "reports" / "tables" / "gone.csv").write_text("old")
    report_of(tmp_path / "reports", selection)
    for path in sorted(path for path in report.rglob("*") if path.is_file()):
        assert path.read_bytes() == (tmp_path / "reports" / path.relative_to(report)).read_bytes(), path.name
    assert not (tmp_path / "reports" / "tables" / "gone.csv").exists()


def extra_measures(curves: pd.DataFrame, folder: Path) -> Path:
    """Long tables of runs: a point of their curves, and what other evaluators gave."""
    folder.mkdir(parents=True)
    keys = ["dataset", "regime", "run", "round", "labelled", "query", "seed"]
    rows: dict[str, list[tuple]] = {}
    for dataset, regime, run, round, labelled, query, seed in curves[keys].drop_duplicates().to_numpy():
        weak, other = MODALITIES[dataset][:2]
        values = {
            ("accuracy", weak, "accuracy"): 0.5,
            ("acquired", weak, "presence"): 0.1 + 0.05 * round * (query == "badge") + 0.01 * seed,
            ("acquired", other, "presence"): 1.0,
            ("acquired", "", "class_entropy"): 1 - 0.02 * round,
            ("shapley", weak, "shapley"): 0.1 * round + 0.02 * seed,
        }
        made = [(run, round, labelled, *what, value) for what, value in values.items()]
        rows.setdefault(f"{dataset}-{regime}", []).extend(made)
    for name, table in rows.items():
        frame = pd.DataFrame(table, columns=MEASURED_COLUMNS)
        frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    return folder


def test_what_other_evaluators_measured_is_a_table_and_a_figure_of_what_methods_bought(tmp_path):
    selection = replace(SELECTION, datasets=("missing",), weak={"missing": "rare"}, mitigations=("moddrop",))
    curves = read_curves(write_curves(tmp_path / "curves", selection), selection)
    known = extra_measures(curves, tmp_path / "measured")
    few = curves[curves["query"] != "random"]  # rows of runs that are on no page are left out
    assert set(read_measured(known, few)["run"]) == set(few["run"])
    inputs = Inputs(curves, origins_of(selection), measured=read_measured(known, curves))
    build_report(inputs, tmp_path, PAPER, selection)
    table = pd.read_csv(tmp_path / "tables/measured-missing-moddrop.csv")
    assert table["measured"].tolist() == [
        "low: acquired presence, Rare",
        "low: acquired presence, Frequent",
        "low: acquired class_entropy",
        "low: shapley, Rare",
    ]
    assert table["BADGE mean"].tolist() == pytest.approx([0.255, 1.0, 0.94, 0.31])
    assert table["Random mean"].tolist() == pytest.approx([0.105, 1.0, 0.94, 0.31])
    assert table["Random std"][0] == pytest.approx(np.std([0.10, 0.11], ddof=1), abs=1e-6)
    drawn = (tmp_path / "figures/bought-missing-moddrop.svg").read_text()
    # What all samples have is no panel.
    assert [name in drawn for name in ("has Rare", "evenness of classes", "has Frequent")] == [
        True,
        True,
        False,
    ]
    text = (tmp_path / "index.html").read_text()
    assert "What did each method buy?" in text
    assert "<caption>Missing, ModDrop: what else was measured</caption>" in text
    # The factors stand on the page that compares, with what they are not over.
    compared = (tmp_path / "comparison.html").read_text()
    factors = pd.read_csv(tmp_path / "tables/speed_up.csv")
    assert set(factors["query"]) == {"badge"}
    assert f"<td>{factors['speed_up'][0]:.2f}</td>" in compared
    assert "Random never reaches the method&#39;s best: compared up to" in compared
    path = known / "missing-low.csv"
    path.write_text(path.read_text().replace(",value\n", ",worth\n"))
    with pytest.raises(ReportError, match=r"missing-low\.csv lacks the columns value.*acquire@missing-low"):
        read_measured(known, curves)


def test_what_was_measured_of_one_method_has_its_mitigations_side_by_side():
    keys = ["run", "scale", "dataset", "regime", "mitigation", "query", "seed"]
    what = ["evaluator", "name", "subset", "round", "labelled", "value"]

    def of(worth: float, seed: int) -> tuple:
        return "shapley", "shapley", "rare", 3, 40, worth + 0.1 * seed

    rows = [
        (*(f"{mitigation}{seed}", "tiny", "missing", "low", mitigation, "random", seed), *of(worth, seed))
        for mitigation, worth in (("none", 0.1), ("moddrop", 0.3))
        for seed in (0, 1)
    ]
    measured = pd.DataFrame(rows, columns=keys + what)
    selection = replace(SELECTION, datasets=("missing",), mitigations=("none", "moddrop"))
    (table,) = measured_tables(measured, {"missing": ["rare", "both", "frequent"]}, selection)
    assert table.name == "measured-missing"
    assert table.title == "Missing, Random: what else was measured"
    assert [column.title for column in table.columns] == ["no mitigation", "ModDrop"]
    assert [cell.mean for cell in table.rows[0].cells] == pytest.approx([0.15, 0.35])


def metrics_of(folder: Path, **changes) -> dict:
    selection = replace(SELECTION, mitigations=("none",), **changes)
    curves = read_curves(write_curves(folder, selection), selection)
    return all_metrics(tidy(curves, order_of(curves)), curves, selection)


def test_metrics_are_the_numbers_of_the_page_and_differences_to_random_with_intervals(tmp_path):
    selection = replace(SELECTION, seeds=(0, 1, 2), mitigations=("none",))
    curves = make_curves("unique", selection)
    # BADGE leads by 0.05 at each point; with these shifts by 0.04, 0.05 and 0.09 along the curve.
    shift = curves["seed"].map({0: -0.01, 1: 0.0, 2: 0.04}) * curves["ceiling"]
    curves.loc[curves["query"] == "badge", "balanced_accuracy"] += shift
    table = tidy(curves, order_of(curves))
    found = all_metrics(table, curves, selection)["unique"]["low"]["none"]
    shown = {row.title: row.cells for row in tables.weak_table(table, "none", selection).rows}
    assert found["badge"]["weak"]["aulc"] == pytest.approx(shown["BADGE"][0].mean, abs=1e-4)
    assert found["badge"]["weak"]["aulc"] > 1  # scaled by ten, as on the page
    differences = [3 * 0.04, 3 * 0.05, 3 * 0.09]
    mean = sum(differences) / 3
    half = 4.302653 * math.sqrt(sum((d - mean) ** 2 for d in differences) / 2) / math.sqrt(3)
    for target in ("weak", "all"):
        one = found["badge"][target]
        assert one["difference"] == pytest.approx(mean, abs=1e-4)
        assert (one["low"], one["high"]) == pytest.approx((mean - half, mean + half), abs=1e-4)
        assert found["random"][target] | {"aulc": 0} == dict.fromkeys(one) | {"aulc": 0}
    assert found["class_balanced_oracle"]["n_seeds"] == 3


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_an_interval_that_so_few_seeds_cannot_carry_is_missing(tmp_path, seeds):
    one = metrics_of(tmp_path, seeds=seeds)["missing"]["low"]["none"]["badge"]["weak"]
    assert one["difference"] == pytest.approx(3 * 0.05)
    assert (one["low"], one["high"]) == (None, None)
    alone = metrics_of(tmp_path, queries=("badge",))["missing"]["low"]["none"]["badge"]["weak"]
    assert alone == {"aulc": one["aulc"] if seeds == (0, 1) else alone["aulc"]} | dict.fromkeys(
        ("difference", "low", "high")
    )


def test_another_method_dataset_or_mitigation_moves_no_metric(tmp_path):
    def flat(value, path=()) -> dict:
        if not isinstance(value, dict):
            return {path: value}
        return {k: v for name, part in value.items() for k, v in flat(part, (*path, name)).items()}

    changes = [{"datasets": ("missing",)}, {"queries": ("random", "badge")}, {"regimes": ("low", "mid")}]
    everything = flat(metrics_of(tmp_path))
    for change in changes:
        other = flat(metrics_of(tmp_path, **change))
        both = other.keys() & everything.keys()
        assert both in (set(other), set(everything)), change
        assert {key: other[key] for key in both} == {key: everything[key] for key in both}, change


def test_few_metrics_are_shown_and_controls_are_left_out(report, tmp_path):
    assert few_metrics(metrics_of(tmp_path), SELECTION)["weak"]["missing"]["low"]["none"].keys() == {
        *("random", "badge")
    }
    few = json.loads((report / "metrics.json").read_text())
    assert (few["weak"].keys(), few["all"].keys()) == ({"missing"}, {"trio"})  # Trio has no weak modality
    full = json.loads((report / "metrics_full.json").read_text())
    assert full["trio"]["low"]["moddrop"]["badge"].keys() == {"n_seeds", "all"}


def test_plot_points(curves_dir):
    points = plot_points(read_curves(curves_dir, SELECTION), SELECTION)
    columns = ["dataset", "regime", "mitigation", "subset", "query", "labelled", "balanced_accuracy"]
    assert points.columns.tolist() == columns
    assert set(points["subset"]) == {"all", "weak"}
    cell = {"dataset": "missing", "mitigation": "none", "subset": "weak", "query": "badge", "labelled": 100}
    value = points.loc[at(points, **cell), "balanced_accuracy"]
    assert value.item() == pytest.approx((accuracy("badge", 0, 1, 0) + accuracy("badge", 1, 1, 0)) / 2)


class Page(HTMLParser):
    """Links, images and whether every tag is closed."""

    def __init__(self):
        super().__init__()
        self.links, self.images, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "a":
            self.links.append(attrs["href"])
        if tag == "img":
            self.images.append(attrs)
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_opens_from_the_file_system(report):
    text = (report / "index.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert not re.search(r"(?:src|href)=.(?:https?:)?//", text)
    assert all(image["alt"] and (report / image["src"]).exists() for image in page.images)
    assert len(page.images) == 5
    files = [link for link in page.links if not link.startswith(("#", "provenance/"))]
    assert all((report / link).exists() for link in files)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(
        re.findall(r'id="([\w-]+)"', text)
    )
    assert "<li>Trio: flow, attributes, images, sample, checks, curves low</li>" in text


def test_page_is_honest_about_its_scale(report):
    text = (report / "index.html").read_text()
    assert "Scale: tiny – not comparable with the paper" in text
    assert "of its ten values" not in text
    assert "style of their own" not in text
    assert 'class="paper"' not in text
    assert len(set(re.findall(r"<code>([0-9a-f]{16})</code>", text))) == 2 * 3 * 2


def test_the_page_tells_label_values_and_styles_and_their_ceilings(tmp_path):
    selection = replace(SELECTION, datasets=("unique",), weak={"unique": "partial"}, mitigations=("none",))
    curves = read_curves(write_curves(tmp_path / "curves", selection, values=4), selection)
    origins = origins_of(selection)
    for settings in origins[0].settings.values():
        own = {"label_values": 4, "style": {"full": {"erase": [0.0, 0.1]}}}
        settings["data"]["prepare"] = {**settings["data"]["prepare"], **own}
    build_report(Inputs(curves, origins), tmp_path / "reports", PAPER, selection)
    text = (tmp_path / "reports" / "index.html").read_text()
    assert "so the partial one alone reaches 25 % at most" in text
    assert "Chance level: 0.0625 balanced accuracy" in text
    assert "A feature of the label takes 4 of its ten values; other features keep theirs." in text
    assert "Images of Full have a style of their own: erase [0.0, 0.1]." in text
    assert "a pitfall of its own (P2)" in text
    assert "prepare.unique.label_values 5 → 4" in text
    csv_text = (tmp_path / "reports" / "tables" / "unique-none.csv").read_text()
    assert "low Partial ×4 mean" in csv_text
    assert "×10 mean" not in csv_text


def test_paper_scale_report_shows_the_published_numbers(tmp_path):
    selection = replace(SELECTION, scale="paper", datasets=("unique",), mitigations=("none",))
    text = (report_of(tmp_path / "reports", selection, rounds=10) / "index.html").read_text()
    assert "Scale: paper" in text
    assert 'class="paper"' in text
    assert "The gate was not evaluated</strong>\nAt scale paper the runs are the paper&#39;s own" in text
    assert "BADGE, paper" in (tmp_path / "reports" / "tables" / "unique-none.md").read_text()


def test_the_comparison_page_has_every_published_value_under_its_anchor(report):
    text = (report / "comparison.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    anchors = re.findall(r'<tr id="([^"]+)">', text)
    assert len(anchors) == len(set(anchors)) == 1032
    assert text.count("not yet run: counterpart at scale tiny") >= 9
    linked = re.findall(r"comparison\.html#([\w-]+)", (report / "figures" / "comparison.svg").read_text())
    assert linked
    assert set(linked) <= set(anchors)
    assert "Table 2, Synergy, no mitigation, mid, BADGE, Partial B: 5.42, where Table 14 has 5.87" in text
    assert len(re.findall("<summary>Counterpart of Table", text)) == 14
    files = [link for link in page.links if not link.startswith("#")]
    assert all((report / link).exists() for link in files)


def test_the_page_judges_every_claim_by_the_papers_numbers_and_by_ours(report):
    text = (report / "index.html").read_text()
    rows = re.findall(r'<tr id="claim-([\w-]+)"(?: class="wider")?>(.*?)</tr>', text, re.DOTALL)
    verdicts = {
        key: re.findall(r'<span class="\w+">(holds|does not hold|not enough \w+)<', row) for key, row in rows
    }
    assert set(verdicts) == {claim.key for claim in claims()}
    assert verdicts["kcg-leads-low-and-mid"] == ["holds", "not enough data"]
    # Two seeds: the statistics of the page refuse what the claim would compare, and so does the claim.
    assert verdicts["rare-near-chance"] == ["holds", "not enough seeds"]
    ours = re.findall(r'<span class="(\w+)">not enough seeds<', text)
    assert set(ours) == {"soft"}
    assert "Needs Missing; 3 seeds or more each" in text
    assert text.count("Contradicted by the paper's own tables") == 3
    assert "32 claims as written, on the paper&#39;s own numbers: holds 29, does not hold 3." in text


def test_the_page_says_what_the_papers_seeds_can_tell(report):
    text = (report / "index.html").read_text()
    box = re.search(r'<div class="box" id="power">(.*?)</div>', text, re.DOTALL).group(1)
    assert "in 5 of 30 settings on the weak modality (Missing, Share, MIMIC)" in box
    assert "in 5 of 30 on both (Share), where equal methods would give 1.5" in box


def test_what_the_paper_does_not_say_is_marked_on_the_page(report):
    text = (report / "index.html").read_text()
    assert text.count("over all methods and regimes (not said by the paper)</i>") == 13
    assert text.count("Read from the tables, not said by the paper:") == 4


def test_the_page_says_once_what_best_means_and_every_table_why_it_marks_none(report):
    text = (report / "index.html").read_text()
    assert text.count('<p id="best"><b>Best.</b> A method is bold where no other of its column') == 1
    assert 'class="best' not in text
    assert "Nothing is bold, for want of a test: 2 seeds cannot tell 2 apart, 6 could." in text
    for path in (report / "tables").glob("*.tex"):
        assert r"\textbf" not in path.read_text(), path.name


def test_rank_sums_say_what_they_are_over(report):
    index, comparison = ((report / name).read_text() for name in ("index.html", "comparison.html"))
    assert "these rank 2 methods on 1 dataset, all with ModDrop" in index
    assert "are of other runs (one mitigation, all datasets and methods there), so they differ" in comparison
    assert '<td class="text">Missing; 2 methods</td>' in comparison


def test_the_page_says_which_tests_are_refused_and_why(report):
    text = (report / "index.html").read_text()
    assert "<b>Refused: wins</b>, as no setting has more than 2 seeds" in text
    assert "blocks are needed" in text


def test_published_values_are_scaled_as_printed_and_judged_at_paper_scale(tmp_path):
    selection = replace(
        SELECTION, scale="paper", datasets=("unique",), mitigations=("none",), seeds=(0, 1, 2)
    )
    folder = report_of(tmp_path / "reports", selection, rounds=10)
    frame = pd.read_csv(folder / "tables" / "comparison.csv")
    frame = frame[(frame["table"] == 12) & (frame["subset"] == "partial") & (frame["query"] == "badge")]
    row = frame[frame["regime"] == "low"].iloc[0]
    assert row["status"] == "not reproduced"
    text = (folder / "comparison.html").read_text()
    cells = re.search(rf'<tr id="{row["anchor"]}">(.*?)</tr>', text).group(1)
    assert f"<td>{10 * row['ours_mean']:.2f} ± {10 * row['ours_std']:.2f}</td>" in cells
    assert f"<td>{row['printed']:.2f} ± {row['printed_std']:.2f}</td>" in cells
    assert "<td>not reproduced</td>" in cells


# Holes

HOLES = replace(
    SELECTION,
    regimes=("low", "mid"),
    queries=("random", "badge", "entropy", "class_balanced_oracle"),
    seeds=(0, 1, 2),
    there=(("missing", "low"), ("missing", "mid"), ("unique", "low")),
)


def with_holes(folder: Path) -> Path:
    """Curves of Random with both mitigations, of the others with ModDrop, of Entropy with fewer seeds."""
    write_curves(folder, HOLES)
    (folder / "unique-mid.csv").unlink()
    for path in folder.glob("*.csv"):
        curves = pd.read_csv(path)
        gone = (curves["query"] != "random") & (curves["mitigation"] == "none")
        gone |= (curves["query"] == "entropy") & (curves["seed"] == 2) & (path.stem == "missing-low")
        gone |= (curves["query"] != "random") & (path.stem == "unique-low")
        curves[~gone].to_csv(path, index=False)
    return folder


@pytest.fixture(scope="module")
def holed(tmp_path_factory) -> Path:
    """A report with holes; tests only read it."""
    folder = tmp_path_factory.mktemp("holes")
    curves = read_curves(with_holes(folder / "curves"), HOLES)
    cells = set(curves[["dataset", "regime", "mitigation", "query"]].itertuples(index=False, name=None))
    origins = []
    for one in origins_of(HOLES):
        made = {key: made for key, made in one.settings.items() if (one.dataset, one.regime, *key) in cells}
        origins += [replace(one, settings=made)] if made else []
    build_report(Inputs(curves, origins), folder, PAPER, HOLES)
    return folder


def test_a_run_may_be_missing_where_the_selection_says_so_and_nowhere_else(tmp_path):
    folder = with_holes(tmp_path / "curves")
    runs = read_curves(folder, HOLES).drop_duplicates("run")
    assert runs.groupby(["dataset", "regime"]).size().to_dict() == {
        ("missing", "low"): 2 * 3 + 2 * 3 + 2,
        ("missing", "mid"): 2 * 3 + 3 * 3,
        ("unique", "low"): 2 * 3,
    }
    with pytest.raises(ReportError, match=r"missing-low.csv: run badge, none, seed 0 is missing"):
        read_curves(folder, replace(HOLES, there=()))
    # A file that is named is there, and has a run.
    with pytest.raises(ReportError, match=r"unique-mid.csv is not there"):
        read_curves(folder, replace(HOLES, there=(*HOLES.there, ("unique", "mid"))))
    (folder / "unique-low.csv").write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(ReportError, match=r"unique-low.csv: no run of the selection is there"):
        read_curves(folder, HOLES)


def test_tables_show_holes_and_say_what_was_not_run(holed):
    text = (holed / "tables/missing-none.md").read_text()
    assert "| BADGE | · | · | · | · | · | · |" in text
    assert "not run: no runs of BADGE, Entropy, Class-balanced oracle without mitigation." in text
    text = (holed / "tables/weak-moddrop.md").read_text()
    assert "no runs of Unique in mid; no runs of BADGE, Entropy, Class-balanced oracle on Unique." in text
    assert (
        "over 2 seeds (Missing low: Entropy), 3 seeds "
        "(Missing low: Random, BADGE, Class-balanced oracle; Unique low; Missing mid)"
    ) in text
    page = (holed / "index.html").read_text()
    assert "<dd>35 of 96 combinations; the other 61 are holes (“·”)</dd>" in page
    assert "not recorded" not in page
    assert "unique-mid" not in page
    for link in re.findall(r'(?:src|href)="((?:tables|figures|curves)/[^"#:]+)"', page):
        assert (holed / link).exists(), link


def test_ranks_add_up_what_all_ranked_methods_have(holed):
    """Unique has Random alone: it is left out; without mitigation nothing is ranked."""
    text = (holed / "tables/rank_sums-moddrop.md").read_text()
    assert "added over Missing/rare:" in text
    assert "Left out of the sums, as runs are missing: Unique in low." in text
    assert "Means are over 2 seeds (Missing low: Entropy), 3 seeds (Missing low: Random, BADGE;" in text
    sums = pd.read_csv(holed / "tables/rank_sums-moddrop.csv").set_index("method")
    assert sums["rank sum low"].to_dict() == {"Random": 2, "BADGE": 1, "Entropy": 3}
    assert not (holed / "tables/rank_sums-none.md").exists()


def test_statistics_take_common_seeds_and_say_what_is_left_out(holed):
    page = (holed / "index.html").read_text()
    assert (
        "5 blocks: 2 settings with 2 to 3 seeds each. 4 of 9 blocks left out, as methods are missing: "
        "Missing low seed 2 (Entropy); Unique low seeds 0, 1, 2 (Entropy, BADGE)."
    ) in page
    ranks = pd.read_csv(holed / "tables/statistics_ranks.csv")
    assert set(ranks.loc[ranks["mitigation"] == "moddrop", "n"]) == {5}
    detectable = pd.read_csv(holed / "tables/detectable.csv")
    seeds = detectable.groupby(["dataset", "regime", "mitigation"])["n_seeds"].unique().map(list).to_dict()
    # Three methods in two seeds, or two methods in three: as many runs, and more methods.
    assert seeds == {("missing", "low", "moddrop"): [2], ("missing", "mid", "moddrop"): [3]}
    full = json.loads((holed / "metrics_full.json").read_text())["missing"]["low"]
    assert {query: one["n_seeds"] for query, one in full["moddrop"].items()} == {
        **{"random": 3, "badge": 3, "class_balanced_oracle": 3},
        "entropy": 2,
    }
    assert list(full["none"]) == ["random"]


def test_claims_that_lack_runs_say_so(holed):
    judged = pd.read_csv(holed / "tables/claims.csv", keep_default_na=False).set_index("key")
    unknown = judged[judged["verdict"] == "not enough data"]
    assert len(unknown)
    assert (unknown["needs"] != "").all()
