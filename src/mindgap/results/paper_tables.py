"""Tables 1 to 4 and 7 to 16 of the paper, from our runs; what has not been run is a hole with its reason.

Rows and columns come in the order of data/paper/paper_aulc.csv: Tables 2 and 4 have the methods across, one
row per dataset, regime and subset. One departure: in Tables 7 to 16 the regimes stand side by side.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pandas as pd

from mindgap.results.curves import Selection
from mindgap.results.names import (
    CONTROLS,
    dataset_name,
    method_name,
    mitigation_name,
    scale_name,
    subset_order,
    subset_title,
)
from mindgap.results.paper import ITALIC, REGIMES, SHOWN_WITH, SUBSETS, TIMES_TEN, WEAK
from mindgap.results.reading import rows_of
from mindgap.results.tables import (
    CHANCE,
    HOLE,
    Column,
    Key,
    Numbers,
    Table,
    TableCell,
    TableLine,
    TableRow,
    best_ranks,
    complete_rank_sums,
    hole_note,
    method_lines,
    notes_of,
    published_name,
    rank_rows,
    setting_columns,
)

SEVEN = ("badge", "bald", "bmmal", "entropy", "grace_r", "kcenter_greedy", "random")
SYNTHETIC = ("missing", "share", "unique", "synergy")
TABLE_2 = {dataset: SHOWN_WITH[dataset] for dataset in SYNTHETIC}
TABLE_4 = {dataset: SHOWN_WITH[dataset] for dataset in ("food101", "mimic")}
# The numbers of the tables that have every cell of a dataset, with ModDrop or without.
DETAIL_CELLS = [*product(SYNTHETIC, ("moddrop", "none")), ("food101", "moddrop"), ("mimic", "moddrop")]
DETAIL = {cell: number for number, cell in enumerate(DETAIL_CELLS, start=7)}

CHANCE_NOTE = "Chance: the AULC of guessing, chance level × (N − 1)."
SCALED_NOTE = "What is marked {} cannot reach more than a part of the labels and is scaled by it."
RANKS_NOTE = (
    "Ranks of the paper's methods by the unrounded mean AULC on the weak modality (rank 1 = highest), added "
    "over Missing/rare, Share/cifar10, Unique/partial and Synergy/partial_b, Synergy without ModDrop and the "
    "others with it: the lower the better. Exactly equal means share their mean rank."
)
WHOLE_SUMS_NOTE = (
    f"“{HOLE}”: not ranked, as a method is ranked in a regime only with runs of all four datasets"
)


@dataclass(frozen=True)
class PaperTable(Table):
    """The counterpart of one of the paper's tables; `lacking` says which runs it would need."""

    number: int = 0
    lacking: tuple[str, ...] = ()


def paper_tables(
    tidy: pd.DataFrame,
    selection: Selection,
    rank_sums: pd.DataFrame | None = None,
    seeds: pd.DataFrame | None = None,
) -> list[PaperTable]:
    """Tables 1, 2, 3, 4 and 7 to 16, the ones without any run too (`empty`).

    `rank_sums`: Table 3 as printed (`published_rank_sums`), shown where `tidy` has the numbers it ranks.
    `seeds`: as of `per_seed`; nothing is marked as the best where it has no rows.
    """
    numbers = Numbers(tidy, selection, seeds, dict.fromkeys(TIMES_TEN, 10.0))
    return [
        _random_table(numbers),
        _wide_table(2, "the four synthetic datasets", TABLE_2, numbers),
        _rank_table(tidy, numbers, rank_sums, seeds),
        _wide_table(4, "the two real datasets", TABLE_4, numbers),
        *(_detail_table(number, *cell, numbers) for cell, number in DETAIL.items()),
    ]


def _random_table(numbers: Numbers) -> PaperTable:
    """Table 1: what ModDrop does to Random in the high regime, a row per dataset with and without it."""
    lines: list[TableLine] = []
    for dataset in SYNTHETIC:
        subsets = _subsets(dataset)
        names = [numbers.marked(subset_title(subset, subsets), dataset, subset) for subset in subsets]
        for mitigation in ("moddrop", "none"):
            title = f"{dataset_name(dataset)} ({', '.join(names)}), {mitigation_name(mitigation)}"
            keys = [Key(dataset, mitigation, "high", "random", subset) for subset in subsets]
            rule = bool(lines) and mitigation == "moddrop"
            lines.append(TableLine(title, "method", keys, f"{title}, paper", rule=rule))
        lines.append(_chance(lines[-1], f"{dataset_name(dataset)}, chance"))
    columns = [Column("", name) for name in ("Modality A", "Both", "Modality B")]
    title = "Random in the high regime with and without ModDrop: AULC"
    return _table(1, title, columns, lines, numbers, "column and dataset", "Dataset, ModDrop")


def _wide_table(number: int, which: str, mix: Mapping[str, str], numbers: Numbers) -> PaperTable:
    """Tables 2 and 4: a row per dataset, regime and subset, the methods and the chance level across."""
    queries, lines = _queries(numbers.selection), list[TableLine]()
    for (dataset, mitigation), regime in product(mix.items(), REGIMES):
        for subset in _subsets(dataset):
            setting = Key(dataset, mitigation, regime, "", subset)
            first = bool(lines) and dataset != lines[-1].keys[0].dataset
            lines.append(_setting_line(setting, queries, first, numbers))
    columns = [Column("controls" if query in CONTROLS else "", method_name(query)) for query in queries]
    columns.append(Column("", "Chance"))
    without = [dataset_name(dataset) for dataset, mitigation in mix.items() if mitigation == "none"]
    shown = f"{', '.join(without)} without ModDrop, the others with it" if without else "all with ModDrop"
    title = f"Every method on every subset of {which}: AULC ({shown})"
    return _table(number, title, columns, lines, numbers, "row", "Setting")


def _setting_line(setting: Key, queries: Sequence[str], rule: bool, numbers: Numbers) -> TableLine:
    subset = subset_title(setting.subset, _subsets(setting.dataset))
    title = f"{dataset_name(setting.dataset)}, {setting.regime}: {subset}"
    title = numbers.marked(title, setting.dataset, setting.subset)
    keys = [setting._replace(query=query) for query in [*queries, CHANCE]]
    weak = _weak(numbers.selection).get(setting.dataset)
    return TableLine(title, "method", keys, f"{title}, paper", setting.subset == weak, rule)


def _detail_table(number: int, dataset: str, mitigation: str, numbers: Numbers) -> PaperTable:
    """Tables 7 to 16: one dataset with or without ModDrop, a row per regime and method."""
    lines: list[TableLine] = []
    for regime in REGIMES:
        settings = [Key(dataset, mitigation, regime, "", subset) for subset in _subsets(dataset)]
        of_regime = method_lines(_queries(numbers.selection), settings)
        of_regime[0] = of_regime[0]._replace(rule=bool(lines))
        lines += [
            line._replace(title=f"{regime}, {line.title}", published=f"{regime}, {line.published}")
            for line in [*of_regime, _chance(of_regime[0], "chance")]
        ]
    columns = setting_columns(settings, _weak(numbers.selection), numbers)
    columns = [replace(column, group="") for column in columns]
    title = f"{dataset_name(dataset)}, {mitigation_name(mitigation)}: AULC on every subset of modalities"
    return _table(number, title, columns, lines, numbers, "column and regime", "Regime, method")


def _table(
    number: int,
    title: str,
    columns: Sequence[Column],
    lines: Sequence[TableLine],
    numbers: Numbers,
    place: str,
    corner: str,
) -> PaperTable:
    """`place`: what rivals stand in."""
    best = numbers.best(lines)
    rows, shown, reasons = numbers.fill(lines, best), numbers.shown(lines), numbers.lacking(lines)
    notes = notes_of(numbers, lines, columns, rows, best.note(place)) if shown else []
    if shown:
        marks = sorted({mark for row in rows for mark in re.findall("×[0-9.]+", row.title)})
        notes += [SCALED_NOTE.format(", ".join(marks))] * bool(marks)
        notes += [CHANCE_NOTE]
    notes += [*hole_note(reasons), *_scale_note(shown)]
    return _named(number, title, columns, rows, notes, reasons, corner)


def _named(
    number: int,
    title: str,
    columns: Sequence[Column],
    rows: Sequence[TableRow],
    notes: Sequence[str],
    reasons: Sequence[str],
    corner: str = "Method",
) -> PaperTable:
    name, title = f"paper-table-{number:02}", f"Counterpart of Table {number}. {title}"
    shown = (tuple(columns), tuple(rows), tuple(notes), corner)
    return PaperTable(name, title, *shown, number, tuple(reasons))


def _scale_note(shown: Iterable[Any]) -> list[str]:
    """Which runs behind a table are not at scale paper with its settings."""
    scales = sorted({scale_name(row.scale, row.changed) for row in shown} - {"paper"})
    return [f"Runs at scale {scale}: not comparable with the paper's numbers." for scale in scales]


def _rank_table(
    tidy: pd.DataFrame, numbers: Numbers, printed: pd.DataFrame | None, seeds: pd.DataFrame | None
) -> PaperTable:
    """Table 3: rank sums over the four synthetic datasets, of the paper's methods alone, as theirs are."""
    selection = numbers.selection
    shown = (tidy["mitigation"] == tidy["dataset"].map(TABLE_2)) & tidy["query"].isin(SEVEN)
    weak = tidy[shown & (tidy["subset"] == tidy["dataset"].map(WEAK))]
    left_out = selection.unranked_note((d, r, TABLE_2[d]) for d, r in product(SYNTHETIC, REGIMES))
    weak = selection.ranked(weak)
    sums = complete_rank_sums(weak, SYNTHETIC)
    published = {} if printed is None else _comparable(printed, weak)
    rows, best = [], best_ranks(seeds, weak, sums)
    for query, row in zip(SEVEN, rank_rows(sums, SEVEN, REGIMES, best), strict=True):
        rows.append(row)
        if published:
            theirs = (
                TableCell(published.get((regime, query), math.nan), None, digits=1) for regime in REGIMES
            )
            rows.append(TableRow(published_name(query), "paper", tuple(theirs)))
    wanted = [Key(d, TABLE_2[d], r, q, WEAK[d]) for d, r, q in product(SYNTHETIC, REGIMES, SEVEN)]
    reasons = numbers.lacking([TableLine("", "", wanted, "")])
    notes = [f"{RANKS_NOTE} {best.note('column')}".strip(), *_rank_notes(sums, selection)] if sums else []
    notes += filter(None, [left_out])
    if reasons:
        notes.append(f"{WHOLE_SUMS_NOTE}: {'; '.join(reasons)}.")
    columns = [Column("rank sum", regime) for regime in REGIMES]
    title = "Rank sums on the weak modality of the four synthetic datasets"
    notes += _scale_note(rows_of(weak))
    return _named(3, title, columns, rows, notes, reasons)


def _comparable(printed: pd.DataFrame, weak: pd.DataFrame) -> dict[tuple[str, str], float]:
    """The printed rank sums of the regimes in which every number that they rank stands beside one of ours."""
    counts = weak[weak["paper_mean"].notna()].groupby("regime").size()
    whole = counts.index[counts == len(SYNTHETIC) * len(SEVEN)]
    rows = rows_of(printed[printed["regime"].isin(whole)])
    return {(row.regime, row.query): row.rank_sum for row in rows}


def _rank_notes(sums: Mapping[tuple[str, str], float], selection: Selection) -> list[str]:
    """Who is not ranked, and where fewer than the paper's seven are: sums of fewer ranks are lower."""
    notes = []
    others = [method_name(query) for query in selection.queries if query not in SEVEN]
    if others:
        notes.append(f"Not ranked, as the paper's seven alone are: {', '.join(others)}.")
    counts = {regime: sum(r == regime for r, _ in sums) for regime in REGIMES}
    few = [f"{count} in {regime}" for regime, count in counts.items() if 0 < count < len(SEVEN)]
    if few:
        notes.append(f"Fewer methods than the paper's seven are ranked ({', '.join(few)}): sums are lower.")
    return notes


def _chance(line: TableLine, title: str) -> TableLine:
    """The chance level of each cell of this line."""
    return TableLine(title, "level", [key._replace(query=CHANCE) for key in line.keys], "")


def _queries(selection: Selection) -> list[str]:
    """The paper's seven, run or not, then other query methods of the selection, then its controls."""
    others = [query for query in selection.queries if query not in SEVEN]
    return [*SEVEN, *(q for q in others if q not in CONTROLS), *(q for q in others if q in CONTROLS)]


def _subsets(dataset: str) -> list[str]:
    """A modality, both, the other: the paper's columns."""
    return subset_order(list(SUBSETS[dataset].values()))


def _weak(selection: Selection) -> dict[str, str]:
    return {**ITALIC, **selection.weak}
