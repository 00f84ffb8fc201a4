"""The paper's tables and figures from our runs: fed with the paper's own numbers they print the paper's."""

import csv
import io
import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mindgap.results import figures, tables
from mindgap.results.aulc import AULC_COLUMNS, half_width, tidy
from mindgap.results.curves import COLUMNS, Selection
from mindgap.results.names import subset_order
from mindgap.results.paper import REGIMES, WEAK, paper_rounds, published_cells, published_rank_sums
from mindgap.results.paper_tables import DETAIL, SEVEN, paper_tables

PAPER = Path(__file__).parents[1] / "data" / "paper"
NUMBERS = (1, 2, 3, 4, *range(7, 17))
SELECTION = Selection(
    scale="tiny",
    datasets=("missing", "share", "unique", "synergy", "food101", "mimic"),
    regimes=REGIMES,
    queries=("random", "entropy", "bald", "kcenter_greedy", "badge", "bmmal", "grace_r"),
    mitigations=("none", "moddrop"),
    seeds=(0, 1, 2),
    weak=WEAK,
)
CLASSES = {"missing": 10, "share": 10, "unique": 100, "synergy": 100, "food101": 101, "mimic": 2}
PARTIAL = {("unique", "partial"), ("synergy", "partial_a"), ("synergy", "partial_b")}
# Ties of Table 2 that unrounded means broke, and how.
TIES = {
    ("low", "missing"): ["entropy", "kcenter_greedy"],
    ("low", "share"): ["random", "badge", "bmmal"],
    ("high", "unique"): ["bald", "badge"],
}


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    """The paper's numbers as if they were ours: a tidy table."""
    frame = published_cells(PAPER)
    rounds = [paper_rounds(*cell) for cell in zip(frame["dataset"], frame["regime"], strict=True)]
    intervals = np.array(rounds) - 1
    partial = [cell in PARTIAL for cell in zip(frame["dataset"], frame["subset"], strict=True)]
    return frame.assign(
        scale="tiny",
        n_seeds=3,
        rounds=rounds,
        aulc_mean=frame["paper_mean"],
        aulc_std=frame["paper_std"],
        mean_accuracy=frame["paper_mean"] / intervals,
        mean_accuracy_std=frame["paper_std"] / intervals,
        aulc_ci95=[half_width(std, 3) for std in frame["paper_std"]],
        chance_aulc=intervals / frame["dataset"].map(CLASSES),
        ceiling_aulc=np.where(partial, 0.1, 1.0) * intervals,
        paper_mean=math.nan,
        paper_std=math.nan,
        changed="",
    )[AULC_COLUMNS]


def table(runs: pd.DataFrame, number: int, selection: Selection = SELECTION, seeds: int = 0):
    made = paper_tables(runs, selection, seeds=of_seeds(runs, seeds) if seeds else None)
    return {one.number: one for one in made}[number]


def of_seeds(runs: pd.DataFrame, n: int) -> pd.DataFrame:
    """Areas of n seeds whose differences between methods are those of the means, in every seed."""
    return pd.concat([runs.assign(seed=seed, aulc=runs["aulc_mean"] + 0.01 * seed) for seed in range(n)])


def at(runs: pd.DataFrame, **cell) -> pd.Series:
    return pd.concat([runs[name] == value for name, value in cell.items()], axis=1).all(axis=1)


def cell_of(one: tables.Table, row: str, column: str, group: str = "") -> tables.TableCell:
    rows = [r for r in one.rows if r.title == row]
    places = [i for i, c in enumerate(one.columns) if (c.group, c.title) == (group, column)]
    assert len(rows) == len(places) == 1, (row, group, column)
    return rows[0].cells[places[0]]


def row_of(one: tables.Table, title: str) -> list[str]:
    (row,) = (row for row in one.rows if row.title == title)
    return [cell.text for cell in row.cells]


# The layout, against the paper's file


def printed() -> dict[int, list[dict[str, str]]]:
    with (PAPER / "paper_aulc.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["table"]))
    return {number: list(part) for number, part in itertools.groupby(rows, key=lambda r: int(r["table"]))}


def method(row: dict[str, str]) -> str:
    return "GRACE-R" if row["query_method"] == "GRACE" else row["query_method"]


TABLE_1 = {
    "Missing": ("Rare", "Both", "Frequent"),
    "Share": ("CIFAR-10", "Both", "MNIST"),
    "Unique": ("Full", "Both", "Partial ×10"),
    "Synergy": ("Partial A ×10", "Both", "Partial B ×10"),
}


def random_place(row: dict[str, str]) -> tuple[str, str]:
    names = TABLE_1[row["dataset"]]
    column = [name.removesuffix(" ×10") for name in names].index(row["modality"])
    mitigation = {"yes": "ModDrop", "no": "no mitigation"}[row["moddrop"]]
    title = f"{row['dataset']} ({', '.join(names)}), {mitigation}"
    return title, ("Modality A", "Both", "Modality B")[column]


def place(number: int, row: dict[str, str]) -> tuple[str, str, str]:
    """Row title, column title and column group of a printed number."""
    if number == 1:
        return *random_place(row), ""
    if number in (2, 4):
        times = " ×10" if "Partial" in row["modality"] else ""
        return f"{row['dataset']}, {row['regime']}: {row['modality']}{times}", method(row), ""
    return f"{row['regime']}, {method(row)}", row["modality"], ""


def test_all_1032_printed_numbers_come_out_as_they_are_printed(runs):
    made = {one.number: one for one in paper_tables(runs, SELECTION)}
    different, count = [], 0
    for number, rows in printed().items():
        for row in rows:
            text = cell_of(made[number], *place(number, row)).text
            wanted = f"{row['aulc_mean']} ± {row['aulc_std']}"
            # Tables 2 and 4 are printed without standard deviations.
            found = text if row["aulc_std"] else text[: len(wanted)]
            count += 1
            if found != wanted:
                different.append((number, place(number, row), found, wanted))
    assert count == 1032
    # The misprint of Table 2, which Table 14 gives away.
    cell = ("Synergy, mid: Partial B ×10", "BADGE", "")
    assert different == [(2, cell, "5.87 ± ", "5.42 ± ")]


@pytest.mark.parametrize("number", [n for n in NUMBERS if n != 3])
def test_rows_and_columns_stand_in_the_papers_order(runs, number):
    one = table(runs, number)
    places = [place(number, row) for row in printed()[number]]
    rows = list(dict.fromkeys(title for title, _, _ in places))
    # The chance level stands below the rows of a dataset (Table 1) or of a regime.
    groups = {title: re.split(r" \(|, ", title)[0] for title in rows}
    columns = list(dict.fromkeys((group, title) for _, title, group in places))
    if number in (2, 4):
        columns.append(("", "Chance"))
    else:
        last = {group: title for title, group in groups.items()}
        for group, title in last.items():
            rows.insert(rows.index(title) + 1, f"{group}, chance")
    assert [row.title for row in one.rows] == rows
    assert [(column.group, column.title) for column in one.columns] == columns
    assert one.name == f"paper-table-{number:02}"
    assert not one.lacking


def test_each_detail_table_has_its_number():
    names = {"yes": "moddrop", "no": "none"}
    details = {number: rows[0] for number, rows in printed().items() if number >= 7}
    found = {(row["dataset"].lower(), names[row["moddrop"]]): number for number, row in details.items()}
    assert list(found.items()) == list(DETAIL.items())


def test_the_weak_modality_is_italic_and_partial_columns_are_marked(runs):
    assert [(c.weak, c.factor) for c in table(runs, 13).columns] == [(False, 10), (False, 1), (True, 10)]
    assert [c.weak for c in table(runs, 15).columns] == [True, False, False]  # the image
    wide = table(runs, 2)
    weak = {row.title.split(": ")[1] for row in wide.rows if row.weak}
    assert weak == {"Rare", "CIFAR-10", "Partial ×10", "Partial B ×10"}
    assert sum(row.weak for row in wide.rows) == 12
    assert any("What is marked ×10" in note for note in wide.notes)
    assert "*Unique, low: Partial ×10*" in tables.to_markdown(wide)
    assert [row.title for row in wide.rows if row.rule] == [
        f"{name}, low: {first}" for name, first in (("Share", "CIFAR-10"), ("Unique", "Full"))
    ] + ["Synergy, low: Partial A ×10"]


# Ranks


def untied(runs: pd.DataFrame) -> pd.DataFrame:
    frame = runs.copy()
    for (regime, dataset), queries in TIES.items():
        for step, query in enumerate(queries):
            frame.loc[at(frame, regime=regime, dataset=dataset, query=query), "aulc_mean"] -= 1e-6 * step
    return frame


def test_a_partial_modality_is_scaled_by_its_own_ceiling(runs):
    """Of five values instead of ten it can know a fifth of the label: marked and scaled by five."""
    partial = runs["ceiling_aulc"] < runs["rounds"] - 1
    fifth = runs.assign(ceiling_aulc=runs["ceiling_aulc"].mask(partial, 2 * runs["ceiling_aulc"]))
    detail, wide = table(fifth, 11), table(fifth, 2)
    assert {column.factor for column in detail.columns} == {1.0, 5.0}
    titles = [row.title for row in wide.rows]
    assert "Unique, low: Partial ×5" in titles
    assert not any("×10" in text for text in (*titles, *wide.notes, *detail.notes))
    assert any(note.startswith("What is marked ×5 cannot reach") for note in wide.notes)
    mean = fifth[at(fifth, dataset="unique", regime="low", query="random", subset="partial")]
    (mean,) = mean.loc[mean["mitigation"] == "moddrop", "aulc_mean"]
    assert cell_of(wide, "Unique, low: Partial ×5", "Random").mean == pytest.approx(5 * mean)


def test_table_3_follows_from_the_papers_numbers(runs):
    one = table(untied(runs), 3)
    printed_sums = published_rank_sums(PAPER).set_index(["query", "regime"])["rank_sum"]
    assert [row.title for row in one.rows] == [
        "BADGE",
        "BALD",
        "BMMAL",
        "Entropy",
        "GRACE-R",
        "KCG",
        "Random",
    ]
    for query, row in zip(SEVEN, one.rows, strict=True):
        assert [cell.text for cell in row.cells] == [f"{printed_sums[query, r]:g}" for r in REGIMES]
    assert cell_of(table(runs, 3), "Entropy", "low", "rank sum").text == "17.5"  # a tie is shared


def test_table_3_leaves_holes_instead_of_partial_sums(runs):
    fewer = runs[~at(runs, dataset="share", regime="mid", mitigation="moddrop")]
    one = table(fewer, 3)
    assert [row.cells[1].text for row in one.rows] == [tables.HOLE] * 7
    assert not any(row.cells[1].best for row in one.rows)
    assert [row.cells[0] for row in one.rows] == [row.cells[0] for row in table(runs, 3).rows]
    assert one.lacking == ("no runs of Share with ModDrop in mid",)
    assert any(
        "only with runs of all four datasets: no runs of Share with ModDrop in mid" in n for n in one.notes
    )
    assert not one.empty


def test_a_method_without_one_of_the_datasets_is_not_ranked(runs):
    fewer = runs[~at(runs, dataset="synergy", query="badge", mitigation="none", regime="low")]
    one = table(fewer, 3)
    assert cell_of(one, "BADGE", "low", "rank sum").text == tables.HOLE
    assert cell_of(one, "BADGE", "mid", "rank sum").text != tables.HOLE
    assert any("Fewer methods than the paper's seven are ranked (6 in low)" in note for note in one.notes)
    # Ranks 1 to 6 four times; 22 of 7 without BADGE's rank.
    assert sum(row.cells[0].mean for row in one.rows if row.title != "BADGE") == 4 * 21
    assert one.lacking == ("no runs of BADGE on Synergy without mitigation in low",)


def test_rank_sums_match_counting(runs):
    weak = runs[(runs["subset"] == runs["dataset"].map(WEAK)) & (runs["mitigation"] == "moddrop")]
    weak = weak[weak["dataset"].isin(WEAK)]
    sums = tables.complete_rank_sums(weak, tuple(WEAK))
    assert len(sums) == 21
    for (regime, query), total in sums.items():
        ranks = 0.0
        for _, part in weak[weak["regime"] == regime].groupby("dataset"):
            own = part.loc[part["query"] == query, "aulc_mean"].item()
            ranks += 1 + (part["aulc_mean"] > own).sum() + ((part["aulc_mean"] == own).sum() - 1) / 2
        assert total == ranks


# The published numbers beside ours


def at_paper_scale(runs: pd.DataFrame) -> pd.DataFrame:
    scaled = runs.assign(scale="paper", paper_mean=runs["aulc_mean"], paper_std=runs["aulc_std"])
    return scaled.assign(aulc_mean=scaled["aulc_mean"] * 0.9)


def test_published_rows_follow_each_of_ours_at_paper_scale(runs):
    made = paper_tables(at_paper_scale(runs), replace(SELECTION, scale="paper"), published_rank_sums(PAPER))
    for one in made:
        kinds = [row.kind for row in one.rows if row.kind != "level"]
        assert kinds == ["method", "paper"] * (len(kinds) // 2), one.name
        assert not any(cell.best for row in one.rows if row.kind == "paper" for cell in row.cells)
        assert not any("not comparable" in note for note in one.notes)
    by_number = {one.number: one for one in made}
    assert cell_of(by_number[12], "high, KCG, paper", "Partial").text == "2.39 ± 0.00"
    assert cell_of(by_number[2], "Unique, high: Partial ×10, paper", "KCG").text == "5.86 ± 1.69"
    assert (
        cell_of(by_number[1], "Share (CIFAR-10, Both, MNIST), no mitigation, paper", "Modality A").text
        == "4.23 ± 0.24"
    )
    assert cell_of(by_number[7], "high, GRACE, paper", "Rare").mean > 0
    assert row_of(by_number[3], "BADGE, paper") == ["16", "22", "14"]


def test_table_3_repeats_printed_sums_only_where_all_its_numbers_are_comparable(runs):
    frame = at_paper_scale(runs)
    frame.loc[at(frame, regime="mid", dataset="share"), "paper_mean"] = math.nan
    (one,) = (
        one
        for one in paper_tables(frame, replace(SELECTION, scale="paper"), published_rank_sums(PAPER))
        if one.number == 3
    )
    assert row_of(one, "BADGE, paper") == ["16", tables.HOLE, "14"]
    assert [row.kind for row in table(runs, 3).rows] == ["method"] * 7


def test_another_scale_says_that_it_is_not_comparable(runs):
    note = "Runs at scale tiny: not comparable with the paper's numbers."
    assert all(note in one.notes for one in paper_tables(runs, SELECTION))


# Holes


def test_a_small_report_shows_what_it_lacks(runs):
    small = runs[at(runs, regime="low", mitigation="moddrop") & runs["dataset"].isin(["missing", "unique"])]
    selection = replace(SELECTION, datasets=("missing", "unique"), regimes=("low",), skipped={"share": "why"})
    made = {one.number: one for one in paper_tables(small, selection)}
    assert [number for number, one in made.items() if not one.empty] == [2, 7, 11]
    share = "no runs of Share (skipped for want of its files), Synergy"
    lacking = {number: one.lacking for number, one in made.items()}
    assert lacking[1] == (share, "no runs without mitigation", "no runs in high")
    assert lacking[2] == lacking[3] == (share, "no runs in mid, high")
    assert lacking[4] == ("no runs of Food101, MIMIC",)
    assert lacking[7] == ("no runs in mid, high",)
    assert lacking[8] == ("no runs without mitigation",)
    assert lacking[9] == ("no runs of Share (skipped for want of its files)",)
    assert f"“{tables.HOLE}”: not run: no runs in mid, high." in made[7].notes
    full = table(runs, 7)
    for row, whole in zip(made[7].rows, full.rows, strict=True):
        if row.title.startswith("low, "):
            assert row.cells == whole.cells
        else:
            assert [cell.text for cell in row.cells] == [tables.HOLE] * 3
    assert made[7].columns == full.columns
    assert [row.title for row in made[13].rows] == [row.title for row in table(runs, 13).rows]


def test_reasons_are_as_general_as_they_are_true(runs):
    some = runs[~at(runs, dataset="share", regime="mid") & ~at(runs, query="bald")]
    some = some[~at(some, dataset="share", regime="high", mitigation="none", query="badge")]
    assert table(some, 10).lacking == (
        "no runs of BALD",
        "no runs of Share in mid",
        "no runs of BADGE on Share without mitigation in high",
    )
    assert table(some, 9).lacking == ("no runs of BALD", "no runs of Share in mid")
    assert row_of(table(some, 10), "high, BALD") == [tables.HOLE] * 3


def test_without_any_of_the_papers_datasets_all_tables_are_empty(runs):
    made = paper_tables(runs.iloc[:0], SELECTION)
    assert [one.number for one in made] == list(NUMBERS)
    assert all(one.empty and one.rows and one.columns and one.lacking for one in made)
    assert made[2].lacking == ("no runs of Missing, Share, Unique, Synergy",)
    assert not any("Mean ±" in note for one in made for note in one.notes)


# What the paper leaves out


def test_chance_stands_below_every_regime_and_beside_every_row(runs):
    assert row_of(table(runs, 7), "mid, chance") == ["0.90"] * 3
    assert row_of(table(runs, 11), "high, chance") == ["0.09", "0.09", "0.90"]
    assert row_of(table(runs, 15), "low, chance") == ["0.09"] * 3
    assert row_of(table(runs, 15), "high, chance") == ["0.04"] * 3  # N is 5 in high
    chances = [row_of(table(runs, 1), f"{name}, chance") for name in TABLE_1]
    assert chances == [["0.90"] * 3] * 2 + [["0.09", "0.09", "0.90"], ["0.90", "0.09", "0.90"]]
    assert cell_of(table(runs, 4), "MIMIC, mid: ECG", "Chance").text == "4.50"
    levels = [row for row in table(runs, 7).rows if row.kind == "level"]
    assert len(levels) == 3
    assert not any(cell.best for level in levels for cell in level.cells)
    few = table(runs[~at(runs, regime="low")], 7)
    assert [row_of(few, f"{regime}, chance")[0] for regime in REGIMES] == [tables.HOLE, "0.90", "0.90"]


def test_the_csv_has_the_confidence_interval(runs):
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(table(runs, 11)))))
    row = next(row for row in rows if row["regime, method"] == "high, KCG")
    std = float(row["Partial ×10 std"])
    # Student's t of two degrees of freedom at 97.5 %.
    assert float(row["Partial ×10 ci95"]) == pytest.approx(4.302652729911275 * std / math.sqrt(3), rel=1e-4)
    chance = rows[-1]
    parts = [chance[f"Full {part}"] for part in ("mean", "std", "ci95")]
    assert (chance["regime, method"], chance["kind"], *parts) == ("high, chance", "level", "0.09", "", "")
    assert "rank sum low" in tables.to_csv(table(runs, 3)).splitlines()[0].split(",")


def test_a_cell_tells_its_interval(runs):
    cell = cell_of(table(runs, 9), "low, BADGE", "CIFAR-10")
    assert (cell.text, cell.tip) == ("3.66 ± 0.12", "95 % interval of the mean: 3.66 ± 0.30")
    assert cell_of(table(runs, 9), "low, chance", "CIFAR-10").tip == ""
    one_seed = table(runs.assign(n_seeds=1, aulc_std=math.nan, aulc_ci95=math.nan), 9)
    cell = cell_of(one_seed, "low, BADGE", "CIFAR-10")
    assert (cell.text, cell.tip) == ("3.66 ± –", "")
    assert tables.ONE_SEED in one_seed.notes
    assert "95 %" not in " ".join(one_seed.notes)


def test_the_number_of_seeds_is_told_and_where_it_differs(runs):
    assert table(runs, 7).notes[0].startswith("Mean ± standard deviation over 3 seeds; ")
    fewer = runs.assign(n_seeds=runs["n_seeds"] - at(runs, regime="mid", dataset="missing"))
    one = table(fewer, 7)
    assert "over 2 seeds (Missing mid), 3 seeds (Missing low; Missing high); " in one.notes[0]
    assert any("± 8.98 standard deviations with 2 seeds, ± 2.48" in note for note in one.notes)
    mixed = runs.assign(n_seeds=runs["n_seeds"] - 2 * at(runs, query="badge"))
    note = table(mixed, 7).notes[0]
    assert "over 1 seed (Missing low: BADGE; Missing mid: BADGE; Missing high: BADGE), 3 seeds (" in note


# The best, other methods, controls


def with_others(runs: pd.DataFrame) -> pd.DataFrame:
    added = {"margin": 0.5, "class_balanced_oracle": 2.0}
    random = runs[runs["query"] == "random"]
    return pd.concat([runs, *(random.assign(query=q, aulc_mean=f) for q, f in added.items())])


def test_other_methods_follow_the_seven_and_controls_come_last(runs):
    selection = replace(SELECTION, queries=("class_balanced_oracle", "margin", *SELECTION.queries))
    frame = with_others(runs)
    rows = table(frame, 9, selection).rows
    titles = [row.title.removeprefix("low, ") for row in rows]
    assert titles[6:10] == ["Random", "Margin", "Class-balanced oracle", "chance"]
    assert [row.kind for row in rows][6:10] == ["method", "method", "control", "level"]
    assert [row.rule for row in rows][6:11] == [False, False, True, False, True]  # then mid begins
    wide = table(frame, 2, selection)
    assert [(c.group, c.title) for c in wide.columns][6:] == [
        ("", "Random"),
        ("", "Margin"),
        ("controls", "Class-balanced oracle"),
        ("", "Chance"),
    ]
    assert wide.groups == [("", 8), ("controls", 1), ("", 1)]
    assert tables.CONTROLS_NOTE in wide.notes
    ranked = table(frame, 3, selection)
    assert len(ranked.rows) == 7
    assert "Not ranked, as the paper's seven alone are: Class-balanced oracle, Margin." in ranked.notes


@pytest.mark.parametrize("mean", [1.0, 2.0])
def test_a_control_is_never_the_best_not_even_tied(runs, mean):
    selection = replace(SELECTION, queries=(*SELECTION.queries, "class_balanced_oracle"))
    frame = runs.assign(aulc_mean=1.0)
    oracle = frame[frame["query"] == "random"].assign(query="class_balanced_oracle", aulc_mean=mean)
    frame = pd.concat([frame, oracle])
    frame.loc[frame["query"] == "random", "aulc_mean"] = 0.5
    best = ["BADGE", "BALD", "BMMAL", "Entropy", "GRACE-R", "KCG"]
    for row in table(frame, 8, selection, seeds=10).rows:
        assert {cell.best for cell in row.cells} == {row.title.split(", ")[1] in best}
    for row in table(frame, 2, selection, seeds=10).rows:
        assert [cell.best for cell in row.cells] == [True] * 6 + [False] * 3


@pytest.mark.parametrize(("gap", "best"), [(0.0, ["BADGE", "KCG"]), (1e-9, ["KCG"])])
def test_the_best_and_its_ties_are_bold_where_seeds_carry_the_test(runs, gap, best):
    cell = {"dataset": "unique", "mitigation": "moddrop", "regime": "mid", "subset": "partial"}
    frame = runs.copy()
    frame.loc[at(frame, **cell, query="kcenter_greedy"), "aulc_mean"] = 0.95
    frame.loc[at(frame, **cell, query="badge"), "aulc_mean"] = 0.95 - gap
    (column,) = (i for i, c in enumerate(table(frame, 11).columns) if c.title == "Partial")
    bold = [row.title for row in table(frame, 11, seeds=10).rows if row.cells[column].best]
    assert [title for title in bold if title.startswith("mid, ")] == [f"mid, {name}" for name in best]
    wide = table(frame, 2, seeds=10)
    (row,) = (row for row in wide.rows if row.title == "Unique, mid: Partial ×10")
    assert [c.title for c, cell in zip(wide.columns, row.cells, strict=True) if cell.best] == best
    assert f"**{row.cells[5].text}**" in tables.to_markdown(wide)
    assert any(note.endswith(" without bold no two are told apart.") for note in wide.notes)


@pytest.mark.parametrize(
    ("number", "seeds", "few"),
    [(11, 9, "9 seeds cannot tell 7 apart, 10 could"), (1, 5, "5 seeds cannot tell 2 apart, 6 could")],
)
def test_nothing_is_bold_where_seeds_are_too_few_for_a_test(runs, number, seeds, few):
    one = table(runs, number, seeds=seeds)
    assert not any(cell.best for row in one.rows for cell in row.cells)
    assert one.notes[0].endswith(f"Nothing is bold, for want of a test: {few}.")
    assert r"\textbf" not in tables.to_latex(one)
    assert not re.search(r"\| \*\*", tables.to_markdown(one))


def test_rank_sums_are_bold_by_the_test_over_all_their_seeds(runs):
    equal = runs.assign(aulc_mean=1.0)
    equal.loc[equal["query"] == "bald", "aulc_mean"] = 2.0
    one = table(equal, 3, seeds=3)  # 12 blocks of four datasets
    assert [row.title for row in one.rows if row.cells[1].best] == ["BALD"]
    tied = table(runs.assign(aulc_mean=1.0), 3, seeds=3)
    assert not any(cell.best for row in tied.rows for cell in row.cells)
    assert "Nothing is bold: no two of a column are told apart" in tied.notes[0]
    few = table(equal, 3, seeds=2)
    assert "8 blocks (a seed of a dataset) cannot tell 7 apart, 10 could" in few.notes[0]


def test_table_1_has_the_better_mitigation_in_bold_and_no_lone_winner(runs):
    one = table(runs, 1, seeds=6)
    assert one.corner == "Dataset, ModDrop"
    missing, share = "Missing (Rare, Both, Frequent)", "Share (CIFAR-10, Both, MNIST)"
    assert cell_of(one, f"{share}, ModDrop", "Modality A").best
    assert not cell_of(one, f"{share}, no mitigation", "Modality A").best
    assert not cell_of(one, f"{missing}, ModDrop", "Both").best
    assert not cell_of(one, f"{missing}, no mitigation", "Both").best  # 7.94 both: none is told apart
    alone = table(runs[runs["mitigation"] == "moddrop"], 1, seeds=6)
    assert not any(cell.best for row in alone.rows for cell in row.cells)


# Files


@pytest.fixture(scope="module")
def all_made(runs) -> list[tables.Table]:
    """With other methods, controls, published rows and holes."""
    frame = at_paper_scale(with_others(runs))
    selection = replace(
        SELECTION, scale="paper", queries=(*SELECTION.queries, "margin", "class_balanced_oracle")
    )
    small = frame[~at(frame, dataset="share") & ~at(frame, regime="mid")]
    return [
        table
        for part in (frame, small)
        for table in paper_tables(part, selection, published_rank_sums(PAPER))
    ]


def test_every_rendering_is_rectangular(all_made):
    for one in all_made:
        rows = list(csv.reader(io.StringIO(tables.to_csv(one))))
        assert len({len(row) for row in rows}) == 1, one.name
        assert len(set(rows[0])) == len(rows[0])
        assert len(rows) == len(one.rows) + 1
        pipes = [line for line in tables.to_markdown(one).splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in pipes}) == 1
        assert all(len(row.cells) == len(one.columns) for row in one.rows)
        assert sum(width for _, width in one.groups) == len(one.columns)


def test_latex_is_ascii_and_well_formed(all_made):
    for one in all_made:
        text = tables.to_latex(one)
        assert text.isascii(), one.name
        bare = re.sub(r"\\.", "", text)
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0
        body = text.split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(rows) == len(one.rows)
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(one.columns)}
        assert body.count(r"\midrule") == sum(row.rule for row in one.rows)


def test_two_calls_and_any_order_of_rows_give_the_same_bytes(runs):
    def files(frame: pd.DataFrame) -> list[str]:
        made = paper_tables(frame, SELECTION)
        return [render(one) for one in made for render in tables.RENDERERS.values()]

    holes = runs[~at(runs, dataset="unique", regime="high")]
    assert files(holes) == files(holes) == files(holes.sample(frac=1, random_state=0))


# Figures


def make_curves(regimes=("low", "high"), subsets=("full", "full+partial", "partial")) -> pd.DataFrame:
    rows = []
    cells = itertools.product(regimes, ("random", "badge"), (0, 1), range(4), subsets)
    for regime, query, seed, i, subset in cells:
        ceiling = 0.1 if subset == "partial" else 1.0
        value = ceiling * (0.1 + 0.1 * i + 0.02 * seed + 0.05 * (query == "badge"))
        labelled = {"low": 50, "high": 1000}[regime] * (i + 1)
        cell = ("tiny", "unique", regime, "none", query, seed, "x", 4, i, labelled, subset)
        rows.append((*cell, value, value, 0.1, 0.01, ceiling))
    return pd.DataFrame(rows, columns=COLUMNS)


def drawn(folder: Path, curves: pd.DataFrame, cut=lambda frame: frame) -> dict[str, bytes]:
    subsets = subset_order(list(curves["subset"].unique()))
    folder.mkdir()
    figures.learning_curves(curves, subsets, "partial", folder / "curves")
    figures.aulc_bars(cut(tidy(curves, {"unique": subsets})), subsets, "partial", folder / "bars")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def words(svg: bytes) -> list[str]:
    """The texts of a figure, which the SVG repeats as comments."""
    return re.findall(r"<!-- (.*?) -->", svg.decode())


def test_a_figure_has_a_row_or_a_panel_per_regime(tmp_path):
    files = drawn(tmp_path / "one", make_curves())
    assert sorted(files) == ["bars.png", "bars.svg", "curves.png", "curves.svg"]
    texts = words(files["curves.svg"])
    assert texts.count("low") == texts.count("high") == 1
    assert [texts.count(name) for name in ("Full", "Both", "Partial (weak)")] == [1, 1, 1]
    assert texts.count("labelled samples") == 3
    assert texts.count("balanced accuracy") == 2
    assert texts.count("50") == texts.count("4000") == 3  # each regime has its own axis of labels
    assert "Unique · no mitigation · scale tiny" in texts
    bars = words(files["bars.svg"])
    assert [bars.count(name) for name in ("AULC (0 to 3)", "BADGE", "Random")] == [1, 1, 1]
    assert [bars.count(name) for name in ("Full", "Both", "Partial ×10 (weak)")] == [1, 1, 1]
    assert "Bars from left to right: low, high; dotted: chance" in bars
    single = words(drawn(tmp_path / "two", make_curves(("low",)))["curves.svg"])
    assert "Unique · low · no mitigation · scale tiny" in single
    assert "low" not in single


def test_bars_stand_by_method_then_subset_then_regime():
    places, bar = figures._places(regimes=3, subsets=3, methods=7)
    order = sorted(np.ndindex(*places.shape), key=lambda at: places[at])
    assert order == [(r, s, q) for q in range(7) for s in range(3) for r in range(3)]
    gaps = np.diff(np.sort(places.ravel())) / bar
    assert gaps[:9] == pytest.approx([1, 1, 1.5, 1, 1, 1.5, 1, 1, gaps[8]])
    assert gaps[8] > 1.5


def test_figures_are_the_same_on_every_call(tmp_path):
    assert drawn(tmp_path / "one", make_curves()) == drawn(tmp_path / "two", make_curves())


def test_figures_stand_holes_and_many_subsets(tmp_path):
    names = ("a", "b", "c", "a+b", "a+c", "b+c", "a+b+c")
    curves = make_curves(subsets=names)
    curves = curves[~at(curves, regime="high", query="random")]
    texts = words(drawn(tmp_path / "one", curves)["curves.svg"])
    assert [texts.count(name) for name in ("A", "A + B", "All", "labelled samples")] == [2, 2, 2, 4]
    assert texts.count("Random") == texts.count("BADGE") == 1
    bars = drawn(tmp_path / "two", make_curves(), cut=lambda t: t[~at(t, regime="high", query="badge")])
    assert words(bars["bars.svg"]).count("BADGE") == 1


def test_figures_have_the_papers_numbers():
    assert sorted(figures.FIGURES.values()) == list(range(2, 12))
    assert figures.FIGURES["missing", "moddrop"] == 2
    assert figures.FIGURES["synergy", "none"] == 9
    assert figures.FIGURES["mimic", "moddrop"] == 11
